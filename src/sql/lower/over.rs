//! OVER (…): which columns partition and sort the rows, and how far around a row its answer looks.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, Window};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_planner::create_window_expr;

use super::{Lowered, Lowering, arrow_schema, shown, unsupported};
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::flow::arrangement::Layout;
use crate::flow::over::{Over, Reach, Spec};
use crate::flow::{Edge, Make, Operator, WindowColumns};
use crate::sql::plan::event_time::input_column;
use crate::sql::plan::reach::reach;
use crate::sql::window::show_duration;
use crate::time::Micros;

/// An input as an operator keeps it that looks at several rows of a group again.
pub(super) struct Arranged {
    /// Behind its columns, those that were computed to group or sort by.
    pub input: Lowered,
    pub layout: Layout,
    /// When a group is complete; see [`grouped_edge`].
    pub delay: Option<Micros>,
    /// The event time by which the rows of a group are sorted, if they are.
    order_time: Option<usize>,
}

impl Arranged {
    /// Columns by whose hash the operator may be sharded.
    pub fn exchange(&self) -> Option<Vec<Vec<usize>>> {
        (!self.layout.key.is_empty()).then(|| vec![self.layout.key.clone()])
    }

    /// How long rows are kept, for EXPLAIN. `grows`: with what they become more, if nothing bounds them.
    pub fn until(&self, grows: &str) -> String {
        match self.delay {
            None if grows.is_empty() => "for ever".to_string(),
            None => format!("for ever: it grows with {grows}"),
            Some(delay) => {
                let column = self.layout.time.map_or("", |time| self.input.edge.schema.field(time).name());
                let by = if delay == 0 { String::new() } else { format!(" by {}", show_duration(delay)) };
                format!("until the watermark passes {column}{by}")
            }
        }
    }
}

