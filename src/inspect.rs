//! Looking into a data directory that no server uses: what is in it, and is it intact?
//!
//! [`dump`] prints everything as text: catalog, commits with their rows, checkpoints. [`check`] reads every record, compares
//! checksums, decodes, and follows offsets, commit numbers, times and watermarks; what is wrong is reported by stream,
//! partition and offset, and the rest goes on being checked.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::error::{Error, Result};
use crate::log::datadir::DataDir;
use crate::log::{self, CommitId, CommitRecord, Head, Kind, Log, LogReader, StoredBatch, record};
use crate::time::{Micros, NO_TIME};

/// Damaged places after which a check gives up: by then the disk is the problem.
const PROBLEMS: usize = 10_000;

/// Print what a data directory holds.
pub fn dump(dir: &Path, out: &mut dyn Write) -> Result<()> {
    let data = open(dir)?;
    let mut log = log::sled::open(&data)?;
    log.flush()?;
    let reader = log.reader();
    let (last, size) = (reader.last_commit()?, reader.size()?);
    writeln!(out, "log: {last} commits, {size} bytes")?;
    let mut catalog = Catalog::default();
    for id in 1..=last {
        match reader.commits(id, 1) {
            Err(error) => writeln!(out, "commit {id}: {error}")?,
            Ok(commits) => {
                for commit in commits {
                    commit.changes.iter().for_each(|change| catalog.apply(change));
                    dump_commit(&*reader, &catalog, &commit, out)?;
                }
            }
        }
    }
    writeln!(out, "catalog:")?;
    let heads: BTreeMap<RelationId, Head> = reader.heads()?.into_iter().collect();
    for relation in catalog.relations() {
        dump_relation(relation, heads.get(&relation.id), out)?;
    }
    for (producer, sequence) in reader.producers()? {
        writeln!(out, "producer {producer}: {sequence}")?;
    }
    Ok(())
}

/// Check a data directory. What is wrong is printed; true if nothing is.
pub fn check(dir: &Path, out: &mut dyn Write) -> Result<bool> {
    let data = open(dir)?;
    let mut check = match Check::open(&data, out) {
        Ok(check) => check,
        Err(error) => {
            // A log that does not open is a finding, and the only one that can be made.
            if error.state() != crate::error::SqlState::DataCorrupted {
                return Err(error);
            }
            writeln!(out, "damaged: {error}")?;
            return Ok(false);
        }
    };
    check.commits()?;
    check.ends()?;
    let Check { commits, batches, rows, problems, .. } = check;
    writeln!(
        out,
        "checked {commits} commits, {batches} batches, {rows} rows: {}",
        match problems {
            0 => "no damage found".to_string(),
            1 => "1 problem found".to_string(),
            n => format!("{n} problems found"),
        }
    )?;
    Ok(problems == 0)
}

/// A directory that is there already; looking must not make one.
fn open(dir: &Path) -> Result<DataDir> {
    if !dir.join("FORMAT").is_file() {
        return Err(Error::io(format!("{} is no data directory of Tidegate: it has no file FORMAT", dir.display()))
            .with_hint("name the directory of a server with --data-dir"));
    }
    DataDir::open(dir)
}

fn dump_relation(relation: &Relation, head: Option<&Head>, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "  {} ({})", called(Some(relation), relation.id), relation.id)?;
    for column in &relation.columns {
        let not_null = if column.nullable { "" } else { " not null" };
        writeln!(out, "    {} {}{not_null}", column.name, column.sql_type)?;
    }
    if let Some(watermark) = &relation.watermark {
        writeln!(out, "    watermark: {}", watermark.expression)?;
    }
    if let Some(query) = &relation.query {
        writeln!(out, "    query: {query}")?;
    }
    if let Some(head) = head {
        let time = head.watermark.map_or_else(|| "none".to_string(), instant);
        let mut next_offsets = head.next_offsets.clone();
        next_offsets.resize(next_offsets.len().max(relation.partitions as usize), 0);
        writeln!(out, "    next offsets {next_offsets:?}, watermark {time}, last commit {}", head.commit)?;
    }
    Ok(())
}

