//! Functions over the catalog: what an OID is called, visible as, defined by.

use arrow::datatypes::FieldRef;

use super::super::definitions::{PG_CATALOG, find};
use super::super::objects::{self, Class, Function, Source};
use super::super::pg_catalog::{argument_types, result_type};
use super::super::types;
use super::super::value::Value;
use super::{Call, Spec, definitions, flag, immutable, int, no, null, oid, registered, stable, text, yes};
use crate::catalog::{Kind, Relation, sequence_of};
use crate::error::Result;

const OID: &[&[&str]] = &[&["oid"]];
const OID_PRETTY: &[&[&str]] = &[&["oid"], &["oid", "bool"]];

pub(super) const FUNCTIONS: &[Spec] = &[
    immutable("format_type", &[&["oid", "int4"]], "text", format_type).lenient(),
    stable("pg_get_userbyid", OID, "name", user_by_id),
    stable("pg_table_is_visible", OID, "bool", table_is_visible),
    stable("pg_type_is_visible", OID, "bool", type_is_visible),
    stable("pg_function_is_visible", OID, "bool", yes),
    stable("pg_operator_is_visible", OID, "bool", yes),
    stable("pg_opclass_is_visible", OID, "bool", yes),
    stable("pg_opfamily_is_visible", OID, "bool", yes),
    stable("pg_collation_is_visible", OID, "bool", yes),
    stable("pg_conversion_is_visible", OID, "bool", yes),
    stable("pg_statistics_obj_is_visible", OID, "bool", yes),
    stable("pg_ts_config_is_visible", OID, "bool", yes),
    stable("pg_ts_dict_is_visible", OID, "bool", yes),
    stable("pg_ts_parser_is_visible", OID, "bool", yes),
    stable("pg_ts_template_is_visible", OID, "bool", yes),
    stable("pg_get_expr", &[&["text", "oid"], &["text", "oid", "bool"]], "text", expression),
    stable("pg_get_constraintdef", OID_PRETTY, "text", constraint),
    stable("pg_get_indexdef", &[&["oid"], &["oid", "int4", "bool"]], "text", index),
    stable("pg_get_viewdef", &[&["reg"], &["reg", "any"]], "text", view),
    stable("pg_get_ruledef", OID_PRETTY, "text", rule),
    stable("pg_get_triggerdef", OID_PRETTY, "text", null),
    stable("pg_get_statisticsobjdef", OID, "text", null),
    stable("pg_get_statisticsobjdef_columns", OID, "text", null),
    stable("pg_get_statisticsobjdef_expressions", OID, "text[]", null),
    stable("pg_get_partkeydef", OID, "text", null),
    stable("pg_get_partition_constraintdef", OID, "text", null),
    stable("pg_get_function_sqlbody", OID, "text", null),
    stable("pg_get_function_result", OID, "text", function_result),
    stable("pg_get_function_arguments", OID, "text", function_arguments),
    stable("pg_get_function_identity_arguments", OID, "text", function_identity),
    stable("pg_get_functiondef", OID, "text", function_definition),
    stable("pg_get_serial_sequence", &[&["text", "text"]], "text", serial_sequence),
    stable("obj_description", &[&["oid"], &["oid", "name"]], "text", object_description),
    stable("col_description", &[&["oid", "int4"]], "text", column_description),
    stable("shobj_description", &[&["oid", "name"]], "text", null),
    stable("pg_relation_is_publishable", &[&["reg"]], "bool", no),
    stable("pg_relation_is_updatable", &[&["reg", "bool"]], "int4", is_updatable),
    stable("pg_column_is_updatable", &[&["reg", "int2", "bool"]], "bool", column_is_updatable),
    stable("pg_relation_filenode", &[&["reg"]], "oid", filenode),
    stable("pg_describe_object", &[&["oid", "oid", "int4"]], "text", describe_object),
];

