//! Running queries that write to the log: CREATE STREAM … AS, and INSERT INTO … SELECT … EMIT CHANGES.
//!
//! What cannot be written is refused here: rows that change later into a stream, rows without a key into a table, and queries
//! that would read what they write.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast as sp;

use super::client::done;
use super::define::{check_dependents, check_new_name, check_on_error, collect, column_index, durability, partitions};
use super::definition::Definition;
use super::views::{check_inputs, view_relation, widths_of};
use super::write::{insert_columns, insert_target};
use super::{Client, Outcome};
use crate::catalog::schema::{RelationName, quoted};
use crate::catalog::{
    CHANGELOG_COLUMNS, COMMIT_TIME, Catalog, Change, Column, Emit, Kind, ON_ERROR, Output, Relation, RelationId, Watermark,
};
use crate::connect;
use crate::copy::value::Formats;
use crate::database::Database;
use crate::error::{Error, Result, SqlState};
use crate::flow::{Edge, Fragment};
use crate::ingest::{CompiledRelation, dead_letter_relation};
use crate::sql::ast::{CreateView, RunningInsert};
use crate::sql::lower::lower;
use crate::sql::plan::columns::declared;
use crate::sql::plan::{Hidden, RelationSource, output_key};

/// The option of a running INSERT that names it (ksqlDB's).
const QUERY_ID: &str = "query_id";

impl Client {
    pub(super) async fn create_derived_stream(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE STREAM")?;
        let name = self.new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE STREAM");
        }
        self.check_query_options(&create.options)?;
        check_prompt(create.emit, "a derived stream")?;
        if create.options.contains_key(connect::CONNECTOR) {
            return Err(Error::invalid_parameter("the rows of a derived stream come from its query: it has no connector"));
        }
        if create.or_replace && self.database.log.catalog().named(&name).is_some() {
            self.replace_stream(&name, |_| Ok((create.clone(), sql.to_string()))).await?;
            return done("CREATE STREAM");
        }
        self.define(|definition| {
            let (stream, fragment) = plan_stream(definition, create, &name, sql)?;
            let stream = definition.create(stream)?;
            definition.follow_with_late_rows(&stream, &fragment)?;
            definition.create(dead_letter_relation(&stream)).map(drop)
        })
        .await?;
        self.await_new_query(&name).await?;
        done("CREATE STREAM")
    }

    /// Wait for a query that was made. One that fails on the rows that are there is gone again.
    async fn await_new_query(&mut self, name: &RelationName) -> Result<()> {
        let error = match self.await_query(name).await {
            Err(error) if !matches!(error.state(), SqlState::AdminShutdown | SqlState::ObjectNotReady) => error,
            outcome => return outcome,
        };
        self.change_catalog(|catalog| {
            let mut gone = BTreeSet::new();
            if let Some(query) = catalog.named(name) {
                collect(catalog, query, false, &mut gone)?;
            }
            check_dependents(catalog, &gone)?;
            Ok(gone.into_iter().rev().map(Change::Drop).collect())
        })
        .await?;
        Err(error)
    }

    /// Wait until a query runs and what it reads so far is written, or say why it can't.
    pub(super) async fn await_query(&mut self, name: &RelationName) -> Result<()> {
        let Some(id) = self.database.log.catalog().named(name).map(|r| r.id) else { return Ok(()) };
        let ready = move |snapshot: &crate::view::Snapshot| {
            snapshot.consumed.contains_key(&id) || snapshot.failures.contains_key(&id) || snapshot.catalog.get(id).is_none()
        };
        let snapshot = self.database.engine.wait_until(ready).await?;
        if let Some(error) = snapshot.failures.get(&id) {
            return Err(error.clone().with_context(format!("starting the query of \"{name}\"")));
        }
        self.committed(self.database.log.end());
        Ok(())
    }

    pub(super) async fn start_insert(&mut self, running: &RunningInsert, sql: &str) -> Result<Outcome> {
        self.beside_block("INSERT … EMIT")?;
        check_prompt(running.emit, "a running INSERT")?;
        let given = running.options.get(QUERY_ID).map(|name| name.to_lowercase());
        check_on_error(&running.options)?;
        if let Some(unknown) = running.options.keys().find(|key| ![QUERY_ID, ON_ERROR].contains(&key.as_str())) {
            return Err(Error::invalid_parameter(format!("unrecognized option \"{unknown}\""))
                .with_hint("a running INSERT has the options query_id, its name, and on_error, 'stop' or 'null'"));
        }
        let target = self.writable(insert_target(&running.insert)?, "INSERT")?;
        let name = given.unwrap_or_else(|| format!("query_{}", self.database.log.catalog().next_id()));
        check_new_name(&name)?;
        let name = RelationName { schema: self.new_schema(None, &name)?, name };
        self.define(|definition| {
            let (query, fragment) = plan_insert(definition, running, &target, &name, sql)?;
            let query = definition.create(query)?;
            definition.follow_with_late_rows(&query, &fragment)?;
            if definition.catalog.dead_letters_of(target.id).is_none() {
                definition.create(dead_letter_relation(&target))?;
            }
            Ok(())
        })
        .await?;
        self.await_new_query(&name).await?;
        let message = format!("query \"{name}\" writes to \"{}\" from now on", target.full_name());
        self.notices.push(Error::notice(message).with_hint(format!("SHOW QUERIES lists it, DROP QUERY {name} ends it")));
        done("INSERT 0 0")
    }
}

