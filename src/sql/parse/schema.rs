//! CREATE, ALTER, DROP and COMMENT ON SCHEMA.

use super::grammar::Grammar;
use crate::error::Result;
use crate::sql::ast::{GrantStatement, GrantTarget, SchemaStatement, Statement};

impl Grammar<'_> {
    /// Behind CREATE SCHEMA: `[IF NOT EXISTS] [name] [AUTHORIZATION role]`.
    pub(super) fn create_schema(&mut self) -> Result<Statement> {
        let if_not_exists = self.eat("IF NOT EXISTS");
        let name = if self.is("AUTHORIZATION") { None } else { Some(self.identifier()?) };
        let owner = if self.eat("AUTHORIZATION") { Some(self.role_name()?) } else { None };
        if self.is("CREATE") || self.is("GRANT") {
            let error = self.unsupported("CREATE SCHEMA makes a schema, and nothing in it");
            return Err(error.with_hint("write CREATE as a statement of its own, with the schema before the name"));
        }
        Ok(Statement::Schema(SchemaStatement::Create { name, if_not_exists, owner }))
    }

    /// `SCHEMA name RENAME TO name`, `SCHEMA name OWNER TO role`, behind ALTER.
    pub(super) fn alter_schema(&mut self) -> Result<Statement> {
        self.expect("SCHEMA")?;
        let name = self.identifier()?;
        if self.eat("RENAME TO") {
            return Ok(Statement::Schema(SchemaStatement::Rename { name, to: self.identifier()? }));
        }
        if self.eat("OWNER TO") {
            let of = GrantTarget::Schemas(vec![name]);
            return Ok(Statement::Grant(GrantStatement::Owner { of, to: self.role_name()? }));
        }
        Err(self.unexpected("RENAME TO or OWNER TO"))
    }

    /// `SCHEMA [IF EXISTS] name, … [CASCADE | RESTRICT]`, behind DROP.
    pub(super) fn drop_schemas(&mut self) -> Result<Statement> {
        self.expect("SCHEMA")?;
        let if_exists = self.eat("IF EXISTS");
        let names = self.comma_separated(Grammar::identifier)?;
        let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
        Ok(Statement::Schema(SchemaStatement::Drop { names, if_exists, cascade }))
    }

    /// `SCHEMA name IS 'text'`, behind COMMENT ON.
    pub(super) fn comment_on_schema(&mut self) -> Result<Statement> {
        self.expect("SCHEMA")?;
        let on = self.identifier()?;
        self.expect("IS")?;
        let comment = if self.eat("NULL") { None } else { Some(self.string()?) };
        Ok(Statement::Schema(SchemaStatement::Comment { on, comment }))
    }
}
