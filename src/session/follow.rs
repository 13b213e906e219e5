//! Following: SUBSCRIBE and SELECT … EMIT, which run until they are cancelled.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use sqlparser::ast as sp;

use super::define::existing;
use super::read::planner_over;
use super::{Bound, Client, Outcome, Rows};
use crate::catalog::{Emit, Kind, ROW_ID, Relation, RelationId};
use crate::engine::{Source, Span, Subscription, Update};
use crate::error::{Error, Result};
use crate::flow::Fragment;
use crate::sql::ast::{Subscribe, SubscribeTarget};
use crate::sql::batch::history;
use crate::sql::lower::lower;

impl Client {
    /// The operators of a running query.
    fn fragment(&self, query: &sp::Query, emit: Emit) -> Result<Fragment> {
        let planner = planner_over(&self.database, Arc::clone(&self.peek_snapshot().catalog), self.reader())
            .for_session(self.path(), &self.database_name);
        lower(&planner, &planner.continuous(query, emit)?, emit)
    }

    pub(super) async fn follow_query(&mut self, query: &sp::Query, emit: Emit, parameters: Bound) -> Result<Outcome> {
        if !parameters.is_empty() {
            return Err(Error::unsupported("a running query cannot have parameters").with_hint("write the values into the query"));
        }
        let what = match emit {
            Emit::Every(_) => Some("EMIT CHANGES WITH DELAY"),
            Emit::FinalOrSilent(_) => Some("EMIT FINAL AND TIMEOUT"),
            Emit::Changes | Emit::Final => None,
        };
        if let Some(what) = what {
            let error = Error::unsupported(format!("{what} is for materialized views, not for a query that a client follows"));
            return Err(error.with_hint(format!("CREATE MATERIALIZED VIEW … {what} …, and SELECT … FROM it EMIT CHANGES")));
        }
        self.await_own_writes().await?;
        let (query, limit) = take_limit(query)?;
        let fragment = self.fragment(&query, emit)?;
        let schema = Arc::clone(&fragment.edge.schema);
        let subscription = self.database.engine.subscribe(Source::Query(Box::new(fragment)), from_now(true));
        let rows = subscription.map(|update| update.and_then(present)).try_filter(|rows| {
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
            SubscribeTarget::Name(name) => existing(&self.peek_snapshot().catalog, &self.relation_name(name)?)?.schema(),
            SubscribeTarget::Query(query) => self.describe_query(query, &[])?.1,
        };
        Ok(change_schema(&schema, subscribe.progress))
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Outcome> {
        self.await_own_writes().await?;
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let source = match &subscribe.target {
            SubscribeTarget::Query(query) => Source::Query(Box::new(self.fragment(query, Emit::Changes)?)),
            SubscribeTarget::Name(name) => self.source_of(existing(&catalog, &self.relation_name(name)?)?)?,
        };
        let schema = self.describe_subscribe(subscribe)?;
        let relation = if let Source::Relation(id) = &source { Some(*id) } else { None };
        let span = self.span_of(subscribe, relation)?;
        if let Some(as_of) = span.as_of {
            self.database.engine.wait_for(as_of).await?;
        }
        if span.as_of.is_some() && span.as_of == span.up_to {
            let batches = futures::stream::empty().boxed();
            return Ok(Outcome::Rows(Rows { schema, batches, tag: "SUBSCRIBE", live: true }));
        }
        let subscription = self.database.engine.subscribe(source, span);
        Ok(Outcome::Rows(changes(subscription, schema, subscribe.progress)))
    }

    /// From where to where. A subscription with an end has a beginning, too: the newest commit, if it names none.
    fn span_of(&self, subscribe: &Subscribe, relation: Option<RelationId>) -> Result<Span> {
        let Subscribe { snapshot, progress, as_of, up_to, .. } = *subscribe;
        let newest = self.database.engine.snapshot().commit;
        if let Some(as_of) = as_of {
            let end = self.database.log.end();
            if as_of > end {
                let error = Error::invalid_parameter(format!("commit {as_of} has not happened yet"));
                return Err(error.with_hint(format!("the newest commit is {end}; without AS OF a subscription begins there")));
            }
            if let Some(id) = relation {
                history::must_exist(&self.database.log, &self.peek_snapshot().catalog, id, as_of)?;
            }
        }
        let as_of = as_of.or(up_to.map(|_| newest));
        if let (Some(from), Some(to)) = (as_of, up_to)
            && from > to
        {
            let error = Error::invalid_parameter(format!("a subscription that begins at commit {from} cannot end at {to}"));
            return Err(error.with_hint("UP TO is the first commit that is not shown; AS OF names an earlier one to begin with"));
        }
        Ok(Span { snapshot, as_of, up_to, progress })
    }

    fn source_of(&self, relation: &Arc<Relation>) -> Result<Source> {
        match relation.kind {
            Kind::Table | Kind::MaterializedView | Kind::Late => Ok(Source::Relation(relation.id)),
            Kind::Query | Kind::Sink => {
                let what = if relation.kind == Kind::Sink { "sink" } else { "running INSERT" };
                Err(Error::wrong_object_type(format!("\"{}\" is a {what}, which has no rows of its own", relation.name)))
            }
            Kind::Stream | Kind::View => {
                let text = format!("SELECT * FROM {}", relation.full_name().to_sql());
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
        let name = self.relation_name(name)?;
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let relation = existing(&catalog, &name)?;
        if relation.kind != Kind::Stream {
            return Err(
                Error::wrong_object_type(format!("\"{name}\" is not a stream")).with_hint("use SUBSCRIBE for tables and views")
            );
        }
        let text = format!("SELECT _partition, _offset, _ingested_at, * FROM {}", name.to_sql());
        let mut parsed = crate::sql::parse::parse(&text)?;
        let Some(crate::sql::ast::Statement::Query { query, .. }) = parsed.pop().map(|p| p.statement) else {
            return Err(Error::internal("a SELECT was read as something else"));
        };
        self.await_own_writes().await?;
        let fragment = self.fragment(&query, Emit::Changes)?;
        let schema = Arc::clone(&fragment.edge.schema);
        let subscription = self.database.engine.subscribe(Source::Query(Box::new(fragment)), from_now(from_beginning));
        let rows = subscription.map(|update| update.and_then(present)).boxed();
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

fn from_now(snapshot: bool) -> Span {
    Span { snapshot, ..Span::default() }
}

/// The rows that a change adds, each as often as it is added.
fn present(update: Update) -> Result<RecordBatch> {
    let delta = update.delta.ok_or_else(|| Error::internal("nobody asked for progress"))?;
    if delta.diff.is_none() {
        return Ok(delta.rows);
    }
    let indices = (0..delta.len()).flat_map(|row| std::iter::repeat_n(row as u32, delta.weight(row).max(0) as usize));
    Ok(arrow::compute::take_record_batch(&delta.rows, &UInt32Array::from_iter_values(indices))?)
}

/// `commit`, `diff`, then the columns. With progress: `commit`, `progressed`, `diff`, and all but the first two may be NULL.
fn change_schema(schema: &SchemaRef, progress: bool) -> SchemaRef {
    let commit = Arc::new(Field::new("commit", DataType::Int64, false));
    let progressed = progress.then(|| Arc::new(Field::new("progressed", DataType::Boolean, false)));
    let diff = Arc::new(Field::new("diff", DataType::Int64, progress));
    let columns = schema.fields().iter().map(|field| match progress {
        true => Arc::new(field.as_ref().clone().with_nullable(true)),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new([Some(commit), progressed, Some(diff)].into_iter().flatten().chain(columns).collect::<Vec<_>>()))
}

fn changes(subscription: Subscription, schema: SchemaRef, progress: bool) -> Rows {
    let shape = Arc::clone(&schema);
    let batches = subscription.map(move |update| update.and_then(|update| change(&update, &shape, progress))).boxed();
    Rows { schema, batches, tag: "SUBSCRIBE", live: true }
}

fn change(update: &Update, schema: &SchemaRef, progress: bool) -> Result<RecordBatch> {
    let commit = |count| Arc::new(Int64Array::from_value(update.commit as i64, count)) as ArrayRef;
    let progressed = |count| progress.then(|| Arc::new(BooleanArray::from(vec![update.delta.is_none(); count])) as ArrayRef);
    let Some(delta) = &update.delta else {
        let nothing = schema.fields().iter().skip(2).map(|field| new_null_array(field.data_type(), 1));
        let columns = [Some(commit(1)), progressed(1)].into_iter().flatten().chain(nothing).collect();
        return Ok(RecordBatch::try_new(Arc::clone(schema), columns)?);
    };
    let count = delta.len();
    let diff = delta.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, count));
    let lead = [Some(commit(count)), progressed(count), Some(Arc::new(diff) as ArrayRef)];
    // The row id of a table without a key is its own affair.
    let hidden = usize::from(delta.rows.schema_ref().fields().first().is_some_and(|f| f.name() == ROW_ID));
    let columns = lead.into_iter().flatten().chain(delta.rows.columns()[hidden..].iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
