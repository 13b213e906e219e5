//! What does a join's condition say of the distance between times of its sides?
//!
//! `a.ts BETWEEN b.ts - INTERVAL '1 hour' AND b.ts`, the same with `<=`, `<`, `>=`, `>` and `=`, `+` and `-` on either side: all
//! are bounds on `right column - left column`. Months are no bound, for they have no length.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, Operator};

use crate::flow::join::Bound;
use crate::sql::functions::or_null::bare;
use crate::time::{Micros, TIMESTAMP, is_instant};

/// A column of the left, one of the right, and the bound between them.
pub type TimeBound = (usize, usize, Bound);

const DAY: Micros = 86_400_000_000;

/// All bounds that a join's condition sets between two columns, once per pair of columns.
pub fn time_bounds(join: &Join) -> Vec<TimeBound> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let mut found = Vec::new();
    for (l, r) in &join.on {
        found.extend(compare(l, Operator::Eq, r, left, right));
    }
    for condition in join.filter.iter().flat_map(split_conjunction) {
        found.extend(bounds_of(condition, left, right));
    }
    merge(found)
}

/// Bounds of one pair of columns as one.
pub fn merge(found: Vec<TimeBound>) -> Vec<TimeBound> {
    let mut merged: Vec<TimeBound> = Vec::new();
    for (left, right, bound) in found {
        match merged.iter_mut().find(|(l, r, _)| (*l, *r) == (left, right)) {
            Some((_, _, known)) => *known = known.and(bound),
            None => merged.push((left, right, bound)),
        }
    }
    merged
}

/// The bounds that one condition sets.
pub fn bounds_of(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Vec<TimeBound> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) => compare(a, *op, b, left, right).into_iter().collect(),
        Expr::Between(between) if !between.negated => {
            let low = compare(&between.expr, Operator::GtEq, &between.low, left, right);
            let high = compare(&between.expr, Operator::LtEq, &between.high, left, right);
            merge(low.into_iter().chain(high).collect())
        }
        _ => Vec::new(),
    }
}

fn compare(a: &Expr, op: Operator, b: &Expr, left: &DFSchema, right: &DFSchema) -> Option<TimeBound> {
    let (a, b) = (shifted(a)?, shifted(b)?);
    let place = |column: &Column, schema: &DFSchema| {
        let index = schema.maybe_index_of_column(column)?;
        is_instant(schema.field(index).data_type()).then_some(index)
    };
    // l + x op r + y: the distance r - l is compared with x - y, from the other side.
    let (left, right, distance, op) = match (place(&a.0, left), place(&b.0, right)) {
        (Some(l), Some(r)) => (l, r, a.1.checked_sub(b.1)?, op),
        _ => (place(&b.0, left)?, place(&a.0, right)?, b.1.checked_sub(a.1)?, op.swap()?),
    };
    let (least, greatest) = match op {
        Operator::Eq => (Some(distance), Some(distance)),
        Operator::LtEq | Operator::Lt => (Some(distance), None),
        Operator::GtEq | Operator::Gt => (None, Some(distance)),
        _ => return None,
    };
    Some((left, right, Bound { least, greatest }))
}

