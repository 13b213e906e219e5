//! Following: SUBSCRIBE and SELECT … EMIT, which run until they are cancelled.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use sqlparser::ast as sp;

use super::define::{existing, relation_name};
use super::read::planner_over;
use super::{Client, Outcome, Parameters, Rows};
use crate::catalog::{Emit, Kind, ROW_ID, Relation};
use crate::delta::Delta;
use crate::engine::{Source, Subscription, Update};
use crate::error::{Error, Result};
use crate::flow::Fragment;
use crate::sql::ast::{Subscribe, SubscribeTarget};
use crate::sql::lower::lower;

impl Client {
    /// The operators of a running query.
    fn fragment(&self, query: &sp::Query, emit: Emit) -> Result<Fragment> {
        let planner = planner_over(&self.database, Arc::clone(&self.peek_snapshot().catalog), self.reader());
        lower(&planner, &planner.continuous(query)?, emit)
    }

    pub(super) async fn follow_query(&mut self, query: &sp::Query, emit: Emit, parameters: Parameters) -> Result<Outcome> {
        if !parameters.is_empty() {
            return Err(Error::unsupported("a running query cannot have parameters").with_hint("write the values into the query"));
        }
        self.await_own_writes().await?;
        let (query, limit) = take_limit(query)?;
        let fragment = self.fragment(&query, emit)?;
        let schema = Arc::clone(&fragment.edge.schema);
        let subscription = self.database.engine.subscribe(Source::Query(Box::new(fragment)), true);
        let rows = subscription.map(|update| update.and_then(|update| present(&update.delta))).try_filter(|rows| {
            let any = rows.num_rows() > 0;
            futures::future::ready(any)
        });
        let batches = match limit {
            None => rows.boxed(),
            Some(limit) => limited(rows.boxed(), limit).boxed(),
        };
        Ok(Outcome::Rows(Rows { schema, batches, tag: "SELECT", live: true }))
    }

