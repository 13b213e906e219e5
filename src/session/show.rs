//! Looking around: EXPLAIN, VERIFY, SHOW and DESCRIBE.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlparser::ast as sp;

use super::define::existing;
use super::function::find_function;
use super::read::{planner_over, source};
use super::{Client, Outcome, Parameters, Rows};
use crate::catalog::{Emit, Kind, Relation};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::ast::{ExplainOf, Statement};
use crate::sql::lower::{explain, lower};
use crate::sql::plan::Reader;
use crate::sql::system::show;
use crate::sql::{batch, lateness, plan, rename, verify};
use crate::view::Snapshot;

impl Client {
    /// Columns of what SHOW and its like return; `None` for statements that return no rows.
    pub(super) fn describe_show(&self, statement: &Statement) -> Result<Option<SchemaRef>> {
        Ok(match statement {
            Statement::Explain { .. } => Some(text_schema(&["QUERY PLAN"])),
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

    pub(super) async fn explain(
        &mut self,
        of: &ExplainOf,
        analyze: bool,
        verbose: bool,
        format: Option<&str>,
        parameters: Parameters,
    ) -> Result<Outcome> {
        if analyze {
            return Err(
                Error::unsupported("EXPLAIN ANALYZE is not supported yet").with_hint("EXPLAIN shows the plan without running it")
            );
        }
        let as_json = format.is_some_and(|format| format.eq_ignore_ascii_case("json"));
        if let Some(format) = format.filter(|f| !as_json && !f.eq_ignore_ascii_case("text")) {
            return Err(Error::unsupported(format!("EXPLAIN (FORMAT {format}) is not supported"))
                .with_hint("write EXPLAIN (FORMAT JSON), or leave it out"));
        }
        let snapshot = self.snapshot().await?;
        let lines = match of {
            ExplainOf::Name(name) => {
                let name = self.relation_name(name)?;
                let view = existing(&snapshot.catalog, &name)?;
                if view.kind != Kind::MaterializedView && view.output.is_none() {
                    let message = format!("\"{name}\" is a {}, which runs no query", view.kind.noun());
                    return Err(
                        Error::wrong_object_type(message).with_hint(format!("EXPLAIN SELECT * FROM {name} shows how it is read"))
                    );
                }
                let planner = planner_over(&self.database, Arc::clone(&snapshot.catalog), Reader::Server);
                let writes = view.output.as_ref().and_then(|output| snapshot.catalog.get(output.target));
                let fragment = lower(&planner, &planner.continuous_view(view)?, view.emit)?;
                let into = writes.map(|target| format!("Write: {} {}", target.kind.noun(), target.full_name()));
                into.into_iter().chain(explain(&fragment, &snapshot.catalog)).collect()
            }
            ExplainOf::Statement(statement) => match statement.as_ref() {
                Statement::CreateMaterializedView(create) | Statement::CreateDerivedStream(create) => {
                    self.explain_continuous(&create.query, create.emit)?
                }
                Statement::RunningInsert(running) => match &running.insert.source {
                    Some(query) => self.explain_continuous(query, running.emit)?,
                    None => Vec::new(),
                },
                Statement::Query { query, emit: Some(emit) } => self.explain_continuous(query, *emit)?,
                Statement::Query { query, emit: None } => {
                    let types: Vec<_> = parameters.iter().map(|value| Some(value.data_type())).collect();
                    let plan = self.plan_query(&snapshot, query, &types)?;
                    let plan = if parameters.is_empty() { plan } else { plan::bind(plan, parameters)? };
                    explain_batch(&self.database, plan, &snapshot, &self.query_options(), verbose).await?
                }
                _ => {
                    return Err(Error::unsupported(
                        "EXPLAIN takes a query, CREATE … AS, INSERT … EMIT, or the name of what such a statement made",
                    ));
                }
            },
        };
        let lines = if as_json { vec![explained_json(&lines)] } else { lines };
        table(&["QUERY PLAN"], vec![lines.iter().map(String::as_str).collect()], "EXPLAIN")
    }

    fn explain_continuous(&self, query: &sp::Query, emit: Emit) -> Result<Vec<String>> {
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let planner =
            planner_over(&self.database, Arc::clone(&catalog), self.reader()).for_session(self.path(), &self.database_name);
        Ok(explain(&lower(&planner, &planner.continuous(query)?, emit)?, &catalog))
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
        let rows = verify::verify(&planner, &view, &source, written, &self.query_options()).await?;
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

async fn explain_batch(
    database: &Arc<Database>,
    plan: datafusion::logical_expr::LogicalPlan,
    snapshot: &Arc<Snapshot>,
    options: &batch::Options,
    verbose: bool,
) -> Result<Vec<String>> {
    let logical = plan.display_indent().to_string();
    let state = batch::session(&database.state, options)?;
    let physical = batch::physical(plan, &source(database, snapshot), &state, options).await?;
    let physical = datafusion::physical_plan::displayable(physical.as_ref()).indent(verbose).to_string();
    let lines = if verbose { format!("{logical}\n{physical}") } else { physical };
    Ok(lines.lines().map(str::to_string).collect())
}

/// The lines of a plan, whose indentation says what is below what, as PostgreSQL's JSON has plans.
fn explained_json(lines: &[String]) -> String {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut nodes: Vec<(usize, serde_json::Value)> = Vec::new();
    let close = |nodes: &mut Vec<(usize, serde_json::Value)>| {
        let Some((_, closed)) = nodes.pop() else { return };
        match nodes.last_mut().and_then(|(_, above)| above["Plans"].as_array_mut()) {
            Some(plans) => plans.push(closed),
            None => nodes.push((0, closed)),
        }
    };
    for line in lines.iter().filter(|line| !line.trim().is_empty()) {
        while nodes.len() > 1 && nodes.last().is_some_and(|(above, _)| *above >= depth(line)) {
            close(&mut nodes);
        }
        let text = line.trim();
        let name = text.split([':', '(', ' ']).next().unwrap_or_default();
        nodes.push((depth(line), serde_json::json!({ "Node Type": name, "Details": text, "Plans": [] })));
    }
    while nodes.len() > 1 {
        close(&mut nodes);
    }
    let plan = nodes.pop().map_or(serde_json::Value::Null, |(_, root)| root);
    let text = serde_json::to_string_pretty(&serde_json::json!([{ "Plan": plan }]));
    text.unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::explained_json;

    #[test]
    fn a_plan_as_json() {
        let lines = ["Join: a = b", "  Filter: x", "    Scan: t", "  Scan: u"].map(str::to_string);
        let json: serde_json::Value = serde_json::from_str(&explained_json(&lines)).unwrap();
        let plan = &json[0]["Plan"];
        assert_eq!(plan["Node Type"], "Join");
        assert_eq!(
            (&plan["Plans"][0]["Plans"][0]["Details"], &plan["Plans"][1]["Details"]),
            (&"Scan: t".into(), &"Scan: u".into())
        );
    }
}
