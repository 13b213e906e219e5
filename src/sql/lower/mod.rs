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
mod narrow;
mod nearest;
mod over;
mod pattern;
mod rank;
mod refresh;
#[cfg(test)]
mod scripts;
mod session;
mod slices;
mod temporal;
mod timeout;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_expr::PhysicalExpr;

use crate::catalog::{COMMIT_TIME, Catalog, Emit, Kind, Relation, RelationId};
use crate::engine::Compiler;
use crate::error::{Error, Result};
use crate::flow::graph::HIDDEN_COLUMNS;
use crate::flow::history::history_schema;
use crate::flow::hold::Hold;
use crate::flow::linear::{Filter, Project};
use crate::flow::unnest::{Source, Unnest};
use crate::flow::window::AssignWindows;
use crate::flow::{Edge, Fragment, Input, MAIN, Make, Node, Operator, TimeColumn, WINDOW_TIME, WindowColumns};
use crate::sql::pattern::MatchNode;
use crate::sql::plan::continuous::mentions_now;
use crate::sql::plan::event_time::{event_time, input_column, is_ingestion_time};
use crate::sql::plan::final_rows::{FinalRows, final_rows};
use crate::sql::plan::nearest::NearestNode;
use crate::sql::plan::on_time::OnTimeNode;
use crate::sql::plan::source::scan_columns;
use crate::sql::plan::{Hidden, Planner, RelationSource, SourceColumn};
use crate::sql::window::{Assignment, WindowNode, show_duration};
use crate::time::Micros;

use slices::BySlices;

pub use explain::explain;
use explain::shown;
use timeout::timeout;

/// Compiles views for the engine.
pub struct ViewCompiler {
    pub state: Arc<datafusion::execution::SessionState>,
}

