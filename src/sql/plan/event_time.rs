//! Which watermark speaks of a column, and what does it say?
//!
//! A stream's watermark speaks of its event-time column while that stands for the same rows: renamed, filtered, projected,
//! unioned, unnested. It also speaks of a window's bounds, and more firmly: no row comes behind it, because such rows were late
//! in that window and are gone; so those go on to be known through a GROUP BY, and those of a match through MATCH_RECOGNIZE with
//! WITHIN. A join passes on what is so firmly known of a side, if it bounds the distance to a time of the other
//! ([`crate::flow::join::Bound`]).

use std::sync::{Arc, LazyLock};

use datafusion::common::JoinType;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan};

use super::as_of::{AsOfNode, Unit};
use super::nearest::NearestNode;
use super::on_time::OnTimeNode;
use super::source::{Hidden, RelationSource, SourceColumn, scan_columns};
use super::time_bound::{TimeBound, time_bounds};
use crate::catalog::{COMMIT_TIME, Kind, Relation};
use crate::sql::pattern::MatchNode;
use crate::sql::window::{WINDOW_TIME_BEFORE_END, WindowNode};
use crate::time::Micros;

/// What is known of the times in a column: rows that come are at or after `watermark - delay`, where the watermark is the least
/// of the streams'.
#[derive(Clone, Debug)]
pub struct EventTime {
    pub streams: Vec<Arc<Relation>>,
    pub delay: Micros,
    /// No row breaks it. Otherwise a row may, and is late in the windows that it is too late for.
    pub hard: bool,
}

/// What a watermark says of a column of the plan's output; `None` if none speaks of it, or not of all its rows.
pub fn event_time(plan: &LogicalPlan, column: usize) -> Option<EventTime> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = RelationSource::of(scan)?;
            let relation = source.relation();
            let watermark = relation.watermark.as_ref()?;
            let speaks = match *scan_columns(scan, source).get(column)? {
                SourceColumn::User(index) => relation.kind == Kind::Stream && watermark.column == index,
                SourceColumn::Hidden(hidden) => hidden == Hidden::Version,
            };
            speaks.then(|| EventTime { streams: vec![Arc::clone(relation)], delay: 0, hard: false })
        }
        LogicalPlan::SubqueryAlias(alias) => event_time(&alias.input, column),
        LogicalPlan::Filter(filter) => event_time(&filter.input, column),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => event_time(&sort.input, column),
        LogicalPlan::Projection(projection) => {
            event_time(&projection.input, input_column(projection.expr.get(column)?, &projection.input)?)
        }
        LogicalPlan::Unnest(unnest) => event_time(&unnest.input, *unnest.dependency_indices.get(column)?),
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.iter().map(|input| event_time(input, column)).collect::<Option<Vec<_>>>()?;
            inputs.into_iter().reduce(EventTime::of_both)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let group = input_column(group_keys(aggregate).get(column)?, &aggregate.input)?;
            event_time(&aggregate.input, group).filter(|time| time.hard)
        }
        // The input's columns come first. A later row may change former ones, except where their time says that none comes.
        LogicalPlan::Window(window) => event_time(&window.input, column).filter(|time| time.hard),
        LogicalPlan::Join(join) => join_time(join, column),
        other if let Some(node) = AsOfNode::of(other) => {
            // What is shown with a delay comes later than the watermark says.
            if node.unit == Unit::Refresh { None } else { event_time(&node.input, column) }
        }
        other => match OnTimeNode::of(other) {
            Some(node) => {
                let time = event_time(&node.input, column)?;
                let judged = column == node.time_index() && !time.hard;
                let delay = time.delay.saturating_add(if judged { node.grace } else { 0 });
                Some(EventTime { hard: time.hard || judged, delay, ..time })
            }
            None => match (MatchNode::of(other), NearestNode::of(other)) {
                (Some(node), _) => match_time(node, column),
                (_, Some(node)) => node_time(node, column),
                _ => window_time(WindowNode::of(other)?, column),
            },
        },
    }
}

