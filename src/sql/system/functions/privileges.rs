//! `has_…_privilege`: what the current role, or another, may do.
//!
//! Each function takes an optional role, the object by OID or name, and the privilege. An object that is named but not there
//! is an error, and one that is numbered but not there gives NULL, as in PostgreSQL.

use super::super::objects::Source;
use super::super::pg_catalog::DATABASE;
use super::super::value::Value;
use super::{Call, Spec, registered, stable, yes};
use crate::catalog::acl::{Object, Privilege, Privileges};
use crate::catalog::rights::Rights;
use crate::catalog::role::PUBLIC;
use crate::catalog::schema::SYSTEM_SCHEMAS;
use crate::error::{Error, Result};

const OBJECT: &[&[&str]] = &[&["reg", "text"], &["reg", "reg", "text"]];
const COLUMN: &[&[&str]] = &[&["reg", "any", "text"], &["reg", "reg", "any", "text"]];

pub(super) const FUNCTIONS: &[Spec] = &[
    stable("has_table_privilege", OBJECT, "bool", table),
    stable("has_any_column_privilege", OBJECT, "bool", table),
    stable("has_sequence_privilege", OBJECT, "bool", table),
    stable("has_column_privilege", COLUMN, "bool", column),
    stable("has_schema_privilege", OBJECT, "bool", schema),
    stable("has_database_privilege", OBJECT, "bool", database),
    stable("has_function_privilege", OBJECT, "bool", function),
    stable("has_type_privilege", OBJECT, "bool", yes),
    stable("has_language_privilege", OBJECT, "bool", yes),
    stable("has_tablespace_privilege", OBJECT, "bool", yes),
    stable("has_parameter_privilege", OBJECT, "bool", yes),
    stable("pg_has_role", OBJECT, "bool", has_role),
];

/// The arguments of `count` that come after the role, and the rights of that role.
fn arguments<'v>(call: &Call<'_>, values: &'v [Value], count: usize) -> Result<(Rights, &'v [Value])> {
    let rights = &call.context.rights;
    match values.len().checked_sub(count) {
        Some(1) => {
            let role = match &values[0] {
                Value::Text(name) if name == "public" => PUBLIC,
                other => registered::role(call.context, other)?,
            };
            Ok((rights.of(role), &values[1..]))
        }
        _ => Ok((rights.clone(), values)),
    }
}

/// `SELECT, INSERT WITH GRANT OPTION`: is one of them held?
fn holds(rights: &Rights, object: Object, asked: &Value) -> Result<bool> {
    let possible = object.privileges();
    for one in asked.text().unwrap_or_default().split(',') {
        let one = one.trim().to_ascii_uppercase();
        let (word, grantable) = one.strip_suffix(" WITH GRANT OPTION").map_or((one.as_str(), false), |word| (word, true));
        let privilege = Privilege::from_word(word.trim()).filter(|p| possible.contains(*p));
        let privilege = privilege.ok_or_else(|| Error::invalid_parameter(format!("unrecognized privilege type: \"{one}\"")))?;
        let held: Privileges = if grantable { rights.grantable(object) } else { rights.on(object) };
        if held.contains(privilege) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Relations that the asker may not see have an answer, too.
fn on_relation(call: &Call<'_>, rights: &Rights, relation: &Value, privilege: &Value) -> Result<Value> {
    let id = match registered::class(call.context, relation) {
        Ok(id) => id,
        Err(error) => match registered::user_relation(call.context, relation) {
            Some(id) => id,
            None => return Err(error),
        },
    };
    if rights.catalog().get(id).is_some() {
        return Ok(holds(rights, Object::Relation(id), privilege)?.into());
    }
    let Some(class) = call.context.objects().class(id) else { return Ok(Value::Null) };
    match &class.source {
        Source::User(relation) | Source::Index(relation, _) | Source::Sequence(relation) => {
            Ok(holds(rights, Object::Relation(relation.id), privilege)?.into())
        }
        // What the server tells of itself is for everybody to read, and for nobody to change.
        Source::System(_) => {
            let asked = privilege.text().unwrap_or_default().trim();
            Ok(Value::Bool(rights.is_superuser() || asked.eq_ignore_ascii_case("select")))
        }
    }
}

fn table(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    match arguments(call, values, 2)? {
        (rights, [relation, privilege]) => on_relation(call, &rights, relation, privilege),
        _ => Ok(Value::Null),
    }
}

/// Privileges are on whole relations.
fn column(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    match arguments(call, values, 3)? {
        (rights, [relation, _, privilege]) => on_relation(call, &rights, relation, privilege),
        _ => Ok(Value::Null),
    }
}

/// Those that the asker may not see have an answer, too.
fn schema(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let (rights, [schema, privilege]) = arguments(call, values, 2)? else { return Ok(Value::Null) };
    let users = rights.catalog().schemas();
    let found = match schema {
        Value::Text(name) => users.find(name),
        other => other.oid().and_then(|oid| users.get(oid)),
    };
    if let Some(found) = found {
        return Ok(holds(&rights, Object::Schema(found.id), privilege)?.into());
    }
    match schema {
        Value::Text(name) if SYSTEM_SCHEMAS.contains(&name.as_str()) => {}
        Value::Text(name) => return Err(Error::undefined_schema(format!("schema \"{name}\" does not exist"))),
        other if other.oid().is_none_or(|oid| call.context.schema_name(oid).is_none()) => return Ok(Value::Null),
        _ => {}
    }
    let asked = privilege.text().unwrap_or_default().trim();
    Ok(Value::Bool(rights.is_superuser() || asked.eq_ignore_ascii_case("usage")))
}

/// What is built in, everybody may call.
fn function(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let (rights, [function, privilege]) = arguments(call, values, 2)? else { return Ok(Value::Null) };
    let id = registered::function(call.context, function)?;
    match call.context.objects().function(id) {
        None => Ok(Value::Null),
        Some(function) if function.user.is_some() => Ok(holds(&rights, Object::Function(id), privilege)?.into()),
        Some(_) => Ok(Value::Bool(true)),
    }
}

fn database(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let (rights, [database, privilege]) = arguments(call, values, 2)? else { return Ok(Value::Null) };
    match database {
        Value::Text(name) if *name != call.context.database => {
            Err(Error::undefined_database(format!("database \"{name}\" does not exist")))
        }
        Value::Text(_) => Ok(holds(&rights, Object::Database, privilege)?.into()),
        other if other.oid() == Some(DATABASE) => Ok(holds(&rights, Object::Database, privilege)?.into()),
        _ => Ok(Value::Null),
    }
}

/// MEMBER: may become it; USAGE: has its privileges as it is; either WITH ADMIN OPTION.
fn has_role(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let (rights, [role, privilege]) = arguments(call, values, 2)? else { return Ok(Value::Null) };
    let role = registered::role(call.context, role)?;
    let roles = call.context.roles();
    let asked = privilege.text().unwrap_or_default().trim().to_ascii_uppercase();
    let has = rights.is_superuser()
        || match asked.as_str() {
            "MEMBER" | "SET" => roles.member_of(rights.role()).contains(&role),
            "USAGE" => roles.with_privileges_of(rights.role()).contains(&role),
            other if other.ends_with(" WITH ADMIN OPTION") || other.ends_with(" WITH GRANT OPTION") => {
                roles.administers(rights.role(), role)
            }
            _ => return Err(Error::invalid_parameter(format!("unrecognized privilege type: \"{asked}\""))),
        };
    Ok(Value::Bool(has))
}
