//! Forms that are others in short.
//!
//! | written | planned |
//! | --- | --- |
//! | `x LIKE ANY (ARRAY[p, q])` | `x LIKE p OR x LIKE q` |
//! | `x SIMILAR TO p ESCAPE e` | `x ~ similar_to_escape(p, e)` |
//! | `FETCH FIRST 3 ROWS ONLY` | `LIMIT 3` |
//! | `VALUES ((SELECT a)), (b)` | `SELECT (SELECT a) AS column1 UNION ALL SELECT b` |
//! | `@ x`, `\|/ x`, `\|\|/ x`, `~ x` | `abs(x)`, `sqrt(x)`, `cbrt(x)`, `-1 - x` |
//! | `- INTERVAL '1 day 2 hours'` | `INTERVAL '1 day 2 hours' * -1` |
//! | `trim_array(a, 2)`, `array_fill(x, ARRAY[3])` | `array_part(a, 1, cardinality(a) - 2)`, `array_repeat(x, 3)` |
//! | `(a, b) OVERLAPS (c, d)` | by their first and last instants |
//! | `to_number(x, '9G999D99')` | `number_by_template(x, '9G999D99')::numeric(38, 2)` |
//! | `statement_timestamp()`, `localtimestamp`, `localtime` | `now()::timestamptz`, `now()::timestamp`, `now()::time` |
//! | `current_timestamp(3)`, `localtimestamp(3)` | `now()::timestamptz(3)`, `now()::timestamp(3)` |
//! | `first_value(x IGNORE NULLS)` | `first_value(x) IGNORE NULLS` |
//! | `date(x)`, `cardinality(a)` | `x::date`, `cardinality(a)::integer` |

use std::ops::ControlFlow;

use sqlparser::ast as sp;

use super::from::select_from;
use super::{call, literal, nested, string, take};
use crate::error::{Error, Result};

/// `f(x IGNORE NULLS)`: as behind the call.
pub(super) fn null_treatment(function: &mut sp::Function) {
    let sp::FunctionArguments::List(list) = &mut function.args else { return };
    list.clauses.retain(|clause| match clause {
        sp::FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => {
            function.null_treatment.get_or_insert(*treatment);
            false
        }
        _ => true,
    });
}

/// LIKE of several patterns.
pub(super) fn like_several(expr: &mut sp::Expr) -> Option<sp::Expr> {
    let (any, pattern) = match expr {
        sp::Expr::Like { any, pattern, .. } | sp::Expr::ILike { any, pattern, .. } => (any, pattern),
        _ => return None,
    };
    let (patterns, op) = match (patterns(pattern), &**pattern) {
        (Some(patterns), _) if *any => (patterns, sp::BinaryOperator::Or),
        (_, sp::Expr::Function(function)) if super::simple_name(&function.name).is_some_and(|name| name == "all") => {
            (patterns_of_call(function)?, sp::BinaryOperator::And)
        }
        _ => return None,
    };
    let one = |one: sp::Expr| {
        let mut like = expr.clone();
        if let sp::Expr::Like { any, pattern, .. } | sp::Expr::ILike { any, pattern, .. } = &mut like {
            (*any, **pattern) = (false, one);
        }
        like
    };
    let each: Vec<sp::Expr> = patterns.into_iter().map(one).collect();
    let both = |left, right| sp::Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
    let is_any = op == sp::BinaryOperator::Or;
    let none = sp::Expr::Value(sp::Value::Boolean(!is_any).with_empty_span());
    Some(nested(each.into_iter().reduce(both).unwrap_or(none)))
}

/// A pattern of SQL as the regular expression that means the same.
pub(super) fn similar(expr: &mut sp::Expr) -> sp::Expr {
    let sp::Expr::SimilarTo { negated, expr: text, pattern, escape_char } = expr else { return take(expr) };
    let op = if *negated { sp::BinaryOperator::PGRegexNotMatch } else { sp::BinaryOperator::PGRegexMatch };
    let escape = escape_char.take().map(sp::Expr::Value);
    let arguments = std::iter::once(take(pattern)).chain(escape).collect();
    let side = |side: sp::Expr| Box::new(nested(side));
    nested(sp::Expr::BinaryOp { left: side(take(text)), op, right: side(call("similar_to_escape", arguments)) })
}

/// `(a, b) OVERLAPS (c, d)`: of two stretches of time, each from its first instant up to its last, or of the one that it is.
pub(super) fn overlap(left: &sp::Expr, right: &sp::Expr) -> Option<sp::Expr> {
    use sp::BinaryOperator as B;
    let ((a, b), (c, d)) = (stretch(left)?, stretch(right)?);
    let both = |one, other| super::binary(one, B::And, other);
    let same = super::binary(a.clone(), B::Eq, c.clone());
    let first = both(super::binary(a.clone(), B::Lt, c.clone()), super::binary(c.clone(), B::Lt, b));
    let second = both(super::binary(c, B::Lt, a.clone()), super::binary(a, B::Lt, d));
    Some(nested(super::binary(super::binary(same, B::Or, first), B::Or, second)))
}

