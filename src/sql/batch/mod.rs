//! A plan as an ordinary query over a snapshot; also what "correct" means for a view.
//!
//! ```text
//!   logical plan ──rewrite──► plan over providers ──optimise──► physical plan ──► batches
//!                  relation → its rows at the snapshot's commit
//!                  window   → projection (and unnest) over plain functions, without the late rows
//! ```
//!
//! * [`rewrite`](self): relations get their rows ([`stream`], and the versions of a snapshot), windows become functions.
//! * [`expected`]: the batch answer of a view, from streams and tables alone.
//! * [`history`]: relations as they were at former commits, for AS OF.
//! * [`in_order`]: the rows of a plan's partitions reach the client in the partitions' order.
//! * [`point`]: what is only a look-up, without all that.
//! * [`stop`]: what makes long joins hear that they are to stop.
//!
//! A query sees one commit. It runs on the runtime that polls its batches, holds at most the memory of its [`RuntimeEnv`], and
//! ends when its stream is dropped. Reading a stream blocks the polling thread while the store reads; so queries run on threads
//! of their own, not on the network's.

pub mod expected;
pub mod history;
mod in_order;
pub mod memory;
mod nearest;
pub mod point;
mod rewrite;
pub mod stop;
mod stream;
mod watermarks;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, StreamExt};

use self::history::History;
use self::stop::Stop;
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::log::LogHandle;
use crate::sql::plan::clocks;
use crate::time::Micros;
use crate::view::Snapshot;

/// What a query reads: all relations at one commit.
#[derive(Clone)]
pub struct Source {
    pub snapshot: Arc<Snapshot>,
    pub log: LogHandle,
}

/// How a query runs.
#[derive(Clone)]
pub struct Options {
    pub target_partitions: usize,
    /// The value of `now()`.
    pub now: Micros,
    /// How text is read, and by whose clocks `timestamptz` is taken apart: a session's. What is stored goes by the usual ones.
    pub formats: Formats,
    /// What bounds its memory ([`memory`]).
    pub runtime: Arc<RuntimeEnv>,
    /// Asked where the query would not otherwise be heard of to be dropped.
    pub stop: Option<Arc<dyn Stop>>,
}

/// Run a plan; parameters are bound ([`crate::sql::plan::bind`]).
pub async fn execute(
    plan: LogicalPlan,
    source: &Source,
    state: &SessionState,
    options: &Options,
) -> Result<SendableRecordBatchStream> {
    let planned = async {
        let state = session(state, options)?;
        Ok((physical(plan, source, &state, options).await?, state))
    };
    let panicked = |panic: Box<dyn Any + Send>| Err(Error::of_panic("the planning of a query", panic.as_ref()));
    let (physical, state) = AssertUnwindSafe(planned).catch_unwind().await.unwrap_or_else(panicked)?;
    run(physical, &state)
}

/// Run a physical plan. Arrow panics where a column becomes too long for its offsets: that is an error of the query's. A plan
/// that has panicked is not asked again.
pub fn run(physical: Arc<dyn ExecutionPlan>, state: &SessionState) -> Result<SendableRecordBatchStream> {
    let stream = execute_stream(physical, state.task_ctx())?;
    let panicked = |panic: Box<dyn Any + Send>| Err(Error::of_panic("a query", panic.as_ref()).into());
    let schema = stream.schema();
    let caught = AssertUnwindSafe(stream).catch_unwind().map(move |rows| rows.unwrap_or_else(panicked));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, caught)))
}

/// The physical plan, for EXPLAIN too. `state` comes from [`session`].
pub async fn physical(
    plan: LogicalPlan,
    source: &Source,
    state: &SessionState,
    options: &Options,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = clocks::in_session(options.formats, plan, state)?;
    let history = History::read(&plan, source, state, options).await?;
    let plan = rewrite::over_snapshot(plan, source, &history, state)?;
    let physical = state.create_physical_plan(&plan).await?;
    Ok(in_order::in_order(stop::stoppable(physical, options.stop.as_ref())?)?)
}

/// The settings of one query.
pub fn session(state: &SessionState, options: &Options) -> Result<SessionState> {
    let now = chrono::DateTime::from_timestamp_micros(options.now)
        .ok_or_else(|| Error::internal(format!("{} is no instant for a clock to show", options.now)))?;
    let mut config = state.config().clone().with_target_partitions(options.target_partitions.max(1));
    let zone = options.formats.zone;
    if !zone.is_utc() {
        // What day it is.
        config.options_mut().execution.time_zone = Some(zone.type_name());
    }
    let mut session = SessionStateBuilder::new_from_existing(state.clone())
        .with_config(config)
        .with_runtime_env(Arc::clone(&options.runtime))
        .build();
    session.execution_props_mut().query_execution_start_time = Some(now);
    Ok(session)
}

#[cfg(test)]
mod tests;
