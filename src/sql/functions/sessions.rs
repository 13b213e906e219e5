//! Which rows make sessions together, for a batch query: the rule of [`crate::flow::session`], worked out over whole partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{Field, FieldRef, Int64Type, TimestampMicrosecondType};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, PartitionEvaluator, Signature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};

use crate::error::Error;
use crate::time::{Micros, NO_TIME, TIMESTAMP};

type Instants = PrimitiveArray<TimestampMicrosecondType>;

/// `tidegate_session(time [, watermark]) OVER (PARTITION BY … ORDER BY watermark)`: the start of a row's session; NULL if it has
/// no time or is late. Of late rows only, if these are asked for: their time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SessionStart {
    gap: Micros,
    /// A session is closed when `end + delay <= watermark`.
    delay: Micros,
    late: bool,
    signature: Signature,
}

impl SessionStart {
    pub fn over(gap: Micros, delay: Micros, late: bool, partition_by: Vec<Expr>, time: Expr, watermark: Option<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        let function = WindowUDF::new_from_impl(SessionStart { gap, delay, late, signature });
        let order_by = watermark.iter().map(|watermark| watermark.clone().sort(true, true)).collect();
        let args = std::iter::once(time).chain(watermark).collect();
        let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(Arc::new(function)), args);
        call.params.partition_by = partition_by;
        call.params.order_by = order_by;
        Expr::from(call)
    }
}

impl WindowUDFImpl for SessionStart {
    fn name(&self) -> &str {
        "tidegate_session"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> DfResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Partition { gap: self.gap, delay: self.delay, late: self.late }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), TIMESTAMP, true)))
    }
}

#[derive(Debug)]
struct Partition {
    gap: Micros,
    delay: Micros,
    late: bool,
}

impl PartitionEvaluator for Partition {
    /// Rows come by the watermark before their commit.
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> DfResult<ArrayRef> {
        let times = values.first().and_then(|a| a.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::internal("sessions are of instants"))?;
        let late = match values.get(1) {
            None => vec![false; times.len()],
            Some(array) => {
                let watermarks = array.as_primitive_opt::<Int64Type>();
                self.late_rows(times, watermarks.ok_or_else(|| Error::internal("a watermark is a number"))?.values())
            }
        };
        if self.late {
            let rows = times.iter().zip(late);
            return Ok(Arc::new(rows.map(|(time, late)| time.filter(|_| late)).collect::<Instants>()));
        }
        let mut accepted: Vec<(Micros, usize)> =
            times.iter().enumerate().filter(|(row, _)| !late[*row]).filter_map(|(row, time)| Some((time?, row))).collect();
        accepted.sort_unstable();
        let mut starts: Vec<Option<Micros>> = vec![None; times.len()];
        let mut run: Option<(Micros, Micros)> = None;
        for (time, row) in accepted {
            let start = match run {
                Some((start, last)) if i128::from(time) - i128::from(last) < i128::from(self.gap) => start,
                _ => time,
            };
            run = Some((start, time));
            starts[row] = Some(start);
        }
        Ok(Arc::new(Instants::from(starts)))
    }
}

impl Partition {
    /// Which rows came after a session of theirs was closed, given those that came under lower watermarks and did not.
    fn late_rows(&self, times: &Instants, watermarks: &[Micros]) -> Vec<bool> {
        let mut accepted: BTreeSet<i128> = BTreeSet::new();
        let mut late = Vec::with_capacity(times.len());
        for rows in watermarks.chunk_by(|a, b| a == b) {
            let from = late.len();
            late.extend((from..from + rows.len()).map(|row| {
                let gap = i128::from(self.gap);
                let closed = i128::from(rows[0]) - gap - i128::from(self.delay);
                if times.is_null(row) || rows[0] == NO_TIME {
                    return false;
                }
                let time = i128::from(times.value(row));
                // Closed if it were alone; or in reach of the last time of a session that is.
                time <= closed || {
                    let reached = accepted.range(..=closed).next_back().filter(|last| time < **last + gap);
                    reached.is_some_and(|last| accepted.range(closed + 1..last + gap).next().is_none())
                }
            }));
            let in_time = (from..late.len()).filter(|row| !late[*row] && times.is_valid(*row));
            accepted.extend(in_time.map(|row| i128::from(times.value(row))));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(late: bool, rows: &[(Option<Micros>, Micros)]) -> String {
        let mut partition = Partition { gap: 10, delay: 2, late };
        let times: ArrayRef = Arc::new(Instants::from_iter(rows.iter().map(|row| row.0)));
        let watermarks: ArrayRef = Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(rows.iter().map(|row| row.1)));
        let starts = partition.evaluate_all(&[times, watermarks], rows.len()).unwrap();
        let starts = starts.as_primitive::<TimestampMicrosecondType>().clone();
        starts.iter().map(|start| start.map_or("-".into(), |start| start.to_string())).collect::<Vec<_>>().join(" ")
    }

    #[rstest::rstest]
    #[case::runs(&[(Some(5), NO_TIME), (Some(30), NO_TIME), (Some(14), NO_TIME), (None, NO_TIME)], "5 30 5 -", "- - - -")]
    #[case::a_gap_apart_is_apart(&[(Some(5), NO_TIME), (Some(15), NO_TIME)], "5 15", "- -")]
    #[case::bridged(&[(Some(5), NO_TIME), (Some(15), NO_TIME), (Some(10), 15)], "5 5 5", "- - -")]
    #[case::closed_alone(&[(Some(40), NO_TIME), (Some(8), 20), (Some(9), 20)], "40 - 9", "- 8 -")]
    #[case::reaches_a_closed_one(&[(Some(8), NO_TIME), (Some(17), 20), (Some(18), 20)], "8 - 18", "- 17 -")]
    #[case::reaches_an_open_one(&[(Some(8), NO_TIME), (Some(16), NO_TIME), (Some(17), 20)], "8 8 8", "- - -")]
    #[case::late_rows_reopen_nothing(&[(Some(8), NO_TIME), (Some(17), 20), (Some(26), 20), (Some(17), 29)], "8 - 26 -", "- 17 - 17")]
    fn starts(#[case] rows: &[(Option<Micros>, Micros)], #[case] in_time: &str, #[case] late: &str) {
        assert_eq!((evaluate(false, rows).as_str(), evaluate(true, rows).as_str()), (in_time, late));
    }
}