    pub(super) fn describe_subscribe(&self, subscribe: &Subscribe) -> Result<SchemaRef> {
        let schema = match &subscribe.target {
            SubscribeTarget::Name(name) => existing(&self.peek_snapshot().catalog, &relation_name(name)?)?.schema(),
            SubscribeTarget::Query(query) => self.describe_query(query, &[])?.1,
        };
        Ok(change_schema(&schema))
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Outcome> {
        if subscribe.as_of.is_some() || subscribe.up_to.is_some() || subscribe.progress {
            return Err(Error::unsupported("SUBSCRIBE … AS OF, UP TO and PROGRESS are not supported yet")
                .with_hint("a new SUBSCRIBE begins with the rows as they are, and gives their commit"));
        }
        self.await_own_writes().await?;
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let source = match &subscribe.target {
            SubscribeTarget::Query(query) => Source::Query(Box::new(self.fragment(query, Emit::Changes)?)),
            SubscribeTarget::Name(name) => self.source_of(existing(&catalog, &relation_name(name)?)?)?,
        };
        let schema = self.describe_subscribe(subscribe)?;
        let subscription = self.database.engine.subscribe(source, subscribe.snapshot);
        Ok(Outcome::Rows(changes(subscription, schema)))
    }

    fn source_of(&self, relation: &Arc<Relation>) -> Result<Source> {
        match relation.kind {
            Kind::Table | Kind::MaterializedView | Kind::Late => Ok(Source::Relation(relation.id)),
            Kind::Stream | Kind::View => {
                let text = format!("SELECT * FROM {}", super::define::quote_ident(&relation.name));
                let mut parsed = crate::sql::parse::parse(&text)?;
                let Some(crate::sql::ast::Statement::Query { query, .. }) = parsed.pop().map(|p| p.statement) else {
                    return Err(Error::internal("a SELECT was read as something else"));
                };
                Ok(Source::Query(Box::new(self.fragment(&query, Emit::Changes)?)))
            }
        }
    }

    /// `PRINT stream`: its rows as they come, with where they stand.
    pub(super) async fn print(&mut self, name: &sp::ObjectName, from_beginning: bool, limit: Option<u64>) -> Result<Outcome> {
        let name = relation_name(name)?;
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let relation = existing(&catalog, &name)?;
        if relation.kind != Kind::Stream {
            return Err(
                Error::wrong_object_type(format!("\"{name}\" is not a stream")).with_hint("use SUBSCRIBE for tables and views")
            );
        }
        let text = format!("SELECT _partition, _offset, _ingested_at, * FROM {}", super::define::quote_ident(&name));
        let mut parsed = crate::sql::parse::parse(&text)?;
        let Some(crate::sql::ast::Statement::Query { query, .. }) = parsed.pop().map(|p| p.statement) else {
            return Err(Error::internal("a SELECT was read as something else"));
        };
        self.await_own_writes().await?;
        let fragment = self.fragment(&query, Emit::Changes)?;
        let schema = Arc::clone(&fragment.edge.schema);
        let subscription = self.database.engine.subscribe(Source::Query(Box::new(fragment)), from_beginning);
        let rows = subscription.map(|update| update.and_then(|update| present(&update.delta))).boxed();
        let batches = match limit {
            None => rows,
            Some(limit) => limited(rows, limit).boxed(),
        };
        Ok(Outcome::Rows(Rows { schema, batches, tag: "PRINT", live: true }))
    }
}

/// The query without its LIMIT, and the LIMIT: of a running query it counts the rows that are shown.
fn take_limit(query: &sp::Query) -> Result<(sp::Query, Option<u64>)> {
    let mut query = query.clone();
    let limit = match query.limit_clause.take() {
        None => None,
        Some(sp::LimitClause::LimitOffset { limit, offset: None, limit_by }) if limit_by.is_empty() => limit,
        Some(_) => return Err(Error::unsupported("OFFSET is not supported in a running query")),
    };
    let count = match limit {
        None => None,
        Some(sp::Expr::Value(value)) => match value.value {
            sp::Value::Number(text, _) => {
                Some(text.parse::<u64>().map_err(|_| Error::syntax(format!("LIMIT {text} is no count")))?)
            }
            sp::Value::Null => None,
            other => return Err(Error::syntax(format!("LIMIT {other} is no count"))),
        },
        Some(other) => return Err(Error::unsupported(format!("LIMIT {other} must be a number in a running query"))),
    };
    Ok((query, count))
}

/// Rows until there were so many.
pub(super) fn limited(
    rows: futures::stream::BoxStream<'static, Result<RecordBatch>>,
    limit: u64,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold((rows, limit), |(mut rows, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        match rows.try_next().await? {
            None => Ok(None),
            Some(batch) => {
                let count = left.min(batch.num_rows() as u64);
                Ok(Some((batch.slice(0, count as usize), (rows, left - count))))
            }
        }
    })
}

/// The rows that a change adds, each as often as it is added.
fn present(delta: &Delta) -> Result<RecordBatch> {
    if delta.diff.is_none() {
        return Ok(delta.rows.clone());
    }
    let indices = (0..delta.len()).flat_map(|row| std::iter::repeat_n(row as u32, delta.weight(row).max(0) as usize));
    Ok(arrow::compute::take_record_batch(&delta.rows, &UInt32Array::from_iter_values(indices))?)
}

/// `commit`, `diff`, then the columns.
fn change_schema(schema: &SchemaRef) -> SchemaRef {
    let lead = [Field::new("commit", DataType::Int64, false), Field::new("diff", DataType::Int64, false)].map(Arc::new);
    Arc::new(Schema::new(lead.into_iter().chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

fn changes(subscription: Subscription, schema: SchemaRef) -> Rows {
    let shape = Arc::clone(&schema);
    let batches = subscription.map(move |update| update.and_then(|update| change(&update, &shape))).boxed();
    Rows { schema, batches, tag: "SUBSCRIBE", live: true }
}

fn change(update: &Update, schema: &SchemaRef) -> Result<RecordBatch> {
    let count = update.delta.len();
    let diff = update.delta.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, count));
    let lead: [ArrayRef; 2] = [Arc::new(Int64Array::from_value(update.commit as i64, count)), Arc::new(diff)];
    // The row id of a table without a key is its own affair.
    let hidden = usize::from(update.delta.rows.schema_ref().fields().first().is_some_and(|f| f.name() == ROW_ID));
    let columns = lead.into_iter().chain(update.delta.rows.columns()[hidden..].iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
