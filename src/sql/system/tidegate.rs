//! The rows of schema tidegate: what PostgreSQL has no word for.

use super::context::SystemContext;
use super::table::Table;
use super::value::Value;
use crate::catalog::schema::RelationName;
use crate::catalog::{Durability, Emit, Kind, Relation, RelationId};
use crate::sql::window::show_duration;
use crate::time::{Micros, NO_TIME};

pub(super) fn fill(name: &str, context: &SystemContext, table: &mut Table<'_>) {
    match name {
        "streams" => streams(context, table),
        "views" => views(context, table),
        "queries" => queries(context, table),
        "sinks" => sinks(context, table),
        "watermarks" => watermarks(context, table),
        "partitions" => partitions(context, table),
        "commits" => commits(context, table),
        "snapshot" => snapshot(context, table),
        "backfills" => backfills(context, table),
        _ => {}
    }
}

/// Names of columns by their indices.
pub(super) fn column_names(relation: &Relation, indices: &[usize]) -> Vec<String> {
    indices.iter().filter_map(|&i| relation.columns.get(i)).map(|c| c.name.clone()).collect()
}

/// The watermark of a stream, if rows have moved it yet.
pub(super) fn watermark(context: &SystemContext, relation: &Relation) -> Option<Micros> {
    relation.watermark.as_ref()?;
    context.snapshot.watermarks.get(&relation.id).copied().filter(|time| *time != NO_TIME)
}

pub(super) fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::None => "none",
        Durability::Interval => "interval",
        Durability::Commit => "commit",
    }
}

pub(super) fn emit(emit: Emit) -> String {
    match emit {
        Emit::Changes => "changes".to_string(),
        Emit::Final => "final".to_string(),
        Emit::FinalOrSilent(after) => format!("final, or after {} without rows", show_duration(after)),
        Emit::Every(every) => format!("changes every {}", show_duration(every)),
    }
}

fn event_time(relation: &Relation) -> Option<&str> {
    let watermark = relation.watermark.as_ref()?;
    relation.columns.get(watermark.column).map(|c| c.name.as_str())
}

fn streams(context: &SystemContext, table: &mut Table<'_>) {
    for stream in context.catalog().relations().filter(|r| r.kind == Kind::Stream) {
        table.row([
            ("id", stream.id.into()),
            ("name", stream.full_name().to_string().into()),
            ("partitions", i64::from(stream.partitions).into()),
            ("partition_by", column_names(stream, &stream.partition_by).into()),
            ("event_time", event_time(stream).into()),
            ("watermark", watermark(context, stream).into()),
            ("watermark_expression", stream.watermark.as_ref().map(|w| w.expression.as_str()).into()),
            ("durability", durability(stream.durability).into()),
            ("connector", stream.options.get("connector").map(String::as_str).into()),
            ("derived", stream.query.is_some().into()),
            ("create_sql", context.shown(&stream.create_sql).into()),
        ]);
    }
}

/// What a view or a running query is doing.
pub(super) fn state(context: &SystemContext, query: &Relation) -> &'static str {
    let stored = query.kind == Kind::MaterializedView;
    match () {
        () if context.snapshot.failures.contains_key(&query.id) => "failed",
        () if query.paused.is_some() => "paused",
        () if stored && !context.snapshot.versions.contains_key(&query.id) => "building",
        () if query.output.is_some() && !context.snapshot.consumed.contains_key(&query.id) => "catching up",
        () => "running",
    }
}

fn views(context: &SystemContext, table: &mut Table<'_>) {
    let views = context.catalog().relations().filter(|r| matches!(r.kind, Kind::MaterializedView | Kind::View));
    for view in views {
        let failure = context.snapshot.failures.get(&view.id);
        let nulled = context.snapshot.nulled.get(&view.id);
        let sources = view.depends_on.iter().filter_map(|id| context.catalog().get(*id));
        let rows = |id| context.snapshot.versions.get(&id).map(|v| i64::try_from(v.rows()).unwrap_or(i64::MAX));
        let late = context.catalog().relations().find(|r| r.kind == Kind::Late && r.parent == Some(view.id));
        table.row([
            ("id", view.id.into()),
            ("name", view.full_name().to_string().into()),
            ("kind", view.kind.noun().into()),
            ("emit", emit(view.emit).into()),
            ("query", context.shown(view.query.as_deref().unwrap_or_default()).into()),
            ("key", column_names(view, &view.primary_key).into()),
            ("depends_on", sources.map(|s| s.full_name().to_string()).collect::<Vec<_>>().into()),
            ("rows", rows(view.id).into()),
            ("late_rows", late.and_then(|late| rows(late.id)).into()),
            ("commit", i64::try_from(view.paused.unwrap_or(context.snapshot.commit)).unwrap_or(i64::MAX).into()),
            ("state", state(context, view).into()),
            ("error", failure.map(|e| e.to_string()).into()),
            ("nulled", nulled.map(|n| i64::try_from(n.count()).unwrap_or(i64::MAX)).into()),
            ("last_error", nulled.and_then(|n| n.last()).into()),
        ]);
    }
}

