//! GROUP BY: which of the group's columns are the window, which the key, and what closes a group.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;

use super::narrow::narrow;
use super::{Lowered, Lowering, arrow_schema, column, project, shown};
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::flow::aggregate::accumulate::Call;
use crate::flow::aggregate::sliced::Sliced;
use crate::flow::aggregate::{Aggregate, Bound, GroupColumn, Spec, WindowKey};
use crate::flow::{Edge, Make, Operator, TimeColumn, WINDOW_TIME, WindowColumns};
use crate::sql::plan::event_time::input_column;
use crate::sql::window::{Assignment, show_duration};

/// The input, with computed keys behind its columns; the keys; and what each group-by column of the output is.
type Grouping = (Lowered, Vec<Arc<dyn PhysicalExpr>>, Vec<GroupColumn>);

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, input: Lowered, aggregate: &AggregatePlan) -> Result<Lowered> {
        if let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(&input, aggregate, set);
        }
        let sliced = std::mem::take(&mut self.sliced);
        let window = window_key(&input.edge, aggregate);
        let (input, keys, group_columns) = self.group_keys(input, aggregate, window.is_some())?;
        let emit = self.emit;
        if emit == Emit::Final && window.and_then(|w| w.delay).is_none() {
            return Err(cannot_be_final(&input.edge, window.is_some()));
        }
        self.final_rows |= emit == Emit::Final;
        let calls = aggregate.aggr_expr.iter().map(|e| self.call(e, &aggregate.input)).collect::<Result<Vec<_>>>()?;
        let schema = arrow_schema(&aggregate.schema);
        let edge = output_edge(&input.edge, window, &group_columns, emit, Arc::clone(&schema));
        let spec = Spec {
            key_types: keys.iter().map(|k| Ok(k.data_type(&input.edge.schema)?)).collect::<Result<_>>()?,
            keys: keys.clone(),
            group_columns,
            window,
            calls,
            append_only: input.edge.append_only,
            emit,
            global: aggregate.group_expr.is_empty(),
            schema,
        };
        let label = label(aggregate);
        let keeps = match (sliced, emit) {
            (true, Emit::Final) => keeps(&spec).replacen("one row per group", "one row per group and slice", 1),
            _ => keeps(&spec),
        };
        let columns: Vec<usize> = keys
            .iter()
            .filter_map(|k| k.downcast_ref::<datafusion::physical_expr::expressions::Column>())
            .map(|c| c.index())
            .collect();
        let exchange = (!keys.is_empty() && columns.len() == keys.len()).then(|| vec![columns]);
        if sliced && !Sliced::supports(&spec) {
            return Err(Error::internal("windows were cut into slices that nobody puts together"));
        }
        let make: Make = Box::new(move |shard| -> Result<Box<dyn Operator>> {
            Ok(if sliced { Box::new(Sliced::new(spec.clone(), shard)?) } else { Box::new(Aggregate::new(spec.clone(), shard)?) })
        });
        Ok(self.add(label, keeps, input.inputs, make, exchange, edge))
    }

    /// The keys that are not the window's, as columns of the input; computed ones are put behind it first.
    fn group_keys(&mut self, input: Lowered, aggregate: &AggregatePlan, by_window: bool) -> Result<Grouping> {
        let plan = &aggregate.input;
        let width = input.edge.schema.fields().len();
        let mut computed: Vec<(Arc<dyn PhysicalExpr>, arrow::datatypes::Field)> = Vec::new();
        let (mut keys, mut group_columns) = (Vec::new(), Vec::new());
        for expr in &aggregate.group_expr {
            let position = input_column(expr, plan);
            if let Some(of_window) = position.filter(|_| by_window).and_then(|at| window_column(&input.edge, at)) {
                group_columns.push(of_window);
                continue;
            }
            let index = match position {
                Some(index) => index,
                None => {
                    let physical = self.physical(expr, plan.schema())?;
                    let field =
                        arrow::datatypes::Field::new(format!("key{}", keys.len()), physical.data_type(&input.edge.schema)?, true);
                    computed.push((physical, field));
                    width + computed.len() - 1
                }
            };
            group_columns.push(GroupColumn::Key(keys.len()));
            keys.push(index);
        }
        let input = if computed.is_empty() { input } else { self.append_columns(input, computed) };
        let keys = keys.into_iter().map(|index| column(&input.edge.schema, index)).collect();
        Ok((input, keys, group_columns))
    }

    pub(super) fn append_columns(
        &mut self,
        input: Lowered,
        computed: Vec<(Arc<dyn PhysicalExpr>, arrow::datatypes::Field)>,
    ) -> Lowered {
        let width = input.edge.schema.fields().len();
        let (expressions, fields): (Vec<_>, Vec<_>) = computed.into_iter().unzip();
        let fields = input.edge.schema.fields().iter().cloned().chain(fields.into_iter().map(Arc::new)).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let label = format!("Project: *, {}", expressions.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", "));
        let all = (0..width).map(|index| column(&input.edge.schema, index)).chain(expressions).collect();
        let edge = Edge { schema: Arc::clone(&schema), ..input.edge };
        self.add(label, String::new(), input.inputs, project(all, schema), None, edge)
    }

    pub(super) fn call(&self, expr: &Expr, plan: &LogicalPlan) -> Result<Call> {
        let state = self.planner.state();
        let schema = plan.schema();
        let context = Default::default();
        let lowered = LoweredAggregateBuilder::new(expr, schema, schema.as_arrow(), state.execution_props(), &context).build()?;
        let mut arguments = lowered.aggregate.expressions();
        arguments.extend(lowered.order_bys.iter().map(|by| Arc::clone(&by.expr)));
        let width = schema.fields().len();
        let arguments = arguments.into_iter().map(|argument| narrow(expr, argument, width)).collect::<Result<Vec<_>, _>>()?;
        let filter = lowered.filter.map(|filter| narrow(expr, filter, width)).transpose()?;
        let argument_types = arguments.iter().map(|a| Ok(a.data_type(schema.as_arrow())?)).collect::<Result<_>>()?;
        let output = lowered.aggregate.field();
        Ok(Call { function: lowered.aggregate, filter, arguments, argument_types, output })
    }
}

