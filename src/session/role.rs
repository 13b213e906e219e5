//! Roles: who there is, and who is a member of whom.
//!
//! Who may do what to whom is as in PostgreSQL 16: a role with CREATEROLE makes roles, and changes those that it has the ADMIN
//! OPTION for (it gets that for those it makes). Only superusers make, change and hand out superusers.

use sqlparser::ast as sp;

use super::client::done;
use super::define::collect;
use super::function::Gone;
use super::identity::Who;
use super::{Client, Outcome, settings};
use crate::auth::Verifier;
use crate::catalog::acl::{Access, Object};
use crate::catalog::role::{Membership, PUBLIC, Role, RoleId, SUPERUSER};
use crate::catalog::{Catalog, Change};
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::ast::{MemberChange, RoleName, RoleOptions, RoleStatement, SetValue};
use crate::sql::plan::names::fold;
use crate::time::Micros;

impl Client {
    pub(super) async fn change_roles(&mut self, statement: &RoleStatement) -> Result<Outcome> {
        match statement {
            RoleStatement::Create { name, options } => self.create_role(name, options).await,
            RoleStatement::Alter { role, options } => self.alter_role(role, options).await,
            RoleStatement::Rename { role, to } => self.rename_role(role, to).await,
            RoleStatement::Set { role, name, value } => self.set_of_role(role, name.as_deref(), value).await,
            RoleStatement::Drop { roles, if_exists } => self.drop_roles(roles, *if_exists).await,
            RoleStatement::Member(change) => self.change_members(change).await,
            RoleStatement::ReassignOwned { from, to } => self.reassign_owned(from, to).await,
            RoleStatement::DropOwned { roles, cascade } => self.drop_owned(roles, *cascade).await,
        }
    }

    async fn create_role(&mut self, name: &sp::Ident, options: &RoleOptions) -> Result<Outcome> {
        self.beside_block("CREATE ROLE")?;
        let (who, name) = (self.who, new_role_name(name)?);
        let verifier = verifier_of(options)?;
        self.commit_catalog(|catalog| {
            let mine = maker(catalog, who)?;
            if options.superuser == Some(true) && !mine.is_superuser {
                return Err(Error::insufficient_privilege("must be superuser to create superusers"));
            }
            if catalog.roles().find(&name).is_some() {
                return Err(Error::duplicate_object(format!("role \"{name}\" already exists")));
            }
            let mut role = Role::new(catalog.roles().next_id(), &name);
            set_attributes(&mut role, options, verifier.as_ref())?;
            let mut changed = Vec::new();
            for group in resolve(catalog, who, &options.in_roles)? {
                check_administers(catalog, who, group)?;
                role.member_of.push(Membership { role: group, admin: false, grantor: who.current });
            }
            // Who makes a role may change it. A superuser may anyhow.
            let own = (!mine.is_superuser).then_some((who.current, true));
            let members = resolve(catalog, who, &options.members)?.into_iter().map(|member| (member, false));
            let admins = resolve(catalog, who, &options.admins)?.into_iter().map(|member| (member, true));
            for (member, admin) in own.into_iter().chain(members).chain(admins) {
                let mut member = existing_role(catalog, member)?.clone();
                member.member_of.push(Membership { role: role.id, admin, grantor: who.current });
                changed.push(Change::SetRole(member));
            }
            Ok(std::iter::once(Change::SetRole(role)).chain(changed).collect())
        })
        .await?;
        done("CREATE ROLE")
    }

    async fn alter_role(&mut self, role: &RoleName, options: &RoleOptions) -> Result<Outcome> {
        self.beside_block("ALTER ROLE")?;
        let who = self.who;
        let verifier = verifier_of(options)?;
        self.commit_catalog(|catalog| {
            let mut role = existing_role(catalog, role_id(catalog, who, role)?)?.clone();
            let is_own_password = role.id == who.current && is_only_password(options);
            if !is_own_password {
                check_may_change(catalog, who, &role)?;
            }
            if options.superuser.is_some() && !catalog.roles().is_superuser(who.current) {
                return Err(Error::insufficient_privilege("must be superuser to change superuser attribute"));
            }
            if role.id == SUPERUSER && options.superuser == Some(false) {
                return Err(Error::insufficient_privilege(format!("role \"{}\" must stay superuser", role.name))
                    .with_detail("it is the one that every database begins with"));
            }
            set_attributes(&mut role, options, verifier.as_ref())?;
            Ok(vec![Change::SetRole(role)])
        })
        .await?;
        done("ALTER ROLE")
    }

