//! `json`, `jsonb` and `uuid`, which are text to Arrow: what operators and functions mean on them, once it is known which column of
//! which relation an expression reads ([`columns`](super::columns)).
//!
//! | planned | becomes |
//! | --- | --- |
//! | `json_get(j, k)` of a `jsonb` | `jsonb_get(j, k)`, which gives one, too |
//! | `j = '{"a": 1}'`, `ORDER BY j` | by `jsonb_sort_key`; a string beside a `jsonb` is read as one |
//! | `u = 'A0EEBC99-…'`, `u IN ('…')`, `coalesce(u, '…')` | a string beside a `uuid` is read as one, in lower case |
//! | `j || k`, `j - k` | `jsonb_concat`, `jsonb_delete` |
//! | `jsonb_set(text, …)` | `jsonb_set(jsonb_from_text(text), …)` |
//! | `to_json(j)`, `pg_typeof(u)` | the argument declares its type ([`declared`]) |
//! | `to_json(t.*)`, `to_json(ROW(…))` | the row's columns, each with its name |

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Case, InList, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, EmptyRelation, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, lit,
};

use super::Planner;
use super::columns::type_beside;
use super::dialect::map_expressions;
use super::unknown::is_string;
use crate::error::{Error, Result};
use crate::sql::functions::declared::declared;
use crate::sql::types;

/// The name by which a whole row comes through the planner: `whole_row(t.*)`.
pub const WHOLE_ROW: &str = "whole_row";

/// The plan, with documents told from texts.
pub(super) fn in_plan(plan: LogicalPlan, planner: &Planner) -> DfResult<LogicalPlan> {
    let typed = plan.transform_up_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Extension(_) | LogicalPlan::Limit(_)) {
            return Ok(Transformed::no(node));
        }
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let place = Place { inputs: inputs.iter().collect(), schema: merge_schema(&node.inputs()), planner };
        let mapped = map_expressions(node, |expr| place.expression(expr))?;
        if !mapped.transformed {
            return Ok(mapped);
        }
        mapped.map_data(LogicalPlan::recompute_schema)
    })?;
    let sorted = typed.data.transform_up_with_subqueries(|node| sort(node, planner))?;
    Ok(sorted.data)
}

/// The same for an expression over columns, whose types are their fields'.
pub(super) fn expression(expr: Expr, schema: &DFSchema, planner: &Planner) -> DfResult<Expr> {
    let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(schema.clone()) });
    let place = Place { inputs: vec![&input], schema: schema.clone(), planner };
    Ok(place.expression(expr)?.data)
}

/// Documents are sorted as PostgreSQL does.
fn sort(node: LogicalPlan, planner: &Planner) -> DfResult<Transformed<LogicalPlan>> {
    let LogicalPlan::Sort(mut sort) = node else { return Ok(Transformed::no(node)) };
    let mut changed = false;
    for by in &mut sort.expr {
        if type_beside(&by.expr, &[sort.input.as_ref()], planner.catalog()).as_deref() == Some("jsonb") {
            by.expr = call(planner, "jsonb_sort_key", vec![by.expr.clone()])?;
            changed = true;
        }
    }
    let sort = LogicalPlan::Sort(sort);
    Ok(if changed { Transformed::yes(sort) } else { Transformed::no(sort) })
}

fn call(planner: &Planner, name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    let function = planner.state().scalar_functions().get(name);
    let function = function.ok_or_else(|| Error::internal(format!("there is no function {name}")))?;
    Ok(function.call(arguments))
}

/// Functions that give a part of a document, and what they are called where the document is a `jsonb`.
const PARTS: [(&str, &str); 2] = [("json_get", "jsonb_get"), ("json_get_path", "jsonb_get_path")];

/// Which of a function's arguments are `jsonb`, or read as such.
const READ: [(&str, &[usize]); 20] = [
    ("jsonb_get", &[0]),
    ("jsonb_get_path", &[0]),
    ("jsonb_extract_path", &[0]),
    ("jsonb_extract_path_text", &[0]),
    ("jsonb_typeof", &[0]),
    ("jsonb_array_length", &[0]),
    ("jsonb_array_items", &[0]),
    ("jsonb_keys", &[0]),
    ("jsonb_values", &[0]),
    ("jsonb_value_texts", &[0]),
    ("jsonb_contains", &[0, 1]),
    ("jsonb_exists", &[0]),
    ("jsonb_exists_any", &[0]),
    ("jsonb_exists_all", &[0]),
    ("jsonb_concat", &[0, 1]),
    ("jsonb_delete_path", &[0]),
    ("jsonb_set", &[0, 2]),
    ("jsonb_insert", &[0, 2]),
    ("jsonb_strip_nulls", &[0]),
    ("jsonb_pretty", &[0]),
];

