//! Columns of the system catalog that are more than their Arrow type. OIDs that show as names: `pg_type.typreceive` is `int4recv` to whoever selects it, or casts
//! it to text, and a number to whoever joins by it. Vectors, whose first element is number 0: `pg_index.indkey[0]`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, lit};

use super::SystemRelations;
use crate::sql::types::PG_TYPE;

/// The type, and the function that tells a name.
const SHOWN: (&str, &str) = ("regproc", "regprocout");

/// Arrays of the catalog that are counted from 0, where all others are from 1.
const VECTORS: [&str; 2] = ["int2vector", "oidvector"];

/// The plan, with names where it gives out OIDs of functions, or makes text of them.
pub(super) fn show(plan: LogicalPlan, system: &dyn SystemRelations) -> DfResult<LogicalPlan> {
    let Some(out) = system.function(SHOWN.1) else { return Ok(plan) };
    let plan = plan.transform_up_with_subqueries(|node| show_casts(node, &out))?.data;
    let columns = plan.schema().columns();
    if !columns.iter().any(|column| is_registered(column, plan.schema())) {
        return Ok(plan);
    }
    let shown = columns.into_iter().map(|column| match is_registered(&column, plan.schema()) {
        true => {
            let name = column.name.clone();
            out.call(vec![Expr::Column(column)]).alias(name)
        }
        false => Expr::Column(column),
    });
    let shown: Vec<Expr> = shown.collect();
    LogicalPlanBuilder::from(plan).project(shown)?.build()
}

fn show_casts(node: LogicalPlan, out: &Arc<ScalarUDF>) -> DfResult<Transformed<LogicalPlan>> {
    let mut schema = DFSchema::empty();
    node.inputs().iter().for_each(|input| schema.merge(input.schema()));
    let concerned = |name: &String| name == SHOWN.0 || VECTORS.contains(&name.as_str());
    if !schema.fields().iter().any(|field| field.metadata().get(PG_TYPE).is_some_and(concerned)) {
        return Ok(Transformed::no(node));
    }
    let names = NamePreserver::new(&node);
    let shown = node.map_expressions(|expr| {
        let name = names.save(&expr);
        let shown = expr.transform_up(|expr| match &expr {
            Expr::Cast(cast) if *cast.field.data_type() == DataType::Utf8 => match cast.expr.as_ref() {
                Expr::Column(column) if is_registered(column, &schema) => {
                    Ok(Transformed::yes(out.call(vec![Expr::Column(column.clone())])))
                }
                _ => Ok(Transformed::no(expr)),
            },
            Expr::ScalarFunction(call) if call.name() == "array_element" => match call.args.as_slice() {
                [Expr::Column(column), place] if is_vector(column, &schema) => {
                    let args = vec![Expr::Column(column.clone()), place.clone() + lit(1i64)];
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&call.func), args))))
                }
                _ => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(shown.update_data(|expr| name.restore(expr)))
    })?;
    shown.map_data(LogicalPlan::recompute_schema)
}

fn is_vector(column: &Column, schema: &DFSchema) -> bool {
    let field = schema.maybe_index_of_column(column).map(|at| schema.field(at));
    field.and_then(|field| field.metadata().get(PG_TYPE)).is_some_and(|name| VECTORS.contains(&name.as_str()))
}

fn is_registered(column: &Column, schema: &DFSchema) -> bool {
    let field = schema.maybe_index_of_column(column).map(|at| schema.field(at));
    let named = |field: &arrow::datatypes::FieldRef| field.metadata().get(PG_TYPE).is_some_and(|name| name == SHOWN.0);
    field.is_some_and(|field| *field.data_type() == DataType::UInt32 && named(field))
}