/// Which watermark speaks of the column that a window is on: that of its event time, or, of `_ingested_at`, the time of the last
/// commit. No row is late for the latter.
pub fn window_event_time(node: &WindowNode) -> Option<EventTime> {
    if is_ingestion_time(&node.input, node.time_index()) {
        return Some(EventTime { streams: vec![Arc::clone(&COMMIT_CLOCK)], delay: 0, hard: true });
    }
    event_time(&node.input, node.time_index())
}

/// Commit time, as something that has a watermark.
static COMMIT_CLOCK: LazyLock<Arc<Relation>> =
    LazyLock::new(|| Arc::new(Relation::new(COMMIT_TIME, "commit time", Kind::Stream, Vec::new())));

/// Whether a column is the time of each row's commit, whatever its name has become.
pub fn is_ingestion_time(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => RelationSource::of(scan)
            .is_some_and(|source| scan_columns(scan, source).get(column) == Some(&SourceColumn::Hidden(Hidden::IngestedAt))),
        LogicalPlan::SubqueryAlias(alias) => is_ingestion_time(&alias.input, column),
        LogicalPlan::Filter(filter) => is_ingestion_time(&filter.input, column),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => is_ingestion_time(&sort.input, column),
        LogicalPlan::Projection(projection) => {
            let input = projection.expr.get(column).and_then(|expr| input_column(expr, &projection.input));
            input.is_some_and(|input| is_ingestion_time(&projection.input, input))
        }
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| is_ingestion_time(input, column)),
        _ => false,
    }
}

fn join_time(join: &Join, column: usize) -> Option<EventTime> {
    Sides { join_type: join.join_type, left: &join.left, right: &join.right, bounds: time_bounds(join) }.time(column)
}

fn node_time(node: &NearestNode, column: usize) -> Option<EventTime> {
    if node.by_commit {
        // Rows come when those of the left do, and stay.
        let of_left = column < node.left.schema().fields().len();
        return of_left.then(|| event_time(&node.left, column))?.filter(|time| time.hard);
    }
    let [left, right] = node.time_indices();
    let bounds = vec![(left, right, node.bound())];
    Sides { join_type: node.join_type(), left: &node.left, right: &node.right, bounds }.time(column)
}

/// A join of any kind, as far as its times go.
struct Sides<'a> {
    join_type: JoinType,
    left: &'a LogicalPlan,
    right: &'a LogicalPlan,
    bounds: Vec<TimeBound>,
}

impl Sides<'_> {
    /// A time of a side whose rows are all there, NULLs of an outer join not among them, while rows of the other side still come.
    fn time(&self, column: usize) -> Option<EventTime> {
        let width = self.left.schema().fields().len();
        let of_left = match self.join_type {
            JoinType::Inner => column < width,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
            JoinType::Full => return None,
        };
        let skipped = if of_left || !matches!(self.join_type, JoinType::Inner | JoinType::Right) { 0 } else { width };
        let side = if of_left { self.left } else { self.right };
        let index = column.checked_sub(skipped).filter(|index| *index < side.schema().fields().len())?;
        event_time(side, index).filter(|time| time.hard)?;
        let mut found: Option<EventTime> = None;
        for &(l, r, bound) in &self.bounds {
            let hard = |time: &EventTime| time.hard;
            let (Some(left), Some(right)) = (event_time(self.left, l).filter(hard), event_time(self.right, r).filter(hard))
            else {
                continue;
            };
            let [left_reach, right_reach] = bound.reach([left.delay, right.delay]);
            let (reach, at) = if of_left { (left_reach, l) } else { (right_reach, r) };
            let Some((reach, distance)) = reach.zip(distance(side, at, index)) else { continue };
            let time = EventTime { delay: reach.saturating_sub(distance), ..EventTime::of_both(left, right) };
            if found.as_ref().is_none_or(|known| time.delay < known.delay) {
                found = Some(time);
            }
        }
        found
    }
}

