//! ON CONFLICT: what an INSERT does with rows whose key is there already.
//!
//! Without it, and with DO UPDATE of every column to what is inserted, a row replaces the one of its key, and nothing is read.
//! Otherwise the rows that are there are looked up by their keys, and decide. DO UPDATE is an UPDATE over them: a query over two
//! relations of as many rows, which are what was found and what was to be inserted, side by side.
//!
//! ```text
//!   INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n WHERE t.n > 0
//!   SELECT excluded."$row", t.id, t.id, t.n + excluded.n
//!   FROM pg_conflict_found t JOIN pg_conflict_given excluded ON t."$row" = excluded."$row" WHERE t.n > 0
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use sqlparser::ast as sp;

use super::assign::{self, Assigned};
use super::change::{Target, select, updated};
use super::client::done;
use super::define::no_column;
use super::returning::Beside;
use super::transaction::Work;
use super::{Bound, Client, Outcome};
use crate::catalog::Relation;
use crate::error::{Error, Result};
use crate::log::Kind;
use crate::sql::plan::SystemRelations;
use crate::sql::plan::names::fold;
use crate::sql::types;
use crate::view::Snapshot;

/// The relations of a DO UPDATE, and the column that pairs their rows. They start as names of the catalog do, so that nobody's
/// relation is called so.
const FOUND: &str = "pg_conflict_found";
const GIVEN: &str = "pg_conflict_given";
const ROW: &str = "$row";

/// What an INSERT does with a row whose key is there.
pub(super) enum Conflict<'a> {
    /// Put it in the other's place.
    Replace,
    Skip,
    Update(&'a sp::DoUpdate, Vec<Assigned>),
}

