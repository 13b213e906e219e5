//! Privileges: what a role may do to an object, who said so, and whether it may pass that on.
//!
//! The rules are PostgreSQL's: an object has an owner and a list of grants. While nothing was ever granted or revoked there is
//! no list, and a default stands for it. A privilege holds for a role if the owner, a grantee or PUBLIC is among the roles
//! whose privileges it has; a superuser is never asked.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::function::FunctionId;
use super::role::{PUBLIC, RoleId};
use super::schema::SchemaId;
use super::{FIRST_RELATION, Kind, RelationId};

/// One kind of thing that may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    Insert,
    Select,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Usage,
    Create,
    Temporary,
    Connect,
    Execute,
}

impl Privilege {
    /// All, in the order in which PostgreSQL prints them.
    pub const ALL: [Privilege; 12] = [
        Privilege::Insert,
        Privilege::Select,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Truncate,
        Privilege::References,
        Privilege::Trigger,
        Privilege::Usage,
        Privilege::Create,
        Privilege::Temporary,
        Privilege::Connect,
        Privilege::Execute,
    ];

    /// The letter of an aclitem.
    pub fn letter(self) -> char {
        match self {
            Privilege::Insert => 'a',
            Privilege::Select => 'r',
            Privilege::Update => 'w',
            Privilege::Delete => 'd',
            Privilege::Truncate => 'D',
            Privilege::References => 'x',
            Privilege::Trigger => 't',
            Privilege::Usage => 'U',
            Privilege::Create => 'C',
            Privilege::Temporary => 'T',
            Privilege::Connect => 'c',
            Privilege::Execute => 'X',
        }
    }

    /// As in GRANT.
    pub fn word(self) -> &'static str {
        match self {
            Privilege::Insert => "INSERT",
            Privilege::Select => "SELECT",
            Privilege::Update => "UPDATE",
            Privilege::Delete => "DELETE",
            Privilege::Truncate => "TRUNCATE",
            Privilege::References => "REFERENCES",
            Privilege::Trigger => "TRIGGER",
            Privilege::Usage => "USAGE",
            Privilege::Create => "CREATE",
            Privilege::Temporary => "TEMPORARY",
            Privilege::Connect => "CONNECT",
            Privilege::Execute => "EXECUTE",
        }
    }

    /// By its word, in any case.
    pub fn from_word(word: &str) -> Option<Privilege> {
        let word = if word.eq_ignore_ascii_case("temp") { "temporary" } else { word };
        Privilege::ALL.into_iter().find(|p| p.word().eq_ignore_ascii_case(word))
    }
}

/// A set of privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Privileges(u16);

impl Privileges {
    pub const NONE: Privileges = Privileges(0);

    pub fn of(all: &[Privilege]) -> Privileges {
        Privileges(all.iter().fold(0, |bits, p| bits | 1 << *p as u16))
    }

    pub fn contains(self, privilege: Privilege) -> bool {
        self.0 & (1 << privilege as u16) != 0
    }

    pub fn and(self, other: Privileges) -> Privileges {
        Privileges(self.0 & other.0)
    }

    pub fn or(self, other: Privileges) -> Privileges {
        Privileges(self.0 | other.0)
    }

    pub fn without(self, other: Privileges) -> Privileges {
        Privileges(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Privilege> {
        Privilege::ALL.into_iter().filter(move |p| self.contains(*p))
    }
}

/// What has an owner and privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Relation(RelationId),
    Schema(SchemaId),
    Database,
    Function(FunctionId),
    /// What a relation gets that `owner` makes, by ALTER DEFAULT PRIVILEGES; in one schema, or wherever.
    Default {
        owner: RoleId,
        schema: Option<SchemaId>,
    },
}

const RELATION: &[Privilege] = &[
    Privilege::Insert,
    Privilege::Select,
    Privilege::Update,
    Privilege::Delete,
    Privilege::Truncate,
    Privilege::References,
    Privilege::Trigger,
];

impl Object {
    /// What can be granted on it.
    pub fn privileges(self) -> Privileges {
        Privileges::of(match self {
            Object::Relation(_) | Object::Default { .. } => RELATION,
            Object::Schema(_) => &[Privilege::Usage, Privilege::Create],
            Object::Database => &[Privilege::Create, Privilege::Temporary, Privilege::Connect],
            Object::Function(_) => &[Privilege::Execute],
        })
    }

    /// The list that stands for none.
    pub fn default_acl(self, owner: RoleId) -> Acl {
        let everybody = match self {
            Object::Relation(_) | Object::Default { schema: None, .. } => Privileges::NONE,
            // Grants in one schema come on top of what is granted anywhere.
            Object::Default { schema: Some(_), .. } => return Acl::default(),
            // Those that were there from the beginning.
            Object::Schema(id) if id < FIRST_RELATION => Privileges::of(&[Privilege::Usage]),
            Object::Schema(_) => Privileges::NONE,
            Object::Database => Privileges::of(&[Privilege::Temporary, Privilege::Connect]),
            Object::Function(_) => Privileges::of(&[Privilege::Execute]),
        };
        let mut acl = Acl::default();
        acl.grant(Grant { grantee: PUBLIC, grantor: owner, privileges: everybody, grantable: Privileges::NONE });
        acl.grant(Grant { grantee: owner, grantor: owner, privileges: self.privileges(), grantable: Privileges::NONE });
        acl
    }
}

/// The owner, and what was granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Access {
    pub owner: RoleId,
    /// `None`: [`Object::default_acl`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

/// An aclitem: what one role gave another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub grantee: RoleId,
    pub grantor: RoleId,
    pub privileges: Privileges,
    /// Those of them that the grantee may pass on.
    pub grantable: Privileges,
}

