//! Which GROUP BY can put its windows together from slices ([`crate::flow::aggregate::sliced`]).
//!
//! It must group by the window as it is; what stands between must pass the window's bounds on and compute nothing of them, since
//! below they are the bounds of slices; and what its aggregates remember must add up.

use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};

use super::Lowering;
use super::session::Places;
use crate::sql::plan::event_time::input_column;
use crate::sql::window::{Assignment, WindowNode};
use crate::time::window::Windows;

/// Whether windows may be cut into slices, if rows of the input are only added, and if they are also taken away.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BySlices {
    append_only: bool,
    updates: bool,
}

impl BySlices {
    pub fn of(self, append_only: bool) -> bool {
        if append_only { self.append_only } else { self.updates }
    }
}

impl Lowering<'_> {
    pub(super) fn slicing(&self, aggregate: &AggregatePlan) -> BySlices {
        let Some((windows, places)) = bounds_below(&aggregate.input) else { return BySlices::default() };
        let below = &aggregate.input;
        let mut named = false;
        for expr in &aggregate.group_expr {
            let bound = input_column(expr, below).and_then(|at| places.bounds.iter().position(|b| *b == Some(at)));
            match bound {
                // A start is not enough where several windows have it.
                Some(bound) => named |= bound > 0 || windows.end_of(0).is_some(),
                None if matches!(expr, Expr::GroupingSet(_)) || places.speaks_of_bounds(expr, below) => {
                    return BySlices::default();
                }
                None => {}
            }
        }
        let calls: Option<Vec<_>> = aggregate.aggr_expr.iter().map(|e| self.call(e, below).ok()).collect();
        let Some(calls) = calls.filter(|_| named) else { return BySlices::default() };
        if aggregate.aggr_expr.iter().any(|e| places.speaks_of_bounds(e, below)) {
            return BySlices::default();
        }
        let adds_up = |append_only| calls.iter().all(|call| call.adds_up(append_only));
        BySlices { append_only: adds_up(true), updates: adds_up(false) }
    }
}

/// Where the bounds of the overlapping windows below are, if nothing computes with them on the way.
fn bounds_below(plan: &LogicalPlan) -> Option<(Windows, Places)> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => bounds_below(&alias.input),
        LogicalPlan::Filter(filter) => {
            bounds_below(&filter.input).filter(|(_, places)| !places.speaks_of_bounds(&filter.predicate, &filter.input))
        }
        LogicalPlan::Projection(projection) => {
            let (windows, places) = bounds_below(&projection.input)?;
            let computes =
                |e: &Expr| input_column(e, &projection.input).is_none() && places.speaks_of_bounds(e, &projection.input);
            let passed = !projection.expr.iter().any(computes);
            passed.then(|| (windows, places.through(&projection.expr, &projection.input)))
        }
        other => {
            let window = WindowNode::of(other)?;
            let Assignment::Clock(windows) = &window.assignment else { return None };
            let width = window.input_columns();
            let places = Places { bounds: [0, 1, 2].map(|bound| Some(width + bound)), partition: Vec::new() };
            (!windows.is_tumbling()).then_some((*windows, places))
        }
    }
}
