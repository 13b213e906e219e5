//! `PROCTIME()` and `CURRENT_ROW_TIMESTAMP()` in a query over one stream: the time of each row's own commit, its `_ingested_at`.
//!
//! Over all else they are `now()`: rows of tables and views, and of joins, have no commit of their own. In a query that runs on that
//! is an error, which says what `now()` can be compared with.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::names::{Ctes, fold_object, only_stream};
use super::{Hidden, Planner};
use crate::sql::ast::change_outside_subqueries;

const FUNCTIONS: [&str; 2] = ["proctime", "current_row_timestamp"];

/// Puts the column in the place of the calls.
pub(super) fn of_rows(query: &mut sp::Query, planner: &Planner) {
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
            && self.reads_stream(select)
        {
            change_outside_subqueries(order_by, put_column);
        }
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    /// After its subqueries, which have rows of their own.
    fn post_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
        if !self.reads_stream(select) {
            return ControlFlow::Continue(());
        }
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
        ControlFlow::Continue(())
    }
}

impl Selects<'_> {
    fn reads_stream(&self, select: &sp::Select) -> bool {
        only_stream(select, self.planner, &self.ctes).is_some()
    }
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
