//! Messages of DataFusion and Arrow, and PostgreSQL's in their place. Names of types are SQL's already: [`super::words`].

use super::{Error, SqlState};

const CASTS: &str = "add explicit type casts";

/// What stands between two texts.
fn between<'a>(message: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(start)?;
    Some(rest.split_once(end).map_or(rest, |(inside, _)| inside))
}

/// Makes an error of a message.
type Make = fn(String) -> Error;

/// Messages that say always the same, by words in them.
const FIXED: [(&str, Make, &str); 28] = [
    (
        "For SELECT DISTINCT, ORDER BY expressions",
        Error::invalid_column_reference,
        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
    ),
    (
        "In an aggregate with DISTINCT, ORDER BY expressions",
        Error::invalid_column_reference,
        "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
    ),
    ("start bound cannot be UNBOUNDED FOLLOWING", Error::windowing, "frame start cannot be UNBOUNDED FOLLOWING"),
    ("end bound cannot be UNBOUNDED PRECEDING", Error::windowing, "frame end cannot be UNBOUNDED PRECEDING"),
    ("frame offsets for ROWS / GROUPS must be non negative", Error::invalid_frame_size, "frame offset must not be negative"),
    (
        "to grouping function is not in grouping columns",
        Error::grouping,
        "arguments to GROUPING must be grouping expressions of the associated query level",
    ),
    ("interval argument to generate_series must not be 0", Error::invalid_parameter, "step size cannot equal zero"),
    ("does not support logical expression ScalarSubquery", Error::unsupported, "cannot use subquery here"),
    ("Expected an integer value", Error::invalid_text, "a whole number is expected"),
    ("CompiledTooBig", Error::invalid_regular_expression, "invalid regular expression: regular expression is too complex"),
    (
        "Compiled regex exceeds size limit",
        Error::invalid_regular_expression,
        "invalid regular expression: regular expression is too complex",
    ),
    ("The subquery should only return one column", Error::syntax, "subquery has too many columns"),
    (
        "Scalar subquery returned more than one row",
        Error::cardinality_violation,
        "more than one row returned by a subquery used as an expression",
    ),
    ("exceeds the minimum supported scale", Error::numeric_out_of_range, "value overflows numeric format"),
    ("Substring without for/from is not valid", Error::undefined_function, "function substring(unknown) does not exist"),
    ("Aggregate functions are not allowed in the WHERE", Error::grouping, "aggregate functions are not allowed in WHERE"),
    ("Aggregate function calls cannot be nested", Error::grouping, "aggregate function calls cannot be nested"),
    ("LIMIT must be >= 0", Error::invalid_row_count, "LIMIT must not be negative"),
    ("OFFSET must be >=0", Error::invalid_row_offset, "OFFSET must not be negative"),
    ("NTILE requires a positive", Error::invalid_ntile, "argument of ntile must be greater than zero"),
    ("Step cannot be zero", Error::invalid_parameter, "step size cannot equal zero"),
    ("negative count not allowed", Error::negative_substring, "negative substring length not allowed"),
    ("overlay start position must be at least 1", Error::negative_substring, "negative substring length not allowed"),
    ("Inconsistent data length across values list", Error::syntax, "VALUES lists must all be the same length"),
    ("Timestamp out of range", Error::datetime_overflow, "timestamp out of range"),
    ("hex: Odd number of digits", Error::invalid_parameter, "invalid hexadecimal data: odd number of digits"),
    ("unnest() can only be applied to array", Error::undefined_function, "function unnest does not exist for what is no array"),
    ("Unary operator '-' only supports signed numeric", Error::undefined_function, "operator does not exist: - for this type"),
];

/// PostgreSQL's error for a message in [`super::words::plain`] words.
pub(super) fn better(message: &str) -> Option<Error> {
    if let Some((_, error, text)) = FIXED.iter().find(|(words, ..)| message.contains(words)) {
        return Some(error((*text).to_string()));
    }
    operation(message).or_else(|| call(message)).or_else(|| clause(message)).or_else(|| value(message))
}

