//! `rows_or_empty`: what `ARRAY(SELECT …)` gives when there are no rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;

/// A list, and for NULL the list without elements.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RowsOrEmpty {
    signature: Signature,
}

impl RowsOrEmpty {
    pub fn new() -> RowsOrEmpty {
        RowsOrEmpty { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for RowsOrEmpty {
    fn name(&self) -> &str {
        "rows_or_empty"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [list @ DataType::List(_)] => Ok(list.clone()),
            _ => Err(Error::internal("rows_or_empty takes a list").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let Some(column) = args.args.into_iter().next() else {
            return Err(Error::internal("rows_or_empty takes a list").into());
        };
        let column: ArrayRef = column.into_array(rows)?;
        let lists = column.as_list::<i32>();
        let DataType::List(element) = column.data_type() else {
            return Err(Error::internal("rows_or_empty takes a list").into());
        };
        if lists.null_count() == 0 {
            return Ok(ColumnarValue::Array(column));
        }
        let slices: Vec<ArrayRef> = (0..lists.len()).filter(|&row| lists.is_valid(row)).map(|row| lists.value(row)).collect();
        let lengths = (0..lists.len()).map(|row| if lists.is_valid(row) { lists.value(row).len() } else { 0 });
        let offsets = OffsetBuffer::from_lengths(lengths);
        let parts: Vec<&dyn Array> = slices.iter().map(AsRef::as_ref).collect();
        let values =
            if parts.is_empty() { arrow::array::new_empty_array(element.data_type()) } else { arrow::compute::concat(&parts)? };
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(element.clone(), offsets, values, None)?)))
    }
}
