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

use super::Planner;
use super::names::{Ctes, fold_object, window_input};
use super::source::Hidden;
use crate::catalog::Kind;

/// Aggregates whose answer depends on the order of the rows.
const OF_ORDER: [&str; 4] = ["array_agg", "string_agg", "first_value", "last_value"];

/// Those that are of one row, and what finds it.
const OF_ONE_ROW: [(&str, &str); 2] = [("first_value", "arg_min"), ("last_value", "arg_max")];

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

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
        if let Some(partitions) = self.partitions_read(select) {
            let mut calls = Calls { partitions, depth: 0 };
            for item in &mut select.projection {
                let _ = item.visit(&mut calls);
            }
            for expr in [&mut select.having, &mut select.qualify].into_iter().flatten() {
                let _ = expr.visit(&mut calls);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Selects<'_> {
    /// How many partitions the one stream has that a SELECT reads, if that is what it reads.
    fn partitions_read(&self, select: &sp::Select) -> Option<u32> {
        let [sp::TableWithJoins { relation: sp::TableFactor::Table { name, args, .. }, joins }] = select.from.as_slice() else {
            return None;
        };
        let stream = match args {
            None => name.clone(),
            Some(args) => window_input(name, args)?,
        };
        let is_cte = stream.0.len() == 1 && fold_object(&stream).is_some_and(|(_, name)| self.ctes.has(&name));
        let stream = self.planner.relation(&stream).filter(|stream| stream.kind == Kind::Stream && !is_cte)?;
        joins.is_empty().then_some(stream.partitions)
    }
}

/// The calls of a select, outside of its subqueries.
struct Calls {
    partitions: u32,
    depth: usize,
}

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let sp::Expr::Function(call) = expr
            && call.over.is_none()
            && call.within_group.is_empty()
            && let Some((None, name)) = fold_object(&call.name)
            && OF_ORDER.contains(&name.as_str())
            && let sp::FunctionArguments::List(list) = &mut call.args
            && list.duplicate_treatment != Some(sp::DuplicateTreatment::Distinct)
            && !list.clauses.iter().any(|clause| matches!(clause, sp::FunctionArgumentClause::OrderBy(_)))
        {
            let column = |hidden: Hidden| sp::Expr::Identifier(sp::Ident::new(hidden.name()));
            match OF_ONE_ROW.iter().find(|(known, _)| *known == name) {
                Some((_, found)) if self.partitions == 1 && list.args.len() == 1 && call.null_treatment.is_none() => {
                    list.args.push(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(column(Hidden::Offset))));
                    call.name = sp::ObjectName::from(vec![sp::Ident::new(*found)]);
                }
                _ => {
                    let place: &[Hidden] = match self.partitions {
                        1 => &[Hidden::Offset],
                        _ => &[Hidden::Commit, Hidden::Partition, Hidden::Offset],
                    };
                    let by = |hidden: &Hidden| sp::OrderByExpr {
                        expr: column(*hidden),
                        options: sp::OrderByOptions { asc: None, nulls_first: None },
                        with_fill: None,
                    };
                    list.clauses.push(sp::FunctionArgumentClause::OrderBy(place.iter().map(by).collect()));
                }
            }
        }
        ControlFlow::Continue(())
    }
}