    /// What the role's sessions begin with. A role may say so of itself.
    async fn set_of_role(&mut self, role: &RoleName, name: Option<&str>, value: &SetValue) -> Result<Outcome> {
        self.beside_block("ALTER ROLE")?;
        let who = self.who;
        let value = match (name, value) {
            (Some(name), SetValue::Value(value)) => Some((name.to_string(), settings::checked(name, value)?)),
            _ => None,
        };
        self.commit_catalog(|catalog| {
            let mut role = existing_role(catalog, role_id(catalog, who, role)?)?.clone();
            if role.id != who.current {
                check_may_change(catalog, who, &role)?;
            }
            match (&value, name) {
                (Some((name, value)), _) => drop(role.settings.insert(name.clone(), value.clone())),
                (None, Some(name)) => drop(role.settings.remove(name)),
                (None, None) => role.settings.clear(),
            }
            Ok(vec![Change::SetRole(role)])
        })
        .await?;
        done("ALTER ROLE")
    }

    async fn rename_role(&mut self, role: &RoleName, to: &sp::Ident) -> Result<Outcome> {
        self.beside_block("ALTER ROLE")?;
        let (who, to) = (self.who, new_role_name(to)?);
        self.commit_catalog(|catalog| {
            let role = existing_role(catalog, role_id(catalog, who, role)?)?;
            check_may_change(catalog, who, role)?;
            if role.id == who.session || role.id == who.current {
                return Err(Error::unsupported("session user cannot be renamed"));
            }
            if catalog.roles().find(&to).is_some() {
                return Err(Error::duplicate_object(format!("role \"{to}\" already exists")));
            }
            Ok(vec![Change::SetRole(Role { name: to.clone(), ..role.clone() })])
        })
        .await?;
        done("ALTER ROLE")
    }

    async fn drop_roles(&mut self, roles: &[RoleName], if_exists: bool) -> Result<Outcome> {
        self.beside_block("DROP ROLE")?;
        let who = self.who;
        let catalog = self.database.log.catalog();
        let is_there = |role: &&RoleName| !if_exists || role_id(&catalog, who, role).is_ok();
        let (there, missing): (Vec<_>, Vec<_>) = roles.iter().partition(is_there);
        for role in missing {
            if let RoleName::Name(name) = role {
                self.notices.push(Error::undefined_object(format!("role \"{}\" does not exist, skipping", fold(name))));
            }
        }
        self.commit_catalog(|catalog| {
            let mut changes = Vec::new();
            for role in &there {
                let role = existing_role(catalog, role_id(catalog, who, role)?)?;
                maker_to(catalog, who, "drop")?;
                check_may_change(catalog, who, role)?;
                for (id, name) in [(who.current, "current"), (who.session, "session"), (who.login, "session")] {
                    if role.id == id {
                        return Err(Error::object_in_use(format!("{name} user cannot be dropped")));
                    }
                }
                check_unused(catalog, role)?;
                changes.push(Change::DropRole(role.id));
            }
            Ok(changes)
        })
        .await?;
        done("DROP ROLE")
    }

