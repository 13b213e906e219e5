//! Writing: INSERT, UPDATE, DELETE and TRUNCATE become writes of the log.
//!
//! UPDATE and DELETE read a snapshot to find their rows. If the table has changed since, the committer refuses the transaction,
//! and the statement is done again over a newer snapshot; in a block the client hears 40001.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast as sp;

use super::client::done;
use super::define::{existing, no_column};
use super::transaction::Work;
use super::{Client, Outcome, Parameter, Parameters, assign};
use crate::catalog::{Column, Kind, ROW_ID, Relation};
use crate::error::{Error, Result, SqlState};
use crate::ingest::{RelationWriter, assign as assign_value};
use crate::log::{self, Write};
use crate::sql::ast::Options;
use crate::sql::plan::names::fold;
use crate::sql::plan::{Reader, RelationSource};
use crate::view::Snapshot;

/// Rows from which on a batch is encoded and handed to the store before the commit.
pub(super) const STAGE_ROWS: usize = 4096;

/// What an UPDATE or DELETE did.
#[derive(Default)]
struct Changed {
    count: usize,
    /// Its rows as the query found them.
    found: Vec<RecordBatch>,
    writes: Vec<Write>,
}

/// How often a statement is done again because others changed the table under it.
const RETRIES: usize = 100;

impl Client {
    /// The relation that a statement writes to.
    pub(super) fn writable(&self, name: &sp::ObjectName, statement: &str) -> Result<Arc<Relation>> {
        let catalog = self.database.log.catalog();
        let relation = existing(&catalog, &self.relation_name(name)?)?;
        let error = |message: String| Err(Error::wrong_object_type(message));
        match (relation.kind, statement) {
            (Kind::Table, _) => Ok(Arc::clone(relation)),
            (Kind::Stream, _) if relation.is_derived() => Err(Error::wrong_object_type(format!(
                "cannot {} \"{}\": its rows come from its query alone",
                if statement == "COPY" { "copy into" } else { "change" },
                relation.name
            ))
            .with_hint("CREATE STREAM name (columns) and INSERT INTO name SELECT … EMIT CHANGES make a stream that others may write, too")),
            (Kind::Stream, "INSERT" | "COPY") if relation.parent.is_none() => Ok(Arc::clone(relation)),
            (Kind::Stream, "INSERT" | "COPY") => error(format!("\"{}\" is written by the server only", relation.name)),
            (Kind::Stream, _) => {
                error(format!("cannot {} \"{}\": rows of a stream never change", statement.to_lowercase(), relation.name))
            }
            (kind, _) => error(format!("cannot change {} \"{}\"", kind.noun(), relation.name)),
        }
    }

