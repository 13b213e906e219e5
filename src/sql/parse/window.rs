//! Time windows: every spelling becomes a table function in FROM, as [`crate::sql::ast::WINDOW_FUNCTIONS`] describes it.
//!
//! | written | taken up by |
//! | --- | --- |
//! | `TUMBLE(TABLE s, DESCRIPTOR(ts), size)`, `TUMBLE(s, ts, size)`, named arguments | [`super::window_call`] |
//! | `FROM s WITH (tumble(size => …))`: ksqlDB's WINDOW clause after [`super::rewrite`] | [`implicit_group`] |
//! | `GROUP BY TUMBLE(ts, size)` with `TUMBLE_START(…)` | [`group_window`] |
//! | `SELECT tumble(size) AS window … GROUP BY window` | the same, with [`super::window_value`] |
//!
//! Intervals are brought to `INTERVAL '5 minutes'` on the way: singular, without the SQL standard's fields.

use std::ops::ControlFlow;

use sqlparser::ast::{self as sp, Expr, VisitMut, VisitorMut};

use super::window_call::{self, call_name, identifier};
use super::window_value::{self, group_function};
use crate::error::{Error, Result};
use crate::sql::ast::Options;

/// Brings all windows and intervals of a query, statement or expression to one form.
pub(super) fn normalize(node: &mut impl VisitMut) -> Result<()> {
    match node.visit(&mut Normalize) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// `EMIT FINAL WITH DELAY i`: the windows of the query wait so much longer for rows. Of windows over windows those that are nearest to
/// the rows: what is above them waits with them.
pub(super) fn delay(query: &mut sp::Query, by: Expr) -> Result<()> {
    let mut delay = Delay { by, found: false };
    if let ControlFlow::Break(error) = query.visit(&mut delay) {
        return Err(error);
    }
    if delay.found {
        return Ok(());
    }
    let error = Error::invalid_object_definition("EMIT FINAL WITH DELAY needs a time window in the query itself");
    Err(error.with_hint("group by window_start and window_end of a TUMBLE, HOP, CUMULATE or SESSION"))
}

struct Delay {
    by: Expr,
    found: bool,
}

impl VisitorMut for Delay {
    type Break = Error;

    /// Inner ones come first.
    fn post_visit_table_factor(&mut self, factor: &mut sp::TableFactor) -> ControlFlow<Error> {
        flow(window_call::add_lateness(factor, &self.by).map(|added| self.found |= added))
    }
}

/// `INSERT … SELECT … FROM s WITH (key = 'value')`: the parser took the options for hints on `s`.
pub(super) fn take_options(query: &mut sp::Query, options: &mut Options) -> Result<()> {
    let sp::SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(last) = select.from.last_mut() else { return Ok(()) };
    let factor = last.joins.last_mut().map_or(&mut last.relation, |join| &mut join.relation);
    let sp::TableFactor::Table { with_hints, .. } = factor else { return Ok(()) };
    if !with_hints.iter().all(|hint| option_of(hint).is_some()) {
        return Ok(());
    }
    options.extend(with_hints.drain(..).filter_map(|hint| option_of(&hint)));
    Ok(())
}

fn option_of(hint: &Expr) -> Option<(String, String)> {
    let Expr::BinaryOp { left, op: sp::BinaryOperator::Eq, right } = hint else { return None };
    let key = match left.as_ref() {
        Expr::Identifier(name) => name.value.to_lowercase(),
        other => window_call::text(other)?.to_lowercase(),
    };
    let value = match right.as_ref() {
        Expr::Identifier(name) => name.value.to_lowercase(),
        Expr::Value(value) => match &value.value {
            sp::Value::Boolean(value) => value.to_string(),
            sp::Value::Number(value, _) => value.clone(),
            _ => window_call::text(right)?,
        },
        _ => return None,
    };
    Some((key, value))
}

struct Normalize;

impl VisitorMut for Normalize {
    type Break = Error;

    fn post_visit_table_factor(&mut self, factor: &mut sp::TableFactor) -> ControlFlow<Error> {
        flow(window_call::normalize(factor))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Interval(interval) = expr {
            return flow(super::interval::normalize(interval));
        }
        ControlFlow::Continue(())
    }

    /// After its subqueries: what is left of window functions belongs to this query.
    fn post_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<Error> {
        let order_by = match &mut query.order_by {
            Some(sp::OrderBy { kind: sp::OrderByKind::Expressions(expressions), .. }) => expressions.as_mut_slice(),
            _ => &mut [],
        };
        // ORDER BY belongs to the one SELECT, if it is one.
        if let sp::SetExpr::Select(select) = query.body.as_mut() {
            return flow(select_windows(select, order_by));
        }
        flow(set_windows(&mut query.body))
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// The SELECTs of a UNION, EXCEPT, INTERSECT. Their number bounds the recursion.
fn set_windows(body: &mut sp::SetExpr) -> Result<()> {
    match body {
        sp::SetExpr::Select(select) => select_windows(select, &mut []),
        sp::SetExpr::SetOperation { left, right, .. } => {
            set_windows(left)?;
            set_windows(right)
        }
        _ => Ok(()),
    }
}

fn select_windows(select: &mut sp::Select, order_by: &mut [sp::OrderByExpr]) -> Result<()> {
    if implicit_group(select, order_by)? {
        return Ok(());
    }
    group_window(select, order_by)
}

/// ksqlDB's WINDOW clause: the relation becomes the window's input, and the query groups by the window, too.
fn implicit_group(select: &mut sp::Select, order_by: &mut [sp::OrderByExpr]) -> Result<bool> {
    let clauses =
        select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    if !clauses.into_iter().any(window_call::has_clause) {
        return Ok(false);
    }
    let [sp::TableWithJoins { relation, joins }] = select.from.as_mut_slice() else {
        return Err(window_over_join("WINDOW"));
    };
    if !joins.is_empty() {
        return Err(window_over_join("WINDOW"));
    }
    let sp::GroupByExpr::Expressions(keys, _) = &mut select.group_by else {
        return Err(Error::unsupported("GROUP BY ALL with a WINDOW clause is not supported"));
    };
    let session = window_call::is_session_clause(relation);
    let around = around(session, keys, &select.projection, &mut select.selection);
    let computed = around.computed.clone();
    window_call::apply_clause(relation, around)?;
    for (name, expr) in computed {
        stand_in(&expr, &Expr::Identifier(name), &mut select.projection, select.having.as_mut(), order_by);
    }
    let named = names_window(select.projection.iter());
    for item in &mut select.projection {
        rename_selected(item);
    }
    let rest = select.having.iter_mut().chain(select.selection.iter_mut()).chain(keys.iter_mut());
    for expr in rest.chain(order_by.iter_mut().map(|order| &mut order.expr)) {
        rename_windowstart(expr);
    }
    for column in ["window_end", "window_start"] {
        if !keys.iter().any(|key| is_column(key, column)) {
            keys.insert(0, Expr::Identifier(identifier(column)));
        }
    }
    if !named {
        let columns = ["window_start", "window_end"].map(|name| sp::SelectItem::UnnamedExpr(Expr::Identifier(identifier(name))));
        select.projection.splice(0..0, columns);
    }
    Ok(true)
}

/// Rows make sessions with those that agree in the keys, and only those that WHERE lets through.
fn around(session: bool, keys: &mut [Expr], projection: &[sp::SelectItem], selection: &mut Option<Expr>) -> window_call::Around {
    if !session {
        return window_call::Around::default();
    }
    let computed = window_value::name_keys(keys, projection);
    let of_window = |key: &Expr| last_name(key).and_then(window_name).is_some();
    let keys = keys.iter().filter(|key| !of_window(key) && group_function(key).is_none()).cloned().collect();
    window_call::Around { keys, computed, selection: selection.take() }
}

/// An expression for another one in what a query computes of its groups.
fn stand_in(from: &Expr, to: &Expr, items: &mut [sp::SelectItem], having: Option<&mut Expr>, order_by: &mut [sp::OrderByExpr]) {
    items.iter_mut().for_each(|item| window_value::replace_selected(item, from, to));
    let order = order_by.iter_mut().map(|order| &mut order.expr);
    having.into_iter().chain(order).for_each(|expr| window_value::replace(expr, from, to));
}

fn window_over_join(what: &str) -> Error {
    Error::unsupported(format!("{what} over a join is not supported"))
        .with_hint("put the join into a subquery: FROM TUMBLE((SELECT … FROM a JOIN b …), ts, INTERVAL '5 minutes')")
}

/// The names of the window's columns in ksqlDB and here.
const WINDOW_NAMES: [(&str, &str); 4] = [
    ("windowstart", "window_start"),
    ("windowend", "window_end"),
    ("window_start", "window_start"),
    ("window_end", "window_end"),
];

fn window_name(name: &sp::Ident) -> Option<&'static str> {
    let found = WINDOW_NAMES.iter().find(|(theirs, _)| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(theirs));
    found.map(|(_, ours)| *ours)
}

fn names_window<'e>(mut items: impl Iterator<Item = &'e sp::SelectItem>) -> bool {
    items.any(|item| {
        let found = sp::visit_expressions(item, |expr| match last_name(expr).and_then(window_name) {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        });
        found.is_break()
    })
}

fn last_name(expr: &Expr) -> Option<&sp::Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    }
}