/// Functions that write a value by its type.
const WRITE: [&str; 18] = [
    "json_build_object",
    "jsonb_build_object",
    "json_build_array",
    "jsonb_build_array",
    "to_json",
    "to_jsonb",
    "array_to_json",
    "row_to_json",
    "json_of_row",
    "json_from_list",
    "jsonb_from_list",
    "json_pair",
    "json_object_of_present",
    "json_array_of_present",
    "json_from_present",
    "jsonb_from_present",
    "json_pair_if_present",
    "pg_typeof",
];

/// Where an expression stands: what it reads.
struct Place<'a> {
    inputs: Vec<&'a LogicalPlan>,
    schema: DFSchema,
    planner: &'a Planner,
}

impl Place<'_> {
    fn expression(&self, expr: Expr) -> DfResult<Transformed<Expr>> {
        expr.transform_up(|expr| match expr {
            Expr::BinaryExpr(binary) => Ok(self.operation(binary)?),
            Expr::ScalarFunction(call) => Ok(self.function(call)?),
            Expr::InList(list) => Ok(self.in_list(list)?),
            Expr::Case(case) => Ok(self.case(case)?),
            Expr::Between(mut between) => {
                let changed = self.read_uuids([&mut between.expr, &mut between.low, &mut between.high].map(AsMut::as_mut))?;
                Ok(transformed(Expr::Between(between), changed))
            }
            other => Ok(Transformed::no(other)),
        })
    }

    fn sql_type(&self, expr: &Expr) -> Option<String> {
        type_beside(expr, &self.inputs, self.planner.catalog())
    }

    fn is(&self, expr: &Expr, sql_type: &str) -> bool {
        self.sql_type(expr).as_deref() == Some(sql_type)
    }

    fn is_jsonb(&self, expr: &Expr) -> bool {
        self.is(expr, "jsonb")
    }

    /// Is it a `jsonb`, or may it become one? Texts that have a type may not.
    fn becomes_jsonb(&self, expr: &Expr) -> bool {
        is_string(expr) || matches!(expr, Expr::Placeholder(_)) || self.is_jsonb(expr)
    }

    fn call(&self, name: &str, arguments: Vec<Expr>) -> Result<Expr> {
        call(self.planner, name, arguments)
    }

    /// As a `jsonb`, which it may be already.
    fn read(&self, expr: Expr) -> Result<Expr> {
        if self.is_jsonb(&expr) { Ok(expr) } else { self.call("jsonb_from_text", vec![expr]) }
    }

    fn operation(&self, mut binary: BinaryExpr) -> Result<Transformed<Expr>> {
        let is_concat = binary.op == Operator::StringConcat;
        [&mut binary.left, &mut binary.right].into_iter().for_each(|side| self.no_array(side));
        if !is_concat && self.read_uuids([&mut binary.left, &mut binary.right].map(AsMut::as_mut))? {
            return Ok(Transformed::yes(Expr::BinaryExpr(binary)));
        }
        let (left, right) = (&binary.left, &binary.right);
        let is_comparison = binary.op.supports_propagation() || binary.op == Operator::NotEq;
        let is_distinction = matches!(binary.op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom);
        if !is_concat && !is_comparison && !is_distinction {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        if is_comparison && (self.is(left, "json") && !is_null(right) || self.is(right, "json") && !is_null(left)) {
            let side = |expr: &Expr| self.sql_type(expr).unwrap_or_else(|| "text".to_string());
            let message = format!("operator does not exist: {} {} {}", side(left), binary.op, side(right));
            return Err(Error::undefined_function(message).with_hint("a json is no value to compare; cast it to jsonb or text"));
        }
        let either = self.is_jsonb(left) || self.is_jsonb(right);
        if !either || !self.becomes_jsonb(left) || !self.becomes_jsonb(right) {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        let BinaryExpr { left, op, right } = binary;
        if op == Operator::StringConcat {
            return Ok(Transformed::yes(self.call("jsonb_concat", vec![self.read(*left)?, self.read(*right)?])?));
        }
        let key = |side: Box<Expr>| self.call("jsonb_sort_key", vec![*side]).map(Box::new);
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: key(left)?, op, right: key(right)? })))
    }

    fn in_list(&self, mut list: InList) -> Result<Transformed<Expr>> {
        if !self.is_jsonb(&list.expr) {
            let changed = self.read_uuids(std::iter::once(list.expr.as_mut()).chain(&mut list.list))?;
            return Ok(transformed(Expr::InList(list), changed));
        }
        let key = |expr: Expr| self.call("jsonb_sort_key", vec![expr]);
        let items = list.list.into_iter().map(key).collect::<Result<Vec<_>>>()?;
        Ok(Transformed::yes(Expr::InList(InList { expr: Box::new(key(*list.expr)?), list: items, negated: list.negated })))
    }

    /// Strings among the results, and among what a value is compared with, are what the others are.
    fn case(&self, mut case: Case) -> Result<Transformed<Expr>> {
        let mut changed = false;
        if let Some(value) = &mut case.expr {
            let compared = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
            changed |= self.read_uuids(std::iter::once(value.as_mut()).chain(compared))?;
        }
        let results = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
        changed |= self.read_strings(results.chain(case.else_expr.iter_mut().map(|other| other.as_mut())))?;
        Ok(transformed(Expr::Case(case), changed))
    }

    /// Strings beside a `jsonb` or a `uuid`.
    fn read_strings<'e>(&self, values: impl IntoIterator<Item = &'e mut Expr>) -> Result<bool> {
        let mut values: Vec<&mut Expr> = values.into_iter().collect();
        if !values.iter().any(|value| self.is_jsonb(value)) {
            return self.read_uuids(values);
        }
        let mut changed = false;
        for value in values.iter_mut().filter(|value| is_string(value)) {
            **value = self.call("jsonb_from_text", vec![std::mem::take(*value)])?;
            changed = true;
        }
        Ok(changed)
    }

    /// `u = '{A0EEBC99-…}'` looks as if `u` were an array, whose text is compared.
    fn no_array(&self, side: &mut Expr) {
        if let Expr::ScalarFunction(call) = side
            && let ("array_out", [value]) = (call.func.name(), call.args.as_mut_slice())
            && self.is(value, "uuid")
        {
            *side = std::mem::take(value);
        }
    }

    /// Strings beside a `uuid`. One that is none is refused here, and not when the first row comes.
    fn read_uuids<'e>(&self, values: impl IntoIterator<Item = &'e mut Expr>) -> Result<bool> {
        let (strings, others): (Vec<&mut Expr>, Vec<&mut Expr>) = values.into_iter().partition(|value| is_string(value));
        if strings.is_empty() || !others.iter().any(|other| self.is(other, "uuid")) {
            return Ok(false);
        }
        for value in strings {
            let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = value else { continue };
            let canonical = crate::copy::canonical_uuid(text.trim_ascii())?;
            *value = self.call("uuid_from_text", vec![lit(canonical)])?;
        }
        Ok(true)
    }

    fn function(&self, mut call: ScalarFunction) -> Result<Transformed<Expr>> {
        let name = call.func.name().to_string();
        let arguments = &mut call.args;
        if let Some((_, value)) = PARTS.iter().find(|(part, _)| *part == name)
            && arguments.first().is_some_and(|document| self.is_jsonb(document))
        {
            return Ok(Transformed::yes(self.call(value, std::mem::take(arguments))?));
        }
        if matches!(name.as_str(), "coalesce" | "nullif" | "greatest" | "least") {
            let changed = self.read_strings(arguments.iter_mut())?;
            return Ok(transformed(Expr::ScalarFunction(call), changed));
        }
        if let ("array_has", [list, item]) = (name.as_str(), arguments.as_mut_slice())
            && is_string(item)
            && self.is(list, "uuid[]")
        {
            *item = self.call("uuid_from_text", vec![std::mem::take(item)])?;
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
        if name == "jsonb_delete" && !arguments.first().is_some_and(|document| self.is_jsonb(document)) {
            return Err(not_deleted(arguments, &self.schema));
        }
        if name == WHOLE_ROW {
            return Ok(Transformed::yes(self.whole_row(arguments)?));
        }
        let mut changed = false;
        if let Some((_, places)) = READ.iter().find(|(function, _)| *function == name) {
            for place in *places {
                if let Some(argument) = arguments.get_mut(*place).filter(|argument| !self.is_jsonb(argument)) {
                    *argument = self.read(std::mem::take(argument))?;
                    changed = true;
                }
            }
        }
        if WRITE.contains(&name.as_str()) {
            for argument in arguments.iter_mut() {
                changed |= self.declare(argument, name == "pg_typeof")?;
            }
        }
        Ok(transformed(Expr::ScalarFunction(call), changed))
    }

    /// An argument that says what it is.
    fn declare(&self, argument: &mut Expr, any: bool) -> Result<bool> {
        if let Expr::ScalarFunction(row) = argument
            && !any
            && let Some(members) = members(row)
        {
            *argument = self.row(members)?;
        }
        let Some(sql_type) = self.sql_type(argument) else { return Ok(false) };
        let is_document = matches!(sql_type.trim_end_matches("[]"), "json" | "jsonb");
        if !any && !is_document {
            return Ok(false);
        }
        *argument = declared(std::mem::take(argument), &types::without_modifier(&sql_type));
        Ok(true)
    }

    /// A row as a document.
    fn row(&self, members: Vec<(String, Expr)>) -> Result<Expr> {
        let mut arguments = Vec::with_capacity(2 * members.len());
        for (name, mut value) in members {
            self.declare(&mut value, false)?;
            arguments.extend([lit(name), value]);
        }
        self.call("json_of_row", arguments)
    }

    /// `t.*`: a column called `t`, if there is one, else the row of the relation.
    fn whole_row(&self, arguments: &[Expr]) -> Result<Expr> {
        #[expect(deprecated, reason = "the planner makes it of `f(t.*)`")]
        let [Expr::Wildcard { qualifier: Some(relation), .. }] = arguments else {
            return Err(Error::internal("a whole row is one of a relation"));
        };
        let columns = || self.schema.columns().into_iter();
        if let Some(column) = columns().find(|column| column.name == relation.table()) {
            return Ok(Expr::Column(column));
        }
        let of_relation = columns().filter(|column| column.relation.as_ref().is_some_and(|of| of.resolved_eq(relation)));
        self.row(
            of_relation
                .map(|column| (crate::sql::system::visible_name(&column.name).to_string(), Expr::Column(column)))
                .collect(),
        )
    }
}

