//! Roles, who is a member of whom, and default privileges. Nobody but a superuser sees what is kept of passwords.

use super::super::context::SystemContext;
use super::super::table::Table;
use super::super::value::Value;
use crate::auth::Verifier;
use crate::catalog::acl::Object;
use crate::catalog::role::Role;

/// What stands for a password that is not shown.
const HIDDEN: &str = "********";

/// A connection limit as PostgreSQL says it.
fn limit(role: &Role) -> Value {
    role.connection_limit.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)).into()
}

/// pg_roles and, with passwords and for superusers only, pg_authid.
pub(super) fn roles(context: &SystemContext, table: &mut Table<'_>, with_passwords: bool) {
    if with_passwords && !context.rights.is_superuser() {
        return;
    }
    for role in context.roles().all() {
        let password = match with_passwords {
            true => role.verifier.as_ref().map(Verifier::to_text),
            false => Some(HIDDEN.to_string()),
        };
        let row: [(&'static str, Value); 12] = [
            ("oid", role.id.into()),
            ("rolname", role.name.as_str().into()),
            ("rolsuper", role.is_superuser.into()),
            ("rolinherit", role.inherits.into()),
            ("rolcreaterole", role.can_create_roles.into()),
            ("rolcreatedb", role.can_create_databases.into()),
            ("rolcanlogin", role.can_login.into()),
            ("rolreplication", false.into()),
            ("rolbypassrls", role.is_superuser.into()),
            ("rolconnlimit", limit(role)),
            ("rolpassword", password.into()),
            ("rolvaliduntil", role.valid_until.into()),
        ];
        let config = (!with_passwords).then(|| ("rolconfig", config(role)));
        table.row_of(row.into_iter().chain(config));
    }
}

/// `setting=value`, of all settings that the role's sessions begin with; NULL if there are none.
fn config(role: &Role) -> Value {
    let all: Vec<String> = role.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!all.is_empty()).then_some(all).into()
}

pub(super) fn settings(context: &SystemContext, table: &mut Table<'_>) {
    for role in context.roles().all().filter(|role| !role.settings.is_empty()) {
        table.row([("setdatabase", 0.into()), ("setrole", role.id.into()), ("setconfig", config(role))]);
    }
}

/// pg_user and, with passwords and for superusers only, pg_shadow: the roles that can log in.
pub(super) fn users(context: &SystemContext, table: &mut Table<'_>, with_passwords: bool) {
    if with_passwords && !context.rights.is_superuser() {
        return;
    }
    for role in context.roles().all().filter(|role| role.can_login) {
        let password = match with_passwords {
            true => role.verifier.as_ref().map(Verifier::to_text),
            false => Some(HIDDEN.to_string()),
        };
        table.row([
            ("usename", role.name.as_str().into()),
            ("usesysid", role.id.into()),
            ("usecreatedb", role.can_create_databases.into()),
            ("usesuper", role.is_superuser.into()),
            ("userepl", false.into()),
            ("usebypassrls", role.is_superuser.into()),
            ("passwd", password.into()),
            ("valuntil", role.valid_until.into()),
        ]);
    }
}

/// Roles that cannot log in.
pub(super) fn groups(context: &SystemContext, table: &mut Table<'_>) {
    for group in context.roles().all().filter(|role| !role.can_login) {
        let members = context.roles().all().filter(|role| role.membership(group.id).is_some());
        let members: Vec<u32> = members.map(|role| role.id).collect();
        table.row([("groname", group.name.as_str().into()), ("grosysid", group.id.into()), ("grolist", members.into())]);
    }
}

pub(super) fn auth_members(context: &SystemContext, table: &mut Table<'_>) {
    for member in context.roles().all() {
        for membership in &member.member_of {
            table.row([
                ("roleid", membership.role.into()),
                ("member", member.id.into()),
                ("grantor", membership.grantor.into()),
                ("admin_option", membership.admin.into()),
            ]);
        }
    }
}

pub(super) fn default_acl(context: &SystemContext, table: &mut Table<'_>) {
    let defaults = context.rights.catalog().all_access().filter_map(|(object, access)| match (object, &access.acl) {
        (Object::Default { owner, schema }, Some(acl)) if *acl != object.default_acl(owner) => Some((owner, schema, acl)),
        _ => None,
    });
    for (number, (owner, schema, acl)) in (1u32..).zip(defaults) {
        table.row([
            ("oid", number.into()),
            ("defaclrole", owner.into()),
            ("defaclnamespace", schema.unwrap_or(0).into()),
            ("defaclobjtype", "r".into()),
            ("defaclacl", acl.to_text(|role| context.roles().name(role)).into()),
        ]);
    }
}
