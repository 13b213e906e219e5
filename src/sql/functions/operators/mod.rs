//! Operators whose meaning DataFusion leaves to others, or that mean something else in PostgreSQL.
//!
//! | written | planned |
//! | --- | --- |
//! | `column > '2024-01-31'`, `5 + '3'` | the string is read as the type beside it |
//! | `int + int`, `-`, `*`, `&`, `|`, `#` | the same, and an error where the result has no room ([`integers`]) |
//! | `real + int`, `real * numeric`, `real < numeric` | in `double precision` |
//! | `numeric / numeric` | rounded, with 16 decimals or more ([`decimals`]) |
//! | `date + interval`, `timestamp - timestamp` | a timestamp; days and hours ([`moments`]) |
//! | `date < timestamp` | as timestamps, of any year |
//! | `text || timestamp`, `bytea || '\\x00'` | the value as its text; the string as bytes, or as an array |
//! | `a->x` of a struct | its field |
//! | `interval < interval` | by length, a month as 30 days |
//! | `x AND 'yes'` | the string is read as a boolean; what is none is refused |
//! | `interval * number`, `json -> key`, `jsonb @> jsonb`, `x ^ y`, `a && b` | the functions that PostgreSQL has for these operators |

pub mod decimals;
mod integers;
pub mod moments;

pub use integers::common_bits;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr,
};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, cast};
use sqlparser::ast::BinaryOperator as B;

use super::convert::{as_cast, converted, is_open, numeric_literal, tell};
use super::zones::instants;
use crate::error::{Error, Result};
use crate::sql::types;
use crate::time::TIMESTAMP;

/// Plans operators; functions are called by name where PostgreSQL has one for an operator.
#[derive(Debug)]
pub struct Operators {
    /// Functions of documents.
    documents: HashMap<&'static str, Arc<ScalarUDF>>,
    interval_times: Arc<ScalarUDF>,
    interval_divided: Arc<ScalarUDF>,
    power: Arc<ScalarUDF>,
    overlap: Arc<ScalarUDF>,
    starts_with: Arc<ScalarUDF>,
    extract: Arc<ScalarUDF>,
}

