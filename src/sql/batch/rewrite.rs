//! A plan over relations and windows becomes one that DataFusion can run.
//!
//! A window over a stream's event time leaves out the windows in which a row is late, and that is judged by the watermark
//! before the row's commit. So that watermark is carried from the stream to the window: the nodes between them, all of which
//! treat each row by itself (see [`event_time()`]), get one more column, always their last.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, NullHandling, Result as DfResult, ScalarValue, TableReference, UnnestOptions};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, TableScanBuilder, Union,
    WindowFunctionDefinition, cast, lit,
};

use super::Source;
use super::history::History;
use super::nearest::nearest;
use super::stream::{self, RowWatermark, WATERMARK};
use super::watermarks::Watermarks;
use crate::catalog::{Kind, RelationId};
use crate::error::{Error, Result};
use crate::sql::functions::instants::{Instant, Keep, WindowEnds};
use crate::sql::functions::sessions::SessionStart;
use crate::sql::plan::as_of::AsOfNode;
use crate::sql::plan::nearest::NearestNode;
use crate::sql::plan::on_time::OnTimeNode;
use crate::sql::plan::{Hidden, RelationSource, event_time, window_event_time};
use crate::sql::window::{Assignment, WINDOW_COLUMNS, WINDOW_TIME_BEFORE_END, WindowNode};
use crate::time::{Micros, NO_TIME, TIMESTAMP};
use crate::view::provider::ViewProvider;

/// Name of the column with the ends of a row's windows, before they have their own.
const ENDS: &str = "$ends";
/// The same of the start and the last time of a row's session.
const START: &str = "$start";
const LAST: &str = "$last";

/// The plan, reading the rows that its relations have at the snapshot's commit, or had at those of `history`.
pub fn over_snapshot(plan: LogicalPlan, source: &Source, history: &History, state: &SessionState) -> Result<LogicalPlan> {
    let at = |node: &AsOfNode| history.at(node, source, state);
    Ok(Rewrite { source, at: &at, past: false }.node(plan, None)?)
}

struct Rewrite<'a> {
    source: &'a Source,
    /// What is read below AS OF.
    at: &'a dyn Fn(&AsOfNode) -> Result<&'a Source>,
    /// `source` is one of those.
    past: bool,
}

/// Streams whose least watermark is to be carried along.
type Carried<'a> = Option<Watermark<'a>>;

#[derive(Clone, Copy)]
struct Watermark<'a> {
    streams: &'a [RelationId],
    /// The window for which silences count, too.
    timed: Option<&'a WindowNode>,
}

/// The watermark of the stream below such a window, with its silences.
pub(super) fn with_silences(window: &WindowNode, stream: RelationId, source: &Source) -> Result<Option<Watermarks>> {
    let Some(after) = window.timeout else { return Ok(None) };
    let delay = window_event_time(window).map_or(0, |time| time.delay).saturating_add(window.lateness);
    let end = |newest: Micros| match &window.assignment {
        Assignment::Clock(windows) => windows.bounds(newest).map(|(_, end)| end).max().unwrap_or(newest),
        Assignment::Session { gap, .. } => newest.saturating_add(*gap),
    };
    let reached = |newest: Micros| end(newest).saturating_add(delay);
    let (log, upto) = (source.log.reader(), source.snapshot.commit);
    Watermarks::with_silences(log.as_ref(), stream, after, upto, reached).map(Some)
}

