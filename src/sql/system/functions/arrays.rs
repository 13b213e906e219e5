//! `rows_or_empty`: what `ARRAY(SELECT …)` gives when there are no rows. `parameter_list`: the type of the parameter in `x = ANY ($1)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
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

/// A parameter as a list of what the second argument is. The parameter's type is asked of the plan before there is a value; with
/// one, the statement is planned without this.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ListOf {
    signature: Signature,
}

impl ListOf {
    pub fn new() -> ListOf {
        ListOf { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ListOf {
    fn name(&self) -> &str {
        "parameter_list"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [_, element] => Ok(DataType::new_list(element.clone(), true)),
            _ => Err(Error::internal("parameter_list takes a parameter and a value").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let list = args.args.first().ok_or_else(|| Error::internal("parameter_list takes a parameter and a value"))?;
        list.cast_to(args.return_type(), None)
    }
}

/// A list of its elements, `x`, each with its number, `n`: what `_pg_expandarray` takes apart.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Numbered {
    signature: Signature,
}

impl Numbered {
    pub fn new() -> Numbered {
        Numbered { signature: Signature::any(1, Volatility::Immutable) }
    }
}

fn numbered(element: &DataType) -> Fields {
    Fields::from(vec![Field::new("x", element.clone(), true), Field::new("n", DataType::Int32, true)])
}

impl ScalarUDFImpl for Numbered {
    fn name(&self) -> &str {
        "numbered"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [DataType::List(element)] => Ok(DataType::new_list(DataType::Struct(numbered(element.data_type())), true)),
            _ => Err(Error::datatype_mismatch("_pg_expandarray takes an array").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(lists) = arrays.first().and_then(|lists| lists.as_list_opt::<i32>()) else {
            return Err(Error::datatype_mismatch("_pg_expandarray takes an array").into());
        };
        let lists = compact(lists)?;
        let numbers = lists.offsets().lengths().flat_map(|length| 1..=i32::try_from(length).unwrap_or(i32::MAX));
        let columns: Vec<ArrayRef> = vec![Arc::clone(lists.values()), Arc::new(Int32Array::from_iter_values(numbers))];
        let records = StructArray::try_new(numbered(lists.values().data_type()), columns, None)?;
        let field = Arc::new(Field::new_list_field(records.data_type().clone(), true));
        let lists = ListArray::try_new(field, lists.offsets().clone(), Arc::new(records), lists.nulls().cloned())?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}

/// The same lists over just their own elements.
fn compact(lists: &ListArray) -> DfResult<ListArray> {
    let (first, last) = (lists.offsets()[0] as usize, lists.offsets()[lists.len()] as usize);
    let offsets = OffsetBuffer::from_lengths(lists.offsets().lengths());
    let DataType::List(field) = lists.data_type() else { return Ok(lists.clone()) };
    Ok(ListArray::try_new(Arc::clone(field), offsets, lists.values().slice(first, last - first), lists.nulls().cloned())?)
}