fn format_type(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let Some(Value::Int(_)) = values.first() else { return Ok(Value::Null) };
    let typmod = values.get(1).and_then(Value::int).and_then(|n| i32::try_from(n).ok());
    Ok(types::format_type(oid(values, 0), typmod).into())
}

fn user_by_id(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    Ok(call.context.roles().name(id).into())
}

fn table_is_visible(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    Ok(call.context.objects().is_visible(call.context, oid(values, 0)).into())
}

/// Types of pg_catalog are; row types are where their relations are.
fn type_is_visible(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    let of_relation = call.context.catalog().relations().find(|r| objects::row_type_oid(r.id) == id);
    let is_visible = of_relation.and_then(|r| call.context.objects().is_visible(call.context, r.id));
    Ok(Value::Bool(types::by_oid(id).is_some() || is_visible == Some(true)))
}

/// Expressions are kept as SQL, so there is nothing to decompile.
fn expression(_: &Call<'_>, values: &[Value]) -> Result<Value> {
    Ok(text(values, 0).into())
}

fn relation<'a>(call: &Call<'a>, id: u32) -> Option<&'a Relation> {
    call.context.catalog().get(id).map(AsRef::as_ref)
}

fn constraint(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let oid = oid(values, 0);
    if let Some(of) = objects::relation_of_constraint(oid) {
        return Ok(relation(call, of).and_then(definitions::key).into());
    }
    let check = call.context.relations().find_map(|relation| relation.checks.iter().find(|check| check.id == oid));
    let pretty = values.get(1).is_some_and(|value| matches!(value, Value::Bool(true)));
    Ok(check.map(|check| definitions::check(check, pretty)).into())
}

/// The whole index, or one of its columns; of a column beyond the last, the empty string.
fn index(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let Some(Class { source: Source::Index(relation, index), .. }) = call.context.objects().class(oid(values, 0)) else {
        return Ok(Value::Null);
    };
    let Ok(column) = usize::try_from(int(values, 1)) else { return Ok(Value::from("")) };
    if column == 0 {
        return Ok(definitions::index(relation, index).into());
    }
    let found = index.columns.get(column - 1).and_then(|&i| relation.columns.get(i));
    Ok(found.map_or(String::new(), |c| definitions::quote_ident(&c.name)).into())
}

fn view(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = registered::class(call.context, &values[0])?;
    Ok(relation(call, id).and_then(|relation| definitions::view(call.context, relation)).into())
}

fn rule(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let view = objects::relation_of_rule(oid(values, 0)).and_then(|id| relation(call, id));
    let text = view.and_then(|v| {
        let query = definitions::view(call.context, v)?;
        let (schema, name) = (definitions::quote_ident(&v.schema), definitions::quote_ident(&v.name));
        Some(format!("CREATE RULE \"_RETURN\" AS ON SELECT TO {schema}.{name} DO INSTEAD {query}"))
    });
    Ok(text.into())
}

fn function<'a>(call: &Call<'a>, values: &[Value]) -> Option<&'a Function> {
    call.context.objects().function(oid(values, 0))
}

fn function_result(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let result = function(call, values).map(|f| match &f.user {
        Some(user) => user.returns_sql.clone(),
        None => types::format_type(result_type(f), None),
    });
    Ok(result.into())
}

fn arguments(function: &Function, with_defaults: bool) -> String {
    if let Some(user) = &function.user {
        return definitions::arguments(user, with_defaults);
    }
    if function.info.arguments.is_none() {
        return "VARIADIC \"any\"".to_string();
    }
    argument_types(function).into_iter().map(|t| types::format_type(t, None)).collect::<Vec<_>>().join(", ")
}

fn function_arguments(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    Ok(function(call, values).map(|f| arguments(f, true)).into())
}

fn function_identity(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    Ok(function(call, values).map(|f| arguments(f, false)).into())
}

