//! Casts to PostgreSQL's own types.
//!
//! A `reg…` value is an OID that shows as a name. Which of the two is meant is told by where the cast stands: what the query
//! gives out, and what is joined to text, is shown; everything else computes with the OID.

use sqlparser::ast as sp;

use super::{arrays, call, literal, normal, simple_name, string, take};
use crate::error::{Error, Result};

/// The types that are OIDs of named objects, and the functions that read and write them.
const REGISTERED: [(&str, &str, &str); 9] = [
    ("regclass", "regclassin", "regclassout"),
    ("regtype", "regtypein", "regtypeout"),
    ("regproc", "regprocin", "regprocout"),
    ("regprocedure", "regprocin", "regprocout"),
    ("regnamespace", "regnamespacein", "regnamespaceout"),
    ("regrole", "regrolein", "regroleout"),
    ("regoper", "oidin", "oidout"),
    ("regoperator", "oidin", "oidout"),
    ("regconfig", "oidin", "oidout"),
];

/// How a type's name is planned.
enum Target {
    Type(sp::DataType),
    /// Read by this function.
    Registered(&'static str),
    /// Text of a form that this function checks.
    Checked(&'static str),
    /// `"char"`: one byte.
    Char,
    /// As sqlparser has it already.
    AsIs,
}

/// The name in lower case unless quoted, without `pg_catalog`.
fn custom_name(name: &sp::ObjectName) -> Option<(String, bool)> {
    match &name.0[..] {
        [sp::ObjectNamePart::Identifier(only)] => Some((quoted_char(only), false)),
        [sp::ObjectNamePart::Identifier(schema), sp::ObjectNamePart::Identifier(last)]
            if schema.value.eq_ignore_ascii_case("pg_catalog") =>
        {
            Some((quoted_char(last), true))
        }
        _ => None,
    }
}

/// Only the quotes tell `"char"` from `char`.
fn quoted_char(ident: &sp::Ident) -> String {
    if ident.quote_style.is_some() && ident.value == "char" { "\"char\"".to_string() } else { normal(ident) }
}

fn target(data_type: &sp::DataType) -> Target {
    let name = match data_type {
        sp::DataType::Regclass => "regclass".to_string(),
        sp::DataType::Uuid => return Target::Checked("uuid_from_text"),
        sp::DataType::JSON => return Target::Checked("json_from_text"),
        sp::DataType::JSONB => return Target::Checked("jsonb_from_text"),
        sp::DataType::Custom(name, _) => match custom_name(name) {
            Some((name, _)) => name,
            None => return Target::AsIs,
        },
        sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(element, size)) => {
            return match target(element) {
                Target::Type(element) => {
                    Target::Type(sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(Box::new(element), *size)))
                }
                Target::Registered(_) => array_of(sp::DataType::IntegerUnsigned(None)),
                Target::Char => array_of(sp::DataType::Text),
                Target::Checked("uuid_from_text") => Target::Checked("uuids_from_texts"),
                Target::Checked(_) | Target::AsIs => Target::AsIs,
            };
        }
        _ => return Target::AsIs,
    };
    if let Some((_, input, _)) = REGISTERED.iter().find(|(reg, _, _)| *reg == name) {
        return if *input == "oidin" { Target::Type(sp::DataType::IntegerUnsigned(None)) } else { Target::Registered(input) };
    }
    plain_type(&name).map_or(Target::AsIs, |t| if name == "\"char\"" { Target::Char } else { Target::Type(t) })
}

fn array_of(element: sp::DataType) -> Target {
    Target::Type(sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(Box::new(element), None)))
}

