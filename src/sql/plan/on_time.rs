//! Joins with a bound on time see no late rows.
//!
//! Where a join bounds the distance between the event times of two streams both ways, a frontier proves of every row that it
//! meets no row to come, and the row need not be kept. That takes the frontier at its word: so a row that comes behind the
//! watermark, as it was before the row's commit, is late for such a join. It takes no part, and goes to `name$late`, as it does
//! at a window. An [`OnTimeNode`] on each side of the join says so in the plan, for the operators and for batch answers alike.
//!
//! MATCH_RECOGNIZE in the order of event time sees no late rows either, for the same reason: what the frontier has passed is
//! decided.
//!
//! A bound counts if both columns are event time, whether ON or, for an inner join, WHERE has it, or WITHIN ([`super::within`]).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, Result as DfResult};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, Filter, Join, LogicalPlan, UserDefinedLogicalNodeCore};

use super::event_time::event_time;
use super::marks::{self, Mark};
use super::nearest;
use super::time_bound::{bounds_of, merge, time_bounds};
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
            let input = cut(Arc::unwrap_or_clone(filter.input), &conditions)?;
            Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?))
        }
        LogicalPlan::Join(join) => cut_join(join, known),
        plan if MatchNode::of(&plan).is_some() => cut_match(plan),
        other => Ok(other.map_children(|child| cut(child, &[]).map(Transformed::yes))?.data),
    }
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
    let both_ways =
        merge(bounds).into_iter().filter(|(l, r, bound)| bound.least.is_some() && bound.greatest.is_some() && timed(*l, *r));
    let cut: Vec<(usize, usize)> = both_ways.map(|(l, r, _)| (l, r)).collect();
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
