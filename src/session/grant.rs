//! GRANT and REVOKE of privileges, default privileges, and owners.

use parking_lot::Mutex;
use sqlparser::ast as sp;

use super::client::done;
use super::define::existing;
use super::function::find_function;
use super::names::{existing_schema, relation_name};
use super::role::{given, grantee, role_id};
use super::{Client, Outcome};
use crate::catalog::acl::{Access, Acl, Grant, Object, Privilege, Privileges};
use crate::catalog::rights::Rights;
use crate::catalog::role::RoleId;
use crate::catalog::schema::{PUBLIC, Schema, SearchPath};
use crate::catalog::{Catalog, Change};
use crate::error::{Error, Result};
use crate::sql::ast::{GrantChange, GrantStatement, GrantTarget, RoleName};
use crate::sql::plan::names::fold;

impl Client {
    pub(super) async fn change_grants(&mut self, statement: &GrantStatement) -> Result<Outcome> {
        match statement {
            GrantStatement::Privileges { change, on } => self.change_privileges(change, on).await,
            GrantStatement::Default { roles, schemas, change } => self.change_defaults(roles, schemas, change).await,
            GrantStatement::Owner { of, to } => self.change_owner(of, to).await,
        }
    }

    async fn change_privileges(&mut self, change: &GrantChange, on: &GrantTarget) -> Result<Outcome> {
        let tag = if change.grant { "GRANT" } else { "REVOKE" };
        self.beside_block(tag)?;
        let (who, scope) = (self.who, Named { path: self.path(), database: self.database_name.clone() });
        let notices = Mutex::new(Vec::new());
        self.commit_catalog(|catalog| {
            notices.lock().clear();
            let rights = Rights::new(catalog.clone().into(), who.current);
            let grantees = change.roles.iter().map(|role| grantee(catalog, who, role)).collect::<Result<Vec<_>>>()?;
            let mut changes = Vec::new();
            for object in scope.objects(catalog, on)? {
                let wanted = wanted(change, object)?;
                let (grantor, available) = grantor(&rights, object, wanted)?;
                if available != wanted && change.privileges.is_some() {
                    notices.lock().push(not_all(change.grant, available, &describe(catalog, object)));
                }
                let mut acl = catalog.acl(object);
                let owner = catalog.owner(object);
                grantees.iter().try_for_each(|grantee| apply(&mut acl, change, owner, grantor, *grantee, available))?;
                changes.push(Change::SetAccess(object, Access { owner, acl: Some(acl) }));
            }
            Ok(changes)
        })
        .await?;
        self.notices.append(&mut notices.lock());
        done(tag)
    }

    async fn change_defaults(&mut self, roles: &[RoleName], schemas: &[sp::Ident], change: &GrantChange) -> Result<Outcome> {
        self.beside_block("ALTER DEFAULT PRIVILEGES")?;
        let who = self.who;
        self.commit_catalog(|catalog| {
            let rights = Rights::new(catalog.clone().into(), who.current);
            let mine = catalog.roles().with_privileges_of(who.current);
            let roles = if roles.is_empty() { &[RoleName::Current] } else { roles };
            let schemas: Vec<Option<u32>> = match schemas {
                [] => vec![None],
                some => some.iter().map(|name| Ok(Some(schema(catalog, name)?.id))).collect::<Result<_>>()?,
            };
            let grantees = change.roles.iter().map(|role| grantee(catalog, who, role)).collect::<Result<Vec<_>>>()?;
            let mut changes = Vec::new();
            for owner in roles {
                let owner = role_id(catalog, who, owner)?;
                if !rights.is_superuser() && !mine.contains(&owner) {
                    return Err(Error::insufficient_privilege("permission denied to change default privileges"));
                }
                for schema in &schemas {
                    let object = Object::Default { owner, schema: *schema };
                    let mut acl = catalog.acl(object);
                    let wanted = wanted(change, object)?;
                    grantees.iter().try_for_each(|grantee| apply(&mut acl, change, owner, owner, *grantee, wanted))?;
                    changes.push(Change::SetAccess(object, Access { owner, acl: Some(acl) }));
                }
            }
            Ok(changes)
        })
        .await?;
        done("ALTER DEFAULT PRIVILEGES")
    }

