//! Relations, their columns and what hangs on them.

use arrow::datatypes::DataType;

use super::super::context::SystemContext;
use super::super::definitions::find;
use super::super::objects::*;
use super::super::table::Table;
use super::super::types as pg_types;
use super::super::value::Value;
use crate::catalog::acl::Object;
use crate::catalog::role::SUPERUSER;
use crate::catalog::{Identity, Kind, Relation, sequence_of};

/// OID of the access method `heap`, and of `btree`.
pub(super) const HEAP: u32 = 2;
pub(super) const BTREE: u32 = 403;

pub(super) fn class(context: &SystemContext, table: &mut Table<'_>) {
    for class in context.objects().classes() {
        let (row_type, rows, is_indexed) = match &class.source {
            Source::User(relation) => {
                (row_type_oid(relation.id), row_count(context, relation), relation.all_indexes().next().is_some())
            }
            Source::Index(relation, _) => (0, row_count(context, relation), false),
            Source::Sequence(_) => (0, 1.0, false),
            Source::System(_) => (0, -1.0, false),
        };
        let (owner, acl) = match &class.source {
            Source::User(relation) => context.access(Object::Relation(relation.id)),
            // An index is its relation's owner's, and so is a sequence.
            Source::Index(relation, _) | Source::Sequence(relation) => {
                (context.access(Object::Relation(relation.id)).0, Value::Null)
            }
            Source::System(_) => (SUPERUSER, Value::Null),
        };
        let columns = i16::try_from(class.attributes().len()).unwrap_or(i16::MAX);
        let checks = if let Source::User(relation) = &class.source { relation.checks.len() } else { 0 };
        table.row([
            ("oid", class.oid.into()),
            ("relname", class.name.as_str().into()),
            ("relnamespace", class.namespace.into()),
            ("reltype", row_type.into()),
            ("relowner", owner.into()),
            ("relacl", acl),
            ("relam", access_method(class.kind).into()),
            ("relfilenode", (if class.kind == "v" { 0 } else { class.oid }).into()),
            ("reltuples", rows.into()),
            ("relhasindex", is_indexed.into()),
            ("relpersistence", "p".into()),
            ("relkind", class.kind.into()),
            ("relnatts", columns.into()),
            ("relchecks", i16::try_from(checks).unwrap_or(i16::MAX).into()),
            ("relhasrules", matches!(class.kind, "v" | "m").into()),
            ("relispopulated", true.into()),
            ("relreplident", (if matches!(class.kind, "i" | "v" | "S") { "n" } else { "d" }).into()),
            ("reloptions", options(class).into()),
        ]);
    }
}

/// Rows as far as they are counted anyway; -1 where nobody counts.
fn row_count(context: &SystemContext, relation: &Relation) -> f64 {
    if relation.kind == Kind::Stream {
        let offsets = context.server.offsets(relation.id);
        return offsets.iter().map(|(begin, end)| end.saturating_sub(*begin) as f64).sum();
    }
    context.snapshot.versions.get(&relation.id).map_or(-1.0, |version| version.rows() as f64)
}

fn options(class: &Class) -> Option<Vec<String>> {
    let Source::User(relation) = &class.source else { return None };
    let options: Vec<String> = relation.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!options.is_empty()).then_some(options)
}

fn access_method(kind: &str) -> u32 {
    match kind {
        "i" => BTREE,
        "r" | "m" => HEAP,
        _ => 0,
    }
}

pub(super) fn attribute(context: &SystemContext, table: &mut Table<'_>) {
    for class in context.objects().classes() {
        for attribute in class.attributes() {
            let found = pg_types::by_oid(attribute.type_oid);
            let of_type = |get: fn(&pg_types::PgType) -> Value| found.map_or(Value::Null, get);
            table.row([
                ("attrelid", class.oid.into()),
                ("attname", attribute.name.as_str().into()),
                ("atttypid", attribute.type_oid.into()),
                ("attstattarget", (-1).into()),
                ("attlen", of_type(|t| t.len.into())),
                ("attnum", attribute.number.into()),
                ("attndims", i32::from(found.is_some_and(|t| t.category == "A")).into()),
                ("attcacheoff", (-1).into()),
                ("atttypmod", attribute.typmod.into()),
                ("attbyval", of_type(|t| t.by_value.into())),
                ("attalign", of_type(|t| t.align.into())),
                ("attstorage", of_type(|t| t.storage.into())),
                ("attnotnull", attribute.not_null.into()),
                ("atthasdef", attribute.default.is_some().into()),
                ("attidentity", identity_letter(attribute.identity).into()),
                ("attgenerated", (if attribute.generated { "s" } else { "" }).into()),
                ("attislocal", true.into()),
                ("attcollation", of_type(|t| t.collation.into())),
            ]);
        }
    }
}

