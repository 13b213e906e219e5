//! Comparisons of rows, column by column: `(a, b) < (c, d)`, `(a, b) IN ((1, 2), …)`, `(a, b) IN (SELECT …)`.
//!
//! The planner takes a row for a value of its own, whose NULLs are equal; PostgreSQL compares the first columns, then the second
//! ones where those are equal, and so on, and what a NULL decides is unknown. Of a subquery (q AS r(x, y), where `=` is that of
//! all columns):
//!
//! ```text
//! (a, b) IN (q)       in a condition   EXISTS (q WHERE =)
//! (a, b) NOT IN (q)   in a condition   NOT EXISTS (q WHERE (=) IS NOT FALSE)
//! (a, b) IN (q)       elsewhere        CASE WHEN EXISTS (q WHERE =) THEN true WHEN EXISTS (q WHERE (=) IS NULL) THEN NULL ELSE false END
//! ```

use sqlparser::ast as sp;
use sqlparser::ast::BinaryOperator as Op;

use super::from::select_from;
use super::{binary, nested, simple_name};
use crate::error::{Error, Result};

/// An expression whose parts are done.
pub(super) fn compare(expr: &mut sp::Expr) -> Result<()> {
    let by_columns = match expr {
        sp::Expr::BinaryOp { left, op: op @ (Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq), right } => {
            match (columns(left), columns(right)) {
                (Some(left), Some(right)) => Some(compared(left, op, right)?),
                _ => None,
            }
        }
        sp::Expr::IsDistinctFrom(left, right) => distinct(left, right)?,
        sp::Expr::IsNotDistinctFrom(left, right) => distinct(left, right)?.map(not),
        sp::Expr::InList { expr: row, list, negated } => match columns(row) {
            Some(row) if list.iter().all(|item| columns(item).is_some()) => {
                let equal = list.iter().map(|item| compared(row.clone(), &Op::Eq, columns(item).unwrap_or_default()));
                let any = joined(equal.collect::<Result<Vec<_>>>()?, &Op::Or);
                Some(if *negated { not(any) } else { any })
            }
            _ => None,
        },
        sp::Expr::InSubquery { expr: row, subquery, negated } => match columns(row) {
            Some(row) => Some(member(row, subquery, *negated)?),
            None => None,
        },
        _ => None,
    };
    if let Some(by_columns) = by_columns {
        *expr = nested(by_columns);
    }
    Ok(())
}