    pub(super) fn describe_insert(
        &self,
        insert: &sp::Insert,
        types: &[Option<DataType>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let relation = self.writable(insert_target(insert)?, "INSERT")?;
        let targets = insert_columns(insert, &relation)?;
        let returning = insert.returning.as_ref().map(|items| self.returning_schema(items, &relation)).transpose()?;
        let Some(source) = &insert.source else { return Ok((Vec::new(), returning)) };
        let source = assign::with_types(source, &relation, &targets)?;
        let parameters = self.describe_assigned(&source, assign::inserted(&source, &relation, &targets), types)?;
        Ok((parameters, returning))
    }

    /// Parameters of a query that writes; those that stand for the whole value of a column have its type.
    fn describe_assigned(
        &self,
        query: &sp::Query,
        assigned: Vec<(usize, &Column)>,
        declared: &[Option<DataType>],
    ) -> Result<Vec<Parameter>> {
        let types = assign::types(&assigned, declared);
        let (mut parameters, _) = self.describe_query(query, &types)?;
        for (index, column) in assigned {
            if let Some(parameter) = parameters.get_mut(index).filter(|p| p.data_type == column.data_type) {
                *parameter = Parameter::of_column(column);
            }
        }
        Ok(parameters)
    }

    pub(super) async fn insert(&mut self, insert: &sp::Insert, options: &Options, parameters: Parameters) -> Result<Outcome> {
        let relation = self.writable(insert_target(insert)?, "INSERT")?;
        let targets = insert_columns(insert, &relation)?;
        let writer = self.database.writer(&relation)?;
        let kind = if relation.kind == Kind::Stream { log::Kind::Append } else { log::Kind::Upsert };
        let mut work = Work { durability: relation.durability, producer: producer(options)?, ..Work::default() };
        let mut count = 0;
        for rows in self.insert_source(insert, &relation, &targets, parameters).await? {
            let rows = writer.compiled().assign(&targets[..rows.num_columns()], &rows, self.database.clock.now())?;
            let rows = self.resolve_conflicts(insert, &relation, rows, &mut work).await?;
            count += rows.num_rows();
            work.writes.extend(writer.write(rows, kind, self.database.clock.now())?);
        }
        let kept = insert.returning.is_some().then(|| work.writes.clone());
        self.stage(&mut work)?;
        let committed = self.write(work).await?;
        match (insert.returning.as_ref(), kept) {
            (Some(items), Some(writes)) => self.returning_inserted(items, &relation, &writes, committed.as_ref()),
            _ => done(&format!("INSERT 0 {count}")),
        }
    }

    async fn insert_source(
        &mut self,
        insert: &sp::Insert,
        relation: &Arc<Relation>,
        targets: &[usize],
        parameters: Parameters,
    ) -> Result<Vec<RecordBatch>> {
        let Some(source) = &insert.source else {
            // INSERT … DEFAULT VALUES
            let one = RecordBatchOptions::new().with_row_count(Some(1));
            return Ok(vec![RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one)?]);
        };
        let snapshot = self.snapshot().await?;
        let types: Vec<_> = parameters.iter().map(|p| Some(p.data_type())).collect();
        let source = assign::with_types(source, relation, targets)?;
        let plan = self.plan_query(&snapshot, &source, &types)?;
        let width = plan.schema().fields().len();
        if width > targets.len() {
            return Err(Error::syntax("INSERT has more expressions than target columns"));
        }
        if width < targets.len() && !insert.columns.is_empty() {
            return Err(Error::syntax("INSERT has more target columns than expressions"));
        }
        let plan = crate::sql::plan::bind(plan, parameters)?;
        self.collect_plan(plan, &snapshot).await
    }

    /// ON CONFLICT. Without it, and with DO UPDATE of all that is inserted, a row replaces the one with its key.
    async fn resolve_conflicts(
        &mut self,
        insert: &sp::Insert,
        relation: &Arc<Relation>,
        rows: RecordBatch,
        work: &mut Work,
    ) -> Result<RecordBatch> {
        let Some(sp::OnInsert::OnConflict(conflict)) = &insert.on else { return Ok(rows) };
        if relation.primary_key.is_empty() {
            return Err(Error::invalid_object_definition(format!(
                "\"{}\" has no primary key that could conflict",
                relation.name
            )));
        }
        if let sp::OnConflictAction::DoUpdate(update) = &conflict.action {
            return if replaces_whole_row(update, relation) {
                Ok(rows)
            } else {
                Err(Error::unsupported(
                    "ON CONFLICT DO UPDATE must set every column that is not in the key to its EXCLUDED value",
                )
                .with_hint("INSERT replaces the row of the same key anyhow; use UPDATE to change some of its columns"))
            };
        }
        let snapshot = self.snapshot().await?;
        work.decided_by.insert(relation.id);
        work.read_at = snapshot.commit;
        let Some(version) = snapshot.versions.get(&relation.id) else { return Ok(rows) };
        let mut fresh = Vec::with_capacity(rows.num_rows());
        let mut seen = std::collections::HashSet::new();
        let keys: Vec<ArrayRef> = relation.primary_key.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let fields = keys.iter().map(|k| arrow::row::SortField::new(k.data_type().clone())).collect();
        let encoded = arrow::row::RowConverter::new(fields)?.convert_columns(&keys)?;
        for row in 0..rows.num_rows() {
            let key: Vec<ArrayRef> = keys.iter().map(|k| k.slice(row, 1)).collect();
            let is_new = version.lookup(&key)?.num_rows() == 0 && seen.insert(encoded.row(row).owned());
            fresh.push(is_new);
        }
        Ok(compute::filter_record_batch(&rows, &fresh.into())?)
    }