fn transformed(expr: Expr, changed: bool) -> Transformed<Expr> {
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Names and values of a row that an expression makes.
fn members(row: &ScalarFunction) -> Option<Vec<(String, Expr)>> {
    match row.func.name() {
        "named_struct" => {
            let name = |expr: &Expr| match expr {
                Expr::Literal(ScalarValue::Utf8(Some(name)), _) => Some(name.clone()),
                _ => None,
            };
            row.args.chunks_exact(2).map(|pair| Some((name(&pair[0])?, pair[1].clone()))).collect()
        }
        _ => None,
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

fn not_deleted(arguments: &[Expr], schema: &DFSchema) -> Error {
    use datafusion::logical_expr::ExprSchemable;
    let side = |at: usize| match arguments.get(at).map(|expr| expr.get_type(schema)) {
        Some(Ok(data_type)) => types::plain_name(&data_type),
        _ => "unknown".to_string(),
    };
    Error::undefined_function(format!("operator does not exist: {} - {}", side(0), side(1))).with_hint("add explicit type casts")
}

/// The function that stands for a whole row until the plan has its columns.
pub(super) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(WholeRow { signature: Signature::any(1, Volatility::Immutable) })));
    (name == WHOLE_ROW).then(|| Arc::clone(&FUNCTION))
}

/// Never evaluated: it is gone when the plan is made.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WholeRow {
    signature: Signature,
}

impl ScalarUDFImpl for WholeRow {
    fn name(&self) -> &str {
        WHOLE_ROW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::undefined_function("whole_row is not a function").into())
    }
}