impl Operators {
    /// `function` finds a function by its name.
    pub fn new(function: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Option<Operators> {
        Some(Operators {
            documents: DOCUMENTS.iter().map(|name| Some((*name, function(name)?))).collect::<Option<_>>()?,
            interval_times: function("interval_mul")?,
            interval_divided: function("interval_div")?,
            power: function("power")?,
            overlap: function("array_has_any")?,
            starts_with: function("starts_with")?,
            extract: function("extract")?,
        })
    }

    /// What stands for the operator between values of these types; `None` where DataFusion's own does.
    fn plan(&self, expr: &RawBinaryExpr, types: (&DataType, &DataType)) -> Result<Option<Expr>> {
        let (left, right) = (&expr.left, &expr.right);
        let call = |function: &Arc<ScalarUDF>| Ok(Some(function.call(vec![left.clone(), right.clone()])));
        if is_comparison(&expr.op) {
            return comparison(expr, types);
        }
        if let Some(function) = document_function(&expr.op, types) {
            // `part <@ whole` is `whole @> part`.
            let arguments = [left.clone(), right.clone()];
            let arguments = if expr.op == B::ArrowAt { arguments.into_iter().rev().collect() } else { arguments.to_vec() };
            return Ok(self.documents.get(function).map(|function| function.call(arguments)));
        }
        match (&expr.op, types) {
            (B::PGExp, (a, b)) if a.is_numeric() && b.is_numeric() => {
                let float = |side: &Expr| cast(side.clone(), DataType::Float64);
                Ok(Some(self.power.call(vec![float(left), float(right)])))
            }
            (B::PGStartsWith, _) => call(&self.starts_with),
            (B::PGOverlap, (DataType::List(_), DataType::List(_))) => call(&self.overlap),
            (B::BitwiseAnd | B::BitwiseOr | B::BitwiseXor | B::PGBitwiseXor, (a, b)) if a.is_integer() && b.is_integer() => {
                Ok(integers::plan(expr))
            }
            (B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo, (a, b)) if a.is_numeric() && b.is_numeric() => {
                numbers(expr, (a, b))
            }
            (B::Multiply, (DataType::Interval(_), b)) if b.is_numeric() => scaled(&self.interval_times, left, right),
            (B::Multiply, (a, DataType::Interval(_))) if a.is_numeric() => scaled(&self.interval_times, right, left),
            (B::Divide, (DataType::Interval(_), b)) if b.is_numeric() => scaled(&self.interval_divided, left, right),
            (B::Plus | B::Minus, (DataType::Interval(_) | DataType::Timestamp(..), b)) if b.is_numeric() => {
                Err(undefined(&expr.op, types.0, b))
            }
            (B::Plus | B::Minus, (a, DataType::Interval(_) | DataType::Timestamp(..))) if a.is_numeric() => {
                Err(undefined(&expr.op, a, types.1))
            }
            (B::Plus | B::Minus, _) => Ok(moments::plan(expr, types)),
            (B::StringConcat, (a, b)) if types::is_text(a) && becomes_text(b) => {
                Ok(Some(concatenation(left.clone(), converted(right.clone(), a.clone())?)))
            }
            (B::StringConcat, (a, b)) if types::is_text(b) && becomes_text(a) => {
                Ok(Some(concatenation(converted(left.clone(), b.clone())?, right.clone())))
            }
            (B::StringConcat, (a, b)) if [a, b].iter().all(|t| kind(t).is_some_and(|kind| kind != TEXT)) => {
                Err(undefined(&expr.op, a, b))
            }
            _ => Ok(None),
        }
    }
}

/// What the operators of documents call.
const DOCUMENTS: [&str; 10] = [
    "json_get",
    "json_get_text",
    "json_get_path",
    "json_get_path_text",
    "jsonb_contains",
    "jsonb_exists",
    "jsonb_exists_any",
    "jsonb_exists_all",
    "jsonb_delete",
    "jsonb_delete_path",
];

/// Documents are text here; which of them are `jsonb` is known later, see `plan/documents.rs`.
fn document_function(op: &B, (left, right): (&DataType, &DataType)) -> Option<&'static str> {
    let is_text = |side: &DataType| types::is_text(side) || side.is_null();
    Some(match op {
        B::Arrow => "json_get",
        B::LongArrow => "json_get_text",
        B::HashArrow => "json_get_path",
        B::HashLongArrow => "json_get_path_text",
        B::AtArrow | B::ArrowAt if is_text(left) && is_text(right) => "jsonb_contains",
        B::Question => "jsonb_exists",
        B::QuestionPipe => "jsonb_exists_any",
        B::QuestionAnd => "jsonb_exists_all",
        B::HashMinus => "jsonb_delete_path",
        B::Minus if types::is_text(left) && (is_text(right) || right.is_integer() || matches!(right, DataType::List(_))) => {
            "jsonb_delete"
        }
        _ => return None,
    })
}

/// `a->x` of a struct, as ksqlDB has it: `x` looks like a column, whether or not there is one.
fn field(expr: &RawBinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
    let name = match &expr.right {
        Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => &column.name,
        Expr::LambdaVariable(variable) => &variable.name,
        _ => return Ok(None),
    };
    let (B::Arrow, Ok(DataType::Struct(fields))) = (&expr.op, expr.left.get_type(schema)) else { return Ok(None) };
    if fields.find(name).is_none() {
        let known: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let error = Error::undefined_column(format!("there is no field \"{name}\" in {}", expr.left));
        return Err(error.with_hint(format!("its fields are {}", known.join(", "))));
    }
    Ok(Some(datafusion::functions::core::expr_fn::get_field(expr.left.clone(), name.as_str())))
}

fn scaled(function: &Arc<ScalarUDF>, interval: &Expr, number: &Expr) -> Result<Option<Expr>> {
    Ok(Some(function.call(vec![interval.clone(), cast(number.clone(), DataType::Float64)])))
}

fn numbers(expr: &RawBinaryExpr, (a, b): (&DataType, &DataType)) -> Result<Option<Expr>> {
    let (left, right) = (&expr.left, &expr.right);
    if a.is_floating() || b.is_floating() {
        if matches!(expr.op, B::Modulo) {
            return Err(undefined(&expr.op, a, b));
        }
        let single = |t: &DataType| t == &DataType::Float32;
        if single(a) == single(b) {
            return Ok(None);
        }
        let double = |side: &Expr| cast(side.clone(), DataType::Float64);
        return Ok(Some(operation(double(left), &expr.op, double(right))));
    }
    if a.is_integer() && b.is_integer() {
        return Ok(integers::plan(expr));
    }
    match expr.op {
        B::Divide => decimals::quotient(left, right, a, b),
        _ => Ok(None),
    }
}