fn dump_commit(reader: &dyn LogReader, catalog: &Catalog, commit: &CommitRecord, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "commit {} at {}", commit.id, instant(commit.time))?;
    for change in &commit.changes {
        match change {
            Change::Create(relation) => writeln!(out, "  create {}", called(Some(relation), relation.id))?,
            Change::Alter(relation) => writeln!(out, "  alter {}", called(Some(relation), relation.id))?,
            Change::Drop(id) => writeln!(out, "  drop {}", called(None, *id))?,
        }
    }
    for stored in &commit.batches {
        let header = &stored.header;
        let relation = catalog.get(header.relation);
        let kind = match header.kind {
            Kind::Append => "append",
            Kind::Upsert => "upsert",
            Kind::Delete => "delete",
        };
        let offsets = format!("{} to {}", header.base_offset, header.next_offset().saturating_sub(1));
        write!(
            out,
            "  {kind} {} partition {} offsets {offsets}",
            called(relation.map(Arc::as_ref), header.relation),
            header.partition
        )?;
        if let Some((least, greatest)) = header.event_times {
            write!(out, ", event times {} to {}", instant(least), instant(greatest))?;
        }
        if let Some((producer, sequence)) = header.producer {
            write!(out, ", producer {producer} sequence {sequence}")?;
        }
        writeln!(out)?;
        match relation.map(|relation| decode(reader, relation, stored)) {
            None => writeln!(out, "    (dropped)")?,
            Some(Err(error)) => writeln!(out, "    {error}")?,
            Some(Ok(rows)) => dump_rows(&rows, out)?,
        }
    }
    for (relation, time) in &commit.watermarks {
        writeln!(out, "  watermark {} {}", called(catalog.get(*relation).map(Arc::as_ref), *relation), instant(*time))?;
    }
    Ok(())
}

fn dump_rows(rows: &RecordBatch, out: &mut dyn Write) -> Result<()> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..rows.num_rows() {
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        writeln!(out, "    {}", values.join(" | "))?;
    }
    Ok(())
}

/// A stored batch with the columns it was written with. In a delete all but the key may be null.
fn decode(reader: &dyn LogReader, relation: &Relation, stored: &StoredBatch) -> Result<RecordBatch> {
    let mut schema = relation.stored_schema();
    if stored.header.kind == Kind::Delete {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    }
    record::decode(&stored.header, &reader.payload(stored)?, &schema)
}

fn called(relation: Option<&Relation>, id: RelationId) -> String {
    relation.map_or_else(|| format!("relation {id}"), |r| format!("{} {}", r.kind.noun(), r.name))
}

fn instant(at: Micros) -> String {
    match chrono::DateTime::from_timestamp_micros(at) {
        _ if at == NO_TIME => "none".to_string(),
        Some(time) => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        None => at.to_string(),
    }
}

/// A check on its way through the log.
struct Check<'a> {
    reader: Arc<dyn LogReader>,
    out: &'a mut dyn Write,
    last: CommitId,
    catalog: Catalog,
    /// The catalog at the end: rows of a dropped relation may be gone.
    at_end: Catalog,
    next_offsets: BTreeMap<(RelationId, u32), u64>,
    watermarks: BTreeMap<RelationId, Micros>,
    time: Micros,
    commits: u64,
    batches: u64,
    rows: u64,
    problems: usize,
}

