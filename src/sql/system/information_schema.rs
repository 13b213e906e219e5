//! The rows of information_schema: the catalog in the words of the SQL standard.
//!
//! As in PostgreSQL, with one difference that makes the views of this server visible to tools that look nowhere else:
//! materialized views are listed, as table type `MATERIALIZED VIEW`.

use super::context::SystemContext;
use super::objects::{Attribute, Class, Source};
use super::pg_catalog::{argument_types, result_type};
use super::table::Table;
use super::types::{self, PgType};
use super::value::Value;
use crate::catalog::acl::{Object, Privilege};
use crate::catalog::check::Check;
use crate::catalog::index::Index;
use crate::catalog::role::PUBLIC;
use crate::catalog::{Kind, Relation};

pub(super) fn fill(name: &str, context: &SystemContext, table: &mut Table<'_>) {
    match name {
        "tables" => tables(context, table),
        "columns" => columns(context, table),
        "views" => views(context, table),
        "view_table_usage" => view_table_usage(context, table),
        "schemata" => schemata(context, table),
        "information_schema_catalog_name" => table.row([("catalog_name", context.database.as_str().into())]),
        "table_constraints" => table_constraints(context, table),
        "check_constraints" => check_constraints(context, table),
        "key_column_usage" => key_column_usage(context, table),
        "constraint_column_usage" => constraint_column_usage(context, table),
        "constraint_table_usage" => constraint_table_usage(context, table),
        "table_privileges" | "role_table_grants" => table_privileges(context, table),
        "routines" => routines(context, table),
        "parameters" => parameters(context, table),
        "enabled_roles" => enabled_roles(context, table),
        "applicable_roles" => applicable_roles(context, table),
        "character_sets" => character_sets(context, table),
        "collations" => collations(context, table),
        _ => {}
    }
}

fn yes(b: bool) -> Value {
    (if b { "YES" } else { "NO" }).into()
}

/// Relations, without indexes, and their schemas.
fn relations(context: &SystemContext) -> impl Iterator<Item = (&str, &Class)> {
    let classes = context.objects().classes().iter().filter(|c| c.kind != "i");
    classes.map(|c| (c.schema.as_str(), c))
}

fn user_relation(class: &Class) -> Option<&Relation> {
    match &class.source {
        Source::User(relation) => Some(relation),
        _ => None,
    }
}

/// INSERT works on it.
fn is_insertable(class: &Class) -> bool {
    user_relation(class).is_some_and(|r| r.kind.in_log())
}

fn tables(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in relations(context) {
        let table_type = match class.kind {
            "v" => "VIEW",
            "m" => "MATERIALIZED VIEW",
            _ => "BASE TABLE",
        };
        table.row([
            ("table_catalog", context.database.as_str().into()),
            ("table_schema", schema.into()),
            ("table_name", class.name.as_str().into()),
            ("table_type", table_type.into()),
            ("is_insertable_into", yes(is_insertable(class))),
            ("is_typed", yes(false)),
        ]);
    }
}

fn columns(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in relations(context) {
        let is_insertable = is_insertable(class);
        for attribute in class.attributes() {
            column(context, schema, &class.name, &attribute, is_insertable, table);
        }
    }
}