    /// Hand what is large to the store ahead of the commit.
    pub(super) fn stage(&self, work: &mut Work) -> Result<()> {
        for write in &mut work.writes {
            if let log::Rows::Batch(rows) = &write.rows
                && rows.num_rows() >= STAGE_ROWS
            {
                write.rows = log::Rows::Staged(self.database.log.stage(rows.clone())?);
            }
        }
        Ok(())
    }

    pub(super) fn describe_update(
        &self,
        update: &sp::Update,
        types: &[Option<DataType>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let (relation, alias) = self.changed_table(&update.table, "UPDATE")?;
        let query = update_query(update, &relation, alias)?;
        let returning = update.returning.as_ref().map(|items| self.returning_schema(items, &relation)).transpose()?;
        Ok((self.describe_assigned(&query, assign::updated(update, &relation), types)?, returning))
    }

    pub(super) async fn update(&mut self, update: &sp::Update, parameters: Parameters) -> Result<Outcome> {
        let (relation, alias) = self.changed_table(&update.table, "UPDATE")?;
        let query = update_query(update, &relation, alias)?;
        let changed =
            self.change_rows(&relation, &query, parameters, None, |writer, rows, now| updated(writer, &rows, now)).await?;
        match &update.returning {
            None => done(&format!("UPDATE {}", changed.count)),
            Some(items) => {
                let new = changed.writes.iter().filter(|write| write.kind == log::Kind::Upsert);
                self.returning_changed(items, &relation, new.map(rows_of).collect::<Result<_>>()?, "UPDATE")
            }
        }
    }

    pub(super) fn describe_delete(
        &self,
        delete: &sp::Delete,
        types: &[Option<DataType>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let (relation, alias) = self.changed_table(delete_target(delete)?, "DELETE")?;
        let returning = delete.returning.as_ref().map(|items| self.returning_schema(items, &relation)).transpose()?;
        Ok((self.describe_query(&delete_query(delete, &relation, alias)?, types)?.0, returning))
    }

    pub(super) async fn delete(&mut self, delete: &sp::Delete, parameters: Parameters) -> Result<Outcome> {
        if delete.using.is_some() {
            return Err(Error::unsupported("USING is not supported in DELETE yet").with_hint("use a subquery in WHERE"));
        }
        let (relation, alias) = self.changed_table(delete_target(delete)?, "DELETE")?;
        let query = delete_query(delete, &relation, alias)?;
        let delete_all = |writer: &RelationWriter, rows, now| writer.write(rows, log::Kind::Delete, now);
        let changed = self.change_rows(&relation, &query, parameters, None, delete_all).await?;
        match &delete.returning {
            None => done(&format!("DELETE {}", changed.count)),
            // What was found is what is gone: all of its columns, which the log has no more need of.
            Some(items) => self.returning_changed(items, &relation, changed.found, "DELETE"),
        }
    }

    pub(super) async fn truncate(&mut self, names: &[sp::ObjectName]) -> Result<Outcome> {
        for name in names {
            let relation = self.writable(name, "TRUNCATE")?;
            let query = select_from(&relation, None, all_columns(&relation), None)?;
            // Who may empty it need not be allowed to read it.
            let all = |writer: &RelationWriter, rows, now| writer.write(rows, log::Kind::Delete, now);
            self.change_rows(&relation, &query, Vec::new(), Some(Reader::Server), all).await?;
        }
        done("TRUNCATE TABLE")
    }

    fn changed_table(&self, table: &sp::TableWithJoins, statement: &str) -> Result<(Arc<Relation>, Option<sp::TableAlias>)> {
        match &table.relation {
            sp::TableFactor::Table { version: Some(_), .. } => {
                Err(Error::unsupported("what has been cannot be changed").with_hint("leave AS OF out; subqueries may have it"))
            }
            sp::TableFactor::Table { name, alias, .. } if table.joins.is_empty() => {
                Ok((self.writable(name, statement)?, alias.clone()))
            }
            _ => Err(Error::unsupported(format!("{statement} of more than one table is not supported"))
                .with_hint("use a subquery in WHERE")),
        }
    }

    /// Find rows with a query, in the session's name or another's, and write what `change` makes of them; again if they changed
    /// meanwhile.
    async fn change_rows(
        &mut self,
        relation: &Arc<Relation>,
        query: &sp::Query,
        parameters: Parameters,
        reader: Option<Reader>,
        change: impl Fn(&RelationWriter, RecordBatch, crate::time::Micros) -> Result<Vec<Write>>,
    ) -> Result<Changed> {
        let writer = self.database.writer(relation)?;
        for attempt in 0.. {
            let snapshot = self.snapshot().await?;
            let plan = self.changing_plan(&snapshot, query, &parameters, reader.clone())?;
            let decided_by = tables_of(&plan, &snapshot);
            let found = self.collect_plan(plan, &snapshot).await?;
            let mut work = Work { durability: relation.durability, read_at: snapshot.commit, ..Work::default() };
            // Every relation that the query read decided what is written.
            work.decided_by.extend(decided_by);
            let mut changed = Changed { count: found.iter().map(RecordBatch::num_rows).sum(), ..Changed::default() };
            for rows in &found {
                work.writes.extend(change(&writer, rows.clone(), self.database.clock.now())?);
            }
            (changed.writes, changed.found) = (work.writes.clone(), found);
            if work.writes.is_empty() {
                return Ok(changed);
            }
            self.stage(&mut work)?;
            match self.write(work).await {
                Ok(_) => return Ok(changed),
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES => {
                    let end = self.database.log.end();
                    self.database.engine.wait_until(move |snapshot| snapshot.commit >= end).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("an endless loop has ended"))
    }

    fn changing_plan(
        &self,
        snapshot: &Arc<Snapshot>,
        query: &sp::Query,
        parameters: &Parameters,
        reader: Option<Reader>,
    ) -> Result<LogicalPlan> {
        let types: Vec<_> = parameters.iter().map(|p| Some(p.data_type())).collect();
        let reader = reader.unwrap_or_else(|| self.reader());
        let plan = self.plan_query_as(reader, snapshot, query, &types)?;
        crate::sql::plan::bind(plan, parameters.clone())
    }
}

/// The rows of a write that has not been handed to the store.
pub(super) fn rows_of(write: &Write) -> Result<RecordBatch> {
    match &write.rows {
        log::Rows::Batch(rows) => Ok(rows.clone()),
        log::Rows::Staged(_) => Err(Error::internal("rows were handed to the store before they were returned")),
    }
}

/// Tables whose present rows a query reads; of views, those that they are made of.
fn tables_of(plan: &LogicalPlan, snapshot: &Snapshot) -> Vec<u32> {
    let mut found: Vec<u32> = RelationSource::all_in(plan).iter().map(|r| r.id).collect();
    let mut next = 0;
    while next < found.len() {
        let read = snapshot.catalog.get(found[next]).filter(|r| !r.kind.in_log());
        let inputs = read.map(|r| r.depends_on.clone()).unwrap_or_default();
        let new: Vec<u32> = inputs.into_iter().filter(|id| !found.contains(id)).collect();
        found.extend(new);
        next += 1;
    }
    found.retain(|id| snapshot.catalog.get(*id).is_some_and(|r| r.kind.in_log()));
    found
}

/// The new rows of an UPDATE: the query gave the row id or the old key, then all columns.
fn updated(writer: &RelationWriter, rows: &RecordBatch, now: crate::time::Micros) -> Result<Vec<Write>> {
    let relation = writer.relation();
    let lead = if relation.has_row_id() { 1 } else { relation.primary_key.len() };
    let (old, new) = rows.columns().split_at(lead);
    let new: Vec<ArrayRef> =
        new.iter().zip(&relation.columns).map(|(array, column)| assign_value(array, column)).collect::<Result<_>>()?;
    let fields = relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true));
    if relation.has_row_id() {
        let schema = Schema::new([Field::new(ROW_ID, DataType::Int64, false)].into_iter().chain(fields).collect::<Vec<_>>());
        let columns = old.iter().cloned().chain(new).collect();
        return writer.write(RecordBatch::try_new(Arc::new(schema), columns)?, log::Kind::Upsert, now);
    }
    let new = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), new)?;
    let moved = relation.primary_key.iter().zip(old).any(|(at, old)| new.column(*at).as_ref() != old.as_ref());
    let mut writes = Vec::new();
    if moved {
        // Rows whose key changes leave their old place first.
        let mut columns = new.columns().to_vec();
        relation.primary_key.iter().zip(old).for_each(|(at, old)| columns[*at] = Arc::clone(old));
        writes = writer.write(RecordBatch::try_new(new.schema(), columns)?, log::Kind::Delete, now)?;
    }
    writes.extend(writer.write(new, log::Kind::Upsert, now)?);
    Ok(writes)
}