/// Values of kinds that cannot be compared are refused here: DataFusion would bring them to a common type.
fn comparison(expr: &RawBinaryExpr, (a, b): (&DataType, &DataType)) -> Result<Option<Expr>> {
    if let (Some(left), Some(right)) = (kind(a), kind(b))
        && left != right
    {
        return Err(undefined(&expr.op, a, b));
    }
    if let (DataType::Interval(_), DataType::Interval(_)) = (a, b) {
        let length = |side: &Expr| moments::length(side.clone());
        return Ok(Some(operation(length(&expr.left), &expr.op, length(&expr.right))));
    }
    Ok(compared_as(&[a, b]).map(|common| {
        let of_common =
            |side: &Expr, own: &DataType| if *own == common { side.clone() } else { cast(side.clone(), common.clone()) };
        operation(of_common(&expr.left, a), &expr.op, of_common(&expr.right, b))
    }))
}

/// The type as which these are compared, where DataFusion would take another: it brings floats beside `numeric` to that.
pub fn compared_as(types: &[&DataType]) -> Option<DataType> {
    let floats = types.iter().any(|of| of.is_floating()) && types.iter().any(|of| of.is_decimal());
    if floats { Some(DataType::Float64) } else { of_moments(types) }
}

/// The type of dates beside timestamps: those are timestamps, too, or instants if one is. DataFusion would forget the zone, and count
/// nanoseconds, of which there are too many before 1677 and after 2262.
pub fn of_moments(types: &[&DataType]) -> Option<DataType> {
    let is_zoned = |of: &&DataType| matches!(of, DataType::Timestamp(_, Some(_)));
    let is_moment = |of: &&DataType| of.is_null() || matches!(of, DataType::Timestamp(..) | DataType::Date32);
    let are_mixed = types.contains(&&DataType::Date32) && types.iter().any(|of| matches!(of, DataType::Timestamp(..)));
    let common = if types.iter().any(is_zoned) { instants() } else { TIMESTAMP };
    (are_mixed && types.iter().all(is_moment)).then_some(common)
}

const TEXT: u8 = 1;

/// What is joined to a text as its text, where that is not what Arrow makes of it.
fn becomes_text(data_type: &DataType) -> bool {
    kind(data_type).is_some_and(|kind| kind != TEXT) && !data_type.is_integer()
}

fn concatenation(left: Expr, right: Expr) -> Expr {
    datafusion::logical_expr::binary_expr(left, datafusion::logical_expr::Operator::StringConcat, right)
}

/// Types of one kind have a type in common.
pub fn kind(data_type: &DataType) -> Option<u8> {
    Some(match data_type {
        _ if data_type.is_numeric() => 0,
        _ if types::is_text(data_type) => TEXT,
        DataType::Boolean => 2,
        DataType::Date32 | DataType::Timestamp(..) => 3,
        DataType::Time64(_) => 4,
        DataType::Interval(_) => 5,
        _ => return None,
    })
}

fn undefined(op: &B, a: &DataType, b: &DataType) -> Error {
    let (a, b) = (types::plain_name(a), types::plain_name(b));
    let error = Error::undefined_function(format!("operator does not exist: {a} {op} {b}"));
    error.with_hint("add explicit type casts")
}

fn is_comparison(op: &B) -> bool {
    matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq)
}

