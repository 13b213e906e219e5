//! Reading: queries that end, over one snapshot.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlparser::ast as sp;

use super::{Bound, Client, Known, Outcome, Parameter, Parameters, Rows};
use crate::catalog::{Catalog, Kind, Relation};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::limits;
use crate::log::CommitId;
use crate::sql::batch;
use crate::sql::plan::columns::visible_schema;
use crate::sql::plan::source::RelationSource;
use crate::sql::plan::{self, Planner, Reader};
use crate::sql::types;
use crate::view::Snapshot;

impl Client {
    /// Wait until reads cover this session's own last commit. Other sessions' commits are never waited for.
    pub(super) fn await_own_writes(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        await_commit(Arc::clone(&self.database), self.last_commit())
    }

    /// The snapshot that a statement reads: the block's, or the newest.
    pub(super) async fn snapshot(&mut self) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.block_snapshot()? {
            return Ok(snapshot);
        }
        self.await_own_writes().await?;
        let snapshot = self.database.engine.snapshot();
        if let Some(transaction) = &mut self.transaction {
            transaction.snapshot = Some(Arc::clone(&snapshot));
        }
        Ok(self.block_snapshot()?.unwrap_or(snapshot))
    }

    /// The snapshot that a statement would read if it ran now.
    pub(super) fn peek_snapshot(&self) -> Arc<Snapshot> {
        self.transaction.as_ref().and_then(|t| t.snapshot.clone()).unwrap_or_else(|| self.database.engine.snapshot())
    }

    pub(super) fn planner(&self, snapshot: &Arc<Snapshot>) -> Planner {
        planner_over(&self.database, Arc::clone(&snapshot.catalog), self.reader())
            .for_session(self.path(), &self.database_name)
            .reading_in(self.settings.formats())
            .with_system(self.system(snapshot))
    }

    /// Parameters and columns of a query.
    pub(super) fn describe_query(&self, query: &sp::Query, types: &[Option<FieldRef>]) -> Result<(Vec<Parameter>, SchemaRef)> {
        let snapshot = self.peek_snapshot();
        let planned = |types: &[_]| self.plan_query(&snapshot, query, types).map(|plan| vec![plan]);
        let (parameters, plans) = plan::inferred(types, &snapshot.catalog, planned)?;
        let schema = plans.first().map(|plan| visible_schema(plan, &snapshot.catalog));
        Ok((parameters, schema.ok_or_else(|| Error::internal("a query has a plan"))?))
    }

    pub(super) fn plan_query(
        &self,
        snapshot: &Arc<Snapshot>,
        query: &sp::Query,
        types: &[Option<FieldRef>],
    ) -> Result<LogicalPlan> {
        self.plan_query_as(self.reader(), snapshot, query, types)
    }

    pub(super) fn plan_query_as(
        &self,
        reader: Reader,
        snapshot: &Arc<Snapshot>,
        query: &sp::Query,
        types: &[Option<FieldRef>],
    ) -> Result<LogicalPlan> {
        self.planner(snapshot).reading_as(reader).query_with_parameters(query, types)
    }

    /// How this session's statements run.
    pub(super) fn query_options(&self) -> batch::Options {
        let formats = self.settings.formats();
        batch::Options { formats, stop: self.stop(), ..self.database.query_options(self.settings.statement_memory()) }
    }

    /// Run a plan over a snapshot.
    async fn run_plan(&mut self, plan: LogicalPlan, snapshot: &Arc<Snapshot>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let source = source(&self.database, snapshot);
        let stream = batch::execute(plan, &source, &self.database.state, &self.query_options()).await?;
        Ok(stream.map_err(Error::from).boxed())
    }

    /// All rows of a plan, which are within the statement's memory.
    pub(super) async fn collect_plan(&mut self, plan: LogicalPlan, snapshot: &Arc<Snapshot>) -> Result<Vec<RecordBatch>> {
        let options = self.query_options();
        let held = MemoryConsumer::new("rows").register(&options.runtime.memory_pool);
        let stream = batch::execute(plan, &source(&self.database, snapshot), &self.database.state, &options).await?;
        let batches = stream.and_then(|rows| {
            let reserved = held.try_grow(rows.get_array_memory_size());
            async move { reserved.map(|()| rows) }
        });
        Ok(batches.try_collect().await?)
    }

    pub(super) async fn select(&mut self, query: &sp::Query, parameters: Bound, known: &Known) -> Result<Outcome> {
        let snapshot = self.snapshot().await?;
        if snapshot.failures.is_empty()
            && let Some(rows) = self.point_read(known, &snapshot, &parameters.values)?
        {
            return Ok(Outcome::Rows(rows));
        }
        let plan = self.plan_query(&snapshot, query, &parameters.types)?;
        self.notices.extend(warnings(&plan, &snapshot));
        self.note_plan(known, &plan, &snapshot);
        if let Some(rows) = self.point_read(known, &snapshot, &parameters.values)? {
            return Ok(Outcome::Rows(rows));
        }
        let plan = plan::bind(plan, parameters)?;
        let schema = visible_schema(&plan, &snapshot.catalog);
        let told = SchemaRef::clone(&schema);
        let batches = self.run_plan(plan, &snapshot).await?.map(move |rows| conform(rows?, &told)).boxed();
        Ok(Outcome::Rows(Rows { schema, batches, tag: "SELECT", live: false }))
    }

    /// Values of constant expressions, as the given types: the arguments of EXECUTE.
    pub(super) fn values_of(&self, arguments: &[sp::Expr], types: &[Parameter]) -> Result<Parameters> {
        if arguments.len() != types.len() {
            let (given, wanted) = (arguments.len(), types.len());
            return Err(Error::syntax(format!("wrong number of parameters: {wanted} expected, {given} given")));
        }
        let planner = self.planner(&self.peek_snapshot());
        let nothing = datafusion::common::DFSchema::empty();
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        let value = |(argument, to): (&sp::Expr, &Parameter)| -> Result<ScalarValue> {
            let expr = planner.expression(argument, &nothing)?;
            let expr = datafusion::logical_expr::cast(expr, to.data_type.clone());
            let array = planner.physical(expr, &nothing)?.evaluate(&one)?.into_array(1)?;
            crate::copy::modifier::canonical(ScalarValue::try_from_array(&array, 0)?, &to.sql_type)
        };
        arguments.iter().zip(types).map(value).collect()
    }

    /// Wait until the snapshots show everything that is in the log now.
    pub(super) async fn flush(&mut self) -> Result<Outcome> {
        let end = self.database.log.end();
        // Also what a start has still to build again.
        let there = |snapshot: &Snapshot, id| {
            let is_built = snapshot.versions.contains_key(&id) || snapshot.consumed.contains_key(&id);
            is_built || snapshot.failures.contains_key(&id)
        };
        let runs = |r: &Relation| r.kind == Kind::MaterializedView || (r.output.is_some() && r.paused.is_none());
        let built = move |s: &Snapshot| s.catalog.relations().all(|r| !runs(r) || there(s, r.id));
        self.database.engine.wait_until(move |snapshot| snapshot.complete >= end && built(snapshot)).await?;
        // What that has written, too.
        self.database.engine.wait_for(self.database.log.end()).await?;
        super::client::done("FLUSH")
    }
}

