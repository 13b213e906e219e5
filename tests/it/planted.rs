//! Each planted bug ([`tidegate::planted`]) is caught: with it, the tests that guard against it fail, and say what is wrong;
//! without it, the same build passes them.

use std::process::Command;

use rstest::rstest;

use crate::say;

/// Run one test of this binary, perhaps with a bug: whether it passed, and what it printed.
fn run(test: &str, bug: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
    command.args([test, "--exact", "--nocapture"]).env("RUST_BACKTRACE", "0").env_remove("TIDEGATE_PLANTED_BUG");
    if let Some(bug) = bug {
        command.env("TIDEGATE_PLANTED_BUG", bug);
    }
    let output = command.output().expect("a test can be run");
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(printed.contains("running 1 test"), "there is no test {test}:\n{printed}");
    (output.status.success(), printed)
}

const CRASH: &str = "crash::at_any_operation_of_the_store";
const KILL: &str = "kill::nothing_acknowledged_is_lost_and_nothing_doubled";
const ORACLE: &str = "oracle::every_view_equals_the_batch_answer_after_every_commit";
const POWER_CUT: &str = "power_cut::what_was_acknowledged_survives";
const TRANSFERS: &str = "transfers::the_total_is_zero_at_every_moment";

#[rstest]
#[case::ack_before_flush_by_crash("ack-before-flush", CRASH, "are lost")]
#[case::ack_before_flush_by_power_cut("ack-before-flush", POWER_CUT, "is lost")]
#[case::skip_row_by_crash("skip-row", CRASH, "the view differs from its stream")]
#[case::skip_row_by_kill("skip-row", KILL, "the view differs from its stream")]
#[case::skip_row_by_oracle("skip-row", ORACLE, "differs from its batch answer")]
#[case::batch_twice_by_crash("batch-twice", CRASH, "the view differs from its stream")]
#[case::batch_twice_by_kill("batch-twice", KILL, "the view differs from its stream")]
#[case::batch_twice_by_oracle("batch-twice", ORACLE, "differs from its batch answer")]
#[case::other_commit_by_oracle("other-commit", ORACLE, "differs from its batch answer")]
#[case::other_commit_by_transfers("other-commit", TRANSFERS, "the views of one snapshot show different moments")]
#[case::late_row_by_oracle("late-row", ORACLE, "differs from its batch answer")]
#[case::late_row_by_lateness("late-row", "slt::plain", "lateness.slt")]
fn a_bug_is_caught(#[case] bug: &str, #[case] test: &str, #[case] says: &str) {
    let (passed, printed) = run(test, Some(bug));
    if printed.contains("SKIPPED") {
        return say(&format!("planted {bug}: SKIPPED, {test} cannot run here"));
    }
    assert!(!passed, "{test} passes with {bug}:\n{printed}");
    assert!(printed.contains(says), "{test} fails with {bug}, but does not say '{says}':\n{printed}");
}

#[rstest]
#[case(CRASH)]
#[case(ORACLE)]
#[case(TRANSFERS)]
#[case("slt::plain")]
fn without_a_bug_the_same_test_passes(#[case] test: &str) {
    let (passed, printed) = run(test, None);
    assert!(passed, "{test} fails without a bug:\n{printed}");
}
