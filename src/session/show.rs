//! Looking around: VERIFY, SHOW and DESCRIBE.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlparser::ast as sp;

use super::define::existing;
use super::function::find_function;
use super::read::{planner_over, source};
use super::{Client, Outcome, Rows};
use crate::catalog::Relation;
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::ast::Statement;
use crate::sql::plan::Reader;
use crate::sql::system::show;
use crate::sql::{batch, lateness, rename, verify};
use crate::view::Snapshot;

impl Client {
    /// Columns of what SHOW and its like return; `None` for statements that return no rows.
    pub(super) fn describe_show(&self, statement: &Statement) -> Result<Option<SchemaRef>> {
        Ok(match statement {
            Statement::Explain { format, .. } => Some(super::explain::schema(format.as_deref())),
            Statement::ShowSetting(name) if name == "all" => Some(text_schema(&["name", "setting", "description"])),
            Statement::ShowSetting(name) => Some(text_schema(&[self.setting_name(name)?.as_str()])),
            Statement::ShowObjects(_)
            | Statement::ShowCreate(_)
            | Statement::ShowCreateFunction(_)
            | Statement::Describe { .. } => Some(self.look(statement)?.schema()),
            Statement::Verify(_) => Some(verify::schema()),
            Statement::AnalyzeWatermark(_) => Some(lateness::schema()),
            _ => None,
        })
    }

    /// The answer of SHOW objects, SHOW CREATE and DESCRIBE.
    fn look(&self, statement: &Statement) -> Result<RecordBatch> {
        let snapshot = self.peek_snapshot();
        let context = self.system_context(&snapshot);
        let relation = |name: &sp::ObjectName| existing(&snapshot.catalog, &self.relation_name(name)?).cloned();
        match statement {
            Statement::ShowObjects(what) => show::objects(&context, *what),
            Statement::ShowCreate(name) => {
                let relation = relation(name)?;
                let sql = rename::shown(&snapshot.catalog, &self.path(), &relation.create_sql);
                show::create(&relation.full_name().to_string(), &sql)
            }
            Statement::ShowCreateFunction(name) => {
                let function = find_function(&snapshot.catalog, name)?;
                show::create(&function.signature(), &function.create_sql)
            }
            Statement::Describe { extended, name } => show::describe(&context, relation(name)?.as_ref(), *extended),
            _ => Err(Error::internal("a statement that shows nothing")),
        }
    }

    fn setting_name(&self, name: &str) -> Result<String> {
        let known = self.settings.all().into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known
            .map(|(name, _)| name)
            .ok_or_else(|| Error::undefined_object(format!("unrecognized configuration parameter \"{name}\"")))
    }

    pub(super) async fn show(&mut self, statement: &Statement) -> Result<Outcome> {
        match statement {
            Statement::ShowSetting(name) if name == "all" => {
                let settings = self.settings.all();
                let names = settings.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
                let values = settings.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>();
                let blank = vec![""; names.len()];
                table(&["name", "setting", "description"], vec![names, values, blank], "SHOW")
            }
            Statement::ShowSetting(name) => {
                let name = self.setting_name(name)?;
                let value = self.settings.get(&name).unwrap_or_default();
                table(&[&name], vec![vec![value.as_str()]], "SHOW")
            }
            other => {
                self.await_own_writes().await?;
                let rows = self.look(other)?;
                Ok(Outcome::Rows(Rows {
                    schema: rows.schema(),
                    batches: Box::pin(futures::stream::iter([Ok(rows)])),
                    tag: "SHOW",
                    live: false,
                }))
            }
        }
    }

    pub(super) async fn analyze_watermark(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        let snapshot = self.snapshot().await?;
        let stream = Arc::clone(existing(&snapshot.catalog, &self.relation_name(name)?)?);
        let (log, upto) = (self.database.log.clone(), snapshot.commit);
        let rows = tokio::task::spawn_blocking(move || lateness::analyze(&log, &stream, upto)).await;
        let rows = rows.map_err(|_| Error::internal("reading a stream panicked"))??;
        let (schema, batches) = (rows.schema(), Box::pin(futures::stream::iter([Ok(rows)])));
        Ok(Outcome::Rows(Rows { schema, batches, tag: "ANALYZE", live: false }))
    }

    pub(super) async fn verify(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        let mut snapshot = self.snapshot().await?;
        let name = self.relation_name(name)?;
        let view = Arc::clone(existing(&snapshot.catalog, &name)?);
        let mut written = None;
        if view.is_derived() {
            if view.paused.is_none() {
                snapshot = self.all_written(&view, snapshot).await?;
            }
            // It has said nothing of the commits since.
            if !snapshot.consumed.contains_key(&view.id) {
                written = Some(self.database.log.position_of(view.id)?);
            }
        }
        let planner = planner_over(&self.database, Arc::clone(&snapshot.catalog), Reader::Server);
        let source = source(&self.database, &snapshot);
        let options = batch::Options { formats: Formats::default(), ..self.query_options() };
        let rows = verify::verify(&planner, &view, &source, written, &options).await?;
        let schema = rows.schema();
        Ok(Outcome::Rows(Rows { schema, batches: Box::pin(futures::stream::iter([Ok(rows)])), tag: "VERIFY", live: false }))
    }

    /// A snapshot in which a derived stream has everything that its query says at that commit.
    async fn all_written(&mut self, stream: &Relation, now: Arc<Snapshot>) -> Result<Arc<Snapshot>> {
        let id = stream.id;
        let settled = move |s: &Snapshot| s.failures.contains_key(&id) || s.consumed.get(&id) == Some(&s.commit);
        if settled(&now) {
            return Ok(now);
        }
        let wait = self.database.engine.wait_until(settled);
        match tokio::time::timeout(limits::OWN_WRITES_WAIT, wait).await {
            Ok(snapshot) => snapshot,
            Err(_) => Err(Error::not_ready(format!("\"{}\" is always a little behind what it reads", stream.name))
                .with_hint("VERIFY compares at a commit that the stream has fully consumed: try when fewer rows come")),
        }
    }
}

fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// Columns of text as an answer.
fn table(names: &[&str], columns: Vec<Vec<&str>>, tag: &'static str) -> Result<Outcome> {
    let schema = text_schema(names);
    let columns = columns.into_iter().map(|values| Arc::new(StringArray::from(values)) as ArrayRef).collect();
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Outcome::Rows(Rows { schema, batches: Box::pin(futures::stream::iter([Ok(rows)])), tag, live: false }))
}
