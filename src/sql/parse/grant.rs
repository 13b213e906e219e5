//! GRANT and REVOKE, of privileges and of membership, ALTER DEFAULT PRIVILEGES, and OWNER TO.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::catalog::acl::Privilege;
use crate::error::{Error, Result};
use crate::sql::ast::{FunctionName, GrantChange, GrantStatement, GrantTarget, MemberChange, RoleName, RoleStatement, Statement};

impl Grammar<'_> {
    pub(super) fn grant(&mut self) -> Result<Statement> {
        let grant = self.is("GRANT");
        self.skip(1);
        let admin = !grant && self.eat_one(&["ADMIN OPTION FOR", "INHERIT OPTION FOR", "SET OPTION FOR"]).is_some();
        if admin || self.names_roles() {
            return self.membership(grant, admin);
        }
        let option = !grant && self.eat("GRANT OPTION FOR");
        let privileges = self.privileges()?;
        self.expect("ON")?;
        let on = self.grant_target()?;
        let change = self.grant_change(grant, option, privileges)?;
        Ok(Statement::Grant(GrantStatement::Privileges { change, on }))
    }

    /// Names and commas up to TO or FROM: `GRANT a, b TO c`; privileges have an ON before it.
    fn names_roles(&self) -> bool {
        let mut n = 0;
        while matches!(self.peek_nth(n), Token::Word(_)) && *self.peek_nth(n + 1) == Token::Comma {
            n += 2;
        }
        self.is_nth(n + 1, "TO") || self.is_nth(n + 1, "FROM")
    }

    fn membership(&mut self, grant: bool, admin: bool) -> Result<Statement> {
        let roles = self.comma_separated(Grammar::role_name)?;
        self.expect(if grant { "TO" } else { "FROM" })?;
        let members = self.comma_separated(Grammar::role_name)?;
        let admin = admin || (grant && self.eat_one(&["WITH ADMIN OPTION", "WITH ADMIN TRUE"]).is_some());
        self.granted_by()?;
        let _ = self.eat_one(&["CASCADE", "RESTRICT"]);
        Ok(Statement::Role(RoleStatement::Member(MemberChange { grant, roles, members, admin })))
    }

    /// `None`: all of them.
    fn privileges(&mut self) -> Result<Option<Vec<Privilege>>> {
        if self.eat("ALL PRIVILEGES") || self.eat("ALL") {
            self.no_columns()?;
            return Ok(None);
        }
        let privileges = self.comma_separated(|grammar| {
            let privilege = match grammar.peek() {
                Token::Word(word) if word.quote_style.is_none() => Privilege::from_word(&word.value),
                _ => None,
            };
            let privilege = privilege.ok_or_else(|| grammar.unexpected("a privilege like SELECT or INSERT"))?;
            grammar.skip(1);
            grammar.no_columns()?;
            Ok(privilege)
        })?;
        Ok(Some(privileges))
    }

    fn no_columns(&self) -> Result<()> {
        match self.peek() {
            Token::LParen => Err(self
                .unsupported("privileges on single columns are not supported")
                .with_hint("CREATE VIEW with these columns, and GRANT on the view")),
            _ => Ok(()),
        }
    }

    fn grant_target(&mut self) -> Result<GrantTarget> {
        const ALL: [&str; 3] = ["ALL TABLES IN SCHEMA", "ALL STREAMS IN SCHEMA", "ALL VIEWS IN SCHEMA"];
        if self.eat_one(&ALL).is_some() {
            return Ok(GrantTarget::AllIn(self.comma_separated(Grammar::identifier)?));
        }
        if self.eat("SCHEMA") {
            return Ok(GrantTarget::Schemas(self.comma_separated(Grammar::identifier)?));
        }
        if self.eat("DATABASE") {
            return Ok(GrantTarget::Databases(self.comma_separated(Grammar::identifier)?));
        }
        if self.eat_one(&["ALL FUNCTIONS IN SCHEMA", "ALL ROUTINES IN SCHEMA"]).is_some() {
            return Ok(GrantTarget::AllFunctionsIn(self.comma_separated(Grammar::identifier)?));
        }
        for word in ["FUNCTION", "ROUTINE"] {
            if self.is(word) && matches!(self.peek_nth(1), Token::Word(_)) && !self.is_nth(1, "TO") {
                self.skip(1);
                return Ok(GrantTarget::Functions(self.comma_separated(Grammar::function_name)?));
            }
        }
        const OTHERS: [&str; 7] = ["SEQUENCE", "PROCEDURE", "LANGUAGE", "TYPE", "DOMAIN", "FOREIGN", "TABLESPACE"];
        for other in OTHERS {
            if (self.is(other) && matches!(self.peek_nth(1), Token::Word(_)))
                || (self.is("ALL") && self.is_nth(1, &format!("{other}S")))
            {
                return Err(self.unsupported(format!("there are no privileges on {}s", other.to_lowercase())));
            }
        }
        for words in ["TABLE", "STREAM", "SOURCE", "MATERIALIZED VIEW", "VIEW"] {
            let names = words.split(' ').count();
            if self.is_all(words) && matches!(self.peek_nth(names), Token::Word(_)) && !self.is_nth(names, "TO") {
                self.skip(names);
                break;
            }
        }
        Ok(GrantTarget::Relations(self.comma_separated(Grammar::object_name)?))
    }

    /// `TO roles [WITH GRANT OPTION]`, `FROM roles [CASCADE]`.
    fn grant_change(&mut self, grant: bool, option: bool, privileges: Option<Vec<Privilege>>) -> Result<GrantChange> {
        self.expect(if grant { "TO" } else { "FROM" })?;
        let roles = self.comma_separated(|grammar| {
            let _ = grammar.is("GROUP") && matches!(grammar.peek_nth(1), Token::Word(_)) && grammar.eat("GROUP");
            grammar.role_name()
        })?;
        let position = self.position();
        let option = option || (grant && self.eat("WITH GRANT OPTION"));
        if grant && option && roles.contains(&RoleName::Public) {
            return Err(Error::invalid_grant("grant options can only be granted to roles").at(position));
        }
        self.granted_by()?;
        let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
        Ok(GrantChange { grant, privileges, roles, option, cascade })
    }

    /// `role` of `ALTER FUNCTION … OWNER TO role`.
    pub(super) fn owner_of_function(&mut self, function: FunctionName) -> Result<Statement> {
        let of = GrantTarget::Functions(vec![function]);
        Ok(Statement::Grant(GrantStatement::Owner { of, to: self.role_name()? }))
    }

    /// Nobody grants in another's name.
    fn granted_by(&mut self) -> Result<()> {
        let position = self.position();
        if self.eat("GRANTED BY") && self.role_name()? != RoleName::Current {
            return Err(Error::unsupported("grantor must be current user").at(position));
        }
        Ok(())
    }

    /// `ALTER DEFAULT PRIVILEGES …`, `ALTER DATABASE … OWNER TO`.
    pub(super) fn alter_privileges(&mut self) -> Result<Option<Statement>> {
        if self.is("DATABASE") && self.is_nth(2, "OWNER") {
            self.skip(1);
            let of = GrantTarget::Databases(vec![self.identifier()?]);
            self.expect("OWNER TO")?;
            return Ok(Some(Statement::Grant(GrantStatement::Owner { of, to: self.role_name()? })));
        }
        if !self.eat("DEFAULT PRIVILEGES") {
            return Ok(None);
        }
        let (mut roles, mut schemas) = (Vec::new(), Vec::new());
        loop {
            if self.eat_one(&["FOR ROLE", "FOR USER"]).is_some() {
                roles = self.comma_separated(Grammar::role_name)?;
            } else if self.eat("IN SCHEMA") {
                schemas = self.comma_separated(Grammar::identifier)?;
            } else {
                break;
            }
        }
        let grant = self.is("GRANT");
        if !grant && !self.is("REVOKE") {
            return Err(self.unexpected("GRANT or REVOKE"));
        }
        self.skip(1);
        let option = !grant && self.eat("GRANT OPTION FOR");
        let privileges = self.privileges()?;
        self.expect("ON")?;
        if self.eat_one(&["TABLES", "STREAMS", "VIEWS"]).is_none() {
            return Err(self.unsupported("default privileges are those of TABLES: of streams, tables and views alike"));
        }
        let change = self.grant_change(grant, option, privileges)?;
        Ok(Some(Statement::Grant(GrantStatement::Default { roles, schemas, change })))
    }
}
