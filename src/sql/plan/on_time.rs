//! Joins with a bound on time see no late rows.
//!
//! Where a join bounds the distance between the event times of two streams both ways, a frontier proves of every row that it
//! meets no row to come, and the row need not be kept. That takes the frontier at its word: so a row that comes behind the
//! watermark, as it was before the row's commit, is late for such a join. It takes no part, and goes to `name$late`, as it does
//! at a window. An [`OnTimeNode`] on each side of the join says so in the plan, for the operators and for batch answers alike.
//!
//! MATCH_RECOGNIZE in the order of event time sees no late rows either, for the same reason: what the frontier has passed is
//! decided. Nor does EMIT FINAL over the rows of a stream ([`super::final_rows`]).
//!
//! A bound counts if both columns are event time, whether ON or, for an inner join, WHERE has it, or WITHIN ([`super::within`]).
//! EXISTS, NOT EXISTS and IN that WHERE demands are joins, too: a bound between a row and those of the subquery, in the
//! subquery's WHERE, cuts late rows on both sides.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, DataFusionError, JoinType, Result as DfResult};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Distinct, Expr, Extension, Filter, Join, LogicalPlan, Subquery, UserDefinedLogicalNodeCore};

use super::event_time::event_time;
use super::marks::{self, Mark};
use super::nearest;
use super::time_bound::{TimeBound, bounds_of, merge, time_bounds};
use super::{versions, within};
use crate::error::Error;
use crate::sql::pattern::MatchNode;
use crate::sql::window::show_duration;
use crate::time::Micros;

/// Lets the rows through that are not behind the watermark of a time column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct OnTimeNode {
    /// Of the input.
    pub time: Column,
    /// How far behind the watermark a row may be besides.
    pub grace: Micros,
    /// The other rows instead; only in batch answers.
    pub late: bool,
    pub input: Arc<LogicalPlan>,
}

impl OnTimeNode {
    /// The node, if the plan's root is one.
    pub fn of(plan: &LogicalPlan) -> Option<&OnTimeNode> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// Index of the time column.
    pub fn time_index(&self) -> usize {
        self.input.schema().index_of_column(&self.time).expect("the time column was found when the node was made")
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl UserDefinedLogicalNodeCore for OnTimeNode {
    fn name(&self) -> &str {
        "OnTime"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.time.clone())]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "OnTime: {}", self.time)?;
        if self.grace > 0 { write!(f, " grace={}", show_duration(self.grace)) } else { Ok(()) }
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(Expr::Column(time)), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return Err(Error::internal("a cut of late rows was rewritten without its input or its time column").into());
        };
        Ok(OnTimeNode { time, grace: self.grace, late: self.late, input: Arc::new(input) })
    }

    // Late rows are kept whole.
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

/// The plan with late rows cut before the joins that bound event time.
pub fn cut_late_rows(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    cut(plan, &[])
}

/// `known`: what holds of the plan's rows by conditions above it.
fn cut(plan: LogicalPlan, known: &[Expr]) -> DfResult<LogicalPlan> {
    let plan = plan.map_subqueries(|subquery| cut(subquery, &[]).map(Transformed::yes))?.data;
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut conditions = split_conjunction_owned(filter.predicate.clone());
            conditions.extend_from_slice(known);
            let mut input = Arc::new(cut(Arc::unwrap_or_clone(filter.input), &conditions)?);
            let demanded = split_conjunction_owned(filter.predicate).into_iter();
            let demanded: Vec<Expr> = demanded.map(|condition| cut_exists(condition, &mut input)).collect::<DfResult<_>>()?;
            let predicate = conjunction(demanded).ok_or_else(|| Error::internal("a filter without a condition"))?;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?))
        }
        LogicalPlan::Join(join) => cut_join(join, known),
        plan if MatchNode::of(&plan).is_some() => cut_match(plan),
        other => Ok(other.map_children(|child| cut(child, &[]).map(Transformed::yes))?.data),
    }
}

/// A condition on the rows of `outer`: if it asks whether the subquery has rows, as a join with these.
fn cut_exists(condition: Expr, outer: &mut Arc<LogicalPlan>) -> DfResult<Expr> {
    let mut cut = |subquery: Subquery| {
        let plan = cut_correlated(Arc::unwrap_or_clone(subquery.subquery), outer)?;
        Ok::<_, DataFusionError>(Subquery { subquery: Arc::new(plan), ..subquery })
    };
    Ok(match condition {
        Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists { subquery: cut(subquery)?, negated }),
        Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => {
            Expr::InSubquery(InSubquery { expr, subquery: cut(subquery)?, negated: false })
        }
        other => other,
    })
}

