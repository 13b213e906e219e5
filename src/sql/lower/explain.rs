//! EXPLAIN of a continuous query: its operators from the output down, with what is known of each edge and what each node keeps.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::Expr;

use crate::catalog::{COMMIT_TIME, Catalog};
use crate::flow::{Edge, Fragment, Input};
use crate::sql::functions::operators::as_written;
use crate::sql::functions::or_null::bare;
use crate::sql::window::show_duration;

/// An expression as users write it: DataFusion's text, but for lengths of time, operators and casts.
pub(super) fn shown(expr: &Expr) -> String {
    let interval = |expr: Expr| {
        let expr = bare(&expr).unwrap_or(expr);
        if let Expr::ScalarFunction(call) = &expr
            && let Some(written) = as_written(call)
        {
            return Ok(Transformed::yes(written));
        }
        let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), _) = &expr else { return Ok(Transformed::no(expr)) };
        let months = if length.months == 0 { String::new() } else { format!("{} months ", length.months) };
        let days = if length.days == 0 { String::new() } else { format!("{} days ", length.days) };
        let rest = if length.nanoseconds == 0 && !(months.is_empty() && days.is_empty()) {
            String::new()
        } else {
            show_duration(length.nanoseconds / 1000)
        };
        let text = format!("INTERVAL '{}'", format!("{months}{days}{rest}").trim_end());
        Ok(Transformed::yes(Expr::Column(Column::from_name(text))))
    };
    let readable = expr.clone().transform(interval).map_or_else(|_| expr.clone(), |changed| changed.data);
    readable.human_display().to_string()
}

/// One line per operator, indented below the one that reads it.
pub fn explain(fragment: &Fragment, catalog: &Catalog) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(timeout) = &fragment.timeout {
        let stream = catalog.get(timeout.stream).map_or_else(String::new, |stream| stream.full_name().to_string());
        let after = show_duration(timeout.after);
        lines.push(format!("Timeout: windows close, too, after {after} of commit time without rows of {stream}"));
    }
    if fragment.nulled.is_some() {
        lines.push("On error: NULL for the row that an expression fails for".to_string());
    }
    for input in &fragment.output {
        describe(fragment, catalog, *input, 0, &mut lines);
    }
    lines
}

fn describe(fragment: &Fragment, catalog: &Catalog, input: Input, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match input {
        Input::Relation(id) | Input::WithHidden(id) | Input::Versions { table: id, .. } => {
            let text = match catalog.get(id) {
                Some(relation) if matches!(input, Input::Versions { .. }) => {
                    format!("{indent}Read: versions of {} {}", relation.kind.noun(), relation.full_name())
                }
                Some(relation) => format!("{}Read: {} {}", indent, relation.kind.noun(), relation.full_name()),
                None => format!("{indent}Read: relation {id}"),
            };
            lines.push(text);
        }
        Input::Node { index, .. } => {
            let node = &fragment.nodes[index];
            lines.push(format!("{indent}{}", node.label));
            lines.push(format!("{indent}  [{}]", properties(&node.edge, catalog)));
            if !node.keeps.is_empty() {
                lines.push(format!("{indent}  [keeps {}]", node.keeps));
            }
            for (input, _) in &node.inputs {
                describe(fragment, catalog, *input, depth + 1, lines);
            }
        }
    }
}

fn properties(edge: &Edge, catalog: &Catalog) -> String {
    let column = |index: &usize| edge.schema.field(*index).name().clone();
    let mut parts = vec![if edge.append_only { "append-only" } else { "updates" }.to_string()];
    match &edge.key {
        Some(key) if key.is_empty() => parts.push("one row".into()),
        Some(key) => parts.push(format!("key {}", key.iter().map(column).collect::<Vec<_>>().join(", "))),
        None => {}
    }
    if !edge.times.is_empty() {
        parts.push(format!("time {}", edge.times.iter().map(|t| column(&t.column)).collect::<Vec<_>>().join(", ")));
    }
    if !edge.sources.is_empty() {
        let name = |id: &u32| match *id {
            COMMIT_TIME => "commit time".to_string(),
            id => catalog.get(id).map_or_else(|| id.to_string(), |r| r.full_name().to_string()),
        };
        parts.push(format!("watermark of {}", edge.sources.iter().map(name).collect::<Vec<_>>().join(", ")));
    }
    parts.join("; ")
}