    async fn change_members(&mut self, change: &MemberChange) -> Result<Outcome> {
        let tag = if change.grant { "GRANT ROLE" } else { "REVOKE ROLE" };
        self.beside_block(tag)?;
        let who = self.who;
        let notices = parking_lot::Mutex::new(Vec::new());
        self.commit_catalog(|catalog| {
            notices.lock().clear();
            let mut after = catalog.clone();
            let mut changes = Vec::new();
            for group in resolve(catalog, who, &change.roles)? {
                check_administers(catalog, who, group)?;
                for member in resolve(catalog, who, &change.members)? {
                    let mut member = existing_role(&after, member)?.clone();
                    if let Some(notice) = change_member(&after, &mut member, group, change, who.current)? {
                        notices.lock().push(notice);
                        continue;
                    }
                    let change = Change::SetRole(member);
                    after.apply(&change);
                    changes.push(change);
                }
            }
            Ok(changes)
        })
        .await?;
        self.notices.append(&mut notices.lock());
        done(tag)
    }

    async fn reassign_owned(&mut self, from: &[RoleName], to: &RoleName) -> Result<Outcome> {
        self.beside_block("REASSIGN OWNED")?;
        let who = self.who;
        self.commit_catalog(|catalog| {
            let to = role_id(catalog, who, to)?;
            let may_be = catalog.roles().member_of(who.current);
            let mut changes = Vec::new();
            for from in resolve(catalog, who, from)? {
                if from == SUPERUSER {
                    let name = catalog.roles().name(from);
                    let message = format!("cannot reassign ownership of objects owned by role {name} because they are required by the database system");
                    return Err(Error::dependent_objects(message));
                }
                let may = catalog.roles().is_superuser(who.current) || (may_be.contains(&from) && may_be.contains(&to));
                if !may {
                    return Err(Error::insufficient_privilege("permission denied to reassign objects"));
                }
                // What a role gives by default is its own affair, and no object.
                let owned = catalog.all_access().filter(|(object, access)| access.owner == from && !is_default(*object));
                changes.extend(owned.map(|(object, access)| given(object, access, to)));
            }
            Ok(changes)
        })
        .await?;
        done("REASSIGN OWNED")
    }

    async fn drop_owned(&mut self, roles: &[RoleName], cascade: bool) -> Result<Outcome> {
        self.beside_block("DROP OWNED")?;
        let who = self.who;
        self.commit_catalog(|catalog| {
            let (mut gone, mut changes) = (Gone::default(), Vec::new());
            for role in resolve(catalog, who, roles)? {
                if role == SUPERUSER {
                    let name = catalog.roles().name(role);
                    let message =
                        format!("cannot drop objects owned by role {name} because they are required by the database system");
                    return Err(Error::dependent_objects(message));
                }
                if !catalog.roles().is_superuser(who.current) && !catalog.roles().with_privileges_of(who.current).contains(&role)
                {
                    return Err(Error::insufficient_privilege("permission denied to drop objects"));
                }
                for relation in catalog.relations().filter(|r| catalog.owner(Object::Relation(r.id)) == role) {
                    collect(catalog, relation, cascade, &mut gone.relations)?;
                }
                for function in catalog.functions().filter(|f| catalog.owner(Object::Function(f.id)) == role) {
                    gone.add(catalog, function, cascade)?;
                }
                for schema in catalog.schemas().all().filter(|s| catalog.owner(Object::Schema(s.id)) == role) {
                    gone.add_schema(catalog, schema, cascade)?;
                }
                changes.extend(without_grants(catalog, role));
            }
            changes.retain(|change| !matches!(change, Change::SetAccess(object, _) if gone.holds(object)));
            changes.extend(gone.changes(catalog)?);
            Ok(changes)
        })
        .await?;
        done("DROP OWNED")
    }
}

/// The role that a name means.
pub(super) fn role_id(catalog: &Catalog, who: Who, role: &RoleName) -> Result<RoleId> {
    match role {
        RoleName::Current => Ok(who.current),
        RoleName::Session => Ok(who.session),
        RoleName::Public => Err(Error::undefined_object("role \"public\" does not exist")),
        RoleName::Name(name) => {
            let name = fold(name);
            let found = catalog.roles().find(&name).map(|role| role.id);
            found.ok_or_else(|| Error::undefined_object(format!("role \"{name}\" does not exist")))
        }
    }
}

