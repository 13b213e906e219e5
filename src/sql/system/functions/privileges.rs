//! `has_…_privilege`: there is one role, and it may do everything to everything that exists.
//!
//! Each function takes an optional role, the object by OID or name, and the privilege. An object that is named but not there
//! is an error, and one that is numbered but not there gives NULL, as in PostgreSQL.

use super::super::definitions::{schema_name, schema_oid};
use super::super::pg_catalog::DATABASE;
use super::super::value::Value;
use super::{Call, Spec, registered, stable, yes};
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
    stable("has_function_privilege", OBJECT, "bool", yes),
    stable("has_type_privilege", OBJECT, "bool", yes),
    stable("has_language_privilege", OBJECT, "bool", yes),
    stable("has_tablespace_privilege", OBJECT, "bool", yes),
    stable("has_parameter_privilege", OBJECT, "bool", yes),
    stable("pg_has_role", OBJECT, "bool", yes),
];

/// The object: the argument before the privilege.
fn object(values: &[Value]) -> &Value {
    values.len().checked_sub(2).and_then(|at| values.get(at)).unwrap_or(&Value::Null)
}

fn exists(call: &Call<'_>, value: &Value) -> Result<Value> {
    let id = registered::class(call.context, value)?;
    Ok(call.context.objects().class(id).map(|_| true).into())
}

fn table(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    exists(call, object(values))
}

/// Role?, relation, column, privilege.
fn column(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let relation = values.len().checked_sub(3).and_then(|at| values.get(at)).unwrap_or(&Value::Null);
    exists(call, relation)
}

fn schema(_: &Call<'_>, values: &[Value]) -> Result<Value> {
    match object(values) {
        Value::Text(name) if schema_oid(name).is_none() => {
            Err(Error::undefined_object(format!("schema \"{name}\" does not exist")))
        }
        Value::Text(_) => Ok(Value::Bool(true)),
        other => Ok(other.oid().and_then(schema_name).map(|_| true).into()),
    }
}

fn database(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    match object(values) {
        Value::Text(name) if *name != call.context.database => {
            Err(Error::undefined_object(format!("database \"{name}\" does not exist")))
        }
        Value::Text(_) => Ok(Value::Bool(true)),
        other => Ok(other.oid().filter(|oid| *oid == DATABASE).map(|_| true).into()),
    }
}
