//! Values to JSON, as PostgreSQL's `to_json` writes them.

use arrow::array::{Array, ArrayRef, AsArray, GenericStringArray, MapArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};

use crate::copy::value::SECOND;
use crate::copy::value::write::{Writer, canonical, push_offset, push_timestamp, text_writer};
use crate::error::Result;
use crate::time::zone::Zone;

/// How the values of an array are written as JSON. The caller sees to NULLs of the array itself.
pub(crate) fn json_writer(array: &ArrayRef) -> Result<Writer> {
    let array = canonical(array)?;
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }))
        }
        data_type if data_type.is_integer() || data_type.is_decimal() => text_writer(&array)?,
        DataType::Float32 | DataType::Float64 => {
            let writer = text_writer(&array)?;
            Box::new(move |row, out| {
                let start = out.len();
                writer(row, out);
                // NaN and the infinities are no JSON numbers.
                if out.last().is_some_and(u8::is_ascii_alphabetic) {
                    out.insert(start, b'"');
                    out.push(b'"');
                }
            })
        }
        DataType::Utf8 => {
            let array: GenericStringArray<i32> = array.as_string().clone();
            Box::new(move |row, out| push_string(out, array.value(row)))
        }
        DataType::Timestamp(_, zone) => {
            let zone = zone.as_deref().map(Zone::of_type);
            let array = array.as_primitive::<TimestampMicrosecondType>().clone();
            Box::new(move |row, out| {
                out.push(b'"');
                let start = out.len();
                let micros = array.value(row);
                let east = zone.map(|zone| zone.offset(micros));
                push_timestamp(out, micros.saturating_add(i64::from(east.unwrap_or(0)) * SECOND));
                if let Some(space) = out[start..].iter().position(|b| *b == b' ') {
                    out[start + space] = b'T';
                }
                // The zone stands before " BC".
                let end = if out.ends_with(b" BC") { out.len() - 3 } else { out.len() };
                let mut suffix = Vec::new();
                east.into_iter().for_each(|east| push_offset(&mut suffix, east, true));
                out.splice(end..end, suffix);
                out.push(b'"');
            })
        }
        DataType::List(_) => list_writer(&array)?,
        DataType::Struct(_) => record_writer(&array)?,
        DataType::Map(..) => map_writer(array.as_map())?,
        _ => {
            let writer = text_writer(&array)?;
            Box::new(move |row, out| {
                let start = out.len();
                writer(row, out);
                let text = out.split_off(start);
                push_string(out, &String::from_utf8_lossy(&text));
            })
        }
    })
}

/// The same, with `null`.
fn nullable_writer(array: &ArrayRef) -> Result<Writer> {
    let writer = json_writer(array)?;
    let nulls = array.logical_nulls();
    let is_null = move |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    Ok(Box::new(move |row, out| if is_null(row) { out.extend_from_slice(b"null") } else { writer(row, out) }))
}

fn list_writer(array: &ArrayRef) -> Result<Writer> {
    let list = array.as_list::<i32>().clone();
    let item = nullable_writer(list.values())?;
    Ok(Box::new(move |row, out| {
        let offsets = list.value_offsets();
        out.push(b'[');
        for at in offsets[row] as usize..offsets[row + 1] as usize {
            if at > offsets[row] as usize {
                out.push(b',');
            }
            item(at, out);
        }
        out.push(b']');
    }))
}

fn record_writer(array: &ArrayRef) -> Result<Writer> {
    let record = array.as_struct();
    let names: Vec<Vec<u8>> = record.fields().iter().map(|field| key(field.name())).collect();
    let writers = record.columns().iter().map(nullable_writer).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |row, out| {
        out.push(b'{');
        for (i, (name, writer)) in names.iter().zip(&writers).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            writer(row, out);
        }
        out.push(b'}');
    }))
}

/// `"name":`
pub(crate) fn key(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(&mut out, name);
    out.push(b':');
    out
}

fn map_writer(map: &MapArray) -> Result<Writer> {
    let map = map.clone();
    let key = text_writer(map.keys())?;
    let value = nullable_writer(map.values())?;
    Ok(Box::new(move |row, out| {
        let offsets = map.value_offsets();
        out.push(b'{');
        let mut name = Vec::new();
        for at in offsets[row] as usize..offsets[row + 1] as usize {
            if at > offsets[row] as usize {
                out.push(b',');
            }
            name.clear();
            key(at, &mut name);
            push_string(out, &String::from_utf8_lossy(&name));
            out.push(b':');
            value(at, out);
        }
        out.push(b'}');
    }))
}

pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', b]),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