fn column(context: &SystemContext, schema: &str, name: &str, attribute: &Attribute, is_insertable: bool, table: &mut Table<'_>) {
    let Some(of) = types::by_oid(attribute.type_oid) else { return };
    let facts = Facts::new(of, attribute.typmod);
    let database = || Value::from(context.database.as_str());
    let default = attribute.default.clone();
    let (generation, default) = if attribute.generated { (default, None) } else { (None, default) };
    table.row([
        ("table_catalog", database()),
        ("table_schema", schema.into()),
        ("table_name", name.into()),
        ("column_name", attribute.name.as_str().into()),
        ("ordinal_position", attribute.number.into()),
        ("column_default", default.into()),
        ("is_nullable", yes(!attribute.not_null)),
        ("data_type", facts.data_type.into()),
        ("character_maximum_length", facts.length.into()),
        ("character_octet_length", facts.octets.into()),
        ("numeric_precision", facts.precision.into()),
        ("numeric_precision_radix", facts.radix.into()),
        ("numeric_scale", facts.scale.into()),
        ("datetime_precision", facts.datetime_precision.into()),
        ("udt_catalog", database()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", of.name.into()),
        ("dtd_identifier", attribute.number.to_string().into()),
        ("is_self_referencing", yes(false)),
        ("is_identity", yes(attribute.identity.is_some())),
        ("identity_generation", attribute.identity.map(|i| if i.always { "ALWAYS" } else { "BY DEFAULT" }).into()),
        ("identity_start", attribute.identity.map(|i| i.start.to_string()).into()),
        ("identity_increment", attribute.identity.map(|i| i.step.to_string()).into()),
        ("identity_cycle", yes(false)),
        ("is_generated", (if attribute.generated { "ALWAYS" } else { "NEVER" }).into()),
        ("generation_expression", generation.into()),
        ("is_updatable", yes(is_insertable)),
    ]);
}

/// What the standard wants to know of a type.
#[derive(Default)]
struct Facts {
    data_type: String,
    length: Option<i32>,
    octets: Option<i32>,
    precision: Option<i32>,
    radix: Option<i32>,
    scale: Option<i32>,
    datetime_precision: Option<i32>,
}

impl Facts {
    fn new(of: &PgType, typmod: i32) -> Facts {
        let modifier = (typmod >= 0).then_some(typmod);
        let data_type = if of.category == "A" { "ARRAY".to_string() } else { types::format_type(of.oid, None) };
        let exact = |bits| Facts { precision: Some(bits), radix: Some(2), scale: Some(0), ..Facts::default() };
        let inexact = |bits| Facts { precision: Some(bits), radix: Some(2), ..Facts::default() };
        let facts = match of.name {
            "int2" => exact(16),
            "int4" => exact(32),
            "int8" => exact(64),
            "float4" => inexact(24),
            "float8" => inexact(53),
            "numeric" => {
                let parts = modifier.map(|m| m - 4);
                let (precision, scale) = (parts.map(|m| (m >> 16) & 0xffff), parts.map(|m| m & 0x7ff));
                Facts { precision, scale, radix: Some(10), ..Facts::default() }
            }
            "varchar" | "bpchar" => {
                let length = modifier.map(|m| m - 4);
                Facts { length, octets: Some(length.map_or(1 << 30, |l| l.saturating_mul(4))), ..Facts::default() }
            }
            "text" => Facts { octets: Some(1 << 30), ..Facts::default() },
            "date" => Facts { datetime_precision: Some(0), ..Facts::default() },
            "time" | "timetz" | "timestamp" | "timestamptz" | "interval" => {
                Facts { datetime_precision: Some(modifier.unwrap_or(6)), ..Facts::default() }
            }
            _ => Facts::default(),
        };
        Facts { data_type, ..facts }
    }
}

fn views(context: &SystemContext, table: &mut Table<'_>) {
    for (schema, class) in relations(context).filter(|(_, c)| matches!(c.kind, "v" | "m")) {
        let query = user_relation(class).and_then(|r| r.query.as_deref()).map(|query| context.shown(query));
        table.row([
            ("table_catalog", context.database.as_str().into()),
            ("table_schema", schema.into()),
            ("table_name", class.name.as_str().into()),
            ("view_definition", query.into()),
            ("check_option", "NONE".into()),
            ("is_updatable", yes(false)),
            ("is_insertable_into", yes(false)),
            ("is_trigger_updatable", yes(false)),
            ("is_trigger_deletable", yes(false)),
            ("is_trigger_insertable_into", yes(false)),
        ]);
    }
}

fn view_table_usage(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    for view in context.catalog().relations().filter(|r| matches!(r.kind, Kind::View | Kind::MaterializedView)) {
        for source in view.depends_on.iter().filter_map(|id| context.catalog().get(*id)) {
            table.row([
                ("view_catalog", database()),
                ("view_schema", view.schema.as_str().into()),
                ("view_name", view.name.as_str().into()),
                ("table_catalog", database()),
                ("table_schema", source.schema.as_str().into()),
                ("table_name", source.name.as_str().into()),
            ]);
        }
    }
}

fn schemata(context: &SystemContext, table: &mut Table<'_>) {
    for (oid, name, _) in context.schemas() {
        table.row([
            ("catalog_name", context.database.as_str().into()),
            ("schema_name", name.into()),
            ("schema_owner", context.roles().name(context.rights.catalog().owner(Object::Schema(oid))).into()),
        ]);
    }
}

/// Relations with a primary key, and its index.
fn constrained(context: &SystemContext) -> impl Iterator<Item = (&Relation, Index)> {
    context.catalog().relations().filter_map(|r| Some((&**r, r.key_index()?)))
}

/// Relations with a CHECK, and that.
fn checked(context: &SystemContext) -> impl Iterator<Item = (&Relation, &Check)> {
    context.catalog().relations().flat_map(|r| r.checks.iter().map(|check| (&**r, check)))
}

fn check_constraints(context: &SystemContext, table: &mut Table<'_>) {
    for (relation, check) in checked(context) {
        table.row([
            ("constraint_catalog", context.database.as_str().into()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", check.name.as_str().into()),
            ("check_clause", format!("(({}))", check.expression).into()),
        ]);
    }
}

fn table_constraints(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    let keys = constrained(context).map(|(relation, index)| (relation, index.name, "PRIMARY KEY"));
    let checks = checked(context).map(|(relation, check)| (relation, check.name.clone(), "CHECK"));
    for (relation, name, kind) in keys.chain(checks) {
        table.row([
            ("constraint_catalog", database()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", name.into()),
            ("table_catalog", database()),
            ("table_schema", relation.schema.as_str().into()),
            ("table_name", relation.name.as_str().into()),
            ("constraint_type", kind.into()),
            ("is_deferrable", yes(false)),
            ("initially_deferred", yes(false)),
            ("enforced", yes(true)),
        ]);
    }
}

/// The columns of a key, with their place in it from 1.
fn key(relation: &Relation) -> impl Iterator<Item = (i32, &str)> {
    let columns = relation.primary_key.iter().filter_map(|&i| relation.columns.get(i));
    (1..).zip(columns.map(|c| c.name.as_str()))
}

fn key_column_usage(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    for (relation, index) in constrained(context) {
        for (position, column) in key(relation) {
            table.row([
                ("constraint_catalog", database()),
                ("constraint_schema", relation.schema.as_str().into()),
                ("constraint_name", index.name.as_str().into()),
                ("table_catalog", database()),
                ("table_schema", relation.schema.as_str().into()),
                ("table_name", relation.name.as_str().into()),
                ("column_name", column.into()),
                ("ordinal_position", position.into()),
            ]);
        }
    }
}

fn constraint_column_usage(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    let keys = constrained(context).map(|(relation, index)| (relation, index.name, relation.primary_key.clone()));
    let checks = checked(context).map(|(relation, check)| (relation, check.name.clone(), check.columns.clone()));
    for (relation, constraint, columns) in keys.chain(checks) {
        for column in columns.iter().filter_map(|&at| relation.columns.get(at)) {
            table.row([
                ("table_catalog", database()),
                ("table_schema", relation.schema.as_str().into()),
                ("table_name", relation.name.as_str().into()),
                ("column_name", column.name.as_str().into()),
                ("constraint_catalog", database()),
                ("constraint_schema", relation.schema.as_str().into()),
                ("constraint_name", constraint.as_str().into()),
            ]);
        }
    }
}

fn constraint_table_usage(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    for (relation, index) in constrained(context) {
        table.row([
            ("table_catalog", database()),
            ("table_schema", relation.schema.as_str().into()),
            ("table_name", relation.name.as_str().into()),
            ("constraint_catalog", database()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", index.name.as_str().into()),
        ]);
    }
}

/// What was granted to the roles that the asker may be, by them, or to everybody, and what owners have anyhow.
fn table_privileges(context: &SystemContext, table: &mut Table<'_>) {
    let catalog = context.rights.catalog();
    let mine = context.roles().member_of(context.rights.role());
    let concerns = |role: u32| context.rights.is_superuser() || mine.contains(&role);
    for (schema, class) in relations(context) {
        let Some(relation) = user_relation(class) else { continue };
        let acl = catalog.acl(Object::Relation(relation.id));
        for grant in acl.0.iter().filter(|g| g.grantee == PUBLIC || concerns(g.grantee) || concerns(g.grantor)) {
            for privilege in grant.privileges.iter() {
                // An owner may pass on what is his without having been told so.
                let is_grantable = grant.grantable.contains(privilege) || grant.grantee == grant.grantor;
                let grantee = if grant.grantee == PUBLIC { "PUBLIC".to_string() } else { context.roles().name(grant.grantee) };
                table.row([
                    ("grantor", context.roles().name(grant.grantor).into()),
                    ("grantee", grantee.into()),
                    ("table_catalog", context.database.as_str().into()),
                    ("table_schema", schema.into()),
                    ("table_name", class.name.as_str().into()),
                    ("privilege_type", privilege.word().into()),
                    ("is_grantable", yes(is_grantable)),
                    ("with_hierarchy", yes(privilege == Privilege::Select)),
                ]);
            }
        }
    }
}

/// The roles that the asker has the privileges of.
fn enabled_roles(context: &SystemContext, table: &mut Table<'_>) {
    for role in context.roles().with_privileges_of(context.rights.role()) {
        table.row([("role_name", context.roles().name(role).into())]);
    }
}

fn applicable_roles(context: &SystemContext, table: &mut Table<'_>) {
    for member in context.roles().member_of(context.rights.role()) {
        let memberships = context.roles().get(member).map(|role| role.member_of.clone()).unwrap_or_default();
        for membership in memberships {
            table.row([
                ("grantee", context.roles().name(member).into()),
                ("role_name", context.roles().name(membership.role).into()),
                ("is_grantable", yes(membership.admin)),
            ]);
        }
    }
}

fn routines(context: &SystemContext, table: &mut Table<'_>) {
    let database = || Value::from(context.database.as_str());
    for function in context.objects().functions.iter().filter(|f| f.info.kind == 'f') {
        let result = result_type(function);
        let schema = || Value::from(function.schema());
        let user = function.user.as_ref();
        table.row([
            ("specific_catalog", database()),
            ("specific_schema", schema()),
            ("specific_name", format!("{}_{}", function.info.name, function.oid).into()),
            ("routine_catalog", database()),
            ("routine_schema", schema()),
            ("routine_name", function.info.name.as_str().into()),
            ("routine_type", "FUNCTION".into()),
            ("data_type", types::format_type(result, None).into()),
            ("type_udt_catalog", database()),
            ("type_udt_schema", "pg_catalog".into()),
            ("type_udt_name", types::by_oid(result).map(|t| t.name).into()),
            ("routine_body", if user.is_some() { "SQL" } else { "EXTERNAL" }.into()),
            ("routine_definition", user.map(|user| user.body.as_str()).into()),
            ("external_language", if user.is_some() { "SQL" } else { "INTERNAL" }.into()),
            ("is_deterministic", yes(function.info.volatility == 'i')),
            ("is_null_call", user.map(|user| if user.strict { "YES" } else { "NO" }).into()),
            ("security_type", "INVOKER".into()),
        ]);
    }
}

fn parameters(context: &SystemContext, table: &mut Table<'_>) {
    for function in context.objects().functions.iter().filter(|f| f.info.kind == 'f') {
        for (position, argument) in argument_types(function).into_iter().enumerate() {
            let parameter = function.user.as_ref().and_then(|user| user.parameters.get(position));
            table.row([
                ("specific_catalog", context.database.as_str().into()),
                ("specific_schema", function.schema().into()),
                ("specific_name", format!("{}_{}", function.info.name, function.oid).into()),
                ("ordinal_position", i32::try_from(position + 1).unwrap_or(i32::MAX).into()),
                ("parameter_mode", "IN".into()),
                ("is_result", yes(false)),
                ("parameter_name", parameter.and_then(|p| p.name.as_deref()).into()),
                ("data_type", types::format_type(argument, None).into()),
                ("udt_schema", "pg_catalog".into()),
                ("udt_name", types::by_oid(argument).map(|t| t.name).into()),
                ("parameter_default", parameter.and_then(|p| p.default.as_deref()).into()),
            ]);
        }
    }
}

fn character_sets(context: &SystemContext, table: &mut Table<'_>) {
    table.row([
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", context.database.as_str().into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C".into()),
    ]);
}

fn collations(context: &SystemContext, table: &mut Table<'_>) {
    for name in ["default", "C", "POSIX"] {
        table.row([
            ("collation_catalog", context.database.as_str().into()),
            ("collation_schema", "pg_catalog".into()),
            ("collation_name", name.into()),
            ("pad_attribute", "NO PAD".into()),
        ]);
    }
}
