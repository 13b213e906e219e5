//! The protocol byte by byte: what no driver would send, and the order of what is answered.

use super::*;

#[tokio::test]
async fn startup_agrees_on_encryption_version_and_settings() {
    let server = start().await;
    let mut raw = server.socket().await;
    for request in [80_877_103u32, 80_877_104] {
        raw.send(&[&[0, 0, 0, 8], &request.to_be_bytes()[..]].concat()).await;
        assert_eq!(raw.socket.read_u8().await.unwrap(), b'N');
    }
    raw.startup(3 << 16 | 9999, &[("user", "anna"), ("application_name", "test"), ("_pq_.new", "1"), ("options", "-c a=b")])
        .await;
    let shown = raw.until_ready().await;
    assert!(shown.starts_with("v R S"), "{shown}");
    assert!(shown.ends_with("K S S Z:I"), "{shown}");
    assert!(raw.parameter("server_version").unwrap().starts_with("15.0 (Tidegate"));
    assert_eq!(raw.parameter("session_authorization").unwrap(), "anna");
    assert_eq!(raw.parameter("application_name").unwrap(), "test");
    assert_eq!(raw.parameter("a").unwrap(), "b");
    assert_eq!(raw.greeting[0].1[..8], [0, 3, 0, 2, 0, 0, 0, 1]);
    assert_eq!(raw.key().len(), 4 + 32, "a secret of protocol 3.2 is long");
}

#[rstest::rstest]
#[case::too_long(&[0, 0, 0x27, 0x11, 0, 3, 0, 0], "E:08P01")]
#[case::too_short(&[0, 0, 0, 7, 0, 3, 0], "E:08P01")]
#[case::old_version(&[0, 0, 0, 9, 0, 2, 0, 0, 0], "E:0A000")]
#[case::no_user(&[0, 0, 0, 9, 0, 3, 0, 0, 0], "E:28000")]
#[case::no_terminator(b"\0\0\0\x0e\0\x03\0\0user\0a", "E:08P01")]
#[case::refused_user(b"\0\0\0\x15\0\x03\0\0user\0nobody\0\0", "E:42501")]
#[case::cancel_without_key(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2e], "E:08P01")]
#[case::cancel_of_nothing(&[0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 1, 2, 3, 4], "")]
#[tokio::test]
async fn startup_refuses(#[case] packet: &[u8], #[case] expected: &str) {
    let server = start().await;
    let mut raw = server.socket().await;
    assert_eq!(raw.ask(packet).await, expected);
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let bound = Server::bind(&Options::loopback("0.0.0.0:0"), Arc::new(Fake::default()), QUERIES.handle().clone()).await;
    let error = bound.err().expect("it is refused");
    assert!(error.message().contains("other machines"), "{error}");
    for setting in ["TIDEGATE_TLS_CERT", "TIDEGATE_AUTH"] {
        assert!(error.hint().is_some_and(|hint| hint.contains(setting)), "{error}");
    }
}

#[rstest::rstest]
#[case::one("rows 2", "T D D C:SELECT 2 Z:I")]
#[case::several("rows 1; insert; rows 0", "T D C:SELECT 1 C:INSERT T C:SELECT 0 Z:I")]
#[case::empty(" ; ", "I Z:I")]
#[case::error_stops_the_rest("rows 1; fail; rows 1", "T D C:SELECT 1 E:42703 Z:I")]
#[case::syntax_error_runs_nothing("rows 1; nonsense", "E:42601 Z:I")]
#[case::error_among_rows("broken", "T D D E:22012 Z:I")]
#[case::transaction("begin; rows 0", "C:BEGIN T C:SELECT 0 Z:T")]
#[case::failed_block("begin; fail", "C:BEGIN E:42703 Z:E")]
#[case::notice("notice", "N:42P07 C:NOTICE Z:I")]
#[case::setting("set TimeZone Asia/Tokyo", "C:SET TIMEZONE ASIA/TOKYO S Z:I")]
#[case::parameters("echo 1", "E:42P02 Z:I")]
#[case::copy_out("copy out 2", "H d d d d c C:COPY 4 Z:I")]
#[tokio::test]
async fn simple_query(#[case] sql: &str, #[case] expected: &str) {
    assert_eq!(start().await.raw().await.ask(&query(sql)).await, expected);
}