pub(super) fn insert_target(insert: &sp::Insert) -> Result<&sp::ObjectName> {
    match &insert.table {
        sp::TableObject::TableName(name) => Ok(name),
        other => Err(Error::unsupported(format!("INSERT INTO {other} is not supported"))),
    }
}

/// Columns that an INSERT fills, by index.
pub(super) fn insert_columns(insert: &sp::Insert, relation: &Relation) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok((0..relation.columns.len()).filter(|at| relation.columns[*at].generated.is_none()).collect());
    }
    let mut targets = Vec::new();
    for name in &insert.columns {
        let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
        let at = relation.column(&name).ok_or_else(|| no_column(&name, &relation.name))?;
        if relation.columns[at].generated.is_some() {
            return Err(Error::syntax(format!("cannot insert a value into column \"{name}\": it is a generated column")));
        }
        if targets.contains(&at) {
            return Err(Error::duplicate_column(format!("column \"{name}\" specified more than once")));
        }
        targets.push(at);
    }
    Ok(targets)
}

fn replaces_whole_row(update: &sp::DoUpdate, relation: &Relation) -> bool {
    let excluded = |assignment: &sp::Assignment| {
        let sp::AssignmentTarget::ColumnName(column) = &assignment.target else { return None };
        let column = column.0.last().and_then(|p| p.as_ident()).map(fold)?;
        let sp::Expr::CompoundIdentifier(parts) = &assignment.value else { return None };
        let [table, value] = parts.as_slice() else { return None };
        (fold(table) == "excluded" && fold(value) == column).then_some(column)
    };
    let set: Option<Vec<String>> = update.assignments.iter().map(excluded).collect();
    let all = |set: Vec<String>| {
        let mut others =
            relation.columns.iter().enumerate().filter(|(at, c)| !relation.primary_key.contains(at) && c.generated.is_none());
        others.all(|(_, c)| set.contains(&c.name))
    };
    update.selection.is_none() && set.is_some_and(all)
}

