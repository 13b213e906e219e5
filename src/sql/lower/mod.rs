//! Lowering: a logical plan as a graph of operators.
//!
//! One match over the plan's nodes. On the way up, every edge learns what is known of the changes that run over it
//! ([`Edge`]): whether rows are only added, by which columns they are told apart, which streams' watermarks bound their time.
//! From that follows what the operators above may do: judge lateness, close windows, drop state, give final rows.
//!
//! A shape that cannot run for ever is refused here, with the fragment and what to write instead.

mod aggregate;
mod constants;
mod explain;
mod grouping;
mod join;
mod join_time;
mod late;
mod linear;
mod narrow;
mod nearest;
mod over;
mod pattern;
mod rank;
mod refresh;
mod scan;
#[cfg(test)]
mod scripts;
mod session;
mod session_rows;
mod slices;
mod temporal;
mod timeout;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use crate::catalog::{Catalog, Emit, Relation, RelationId};
use crate::engine::Compiler;
use crate::error::{Error, Result};
use crate::flow::hold::Hold;
use crate::flow::{Edge, Fragment, Input, MAIN, Make, Node, Operator, TimeColumn};
use crate::sql::pattern::MatchNode;
use crate::sql::plan::Planner;
use crate::sql::plan::continuous::mentions_now;
use crate::sql::plan::final_rows::{FinalRows, final_rows};
use crate::sql::plan::nearest::NearestNode;
use crate::sql::plan::on_time::OnTimeNode;
use crate::sql::window::{Assignment, WindowNode, show_duration};
use crate::time::Micros;

use explain::shown;
use linear::{carry, column, project, union_edge};
use slices::BySlices;
use timeout::timeout;
use windows::{by_commit_time, window_schema};

pub use explain::explain;

/// Compiles views for the engine.
pub struct ViewCompiler {
    pub state: Arc<datafusion::execution::SessionState>,
}

impl Compiler for ViewCompiler {
    fn compile(&self, catalog: &Arc<Catalog>, view: &Relation) -> Result<Fragment> {
        let planner = Planner::new(Arc::clone(catalog), Arc::clone(&self.state)).for_query(&view.options, &view.name);
        lower(&planner, &planner.continuous_view(view)?, view.emit)
    }
}

/// The operators of an optimised continuous plan.
pub fn lower(planner: &Planner, plan: &LogicalPlan, emit: Emit) -> Result<Fragment> {
    let (emit, every, timeout) = match emit {
        Emit::Every(every) => (Emit::Changes, Some(every), None),
        Emit::FinalOrSilent(after) => (Emit::Final, None, Some(timeout(plan, after)?)),
        emit => (emit, None, None),
    };
    let mut lowering = Lowering {
        planner,
        emit,
        nodes: Vec::new(),
        late: Vec::new(),
        final_rows: false,
        // What a silence closes is windows, and groups of them.
        held: if emit == Emit::Final && timeout.is_none() { final_rows(plan) } else { None },
        by_slices: BySlices::default(),
        sliced: false,
        widths: BTreeMap::new(),
        text: plan.display_indent().to_string(),
    };
    lowering.note_widths(plan)?;
    let stream = lowering.lower(plan)?;
    // The rows of the view are of the view's own schema, nullability included.
    let mut stream = lowering.fit(stream, &arrow_schema(plan.schema()));
    if let Some(every) = every {
        stream = lowering.refreshed(stream, every);
    }
    if emit == Emit::Final && !lowering.final_rows {
        return Err(Error::invalid_object_definition("EMIT FINAL needs rows that become final, and this query has none")
            .with_hint(
                "read a stream with a WATERMARK, group by its time or by window_start and window_end of a TUMBLE or HOP over it, join \
                 such streams within a bound of time, or leave EMIT FINAL out",
            ));
    }
    let (late, late_schema) = lowering.late_inputs()?;
    let Lowering { nodes, widths, text, .. } = lowering;
    let nulled = planner.nulled().cloned();
    Ok(Fragment { nodes, output: stream.inputs, edge: stream.edge, late, late_schema, widths, timeout, text, nulled })
}

struct Lowering<'a> {
    planner: &'a Planner,
    emit: Emit,
    nodes: Vec<Node>,
    /// Outputs of late rows, and their columns.
    late: Vec<(Input, SchemaRef)>,
    /// Some operator gives rows only once they are final.
    final_rows: bool,
    /// The node whose rows are given once they are final.
    held: Option<FinalRows<'a>>,
    /// Who asked for the next window down can put windows together from slices.
    by_slices: BySlices,
    /// That window did as it was asked.
    sliced: bool,
    /// How many columns of a stream or table, as stored, the query knows of: of several scans, the widest.
    widths: BTreeMap<RelationId, usize>,
    /// The plan, and those of the views that are computed in place.
    text: String,
}

/// What a part of the plan has become: where its changes come from, and what is known of them.
#[derive(Clone)]
struct Lowered {
    inputs: Vec<Input>,
    edge: Edge,
}

impl Lowered {
    /// The same changes, for one more reader.
    fn again(&self) -> Lowered {
        Lowered { inputs: self.inputs.clone(), edge: self.edge.clone() }
    }
}

fn arrow_schema(schema: &DFSchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.as_arrow().fields().clone()))
}

fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::unsupported(what).with_hint(hint)
}

