//! Changing rows of tables: UPDATE, DELETE and TRUNCATE become writes of the log.
//!
//! A query finds the rows: what they are known by (the row id, or the key), their new values, and, for RETURNING, the columns of
//! the relations beside the table:
//!
//! ```text
//!   UPDATE t SET n = e.n FROM e WHERE t.id = e.id RETURNING *
//!   SELECT t.id AS "$0", t.id AS "$1", e.n AS "$2", * FROM t, e WHERE t.id = e.id
//!          known by      new values                 beside
//! ```
//!
//! The snapshot that it reads is what the change was decided by. If a table of it has changed since, the committer refuses the
//! transaction, and the statement is done again over a newer snapshot; in a block the client hears 40001.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast as sp;

use super::assign::{self, Assigned};
use super::client::done;
use super::returning::Beside;
use super::transaction::Work;
use super::{Bound, Client, Outcome, Parameter};
use crate::catalog::{Column, ROW_ID, Relation};
use crate::copy::value::Formats;
use crate::error::{Error, Result, SqlState};
use crate::ingest::{RelationWriter, assign as assign_value};
use crate::log::{Kind, Write};
use crate::sql::ast::Statement;
use crate::sql::plan::names::fold;
use crate::sql::plan::{Reader, RelationSource};
use crate::time::Micros;
use crate::view::Snapshot;

/// How often a statement is done again because others changed what decided it.
const RETRIES: usize = 100;

/// The table that a statement changes.
pub(super) struct Target {
    pub relation: Arc<Relation>,
    pub alias: Option<sp::Ident>,
}

impl Target {
    /// What qualifies its columns.
    pub fn qualifier(&self) -> TableReference {
        match &self.alias {
            Some(alias) => TableReference::bare(fold(alias)),
            None => TableReference::partial(self.relation.schema.as_str(), self.relation.name.as_str()),
        }
    }

    /// A column of it, whatever else FROM has.
    pub fn column(&self, name: &str) -> sp::Expr {
        let quoted = |name: &str| sp::Ident::with_quote('"', name);
        let mut path = match &self.alias {
            Some(alias) => vec![alias.clone()],
            None => vec![quoted(&self.relation.schema), quoted(&self.relation.name)],
        };
        path.push(quoted(name));
        sp::Expr::CompoundIdentifier(path)
    }

    /// The columns that a row of it is known by.
    fn known_by(&self) -> Vec<sp::Expr> {
        match self.relation.has_row_id() {
            true => vec![self.column(ROW_ID)],
            false => self.relation.primary_key.iter().map(|at| self.column(&self.relation.columns[*at].name)).collect(),
        }
    }

    fn columns(&self) -> impl Iterator<Item = sp::Expr> {
        self.relation.columns.iter().map(|column| self.column(&column.name))
    }
}

/// The query that finds the rows of a statement.
struct Search {
    query: sp::Query,
    /// How many of its columns a row is known by.
    known_by: usize,
    /// It reads other relations, too, so it may find a row several times.
    joins: bool,
}

impl Search {
    fn new(
        with: Option<&sp::With>,
        target: &Target,
        beside: Option<&[sp::TableWithJoins]>,
        values: Vec<sp::Expr>,
        condition: Option<sp::Expr>,
        returning: bool,
    ) -> Result<Search> {
        let known_by = target.known_by();
        let count = known_by.len();
        let mut query = select(known_by.into_iter().chain(values).collect(), target.relation.full_name().to_sql().as_str())?;
        query.with = with.cloned();
        let sp::SetExpr::Select(select) = query.body.as_mut() else { return Err(misread()) };
        if let (Some(name), [sp::TableWithJoins { relation: sp::TableFactor::Table { alias, .. }, .. }]) =
            (&target.alias, select.from.as_mut_slice())
        {
            *alias = Some(sp::TableAlias { explicit: true, name: name.clone(), columns: Vec::new(), at: None });
        }
        select.from.extend(beside.unwrap_or_default().iter().cloned());
        select.selection = condition;
        if beside.is_some() && returning {
            select.projection.push(sp::SelectItem::Wildcard(sp::WildcardAdditionalOptions::default()));
        }
        Ok(Search { query, known_by: count, joins: beside.is_some() })
    }

