//! Of which types are a statement's parameters? What the client declared, else what their first use says, as in PostgreSQL.
//!
//! | written | `$1` is |
//! | --- | --- |
//! | `$1::uuid`, `CAST($1 AS int)` | what it is cast to |
//! | `a = $1`, `a + $1`, `a BETWEEN $1 AND 9`, `coalesce(a, $1)`, `SELECT a … UNION SELECT $1` | what stands beside it ([`unknown`](super::unknown)) |
//! | `a = ANY ($1)` | a list of these |
//! | `WHERE $1`, `NOT $1`; `LIMIT $1` | `boolean`; `bigint` |
//! | `repeat(a, $1)` | what the function takes ([`arguments`](super::arguments)) |
//! | `SELECT $1`, `$1 || $2`, `lower($1)` | `text` |
//! | `$1 IS NULL`, `concat('a', $1)` | unknown, which is an error, 42P18 |
//!
//! Where one use says what another leaves open, the statement is planned again.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues, Result as DfResult};
use datafusion::logical_expr::expr::{FieldMetadata, Placeholder};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::columns::ParameterNames;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::session::{Bound, Parameter};
use crate::sql::functions::convert::is_open;
use crate::sql::types;

/// The parameters of the statement that `plan` plans, and its plans.
pub fn inferred(
    declared: &[Option<FieldRef>],
    catalog: &Catalog,
    plan: impl Fn(&[Option<FieldRef>]) -> Result<Vec<LogicalPlan>>,
) -> Result<(Vec<Parameter>, Vec<LogicalPlan>)> {
    let mut types = declared.to_vec();
    loop {
        let plans = plan(&types)?;
        let Uses(uses) = Uses::of(&plans, catalog)?;
        types.resize(types.len().max(uses.len()), None);
        let mut again = false;
        for (known, uses) in types.iter_mut().zip(&uses).filter(|(known, _)| known.is_none()) {
            *known = uses.field();
            again |= known.is_some() && uses.differ();
        }
        if again {
            continue;
        }
        let parameter = |(at, known): (usize, Option<FieldRef>)| match known {
            Some(field) => Ok(Parameter::of(&field)),
            None if uses.get(at).is_some_and(Use::is_text) => Ok(Parameter::new(DataType::Utf8, None)),
            None => Err(Error::indeterminate_type(format!("could not determine data type of parameter ${}", at + 1))
                .with_hint(format!("say it: ${}::text", at + 1))),
        };
        return Ok((types.into_iter().enumerate().map(parameter).collect::<Result<_>>()?, plans));
    }
}

/// The plan with values for its parameters.
pub fn bind(plan: LogicalPlan, bound: Bound) -> Result<LogicalPlan> {
    if bound.is_empty() {
        return Ok(plan);
    }
    let values = bound.values.into_iter().zip(bound.types).map(|(value, field)| ScalarAndMetadata {
        metadata: field.filter(|field| !field.metadata().is_empty()).map(|field| FieldMetadata::from(field.as_ref())),
        value,
    });
    Ok(plan.replace_params_with_values(&ParamValues::List(values.collect()))?)
}

/// What the uses of one parameter say of it.
#[derive(Clone, Debug, Default)]
struct Use {
    /// By the first that says something.
    told: Option<FieldRef>,
    /// What Arrow has no name for.
    name: Option<String>,
    /// Uses that say nothing by themselves, those of them whose surroundings do, and those that take whatever comes.
    open: usize,
    settled: usize,
    any: usize,
    /// Some use knows less, or something else, than the first that says something.
    differs: bool,
}

impl Use {
    fn field(&self) -> Option<FieldRef> {
        let told = self.told.as_deref().map(Parameter::of);
        let Some(name) = &self.name else { return told.map(|told| told.field()) };
        let text = || if name.ends_with("[]") { DataType::new_list(DataType::Utf8, true) } else { DataType::Utf8 };
        Some(types::field(&told.map_or_else(text, |told| told.data_type), name))
    }

    fn differ(&self) -> bool {
        self.differs || self.open > self.settled
    }

    /// Is it a text, as nothing says that it is something else?
    fn is_text(&self) -> bool {
        self.open > self.any
    }

    fn say(&mut self, field: &FieldRef) {
        match &self.told {
            Some(told) => self.differs |= told.data_type() != field.data_type(),
            None => self.told = Some(Arc::clone(field)),
        }
    }
}

