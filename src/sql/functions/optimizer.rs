//! DataFusion's optimizer, without what it does wrong.
//!
//! | rule | what it does | here |
//! | --- | --- | --- |
//! | `extract_equijoin_predicate` | adds an equality of WHERE to the keys of a join that takes NULLs for equal, and so takes that equality's NULLs for equal, too | leaves such joins alone: the equality stays a condition |
//! | `eliminate_cross_join` | merges inner joins that take NULLs for equal with others that do not | leaves plans with such joins alone |
//! | `push_down_filter` | takes `a = 1 AND 1 = a` for false, and `1 > a` for no stricter than `a <= 1` | runs behind a rule of ours that puts constants last in the conditions of joins, as DataFusion does in filters |
//! | physical filters | take `f(a) = a` for two names of one order, and then put `f(a)` for the `a` in `f(a)`, too | are given `f(a) IS NOT DISTINCT FROM a AND a IS NOT NULL` by a last rule of ours |
//! | physical `FilterPushdown` | takes columns of both sides of an outer join that have one name for the same column | is left out: the logical plan has its filters where they belong |
//! | the second physical `ProjectionPushdown` | puts a projection below a filter that has one already, whose condition is then of other columns | is left out: the first finds no such filters |
//! | `single_distinct_aggregation_to_group_by` | sums sums, whose type is another one than that of a sum | is left out |

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result as DfResult};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, Join, LogicalPlan, Operator, lit};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::projection_pushdown::ProjectionPushdown;

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// The rules, in DataFusion's order.
pub fn rules() -> Vec<Rule> {
    let rules = Optimizer::new().rules.into_iter();
    let rules = rules.filter(|rule| rule.name() != SingleDistinctToGroupBy::new().name());
    let careful = rules.map(|rule| match rule.name() {
        name if name == ExtractEquijoinPredicate::new().name() => Careful::of(rule, has_null_keys),
        name if name == EliminateCrossJoin::new().name() => Careful::of(rule, has_inner_join_of_nulls),
        _ => rule,
    });
    let mut rules: Vec<Rule> = careful.collect();
    let pushdown = PushDownFilter::new();
    if let Some(at) = rules.iter().position(|rule| rule.name() == pushdown.name()) {
        rules.insert(at, Arc::new(ConstantsLast));
    }
    rules.push(Arc::new(OwnFunction));
    rules
}

/// `f(a) = a` in a filter, as a condition that says nothing of orders.
#[derive(Debug)]
struct OwnFunction;

impl OptimizerRule for OwnFunction {
    fn name(&self) -> &str {
        "own_function"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        if !split_conjunction(&filter.predicate).into_iter().any(is_own_function) {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let told = split_conjunction_owned(filter.predicate).into_iter().map(|condition| match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if shares_columns(&left, &right) => {
                let is_there = right.clone().is_not_null();
                Expr::BinaryExpr(BinaryExpr::new(left, Operator::IsNotDistinctFrom, right)).and(is_there)
            }
            other => other,
        });
        let predicate = conjunction(told).unwrap_or_else(|| lit(true));
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
    }
}

fn is_own_function(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if shares_columns(left, right))
}

fn shares_columns(a: &Expr, b: &Expr) -> bool {
    !a.column_refs().is_disjoint(&b.column_refs())
}

/// `1 = a` in the condition of a join is `a = 1`.
#[derive(Debug)]
struct ConstantsLast;

impl OptimizerRule for ConstantsLast {
    fn name(&self) -> &str {
        "constants_last"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(Join { filter: Some(filter), .. }) = &plan else { return Ok(Transformed::no(plan)) };
        let swapped = filter.clone().transform_up(|expr| match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if left.as_literal().is_some() && right.as_literal().is_none() => {
                Ok(match op.swap() {
                    Some(op) => Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right, op, left))),
                    None => Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right))),
                })
            }
            other => Ok(Transformed::no(other)),
        })?;
        if !swapped.transformed {
            return Ok(Transformed::no(plan));
        }
        let LogicalPlan::Join(join) = plan else { return Ok(Transformed::no(plan)) };
        Ok(Transformed::yes(LogicalPlan::Join(Join { filter: Some(swapped.data), ..join })))
    }
}

/// The rules for physical plans, in DataFusion's order.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let (filters, projections) = (FilterPushdown::new().name().to_string(), ProjectionPushdown::new().name().to_string());
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| !rule.name().starts_with(&filters));
    if let Some(first) = rules.iter().position(|rule| rule.name() == projections) {
        let mut later = rules.split_off(first + 1);
        later.retain(|rule| rule.name() != projections);
        rules.append(&mut later);
    }
    rules
}

/// A rule that is not applied to some plans.
#[derive(Debug)]
struct Careful {
    rule: Rule,
    spared: fn(&LogicalPlan) -> bool,
}

impl Careful {
    fn of(rule: Rule, spared: fn(&LogicalPlan) -> bool) -> Rule {
        Arc::new(Careful { rule, spared })
    }
}

impl OptimizerRule for Careful {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if (self.spared)(&plan) { Ok(Transformed::no(plan)) } else { self.rule.rewrite(plan, config) }
    }
}

fn has_null_keys(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if takes_nulls_for_equal(join))
}

fn takes_nulls_for_equal(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// This rule goes down through the plan by itself.
fn has_inner_join_of_nulls(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && takes_nulls_for_equal(join));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || visited.is_err()
}
