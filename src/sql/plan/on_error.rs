//! `WITH (on_error = 'null')`: what fails for a row is NULL there, and the query goes on.
//!
//! Every operator, cast and function of the plan that may fail becomes NULL in place of
//! an error ([`or_null`](crate::sql::functions::or_null)), before the optimizer sees it: what it
//! folds, moves or shares then has a value for every row, and batch answers and operators are of one plan. The types of all are
//! settled first, so that the casts which that needs are among them.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use crate::error::Error;
use crate::sql::functions::or_null::in_expression;
use crate::sql::pattern::MatchNode;
use crate::view::Nulled;

/// The plan, in which what fails is NULL.
pub fn as_null(plan: LogicalPlan, state: &SessionState, nulled: Option<&Arc<Nulled>>) -> DfResult<LogicalPlan> {
    let config = state.config_options();
    let plan = TypeCoercion::new().analyze(plan, config)?;
    let plan = plan.transform_up_with_subqueries(|node| {
        if MatchNode::of(&node).is_some() {
            let error = Error::unsupported("MATCH_RECOGNIZE is not supported in a query WITH (on_error = 'null')");
            return Err(error
                .with_hint("compute what may fail in a view WITH (on_error = 'null'), and look for patterns in it")
                .into());
        }
        let schema = merge_schema(&node.inputs());
        let node = node.map_expressions(|expr| in_expression(expr, &schema, config, nulled).map(Transformed::yes))?;
        // What is below may be NULL now.
        Ok(Transformed::yes(node.data.recompute_schema()?))
    })?;
    Ok(plan.data)
}
