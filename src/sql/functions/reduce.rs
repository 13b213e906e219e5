//! `array_reduce(list, start, (sum, x) -> …)`: ksqlDB's REDUCE. An element after the other goes into the sum; of no elements it is the
//! start, of no list NULL.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt64Array};
use arrow::compute::{cast, interleave, nullif, take, take_arrays};
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
        let start = start.to_array(args.number_rows)?;
        let length = |row: usize| if lists.is_null(row) { 0 } else { lists.value_length(row) as usize };
        // The longest first: those that go on are always the first of them, and the work is as long as the lists together.
        let mut rows: Vec<usize> = (0..lists.len()).filter(|row| length(*row) > 0).collect();
        rows.sort_by_key(|row| Reverse(length(*row)));

        // Where the sum of each row is in the end: the number of an array, and a place in it.
        let mut places: Vec<(usize, usize)> = (0..lists.len()).map(|row| (0, row)).collect();
        let mut sums = take(&start, &numbers(&rows), None)?;
        let mut ended = vec![start];
        for place in 0.. {
            let going_on = rows.partition_point(|row| length(*row) > place);
            if going_on < rows.len() {
                let of_array = rows.drain(going_on..).enumerate();
                of_array.for_each(|(at, row)| places[row] = (ended.len(), at));
                ended.push(sums.slice(going_on, sums.len() - going_on));
                sums = sums.slice(0, going_on);
            }
            if rows.is_empty() {
                break;
            }
            let numbers = numbers(&rows);
            let elements: UInt64Array = rows.iter().map(|row| (lists.offsets()[*row] as usize + place) as u64).collect();
            let elements = take(lists.values(), &elements, None)?;
            let (sum, element) = (|| Ok(Arc::clone(&sums)), || Ok(Arc::clone(&elements)));
            let after = step.evaluate(&[&sum, &element], |captured| Ok(take_arrays(captured, &numbers, None)?))?;
            sums = cast(&after.into_array(rows.len())?, sums.data_type())?;
        }
        let ended: Vec<&dyn Array> = ended.iter().map(AsRef::as_ref).collect();
        let missing: BooleanArray = (0..lists.len()).map(|row| Some(lists.is_null(row))).collect();
        Ok(ColumnarValue::Array(nullif(&interleave(&ended, &places)?, &missing)?))
    }
}

fn numbers(rows: &[usize]) -> UInt64Array {
    rows.iter().map(|row| *row as u64).collect()
}

fn wrong() -> datafusion::error::DataFusionError {
    plan_datafusion_err!("array_reduce takes an array, a start, and a lambda of two parameters")
}
