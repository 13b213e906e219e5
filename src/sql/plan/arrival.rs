//! `array_agg(x)` and its kin, of the rows of one stream, go by the order in which these came.
//!
//! SQL leaves that order open where no ORDER BY says it, but users of streams mean it, and the log knows it:
//!
//! | written, over a stream or a window function of one | planned |
//! | --- | --- |
//! | `array_agg(x)`, `string_agg(x, ',')` | `array_agg(x ORDER BY _offset)`, … |
//! | `first_value(x)`, `last_value(x)` | `arg_min(x, _offset)`, `arg_max(x, _offset)` |
//!
//! Of a stream with several partitions they have ORDER BY _commit, _partition, _offset: rows that were written together come
//! partition by partition.
//!
//! Over tables, views and joins there is no such order; values go by their own there ([`super::order`]).

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::names::{Ctes, fold_object, only_stream};
use super::{Hidden, Planner};
use crate::sql::ast::change_outside_subqueries;

/// Aggregates whose answer depends on the order of the rows.
const OF_ORDER: [&str; 4] = ["array_agg", "string_agg", "first_value", "last_value"];

/// Those that are of one row, and what finds it.
const OF_ONE_ROW: [(&str, &str); 2] = [("first_value", "arg_min"), ("last_value", "arg_max")];

/// Where a row came, among those of all partitions.
const PLACE: [Hidden; 3] = [Hidden::Commit, Hidden::Partition, Hidden::Offset];

/// Gives the aggregates of a query their order.
pub(super) fn order(query: &mut sp::Query, planner: &Planner) {
    let _ = query.visit(&mut Selects { planner, ctes: Ctes::default() });
}

struct Selects<'a> {
    planner: &'a Planner,
    ctes: Ctes,
}

impl VisitorMut for Selects<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
        if let (sp::SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by)
            && let Some(partitions) = self.partitions_read(select)
        {
            change_outside_subqueries(order_by, |expr| order_call(expr, partitions));
        }
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    /// After its subqueries, which have rows of their own.
    fn post_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
        if let Some(partitions) = self.partitions_read(select) {
            let mut order = |expr: &mut sp::Expr| order_call(expr, partitions);
            change_outside_subqueries(&mut select.distinct, &mut order);
            change_outside_subqueries(&mut select.projection, &mut order);
            change_outside_subqueries(&mut select.having, &mut order);
            change_outside_subqueries(&mut select.qualify, &mut order);
        }
        ControlFlow::Continue(())
    }
}

impl Selects<'_> {
    /// How many partitions the one stream has that a SELECT reads, if that is what it reads.
    fn partitions_read(&self, select: &sp::Select) -> Option<u32> {
        Some(only_stream(select, self.planner, &self.ctes)?.partitions)
    }
}

/// Gives a call its order.
fn order_call(expr: &mut sp::Expr, partitions: u32) {
    let sp::Expr::Function(call) = expr else { return };
    let Some((None, name)) = fold_object(&call.name) else { return };
    let sp::FunctionArguments::List(list) = &mut call.args else { return };
    let is_ordered = list.clauses.iter().any(|clause| matches!(clause, sp::FunctionArgumentClause::OrderBy(_)));
    let is_distinct = list.duplicate_treatment == Some(sp::DuplicateTreatment::Distinct);
    if call.over.is_some() || !call.within_group.is_empty() || !OF_ORDER.contains(&name.as_str()) || is_ordered || is_distinct {
        return;
    }
    let column = |hidden: Hidden| sp::Expr::Identifier(sp::Ident::new(hidden.name()));
    match OF_ONE_ROW.iter().find(|(known, _)| *known == name) {
        Some((_, found))
            if partitions == 1 && list.args.len() == 1 && list.clauses.is_empty() && call.null_treatment.is_none() =>
        {
            list.args.push(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(column(Hidden::Offset))));
            call.name = sp::ObjectName::from(vec![sp::Ident::new(*found)]);
        }
        _ => {
            let place: &[Hidden] = if partitions == 1 { &[Hidden::Offset] } else { &PLACE };
            let by = |hidden: &Hidden| sp::OrderByExpr {
                expr: column(*hidden),
                options: sp::OrderByOptions { asc: None, nulls_first: None },
                with_fill: None,
            };
            list.clauses.push(sp::FunctionArgumentClause::OrderBy(place.iter().map(by).collect()));
        }
    }
}
