//! Row by row: projections, filters, unions, UNNEST; and what is known of changes behind them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use super::explain::shown;
use super::{Lowered, Lowering, arrow_schema, unsupported};
use crate::error::{Error, Result};
use crate::flow::linear::{Filter, Project};
use crate::flow::unnest::{Source, Unnest};
use crate::flow::{Edge, Make, Operator, TimeColumn, WindowColumns};
use crate::sql::plan::continuous::mentions_now;
use crate::sql::plan::event_time::input_column;

impl Lowering<'_> {
    /// Some columns of the input, under the names of `schema`.
    pub(super) fn pick(&mut self, input: Lowered, indices: &[usize], schema: SchemaRef) -> Lowered {
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
    pub(super) fn fit(&mut self, input: Lowered, schema: &SchemaRef) -> Lowered {
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

    pub(super) fn project(&mut self, input: Lowered, exprs: &[Expr], plan: &LogicalPlan, schema: SchemaRef) -> Result<Lowered> {
        let expressions = exprs.iter().map(|e| self.physical(e, plan.schema())).collect::<Result<Vec<_>>>()?;
        let passed: Vec<Option<usize>> = exprs.iter().map(|e| input_column(e, plan)).collect();
        let edge = carry(&input.edge, &passed, Arc::clone(&schema));
        let label = format!("Project: {}", exprs.iter().map(shown).collect::<Vec<_>>().join(", "));
        Ok(self.add(label, String::new(), input.inputs, project(expressions, schema), None, edge))
    }

    pub(super) fn filter(&mut self, input: Lowered, predicate: &Expr, schema: &DFSchema) -> Result<Lowered> {
        if mentions_now(predicate) {
            return self.temporal_filter(input, predicate, schema);
        }
        let physical = self.physical(predicate, schema)?;
        let make: Make = Box::new(move |_| Ok(Box::new(Filter { predicate: Arc::clone(&physical) }) as Box<dyn Operator>));
        let label = format!("Filter: {}", shown(predicate));
        Ok(self.add(label, String::new(), input.inputs, make, None, input.edge))
    }

    pub(super) fn union(&mut self, plans: &[Arc<LogicalPlan>], schema: SchemaRef) -> Result<Lowered> {
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

    pub(super) fn unnest(&mut self, input: Lowered, unnest: &datafusion::logical_expr::Unnest) -> Result<Lowered> {
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

pub(super) fn column(schema: &SchemaRef, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(datafusion::physical_expr::expressions::Column::new(schema.field(index).name(), index))
}

pub(super) fn project(expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef) -> Make {
    Box::new(
        move |_| Ok(Box::new(Project { expressions: expressions.clone(), schema: Arc::clone(&schema) }) as Box<dyn Operator>),
    )
}

pub(super) fn names(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// What is known of the input, said of columns that pass it on: `passed[i]` is the input's column that column `i` is.
pub(super) fn carry(input: &Edge, passed: &[Option<usize>], schema: SchemaRef) -> Edge {
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
pub(super) fn union_edge(a: Edge, b: Edge) -> Edge {
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