/// Which bound of the window an input column is.
fn window_column(edge: &Edge, column: usize) -> Option<GroupColumn> {
    let window = edge.window?;
    match Some(column) {
        at if at == window.start => Some(GroupColumn::WindowStart),
        at if at == window.end => Some(GroupColumn::WindowEnd),
        at if at == window.time => Some(GroupColumn::WindowTime),
        _ => None,
    }
}

/// The window that the groups are kept by: any of its bounds in the GROUP BY names it.
fn window_key(edge: &Edge, aggregate: &AggregatePlan) -> Option<WindowKey> {
    let window = edge.window?;
    let grouped: Vec<usize> = aggregate.group_expr.iter().filter_map(|e| input_column(e, &aggregate.input)).collect();
    // A start says which window it is only where one window starts.
    let start = window.start.filter(|_| window.windows.end_of(0).is_some());
    let bounds = [(window.end, Bound::End), (start, Bound::Start), (window.time, Bound::Time)];
    let (column, bound) =
        bounds.into_iter().find_map(|(column, bound)| Some((column.filter(|c| grouped.contains(c))?, bound)))?;
    Some(WindowKey { column, bound, windows: window.windows, delay: window.delay })
}

fn output_edge(
    input: &Edge,
    window: Option<WindowKey>,
    columns: &[GroupColumn],
    emit: Emit,
    schema: arrow::datatypes::SchemaRef,
) -> Edge {
    let find = |wanted: GroupColumn| columns.iter().position(|c| *c == wanted);
    let (start, end, time) = (find(GroupColumn::WindowStart), find(GroupColumn::WindowEnd), find(GroupColumn::WindowTime));
    let mut times = Vec::new();
    if let Some(WindowKey { windows, delay: Some(delay), .. }) = window {
        let longest = Assignment::Clock(windows).longest().unwrap_or_default();
        let bound = |column: Option<usize>, delay| column.map(|column| TimeColumn { column, delay, hard: true });
        times.extend([bound(start, delay + longest), bound(end, delay), bound(time, delay + WINDOW_TIME)].into_iter().flatten());
    }
    Edge {
        schema,
        append_only: emit == Emit::Final,
        key: Some((0..columns.len()).collect()),
        sources: if times.is_empty() { Vec::new() } else { input.sources.clone() },
        times,
        window: window.map(|w| WindowColumns { start, end, time, windows: w.windows, delay: w.delay }),
    }
}

pub(super) fn cannot_be_final(edge: &Edge, grouped_by_window: bool) -> Error {
    let (missing, hint) = match (edge.window.is_some(), grouped_by_window) {
        (false, _) => {
            let hint = "read FROM TUMBLE(…), HOP(…), CUMULATE(…) or SESSION(…) and GROUP BY window_start, window_end, or GROUP BY the \
                        watermark's column";
            ("a time window, or event time among the keys of GROUP BY", hint)
        }
        (true, false) => ("the window among the keys of GROUP BY", "add window_start, window_end to GROUP BY"),
        (true, true) => (
            "a watermark that closes the window",
            "declare WATERMARK FOR the time column on the stream, and read it without a join or a table before the window",
        ),
    };
    Error::invalid_object_definition(format!("EMIT FINAL needs {missing}")).with_hint(hint)
}

pub(super) fn label(aggregate: &AggregatePlan) -> String {
    let list = |exprs: &[Expr]| exprs.iter().map(shown).collect::<Vec<_>>().join(", ");
    match (aggregate.group_expr.is_empty(), aggregate.aggr_expr.is_empty()) {
        (true, _) => format!("Aggregate: {}", list(&aggregate.aggr_expr)),
        (false, true) => format!("Distinct: {}", list(&aggregate.group_expr)),
        (false, false) => format!("Aggregate: {} by {}", list(&aggregate.aggr_expr), list(&aggregate.group_expr)),
    }
}

fn keeps(spec: &Spec) -> String {
    let what = match spec.calls.iter().any(|call| call.keeps_values(spec.append_only)) {
        true => "all values of each group",
        false => "one row per group",
    };
    let until = match spec.window {
        Some(WindowKey { delay: Some(0), .. }) => "until the watermark passes the window's end".to_string(),
        Some(WindowKey { delay: Some(delay), .. }) => {
            format!("until the watermark passes the window's end by {}", show_duration(delay))
        }
        _ if spec.global => "for ever".to_string(),
        _ => "for ever: it grows with the number of groups".to_string(),
    };
    format!("{what}, {until}")
}
