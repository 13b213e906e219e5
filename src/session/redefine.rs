//! Another definition in place: `CREATE OR REPLACE` of streams and tables, and `ALTER STREAM … AS`.
//!
//! What is in the log stays as it is. So the columns must stay, too, but for new ones at the end; what can be changed beside them
//! are defaults, options and, of a derived stream, its query. The same definition is no change. Anything else is refused with the
//! first difference.
//!
//! A derived stream is paused first, so that it is known how far its former query has come ([`Since`]); then it goes on from there
//! with the new one. Each commit is of one of them: those before the statement of the former, those after it of the new one.

use std::sync::Arc;

use super::Client;
use super::alter::{with_column, with_fill, with_options};
use super::definition::Definition;
use super::derive::{check_loop, plan_stream};
use super::views::with_clause;
use crate::catalog::schema::{RelationName, quoted};
use crate::catalog::{Change, Column, NOW, Output, Relation, Since, Watermark};
use crate::connect::Connector;
use crate::error::{Error, Result};
use crate::ingest::CompiledRelation;
use crate::sql::ast::{CreateRelation, CreateView};

/// Give a stream or table the definition `new`, as far as that can be done in place.
pub(super) fn redefine(definition: &mut Definition, former: &Relation, new: Relation, create: &CreateRelation) -> Result<()> {
    if former.query.is_some() || former.kind != new.kind || former.parent.is_some() {
        let what = if former.is_derived() { "derived stream" } else { former.kind.noun() };
        let message = format!("\"{}\" is a {what}, not a {} with columns of its own", former.name, new.kind.noun());
        return Err(Error::wrong_object_type(message).with_hint("DROP it first, or choose another name"));
    }
    if let Some(difference) = difference(former, &new) {
        return Err(in_the_way(former, &difference));
    }
    let planner = definition.planner();
    let (database, now) = (definition.database, definition.database.clock.now());
    let empty = database.log.head(former.id).is_none_or(|head| head.next_offsets.iter().all(|next| *next == 0));
    let changed = new.options.iter().filter(|(key, value)| former.options.get(*key) != Some(value));
    let mut altered = with_options(former, &changed.map(|(key, value)| (key.clone(), value.clone())).collect())?;
    altered.options.clone_from(&new.options);
    altered.durability = new.durability;
    for (column, new) in altered.columns.iter_mut().zip(&new.columns) {
        column.default.clone_from(&new.default);
    }
    for column in &create.columns[former.columns.len()..] {
        let added = with_column(&altered, column)?;
        let compiled = CompiledRelation::compile(Arc::new(added.clone()), &planner)?;
        altered = with_fill(added, &compiled, empty, now)?;
    }
    if altered == *former {
        return Ok(());
    }
    altered.create_sql = new.create_sql;
    CompiledRelation::compile(Arc::new(altered.clone()), &planner)?;
    altered.functions = planner.functions_called();
    Connector::of(&altered)?;
    definition.changes.push(Change::Alter(altered));
    Ok(())
}

fn in_the_way(former: &Relation, difference: &str) -> Error {
    let noun = former.kind.noun();
    let message = format!("cannot replace {noun} \"{}\" in place: {difference}", former.name);
    let hint = match former.is_derived() {
        true => "columns may be added at the end; else DROP it first, or CREATE STREAM another name AS the query",
        false => {
            "columns may be added at the end, defaults and options changed; else DROP it first, or CREATE another and INSERT INTO it SELECT from this one"
        }
    };
    Error::invalid_table_definition(message).with_hint(hint)
}

