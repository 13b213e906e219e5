//! Changes of rows in a WITH: one statement of several, which all read one snapshot and are written together.
//!
//! ```text
//!   WITH gone AS (DELETE FROM q WHERE id IN (…) RETURNING *) INSERT INTO done SELECT * FROM gone
//! ```
//!
//! They run in their order, each to its end, whether or not what it returns is read; what it returns is a relation of the statements
//! after it ([`returned`]). None sees in a table what another has written. Of two that change one row, the later one's is kept.
//! Outside of a block they are a block of their own, which is done again if others have changed what decided it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use futures::TryStreamExt;
use parking_lot::Mutex;

use super::change::{is_conflict, known};
use super::{Bound, Client, Known, Outcome, Parameter, Rows};
use crate::error::{Error, Result};
use crate::sql::ast::Statement;
use crate::sql::parse::returned;
use crate::sql::plan::columns::visible_schema;
use crate::sql::plan::{self, SystemRelations};
use crate::view::Snapshot;

/// What the changes of the statement at hand have returned, by their numbers.
#[derive(Default)]
pub(super) struct Returned(Mutex<Vec<Arc<dyn TableProvider>>>);

impl Returned {
    pub fn forget(&self) {
        self.0.lock().clear();
    }

    fn push(&self, schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let told = |rows: RecordBatch| Ok(RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec())?);
        let batches = batches.into_iter().map(told).collect::<Result<Vec<_>>>()?;
        self.0.lock().push(Arc::new(MemTable::try_new(Arc::clone(&schema), vec![batches])?));
        Ok(())
    }

    /// The system's relations, and these.
    pub fn over(&self, system: Arc<dyn SystemRelations>) -> Arc<dyn SystemRelations> {
        let returned = self.0.lock().clone();
        if returned.is_empty() { system } else { Arc::new(ReturnedRelations { returned, system }) }
    }
}

struct ReturnedRelations {
    returned: Vec<Arc<dyn TableProvider>>,
    system: Arc<dyn SystemRelations>,
}

impl SystemRelations for ReturnedRelations {
    fn table(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        let number = (0..self.returned.len()).find(|number| schema.is_none() && returned(*number) == name);
        number.map(|number| Arc::clone(&self.returned[number])).or_else(|| self.system.table(schema, name))
    }

    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.system.function(name)
    }
}