/// The state of a message that stays as it is.
pub(super) fn state(message: &str) -> Option<SqlState> {
    use SqlState as S;
    const KNOWN: [(&str, SqlState); 31] = [
        ("overflow on abs", S::NumericOutOfRange),
        ("integer overflow in", S::NumericOutOfRange),
        ("No function matches the given name", S::UndefinedFunction),
        ("Cannot coerce arithmetic expression", S::UndefinedFunction),
        ("Cannot infer common argument type", S::UndefinedFunction),
        ("only supports signed numeric", S::UndefinedFunction),
        ("Unsupported argument type", S::UndefinedFunction),
        ("Aggregate functions are not allowed", S::GroupingError),
        ("Cannot find column with position", S::InvalidColumnReference),
        ("Order by column out of bounds", S::InvalidColumnReference),
        ("names given as column alias", S::InvalidColumnReference),
        ("queries have different number of columns", S::SyntaxError),
        ("Percentile value must be between", S::NumericOutOfRange),
        ("regex parse error", S::InvalidRegularExpression),
        ("negative substring length", S::NegativeSubstring),
        ("square root of a negative number", S::InvalidPower),
        ("raised to a negative power", S::InvalidPower),
        ("Unable to parse date from", S::DatetimeOverflow),
        ("Month value '", S::DatetimeOverflow),
        ("Day value '", S::DatetimeOverflow),
        ("Hour value '", S::DatetimeOverflow),
        ("Minute value '", S::DatetimeOverflow),
        ("Second value '", S::DatetimeOverflow),
        ("input is out of range", S::DatetimeOverflow),
        ("Error parsing timestamp from", S::InvalidDatetime),
        ("is no built-in encoding named", S::InvalidParameterValue),
        ("Expected LIMIT to be an integer", S::InvalidTextRepresentation),
        ("SELECT DISTINCT ON expressions must match", S::InvalidColumnReference),
        ("SELECT * with no tables specified", S::SyntaxError),
        ("WITH query name", S::DuplicateAlias),
        ("Cannot create filter with non-boolean predicate", S::DatatypeMismatch),
    ];
    KNOWN.iter().find(|(words, _)| message.contains(words)).map(|(_, state)| *state)
}

/// An operator that there is not for its operands.
fn operation(message: &str) -> Option<Error> {
    const WHOLE: [(&str, &str); 7] = [
        ("Cannot infer common argument type for operation ", "\n"),
        ("Cannot coerce arithmetic expression ", " to valid types"),
        ("Cannot get result type for temporal operation ", ": "),
        ("Cannot infer common string type for string concat operation ", "\n"),
        ("Cannot infer common argument type for comparison operation ", "\n"),
        ("Cannot infer common argument type for regex operation ", "\n"),
        ("Cannot infer common type for bitwise operation ", "\n"),
    ];
    const PARTS: [(&str, &str, &str, &str); 3] = [
        ("Can not find compatible types to compare ", " with [", "]", "="),
        ("Failed to coerce types ", " and ", " in BETWEEN", ">="),
        ("There isn't a common type to coerce ", " and ", " in LIKE", "~~"),
    ];
    let whole = WHOLE.iter().find_map(|(start, end)| between(message, start, end)).map(str::to_string);
    let operation = whole.or_else(|| {
        PARTS.iter().find_map(|(start, middle, end, operator)| {
            let (left, right) = between(message, start, end)?.split_once(middle)?;
            Some(format!("{left} {operator} {}", right.split(", ").next()?))
        })
    });
    if message.contains("Unsupported binary operator: PGOverlap") {
        return Some(Error::undefined_function("operator does not exist: && between what are no arrays").with_hint(CASTS));
    }
    if message.contains("Unsupported SQL unary operator") {
        return Some(Error::undefined_function("operator does not exist").with_hint(CASTS));
    }
    Some(Error::undefined_function(format!("operator does not exist: {}", operation?)).with_hint(CASTS))
}

/// A function that there is not for its arguments; some are forms of SQL's.
fn call(message: &str) -> Option<Error> {
    let call = between(message, "No function matches the given name and argument types '", "'")?;
    let (name, types) = call.strip_suffix(')').and_then(|call| call.split_once('(')).unwrap_or((call, ""));
    let types: Vec<&str> = types.split(", ").collect();
    let form = match name {
        "make_array" => "ARRAY",
        "coalesce" => "COALESCE",
        "greatest" => "GREATEST",
        "least" => "LEAST",
        "array_element" if types[0].ends_with("[]") => {
            return Some(Error::datatype_mismatch("array subscript must have type integer"));
        }
        "array_element" => {
            let message = format!("cannot subscript type {} because it does not support subscripting", types[0]);
            return Some(Error::datatype_mismatch(message));
        }
        "array_has" => return Some(Error::wrong_object_type("op ANY/ALL (array) requires array on right side")),
        _ => return Some(Error::undefined_function(format!("function {call} does not exist")).with_hint(CASTS)),
    };
    let other = types.iter().find(|other| **other != types[0]).unwrap_or(&types[0]);
    Some(Error::datatype_mismatch(format!("{form} types {} and {other} cannot be matched", types[0])).with_hint(CASTS))
}

