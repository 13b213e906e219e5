//! Is a data directory intact?

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::{called, decode, instant, open, state};
use crate::catalog::{Catalog, RelationId};
use crate::error::{Error, Result};
use crate::log::datadir::DataDir;
use crate::log::{self, CommitId, CommitRecord, Log, LogReader, StoredBatch};
use crate::time::Micros;

/// Damaged places after which a check gives up: by then the disk is the problem.
const PROBLEMS: usize = 10_000;

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
    check.state(&data)?;
    let Check { commits, batches, rows, tables, problems, .. } = check;
    writeln!(
        out,
        "checked {commits} commits, {batches} batches, {rows} rows, {tables} state tables: {}",
        match problems {
            0 => "no damage found".to_string(),
            1 => "1 problem found".to_string(),
            n => format!("{n} problems found"),
        }
    )?;
    Ok(problems == 0)
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
    tables: u64,
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
            tables: 0,
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

    /// The newest checkpoint, table by table.
    fn state(&mut self, data: &DataDir) -> Result<()> {
        let (tables, damage) = state::check(data, &self.at_end)?;
        self.tables = tables;
        damage.into_iter().try_for_each(|what| self.problem(what))
    }
}