impl Client {
    /// Parameters of all of them, and the columns of the last.
    pub(super) fn describe_with(
        &self,
        changes: &[Statement],
        last: &Statement,
        types: &[Option<FieldRef>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let described = self.described_with(changes, last, types);
        self.returned.forget();
        described
    }

    fn described_with(
        &self,
        changes: &[Statement],
        last: &Statement,
        types: &[Option<FieldRef>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let snapshot = self.peek_snapshot();
        let mut types = types.to_vec();
        for part in changes.iter().chain([last]) {
            types = self.types_of_part(part, &types)?;
        }
        let planned = |types: &[_]| {
            self.returned.forget();
            let mut plans = Vec::new();
            for change in changes {
                plans.extend(self.plans_of_part(&snapshot, change, types)?);
                let schema = self.returned_by(change, types)?;
                self.returned.push(&schema.unwrap_or_else(|| Arc::new(Schema::empty())), Vec::new())?;
            }
            plans.extend(self.plans_of_part(&snapshot, last, types)?);
            Ok(plans)
        };
        let (parameters, plans) = plan::inferred(&types, &snapshot.catalog, planned)?;
        let schema = match last {
            Statement::Query { .. } => plans.last().map(|plan| visible_schema(plan, &snapshot.catalog)),
            change => self.returned_by(change, &known(&parameters))?,
        };
        Ok((parameters, schema))
    }

    fn types_of_part(&self, part: &Statement, declared: &[Option<FieldRef>]) -> Result<Vec<Option<FieldRef>>> {
        if let Statement::Insert { insert, .. } = part {
            return self.insert_types(insert, declared);
        }
        let searched = self.searched(part)?;
        Ok(super::assign::types(&searched.as_ref().map_or_else(Vec::new, |change| change.parameters()), declared))
    }

    fn plans_of_part(&self, snapshot: &Arc<Snapshot>, part: &Statement, types: &[Option<FieldRef>]) -> Result<Vec<LogicalPlan>> {
        match part {
            Statement::Query { query, .. } => Ok(vec![self.plan_query(snapshot, query, types)?]),
            Statement::Insert { insert, .. } => self.insert_plans(snapshot, insert, types),
            change => {
                let searched = self.searched(change)?;
                searched.iter().map(|change| self.plan_query(snapshot, change.query(), types)).collect()
            }
        }
    }

    fn returned_by(&self, change: &Statement, types: &[Option<FieldRef>]) -> Result<Option<SchemaRef>> {
        match change {
            Statement::Insert { insert, .. } => self.insert_returning(insert),
            change => self.searched(change)?.map_or(Ok(None), |change| self.describe_returning(&change, types)),
        }
    }

    pub(super) async fn run_with(&mut self, changes: &[Statement], last: &Statement, parameters: Bound) -> Result<Outcome> {
        if self.transaction.is_some() {
            return self.run_parts(changes, last, &parameters).await;
        }
        for attempt in 0.. {
            self.begin_implicit()?;
            let outcome = match self.run_parts(changes, last, &parameters).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    self.rollback();
                    return Err(error);
                }
            };
            match self.commit().await {
                Ok(_) => return Ok(outcome),
                Err(error) if is_conflict(&error, attempt) => self.await_others().await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("an endless loop has ended"))
    }

    /// All of them, in the block at hand.
    async fn run_parts(&mut self, changes: &[Statement], last: &Statement, parameters: &Bound) -> Result<Outcome> {
        let snapshot = self.snapshot().await?;
        self.hold(Some(snapshot));
        self.returned.forget();
        let outcome = self.run_held(changes, last, parameters).await;
        self.returned.forget();
        self.hold(None);
        outcome
    }

    fn hold(&mut self, snapshot: Option<Arc<Snapshot>>) {
        self.transaction.iter_mut().for_each(|transaction| transaction.held.clone_from(&snapshot));
    }

    async fn run_held(&mut self, changes: &[Statement], last: &Statement, parameters: &Bound) -> Result<Outcome> {
        for change in changes {
            let (schema, batches) = match self.run_part(change, parameters).await? {
                Outcome::Rows(rows) => {
                    let schema = Arc::clone(&rows.schema);
                    (schema, self.gathered(rows).await?)
                }
                _ => (Arc::new(Schema::empty()), Vec::new()),
            };
            self.returned.push(&schema, batches)?;
        }
        match self.run_part(last, parameters).await? {
            // What goes wrong in it must take the changes back.
            Outcome::Rows(rows) => {
                let (schema, tag) = (Arc::clone(&rows.schema), rows.tag);
                let batches = self.gathered(rows).await?;
                let batches = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
                Ok(Outcome::Rows(Rows { schema, batches, tag, live: false }))
            }
            outcome => Ok(outcome),
        }
    }

    async fn run_part(&mut self, part: &Statement, parameters: &Bound) -> Result<Outcome> {
        let parameters = parameters.clone();
        match part {
            Statement::Insert { insert, options } => self.insert(insert, options, parameters).await,
            Statement::Update { with, update } => self.update(with.as_ref(), update, parameters).await,
            Statement::Delete { with, delete } => self.delete(with.as_ref(), delete, parameters).await,
            Statement::Query { query, .. } => self.select(query, parameters, &Known::default()).await,
            _ => Err(Error::internal("a WITH has INSERT, UPDATE, DELETE and queries")),
        }
    }

    /// All rows, within the statement's memory.
    async fn gathered(&mut self, rows: Rows) -> Result<Vec<RecordBatch>> {
        let held = MemoryConsumer::new("rows").register(&self.query_options().runtime.memory_pool);
        let batches = rows.batches.and_then(|rows| {
            let reserved = held.try_grow(rows.get_array_memory_size());
            async move { reserved.map(|()| rows).map_err(Error::from) }
        });
        batches.try_collect().await
    }
}