    async fn change_owner(&mut self, of: &GrantTarget, to: &RoleName) -> Result<Outcome> {
        self.beside_block("ALTER")?;
        let (who, scope) = (self.who, Named { path: self.path(), database: self.database_name.clone() });
        self.commit_catalog(|catalog| {
            let rights = Rights::new(catalog.clone().into(), who.current);
            let to = role_id(catalog, who, to)?;
            let mut changes = Vec::new();
            for object in scope.objects(catalog, of)? {
                check_giving(&rights, object, to)?;
                let access = Access { owner: catalog.owner(object), acl: catalog.explicit_acl(object).cloned() };
                changes.push(given(object, &access, to));
                // What belongs to it has the same owner; its grants are his now.
                let children = catalog.relations().filter(|r| r.parent.map(Object::Relation) == Some(object));
                for child in children.map(|r| Object::Relation(r.id)) {
                    if let Some(acl) = catalog.explicit_acl(child) {
                        changes.push(given(child, &Access { owner: access.owner, acl: Some(acl.clone()) }, to));
                    }
                }
            }
            Ok(changes)
        })
        .await?;
        done(match of {
            GrantTarget::Relations(_) | GrantTarget::AllIn(_) => "ALTER TABLE",
            GrantTarget::Schemas(_) => "ALTER SCHEMA",
            GrantTarget::Databases(_) => "ALTER DATABASE",
            GrantTarget::Functions(_) | GrantTarget::AllFunctionsIn(_) => "ALTER FUNCTION",
        })
    }
}

/// As messages call it.
pub(super) fn describe(catalog: &Catalog, object: Object) -> String {
    match object {
        Object::Relation(id) => match catalog.get(id) {
            Some(relation) => format!("{} {}", relation.kind.privilege_noun(), relation.name),
            None => format!("relation {id}"),
        },
        Object::Schema(id) => match catalog.schemas().get(id) {
            Some(schema) => format!("schema {}", schema.name),
            None => format!("schema {id}"),
        },
        Object::Database => "database".to_string(),
        Object::Function(id) => match catalog.function(id) {
            Some(function) => format!("function {}", function.signature()),
            None => format!("function {id}"),
        },
        Object::Default { owner, .. } => format!("default privileges of role {}", catalog.roles().name(owner)),
    }
}

/// What names in a GRANT mean.
struct Named {
    path: SearchPath,
    database: String,
}

impl Named {
    fn objects(&self, catalog: &Catalog, target: &GrantTarget) -> Result<Vec<Object>> {
        match target {
            GrantTarget::Relations(names) => {
                let relation = |name| {
                    existing(catalog, &relation_name(catalog, &self.path, &self.database, name)?).map(|r| Object::Relation(r.id))
                };
                names.iter().map(relation).collect()
            }
            GrantTarget::AllIn(schemas) => {
                let mut all = Vec::new();
                for name in schemas {
                    // Late rows and dead letters hold more than the view or stream shows: they are granted by name.
                    let relations = catalog.relations_in(&schema(catalog, name)?.name).filter(|r| r.parent.is_none());
                    all.extend(relations.map(|r| Object::Relation(r.id)));
                }
                Ok(all)
            }
            GrantTarget::Functions(names) => {
                names.iter().map(|name| find_function(catalog, name).map(|function| Object::Function(function.id))).collect()
            }
            GrantTarget::AllFunctionsIn(schemas) => {
                let schemas = schemas.iter().map(|name| schema(catalog, name)).collect::<Result<Vec<_>>>()?;
                let all = catalog.functions().filter(|_| schemas.iter().any(|schema| schema.name == PUBLIC));
                Ok(all.map(|function| Object::Function(function.id)).collect())
            }
            GrantTarget::Schemas(names) => names.iter().map(|name| Ok(Object::Schema(schema(catalog, name)?.id))).collect(),
            GrantTarget::Databases(names) => match names.iter().map(fold).find(|name| *name != self.database) {
                Some(name) => Err(Error::undefined_database(format!("database \"{name}\" does not exist"))),
                None => Ok(vec![Object::Database]),
            },
        }
    }
}

