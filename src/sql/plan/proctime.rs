//! `PROCTIME()` and `CURRENT_ROW_TIMESTAMP()` in a query over one stream: the time of each row's own commit, its `_ingested_at`.
//!
//! Over all else they are `now()`: rows of tables and views, and of joins, have no commit of their own. In a query that runs on that
//! is an error, which says what `now()` can be compared with.

use sqlparser::ast as sp;

use super::names::fold_object;
use super::one_stream::{self, Part};
use super::{Hidden, Planner};
use crate::sql::ast::change_outside_subqueries;

const FUNCTIONS: [&str; 2] = ["proctime", "current_row_timestamp"];

/// Puts the column in the place of the calls.
pub(super) fn of_rows(query: &mut sp::Query, planner: &Planner) {
    one_stream::change(query, planner, |_, part| match part {
        Part::Select(select) => put_columns(select),
        Part::OrderBy(order_by) => change_outside_subqueries(order_by, put_column),
    });
}

fn put_columns(select: &mut sp::Select) {
    for item in &mut select.projection {
        if let sp::SelectItem::UnnamedExpr(expr) = item
            && let Some(name) = called(expr)
        {
            *item = sp::SelectItem::ExprWithAlias { expr: expr.clone(), alias: sp::Ident::new(name) };
        }
    }
    change_outside_subqueries(&mut select.distinct, put_column);
    change_outside_subqueries(&mut select.projection, put_column);
    change_outside_subqueries(&mut select.selection, put_column);
    change_outside_subqueries(&mut select.group_by, put_column);
    change_outside_subqueries(&mut select.having, put_column);
    change_outside_subqueries(&mut select.named_window, put_column);
    change_outside_subqueries(&mut select.qualify, put_column);
}

fn put_column(expr: &mut sp::Expr) {
    if called(expr).is_some() {
        *expr = sp::Expr::Identifier(sp::Ident::new(Hidden::IngestedAt.name()));
    }
}

fn called(expr: &sp::Expr) -> Option<&'static str> {
    let sp::Expr::Function(function) = expr else { return None };
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    let (schema, name) = fold_object(&function.name)?;
    let known = FUNCTIONS.into_iter().find(|known| *known == name)?;
    (schema.is_none() && list.args.is_empty() && function.over.is_none()).then_some(known)
}
