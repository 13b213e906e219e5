//! Arrays as PostgreSQL writes them: `'{a,b}'` and `ARRAY(SELECT …)`.

use arrow::datatypes::FieldRef;
use sqlparser::ast as sp;

use super::{binary, call, literal, nested, string, take};
use crate::copy::value::parse_array;
use crate::error::{Error, Result};
use crate::limits::STATEMENT_NESTING;

/// `'{a,b}'` where an array must be: `ARRAY['a', 'b']`; of several dimensions, an array of such. Other expressions stay.
pub(super) fn read_literal(expr: &mut sp::Expr) -> Result<()> {
    if let sp::Expr::Cast { expr: inner, data_type: sp::DataType::Array(_), .. } | sp::Expr::Nested(inner) = expr {
        return read_literal(inner);
    }
    let Some(text) = string(expr) else { return Ok(()) };
    *expr = array(text, dimensions(text)).ok_or_else(|| malformed(text))?;
    Ok(())
}

fn array(text: &str, dimensions: usize) -> Option<sp::Expr> {
    let items = items(text)?.into_iter().map(|item| match item {
        Some(text) if dimensions > 1 => array(&text, dimensions - 1),
        Some(text) => Some(literal(&text)),
        None if dimensions > 1 => None,
        None => Some(sp::Expr::Value(sp::Value::Null.with_empty_span())),
    });
    Some(sp::Expr::Array(sp::Array { elem: items.collect::<Option<_>>()?, named: true }))
}

/// As many as braces open it; bounds may stand before them.
fn dimensions(text: &str) -> usize {
    let text = text.trim_start();
    let body = if text.starts_with('[') { text.split_once('=').map_or("", |(_, body)| body) } else { text };
    body.chars().filter(|c| !c.is_whitespace()).take_while(|c| *c == '{').count().clamp(1, STATEMENT_NESTING)
}

/// A type says no more than what is in its arrays: `int[]` and `int[][]` are one, and how many dimensions there are is told by the
/// value that is cast, if that can be seen.
pub(super) fn with_dimensions_of(value: &sp::Expr, data_type: &mut sp::DataType) {
    let mut declared = 0;
    let mut item = &*data_type;
    while let sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(inner, _)) = item {
        (item, declared) = (inner, declared + 1);
    }
    let dimensions = match (string(value), value) {
        (Some(text), _) if declared > 0 && text.contains(|c: char| !c.is_whitespace() && c != '{' && c != '}') => {
            dimensions(text)
        }
        (None, sp::Expr::Array(_)) => declared.max(nesting(value)),
        _ => declared,
    };
    if declared > 0 && dimensions != declared {
        let array = |item| sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(Box::new(item), None));
        *data_type = (0..dimensions).fold(item.clone(), |item, _| array(item));
    }
}

fn nesting(expr: &sp::Expr) -> usize {
    match expr {
        sp::Expr::Array(array) => 1 + array.elem.first().map_or(0, nesting),
        _ => 0,
    }
}

/// `x = ANY (ARRAY[a, b])` is `x IN (a, b)`, and `x < ALL (ARRAY[a, b])` is `x < a AND x < b`: they mean the same to the NULL. Of a
/// column that is an array, the planner knows `ANY` only where the column is not an outer one, and a function everywhere.
pub(super) fn by_element(expr: &mut sp::Expr) {
    let (left, op, right, is_any) = match expr {
        sp::Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op.clone(), right, true),
        sp::Expr::AllOp { left, compare_op, right } => (left, compare_op.clone(), right, false),
        _ => return,
    };
    let elements = match elements(right) {
        Some(elements) if !elements.is_empty() => std::mem::take(elements),
        _ => {
            let is_name = matches!(right.as_ref(), sp::Expr::Identifier(_) | sp::Expr::CompoundIdentifier(_));
            if is_any && is_name && op == sp::BinaryOperator::Eq {
                *expr = call("array_has", vec![take(right), take(left)]);
            }
            return;
        }
    };
    let left = Box::new(nested(take(left)));
    let is_list = matches!((&op, is_any), (sp::BinaryOperator::Eq, true) | (sp::BinaryOperator::NotEq, false));
    *expr = if is_list {
        sp::Expr::InList { expr: left, list: elements, negated: !is_any }
    } else {
        let joined = if is_any { sp::BinaryOperator::Or } else { sp::BinaryOperator::And };
        let each = elements.into_iter().map(|element| binary(left.as_ref().clone(), op.clone(), nested(element)));
        let all = each.reduce(|all, one| binary(all, joined.clone(), one));
        nested(all.unwrap_or(sp::Expr::Value(sp::Value::Null.with_empty_span())))
    };
}

fn elements(array: &mut sp::Expr) -> Option<&mut Vec<sp::Expr>> {
    match array {
        sp::Expr::Array(array) => Some(&mut array.elem),
        sp::Expr::Nested(inner) => elements(inner),
        _ => None,
    }
}