fn function_definition(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let definition = function(call, values).map(|f| {
        if let Some(user) = &f.user {
            return definitions::function(user);
        }
        let name = definitions::quote_ident(&f.info.name);
        let (arguments, result) = (arguments(f, true), types::format_type(result_type(f), None));
        let volatility = match f.info.volatility {
            'i' => "IMMUTABLE",
            's' => "STABLE",
            _ => "VOLATILE",
        };
        format!(
            "CREATE OR REPLACE FUNCTION pg_catalog.{name}({arguments})\n RETURNS {result}\n LANGUAGE internal\n {volatility}\nAS $function${}$function$\n",
            f.info.name
        )
    });
    Ok(definition.into())
}

/// The column's sequence, if it has one; the names must be right.
fn serial_sequence(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = registered::class(call.context, &values[0])?;
    let (table, column) = (text(values, 0), text(values, 1));
    let class = call.context.objects().class(id);
    let attributes = class.map(Class::attributes).unwrap_or_default();
    if let Some(attribute) = attributes.iter().find(|a| a.name == column) {
        let sequence = call.context.objects().class(sequence_of(id)).filter(|_| attribute.identity.is_some());
        return Ok(sequence
            .map(|s| format!("{}.{}", definitions::quote_ident(&s.schema), definitions::quote_ident(&s.name)))
            .into());
    }
    Err(crate::error::Error::undefined_column(format!("column \"{column}\" of relation \"{table}\" does not exist")))
}

/// The second argument names the catalog that the object is of; without it, whatever has this OID.
fn object_description(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    let of = |catalog: &str| values.get(1).is_none_or(|v| v.text() == Some(catalog));
    if of("pg_namespace")
        && let Some((_, _, comment)) = call.context.schemas().find(|(oid, _, _)| *oid == id)
    {
        return Ok(comment.into());
    }
    if of("pg_proc")
        && let Some(user) = call.context.objects().function(id).and_then(|function| function.user.as_ref())
    {
        return Ok(user.comment.clone().into());
    }
    if !of("pg_class") {
        return Ok(Value::Null);
    }
    Ok(call.context.objects().class(id).and_then(Class::comment).into())
}

fn column_description(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let column = usize::try_from(int(values, 1)).ok().and_then(|n| n.checked_sub(1));
    let found = column.and_then(|at| relation(call, oid(values, 0))?.columns.get(at)?.comment.clone());
    Ok(found.into())
}

// Bits of pg_relation_is_updatable: 1 << the number of the command (update 2, insert 3, delete 4).
const INSERT: i32 = 1 << 3;
const UPDATE_INSERT_DELETE: i32 = (1 << 2) | INSERT | (1 << 4);

fn events(call: &Call<'_>, value: &Value) -> Result<i32> {
    let id = registered::class(call.context, value)?;
    Ok(match relation(call, id).map(|r| r.kind) {
        Some(Kind::Table) => UPDATE_INSERT_DELETE,
        Some(Kind::Stream) => INSERT,
        _ => 0,
    })
}

fn is_updatable(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    Ok(events(call, &values[0])?.into())
}

fn column_is_updatable(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let _include_triggers = flag(values, 2);
    Ok(Value::Bool(events(call, &values[0])? == UPDATE_INSERT_DELETE))
}

fn filenode(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = registered::class(call.context, &values[0])?;
    Ok(call.context.objects().class(id).filter(|c| c.kind != "v").map(|c| c.oid).into())
}

fn describe_object(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let (catalog, id) = (oid(values, 0), oid(values, 1));
    if find("pg_catalog", "pg_class").is_none_or(|r| r.oid != catalog) {
        return Ok(Value::Null);
    }
    let Some(class) = call.context.objects().class(id) else { return Ok(Value::Null) };
    let noun = match &class.source {
        Source::User(relation) => relation.kind.noun(),
        Source::Index(..) => "index",
        Source::Sequence(_) => "sequence",
        Source::System(_) if class.namespace == PG_CATALOG => "table",
        Source::System(_) => "view",
    };
    Ok(format!("{noun} {}", definitions::quote_ident(&class.name)).into())
}