/// The first thing that would have to be written again, or has a meaning for what is there.
fn difference(former: &Relation, new: &Relation) -> Option<String> {
    let names = |r: &Relation, columns: &[usize]| {
        let names: Vec<&str> = columns.iter().map(|at| r.columns[*at].name.as_str()).collect();
        if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
    };
    let checks = |r: &Relation| {
        let mut checks: Vec<String> = r.checks.iter().map(|check| format!("{} ({})", check.name, check.expression)).collect();
        checks.sort_unstable();
        if checks.is_empty() { "none".to_string() } else { checks.join(", ") }
    };
    let says = |watermark: &Option<Watermark>| watermark.as_ref().map_or("none".into(), |w| w.expression.clone());
    if let Some(difference) = columns_differ(&former.columns, &new.columns) {
        return Some(difference);
    }
    let differs = |what: &str, was: String, is: String| (was != is).then(|| format!("{what} would be {is} instead of {was}"));
    differs("its primary key", names(former, &former.primary_key), names(new, &new.primary_key))
        .or_else(|| differs("what it is partitioned by", names(former, &former.partition_by), names(new, &new.partition_by)))
        .or_else(|| differs("the number of its partitions", former.partitions.to_string(), new.partitions.to_string()))
        .or_else(|| differs("its CHECKs", checks(former), checks(new)))
        .or_else(|| differs("its watermark", says(&former.watermark), says(&new.watermark)))
        .or_else(|| {
            let connector = |r: &Relation| r.options.get("connector").map_or("none".to_string(), String::clone);
            differs("its connector", connector(former), connector(new))
        })
}

fn columns_differ(former: &[Column], new: &[Column]) -> Option<String> {
    for (at, was) in former.iter().enumerate() {
        let name = &was.name;
        let Some(is) = new.get(at) else { return Some(format!("its column \"{name}\" would be gone")) };
        let null = |column: &Column| if column.nullable { "NULL" } else { "NOT NULL" };
        let generated = |column: &Column| column.generated.clone().unwrap_or_else(|| "not generated".into());
        if is.name != *name {
            return Some(format!("its column {} would be \"{}\" instead of \"{name}\"", at + 1, is.name));
        }
        if (&is.data_type, &is.sql_type) != (&was.data_type, &was.sql_type) {
            return Some(format!("its column \"{name}\" would be {} instead of {}", is.sql_type, was.sql_type));
        }
        if is.nullable != was.nullable {
            return Some(format!("its column \"{name}\" would be {} instead of {}", null(is), null(was)));
        }
        if is.generated != was.generated {
            return Some(format!("its column \"{name}\" would be {} instead of {}", generated(is), generated(was)));
        }
        if is.identity != was.identity {
            return Some(format!("its column \"{name}\" would be numbered in another way"));
        }
    }
    None
}

impl Client {
    /// Give a derived stream another query. `new`: its whole definition, and the text of it.
    pub(super) async fn replace_stream(
        &mut self,
        name: &RelationName,
        new: impl Fn(&Relation) -> Result<(CreateView, String)>,
    ) -> Result<()> {
        let altered = |definition: &Definition, consumed: u64| -> Result<_> {
            let catalog = definition.catalog;
            let gone = || Error::undefined_table(format!("stream \"{name}\" does not exist"));
            let former = catalog.named(name).ok_or_else(gone)?;
            if !former.is_derived() {
                let message = format!("\"{name}\" is a {}, and no derived stream", former.kind.noun());
                return Err(Error::wrong_object_type(message).with_hint("DROP it first, or choose another name"));
            }
            let (create, sql) = new(former)?;
            let (stream, fragment) = plan_stream(definition, &create, name, &sql)?;
            check_loop(catalog, former, &stream.depends_on)?;
            let stream = in_place(former, stream, consumed)?;
            let is_new = stream.query != former.query || stream.emit != former.emit || stream.columns != former.columns;
            let is_new = is_new || stream.options != former.options || stream.durability != former.durability;
            Ok(is_new.then_some((former.clone(), stream, fragment)))
        };
        // What is refused is refused before anything is done.
        let found = parking_lot::Mutex::new(None);
        self.define(|definition| {
            *found.lock() = altered(definition, NOW)?.map(|(former, ..)| former);
            Ok(())
        })
        .await?;
        let Some(former) = found.into_inner() else { return Ok(()) };
        if former.paused.is_none() {
            self.database.engine.wait_for(self.database.log.end()).await?;
            self.set_paused(name, true).await?;
        }
        let consumed = self.database.log.position_of(former.id)?;
        let replaced = self
            .define(|definition| {
                let Some((_, stream, fragment)) = altered(definition, consumed)? else { return Ok(()) };
                definition.changes.push(Change::Alter(stream.clone()));
                definition.follow_with_late_rows(&stream, &fragment)
            })
            .await;
        if let (Err(error), None) = (&replaced, former.paused) {
            let error = error.clone();
            self.set_paused(name, false).await?;
            return Err(error);
        }
        replaced?;
        self.await_query(name).await
    }

