//! SELECTs that read one stream alone: each of their rows is a row of the log, which knows where and when it came.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::Planner;
use super::names::{Ctes, read_in_from};
use crate::catalog::{Kind, Relation};

/// What such a query is made of.
pub(super) enum Part<'q> {
    Select(&'q mut sp::Select),
    /// Behind it.
    OrderBy(&'q mut sp::OrderBy),
}

/// Changes such SELECTs within a query, after their subqueries, which have rows of their own.
pub(super) fn change(query: &mut sp::Query, planner: &Planner, change: impl FnMut(&Relation, Part<'_>)) {
    let _ = query.visit(&mut Selects { planner, ctes: Ctes::default(), change });
}

struct Selects<'a, F> {
    planner: &'a Planner,
    ctes: Ctes,
    change: F,
}

impl<F: FnMut(&Relation, Part<'_>)> VisitorMut for Selects<'_, F> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
        if let (sp::SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by)
            && let Some(stream) = self.stream_read(select)
        {
            (self.change)(stream, Part::OrderBy(order_by));
        }
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
        if let Some(stream) = self.stream_read(select) {
            (self.change)(stream, Part::Select(select));
        }
        ControlFlow::Continue(())
    }
}

impl<'a, F> Selects<'a, F> {
    /// The one stream that a SELECT reads, perhaps in windows, if that is all that it reads.
    fn stream_read(&self, select: &sp::Select) -> Option<&'a Relation> {
        let [sp::TableWithJoins { relation: sp::TableFactor::Table { name, args, .. }, joins }] = select.from.as_slice() else {
            return None;
        };
        let read = read_in_from(name, args.as_ref()).filter(|read| joins.is_empty() && !self.ctes.means(read))?;
        self.planner.relation(&read).map(AsRef::as_ref).filter(|relation| relation.kind == Kind::Stream)
    }
}
