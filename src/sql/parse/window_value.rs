//! The window as a value, as Arroyo has it: `SELECT tumble(INTERVAL '1 minute') AS window … GROUP BY window`.
//!
//! The key that is such a call, or its alias or number, says which window the rows are put into; wherever the call stands in SELECT,
//! HAVING and ORDER BY, it is the struct of the window's `start` and `end`. Without a time column it is on the one that the watermark
//! of its input speaks of.

use std::ops::ControlFlow;

use sqlparser::ast::{self as sp, Expr};

use super::window_call::{call_name, function_args, identifier, is_length};
use crate::error::{Error, Result};
use crate::sql::ast::{WINDOW_FUNCTIONS, function_call};

/// A window function as a key: `TUMBLE(ts, …)`, `tumble(INTERVAL …)`.
pub(super) fn group_function(key: &Expr) -> Option<(&'static str, Vec<sp::FunctionArg>)> {
    let Expr::Function(function) = key else { return None };
    let name = WINDOW_FUNCTIONS.into_iter().find(|name| call_name(&function.name, name))?;
    Some((name, function_args(function)?.to_vec()))
}

/// The same, where it cannot be but a window: its last argument is a length of time.
fn window_call(expr: &Expr) -> Option<(&'static str, Vec<sp::FunctionArg>)> {
    let is_plain = matches!(expr, Expr::Function(function) if function.over.is_none() && function.filter.is_none());
    group_function(expr).filter(|(_, args)| {
        let last = args.last();
        is_plain && matches!(last, Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(last))) if is_length(last))
    })
}

/// Keys that name or number an item of SELECT that is a window become it.
pub(super) fn resolve_windows(keys: &mut [Expr], projection: &[sp::SelectItem]) {
    for key in keys {
        if let Some(window) = selected(key, projection).filter(|of| window_call(of).is_some()) {
            *key = window.clone();
        }
    }
}

/// A session is of rows that agree in the keys, so all that name or number an item become it. What is computed is to be a column below
/// the session: it gets a name, which stands in its place in the keys.
pub(super) fn name_keys(keys: &mut [Expr], projection: &[sp::SelectItem]) -> Vec<(sp::Ident, Expr)> {
    let mut named = Vec::new();
    for (at, key) in keys.iter_mut().enumerate() {
        if let Some(of) = selected(key, projection).filter(|of| !mentions(of, key)) {
            *key = of.clone();
        }
        if !matches!(key, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) && group_function(key).is_none() {
            let name = sp::Ident::with_quote('"', format!("$key{at}"));
            named.push((name.clone(), std::mem::replace(key, Expr::Identifier(name))));
        }
    }
    named
}

/// The item of SELECT that a key means: by its alias, or by its number.
fn selected<'e>(key: &Expr, projection: &'e [sp::SelectItem]) -> Option<&'e Expr> {
    match key {
        Expr::Value(sp::ValueWithSpan { value: sp::Value::Number(number, _), .. }) => {
            match projection.get(number.parse::<usize>().ok()?.checked_sub(1)?)? {
                sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                _ => None,
            }
        }
        Expr::Identifier(name) => projection.iter().find_map(|item| match item {
            sp::SelectItem::ExprWithAlias { expr, alias } if folded(alias) == folded(name) => Some(expr),
            _ => None,
        }),
        _ => None,
    }
}

fn folded(name: &sp::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// An alias like a column that its own expression reads is the column.
fn mentions(expr: &Expr, key: &Expr) -> bool {
    let Expr::Identifier(key) = key else { return false };
    let found = sp::visit_expressions(expr, |expr| match expr {
        Expr::Identifier(name) if folded(name) == folded(key) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// A window becomes `{start, end}`.
pub(super) fn value() -> Expr {
    let part = |name: &str| Expr::Value(sp::Value::SingleQuotedString(name.into()).with_empty_span());
    let column = |name: &str| Expr::Identifier(identifier(name));
    let fields = vec![part("start"), column("window_start"), part("end"), column("window_end")];
    Expr::Function(function_call(identifier("named_struct"), fields))
}

/// Something else stands for an expression in an item of SELECT, whose name stays what it was.
pub(super) fn replace_selected(item: &mut sp::SelectItem, from: &Expr, to: &Expr) {
    if let sp::SelectItem::UnnamedExpr(expr) = item
        && expr == from
    {
        let alias = match expr {
            Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).cloned(),
            _ => None,
        };
        let alias = alias.unwrap_or_else(|| sp::Ident::with_quote('"', "?column?"));
        *item = sp::SelectItem::ExprWithAlias { expr: to.clone(), alias };
    } else if let sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } = item {
        replace(expr, from, to);
    }
}

/// The same in any expression.
pub(super) fn replace(expr: &mut Expr, from: &Expr, to: &Expr) {
    let _: ControlFlow<()> = sp::visit_expressions_mut(expr, |expr| {
        if expr == from {
            expr.clone_from(to);
        }
        ControlFlow::Continue(())
    });
}

/// What is left of windows stands where it groups nothing.
pub(super) fn refuse_others(select: &sp::Select) -> Result<()> {
    let check = |expr: &Expr| match window_call(expr) {
        Some((function, _)) => ControlFlow::Break(misplaced(function, expr)),
        None => ControlFlow::Continue(()),
    };
    let items = sp::visit_expressions(&select.projection, check);
    let rest = [&select.selection, &select.having].into_iter().flatten().map(|expr| sp::visit_expressions(expr, check));
    match std::iter::once(items).chain(rest).find_map(|found| found.break_value()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn misplaced(function: &str, call: &Expr) -> Error {
    let position = sp::Spanned::span(call).start.column as u32;
    let error = Error::grouping(format!("{function}(…) is a time window, and the query does not group by it"));
    let error =
        error.with_hint(format!("GROUP BY the same call or its alias, one window in a query; or write {}", in_from(function)));
    if position > 0 { error.at(position) } else { error }
}

/// What can be written instead.
pub(in crate::sql) fn in_from(function: &str) -> &'static str {
    match function {
        "hop" => "FROM HOP(s, ts, slide, size) … GROUP BY window_start, window_end",
        "cumulate" => "FROM CUMULATE(s, ts, step, size) … GROUP BY window_start, window_end",
        "session" => "FROM SESSION(s PARTITION BY (k), ts, INTERVAL '1 minute') … GROUP BY window_start, window_end, k",
        _ => "FROM TUMBLE(s, ts, INTERVAL '1 minute') … GROUP BY window_start, window_end",
    }
}