impl Lowering<'_> {
    pub(super) fn over(&mut self, input: Lowered, window: &Window) -> Result<Lowered> {
        let schema = arrow_schema(&window.schema);
        let width = input.edge.schema.fields().len();
        let mut groups: Vec<(&WindowFunction, Vec<usize>)> = Vec::new();
        for (place, expr) in window.window_expr.iter().enumerate() {
            let function = window_function(expr)?;
            let same = |other: &WindowFunction| {
                other.params.partition_by == function.params.partition_by && other.params.order_by == function.params.order_by
            };
            match groups.iter_mut().find(|(other, _)| same(other)) {
                Some((_, places)) => places.push(place),
                None => groups.push((function, vec![place])),
            }
        }
        let mut lowered = input;
        for (function, places) in &groups {
            let exprs: Vec<&Expr> = places.iter().map(|place| &window.window_expr[*place]).collect();
            let added = places.iter().map(|place| Arc::clone(&schema.fields()[width + place]));
            let fields: Vec<_> = lowered.edge.schema.fields().iter().cloned().chain(added).collect();
            lowered = self.over_one(lowered, function, &exprs, &window.input, Arc::new(Schema::new(fields)))?;
        }
        // Where the answers stand now, in the order in which the plan has them.
        let order: Vec<usize> = groups.iter().flat_map(|(_, places)| places).copied().collect();
        let place = |wanted: usize| width + order.iter().position(|at| *at == wanted).unwrap_or(wanted);
        let indices: Vec<usize> = (0..width).chain((0..order.len()).map(place)).collect();
        Ok(self.pick(lowered, &indices, schema))
    }

    /// Functions of one partitioning and order.
    fn over_one(
        &mut self,
        input: Lowered,
        function: &WindowFunction,
        exprs: &[&Expr],
        plan: &LogicalPlan,
        schema: SchemaRef,
    ) -> Result<Lowered> {
        let width = input.edge.schema.fields().len();
        let before = input.edge.clone();
        let arranged = self.arrange(input, &function.params.partition_by, &function.params.order_by, plan)?;
        self.require_final(&arranged, "OVER (…)")?;
        let state = self.planner.state();
        let context = Default::default();
        let make = |expr: &&Expr| Ok(create_window_expr(expr, plan.schema(), state.execution_props(), &context)?);
        let functions = exprs.iter().map(make).collect::<Result<Vec<_>>>()?;
        let reach = exprs.iter().map(|expr| Ok(reach(window_function(expr)?, plan))).collect::<Result<Vec<_>>>()?;
        let reach = reach.into_iter().reduce(Reach::and).unwrap_or(Reach::ALL);
        let edge = grouped_edge(&before, &arranged, reach.ahead == Some(0), Arc::clone(&schema));
        let label = format!("Over: {}", exprs.iter().map(|expr| shown(expr)).collect::<Vec<_>>().join(", "));
        let keeps = format!("all rows, {}", arranged.until("the input"));
        let spec = Spec { layout: arranged.layout.clone(), width, functions, reach, schema, delay: arranged.delay };
        let exchange = arranged.exchange();
        let make: Make = Box::new(move |shard| Ok(Box::new(Over::new(spec.clone(), shard)?) as Box<dyn Operator>));
        Ok(self.add(label, keeps, arranged.input.inputs, make, exchange, edge))
    }

    /// The input, with what it is grouped and sorted by as columns.
    pub(super) fn arrange(&mut self, input: Lowered, group: &[Expr], order: &[SortExpr], plan: &LogicalPlan) -> Result<Arranged> {
        let width = input.edge.schema.fields().len();
        let mut computed: Vec<(Arc<dyn PhysicalExpr>, Field)> = Vec::new();
        let mut column = |expr: &Expr| -> Result<Option<usize>> {
            if let Expr::Literal(..) = expr {
                return Ok(None);
            }
            if let Some(index) = input_column(expr, plan) {
                return Ok(Some(index));
            }
            let physical = self.physical(expr, plan.schema())?;
            let field = Field::new(format!("by{}", computed.len()), physical.data_type(plan.schema().as_arrow())?, true);
            computed.push((physical, field));
            Ok(Some(width + computed.len() - 1))
        };
        let key = group.iter().filter_map(|expr| column(expr).transpose()).collect::<Result<Vec<_>>>()?;
        let mut sorted = Vec::new();
        for by in order {
            let options = arrow::compute::SortOptions { descending: !by.asc, nulls_first: by.nulls_first };
            sorted.extend(column(&by.expr)?.map(|index| (index, options)));
        }
        let input = if computed.is_empty() { input } else { self.append_columns(input, computed) };
        let bound = input.edge.times.iter().find(|time| time.hard && key.contains(&time.column)).copied();
        let ascending = sorted.first().filter(|(_, options)| !options.descending).map(|(column, _)| *column);
        let order_time = ascending.filter(|column| input.edge.times.iter().any(|time| time.hard && time.column == *column));
        let schema = Arc::clone(&input.edge.schema);
        Ok(Arranged {
            order_time,
            layout: Layout { schema, key, time: bound.map(|time| time.column), order: sorted },
            delay: bound.map(|time| time.delay),
            input,
        })
    }

    /// With EMIT FINAL, all rows of a group must come at once: after a GROUP BY of windows, when the window closes. Otherwise they
    /// are held back until then.
    pub(super) fn require_final(&self, arranged: &Arranged, what: &str) -> Result<()> {
        let held = self.held.as_ref().is_some_and(|held| matches!(held.node, LogicalPlan::Window(_)));
        if self.emit != Emit::Final || held || (arranged.delay.is_some() && arranged.input.edge.append_only && self.final_rows) {
            return Ok(());
        }
        let error =
            Error::invalid_object_definition(format!("EMIT FINAL needs rows that become final, and those of {what} do not"));
        Err(error.with_hint(
            "read FROM TUMBLE(…) or HOP(…) and put window_end into PARTITION BY, sort by the time of a stream with a WATERMARK and \
             look back alone, or leave EMIT FINAL out",
        ))
    }
}

/// What is known of rows that an operator makes of whole groups. A group is complete, and its rows change no more, once its
/// time is behind the frontier; and so is a row, where groups are sorted by time and it `looks_back` alone.
/// Of other times nothing is known any more, because a row behind them may still change others.
pub(super) fn grouped_edge(input: &Edge, arranged: &Arranged, looks_back: bool, schema: SchemaRef) -> Edge {
    let key = &arranged.layout.key;
    let of_window = |w: &WindowColumns, column: usize| [w.start, w.end, w.time].contains(&Some(column));
    let window = input.window.filter(|w| w.delay.is_some() && key.iter().any(|column| of_window(w, *column)));
    let is_passed = |column: usize| looks_back && arranged.order_time == Some(column);
    let holds = |column: usize| is_passed(column) || key.contains(&column) || window.is_some_and(|w| of_window(&w, column));
    let times: Vec<_> = input.times.iter().filter(|time| time.hard && holds(time.column)).copied().collect();
    Edge {
        schema,
        append_only: false,
        key: input.key.clone(),
        sources: if times.is_empty() { Vec::new() } else { input.sources.clone() },
        times,
        window: window.or(input.window.map(|w| WindowColumns { delay: None, ..w })),
    }
}

/// The call behind an expression of a Window node.
pub(super) fn window_function(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Ok(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        other => Err(unsupported(
            format!("{other} is not supported as a window function in a continuous query"),
            "compute it in the query that reads the view",
        )),
    }
}
