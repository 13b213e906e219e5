//! The instants from one to before another, step by step: what GAP_FILL fills a gap with.

use std::sync::Arc;

use arrow::array::builder::PrimitiveBuilder;
use arrow::array::{Array, ArrayBuilder, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, Result};
use crate::limits::GAP_STEPS;
use crate::sql::window::show_duration;
use crate::time::Micros;

/// `tidegate_steps(time, next)`: a list of `time`, `time + step`, … before `next`; of `time` alone if there is no next.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Steps {
    step: Micros,
    /// With a time zone or without.
    of: DataType,
    signature: Signature,
}

impl Steps {
    /// Between times of the type `of`, in microseconds.
    pub fn call(step: Micros, of: &DataType, time: Expr, next: Expr) -> Expr {
        let signature = Signature::exact(vec![of.clone(), of.clone()], Volatility::Immutable);
        ScalarUDF::new_from_impl(Steps { step, of: of.clone(), signature }).call(vec![time, next])
    }

    fn element(&self) -> FieldRef {
        Arc::new(Field::new_list_field(self.of.clone(), true))
    }

    fn lists(&self, times: &ArrayRef, nexts: &ArrayRef) -> Result<ArrayRef> {
        let instants = |array: &ArrayRef| array.as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let (Some(times), Some(nexts)) = (instants(times), instants(nexts)) else {
            return Err(Error::internal("gaps are between instants"));
        };
        let mut steps = PrimitiveBuilder::<TimestampMicrosecondType>::new();
        let mut lengths = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            let before = steps.len();
            steps.append_option(times.is_valid(row).then(|| times.value(row)));
            if times.is_valid(row) && nexts.is_valid(row) {
                self.fill(times.value(row), nexts.value(row), &mut steps)?;
            }
            lengths.push(steps.len() - before);
        }
        let steps = steps.finish().with_data_type(self.of.clone());
        Ok(Arc::new(ListArray::new(self.element(), OffsetBuffer::from_lengths(lengths), Arc::new(steps), None)))
    }

    fn fill(&self, time: Micros, next: Micros, steps: &mut PrimitiveBuilder<TimestampMicrosecondType>) -> Result<()> {
        let gap = i128::from(next) - i128::from(time);
        if gap / i128::from(self.step) > i128::from(GAP_STEPS) {
            let error = Error::limit_exceeded(format!(
                "GAP_FILL would fill a gap with more than {GAP_STEPS} rows, {} apart",
                show_duration(self.step)
            ));
            return Err(error.with_hint("choose a longer interval, or leave out rows that are far from all others"));
        }
        let mut at = time;
        while let Some(after) = at.checked_add(self.step).filter(|after| *after < next) {
            steps.append_value(after);
            at = after;
        }
        Ok(())
    }
}

impl ScalarUDFImpl for Steps {
    fn name(&self) -> &str {
        "tidegate_steps"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::List(self.element()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [times, nexts] = &arrays[..] else { return Err(Error::internal("a gap has two ends").into()) };
        Ok(ColumnarValue::Array(self.lists(times, nexts)?))
    }
}
