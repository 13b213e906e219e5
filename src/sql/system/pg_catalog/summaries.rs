//! The views over the catalog that people read: pg_tables, pg_views, pg_matviews, pg_indexes, statistics.

use super::super::context::SystemContext;
use super::super::functions::definitions as sql;
use super::super::objects::{Class, Source};
use super::super::table::Table;
use super::super::value::Value;
use crate::catalog::role::SUPERUSER;
use crate::catalog::{Kind, Relation};

fn of_kind<'a>(context: &'a SystemContext, kind: &'static str) -> impl Iterator<Item = (&'a str, &'a Class)> {
    let classes = context.objects().classes().iter().filter(move |c| c.kind == kind);
    classes.map(|c| (c.schema.as_str(), c))
}

fn owner(context: &SystemContext, class: &Class) -> Value {
    match &class.source {
        Source::User(relation) | Source::Index(relation, _) | Source::Sequence(relation) => {
            context.owner_name(relation.id).into()
        }
        Source::System(_) => context.roles().name(SUPERUSER).into(),
    }
}

pub(super) fn tables(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in of_kind(context, "r") {
        let is_indexed = matches!(&class.source, Source::User(relation) if relation.all_indexes().next().is_some());
        table.row([
            ("schemaname", schema.into()),
            ("tablename", class.name.as_str().into()),
            ("tableowner", owner(context, class)),
            ("hasindexes", is_indexed.into()),
            ("hasrules", false.into()),
            ("hastriggers", false.into()),
            ("rowsecurity", false.into()),
        ]);
    }
}

fn definition(context: &SystemContext, relation: &Relation) -> Value {
    relation.query.as_ref().map(|query| format!("{};", context.shown(query))).into()
}

pub(super) fn views(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in of_kind(context, "v") {
        let query = if let Source::User(relation) = &class.source { definition(context, relation) } else { Value::Null };
        table.row([
            ("schemaname", schema.into()),
            ("viewname", class.name.as_str().into()),
            ("viewowner", owner(context, class)),
            ("definition", query),
        ]);
    }
}

pub(super) fn materialized_views(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in of_kind(context, "m") {
        let Source::User(relation) = &class.source else { continue };
        table.row([
            ("schemaname", schema.into()),
            ("matviewname", class.name.as_str().into()),
            ("matviewowner", owner(context, class)),
            ("hasindexes", relation.all_indexes().next().is_some().into()),
            ("ispopulated", true.into()),
            ("definition", definition(context, relation)),
        ]);
    }
}

pub(super) fn indexes(context: &SystemContext, table: &mut Table<'_>) {
    for (relation, index) in context.relations().flat_map(|r| r.all_indexes().map(move |index| (r, index))) {
        table.row([
            ("schemaname", relation.schema.as_str().into()),
            ("tablename", relation.name.as_str().into()),
            ("indexname", index.name.as_str().into()),
            ("indexdef", sql::index(relation, &index).into()),
        ]);
    }
}

/// Row counts of what is stored; the counters of scans are not kept.
pub(super) fn stat_tables(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.relations().filter(|r| r.kind != Kind::View) {
        let rows = context.snapshot.versions.get(&relation.id).map(|v| i64::try_from(v.rows()).unwrap_or(i64::MAX));
        table.row([
            ("relid", relation.id.into()),
            ("schemaname", relation.schema.as_str().into()),
            ("relname", relation.name.as_str().into()),
            ("n_live_tup", rows.into()),
        ]);
    }
}
