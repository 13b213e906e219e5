//! Functions of our own making, which a batch query needs where a stream has an operator: the windows of an instant.
//!
//! They are no part of SQL: they are put into plans, never registered.

use std::sync::Arc;

use arrow::array::{ArrayBuilder, ArrayRef, AsArray, ListArray, PrimitiveArray, PrimitiveBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimestampMicrosecondType};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;
use crate::time::window::Windows;
use crate::time::{Micros, NO_TIME, TIMESTAMP};

type Instants = PrimitiveArray<TimestampMicrosecondType>;

/// Which windows of a row count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Those that were open before the row's commit.
    #[default]
    InTime,
    /// Those that were closed: the row is late in them.
    Late,
    /// Those that were open before the row's commit and are closed by this watermark now.
    Final(Micros),
}

impl Keep {
    /// Does a window that ends there count for a row before whose commit the watermark was this? It is closed when
    /// `end + delay <= watermark`.
    pub fn counts(self, end: Micros, delay: Micros, watermark: Micros) -> bool {
        let closes = i128::from(end) + i128::from(delay);
        let closed_by = |watermark: Micros| watermark != NO_TIME && closes <= i128::from(watermark);
        match self {
            Keep::InTime => !closed_by(watermark),
            Keep::Late => closed_by(watermark),
            Keep::Final(now) => !closed_by(watermark) && closed_by(now),
        }
    }
}

/// `tidegate_windows(time, watermark)`: the ends of the windows that an instant lies in, NULL or an empty list for none. A
/// single instant for tumbling windows, a list for others. Without a watermark no window was ever closed.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowEnds {
    pub windows: Windows,
    /// A window is closed when `end + delay <= watermark`.
    pub delay: Micros,
    pub keep: Keep,
    signature: Signature,
}

impl WindowEnds {
    pub fn call(windows: Windows, delay: Micros, keep: Keep, time: Expr, watermark: Option<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(WindowEnds { windows, delay, keep, signature });
        function.call(std::iter::once(time).chain(watermark).collect())
    }

    fn single(&self, times: &Instants, watermark: impl Fn(usize) -> Micros) -> ArrayRef {
        let mut ends = PrimitiveBuilder::<TimestampMicrosecondType>::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let end = time.map(|time| self.windows.last(time).1);
            ends.append_option(end.filter(|end| self.keep.counts(*end, self.delay, watermark(row))));
        }
        Arc::new(ends.finish())
    }

    fn lists(&self, times: &Instants, watermark: impl Fn(usize) -> Micros) -> ArrayRef {
        let mut ends = PrimitiveBuilder::<TimestampMicrosecondType>::new();
        let mut lengths = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let before = ends.len();
            if let Some(time) = time {
                let all = self.windows.bounds(time).map(|(_, end)| end);
                let counting = all.filter(|end| self.keep.counts(*end, self.delay, watermark(row)));
                counting.for_each(|end| ends.append_value(end));
            }
            lengths.push(ends.len() - before);
        }
        let offsets = OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::new(element(), offsets, Arc::new(ends.finish()), None))
    }
}

fn element() -> FieldRef {
    Arc::new(Field::new_list_field(TIMESTAMP, false))
}

impl ScalarUDFImpl for WindowEnds {
    fn name(&self) -> &str {
        "tidegate_windows"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(if self.windows.is_tumbling() { TIMESTAMP } else { DataType::List(element()) })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let times = arrays.first().and_then(|a| a.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::internal("windows are of instants"))?;
        let watermarks = match arrays.get(1) {
            None => None,
            Some(array) => Some(array.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("a watermark is a number"))?),
        };
        let watermark = |row| watermarks.map_or(NO_TIME, |w| w.value(row));
        let ends = if self.windows.is_tumbling() { self.single(times, watermark) } else { self.lists(times, watermark) };
        Ok(ColumnarValue::Array(ends))
    }
}

