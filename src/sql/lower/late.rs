//! Where late rows are cut, and where they go.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use super::{Lowered, Lowering, column, project, unsupported};
use crate::error::Result;
use crate::flow::on_time::OnTime;
use crate::flow::{Edge, Input, LATE, Make, Node, Operator, TimeColumn};
use crate::sql::plan::event_time::event_time;
use crate::sql::plan::late_rows::late_rows;
use crate::sql::plan::on_time::OnTimeNode;
use crate::sql::window::show_duration;

impl Lowering<'_> {
    /// Cut the rows that are behind the watermark, if rows are judged one by one here. See [`crate::sql::plan::on_time`].
    pub(super) fn on_time(&mut self, input: Lowered, node: &OnTimeNode) -> Result<Lowered> {
        let column = node.time_index();
        let time = input.edge.times.iter().find(|time| time.column == column).copied();
        let Some(TimeColumn { delay, hard: false, .. }) = time.filter(|time| time.hard || input.edge.append_only) else {
            return match event_time(&node.input, column) {
                Some(time) if !time.hard => Err(unsupported(
                    "a join with a bound on time, or MATCH_RECOGNIZE, over rows that come and go with now() is not supported in a \
                     continuous query",
                    "leave the condition on now() out, and compare with now() in the query that reads the view",
                )),
                _ => Ok(input),
            };
        };
        let delay = delay.saturating_add(node.grace);
        let judged = |time: &TimeColumn| if time.column == column { TimeColumn { column, delay, hard: true } } else { *time };
        let times = input.edge.times.iter().map(judged);
        let edge = Edge { times: times.collect(), ..input.edge.clone() };
        let make: Make = Box::new(move |_| Ok(Box::new(OnTime { column, delay }) as Box<dyn Operator>));
        let by = if node.grace > 0 { format!(" by more than {}", show_duration(node.grace)) } else { String::new() };
        let label = format!("On time: {} not behind the watermark{by}", node.time.name);
        let lowered = self.add(label, String::new(), input.inputs, make, None, edge);
        self.late_from(&lowered);
        Ok(lowered)
    }

    /// Late rows come from this node's other output.
    pub(super) fn late_from(&mut self, node: &Lowered) {
        self.late_of_schema(node, Arc::clone(&node.edge.schema));
    }

    /// The same, of a node whose late rows are of another schema than what it answers.
    pub(super) fn late_of_schema(&mut self, node: &Lowered, schema: SchemaRef) {
        if let Some(Input::Node { index, .. }) = node.inputs.first() {
            self.late.push((Input::Node { index: *index, output: LATE }, schema));
        }
    }

    /// All late rows under one schema.
    pub(super) fn late_inputs(&mut self) -> Result<(Vec<Input>, Option<SchemaRef>)> {
        let parts = std::mem::take(&mut self.late);
        let schemas: Vec<SchemaRef> = parts.iter().map(|(_, schema)| Arc::clone(schema)).collect();
        let Some(late) = late_rows(&schemas) else { return Ok((Vec::new(), None)) };
        let mut inputs = Vec::new();
        for ((input, own), places) in parts.into_iter().zip(late.places) {
            if own == late.schema {
                inputs.push(input);
                continue;
            }
            let mut expressions: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
            for (place, field) in places.into_iter().zip(late.schema.fields()) {
                expressions.push(match place {
                    Some(index) => column(&own, index),
                    None => Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)),
                });
            }
            let edge = Edge {
                schema: Arc::clone(&late.schema),
                append_only: true,
                key: None,
                sources: Vec::new(),
                times: Vec::new(),
                window: None,
            };
            self.nodes.push(Node {
                label: "Project: late rows".into(),
                keeps: String::new(),
                inputs: vec![(input, 0)],
                make: project(expressions, Arc::clone(&late.schema)),
                exchange: None,
                edge,
            });
            inputs.push(Input::Node { index: self.nodes.len() - 1, output: crate::flow::MAIN });
        }
        Ok((inputs, Some(late.schema)))
    }
}
