//! Roles: who there is, what each may do to the server itself, and who is a member of whom.
//!
//! There is always [`SUPERUSER`]; it needs no commit. A role's number is not used again while the server runs, so that a
//! session never becomes somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::Verifier;
use crate::time::Micros;

/// Identifies a role; also its Postgres OID.
pub type RoleId = u32;

/// Everybody, as the grantee of a privilege: no role has this number.
pub const PUBLIC: RoleId = 0;

/// The role that every database has from its beginning.
pub const SUPERUSER: RoleId = 10;

/// Its name, until it is renamed.
const SUPERUSER_NAME: &str = "tidegate";

const FIRST_ROLE: RoleId = 16384;

/// A user or a group: as in PostgreSQL, there is no difference but [`Role::can_login`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Role {
    pub id: RoleId,
    pub name: String,
    /// Every check is passed.
    pub is_superuser: bool,
    /// It has the privileges of the roles that it is a member of without SET ROLE.
    pub inherits: bool,
    pub can_create_roles: bool,
    pub can_create_databases: bool,
    pub can_login: bool,
    /// Sessions at a time; `None`: no bound of its own.
    pub connection_limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<Verifier>,
    /// The password is of no use after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Micros>,
    pub member_of: Vec<Membership>,
    /// What its sessions begin with, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// Of one role in another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    pub role: RoleId,
    /// May make others members, and change the role.
    pub admin: bool,
    pub grantor: RoleId,
}

impl Role {
    /// With PostgreSQL's defaults: no rights, but those of its groups.
    pub fn new(id: RoleId, name: &str) -> Role {
        Role {
            id,
            name: name.to_string(),
            is_superuser: false,
            inherits: true,
            can_create_roles: false,
            can_create_databases: false,
            can_login: false,
            connection_limit: None,
            verifier: None,
            valid_until: None,
            member_of: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    pub fn membership(&self, role: RoleId) -> Option<&Membership> {
        self.member_of.iter().find(|m| m.role == role)
    }
}

/// All roles at one commit.
#[derive(Clone, Debug)]
pub struct Roles {
    by_id: BTreeMap<RoleId, Arc<Role>>,
    next_id: RoleId,
}

impl Default for Roles {
    fn default() -> Roles {
        let superuser = Role {
            is_superuser: true,
            can_create_roles: true,
            can_create_databases: true,
            can_login: true,
            ..Role::new(SUPERUSER, SUPERUSER_NAME)
        };
        Roles { by_id: BTreeMap::from([(SUPERUSER, Arc::new(superuser))]), next_id: FIRST_ROLE }
    }
}

impl Roles {
    pub(super) fn set(&mut self, role: &Role) {
        self.next_id = self.next_id.max(role.id + 1);
        self.by_id.insert(role.id, Arc::new(role.clone()));
    }

    pub(super) fn remove(&mut self, id: RoleId) {
        self.by_id.remove(&id);
        for role in self.by_id.values_mut().filter(|role| role.membership(id).is_some()) {
            Arc::make_mut(role).member_of.retain(|m| m.role != id);
        }
    }

    pub fn get(&self, id: RoleId) -> Option<&Arc<Role>> {
        self.by_id.get(&id)
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Role>> {
        self.by_id.values().find(|role| role.name == name)
    }

    /// In the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.by_id.values()
    }

    /// A number that no role has had since the server started.
    pub fn next_id(&self) -> RoleId {
        self.next_id
    }

    /// As messages and the catalog call it.
    pub fn name(&self, id: RoleId) -> String {
        match self.get(id) {
            Some(role) => role.name.clone(),
            None if id == PUBLIC => "public".to_string(),
            None => format!("unknown (OID={id})"),
        }
    }

    pub fn is_superuser(&self, id: RoleId) -> bool {
        self.get(id).is_some_and(|role| role.is_superuser)
    }

    /// The role and those that it is a member of, directly or not: whom it may become by SET ROLE.
    pub fn member_of(&self, id: RoleId) -> BTreeSet<RoleId> {
        self.closure(id, |_| true)
    }

    /// The role and those whose privileges it has as it is.
    pub fn with_privileges_of(&self, id: RoleId) -> BTreeSet<RoleId> {
        self.closure(id, |role| role.inherits)
    }

    fn closure(&self, id: RoleId, goes_on: impl Fn(&Role) -> bool) -> BTreeSet<RoleId> {
        let mut seen = BTreeSet::from([id]);
        let mut open = vec![id];
        while let Some(role) = open.pop().and_then(|id| self.get(id)).filter(|role| goes_on(role)) {
            open.extend(role.member_of.iter().map(|m| m.role).filter(|id| seen.insert(*id)));
        }
        seen
    }

    /// May it make others members of `role`, and change it?
    pub fn administers(&self, id: RoleId, role: RoleId) -> bool {
        self.is_superuser(id)
            || self.member_of(id).iter().filter_map(|id| self.get(*id)).any(|r| r.membership(role).is_some_and(|m| m.admin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: RoleId, of: &[RoleId], inherits: bool) -> Role {
        let member_of = of.iter().map(|role| Membership { role: *role, admin: false, grantor: SUPERUSER }).collect();
        Role { member_of, inherits, ..Role::new(id, &format!("r{id}")) }
    }

    #[test]
    fn membership_is_transitive_and_may_not_inherit() {
        let mut roles = Roles::default();
        for role in [member(1, &[2], true), member(2, &[3], false), member(3, &[], true)] {
            roles.set(&role);
        }
        assert_eq!(roles.member_of(1), BTreeSet::from([1, 2, 3]));
        assert_eq!(roles.with_privileges_of(1), BTreeSet::from([1, 2]), "2 does not inherit what 3 may do");
        roles.remove(2);
        assert_eq!(roles.member_of(1), BTreeSet::from([1]));
    }

    #[test]
    fn there_is_a_superuser_from_the_beginning() {
        let roles = Roles::default();
        assert_eq!(roles.find("tidegate").map(|r| r.id), Some(SUPERUSER));
        assert!(roles.is_superuser(SUPERUSER) && !roles.is_superuser(PUBLIC));
    }
}
