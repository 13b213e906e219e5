//! GROUP BY over SESSION: the window, what stands between, and the grouping are one operator, because a session's bounds change
//! with every row of it, and only its groups are worth giving again.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::aggregate::{cannot_be_final, label};
use super::{Lowered, Lowering, arrow_schema, column, shown, unsupported, window_schema};
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::flow::aggregate::GroupColumn;
use crate::flow::session::{Sessions, Spec, Step};
use crate::flow::{Edge, Make, Operator, TimeColumn, WINDOW_TIME};
use crate::sql::plan::event_time::input_column;
use crate::sql::window::{Assignment, WindowNode, show_duration};

/// What stands between a SESSION and the GROUP BY above it.
pub(super) struct Chain<'p> {
    window: &'p WindowNode,
    /// From the window up.
    between: Vec<&'p LogicalPlan>,
}

/// The window below a GROUP BY, if it is a SESSION and only row by row computations stand between.
pub(super) fn chain(plan: &LogicalPlan) -> Option<Chain<'_>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => chain(&alias.input),
        LogicalPlan::Projection(projection) => above(chain(&projection.input)?, plan),
        LogicalPlan::Filter(filter) => above(chain(&filter.input)?, plan),
        other => {
            let window = WindowNode::of(other).filter(|w| matches!(w.assignment, Assignment::Session { .. }))?;
            Some(Chain { window, between: Vec::new() })
        }
    }
}

fn above<'p>(mut chain: Chain<'p>, plan: &'p LogicalPlan) -> Option<Chain<'p>> {
    chain.between.push(plan);
    Some(chain)
}

/// Where a session's bounds and the columns that divide sessions are among the columns of a plan.
#[derive(Clone)]
pub(super) struct Places {
    pub bounds: [Option<usize>; 3],
    pub partition: Vec<Option<usize>>,
}

impl Places {
    pub fn through(&self, exprs: &[Expr], input: &LogicalPlan) -> Places {
        let passed: Vec<Option<usize>> = exprs.iter().map(|e| input_column(e, input)).collect();
        let place = |at: &Option<usize>| at.and_then(|at| passed.iter().position(|p| *p == Some(at)));
        Places { bounds: self.bounds.each_ref().map(place), partition: self.partition.iter().map(place).collect() }
    }

    fn is_bound(&self, at: usize) -> bool {
        self.bounds.contains(&Some(at))
    }

    /// It computes something of a bound.
    pub fn speaks_of_bounds(&self, expr: &Expr, plan: &LogicalPlan) -> bool {
        let columns = expr.column_refs();
        columns.into_iter().filter_map(|c| plan.schema().maybe_index_of_column(c)).any(|at| self.is_bound(at))
    }
}

fn of_bounds(expr: &Expr) -> Error {
    unsupported(
        format!("{} computes with the bounds of sessions that still change", shown(expr)),
        "group by window_start and window_end as they are, and compute in a view or query that reads this one",
    )
}

/// Keys other than the session, and what each group-by column is.
type Keys = (Vec<Arc<dyn PhysicalExpr>>, Vec<GroupColumn>);