/// By number, `$1` first.
struct Uses(Vec<Use>);

impl Uses {
    fn of(plans: &[LogicalPlan], catalog: &Catalog) -> Result<Uses> {
        let mut uses = Uses(Vec::new());
        for plan in plans {
            if plan.get_parameter_names()?.is_empty() {
                continue;
            }
            plan.apply_with_subqueries(|node| {
                uses.node(node, catalog)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(uses)
    }

    fn node(&mut self, node: &LogicalPlan, catalog: &Catalog) -> DfResult<()> {
        if let LogicalPlan::Limit(limit) = node {
            let mut counts = limit.skip.iter().chain(&limit.fetch).filter_map(|count| placeholder(count));
            return Ok(counts.try_for_each(|id| self.get(id).map(|of| of.say(&DataType::Int64.into_nullable_field_ref())))?);
        }
        let schema = merge_schema(&node.inputs());
        let names = ParameterNames::new(node, catalog);
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                self.expression(expr, &schema)?;
                for (id, name, is_settled) in names.of(expr) {
                    let of = self.get(id)?;
                    of.differs |= !is_settled;
                    of.name.get_or_insert(name);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        match node {
            LogicalPlan::Filter(filter) => self.condition(&filter.predicate)?,
            LogicalPlan::Join(join) => join.filter.iter().try_for_each(|condition| self.condition(condition))?,
            _ => {}
        }
        Ok(())
    }

    fn expression(&mut self, expr: &Expr, schema: &DFSchema) -> Result<()> {
        match expr {
            Expr::Placeholder(Placeholder { id, field }) => {
                let of = self.get(id)?;
                match field.as_ref().filter(|field| !field.data_type().is_null()) {
                    Some(field) => of.say(field),
                    None => of.open += 1,
                }
            }
            Expr::Cast(cast) => self.settle(&cast.expr, &cast.field)?,
            Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
                ("parameter_list", [list, _]) => self.settle(list, &expr.get_type(schema)?.into_nullable_field_ref())?,
                (name, args) if TAKES_ANY.contains(&name) => args.iter().try_for_each(|arg| self.any(arg))?,
                _ => {}
            },
            Expr::AggregateFunction(call) if call.func.name() == "count" => {
                call.params.args.iter().try_for_each(|arg| self.any(arg))?;
            }
            Expr::IsNull(value) | Expr::IsNotNull(value) => self.any(value)?,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                [left, right].into_iter().try_for_each(|side| self.condition(side))?;
            }
            Expr::Not(of)
            | Expr::IsTrue(of)
            | Expr::IsFalse(of)
            | Expr::IsUnknown(of)
            | Expr::IsNotTrue(of)
            | Expr::IsNotFalse(of)
            | Expr::IsNotUnknown(of) => self.condition(of)?,
            Expr::Case(case) if case.expr.is_none() => {
                case.when_then_expr.iter().try_for_each(|(condition, _)| self.condition(condition))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn condition(&mut self, condition: &Expr) -> Result<()> {
        self.settle(condition, &DataType::Boolean.into_nullable_field_ref())
    }

    /// What stands around a parameter says what it is.
    fn settle(&mut self, expr: &Expr, field: &FieldRef) -> Result<()> {
        if is_open(expr)
            && let Some(id) = placeholder(expr)
        {
            let of = self.get(id)?;
            of.say(field);
            of.settled += 1;
        }
        Ok(())
    }

    fn any(&mut self, expr: &Expr) -> Result<()> {
        if is_open(expr)
            && let Some(id) = placeholder(expr)
        {
            self.get(id)?.any += 1;
        }
        Ok(())
    }

    fn get(&mut self, id: &str) -> Result<&mut Use> {
        let number: usize = id.trim_start_matches('$').parse().unwrap_or(0);
        if !(1..=usize::from(u16::MAX)).contains(&number) {
            return Err(Error::undefined_parameter(format!("there is no parameter {id}")).with_hint("parameters are $1, $2, …"));
        }
        if self.0.len() < number {
            self.0.resize(number, Use::default());
        }
        Ok(&mut self.0[number - 1])
    }
}

/// Functions that take values of any type.
const TAKES_ANY: [&str; 11] = [
    "concat",
    "concat_ws",
    "format",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "json_array_of_present",
    "json_object_of_present",
    "num_nulls",
    "pg_typeof",
];

fn placeholder(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Placeholder(parameter) => Some(&parameter.id),
        _ => None,
    }
}
