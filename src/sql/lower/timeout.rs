//! EMIT FINAL … AND TIMEOUT: which windows a silence closes.

use datafusion::logical_expr::LogicalPlan;

use crate::error::{Error, Result};
use crate::flow::silence::{Closing, Timeout};
use crate::sql::plan::silence::timed_window;
use crate::sql::plan::window_event_time;
use crate::sql::window::Assignment;
use crate::time::Micros;

/// Of a query over the windows of one stream.
pub(super) fn timeout(plan: &LogicalPlan, after: Micros) -> Result<Timeout> {
    let window = timed_window(plan)?;
    let time = window_event_time(window).ok_or_else(|| Error::internal("a window of a stream without its watermark"))?;
    let stream = time.streams.first().map(|stream| stream.id).unwrap_or_default();
    let closing = match &window.assignment {
        Assignment::Clock(windows) => Closing::Windows(*windows),
        Assignment::Session { gap, .. } => Closing::Gap(*gap),
    };
    Ok(Timeout { stream, after, closing, delay: time.delay.saturating_add(window.lateness) })
}