/// Types that sqlparser takes for unknown, because they are qualified or only PostgreSQL's.
fn plain_type(name: &str) -> Option<sp::DataType> {
    use sp::DataType as T;
    Some(match name {
        "bool" | "boolean" => T::Boolean,
        "int2" | "smallint" => T::SmallInt(None),
        "int4" | "int" | "integer" => T::Integer(None),
        "int8" | "bigint" => T::BigInt(None),
        "oid" | "xid" | "cid" => T::IntegerUnsigned(None),
        "float4" | "real" => T::Real,
        "float8" => T::DoublePrecision,
        "numeric" | "decimal" => T::Numeric(sp::ExactNumberInfo::None),
        "text" | "varchar" | "bpchar" | "name" | "cstring" | "\"char\"" | "char" | "pg_node_tree" | "aclitem" | "inet"
        | "unknown" | "refcursor" | "pg_lsn" | "regcollation" | "regdictionary" => T::Text,
        "bytea" => T::Bytea,
        "date" => T::Date,
        "time" => T::Time(None, sp::TimezoneInfo::None),
        "timestamp" => T::Timestamp(None, sp::TimezoneInfo::None),
        "timestamptz" => T::Timestamp(None, sp::TimezoneInfo::WithTimeZone),
        "interval" => T::Interval { fields: None, precision: None },
        _ => return None,
    })
}

/// What PostgreSQL calls a column that is a cast.
pub(super) fn type_name(data_type: &sp::DataType) -> String {
    use sp::DataType as T;
    let fixed = match data_type {
        T::Custom(name, _) => return name.0.last().and_then(|p| p.as_ident()).map(normal).unwrap_or_default(),
        T::Array(sp::ArrayElemTypeDef::SquareBracket(element, _) | sp::ArrayElemTypeDef::AngleBracket(element)) => {
            return type_name(element);
        }
        T::Regclass => "regclass",
        T::Boolean | T::Bool => "bool",
        T::SmallInt(_) | T::Int2(_) => "int2",
        T::Int(_) | T::Integer(_) | T::Int4(_) => "int4",
        T::BigInt(_) | T::Int8(_) => "int8",
        T::Real | T::Float4 => "float4",
        T::Double(_) | T::DoublePrecision | T::Float8 | T::Float(_) => "float8",
        T::Numeric(_) | T::Decimal(_) | T::Dec(_) => "numeric",
        T::Text | T::String(_) => "text",
        T::Varchar(_) | T::CharacterVarying(_) | T::CharVarying(_) => "varchar",
        T::Char(_) | T::Character(_) => "bpchar",
        T::Bytea => "bytea",
        T::Date => "date",
        T::Time(_, sp::TimezoneInfo::None | sp::TimezoneInfo::WithoutTimeZone) => "time",
        T::Time(..) => "timetz",
        T::Timestamp(_, sp::TimezoneInfo::None | sp::TimezoneInfo::WithoutTimeZone) => "timestamp",
        T::Timestamp(..) => "timestamptz",
        T::Interval { .. } => "interval",
        T::Uuid => "uuid",
        T::JSON => "json",
        T::JSONB => "jsonb",
        other => return other.to_string().to_lowercase(),
    };
    fixed.to_string()
}

/// A string that stands as a condition is read as a boolean.
pub(super) fn read_condition(condition: &mut sp::Expr) {
    if string(condition).is_some() {
        let expr = Box::new(take(condition));
        let (kind, data_type) = (sp::CastKind::DoubleColon, sp::DataType::Boolean);
        *condition = sp::Expr::Cast { kind, array: false, expr, data_type, format: None };
    }
}

