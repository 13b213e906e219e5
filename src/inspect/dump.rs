//! A data directory as text.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{called, decode, instant, open, state};
use crate::catalog::{Catalog, Change, Relation, RelationId, numbered_by};
use crate::error::Result;
use crate::log::{self, CommitRecord, Head, Kind, Log, LogReader};

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
    for function in catalog.functions() {
        writeln!(out, "  function {} ({}): {}", function.signature(), function.id, function.body)?;
    }
    for (producer, sequence) in reader.producers()? {
        writeln!(out, "producer {producer}: {sequence}")?;
    }
    state::dump(&data, &catalog, out)
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
            Change::Replace(relation) => writeln!(out, "  replace {}", called(Some(relation), relation.id))?,
            Change::Drop(id) => writeln!(out, "  drop {}", called(None, *id))?,
            Change::SetRole(role) => {
                writeln!(out, "  role {}{}", role.name, if role.verifier.is_some() { " with a password" } else { "" })?
            }
            Change::DropRole(id) => writeln!(out, "  drop role {}", catalog.roles().name(*id))?,
            Change::SetFunction(function) => {
                writeln!(out, "  function {} ({}), version {}", function.signature(), function.id, function.version)?
            }
            Change::DropFunction(id) => writeln!(out, "  drop function {id}")?,
            Change::SetSchema(schema) => writeln!(out, "  schema {} ({})", schema.name, schema.id)?,
            Change::DropSchema(id) => writeln!(out, "  drop schema {id}")?,
            Change::SetAccess(object, access) => {
                let granted = access.acl.iter().flat_map(|acl| acl.to_text(|role| catalog.roles().name(role)));
                let granted: Vec<String> = granted.collect();
                writeln!(out, "  access {object:?}: owner {}, {}", catalog.roles().name(access.owner), granted.join(" "))?;
            }
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
        let name = |id: RelationId| called(catalog.get(id).map(Arc::as_ref), id);
        match numbered_by(*relation) {
            Some(table) => writeln!(out, "  rows of {} numbered up to {time}", name(table))?,
            None => writeln!(out, "  watermark {} {}", name(*relation), instant(*time))?,
        }
    }
    Ok(())
}

pub(super) fn dump_rows(rows: &RecordBatch, out: &mut dyn Write) -> Result<()> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..rows.num_rows() {
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        writeln!(out, "    {}", values.join(" | "))?;
    }
    Ok(())
}
