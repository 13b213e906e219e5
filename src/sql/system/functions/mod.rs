//! The functions of PostgreSQL that look at the catalog or the session, and a few of general use that DataFusion lacks.
//!
//! A function is a line in a table: its name, the types of its arguments in each of its forms, its result, and a Rust function
//! over [`Value`]s, one row at a time. An instance belongs to one statement's [`SystemContext`].

mod arrays;
mod borrowed;
mod catalog;
pub(super) mod definitions;
mod encodings;
mod json;
mod keywords;
mod masks;
mod numbers;
mod privileges;
mod regexps;
mod registered;
mod session;
mod sizes;
mod strings;
mod time;
mod to_char;
mod to_char_interval;
mod urls;
mod waits;

pub(super) use strings::escape_pattern;
pub use time::interval_divided;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::common::ScalarValue;
use datafusion::common::types::{NativeType, logical_float64, logical_int64, logical_string};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    TypeSignatureClass, Volatility,
};

use super::context::{FunctionInfo, SystemContext};
use super::definitions::{PG_TYPE, arrow_type};
use super::types;
use super::value::{Value, array, value_at};
use crate::error::{Error, Result};
use crate::limits::FUNCTION_BYTES;

/// What a function needs besides its arguments' values.
pub(super) struct Call<'a> {
    pub context: &'a SystemContext,
    /// The arguments' fields: their types as the planner has them.
    pub fields: &'a [FieldRef],
}

/// One function.
pub(super) struct Spec {
    pub name: &'static str,
    /// The types of the arguments, a list for each form. `reg` is an OID or a name; `any` is taken as it is; a form that ends in
    /// `...` takes any number more of the type before it.
    pub forms: &'static [&'static [&'static str]],
    pub result: &'static str,
    /// NULL for any NULL argument, without asking.
    pub strict: bool,
    pub volatility: Volatility,
    pub body: Body,
}

/// How a function answers for one row.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// From the arguments and their fields alone: in views too.
    Pure(Pure),
    /// The same for all rows at once, where a row at a time would cost too much. NULLs are the function's own.
    Columns(Columns),
    /// It asks the catalog, the session or the server as well.
    Asks(Asks),
    /// It waits, a row after the other, and gives nothing: in a session's own statements alone.
    Waits(Waits),
}

type Pure = fn(&[FieldRef], &[Value]) -> Result<Value>;
type Columns = fn(&[FieldRef], &[ArrayRef]) -> Result<ArrayRef>;
type Asks = fn(&Call<'_>, &[Value]) -> Result<Value>;
type Waits = fn(&Call<'_>, &[Value]) -> Result<waits::Wait>;

/// A function that gives NULL for NULL and looks at the catalog.
const fn stable(name: &'static str, forms: &'static [&'static [&'static str]], result: &'static str, call: Asks) -> Spec {
    Spec { name, forms, result, strict: true, volatility: Volatility::Stable, body: Body::Asks(call) }
}

/// A function that gives NULL for NULL and looks at nothing but its arguments.
const fn immutable(name: &'static str, forms: &'static [&'static [&'static str]], result: &'static str, call: Pure) -> Spec {
    Spec { name, forms, result, strict: true, volatility: Volatility::Immutable, body: Body::Pure(call) }
}

impl Spec {
    const fn lenient(self) -> Spec {
        Spec { strict: false, ..self }
    }

    const fn volatile(self) -> Spec {
        Spec { volatility: Volatility::Volatile, ..self }
    }
}

fn all() -> impl Iterator<Item = &'static Spec> {
    let tables: [&'static [Spec]; 16] = [
        borrowed::FUNCTIONS,
        catalog::FUNCTIONS,
        encodings::FUNCTIONS,
        keywords::FUNCTIONS,
        masks::FUNCTIONS,
        numbers::FUNCTIONS,
        privileges::FUNCTIONS,
        regexps::FUNCTIONS,
        registered::FUNCTIONS,
        session::FUNCTIONS,
        sizes::FUNCTIONS,
        strings::FUNCTIONS,
        time::FUNCTIONS,
        to_char::FUNCTIONS,
        urls::FUNCTIONS,
        waits::FUNCTIONS,
    ];
    tables.into_iter().flatten().chain(json::all())
}

static BY_NAME: LazyLock<HashMap<&'static str, &'static Spec>> = LazyLock::new(|| all().map(|s| (s.name, s)).collect());

static ROWS_OR_EMPTY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(arrays::RowsOrEmpty::new())));

static NUMBERED: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(arrays::Numbered::new())));

static LIST_OF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(arrays::ListOf::new())));

/// The function of this name, for a statement in this context.
pub(super) fn function(name: &str, context: &Arc<SystemContext>) -> Option<Arc<ScalarUDF>> {
    if let Some(found) = [&ROWS_OR_EMPTY, &LIST_OF, &NUMBERED].into_iter().find(|function| function.name() == name) {
        return Some(Arc::clone(found));
    }
    BY_NAME.get(name).map(|spec| udf(spec, Some(context)))
}