    /// Which columns of the plan are those of the relations beside the table: behind what is known and the new values come the
    /// columns of all relations, the table's first.
    fn beside(&self, plan: &LogicalPlan, target: &Target, catalog: &crate::catalog::Catalog) -> Beside {
        let from = self.known_by + 2 * target.relation.columns.len();
        Beside::of_plan(plan, from, catalog)
    }
}

/// An UPDATE or DELETE: its rows, and what becomes of them.
pub(super) struct Searched<'a> {
    search: Search,
    target: Target,
    assigned: Vec<Assigned>,
    returning: Option<&'a [sp::SelectItem]>,
}

impl Searched<'_> {
    pub fn query(&self) -> &sp::Query {
        &self.search.query
    }

    /// Parameters that stand for the whole value of a column.
    pub fn parameters(&self) -> Vec<(usize, &Column)> {
        assign::parameters_of(&self.assigned, &self.target.relation)
    }
}

/// What is known of parameters, for the planner.
pub(super) fn known(parameters: &[Parameter]) -> Vec<Option<FieldRef>> {
    parameters.iter().map(|parameter| Some(parameter.field())).collect()
}

/// `SELECT e AS "$0", … FROM name`. Nobody's columns are called so.
pub(super) fn select(columns: Vec<sp::Expr>, name: &str) -> Result<sp::Query> {
    let mut parsed = crate::sql::parse::parse(&format!("SELECT 1 FROM {name}"))?;
    let Some(Statement::Query { mut query, .. }) = parsed.pop().map(|p| p.statement) else {
        return Err(misread());
    };
    let sp::SetExpr::Select(select) = query.body.as_mut() else { return Err(misread()) };
    let named = |(at, expr)| sp::SelectItem::ExprWithAlias { alias: sp::Ident::with_quote('"', format!("${at}")), expr };
    select.projection = columns.into_iter().enumerate().map(named).collect();
    Ok(*query)
}

fn misread() -> Error {
    Error::internal("a SELECT was read as something else")
}

/// What became of the rows that a search found.
pub(super) struct Change {
    pub writes: Vec<Write>,
    /// The rows that RETURNING speaks of: the relation's columns.
    pub rows: RecordBatch,
}

/// What a statement did.
struct Changed {
    count: usize,
    rows: Vec<RecordBatch>,
    /// Columns of the relations beside the table: what they are, and their values per batch of rows.
    beside: Beside,
    values: Vec<Vec<ArrayRef>>,
}

