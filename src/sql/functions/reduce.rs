//! `array_reduce(list, start, (sum, x) -> …)`: ksqlDB's REDUCE. An element after the other goes into the sum; of no elements it is the
//! start, of no list NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array};
use arrow::compute::{cast, interleave, take, take_arrays};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, plan_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, HigherOrderFunctionArgs, HigherOrderReturnFieldArgs, HigherOrderSignature, HigherOrderUDF, HigherOrderUDFImpl,
    LambdaParametersProgress, ValueOrLambda, Volatility,
};

use crate::error::Error;

/// The function.
pub fn array_reduce() -> Arc<HigherOrderUDF> {
    use ValueOrLambda::{Lambda, Value};
    let signature = HigherOrderSignature::exact(vec![Value(()), Value(()), Lambda(())], Volatility::Immutable);
    Arc::new(HigherOrderUDF::new_from_impl(Reduce { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Reduce {
    signature: HigherOrderSignature,
}

impl HigherOrderUDFImpl for Reduce {
    fn name(&self) -> &str {
        "array_reduce"
    }

    fn signature(&self) -> &HigherOrderSignature {
        &self.signature
    }

    fn coerce_value_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::List(_), _] => Ok(types.to_vec()),
            _ => Err(Error::datatype_mismatch("array_reduce takes an array, a start, and (sum, x) => …").into()),
        }
    }

    fn lambda_parameters(
        &self,
        _: usize,
        fields: &[ValueOrLambda<FieldRef, Option<FieldRef>>],
    ) -> DfResult<LambdaParametersProgress> {
        let [ValueOrLambda::Value(list), ValueOrLambda::Value(start), _] = fields else { return Err(wrong()) };
        let DataType::List(element) = list.data_type() else { return Err(wrong()) };
        let sum = Arc::new(Field::new("sum", start.data_type().clone(), true));
        Ok(LambdaParametersProgress::Complete(vec![vec![sum, Arc::clone(element)]]))
    }

    /// The type of the start.
    fn return_field_from_args(&self, args: HigherOrderReturnFieldArgs) -> DfResult<FieldRef> {
        let [_, ValueOrLambda::Value(start), _] = args.arg_fields else { return Err(wrong()) };
        Ok(Arc::new(Field::new("", start.data_type().clone(), true)))
    }

    fn invoke_with_args(&self, args: HigherOrderFunctionArgs) -> DfResult<ColumnarValue> {
        let [ValueOrLambda::Value(lists), ValueOrLambda::Value(start), ValueOrLambda::Lambda(step)] = args.args.as_slice() else {
            return Err(wrong());
        };
        let lists = lists.to_array(args.number_rows)?;
        let lists = lists.as_list_opt::<i32>().ok_or_else(wrong)?;
        let mut sums = start.to_array(args.number_rows)?;
        let length = |row: usize| if lists.is_null(row) { 0 } else { lists.value_length(row) as usize };
        let longest = (0..lists.len()).map(length).max().unwrap_or(0);
        for place in 0..longest {
            let rows: Vec<usize> = (0..lists.len()).filter(|row| length(*row) > place).collect();
            let numbers: UInt64Array = rows.iter().map(|row| *row as u64).collect::<Vec<_>>().into();
            let elements = rows.iter().map(|row| (lists.offsets()[*row] as usize + place) as u64).collect::<Vec<_>>();
            let elements = take(lists.values(), &UInt64Array::from(elements), None)?;
            let before = take(&sums, &numbers, None)?;
            let (sum, element) = (|| Ok(Arc::clone(&before)), || Ok(Arc::clone(&elements)));
            let after = step.evaluate(&[&sum, &element], |captured| Ok(take_arrays(captured, &numbers, None)?))?;
            let after = cast(&after.into_array(rows.len())?, sums.data_type())?;
            sums = placed(&sums, &rows, &after)?;
        }
        let missing: BooleanArray = (0..lists.len()).map(|row| Some(lists.is_null(row))).collect();
        Ok(ColumnarValue::Array(arrow::compute::nullif(&sums, &missing)?))
    }
}

/// The values, with others at some rows, which are in order.
fn placed(values: &ArrayRef, rows: &[usize], others: &ArrayRef) -> DfResult<ArrayRef> {
    let mut next = rows.iter().enumerate().peekable();
    let places: Vec<(usize, usize)> =
        (0..values.len()).map(|row| next.next_if(|(_, at)| **at == row).map_or((0, row), |(other, _)| (1, other))).collect();
    Ok(interleave(&[values.as_ref(), others.as_ref()], &places)?)
}

fn wrong() -> datafusion::error::DataFusionError {
    plan_datafusion_err!("array_reduce takes an array, a start, and a lambda of two parameters")
}