fn operation(left: Expr, op: &B, right: Expr) -> Expr {
    use datafusion::logical_expr::{Operator, binary_expr};
    let op = match op {
        B::Minus => Operator::Minus,
        B::Multiply => Operator::Multiply,
        B::Divide => Operator::Divide,
        B::Eq => Operator::Eq,
        B::NotEq => Operator::NotEq,
        B::Lt => Operator::Lt,
        B::LtEq => Operator::LtEq,
        B::Gt => Operator::Gt,
        B::GtEq => Operator::GtEq,
        _ => Operator::Plus,
    };
    binary_expr(left, op, right)
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        expr.left = whole(expr.left);
        expr.right = whole(expr.right);
        if let B::And | B::Or = expr.op {
            [&mut expr.left, &mut expr.right].into_iter().try_for_each(|side| truth(&expr.op.to_string(), side, schema))?;
            return Ok(PlannerResult::Original(expr));
        }
        if let Some(field) = field(&expr, schema)? {
            return Ok(PlannerResult::Planned(field));
        }
        let mut expr = beside(expr, schema)?;
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        if let Some(planned) = self.plan(&expr, (&left, &right))? {
            return Ok(PlannerResult::Planned(planned));
        }
        if matches!(expr.op, B::Plus | B::Minus) {
            // A date and a length of time are a timestamp.
            let is_length = |t: &DataType| matches!(t, DataType::Interval(_) | DataType::Duration(_));
            if left == DataType::Date32 && is_length(&right) {
                expr.left = cast(expr.left, TIMESTAMP);
            } else if right == DataType::Date32 && is_length(&left) {
                expr.right = cast(expr.right, TIMESTAMP);
            }
        }
        Ok(PlannerResult::Original(expr))
    }

    /// `document['key']`, `document[0]`.
    fn plan_field_access(&self, expr: RawFieldAccessExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
        if !expr.expr.get_type(schema).is_ok_and(|of| types::is_text(&of)) {
            return Ok(PlannerResult::Original(expr));
        }
        // `j -> keys[1]` is read as `(j -> keys)[1]`, as `a->list[1]` is, before it is known what `j` is.
        if let (Expr::ScalarFunction(call), GetFieldAccess::ListIndex { key }) = (&expr.expr, &expr.field_access)
            && let ("json_get", [document, keys]) = (call.func.name(), call.args.as_slice())
            && matches!(keys.get_type(schema), Ok(DataType::List(_)))
        {
            let key = datafusion::functions_nested::expr_fn::array_element(keys.clone(), key.as_ref().clone());
            return Ok(PlannerResult::Planned(call.func.call(vec![document.clone(), key])));
        }
        let step = match &expr.field_access {
            GetFieldAccess::NamedStructField { name } => Expr::Literal(name.clone(), None),
            GetFieldAccess::ListIndex { key } => key.as_ref().clone(),
            GetFieldAccess::ListRange { .. } => return Err(Error::unsupported("a document has no slices").into()),
        };
        Ok(match self.documents.get("json_get") {
            Some(get) => PlannerResult::Planned(get.call(vec![expr.expr, step])),
            None => PlannerResult::Original(expr),
        })
    }

    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> DfResult<PlannerResult<RawAggregateExpr>> {
        expr.args.iter_mut().try_for_each(named_with_casts)?;
        Ok(PlannerResult::Original(expr))
    }

    fn plan_window(&self, mut expr: RawWindowExpr) -> DfResult<PlannerResult<RawWindowExpr>> {
        expr.args.iter_mut().try_for_each(named_with_casts)?;
        Ok(PlannerResult::Original(expr))
    }

    fn plan_extract(&self, arguments: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.extract.call(arguments)))
    }
}

/// A call is a column by the name of what it is of, and names leave casts out: `sum(a::numeric)` beside `sum(a)` needs another one.
fn named_with_casts(argument: &mut Expr) -> DfResult<()> {
    if argument.exists(|expr| Ok(matches!(expr, Expr::Cast(_))))? {
        let name = argument.to_string();
        *argument = std::mem::take(argument).alias(name);
    }
    Ok(())
}

/// A whole number is an `integer` where it can be, else a `bigint`, else `numeric`.
pub fn whole(expr: Expr) -> Expr {
    let Expr::Literal(value, metadata) = expr else { return expr };
    let value = match value {
        ScalarValue::Int64(Some(number)) if i32::try_from(number).is_ok() => ScalarValue::Int32(Some(number as i32)),
        // Of VALUES beside whole numbers.
        ScalarValue::Int64(None) => ScalarValue::Int32(None),
        ScalarValue::UInt64(Some(number)) => ScalarValue::Decimal128(Some(i128::from(number)), 20, 0),
        other => other,
    };
    Expr::Literal(value, metadata)
}

