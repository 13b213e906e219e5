//! Comparisons of rows, column by column: `(a, b) < (c, d)`, `(a, b) IN ((1, 2), …)`.
//!
//! The planner takes a row for a value of its own, whose NULLs are equal; PostgreSQL compares the first columns, then the second
//! ones where those are equal, and so on, and what a NULL decides is unknown.

use sqlparser::ast as sp;
use sqlparser::ast::BinaryOperator as Op;

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
        _ => None,
    };
    if let Some(by_columns) = by_columns {
        *expr = nested(by_columns);
    }
    Ok(())
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