/// How far column `b` is always after column `a`: bounds of one window are.
fn distance(plan: &LogicalPlan, a: usize, b: usize) -> Option<Micros> {
    if a == b {
        return Some(0);
    }
    match plan {
        LogicalPlan::SubqueryAlias(alias) => distance(&alias.input, a, b),
        LogicalPlan::Filter(filter) => distance(&filter.input, a, b),
        LogicalPlan::Projection(projection) => {
            let passed = |column: usize| input_column(projection.expr.get(column)?, &projection.input);
            distance(&projection.input, passed(a)?, passed(b)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let group = |column: usize| input_column(group_keys(aggregate).get(column)?, &aggregate.input);
            distance(&aggregate.input, group(a)?, group(b)?)
        }
        LogicalPlan::Join(join) if !matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark) => {
            let width = join.left.schema().fields().len();
            match (a.checked_sub(width), b.checked_sub(width)) {
                (None, None) => distance(&join.left, a, b),
                (Some(a), Some(b)) => distance(&join.right, a, b),
                _ => None,
            }
        }
        other if let Some(node) = NearestNode::of(other) => {
            let width = node.left.schema().fields().len();
            (a < width && b < width).then(|| distance(&node.left, a, b))?
        }
        other => match (OnTimeNode::of(other), WindowNode::of(other)) {
            (Some(node), _) => distance(&node.input, a, b),
            (_, Some(node)) => {
                let before_end = [node.assignment.length(), Some(0), Some(WINDOW_TIME_BEFORE_END)];
                match (a.checked_sub(node.input_columns()), b.checked_sub(node.input_columns())) {
                    (Some(a), Some(b)) => Some((*before_end.get(a)?)? - (*before_end.get(b)?)?),
                    (None, None) => distance(&node.input, a, b),
                    _ => None,
                }
            }
            _ => None,
        },
    }
}

/// A match that may still change begins so long before the frontier at most as it may last.
fn match_time(node: &MatchNode, column: usize) -> Option<EventTime> {
    let (times, within) = node.times()?;
    let time = event_time(&node.input, node.time_index()?).filter(|time| time.hard && times.contains(&column))?;
    Some(EventTime { delay: time.delay.checked_add(within)?, ..time })
}

fn window_time(node: &WindowNode, column: usize) -> Option<EventTime> {
    let Some(bound) = column.checked_sub(node.input_columns()) else { return event_time(&node.input, column) };
    let time = window_event_time(node)?;
    // An open window ends after `watermark - delay`.
    let before_end = [node.assignment.longest(), Some(0), Some(WINDOW_TIME_BEFORE_END)];
    let delay = time.delay.checked_add(node.lateness)?.checked_add((*before_end.get(bound)?)?)?;
    Some(EventTime { delay, hard: true, ..time })
}

impl EventTime {
    fn of_both(mut self, other: EventTime) -> EventTime {
        for stream in other.streams {
            if !self.streams.iter().any(|known| known.id == stream.id) {
                self.streams.push(stream);
            }
        }
        EventTime { streams: self.streams, delay: self.delay.max(other.delay), hard: self.hard && other.hard }
    }
}

/// The keys behind the columns of groups: one that is written twice is one column.
pub fn group_keys(aggregate: &Aggregate) -> Vec<&Expr> {
    let mut keys = Vec::with_capacity(aggregate.group_expr.len());
    for key in &aggregate.group_expr {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The input's column that an expression passes on unchanged.
pub fn input_column(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.schema().maybe_index_of_column(column),
        Expr::Alias(alias) => input_column(&alias.expr, input),
        Expr::Cast(cast) => {
            let index = input_column(&cast.expr, input)?;
            (input.schema().field(index).data_type() == cast.field.data_type()).then_some(index)
        }
        _ => None,
    }
}
