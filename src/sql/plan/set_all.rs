//! `INTERSECT ALL` and `EXCEPT ALL`: a row comes as often as the lesser of its numbers on both sides, or as the difference.
//!
//! The planner makes semi and anti joins of them, which tell whether a row is there and not how often. Here both sides are
//! counted together:
//!
//! ```text
//!   Projection: a, b
//!     Unnest: $copies
//!       Projection: a, b, range($right, $left) AS $copies               of INTERSECT ALL: range(lesser of $left, $right)
//!         Aggregate: BY a, b: count($left) AS $left, count($right) AS $right
//!           Union
//!             Projection: a, b, true AS $left, NULL AS $right           rows of the left
//!             Projection: a, b, NULL AS $left, true AS $right           rows of the right
//! ```

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result as DfResult, ScalarValue, UnnestOptions};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_nested::range::range_udf;
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, LogicalPlanBuilder, lit, when};

const LEFT: &str = "$left";
const RIGHT: &str = "$right";
const COPIES: &str = "$copies";

/// The plan with set operations that count. Before types are settled: the sides of a union have those of both.
pub(super) fn count_copies(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let counted = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if is_set_operation(&join) => Ok(Transformed::yes(copies(join)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(counted.data)
}

/// Only of set operations do joins take NULLs for equal at this point. Without ALL, the left side is distinct, and whether a row
/// is there is all that counts.
fn is_set_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(*join.left, LogicalPlan::Distinct(Distinct::All(_)))
}

fn copies(join: Join) -> DfResult<LogicalPlan> {
    let columns = join.left.schema().columns();
    let (here, absent) = (|| lit(true), || lit(ScalarValue::Boolean(None)));
    let left = side(&join.left, here(), absent())?;
    let right = side(&join.right, absent(), here())?;
    let keys: Vec<Expr> = (0..columns.len()).map(|at| named(&key(at))).collect();
    let counts = [LEFT, RIGHT].map(|side| count(named(side)).alias(side));
    let range = match join.join_type {
        JoinType::LeftAnti => vec![named(RIGHT), named(LEFT)],
        _ => vec![when(named(LEFT).lt(named(RIGHT)), named(LEFT)).otherwise(named(RIGHT))?],
    };
    let numbered = keys.iter().cloned().chain([range_udf().call(range).alias(COPIES)]);
    let shown = columns.into_iter().zip(&keys).map(|(column, key)| key.clone().alias_qualified(column.relation, column.name));
    LogicalPlanBuilder::from(left)
        .union(right)?
        .aggregate(keys.clone(), counts)?
        .project(numbered.collect::<Vec<_>>())?
        .unnest_column_with_options(Column::new_unqualified(COPIES), UnnestOptions::new().with_preserve_nulls(false))?
        .project(shown.collect::<Vec<_>>())?
        .build()
}

/// The rows of a side under names that both share, marked as of this side.
fn side(plan: &LogicalPlan, left: Expr, right: Expr) -> DfResult<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().enumerate();
    let keys = columns.map(|(at, column)| Expr::Column(column).alias(key(at)));
    let marks = [left.alias(LEFT), right.alias(RIGHT)];
    LogicalPlanBuilder::from(plan.clone()).project(keys.chain(marks).collect::<Vec<_>>())?.build()
}

fn key(at: usize) -> String {
    format!("${at}")
}

fn named(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