/// WINDOWSTART becomes `window_start AS windowstart`.
fn rename_selected(item: &mut sp::SelectItem) {
    let alias = match item {
        sp::SelectItem::UnnamedExpr(expr) => last_name(expr).filter(|name| !name.value.contains('_')).cloned(),
        _ => None,
    };
    match item {
        sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } => rename_windowstart(expr),
        _ => return,
    }
    if let (Some(alias), sp::SelectItem::UnnamedExpr(expr)) = (alias.filter(|name| window_name(name).is_some()), &mut *item) {
        let expr = std::mem::replace(expr, Expr::Identifier(identifier("")));
        let alias = sp::Ident { value: alias.value.to_lowercase(), ..alias };
        *item = sp::SelectItem::ExprWithAlias { expr, alias };
    }
}

fn rename_windowstart(expr: &mut Expr) {
    let _: ControlFlow<()> = sp::visit_expressions_mut(expr, |expr| {
        let name = match expr {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(names) => names.last_mut(),
            _ => None,
        };
        if let Some(name) = name
            && let Some(ours) = window_name(name)
        {
            name.value = ours.into();
        }
        ControlFlow::Continue(())
    });
}

fn is_column(expr: &Expr, column: &str) -> bool {
    last_name(expr).is_some_and(|name| name.value.eq_ignore_ascii_case(column))
}