#[tokio::test]
async fn a_failed_block_takes_nothing_but_its_end() {
    let server = start().await;
    let mut raw = server.raw().await;
    assert_eq!(raw.ask(&query("begin; fail")).await, "C:BEGIN E:42703 Z:E");
    assert_eq!(raw.ask(&query("rows 1")).await, "E:25P02 Z:E");
    assert_eq!(raw.ask(&[parse("", "rows 1"), sync()].concat()).await, "E:25P02 Z:E");
    assert_eq!(raw.ask(&query("rollback")).await, "C:ROLLBACK Z:I");
}

#[tokio::test]
async fn positions_count_from_the_start_of_the_string() {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.ask(&query("rows 0; fail")).await;
    let (_, body) = raw.greeting.iter().rfind(|(tag, _)| *tag == b'E').unwrap();
    let fields: Vec<_> = body.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    assert!(fields.contains(&"P10".into()), "{fields:?}");
    assert!(fields.contains(&"Hthere is \"y\"".into()), "{fields:?}");
}

#[tokio::test]
async fn portals_suspend_and_go_on() {
    let server = start().await;
    let mut raw = server.raw().await;
    let messages = [query("begin"), parse("s", "rows 5"), bind("p", "s"), execute("p", 2), execute("p", 2), sync()].concat();
    raw.send(&messages).await;
    assert_eq!(raw.until_ready().await, "C:BEGIN Z:T");
    assert_eq!(raw.until_ready().await, "1 2 D D s D D s Z:T");
    assert_eq!(raw.ask(&[execute("p", 0), execute("p", 0), sync()].concat()).await, "D C:SELECT 1 C:SELECT 0 Z:T");
    // The portal ends with its transaction, the statement does not.
    raw.ask(&query("commit")).await;
    assert_eq!(raw.ask(&[execute("p", 0), sync()].concat()).await, "E:34000 Z:I");
    assert_eq!(raw.ask(&[bind("", "s"), execute("", 0), sync()].concat()).await, "2 D D D D D C:SELECT 5 Z:I");
}

#[tokio::test]
async fn an_error_skips_to_the_next_sync() {
    let server = start().await;
    let mut raw = server.raw().await;
    let first = [parse("", "fail"), bind("", ""), execute("", 0), parse("x", "rows 1"), message(b'D', b"Sx\0"), sync()];
    let second = [parse("x", "rows 1"), message(b'D', b"Sx\0"), message(b'C', b"Sx\0"), bind("", "x"), sync()];
    raw.send(&[first.concat(), second.concat(), query("rows 0")].concat()).await;
    assert_eq!(raw.until_ready().await, "1 2 E:42703 Z:I");
    assert_eq!(raw.until_ready().await, "1 t T 3 E:26000 Z:I");
    assert_eq!(raw.until_ready().await, "T C:SELECT 0 Z:I");
}

#[rstest::rstest]
#[case::empty(&[parse("", ""), bind("", ""), message(b'D', b"P\0"), execute("", 0)], "1 2 n I")]
#[case::several_statements(&[parse("", "rows 1; rows 2")], "E:42601")]
#[case::same_name_twice(&[parse("a", "rows 1"), parse("a", "rows 1")], "1 E:42P05")]
#[case::deallocated(&[parse("a", "rows 1"), parse("", "deallocate all"), bind("", ""), execute("", 0), bind("", "a")], "1 1 2 C:DEALLOCATE ALL E:26000")]
#[case::unnamed_again(&[parse("", "rows 1"), parse("", "rows 1")], "1 1")]
#[case::portal_twice(&[parse("", "rows 1"), bind("p", ""), bind("p", "")], "1 2 E:42P03")]
#[case::no_rows(&[parse("", "insert"), message(b'D', b"S\0"), bind("", ""), execute("", 0), execute("", 0)], "1 t n 2 C:INSERT E:55000")]
#[case::planning_fails(&[parse("", "unprepared"), bind("", "")], "E:42P01")]
#[case::too_few_parameters(&[parse("", "echo 1"), bind("", "")], "1 E:08P01")]
#[case::truncated_bind(&[parse("", "rows 1"), message(b'B', b"\0\0\0\0\0\x05\0")], "1 E:08P01")]
#[case::unknown_portal(&[execute("x", 0)], "E:34000")]
#[tokio::test]
async fn extended_query(#[case] messages: &[Vec<u8>], #[case] expected: &str) {
    let server = start().await;
    let mut raw = server.raw().await;
    assert_eq!(raw.ask(&[messages.concat(), sync()].concat()).await, format!("{expected} Z:I"));
    assert_eq!(raw.ask(&query("rows 0")).await, "T C:SELECT 0 Z:I", "the connection goes on");
}