/// The same for grantees, among them everybody.
pub(super) fn grantee(catalog: &Catalog, who: Who, role: &RoleName) -> Result<RoleId> {
    if *role == RoleName::Public { Ok(PUBLIC) } else { role_id(catalog, who, role) }
}

fn resolve(catalog: &Catalog, who: Who, roles: &[RoleName]) -> Result<Vec<RoleId>> {
    roles.iter().map(|role| role_id(catalog, who, role)).collect()
}

fn existing_role(catalog: &Catalog, id: RoleId) -> Result<&Role> {
    let found = catalog.roles().get(id).map(AsRef::as_ref);
    found.ok_or_else(|| Error::undefined_object(format!("role with OID {id} does not exist")))
}

fn new_role_name(name: &sp::Ident) -> Result<String> {
    let name = fold(name);
    if name.starts_with("pg_") || name == "public" || name == "none" {
        return Err(Error::reserved_name(format!("role name \"{name}\" is reserved")));
    }
    match name.len() {
        0 => Err(Error::syntax("zero-length delimited identifier")),
        1..=limits::NAME_BYTES => Ok(name),
        _ => Err(Error::name_too_long(format!("the name \"{name}\" is longer than 63 bytes"))),
    }
}

/// The session's role, which must be one that may make others.
fn maker(catalog: &Catalog, who: Who) -> Result<&Role> {
    maker_to(catalog, who, "create")
}

fn maker_to<'c>(catalog: &'c Catalog, who: Who, verb: &str) -> Result<&'c Role> {
    let role = existing_role(catalog, who.current)?;
    match role.is_superuser || role.can_create_roles {
        true => Ok(role),
        false => Err(Error::insufficient_privilege(format!("permission denied to {verb} role"))),
    }
}

/// Superusers are changed by superusers, others by who may make roles and administers them.
fn check_may_change(catalog: &Catalog, who: Who, role: &Role) -> Result<()> {
    let mine = existing_role(catalog, who.current)?;
    if mine.is_superuser {
        return Ok(());
    }
    if role.is_superuser {
        return Err(Error::insufficient_privilege("must be superuser to alter superusers"));
    }
    match mine.can_create_roles && catalog.roles().administers(who.current, role.id) {
        true => Ok(()),
        false => Err(Error::insufficient_privilege("permission denied to alter role")
            .with_detail(format!("it needs CREATEROLE, and the ADMIN OPTION on role \"{}\"", role.name))),
    }
}

fn check_administers(catalog: &Catalog, who: Who, group: RoleId) -> Result<()> {
    if catalog.roles().is_superuser(group) && !catalog.roles().is_superuser(who.current) {
        return Err(Error::insufficient_privilege("must be superuser to alter superusers"));
    }
    match catalog.roles().administers(who.current, group) {
        true => Ok(()),
        false => {
            Err(Error::insufficient_privilege(format!("must have admin option on role \"{}\"", catalog.roles().name(group))))
        }
    }
}

/// The text of a password becomes what is kept of it before anything waits for the log.
fn verifier_of(options: &RoleOptions) -> Result<Option<Verifier>> {
    match &options.password {
        Some(Some(password)) => Verifier::of_text(&password.0),
        _ => Ok(None),
    }
}

fn is_only_password(options: &RoleOptions) -> bool {
    let RoleOptions { login, superuser, inherit, create_role, create_db, connection_limit, password, valid_until, .. } = options;
    let others = [login, superuser, inherit, create_role, create_db];
    password.is_some() && others.iter().all(|o| o.is_none()) && connection_limit.is_none() && valid_until.is_none()
}

fn set_attributes(role: &mut Role, options: &RoleOptions, verifier: Option<&Verifier>) -> Result<()> {
    role.can_login = options.login.unwrap_or(role.can_login);
    role.is_superuser = options.superuser.unwrap_or(role.is_superuser);
    role.inherits = options.inherit.unwrap_or(role.inherits);
    role.can_create_roles = options.create_role.unwrap_or(role.can_create_roles);
    role.can_create_databases = options.create_db.unwrap_or(role.can_create_databases);
    role.connection_limit = options.connection_limit.unwrap_or(role.connection_limit);
    if options.password.is_some() {
        role.verifier = verifier.cloned();
    }
    if let Some(text) = &options.valid_until {
        role.valid_until = instant(text)?;
    }
    Ok(())
}

