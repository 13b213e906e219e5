//! Conditions on `now()`: when a row is seen, worked out from comparisons.
//!
//! A comparison is solved for `now()`, step by step, as one would on paper:
//!
//! ```text
//!   ts > now() - INTERVAL '1 hour'     now() < ts + INTERVAL '1 hour'
//!   now() - ts < INTERVAL '1 hour'     the same
//!   date_trunc('day', now()) <= ts     now() < date_trunc('day', ts) + INTERVAL '1 day'
//!   d = CURRENT_DATE - 7               now() >= d + 7 days AND now() < d + 8 days
//! ```
//!
//! So a row is seen from one instant of its own to another. What cannot be brought into such a form is refused, but for one
//! such condition beside others of which any may hold (`ts > now() - INTERVAL '1 hour' OR open`): rows for which the others hold
//! are always seen, and the rest have their time.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_binary, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator as Op, binary_expr, cast, lit};

use super::{Lowered, Lowering, shown, union_edge};
use crate::error::{Error, Result};
use crate::flow::temporal::{Instant, Spec, Temporal};
use crate::flow::{Edge, Make, Operator};
use crate::sql::functions::operators::moments;
use crate::sql::functions::or_null::bare;
use crate::sql::plan::continuous::mentions_now;
use crate::time::{Micros, TIMESTAMP};

/// `now()` where it is not compared with an instant of a row.
pub(super) fn refused(expr: &Expr) -> Error {
    let message = format!("now() can only be compared with a time of the row, and not as in {}", shown(expr));
    Error::unsupported(message).with_hint(
        "write WHERE ts > now() - INTERVAL '1 hour', date_trunc('day', now()) <= ts, or the like, with days in place of months; or use \
         now() in the query that reads the view",
    )
}

/// `now() op instant`.
struct Comparison {
    op: Op,
    instant: Expr,
}

impl Lowering<'_> {
    /// A filter of which some conditions are on `now()`.
    pub(super) fn temporal_filter(&mut self, input: Lowered, predicate: &Expr, schema: &DFSchema) -> Result<Lowered> {
        let parts = split_conjunction(predicate).into_iter().flat_map(unfolded);
        let (of_time, plain): (Vec<Expr>, Vec<Expr>) = parts.partition(mentions_now);
        let mut input = match conjunction(plain) {
            Some(plain) => self.filter(input, &plain, schema)?,
            None => input,
        };
        let (any, of_time): (Vec<Expr>, Vec<Expr>) = of_time.into_iter().partition(is_or);
        for condition in &any {
            input = self.always_or_in_time(input, condition, schema)?;
        }
        if of_time.is_empty() {
            return Ok(input);
        }
        let (mut enters, mut leaves) = (Vec::new(), Vec::new());
        for part in &of_time {
            for Comparison { op, instant } in comparisons(part).ok_or_else(|| refused(part))? {
                let of = self.physical(&cast(instant, TIMESTAMP), schema)?;
                let at = |later: Micros| Instant { of: Arc::clone(&of), later };
                match op {
                    Op::Lt => leaves.push(at(0)),
                    Op::LtEq => leaves.push(at(1)),
                    Op::Gt => enters.push(at(1)),
                    Op::GtEq => enters.push(at(0)),
                    Op::Eq => {
                        enters.push(at(0));
                        leaves.push(at(1));
                    }
                    _ => return Err(refused(part)),
                }
            }
        }
        let shown: Vec<String> = of_time.iter().map(shown).collect();
        let keeps = match (enters.is_empty(), leaves.is_empty()) {
            (true, _) => "rows that are seen, until they leave as now() passes",
            (false, true) => "rows that are not seen yet, until they enter as now() passes",
            (false, false) => "rows until they leave as now() passes",
        };
        // Rows come late, or go, by another clock than the watermark's.
        let edge = Edge {
            append_only: input.edge.append_only && leaves.is_empty(),
            sources: Vec::new(),
            times: Vec::new(),
            window: None,
            ..input.edge
        };
        let spec = Spec { enters, leaves, schema: Arc::clone(&edge.schema) };
        let make: Make = Box::new(move |shard| Ok(Box::new(Temporal::new(spec.clone(), shard)?) as Box<dyn Operator>));
        Ok(self.add(format!("Filter by time: {}", shown.join(" AND ")), keeps.to_string(), input.inputs, make, None, edge))
    }

    /// Conditions with OR between them, of which one is on `now()`.
    fn always_or_in_time(&mut self, input: Lowered, condition: &Expr, schema: &DFSchema) -> Result<Lowered> {
        let (of_time, plain): (Vec<&Expr>, Vec<&Expr>) =
            split_binary(condition, Op::Or).into_iter().partition(|e| mentions_now(e));
        let ([of_time], Some(plain)) = (of_time.as_slice(), disjunction(plain.into_iter().cloned())) else {
            return Err(refused(condition));
        };
        let key = input.edge.key.clone();
        let always = self.filter(input.again(), &plain, schema)?;
        let others = self.filter(input, &plain.is_not_true(), schema)?;
        let others = self.temporal_filter(others, of_time, schema)?;
        // No row is in both.
        let edge = Edge { key, ..union_edge(always.edge, others.edge) };
        Ok(Lowered { inputs: [always.inputs, others.inputs].concat(), edge })
    }
}

fn is_or(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Op::Or, .. }))
}

/// BETWEEN as two comparisons.
fn unfolded(condition: &Expr) -> Vec<Expr> {
    match condition {
        Expr::Between(between) if !between.negated => {
            let compare = |op, bound: &Expr| binary_expr(between.expr.as_ref().clone(), op, bound.clone());
            vec![compare(Op::GtEq, &between.low), compare(Op::LtEq, &between.high)]
        }
        other => vec![other.clone()],
    }
}

