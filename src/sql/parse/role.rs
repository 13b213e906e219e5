//! CREATE, ALTER and DROP ROLE, and what belongs to a role.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::error::{Error, Result};
use crate::sql::ast::{RoleName, RoleOptions, RoleStatement, SetValue, Statement};

/// USER is ROLE with LOGIN, and GROUP is ROLE.
const ROLE: [&str; 3] = ["ROLE", "USER", "GROUP"];

impl Grammar<'_> {
    pub(super) fn create_role(&mut self) -> Result<Option<Statement>> {
        let Some(word) = self.eat_one(&ROLE) else { return Ok(None) };
        let name = self.identifier()?;
        let mut options = self.role_options()?;
        if word == "USER" {
            options.login.get_or_insert(true);
        }
        Ok(Some(Statement::Role(RoleStatement::Create { name, options })))
    }

    pub(super) fn alter_role(&mut self) -> Result<Option<Statement>> {
        if self.eat_one(&ROLE).is_none() {
            return Ok(None);
        }
        let role = self.role_name()?;
        if self.eat("RENAME TO") {
            return Ok(Some(Statement::Role(RoleStatement::Rename { role, to: self.identifier()? })));
        }
        if self.is("IN") {
            return Err(self.unsupported("there is one database").with_hint("leave IN DATABASE out"));
        }
        if self.is("SET") || self.is("RESET") {
            return self.role_setting(role).map(Some);
        }
        let options = self.role_options()?;
        Ok(Some(Statement::Role(RoleStatement::Alter { role, options })))
    }

    /// `SET setting = value`, `RESET setting`, `RESET ALL`.
    fn role_setting(&mut self, role: RoleName) -> Result<Statement> {
        let position = self.position();
        let statement = if self.is("SET") { self.set()? } else { self.reset()? };
        let (name, value) = match statement {
            Statement::Set { local: false, name, value } => (Some(name), value),
            Statement::Reset(name) if name == "all" => (None, SetValue::Default),
            Statement::Reset(name) => (Some(name), SetValue::Default),
            _ => return Err(Error::syntax("a role is given a setting by SET name = value").at(position)),
        };
        Ok(Statement::Role(RoleStatement::Set { role, name, value }))
    }

    pub(super) fn drop_role(&mut self) -> Result<Option<Statement>> {
        if self.eat("OWNED BY") {
            let roles = self.comma_separated(Grammar::role_name)?;
            let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
            return Ok(Some(Statement::Role(RoleStatement::DropOwned { roles, cascade })));
        }
        if self.eat_one(&ROLE).is_none() {
            return Ok(None);
        }
        let if_exists = self.eat("IF EXISTS");
        let roles = self.comma_separated(Grammar::role_name)?;
        Ok(Some(Statement::Role(RoleStatement::Drop { roles, if_exists })))
    }

    pub(super) fn reassign_owned(&mut self) -> Result<Statement> {
        self.expect("REASSIGN OWNED BY")?;
        let from = self.comma_separated(Grammar::role_name)?;
        self.expect("TO")?;
        Ok(Statement::Role(RoleStatement::ReassignOwned { from, to: self.role_name()? }))
    }

    pub(super) fn role_name(&mut self) -> Result<RoleName> {
        Ok(match self.eat_one(&["CURRENT_USER", "CURRENT_ROLE", "SESSION_USER", "PUBLIC"]) {
            Some("SESSION_USER") => RoleName::Session,
            Some("PUBLIC") => RoleName::Public,
            Some(_) => RoleName::Current,
            None => RoleName::Name(self.identifier()?),
        })
    }

    fn role_options(&mut self) -> Result<RoleOptions> {
        let mut options = RoleOptions::default();
        let _ = self.eat("WITH");
        while !self.at_end() {
            self.role_option(&mut options)?;
        }
        Ok(options)
    }

    fn role_option(&mut self, options: &mut RoleOptions) -> Result<()> {
        for (yes, no, option) in [
            ("LOGIN", "NOLOGIN", &mut options.login),
            ("SUPERUSER", "NOSUPERUSER", &mut options.superuser),
            ("INHERIT", "NOINHERIT", &mut options.inherit),
            ("CREATEROLE", "NOCREATEROLE", &mut options.create_role),
            ("CREATEDB", "NOCREATEDB", &mut options.create_db),
        ] {
            if let Some(word) = self.eat_one(&[yes, no]) {
                *option = Some(word == yes);
                return Ok(());
            }
        }
        if let Some(word) = self.eat_one(&["REPLICATION", "BYPASSRLS"]) {
            return Err(self.unsupported(format!("{word} is not supported")));
        }
        match self.eat_one(&[
            "CONNECTION LIMIT",
            "ENCRYPTED PASSWORD",
            "PASSWORD",
            "VALID UNTIL",
            "IN ROLE",
            "IN GROUP",
            "ROLE",
            "USER",
            "ADMIN",
            "NOREPLICATION",
            "NOBYPASSRLS",
        ]) {
            Some("CONNECTION LIMIT") => {
                // -1: no limit.
                options.connection_limit = Some(match self.eat_token(&Token::Minus) {
                    true => self.number().map(|_| None)?,
                    false => Some(u32::try_from(self.number()?).unwrap_or(u32::MAX)),
                });
            }
            Some("PASSWORD" | "ENCRYPTED PASSWORD") => {
                options.password = Some(if self.eat("NULL") { None } else { Some(self.secret()?) });
            }
            Some("VALID UNTIL") => options.valid_until = Some(self.string()?),
            Some("IN ROLE" | "IN GROUP") => options.in_roles = self.comma_separated(Grammar::role_name)?,
            Some("ROLE" | "USER") => options.members = self.comma_separated(Grammar::role_name)?,
            Some("ADMIN") => options.admins = self.comma_separated(Grammar::role_name)?,
            Some(_) => {}
            None => return Err(self.unexpected("an option like LOGIN, PASSWORD or SUPERUSER")),
        }
        Ok(())
    }
}
