//! Calls of users' functions: each becomes the expression that the function stands for.
//!
//! ```text
//!   f(a + 1)  ──names──►  Called(f, …)(a + 1)  ──types──►  CAST((CAST(a + 1 AS integer) * 2) AS integer)
//! ```
//!
//! The planner meets a function as `Called`, which knows all functions of its name and so what type a call has. Once a plan
//! has its types, calls are replaced (`inline`), and nothing after that knows of functions: an expression with a function in it
//! is as fast, as final and as fit for a continuous query as the expression without.
//!
//! What is stored keeps its meaning: a relation names the versions of the functions that it was made with, and they go before
//! the newest ones when it is planned again ([`Planner::as_made`]).

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    self as df, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, cast, lit, when,
};
use sqlparser::ast as sp;

use super::names::fold;
use super::overload::{Argument, choose, returns};
use super::{Planner, Reader};
use crate::catalog::function::{Function, FunctionId, FunctionRef, Volatility};
use crate::catalog::{Kind, Relation};
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::parse::{parse_body, parse_expression};

/// All functions of one name, as the planner is shown them.
#[derive(Debug)]
struct Called {
    name: String,
    /// Versions that what is planned was made with: one that fits goes before the others.
    made_with: Vec<Arc<Function>>,
    newest: Vec<Arc<Function>>,
    planner: Planner,
    signature: Signature,
}

impl PartialEq for Called {
    fn eq(&self, other: &Called) -> bool {
        self.name == other.name && self.made_with == other.made_with && self.newest == other.newest
    }
}

impl Eq for Called {}