/// A clause that cannot be as it is.
fn clause(message: &str) -> Option<Error> {
    if let Some(table) = between(message, "Invalid qualifier ", "\n") {
        return Some(Error::undefined_table(format!("missing FROM-clause entry for table \"{table}\"")));
    }
    if let Some(columns) = between(message, "Source table contains ", " columns but only ")
        && let Some(names) = between(message, " columns but only ", " names given as column alias")
    {
        let message = format!("{columns} columns are available but {names} columns specified");
        return Some(Error::invalid_column_reference(message));
    }
    if let Some(found) = between(message, "Cannot create filter with non-boolean predicate '", "\n")
        && let Some((_, found)) = found.rsplit_once("' returning ")
    {
        return Some(Error::datatype_mismatch(format!("argument of WHERE must be type boolean, not type {found}")));
    }
    if let Some(found) = between(message, "Unary operator 'NOT' requires a boolean expression, got ", "\n") {
        return Some(Error::datatype_mismatch(format!("argument of NOT must be type boolean, not type {found}")));
    }
    if let Some((before, _)) = message.split_once(" queries have different number of columns") {
        let word = before.rsplit(' ').next().unwrap_or("UNION");
        return Some(Error::syntax(format!("each {word} query must have the same number of columns")));
    }
    if let Some(place) = between(message, "Order by column out of bounds, specified: ", ",") {
        return Some(Error::invalid_column_reference(format!("ORDER BY position {place} is not in select list")));
    }
    if let Some(place) = between(message, "Cannot find column with position ", " ") {
        return Some(Error::invalid_column_reference(format!("GROUP BY position {place} is not in select list")));
    }
    if let Some(found) = between(message, "Expected LIMIT to be an integer or null, but got ", "\n") {
        return Some(Error::invalid_text(format!("argument of LIMIT must be type bigint, not type {found}")));
    }
    if let Some(found) = between(message, "Inconsistent data type across values list at row ", "\n")
        && let Some((one, other)) = between(found, "Was ", "\n").and_then(|types| types.split_once(" but found "))
    {
        return Some(Error::datatype_mismatch(format!("VALUES types {one} and {other} cannot be matched")));
    }
    let start = between(message, "Invalid window frame: start bound (", ")")?;
    let row = if start.contains("FOLLOWING") { "following" } else { "current" };
    Some(Error::windowing(format!("frame starting from {row} row cannot have preceding rows")))
}

