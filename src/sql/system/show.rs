//! What SHOW and DESCRIBE answer, as batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};

use super::context::SystemContext;
use super::definitions::arrow_type;
use super::functions::definitions;
use super::tidegate::{column_names, destination, durability, emit, progress, state, target, watermark};
use super::value::{Value, array};
use crate::catalog::{Kind, Relation};
use crate::error::Result;
use crate::sql::ast::ShowObjects;
use crate::sql::window::show_duration;

/// Column name and PostgreSQL type.
type Columns<'a> = &'a [(&'a str, &'a str)];

fn batch(columns: Columns<'_>, rows: &[Vec<Value>]) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns.iter().map(|(name, pg_type)| Field::new(*name, arrow_type(pg_type), true)).collect();
    let arrays = fields.iter().enumerate().map(|(at, field)| {
        let values: Vec<Value> = rows.iter().map(|row| row.get(at).cloned().unwrap_or_default()).collect();
        array(&values, field.data_type())
    });
    let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// `SHOW STREAMS`, `SHOW TABLES`, …: one line per object, by name.
pub fn objects(context: &SystemContext, what: ShowObjects) -> Result<RecordBatch> {
    match what {
        ShowObjects::Streams => streams(context, |_| true),
        ShowObjects::Sources => streams(context, |stream| stream.options.contains_key("connector")),
        ShowObjects::Tables => tables(context),
        ShowObjects::MaterializedViews => materialized_views(context),
        ShowObjects::Views => views(context),
        ShowObjects::Queries => queries(context),
        ShowObjects::Sinks => sinks(context),
        ShowObjects::Functions => functions(context),
    }
}

fn named(context: &SystemContext, wanted: impl Fn(&Relation) -> bool) -> Vec<&Relation> {
    let mut relations: Vec<&Relation> = context.catalog().relations().map(AsRef::as_ref).filter(|r| wanted(r)).collect();
    relations.sort_by_cached_key(|relation| relation.full_name());
    relations
}

fn rows_of(context: &SystemContext, relation: &Relation) -> Option<i64> {
    context.snapshot.versions.get(&relation.id).map(|v| i64::try_from(v.rows()).unwrap_or(i64::MAX))
}

fn list(names: &[String]) -> Value {
    (!names.is_empty()).then(|| names.join(", ")).into()
}

fn streams(context: &SystemContext, wanted: impl Fn(&Relation) -> bool) -> Result<RecordBatch> {
    let columns: Columns<'_> = &[
        ("name", "text"),
        ("partitions", "int8"),
        ("partition_by", "text"),
        ("rows", "int8"),
        ("watermark", "timestamptz"),
        ("connector", "text"),
    ];
    let streams = named(context, |r| r.kind == Kind::Stream && wanted(r));
    let rows: Vec<Vec<Value>> = streams
        .into_iter()
        .map(|stream| {
            let kept = context.server.offsets(stream.id).iter().map(|(begin, end)| end.saturating_sub(*begin)).sum::<u64>();
            vec![
                stream.full_name().to_string().into(),
                i64::from(stream.partitions).into(),
                list(&column_names(stream, &stream.partition_by)),
                i64::try_from(kept).unwrap_or(i64::MAX).into(),
                watermark(context, stream).into(),
                stream.options.get("connector").map(String::as_str).into(),
            ]
        })
        .collect();
    batch(columns, &rows)
}

fn tables(context: &SystemContext) -> Result<RecordBatch> {
    let tables = named(context, |r| r.kind == Kind::Table);
    let rows: Vec<Vec<Value>> = tables
        .into_iter()
        .map(|t| vec![t.full_name().to_string().into(), list(&column_names(t, &t.primary_key)), rows_of(context, t).into()])
        .collect();
    batch(&[("name", "text"), ("primary_key", "text"), ("rows", "int8")], &rows)
}