impl Compiler for ViewCompiler {
    fn compile(&self, catalog: &Arc<Catalog>, view: &Relation) -> Result<Fragment> {
        let planner = Planner::new(Arc::clone(catalog), Arc::clone(&self.state));
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
    let all = lowering.nodes.iter().flat_map(|node| node.inputs.iter().map(|(input, _)| input)).chain(&stream.inputs);
    if all.into_iter().all(|input| matches!(input, Input::Node { .. })) {
        let what = "a continuous query cannot be made of constants alone";
        return Err(unsupported(what, "read FROM a stream, a table or a view"));
    }
    let (late, late_schema) = lowering.late_inputs()?;
    let Lowering { nodes, widths, .. } = lowering;
    Ok(Fragment { nodes, output: stream.inputs, edge: stream.edge, late, late_schema, widths, timeout })
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
            LogicalPlan::TableScan(scan) => self.scan(scan),
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

    fn scan(&mut self, scan: &TableScan) -> Result<Lowered> {
        let source = RelationSource::of(scan)
            .ok_or_else(|| Error::unsupported(format!("a continuous query cannot read {}", scan.table_name)))?;
        let relation = self.widest(source.relation());
        let columns = scan_columns(scan, source);
        let whole = match relation.kind {
            _ if source.is_history() => history(&relation),
            Kind::Stream => stream(&relation, columns.iter().any(|c| matches!(c, SourceColumn::Hidden(_)))),
            Kind::Table | Kind::Late => rows(&relation),
            Kind::MaterializedView => self.view(&relation)?,
            Kind::View | Kind::Query => return Err(Error::internal("a plain view was not replaced by its query")),
        };
        let user_columns = relation.columns.len();
        let skipped = usize::from(relation.has_row_id());
        let index = |column: &SourceColumn| match column {
            SourceColumn::User(index) => index + skipped,
            SourceColumn::Hidden(Hidden::RowId) => 0,
            SourceColumn::Hidden(hidden) if source.is_history() => {
                user_columns + source.hidden().iter().position(|h| h == hidden).expect("all are listed")
            }
            SourceColumn::Hidden(hidden) => user_columns + Hidden::ALL.iter().position(|h| h == hidden).expect("all are listed"),
        };
        let indices: Vec<usize> = columns.iter().map(index).collect();
        if let Some(filter) = scan.filters.first() {
            return Err(Error::internal(format!("the filter {filter} was pushed into a scan")));
        }
        Ok(self.pick(whole, &indices, arrow_schema(&scan.projected_schema)))
    }

    /// Before anything is lowered: what the scans of a plan know of their relations, those of linear views among them.
    fn note_widths(&mut self, plan: &LogicalPlan) -> Result<()> {
        for relation in RelationSource::all_in(plan) {
            match relation.kind {
                Kind::Stream | Kind::Table => {
                    let width = relation.stored_schema().fields().len();
                    let widest = self.widths.entry(relation.id).or_insert(width);
                    *widest = width.max(*widest);
                }
                Kind::MaterializedView => {
                    let view = self.widest(&relation);
                    let plan = self.planner.continuous_view(&view)?;
                    if view.emit == Emit::Changes && is_linear(&plan) {
                        self.note_widths(&plan)?;
                    }
                }
                Kind::View | Kind::Late | Kind::Query => {}
            }
        }
        Ok(())
    }

    /// A relation as its widest scan sees it; a view as it is.
    fn widest(&self, relation: &Arc<Relation>) -> Arc<Relation> {
        let Some(whole) = self.planner.catalog().get(relation.id) else { return Arc::clone(relation) };
        match self.widths.get(&relation.id) {
            Some(width) if *width < whole.stored_schema().fields().len() => {
                Arc::new(whole.narrowed(width - usize::from(whole.has_row_id())))
            }
            _ => Arc::clone(whole),
        }
    }

    /// The changes of a view's rows. A view that only selects from streams is computed again in place, because the watermark
    /// before each row's commit is known only on the way from the log.
    fn view(&mut self, view: &Arc<Relation>) -> Result<Lowered> {
        let plan = self.planner.continuous_view(view)?;
        if view.emit == Emit::Changes && is_linear(&plan) {
            let lowered = self.lower(&plan)?;
            return Ok(self.fit(lowered, &view.schema()));
        }
        let edge = lower(self.planner, &plan, view.emit)?.edge;
        Ok(Lowered { inputs: vec![Input::Relation(view.id)], edge: Edge { schema: view.schema(), ..edge } })
    }

    /// Some columns of the input, under the names of `schema`.
    fn pick(&mut self, input: Lowered, indices: &[usize], schema: SchemaRef) -> Lowered {
        let same = indices.iter().copied().eq(0..input.edge.schema.fields().len());
        if same {
            return self.fit(input, &schema);
        }
        let expressions: Vec<Arc<dyn PhysicalExpr>> = indices.iter().map(|index| column(&input.edge.schema, *index)).collect();
        let edge = carry(&input.edge, &indices.iter().copied().map(Some).collect::<Vec<_>>(), Arc::clone(&schema));
        let label = format!("Project: {}", names(&schema));
        self.add(label, String::new(), input.inputs, project(expressions, schema), None, edge)
    }

    /// The same changes under another schema of the same width; a node only if types or NULLs differ.
    fn fit(&mut self, input: Lowered, schema: &SchemaRef) -> Lowered {
        let same = |(a, b): (&Arc<arrow::datatypes::Field>, &Arc<arrow::datatypes::Field>)| {
            a.data_type() == b.data_type() && a.is_nullable() == b.is_nullable() && a.name() == b.name()
        };
        if input.edge.schema.fields().iter().zip(schema.fields()).all(same) {
            return input;
        }
        let width = schema.fields().len();
        let expressions = (0..width).map(|index| column(&input.edge.schema, index)).collect();
        let edge = carry(&input.edge, &(0..width).map(Some).collect::<Vec<_>>(), Arc::clone(schema));
        let label = format!("Project: {}", names(schema));
        self.add(label, String::new(), input.inputs, project(expressions, Arc::clone(schema)), None, edge)
    }

    fn project(&mut self, input: Lowered, exprs: &[Expr], plan: &LogicalPlan, schema: SchemaRef) -> Result<Lowered> {
        let expressions = exprs.iter().map(|e| self.physical(e, plan.schema())).collect::<Result<Vec<_>>>()?;
        let passed: Vec<Option<usize>> = exprs.iter().map(|e| input_column(e, plan)).collect();
        let edge = carry(&input.edge, &passed, Arc::clone(&schema));
        let label = format!("Project: {}", exprs.iter().map(shown).collect::<Vec<_>>().join(", "));
        Ok(self.add(label, String::new(), input.inputs, project(expressions, schema), None, edge))
    }

    fn filter(&mut self, input: Lowered, predicate: &Expr, schema: &DFSchema) -> Result<Lowered> {
        if mentions_now(predicate) {
            return self.temporal_filter(input, predicate, schema);
        }
        let physical = self.physical(predicate, schema)?;
        let make: Make = Box::new(move |_| Ok(Box::new(Filter { predicate: Arc::clone(&physical) }) as Box<dyn Operator>));
        let label = format!("Filter: {}", shown(predicate));
        Ok(self.add(label, String::new(), input.inputs, make, None, input.edge))
    }

    fn union(&mut self, plans: &[Arc<LogicalPlan>], schema: SchemaRef) -> Result<Lowered> {
        let mut inputs = Vec::new();
        let mut edge: Option<Edge> = None;
        for plan in plans {
            let part = self.lower(plan)?;
            let part = self.fit(part, &schema);
            inputs.extend(part.inputs);
            edge = Some(match edge {
                None => Edge { key: None, ..part.edge },
                Some(edge) => union_edge(edge, part.edge),
            });
        }
        let edge = edge.ok_or_else(|| Error::internal("a union of nothing"))?;
        Ok(Lowered { inputs, edge })
    }

    fn windows(&mut self, input: Lowered, window: &WindowNode, by_slices: BySlices) -> Result<Lowered> {
        let input = by_commit_time(input, window);
        let (time, delay) = self.closing(&input.edge, window)?;
        let schema = window_schema(&input.edge.schema, window);
        let width = input.edge.schema.fields().len();
        let Assignment::Clock(windows) = window.assignment else {
            return Err(unsupported(
                "rows of sessions are not supported in a continuous query, only groups of them",
                "GROUP BY window_start, window_end and the columns of PARTITION BY, or select rows in the query that reads",
            ));
        };
        let by_slices = !windows.is_tumbling() && by_slices.of(input.edge.append_only);
        self.sliced = by_slices;
        let longest = window.assignment.longest().unwrap_or_default();
        let bounds = delay.map(|delay| {
            let column = |column, delay| TimeColumn { column, delay, hard: true };
            [column(width, delay + longest), column(width + 1, delay), column(width + 2, delay + WINDOW_TIME)]
        });
        let times = input.edge.times.iter().copied().chain(bounds.into_iter().flatten()).collect();
        let columns = WindowColumns { start: Some(width), end: Some(width + 1), time: Some(width + 2), windows, delay };
        let edge = Edge { schema: Arc::clone(&schema), times, window: Some(columns), key: None, ..input.edge.clone() };
        let on = self.physical(&Expr::Column(window.time.clone()), window.input.schema())?;
        let made = Arc::clone(&schema);
        let make: Make = Box::new(move |_| {
            Ok(Box::new(AssignWindows {
                windows,
                by_slices,
                time: Arc::clone(&on),
                delay,
                schema: Arc::clone(&made),
                shared: None,
            }) as Box<dyn Operator>)
        });
        let closes = match delay {
            Some(0) => "closed by the watermark".to_string(),
            Some(delay) => format!("closed {} after the watermark", show_duration(delay)),
            None => "never closed".to_string(),
        };
        let each = match (windows.is_tumbling(), by_slices) {
            (true, _) => String::new(),
            (false, true) => format!(", in slices of {}", show_duration(windows.slices().size)),
            (false, false) => ", each row once per window".to_string(),
        };
        let label = format!("Window: {} on {}, {closes}{each}", window.describe(), window.time.name);
        let lowered = self.add(label, String::new(), input.inputs, make, None, edge);
        if time.is_some_and(|time| !time.hard) {
            self.late_from(&lowered);
        }
        Ok(lowered)
    }

    /// What is known of the time of a window's rows, and how long after its end, by the watermark, a window is closed.
    fn closing(&self, edge: &Edge, window: &WindowNode) -> Result<(Option<TimeColumn>, Option<i64>)> {
        let index = window.time_index();
        let time = edge.times.iter().find(|t| t.column == index).copied();
        // Rows that may be taken away again cannot be late one by one: only what is proven never to change any more closes.
        let time = time.filter(|t| t.hard || edge.append_only);
        if time.is_none() && event_time(&window.input, index).is_some_and(|time| !time.hard) {
            return Err(unsupported(
                "a time window over rows that come and go with now() is not supported in a continuous query",
                "compare window_end with now() instead of the time column: whole windows come and go then",
            ));
        }
        Ok((time, time.map(|t| t.delay + window.lateness)))
    }

    fn unnest(&mut self, input: Lowered, unnest: &datafusion::logical_expr::Unnest) -> Result<Lowered> {
        let mut sources = Vec::new();
        for (index, field) in unnest.input.schema().fields().iter().enumerate() {
            if unnest.struct_type_columns.contains(&index) {
                let arrow::datatypes::DataType::Struct(fields) = field.data_type() else {
                    return Err(Error::internal("a struct to unnest is none"));
                };
                sources.extend((0..fields.len()).map(|field| Source::Field { column: index, field }));
                continue;
            }
            let lists: Vec<_> = unnest.list_type_columns.iter().filter(|(at, _)| *at == index).collect();
            if lists.iter().any(|(_, list)| list.depth > 1) {
                return Err(unsupported(
                    "unnesting several levels at once is not supported in a continuous query",
                    "unnest level by level, in subqueries",
                ));
            }
            match lists.len() {
                0 => sources.push(Source::Repeat(index)),
                count => sources.extend(std::iter::repeat_n(Source::Elements(index), count)),
            }
        }
        let schema = arrow_schema(&unnest.schema);
        let passed: Vec<Option<usize>> =
            sources.iter().map(|s| if let Source::Repeat(index) = s { Some(*index) } else { None }).collect();
        let edge = Edge { key: None, ..carry(&input.edge, &passed, Arc::clone(&schema)) };
        let (keep_null, keep_empty) = (unnest.options.preserve_nulls(), unnest.options.expand_empty_as_null());
        let label = format!("Unnest: {}", unnest.exec_columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", "));
        let make: Make = Box::new(move |_| {
            let (sources, schema) = (sources.clone(), Arc::clone(&schema));
            Ok(Box::new(Unnest { sources, schema, keep_null, keep_empty }) as Box<dyn Operator>)
        });
        Ok(self.add(label, String::new(), input.inputs, make, None, edge))
    }
}

