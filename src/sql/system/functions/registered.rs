//! The `reg…` types: an object's OID that is written as its name.
//!
//! Such a value is its OID everywhere; [`rewrite`](mod@super::super::rewrite) turns casts into calls of `regclassin` and `regclassout` and
//! their like, by where the value is shown and where it is compared.

use super::super::context::SystemContext;
use super::super::objects;
use super::super::pg_catalog::argument_types;
use super::super::types;
use super::super::value::Value;
use super::definitions::quote_ident;
use super::{Call, Spec, oid, stable, text};
use crate::catalog::Relation;
use crate::catalog::schema::identifiers;
use crate::error::{Error, Result};

const REG: &[&[&str]] = &[&["reg"]];
const OID: &[&[&str]] = &[&["oid"]];
const TEXT: &[&[&str]] = &[&["text"]];

pub(super) const FUNCTIONS: &[Spec] = &[
    stable("regclassin", REG, "regclass", |call, values| Ok(class(call.context, &values[0])?.into())),
    stable("regclassout", OID, "text", class_name),
    stable("to_regclass", TEXT, "regclass", |call, values| Ok(find_class(call.context, text(values, 0))?.into())),
    stable("regtypein", REG, "regtype", |call, values| Ok(type_(call.context, &values[0])?.into())),
    stable("regtypeout", OID, "text", type_name),
    stable("to_regtype", TEXT, "regtype", |call, values| Ok(find_type(call.context, text(values, 0)).into())),
    stable("regprocin", REG, "regproc", |call, values| Ok(function(call.context, &values[0])?.into())),
    stable("regprocout", OID, "text", function_name),
    stable("to_regproc", TEXT, "regproc", |call, values| Ok(find_function(call.context, text(values, 0)).into())),
    stable("regnamespacein", REG, "regnamespace", |call, values| Ok(schema(call.context, &values[0])?.into())),
    stable("regnamespaceout", OID, "text", schema_text),
    stable("to_regnamespace", TEXT, "regnamespace", |call, values| Ok(find_schema(call.context, text(values, 0)).into())),
    stable("regrolein", REG, "regrole", |call, values| Ok(role(call.context, &values[0])?.into())),
    stable("regroleout", OID, "text", role_name),
    stable("to_regrole", TEXT, "regrole", |call, values| Ok(find_role(call.context, text(values, 0)).into())),
];

/// The parts of a possibly qualified name: unquoted parts in lower case.
fn parts(name: &str) -> Result<Vec<String>> {
    let parts = identifiers(name, '.').filter(|parts| parts.iter().all(|part| !part.is_empty()));
    parts.ok_or_else(|| Error::syntax(format!("invalid name syntax: \"{name}\"")))
}

/// Schema and name; a database before them must be ours, which is not checked more than by its place.
fn qualified(name: &str) -> Result<(Option<String>, String)> {
    let mut parts = parts(name)?;
    let last = parts.pop().unwrap_or_default();
    Ok((parts.pop(), last))
}

/// An OID as it is, or a name looked up: the value of a `reg…` type that was given as either.
fn resolve(value: &Value, what: &str, find: impl FnOnce(&str) -> Result<Option<u32>>) -> Result<u32> {
    match value {
        Value::Int(n) => Ok(u32::try_from(*n).unwrap_or_default()),
        Value::Text(name) if name == "-" => Ok(0),
        Value::Text(name) => match name.parse::<u32>() {
            Ok(number) => Ok(number),
            Err(_) => find(name)?.ok_or_else(|| undefined(what, name)),
        },
        _ => Ok(0),
    }
}

fn undefined(what: &str, name: &str) -> Error {
    let message = format!("{what} \"{name}\" does not exist");
    match what {
        "relation" => Error::undefined_table(message),
        "function" => Error::undefined_function(message),
        _ => Error::undefined_object(message),
    }
}

/// The OID of a relation that is given by OID or by name; an unknown name is an error, an unknown OID is not.
pub(super) fn class(context: &SystemContext, value: &Value) -> Result<u32> {
    resolve(value, "relation", |name| find_class(context, name))
}

fn find_class(context: &SystemContext, name: &str) -> Result<Option<u32>> {
    let (schema, name) = qualified(name)?;
    Ok(context.objects().find_class(context, schema.as_deref(), &name).map(|c| c.oid))
}

/// Its name, with its schema where it needs one.
fn class_name(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    let Some(class) = call.context.objects().class(id) else { return Ok(number(id)) };
    let name = quote_ident(&class.name);
    if call.context.objects().is_visible(call.context, id) == Some(true) {
        return Ok(name.into());
    }
    Ok(format!("{}.{name}", quote_ident(&class.schema)).into())
}

fn relation_name(context: &SystemContext, relation: &Relation) -> String {
    match context.objects().is_visible(context, relation.id) {
        Some(true) => quote_ident(&relation.name),
        _ => format!("{}.{}", quote_ident(&relation.schema), quote_ident(&relation.name)),
    }
}