/// `None`: for ever.
fn instant(text: &str) -> Result<Option<Micros>> {
    if text.eq_ignore_ascii_case("infinity") {
        return Ok(None);
    }
    let nanoseconds = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
    let nanoseconds = nanoseconds
        .map_err(|_| Error::invalid_datetime(format!("invalid input syntax for type timestamp with time zone: \"{text}\"")))?;
    Ok(Some(nanoseconds.div_euclid(1000)))
}

/// Changes whether `member` is one of `group`; a notice if there is nothing to change.
fn change_member(
    catalog: &Catalog,
    member: &mut Role,
    group: RoleId,
    change: &MemberChange,
    grantor: RoleId,
) -> Result<Option<Error>> {
    let roles = catalog.roles();
    let name = roles.name(group);
    let known = member.member_of.iter_mut().find(|m| m.role == group);
    match (known, change.grant) {
        (Some(known), true) if change.admin && !known.admin => known.admin = true,
        (Some(_), true) => {
            return Ok(Some(Error::duplicate_object(format!("role \"{}\" is already a member of role \"{name}\"", member.name))));
        }
        (None, true) => {
            if roles.member_of(group).contains(&member.id) {
                return Err(Error::invalid_grant(format!("role \"{name}\" is a member of role \"{}\"", member.name)));
            }
            member.member_of.push(Membership { role: group, admin: change.admin, grantor });
        }
        (Some(known), false) if change.admin => known.admin = false,
        (Some(_), false) => member.member_of.retain(|m| m.role != group),
        (None, false) => {
            return Ok(Some(Error::undefined_object(format!("role \"{}\" is not a member of role \"{name}\"", member.name))));
        }
    }
    Ok(None)
}

/// A role that objects or grants name stays.
fn check_unused(catalog: &Catalog, role: &Role) -> Result<()> {
    if role.id == SUPERUSER {
        let message = format!("cannot drop role {} because it is required by the database system", role.name);
        return Err(Error::dependent_objects(message));
    }
    let mut uses = Vec::new();
    for (object, access) in catalog.all_access() {
        let described = super::grant::describe(catalog, object);
        if access.owner == role.id && !is_default(object) {
            uses.push(format!("owner of {described}"));
        } else if access.acl.as_ref().is_some_and(|acl| acl.mentions(role.id)) {
            uses.push(format!("privileges for {described}"));
        }
    }
    match uses.is_empty() {
        true => Ok(()),
        false => {
            Err(Error::dependent_objects(format!("role \"{}\" cannot be dropped because some objects depend on it", role.name))
                .with_detail(uses.join("\n"))
                .with_hint("REASSIGN OWNED BY it TO another, then DROP OWNED BY it"))
        }
    }
}

/// An object in the hands of another owner.
pub(super) fn given(object: Object, access: &Access, to: RoleId) -> Change {
    let mut access = access.clone();
    if let Some(acl) = &mut access.acl {
        acl.give(access.owner, to);
    }
    access.owner = to;
    Change::SetAccess(object, access)
}

fn is_default(object: Object) -> bool {
    matches!(object, Object::Default { .. })
}

/// Everything that was granted to a role, and what it granted, or would by default, taken back.
fn without_grants(catalog: &Catalog, role: RoleId) -> impl Iterator<Item = Change> {
    catalog.all_access().filter_map(move |(object, access)| {
        if is_default(object) && access.owner == role {
            return Some(Change::SetAccess(object, Access { acl: None, ..access.clone() }));
        }
        let acl = access.acl.as_ref().filter(|acl| acl.mentions(role) && access.owner != role)?;
        let mut acl = acl.clone();
        acl.0.retain(|grant| grant.grantee != role && grant.grantor != role);
        Some(Change::SetAccess(object, Access { acl: Some(acl), ..access.clone() }))
    })
}
