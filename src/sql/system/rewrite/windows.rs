//! `OVER w`, `OVER (w ORDER BY …)`, `WINDOW w AS (…), v AS (w …)`: every call gets the window that its name means.
//!
//! The planner knows `OVER w` in a select list, and takes no notice of the name in `(w …)`.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::normal;
use crate::error::{Error, Result};

/// Replaces the names of windows in a select, which keeps no WINDOW clause; `order` are the expressions of its ORDER BY.
pub(super) fn resolve(select: &mut sp::Select, order: Option<&mut sp::OrderBy>) -> Result<()> {
    let mut named: Vec<Named> = Vec::new();
    for sp::NamedWindowDefinition(name, window) in std::mem::take(&mut select.named_window) {
        if named.iter().any(|(known, _)| *known == normal(&name)) {
            return Err(at(Error::windowing(format!("window {name} is already defined")), &name));
        }
        let spec = match window {
            sp::NamedWindowExpr::NamedWindow(other) => find(&named, &other)?.clone(),
            sp::NamedWindowExpr::WindowSpec(spec) => complete(&named, spec, false)?,
        };
        named.push((normal(&name), spec));
    }
    let mut calls = Calls { named: &named, depth: 0 };
    let mut result = ControlFlow::Continue(());
    let mut visit = |part: ControlFlow<Error>| {
        if result.is_continue() {
            result = part;
        }
    };
    select.projection.iter_mut().for_each(|item| visit(item.visit(&mut calls)));
    select.qualify.iter_mut().for_each(|condition| visit(condition.visit(&mut calls)));
    order.into_iter().for_each(|order| visit(order.visit(&mut calls)));
    match result {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A window by its name, folded.
type Named = (String, sp::WindowSpec);

fn find<'a>(named: &'a [Named], name: &sp::Ident) -> Result<&'a sp::WindowSpec> {
    let found = named.iter().find(|(known, _)| *known == normal(name));
    found.map(|(_, spec)| spec).ok_or_else(|| {
        let error = Error::undefined_object(format!("window \"{}\" does not exist", normal(name)));
        at(error.with_hint(format!("write WINDOW {name} AS (…) before ORDER BY")), name)
    })
}

/// The window that `(w ORDER BY …)` means: it has w's partition and order, and may add only what w has not.
fn complete(named: &[Named], mut spec: sp::WindowSpec, is_call: bool) -> Result<sp::WindowSpec> {
    let Some(name) = spec.window_name.take() else { return Ok(spec) };
    let base = find(named, &name)?;
    let refuse = |message: String| at(Error::windowing(message), &name);
    let shown = normal(&name);
    if !spec.partition_by.is_empty() {
        return Err(refuse(format!("cannot override PARTITION BY clause of window \"{shown}\"")));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return Err(refuse(format!("cannot override ORDER BY clause of window \"{shown}\"")));
    }
    if base.window_frame.is_some() {
        let error = refuse(format!("cannot copy window \"{shown}\" because it has a frame clause"));
        let is_only_name = is_call && spec.order_by.is_empty() && spec.window_frame.is_none();
        return Err(if is_only_name { error.with_hint(format!("write OVER {name}")) } else { error });
    }
    spec.partition_by.clone_from(&base.partition_by);
    if spec.order_by.is_empty() {
        spec.order_by.clone_from(&base.order_by);
    }
    Ok(spec)
}

fn at(error: Error, name: &sp::Ident) -> Error {
    error.at(u32::try_from(name.span.start.column).unwrap_or(0))
}

/// The calls of a select; those in its subqueries have windows of their own.
struct Calls<'a> {
    named: &'a [Named],
    depth: usize,
}

impl VisitorMut for Calls<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<Error> {
        let sp::Expr::Function(sp::Function { over, .. }) = expr else { return ControlFlow::Continue(()) };
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let spec = match over.take() {
            None => return ControlFlow::Continue(()),
            Some(sp::WindowType::NamedWindow(name)) => find(self.named, &name).cloned(),
            Some(sp::WindowType::WindowSpec(spec)) => complete(self.named, spec, true),
        };
        match spec {
            Ok(spec) => *over = Some(sp::WindowType::WindowSpec(spec)),
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}