fn sources(context: &SystemContext, relation: &Relation) -> Vec<String> {
    relation.depends_on.iter().filter_map(|id| context.catalog().get(*id)).map(|r| r.full_name().to_string()).collect()
}

fn materialized_views(context: &SystemContext) -> Result<RecordBatch> {
    let columns: Columns<'_> =
        &[("name", "text"), ("emit", "text"), ("reads", "text"), ("rows", "int8"), ("late_rows", "int8"), ("state", "text")];
    let views = named(context, |r| r.kind == Kind::MaterializedView);
    let rows: Vec<Vec<Value>> = views
        .into_iter()
        .map(|view| {
            let late = context.catalog().relations().find(|r| r.parent == Some(view.id));
            vec![
                view.full_name().to_string().into(),
                emit(view.emit).into(),
                list(&sources(context, view)),
                rows_of(context, view).into(),
                late.and_then(|l| rows_of(context, l)).into(),
                state(context, view).into(),
            ]
        })
        .collect();
    batch(columns, &rows)
}

fn views(context: &SystemContext) -> Result<RecordBatch> {
    let views = named(context, |r| r.kind == Kind::View);
    let rows: Vec<Vec<Value>> = views
        .into_iter()
        .map(|v| vec![v.full_name().to_string().into(), context.shown(v.query.as_deref().unwrap_or_default()).into()])
        .collect();
    batch(&[("name", "text"), ("query", "text")], &rows)
}

/// What runs: materialized views, derived streams and running INSERTs.
fn queries(context: &SystemContext) -> Result<RecordBatch> {
    let columns: Columns<'_> = &[
        ("id", "int8"),
        ("name", "text"),
        ("kind", "text"),
        ("writes_to", "text"),
        ("state", "text"),
        ("query", "text"),
        ("error", "text"),
    ];
    let running = named(context, |r| r.kind == Kind::MaterializedView || r.output.is_some());
    let rows: Vec<Vec<Value>> = running
        .into_iter()
        .map(|r| {
            vec![
                r.id.into(),
                r.full_name().to_string().into(),
                r.kind.noun().into(),
                target(context, r).into(),
                state(context, r).into(),
                r.query.as_deref().map(|query| context.shown(query)).into(),
                context.snapshot.failures.get(&r.id).map(ToString::to_string).into(),
            ]
        })
        .collect();
    batch(columns, &rows)
}

fn sinks(context: &SystemContext) -> Result<RecordBatch> {
    let columns: Columns<'_> =
        &[("name", "text"), ("writes_to", "text"), ("position", "int8"), ("query", "text"), ("error", "text")];
    let row = |sink: &Relation| -> Vec<Value> {
        let status = context.server.sink(sink.id).unwrap_or_default();
        vec![
            sink.full_name().to_string().into(),
            destination(sink).into(),
            status.position.map(|position| i64::try_from(position).unwrap_or(i64::MAX)).into(),
            sink.query.as_deref().map(|query| context.shown(query)).into(),
            status.error.into(),
        ]
    };
    let rows: Vec<Vec<Value>> = named(context, |r| r.kind == Kind::Sink).into_iter().map(row).collect();
    batch(columns, &rows)
}

fn functions(context: &SystemContext) -> Result<RecordBatch> {
    let kind = |kind: char| match kind {
        'a' => "aggregate",
        'w' => "window",
        _ => "scalar",
    };
    // Those of users first: they are why one asks.
    let users = context.catalog().functions().map(|f| {
        let arguments = definitions::arguments(f, true);
        vec![f.name.as_str().into(), "scalar".into(), arguments.into(), f.returns_sql.as_str().into(), "sql".into()]
    });
    let built_in = context
        .functions
        .iter()
        .map(|f| vec![f.name.as_str().into(), kind(f.kind).into(), Value::Null, Value::Null, "internal".into()]);
    let rows: Vec<Vec<Value>> = users.chain(built_in).collect();
    let columns: Columns<'_> =
        &[("name", "text"), ("kind", "text"), ("arguments", "text"), ("result", "text"), ("language", "text")];
    batch(columns, &rows)
}