/// `a[2:3]`, `a[:3]`, `a[2:]`. Of several subscripts none may be a slice: arrays have one dimension.
pub(super) fn slice(root: &mut sp::Expr, access: &mut [sp::AccessExpr]) -> Result<Option<sp::Expr>> {
    let is_slice = |access: &sp::AccessExpr| matches!(access, sp::AccessExpr::Subscript(sp::Subscript::Slice { .. }));
    match access {
        [sp::AccessExpr::Subscript(sp::Subscript::Slice { lower_bound, upper_bound, stride: None })] => {
            let number = |number: i32| sp::Expr::Value(sp::Value::Number(number.to_string(), false).with_empty_span());
            let lower = lower_bound.take().unwrap_or_else(|| number(1));
            let upper = upper_bound.take().unwrap_or_else(|| number(i32::MAX));
            Ok(Some(call("array_part", vec![take(root), lower, upper])))
        }
        access if access.iter().any(is_slice) => {
            Err(Error::unsupported("slices of slices, and with a stride, are not supported").with_hint("write a[from:to]"))
        }
        _ => Ok(None),
    }
}

/// The elements of the text of an array; a text that is none is an error. Those that are arrays are in braces.
pub fn array_items(text: &str) -> Result<Vec<Option<String>>> {
    items(text).ok_or_else(|| malformed(text))
}

fn malformed(text: &str) -> Error {
    Error::invalid_text(format!("malformed array literal: \"{text}\""))
}

fn items(text: &str) -> Option<Vec<Option<String>>> {
    let items = parse_array(text.as_bytes()).ok()?.into_iter();
    items
        .map(|item| item.map(|item| String::from_utf8(item.into_owned()).ok()).map_or(Some(None), |item| item.map(Some)))
        .collect()
}

/// An array is compared with its text by its text; text stays itself.
pub(super) fn compare(left: &mut sp::Expr, right: &mut sp::Expr) {
    let is_array_text = |e: &sp::Expr| string(e).is_some_and(|t| items(t).is_some());
    let other = match (is_array_text(left), is_array_text(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return,
    };
    let inner = take(other);
    *other = call("array_out", vec![inner]);
}

/// The column that rows of a subquery are collected from.
const COLUMN: &str = "element";

/// `ARRAY(query)`: the rows' values in the query's order, and an empty array for no rows.
pub(super) fn of_rows(query: &mut sp::Query) -> sp::Expr {
    let order = match &mut query.body.as_mut() {
        sp::SetExpr::Select(select) if is_plain(select) && query.limit_clause.is_none() && query.fetch.is_none() => {
            collect_in_place(select, query.order_by.take())
        }
        _ => false,
    };
    let mut collected = query.clone();
    if !order {
        collected = collect_around(query);
    }
    call("rows_or_empty", vec![sp::Expr::Subquery(Box::new(collected))])
}

/// The function that gives a parameter the type of a list of its second argument.
const LIST_OF: &str = "parameter_list";

/// `x = ANY ($1)`: a parameter that the client declared no type for is a list of what it is compared with.
pub fn lists_of_parameters(query: &mut sp::Query, declared: &[Option<FieldRef>]) {
    use std::ops::ControlFlow;
    struct Lists<'a>(&'a [Option<FieldRef>]);
    impl sp::VisitorMut for Lists<'_> {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
            let (sp::Expr::AnyOp { left, right, .. } | sp::Expr::AllOp { left, right, .. }) = expr else {
                return ControlFlow::Continue(());
            };
            let list = match right.as_mut() {
                sp::Expr::Nested(inner) => inner.as_mut(),
                other => other,
            };
            let number = match list {
                sp::Expr::Value(value) => match &value.value {
                    sp::Value::Placeholder(name) => name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()),
                    _ => None,
                },
                _ => None,
            };
            let known = |number: usize| number.checked_sub(1).and_then(|at| self.0.get(at)?.as_ref()).is_some();
            if number.is_some_and(|number| !known(number)) {
                let parameter = take(list);
                *list = call(LIST_OF, vec![parameter, left.as_ref().clone()]);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = sp::VisitMut::visit(query, &mut Lists(declared));
}

