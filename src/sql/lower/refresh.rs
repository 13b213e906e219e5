//! EMIT CHANGES WITH DELAY: the changes of a query, gathered until their period is over.

use std::sync::Arc;

use super::{Lowered, Lowering};
use crate::flow::refresh::Refresh;
use crate::flow::{Edge, Make, Operator};
use crate::sql::window::show_duration;
use crate::time::Micros;

impl Lowering<'_> {
    pub(super) fn refreshed(&mut self, input: Lowered, every: Micros) -> Lowered {
        let schema = Arc::clone(&input.edge.schema);
        let make: Make =
            Box::new(move |shard| Ok(Box::new(Refresh::new(Arc::clone(&schema), every, shard)?) as Box<dyn Operator>));
        // Rows come later than the watermark says.
        let edge = Edge { sources: Vec::new(), times: Vec::new(), window: None, ..input.edge };
        let label = format!("Refresh: every {} of commit time", show_duration(every));
        self.add(label, "changes until their period is over".into(), input.inputs, make, None, edge)
    }
}