fn schema<'a>(catalog: &'a Catalog, name: &sp::Ident) -> Result<&'a Schema> {
    existing_schema(catalog, &fold(name))
}

/// What is to be granted, if that can be granted on such an object.
fn wanted(change: &GrantChange, object: Object) -> Result<Privileges> {
    let possible = object.privileges();
    let Some(named) = &change.privileges else { return Ok(possible) };
    let noun = match object {
        Object::Relation(_) | Object::Default { .. } => "relation",
        Object::Schema(_) => "schema",
        Object::Database => "database",
        Object::Function(_) => "function",
    };
    match named.iter().find(|privilege| !possible.contains(**privilege)) {
        None => Ok(Privileges::of(named)),
        Some(wrong) => Err(Error::invalid_grant(format!("invalid privilege type {} for {noun}", wrong.word()))),
    }
}

/// In whose name it is granted, and what of it that role may pass on: the owner's if it can be, otherwise that of the role, among
/// those that the session has the privileges of, which may pass on the most.
fn grantor(rights: &Rights, object: Object, wanted: Privileges) -> Result<(RoleId, Privileges)> {
    let catalog = rights.catalog();
    if rights.owns(object) {
        return Ok((catalog.owner(object), wanted));
    }
    let acl = catalog.acl(object);
    let mine = catalog.roles().with_privileges_of(rights.role());
    let options = mine.into_iter().map(|role| (role, acl.grantable(|grantee| grantee == role).and(wanted)));
    match options.max_by_key(|(role, option)| (option.iter().count(), *role == rights.role())) {
        Some((role, option)) if !option.is_empty() || !rights.on(object).is_empty() => Ok((role, option)),
        _ => Err(Error::insufficient_privilege(format!("permission denied for {}", describe(catalog, object)))),
    }
}

fn not_all(grant: bool, available: Privileges, object: &str) -> Error {
    let verb = if grant { "granted" } else { "revoked" };
    let some = if available.is_empty() { "no privileges were" } else { "not all privileges were" };
    Error::privilege_not_granted(format!("{some} {verb} for {object}"))
}

fn apply(
    acl: &mut Acl,
    change: &GrantChange,
    owner: RoleId,
    grantor: RoleId,
    grantee: RoleId,
    privileges: Privileges,
) -> Result<()> {
    let grantable = if change.option { privileges } else { Privileges::NONE };
    let grant = Grant { grantee, grantor, privileges, grantable };
    if change.grant {
        acl.grant(grant);
        return Ok(());
    }
    acl.revoke(grant, change.option);
    loop {
        let orphans = acl.orphans(owner);
        if orphans.is_empty() {
            return Ok(());
        }
        if !change.cascade {
            return Err(Error::dependent_objects("dependent privileges exist").with_hint("use CASCADE to revoke them too"));
        }
        orphans.into_iter().for_each(|orphan| acl.revoke(orphan, false));
    }
}

fn check_giving(rights: &Rights, object: Object, to: RoleId) -> Result<()> {
    let catalog = rights.catalog();
    if let Object::Relation(id) = object
        && let Some(relation) = catalog.get(id)
    {
        rights.check_owner(relation)?;
        if relation.parent.is_some() {
            return Err(Error::dependent_objects(format!("\"{}\" has the owner of what it belongs to", relation.name)));
        }
        rights.of(to).check_schema(&relation.schema, Privilege::Create)?;
    } else if !rights.owns(object) {
        return Err(Error::insufficient_privilege(format!("must be owner of {}", describe(catalog, object))));
    }
    match rights.is_superuser() || catalog.roles().member_of(rights.role()).contains(&to) {
        true => Ok(()),
        false => Err(Error::insufficient_privilege(format!("must be member of role \"{}\"", catalog.roles().name(to)))),
    }
}
