//! A subscription that begins at a former commit: everything that it reads, computed once more from the log.
//!
//! The engine keeps the rows of views as they are, not as they were. So what is followed and all that it reads, tables and
//! views, is put into a graph of its own; a thread ([`super::build`]) runs the log through it: silently up to the commit, then every
//! change goes to the subscriber. When it has come to where the engine is, the engine's own tables and views take the place of
//! the copies, and the subscriber goes on with their changes, without a gap.

use super::Engine;
use super::build::{Replay, sinks_of};
use super::subscribe::{Span, query_sink};
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId};
use crate::error::{Error, Result};
use crate::flow::sink::{Sink, Target};
use crate::flow::{Fragment, Graph};
use crate::log;
use crate::view::Store;

/// What is being put together.
struct Copies {
    graph: Graph,
    log: Catalog,
    seen: Vec<RelationId>,
    doubled: Vec<RelationId>,
}

impl Engine {
    /// A graph of these relations and the query that reads them, at the beginning of the log, or wherever it may begin.
    pub(super) fn replay_of(&mut self, reads: &[RelationId], query: Option<(u64, Fragment)>, span: &Span) -> Result<Replay> {
        let mut copies = Copies { graph: self.graph.nursery(), log: Catalog::default(), seen: Vec::new(), doubled: Vec::new() };
        for id in reads {
            self.copy(*id, &mut copies)?;
        }
        // What remembers nothing need not be told what was before.
        let stateless =
            copies.doubled.is_empty() && query.as_ref().is_some_and(|(_, f)| f.nodes.iter().all(|n| n.keeps.is_empty()));
        if let Some((number, fragment)) = query {
            let (output, sink) = (fragment.output.clone(), query_sink(number, &fragment));
            copies.graph.add(Target::Query(number), fragment, vec![(output, sink)])?;
        }
        let mut commit = 0;
        if let (true, false, Some(as_of)) = (stateless, span.snapshot, span.as_of) {
            commit = as_of;
            copies.graph.set_watermarks(log::watermarks_at(self.shared.log.reader().as_ref(), &copies.seen, commit)?);
        }
        Ok(Replay { graph: copies.graph, log: copies.log, doubled: copies.doubled, commit })
    }

    /// A relation, after all that it reads.
    fn copy(&self, id: RelationId, copies: &mut Copies) -> Result<()> {
        if copies.seen.contains(&id) {
            return Ok(());
        }
        copies.seen.push(id);
        let gone = || Error::undefined_table("a relation that the query reads is gone");
        let relation = self.catalog.get(id).ok_or_else(gone)?;
        match relation.kind {
            Kind::Stream => copies.log.apply(&Change::Create(Relation::clone(relation))),
            Kind::Table => {
                copies.log.apply(&Change::Create(Relation::clone(relation)));
                let store = Store::new("rows", relation.stored_schema(), relation.stored_key());
                copies.graph.add_table(id, Sink::table(id, store));
                copies.doubled.push(id);
            }
            Kind::Late => self.copy(relation.parent.ok_or_else(gone)?, copies)?,
            _ => {
                let fragment = self.makers.compiler.compile(&self.next.catalog, relation)?;
                for read in fragment.reads() {
                    self.copy(read, copies)?;
                }
                let sinks = sinks_of(relation, &fragment, &self.next.catalog);
                copies.graph.add(Target::Relation(id), fragment, sinks)?;
                copies.doubled.push(id);
            }
        }
        Ok(())
    }
}
