//! What the engine does wrong when a bug is planted in it ([`crate::planted`]).

use std::collections::HashSet;
use std::sync::Arc;

use crate::flow::sink::Target;
use crate::log::{Commit, CommitId, Kind};
use crate::planted::bug;
use crate::view::Snapshot;

/// Commits as they go into the graph. `known`: the newest one when the engine started; those up to it are replayed.
pub(super) fn replayed(mut commits: Vec<Arc<Commit>>, known: CommitId) -> Vec<Arc<Commit>> {
    let appended = |commit: &Commit| commit.batches.iter().position(|batch| batch.header.kind == Kind::Append);
    let newest = commits.iter_mut().rev().filter(|commit| commit.id <= known);
    let Some((commit, at)) = newest.filter_map(|commit| appended(commit).map(|at| (commit, at))).next() else { return commits };
    let commit = Arc::make_mut(commit);
    if bug("skip-row") {
        let rows = &mut commit.batches[at].rows;
        *rows = rows.slice(1, rows.num_rows() - 1);
    }
    if bug("batch-twice") {
        commit.batches.push(commit.batches[at].clone());
    }
    commits
}

/// A snapshot as it is published after a step. `before`: the one before the step.
pub(super) fn published(mut snapshot: Snapshot, before: &Snapshot, changed: &HashSet<Target>) -> Snapshot {
    if bug("other-commit")
        && let Some(Target::Relation(relation)) = changed.iter().min()
        && let Some(version) = before.versions.get(relation)
    {
        snapshot.versions.insert(*relation, Arc::clone(version));
    }
    snapshot
}