fn producer(options: &Options) -> Result<Option<(u64, u64)>> {
    let number = |key: &str| {
        options.get(key).map(|text| text.parse::<u64>().map_err(|_| Error::invalid_parameter(format!("{key} must be a number"))))
    };
    match (number("producer_id").transpose()?, number("sequence").transpose()?) {
        (Some(id), Some(sequence)) if id < 1 << 63 => Ok(Some((id, sequence))),
        (Some(_), Some(_)) => Err(Error::invalid_parameter("producer_id must be below 2^63")),
        (None, None) => match options.keys().next() {
            None => Ok(None),
            Some(key) => Err(Error::unsupported(format!("INSERT … WITH ({key}) is not supported"))
                .with_hint("write WITH (producer_id = 1, sequence = 1)")),
        },
        _ => Err(Error::invalid_parameter("producer_id and sequence must be given together")),
    }
}

fn ident(name: &str) -> sp::Expr {
    sp::Expr::Identifier(sp::Ident::with_quote('"', name))
}

fn all_columns(relation: &Relation) -> Vec<sp::Expr> {
    let row_id = relation.has_row_id().then(|| ident(ROW_ID));
    row_id.into_iter().chain(relation.columns.iter().map(|c| ident(&c.name))).collect()
}

/// The name of a table that is changed.
pub(super) fn changed_name(table: &sp::TableWithJoins) -> Option<&sp::ObjectName> {
    match &table.relation {
        sp::TableFactor::Table { name, .. } if table.joins.is_empty() => Some(name),
        _ => None,
    }
}

