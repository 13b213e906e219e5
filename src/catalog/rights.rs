//! What one role may do: the one place where that is decided.
//!
//! Names in queries are checked by the planner, where they are resolved; what statements name themselves, by the session,
//! before they run. Both ask here, and errors are in PostgreSQL's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::acl::{Object, Privilege, Privileges};
use super::function::Function;
use super::role::RoleId;
use super::schema::{PUBLIC, SYSTEM_SCHEMAS, Schema, SearchPath};
use super::{Catalog, Relation};
use crate::error::{Error, Result};

/// The rights of a role, as one state of the catalog has them.
#[derive(Clone, Debug)]
pub struct Rights {
    catalog: Arc<Catalog>,
    role: RoleId,
    is_superuser: bool,
    /// The roles whose privileges it has, itself among them.
    roles: BTreeSet<RoleId>,
}

impl Rights {
    pub fn new(catalog: Arc<Catalog>, role: RoleId) -> Rights {
        let roles = catalog.roles().with_privileges_of(role);
        Rights { role, is_superuser: catalog.roles().is_superuser(role), roles, catalog }
    }

    /// Of another role: whoever reads a view reads what is below it as its owner.
    #[must_use]
    pub fn of(&self, role: RoleId) -> Rights {
        Rights::new(Arc::clone(&self.catalog), role)
    }

    pub fn role(&self) -> RoleId {
        self.role
    }

    pub fn is_superuser(&self) -> bool {
        self.is_superuser
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Everything it may do to an object. A superuser is never refused; an owner may have taken rights from himself.
    pub fn on(&self, object: Object) -> Privileges {
        match self.is_superuser {
            true => object.privileges(),
            false => self.catalog.acl(object).of(|role| self.roles.contains(&role)),
        }
    }

    pub fn holds(&self, object: Object, privilege: Privilege) -> bool {
        self.on(object).contains(privilege)
    }

    /// What it may pass on: an owner all, others what they were given so.
    pub fn grantable(&self, object: Object) -> Privileges {
        match self.owns(object) {
            true => object.privileges(),
            false => self.catalog.acl(object).grantable(|role| self.roles.contains(&role)),
        }
    }

    pub fn owns(&self, object: Object) -> bool {
        self.is_superuser || self.roles.contains(&self.catalog.owner(object))
    }

    /// May it know that the relation is there?
    pub fn sees(&self, relation: &Relation) -> bool {
        let object = Object::Relation(relation.id);
        self.owns(object) || !self.on(object).is_empty()
    }

    /// May it do this to the relation? The schema must let it in, too.
    pub fn check(&self, relation: &Relation, privilege: Privilege) -> Result<()> {
        if self.is_superuser {
            return Ok(());
        }
        self.check_schema(&relation.schema, Privilege::Usage)?;
        match self.holds(Object::Relation(relation.id), privilege) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!(
                "permission denied for {} {}",
                relation.kind.privilege_noun(),
                relation.name
            ))),
        }
    }

    /// May it do this to the schema of that name?
    pub fn holds_on_schema(&self, schema: &str, privilege: Privilege) -> bool {
        self.catalog.schemas().find(schema).is_some_and(|schema| self.holds(Object::Schema(schema.id), privilege))
    }

    /// The path that the setting `search_path` says: schemas that are there, and that the role may use.
    pub fn search_path(&self, setting: &str) -> SearchPath {
        let user = self.catalog.roles().name(self.role);
        // A schema of the server's has nobody's name.
        let own = self.catalog.schemas().find(&user).map(|schema| schema.name.as_str());
        let usable = |name: &str| SYSTEM_SCHEMAS.contains(&name) || self.holds_on_schema(name, Privilege::Usage);
        SearchPath::new(setting, own, usable)
    }

    pub fn check_schema(&self, schema: &str, privilege: Privilege) -> Result<()> {
        match self.holds_on_schema(schema, privilege) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!("permission denied for schema {schema}"))),
        }
    }

    /// Only an owner changes what a schema is.
    pub fn check_schema_owner(&self, schema: &Schema) -> Result<()> {
        match self.owns(Object::Schema(schema.id)) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!("must be owner of schema {}", schema.name))),
        }
    }

    /// Whoever owns a relation, or its schema, may drop it.
    pub fn check_may_drop(&self, relation: &Relation) -> Result<()> {
        match self.owns(Object::Schema(self.catalog.schema_of(relation))) {
            true => Ok(()),
            false => self.check_owner(relation),
        }
    }

    /// May it know that the schema is there?
    pub fn sees_schema(&self, schema: &Schema) -> bool {
        let object = Object::Schema(schema.id);
        self.owns(object) || !self.on(object).is_empty() || self.catalog.relations_in(&schema.name).any(|r| self.sees(r))
    }

    /// Only an owner changes what a relation is.
    pub fn check_owner(&self, relation: &Relation) -> Result<()> {
        match self.owns(Object::Relation(relation.id)) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!(
                "must be owner of {} {}",
                relation.kind.privilege_noun(),
                relation.name
            ))),
        }
    }

    /// May it call the function?
    pub fn check_execute(&self, function: &Function) -> Result<()> {
        if self.is_superuser {
            return Ok(());
        }
        self.check_schema(PUBLIC, Privilege::Usage)?;
        match self.holds(Object::Function(function.id), Privilege::Execute) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!("permission denied for function {}", function.name))),
        }
    }

    /// Only an owner changes what a function is.
    pub fn check_function_owner(&self, function: &Function) -> Result<()> {
        match self.owns(Object::Function(function.id)) {
            true => Ok(()),
            false => Err(Error::insufficient_privilege(format!("must be owner of function {}", function.name))),
        }
    }

    /// At least one privilege, for statements that only tell what a relation looks like.
    pub fn check_sees(&self, relation: &Relation) -> Result<()> {
        match self.sees(relation) {
            true => Ok(()),
            false => self.check(relation, Privilege::Select),
        }
    }
}