fn identity_letter(identity: Option<Identity>) -> &'static str {
    match identity {
        None => "",
        Some(Identity { always: true, .. }) => "a",
        Some(_) => "d",
    }
}

pub(super) fn sequence(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.relations() {
        let Some((at, identity)) = relation.identity() else { continue };
        let (of_type, greatest) = match relation.columns[at].data_type {
            DataType::Int16 => ("int2", i16::MAX.into()),
            DataType::Int32 => ("int4", i32::MAX.into()),
            _ => ("int8", i64::MAX),
        };
        table.row([
            ("seqrelid", sequence_of(relation.id).into()),
            ("seqtypid", pg_types::by_name(of_type).map_or(0, |t| t.oid).into()),
            ("seqstart", identity.start.into()),
            ("seqincrement", identity.step.into()),
            ("seqmax", greatest.into()),
            ("seqmin", identity.start.min(1).into()),
            ("seqcache", 1i64.into()),
            ("seqcycle", false.into()),
        ]);
    }
}

pub(super) fn attrdef(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.relations() {
        for (index, column) in relation.columns.iter().enumerate() {
            let Some(expression) = column.generated.as_ref().or(column.default.as_ref()) else { continue };
            table.row([
                ("oid", default_oid(relation.id, number(index)).into()),
                ("adrelid", relation.id.into()),
                ("adnum", number(index).into()),
                ("adbin", expression.as_str().into()),
            ]);
        }
    }
}

fn numbers(columns: &[usize]) -> Vec<i16> {
    columns.iter().map(|&i| number(i)).collect()
}