impl Rewrite<'_> {
    fn node(&self, plan: LogicalPlan, carried: Carried) -> DfResult<LogicalPlan> {
        let plan = plan.map_subqueries(|subquery| self.node(subquery, None).map(Transformed::yes))?.data;
        if let Some(window) = WindowNode::of(&plan) {
            return self.window(window, carried);
        }
        if let Some(node) = OnTimeNode::of(&plan) {
            return self.on_time(node, carried);
        }
        if let Some(node) = AsOfNode::of(&plan) {
            let below = Rewrite { source: (self.at)(node)?, at: self.at, past: true };
            return below.node(node.input.as_ref().clone(), carried);
        }
        if let Some(node) = NearestNode::of(&plan).filter(|_| carried.is_none()) {
            let side = |side: &LogicalPlan| self.node(side.clone(), None);
            return nearest(node, side(&node.left)?, side(&node.right)?);
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, carried),
            other if carried.is_none() => {
                let over = other.map_children(|child| self.node(child, None).map(Transformed::yes))?;
                over.data.recompute_schema()
            }
            other => self.carry(other, carried),
        }
    }

    /// A node that treats each row by itself, with the watermark as one more column.
    fn carry(&self, plan: LogicalPlan, carried: Carried) -> DfResult<LogicalPlan> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(Arc::unwrap_or_clone(alias.input), carried)?;
                Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.node(Arc::unwrap_or_clone(filter.input), carried)?;
                Ok(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?))
            }
            // What is judged row by row has no order.
            LogicalPlan::Sort(sort) => self.node(Arc::unwrap_or_clone(sort.input), carried),
            LogicalPlan::Projection(projection) => {
                let input = self.node(Arc::unwrap_or_clone(projection.input), carried)?;
                let exprs = projection.expr.into_iter().chain([last_column(&input)]).collect();
                Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.node(Arc::unwrap_or_clone(unnest.input), carried)?;
                LogicalPlanBuilder::from(input).unnest_columns_with_options(unnest.exec_columns, unnest.options)?.build()
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.into_iter().map(|input| self.node(Arc::unwrap_or_clone(input), carried).map(Arc::new));
                Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs.collect::<DfResult<_>>()?)?))
            }
            other => Err(Error::internal(format!("no watermark passes {}", other.display())).into()),
        }
    }

    fn scan(&self, scan: TableScan, carried: Carried) -> DfResult<LogicalPlan> {
        let Some(of) = RelationSource::of(&scan) else { return Ok(LogicalPlan::TableScan(scan)) };
        let provider = self.rows_of(of, carried)?;
        let width = of.relation().columns.len() + of.hidden().len();
        let projection = scan.projection.map(|mut columns| {
            columns.extend(carried.map(|_| width));
            columns
        });
        let called = |name: TableReference| {
            TableScanBuilder::new(name, provider_as_source(provider))
                .with_projection(projection)
                .with_filters(scan.filters)
                .with_fetch(scan.fetch)
                .build()
        };
        if !self.past {
            return Ok(LogicalPlan::TableScan(called(scan.table_name)?));
        }
        // Two scans of one name are the same to the optimizer.
        let name = format!("{} at commit {}", scan.table_name, self.source.snapshot.commit);
        let rows = LogicalPlan::TableScan(called(TableReference::bare(name))?);
        Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(rows), scan.table_name)?))
    }

    fn rows_of(&self, of: &RelationSource, carried: Carried) -> Result<Arc<dyn TableProvider>> {
        let relation = of.relation();
        if relation.kind == Kind::Stream || of.is_history() {
            let watermark = carried.map(|carried| self.row_watermark(relation.id, carried)).transpose()?;
            return stream::provider(self.source, of, watermark);
        }
        let snapshot = &self.source.snapshot;
        match snapshot.versions.get(&relation.id) {
            Some(version) if of.hidden().contains(&Hidden::RowId) => {
                // The source has it behind the user's columns.
                let columns = (1..=relation.columns.len()).chain([0]).collect();
                let provider = ViewProvider::with_columns(Arc::clone(version), columns)?;
                Ok(Arc::new(provider.with_indexes(relation.stored_indexes())))
            }
            Some(version) => {
                // A view's query may know of fewer columns than the relation has by now.
                let first = usize::from(relation.has_row_id());
                let columns = (first..first + relation.columns.len()).collect();
                let provider = ViewProvider::with_columns(Arc::clone(version), columns)?;
                Ok(Arc::new(provider.with_indexes(relation.stored_indexes())))
            }
            None => match snapshot.failures.get(&relation.id) {
                Some(failure) => Err(failure.clone()),
                None => Err(Error::not_ready(format!("{} \"{}\" is still being built", relation.kind.noun(), relation.name))
                    .with_hint("try again in a moment")),
            },
        }
    }

    fn row_watermark(&self, stream: RelationId, Watermark { streams, timed }: Watermark) -> Result<RowWatermark> {
        if let Some(window) = timed
            && let Some(watermarks) = with_silences(window, stream, self.source)?
        {
            return Ok(RowWatermark::Of(Arc::new(watermarks)));
        }
        if streams == [stream] {
            return Ok(RowWatermark::Own);
        }
        let watermarks = Watermarks::read(self.source.log.reader().as_ref(), streams, self.source.snapshot.commit)?;
        Ok(RowWatermark::Of(Arc::new(watermarks)))
    }

    /// The rows that are not late, or those that are, by the watermark before each one's commit.
    fn on_time(&self, node: &OnTimeNode, carried: Carried) -> DfResult<LogicalPlan> {
        let time = event_time(&node.input, node.time_index());
        let Some(time) = time.filter(|time| !time.hard && carried.is_none()) else {
            return self.node(node.input.as_ref().clone(), carried);
        };
        let streams: Vec<RelationId> = time.streams.iter().map(|stream| stream.id).collect();
        let input = self.node(node.input.as_ref().clone(), Some(Watermark { streams: &streams, timed: None }))?;
        let (instant, watermark) = (cast(Expr::Column(node.time.clone()), DataType::Int64), last_column(&input));
        let instant = instant + lit(time.delay.saturating_add(node.grace));
        let wanted = if node.late { instant.lt(watermark) } else { instant.gt_eq(watermark) };
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.pop();
        LogicalPlanBuilder::from(input).filter(wanted)?.project(columns)?.build()
    }

    /// The window's columns by functions: an instant per row for tumbling windows, a list that is unnested for others.
    fn window(&self, node: &WindowNode, carried: Carried) -> DfResult<LogicalPlan> {
        let known = window_event_time(node);
        let streams: Option<Vec<RelationId>> =
            known.as_ref().filter(|time| !time.hard).map(|time| time.streams.iter().map(|stream| stream.id).collect());
        if let (Some(outer), Some(own)) = (carried, &streams)
            && outer.streams != own.as_slice()
        {
            let error =
                Error::unsupported("windows that are unioned with others and windowed again are not supported in a query");
            return Err(error.with_hint("read a materialized view of the inner windows").into());
        }
        // What is carried through the window is also what judges it.
        let timed = node.timeout.map(|_| node);
        let judged = carried.or(streams.as_deref().map(|streams| Watermark { streams, timed }));
        let input = self.node(node.input.as_ref().clone(), judged)?;

        let watermark = streams.is_some().then(|| last_column(&input));
        let delay = known.map_or(node.lateness, |time| time.delay.saturating_add(node.lateness));
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let end = || Expr::Column(Column::new_unqualified(ENDS));
        let (assigned, start) = match &node.assignment {
            Assignment::Clock(windows) => {
                let ends = WindowEnds::call(*windows, delay, node.keep, time_of(node), watermark);
                let with_ends = columns.iter().cloned().chain([ends.alias(ENDS)]);
                let assigned = LogicalPlanBuilder::from(input).project(with_ends.collect::<Vec<_>>())?;
                let assigned = if windows.is_tumbling() {
                    assigned.filter(end().is_not_null())?
                } else {
                    let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
                    assigned.unnest_column_with_options(Column::new_unqualified(ENDS), options)?
                };
                (assigned, Instant::start_of(*windows, end()))
            }
            Assignment::Session { gap, partition } => {
                (sessions(input, node, *gap, partition, delay, watermark)?, Expr::Column(Column::new_unqualified(START)))
            }
        };

        let tail = columns.split_off(node.input_columns());
        let bounds = [start, end(), Instant::shifted(-WINDOW_TIME_BEFORE_END, end())];
        for (name, bound) in WINDOW_COLUMNS.into_iter().zip(bounds) {
            let qualifier = node.qualifier().cloned();
            let bound = if *node.time_type() == TIMESTAMP { bound } else { cast(bound, node.time_type().clone()) };
            columns.push(bound.alias_qualified(qualifier, name));
        }
        columns.extend(tail.into_iter().filter(|_| carried.is_some()));
        assigned.project(columns)?.build()
    }
}

