//! Which function does a call mean? PostgreSQL's rules, for functions that share a name.
//!
//! A function fits a call if each argument has its parameter's type or is cast to it without being asked: numbers to wider ones, dates
//! to timestamps, string literals and NULL to anything. Of those that fit, the one wins that needs fewest casts, and then the
//! one that casts to the types that PostgreSQL prefers; if that leaves several, the call is ambiguous.
//!
//! One rule is added. DataFusion computes with wider integers than PostgreSQL does (`a + 1` of an integer is a bigint), so a wide
//! integer fits a narrower parameter, too, where nothing better does; a value that is too large is an error.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use crate::catalog::function::Function;
use crate::error::{Error, Result};
use crate::sql::types;

/// An argument as it was given.
pub struct Argument {
    data_type: DataType,
    /// A string literal, whose type is what its place wants.
    is_unknown: bool,
}

impl Argument {
    pub fn new(data_type: &DataType, literal: Option<&ScalarValue>) -> Argument {
        // Literals are bigint to DataFusion, and integer to PostgreSQL where they can be.
        let is_integer = matches!(literal, Some(ScalarValue::Int64(Some(n))) if i32::try_from(*n).is_ok());
        let data_type = if is_integer { DataType::Int32 } else { data_type.clone() };
        let is_text = matches!(literal, Some(ScalarValue::Utf8(_) | ScalarValue::LargeUtf8(_) | ScalarValue::Utf8View(_)));
        Argument { is_unknown: is_text || data_type == DataType::Null, data_type }
    }

    fn name(&self) -> String {
        if self.is_unknown { "unknown".to_string() } else { types::sql_type(&self.data_type) }
    }
}

/// How well a function fits; less is better, in this order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    narrowed: usize,
    cast: usize,
    /// Of the casts, those to a type that is not preferred.
    plain: usize,
    defaults: usize,
}

/// The function that a call means.
pub fn choose<'f>(name: &str, candidates: &'f [Arc<Function>], arguments: &[Argument]) -> Result<&'f Arc<Function>> {
    let fitting = candidates.iter().filter_map(|function| Some((fit(function, arguments)?, function)));
    let mut fitting: Vec<_> = fitting.collect();
    fitting.sort_by_key(|(fit, _)| *fit);
    let call = || format!("{name}({})", arguments.iter().map(Argument::name).collect::<Vec<_>>().join(", "));
    match fitting.as_slice() {
        [] => {
            let known: Vec<String> = candidates.iter().map(|function| function.signature()).collect();
            Err(Error::undefined_function(format!("function {} does not exist", call()))
                .with_detail(format!("there is {}", known.join(", ")))
                .with_hint("no function matches the given name and argument types; you might need to add explicit type casts"))
        }
        [(best, _), (next, _), ..] if best == next => {
            Err(Error::ambiguous_function(format!("function {} is not unique", call()))
                .with_hint("could not choose a best candidate function; you might need to add explicit type casts"))
        }
        [(_, best), ..] => Ok(best),
    }
}

fn fit(function: &Function, arguments: &[Argument]) -> Option<Fit> {
    let count = function.parameters.len();
    if arguments.len() > count || arguments.len() < function.required() {
        return None;
    }
    let mut all = Fit { defaults: count - arguments.len(), ..Fit::default() };
    for (argument, parameter) in arguments.iter().zip(&function.parameters) {
        let to = &parameter.data_type;
        // What is unknown is text if it may be.
        let given = if argument.is_unknown { &DataType::Utf8 } else { &argument.data_type };
        if same(given, to) {
            continue;
        }
        all.cast += 1;
        all.plain += usize::from(!is_preferred(to));
        if !argument.is_unknown && !widens(given, to) {
            if !narrows(given, to) {
                return None;
            }
            all.narrowed += 1;
        }
    }
    Some(all)
}

/// May a body of this type be the result of a function of that type? What an INSERT may do, a function may.
pub fn returns(from: &DataType, to: &DataType) -> bool {
    let numbers = number(from).is_some() && number(to).is_some();
    let instants =
        matches!(from, DataType::Timestamp(..) | DataType::Date32) && matches!(to, DataType::Timestamp(..) | DataType::Date32);
    *from == DataType::Null || same(from, to) || numbers || instants || widens(from, to) || *to == DataType::Utf8
}

/// Are they one type of PostgreSQL's, but for lengths and precisions?
fn same(a: &DataType, b: &DataType) -> bool {
    use DataType as D;
    match (a, b) {
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8 | D::LargeUtf8 | D::Utf8View)
        | (D::Binary | D::LargeBinary | D::BinaryView, D::Binary | D::LargeBinary | D::BinaryView)
        | (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_))
        | (D::Interval(_) | D::Duration(_), D::Interval(_) | D::Duration(_)) => true,
        (D::Timestamp(_, a), D::Timestamp(_, b)) => a.is_some() == b.is_some(),
        (D::List(a) | D::LargeList(a), D::List(b) | D::LargeList(b)) => same(a.data_type(), b.data_type()),
        _ => number(a).is_some_and(|a| number(b) == Some(a)) || a == b,
    }
}

