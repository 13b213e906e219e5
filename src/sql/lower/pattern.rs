//! MATCH_RECOGNIZE as an operator: what bounds the rows that it keeps, and when its matches are final.

use std::sync::Arc;

use super::{Lowered, Lowering};
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::flow::pattern::Spec;
use crate::flow::pattern::operator::{Closing, Matching};
use crate::flow::{Edge, Make, Operator, TimeColumn};
use crate::sql::pattern::{MatchNode, spec};

impl Lowering<'_> {
    pub(super) fn matches(&mut self, input: Lowered, node: &MatchNode) -> Result<Lowered> {
        let spec = Arc::new(spec(node, self.planner.state().as_ref())?);
        let closing = closing(&input.edge, node, &spec);
        if self.emit == Emit::Final {
            self.require_final_matches(closing, &spec)?;
            self.final_rows = true;
        }
        let columns = self.project(input, &node.columns, &node.input, Arc::clone(&spec.columns))?;
        let label = format!("Match: {}", node.describe());
        let keeps = keeps(node, &spec, closing);
        let times = match (closing, node.times()) {
            (Some(Closing { delay }), Some((columns, within))) => {
                let time = |column| TimeColumn { column, delay: delay + within, hard: true };
                columns.into_iter().map(time).collect()
            }
            _ => Vec::new(),
        };
        let sources = closing.map_or(Vec::new(), |_| columns.edge.sources.clone());
        let append_only = self.emit == Emit::Final;
        let edge = Edge { schema: Arc::clone(&spec.output), append_only, key: None, sources, times, window: None };
        let exchange = (!spec.partition.is_empty()).then(|| vec![spec.partition.clone()]);
        let emit = self.emit;
        let make: Make =
            Box::new(move |shard| Ok(Box::new(Matching::new(Arc::clone(&spec), emit, closing, shard)?) as Box<dyn Operator>));
        Ok(self.add(label, keeps, columns.inputs, make, exchange, edge))
    }

    fn require_final_matches(&self, closing: Option<Closing>, spec: &Spec) -> Result<()> {
        let error =
            |message: &str| Error::invalid_object_definition(format!("EMIT FINAL needs rows that become final: {message}"));
        if spec.is_anchored() {
            return Err(error("a match with ^ or $ depends on all rows of its partition").with_hint("leave the anchor out"));
        }
        if closing.is_none() {
            let hint = "begin ORDER BY with the event time of a stream with a WATERMARK, or leave EMIT FINAL out";
            return Err(error("nothing says that no row comes between those of a match").with_hint(hint));
        }
        Ok(())
    }
}

/// Rows are final where a frontier speaks of the first column of their order.
fn closing(input: &Edge, node: &MatchNode, spec: &Spec) -> Option<Closing> {
    spec.time?;
    let index = node.time_index()?;
    let time = input.times.iter().find(|time| time.column == index && time.hard)?;
    (!spec.is_anchored()).then_some(Closing { delay: time.delay })
}

/// For EXPLAIN.
fn keeps(node: &MatchNode, spec: &Spec, closing: Option<Closing>) -> String {
    if closing.is_none() {
        return "rows for ever: it grows with the number of rows".into();
    }
    let until = match node.recognition.within {
        Some(_) => "rows until the watermark passes all that a match from them could reach",
        None => "rows until the watermark passes all that decided about a match from them",
    };
    let marks = match (spec.back(), spec.counts()) {
        (0, false) => String::new(),
        (0, true) => ", and the last row of each partition for its number of matches".into(),
        (1, _) => ", and the row before them, which PREV may ask for".into(),
        (back, _) => format!(", and the {back} rows before them, which PREV may ask for"),
    };
    format!("{until}{marks}")
}