fn number(id: u32) -> Value {
    (if id == 0 { "-".to_string() } else { id.to_string() }).into()
}

fn type_(context: &SystemContext, value: &Value) -> Result<u32> {
    resolve(value, "type", |name| Ok(find_type(context, name)))
}

fn find_type(context: &SystemContext, name: &str) -> Option<u32> {
    let lower = name.trim().to_lowercase();
    let bare = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    let known = types::by_name(bare).map(|t| t.oid);
    let with_modifier = || types::by_name(bare.split('(').next()?.trim()).map(|t| t.oid);
    let row_type = || {
        let (schema, name) = qualified(name).ok()?;
        let relation = context.catalog().resolve(&context.search_path(), schema.as_deref(), &name)?;
        Some(objects::row_type_oid(relation.id))
    };
    known.or_else(with_modifier).or_else(row_type)
}

fn type_name(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    if types::by_oid(id).is_some() {
        return Ok(types::format_type(id, None).into());
    }
    let row_type = call.context.catalog().relations().find(|r| objects::row_type_oid(r.id) == id);
    Ok(row_type.map_or_else(|| number(id), |r| relation_name(call.context, r).into()))
}

/// The OID of a function that is given by OID, by name or with its types.
pub(super) fn function(context: &SystemContext, value: &Value) -> Result<u32> {
    resolve(value, "function", |name| match find_functions(context, name)[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Error::ambiguous_function(format!("more than one function named \"{name}\""))),
    })
}

fn find_function(context: &SystemContext, name: &str) -> Option<u32> {
    match find_functions(context, name)[..] {
        [one] => Some(one),
        _ => None,
    }
}

/// `name`, `schema.name`, or either with `(type, …)`.
fn find_functions(context: &SystemContext, name: &str) -> Vec<u32> {
    let (name, types) = match name.split_once('(') {
        Some((name, types)) => (name, Some(types.trim_end().trim_end_matches(')'))),
        None => (name, None),
    };
    let Ok((schema, name)) = qualified(name) else { return Vec::new() };
    let types = types.map(|types| {
        let types = types.split(',').map(str::trim).filter(|name| !name.is_empty());
        types.map(|name| find_type(context, name)).collect::<Vec<_>>()
    });
    let named = context.objects().functions_named(&name);
    let named = named.filter(|f| schema.as_deref().is_none_or(|schema| schema == f.schema()));
    let fits = |f: &&objects::Function| match &types {
        Some(types) => argument_types(f).into_iter().map(Some).eq(types.iter().copied()),
        None => true,
    };
    named.filter(fits).map(|f| f.oid).collect()
}

fn function_name(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    Ok(call.context.objects().function(id).map_or_else(|| number(id), |f| quote_ident(&f.info.name).into()))
}

fn schema(context: &SystemContext, value: &Value) -> Result<u32> {
    resolve(value, "schema", |name| Ok(find_schema(context, name)))
}

fn find_schema(context: &SystemContext, name: &str) -> Option<u32> {
    parts(name).ok()?.first().and_then(|part| context.schema_oid(part))
}

fn schema_text(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    Ok(call.context.schema_name(id).map_or_else(|| number(id), |name| quote_ident(name).into()))
}

/// A relation by its name, whether or not the asker may see it.
pub(super) fn user_relation(context: &SystemContext, value: &Value) -> Option<u32> {
    let (schema, name) = qualified(value.text()?).ok()?;
    context.rights.catalog().resolve(&context.search_path(), schema.as_deref(), &name).map(|relation| relation.id)
}

pub(super) fn role(context: &SystemContext, value: &Value) -> Result<u32> {
    resolve(value, "role", |name| Ok(find_role(context, name)))
}

fn find_role(context: &SystemContext, name: &str) -> Option<u32> {
    parts(name).ok()?.first().and_then(|name| context.roles().find(name)).map(|role| role.id)
}

fn role_name(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let id = oid(values, 0);
    Ok(call.context.roles().get(id).map_or_else(|| number(id), |role| quote_ident(&role.name).into()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("orders", &["orders"])]
    #[case("Public.Orders", &["public", "orders"])]
    #[case("\"Or\"\"ders\"", &["Or\"ders"])]
    #[case("pg_catalog.\"X.y\"", &["pg_catalog", "X.y"])]
    fn names_are_taken_apart(#[case] name: &str, #[case] parts: &[&str]) {
        assert_eq!(super::parts(name).unwrap(), parts);
    }

    #[rstest]
    #[case("")]
    #[case("a.")]
    #[case("\"a")]
    #[case("\"a\"b")]
    fn malformed_names_are_refused(#[case] name: &str) {
        assert_eq!(super::parts(name).unwrap_err().state().code(), "42601");
    }
}