/// Numbers from narrow to wide: each is cast to those after it.
fn number(data_type: &DataType) -> Option<u8> {
    use DataType as D;
    Some(match data_type {
        D::Int8 | D::UInt8 | D::Int16 => 1,
        D::UInt16 | D::Int32 => 2,
        D::UInt32 | D::UInt64 | D::Int64 => 3,
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => 4,
        D::Float16 | D::Float32 => 5,
        D::Float64 => 6,
        _ => return None,
    })
}

fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Null, _) => true,
        (D::Date32, D::Timestamp(..)) => true,
        (D::Timestamp(_, None), D::Timestamp(_, Some(_))) => true,
        (D::List(from) | D::LargeList(from), D::List(to) | D::LargeList(to)) => widens(from.data_type(), to.data_type()),
        _ => number(from).zip(number(to)).is_some_and(|(from, to)| from < to),
    }
}

fn narrows(from: &DataType, to: &DataType) -> bool {
    from.is_integer() && to.is_integer()
}

/// The preferred types of their categories.
fn is_preferred(data_type: &DataType) -> bool {
    use DataType as D;
    matches!(data_type, D::Float64 | D::Utf8 | D::Timestamp(_, Some(_)) | D::Boolean | D::Interval(_))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use rstest::rstest;

    use super::*;
    use crate::catalog::function::{Parameter, Volatility};

    /// `int,text=` is a function of two parameters, the second with a default.
    fn function(types: &str) -> Arc<Function> {
        let parameter = |word: &str| Parameter {
            name: None,
            data_type: data_type(word.trim_end_matches('=')),
            sql_type: word.trim_end_matches('=').to_string(),
            default: word.ends_with('=').then(|| "NULL".to_string()),
        };
        Arc::new(Function {
            id: 1,
            version: 1,
            name: "f".into(),
            parameters: types.split(',').filter(|word| !word.is_empty()).map(parameter).collect(),
            returns: DataType::Int32,
            returns_sql: "integer".into(),
            body: "1".into(),
            volatility: Volatility::Immutable,
            strict: false,
            calls: Vec::new(),
            create_sql: String::new(),
            comment: None,
        })
    }

    fn data_type(word: &str) -> DataType {
        match word {
            "small" => DataType::Int16,
            "int" => DataType::Int32,
            "big" => DataType::Int64,
            "numeric" => DataType::Decimal128(10, 2),
            "float" => DataType::Float64,
            "text" => DataType::Utf8,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "null" => DataType::Null,
            other => panic!("{other}"),
        }
    }

    fn argument(word: &str) -> Argument {
        match word {
            "1" => Argument::new(&DataType::Int64, Some(&ScalarValue::Int64(Some(1)))),
            "5000000000" => Argument::new(&DataType::Int64, Some(&ScalarValue::Int64(Some(5_000_000_000)))),
            "'x'" => Argument::new(&DataType::Utf8, Some(&ScalarValue::from("x"))),
            other => Argument::new(&data_type(other), None),
        }
    }

    #[rstest]
    #[case("int|big", "1", "int")]
    #[case("int|big", "5000000000", "big")]
    #[case("big|float", "int", "float")]
    #[case("big|numeric", "float", "42883")]
    #[case("int", "big", "int")]
    #[case("int|float", "big", "float")]
    #[case("small|int", "big", "42725")]
    #[case("date|text", "'x'", "text")]
    #[case("date|int", "'x'", "42725")]
    #[case("timestamp", "date", "timestamp")]
    #[case("text", "int", "42883")]
    #[case("int|text", "null", "text")]
    #[case("int,text=|int", "1", "int")]
    #[case("int,text=", "1", "int,text=")]
    #[case("int,int", "1", "42883")]
    #[case("int,float|float,int", "int,int", "42725")]
    #[case("", "", "")]
    fn calls_mean_what_they_mean_in_postgres(#[case] candidates: &str, #[case] arguments: &str, #[case] chosen: &str) {
        let candidates: Vec<Arc<Function>> = candidates.split('|').map(function).collect();
        let arguments: Vec<Argument> = arguments.split(',').filter(|word| !word.is_empty()).map(argument).collect();
        match choose("f", &candidates, &arguments) {
            Ok(function) => assert_eq!(**function, *self::function(chosen)),
            Err(error) => assert_eq!(error.state().code(), chosen, "{error}"),
        }
    }
}