/// Those that need no context: for queries that run on, whose answers depend on their rows alone.
pub(super) fn pure() -> impl Iterator<Item = Arc<ScalarUDF>> {
    all().filter(|spec| matches!(spec.body, Body::Pure(_) | Body::Columns(_))).map(|spec| udf(spec, None))
}

/// All of them.
pub(super) fn functions(context: &Arc<SystemContext>) -> impl Iterator<Item = Arc<ScalarUDF>> {
    all().map(|spec| udf(spec, Some(context))).chain([&ROWS_OR_EMPTY, &LIST_OF, &NUMBERED].map(|function| Arc::clone(function)))
}

/// The type that a function gives, where it is text to Arrow and more to clients.
pub(super) fn document_type(name: &str) -> Option<&'static str> {
    BY_NAME.get(name).map(|spec| spec.result).filter(|result| is_document(result))
}

fn is_document(result: &str) -> bool {
    matches!(result.trim_end_matches("[]"), "uuid" | "json" | "jsonb")
}

/// One of the functions of this module has the name.
pub(super) fn is_ours(name: &str) -> bool {
    BY_NAME.contains_key(name)
}

/// Their lines in pg_proc.
pub(super) fn infos() -> impl Iterator<Item = FunctionInfo> {
    all().map(|spec| FunctionInfo {
        name: spec.name.to_string(),
        kind: 'f',
        volatility: match spec.volatility {
            Volatility::Immutable => 'i',
            Volatility::Stable => 's',
            Volatility::Volatile => 'v',
        },
        result: Some(spec.result.to_string()),
        arguments: spec.forms.first().map(|form| form.iter().map(|t| (*t).to_string()).collect()),
    })
}

fn udf(spec: &'static Spec, context: Option<&Arc<SystemContext>>) -> Arc<ScalarUDF> {
    let context = match spec.body {
        Body::Pure(_) | Body::Columns(_) => None,
        Body::Asks(_) | Body::Waits(_) => context.cloned(),
    };
    let signature = Signature::user_defined(spec.volatility);
    let function = SystemFunction { spec, signature, context };
    Arc::new(match spec.body {
        Body::Waits(_) => AsyncScalarUDF::new(Arc::new(function.with_types())).into_scalar_udf(),
        _ => ScalarUDF::new_from_impl(function),
    })
}

/// A [`Spec`] as DataFusion calls it.
struct SystemFunction {
    spec: &'static Spec,
    signature: Signature,
    /// There for those that ask.
    context: Option<Arc<SystemContext>>,
}

impl std::fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec.name)
    }
}

impl SystemFunction {
    /// DataFusion does not ask those that wait how to coerce their arguments: it has to know the types.
    fn with_types(self) -> SystemFunction {
        use TypeSignatureClass as Class;
        let text = || Class::Native(logical_string());
        let number = |wanted: &&str| match target(wanted, &DataType::Null) {
            DataType::Float64 => {
                Coercion::new_implicit(Class::Native(logical_float64()), vec![Class::Numeric, text()], NativeType::Float64)
            }
            _ => Coercion::new_implicit(Class::Native(logical_int64()), vec![Class::Integer, text()], NativeType::Int64),
        };
        let forms = self.spec.forms.iter().map(|form| TypeSignature::Coercible(form.iter().map(number).collect())).collect();
        SystemFunction { signature: Signature::one_of(forms, self.spec.volatility), ..self }
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for SystemFunction {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (Body::Waits(call), Some(context)) = (self.spec.body, &self.context) else {
            return Err(Error::internal(format!("{} was called outside of a session", self.spec.name)).into());
        };
        let columns = args.args.into_iter().map(|a| a.into_array(args.number_rows)).collect::<DfResult<Vec<ArrayRef>>>()?;
        let mut results = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let values: Vec<Value> = columns.iter().map(|c| value_at(c, row)).collect();
            if values.contains(&Value::Null) {
                results.push(Value::Null);
                continue;
            }
            let wait = call(&Call { context, fields: &args.arg_fields }, &values)?;
            wait.await?;
            results.push("".into());
        }
        Ok(ColumnarValue::Array(array(&results, &arrow_type(self.spec.result))?))
    }
}

/// Two are the same if they are of the same name and context.
impl PartialEq for SystemFunction {
    fn eq(&self, other: &SystemFunction) -> bool {
        let context = |f: &SystemFunction| f.context.as_ref().map(Arc::as_ptr);
        self.spec.name == other.spec.name && context(self) == context(other)
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.name.hash(state);
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(arrow_type(self.spec.result))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let actual: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        if form_for(self.spec, actual.len()).is_none() {
            return Err(no_such_form(self.spec, &actual).into());
        }
        let field = Field::new(self.spec.name, arrow_type(self.spec.result), true);
        // VALUES and UNION refuse columns whose metadata differs; what a plan's columns are, `plan::columns` finds out itself.
        if types::arrow_says_it_all(self.spec.result) || is_document(self.spec.result) {
            return Ok(Arc::new(field));
        }
        Ok(Arc::new(field.with_metadata(HashMap::from([(PG_TYPE.to_string(), self.spec.result.to_string())]))))
    }

