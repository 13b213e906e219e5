//! How large a plan is. A CTE or view that is read twice stands in the plan twice, and so does what it reads: a statement of a
//! few lines can come to millions of steps. They share their nodes until a rule walks over them, so it is counted before any does.

use std::collections::HashMap;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use crate::error::Error;
use crate::limits::PLAN_NODES;

/// The plan, if it has no more than [`PLAN_NODES`] nodes, those of subqueries among them.
pub fn check(plan: LogicalPlan) -> Result<LogicalPlan> {
    let nodes = nodes(&plan, &mut HashMap::new())?;
    if nodes <= PLAN_NODES {
        return Ok(plan);
    }
    let message = format!("statement is too complex: its plan has more than {PLAN_NODES} steps");
    let hint = "a CTE or a view is computed each time it is named: make a materialized view of what is read many times";
    Err(Error::statement_too_complex(message).with_hint(hint).into())
}

/// Nodes as a tree. `known`: of those that were counted, by their place in memory, which is theirs as long as the plan lives.
fn nodes(plan: &LogicalPlan, known: &mut HashMap<*const LogicalPlan, u64>) -> Result<u64> {
    if let Some(nodes) = known.get(&std::ptr::from_ref(plan)) {
        return Ok(*nodes);
    }
    let mut sum = 1_u64;
    for input in plan.inputs() {
        sum = sum.saturating_add(nodes(input, known)?);
    }
    plan.apply_subqueries(|subquery| {
        // It stands in a node that is made for this call.
        for input in subquery.inputs() {
            sum = sum.saturating_add(nodes(input, known)?);
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    known.insert(std::ptr::from_ref(plan), sum);
    Ok(sum)
}