/// The rows of a stream as the log gives them.
fn stream(relation: &Relation, hidden: bool) -> Lowered {
    let schema = if hidden {
        let fields = HIDDEN_COLUMNS.map(|(name, t)| Arc::new(arrow::datatypes::Field::new(name, t, false)));
        Arc::new(Schema::new(relation.schema().fields().iter().cloned().chain(fields).collect::<Vec<_>>()))
    } else {
        relation.schema()
    };
    let times = relation.watermark.iter().map(|w| TimeColumn { column: w.column, delay: 0, hard: false }).collect();
    let sources = relation.watermark.iter().map(|_| relation.id).collect();
    let input = if hidden { Input::WithHidden(relation.id) } else { Input::Relation(relation.id) };
    Lowered { inputs: vec![input], edge: Edge { schema, append_only: true, key: None, sources, times, window: None } }
}

/// The input of a window on `_ingested_at`: its time passes with the commits.
fn by_commit_time(input: Lowered, window: &WindowNode) -> Lowered {
    let column = window.time_index();
    if !is_ingestion_time(&window.input, column) {
        return input;
    }
    let times = vec![TimeColumn { column, delay: 0, hard: true }];
    Lowered { edge: Edge { sources: vec![COMMIT_TIME], times, ..input.edge }, ..input }
}