/// Its first instant and its last: `(start, end)` in any order, `(start, length)`.
fn stretch(row: &sp::Expr) -> Option<(sp::Expr, sp::Expr)> {
    let columns = super::rows::columns(row)?;
    let [start, end] = columns.as_slice() else { return None };
    let is_length = match end {
        sp::Expr::Interval(_) => true,
        sp::Expr::Cast { data_type, .. } => matches!(data_type, sp::DataType::Interval { .. }),
        _ => false,
    };
    let (start, end) = (nested(start.clone()), nested(end.clone()));
    let end = if is_length { nested(super::binary(start.clone(), sp::BinaryOperator::Plus, end)) } else { end };
    Some((call("least", vec![start.clone(), end.clone()]), call("greatest", vec![start, end])))
}

/// VALUES with subqueries, which DataFusion runs in a SELECT only.
pub(super) fn values(query: &mut sp::Query) {
    let sp::SetExpr::Values(values) = query.body.as_mut() else { return };
    if !values.rows.iter().flat_map(|row| row.iter()).any(contains_query) {
        return;
    }
    let mut rows: Vec<sp::SetExpr> = std::mem::take(&mut values.rows).into_iter().map(|row| selected(row.content)).collect();
    // A tree of little depth: chains are walked by recursion.
    while rows.len() > 1 {
        let mut pairs = Vec::with_capacity(rows.len().div_ceil(2));
        let mut left = rows.into_iter();
        while let Some(one) = left.next() {
            pairs.push(match left.next() {
                None => one,
                Some(other) => sp::SetExpr::SetOperation {
                    op: sp::SetOperator::Union,
                    set_quantifier: sp::SetQuantifier::All,
                    left: Box::new(one),
                    right: Box::new(other),
                },
            });
        }
        rows = pairs;
    }
    if let Some(rows) = rows.pop() {
        *query.body = rows;
    }
}

fn contains_query(expr: &sp::Expr) -> bool {
    struct Queries;
    impl sp::Visitor for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, _: &sp::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    sp::Visit::visit(expr, &mut Queries).is_break()
}

/// A row of VALUES as a SELECT, its columns called as theirs.
fn selected(row: Vec<sp::Expr>) -> sp::SetExpr {
    let mut query = select_from(literal(""), Vec::new());
    if let sp::SetExpr::Select(select) = query.body.as_mut() {
        let named = |(expr, at)| sp::SelectItem::ExprWithAlias { expr, alias: sp::Ident::new(format!("column{at}")) };
        select.projection = row.into_iter().zip(1..).map(named).collect();
    }
    *query.body
}

fn patterns(pattern: &sp::Expr) -> Option<Vec<sp::Expr>> {
    match pattern {
        sp::Expr::Array(array) => Some(array.elem.clone()),
        sp::Expr::Nested(inner) => patterns(inner),
        _ => None,
    }
}

fn patterns_of_call(function: &sp::Function) -> Option<Vec<sp::Expr>> {
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(pattern))] => patterns(pattern),
        _ => None,
    }
}

/// FETCH is LIMIT; WITH TIES and PERCENT stay for the planner to refuse.
pub(super) fn fetch(query: &mut sp::Query) {
    let Some(fetch) = query.fetch.take_if(|fetch| !fetch.with_ties && !fetch.percent) else { return };
    let rows = fetch.quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        Some(sp::LimitClause::LimitOffset { limit, .. }) => *limit = Some(rows),
        other => *other = Some(sp::LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: Vec::new() }),
    }
}

/// Operators before a value.
pub(super) fn unary(expr: &mut sp::Expr) -> Option<sp::Expr> {
    use sp::UnaryOperator as U;
    let sp::Expr::UnaryOp { op, expr: operand } = expr else { return None };
    let binary =
        |left: sp::Expr, op, right: sp::Expr| nested(sp::Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) });
    match op {
        U::PGAbs => Some(call("abs", vec![take(operand)])),
        U::PGSquareRoot => Some(call("sqrt", vec![take(operand)])),
        U::PGCubeRoot => Some(call("cbrt", vec![take(operand)])),
        U::BitwiseNot => {
            let minus_one = sp::Expr::UnaryOp { op: U::Minus, expr: Box::new(number("1")) };
            Some(binary(minus_one, sp::BinaryOperator::Minus, nested(take(operand))))
        }
        U::Minus if matches!(operand.as_ref(), sp::Expr::Interval(_)) => {
            let minus_one = sp::Expr::UnaryOp { op: U::Minus, expr: Box::new(number("1")) };
            Some(binary(take(operand), sp::BinaryOperator::Multiply, minus_one))
        }
        _ => None,
    }
}