/// A cast whose operand is done.
pub(super) fn cast(expr: &mut sp::Expr) -> Result<()> {
    let sp::Expr::Cast { expr: inner, data_type, .. } = expr else { return Ok(()) };
    if let (sp::DataType::Bytea, Some(text)) = (&*data_type, string(inner)) {
        let bytes = crate::copy::bytes_of_text(text)?;
        let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        *expr = sp::Expr::Value(sp::Value::HexStringLiteral(digits).with_empty_span());
        return Ok(());
    }
    if let Some(moment) = string(inner).and_then(|word| special(word, data_type)) {
        *expr = moment;
        return Ok(());
    }
    // Beyond what a `numeric` holds, too.
    if let (sp::DataType::DoublePrecision | sp::DataType::Float8 | sp::DataType::Real | sp::DataType::Float4, Some(number)) =
        (&*data_type, exponential(inner))
    {
        **inner = literal(&number);
    }
    if let sp::DataType::Array(_) = &*data_type {
        arrays::with_dimensions_of(inner, data_type);
        arrays::read_literal(inner)?;
    }
    if let (sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(item, None)), sp::Expr::Array(array)) =
        (&*data_type, &mut **inner)
        && **item == sp::DataType::Uuid
        && !array.elem.iter().any(|item| matches!(item, sp::Expr::Array(_)))
    {
        for item in &mut array.elem {
            *item = call("uuid_from_text", vec![take(item)]);
        }
        *expr = take(inner);
        return Ok(());
    }
    let modified = modified(data_type)?.map(|modified| (modified, std::mem::replace(data_type, without_modifier(data_type))));
    match target(data_type) {
        Target::Registered(input) | Target::Checked(input) => {
            let inner = take(inner);
            *expr = call(input, vec![inner]);
        }
        Target::Char => {
            *data_type = sp::DataType::Text;
            let text = take(expr);
            let one = sp::Expr::Value(sp::Value::Number("1".to_string(), false).with_empty_span());
            *expr = call("left", vec![text, one]);
        }
        Target::Type(new) => {
            *data_type = new;
            shown_cast(expr);
        }
        Target::AsIs => shown_cast(expr),
    }
    if let Some(((function, argument), data_type)) = modified {
        let argument = sp::Expr::Value(sp::Value::Number(argument.to_string(), false).with_empty_span());
        // What comes of it is told of by its type.
        *expr = super::forms::cast(call(function, vec![take(expr), argument]), data_type);
    }
    Ok(())
}

fn without_modifier(data_type: &sp::DataType) -> sp::DataType {
    use sp::DataType as T;
    match data_type {
        T::Time(_, zone) => T::Time(None, *zone),
        T::Timestamp(_, zone) => T::Timestamp(None, *zone),
        _ => T::Varchar(None),
    }
}

/// Words for moments, by the clock of the statement: `date 'today'`, `'now'::timestamptz`. What stands in a row, in a parameter or in a
/// column has no such words: its value never depends on when it is read.
fn special(word: &str, data_type: &sp::DataType) -> Option<sp::Expr> {
    let now = || call("now", Vec::new());
    let day = |days: i64| {
        let today = super::forms::cast(now(), sp::DataType::Date);
        let (op, days) = match days {
            0 => return today,
            days if days < 0 => (sp::BinaryOperator::Minus, -days),
            days => (sp::BinaryOperator::Plus, days),
        };
        super::nested(super::binary(today, op, super::forms::number(&days.to_string())))
    };
    let moment = match word.trim().to_ascii_lowercase().as_str() {
        "now" if !matches!(data_type, sp::DataType::Date) => now(),
        "now" | "today" => day(0),
        "yesterday" => day(-1),
        "tomorrow" => day(1),
        "epoch" if matches!(data_type, sp::DataType::Date) => literal("1970-01-01"),
        _ => return None,
    };
    let is_moment = matches!(data_type, sp::DataType::Date | sp::DataType::Timestamp(..));
    let is_now = matches!(data_type, sp::DataType::Time(_, sp::TimezoneInfo::None | sp::TimezoneInfo::WithoutTimeZone))
        && word.trim().eq_ignore_ascii_case("now");
    (is_moment || is_now).then(|| super::forms::cast(moment, data_type.clone()))
}

/// `1e300`
fn exponential(expr: &sp::Expr) -> Option<String> {
    match expr {
        sp::Expr::Value(value) => match &value.value {
            sp::Value::Number(number, _) if number.contains(['e', 'E']) => Some(number.clone()),
            _ => None,
        },
        sp::Expr::Nested(inner) => exponential(inner),
        _ => None,
    }
}