/// A subquery that refers to the rows of `outer` in its WHERE.
fn cut_correlated(plan: LogicalPlan, outer: &mut Arc<LogicalPlan>) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Distinct(Distinct::All(_)) => {
            Ok(plan.map_children(|child| cut_correlated(child, outer).map(Transformed::yes))?.data)
        }
        LogicalPlan::Filter(filter) => {
            let (left, right) = (outer.schema(), filter.input.schema());
            // A name of both is the subquery's: nothing is said of the other.
            let told_apart = left.columns().iter().all(|column| !right.has_column(column));
            let conditions = split_conjunction_owned(filter.predicate.clone()).into_iter().filter(|_| told_apart);
            let mut bounds = Vec::new();
            for condition in conditions {
                bounds.extend(bounds_of(&as_columns(condition)?, left, right));
            }
            let cut = both_ways(bounds, outer, &filter.input);
            let mut input = filter.input;
            for (l, r) in cut {
                *outer = on_time(Arc::clone(outer), l, 0);
                input = on_time(input, r, 0);
            }
            Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, input)?))
        }
        other => Ok(other),
    }
}

/// A condition of a subquery as one of a join.
fn as_columns(condition: Expr) -> DfResult<Expr> {
    let condition = condition.transform(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(condition.data)
}

/// Event times of two inputs that are bounded both ways.
fn both_ways(bounds: Vec<TimeBound>, left: &LogicalPlan, right: &LogicalPlan) -> Vec<(usize, usize)> {
    let both_ways = |(_, _, bound): &TimeBound| bound.least.is_some() && bound.greatest.is_some();
    let timed = |(l, r, _): &TimeBound| event_time(left, *l).is_some() && event_time(right, *r).is_some();
    let bounds = merge(bounds).into_iter();
    bounds.filter(|bound| both_ways(bound) && timed(bound)).map(|(l, r, _)| (l, r)).collect()
}

fn cut_match(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let plan = plan.map_children(|child| cut(child, &[]).map(Transformed::yes))?.data;
    let Some(node) = MatchNode::of(&plan) else { return Ok(plan) };
    let Some(time) = node.time_index() else { return Ok(plan) };
    let input = on_time(Arc::clone(&node.input), time, 0);
    Ok(node.clone().over(input).into_plan())
}

fn cut_join(mut join: Join, known: &[Expr]) -> DfResult<LogicalPlan> {
    let mark = marks::take(&mut join)?;
    let (inner, known) = match mark {
        // Conditions above speak of the rows that were found.
        Some(Mark::Nearest(_) | Mark::AsOf(_)) => (false, &[][..]),
        _ => (join.join_type == JoinType::Inner, known),
    };
    let mut below = if inner { join.filter.clone().map_or_else(Vec::new, split_conjunction_owned) } else { Vec::new() };
    below.extend_from_slice(known);
    let (to_left, to_right) = match join.join_type {
        JoinType::Inner => (&below[..], &below[..]),
        JoinType::Left => (known, &[][..]),
        JoinType::Right => (&[][..], known),
        _ => (&[][..], &[][..]),
    };
    join.left = Arc::new(cut(Arc::unwrap_or_clone(join.left), to_left)?);
    join.right = Arc::new(cut(Arc::unwrap_or_clone(join.right), to_right)?);

    let grace = match mark {
        None => 0,
        Some(Mark::Within { before, after, grace }) => within::bound(&mut join, before, after).map(|()| grace)?,
        Some(Mark::Nearest(comparison)) => return nearest::nearest(join, comparison),
        Some(Mark::AsOf(time)) => return versions::as_of(join, time),
    };
    let (left, right) = (&join.left, &join.right);
    let timed = |l: usize, r: usize| event_time(left, l).is_some() && event_time(right, r).is_some();
    let mut bounds = time_bounds(&join);
    let mut given = Vec::new();
    for condition in known.iter().filter(|_| inner) {
        let found = bounds_of(condition, left.schema(), right.schema());
        if found.iter().any(|(l, r, _)| timed(*l, *r)) {
            // Kept where those find it who look at the join alone.
            given.push(condition.clone());
            bounds.extend(found);
        }
    }
    let cut = both_ways(bounds, left, right);
    join.filter = conjunction(join.filter.into_iter().chain(given));
    for (l, r) in cut {
        join.left = on_time(join.left, l, grace);
        join.right = on_time(join.right, r, grace);
    }
    Ok(LogicalPlan::Join(join))
}

/// The input without rows that are late by this column, if rows can be.
pub(super) fn on_time(input: Arc<LogicalPlan>, column: usize, grace: Micros) -> Arc<LogicalPlan> {
    if event_time(&input, column).is_none_or(|time| time.hard) {
        return input;
    }
    let time = Column::from(input.schema().qualified_field(column));
    Arc::new(OnTimeNode { time, grace, late: false, input }.into_plan())
}