impl Lowering<'_> {
    fn lower(&mut self, plan: &LogicalPlan) -> Result<Lowered> {
        let lowered = self.lower_node(plan)?;
        Ok(self.held_back(lowered, plan))
    }

    fn lower_node(&mut self, plan: &LogicalPlan) -> Result<Lowered> {
        match plan {
            LogicalPlan::TableScan(scan) => match self.series(scan)? {
                Some(series) => Ok(series),
                None => self.scan(scan),
            },
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                self.project(input, &projection.expr, &projection.input, arrow_schema(&projection.schema))
            }
            LogicalPlan::Filter(filter) => match self.rank_filter(filter)? {
                Some(first_rows) => Ok(first_rows),
                None => {
                    let input = self.lower(&filter.input)?;
                    self.filter(input, &filter.predicate, filter.input.schema())
                }
            },
            LogicalPlan::Aggregate(aggregate) => {
                if let Some(sessions) = session::chain(&aggregate.input) {
                    return self.sessions(&sessions, aggregate);
                }
                self.by_slices = self.slicing(aggregate);
                let input = self.lower(&aggregate.input)?;
                self.aggregate(input, aggregate)
            }
            LogicalPlan::Union(union) => self.union(&union.inputs, arrow_schema(&union.schema)),
            LogicalPlan::Unnest(unnest) => {
                let input = self.lower(&unnest.input)?;
                self.unnest(input, unnest)
            }
            // A relation has no order: who reads the view asks for one.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.lower(&sort.input),
            LogicalPlan::Sort(sort) => self.sorted(&sort.expr, &sort.input, 0, sort.fetch.map_or(u64::MAX, |fetch| fetch as u64)),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Window(window) => {
                let input = self.lower(&window.input)?;
                self.over(input, window)
            }
            LogicalPlan::Values(values) => self.constants(&values.values, arrow_schema(&values.schema)),
            LogicalPlan::EmptyRelation(empty) => {
                let rows = vec![Vec::new(); usize::from(empty.produce_one_row)];
                self.constants(&rows, arrow_schema(&empty.schema))
            }
            LogicalPlan::Subquery(_) => {
                Err(unsupported("this subquery is not supported in a continuous query", "write it as its own view and read that"))
            }
            other => match (WindowNode::of(other), OnTimeNode::of(other), MatchNode::of(other)) {
                (Some(window), _, _) if matches!(window.assignment, Assignment::Session { .. }) => {
                    self.lower(&session_rows::from_groups(other, window)?)
                }
                (Some(window), _, _) => {
                    let by_slices = std::mem::take(&mut self.by_slices);
                    let input = self.lower(&window.input)?;
                    self.windows(input, window, by_slices)
                }
                (_, Some(node), _) => {
                    let input = self.lower(&node.input)?;
                    self.on_time(input, node)
                }
                (_, _, Some(node)) => {
                    let input = self.lower(&node.input)?;
                    self.matches(input, node)
                }
                _ if let Some(node) = NearestNode::of(other) => self.nearest(node),
                _ => Err(unsupported(
                    format!("{} is not supported in a continuous query", other.display()),
                    "compute it in the query that reads the view",
                )),
            },
        }
    }

    /// The rows of a node only once they are final, if that is where they are held, and the frontier bounds their time.
    fn held_back(&mut self, input: Lowered, node: &LogicalPlan) -> Lowered {
        let Some(&FinalRows { column: time, of_window, .. }) = self.held.as_ref().filter(|held| std::ptr::eq(held.node, node))
        else {
            return input;
        };
        let Some(TimeColumn { delay, .. }) = input.edge.times.iter().find(|known| known.column == time && known.hard).copied()
        else {
            return input;
        };
        self.final_rows = true;
        let schema = Arc::clone(&input.edge.schema);
        let name = schema.field(time).name();
        let by = if delay == 0 { String::new() } else { format!(" by {}", show_duration(delay)) };
        let label = format!("Hold: until the watermark passes {name}{by}");
        let edge = Edge { append_only: true, ..input.edge };
        let delay = delay - Micros::from(of_window);
        let make: Make = {
            let schema = Arc::clone(&schema);
            Box::new(move |shard| Ok(Box::new(Hold::new(Arc::clone(&schema), time, delay, shard)?) as Box<dyn Operator>))
        };
        self.add(label, "the rows that are not final".into(), input.inputs, make, None, edge)
    }

    fn add(
        &mut self,
        label: String,
        keeps: String,
        inputs: Vec<Input>,
        make: Make,
        exchange: Option<Vec<Vec<usize>>>,
        edge: Edge,
    ) -> Lowered {
        let inputs = inputs.into_iter().map(|input| (input, 0)).collect();
        self.nodes.push(Node { label, keeps, inputs, make, exchange, edge: edge.clone() });
        Lowered { inputs: vec![Input::Node { index: self.nodes.len() - 1, output: MAIN }], edge }
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        if mentions_now(expr) {
            return Err(temporal::refused(expr));
        }
        let physical = self.planner.physical(expr.clone(), schema).map_err(|error| match expr_has_subquery(expr) {
            true => unsupported("this subquery is not supported in a continuous query", "write it as its own view and read that"),
            false => error,
        })?;
        Ok(narrow::narrow(expr, physical, schema.fields().len())?)
    }
}

fn expr_has_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)))).unwrap_or(false)
}