/// `DESCRIBE name`: its columns. `DESCRIBE EXTENDED name`: after them, what else there is to know, a fact a line.
pub fn describe(context: &SystemContext, relation: &Relation, extended: bool) -> Result<RecordBatch> {
    let mut rows: Vec<Vec<Value>> = relation.columns.iter().enumerate().map(|(at, _)| column(relation, at)).collect();
    if extended {
        for (fact, value) in facts(context, relation) {
            rows.push(vec![format!("# {fact}").into(), value.into()]);
        }
    }
    batch(
        &[("column", "text"), ("type", "text"), ("nullable", "text"), ("key", "text"), ("extra", "text"), ("comment", "text")],
        &rows,
    )
}

fn column(relation: &Relation, at: usize) -> Vec<Value> {
    let Some(column) = relation.columns.get(at) else { return Vec::new() };
    let is_key = relation.primary_key.contains(&at);
    let mut extra: Vec<String> = Vec::new();
    if let Some(generated) = &column.generated {
        extra.push(format!("generated always as ({generated})"));
    }
    if let Some(default) = &column.default {
        extra.push(format!("default {default}"));
    }
    if let Some(watermark) = relation.watermark.as_ref().filter(|w| w.column == at) {
        extra.push(format!("watermark {}", watermark.expression));
    }
    let key = match (is_key, relation.partition_by.contains(&at)) {
        (true, _) => Some("primary"),
        (_, true) => Some("partition"),
        _ => None,
    };
    let nullable = if column.nullable && !(is_key && relation.kind == Kind::Table) { "yes" } else { "no" };
    vec![
        column.name.as_str().into(),
        column.sql_type.as_str().into(),
        nullable.into(),
        key.into(),
        list(&extra),
        column.comment.clone().into(),
    ]
}

fn facts(context: &SystemContext, relation: &Relation) -> Vec<(String, String)> {
    let mut facts = vec![("kind".to_string(), relation.kind.noun().to_string())];
    let mut fact =
        |name: &str, value: Option<String>| facts.extend(value.filter(|v| !v.is_empty()).map(|v| (name.to_string(), v)));
    let instant = |micros: i64| chrono::DateTime::from_timestamp_micros(micros).map(|t| t.format("%F %T%.6f+00").to_string());
    fact("comment", relation.comment.clone());
    fact("query", relation.query.as_deref().map(|query| context.shown(query)));
    fact("emit", relation.query.is_some().then(|| emit(relation.emit)));
    fact("writes to", target(context, relation).filter(|_| !relation.is_derived()));
    fact("consumed", context.snapshot.consumed.get(&relation.id).map(|commit| format!("up to commit {commit}")));
    fact("reads", Some(sources(context, relation).join(", ")));
    let functions = relation.functions.iter().filter_map(|of| context.catalog().function_version(*of).map(|f| f.signature()));
    fact("calls", Some(functions.collect::<Vec<_>>().join(", ")));
    let readers: Vec<String> = context.catalog().dependents(relation.id).map(|r| r.full_name().to_string()).collect();
    fact("read by", Some(readers.join(", ")));
    fact("watermark", watermark(context, relation).and_then(instant));
    if let Some(progress) = progress(context, relation) {
        fact("newest event time", progress.newest.and_then(instant));
        fact("frontier", progress.frontier.filter(|_| relation.kind != Kind::Stream).and_then(instant));
        fact("event-time lag", progress.lag.map(show_duration));
        fact("commits behind", Some(progress.commits_behind.to_string()));
    }
    fact("rows", rows_of(context, relation).map(|n| n.to_string()));
    let parent = relation.parent.and_then(|id| context.catalog().get(id));
    let of = if relation.kind == Kind::Late { "late rows of" } else { "dead letters of" };
    fact(of, parent.map(|p| p.full_name().to_string()));
    if relation.kind.in_log() {
        fact("durability", Some(durability(relation.durability).to_string()));
        fact("partitioned by", Some(column_names(relation, &relation.partition_by).join(", ")));
        for (partition, (begin, end)) in context.server.offsets(relation.id).into_iter().enumerate() {
            fact(&format!("partition {partition}"), Some(format!("offsets {begin} to {end}")));
        }
    }
    for (key, value) in &relation.options {
        fact(&format!("option {key}"), Some(value.clone()));
    }
    fact("paused at commit", relation.paused.map(|commit| commit.to_string()));
    if let Some(nulled) = context.snapshot.nulled.get(&relation.id) {
        fact("failures that are NULL", Some(nulled.count().to_string()));
        fact("last failure", nulled.last());
    }
    fact("failed", context.snapshot.failures.get(&relation.id).map(ToString::to_string));
    facts
}