impl Client {
    pub(super) fn describe_update(
        &self,
        with: Option<&sp::With>,
        update: &sp::Update,
        types: &[Option<FieldRef>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let change = self.searched_update(with, update)?;
        let parameters = self.describe_assigned(&change.search.query, change.parameters(), types)?;
        let returning = self.describe_returning(&change, &known(&parameters))?;
        Ok((parameters, returning))
    }

    /// What an UPDATE or DELETE searches, and what it does with it.
    pub(super) fn searched<'a>(&self, statement: &'a Statement) -> Result<Option<Searched<'a>>> {
        match statement {
            Statement::Update { with, update } => self.searched_update(with.as_ref(), update).map(Some),
            Statement::Delete { with, delete } => self.searched_delete(with.as_ref(), delete).map(Some),
            _ => Ok(None),
        }
    }

    fn searched_update<'a>(&self, with: Option<&sp::With>, update: &'a sp::Update) -> Result<Searched<'a>> {
        let target = self.changed_table(&update.table, "UPDATE")?;
        let assigned = assign::set(&update.assignments, &target.relation)?;
        let search = update_search(with, update, &target, &assigned)?;
        Ok(Searched { search, target, assigned, returning: update.returning.as_deref() })
    }

    fn searched_delete<'a>(&self, with: Option<&sp::With>, delete: &'a sp::Delete) -> Result<Searched<'a>> {
        let target = self.changed_table(delete_target(delete)?, "DELETE")?;
        let search = delete_search(with, delete, &target)?;
        Ok(Searched { search, target, assigned: Vec::new(), returning: delete.returning.as_deref() })
    }

    /// Of which columns RETURNING is, where the types of all parameters are known.
    pub(super) fn describe_returning(&self, change: &Searched, types: &[Option<FieldRef>]) -> Result<Option<SchemaRef>> {
        let Searched { search, target, returning: Some(items), .. } = change else { return Ok(None) };
        let beside = match search.joins {
            true => {
                let snapshot = self.peek_snapshot();
                search.beside(&self.plan_query(&snapshot, &search.query, types)?, target, &snapshot.catalog)
            }
            false => Beside::default(),
        };
        self.returning_schema(items, target, &beside).map(Some)
    }

    pub(super) async fn update(&mut self, with: Option<&sp::With>, update: &sp::Update, parameters: Bound) -> Result<Outcome> {
        let Searched { search, target, assigned, .. } = self.searched_update(with, update)?;
        let shown = update.returning.is_some();
        let formats = self.settings.formats();
        let change = |writer: &RelationWriter, found: &[ArrayRef], now| {
            let (known_by, values) = found.split_at(search.known_by);
            updated(writer, known_by, values, &assigned, shown, now, formats)
        };
        let changed = self.change_rows(&target, &search, parameters, None, change).await?;
        match &update.returning {
            None => done(&format!("UPDATE {}", changed.count)),
            Some(items) => self.returning_changed(items, &target, changed.rows, &changed.beside, &changed.values, "UPDATE"),
        }
    }

    pub(super) fn describe_delete(
        &self,
        with: Option<&sp::With>,
        delete: &sp::Delete,
        types: &[Option<FieldRef>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let change = self.searched_delete(with, delete)?;
        let parameters = self.describe_query(&change.search.query, types)?.0;
        let returning = self.describe_returning(&change, &known(&parameters))?;
        Ok((parameters, returning))
    }

    pub(super) async fn delete(&mut self, with: Option<&sp::With>, delete: &sp::Delete, parameters: Bound) -> Result<Outcome> {
        let Searched { search, target, .. } = self.searched_delete(with, delete)?;
        let changed = self.change_rows(&target, &search, parameters, None, deleted(search.known_by)).await?;
        match &delete.returning {
            None => done(&format!("DELETE {}", changed.count)),
            // What was found is what is gone: all of its columns, which the log has no more need of.
            Some(items) => self.returning_changed(items, &target, changed.rows, &changed.beside, &changed.values, "DELETE"),
        }
    }

    pub(super) async fn truncate(&mut self, names: &[sp::ObjectName]) -> Result<Outcome> {
        for name in names {
            let target = Target { relation: self.writable(name, "TRUNCATE")?, alias: None };
            let search = Search::new(None, &target, None, target.columns().collect(), None, false)?;
            // Who may empty it need not be allowed to read it.
            self.change_rows(&target, &search, Bound::default(), Some(Reader::Server), deleted(search.known_by)).await?;
        }
        done("TRUNCATE TABLE")
    }

    fn changed_table(&self, table: &sp::TableWithJoins, statement: &str) -> Result<Target> {
        match &table.relation {
            sp::TableFactor::Table { version: Some(_), .. } => {
                Err(Error::unsupported("what has been cannot be changed").with_hint("leave AS OF out; subqueries may have it"))
            }
            sp::TableFactor::Table { name, alias, .. } if table.joins.is_empty() => {
                let alias = alias.as_ref().map(|alias| alias.name.clone());
                Ok(Target { relation: self.writable(name, statement)?, alias })
            }
            _ => Err(Error::unsupported(format!("{statement} of more than one table is not supported"))
                .with_hint("the others stand in FROM of UPDATE and in USING of DELETE")),
        }
    }

    /// Find rows, in the session's name or another's, and write what `change` makes of them; again if others changed them
    /// meanwhile.
    async fn change_rows(
        &mut self,
        target: &Target,
        search: &Search,
        parameters: Bound,
        reader: Option<Reader>,
        change: impl Fn(&RelationWriter, &[ArrayRef], Micros) -> Result<Change>,
    ) -> Result<Changed> {
        let relation = &target.relation;
        let writer = self.database.writer(relation)?;
        let width = search.known_by + relation.columns.len();
        for attempt in 0.. {
            let snapshot = self.snapshot().await?;
            let reader = reader.clone().unwrap_or_else(|| self.reader());
            let plan = self.plan_query_as(reader, &snapshot, &search.query, &parameters.types)?;
            let plan = crate::sql::plan::bind(plan, parameters.clone())?;
            let mut work = Work { durability: relation.durability, read_at: snapshot.commit, ..Work::default() };
            // Every relation that the query read decided what is written.
            work.decided_by.extend(tables_of(&plan, &snapshot));
            let mut changed = Changed {
                count: 0,
                rows: Vec::new(),
                beside: search.beside(&plan, target, &snapshot.catalog),
                values: Vec::new(),
            };
            let mut found = self.collect_plan(plan, &snapshot).await?;
            if search.joins {
                found = once_each(&found, search.known_by)?.into_iter().collect();
            }
            for rows in found.iter().filter(|rows| rows.num_rows() > 0) {
                let Change { writes, rows: shown } = change(&writer, &rows.columns()[..width], self.database.clock.now())?;
                work.writes.extend(writes);
                changed.count += rows.num_rows();
                changed.rows.push(shown);
                let beside = rows.columns().get(width + relation.columns.len()..).unwrap_or_default();
                changed.values.push(beside.to_vec());
            }
            if work.writes.is_empty() || self.written(work, attempt).await? {
                return Ok(changed);
            }
        }
        Err(Error::internal("an endless loop has ended"))
    }

    /// Write what a snapshot decided. `false`: others have changed what decided it, and new snapshots show that.
    pub(super) async fn written(&mut self, mut work: Work, attempt: usize) -> Result<bool> {
        self.stage(&mut work)?;
        match self.write(work).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error, attempt) => self.await_others().await.map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Wait until reads show what others have written.
    pub(super) async fn await_others(&mut self) -> Result<()> {
        let end = self.database.log.end();
        self.database.engine.wait_until(move |snapshot| snapshot.commit >= end).await.map(drop)
    }
}