/// The function that makes a value fit a type with a modifier, and its second argument: an explicit cast cuts a text, and rounds
/// a time.
fn modified(data_type: &sp::DataType) -> Result<Option<(&'static str, u64)>> {
    use sp::DataType as T;
    let length = |length: &Option<sp::CharacterLength>| match length {
        Some(sp::CharacterLength::IntegerLength { length, .. }) => Some(*length),
        _ => None,
    };
    let characters = match data_type {
        T::Varchar(given) | T::CharacterVarying(given) | T::CharVarying(given) => length(given),
        T::Char(given) | T::Character(given) => length(given).or(given.is_none().then_some(1)),
        T::Time(Some(digits @ 0..6), _) | T::Timestamp(Some(digits @ 0..6), _) => return Ok(Some(("round_time", *digits))),
        _ => None,
    };
    match characters {
        Some(0) => {
            let name = if type_name(data_type) == "varchar" { "varchar" } else { "char" };
            Err(Error::invalid_parameter(format!("length for type {name} must be at least 1")))
        }
        characters => Ok(characters.map(|length| ("left", length))),
    }
}

/// `x::regclass::text`: the name.
fn shown_cast(expr: &mut sp::Expr) {
    let sp::Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    let is_text = matches!(data_type, sp::DataType::Text | sp::DataType::Varchar(_) | sp::DataType::CharacterVarying(_));
    if is_text && registered_output(inner).is_some() {
        show(inner);
        *expr = take(inner);
    }
}

/// The function that writes the names of what this expression gives.
fn registered_output(expr: &sp::Expr) -> Option<&'static str> {
    match expr {
        sp::Expr::Function(function) => {
            let name = simple_name(&function.name)?;
            let gives = |reg: &str, input: &str| name == input || name.strip_prefix("to_") == Some(reg);
            let found = REGISTERED.iter().find(|(reg, input, _)| gives(reg, input)).map(|(_, _, output)| *output);
            found.or_else(|| (name == "pg_typeof").then_some("regtypeout"))
        }
        sp::Expr::Nested(inner) => registered_output(inner),
        _ => None,
    }
}

/// Makes an expression show the names of its `reg…` values, where it gives any.
pub(super) fn show(expr: &mut sp::Expr) {
    if let Some(output) = registered_output(expr) {
        let inner = take(expr);
        *expr = call(output, vec![inner]);
        return;
    }
    match expr {
        sp::Expr::Nested(inner) => show(inner),
        sp::Expr::Case { conditions, else_result, .. } => {
            conditions.iter_mut().for_each(|when| show(&mut when.result));
            else_result.iter_mut().for_each(|other| show(other));
        }
        sp::Expr::Function(function) if simple_name(&function.name).is_some_and(|n| n == "coalesce") => {
            each_argument(function, show)
        }
        _ => {}
    }
}

fn each_argument(function: &mut sp::Function, each: fn(&mut sp::Expr)) {
    let sp::FunctionArguments::List(list) = &mut function.args else { return };
    for argument in &mut list.args {
        if let sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) = argument {
            each(expr);
        }
    }
}

/// Functions that make text of their arguments.
pub(super) fn show_arguments(function: &mut sp::Function) {
    let makes_text = ["format", "concat", "concat_ws", "quote_ident", "quote_literal", "quote_nullable", "string_agg"];
    if simple_name(&function.name).is_some_and(|name| makes_text.contains(&name.as_str())) {
        each_argument(function, show);
    }
}

/// What the query gives out is shown.
pub(super) fn show_outermost(query: &mut sp::Query) {
    super::names::outermost(&mut query.body, &mut |select| {
        for item in &mut select.projection {
            if let sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } = item {
                show(expr);
            }
        }
    });
}