pub(super) fn index(context: &SystemContext, table: &mut Table<'_>) {
    for (relation, index) in context.relations().flat_map(|r| r.all_indexes().map(move |index| (r, index))) {
        let columns = index.columns.iter().filter_map(|&i| relation.columns.get(i));
        let types: Vec<u32> = columns.map(|c| pg_types::of_column(c).0).collect();
        let collations: Vec<u32> = types.iter().map(|t| pg_types::by_oid(*t).map_or(0, |t| t.collation)).collect();
        let classes: Vec<u32> = types.iter().map(|t| super::types::operator_class_of(*t)).collect();
        let count = i16::try_from(index.columns.len()).unwrap_or(i16::MAX);
        table.row([
            ("indexrelid", index.id.into()),
            ("indrelid", relation.id.into()),
            ("indnatts", count.into()),
            ("indnkeyatts", count.into()),
            ("indisunique", index.unique.into()),
            ("indisprimary", index.primary.into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indoption", vec![0i16; index.columns.len()].into()),
            ("indkey", numbers(&index.columns).into()),
            ("indcollation", collations.into()),
            ("indclass", classes.into()),
        ]);
    }
}

pub(super) fn constraint(context: &SystemContext, table: &mut Table<'_>) {
    check(context, table);
    for (relation, key) in context.relations().filter_map(|r| Some((r, r.key_index()?))) {
        table.row([
            ("oid", constraint_oid(relation.id).into()),
            ("conname", key.name.as_str().into()),
            ("connamespace", context.catalog().schema_of(relation).into()),
            ("contype", "p".into()),
            ("convalidated", true.into()),
            ("conrelid", relation.id.into()),
            ("conindid", key.id.into()),
            ("confupdtype", " ".into()),
            ("confdeltype", " ".into()),
            ("confmatchtype", " ".into()),
            ("conislocal", true.into()),
            ("connoinherit", true.into()),
            ("conkey", numbers(&key.columns).into()),
        ]);
    }
}

/// CHECKs.
fn check(context: &SystemContext, table: &mut Table<'_>) {
    for (relation, check) in context.relations().flat_map(|r| r.checks.iter().map(move |check| (r, check))) {
        table.row([
            ("oid", check.id.into()),
            ("conname", check.name.as_str().into()),
            ("connamespace", context.catalog().schema_of(relation).into()),
            ("contype", "c".into()),
            ("convalidated", check.validated.into()),
            ("conrelid", relation.id.into()),
            ("confupdtype", " ".into()),
            ("confdeltype", " ".into()),
            ("confmatchtype", " ".into()),
            ("conislocal", true.into()),
            ("conkey", numbers(&check.columns).into()),
            ("conbin", check.expression.as_str().into()),
        ]);
    }
}

pub(super) fn description(context: &SystemContext, table: &mut Table<'_>) {
    let mut row = |object: u32, class: &str, column: i32, text: &str| {
        let class = find("pg_catalog", class).map_or(0, |r| r.oid);
        table.row([
            ("objoid", object.into()),
            ("classoid", class.into()),
            ("objsubid", column.into()),
            ("description", text.into()),
        ]);
    };
    for (oid, _, comment) in context.schemas() {
        comment.into_iter().for_each(|comment| row(oid, "pg_namespace", 0, comment));
    }
    for relation in context.relations() {
        if let Some(comment) = &relation.comment {
            row(relation.id, "pg_class", 0, comment);
        }
        for index in &relation.indexes {
            index.comment.iter().for_each(|comment| row(index.id, "pg_class", 0, comment));
        }
        for (index, column) in relation.columns.iter().enumerate() {
            if let Some(comment) = &column.comment {
                row(relation.id, "pg_class", number(index).into(), comment);
            }
        }
    }
}

/// Who reads whom: a view's rule depends on what its query reads, as in PostgreSQL; a derived stream depends on its sources.
pub(super) fn depend(context: &SystemContext, table: &mut Table<'_>) {
    let oid_of = |name: &str| find("pg_catalog", name).map_or(0, |r| r.oid);
    let (class, rewrite, constraint) = (oid_of("pg_class"), oid_of("pg_rewrite"), oid_of("pg_constraint"));
    let mut row = |class_id: u32, object: u32, referenced_class: u32, referenced: u32, kind: &str| {
        table.row([
            ("classid", class_id.into()),
            ("objid", object.into()),
            ("refclassid", referenced_class.into()),
            ("refobjid", referenced.into()),
            ("deptype", kind.into()),
        ]);
    };
    for relation in context.relations() {
        let reader = if is_view(relation) { (rewrite, rule_oid(relation.id)) } else { (class, relation.id) };
        if is_view(relation) {
            row(reader.0, reader.1, class, relation.id, "i");
        }
        for source in &relation.depends_on {
            row(reader.0, reader.1, class, *source, "n");
        }
        if let Some(parent) = relation.parent {
            row(class, relation.id, class, parent, "i");
        }
        if relation.identity().is_some() {
            row(class, sequence_of(relation.id), class, relation.id, "i");
        }
        for index in &relation.indexes {
            row(class, index.id, class, relation.id, "a");
        }
        for check in &relation.checks {
            row(constraint, check.id, class, relation.id, "a");
        }
        if let Some(key) = relation.key_index() {
            row(class, key.id, constraint, constraint_oid(relation.id), "i");
            row(constraint, constraint_oid(relation.id), class, relation.id, "a");
        }
    }
}

fn is_view(relation: &Relation) -> bool {
    matches!(relation.kind, Kind::View | Kind::MaterializedView)
}

pub(super) fn rewrite(context: &SystemContext, table: &mut Table<'_>) {
    for relation in context.relations().filter(|r| is_view(r)) {
        table.row([
            ("oid", rule_oid(relation.id).into()),
            ("rulename", "_RETURN".into()),
            ("ev_class", relation.id.into()),
            ("ev_type", "1".into()),
            ("ev_enabled", "O".into()),
            ("is_instead", true.into()),
            ("ev_qual", "<>".into()),
            ("ev_action", relation.query.as_deref().unwrap_or_default().into()),
        ]);
    }
}