pub(super) fn plan_stream(
    definition: &Definition,
    create: &CreateView,
    name: &RelationName,
    sql: &str,
) -> Result<(Relation, Fragment)> {
    let (catalog, planner) = (definition.catalog, definition.planner().for_query(&create.options, &name.name));
    let plan = planner.continuous(&create.query, create.emit)?;
    let fragment = lower(&planner, &plan, create.emit)?;
    if !create.changelog {
        check_append_only(&fragment, &plan, create.emit)?;
    }
    let schema = declared(&fragment.edge.schema, &plan, catalog);
    let stream = view_relation(create, name, sql, &schema, Kind::Stream)?;
    let mut stream = Relation { id: definition.id_of(name.clone()), ..stream };
    if create.changelog {
        let lead = CHANGELOG_COLUMNS.map(number_column);
        stream.columns.splice(0..0, lead);
    }
    check_columns(&stream)?;
    let index = |ident: &sp::Ident| column_index(&stream.columns, ident, &name.name);
    let partition_by = create.partition_by.iter().map(index).collect::<Result<Vec<_>>>()?;
    let watermark = watermark_of(create, &stream, &fragment.edge)?;
    stream.partition_by = partition_by;
    stream.watermark = watermark;
    stream.partitions = partitions(create.partitions, &create.options)?;
    stream.durability = durability(&create.options)?;
    stream.depends_on = RelationSource::all_in(&plan).iter().map(|r| r.id).collect();
    check_inputs(catalog, &stream)?;
    stream.widths = widths_of(catalog, &stream);
    let columns = (0..stream.columns.len()).collect();
    stream.output = Some(Output { target: stream.id, columns, changelog: create.changelog, since: None });
    // The watermark's expression has to work.
    CompiledRelation::compile(Arc::new(stream.clone()), &planner)?;
    stream.functions = planner.functions_called();
    Ok((stream, fragment))
}

fn number_column(name: &str) -> Column {
    Column {
        name: name.to_string(),
        data_type: DataType::Int64,
        sql_type: crate::sql::types::sql_type(&DataType::Int64),
        nullable: false,
        default: None,
        generated: None,
        identity: None,
        comment: None,
    }
}

fn check_columns(stream: &Relation) -> Result<()> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = stream.columns.iter().find(|c| !seen.insert(c.name.as_str())) {
        return Err(Error::duplicate_column(format!("column \"{}\" specified more than once", twice.name))
            .with_hint("give the columns names with AS"));
    }
    match stream.columns.iter().find(|c| Hidden::find(&c.name).is_some()) {
        None => Ok(()),
        Some(hidden) => Err(Error::invalid_table_definition(format!(
            "column name \"{}\" is reserved: every stream has it already",
            hidden.name
        ))
        .with_hint("give the column another name with AS")),
    }
}

/// What a query writes is in the log for its readers to see, and its watermark with it: neither waits.
pub(super) fn check_prompt(emit: Emit, what: &str) -> Result<()> {
    let Emit::Every(_) = emit else { return Ok(()) };
    let error = Error::unsupported(format!("EMIT CHANGES WITH DELAY is for materialized views, not for {what}"));
    Err(error.with_hint("CREATE MATERIALIZED VIEW … EMIT CHANGES WITH DELAY, and CREATE STREAM … AS CHANGELOG OF it"))
}

