//! Who the session is: SET ROLE and SET SESSION AUTHORIZATION, in blocks and outside.

use super::client::done;
use super::{Client, Outcome};
use crate::catalog::role::RoleId;
use crate::error::{Error, Result};
use crate::sql::ast::SetValue;

/// Who a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// Who has proven to be there.
    pub login: RoleId,
    /// SESSION_USER: another, if a superuser has set it so.
    pub session: RoleId,
    /// CURRENT_USER: another, after SET ROLE.
    pub current: RoleId,
}

impl Who {
    pub fn of(role: RoleId) -> Who {
        Who { login: role, session: role, current: role }
    }
}

/// Who the session is, as far as its block has changed that: SET ROLE and SET SESSION AUTHORIZATION end with a block that is
/// rolled back, and with LOCAL at its end anyhow.
#[derive(Default)]
pub(super) struct Identity {
    pub before: Option<Who>,
    pub after: Option<Who>,
}

impl Identity {
    pub fn change(&mut self, from: Who, to: Who, local: bool) {
        self.before.get_or_insert(from);
        if !local {
            self.after = Some(to);
        }
    }
}

impl Client {
    /// `SET ROLE`: any that the session user is a member of.
    pub(super) fn set_role(&mut self, value: &SetValue, local: bool) -> Result<Outcome> {
        let current = match value {
            SetValue::Default => self.who.session,
            SetValue::Value(name) if name.eq_ignore_ascii_case("none") => self.who.session,
            SetValue::Value(name) => {
                let catalog = self.database.log.catalog();
                let role = catalog
                    .roles()
                    .find(name)
                    .ok_or_else(|| Error::invalid_parameter(format!("role \"{name}\" does not exist")))?;
                let may = catalog.roles().is_superuser(self.who.session)
                    || catalog.roles().member_of(self.who.session).contains(&role.id);
                if !may {
                    return Err(Error::insufficient_privilege(format!("permission denied to set role \"{name}\"")));
                }
                role.id
            }
        };
        self.become_(Who { current, ..self.who }, local);
        done("SET")
    }

    /// `SET SESSION AUTHORIZATION`: whoever has logged in as a superuser may be anybody.
    pub(super) fn set_session_role(&mut self, value: &SetValue, local: bool) -> Result<Outcome> {
        let session = match value {
            SetValue::Default => self.who.login,
            SetValue::Value(name) => {
                let catalog = self.database.log.catalog();
                let role = catalog
                    .roles()
                    .find(name)
                    .ok_or_else(|| Error::invalid_parameter(format!("role \"{name}\" does not exist")))?;
                if role.id != self.who.login && !catalog.roles().is_superuser(self.who.login) {
                    return Err(Error::insufficient_privilege(format!(
                        "permission denied to set session authorization \"{name}\""
                    )));
                }
                role.id
            }
        };
        self.become_(Who { session, current: session, ..self.who }, local);
        done("SET")
    }

    fn become_(&mut self, who: Who, local: bool) {
        match &mut self.transaction {
            Some(transaction) => transaction.identity.change(self.who, who, local),
            None if local => {
                self.notices.push(Error::no_active_transaction("SET LOCAL can only be used in transaction blocks"));
                return;
            }
            None => {}
        }
        self.who = who;
        self.show_who();
    }

    /// Says by settings who the session is.
    pub(super) fn show_who(&mut self) {
        let catalog = self.database.log.catalog();
        let roles = catalog.roles();
        let Who { session, current, .. } = self.who;
        let role = if current == session { "none".to_string() } else { roles.name(current) };
        let is_superuser = if roles.is_superuser(current) { "on" } else { "off" };
        self.settings.tell("role", &role);
        self.settings.tell("session_authorization", &roles.name(session));
        self.settings.tell("is_superuser", is_superuser);
    }

    /// At the end of a block.
    pub(super) fn return_to(&mut self, who: Option<Who>) {
        if let Some(who) = who.filter(|who| *who != self.who) {
            self.who = who;
            self.show_who();
        }
    }
}