/// The versions of a table's rows.
fn history(relation: &Relation) -> Lowered {
    let time = relation.watermark.as_ref().map(|watermark| watermark.column);
    let version = relation.columns.len();
    let times = time.iter().map(|_| TimeColumn { column: version, delay: 0, hard: false }).collect();
    let sources = time.iter().map(|_| relation.id).collect();
    let schema = history_schema(&relation.schema());
    let edge = Edge { schema, append_only: true, key: None, sources, times, window: None };
    Lowered { inputs: vec![Input::Versions { table: relation.id, time }], edge }
}

/// The changes of rows that are kept.
fn rows(relation: &Relation) -> Lowered {
    let append_only = relation.kind == Kind::Late;
    let key = (relation.kind == Kind::Table).then(|| relation.stored_key());
    let edge = Edge { schema: relation.stored_schema(), append_only, key, sources: Vec::new(), times: Vec::new(), window: None };
    Lowered { inputs: vec![Input::Relation(relation.id)], edge }
}

fn column(schema: &SchemaRef, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(datafusion::physical_expr::expressions::Column::new(schema.field(index).name(), index))
}

fn project(expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef) -> Make {
    Box::new(
        move |_| Ok(Box::new(Project { expressions: expressions.clone(), schema: Arc::clone(&schema) }) as Box<dyn Operator>),
    )
}

