//! `a JOIN b WITHIN (before, after) ON …`: the watermark columns of the two sides, and the bound on their distance.
//!
//! It means `b.ts BETWEEN a.ts - before AND a.ts + after`, where `ts` are the columns of the sides' watermarks (ksqlDB's and Kafka's
//! meaning: a row of the right may be `before` earlier or `after` later than the left's), and is nothing else from here on.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, lit};

use super::event_time::event_time;
use crate::error::{Error, Result};
use crate::time::Micros;

/// Add the bound to the join's conditions.
pub fn bound(join: &mut Join, before: Micros, after: Micros) -> Result<()> {
    let left = Expr::Column(watermark_column(&join.left, "left")?);
    let right = Expr::Column(watermark_column(&join.right, "right")?);
    let first = right.clone().gt_eq(left.clone() - interval(before)?);
    let last = right.lt_eq(left + interval(after)?);
    join.filter = conjunction(join.filter.take().into_iter().chain([first, last]));
    Ok(())
}

fn interval(length: Micros) -> Result<Expr> {
    let nanoseconds = length.checked_mul(1000).ok_or_else(|| Error::invalid_parameter("WITHIN a time longer than 292 years"))?;
    Ok(lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, nanoseconds)))))
}

/// The one column of a side that a watermark speaks of: the event time of its rows rather than bounds of windows.
fn watermark_column(side: &LogicalPlan, which: &str) -> Result<Column> {
    let times = (0..side.schema().fields().len()).filter_map(|column| Some((column, event_time(side, column)?.hard)));
    let (windows, own): (Vec<_>, Vec<_>) = times.partition(|(_, hard)| *hard);
    let times = if own.is_empty() { windows } else { own };
    let column = |(column, _): &(usize, bool)| Column::from(side.schema().qualified_field(*column));
    match &times[..] {
        [one] => Ok(column(one)),
        [] => {
            let error = Error::invalid_object_definition(format!("{} of the JOIN … WITHIN has no watermark", named(side, which)));
            Err(error.with_hint("declare WATERMARK FOR its time column, or write the bound ON columns: b.ts BETWEEN a.ts - INTERVAL '1 hour' AND a.ts"))
        }
        several => {
            let names: Vec<String> = several.iter().map(|time| column(time).flat_name()).collect();
            let side = named(side, which);
            let error =
                Error::invalid_object_definition(format!("{side} of the JOIN … WITHIN has several times: {}", names.join(", ")));
            Err(error.with_hint("write the bound ON the one that is meant: b.ts BETWEEN a.ts - INTERVAL '1 hour' AND a.ts"))
        }
    }
}

fn named(side: &LogicalPlan, which: &str) -> String {
    let mut qualifiers = side.schema().iter().map(|(qualifier, _)| qualifier);
    let first = qualifiers.next().flatten();
    match first.filter(|_| qualifiers.all(|other| other == first)) {
        Some(name) => format!("the {which} side, \"{}\",", name.table()),
        None => format!("the {which} side"),
    }
}