impl Hash for Called {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Called {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Err(Error::internal("the type of a call depends on its literals").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let arguments = args.arg_fields.iter().zip(args.scalar_arguments);
        let arguments: Vec<Argument> = arguments.map(|(field, literal)| Argument::new(field.data_type(), *literal)).collect();
        let function = self.choose(&arguments)?;
        Ok(Arc::new(Field::new(&self.name, function.returns.clone(), true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::internal(format!("a call of {} was not replaced by its expression", self.name)).into())
    }
}

/// The functions of this name, if there are some.
pub(super) fn function(planner: &Planner, name: &str) -> Option<Arc<ScalarUDF>> {
    let newest = planner.functions_named(name);
    if newest.is_empty() {
        return None;
    }
    let made_with = planner.made_with.iter().filter_map(|of| planner.catalog.function_version(*of));
    let made_with = made_with.filter(|function| function.name == name).cloned().collect();
    let signature = Signature::user_defined(df::Volatility::Immutable);
    let called = Called { name: name.to_string(), made_with, newest, planner: planner.clone(), signature };
    Some(Arc::new(ScalarUDF::new_from_impl(called)))
}

fn called(expr: &Expr) -> Option<(&Called, &ScalarFunction)> {
    match expr {
        Expr::ScalarFunction(call) => Some((call.func.inner().downcast_ref::<Called>()?, call)),
        _ => None,
    }
}

fn calls_function(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(called(expr).is_some())).unwrap_or(true)
}

/// The plan with expressions in place of calls.
pub(super) fn inline(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut calls = false;
    plan.apply_with_subqueries(|node| {
        calls = calls || node.expressions().iter().any(calls_function);
        Ok(if calls { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !calls {
        return Ok(plan);
    }
    let inlined = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let named = |expr: Expr| {
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(inline_calls(expr, &schema)?)))
        };
        let replaced = node.map_expressions(|expr| match expr {
            // The columns are those of its parts.
            Expr::GroupingSet(_) => expr.map_children(named),
            expr => named(expr),
        })?;
        // What is NULL when may be known better now.
        replaced.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(inlined.data)
}

/// The expression with expressions in place of calls.
pub fn inline_calls(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    if !calls_function(&expr) {
        return Ok(expr);
    }
    let inlined = expr.transform_up(|expr| match called(&expr) {
        None => Ok(Transformed::no(expr)),
        Some((of, call)) => Ok(Transformed::yes(of.expression(&call.args, schema)?)),
    })?;
    check_size(&inlined.data)?;
    Ok(inlined.data)
}

impl Called {
    fn choose(&self, arguments: &[Argument]) -> Result<&Arc<Function>> {
        match choose(&self.name, &self.made_with, arguments) {
            Err(_) => choose(&self.name, &self.newest, arguments),
            made_with => made_with,
        }
    }

    /// What a call with these arguments stands for.
    fn expression(&self, given: &[Expr], schema: &DFSchema) -> DfResult<Expr> {
        let literal = |expr: &Expr| if let Expr::Literal(value, _) = expr { Some(value.clone()) } else { None };
        let argument = |expr: &Expr| Ok(Argument::new(&expr.get_type(schema)?, literal(expr).as_ref()));
        let arguments = given.iter().map(argument).collect::<DfResult<Vec<_>>>()?;
        let function = self.choose(&arguments)?;
        let planner = self.planner.calling(function)?;
        let mut values = Vec::new();
        for (at, parameter) in function.parameters.iter().enumerate() {
            let value = match (given.get(at), &parameter.default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => planner.expression_from_text(default, &DFSchema::empty())?.unalias(),
                (None, None) => return Err(Error::internal("a call without an argument that it needs was chosen").into()),
            };
            values.push(as_type(value, &parameter.data_type, schema)?);
        }
        let in_body = |error: Error| error.without_position().with_context(format!("function {}", function.signature()));
        let body = planner.body(function).map_err(in_body)?;
        check_repeats(function, &body, &values)?;
        let result = substitute(body, function, &values)?;
        let may_be_null = |value: &&Expr| value.nullable(schema).unwrap_or(true);
        let mut nulls = values.iter().filter(may_be_null).cloned().map(Expr::is_null).filter(|_| function.strict);
        let result = match nulls.next() {
            None => result,
            Some(first) => {
                let null = lit(ScalarValue::try_from(&function.returns)?);
                when(nulls.fold(first, Expr::or), null).otherwise(result)?
            }
        };
        check_size(&result)?;
        Ok(result)
    }
}

/// A value of a type; a parameter of the statement has that type then.
fn as_type(value: Expr, to: &DataType, schema: &DFSchema) -> DfResult<Expr> {
    match value {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            Ok(Expr::Placeholder(Placeholder { id, field: Some(to.clone().into_nullable_field_ref()) }))
        }
        value if value.get_type(schema)? == *to => Ok(value),
        value => Ok(cast(value, to.clone())),
    }
}

/// The body with values in place of parameters.
fn substitute(body: Expr, function: &Function, values: &[Expr]) -> DfResult<Expr> {
    let replaced = body.transform_up(|expr| match parameter_of(&expr, function) {
        Some(at) => Ok(Transformed::yes(values[at].clone())),
        None => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}

fn parameter_of(expr: &Expr, function: &Function) -> Option<usize> {
    let Expr::Column(column) = expr else { return None };
    (0..function.parameters.len()).find(|at| parameter_name(function, *at) == column.name)
}

/// The name of a parameter as a column: nobody writes that of one without a name.
fn parameter_name(function: &Function, at: usize) -> String {
    function.parameters[at].name.clone().unwrap_or_else(|| format!("${}", at + 1))
}

/// An argument is evaluated once, however often its parameter is named; that must make no difference.
fn check_repeats(function: &Function, body: &Expr, values: &[Expr]) -> Result<()> {
    for (at, value) in values.iter().enumerate().filter(|(_, value)| volatility(value).0 == Volatility::Volatile) {
        let mut uses = 0;
        body.apply(|expr| {
            uses += usize::from(parameter_of(expr, function) == Some(at));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if uses + usize::from(function.strict) > 1 {
            let (_, by) = volatility(value);
            let message =
                format!("an argument of {} has another value each time it is looked at, because of {by}()", function.name);
            return Err(Error::unsupported(message).with_hint("compute it first: SELECT f(x) FROM (SELECT random() AS x) AS t"));
        }
    }
    Ok(())
}

/// Functions of functions grow fast.
fn check_size(expr: &Expr) -> Result<()> {
    let mut parts = 0;
    expr.apply(|_| {
        parts += 1;
        Ok(if parts > limits::FUNCTION_PARTS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match parts > limits::FUNCTION_PARTS {
        false => Ok(()),
        true => Err(Error::statement_too_complex(format!(
            "the functions of an expression come to more than {} parts",
            limits::FUNCTION_PARTS
        ))
        .with_hint("compute a part of it in a subquery, so that it is not repeated")),
    }
}

/// How volatile an expression is, and by which function.
fn volatility(expr: &Expr) -> (Volatility, String) {
    let mut most = (Volatility::Immutable, String::new());
    let walked = expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr {
            let of = match call.func.signature().volatility {
                df::Volatility::Immutable => Volatility::Immutable,
                df::Volatility::Stable => Volatility::Stable,
                df::Volatility::Volatile => Volatility::Volatile,
            };
            if of > most.0 {
                most = (of, call.func.name().to_string());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the visitor itself never fails");
    most
}

impl Planner {
    /// For what is stored: calls mean the functions that the relation was made with. A plain view means the newest versions of
    /// them. Inside of another relation's query, that one has said it already.
    #[must_use]
    pub fn as_made(&self, relation: &Relation) -> Planner {
        if !self.made_with.is_empty() || relation.functions.is_empty() {
            return self.clone();
        }
        let newest = |of: &FunctionRef| self.catalog.function(of.id).map(|function| function.reference());
        let made_with = match relation.kind {
            Kind::View => relation.functions.iter().filter_map(newest).collect(),
            _ => relation.functions.clone(),
        };
        Planner { made_with: made_with.into(), ..self.clone() }
    }

    /// The newest versions of the functions of this name.
    pub(super) fn functions_named(&self, name: &str) -> Vec<Arc<Function>> {
        self.catalog.functions().filter(|function| function.name == name).cloned().collect()
    }

    /// The functions that the plans of this planner, and of those made from it, have called so far.
    pub fn functions_called(&self) -> Vec<FunctionRef> {
        self.called.lock().iter().copied().collect()
    }

    /// For the body of a function that is called, if it may be.
    fn calling(&self, function: &Function) -> Result<Planner> {
        if let Reader::Role(rights) = &self.reader {
            rights.check_execute(function)?;
        }
        if self.calling.contains(&function.id) {
            let error =
                Error::unsupported(format!("function {} calls itself, and recursion is not supported", function.signature()));
            return Err(error.with_hint("WITH RECURSIVE goes on until there is nothing new"));
        }
        self.called.lock().insert(function.reference());
        let calling: Vec<FunctionId> = self.calling.iter().copied().chain([function.id]).collect();
        Ok(Planner { calling: calling.into(), ..self.clone() })
    }

    /// A function's body over columns that are named as its parameters, of the type that the function returns.
    fn body(&self, function: &Function) -> Result<Expr> {
        let mut body = parse_body(&function.body)?;
        name_parameters(&mut body, function)?;
        let fields = function.parameters.iter().enumerate();
        let fields = fields.map(|(at, parameter)| {
            let field = Field::new(parameter_name(function, at), parameter.data_type.clone(), true);
            (Some(function.name.as_str().into()), Arc::new(field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), Default::default())?;
        let expr = self.expression(&body, &schema)?.unalias();
        check_body(&expr)?;
        let data_type = expr.get_type(&schema).map_err(super::errors::locate)?;
        if data_type == function.returns {
            return Ok(expr);
        }
        if let Expr::Literal(ScalarValue::Utf8(Some(_)), _) = &expr {
            return literal_as(expr, &function.returns);
        }
        if !returns(&data_type, &function.returns) {
            let declared = format!("return type mismatch in function declared to return {}", function.returns_sql);
            let detail = format!("actual return type is {}", crate::sql::types::sql_type(&data_type));
            return Err(Error::invalid_function_definition(declared)
                .with_detail(detail)
                .with_hint(format!("CAST the expression AS {}", function.returns_sql)));
        }
        Ok(cast(expr, function.returns.clone()))
    }

    /// What a new function needs to be right: its body and its defaults can be planned. Returns how volatile it is, and because
    /// of what; whom it calls, [`Planner::functions_called`] knows. Positions of errors are in the body.
    pub fn check_function(&self, function: &Function) -> Result<(Volatility, String)> {
        let planner = Planner { calling: Arc::from([function.id]), ..self.clone() };
        let nothing = DFSchema::empty();
        for parameter in &function.parameters {
            let Some(default) = &parameter.default else { continue };
            let default = planner.expression_from_text(default, &nothing)?.unalias();
            let from = default.get_type(&nothing)?;
            if let Expr::Literal(ScalarValue::Utf8(Some(_)), _) = &default {
                literal_as(default, &parameter.data_type)?;
            } else if !returns(&from, &parameter.data_type) {
                return Err(Error::datatype_mismatch(format!(
                    "argument of DEFAULT must be type {}, not type {}",
                    parameter.sql_type,
                    crate::sql::types::sql_type(&from)
                )));
            }
        }
        let body = planner.body(function)?;
        check_size(&body)?;
        Ok(volatility(&body))
    }
}

/// A string as a literal of another type, or why it is none.
fn literal_as(literal: Expr, to: &DataType) -> Result<Expr> {
    match &literal {
        Expr::Literal(value, _) => Ok(lit(value.cast_to(to)?)),
        _ => Ok(cast(literal, to.clone())),
    }
}

/// `$1` and `$name` are the names of parameters.
fn name_parameters(body: &mut sp::Expr, function: &Function) -> Result<()> {
    let named = sp::visit_expressions_mut(body, |expr| {
        let sp::Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let sp::Value::Placeholder(text) = &value.value else { return ControlFlow::Continue(()) };
        let (word, count) = (text.trim_start_matches('$'), function.parameters.len());
        let at = match word.parse::<usize>() {
            Ok(number) => number.checked_sub(1).filter(|at| *at < count),
            Err(_) => {
                let word = word.to_lowercase();
                function.parameters.iter().position(|parameter| parameter.name.as_ref() == Some(&word))
            }
        };
        let Some(at) = at else {
            let error = Error::undefined_parameter(format!("there is no parameter {text}"));
            let error = error.with_detail(format!("the function is {}", function.signature()));
            return ControlFlow::Break(error.at(u32::try_from(value.span.start.column).unwrap_or(0)));
        };
        let name = parameter_name(function, at);
        *expr = sp::Expr::CompoundIdentifier(vec![quoted(&function.name), quoted(&name)]);
        ControlFlow::Continue(())
    });
    match named {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn quoted(name: &str) -> sp::Ident {
    sp::Ident::with_quote('"', name)
}

/// A function gives one value for the values of one row.
fn check_body(body: &Expr) -> Result<()> {
    let mut found = None;
    let walked = body.apply(|expr| {
        let what = match expr {
            Expr::AggregateFunction(_) => "aggregate functions",
            Expr::WindowFunction(_) => "window functions",
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => "subqueries",
            Expr::Unnest(_) => "functions that return several rows",
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        found = Some(what);
        Ok(TreeNodeRecursion::Stop)
    });
    debug_assert!(walked.is_ok(), "the visitor itself never fails");
    match found {
        None => Ok(()),
        Some(what) => Err(Error::unsupported(format!("{what} are not supported in the body of a function"))
            .with_hint("a function is an expression over its parameters; CREATE VIEW names a query")),
    }
}

/// `f(b => 2, a => 1)` becomes `f(1, 2)`, the gaps filled with defaults. A call that fits no function of the name stays as it is.
pub(super) fn order_arguments(call: &mut sp::Function, functions: &[Arc<Function>]) {
    let sp::FunctionArguments::List(list) = &mut call.args else { return };
    let Some(first) = list.args.iter().position(|arg| named(arg).is_some()) else { return };
    if let Some(args) = functions.iter().find_map(|function| ordered(function, &list.args, first)) {
        list.args = args;
    }
}

/// `name => value`, `name := value`.
fn named(arg: &sp::FunctionArg) -> Option<(&sp::Ident, sp::FunctionArgExpr)> {
    match arg {
        sp::FunctionArg::Named { name, arg, .. } => Some((name, arg.clone())),
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::BinaryOp {
            left,
            op: sp::BinaryOperator::Assignment,
            right,
        })) => match left.as_ref() {
            sp::Expr::Identifier(name) => Some((name, sp::FunctionArgExpr::Expr(right.as_ref().clone()))),
            _ => None,
        },
        _ => None,
    }
}

/// Arguments in the order of a function's parameters, if they are its.
fn ordered(function: &Function, args: &[sp::FunctionArg], first: usize) -> Option<Vec<sp::FunctionArg>> {
    let mut slots: Vec<Option<sp::FunctionArgExpr>> = vec![None; function.parameters.len()];
    for (at, arg) in args.iter().enumerate() {
        let (at, value) = match (named(arg), arg) {
            (Some((name, value)), _) => {
                let name = fold(name);
                (function.parameters.iter().position(|parameter| parameter.name.as_ref() == Some(&name))?, value)
            }
            (None, sp::FunctionArg::Unnamed(value)) if at < first => (at, value.clone()),
            _ => return None,
        };
        let slot = slots.get_mut(at).filter(|slot| slot.is_none())?;
        *slot = Some(value);
    }
    let given = slots.iter().rposition(Option::is_some)? + 1;
    let filled = slots.into_iter().zip(&function.parameters).enumerate().map(|(at, (slot, parameter))| match slot {
        Some(value) => Some(Some(value)),
        None if at >= given => parameter.default.is_some().then_some(None),
        None => Some(Some(sp::FunctionArgExpr::Expr(parse_expression(parameter.default.as_deref()?).ok()?))),
    });
    let filled = filled.collect::<Option<Vec<_>>>()?;
    Some(filled.into_iter().flatten().map(sp::FunctionArg::Unnamed).collect())
}