fn names(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// What is known of the input, said of columns that pass it on: `passed[i]` is the input's column that column `i` is.
fn carry(input: &Edge, passed: &[Option<usize>], schema: SchemaRef) -> Edge {
    let position = |column: usize| passed.iter().position(|p| *p == Some(column));
    let times = passed.iter().enumerate().filter_map(|(to, from)| {
        let time = input.times.iter().find(|t| Some(t.column) == *from)?;
        Some(TimeColumn { column: to, ..*time })
    });
    let key = input.key.as_ref().and_then(|key| key.iter().map(|column| position(*column)).collect());
    let window = input.window.map(|w| WindowColumns {
        start: w.start.and_then(position),
        end: w.end.and_then(position),
        time: w.time.and_then(position),
        ..w
    });
    let window = window.filter(|w| w.start.or(w.end).or(w.time).is_some());
    Edge { schema, append_only: input.append_only, key, sources: input.sources.clone(), times: times.collect(), window }
}

/// What holds of both inputs of a union.
fn union_edge(a: Edge, b: Edge) -> Edge {
    let both = |time: &TimeColumn| {
        let other = b.times.iter().find(|t| t.column == time.column)?;
        Some(TimeColumn { column: time.column, delay: time.delay.max(other.delay), hard: time.hard && other.hard })
    };
    // Without a watermark on one side, nothing is known of the time of both.
    let bounded = !a.sources.is_empty() && !b.sources.is_empty();
    let times = if bounded { a.times.iter().filter_map(both).collect() } else { Vec::new() };
    let mut sources = if bounded { [a.sources, b.sources].concat() } else { Vec::new() };
    sources.sort_unstable();
    sources.dedup();
    let window = match (a.window, b.window) {
        (Some(x), Some(y))
            if bounded && (x.start, x.end, x.time) == (y.start, y.end, y.time) && x.windows.agrees_with(&y.windows) =>
        {
            Some(WindowColumns { delay: x.delay.zip(y.delay).map(|(x, y)| x.max(y)), ..x })
        }
        _ => None,
    };
    Edge { schema: a.schema, append_only: a.append_only && b.append_only, key: None, sources, times, window }
}

fn window_schema(input: &SchemaRef, window: &WindowNode) -> SchemaRef {
    let bound = |name| Arc::new(arrow::datatypes::Field::new(name, window.time_type().clone(), false));
    let bounds = crate::sql::window::WINDOW_COLUMNS.map(bound);
    Arc::new(Schema::new(input.fields().iter().cloned().chain(bounds).collect::<Vec<_>>()))
}

/// Row by row from streams, through nothing that keeps state.
fn is_linear(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            RelationSource::of(scan).is_some_and(|s| matches!(s.relation().kind, Kind::Stream | Kind::MaterializedView))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().all(is_linear),
        _ => false,
    }
}

fn expr_has_subquery(expr: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expr.exists(|e| Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)))).unwrap_or(false)
}