/// The time of a window's rows. Functions of windows know no time zones.
fn time_of(node: &WindowNode) -> Expr {
    let time = Expr::Column(node.time.clone());
    if *node.time_type() == TIMESTAMP { time } else { cast(time, TIMESTAMP) }
}

/// The rows that are in sessions, with [`START`] and [`ENDS`] behind their columns.
fn sessions(
    input: LogicalPlan,
    node: &WindowNode,
    gap: Micros,
    partition: &[Column],
    delay: Micros,
    watermark: Option<Expr>,
) -> DfResult<LogicalPlanBuilder> {
    let time = || time_of(node);
    let start = || Expr::Column(Column::new_unqualified(START));
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut by: Vec<Expr> = partition.iter().cloned().map(Expr::Column).collect();
    let late = node.keep == Keep::Late;
    let of_row = SessionStart::over(gap, delay, late, by.clone(), time(), watermark);
    let started = LogicalPlanBuilder::from(input).window([of_row.alias(START)])?.filter(start().is_not_null())?;
    let (with_last, last) = if late {
        // Alone: it is in no other's session.
        (started, time())
    } else {
        by.push(start());
        let mut last = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(max_udaf()), vec![time()]);
        last.params.partition_by = by;
        (started.window([Expr::from(last).alias(LAST)])?, Expr::Column(Column::new_unqualified(LAST)))
    };
    let end = Instant::shifted(gap, last);
    let ended = with_last.project(columns.into_iter().chain([start(), end.alias(ENDS)]).collect::<Vec<_>>())?;
    let Keep::Final(now) = node.keep else { return Ok(ended) };
    let closes = Instant::shifted(delay, Expr::Column(Column::new_unqualified(ENDS)));
    let closed = closes.lt_eq(lit(ScalarValue::TimestampMicrosecond(Some(now), None)));
    ended.filter(if now == NO_TIME { lit(false) } else { closed })
}

fn last_column(plan: &LogicalPlan) -> Expr {
    let schema = plan.schema();
    let last = schema.fields().len() - 1;
    debug_assert_eq!(schema.field(last).name(), WATERMARK, "the watermark is the last column");
    Expr::Column(Column::from(schema.qualified_field(last)))
}
