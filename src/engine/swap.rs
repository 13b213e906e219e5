//! Replacing: new definitions of views, built beside the old ones and swapped in at a commit.
//!
//! ```text
//!   prepare ─► build in a nursery ─► run beside the old ─► ready ─► the caller commits the changes of the catalog
//!                                                                        │ commit n
//!   old rows up to snapshot n - 1 ───────────────────────────────────────┴── new rows from snapshot n on
//! ```
//!
//! Nothing is in the log before the build is ready: one that fails, is given up, or ends with the process leaves everything as it
//! was. After a restart the log has either the old definition or the new one, and the views are built from it.
//!
//! The build is found again by the changes that its commit makes. Views are replaced together with those that read them, so the
//! graph stays in order and no reader sees rows of two definitions.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use futures_channel::oneshot;

use super::build::{Build, Plan};
use super::checkpoint::fingerprint;
use super::{Command, Engine, EngineHandle, Shared};
use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::error::{Error, Result};
use crate::flow::Fragment;
use crate::flow::sink::Target;
use crate::log::Commit;
use crate::view::Version;

/// Views to be built for changes of the catalog.
pub struct Rebuild {
    /// As it will be.
    pub catalog: Arc<Catalog>,
    /// The views that are new or replaced, with their operators; those that read others after them.
    pub views: Vec<(Relation, Fragment)>,
    /// What the commit will say.
    pub changes: Vec<Change>,
}

impl Rebuild {
    fn fingerprints(&self) -> Vec<String> {
        self.views.iter().map(|(view, fragment)| fingerprint(Some(fragment), view)).collect()
    }
}

/// Views that are up to date and wait for the commit of their changes. Dropped, they are given up.
pub struct Prepared {
    changes: Vec<Change>,
    fingerprints: Vec<String>,
    /// Also set by the engine, when what the views read is replaced or they fail.
    abandoned: Arc<AtomicBool>,
    engine: Weak<Shared>,
}

impl Prepared {
    /// Whether these are the views, with the same operators.
    pub fn is_for(&self, rebuild: &Rebuild) -> bool {
        let lost = self.abandoned.load(Ordering::SeqCst);
        !lost && self.changes == rebuild.changes && self.fingerprints == rebuild.fingerprints()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::SeqCst);
        if let Some(engine) = self.engine.upgrade() {
            engine.log.wake();
        }
    }
}

/// The commit that a build is for.
pub(super) struct Awaited {
    changes: Vec<Change>,
    ready: Option<oneshot::Sender<Result<()>>>,
}

impl Awaited {
    pub fn tell(&mut self, result: Result<()>) {
        // Who no longer waits is not told; a build that goes back to its thread has been told already.
        let _ = self.ready.take().map(|ready| ready.send(result));
    }
}

/// A request to prepare.
pub(super) struct Prepare {
    rebuild: Rebuild,
    ready: oneshot::Sender<Result<()>>,
    abandoned: Arc<AtomicBool>,
}

impl EngineHandle {
    /// Build views for changes that are to be committed when they are ready. Not to await it any more gives them up.
    pub async fn prepare(&self, rebuild: Rebuild) -> Result<Prepared> {
        let (ready, receiver) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let prepared = Prepared {
            changes: rebuild.changes.clone(),
            fingerprints: rebuild.fingerprints(),
            abandoned: Arc::clone(&abandoned),
            engine: Arc::downgrade(&self.shared),
        };
        self.shared.command(Command::Prepare(Box::new(Prepare { rebuild, ready, abandoned })));
        receiver.await.map_err(|_| Error::shutting_down("the build has ended: the engine has stopped"))??;
        Ok(prepared)
    }
}

impl Engine {
    pub(super) fn prepare(&mut self, request: Prepare) {
        let Prepare { rebuild, ready, abandoned } = request;
        let Rebuild { catalog, views, changes } = rebuild;
        let plans = views.into_iter().map(|(view, fragment)| Plan::of_view(&view, fragment, &catalog)).collect();
        let mut awaited = Some(Awaited { changes, ready: Some(ready) });
        if let (Err(error), Some(mut awaited)) = (self.begin(plans, None, &mut awaited, abandoned, &catalog), awaited) {
            awaited.tell(Err(error));
        }
    }