/// Whether a statement is to be done again, as others have changed what decided it.
pub(super) fn is_conflict(error: &Error, attempt: usize) -> bool {
    error.state() == SqlState::SerializationFailure && attempt < RETRIES
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

/// Of the rows that agree in their first columns, the least: which one the query finds first is not certain.
fn once_each(found: &[RecordBatch], known_by: usize) -> Result<Option<RecordBatch>> {
    let Some(first) = found.first() else { return Ok(None) };
    let rows = compute::concat_batches(&first.schema(), found)?;
    let fields = |columns: &[ArrayRef]| columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let known = &rows.columns()[..known_by];
    let known = RowConverter::new(fields(known))?.convert_columns(known)?;
    let mut seen = HashSet::with_capacity(rows.num_rows());
    if (0..rows.num_rows()).all(|row| seen.insert(known.row(row))) {
        return Ok(Some(rows));
    }
    let whole = RowConverter::new(fields(rows.columns()))?.convert_columns(rows.columns())?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| whole.row(*a as usize).cmp(&whole.row(*b as usize)));
    order.dedup_by(|a, b| known.row(*a as usize) == known.row(*b as usize));
    Ok(Some(compute::take_record_batch(&rows, &UInt32Array::from(order))?))
}

/// The new rows of an UPDATE: what they were known by, and the values of all columns.
pub(super) fn updated(
    writer: &RelationWriter,
    known_by: &[ArrayRef],
    values: &[ArrayRef],
    assigned: &[Assigned],
    shown: bool,
    now: Micros,
    formats: Formats,
) -> Result<Change> {
    let relation = writer.relation();
    let rows = values.first().map_or(0, |column| column.len());
    let value = |(at, column)| assign_value(&values[at], column, formats);
    let mut new = relation.columns.iter().enumerate().map(value).collect::<Result<Vec<ArrayRef>>>()?;
    for default in assigned.iter().filter(|assigned| assigned.value.is_none()) {
        new[default.column] = writer.compiled().default_of(default.column, rows, now)?;
    }
    let fields: Vec<Field> = relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
    let new = RecordBatch::try_new(Arc::new(Schema::new(fields)), new)?;
    let stored = if shown { writer.checked(new.clone(), now)? } else { new.clone() };
    if relation.has_row_id() {
        return Ok(Change { writes: writer.write(with_row_ids(&known_by[0], &new)?, Kind::Upsert, now)?, rows: stored });
    }
    let moved = relation.primary_key.iter().zip(known_by).any(|(at, old)| new.column(*at).as_ref() != old.as_ref());
    let mut writes = Vec::new();
    if moved {
        // Rows whose key changes leave their old place first.
        let mut columns = new.columns().to_vec();
        relation.primary_key.iter().zip(known_by).for_each(|(at, old)| columns[*at] = Arc::clone(old));
        writes = writer.write(RecordBatch::try_new(new.schema(), columns)?, Kind::Delete, now)?;
    }
    writes.extend(writer.write(new, Kind::Upsert, now)?);
    Ok(Change { writes, rows: stored })
}

