//! A group: the transactions that become one commit.
//!
//! A transaction is checked against the state that the transactions before it leave, the committed ones and those of its own
//! group, and joins wholly or not at all. Small batches for the same place are merged into one where that keeps the order of a
//! partition: into the last batch of the partition, if that is of the same kind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;

use super::prepare::{Encoded, Part, Prepared, PreparedWrite};
use crate::catalog::acl::Object;
use crate::catalog::{Catalog, Change, Durability, NOW, Relation, RelationId, sequence_of};
use crate::error::{Error, Result};
use crate::limits;
use crate::log::layout::Layout;
use crate::log::record::{bytes_of, encode};
use crate::log::{Commit, CommitId, CommitRecord, Expect, Head, Header, Kind, LogBatch, LogReader, Place, StoredBatch};
use crate::time::{Micros, NO_TIME};

type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// The log as of its last commit.
pub(super) struct State {
    pub(super) end: CommitId,
    pub(super) time: Micros,
    pub(super) catalog: Arc<Catalog>,
    /// The last commit that changed the catalog.
    catalog_commit: CommitId,
    /// Of all relations in the log.
    pub(super) heads: Map<RelationId, Head>,
    producers: Map<u64, u64>,
}

impl State {
    /// What a store holds, and the relations that were dropped and not purged yet.
    pub(super) fn load(reader: &dyn LogReader) -> Result<(State, Vec<RelationId>)> {
        let end = reader.last_commit()?;
        let time = match end {
            0 => Micros::MIN,
            end => reader.commits(end, 1)?.first().map_or(Micros::MIN, |commit| commit.time),
        };
        let mut state =
            State { end, time, catalog: Arc::default(), catalog_commit: 0, heads: Map::default(), producers: Map::default() };
        for (commit, change) in reader.changes()? {
            state.change(commit, &change);
        }
        state.producers = reader.producers()?.into_iter().collect();
        let mut dropped = Vec::new();
        for (relation, stored) in reader.heads()? {
            match state.heads.get_mut(&relation) {
                Some(head) => {
                    let partitions = head.next_offsets.len();
                    *head = stored;
                    if head.next_offsets.len() < partitions {
                        head.next_offsets.resize(partitions, 0);
                    }
                }
                None => dropped.push(relation),
            }
        }
        Ok((state, dropped))
    }

    fn change(&mut self, commit: CommitId, change: &Change) {
        Arc::make_mut(&mut self.catalog).apply(change);
        self.catalog_commit = commit;
        match change {
            Change::Create(relation) | Change::Alter(relation) | Change::Replace(relation) if relation.kind.in_log() => {
                let head = self.heads.entry(relation.id).or_default();
                let partitions = head.next_offsets.len().max(relation.partitions as usize);
                head.next_offsets.resize(partitions, 0);
                head.commit = head.commit.max(commit);
                if relation.identity().is_some() {
                    self.heads.entry(sequence_of(relation.id)).or_default();
                }
            }
            Change::Create(_) | Change::Alter(_) | Change::Replace(_) => {}
            Change::SetRole(_) | Change::DropRole(_) | Change::SetAccess(..) => {}
            Change::SetFunction(_) | Change::DropFunction(_) | Change::SetSchema(_) | Change::DropSchema(_) => {}
            Change::Drop(id) => {
                self.heads.remove(id);
                self.heads.remove(&sequence_of(*id));
            }
        }
    }
}

/// Where a transaction has come to stand.
pub(super) struct Placed {
    pub(super) offsets: Vec<u64>,
    pub(super) duplicate: bool,
}

/// A batch to be.
struct Planned {
    relation: Arc<Relation>,
    partition: u32,
    kind: Kind,
    base_offset: u64,
    rows: usize,
    bytes: usize,
    /// That its writer knew of.
    columns: usize,
    event_times: Option<(Micros, Micros)>,
    producer: Option<(u64, u64)>,
    content: Content,
}

enum Content {
    Small(Vec<RecordBatch>),
    Encoded(Encoded),
}