/// What a comparison says of `now()` itself. `None`: it is none, or is not to be solved.
fn comparisons(condition: &Expr) -> Option<Vec<Comparison>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    match (mentions_now(left), mentions_now(right)) {
        (true, false) => solve(left, *op, right.as_ref().clone()),
        (false, true) => solve(right, op.swap()?, left.as_ref().clone()),
        _ => None,
    }
}

/// `value op other`, of which the value alone is on `now()`.
fn solve(value: &Expr, op: Op, other: Expr) -> Option<Vec<Comparison>> {
    if let Some(value) = bare(value) {
        return solve(&value, op, other);
    }
    match value {
        Expr::Alias(alias) => solve(&alias.expr, op, other),
        Expr::Cast(to) => match to.field.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => solve(&to.expr, op, other),
            DataType::Date32 => {
                let day = |at| cast(cast(at, DataType::Date32), TIMESTAMP);
                solve_step(&to.expr, op, other, day, interval(0, 1, 0))
            }
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Op::Plus, right }) if is_fixed(left) => {
            solve(right, op, moved(other, Op::Minus, left))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: shift @ (Op::Plus | Op::Minus), right }) if is_fixed(right) => {
            solve(left, op, moved(other, back(*shift), right))
        }
        Expr::ScalarFunction(call) => solve_call(call, op, other),
        _ => None,
    }
}

fn solve_call(call: &ScalarFunction, op: Op, other: Expr) -> Option<Vec<Comparison>> {
    match (call.func.name(), call.args.as_slice()) {
        ("now", []) => Some(vec![Comparison { op, instant: other }]),
        (moments::DATE_PLUS, [date, days]) => solve(date, op, moved(other, Op::Minus, &whole_days(days)?)),
        (moments::DATE_MINUS, [date, days]) => solve(date, op, moved(other, Op::Plus, &whole_days(days)?)),
        // How long it is from one time to another, of which one is now().
        (moments::INTERVAL_LENGTH, [Expr::ScalarFunction(elapsed)]) if elapsed.func.name() == moments::TIMESTAMP_MINUS => {
            let (Expr::Literal(ScalarValue::Decimal128(Some(length), _, 0), _), [to, from]) = (&other, elapsed.args.as_slice())
            else {
                return None;
            };
            let length = interval(0, 0, i64::try_from(*length).ok()?);
            match (mentions_now(to), mentions_now(from)) {
                (true, false) => solve(to, op, moved(from.clone(), Op::Plus, &length)),
                (false, true) => solve(from, op.swap()?, moved(to.clone(), Op::Minus, &length)),
                _ => None,
            }
        }
        ("date_trunc", [field @ Expr::Literal(name, _), of]) => {
            let truncated = |at| Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&call.func), vec![field.clone(), at]));
            solve_step(of, op, other, truncated, unit(name.try_as_str()??)?)
        }
        _ => None,
    }
}

/// `floor(value) op other`, where `floor` gives the beginning of the step that a time is in, and steps are so long:
/// `floor(x) <= t` where `x < floor(t) + length`.
fn solve_step(value: &Expr, op: Op, other: Expr, floor: impl Fn(Expr) -> Expr, length: Expr) -> Option<Vec<Comparison>> {
    let other = cast(other, TIMESTAMP);
    let next = |at: Expr| moved(floor(at), Op::Plus, &length);
    let before = || moved(other.clone(), Op::Minus, &interval(0, 0, 1000));
    match op {
        Op::LtEq => solve(value, Op::Lt, next(other)),
        Op::Lt => solve(value, Op::Lt, next(before())),
        Op::Gt => solve(value, Op::GtEq, next(other)),
        Op::GtEq => solve(value, Op::GtEq, next(before())),
        Op::Eq => {
            let (from, to) = (solve(value, Op::GtEq, next(before()))?, solve(value, Op::Lt, next(other))?);
            Some(from.into_iter().chain(to).collect())
        }
        _ => None,
    }
}

fn moved(time: Expr, direction: Op, by: &Expr) -> Expr {
    binary_expr(cast(time, TIMESTAMP), direction, by.clone())
}

fn back(shift: Op) -> Op {
    if shift == Op::Plus { Op::Minus } else { Op::Plus }
}

fn interval(months: i32, days: i32, nanoseconds: i64) -> Expr {
    lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanoseconds))))
}

/// A number of days as an interval.
fn whole_days(days: &Expr) -> Option<Expr> {
    match days {
        Expr::Literal(ScalarValue::Int64(Some(days)), _) => Some(interval(0, i32::try_from(*days).ok()?, 0)),
        _ => None,
    }
}

/// How long the steps of `date_trunc` are.
fn unit(field: &str) -> Option<Expr> {
    Some(match field.to_ascii_lowercase().as_str() {
        "second" => interval(0, 0, 1_000_000_000),
        "minute" => interval(0, 0, 60_000_000_000),
        "hour" => interval(0, 0, 3_600_000_000_000),
        "day" => interval(0, 1, 0),
        "week" => interval(0, 7, 0),
        "month" => interval(1, 0, 0),
        "quarter" => interval(3, 0, 0),
        "year" => interval(12, 0, 0),
        _ => return None,
    })
}

/// An interval of always the same length: not one of months.
fn is_fixed(expr: &Expr) -> bool {
    let Expr::Literal(value, _) = expr else { return false };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.months == 0,
        ScalarValue::IntervalDayTime(Some(_)) => true,
        ScalarValue::DurationSecond(Some(_))
        | ScalarValue::DurationMillisecond(Some(_))
        | ScalarValue::DurationMicrosecond(Some(_))
        | ScalarValue::DurationNanosecond(Some(_)) => true,
        _ => false,
    }
}