    /// The build that waits for the commit of these changes.
    pub(super) fn take_prepared(&mut self, commit: &Commit) -> Option<Build> {
        let prepared = &mut self.builds.prepared;
        let is_it = |build: &Build| build.awaited.as_ref().is_some_and(|awaited| awaited.changes == commit.changes);
        prepared.iter().position(is_it).map(|at| prepared.remove(at))
    }

    /// Put new definitions in place of the old ones, between the commit before and this one. The catalog has it already.
    pub(super) fn swap(&mut self, commit: &Commit, build: Option<Build>) -> Swap {
        let mut swap = Swap::default();
        for relation in replaced(commit) {
            // The rows of both kinds are kept by the view's nodes.
            swap.old.push((relation.id, self.next.versions.get(&relation.id).cloned()));
            self.retire(relation.id, &replaced_error(&relation.name, commit));
        }
        if let Some(build) = build {
            let targets: Vec<Target> = build.parts.iter().map(|part| part.target).collect();
            match self.promote(build) {
                Ok(()) => swap.done.extend(targets),
                Err(error) => tracing::error!(%error, "views could not be swapped in; they are built again"),
            }
        }
        if !swap.old.is_empty() {
            self.checkpointer.hurry();
        }
        swap
    }

    /// A view's nodes go.
    fn retire(&mut self, id: RelationId, why: &Error) {
        let target = Target::Relation(id);
        self.end_readers(id, why);
        self.graph.remove(target);
        self.builds.abandon(target);
        self.next.versions.remove(&id);
        self.next.failures.remove(&id);
    }

    /// Running queries that read this relation end, for good reason, and staged views that do are given up.
    pub(super) fn end_readers(&mut self, id: RelationId, why: &Error) {
        for build in self.builds.prepared.iter().filter(|build| build.reads(id)) {
            build.abandoned.store(true, Ordering::SeqCst);
        }
        self.remove_abandoned();
        for reader in self.graph.readers_of(id) {
            if let Target::Query(query) = reader {
                self.subscribers.fail(query, why.clone());
                self.graph.remove(reader);
            }
        }
    }

    /// Subscribers of the replaced views go on from the new rows, where these have the same columns. They are told before the rest
    /// of the commit is.
    pub(super) fn tell_swapped(&mut self, commit: &Commit, swap: &Swap) {
        for (id, old) in &swap.old {
            let new = self.next.versions.get(id).cloned();
            let name = self.catalog.get(*id).map_or_else(|| id.to_string(), |r| r.full_name().to_string());
            self.subscribers.swapped(*id, commit.id, commit.time, [old.clone(), new], &replaced_error(&name, commit));
        }
    }
}

/// What a swap did.
#[derive(Default)]
pub(super) struct Swap {
    /// The replaced views, and the rows that they had.
    old: Vec<(RelationId, Option<Arc<Version>>)>,
    /// What runs, or is known to have failed, and need not be built.
    pub done: HashSet<Target>,
}

/// Views, and relations of late rows.
fn replaced(commit: &Commit) -> impl Iterator<Item = &Relation> {
    commit.changes.iter().filter_map(|change| match change {
        Change::Replace(relation) => Some(relation),
        _ => None,
    })
}

fn replaced_error(name: &str, commit: &Commit) -> Error {
    Error::not_ready(format!("\"{name}\" was replaced at commit {}", commit.id))
        .with_hint("subscribe again: it begins with the rows that the new definition has")
}

/// What became of queries that read a view when it was paused.
pub(super) fn paused_error(view: &Relation) -> Error {
    let at = view.paused.unwrap_or_default();
    Error::not_ready(format!("\"{}\" was paused at commit {at}", view.name)).with_hint("RESUME it, then ask again")
}