/// What to do with a stopped query that writes to the log.
pub(super) const STOPPED_OUTPUT: &str = "change its query with ALTER STREAM … AS, or DROP it and create it again";

/// Wait until reads of any session cover this commit, of one's own.
pub(super) async fn await_commit(database: Arc<Database>, commit: CommitId) -> Result<()> {
    if database.engine.snapshot().complete >= commit {
        return Ok(());
    }
    let wait = limits::OWN_WRITES_WAIT;
    match tokio::time::timeout(wait, database.engine.wait_for(commit)).await {
        Ok(snapshot) => snapshot.map(drop),
        Err(_) => {
            let message = format!("the views have not reached commit {commit}, your last one, within {} s", wait.as_secs());
            Err(Error::not_ready(message).with_hint("the row is stored; read again later"))
        }
    }
}

/// Of views whose rows stay as they are, because their query has stopped.
fn warnings(plan: &LogicalPlan, snapshot: &Snapshot) -> Vec<Error> {
    if snapshot.failures.is_empty() {
        return Vec::new();
    }
    let warning = |relation: Arc<Relation>| {
        let error = snapshot.failures.get(&relation.id)?;
        let name = relation.full_name();
        let message = format!("\"{name}\" has stopped, and its rows are those of before: {}", error.message());
        let hint = match relation.output {
            None => "change its query with ALTER MATERIALIZED VIEW … AS, or take away the row that it cannot take, and RESUME it",
            Some(_) => STOPPED_OUTPUT,
        };
        let hint = error.hint().map_or_else(|| hint.to_string(), |own| format!("{hint}; {own}"));
        Some(Error::warning(message).with_hint(hint))
    };
    RelationSource::all_in(plan).into_iter().filter_map(warning).collect()
}

/// A planner for definitions: no system relations, no session. The reader is the session's, unless what is planned was allowed
/// when it was defined.
pub(super) fn planner_over(database: &Database, catalog: Arc<Catalog>, reader: Reader) -> Planner {
    Planner::new(catalog, Arc::clone(&database.state)).reading_as(reader)
}

/// What a statement reads.
pub(super) fn source(database: &Database, snapshot: &Arc<Snapshot>) -> batch::Source {
    batch::Source { snapshot: Arc::clone(snapshot), log: database.log.clone() }
}

/// Rows in the types that were said before the plan was analysed, which may have coerced some: `CASE WHEN a THEN oid ELSE 0 END`.
pub(super) fn conform(rows: RecordBatch, told: &SchemaRef) -> Result<RecordBatch> {
    let pairs = || rows.columns().iter().zip(told.fields());
    let wire = |data_type: &DataType| types::oid(data_type, &types::sql_type(data_type));
    if pairs().all(|(array, field)| array.data_type() == field.data_type() || wire(array.data_type()) == wire(field.data_type()))
    {
        return Ok(rows);
    }
    let columns = pairs().map(|(array, field)| Ok(arrow::compute::cast(array, field.data_type())?));
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(told), columns.collect::<Result<_>>()?, &options)?)
}