/// All grants on an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Acl(pub Vec<Grant>);

impl Acl {
    /// Add to what the grantor gave the grantee before.
    pub fn grant(&mut self, grant: Grant) {
        if grant.privileges.is_empty() {
            return;
        }
        match self.between(grant.grantor, grant.grantee) {
            Some(known) => {
                known.privileges = known.privileges.or(grant.privileges);
                known.grantable = known.grantable.or(grant.grantable);
            }
            None => self.0.push(grant),
        }
    }

    /// Take away what the grantor gave; or, `only_option`, the right to pass it on.
    pub fn revoke(&mut self, grant: Grant, only_option: bool) {
        if let Some(known) = self.between(grant.grantor, grant.grantee) {
            known.grantable = known.grantable.without(grant.privileges);
            if !only_option {
                known.privileges = known.privileges.without(grant.privileges);
            }
        }
        self.0.retain(|g| !g.privileges.is_empty());
    }

    fn between(&mut self, grantor: RoleId, grantee: RoleId) -> Option<&mut Grant> {
        self.0.iter_mut().find(|g| g.grantor == grantor && g.grantee == grantee)
    }

    /// What these roles, or everybody, may do.
    pub fn of(&self, is_among: impl Fn(RoleId) -> bool) -> Privileges {
        let held = self.0.iter().filter(|g| g.grantee == PUBLIC || is_among(g.grantee));
        held.fold(Privileges::NONE, |all, g| all.or(g.privileges))
    }

    /// What these roles may pass on.
    pub fn grantable(&self, is_among: impl Fn(RoleId) -> bool) -> Privileges {
        self.0.iter().filter(|g| is_among(g.grantee)).fold(Privileges::NONE, |all, g| all.or(g.grantable))
    }

    /// The grants that hang on a right to pass on that the grantor no longer has.
    pub fn orphans(&self, owner: RoleId) -> Vec<Grant> {
        let orphan = |g: &Grant| {
            let lost = match g.grantor == owner {
                true => Privileges::NONE,
                false => g.privileges.without(self.grantable(|role| role == g.grantor)),
            };
            (!lost.is_empty()).then_some(Grant { privileges: lost, ..*g })
        };
        self.0.iter().filter_map(orphan).collect()
    }

    /// After a change of the owner, what the old one gave is the new one's.
    pub fn give(&mut self, from: RoleId, to: RoleId) {
        let swap = |role: RoleId| if role == from { to } else { role };
        for grant in std::mem::take(&mut self.0) {
            self.grant(Grant { grantee: swap(grant.grantee), grantor: swap(grant.grantor), ..grant });
        }
    }

    pub fn mentions(&self, role: RoleId) -> bool {
        self.0.iter().any(|g| g.grantee == role || g.grantor == role)
    }

    /// The text of each grant, as pg_class.relacl shows it: `anna=arw*/tidegate`.
    pub fn to_text(&self, name: impl Fn(RoleId) -> String) -> Vec<String> {
        let quoted = |role: RoleId| match role {
            PUBLIC => String::new(),
            role => quote(&name(role)),
        };
        let item = |g: &Grant| {
            let mut text = format!("{}=", quoted(g.grantee));
            for privilege in g.privileges.iter() {
                text.push(privilege.letter());
                if g.grantable.contains(privilege) {
                    text.push('*');
                }
            }
            let _ = write!(text, "/{}", quoted(g.grantor));
            text
        };
        self.0.iter().map(item).collect()
    }
}

/// Names that are not plain words stand in quotes in an aclitem.
fn quote(name: &str) -> String {
    match name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

impl Kind {
    /// As errors about privileges call it.
    pub fn privilege_noun(self) -> &'static str {
        match self {
            Kind::Stream => "stream",
            Kind::Table | Kind::Late => "table",
            Kind::View => "view",
            Kind::MaterializedView => "materialized view",
            Kind::Query => "query",
            Kind::Sink => "sink",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: RoleId = 10;

    fn select(grantor: RoleId, grantee: RoleId, option: bool) -> Grant {
        let privileges = Privileges::of(&[Privilege::Select]);
        Grant { grantee, grantor, privileges, grantable: if option { privileges } else { Privileges::NONE } }
    }

    #[test]
    fn grants_are_text_as_in_postgres() {
        let mut acl = Object::Relation(1).default_acl(OWNER);
        acl.grant(select(OWNER, 20, true));
        acl.grant(select(20, PUBLIC, false));
        let names = |role| if role == OWNER { "owner".to_string() } else { "an na".to_string() };
        assert_eq!(acl.to_text(names), ["owner=arwdDxt/owner", "\"an na\"=r*/owner", "=r/\"an na\""]);
    }

    #[test]
    fn what_was_passed_on_hangs_on_the_option() {
        let mut acl = Acl::default();
        acl.grant(select(OWNER, 20, true));
        acl.grant(select(20, 30, false));
        assert!(acl.orphans(OWNER).is_empty());
        acl.revoke(select(OWNER, 20, false), true);
        assert_eq!(acl.orphans(OWNER), [select(20, 30, false)]);
        assert!(acl.of(|role| role == 20).contains(Privilege::Select), "only the option is gone");
    }
}
