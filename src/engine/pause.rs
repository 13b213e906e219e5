//! Paused queries: their rows stay as they were at a commit, and nothing of them runs.
//!
//! From the commit that pauses a view on, the graph holds its rows without operators, and checkpoints keep them. A start from an
//! older checkpoint, or from the log alone, runs the view up to that commit and pauses it there again. To resume is to replace
//! the view by itself ([`super::swap`]).
//!
//! What a query writes is in the log, and so is how far it has come: one that is paused is given up, but for its late rows, and
//! one that is resumed is built from the log and goes on from there ([`super::output`]). What reads a derived stream runs on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::late_relation;
use super::checkpoint::fingerprint;
use super::swap::paused_error;
use super::{Engine, owner_of};
use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::sink::{Sink, Target};
use crate::log::{Commit, CommitId};
use crate::view::{Store, Version};

/// Queries that are to be paused after these commits, when they are run again.
pub(super) type Pauses = BTreeMap<CommitId, Vec<RelationId>>;

/// The queries that a commit pauses, by the catalog before it, and those that write to the log and are resumed by it: views are
/// replaced.
pub(super) fn paused_or_resumed(commit: &Commit, before: &Catalog) -> (Vec<RelationId>, Vec<RelationId>) {
    let (mut paused, mut resumed) = (Vec::new(), Vec::new());
    for change in &commit.changes {
        let Change::Alter(relation) = change else { continue };
        let was_paused = before.get(relation.id).is_some_and(|before| before.paused.is_some());
        match (was_paused, relation.paused) {
            (false, Some(_)) => paused.push(relation.id),
            (true, None) => resumed.push(relation.id),
            _ => {}
        }
    }
    (paused, resumed)
}

/// It is paused, and the graph has nothing of it: its rows are in the log, and no row was late for it.
pub(super) fn rests(query: &Relation, catalog: &Catalog) -> bool {
    query.paused.is_some() && query.output.is_some() && late_relation(catalog, query.id).is_none()
}

impl Engine {
    /// Keep the rows of these queries as they are, and nothing else of them.
    pub(super) fn pause(&mut self, queries: &[RelationId]) {
        // Readers first: they end because they are paused, not because what they read is.
        for id in queries.iter().rev() {
            if let Err(error) = self.pause_query(*id) {
                let target = self.catalog.get(*id).map_or(Target::Relation(*id), |query| owner_of(query));
                self.stop_query(target, error);
            }
        }
        self.checkpointer.hurry();
        self.publish();
    }

    fn pause_query(&mut self, id: RelationId) -> Result<()> {
        let Some(query) = self.catalog.get(id).cloned() else { return Ok(()) };
        let target = owner_of(&query);
        // Who reads a derived stream reads the log.
        if query.output.is_none() {
            self.end_readers(id, &paused_error(&query));
        }
        let rows = kept_rows(&query, &self.catalog);
        let versions: Vec<_> = rows.iter().map(|r| self.graph.version(Target::Relation(r.id))).collect();
        self.graph.remove(target);
        self.builds.end(target);
        let mut sinks = Vec::new();
        for (relation, version) in rows.iter().zip(versions) {
            let version = version.ok_or_else(|| Error::not_ready("it was paused before it had rows; RESUME it"))?;
            sinks.push(kept(relation, Some(&version))?);
        }
        if rests(&query, &self.catalog) {
            return Ok(());
        }
        self.graph.add_rows(target, sinks);
        self.checkpointer.entered(id, fingerprint(None, &query));
        self.refresh(rows.iter().map(|r| Target::Relation(r.id)).collect::<Vec<_>>());
        Ok(())
    }

    /// A paused query, its rows still to be loaded.
    pub(super) fn enter_paused(&mut self, query: &Arc<Relation>, catalog: &Catalog) -> Result<()> {
        let rows = kept_rows(query, catalog);
        let sinks = rows.iter().map(|relation| kept(relation, None)).collect::<Result<Vec<_>>>()?;
        self.graph.add_rows(owner_of(query), sinks);
        self.checkpointer.entered(query.id, fingerprint(None, query));
        Ok(())
    }

    /// A query goes on from what the log has of it: as if the server had been started again.
    pub(super) fn resume_output(&mut self, id: RelationId) {
        let Some(query) = self.catalog.get(id).cloned() else { return };
        self.graph.remove(owner_of(&query));
        self.build_view(&query);
    }
}

/// The relations whose rows a paused query keeps: itself, if it is a view, and its late rows.
fn kept_rows(query: &Arc<Relation>, catalog: &Catalog) -> Vec<Arc<Relation>> {
    let own = query.output.is_none().then_some(query);
    own.into_iter().chain(late_relation(catalog, query.id)).cloned().collect()
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