/// A string beside a value of another type is read as that type.
fn beside(mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<RawBinaryExpr> {
    let arithmetic = matches!(expr.op, B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo);
    let joins = expr.op == B::StringConcat;
    if !arithmetic && !joins && !is_comparison(&expr.op) {
        return Ok(open_beside(expr, schema));
    }
    if arithmetic && is_unknown(&expr.left) && is_unknown(&expr.right) {
        let message = format!("operator is not unique: unknown {} unknown", expr.op);
        return Err(Error::ambiguous_function(message).with_hint("add explicit type casts"));
    }
    let (left, right) = (expr.left.get_type(schema).ok(), expr.right.get_type(schema).ok());
    let span = DataType::Interval(IntervalUnit::MonthDayNano);
    for (side, other) in [(&mut expr.left, right), (&mut expr.right, left)] {
        let Some(other) = other.filter(|t| is_unknown(side) && !t.is_null() && !types::is_text(t)) else { continue };
        let to = match (&expr.op, &other) {
            (B::StringConcat, DataType::Binary | DataType::List(_)) => other,
            (B::StringConcat, _) => {
                tell(side, &DataType::Utf8);
                continue;
            }
            (B::Plus, DataType::Date32) => {
                let error = Error::ambiguous_function("operator is not unique: date + unknown");
                return Err(error.with_hint("add explicit type casts"));
            }
            (B::Plus, DataType::Timestamp(..)) => span.clone(),
            (B::Multiply | B::Divide, DataType::Interval(_)) => DataType::Float64,
            (_, DataType::Decimal128(..)) => {
                *side = numeric_literal(std::mem::take(side))?;
                continue;
            }
            (_, DataType::Duration(_)) => span.clone(),
            (_, DataType::Dictionary(_, value)) => value.as_ref().clone(),
            (_, DataType::Struct(_) | DataType::Map(..) | DataType::Union(..)) => continue,
            _ => other,
        };
        *side = converted(std::mem::take(side), to)?;
    }
    if is_unknown(&expr.left) && is_unknown(&expr.right) {
        [&mut expr.left, &mut expr.right].into_iter().for_each(|side| tell(side, &DataType::Utf8));
    }
    Ok(expr)
}

/// Parameters whose types are open, beside other operators.
fn open_beside(mut expr: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let (left, right) = (expr.left.get_type(schema).ok(), expr.right.get_type(schema).ok());
    let texts = || DataType::new_list(DataType::Utf8, true);
    let of = |other: Option<DataType>| other.filter(|other| !other.is_null() && !types::is_text(other));
    let to = match expr.op {
        B::Arrow | B::LongArrow | B::Question | B::PGStartsWith => [left.map(|_| DataType::Utf8), Some(DataType::Utf8)],
        B::HashArrow | B::HashLongArrow | B::HashMinus | B::QuestionPipe | B::QuestionAnd => [None, Some(texts())],
        B::PGExp => [Some(DataType::Float64), Some(DataType::Float64)],
        B::PGBitwiseShiftLeft | B::PGBitwiseShiftRight => [of(right), Some(DataType::Int32)],
        B::PGOverlap | B::AtArrow | B::ArrowAt | B::BitwiseAnd | B::BitwiseOr | B::BitwiseXor | B::PGBitwiseXor => {
            [of(right), of(left)]
        }
        _ => [None, None],
    };
    for (side, to) in [&mut expr.left, &mut expr.right].into_iter().zip(to) {
        if let Some(to) = to {
            tell(side, &to);
        }
    }
    expr
}

/// Has it no type of its own?
fn is_unknown(expr: &Expr) -> bool {
    is_string(expr) || is_open(expr)
}

/// A condition is a boolean, or a string that is read as one.
pub fn truth(place: &str, condition: &mut Expr, schema: &DFSchema) -> Result<()> {
    if is_string(condition) {
        *condition = converted(std::mem::take(condition), DataType::Boolean)?;
    }
    match condition.get_type(schema) {
        Ok(other) if kind(&other).is_some() && other != DataType::Boolean => {
            let other = types::plain_name(&other);
            Err(Error::datatype_mismatch(format!("argument of {place} must be type boolean, not type {other}")))
        }
        _ => Ok(()),
    }
}

fn is_string(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// The operator, or the cast, that a call of these functions stands for.
pub fn as_written(call: &ScalarFunction) -> Option<Expr> {
    use datafusion::logical_expr::{Operator as O, binary_expr};
    let binary = |op| match call.args.as_slice() {
        [left, right] => Some(binary_expr(left.clone(), op, right.clone())),
        _ => None,
    };
    match call.func.name() {
        "integer_plus" | "date_plus" => binary(O::Plus),
        "integer_minus" | "timestamp_minus" | "date_minus" => binary(O::Minus),
        "integer_times" => binary(O::Multiply),
        "integer_and" => binary(O::BitwiseAnd),
        "integer_or" => binary(O::BitwiseOr),
        "integer_xor" => binary(O::BitwiseXor),
        "numeric_div" => binary(O::Divide),
        "interval_length" => call.args.first().cloned(),
        _ => as_cast(call),
    }
}

/// How an operation shows in plans.
fn infix(operands: &[Expr], sign: char) -> String {
    match operands {
        [left, right] => format!("{} {sign} {}", operand(left), operand(right)),
        _ => sign.to_string(),
    }
}

fn operand(expr: &Expr) -> String {
    match expr {
        Expr::BinaryExpr(_) => format!("({expr})"),
        Expr::ScalarFunction(call) if call.func.name().starts_with("integer_") => format!("({expr})"),
        _ => expr.to_string(),
    }
}
