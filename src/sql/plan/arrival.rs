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

use sqlparser::ast as sp;

use super::names::fold_object;
use super::one_stream::{self, Part};
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
    one_stream::change(query, planner, |stream, part| {
        let mut order = |expr: &mut sp::Expr| order_call(expr, stream.partitions);
        match part {
            Part::Select(select) => {
                change_outside_subqueries(&mut select.distinct, &mut order);
                change_outside_subqueries(&mut select.projection, &mut order);
                change_outside_subqueries(&mut select.having, &mut order);
                change_outside_subqueries(&mut select.qualify, &mut order);
            }
            Part::OrderBy(order_by) => change_outside_subqueries(order_by, &mut order),
        }
    });
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