pub(super) struct Group<'a> {
    state: &'a State,
    planned: Vec<Planned>,
    /// The last of `planned` for a partition.
    last: Map<(RelationId, u32), usize>,
    /// Heads as this group leaves them, of the relations it touches.
    pub(super) heads: BTreeMap<RelationId, Head>,
    watermarks: BTreeMap<RelationId, Micros>,
    producers: BTreeMap<u64, u64>,
    changes: Vec<Change>,
    pub(super) durability: Durability,
}

/// A commit, as it is stored and as it is read.
pub(super) struct Finished {
    pub(super) record: CommitRecord,
    /// `None` if not all rows are in memory.
    pub(super) commit: Option<Arc<Commit>>,
    pub(super) heads: BTreeMap<RelationId, Head>,
}

impl<'a> Group<'a> {
    pub(super) fn new(state: &'a State) -> Group<'a> {
        Group {
            state,
            planned: Vec::new(),
            last: Map::default(),
            heads: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            producers: BTreeMap::new(),
            changes: Vec::new(),
            durability: Durability::None,
        }
    }

    /// Take a transaction in, or leave the group as it was.
    pub(super) fn add(&mut self, transaction: Prepared) -> Result<Placed> {
        if let Some((producer, sequence)) = transaction.producer {
            let last = self.producers.get(&producer).or_else(|| self.state.producers.get(&producer));
            if last.is_some_and(|last| sequence <= *last) {
                self.durability = self.durability.max(transaction.durability);
                return Ok(Placed { offsets: Vec::new(), duplicate: true });
            }
        }
        let catalog = self.check(&transaction)?;
        let Prepared { writes, changes, marks, producer, durability, .. } = transaction;
        self.durability = self.durability.max(durability);
        self.producers.extend(producer);
        self.changes.extend(changes);
        let offsets = writes.into_iter().map(|write| self.plan(&catalog, write, producer)).collect::<Result<_>>()?;
        for (relation, time) in marks {
            self.raise_watermark(relation, time);
        }
        Ok(Placed { offsets, duplicate: false })
    }

    /// Everything that can be wrong with a transaction, before anything of it is taken in. Returns the catalog that it makes.
    fn check(&self, transaction: &Prepared) -> Result<Arc<Catalog>> {
        if let Some(expect) = &transaction.expect {
            self.check_expected(expect)?;
        }
        let mut catalog = self.state.catalog.clone();
        for change in &transaction.changes {
            check_change(&catalog, change)?;
            Arc::make_mut(&mut catalog).apply(change);
        }
        for write in &transaction.writes {
            check_write(&catalog, write)?;
        }
        for (relation, _) in &transaction.marks {
            in_log(&catalog, *relation)?;
        }
        Ok(catalog)
    }

    fn check_expected(&self, expect: &Expect) -> Result<()> {
        for relation in &expect.relations {
            let head = self.state.heads.get(relation);
            if self.heads.contains_key(relation) || head.is_none_or(|head| head.commit > expect.unchanged_since) {
                let name = self.state.catalog.get(*relation).map(|r| format!("{} \"{}\"", r.kind.noun(), r.name));
                return Err(conflict(name.as_deref().unwrap_or("a relation that was read")));
            }
        }
        if expect.catalog && (self.state.catalog_commit > expect.unchanged_since || !self.changes.is_empty()) {
            return Err(conflict("the catalog"));
        }
        Ok(())
    }

    /// Give a checked write its place. Returns its first offset.
    fn plan(&mut self, catalog: &Catalog, write: PreparedWrite, producer: Option<(u64, u64)>) -> Result<u64> {
        let relation = in_log(catalog, write.relation)?;
        let key = (write.relation, write.partition);
        let first = self.next_offset(relation, write.partition);
        let columns = write.shape.schema.fields().len();
        for part in write.parts {
            let (rows, base_offset) = (part.rows(), self.next_offset(relation, write.partition));
            self.advance(relation, write.partition, rows as u64);
            let (content, bytes) = match part {
                Part::Encoded(encoded) => (Content::Encoded(encoded), 0),
                Part::Small(batch, bytes) => {
                    let before = self.last.get(&key).map(|at| &mut self.planned[*at]);
                    if let Some(planned) = before
                        && planned.kind == write.kind
                        && planned.rows + rows <= limits::BATCH_ROWS
                        && planned.bytes + bytes <= limits::BATCH_BYTES
                        && let Content::Small(batches) = &mut planned.content
                    {
                        batches.push(batch);
                        planned.rows += rows;
                        planned.bytes += bytes;
                        planned.event_times = span(planned.event_times, write.event_times);
                        planned.producer = planned.producer.filter(|known| Some(*known) == producer);
                        continue;
                    }
                    (Content::Small(vec![batch]), bytes)
                }
            };
            self.last.insert(key, self.planned.len());
            let (partition, kind, event_times) = (write.partition, write.kind, write.event_times);
            self.planned.push(Planned {
                relation: relation.clone(),
                partition,
                kind,
                base_offset,
                rows,
                bytes,
                columns,
                event_times,
                producer,
                content,
            });
        }
        if let Some(time) = write.watermark {
            self.raise_watermark(write.relation, time);
        }
        if let Some(number) = write.number {
            self.raise_watermark(sequence_of(write.relation), number);
        }
        Ok(first)
    }

    fn head(&self, relation: RelationId) -> Option<&Head> {
        self.heads.get(&relation).or_else(|| self.state.heads.get(&relation))
    }

    fn head_mut(&mut self, relation: RelationId) -> &mut Head {
        let before = self.state.heads.get(&relation);
        self.heads.entry(relation).or_insert_with(|| before.cloned().unwrap_or_default())
    }

    fn next_offset(&self, relation: &Relation, partition: u32) -> u64 {
        self.head(relation.id).and_then(|head| head.next_offsets.get(partition as usize)).copied().unwrap_or(0)
    }

    fn advance(&mut self, relation: &Relation, partition: u32, rows: u64) {
        let head = self.head_mut(relation.id);
        if head.next_offsets.len() < relation.partitions as usize {
            head.next_offsets.resize(relation.partitions as usize, 0);
        }
        head.next_offsets[partition as usize] += rows;
    }

    /// Never lowers it.
    fn raise_watermark(&mut self, relation: RelationId, time: Micros) {
        if self.head(relation).and_then(|head| head.watermark).is_none_or(|before| time > before) {
            self.head_mut(relation).watermark = Some(time);
            self.watermarks.insert(relation, time);
        }
    }

    /// Nothing would be written.
    fn is_empty(&self) -> bool {
        self.planned.is_empty() && self.changes.is_empty() && self.watermarks.is_empty() && self.producers.is_empty()
    }

    /// The commit, if there is anything to commit.
    pub(super) fn finish(mut self, now: Micros) -> Result<Option<Finished>> {
        if self.is_empty() {
            return Ok(None);
        }
        let (id, time) = (self.state.end + 1, now.max(self.state.time));
        for head in self.heads.values_mut() {
            head.commit = id;
        }
        let mut schemas = Schemas::default();
        let mut stored = Vec::with_capacity(self.planned.len());
        let mut decoded = Some(Vec::with_capacity(self.planned.len()));
        for planned in self.planned {
            let layout = schemas.of(&planned.relation, planned.kind)?;
            let columns = match planned.content {
                Content::Small(_) => layout.schema.fields().len(),
                Content::Encoded(_) => planned.columns,
            };
            let before = self.state.heads.get(&planned.relation.id).and_then(|head| head.watermark);
            let header = Header {
                relation: planned.relation.id,
                partition: planned.partition,
                base_offset: planned.base_offset,
                rows: planned.rows as u32,
                columns: columns as u16,
                kind: planned.kind,
                commit: id,
                commit_time: time,
                watermark: before.unwrap_or(NO_TIME),
                event_times: planned.event_times,
                producer: planned.producer,
            };
            let encoded = encode_content(planned.content, layout)?;
            stored.push(StoredBatch { header, len: encoded.len, crc: encoded.crc, place: encoded.place });
            match (&mut decoded, encoded.rows) {
                (Some(decoded), Some(rows)) => decoded.push(LogBatch { header, rows: layout.widen(rows)? }),
                _ => decoded = None,
            }
        }
        let watermarks: Vec<_> = self.watermarks.into_iter().collect();
        let (producers, mut changes): (_, Vec<Change>) = (self.producers.into_iter().collect(), self.changes);
        changes.iter_mut().for_each(|change| stamp(change, id));
        let commit = decoded.map(|batches| {
            let (watermarks, changes) = (watermarks.clone(), changes.clone());
            Arc::new(Commit { id, time, batches, watermarks, changes, damaged: Vec::new() })
        });
        Ok(Some(Finished {
            record: CommitRecord { id, time, batches: stored, watermarks, producers, changes },
            commit,
            heads: self.heads,
        }))
    }
}

impl State {
    /// Take over what a commit did.
    pub(super) fn advance(
        &mut self,
        commit: CommitId,
        time: Micros,
        changes: &[Change],
        producers: &[(u64, u64)],
        heads: BTreeMap<RelationId, Head>,
    ) {
        (self.end, self.time) = (commit, time);
        self.heads.extend(heads);
        self.producers.extend(producers.iter().copied());
        for change in changes {
            self.change(commit, change);
        }
    }
}

/// Layouts of stored batches, made once.
#[derive(Default)]
pub(super) struct Schemas(Map<(RelationId, bool), Layout>);

impl Schemas {
    /// Of a delete only the key counts; in all other columns it may have nulls.
    pub(super) fn of(&mut self, relation: &Relation, kind: Kind) -> Result<&Layout> {
        let is_delete = kind == Kind::Delete;
        let place = match self.0.entry((relation.id, is_delete)) {
            Entry::Occupied(found) => return Ok(found.into_mut()),
            Entry::Vacant(place) => place,
        };
        let mut layout = Layout::of(relation)?;
        if is_delete {
            let key = relation.stored_key();
            let fields = layout.schema.fields().iter().enumerate();
            let fields =
                fields.map(|(at, f)| if key.contains(&at) { f.as_ref().clone() } else { f.as_ref().clone().with_nullable(true) });
            layout.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        Ok(place.insert(layout))
    }
}

fn encode_content(content: Content, layout: &Layout) -> Result<Encoded> {
    let mut batches = match content {
        Content::Encoded(encoded) => return Ok(encoded),
        Content::Small(batches) => batches,
    };
    let rows = match batches.len() {
        1 => layout.widen(batches.remove(0))?,
        _ => {
            let batches = batches.into_iter().map(|rows| layout.widen(rows)).collect::<Result<Vec<_>>>()?;
            concat_batches(&layout.schema, &batches)?
        }
    };
    let payload = encode(&rows)?;
    debug_assert!(payload.bytes.len() <= limits::STORED_VALUE_BYTES, "small batches stay small: {} bytes", bytes_of(&rows));
    let (count, len) = (rows.num_rows() as u32, payload.bytes.len() as u32);
    Ok(Encoded { count, len, crc: payload.crc, place: Place::Inline(payload.bytes), rows: Some(rows) })
}

fn span(a: Option<(Micros, Micros)>, b: Option<(Micros, Micros)>) -> Option<(Micros, Micros)> {
    match (a, b) {
        (Some((a0, a1)), Some((b0, b1))) => Some((a0.min(b0), a1.max(b1))),
        (a, b) => a.or(b),
    }
}

/// Say in a change which commit it is in, where it asks for that.
fn stamp(change: &mut Change, id: CommitId) {
    if let Change::Create(relation) | Change::Alter(relation) | Change::Replace(relation) = change {
        let stamped = |commit| if commit == NOW { id } else { commit };
        relation.paused = relation.paused.map(stamped);
        for since in relation.output.iter_mut().flat_map(|output| &mut output.since) {
            since.commit = stamped(since.commit);
        }
    }
}

fn conflict(what: &str) -> Error {
    Error::serialization_failure(format!("could not serialize access: {what} was changed by another transaction"))
        .with_hint("run the transaction again")
}

fn in_log(catalog: &Catalog, relation: RelationId) -> Result<&Arc<Relation>> {
    let found = catalog.get(relation).filter(|r| r.kind.in_log());
    found.ok_or_else(|| Error::undefined_table("the relation was dropped while the transaction was running"))
}

fn check_write(catalog: &Catalog, write: &PreparedWrite) -> Result<()> {
    let relation = in_log(catalog, write.relation)?;
    let (name, schema) = (&relation.name, relation.stored_schema());
    if write.partition >= relation.partitions {
        return Err(Error::internal(format!("partition {} of \"{name}\", which has {}", write.partition, relation.partitions)));
    }
    // Nor of the newest CHECK.
    if write.kind != Kind::Delete && write.checked < relation.newest_check() {
        return Err(conflict(&format!("{} \"{name}\" (its CHECK)", relation.kind.noun())));
    }
    let given = write.shape.schema.fields();
    // A writer that does not know of the newest columns yet.
    if given.len() < schema.fields().len() {
        let layout = Layout::of(relation)?;
        if let Some(lacking) = (given.len()..schema.fields().len()).find(|column| !layout.can_lack(*column)) {
            return Err(conflict(&format!("{} \"{name}\" (column \"{}\")", relation.kind.noun(), schema.field(lacking).name())));
        }
    }
    if given.len() > schema.fields().len() {
        return Err(Error::internal(format!("{} columns for \"{name}\", which has {}", given.len(), schema.fields().len())));
    }
    let key = relation.stored_key();
    for (at, ((given, expected), has_nulls)) in given.iter().zip(schema.fields()).zip(&write.shape.has_nulls).enumerate() {
        let column = expected.name();
        if given.data_type() != expected.data_type() {
            let (given, expected) = (given.data_type(), expected.data_type());
            return Err(Error::internal(format!(
                "column \"{column}\" of \"{name}\" is given as {given} and stored as {expected}"
            )));
        }
        let counts = write.kind != Kind::Delete || key.contains(&at);
        if *has_nulls && counts && !expected.is_nullable() {
            return Err(Error::not_null_violation(format!(
                "null value in column \"{column}\" of relation \"{name}\" violates not-null constraint"
            )));
        }
    }
    Ok(())
}

/// `catalog`: with the transaction's changes so far.
fn check_change(catalog: &Catalog, change: &Change) -> Result<()> {
    match change {
        Change::Create(relation) => {
            if let Some(there) = catalog.named(&relation.full_name()) {
                return Err(Error::duplicate_table(format!("relation \"{}\" already exists", relation.name))
                    .with_detail(format!("it is a {}", there.kind.noun()))
                    .with_hint("choose another name, or drop it first"));
            }
            if catalog.get(relation.id).is_some() || catalog.schemas().find(&relation.schema).is_none() {
                return Err(conflict("the catalog"));
            }
        }
        Change::Alter(relation) | Change::Replace(relation) => {
            if catalog.get(relation.id).is_none() {
                return Err(Error::undefined_table(format!("relation \"{}\" does not exist", relation.name)));
            }
            if catalog.named(&relation.full_name()).is_some_and(|there| there.id != relation.id) {
                return Err(Error::duplicate_table(format!("relation \"{}\" already exists", relation.name)));
            }
        }
        Change::Drop(id) => {
            if catalog.get(*id).is_none() {
                return Err(Error::undefined_table("the relation was dropped by another session"));
            }
        }
        Change::SetRole(role) => {
            if catalog.roles().find(&role.name).is_some_and(|there| there.id != role.id) {
                return Err(Error::duplicate_object(format!("role \"{}\" already exists", role.name)));
            }
        }
        Change::DropRole(id) => {
            if catalog.roles().get(*id).is_none() {
                return Err(Error::undefined_object("the role was dropped by another session"));
            }
        }
        Change::SetFunction(function) => {
            if catalog.get(function.id).is_some() {
                return Err(conflict("the catalog"));
            }
        }
        Change::DropFunction(id) => {
            if catalog.function(*id).is_none() {
                return Err(Error::undefined_function("the function was dropped by another session"));
            }
        }
        Change::SetSchema(schema) => {
            if catalog.schemas().find(&schema.name).is_some_and(|there| there.id != schema.id) {
                return Err(Error::duplicate_schema(format!("schema \"{}\" already exists", schema.name)));
            }
        }
        Change::DropSchema(id) => {
            if catalog.schemas().get(*id).is_none() {
                return Err(Error::undefined_schema("the schema was dropped by another session"));
            }
        }
        Change::SetAccess(object, _) => {
            if let Object::Relation(id) = object
                && catalog.get(*id).is_none()
            {
                return Err(Error::undefined_table("the relation was dropped by another session"));
            }
        }
    }
    Ok(())
}
