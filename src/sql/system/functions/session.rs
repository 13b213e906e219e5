//! Functions over the session and the server: settings, names, clocks of the server, other sessions.

use arrow::datatypes::FieldRef;

use super::super::context::{Activity, POSTGRES_VERSION};
use super::super::value::Value;
use super::{Call, Spec, flag, immutable, int, no, null, stable, text};
use crate::error::{Error, Result};

const NONE: &[&[&str]] = &[&[]];

pub(super) const FUNCTIONS: &[Spec] = &[
    stable("current_setting", &[&["text"], &["text", "bool"]], "text", current_setting),
    stable("set_config", &[&["text", "text", "bool"]], "text", set_config).volatile().lenient(),
    stable("current_schema", NONE, "name", current_schema),
    stable("current_schemas", &[&["bool"]], "name[]", current_schemas),
    stable("current_user", NONE, "name", user),
    stable("session_user", NONE, "name", |call, _| Ok(call.context.session_user.as_str().into())),
    stable("user", NONE, "name", user),
    stable("current_role", NONE, "name", user),
    stable("current_database", NONE, "name", database),
    stable("current_catalog", NONE, "name", database),
    stable("version", NONE, "text", version),
    stable("pg_backend_pid", NONE, "int4", |call, _| Ok(call.context.pid.into())),
    stable("pg_client_encoding", NONE, "name", |_, _| Ok("UTF8".into())),
    stable("getdatabaseencoding", NONE, "name", |_, _| Ok("UTF8".into())),
    immutable("pg_encoding_to_char", &[&["int4"]], "name", encoding_name),
    immutable("pg_char_to_encoding", &[&["name"]], "int4", encoding_number),
    stable("pg_is_in_recovery", NONE, "bool", no),
    stable("pg_is_other_temp_schema", &[&["oid"]], "bool", no),
    stable("pg_my_temp_schema", NONE, "oid", |_, _| Ok(Value::Int(0))),
    stable("pg_postmaster_start_time", NONE, "timestamptz", |call, _| Ok(call.context.server.started().into())),
    stable("pg_conf_load_time", NONE, "timestamptz", |call, _| Ok(call.context.server.started().into())),
    stable("txid_current", NONE, "int8", commit),
    stable("pg_current_xact_id", NONE, "int8", commit),
    stable("txid_current_if_assigned", NONE, "int8", null),
    stable("inet_server_addr", NONE, "inet", null),
    stable("inet_server_port", NONE, "int4", null),
    stable("inet_client_addr", NONE, "inet", |call, _| Ok(call.context.client_address.clone().into())),
    stable("inet_client_port", NONE, "int4", |call, _| Ok(own(call).and_then(|own| own.client_port).into())),
    stable("current_query", NONE, "text", |call, _| Ok(own(call).map(|own| own.query).into())),
    stable("pg_stat_get_numscans", &[&["oid"]], "int8", |_, _| Ok(Value::Int(0))),
    // Nobody listens: LISTEN and NOTIFY are accepted for clients that send them.
    stable("pg_notify", &[&["text", "text"]], "void", |_, _| Ok("".into())).volatile().lenient(),
    stable("listened_channels", NONE, "text[]", |_, _| Ok(Value::List(Vec::new()))),
    stable("pg_cancel_backend", &[&["int4"]], "bool", |call, values| signal(call, values, false)).volatile(),
    stable("pg_terminate_backend", &[&["int4"], &["int4", "int8"]], "bool", |call, values| signal(call, values, true)).volatile(),
];

/// The session among those that there are.
fn own(call: &Call<'_>) -> Option<Activity> {
    call.context.server.sessions().into_iter().find(|session| session.pid == call.context.pid)
}

fn current_setting(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let name = text(values, 0);
    match call.context.settings.get(&name.to_ascii_lowercase()) {
        Some(value) => Ok(value.into()),
        None if flag(values, 1) => Ok(Value::Null),
        None => Err(Error::undefined_object(format!("unrecognized configuration parameter \"{name}\""))),
    }
}

/// A NULL value resets the setting; a NULL name is refused, as in PostgreSQL.
fn set_config(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    let Some(name) = values.first().and_then(Value::text) else {
        return Err(Error::invalid_parameter("SET requires parameter name"));
    };
    let name = name.to_ascii_lowercase();
    let settings = &call.context.settings;
    let default = || settings.all().into_iter().find(|s| s.name == name).map(|s| s.default).unwrap_or_default();
    let value = values.get(1).and_then(Value::text).map_or_else(default, str::to_string);
    Ok(settings.set(&name, &value, flag(values, 2))?.into())
}

fn current_schema(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(call.context.search_path().schemas().next().into())
}

fn current_schemas(call: &Call<'_>, values: &[Value]) -> Result<Value> {
    if flag(values, 0) {
        let path = call.context.objects().path(call.context);
        return Ok(path.into_iter().filter_map(|oid| call.context.schema_name(oid)).collect::<Vec<_>>().into());
    }
    Ok(call.context.search_path().schemas().collect::<Vec<_>>().into())
}

fn user(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(call.context.user.as_str().into())
}

fn database(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(call.context.database.as_str().into())
}

/// Starts as clients expect it that read the version out of it, and then says whom they are talking to.
fn version(_: &Call<'_>, _: &[Value]) -> Result<Value> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    Ok(format!("PostgreSQL {POSTGRES_VERSION} (Tidegate {}) on {machine}-{system}", env!("CARGO_PKG_VERSION")).into())
}

fn commit(call: &Call<'_>, _: &[Value]) -> Result<Value> {
    Ok(i64::try_from(call.context.snapshot.commit).unwrap_or(i64::MAX).into())
}

/// The one encoding of a server.
const UTF8: i64 = 6;

fn encoding_name(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let name = match int(values, 0) {
        0 => "SQL_ASCII",
        UTF8 => "UTF8",
        8 => "LATIN1",
        _ => "",
    };
    Ok(name.into())
}

fn encoding_number(_: &[FieldRef], values: &[Value]) -> Result<Value> {
    let number = match text(values, 0).to_ascii_lowercase().as_str() {
        "utf8" | "utf-8" | "unicode" => UTF8,
        "sql_ascii" => 0,
        "latin1" | "iso88591" => 8,
        _ => -1,
    };
    Ok(number.into())
}

fn signal(call: &Call<'_>, values: &[Value], terminate: bool) -> Result<Value> {
    let pid = i32::try_from(int(values, 0)).unwrap_or_default();
    if pid != call.context.pid && !call.context.rights.is_superuser() {
        let what = if terminate { "terminate" } else { "cancel a statement of" };
        return Err(Error::insufficient_privilege(format!("must be superuser to {what} another session")));
    }
    Ok(Value::Bool(call.context.server.signal(pid, terminate)))
}