fn is_plain(select: &sp::Select) -> bool {
    let no_groups = matches!(&select.group_by, sp::GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    let one_column = matches!(&select.projection[..], [sp::SelectItem::UnnamedExpr(_) | sp::SelectItem::ExprWithAlias { .. }]);
    select.distinct.is_none()
        && no_groups
        && select.having.is_none()
        && select.qualify.is_none()
        && one_column
        && !is_more_than_a_value(select)
}

/// The column is an aggregate, so that the subquery is one row already, or gives several rows for one.
fn is_more_than_a_value(select: &sp::Select) -> bool {
    use sqlparser::ast::Visit;
    struct Calls;
    impl sp::Visitor for Calls {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &sp::Expr) -> std::ops::ControlFlow<()> {
            const CALLS: [&str; 15] = [
                "unnest",
                "count",
                "sum",
                "avg",
                "min",
                "max",
                "array_agg",
                "string_agg",
                "bool_and",
                "bool_or",
                "first_value",
                "last_value",
                "stddev",
                "var",
                "median",
            ];
            let is_aggregate = |f: &sp::Function| super::simple_name(&f.name).is_some_and(|n| CALLS.contains(&n.as_str()));
            match expr {
                sp::Expr::Function(f) if f.over.is_none() && is_aggregate(f) => std::ops::ControlFlow::Break(()),
                _ => std::ops::ControlFlow::Continue(()),
            }
        }
    }
    select.projection.iter().any(|item| item.visit(&mut Calls).is_break())
}

/// `SELECT x … ORDER BY y` becomes `SELECT array_agg(x ORDER BY y) …`.
fn collect_in_place(select: &mut sp::Select, order_by: Option<sp::OrderBy>) -> bool {
    let [sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. }] = &mut select.projection[..] else {
        return false;
    };
    let value = take(expr);
    *expr = array_agg(value, order_by);
    true
}

fn array_agg(value: sp::Expr, order_by: Option<sp::OrderBy>) -> sp::Expr {
    let mut order = match order_by.map(|o| o.kind) {
        Some(sp::OrderByKind::Expressions(exprs)) => exprs,
        _ => Vec::new(),
    };
    for by in &mut order {
        // `ORDER BY 1` is by the value itself.
        if matches!(&by.expr, sp::Expr::Value(v) if matches!(v.value, sp::Value::Number(..))) {
            by.expr = value.clone();
        }
    }
    let mut function = super::function("array_agg", vec![value]);
    if let sp::FunctionArguments::List(list) = &mut function.args
        && !order.is_empty()
    {
        list.clauses.push(sp::FunctionArgumentClause::OrderBy(order));
    }
    sp::Expr::Function(function)
}

/// `SELECT array_agg(element) FROM (query) AS rows(element)`.
fn collect_around(query: &mut sp::Query) -> sp::Query {
    let rows = sp::Ident::new("rows");
    let element = || sp::Expr::CompoundIdentifier(vec![sp::Ident::new("rows"), sp::Ident::new(COLUMN)]);
    let columns = vec![sp::TableAliasColumnDef { name: sp::Ident::new(COLUMN), data_type: None }];
    let alias = sp::TableAlias { explicit: true, name: rows, columns, at: None };
    // Rows that are sorted by their value stay so; another order is that of the subquery's own LIMIT and is spent there.
    let name = match query.body.as_ref() {
        sp::SetExpr::Select(select) => match select.projection.as_slice() {
            [sp::SelectItem::ExprWithAlias { alias, .. }] => Some(alias.clone()),
            _ => None,
        },
        _ => None,
    };
    let is_value = |by: &sp::Expr| match by {
        sp::Expr::Value(value) => matches!(value.value, sp::Value::Number(..)),
        sp::Expr::Identifier(by) => name.as_ref().is_some_and(|name| super::normal(name) == super::normal(by)),
        _ => false,
    };
    let mut by_value = query.order_by.clone().filter(|o| match &o.kind {
        sp::OrderByKind::Expressions(exprs) => exprs.iter().all(|by| is_value(&by.expr)),
        sp::OrderByKind::All(_) => false,
    });
    if let Some(sp::OrderBy { kind: sp::OrderByKind::Expressions(exprs), .. }) = &mut by_value {
        exprs.iter_mut().for_each(|by| by.expr = element());
    }
    let subquery =
        sp::TableFactor::Derived { lateral: false, subquery: Box::new(query.clone()), alias: Some(alias), sample: None };
    let expr = array_agg(element(), by_value);
    super::from::select_from(expr, vec![sp::TableWithJoins { relation: subquery, joins: Vec::new() }])
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn array_texts_are_read() {
        let some = |items: &[&str]| Some(items.iter().map(|i| Some((*i).to_string())).collect::<Vec<_>>());
        assert_eq!(items("{}"), some(&[]));
        assert_eq!(items("{a, \"b,\\\"c\" ,d e}"), some(&["a", "b,\"c", "d e"]));
        assert_eq!(items("{{a,b},{c}}"), some(&["{a,b}", "{c}"]));
        assert_eq!(items("{NULL,\"NULL\"}"), Some(vec![None, Some("NULL".to_string())]));
        for bad in ["a,b", "{a", "{a,}", "{{a}", "{\"a}"] {
            assert_eq!(items(bad), None, "{bad}");
        }
    }
}