/// What a running query writes to.
pub(super) fn target(context: &SystemContext, query: &Relation) -> Option<String> {
    let target = query.output.as_ref().and_then(|output| context.catalog().get(output.target));
    target.map(|relation| relation.full_name().to_string())
}

fn queries(context: &SystemContext, table: &mut Table<'_>) {
    let commit = |commit: u64| i64::try_from(commit).unwrap_or(i64::MAX);
    for query in context.catalog().relations().filter(|r| r.output.is_some()) {
        let failure = context.snapshot.failures.get(&query.id);
        let nulled = context.snapshot.nulled.get(&query.id);
        let consumed = context.snapshot.consumed.get(&query.id).copied();
        let sources = query.depends_on.iter().filter_map(|id| context.catalog().get(*id));
        let sources = sources.filter(|source| query.output.as_ref().is_some_and(|o| o.target != source.id));
        table.row([
            ("id", query.id.into()),
            ("name", query.full_name().to_string().into()),
            ("kind", query.kind.noun().into()),
            ("writes_to", target(context, query).into()),
            ("reads", sources.map(|s| s.full_name().to_string()).collect::<Vec<_>>().into()),
            ("emit", emit(query.emit).into()),
            ("state", state(context, query).into()),
            ("consumed", consumed.map(commit).into()),
            ("lag", consumed.map(|consumed| commit(context.snapshot.commit.saturating_sub(consumed))).into()),
            ("query", context.shown(query.query.as_deref().unwrap_or_default()).into()),
            ("error", failure.map(|e| e.to_string()).into()),
            ("nulled", nulled.map(|n| i64::try_from(n.count()).unwrap_or(i64::MAX)).into()),
            ("last_error", nulled.and_then(|n| n.last()).into()),
        ]);
    }
}

/// Where a sink's rows go: the connection and the table.
pub(super) fn destination(sink: &Relation) -> String {
    let option = |key: &str| sink.options.get(key).map(String::as_str);
    format!("{} of {}", option("table").unwrap_or(&sink.name), option("connection").unwrap_or_default())
}

fn sinks(context: &SystemContext, table: &mut Table<'_>) {
    let commit = |commit: u64| i64::try_from(commit).unwrap_or(i64::MAX);
    for sink in context.catalog().relations().filter(|r| r.kind == Kind::Sink) {
        let status = context.server.sink(sink.id).unwrap_or_default();
        table.row([
            ("id", sink.id.into()),
            ("name", sink.full_name().to_string().into()),
            ("connector", sink.options.get("connector").cloned().into()),
            ("writes_to", destination(sink).into()),
            ("key", column_names(sink, &sink.primary_key).into()),
            ("emit", emit(sink.emit).into()),
            ("position", status.position.map(commit).into()),
            ("lag", status.position.map(|position| commit(context.snapshot.commit.saturating_sub(position))).into()),
            ("rows_written", commit(status.rows).into()),
            ("query", context.shown(sink.query.as_deref().unwrap_or_default()).into()),
            ("error", status.error.into()),
        ]);
    }
}

/// How far time has come for a relation.
pub(super) struct Progress {
    /// The greatest event time of a stream so far.
    pub newest: Option<Micros>,
    /// What its rows are judged by: of a stream its watermark, of a view the least of those of the streams that it reads.
    pub frontier: Option<Micros>,
    /// How far that is behind the clock.
    pub lag: Option<Micros>,
    /// Commits of the log that it does not show yet.
    pub commits_behind: i64,
}

/// Of a stream with event time, and of a view over such.
pub(super) fn progress(context: &SystemContext, relation: &Relation) -> Option<Progress> {
    let mut streams = Vec::new();
    streams_of(context, relation, &mut streams);
    if streams.is_empty() {
        return None;
    }
    let snapshot = &context.snapshot;
    let reached = streams.iter().map(|id| snapshot.watermarks.get(id).copied().unwrap_or(NO_TIME)).min();
    let frontier = reached.filter(|time| *time != NO_TIME);
    let behind = context.server.end().saturating_sub(snapshot.commit);
    Some(Progress {
        newest: streams.iter().filter_map(|id| snapshot.newest.get(id)).max().copied(),
        frontier,
        lag: frontier.map(|frontier| context.now.saturating_sub(frontier)),
        commits_behind: i64::try_from(behind).unwrap_or(i64::MAX),
    })
}

