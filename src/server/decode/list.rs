//! Arrays in the binary form, of any number of dimensions.

use arrow::datatypes::DataType;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use postgres_types::Type;

use super::binary;
use crate::copy::modifier::innermost;
use crate::error::{Error, Result};
use crate::server::frontend::Fields;
use crate::server::types::postgres_type;

fn list(values: &[ScalarValue], item: &DataType) -> ScalarValue {
    ScalarValue::List(ScalarValue::new_list(values, item, true))
}

pub fn from_binary(bytes: &[u8], item: &DataType) -> Result<ScalarValue> {
    let mut fields = Fields(Bytes::copy_from_slice(bytes));
    let malformed = |_| Error::invalid_binary("incorrect binary data format of an array");
    let dimensions = fields.i32().map_err(malformed)?;
    fields.i32().map_err(malformed)?;
    let oid = fields.i32().map_err(malformed)? as u32;
    if !(0..=6).contains(&dimensions) {
        return Err(Error::invalid_binary(format!("invalid number of array dimensions: {dimensions}")));
    }
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        let length = fields.i32().map_err(malformed)?;
        fields.i32().map_err(malformed)?;
        lengths.push(usize::try_from(length).map_err(|_| Error::invalid_binary("an array has a negative length"))?);
    }
    let leaf = innermost(item);
    let wire = Type::from_oid(oid).unwrap_or_else(|| postgres_type(leaf));
    if wire != postgres_type(leaf) && postgres_type(leaf) != Type::TEXT {
        let (sent, wanted) = (wire.name(), postgres_type(leaf));
        return Err(Error::datatype_mismatch(format!("an array of {sent} was sent for one of {}", wanted.name())));
    }
    // Every element has a length of four bytes before it, so no count can ask for more than has arrived.
    let elements = lengths.iter().fold(1usize, |product, length| product.saturating_mul(*length));
    if lengths.is_empty() || elements == 0 {
        lengths = vec![0];
    } else if elements.saturating_mul(4) > fields.0.len() {
        return Err(Error::invalid_binary("an array has fewer elements than it says"));
    }
    let value = dimension(&mut fields, &lengths, item, &wire)?;
    if fields.0.is_empty() { Ok(value) } else { Err(Error::invalid_binary("bytes are left over after an array")) }
}

fn dimension(fields: &mut Fields, lengths: &[usize], item: &DataType, wire: &Type) -> Result<ScalarValue> {
    let Some((length, inner_lengths)) = lengths.split_first() else {
        return Err(Error::invalid_binary("an array has fewer dimensions than its type"));
    };
    let values = (0..*length).map(|_| match item {
        DataType::List(inner) => dimension(fields, inner_lengths, inner.data_type(), wire),
        _ if !inner_lengths.is_empty() => Err(Error::datatype_mismatch("an array has more dimensions than its type")),
        _ => match fields.value()? {
            None => Ok(ScalarValue::try_from(item)?),
            Some(bytes) => binary::value(&bytes, wire, item),
        },
    });
    Ok(list(&values.collect::<Result<Vec<_>>>()?, item))
}