pub(super) fn delete_target(delete: &sp::Delete) -> Result<&sp::TableWithJoins> {
    let (sp::FromTable::WithFromKeyword(tables) | sp::FromTable::WithoutKeyword(tables)) = &delete.from;
    match tables.as_slice() {
        [one] => Ok(one),
        _ => Err(Error::unsupported("DELETE of more than one table is not supported")),
    }
}

fn delete_query(delete: &sp::Delete, relation: &Relation, alias: Option<sp::TableAlias>) -> Result<sp::Query> {
    select_from(relation, alias, all_columns(relation), delete.selection.clone())
}

/// Row id or old key, then the new value of every column.
fn update_query(update: &sp::Update, relation: &Relation, alias: Option<sp::TableAlias>) -> Result<sp::Query> {
    if update.from.is_some() {
        return Err(Error::unsupported("UPDATE … FROM is not supported yet").with_hint("use a subquery in SET or WHERE"));
    }
    let mut values: Vec<sp::Expr> = relation.columns.iter().map(|c| ident(&c.name)).collect();
    for assignment in &update.assignments {
        let sp::AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(
                Error::unsupported("setting several columns at once is not supported").with_hint("write SET a = …, b = …")
            );
        };
        let name = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
        let at = relation.column(&name).ok_or_else(|| no_column(&name, &relation.name))?;
        if relation.columns[at].generated.is_some() {
            return Err(Error::syntax(format!("column \"{name}\" can only be updated to its generated value")));
        }
        values[at] = assignment.value.clone();
    }
    let lead: Vec<sp::Expr> = match relation.has_row_id() {
        true => vec![ident(ROW_ID)],
        false => relation.primary_key.iter().map(|at| ident(&relation.columns[*at].name)).collect(),
    };
    select_from(relation, alias, lead.into_iter().chain(values).collect(), update.selection.clone())
}

/// `SELECT e AS c0, … FROM relation [WHERE …]`.
fn select_from(
    relation: &Relation,
    alias: Option<sp::TableAlias>,
    columns: Vec<sp::Expr>,
    selection: Option<sp::Expr>,
) -> Result<sp::Query> {
    let mut parsed = crate::sql::parse::parse(&format!("SELECT 1 FROM {}", relation.full_name().to_sql()))?;
    let Some(crate::sql::ast::Statement::Query { mut query, .. }) = parsed.pop().map(|p| p.statement) else {
        return Err(Error::internal("a SELECT was read as something else"));
    };
    let sp::SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a SELECT was read as something else"));
    };
    // The writer knows row ids by their name.
    let name = |at: usize, expr: &sp::Expr| if *expr == ident(ROW_ID) { ROW_ID.to_string() } else { format!("c{at}") };
    let named = |(at, expr): (usize, sp::Expr)| sp::SelectItem::ExprWithAlias { alias: sp::Ident::new(name(at, &expr)), expr };
    select.projection = columns.into_iter().enumerate().map(named).collect();
    select.selection = selection;
    if let (Some(wanted), Some(sp::TableWithJoins { relation: sp::TableFactor::Table { alias, .. }, .. })) =
        (alias, select.from.first_mut())
    {
        *alias = Some(wanted);
    }
    Ok(*query)
}
