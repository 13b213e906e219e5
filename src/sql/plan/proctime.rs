//! `PROCTIME()` and `CURRENT_ROW_TIMESTAMP()` in a query over one stream: the time of each row's own commit, its `_ingested_at`.
//!
//! Over all else they are `now()`: rows of tables and views, and of joins, have no commit of their own. In a query that runs on that
//! is an error, which says what `now()` can be compared with.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::names::{Ctes, fold_object, window_input};
use super::{Hidden, Planner};
use crate::catalog::Kind;

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
            let _ = order_by.visit(&mut Calls { depth: 0 });
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
        let mut calls = Calls { depth: 0 };
        let _ = select.projection.visit(&mut calls);
        let _ = select.selection.visit(&mut calls);
        let _ = select.group_by.visit(&mut calls);
        let _ = select.having.visit(&mut calls);
        let _ = select.named_window.visit(&mut calls);
        ControlFlow::Continue(())
    }
}

impl Selects<'_> {
    /// Is all that it reads one stream, perhaps in windows?
    fn reads_stream(&self, select: &sp::Select) -> bool {
        let [sp::TableWithJoins { relation: sp::TableFactor::Table { name, args, .. }, joins }] = select.from.as_slice() else {
            return false;
        };
        let read = match args {
            None => Some(name.clone()),
            Some(args) => window_input(name, args),
        };
        joins.is_empty()
            && read.is_some_and(|name| {
                let is_cte = fold_object(&name).is_some_and(|(schema, name)| schema.is_none() && self.ctes.has(&name));
                !is_cte && self.planner.relation(&name).is_some_and(|relation| relation.kind == Kind::Stream)
            })
    }
}

/// Of one select: its subqueries are passed over.
struct Calls {
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
        if self.depth == 0 && called(expr).is_some() {
            *expr = sp::Expr::Identifier(sp::Ident::new(Hidden::IngestedAt.name()));
        }
        ControlFlow::Continue(())
    }
}

fn called(expr: &sp::Expr) -> Option<&'static str> {
    let sp::Expr::Function(function) = expr else { return None };
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    let (schema, name) = fold_object(&function.name)?;
    let known = FUNCTIONS.into_iter().find(|known| *known == name)?;
    (schema.is_none() && list.args.is_empty() && function.over.is_none()).then_some(known)
}