/// A value that cannot be.
fn value(message: &str) -> Option<Error> {
    if let Some(rest) = between(message, "Cannot cast string '", "\n")
        && let Some((text, to)) = rest.rsplit_once("' to value of ")
    {
        let to = to.strip_suffix(" type").unwrap_or(to);
        return Some(Error::invalid_text(format!("invalid input syntax for type {to}: \"{text}\"")));
    }
    if let Some(types) = between(message, "Unsupported CAST from ", "\n") {
        return Some(Error::undefined_cast(format!("cannot cast type {types}")));
    }
    if message.contains("Cannot access field at argument") {
        return Some(Error::datatype_mismatch("array subscript must have type integer"));
    }
    if message.contains("Third argument must be an interval") {
        let message = "argument 3 of the function must be an interval";
        return Some(Error::undefined_function(message).with_hint(CASTS));
    }
    if let Some(text) = between(message, "Error parsing timestamp from '", "'") {
        if message.contains("input is out of range") {
            return Some(Error::datetime_overflow(format!("date/time field value out of range: \"{text}\"")));
        }
        return Some(Error::invalid_datetime(match message.contains("' using format '") {
            true => format!("invalid value \"{text}\" for the template"),
            false => format!("invalid input syntax for type timestamp: \"{text}\""),
        }));
    }
    if let Some(name) = between(message, "There is no built-in encoding named '", "'") {
        return Some(Error::invalid_parameter(format!("unrecognized encoding: \"{name}\"")));
    }
    if let Some(at) = between(message, "Argument #", " must be an INTEGER") {
        return Some(Error::undefined_function(format!("argument {at} of the function must be an integer")).with_hint(CASTS));
    }
    if let Some(code) = between(message, "invalid Unicode scalar value: ", "\n") {
        return Some(match code.starts_with('-') {
            true => Error::invalid_parameter("character number must be positive"),
            false => Error::limit_exceeded(format!("requested character not valid for encoding: {code}")),
        });
    }
    if message.contains("regex parse error") {
        let why = message.rsplit_once("error: ").map_or("it cannot be read", |(_, why)| why);
        return Some(Error::invalid_regular_expression(format!("invalid regular expression: {why}")));
    }
    if let Some(digit) = between(message, "hex: Invalid character '", "'") {
        return Some(Error::invalid_parameter(format!("invalid hexadecimal digit: \"{digit}\"")));
    }
    if let Some(value) = between(message, "Percentile value must be between 0.0 and 1.0 inclusive, ", " ") {
        return Some(Error::numeric_out_of_range(format!("percentile value {value} is not between 0 and 1")));
    }
    for (start, field) in [("Month value '", "month"), ("Day value '", "day")] {
        if let Some(value) = between(message, start, "'") {
            return Some(Error::datetime_overflow(format!("date field value out of range: {field} {value}")));
        }
    }
    let operation = between(message, "Overflow happened on: ", "\n")?;
    let of = operation.split(' ').next().and_then(|least| least.parse::<i64>().ok());
    Some(Error::numeric_out_of_range(match of {
        // The least number by -1.
        Some(i64::MIN) => "bigint out of range".to_string(),
        Some(least) if least == i64::from(i32::MIN) => "integer out of range".to_string(),
        Some(least) if least == i64::from(i16::MIN) => "smallint out of range".to_string(),
        _ => format!("value out of range: {operation}"),
    }))
}

/// What the planner says of columns that are not grouped by.
pub(super) fn ungrouped(message: &str) -> Error {
    const CLAUSE: &str = "must appear in the GROUP BY clause or be used in an aggregate function";
    if message.contains("HAVING clause references") {
        return Error::grouping(format!("what HAVING compares {CLAUSE}"));
    }
    match between(message, "column \"", "\" must appear in the GROUP BY") {
        Some(column) => Error::grouping(format!("column \"{column}\" {CLAUSE}")),
        None => Error::grouping(message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::plain;
    use super::*;

    #[rstest::rstest]
    #[case("Cannot coerce arithmetic expression Date32 + Date32 to valid types", "42883 operator does not exist: date + date")]
    #[case(
        "Cannot get result type for temporal operation Date32 * Date32: Invalid argument error: it is none",
        "42883 operator does not exist: date * date"
    )]
    #[case(
        "Error. No function matches the given name and argument types 'f(Int64, Utf8)'. You might",
        "42883 function f(bigint, text) does not exist"
    )]
    #[case(
        "No function matches the given name and argument types 'coalesce(Int64, Boolean)'.",
        "42804 COALESCE types bigint and boolean cannot be matched"
    )]
    #[case("did not compile: CompiledTooBig(10485760)", "2201B invalid regular expression: regular expression is too complex")]
    #[case("regex parse error:\n    (\n    ^\nerror: unclosed group", "2201B invalid regular expression: unclosed group")]
    #[case("Cannot cast string 'it's' to value of Int32 type", "22P02 invalid input syntax for type integer: \"it's\"")]
    #[case(
        "Internal error: Failed to coerce types Int32 and Timestamp(µs) in BETWEEN expression.\nIt is a bug",
        "42883 operator does not exist: integer >= timestamp without time zone"
    )]
    #[case("Overflow happened on: -2147483648 / -1", "22003 integer out of range")]
    #[case("Invalid window frame: start bound (1 FOLLOWING) cannot be larger", "42P20 frame starting from following row")]
    #[case(
        "Cannot create filter with non-boolean predicate 't.id' returning Int32",
        "42804 argument of WHERE must be type boolean, not type integer"
    )]
    fn known_messages_are_postgres_s(#[case] message: &str, #[case] expected: &str) {
        let error = format!("{:?}", better(&plain(message)).unwrap());
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_column_is_named_that_is_not_grouped_by() {
        let message = "While expanding wildcard, column \"t.id\" must appear in the GROUP BY clause or must be part of an";
        let expected = "column \"t.id\" must appear in the GROUP BY clause or be used in an aggregate function";
        assert_eq!(ungrouped(message).message(), expected);
    }
}
