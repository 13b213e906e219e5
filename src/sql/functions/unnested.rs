//! `unnest_column(value, 'n')`: what `UNNEST(value) AS t(a, b)` gives in its nth column, as a list. Of a list of rows that are their nth
//! fields, of a map its keys and its values.
//!
//! Which column is a literal, so the type of the answer is known when a statement is planned. It is a text: whole numbers get their types
//! only later.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, Result};
use crate::sql::types;

/// The function.
pub fn unnest_column() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(UnnestColumn { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UnnestColumn {
    signature: Signature,
}

impl ScalarUDFImpl for UnnestColumn {
    fn name(&self) -> &str {
        "unnest_column"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        match arguments {
            [value, _] => Ok(vec![value.clone(), DataType::Utf8]),
            _ => Err(Error::undefined_function("unnest_column takes a value and the number of a column").into()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Err(Error::internal("the type of a column of UNNEST is in its number").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let value = args.arg_fields.first().map_or(&DataType::Null, |field| field.data_type());
        let place = match args.scalar_arguments.get(1) {
            Some(Some(place)) => number(place)?,
            _ => 0,
        };
        let item = column(value, place)?;
        Ok(Arc::new(Field::new(self.name(), DataType::List(item), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let DataType::List(item) = args.return_field.data_type() else { return Err(wrong().into()) };
        let [value, ColumnarValue::Scalar(place)] = args.args.as_slice() else { return Err(wrong().into()) };
        let place = number(place)?.checked_sub(1).ok_or_else(wrong)?;
        let value = value.to_array(args.number_rows)?;
        let list = match value.data_type() {
            DataType::Map(..) => {
                let map = value.as_map();
                let values = Arc::clone(map.entries().column(place));
                ListArray::try_new(Arc::clone(item), map.offsets().clone(), values, map.nulls().cloned())?
            }
            _ => {
                let list = value.as_list_opt::<i32>().ok_or_else(wrong)?;
                let rows = list.values().as_struct_opt().ok_or_else(wrong)?;
                ListArray::try_new(Arc::clone(item), list.offsets().clone(), field(rows, place)?, list.nulls().cloned())?
            }
        };
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}

/// A field of each row, NULL of a row that is NULL.
fn field(rows: &StructArray, place: usize) -> Result<ArrayRef> {
    let values = rows.column(place);
    let nulls = NullBuffer::union(rows.nulls(), values.logical_nulls().as_ref());
    let data = values.to_data().into_builder().nulls(nulls).build();
    Ok(make_array(data.map_err(|error| Error::internal(format!("fields of rows: {error}")))?))
}

/// The elements of a column.
fn column(value: &DataType, place: usize) -> Result<FieldRef> {
    let fields = fields(value).ok_or_else(|| {
        let of = types::plain_name(value);
        Error::datatype_mismatch(format!("UNNEST of {of} gives no rows of several columns"))
            .with_hint("several names of columns go with a map, which gives keys and values, and with an array of rows")
    })?;
    let field = place.checked_sub(1).and_then(|at| fields.get(at)).ok_or_else(|| {
        let message = format!("UNNEST gives {} columns, and more names are given", fields.len());
        Error::invalid_column_reference(message)
    })?;
    Ok(Arc::new(Field::new("item", field.data_type().clone(), true)))
}

fn number(place: &ScalarValue) -> DfResult<usize> {
    match place.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(place)) => Ok(usize::try_from(place).unwrap_or(0)),
        _ => Ok(0),
    }
}

fn fields(value: &DataType) -> Option<&Fields> {
    match value {
        DataType::List(rows) | DataType::Map(rows, _) => match rows.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

fn wrong() -> Error {
    Error::internal("a column of UNNEST is of a map, or of an array of rows")
}