impl Lowering<'_> {
    pub(super) fn sessions(&mut self, chain: &Chain, aggregate: &AggregatePlan) -> Result<Lowered> {
        let window = chain.window;
        let Assignment::Session { gap, .. } = window.assignment else {
            return Err(Error::internal("a window that is no session"));
        };
        let input = super::by_commit_time(self.lower(&window.input)?, window);
        let (width, wide) = (input.edge.schema.fields().len(), window_schema(&input.edge.schema, window));
        let (time, delay) = self.closing(&input.edge, window)?;
        let partition = window.partition();
        let at_window = Places {
            bounds: [0, 1, 2].map(|bound| Some(width + bound)),
            partition: partition.iter().copied().map(Some).collect(),
        };
        let (steps, places, above) = self.steps(chain, at_window, aggregate)?;
        let (keys, group_columns) = self.session_keys(aggregate, &places, window)?;
        if self.emit == Emit::Final && delay.is_none() {
            return Err(cannot_be_final(&input.edge, true));
        }
        self.final_rows |= self.emit == Emit::Final;
        let below = &aggregate.input;
        for expr in &aggregate.aggr_expr {
            if places.speaks_of_bounds(expr, below) {
                return Err(of_bounds(expr));
            }
        }
        let calls = aggregate.aggr_expr.iter().map(|e| self.call(e, below)).collect::<Result<Vec<_>>>()?;
        let schema = arrow_schema(&aggregate.schema);
        let edge = self.session_edge(&input.edge, delay, &group_columns, Arc::clone(&schema));
        let under = arrow_schema(below.schema());
        let key_types = keys.iter().map(|k| Ok(k.data_type(&under)?)).collect::<Result<_>>()?;
        let judges = time.is_some_and(|time| !time.hard);
        let spec = Spec {
            time: window.time_index(),
            partition: partition.clone(),
            gap,
            delay,
            judges,
            wide: Arc::clone(&wide),
            steps,
            keys,
            key_types,
            group_columns,
            calls,
            append_only: input.edge.append_only,
            emit: self.emit,
            schema,
        };
        let closes = match delay {
            Some(0) => "closed by the watermark".to_string(),
            Some(delay) => format!("closed {} after the watermark", show_duration(delay)),
            None => "never closed".to_string(),
        };
        let label = format!("Session: {} on {}, {closes}; {}", window.describe(), window.time.name, label(aggregate));
        let keeps = match delay {
            Some(_) => "the rows of each session, until the watermark passes its end by the gap",
            None => "the rows of each session, for ever: it grows with the number of rows",
        };
        let exchange = (!partition.is_empty()).then(|| vec![partition]);
        let make: Make = Box::new(move |shard| Ok(Box::new(Sessions::new(spec.clone(), shard)?) as Box<dyn Operator>));
        let lowered = self.add(label, keeps.into(), input.inputs, make, exchange, edge);
        if judges {
            self.late_of_schema(&lowered, wide);
        }
        above.into_iter().try_fold(lowered, |lowered, predicate| self.filter(lowered, &predicate, &aggregate.schema))
    }

    /// The computations between, where bounds and partition end up, and conditions on whole groups, which go above the GROUP BY.
    fn steps(&self, chain: &Chain, mut places: Places, aggregate: &AggregatePlan) -> Result<(Vec<Step>, Places, Vec<Expr>)> {
        let (mut steps, mut above) = (Vec::new(), Vec::new());
        for (level, plan) in chain.between.iter().enumerate() {
            match plan {
                LogicalPlan::Filter(filter) => {
                    for predicate in split_conjunction(&filter.predicate) {
                        if places.speaks_of_bounds(predicate, &filter.input) {
                            above.push(lift(predicate, &filter.input, &chain.between[level + 1..], aggregate)?);
                        } else {
                            steps.push(Step::Filter(self.physical(predicate, filter.input.schema())?));
                        }
                    }
                }
                LogicalPlan::Projection(projection) => {
                    let computes =
                        |e: &&Expr| input_column(e, &projection.input).is_none() && places.speaks_of_bounds(e, &projection.input);
                    if let Some(expr) = projection.expr.iter().find(computes) {
                        return Err(of_bounds(expr));
                    }
                    let schema = projection.input.schema();
                    let exprs = projection.expr.iter().map(|e| self.physical(e, schema)).collect::<Result<Vec<_>>>()?;
                    steps.push(Step::Project(exprs, arrow_schema(&projection.schema)));
                    places = places.through(&projection.expr, &projection.input);
                }
                other => return Err(Error::internal(format!("{} between a session and its groups", other.display()))),
            }
        }
        Ok((steps, places, above))
    }

    fn session_keys(&self, aggregate: &AggregatePlan, places: &Places, window: &WindowNode) -> Result<Keys> {
        let below = &aggregate.input;
        let (mut keys, mut group_columns, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for expr in &aggregate.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                let hint = "make one view per grouping and UNION ALL them";
                return Err(unsupported("GROUPING SETS, ROLLUP and CUBE over sessions are not supported", hint));
            }
            let position = input_column(expr, below);
            let bound = position.and_then(|at| places.bounds.iter().position(|bound| *bound == Some(at)));
            if let Some(bound) = bound {
                group_columns.push([GroupColumn::WindowStart, GroupColumn::WindowEnd, GroupColumn::WindowTime][bound]);
                continue;
            }
            if places.speaks_of_bounds(expr, below) {
                return Err(of_bounds(expr));
            }
            found.extend(position);
            group_columns.push(GroupColumn::Key(keys.len()));
            keys.push(match position {
                Some(at) => column(&arrow_schema(below.schema()), at),
                None => self.physical(expr, below.schema())?,
            });
        }
        if group_columns.iter().all(|c| matches!(c, GroupColumn::Key(_))) {
            return Err(unsupported(
                "groups across sessions are not supported in a continuous query",
                "add window_start and window_end to GROUP BY, and group further in a view that reads this one",
            ));
        }
        for (place, column) in places.partition.iter().zip(window.partition()) {
            if !place.is_some_and(|place| found.contains(&place)) {
                let name = window.input.schema().field(column).name();
                let error = format!("sessions are made by \"{name}\", so it must be among the keys of GROUP BY");
                return Err(unsupported(
                    error,
                    format!("add {name} to GROUP BY, and group further in a view that reads this one"),
                ));
            }
        }
        Ok((keys, group_columns))
    }

    fn session_edge(&self, input: &Edge, delay: Option<i64>, columns: &[GroupColumn], schema: SchemaRef) -> Edge {
        let bounds = [(GroupColumn::WindowEnd, 0), (GroupColumn::WindowTime, WINDOW_TIME)];
        let times: Vec<TimeColumn> = bounds
            .into_iter()
            .filter_map(|(bound, before_end)| {
                let column = columns.iter().position(|c| *c == bound)?;
                Some(TimeColumn { column, delay: delay? + before_end, hard: true })
            })
            .collect();
        Edge {
            schema,
            append_only: self.emit == Emit::Final,
            key: Some((0..columns.len()).collect()),
            sources: input.sources.clone(),
            times,
            window: None,
        }
    }
}

/// A condition that only speaks of what is grouped by, as one on the groups.
fn lift(predicate: &Expr, plan: &LogicalPlan, between: &[&LogicalPlan], aggregate: &AggregatePlan) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let place = |at: usize| -> Option<usize> {
        let mut at = at;
        for plan in between {
            if let LogicalPlan::Projection(projection) = plan {
                at = projection.expr.iter().position(|e| input_column(e, &projection.input) == Some(at))?;
            }
        }
        aggregate.group_expr.iter().position(|e| input_column(e, &aggregate.input) == Some(at))
    };
    let lifted = predicate.clone().transform(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let group = plan.schema().maybe_index_of_column(column).and_then(place);
        let group = group.ok_or_else(|| of_bounds(predicate))?;
        Ok(Transformed::yes(Expr::Column(datafusion::common::Column::from(aggregate.schema.qualified_field(group)))))
    })?;
    Ok(lifted.data)
}
