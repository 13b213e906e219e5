//! What do functions take their arguments for, where DataFusion takes them for something else?
//!
//! | written | planned |
//! | --- | --- |
//! | `concat(ts, flag)`, `format('%s', a)`, `array_to_string(a, ',')` | with the texts that a client is shown, so `t` for a boolean |
//! | `encode('\\x00ff', 'hex')` | the string is read as bytes |
//! | `quote_literal(ts)` | of its text |
//! | `generate_series(1, 3)`, `generate_series(date, date, '1 day')` | of `integer`; of times, in the type of the first |

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit, when};

use super::unknown::is_string;
use crate::sql::functions::convert::converted;
use crate::sql::types;
use crate::time::TIMESTAMP;

/// Functions that make one text of values of any type.
const JOIN: [&str; 4] = ["concat", "concat_ws", "format", "array_to_string"];

/// Functions whose first argument is bytes.
const OF_BYTES: [&str; 9] =
    ["encode", "sha224", "sha256", "sha384", "sha512", "get_byte", "set_byte", "convert_from", "bit_count"];

/// Functions of one text that they cast their argument to.
const QUOTE: [&str; 2] = ["quote_literal", "quote_nullable"];

const SERIES: &str = "generate_series";

/// Is there something to say of the function's arguments?
pub(super) fn concerns(name: &str) -> bool {
    JOIN.contains(&name) || OF_BYTES.contains(&name) || QUOTE.contains(&name) || name == SERIES
}

/// The call that was meant.
pub(super) fn as_meant(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let name = call.name();
    if JOIN.contains(&name) {
        let is_array = name == "array_to_string";
        for argument in call.args.iter_mut().take(if is_array { 1 } else { usize::MAX }) {
            let from = argument.get_type(schema)?;
            *argument =
                if is_array { items_shown(std::mem::take(argument), &from)? } else { shown(std::mem::take(argument), &from)? };
        }
    } else if OF_BYTES.contains(&name) {
        if let Some(bytes) = call.args.first_mut().filter(|bytes| is_string(bytes)) {
            *bytes = converted(std::mem::take(bytes), DataType::Binary)?;
        }
    } else if QUOTE.contains(&name) {
        for value in &mut call.args {
            let from = value.get_type(schema)?;
            if !types::is_text(&from) && !from.is_null() {
                *value = converted(std::mem::take(value), DataType::Utf8)?;
            }
        }
    } else {
        return series(call, schema);
    }
    Ok(Expr::ScalarFunction(call))
}

/// The value's text, as a client is shown it.
fn shown(value: Expr, from: &DataType) -> DfResult<Expr> {
    Ok(match from {
        DataType::Null => value,
        text if types::is_text(text) => value,
        DataType::Boolean => when(value.clone().is_true(), lit("t")).when(value.is_false(), lit("f")).end()?,
        _ => converted(value, DataType::Utf8)?,
    })
}

/// An array of the texts of another's items.
fn items_shown(list: Expr, from: &DataType) -> DfResult<Expr> {
    match from {
        DataType::List(item)
            if !types::is_text(item.data_type()) && !item.data_type().is_null() && !item.data_type().is_nested() =>
        {
            let text = converted(list, DataType::Utf8)?;
            Ok(converted(text, DataType::new_list(DataType::Utf8, true))?)
        }
        _ => Ok(list),
    }
}

/// The bounds of one type, and the list of it.
fn series(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let types = call.args.iter().map(|bound| bound.get_type(schema)).collect::<DfResult<Vec<_>>>()?;
    let item = match types.first() {
        Some(DataType::Int32 | DataType::Int16)
            if types.iter().all(|t| matches!(t, DataType::Int16 | DataType::Int32 | DataType::Null)) =>
        {
            DataType::Int32
        }
        Some(moment @ DataType::Timestamp(..)) => moment.clone(),
        Some(DataType::Date32) => TIMESTAMP,
        _ => return Ok(Expr::ScalarFunction(call)),
    };
    for (bound, of) in call.args.iter_mut().zip(&types) {
        if *of == DataType::Date32 {
            *bound = cast(std::mem::take(bound), item.clone());
        }
    }
    Ok(cast(Expr::ScalarFunction(call), DataType::new_list(item, true)))
}