/// What a DELETE does to the rows that it found.
fn deleted(known_by: usize) -> impl Fn(&RelationWriter, &[ArrayRef], Micros) -> Result<Change> {
    move |writer, found, now| {
        let relation = writer.relation();
        let (known_by, columns) = found.split_at(known_by);
        let fields: Vec<Field> = relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec())?;
        let gone = if relation.has_row_id() { with_row_ids(&known_by[0], &rows)? } else { rows.clone() };
        Ok(Change { writes: writer.write(gone, Kind::Delete, now)?, rows })
    }
}

/// Rows as the writer takes them that have ids.
fn with_row_ids(ids: &ArrayRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let id = Arc::new(Field::new(ROW_ID, DataType::Int64, false));
    let schema = Schema::new([id].into_iter().chain(rows.schema().fields().iter().cloned()).collect::<Vec<_>>());
    let columns = [ids].into_iter().chain(rows.columns()).cloned().collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
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
        _ => Err(Error::unsupported("DELETE of more than one table is not supported").with_hint("the others stand in USING")),
    }
}

fn delete_search(with: Option<&sp::With>, delete: &sp::Delete, target: &Target) -> Result<Search> {
    let values = target.columns().collect();
    Search::new(with, target, delete.using.as_deref(), values, delete.selection.clone(), delete.returning.is_some())
}

fn update_search(with: Option<&sp::With>, update: &sp::Update, target: &Target, assigned: &[Assigned]) -> Result<Search> {
    let beside = match &update.from {
        None => None,
        Some(sp::UpdateTableFromKind::AfterSet(from)) => Some(from.as_slice()),
        Some(sp::UpdateTableFromKind::BeforeSet(_)) => {
            return Err(Error::syntax("FROM of an UPDATE stands behind SET"));
        }
    };
    let mut values: Vec<sp::Expr> = target.columns().collect();
    for assigned in assigned {
        if let Some(value) = &assigned.value {
            values[assigned.column] = value.clone();
        }
    }
    Search::new(with, target, beside, values, update.selection.clone(), update.returning.is_some())
}