    async fn set_paused(&mut self, name: &RelationName, paused: bool) -> Result<()> {
        let paused = paused.then_some(NOW);
        self.change_catalog(|catalog| {
            let change = |r: &Arc<Relation>| Change::Alter(Relation { paused, ..Relation::clone(r) });
            Ok(catalog.named(name).map(change).into_iter().collect())
        })
        .await
    }

    /// `ALTER STREAM name AS query`: all else stays as it is.
    pub(super) async fn alter_stream_query(&mut self, name: &RelationName, alter: &CreateView, query: &str) -> Result<()> {
        let whole = |former: &Relation| {
            let output = former.output.as_ref();
            let ident = |at: &usize| sqlparser::ast::Ident::with_quote('"', &former.columns[*at].name);
            let create = CreateView {
                options: former.options.clone(),
                partition_by: former.partition_by.iter().map(ident).collect(),
                partitions: Some(former.partitions),
                changelog: output.is_some_and(|output| output.changelog),
                ..alter.clone()
            };
            Ok((create, definition_of(former, query)))
        };
        self.replace_stream(name, whole).await
    }
}

/// A derived stream with another query, after what the former one has written.
fn in_place(former: &Relation, new: Relation, consumed: u64) -> Result<Relation> {
    let was_changelog = former.output.as_ref().is_some_and(|output| output.changelog);
    let is_changelog = new.output.as_ref().is_some_and(|output| output.changelog);
    if was_changelog != is_changelog {
        let difference = if is_changelog { "its rows would be changes" } else { "its rows would be no changes any more" };
        return Err(in_the_way(former, difference));
    }
    // A column that cannot be NULL now may have been able to.
    let mut columns = new.columns.clone();
    for (column, was) in columns.iter_mut().zip(&former.columns) {
        column.nullable |= was.nullable;
        column.comment.clone_from(&was.comment);
    }
    let added = columns.iter_mut().skip(former.columns.len());
    added.for_each(|column| column.nullable = true);
    // Its watermark goes on as it was.
    let lost = former.watermark.as_ref().filter(|w| w.carried && new.watermark.as_ref().is_none_or(|n| n.column != w.column));
    let watermark = former.watermark.clone();
    let new = Relation { columns, watermark, ..new };
    if let Some(difference) = difference(former, &new) {
        return Err(in_the_way(former, &difference));
    }
    if let Some(lost) = lost {
        let column = &former.columns[lost.column].name;
        return Err(in_the_way(
            former,
            &format!("the query says nothing of the event time \"{column}\", so its watermark would stand still"),
        ));
    }
    let since = Some(Since { consumed, commit: NOW });
    let output = Output { target: former.id, columns: (0..new.columns.len()).collect(), changelog: is_changelog, since };
    Ok(Relation {
        id: former.id,
        comment: former.comment.clone(),
        fills: former.fills.clone(),
        output: Some(output),
        paused: None,
        ..new
    })
}

/// The text that makes the stream with this query.
fn definition_of(stream: &Relation, query: &str) -> String {
    let mut sql = format!("CREATE STREAM {}", stream.full_name().to_kept_sql());
    if let Some(watermark) = stream.watermark.as_ref().filter(|watermark| !watermark.carried) {
        let column = quoted(&stream.columns[watermark.column].name);
        sql.push_str(&format!(" (WATERMARK FOR {column} AS {})", watermark.expression));
    }
    if !stream.partition_by.is_empty() {
        let names: Vec<String> = stream.partition_by.iter().map(|at| quoted(&stream.columns[*at].name)).collect();
        sql.push_str(&format!(" PARTITION BY ({})", names.join(", ")));
    }
    if stream.partitions > 1 {
        sql.push_str(&format!(" INTO {} PARTITIONS", stream.partitions));
    }
    sql.push_str(&with_clause(&stream.options));
    let changes = stream.output.as_ref().is_some_and(|output| output.changelog);
    sql.push_str(if changes { " AS CHANGELOG OF (" } else { " AS " });
    sql.push_str(query);
    if changes {
        sql.push(')');
    }
    sql
}