impl<'a> Check<'a> {
    fn open(data: &DataDir, out: &'a mut dyn Write) -> Result<Check<'a>> {
        let mut log = log::sled::open(data)?;
        // With nothing left to write, the store can take itself up again after it has met damage.
        log.flush()?;
        let reader = log.reader();
        let last = reader.last_commit()?;
        let mut at_end = Catalog::default();
        reader.changes()?.iter().for_each(|(_, change)| at_end.apply(change));
        Ok(Check {
            reader,
            out,
            last,
            catalog: Catalog::default(),
            at_end,
            next_offsets: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            time: Micros::MIN,
            commits: 0,
            batches: 0,
            rows: 0,
            problems: 0,
        })
    }

    fn problem(&mut self, what: impl Display) -> Result<()> {
        self.problems += 1;
        writeln!(self.out, "damaged: {what}")?;
        if self.problems >= PROBLEMS {
            return Err(Error::corrupted(format!("more than {PROBLEMS} places are damaged; the check was ended")));
        }
        Ok(())
    }

    fn commits(&mut self) -> Result<()> {
        for id in 1..=self.last {
            let found = self.reader.commits(id, 1);
            match found.map(|mut found| found.pop()) {
                Ok(Some(commit)) => self.commit(&commit)?,
                Ok(None) => self.problem(format!("commit {id} is missing"))?,
                Err(error) => self.problem(format!("commit {id}: {error}"))?,
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &CommitRecord) -> Result<()> {
        self.commits += 1;
        if commit.time < self.time {
            self.problem(format!("commit {}: its time {} is before that of the commit before", commit.id, instant(commit.time)))?;
        }
        self.time = self.time.max(commit.time);
        commit.changes.iter().for_each(|change| self.catalog.apply(change));
        for stored in &commit.batches {
            self.batch(commit, stored)?;
        }
        for (relation, time) in &commit.watermarks {
            let before = self.watermarks.insert(*relation, *time);
            if before.is_some_and(|before| before > *time) {
                let name = called(self.at_end.get(*relation).map(Arc::as_ref), *relation);
                self.problem(format!("{name}: its watermark goes back to {} in commit {}", instant(*time), commit.id))?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, commit: &CommitRecord, stored: &StoredBatch) -> Result<()> {
        let header = stored.header;
        let Some(relation) = self.at_end.get(header.relation).cloned() else { return Ok(()) };
        let place = format!("{}, partition {}", called(Some(&relation), relation.id), header.partition);
        self.batches += 1;
        let next = self.next_offsets.insert((header.relation, header.partition), header.next_offset()).unwrap_or(0);
        match header.base_offset {
            base if base > next => self.problem(format!("{place}: offsets {next} to {} are missing", base - 1))?,
            base if base < next => self.problem(format!("{place}: offset {base} of commit {} was there before", commit.id))?,
            _ => {}
        }
        if header.commit != commit.id || header.commit_time != commit.time {
            self.problem(format!(
                "{place}, offset {}: it says it is of commit {}, not {}",
                header.base_offset, header.commit, commit.id
            ))?;
        }
        let reader = self.reader.clone();
        match decode(&*reader, &relation, stored) {
            Ok(rows) => self.rows += rows.num_rows() as u64,
            Err(error) => {
                let last = header.next_offset().saturating_sub(1);
                self.problem(format!("{place}, offsets {} to {last}: {error}", header.base_offset))?;
            }
        }
        let indexed = reader.batches(header.relation, header.partition, header.base_offset, 1);
        match indexed.map(|mut found| found.pop()) {
            Ok(Some(Ok(found))) if found.header == header => Ok(()),
            Ok(Some(Err(error))) | Err(error) => {
                self.problem(format!("{place}, offset {}: the index: {error}", header.base_offset))
            }
            Ok(_) => self.problem(format!("{place}, offset {}: it is not in the index", header.base_offset)),
        }
    }

    /// Does what was found go as far as the log says?
    fn ends(&mut self) -> Result<()> {
        let heads = self.reader.heads()?;
        for (relation, head) in heads {
            let Some(known) = self.at_end.get(relation).cloned() else { continue };
            let name = called(Some(&known), relation);
            for (partition, end) in (0..).zip(&head.next_offsets) {
                let next = self.next_offsets.get(&(relation, partition)).copied().unwrap_or(0);
                if next < *end {
                    self.problem(format!("{name}, partition {partition}: offsets {next} to {} are missing", end - 1))?;
                }
            }
            let seen = self.watermarks.get(&relation).copied();
            if head.watermark != seen && self.commits == self.last {
                self.problem(format!("{name}: its watermark is not the one of its commits"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::store::Space;
    use crate::log::{LogHandle, Options, Rows, Transaction, Write as LogWrite};
    use crate::time::ManualClock;
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    fn stream(id: RelationId, name: &str) -> Relation {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": name, "kind": "stream", "columns": [
                {"name": "n", "data_type": "Int64", "sql_type": "bigint", "nullable": false, "default": null, "generated": null},
                {"name": "s", "data_type": "Utf8", "sql_type": "text", "nullable": true, "default": null, "generated": null},
            ],
            "primary_key": [], "watermark": null, "partition_by": [], "partitions": 2, "durability": "commit", "options": {},
            "create_sql": "", "query": null, "emit": "changes", "depends_on": [], "parent": null,
        }))
        .unwrap()
    }

    /// Noise, so that sled's compression leaves a page for it.
    fn noise(rows: usize, seed: u64) -> RecordBatch {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.random::<i64>())));
        let texts: ArrayRef = Arc::new(StringArray::from_iter((0..rows).map(|i| (i % 2 == 0).then_some("even"))));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, false), ("s", texts, true)]).unwrap()
    }

    fn write(dir: &Path, transactions: Vec<Vec<(RelationId, u32, RecordBatch)>>) {
        let log = log::sled::open(&DataDir::open(dir).unwrap()).unwrap();
        let log = LogHandle::start(Box::new(log), Arc::new(ManualClock::new(1_700_000_000_000_000)), Options::default()).unwrap();
        let changes = vec![Change::Create(stream(16384, "orders")), Change::Create(stream(16385, "clicks"))];
        log.submit(Transaction { changes, ..Transaction::default() }).wait().unwrap();
        for writes in transactions {
            let writes = writes.into_iter().map(|(relation, partition, rows)| {
                let (kind, rows, event_times) = (Kind::Append, Rows::Batch(rows), Some((0, 1_000_000)));
                LogWrite { relation, partition, kind, rows, event_times, watermark: (relation == 16384).then_some(5) }
            });
            log.submit(Transaction { writes: writes.collect(), ..Transaction::default() }).wait().unwrap();
        }
        log.close().unwrap();
    }

