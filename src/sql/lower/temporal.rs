//! Conditions on `now()`: when a row is seen, worked out from a comparison.
//!
//! `ts > now() - INTERVAL '1 hour'` is `now() < ts + INTERVAL '1 hour'`: the row is seen before an instant of its own. What cannot
//! be brought into such a form is refused.

use std::sync::Arc;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator as Op, binary_expr, cast};

use super::{Lowered, Lowering, shown};
use crate::error::{Error, Result};
use crate::flow::temporal::{Instant, Spec, Temporal};
use crate::flow::{Edge, Make, Operator};
use crate::sql::plan::continuous::mentions_now;
use crate::time::{Micros, TIMESTAMP};

/// `now()` where it is not compared with an instant of a row.
pub(super) fn refused(expr: &Expr) -> Error {
    let message = format!("now() can only be compared with a time of the row, and not as in {}", shown(expr));
    Error::unsupported(message).with_hint(
        "write WHERE ts > now() - INTERVAL '1 hour' or the like, with days in place of months; or use now() in the query that reads the view",
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
        let input = match conjunction(plain) {
            Some(plain) => self.filter(input, &plain, schema)?,
            None => input,
        };
        let (mut enters, mut leaves) = (Vec::new(), Vec::new());
        for part in &of_time {
            let Comparison { op, instant } = comparison(part).ok_or_else(|| refused(part))?;
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

/// A comparison with `now()` brought to its left, and all else to the right. `None`: it is none.
fn comparison(condition: &Expr) -> Option<Comparison> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (mut of_now, op, mut instant) = match (mentions_now(left), mentions_now(right)) {
        (true, false) => (left, *op, right.as_ref().clone()),
        (false, true) => (right, op.swap()?, left.as_ref().clone()),
        _ => return None,
    };
    loop {
        match of_now.as_ref() {
            Expr::ScalarFunction(_) => return Some(Comparison { op, instant }),
            Expr::Alias(alias) => of_now = &alias.expr,
            Expr::Cast(cast) if cast.field.data_type().is_temporal() && !is_date(cast.field.data_type()) => of_now = &cast.expr,
            Expr::BinaryExpr(BinaryExpr { left, op: shift, right }) if is_fixed(right) => {
                let back = match shift {
                    Op::Plus => Op::Minus,
                    Op::Minus => Op::Plus,
                    _ => return None,
                };
                instant = binary_expr(instant, back, right.as_ref().clone());
                of_now = left;
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Op::Plus, right }) if is_fixed(left) => {
                instant = binary_expr(instant, Op::Minus, left.as_ref().clone());
                of_now = right;
            }
            _ => return None,
        }
    }
}

fn is_date(data_type: &arrow::datatypes::DataType) -> bool {
    use arrow::datatypes::DataType::{Date32, Date64, Time32, Time64};
    matches!(data_type, Date32 | Date64 | Time32(_) | Time64(_))
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