/// Calls that are other calls, or casts.
pub(super) fn function(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    if !function.within_group.is_empty() {
        return super::ordered::function(name, function);
    }
    if ["cardinality", "array_length", "array_ndims", "array_position"].contains(&name) {
        // Before it is asked what takes one: DataFusion's are of another type.
        let call = sp::Expr::Function(std::mem::replace(function, super::function(name, Vec::new())));
        let count = cast(call, sp::DataType::Integer(None));
        // An empty array has no dimensions.
        return Ok(Some(if name == "array_length" { self::call("nullif", vec![count, number("0")]) } else { count }));
    }
    if let Some(clock) = clock(name, function) {
        return Ok(Some(clock));
    }
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    Ok(match (name, list.args.as_mut_slice()) {
        ("date", [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value))]) => Some(cast(take(value), sp::DataType::Date)),
        // A column has one scale: of what is no literal there is nothing to trim.
        ("trim_scale", [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value))]) => {
            let value = take(value);
            Some(decimals(&value).map_or_else(
                || nested(value.clone()),
                |digits| cast(value.clone(), sp::DataType::Numeric(sp::ExactNumberInfo::PrecisionAndScale(38, digits))),
            ))
        }
        (
            "trim_array",
            [
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(array)),
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(count)),
            ],
        ) => {
            let length = cast(call("cardinality", vec![array.clone()]), sp::DataType::Integer(None));
            let last = super::binary(length, sp::BinaryOperator::Minus, nested(take(count)));
            Some(call("array_part", vec![take(array), number("1"), last]))
        }
        (
            "array_fill",
            [
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)),
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Array(dimensions))),
            ],
        ) => match dimensions.elem.as_mut_slice() {
            [length] => Some(call("array_repeat", vec![take(value), take(length)])),
            _ => {
                let error = Error::unsupported("array_fill of several dimensions is not supported");
                return Err(error.with_hint("arrays have one dimension"));
            }
        },
        (
            "to_number",
            [
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(text)),
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(template)),
            ],
        ) => string(template).map(|template| {
            let decimals = template.split_once(['.', 'D', 'd']).map_or(0, |(_, rest)| rest.matches(['9', '0']).count());
            let info = sp::ExactNumberInfo::PrecisionAndScale(38, i64::try_from(decimals.min(38)).unwrap_or(0));
            let number = call("number_by_template", vec![take(text), literal(template)]);
            cast(number, sp::DataType::Numeric(info))
        }),
        _ => None,
    })
}

/// The decimals that a literal needs: those before the zeros at its end.
fn decimals(literal: &sp::Expr) -> Option<i64> {
    match literal {
        sp::Expr::UnaryOp { op: sp::UnaryOperator::Minus | sp::UnaryOperator::Plus, expr } | sp::Expr::Nested(expr) => {
            decimals(expr)
        }
        sp::Expr::Value(value) => match &value.value {
            sp::Value::Number(digits, _) if !digits.contains(['e', 'E']) => {
                let decimals = digits.split_once('.').map_or("", |(_, decimals)| decimals);
                i64::try_from(decimals.trim_end_matches('0').len()).ok()
            }
            sp::Value::Null => Some(0),
            _ => None,
        },
        _ => None,
    }
}

/// Every clock of a statement shows the time of `now()`, some with as many decimals as they are asked for.
fn clock(name: &str, function: &sp::Function) -> Option<sp::Expr> {
    use sp::{DataType as T, TimezoneInfo as Z};
    let decimals = match &function.args {
        sp::FunctionArguments::None => None,
        sp::FunctionArguments::List(list) => match list.args.as_slice() {
            [] => None,
            [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Value(value)))] => match &value.value {
                sp::Value::Number(digits, _) => Some(digits.parse().ok()?),
                _ => return None,
            },
            _ => return None,
        },
        sp::FunctionArguments::Subquery(_) => return None,
    };
    let data_type = match name {
        "transaction_timestamp" | "statement_timestamp" if decimals.is_none() => T::Timestamp(None, Z::WithTimeZone),
        "current_timestamp" if decimals.is_some() => T::Timestamp(decimals, Z::WithTimeZone),
        "localtimestamp" => T::Timestamp(decimals, Z::None),
        "localtime" => T::Time(decimals, Z::None),
        "current_date" | "today" if decimals.is_none() => T::Date,
        _ => return None,
    };
    let mut shown = cast(call("now", Vec::new()), data_type);
    if decimals.is_some() {
        super::casts::cast(&mut shown).ok()?;
    }
    Some(shown)
}

pub(super) fn number(digits: &str) -> sp::Expr {
    sp::Expr::Value(sp::Value::Number(digits.to_string(), false).with_empty_span())
}

pub(super) fn cast(expr: sp::Expr, data_type: sp::DataType) -> sp::Expr {
    sp::Expr::Cast { kind: sp::CastKind::DoubleColon, array: false, expr: Box::new(expr), data_type, format: None }
}
