//! What do functions take their arguments for, where DataFusion takes them for something else?
//!
//! | written | planned |
//! | --- | --- |
//! | `concat(ts, flag)`, `format('%s', a)`, `array_to_string(a, ',')` | with the texts that a client is shown, so `t` for a boolean |
//! | `encode('\\x00ff', 'hex')` | the string is read as bytes |
//! | `quote_literal(ts)` | of its text |
//! | `repeat(a, $1)` | an open parameter is of the type that the function takes |
//! | `generate_series(1, 3)`, `generate_series(date, date, '1 day')` | of `integer`; of times, in the type of the first |

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit, when};

use super::unknown::is_string;
use crate::sql::functions::convert::{converted, is_open, tell};
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

/// What functions take where that is no text: `i` an integer, `l` a bigint, `n` a numeric, `d` a double precision, `z` a timestamptz, `a` an array
/// of texts, `e` an item of the array among the arguments, `=` what the other arguments are. `t` is text.
const TAKEN: [(&str, &str); 53] = [
    ("abs", "d"),
    ("acos", "d"),
    ("age", "zz"),
    ("array_append", ".e"),
    ("array_element", ".i"),
    ("array_has", ".e"),
    ("array_position", ".e"),
    ("array_positions", ".e"),
    ("array_prepend", "e."),
    ("array_remove", ".e"),
    ("array_replace", ".ee"),
    ("asin", "d"),
    ("atan", "d"),
    ("atan2", "dd"),
    ("cbrt", "d"),
    ("ceil", "d"),
    ("chr", "i"),
    ("cos", "d"),
    ("degrees", "d"),
    ("exp", "d"),
    ("floor", "d"),
    ("generate_series", "=="),
    ("generate_series", "==="),
    ("json_get_path", ".a"),
    ("left", "ti"),
    ("ln", "d"),
    ("log", "d"),
    ("log10", "d"),
    ("lpad", "ti"),
    ("lpad", "tit"),
    ("make_date", "iii"),
    ("make_time", "iid"),
    ("make_timestamp", "iiiiid"),
    ("pg_sleep", "d"),
    ("power", "dd"),
    ("radians", "d"),
    ("repeat", "ti"),
    ("right", "ti"),
    ("round", "d"),
    ("round", "ni"),
    ("rpad", "ti"),
    ("rpad", "tit"),
    ("sign", "d"),
    ("sin", "d"),
    ("split_part", "tti"),
    ("sqrt", "d"),
    ("substr", "ti"),
    ("substr", "tii"),
    ("tan", "d"),
    ("timezone", "tz"),
    ("to_timestamp", "d"),
    ("trunc", "d"),
    ("trunc", "ni"),
];

/// Of the functions for advisory locks: one number, or two smaller ones.
fn of_lock(name: &str, count: usize) -> Option<&'static str> {
    let is_lock = name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_");
    if is_lock { ["l", "ii"].get(count.checked_sub(1)?).copied() } else { None }
}

/// Parameters whose types are open are what a function takes.
pub(super) fn tell_scalar(call: &mut ScalarFunction, schema: &DFSchema) -> DfResult<()> {
    let count = call.args.len();
    let found = TAKEN.iter().find(|(name, taken)| call.name() == *name && taken.len() == count).map(|(_, taken)| *taken);
    let Some(taken) = found.or_else(|| of_lock(call.name(), count)) else { return Ok(()) };
    let mut given = Vec::new();
    for argument in call.args.iter().filter(|argument| !is_open(argument)) {
        given.push(argument.get_type(schema)?);
    }
    for (argument, letter) in call.args.iter_mut().zip(taken.chars()) {
        let to = match letter {
            't' => Some(DataType::Utf8),
            'i' => Some(DataType::Int32),
            'l' => Some(DataType::Int64),
            'n' => Some(types::NUMERIC),
            'd' => Some(DataType::Float64),
            'z' => Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            'a' => Some(DataType::new_list(DataType::Utf8, true)),
            'e' => given.iter().find_map(|data_type| match data_type {
                DataType::List(item) => Some(item.data_type().clone()),
                _ => None,
            }),
            '=' => given.first().cloned(),
            _ => None,
        };
        if let Some(to) = to {
            tell(argument, &to);
        }
    }
    Ok(())
}

/// The same for functions over windows: how many rows away, and what is there where no row is.
pub(super) fn tell_window(call: &mut WindowFunction, schema: &DFSchema) -> DfResult<()> {
    let name = call.fun.name().to_lowercase();
    match (name.as_str(), call.params.args.as_mut_slice()) {
        ("lag" | "lead", [value, rest @ ..]) => {
            let of = value.get_type(schema)?;
            for (argument, to) in rest.iter_mut().zip([DataType::Int32, of]) {
                tell(argument, &to);
            }
        }
        ("nth_value", [_, count]) | ("ntile", [count]) => tell(count, &DataType::Int32),
        _ => {}
    }
    Ok(())
}

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
