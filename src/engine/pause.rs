//! Paused views: their rows stay as they were at a commit, and nothing of them runs.
//!
//! From the commit that pauses a view on, the graph holds its rows without operators, and checkpoints keep them. A start from an
//! older checkpoint, or from the log alone, runs the view up to that commit and pauses it there again. To resume is to replace
//! the view by itself ([`super::swap`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::late_relation;
use super::checkpoint::fingerprint;
use super::swap::paused_error;
use super::{Engine, EngineHandle};
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::Graph;
use crate::flow::sink::{Sink, Target};
use crate::limits;
use crate::log::{Commit, CommitId};
use crate::view::{Snapshot, Store, Version};

/// Views that are to be paused after these commits, when they are run again.
pub(super) type Pauses = BTreeMap<CommitId, Vec<RelationId>>;

/// The views that a commit pauses, by the catalog before it.
pub(super) fn paused_by(commit: &Commit, before: &Catalog) -> Vec<RelationId> {
    let paused = commit.changes.iter().filter_map(|change| match change {
        Change::Alter(relation) if relation.kind == Kind::MaterializedView && relation.paused.is_some() => Some(relation.id),
        _ => None,
    });
    paused.filter(|id| before.get(*id).is_some_and(|r| r.paused.is_none())).collect()
}

impl Engine {
    /// Keep the rows of these views as they are, and nothing else of them.
    pub(super) fn pause(&mut self, views: &[RelationId]) {
        // Readers first: they end because they are paused, not because what they read is.
        for id in views.iter().rev() {
            if let Err(error) = self.pause_view(*id) {
                self.stop_query(Target::Relation(*id), error);
            }
        }
        self.checkpointer.hurry();
        self.publish();
    }

    fn pause_view(&mut self, id: RelationId) -> Result<()> {
        let Some(view) = self.catalog.get(id).cloned() else { return Ok(()) };
        let target = Target::Relation(id);
        self.end_readers(id, &paused_error(&view));
        let rows = [Some(&view), late_relation(&self.catalog, id)].into_iter().flatten().cloned().collect::<Vec<_>>();
        let versions: Vec<_> = rows.iter().map(|r| self.graph.version(Target::Relation(r.id))).collect();
        self.graph.remove(target);
        self.builds.abandon(target);
        let mut sinks = Vec::new();
        for (relation, version) in rows.iter().zip(versions) {
            let version = version.ok_or_else(|| Error::not_ready("it was paused before it had rows; RESUME it"))?;
            sinks.push(kept(relation, Some(&version))?);
        }
        self.graph.add_rows(target, sinks);
        self.checkpointer.entered(id, fingerprint(None, &view));
        self.refresh(rows.iter().map(|r| Target::Relation(r.id)).collect::<Vec<_>>());
        Ok(())
    }

    /// A paused view, its rows still to be loaded.
    pub(super) fn enter_paused(&mut self, view: &Relation, catalog: &Catalog) -> Result<()> {
        let rows = [Some(view), late_relation(catalog, view.id).map(Arc::as_ref)];
        let sinks = rows.into_iter().flatten().map(|relation| kept(relation, None)).collect::<Result<Vec<_>>>()?;
        self.graph.add_rows(Target::Relation(view.id), sinks);
        self.checkpointer.entered(view.id, fingerprint(None, view));
        Ok(())
    }
}

/// The rows of a view or of its late rows, kept.
fn kept(relation: &Relation, rows: Option<&Version>) -> Result<Sink> {
    let mut store = Store::new("rows", relation.schema(), relation.primary_key.clone());
    if let Some(version) = rows {
        let rows: Vec<Delta> = version.scan(None)?.into_iter().map(Delta::append).collect();
        store.apply(&rows)?;
    }
    Ok(Sink::view(relation.id, store))
}

impl EngineHandle {
    /// What a paused view is compared with: tables and watermarks as of the commit that it is of, and its own rows. Reads the
    /// log from its beginning, so it takes its time.
    pub fn snapshot_of_paused(&self, view: &Relation, now: &Snapshot) -> Result<Snapshot> {
        let at = view.paused.ok_or_else(|| Error::internal("the view is not paused"))?;
        let log = &self.shared.log;
        let mut graph = Graph::new(1)?;
        let mut tables = Catalog::default();
        for table in now.catalog.relations().filter(|r| r.kind == Kind::Table) {
            tables.apply(&Change::Create(Relation::clone(table)));
            let store = Store::new("rows", table.stored_schema(), table.stored_key());
            graph.add_table(table.id, Sink::table(table.id, store));
        }
        let mut then = Snapshot { catalog: Arc::clone(&now.catalog), ..Snapshot::default() };
        while then.commit < at {
            let commits = log.read(&tables, then.commit, at, limits::STEP_ROWS)?;
            let Some(last) = commits.last() else { break };
            (then.commit, then.time) = (last.id, last.time);
            if let Some((_, error)) = graph.step(&commits, &[]).failures.pop() {
                return Err(error);
            }
        }
        then.watermarks = graph.watermarks().collect();
        for table in tables.relations() {
            then.versions.extend(graph.version(Target::Relation(table.id)).map(|version| (table.id, version)));
        }
        let own = [Some(view.id), late_relation(&now.catalog, view.id).map(|late| late.id)].into_iter().flatten();
        then.versions.extend(own.filter_map(|id| Some((id, Arc::clone(now.versions.get(&id)?)))));
        Ok(then)
    }
}