#[tokio::test]
async fn flush_sends_what_there_is() {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.send(&[parse("", "rows 1"), message(b'H', b"")].concat()).await;
    assert_eq!(raw.message().await, Some((b'1', vec![])));
}

#[tokio::test]
async fn an_error_is_sent_before_sync() {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.send(&[parse("", "unprepared"), message(b'H', b"")].concat()).await;
    assert_eq!(within(raw.message()).await.unwrap().0, b'E');
    assert_eq!(raw.ask(&sync()).await, "Z:I");
}

#[rstest::rstest]
#[case::unknown_type(&[0x7f, 0, 0, 0, 4], "E:08P01")]
#[case::huge_length(&[b'Q', 0x7f, 0xff, 0xff, 0xff], "E:54000")]
#[case::no_length(&[b'Q', 0, 0, 0, 0], "E:08P01")]
#[case::startup_again(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], "E:08P01")]
#[tokio::test]
async fn garbage_ends_the_connection(#[case] bytes: &[u8], #[case] expected: &str) {
    let server = start().await;
    let mut raw = server.raw().await;
    assert_eq!(raw.ask(bytes).await, expected);
    assert!(raw.message().await.is_none());
    server.raw().await;
}

#[tokio::test]
async fn what_is_cut_off_does_nothing() {
    let server = start().await;
    let whole = [query("copy in"), message(b'd', b"a\n"), message(b'c', b""), message(b'X', b"")].concat();
    for end in 0..whole.len() - 10 {
        let mut raw = server.raw().await;
        raw.send(&whole[..end]).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(server.copied.lock().is_empty());
}

#[rstest::rstest]
#[case::done(&[message(b'd', b"a\nb"), message(b'd', b"\n"), message(b'c', b"")], "G C:COPY 2 Z:I", b"a\nb\n")]
#[case::sync_at_once(&[sync(), message(b'd', b"a\n"), message(b'H', b""), message(b'c', b"")], "G C:COPY 1 Z:I", b"a\n")]
#[case::given_up(&[message(b'd', b"a\n"), message(b'f', b"no\0")], "G E:57014 Z:I", b"")]
#[case::bad_row(&[message(b'd', b"bad\n"), message(b'd', b"a\n"), message(b'c', b"")], "G E:22P04 Z:I", b"")]
#[case::other_message(&[message(b'd', b"a\n"), parse("", "rows 1"), message(b'c', b"")], "G E:08P01 Z:I", b"")]
#[tokio::test]
async fn copy_in(#[case] messages: &[Vec<u8>], #[case] expected: &str, #[case] kept: &[u8]) {
    let server = start().await;
    let mut raw = server.raw().await;
    assert_eq!(raw.ask(&[query("copy in"), messages.concat()].concat()).await, expected);
    assert_eq!(raw.ask(&query("rows 0")).await, "T C:SELECT 0 Z:I", "what was left of the copy is dropped");
    assert_eq!(&*server.copied.lock(), kept);
}

#[tokio::test]
async fn copy_in_by_messages() {
    let server = start().await;
    let mut raw = server.raw().await;
    let begin = [parse("", "copy in"), bind("", ""), execute("", 0), sync()].concat();
    let data = [message(b'd', b"a\n"), message(b'c', b""), sync()].concat();
    assert_eq!(raw.ask(&[begin.clone(), data].concat()).await, "1 2 G C:COPY 1 Z:I");
    let bad = [message(b'd', b"bad\n"), message(b'd', b"a\n"), message(b'c', b""), sync()].concat();
    assert_eq!(raw.ask(&[begin, bad].concat()).await, "1 2 G E:22P04 Z:I");
    assert_eq!(&*server.copied.lock(), b"a\n");
}

async fn cancel(server: &Running, key: &[u8]) {
    let mut packet = (12 + key.len() as u32 - 4).to_be_bytes().to_vec();
    packet.extend_from_slice(&80_877_102u32.to_be_bytes());
    packet.extend_from_slice(key);
    server.socket().await.send(&packet).await;
}

#[rstest::rstest]
#[case::while_executing("slow", "")]
#[case::while_rows_stream("endless", "T")]
#[case::while_rows_stream_live("endless live", "T")]
#[case::while_waiting_for_rows("live", "T D")]
#[case::while_copying("copy in", "G")]
#[tokio::test]
async fn cancel_ends_a_statement(#[case] sql: &str, #[case] begins: &str) {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.send(&query(sql)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut wrong = raw.key();
    wrong[4] ^= 1;
    cancel(&server, &wrong).await;
    cancel(&server, &raw.key()).await;
    let shown = raw.until_ready().await;
    assert!(shown.starts_with(begins) && shown.ends_with("E:57014 Z:I"), "{shown:.100}");
    // Cancelling nothing does not cancel what comes next.
    cancel(&server, &raw.key()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(raw.ask(&query("rows 0")).await, "T C:SELECT 0 Z:I");
}

#[tokio::test]
async fn rows_of_a_live_statement_are_sent_at_once() {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.send(&query("live")).await;
    assert_eq!(raw.message().await.unwrap().0, b'T');
    assert_eq!(raw.message().await.unwrap().0, b'D');
}

#[rstest::rstest]
#[case("live")]
#[case("endless")]
#[case("slow")]
#[tokio::test]
async fn a_client_that_goes_stops_its_statement(#[case] sql: &str) {
    let server = start().await;
    let mut raw = server.raw().await;
    raw.send(&query(sql)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.dropped.load(Ordering::SeqCst), 0);
    drop(raw);
    server.statement_dropped().await;
}

#[tokio::test]
async fn a_fault_ends_only_its_session() {
    let server = start().await;
    let (mut first, mut second) = (server.raw().await, server.raw().await);
    assert_eq!(first.ask(&query("fault")).await, "E:XX000");
    assert_eq!(second.ask(&query("rows 0")).await, "T C:SELECT 0 Z:I");
}

#[tokio::test]
async fn the_end_waits_for_statements_but_not_for_idle_or_live_ones() {
    let server = start().await;
    let (mut idle, mut live, mut busy) = (server.raw().await, server.raw().await, server.raw().await);
    live.send(&query("live")).await;
    busy.send(&query("copy in")).await;
    assert_eq!(busy.message().await.unwrap().0, b'G');
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    assert_eq!(idle.until_ready().await, "E:57P01");
    assert_eq!(live.until_ready().await, "T D E:57P01");
    busy.send(&[message(b'd', b"a\n"), message(b'c', b"")].concat()).await;
    assert_eq!(busy.until_ready().await, "C:COPY 1 Z:I");
    assert_eq!(busy.until_ready().await, "E:57P01");
    within(server.done).await.unwrap();
}

#[tokio::test]
async fn there_is_room_for_so_many_clients() {
    let server = start().await;
    let mut clients = Vec::new();
    for _ in 0..crate::limits::CONNECTIONS {
        clients.push(server.raw().await);
    }
    let mut late = server.socket().await;
    late.startup(3 << 16, &[("user", "late")]).await;
    assert_eq!(late.until_ready().await, "E:53300");
    drop(clients.pop());
    within(async {
        loop {
            let mut next = server.socket().await;
            next.startup(3 << 16, &[("user", "next")]).await;
            if next.until_ready().await.ends_with("Z:I") {
                break;
            }
        }
    })
    .await;
}