    fn checked(dir: &Path) -> (bool, String) {
        let mut out = Vec::new();
        let intact = check(dir, &mut out).unwrap();
        (intact, String::from_utf8(out).unwrap())
    }

    fn damage(dir: &Path, space: Space, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let db: ::sled::Db<4> = ::sled::Config::new().path(dir.join("log")).open().unwrap();
        let tree = db.open_tree(space.name()).unwrap();
        let mut value = tree.get(key).unwrap().unwrap().to_vec();
        change(&mut value);
        tree.insert(key, value).unwrap();
    }

    #[test]
    fn a_dump_shows_everything_as_text() {
        let dir = tempfile::tempdir().unwrap();
        let rows = noise(3, 0);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = RecordBatch::try_new(rows.schema(), vec![numbers, rows.column(1).clone()]).unwrap();
        write(dir.path(), vec![vec![(16384, 1, rows.clone())], vec![(16385, 0, rows.slice(2, 1)), (16384, 1, rows.slice(0, 1))]]);
        let mut out = Vec::new();
        dump(dir.path(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "\
commit 1 at 2023-11-14 22:13:20.000000
  create stream orders
  create stream clicks
commit 2 at 2023-11-14 22:13:20.000000
  append stream orders partition 1 offsets 0 to 2, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    1 | even
    2 | NULL
    3 | even
  watermark stream orders 1970-01-01 00:00:00.000005
commit 3 at 2023-11-14 22:13:20.000000
  append stream clicks partition 0 offsets 0 to 0, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    3 | even
  append stream orders partition 1 offsets 3 to 3, event times 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000
    1 | even
catalog:
  stream orders (16384)
    n bigint not null
    s text
    next offsets [0, 4], watermark 1970-01-01 00:00:00.000005, last commit 3
  stream clicks (16385)
    n bigint not null
    s text
    next offsets [1, 0], watermark none, last commit 3
";
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.starts_with("log: 3 commits, "), "{first}");
        assert_eq!(rest, expected);
    }

    #[test]
    fn damage_is_reported_by_stream_partition_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), (0..4).map(|i| vec![(16384, 1, noise(10, i)), (16385, 0, noise(1, i))]).collect());
        assert_eq!(checked(dir.path()), (true, "checked 5 commits, 8 batches, 44 rows: no damage found\n".to_string()));
        // The last payload of commit 3 is that of `clicks`.
        damage(dir.path(), Space::Commits, &3u64.to_be_bytes(), |value| {
            let at = value.len() - 100;
            value[at] ^= 1;
        });
        let (intact, text) = checked(dir.path());
        assert!(!intact && text.contains("damaged: stream clicks, partition 0, offsets 1 to 1: "), "{text}");
        assert!(text.contains("8 batches, 43 rows: 1 problem found"), "{text}");
    }

    #[test]
    fn pages_that_the_store_cannot_read_do_not_end_the_check() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), (0..12).map(|i| vec![(16384, (i % 2) as u32, noise(20_000, i)), (16385, 0, noise(5, i))]).collect());
        assert!(checked(dir.path()).0);
        let slabs = std::fs::read_dir(dir.path().join("log").join("slabs")).unwrap().map(|entry| entry.unwrap().path());
        let largest = slabs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&largest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&largest, bytes).unwrap();
        let (intact, text) = checked(dir.path());
        assert!(!intact && text.contains("damaged: stream orders, partition"), "{text}");
        assert!(text.contains("checked 13 commits"), "{text}");
        assert!(!text.contains("clicks"), "{text}");
    }

    #[test]
    fn a_missing_commit_is_seen_in_its_streams() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), (0..300).map(|i| vec![(16384, 1, noise(10, i))]).collect());
        damage(dir.path(), Space::Commits, &50u64.to_be_bytes(), |value| value[20] ^= 1);
        let (intact, text) = checked(dir.path());
        assert!(!intact && text.contains("damaged: commit 50: stored commit 50 is damaged"), "{text}");
        assert!(text.contains("damaged: stream orders, partition 1: offsets 480 to 489 are missing"), "{text}");
    }

    #[test]
    fn looking_makes_no_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        for missing in [dir.path().to_path_buf(), dir.path().join("none")] {
            assert!(dump(&missing, &mut Vec::new()).unwrap_err().message().contains("is no data directory"));
            assert!(check(&missing, &mut Vec::new()).is_err());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