/// Days and what is left of a day, as PostgreSQL writes a difference of times.
fn interval(micros: Micros) -> Value {
    const DAY: Micros = 86_400_000_000;
    Value::Interval { months: 0, days: i32::try_from(micros / DAY).unwrap_or(i32::MAX), micros: micros % DAY }
}

/// The streams with event time that a relation reads, through views, or is.
fn streams_of(context: &SystemContext, relation: &Relation, found: &mut Vec<RelationId>) {
    match relation.kind {
        Kind::Stream if relation.watermark.is_some() && !found.contains(&relation.id) => found.push(relation.id),
        Kind::MaterializedView | Kind::View => {
            let read = relation.depends_on.iter().filter_map(|id| context.catalog().get(*id));
            read.for_each(|read| streams_of(context, read, found));
        }
        _ => {}
    }
}

fn watermarks(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.catalog().relations().filter(|r| matches!(r.kind, Kind::Stream | Kind::MaterializedView)) {
        let Some(progress) = progress(context, relation) else { continue };
        table.row([
            ("id", relation.id.into()),
            ("name", relation.full_name().to_string().into()),
            ("kind", relation.kind.noun().into()),
            ("event_time", event_time(relation).into()),
            ("expression", relation.watermark.as_ref().map(|w| w.expression.as_str()).into()),
            ("newest", progress.newest.into()),
            ("watermark", watermark(context, relation).into()),
            ("frontier", progress.frontier.into()),
            ("lag", progress.lag.map_or(Value::Null, interval)),
            ("commits_behind", progress.commits_behind.into()),
        ]);
    }
}

fn partitions(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.catalog().relations().filter(|r| r.kind.in_log()) {
        let offsets = context.server.offsets(relation.id);
        let offset = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        for (partition, (begin, end)) in (0i32..).zip(offsets) {
            table.row([
                ("id", relation.id.into()),
                ("stream", relation.full_name().to_string().into()),
                ("partition", partition.into()),
                ("begin_offset", offset(begin)),
                ("end_offset", offset(end)),
            ]);
        }
    }
}

fn commits(context: &SystemContext, table: &mut Table<'_>) {
    // Those that are gone have a number only; and of those that the asker may not see, not even that.
    let is_hidden = |id: RelationId| context.catalog().get(id).is_none() && context.snapshot.catalog.get(id).is_some();
    let name = |id: &RelationId| match context.catalog().get(*id) {
        Some(relation) => Some(relation.full_name().to_string()),
        None => (!is_hidden(*id)).then(|| id.to_string()),
    };
    for commit in context.server.commits(context.snapshot.commit) {
        let seen = || commit.rows.iter().filter_map(|(id, rows)| Some((name(id)?, *rows)));
        let rows: u64 = seen().map(|(_, rows)| rows).sum();
        table.row([
            ("commit", i64::try_from(commit.id).unwrap_or(i64::MAX).into()),
            ("commit_time", commit.time.into()),
            ("rows", i64::try_from(rows).unwrap_or(i64::MAX).into()),
            ("relations", seen().map(|(name, _)| name).collect::<Vec<_>>().into()),
        ]);
    }
}

fn snapshot(context: &SystemContext, table: &mut Table<'_>) {
    let count = i64::try_from(context.catalog().relations().count()).unwrap_or(i64::MAX);
    table.row([
        ("commit", i64::try_from(context.snapshot.commit).unwrap_or(i64::MAX).into()),
        ("commit_time", context.snapshot.time.into()),
        ("relations", count.into()),
    ]);
}

/// Views that are being built from the log. Those that are replaced together share a build, and its figures.
fn backfills(context: &SystemContext, table: &mut Table<'_>) {
    let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    // What is not in the catalog yet belongs to nobody else.
    let seen = |view: &&RelationName| context.rights.is_superuser() || context.catalog().named(view).is_some();
    for build in context.server.backfills() {
        let seconds = build.elapsed.as_secs_f64();
        let rate = (build.rows > 0 && seconds > 0.0).then(|| build.rows as f64 / seconds);
        // What is written while it is built is read in its turn.
        let left = build.total.saturating_sub(build.rows) as f64;
        let time_left = rate.map(|rate| Value::Interval { months: 0, days: 0, micros: (left / rate * 1e6) as i64 });
        let since = context.now.saturating_sub(i64::try_from(build.elapsed.as_micros()).unwrap_or(i64::MAX));
        for view in build.views.iter().filter(seen) {
            table.row([
                ("view", view.to_string().into()),
                ("rows", count(build.rows)),
                ("total", count(build.total)),
                ("rate", rate.into()),
                ("time_left", time_left.clone().unwrap_or_default()),
                ("commit", count(build.commit)),
                ("since", since.into()),
            ]);
        }
    }
}
