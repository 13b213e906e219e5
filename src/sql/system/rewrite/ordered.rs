//! Aggregates of a group in an order, as others that know of none.
//!
//! | written | planned |
//! | --- | --- |
//! | `percentile_disc(f) WITHIN GROUP (ORDER BY x)` | the element of `array_agg(x ORDER BY x)` |
//! | `mode() WITHIN GROUP (ORDER BY x)` | `array_mode(array_agg(x ORDER BY x))` |
//! | `rank(v) WITHIN GROUP (ORDER BY x)` | `1 + count(*)` of the rows before v |
//! | `dense_rank(v)` | `1 + count(DISTINCT x)` of them |
//! | `percent_rank(v)`, `cume_dist(v)` | the share of the rows before v, and of those that are not behind it with v itself |
//!
//! So views keep them under changes as they keep those.

use sqlparser::ast as sp;

use super::forms::{cast, number};
use super::{binary, call, nested, take};
use crate::error::{Error, Result};

/// A call with WITHIN GROUP; `None` where DataFusion knows it.
pub(super) fn function(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    match name {
        "percentile_disc" => percentile(function),
        "mode" => Ok(mode(function)),
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" => hypothetical(name, function),
        _ => Ok(None),
    }
}

/// The values of the group that are there, sorted, in a list.
fn sorted_values(function: &mut sp::Function, by: &sp::OrderByExpr) -> sp::Expr {
    let is_there = sp::Expr::IsNotNull(Box::new(nested(by.expr.clone())));
    let mut values = super::function("array_agg", vec![by.expr.clone()]);
    if let sp::FunctionArguments::List(arguments) = &mut values.args {
        arguments.clauses.push(sp::FunctionArgumentClause::OrderBy(vec![by.clone()]));
    }
    (values.filter, values.over) = (Some(Box::new(both(function.filter.take(), is_there))), function.over.take());
    sp::Expr::Function(values)
}

/// A condition beside that of FILTER.
fn both(filter: Option<Box<sp::Expr>>, condition: sp::Expr) -> sp::Expr {
    match filter {
        None => condition,
        Some(filter) => binary(nested(*filter), sp::BinaryOperator::And, nested(condition)),
    }
}

/// The most frequent value, of several the first in the order.
fn mode(function: &mut sp::Function) -> Option<sp::Expr> {
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    let ([], [by]) = (list.args.as_slice(), function.within_group.as_slice()) else { return None };
    let by = by.clone();
    Some(call("array_mode", vec![sorted_values(function, &by)]))
}

/// The first value that so much of the group is not above: an element of the group's sorted values.
fn percentile(function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    let ([sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(part))], [by]) =
        (list.args.as_mut_slice(), function.within_group.as_slice())
    else {
        return Ok(None);
    };
    if let sp::Expr::Value(value) = &*part
        && let sp::Value::Number(number, _) = &value.value
        && !number.parse::<f64>().is_ok_and(|part| (0.0..=1.0).contains(&part))
    {
        return Err(Error::numeric_out_of_range(format!("percentile value {number} is not between 0 and 1")));
    }
    let (part, by) = (nested(take(part)), by.clone());
    let values = sorted_values(function, &by);
    let count = call("cardinality", vec![values.clone()]);
    let place = sp::Expr::BinaryOp { left: Box::new(part), op: sp::BinaryOperator::Multiply, right: Box::new(count) };
    let place = cast(call("ceil", vec![cast(nested(place), sp::DataType::DoublePrecision)]), sp::DataType::BigInt(None));
    Ok(Some(call("array_element", vec![values, call("greatest", vec![number("1"), place])])))
}

/// The place that a row would have in the group.
fn hypothetical(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    let value = |arg: &mut sp::FunctionArg| match arg {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)) => Some(nested(take(value))),
        _ => None,
    };
    let Some(row) = list.args.iter_mut().map(value).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let keys = std::mem::take(&mut function.within_group);
    if row.len() != keys.len() {
        let message = format!("function {name} with {} values and {} keys in ORDER BY does not exist", row.len(), keys.len());
        return Err(Error::undefined_function(message).with_hint("it takes a value for each key"));
    }
    let filter = function.filter.take();
    let counted = |condition: Option<sp::Expr>, distinct: Option<sp::Expr>| {
        let mut count = super::function("count", distinct.clone().into_iter().collect());
        if let sp::FunctionArguments::List(list) = &mut count.args {
            match distinct {
                Some(_) => list.duplicate_treatment = Some(sp::DuplicateTreatment::Distinct),
                None => list.args = vec![sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Wildcard)],
            }
        }
        count.filter = match condition {
            None => filter.clone(),
            Some(condition) => Some(Box::new(both(filter.clone(), condition))),
        };
        sp::Expr::Function(count)
    };
    let plus = |left, right| binary(left, sp::BinaryOperator::Plus, right);
    let share = |part, of| {
        let part = cast(nested(part), sp::DataType::DoublePrecision);
        nested(binary(part, sp::BinaryOperator::Divide, cast(nested(of), sp::DataType::DoublePrecision)))
    };
    let before = before(&keys, &row, false);
    Ok(Some(match (name, keys.as_slice(), row.as_slice()) {
        ("rank", ..) => nested(plus(counted(Some(before), None), number("1"))),
        ("percent_rank", ..) => {
            let rows = call("nullif", vec![counted(None, None), number("0")]);
            call("coalesce", vec![share(counted(Some(before), None), rows), number("0")])
        }
        ("cume_dist", ..) => {
            let not_behind = self::before(&keys, &row, true);
            share(plus(counted(Some(not_behind), None), number("1")), plus(counted(None, None), number("1")))
        }
        (_, [key], [_]) => {
            // NULL is a value, too, and none that is counted.
            let key = nested(key.expr.clone());
            let is_null = binary(nested(before.clone()), sp::BinaryOperator::And, sp::Expr::IsNull(Box::new(key.clone())));
            let nulls = call("least", vec![counted(Some(is_null), None), number("1")]);
            nested(plus(plus(counted(Some(before), Some(key)), nulls), number("1")))
        }
        _ => {
            let error = Error::unsupported("dense_rank of several values WITHIN GROUP is not supported");
            return Err(error.with_hint("dense_rank() OVER (ORDER BY a, b) ranks rows"));
        }
    }))
}

/// Does a row of the group come before this one, or, if `or_equal`, is it like it?
fn before(keys: &[sp::OrderByExpr], row: &[sp::Expr], or_equal: bool) -> sp::Expr {
    let mut condition = sp::Expr::Value(sp::Value::Boolean(or_equal).with_empty_span());
    for (key, value) in keys.iter().zip(row).rev() {
        let descends = key.options.asc == Some(false);
        let nulls_first = key.options.nulls_first.unwrap_or(descends);
        let key = nested(key.expr.clone());
        let op = if descends { sp::BinaryOperator::Gt } else { sp::BinaryOperator::Lt };
        let (null, other) = if nulls_first { (&key, value) } else { (value, &key) };
        let of_null = binary(
            sp::Expr::IsNull(Box::new(null.clone())),
            sp::BinaryOperator::And,
            sp::Expr::IsNotNull(Box::new(other.clone())),
        );
        let strictly = binary(nested(binary(key.clone(), op, value.clone())), sp::BinaryOperator::Or, nested(of_null));
        let same = sp::Expr::IsNotDistinctFrom(Box::new(key), Box::new(value.clone()));
        let then = nested(binary(same, sp::BinaryOperator::And, nested(condition)));
        condition = nested(binary(nested(strictly), sp::BinaryOperator::Or, then));
    }
    condition
}
