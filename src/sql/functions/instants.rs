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

/// `tidegate_windows(time, watermark)`: the starts of the windows that an instant lies in, NULL or an empty list for none. A
/// single instant for tumbling windows, a list for others. Without a watermark no window was ever closed.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowStarts {
    pub windows: Windows,
    /// A window is closed when `end + delay <= watermark`.
    pub delay: Micros,
    pub keep: Keep,
    signature: Signature,
}

impl WindowStarts {
    pub fn call(windows: Windows, delay: Micros, keep: Keep, time: Expr, watermark: Option<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        let function = ScalarUDF::new_from_impl(WindowStarts { windows, delay, keep, signature });
        function.call(std::iter::once(time).chain(watermark).collect())
    }

    fn counts(&self, start: Micros, watermark: Micros) -> bool {
        let closes = i128::from(start) + i128::from(self.windows.size) + i128::from(self.delay);
        let closed_by = |watermark: Micros| watermark != NO_TIME && closes <= i128::from(watermark);
        match self.keep {
            Keep::InTime => !closed_by(watermark),
            Keep::Late => closed_by(watermark),
            Keep::Final(now) => !closed_by(watermark) && closed_by(now),
        }
    }

    fn single(&self, times: &Instants, watermark: impl Fn(usize) -> Micros) -> ArrayRef {
        let mut starts = PrimitiveBuilder::<TimestampMicrosecondType>::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let start = time.map(|time| self.windows.last_start(time));
            starts.append_option(start.filter(|start| self.counts(*start, watermark(row))));
        }
        Arc::new(starts.finish())
    }

    fn lists(&self, times: &Instants, watermark: impl Fn(usize) -> Micros) -> ArrayRef {
        let mut starts = PrimitiveBuilder::<TimestampMicrosecondType>::new();
        let mut lengths = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let before = starts.len();
            if let Some(time) = time {
                let counting = self.windows.starts(time).filter(|start| self.counts(*start, watermark(row)));
                counting.for_each(|start| starts.append_value(start));
            }
            lengths.push(starts.len() - before);
        }
        let offsets = OffsetBuffer::from_lengths(lengths);
        Arc::new(ListArray::new(element(), offsets, Arc::new(starts.finish()), None))
    }
}

fn element() -> FieldRef {
    Arc::new(Field::new_list_field(TIMESTAMP, false))
}

impl ScalarUDFImpl for WindowStarts {
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
        let starts = if self.windows.is_tumbling() { self.single(times, watermark) } else { self.lists(times, watermark) };
        Ok(ColumnarValue::Array(starts))
    }
}

/// `tidegate_shift(instant)`: so many microseconds later, at the end of time if need be.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Shift {
    by: Micros,
    signature: Signature,
}

impl Shift {
    pub fn call(by: Micros, instant: Expr) -> Expr {
        let signature = Signature::exact(vec![TIMESTAMP], Volatility::Immutable);
        ScalarUDF::new_from_impl(Shift { by, signature }).call(vec![instant])
    }
}

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &str {
        "tidegate_shift"
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
        let instants = instants.ok_or_else(|| Error::internal("only instants are shifted"))?;
        let shifted: Instants = instants.unary(|instant| instant.saturating_add(self.by));
        Ok(ColumnarValue::Array(Arc::new(shifted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(windows: Windows, keep: Keep, times: Vec<Option<i64>>, watermarks: Vec<i64>) -> String {
        let function = WindowStarts { windows, delay: 2, keep, signature: Signature::variadic_any(Volatility::Immutable) };
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
            return_field: Arc::new(Field::new("starts", return_type, true)),
            config_options: Arc::default(),
        };
        let ColumnarValue::Array(array) = function.invoke_with_args(args).unwrap() else { panic!("rows were given") };
        let text =
            |starts: &Instants| starts.iter().map(|s| s.map_or("null".into(), |s| s.to_string())).collect::<Vec<_>>().join(" ");
        match array.as_list_opt::<i32>() {
            None => text(array.as_primitive()),
            Some(lists) => lists.iter().map(|list| text(list.unwrap().as_primitive())).collect::<Vec<_>>().join("; "),
        }
    }

    #[rstest::rstest]
    #[case::open(Keep::InTime, "10 null 10 null")]
    #[case::closed(Keep::Late, "null null null 10")]
    #[case::closed_since(Keep::Final(22), "10 null 10 null")]
    #[case::still_open(Keep::Final(21), "null null null null")]
    fn tumbling(#[case] keep: Keep, #[case] expected: &str) {
        let times = vec![Some(15), None, Some(15), Some(15)];
        assert_eq!(starts(Windows::tumble(10, 0), keep, times, vec![NO_TIME, 0, 21, 22]), expected);
    }

    #[rstest::rstest]
    #[case::open(Keep::InTime, "10 5; ; 10; ")]
    #[case::closed(Keep::Late, "; ; 5; 10 5")]
    fn hopping(#[case] keep: Keep, #[case] expected: &str) {
        let windows = Windows { size: 10, slide: 5, offset: 0 };
        let times = vec![Some(12), None, Some(12), Some(12)];
        assert_eq!(starts(windows, keep, times, vec![NO_TIME, 0, 17, 22]), expected);
    }
}
