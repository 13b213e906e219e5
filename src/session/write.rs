//! Writing rows: INSERT, and what it shares with the statements that change rows ([`super::change`], [`super::conflict`]).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast as sp;

use super::change::Target;
use super::client::done;
use super::conflict::Conflict;
use super::define::{existing, no_column};
use super::returning::Beside;
use super::transaction::Work;
use super::{Bound, Client, Outcome, Parameter, assign};
use crate::catalog::{Column, Kind, Relation};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::log::{self, Write};
use crate::sql::ast::Options;
use crate::sql::plan;
use crate::sql::plan::names::fold;
use crate::view::Snapshot;

/// Rows from which on a batch is encoded and handed to the store before the commit.
pub(super) const STAGE_ROWS: usize = 4096;

impl Client {
    /// The relation that a statement writes to.
    pub(super) fn writable(&self, name: &sp::ObjectName, statement: &str) -> Result<Arc<Relation>> {
        let catalog = self.database.log.catalog();
        let resolved = self.relation_name(name)?;
        self.check_is_no_system_relation(name, &resolved)?;
        let relation = existing(&catalog, &resolved)?;
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
        types: &[Option<FieldRef>],
    ) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        let snapshot = self.peek_snapshot();
        let types = self.insert_types(insert, types)?;
        let planned = |types: &[_]| self.insert_plans(&snapshot, insert, types);
        let parameters = plan::inferred(&types, &snapshot.catalog, planned)?.0;
        Ok((parameters, self.insert_returning(insert)?))
    }

    /// Of which columns RETURNING is.
    pub(super) fn insert_returning(&self, insert: &sp::Insert) -> Result<Option<SchemaRef>> {
        let target = self.insert_into(insert)?;
        insert.returning.as_ref().map(|items| self.returning_schema(items, &target, &Beside::default())).transpose()
    }

    /// What the columns that it fills say of its parameters, beside what the client declared.
    pub(super) fn insert_types(&self, insert: &sp::Insert, declared: &[Option<FieldRef>]) -> Result<Vec<Option<FieldRef>>> {
        let relation = &self.insert_into(insert)?.relation;
        let Some(source) = &insert.source else { return Ok(declared.to_vec()) };
        let mut assigned = assign::inserted(source, relation, &insert_columns(insert, relation)?);
        let conflict = Conflict::of(insert, relation)?;
        if let Conflict::Update(_, set) = &conflict {
            assigned.extend(assign::parameters_of(set, relation));
        }
        Ok(assign::types(&assigned, declared))
    }

    /// The queries that it is made of.
    pub(super) fn insert_plans(
        &self,
        snapshot: &Arc<Snapshot>,
        insert: &sp::Insert,
        types: &[Option<FieldRef>],
    ) -> Result<Vec<LogicalPlan>> {
        let target = self.insert_into(insert)?;
        let relation = &target.relation;
        let targets = insert_columns(insert, relation)?;
        let conflict = Conflict::of(insert, relation)?;
        let Some(source) = &insert.source else { return Ok(Vec::new()) };
        let mut source = assign::with_types(source, relation, &targets)?;
        assign::mark_defaults(&mut source, &targets);
        let over = self.describe_conflict(snapshot, &target, &conflict, types)?;
        Ok([self.plan_query(snapshot, &source, types)?].into_iter().chain(over).collect())
    }

    /// Parameters of a query that writes; those that stand for the whole value of a column have its type.
    pub(super) fn describe_assigned(
        &self,
        query: &sp::Query,
        assigned: Vec<(usize, &Column)>,
        declared: &[Option<FieldRef>],
    ) -> Result<Vec<Parameter>> {
        let snapshot = self.peek_snapshot();
        let planned = |types: &[_]| self.plan_query(&snapshot, query, types).map(|plan| vec![plan]);
        Ok(plan::inferred(&assign::types(&assigned, declared), &snapshot.catalog, planned)?.0)
    }

    fn insert_into(&self, insert: &sp::Insert) -> Result<Target> {
        let relation = self.writable(insert_target(insert)?, "INSERT")?;
        Ok(Target { relation, alias: insert.table_alias.as_ref().map(|alias| alias.alias.clone()) })
    }

    pub(super) async fn insert(&mut self, insert: &sp::Insert, options: &Options, parameters: Bound) -> Result<Outcome> {
        let target = self.insert_into(insert)?;
        let relation = &target.relation;
        let targets = insert_columns(insert, relation)?;
        let rows = self.insert_source(insert, relation, &targets, &parameters).await?;
        if let Some(outcome) = self.insert_over(insert, &target, &rows, &parameters).await? {
            return Ok(outcome);
        }
        let writer = self.database.writer(relation)?;
        let kind = if relation.kind == Kind::Stream { log::Kind::Append } else { log::Kind::Upsert };
        let mut work = Work { durability: relation.durability, producer: producer(options)?, ..Work::default() };
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        for rows in rows {
            work.writes.extend(writer.write(rows, kind, self.database.clock.now())?);
        }
        let kept = insert.returning.is_some().then(|| work.writes.clone());
        self.stage(&mut work)?;
        let committed = self.write(work).await?;
        match (insert.returning.as_ref(), kept) {
            (Some(items), Some(writes)) => self.returning_inserted(items, &target, &writes, committed.as_ref()),
            _ => done(&format!("INSERT 0 {count}")),
        }
    }

    /// The rows of an INSERT: all columns of the relation, those that are generated apart.
    async fn insert_source(
        &mut self,
        insert: &sp::Insert,
        relation: &Arc<Relation>,
        targets: &[usize],
        parameters: &Bound,
    ) -> Result<Vec<RecordBatch>> {
        let compiled = Arc::clone(self.database.writer(relation)?.compiled());
        let now = self.database.clock.now();
        let Some(source) = &insert.source else {
            // INSERT … DEFAULT VALUES
            let one = RecordBatchOptions::new().with_row_count(Some(1));
            let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one)?;
            return Ok(vec![compiled.assign(&[], &one, now, Formats::default())?]);
        };
        let snapshot = self.snapshot().await?;
        let mut source = assign::with_types(source, relation, targets)?;
        let marked = assign::mark_defaults(&mut source, targets);
        let plan = self.plan_query(&snapshot, &source, &parameters.types)?;
        let width = plan.schema().fields().len() - marked.len();
        if width > targets.len() {
            return Err(Error::syntax("INSERT has more expressions than target columns"));
        }
        if width < targets.len() && !insert.columns.is_empty() {
            return Err(Error::syntax("INSERT has more target columns than expressions"));
        }
        for (place, at) in targets[..width].iter().enumerate() {
            check_value(relation, *at, !marked.contains(&place))?;
        }
        let plan = crate::sql::plan::bind(plan, parameters.clone())?;
        let formats = self.settings.formats();
        let assigned = |rows: &RecordBatch| {
            let given: Vec<usize> = (0..width).collect();
            let mut columns = compiled.assign(&targets[..width], &rows.project(&given)?, now, formats)?.columns().to_vec();
            for (mark, at) in rows.columns()[width..].iter().zip(marked.iter().map(|at| targets[*at])) {
                let mark = mark.as_boolean();
                check_value(relation, at, mark.false_count() > 0)?;
                let defaults: ArrayRef = compiled.default_of(at, mark.true_count(), now)?;
                let mut next = 0..;
                let place = |row| if mark.value(row) { (0, next.next().unwrap_or_default()) } else { (1, row) };
                let places: Vec<(usize, usize)> = (0..mark.len()).map(place).collect();
                columns[at] = compute::interleave(&[&defaults, &columns[at]], &places)?;
            }
            let fields = relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
        };
        self.collect_plan(plan, &snapshot).await?.iter().map(assigned).collect()
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
}

/// The rows of a write that has not been handed to the store.
pub(super) fn rows_of(write: &Write) -> Result<RecordBatch> {
    match &write.rows {
        log::Rows::Batch(rows) => Ok(rows.clone()),
        log::Rows::Staged(_) => Err(Error::internal("rows were handed to the store before they were returned")),
    }
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
            let message = format!("cannot insert a non-DEFAULT value into column \"{name}\": it is a generated column");
            return Err(Error::generated_always(message));
        }
        if targets.contains(&at) {
            return Err(Error::duplicate_column(format!("column \"{name}\" specified more than once")));
        }
        targets.push(at);
    }
    Ok(targets)
}

/// Whether a column may be given a value by an INSERT that does (`given`).
fn check_value(relation: &Relation, column: usize, given: bool) -> Result<()> {
    let column = &relation.columns[column];
    if !given || !column.identity.is_some_and(|identity| identity.always) {
        return Ok(());
    }
    Err(Error::generated_always(format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name))
        .with_detail(format!("column \"{}\" is an identity column defined as GENERATED ALWAYS", column.name))
        .with_hint("leave the column out, or define it as GENERATED BY DEFAULT"))
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