/// A condition, of which NULL is as good as false, before its parts are done.
pub(super) fn in_condition(condition: &mut sp::Expr) -> Result<()> {
    let (row, subquery, negated) = match condition {
        sp::Expr::Nested(inner) => return in_condition(inner),
        sp::Expr::BinaryOp { left, op: Op::And | Op::Or, right } => {
            in_condition(left)?;
            return in_condition(right);
        }
        sp::Expr::InSubquery { expr, subquery, negated } => (expr, subquery, *negated),
        sp::Expr::UnaryOp { op: sp::UnaryOperator::Not, expr: inner } => match without_parentheses(inner) {
            sp::Expr::InSubquery { expr, subquery, negated } => (expr, subquery, !*negated),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let Some(row) = columns(row) else { return Ok(()) };
    let (names, equal) = equal(row, subquery)?;
    let equal = if negated { sp::Expr::IsNotFalse(Box::new(nested(equal))) } else { equal };
    *condition = exists(subquery, equal, names, negated);
    Ok(())
}

fn without_parentheses(expr: &mut sp::Expr) -> &mut sp::Expr {
    match expr {
        sp::Expr::Nested(inner) => without_parentheses(inner),
        other => other,
    }
}

/// Whether a row is one of a subquery, with the three values of SQL.
fn member(row: Vec<sp::Expr>, subquery: &sp::Query, negated: bool) -> Result<sp::Expr> {
    let (names, equal) = equal(row, subquery)?;
    let when = |condition, result: sp::Value| sp::CaseWhen { condition, result: sp::Expr::Value(result.with_empty_span()) };
    let is_there = exists(subquery, equal.clone(), names.clone(), false);
    let is_unknown = exists(subquery, sp::Expr::IsNull(Box::new(nested(equal))), names, false);
    Ok(sp::Expr::Case {
        case_token: sp::helpers::attached_token::AttachedToken::empty(),
        end_token: sp::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![when(is_there, sp::Value::Boolean(!negated)), when(is_unknown, sp::Value::Null)],
        else_result: Some(Box::new(sp::Expr::Value(sp::Value::Boolean(negated).with_empty_span()))),
    })
}

/// Names for the columns of a subquery, and the condition that these are those of the row.
fn equal(row: Vec<sp::Expr>, subquery: &sp::Query) -> Result<(Vec<sp::Ident>, sp::Expr)> {
    match width(&subquery.body) {
        Some(width) if width < row.len() => return Err(Error::syntax("subquery has too few columns")),
        Some(width) if width > row.len() => return Err(Error::syntax("subquery has too many columns")),
        // Of `*` the planner knows.
        _ => {}
    }
    let names: Vec<sp::Ident> = (1..=row.len()).map(|at| sp::Ident::with_quote('"', format!("${at}"))).collect();
    let members = names.iter().cloned().map(sp::Expr::Identifier).collect();
    Ok((names, compared(members, &Op::Eq, row)?))
}

/// How many columns a query gives, as far as its text says.
fn width(body: &sp::SetExpr) -> Option<usize> {
    let is_one = |item: &sp::SelectItem| matches!(item, sp::SelectItem::UnnamedExpr(_) | sp::SelectItem::ExprWithAlias { .. });
    match body {
        sp::SetExpr::Select(select) => select.projection.iter().all(is_one).then_some(select.projection.len()),
        sp::SetExpr::Query(query) => width(&query.body),
        sp::SetExpr::SetOperation { left, .. } => width(left),
        sp::SetExpr::Values(values) => values.rows.first().map(|row| row.content.len()),
        _ => None,
    }
}

/// `[NOT] EXISTS (SELECT 1 FROM (subquery) AS r(names) WHERE condition)`.
fn exists(subquery: &sp::Query, condition: sp::Expr, names: Vec<sp::Ident>, negated: bool) -> sp::Expr {
    let columns = names.into_iter().map(|name| sp::TableAliasColumnDef { name, data_type: None }).collect();
    let alias = sp::TableAlias { explicit: true, name: sp::Ident::with_quote('"', "$row"), columns, at: None };
    let subquery = Box::new(subquery.clone());
    let relation = sp::TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
    let one = sp::Expr::Value(sp::Value::Number("1".to_string(), false).with_empty_span());
    let mut query = select_from(one, vec![sp::TableWithJoins { relation, joins: Vec::new() }]);
    if let sp::SetExpr::Select(select) = query.body.as_mut() {
        select.selection = Some(condition);
    }
    sp::Expr::Exists { subquery: Box::new(query), negated }
}

/// The columns of `(a, b)` and `ROW(a, b)`.
pub(super) fn columns(expr: &sp::Expr) -> Option<Vec<sp::Expr>> {
    match expr {
        sp::Expr::Tuple(columns) => Some(columns.clone()),
        sp::Expr::Nested(inner) => columns(inner),
        sp::Expr::Function(function) if simple_name(&function.name).is_some_and(|name| name == "row") => {
            let sp::FunctionArguments::List(list) = &function.args else { return None };
            let columns = list.args.iter().map(|argument| match argument {
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(column)) => Some(column.clone()),
                _ => None,
            });
            columns.collect()
        }
        _ => None,
    }
}

fn compared(left: Vec<sp::Expr>, op: &Op, right: Vec<sp::Expr>) -> Result<sp::Expr> {
    if left.len() != right.len() || left.is_empty() {
        return Err(Error::syntax("unequal number of entries in row expressions"));
    }
    let pairs = left.into_iter().zip(right).map(|(left, right)| (nested(left), nested(right)));
    Ok(match op {
        Op::Eq => joined(pairs.map(|(left, right)| binary(left, Op::Eq, right)), &Op::And),
        Op::NotEq => joined(pairs.map(|(left, right)| binary(left, Op::NotEq, right)), &Op::Or),
        _ => in_order(pairs.collect(), op),
    })
}

/// `a < c OR a = c AND (b < d OR …)`: only the last columns may be equal, if the operator says so.
fn in_order(mut pairs: Vec<(sp::Expr, sp::Expr)>, op: &Op) -> sp::Expr {
    let strict = match op {
        Op::LtEq => Op::Lt,
        Op::GtEq => Op::Gt,
        strict => strict.clone(),
    };
    let last = pairs.pop().map(|(left, right)| binary(left, op.clone(), right));
    let whole = pairs.into_iter().rev().fold(last, |rest, (left, right)| {
        let equal = binary(left.clone(), Op::Eq, right.clone());
        let rest = rest.map_or(equal.clone(), |rest| binary(equal, Op::And, nested(rest)));
        Some(binary(binary(left, strict.clone(), right), Op::Or, nested(rest)))
    });
    whole.unwrap_or(sp::Expr::Value(sp::Value::Null.with_empty_span()))
}

fn distinct(left: &sp::Expr, right: &sp::Expr) -> Result<Option<sp::Expr>> {
    let (Some(lefts), Some(rights)) = (columns(left), columns(right)) else { return Ok(None) };
    if lefts.len() != rights.len() {
        return Err(Error::syntax("unequal number of entries in row expressions"));
    }
    let pairs = lefts.into_iter().zip(rights);
    Ok(Some(joined(
        pairs.map(|(left, right)| sp::Expr::IsDistinctFrom(Box::new(nested(left)), Box::new(nested(right)))),
        &Op::Or,
    )))
}

fn joined(parts: impl IntoIterator<Item = sp::Expr>, op: &Op) -> sp::Expr {
    let all = parts.into_iter().reduce(|left, right| binary(left, op.clone(), right));
    nested(all.unwrap_or(sp::Expr::Value(sp::Value::Null.with_empty_span())))
}

fn not(expr: sp::Expr) -> sp::Expr {
    sp::Expr::UnaryOp { op: sp::UnaryOperator::Not, expr: Box::new(nested(expr)) }
}
