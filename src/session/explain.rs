//! EXPLAIN: the plan of a query, as text or JSON; with ANALYZE, what each of its steps did.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use futures::TryStreamExt;
use sqlparser::ast as sp;

use super::define::{check_on_error, existing};
use super::read::{planner_over, source};
use super::{Bound, Client, Outcome, Rows};
use crate::catalog::{Emit, Kind};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::sql::ast::{ExplainOf, Options, Statement};
use crate::sql::lower::{explain, lower};
use crate::sql::plan::Reader;
use crate::sql::types::with_type;
use crate::sql::{batch, plan};
use crate::view::Snapshot;

/// How much is told of a query that ends.
#[derive(Clone, Copy)]
struct Depth {
    /// It is run, and its steps say what they did.
    analyze: bool,
    /// The logical plan, too.
    verbose: bool,
}

/// The column that a plan is shown in.
pub(super) fn schema(format: Option<&str>) -> SchemaRef {
    let field = Field::new("QUERY PLAN", DataType::Utf8, true);
    Arc::new(Schema::new(vec![if is_json(format) { with_type(field, "json") } else { field }]))
}

fn is_json(format: Option<&str>) -> bool {
    format.is_some_and(|format| format.eq_ignore_ascii_case("json"))
}

fn runs_once(of: &ExplainOf) -> bool {
    matches!(of, ExplainOf::Statement(statement) if matches!(**statement, Statement::Query { emit: None, .. }))
}

impl Client {
    pub(super) async fn explain(
        &mut self,
        of: &ExplainOf,
        analyze: bool,
        verbose: bool,
        format: Option<&str>,
        parameters: Bound,
    ) -> Result<Outcome> {
        if let Some(format) = format.filter(|f| !is_json(Some(f)) && !f.eq_ignore_ascii_case("text")) {
            return Err(Error::unsupported(format!("EXPLAIN (FORMAT {format}) is not supported"))
                .with_hint("write EXPLAIN (FORMAT JSON), or leave it out"));
        }
        if analyze && !runs_once(of) {
            return Err(Error::unsupported("EXPLAIN ANALYZE takes a query that ends")
                .with_hint("EXPLAIN shows the plan of one that runs, and tidegate.views what it has done"));
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
                let planner = planner.for_query(&view.options, &view.name);
                let writes = view.output.as_ref().and_then(|output| snapshot.catalog.get(output.target));
                let fragment = lower(&planner, &planner.continuous_view(view)?, view.emit)?;
                let into = writes.map(|target| format!("Write: {} {}", target.kind.noun(), target.full_name()));
                into.into_iter().chain(explain(&fragment, &snapshot.catalog)).collect()
            }
            ExplainOf::Statement(statement) => match statement.as_ref() {
                Statement::CreateMaterializedView(create)
                | Statement::CreateDerivedStream(create)
                | Statement::CreateSink(create) => {
                    check_on_error(&create.options)?;
                    self.explain_continuous(&create.query, create.emit, &create.options)?
                }
                Statement::RunningInsert(running) => match &running.insert.source {
                    Some(query) => self.explain_continuous(query, running.emit, &running.options)?,
                    None => Vec::new(),
                },
                Statement::Query { query, emit: Some(emit) } => self.explain_continuous(query, *emit, &Options::new())?,
                Statement::Query { query, emit: None } => {
                    let plan = self.plan_query(&snapshot, query, &parameters.types)?;
                    let plan = plan::bind(plan, parameters)?;
                    explain_batch(&self.database, plan, &snapshot, &self.query_options(), Depth { analyze, verbose }).await?
                }
                _ => {
                    return Err(Error::unsupported(
                        "EXPLAIN takes a query, CREATE … AS, INSERT … EMIT, or the name of what such a statement made",
                    ));
                }
            },
        };
        let lines = if is_json(format) { vec![explained_json(&lines)] } else { lines };
        let (schema, column) = (schema(format), Arc::new(StringArray::from(lines)) as ArrayRef);
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column])?;
        Ok(Outcome::Rows(Rows { schema, batches: Box::pin(futures::stream::iter([Ok(rows)])), tag: "EXPLAIN", live: false }))
    }

    fn explain_continuous(&self, query: &sp::Query, emit: Emit, options: &Options) -> Result<Vec<String>> {
        let catalog = Arc::clone(&self.peek_snapshot().catalog);
        let planner =
            planner_over(&self.database, Arc::clone(&catalog), self.reader()).for_session(self.path(), &self.database_name);
        let planner = planner.for_query(options, "EXPLAIN");
        Ok(explain(&lower(&planner, &planner.continuous(query, emit)?, emit)?, &catalog))
    }
}

async fn explain_batch(
    database: &Arc<Database>,
    plan: datafusion::logical_expr::LogicalPlan,
    snapshot: &Arc<Snapshot>,
    options: &batch::Options,
    depth: Depth,
) -> Result<Vec<String>> {
    let logical = plan.display_indent().to_string();
    let state = batch::session(&database.state, options)?;
    let physical = batch::physical(plan, &source(database, snapshot), &state, options).await?;
    let took = match depth.analyze {
        true => Some(run(&physical, &state).await?),
        false => None,
    };
    let shown = match took {
        Some(_) => DisplayableExecutionPlan::with_metrics(physical.as_ref()),
        None => DisplayableExecutionPlan::new(physical.as_ref()),
    };
    let physical = shown.indent(depth.verbose).to_string();
    let lines = if depth.verbose { format!("{logical}\n{physical}") } else { physical };
    let took = took.map(|took| format!("Execution Time: {:.3} ms", took.as_secs_f64() * 1000.0));
    Ok(lines.lines().map(str::to_string).chain(took).collect())
}

/// All of a query, whose rows nobody wants; says how long it took.
async fn run(physical: &Arc<dyn ExecutionPlan>, state: &SessionState) -> Result<Duration> {
    let start = tokio::time::Instant::now();
    let mut rows = batch::run(Arc::clone(physical), state)?;
    while rows.try_next().await?.is_some() {}
    Ok(start.elapsed())
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
