//! The value of a scalar subquery from the array of its rows; a second row is an error.

use std::sync::LazyLock;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;

pub(super) static ONE_ROW: LazyLock<ScalarUDF> =
    LazyLock::new(|| ScalarUDF::new_from_impl(OneRow { signature: Signature::any(1, Volatility::Immutable) }));

/// The one element of an array of a subquery's rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OneRow {
    signature: Signature,
}

impl ScalarUDFImpl for OneRow {
    fn name(&self) -> &str {
        "one_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [DataType::List(element)] => Ok(element.data_type().clone()),
            _ => Err(Error::internal("one_row takes the rows of a subquery").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let mut columns = args.args.into_iter().map(|a| a.into_array(rows));
        let Some(column) = columns.next().transpose()? else {
            return Err(Error::internal("one_row takes the rows of a subquery").into());
        };
        Ok(ColumnarValue::Array(one_row(&column)?))
    }
}

fn one_row(column: &ArrayRef) -> DfResult<ArrayRef> {
    let lists = column.as_list::<i32>();
    let mut indices = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let start = u64::try_from(lists.value_offsets()[row]).unwrap_or(0);
        match if lists.is_null(row) { 0 } else { lists.value_length(row) } {
            0 => indices.push(None),
            1 => indices.push(Some(start)),
            _ => {
                return Err(Error::cardinality_violation("more than one row returned by a subquery used as an expression").into());
            }
        }
    }
    Ok(arrow::compute::take(lists.values(), &UInt64Array::from(indices), None)?)
}