/// Rows of a stream never change: what its query says must be final.
fn check_append_only(fragment: &Fragment, plan: &LogicalPlan, emit: Emit) -> Result<()> {
    if fragment.edge.append_only {
        return Ok(());
    }
    if let Some(table) = table_beside_stream(plan) {
        let message = format!("the rows of a stream never change, but those that are joined with \"{table}\" change with it");
        return Err(Error::invalid_object_definition(message).with_hint(format!(
            "JOIN {table} FOR SYSTEM_TIME AS OF PROCTIME() ON … joins each row with what is there when it comes; \
             CREATE MATERIALIZED VIEW follows the changes of \"{table}\""
        )));
    }
    let culprit = fragment.nodes.iter().find(|node| !node.edge.append_only).map(|node| node.label.clone());
    let message = "the rows of a stream never change, but this query takes rows back that it has given";
    let hint = match emit {
        Emit::Changes | Emit::Every(_) => {
            "EMIT FINAL gives the rows of a window once it is closed; CREATE MATERIALIZED VIEW keeps the rows as they are; \
             CREATE STREAM … AS CHANGELOG OF (query) writes each change as a row"
        }
        Emit::Final | Emit::FinalOrSilent(_) => {
            "CREATE MATERIALIZED VIEW keeps the rows as they are; CREATE STREAM … AS CHANGELOG OF (query) writes each change as a row"
        }
    };
    let error = Error::invalid_object_definition(message).with_hint(hint);
    Err(match culprit {
        Some(label) => error.with_detail(format!("they change because of {label}")),
        None => error.with_detail("it reads rows that are updated and deleted"),
    })
}