impl<'a> Conflict<'a> {
    pub fn of(insert: &'a sp::Insert, relation: &Relation) -> Result<Conflict<'a>> {
        let conflict = match &insert.on {
            None => return Ok(Conflict::Replace),
            Some(sp::OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => {
                return Err(
                    Error::syntax("ON DUPLICATE KEY UPDATE is not SQL").with_hint("write ON CONFLICT (key) DO UPDATE SET …")
                );
            }
        };
        check_target(conflict, relation)?;
        match &conflict.action {
            sp::OnConflictAction::DoNothing if relation.primary_key.is_empty() => Ok(Conflict::Replace),
            sp::OnConflictAction::DoNothing => Ok(Conflict::Skip),
            sp::OnConflictAction::DoUpdate(update) => Ok(Conflict::Update(update, assign::set(&update.assignments, relation)?)),
        }
    }

    /// Is what was there of no interest?
    fn replaces(&self, relation: &Relation) -> bool {
        let Conflict::Update(update, set) = self else { return matches!(self, Conflict::Replace) };
        let is_excluded = |assigned: &Assigned| {
            let Some(sp::Expr::CompoundIdentifier(path)) = &assigned.value else { return false };
            matches!(path.as_slice(), [table, column]
                if fold(table) == "excluded" && fold(column) == relation.columns[assigned.column].name)
        };
        let is_set = |at: usize| relation.primary_key.contains(&at) || set.iter().any(|assigned| assigned.column == at);
        let all = (0..relation.columns.len()).filter(|at| relation.columns[*at].generated.is_none()).all(is_set);
        update.selection.is_none() && all && set.iter().all(is_excluded)
    }
}

/// The conflict must be one of the primary key, which is all that can be unique.
fn check_target(conflict: &sp::OnConflict, relation: &Relation) -> Result<()> {
    let updates = matches!(conflict.action, sp::OnConflictAction::DoUpdate(_));
    match &conflict.conflict_target {
        None if updates => Err(Error::syntax("ON CONFLICT DO UPDATE requires inference specification or constraint name")
            .with_hint("write the columns of the key: ON CONFLICT (id) DO UPDATE …")),
        None => Ok(()),
        Some(sp::ConflictTarget::OnConstraint(name)) => {
            let written = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
            match !relation.primary_key.is_empty() && written == relation.key_name() {
                true => Ok(()),
                false => {
                    let message = format!("constraint \"{written}\" for table \"{}\" does not exist", relation.name);
                    Err(Error::undefined_object(message).with_hint("write the columns of the key: ON CONFLICT (id)"))
                }
            }
        }
        Some(sp::ConflictTarget::Columns(names)) => {
            let named = names.iter().map(|name| {
                let name = fold(name);
                relation.column(&name).ok_or_else(|| no_column(&name, &relation.name))
            });
            let named: HashSet<usize> = named.collect::<Result<_>>()?;
            match !named.is_empty() && named == relation.primary_key.iter().copied().collect() {
                true => Ok(()),
                false => Err(Error::invalid_column_reference(
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )
                .with_hint("the columns must be those of the primary key")),
            }
        }
    }
}

/// The rows of an INSERT, and those that are there.
struct Meeting {
    /// Rows whose key is new.
    fresh: Vec<u32>,
    /// Rows whose key is there, and where it is in `found`.
    met: Vec<(u32, u32)>,
    found: RecordBatch,
}

impl Client {
    /// An INSERT whose rows (all columns) are decided by those that are there. `None`: nothing that is there matters.
    pub(super) async fn insert_over(
        &mut self,
        insert: &sp::Insert,
        target: &Target,
        rows: &[RecordBatch],
        parameters: &Bound,
    ) -> Result<Option<Outcome>> {
        let relation = &target.relation;
        let conflict = Conflict::of(insert, relation)?;
        let Some(first) = rows.first().filter(|_| !matches!(conflict, Conflict::Replace)) else { return Ok(None) };
        let writer = self.database.writer(relation)?;
        let rows = writer.checked(compute::concat_batches(&first.schema(), rows)?, self.database.clock.now())?;
        let keys: Vec<ArrayRef> = relation.primary_key.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let encoded = encoded(&keys)?;
        let twice = !all_differ(&encoded);
        if twice && matches!(conflict, Conflict::Update(..)) {
            return Err(Error::cardinality_violation("ON CONFLICT DO UPDATE command cannot affect row a second time").with_hint(
                "ensure that no rows proposed for insertion within the same command have duplicate constrained values",
            ));
        }
        if conflict.replaces(relation) {
            return Ok(None);
        }
        for attempt in 0.. {
            let snapshot = self.snapshot().await?;
            let mut work = Work { durability: relation.durability, read_at: snapshot.commit, ..Work::default() };
            work.decided_by.insert(relation.id);
            let meeting = meeting(&snapshot, relation, &keys, &encoded)?;
            let fresh = UInt32Array::from(meeting.fresh.clone());
            let mut order: Vec<i64> = meeting.fresh.iter().map(|row| i64::from(*row)).collect();
            let mut shown = vec![compute::take_record_batch(&rows, &fresh)?];
            let now = self.database.clock.now();
            work.writes = writer.write(shown[0].clone(), Kind::Upsert, now)?;
            if let Conflict::Update(update, set) = &conflict
                && !meeting.met.is_empty()
            {
                let plan = self.conflict_plan(&snapshot, target, update, set, pairs(relation, &rows, &meeting)?, parameters)?;
                let plan = crate::sql::plan::bind(plan, parameters.clone())?;
                let formats = self.settings.formats();
                for found in self.collect_plan(plan, &snapshot).await?.iter().filter(|found| found.num_rows() > 0) {
                    order.extend(found.column(0).as_primitive::<Int64Type>().values());
                    let (known_by, values) = found.columns()[1..].split_at(relation.primary_key.len());
                    let change = updated(&writer, known_by, values, set, true, now, formats)?;
                    work.writes.extend(change.writes);
                    shown.push(change.rows);
                }
            }
            let nothing = work.writes.is_empty();
            if nothing || self.written(work, attempt).await? {
                return self.inserted_over(insert, target, &order, &shown).map(Some);
            }
        }
        Err(Error::internal("an endless loop has ended"))
    }

    /// The answer: rows in the order in which they were given.
    fn inserted_over(&self, insert: &sp::Insert, target: &Target, order: &[i64], shown: &[RecordBatch]) -> Result<Outcome> {
        let Some(items) = &insert.returning else { return done(&format!("INSERT 0 {}", order.len())) };
        let rows = compute::concat_batches(&shown[0].schema(), shown)?;
        let order = compute::sort_to_indices(&Int64Array::from(order.to_vec()), None, None)?;
        let rows = compute::take_record_batch(&rows, &order)?;
        self.returning_changed(items, target, vec![rows], &Beside::default(), &[], "INSERT 0")
    }

    /// The query of a DO UPDATE over these pairs of rows.
    fn conflict_plan(
        &self,
        snapshot: &Arc<Snapshot>,
        target: &Target,
        update: &sp::DoUpdate,
        set: &[Assigned],
        pairs: Pairs,
        parameters: &Bound,
    ) -> Result<LogicalPlan> {
        self.plan_conflict(snapshot, target, update, set, pairs, &parameters.types)
    }

    /// The same without rows, for its parameters.
    pub(super) fn describe_conflict(
        &self,
        snapshot: &Arc<Snapshot>,
        target: &Target,
        conflict: &Conflict,
        types: &[Option<FieldRef>],
    ) -> Result<Option<LogicalPlan>> {
        let Conflict::Update(update, set) = conflict else { return Ok(None) };
        let none = RecordBatch::new_empty(paired(&target.relation));
        let pairs = Pairs { found: none.clone(), given: none };
        self.plan_conflict(snapshot, target, update, set, pairs, types).map(Some)
    }

    fn plan_conflict(
        &self,
        snapshot: &Arc<Snapshot>,
        target: &Target,
        update: &sp::DoUpdate,
        set: &[Assigned],
        pairs: Pairs,
        types: &[Option<FieldRef>],
    ) -> Result<LogicalPlan> {
        let query = conflict_query(target, update, set)?;
        let relations = ConflictRelations {
            found: Arc::new(MemTable::try_new(pairs.found.schema(), vec![vec![pairs.found]])?),
            given: Arc::new(MemTable::try_new(pairs.given.schema(), vec![vec![pairs.given]])?),
            system: self.system(snapshot),
        };
        self.planner(snapshot).with_system(Arc::new(relations)).query_with_parameters(&query, types)
    }
}

fn conflict_query(target: &Target, update: &sp::DoUpdate, set: &[Assigned]) -> Result<sp::Query> {
    let relation = &target.relation;
    let name = target.alias.clone().unwrap_or_else(|| sp::Ident::with_quote('"', &relation.name));
    let found = Target { relation: Arc::clone(relation), alias: Some(name.clone()) };
    let given = Target { relation: Arc::clone(relation), alias: Some(sp::Ident::new("excluded")) };
    let mut values: Vec<sp::Expr> = relation.columns.iter().map(|column| found.column(&column.name)).collect();
    for assigned in set {
        if let Some(value) = &assigned.value {
            values[assigned.column] = value.clone();
        }
    }
    let key = relation.primary_key.iter().map(|at| found.column(&relation.columns[*at].name));
    let columns = [given.column(ROW)].into_iter().chain(key).chain(values).collect();
    let from = format!("{FOUND} AS {name} JOIN {GIVEN} AS excluded ON {} = {}", found.column(ROW), given.column(ROW));
    let mut query = select(columns, &from)?;
    if let sp::SetExpr::Select(select) = query.body.as_mut() {
        select.selection = update.selection.clone();
    }
    Ok(query)
}

/// Rows that are there, and those that were to be inserted in their places, in one order.
struct Pairs {
    found: RecordBatch,
    given: RecordBatch,
}

fn paired(relation: &Relation) -> SchemaRef {
    let columns = types::declare(&relation.schema(), &relation.columns);
    let columns = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(columns.chain([Field::new(ROW, DataType::Int64, false)]).collect::<Vec<_>>()))
}

fn pairs(relation: &Relation, rows: &RecordBatch, meeting: &Meeting) -> Result<Pairs> {
    let schema = paired(relation);
    let (of_given, of_found): (Vec<u32>, Vec<u32>) = meeting.met.iter().copied().unzip();
    let row: ArrayRef = Arc::new(Int64Array::from_iter_values(of_given.iter().map(|row| i64::from(*row))));
    let side = |rows: &RecordBatch, of: Vec<u32>| -> Result<RecordBatch> {
        let taken = compute::take_record_batch(rows, &UInt32Array::from(of))?;
        let columns = taken.columns().iter().chain([&row]).cloned().collect();
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    };
    Ok(Pairs { found: side(&meeting.found, of_found)?, given: side(rows, of_given)? })
}

/// Which of the rows have keys that are there. Of several with one new key the first is new, and the others meet it.
fn meeting(snapshot: &Snapshot, relation: &Relation, keys: &[ArrayRef], encoded: &[OwnedRow]) -> Result<Meeting> {
    let found = match snapshot.versions.get(&relation.id) {
        Some(version) => version.lookup(keys)?,
        None => RecordBatch::new_empty(relation.stored_schema()),
    };
    let found_keys: Vec<ArrayRef> = relation.primary_key.iter().map(|at| Arc::clone(found.column(*at))).collect();
    let places: HashMap<OwnedRow, u32> = self::encoded(&found_keys)?.into_iter().zip(0..).collect();
    let mut seen = HashSet::new();
    let (mut fresh, mut met) = (Vec::new(), Vec::new());
    for (key, row) in encoded.iter().zip(0..) {
        match places.get(key) {
            Some(place) => met.push((row, *place)),
            None if seen.insert(key) => fresh.push(row),
            None => {}
        }
    }
    Ok(Meeting { fresh, met, found })
}

fn encoded(keys: &[ArrayRef]) -> Result<Vec<OwnedRow>> {
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(keys)?.iter().map(|row| row.owned()).collect())
}

fn all_differ(keys: &[OwnedRow]) -> bool {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.iter().all(|key| seen.insert(key))
}

/// The system's relations, and two more.
struct ConflictRelations {
    found: Arc<dyn TableProvider>,
    given: Arc<dyn TableProvider>,
    system: Arc<dyn SystemRelations>,
}

impl SystemRelations for ConflictRelations {
    fn table(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        match (schema, name) {
            (None, FOUND) => Some(Arc::clone(&self.found)),
            (None, GIVEN) => Some(Arc::clone(&self.given)),
            _ => self.system.table(schema, name),
        }
    }

    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.system.function(name)
    }
}
