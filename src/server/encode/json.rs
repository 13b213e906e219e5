//! Maps as JSON objects, which Postgres has no other type for, and what is inside them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::{Cell, Column, text};
use crate::error::Result;
use crate::time::zone::Zone;

/// A cell that writes a row of any type as JSON.
pub fn cell(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    Ok(match array.data_type() {
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.offsets().clone();
            let (key, value) = (text::cell(map.keys(), zone)?, value(map.values(), zone)?);
            Box::new(move |row, out| {
                out.push(b'{');
                for (index, entry) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    string(&key, entry, out)?;
                    out.push(b':');
                    value(entry, out)?;
                }
                out.push(b'}');
                Ok(())
            })
        }
        DataType::Struct(fields) => {
            let members = fields.iter().zip(array.as_struct().columns());
            let members =
                members.map(|(field, array)| Ok((escaped(field.name()), value(array, zone)?))).collect::<Result<Vec<_>>>()?;
            Box::new(move |row, out| {
                out.push(b'{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    out.push(b':');
                    member(row, out)?;
                }
                out.push(b'}');
                Ok(())
            })
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.offsets().clone();
            let value = value(list.values(), zone)?;
            Box::new(move |row, out| {
                out.push(b'[');
                for (index, item) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    value(item, out)?;
                }
                out.push(b']');
                Ok(())
            })
        }
        DataType::Boolean => super::boolean(array, |value, out| out.extend_from_slice(if value { b"true" } else { b"false" })),
        data_type if data_type.is_integer() || data_type.is_decimal() => text::cell(array, zone)?,
        // JSON has no NaN and no infinity.
        data_type if data_type.is_floating() => {
            let text = text::cell(array, zone)?;
            Box::new(move |row, out| {
                let start = out.len();
                text(row, out)?;
                if out[start..].iter().any(|byte| matches!(byte, b'N' | b'I')) {
                    out.insert(start, b'"');
                    out.push(b'"');
                }
                Ok(())
            })
        }
        _ => {
            let text = text::cell(array, zone)?;
            Box::new(move |row, out| string(&text, row, out))
        }
    })
}

/// As [`cell`], with `null` for NULL.
fn value(array: &ArrayRef, zone: Zone) -> Result<Cell> {
    let column = Column { nulls: array.logical_nulls(), cell: cell(array, zone)? };
    Ok(Box::new(move |row, out| {
        if column.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        (column.cell)(row, out)
    }))
}

/// What `text` writes, as a JSON string.
fn string(text: &Cell, row: usize, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    text(row, out)?;
    if out[start..].iter().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let plain = out.split_off(start);
        out.extend_from_slice(&escaped(&String::from_utf8_lossy(&plain)));
    } else {
        out.insert(start, b'"');
        out.push(b'"');
    }
    Ok(())
}

fn escaped(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}