/// ksqlDB's join of a stream with a table.
fn table_beside_stream(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let is_stream = |relation: &Arc<Relation>| relation.kind == Kind::Stream;
    let _ = plan.apply(|node| {
        let LogicalPlan::Join(join) = node else { return Ok(TreeNodeRecursion::Continue) };
        let (left, right) = (RelationSource::all_in(&join.left), RelationSource::all_in(&join.right));
        if let [table] = right.as_slice()
            && matches!(table.kind, Kind::Table | Kind::MaterializedView)
            && left.iter().all(is_stream)
        {
            found = Some(table.name.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The watermark that is declared, or else that of the query's event time, if a watermark speaks of one of its columns.
fn watermark_of(create: &CreateView, stream: &Relation, edge: &Edge) -> Result<Option<Watermark>> {
    // Time of ingestion moves with every commit, also with that which would write it down.
    let moves = create.changelog || edge.sources.contains(&COMMIT_TIME);
    let of_query = |column: usize| !moves && edge.times.iter().any(|time| time.column == column);
    let carried = |column: usize| Watermark { column, expression: quoted(&stream.columns[column].name), carried: true };
    if let Some(declared) = &create.watermark {
        let column = column_index(&stream.columns, &declared.column, &stream.name)?;
        return Ok(Some(match &declared.expression {
            None if of_query(column) => carried(column),
            None => Watermark { carried: false, ..carried(column) },
            Some(expression) => Watermark { column, expression: expression.sql.clone(), carried: false },
        }));
    }
    let is_time = |column: usize| matches!(stream.columns[column].data_type, DataType::Timestamp(TimeUnit::Microsecond, _));
    // The one that is known best: of a window its end.
    let times = edge.times.iter().filter(|time| of_query(time.column) && is_time(time.column));
    Ok(times.min_by_key(|time| time.delay).map(|time| carried(time.column)))
}

fn plan_insert(
    definition: &Definition,
    running: &RunningInsert,
    target: &Arc<Relation>,
    name: &RelationName,
    sql: &str,
) -> Result<(Relation, Fragment)> {
    let Some(source) = &running.insert.source else { return Err(Error::syntax("a running INSERT needs a query")) };
    let (catalog, planner) = (definition.catalog, definition.planner().for_query(&running.options, &name.name));
    let plan = planner.continuous(source, running.emit)?;
    let fragment = lower(&planner, &plan, running.emit)?;
    let targets = insert_columns(&running.insert, target)?;
    let columns = fitting(definition.database, target, targets, &fragment.edge.schema, !running.insert.columns.is_empty())?;
    check_numbers(target, &columns)?;
    let reads: Vec<RelationId> = RelationSource::all_in(&plan).iter().map(|r| r.id).collect();
    check_loop(catalog, target, &reads)?;
    match target.kind {
        Kind::Table => check_key(target, &columns, &fragment, output_key(&plan))?,
        _ => check_append_only(&fragment, &plan, running.emit)?,
    }
    let view = CreateView {
        or_replace: false,
        if_not_exists: false,
        name: sp::ObjectName::from(vec![sp::Ident::new(&name.name)]),
        columns: Vec::new(),
        options: running.options.clone(),
        partition_by: Vec::new(),
        partitions: None,
        query: source.clone(),
        query_sql: running.query_sql.clone(),
        emit: running.emit,
        watermark: None,
        changelog: false,
    };
    let mut query = view_relation(&view, name, sql, &fragment.edge.schema, Kind::Query)?;
    query.functions = planner.functions_called();
    query.depends_on = reads;
    check_inputs(catalog, &query)?;
    query.widths = widths_of(catalog, &query);
    query.depends_on.push(target.id);
    query.output = Some(Output { target: target.id, columns, changelog: false, since: None });
    Ok((query, fragment))
}

/// The columns that the query fills, if their types fit.
fn fitting(
    database: &Database,
    target: &Arc<Relation>,
    mut targets: Vec<usize>,
    schema: &SchemaRef,
    named: bool,
) -> Result<Vec<usize>> {
    let width = schema.fields().len();
    if width > targets.len() {
        return Err(Error::syntax("INSERT has more expressions than target columns"));
    }
    if width < targets.len() && named {
        return Err(Error::syntax("INSERT has more target columns than expressions"));
    }
    targets.truncate(width);
    let compiled = database.writer(target)?;
    let compiled = compiled.compiled();
    compiled.assign(&targets, &RecordBatch::new_empty(Arc::clone(schema)), database.clock.now(), Formats::default())?;
    Ok(targets)
}

/// The rows of a query are the same whenever they are computed, so no number is given to them.
fn check_numbers(target: &Relation, columns: &[usize]) -> Result<()> {
    match target.identity() {
        Some((at, _)) if !columns.contains(&at) => {
            let name = &target.columns[at].name;
            Err(Error::invalid_object_definition(format!("the query gives no value for \"{name}\", which numbers the rows")))
        }
        _ => Ok(()),
    }
}

/// A query that reads what it writes would never come to an end.
pub(super) fn check_loop(catalog: &Catalog, target: &Relation, reads: &[RelationId]) -> Result<()> {
    let Some(through) = reads.iter().find(|id| catalog.upstream([**id]).contains(&target.id)) else { return Ok(()) };
    let name = catalog.get(*through).map_or("", |r| r.name.as_str());
    let detail = match *through == target.id {
        true => format!("it reads \"{name}\" itself"),
        false => format!("the rows of \"{name}\", which it reads, are made of those of \"{}\"", target.name),
    };
    let error = Error::invalid_object_definition(format!("the query would read what it writes to \"{}\"", target.name));
    Err(error.with_detail(detail).with_hint("write to another stream, or leave EMIT out to insert the rows that are there now"))
}

/// In a table a row stands where its key says; two rows of the query must not want the same place.
fn check_key(table: &Relation, columns: &[usize], fragment: &Fragment, key: Option<Vec<usize>>) -> Result<()> {
    let error = |message: String| Error::invalid_object_definition(message);
    if table.primary_key.is_empty() {
        return Err(error(format!("table \"{}\" has no primary key, so a query cannot keep its rows up to date", table.name))
            .with_hint("give the table a primary key, or write to a stream"));
    }
    let name = |at: &usize| table.columns[*at].name.as_str();
    if let Some(missing) = table.primary_key.iter().find(|at| !columns.contains(at)) {
        return Err(error(format!(
            "the query gives no value for \"{}\", which is in the key of \"{}\"",
            name(missing),
            table.name
        )));
    }
    let by_key = |key: &Vec<usize>| key.iter().all(|column| table.primary_key.contains(&columns[*column]));
    // Rows that are only added replace the one before.
    if fragment.edge.append_only || key.as_ref().is_some_and(by_key) || fragment.edge.key.as_ref().is_some_and(by_key) {
        return Ok(());
    }
    let key_of_table = table.primary_key.iter().map(name).collect::<Vec<_>>().join(", ");
    Err(error(format!("the query may have several rows of one key ({key_of_table}) of table \"{}\"", table.name))
        .with_hint("group by the columns of the key, or choose one row of each key with DISTINCT ON"))
}