/// `GROUP BY TUMBLE(ts, size)` of older Flink, and Arroyo's window as a value. The window moves to FROM; its functions become columns.
fn group_window(select: &mut sp::Select, order_by: &mut [sp::OrderByExpr]) -> Result<()> {
    let sp::GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return window_value::refuse_others(select) };
    window_value::resolve_windows(keys, &select.projection);
    let found = keys.iter().enumerate().find_map(|(at, key)| Some((at, group_function(key)?)));
    let Some((at, (function, args))) = found else { return window_value::refuse_others(select) };
    let window = keys[at].clone();
    let twice = |(other, key): (usize, &Expr)| other > at && *key == window;
    while let Some((other, _)) = keys.iter().enumerate().find(|found| twice(*found)) {
        keys.remove(other);
    }
    let [sp::TableWithJoins { relation, joins }] = select.from.as_mut_slice() else {
        return Err(window_over_join("GROUP BY TUMBLE"));
    };
    if !joins.is_empty() {
        return Err(window_over_join("GROUP BY TUMBLE"));
    }
    let around = around(function == "session", keys, &select.projection, &mut select.selection);
    let computed = around.computed.clone();
    window_call::apply_group(relation, function, args, around)?;
    for (name, expr) in computed {
        stand_in(&expr, &Expr::Identifier(name), &mut select.projection, select.having.as_mut(), order_by);
    }
    stand_in(&window, &window_value::value(), &mut select.projection, select.having.as_mut(), order_by);
    let mut columns = vec!["window_start", "window_end"];
    let items = select.projection.iter_mut().filter_map(|item| match item {
        sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let rest = select.having.iter_mut().chain(order_by.iter_mut().map(|order| &mut order.expr));
    for expr in items.chain(rest) {
        replace_auxiliary(expr, function, &mut columns)?;
    }
    keys.splice(at..=at, columns.into_iter().map(|name| Expr::Identifier(identifier(name))));
    window_value::refuse_others(select)
}

/// `TUMBLE_START(…)` → `window_start`, `_END` → `window_end`, `_ROWTIME` → `window_time`.
fn replace_auxiliary(expr: &mut Expr, function: &str, columns: &mut Vec<&'static str>) -> Result<()> {
    const SUFFIXES: [(&str, &str); 3] = [("start", "window_start"), ("end", "window_end"), ("rowtime", "window_time")];
    let outcome = sp::visit_expressions_mut(expr, |expr| {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        if call_name(&call.name, &format!("{function}_proctime")) {
            let error = Error::unsupported("processing-time windows are not supported");
            return ControlFlow::Break(error.with_hint("use the stream's hidden column _ingested_at as the time"));
        }
        let column = SUFFIXES.iter().find(|(suffix, _)| call_name(&call.name, &format!("{function}_{suffix}")));
        if let Some((_, column)) = column {
            if !columns.contains(column) {
                columns.push(column);
            }
            *expr = Expr::Identifier(identifier(column));
        }
        ControlFlow::Continue(())
    });
    match outcome {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}