/// `SHOW CREATE name`: the statement that made it, as it was written.
pub fn create(name: &str, sql: &str) -> Result<RecordBatch> {
    // Late rows come with their view and have no statement of their own.
    let sql = if sql.is_empty() { Value::Null } else { sql.into() };
    batch(&[("name", "text"), ("create_statement", "text")], &[vec![name.into(), sql]])
}

#[cfg(test)]
mod tests {
    use super::super::tests::system_context;
    use super::*;
    use crate::catalog::schema::PUBLIC;

    fn text(batch: &RecordBatch) -> Vec<String> {
        let cell = |row: usize, column: &ArrayRef| match super::super::value::value_at(column, row) {
            Value::Null => String::new(),
            Value::Text(text) => text,
            Value::Int(n) => n.to_string(),
            other => format!("{other:?}"),
        };
        (0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| cell(row, c)).collect::<Vec<_>>().join("|")).collect()
    }

    #[test]
    fn streams_and_views_are_listed_by_name() {
        let context = system_context();
        let streams = objects(&context, ShowObjects::Streams).unwrap();
        assert_eq!(text(&streams), ["orders|4|customer_id|9|1700000000000000|"]);
        let views = objects(&context, ShowObjects::MaterializedViews).unwrap();
        assert_eq!(text(&views), ["revenue|changes|orders|||building"]);
        assert_eq!(objects(&context, ShowObjects::Sources).unwrap().num_rows(), 0);
        let queries = objects(&context, ShowObjects::Queries).unwrap();
        assert_eq!(
            text(&queries),
            ["16386|revenue|materialized view||building|SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id|"]
        );
    }

    #[test]
    fn describe_tells_columns_and_when_extended_facts() {
        let context = system_context();
        let orders = context.catalog().find(PUBLIC, "orders").unwrap();
        let plain = describe(&context, orders, false).unwrap();
        assert_eq!(
            text(&plain),
            [
                "order_id|text|yes|||",
                "customer_id|text|yes|partition||",
                "amount|numeric(10,2)|no||default 0|",
                "event_time|timestamp(3) without time zone|yes||watermark event_time - INTERVAL '5' SECOND|",
                "fee|numeric|yes||generated always as (amount * 0.1)|",
            ]
        );
        let extended = describe(&context, orders, true).unwrap();
        assert_eq!(
            text(&extended)[5..],
            [
                "# kind|stream||||",
                "# read by|revenue, big||||",
                "# watermark|2023-11-14 22:13:20.000000+00||||",
                "# event-time lag|00:00:05||||",
                "# commits behind|0||||",
                "# durability|commit||||",
                "# partitioned by|customer_id||||",
                "# partition 0|offsets 0 to 3||||",
                "# partition 1|offsets 0 to 5||||",
                "# partition 2|offsets 2 to 2||||",
                "# partition 3|offsets 0 to 1||||",
                "# option retention|7 days||||",
            ]
        );
    }
}