    fn coerce_types(&self, actual: &[DataType]) -> DfResult<Vec<DataType>> {
        // Wrong arguments are refused with the result's type: DataFusion hides what is said here.
        Ok(coerce(self.spec, actual))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Ok(invoke(self.spec, self.context.as_deref(), args)?)
    }
}

/// The first form that takes so many arguments.
fn form_for(spec: &Spec, count: usize) -> Option<&'static [&'static str]> {
    spec.forms.iter().find_map(|form| match form.split_last() {
        Some((&"...", fixed)) if count + 1 >= fixed.len() => Some(fixed),
        _ if form.len() == count => Some(*form),
        _ => None,
    })
}

fn no_such_form(spec: &Spec, actual: &[DataType]) -> Error {
    let given: Vec<String> = actual.iter().map(crate::sql::types::sql_type).collect();
    let forms: Vec<String> = spec.forms.iter().map(|form| format!("{}({})", spec.name, form.join(", "))).collect();
    let error = Error::undefined_function(format!("function {}({}) does not exist", spec.name, given.join(", ")));
    error.with_hint(format!("there is {}", forms.join(" and ")))
}

/// The types that the arguments are cast to.
fn coerce(spec: &Spec, actual: &[DataType]) -> Vec<DataType> {
    let Some(form) = form_for(spec, actual.len()) else { return actual.to_vec() };
    let wanted = form.iter().chain(std::iter::repeat(form.last().unwrap_or(&"any")));
    actual.iter().zip(wanted).map(|(actual, wanted)| target(wanted, actual)).collect()
}

fn target(wanted: &str, actual: &DataType) -> DataType {
    let is_text = matches!(actual, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
    match wanted {
        "any" => actual.clone(),
        "reg" if is_text => DataType::Utf8,
        "reg" | "oid" | "int2" | "int4" | "int8" => DataType::Int64,
        // In whose zone it is seen.
        "timestamptz" if crate::time::is_zoned(actual) => actual.clone(),
        other => arrow_type(other),
    }
}

fn invoke(spec: &Spec, context: Option<&SystemContext>, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) && spec.volatility != Volatility::Volatile;
    let rows = if constant { 1 } else { args.number_rows };
    let columns = args.args.into_iter().map(|a| a.into_array(rows)).collect::<DfResult<Vec<ArrayRef>>>()?;
    let fields = &args.arg_fields;
    let result = match (spec.body, context) {
        (Body::Columns(call), _) => call(fields, &columns)?,
        (Body::Pure(call), _) => by_row(spec, &columns, rows, |values| call(fields, values))?,
        (Body::Asks(call), Some(context)) => by_row(spec, &columns, rows, |values| call(&Call { context, fields }, values))?,
        (Body::Asks(_) | Body::Waits(_), _) => {
            return Err(Error::unsupported(format!("{} cannot be called here", spec.name)));
        }
    };
    match constant {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
        false => Ok(ColumnarValue::Array(result)),
    }
}

fn by_row(spec: &Spec, columns: &[ArrayRef], rows: usize, call: impl Fn(&[Value]) -> Result<Value>) -> Result<ArrayRef> {
    let mut values = Vec::with_capacity(columns.len());
    let mut results = Vec::with_capacity(rows);
    let mut bytes = 0;
    for row in 0..rows {
        values.clear();
        values.extend(columns.iter().map(|c| value_at(c, row)));
        let is_null = spec.strict && values.contains(&Value::Null);
        let result = if is_null { Value::Null } else { call(&values)? };
        bytes += result.text().map(str::as_bytes).or(result.bytes()).map_or(0, |bytes| bytes.len() as u64);
        if bytes > FUNCTION_BYTES {
            let message = format!("requested length too large: the results of {} for a batch of rows take too much", spec.name);
            return Err(Error::limit_exceeded(message));
        }
        results.push(result);
    }
    array(&results, &arrow_type(spec.result))
}

// Arguments by position: the coercion above has made them what the form says, and `strict` that they are there.

fn text(values: &[Value], at: usize) -> &str {
    values.get(at).and_then(Value::text).unwrap_or_default()
}

fn int(values: &[Value], at: usize) -> i64 {
    values.get(at).and_then(Value::int).unwrap_or_default()
}

/// An OID, 0 for numbers that are none.
fn oid(values: &[Value], at: usize) -> u32 {
    values.get(at).and_then(Value::oid).unwrap_or_default()
}

fn flag(values: &[Value], at: usize) -> bool {
    values.get(at).and_then(Value::bool).unwrap_or_default()
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a function")]
fn null(_: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(Value::Null)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a function")]
fn yes(_: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(true))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a function")]
fn no(_: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(false))
}