/// Instants from instants: `tidegate_shift(instant)`, `tidegate_start(window_end)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Instant {
    what: What,
    signature: Signature,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum What {
    /// So many microseconds later, at the end of time if need be.
    Shifted(Micros),
    /// The start of the window that ends then.
    StartOf(Windows),
}

impl Instant {
    pub fn shifted(by: Micros, instant: Expr) -> Expr {
        Instant::call(What::Shifted(by), instant)
    }

    pub fn start_of(windows: Windows, end: Expr) -> Expr {
        Instant::call(What::StartOf(windows), end)
    }

    fn call(what: What, instant: Expr) -> Expr {
        let signature = Signature::exact(vec![TIMESTAMP], Volatility::Immutable);
        ScalarUDF::new_from_impl(Instant { what, signature }).call(vec![instant])
    }
}

impl ScalarUDFImpl for Instant {
    fn name(&self) -> &str {
        match self.what {
            What::Shifted(_) => "tidegate_shift",
            What::StartOf(_) => "tidegate_start",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(TIMESTAMP)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let instants = arrays.first().and_then(|a| a.as_primitive_opt::<TimestampMicrosecondType>());
        let instants = instants.ok_or_else(|| Error::internal("instants are made of instants"))?;
        let others: Instants = match &self.what {
            What::Shifted(by) => instants.unary(|instant| instant.saturating_add(*by)),
            What::StartOf(windows) => instants.unary(|end| windows.start_of(end)),
        };
        Ok(ColumnarValue::Array(Arc::new(others)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(windows: Windows, keep: Keep, times: Vec<Option<i64>>, watermarks: Vec<i64>) -> String {
        let function = WindowEnds { windows, delay: 2, keep, signature: Signature::variadic_any(Volatility::Immutable) };
        let rows = times.len();
        let args = vec![
            ColumnarValue::Array(Arc::new(Instants::from(times))),
            ColumnarValue::Array(Arc::new(PrimitiveArray::<Int64Type>::from(watermarks))),
        ];
        let return_type = function.return_type(&[]).unwrap();
        let args = ScalarFunctionArgs {
            args,
            arg_fields: Vec::new(),
            number_rows: rows,
            return_field: Arc::new(Field::new("ends", return_type, true)),
            config_options: Arc::default(),
        };
        let ColumnarValue::Array(array) = function.invoke_with_args(args).unwrap() else { panic!("rows were given") };
        let text =
            |ends: &Instants| ends.iter().map(|s| s.map_or("null".into(), |s| s.to_string())).collect::<Vec<_>>().join(" ");
        match array.as_list_opt::<i32>() {
            None => text(array.as_primitive()),
            Some(lists) => lists.iter().map(|list| text(list.unwrap().as_primitive())).collect::<Vec<_>>().join("; "),
        }
    }

    #[rstest::rstest]
    #[case::open(Keep::InTime, "20 null 20 null")]
    #[case::closed(Keep::Late, "null null null 20")]
    #[case::closed_since(Keep::Final(22), "20 null 20 null")]
    #[case::still_open(Keep::Final(21), "null null null null")]
    fn tumbling(#[case] keep: Keep, #[case] expected: &str) {
        let times = vec![Some(15), None, Some(15), Some(15)];
        assert_eq!(ends(Windows::tumble(10, 0), keep, times, vec![NO_TIME, 0, 21, 22]), expected);
    }

    #[rstest::rstest]
    #[case::open(Keep::InTime, "20 15; ; 20; ")]
    #[case::closed(Keep::Late, "; ; 15; 20 15")]
    fn hopping(#[case] keep: Keep, #[case] expected: &str) {
        let windows = Windows::hop(10, 5, 0);
        let times = vec![Some(12), None, Some(12), Some(12)];
        assert_eq!(ends(windows, keep, times, vec![NO_TIME, 0, 17, 22]), expected);
    }
}