/// A column and what is added to it.
fn shifted(expr: &Expr) -> Option<(Column, Micros)> {
    if let Some(expr) = bare(expr) {
        return shifted(&expr);
    }
    match expr {
        Expr::Column(column) => Some((column.clone(), 0)),
        Expr::Alias(alias) => shifted(&alias.expr),
        Expr::Cast(cast) if cast.field.data_type() == &TIMESTAMP => shifted(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            let (column, by) = shifted(left).zip(duration(right)).or_else(|| shifted(right).zip(duration(left)))?;
            Some((column.0, column.1.checked_add(by)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let (column, by) = (shifted(left)?, duration(right)?);
            Some((column.0, column.1.checked_sub(by)?))
        }
        _ => None,
    }
}

/// A length of time, unless it is no literal or has months.
pub fn duration(expr: &Expr) -> Option<Micros> {
    let whole = |nanoseconds: i64| (nanoseconds % 1000 == 0).then_some(nanoseconds / 1000);
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            let IntervalMonthDayNano { months, days, nanoseconds } = *interval;
            let time = Micros::from(days).checked_mul(DAY)?.checked_add(whole(nanoseconds)?)?;
            (months == 0).then_some(time)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
            Micros::from(interval.days).checked_mul(DAY)?.checked_add(Micros::from(interval.milliseconds) * 1000)
        }
        Expr::Literal(ScalarValue::DurationMicrosecond(by), _) => *by,
        Expr::Literal(ScalarValue::DurationNanosecond(Some(by)), _) => whole(*by),
        Expr::Cast(cast) => duration(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlan;

    use super::*;
    use crate::sql::testing::{continuous, plan};

    fn find_join(plan: &LogicalPlan) -> Option<&Join> {
        match plan {
            LogicalPlan::Join(join) => Some(join),
            other => other.inputs().into_iter().find_map(find_join),
        }
    }

    /// In seconds.
    #[rstest::rstest]
    #[case("a.t BETWEEN b.t - INTERVAL '5 seconds' AND b.t + INTERVAL '1 minute'", Some(-60), Some(5))]
    #[case("b.t >= a.t AND b.t <= a.t + INTERVAL '1 hour'", Some(0), Some(3600))]
    #[case("b.t - INTERVAL '1 hour' <= a.t AND a.t <= b.t", Some(0), Some(3600))]
    #[case("INTERVAL '2 seconds' + a.t = b.t", Some(2), Some(2))]
    #[case("a.t > b.t AND a.t > b.t + INTERVAL '1 second'", None, Some(-1))]
    #[case("a.t > b.t - INTERVAL '1 month'", None, None)]
    #[case("a.t > TIMESTAMP '2025-01-01 00:00:00' AND a.id = b.id", None, None)]
    fn conditions_bound_the_distance(#[case] condition: &str, #[case] least: Option<Micros>, #[case] greatest: Option<Micros>) {
        // Through subqueries, so that no watermark speaks of the times and only the conditions are looked at.
        let side = "(SELECT id, max(event_time) AS t FROM orders GROUP BY id)";
        let sql = format!("SELECT a.id FROM {side} a JOIN {side} b ON {condition}");
        for plan in [plan(&sql).unwrap(), continuous(&sql).unwrap()] {
            let bounds = time_bounds(find_join(&plan).unwrap());
            let bound = bounds.into_iter().fold(Bound::default(), |known, (_, _, bound)| known.and(bound));
            let seconds = |at: Option<Micros>| at.map(|at| at / 1_000_000);
            assert_eq!((seconds(bound.least), seconds(bound.greatest)), (least, greatest), "{}", plan.display_indent());
        }
    }

    /// The streams' rows that are late are cut where both sides' times are bounded both ways, and nowhere else.
    #[rstest::rstest]
    #[case("orders a JOIN refunds b ON a.id = b.id AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '1 day'", 2)]
    #[case("orders a, refunds b WHERE b.event_time >= a.event_time AND b.event_time < a.event_time + INTERVAL '1 day'", 2)]
    #[case("orders a LEFT JOIN refunds b ON a.event_time = b.event_time", 2)]
    #[case("orders a LEFT JOIN refunds b ON a.id = b.id WHERE a.event_time = b.event_time", 0)]
    #[case("orders a JOIN refunds b ON a.id = b.id AND b.event_time >= a.event_time", 0)]
    #[case("orders a JOIN customers b ON a.id = b.id", 0)]
    fn late_rows_are_cut_before_bounded_joins(#[case] from: &str, #[case] cuts: usize) {
        for plan in [plan, continuous].map(|planned| planned(&format!("SELECT a.id, b.id AS other FROM {from}")).unwrap()) {
            let shown = plan.display_indent().to_string();
            assert_eq!(shown.matches("OnTime").count(), cuts, "{shown}");
        }
    }
}
