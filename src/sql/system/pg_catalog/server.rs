//! The server itself: schemas, roles, databases, settings, sessions.

use super::super::context::SystemContext;
use super::super::objects::OWNER;
use super::super::table::Table;
use super::super::value::Value;
use crate::catalog::acl::Object;

/// OID of the one database, and of the default tablespace.
pub(in crate::sql::system) const DATABASE: u32 = 5;
const TABLESPACE: u32 = 1663;

pub(super) fn namespace(context: &SystemContext, table: &mut Table<'_>) {
    for (oid, name, _) in context.schemas() {
        let (owner, acl) = context.access(Object::Schema(oid));
        table.row([("oid", oid.into()), ("nspname", name.into()), ("nspowner", owner.into()), ("nspacl", acl)]);
    }
}

pub(super) fn database(context: &SystemContext, table: &mut Table<'_>) {
    let (owner, acl) = context.access(Object::Database);
    table.row([
        ("oid", DATABASE.into()),
        ("datname", context.database.as_str().into()),
        ("datdba", owner.into()),
        ("datacl", acl),
        ("encoding", 6.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", TABLESPACE.into()),
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ]);
}

pub(super) fn tablespace(table: &mut Table<'_>) {
    table.row([("oid", TABLESPACE.into()), ("spcname", "pg_default".into()), ("spcowner", OWNER.into())]);
}

pub(super) fn settings(context: &SystemContext, table: &mut Table<'_>) {
    for setting in context.settings.all() {
        let kind = match setting.value.as_str() {
            "on" | "off" => "bool",
            number if number.parse::<i64>().is_ok() => "integer",
            _ => "string",
        };
        let source = if setting.value == setting.default { "default" } else { "session" };
        table.row([
            ("name", setting.name.into()),
            ("setting", setting.value.into()),
            ("category", "Settings".into()),
            ("short_desc", setting.description.into()),
            ("context", setting.context.into()),
            ("vartype", kind.into()),
            ("source", source.into()),
            ("boot_val", setting.default.as_str().into()),
            ("reset_val", setting.default.as_str().into()),
            ("pending_restart", false.into()),
        ]);
    }
}

pub(super) fn activity(context: &SystemContext, table: &mut Table<'_>) {
    for session in context.server.sessions() {
        let role = context.roles().find(&session.user).map(|role| role.id);
        let is_shown = context.rights.is_superuser() || session.user == context.user;
        let query: Value = if is_shown { session.query.into() } else { "<insufficient privilege>".into() };
        table.row([
            ("datid", DATABASE.into()),
            ("datname", context.database.as_str().into()),
            ("pid", session.pid.into()),
            ("usesysid", role.into()),
            ("usename", session.user.into()),
            ("application_name", session.application_name.into()),
            ("client_addr", session.client_address.into()),
            ("client_port", session.client_port.map(i32::from).into()),
            ("backend_start", session.backend_start.into()),
            ("xact_start", session.transaction_start.into()),
            ("query_start", session.query_start.into()),
            ("state_change", session.state_change.into()),
            ("state", session.state.into()),
            ("query", query),
            ("backend_type", "client backend".into()),
        ]);
    }
}

/// Advisory locks: there are no others.
pub(super) fn locks(context: &SystemContext, table: &mut Table<'_>) {
    for lock in context.server.locks().all() {
        let (class, object, kind) = lock.key.parts();
        table.row([
            ("locktype", "advisory".into()),
            ("database", DATABASE.into()),
            ("classid", class.into()),
            ("objid", object.into()),
            ("objsubid", i32::from(kind).into()),
            ("virtualtransaction", format!("{}/0", lock.session).into()),
            ("pid", lock.session.into()),
            ("mode", lock.mode.name().into()),
            ("granted", lock.granted.into()),
            ("fastpath", false.into()),
        ]);
    }
}

pub(super) fn stat_database(context: &SystemContext, table: &mut Table<'_>) {
    table.row([
        ("datid", DATABASE.into()),
        ("datname", context.database.as_str().into()),
        ("numbackends", i32::try_from(context.server.sessions().len()).unwrap_or(i32::MAX).into()),
        ("xact_commit", i64::try_from(context.snapshot.commit).unwrap_or(i64::MAX).into()),
        ("xact_rollback", 0.into()),
    ]);
}

pub(super) fn prepared_statements(context: &SystemContext, table: &mut Table<'_>) {
    for (name, statement) in &context.named.statements {
        table.row([
            ("name", name.as_str().into()),
            ("statement", statement.sql.as_str().into()),
            ("prepare_time", statement.since.into()),
            ("parameter_types", statement.parameter_types.clone().into()),
            ("from_sql", statement.from_sql.into()),
            // A plan is made for the values of each execution.
            ("generic_plans", 0.into()),
        ]);
    }
}

pub(super) fn cursors(context: &SystemContext, table: &mut Table<'_>) {
    for (name, cursor) in &context.named.cursors {
        table.row([
            ("name", name.as_str().into()),
            ("statement", cursor.sql.as_str().into()),
            ("is_holdable", cursor.is_holdable.into()),
            ("is_binary", cursor.is_binary.into()),
            ("is_scrollable", false.into()),
            ("creation_time", cursor.since.into()),
        ]);
    }
}

pub(super) fn stat_ssl(context: &SystemContext, table: &mut Table<'_>) {
    for session in context.server.sessions() {
        table.row([("pid", session.pid.into()), ("ssl", session.is_encrypted.into())]);
    }
}

pub(super) fn timezone_names(context: &SystemContext, table: &mut Table<'_>) {
    use chrono::{Offset, TimeZone};
    let now = chrono::DateTime::from_timestamp_micros(context.snapshot.time).unwrap_or_default().naive_utc();
    for zone in chrono_tz::TZ_VARIANTS {
        let offset = zone.offset_from_utc_datetime(&now);
        let seconds = i64::from(offset.fix().local_minus_utc());
        let is_summer = !chrono_tz::OffsetComponents::dst_offset(&offset).is_zero();
        table.row([
            ("name", zone.name().into()),
            ("abbrev", offset.to_string().into()),
            ("utc_offset", Value::Int(seconds * 1_000_000)),
            ("is_dst", is_summer.into()),
        ]);
    }
}
