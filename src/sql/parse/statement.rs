//! Which statement is it? One look at its first words; each is read by a function of its own.

use sqlparser::ast as sp;
use sqlparser::tokenizer::{Location, Token};

use super::grammar::Grammar;
use super::parse_query;
use super::query::Query;
use super::tokens::is_word;
use super::window;
use super::with::whole;
use crate::error::{Error, Result};
use crate::sql::ast::{
    AlterAction, AlterRelation, Drop, GrantStatement, GrantTarget, NewName, ObjectType, Options, Rename, RunningInsert, Statement,
};

/// EXPLAIN of PREPARE of …, at most.
const STATEMENTS_IN_STATEMENTS: usize = 8;

/// Statements of PostgreSQL that change nothing here; accepted with anything that follows.
const NO_OPERATIONS: [(&str, &str); 11] = [
    ("LISTEN", "LISTEN"),
    ("UNLISTEN", "UNLISTEN"),
    ("NOTIFY", "NOTIFY"),
    ("ANALYZE", "ANALYZE"),
    ("ANALYSE", "ANALYZE"),
    ("VACUUM", "VACUUM"),
    ("LOCK", "LOCK TABLE"),
    ("CHECKPOINT", "CHECKPOINT"),
    ("REINDEX", "REINDEX"),
    ("CLUSTER", "CLUSTER"),
    // Views are always up to date.
    ("REFRESH MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW"),
];

/// Known and not built.
const UNSUPPORTED: [(&str, Option<&str>); 14] = [
    ("MERGE", Some("INSERT into a table with a primary key updates the rows that exist")),
    ("CALL", None),
    ("DO", None),
    ("LOAD", None),
    ("USE", None),
    ("ATTACH", None),
    ("DETACH", None),
    ("IMPORT", None),
    ("EXPORT", None),
    ("SECURITY", None),
    ("REFRESH", None),
    ("INSTALL", None),
    ("PRAGMA", None),
    ("UNLOAD", None),
];

impl Grammar<'_> {
    /// A statement, to its last word. The caller sees to it that nothing follows.
    pub fn statement(&mut self) -> Result<Statement> {
        self.depth += 1;
        if self.depth > STATEMENTS_IN_STATEMENTS {
            return Err(Error::statement_too_complex("statements in statements are nested too deeply").at(self.position()));
        }
        let statement = self.dispatch();
        self.depth -= 1;
        statement
    }

    fn dispatch(&mut self) -> Result<Statement> {
        if self.is_query() {
            let position = self.position();
            let query = match self.is("SELECT") && *self.peek_nth(1) == Token::EOF {
                true => self.nothing()?,
                false => self.query_or_change()?,
            };
            return whole(query).map_err(|error| error.at(position));
        }
        let Token::Word(word) = self.peek() else { return Err(self.unexpected("a statement")) };
        match word.value.to_ascii_uppercase().as_str() {
            _ if word.quote_style.is_some() => Err(self.unexpected("a statement")),
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "ALTER" => self.alter(),
            "GRANT" | "REVOKE" => self.grant(),
            "REASSIGN" => self.reassign_owned(),
            "COMMENT" => self.comment(),
            "TRUNCATE" => self.truncate(),
            "INSERT" => self.insert(),
            "TERMINATE" => self.terminate(),
            "UPDATE" => self.update(),
            "DELETE" => self.delete(),
            "COPY" => self.copy(),
            "DECLARE" => self.declare(),
            "FETCH" => self.fetch(),
            "MOVE" => self.move_cursor(),
            "CLOSE" => self.close(),
            "PREPARE" => self.prepare(),
            "EXECUTE" => self.execute(),
            "DEALLOCATE" => self.deallocate(),
            "BEGIN" | "START" => self.begin(),
            "COMMIT" | "END" => self.commit(),
            "ROLLBACK" | "ABORT" => self.rollback(),
            "SAVEPOINT" => self.savepoint(),
            "RELEASE" => self.release(),
            "SET" => self.set(),
            "RESET" | "UNSET" => self.reset(),
            "DISCARD" => self.discard(),
            "SHOW" => self.show(),
            "LIST" if self.lists_objects() => self.show(),
            "DESCRIBE" | "DESC" => self.describe(),
            "EXPLAIN" => self.explain(),
            "SUBSCRIBE" => self.subscribe(),
            "VERIFY" => self.verify(),
            "ANALYZE" if self.is_all("ANALYZE WATERMARK") && matches!(self.peek_nth(2), Token::Word(_)) => {
                self.skip(2);
                Ok(Statement::AnalyzeWatermark(self.object_name()?))
            }
            "PRINT" => self.print(),
            "PAUSE" => Ok(Statement::Pause(self.view_name()?)),
            "RESUME" => Ok(Statement::Resume(self.view_name()?)),
            "FLUSH" => {
                self.skip(1);
                Ok(Statement::Flush)
            }
            _ => self.other(),
        }
    }

    /// `SELECT`: a row without columns.
    fn nothing(&mut self) -> Result<Query> {
        self.skip(1);
        let mut query = parse_query("SELECT 1")?;
        if let sp::SetExpr::Select(select) = query.body.as_mut() {
            select.projection.clear();
        }
        Ok(Query { query, sql: "SELECT".to_string(), emit: None })
    }

    /// `PAUSE name`, `RESUME MATERIALIZED VIEW name`, `PAUSE STREAM name`.
    fn view_name(&mut self) -> Result<sp::ObjectName> {
        self.skip(1);
        let has_name_behind = matches!(self.peek_nth(1), Token::Word(_));
        let _ = self.eat("MATERIALIZED VIEW") || (has_name_behind && (self.eat("QUERY") || self.eat("STREAM")));
        self.object_name()
    }

    fn other(&mut self) -> Result<Statement> {
        if let Some((words, tag)) = NO_OPERATIONS.iter().find(|(words, _)| self.is_all(words)) {
            self.expect(words)?;
            while !self.at_end() {
                self.skip(1);
            }
            return Ok(Statement::NoOperation(tag));
        }
        match UNSUPPORTED.iter().find(|(word, _)| self.is(word)) {
            Some((word, hint)) => {
                let error = self.unsupported(format!("{word} is not supported"));
                Err(hint.iter().fold(error, |error, hint| error.with_hint(*hint)))
            }
            None => Err(self.unexpected("a statement")),
        }
    }

    fn drop(&mut self) -> Result<Statement> {
        self.skip(1);
        if let Some(statement) = self.drop_role()? {
            return Ok(statement);
        }
        if let Some(statement) = self.drop_functions()? {
            return Ok(statement);
        }
        if self.is("SCHEMA") {
            return self.drop_schemas();
        }
        let object = self.object_type("DROP")?;
        let _ = object == ObjectType::Index && self.eat("CONCURRENTLY");
        let if_exists = self.eat("IF EXISTS");
        let names = self.comma_separated(Grammar::object_name)?;
        let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
        Ok(Statement::Drop(Drop { object, if_exists, names, cascade }))
    }

    /// STREAM, TABLE, MATERIALIZED VIEW, …
    fn object_type(&mut self, verb: &str) -> Result<ObjectType> {
        const TYPES: [(&str, ObjectType); 8] = [
            ("STREAM", ObjectType::Stream),
            ("SOURCE", ObjectType::Stream),
            ("TABLE", ObjectType::Table),
            ("MATERIALIZED VIEW", ObjectType::MaterializedView),
            ("VIEW", ObjectType::View),
            ("INDEX", ObjectType::Index),
            ("SINK", ObjectType::Sink),
            ("QUERY", ObjectType::Query),
        ];
        if let Some((words, object)) = TYPES.iter().find(|(words, _)| self.is_all(words)) {
            self.expect(words)?;
            return Ok(*object);
        }
        match self.peek() {
            Token::Word(word) if word.quote_style.is_none() && matches!(self.peek_nth(1), Token::Word(_)) => {
                let what = word.value.to_ascii_uppercase();
                Err(self.unsupported(format!("{verb} {what} is not supported")))
            }
            _ => Err(self.unexpected("STREAM, TABLE, MATERIALIZED VIEW, VIEW, QUERY, INDEX, SINK or SCHEMA")),
        }
    }

    fn alter(&mut self) -> Result<Statement> {
        let position = self.position();
        self.skip(1);
        if let Some(statement) = self.alter_role()? {
            return Ok(statement);
        }
        if let Some(statement) = self.alter_privileges()? {
            return Ok(statement);
        }
        if let Some(statement) = self.alter_function()? {
            return Ok(statement);
        }
        if self.is("SCHEMA") {
            return self.alter_schema();
        }
        let from = self.here();
        let object = self.object_type("ALTER")?;
        let what = self.text_since(from).to_ascii_uppercase();
        let if_exists = self.eat("IF EXISTS");
        let name = self.object_name()?;
        if matches!(object, ObjectType::Stream | ObjectType::Table)
            && let Some(action) = self.alter_action()?
        {
            return Ok(Statement::AlterRelation(Box::new(AlterRelation { name, if_exists, action })));
        }
        if self.eat("RENAME TO") {
            return Ok(Statement::Rename(Rename { object, if_exists, name, to: NewName::Name(self.identifier()?) }));
        }
        if self.eat("SET SCHEMA") {
            return Ok(Statement::Rename(Rename { object, if_exists, name, to: NewName::Schema(self.identifier()?) }));
        }
        if if_exists {
            return Err(Error::unsupported(format!("this form of ALTER {what} has no IF EXISTS")).at(position));
        }
        let has_query = matches!(object, ObjectType::MaterializedView | ObjectType::Table | ObjectType::Stream);
        if has_query && (self.is("AS") || *self.peek() == Token::LParen) {
            return Ok(Statement::AlterView(self.altered_view(name, position)?));
        }
        match self.eat_one(&["PAUSE", "RESUME"]) {
            Some("PAUSE") => return Ok(Statement::Pause(name)),
            Some(_) => return Ok(Statement::Resume(name)),
            None => {}
        }
        if self.eat("OWNER TO") {
            let of = GrantTarget::Relations(vec![name]);
            return Ok(Statement::Grant(GrantStatement::Owner { of, to: self.role_name()? }));
        }
        let from = self.here();
        let Token::Word(_) = self.next() else { return Err(self.unexpected("RENAME TO or OWNER TO")) };
        let form = self.text_since(from).to_ascii_uppercase();
        Err(Error::unsupported(format!("ALTER {what} … {form} is not supported"))
            .with_hint(
                "ADD COLUMN, ADD CHECK, DROP CONSTRAINT, RENAME, SET (…) and ALTER COLUMN … SET DEFAULT are; else create a new relation and INSERT … SELECT into it",
            )
            .at(position))
    }

    /// What is to be done to a stream or table; `None`: nothing that is known.
    fn alter_action(&mut self) -> Result<Option<AlterAction>> {
        if self.eat("ADD") {
            if let Some(check) = self.check()? {
                let not_valid = self.eat("NOT VALID");
                return Ok(Some(AlterAction::AddCheck { check: Box::new(check), not_valid }));
            }
            let ahead = if self.is("CONSTRAINT") && matches!(self.peek_nth(1), Token::Word(_)) { 2 } else { 0 };
            if let Some(refused) = self.refused_constraint(ahead) {
                return Err(refused);
            }
            if self.is_nth(ahead, "PRIMARY") && self.is_nth(ahead + 1, "KEY") {
                let error = self.unsupported("a key cannot be added to a table that is there");
                return Err(error.with_hint("CREATE TABLE another with it, and INSERT INTO it SELECT from this one"));
            }
            let _ = self.eat("COLUMN");
            let if_not_exists = self.eat("IF NOT EXISTS");
            return Ok(Some(AlterAction::AddColumn { column: Box::new(self.added_column()?), if_not_exists }));
        }
        if self.is("RENAME") && !self.is_all("RENAME TO") {
            self.skip(1);
            let _ = self.eat("COLUMN");
            let from = self.identifier()?;
            self.expect("TO")?;
            return Ok(Some(AlterAction::RenameColumn { from, to: self.identifier()? }));
        }
        if self.eat("DROP CONSTRAINT") {
            let if_exists = self.eat("IF EXISTS");
            let name = self.identifier()?;
            let _ = self.eat_one(&["CASCADE", "RESTRICT"]);
            return Ok(Some(AlterAction::DropConstraint { name, if_exists }));
        }
        if self.eat("VALIDATE CONSTRAINT") {
            return Ok(Some(AlterAction::ValidateConstraint(self.identifier()?)));
        }
        if self.is("SET") && *self.peek_nth(1) == Token::LParen {
            let mut options = Options::new();
            self.skip(1);
            self.options(&mut options)?;
            return Ok(Some(AlterAction::SetOptions(options)));
        }
        if self.is("ALTER") {
            self.skip(1);
            let _ = self.eat("COLUMN");
            let column = self.identifier()?;
            if self.eat("DROP DEFAULT") {
                return Ok(Some(AlterAction::SetDefault { column, default: None }));
            }
            self.expect("SET DEFAULT")?;
            return Ok(Some(AlterAction::SetDefault { column, default: Some(Box::new(self.expression()?)) }));
        }
        Ok(None)
    }

    fn comment(&mut self) -> Result<Statement> {
        if let Some(statement) = self.comment_on_function()? {
            return Ok(statement);
        }
        self.expect("COMMENT ON")?;
        if self.is("SCHEMA") {
            return self.comment_on_schema();
        }
        let column = self.eat("COLUMN");
        if !column {
            self.object_type("COMMENT ON")?;
        }
        let mut on = self.object_name()?;
        let position = self.position();
        let column = match column {
            true => Some(on.0.pop().and_then(|part| part.as_ident().cloned())),
            false => None,
        };
        let column = match column {
            Some(Some(column)) if !on.0.is_empty() => Some(column),
            Some(_) => return Err(Error::syntax("the column's relation is missing: write relation.column").at(position)),
            None => None,
        };
        self.expect("IS")?;
        let comment = if self.eat("NULL") { None } else { Some(self.string()?) };
        Ok(Statement::Comment { on, column, comment })
    }

    fn truncate(&mut self) -> Result<Statement> {
        self.skip(1);
        let _ = self.eat("TABLE");
        let names = self.comma_separated(|grammar| {
            let _ = grammar.is("ONLY") && matches!(grammar.peek_nth(1), Token::Word(_)) && grammar.eat("ONLY");
            let name = grammar.object_name()?;
            let _ = grammar.eat_token(&Token::Mul);
            Ok(name)
        })?;
        let _ = self.eat_one(&["RESTART IDENTITY", "CONTINUE IDENTITY"]);
        if self.is("CASCADE") {
            return Err(self.unsupported("TRUNCATE … CASCADE is not supported"));
        }
        let _ = self.eat("RESTRICT");
        Ok(Statement::Truncate(names))
    }

    /// sqlparser's INSERT, and `WITH (idempotency_key = …)` before RETURNING.
    fn insert(&mut self) -> Result<Statement> {
        let (position, first) = (self.position(), self.index());
        if !self.is_nth(1, "INTO") {
            self.skip(1);
            return Err(self.unexpected("INTO"));
        }
        let token = self.read(|parser| Ok(parser.next_token()))?;
        let statement = self.read(|parser| parser.parse_insert(token))?;
        let sp::Statement::Insert(mut insert) = statement else {
            return Err(Error::insufficient_privilege("INSERT into files is not supported").at(position));
        };
        let mut options = Options::new();
        if let Some(source) = &mut insert.source {
            window::take_options(source, &mut options)?;
        }
        window::normalize(&mut insert)?;
        self.with_options(&mut options)?;
        if insert.returning.is_none() && self.is("RETURNING") {
            self.skip(1);
            let items = self.read(|parser| parser.parse_comma_separated(|parser| parser.parse_select_item()))?;
            insert.returning = Some(items);
        }
        if !self.is("EMIT") {
            return Ok(Statement::Insert { insert: Box::new(insert), options });
        }
        let query_sql = self.text_since(self.insert_source(first)).to_string();
        let (emit, lateness) = self.emit()?;
        if lateness.is_some() {
            let error = Error::unsupported("EMIT FINAL WITH DELAY is not supported in a running INSERT").at(position);
            return Err(error.with_hint("CREATE STREAM … AS takes it; INSERT INTO … SELECT * FROM that stream EMIT CHANGES"));
        }
        let emit = emit.unwrap_or_default();
        self.with_options(&mut options)?;
        if insert.returning.is_some() || insert.on.is_some() || insert.source.is_none() {
            let error =
                Error::syntax("a running INSERT is INSERT INTO name [(columns)] SELECT … EMIT CHANGES and no more").at(position);
            return Err(
                error.with_hint("a row replaces the one of its key anyhow; SELECT … EMIT CHANGES shows rows as they come")
            );
        }
        Ok(Statement::RunningInsert(RunningInsert { insert: Box::new(insert), options, query_sql, emit }))
    }

    /// Where the query of the INSERT begins whose first token this is: behind `INSERT INTO name [(columns)]`.
    fn insert_source(&self, first: usize) -> Location {
        let is = |at: usize, token: &Token| self.token_at(at).token == *token;
        let mut at = first + if is_word(&self.token_at(first + 2).token, "TABLE") { 4 } else { 3 };
        while is(at, &Token::Period) {
            at += 2;
        }
        let names = is(at, &Token::LParen) && (is(at + 2, &Token::Comma) || is(at + 2, &Token::RParen));
        if names {
            while !is(at, &Token::RParen) {
                at += 1;
            }
            at += 1;
        }
        self.token_at(at).span.start
    }

    /// `TERMINATE query`, ksqlDB's DROP QUERY.
    fn terminate(&mut self) -> Result<Statement> {
        self.skip(1);
        if self.is("ALL") {
            let error = self.unsupported("TERMINATE ALL is not supported");
            return Err(error.with_hint("SHOW QUERIES lists them; write DROP QUERY a, b, …, or PAUSE a view"));
        }
        if self.is("QUERY") && matches!(self.peek_nth(1), Token::Word(_)) {
            self.skip(1);
        }
        let names = vec![self.object_name()?];
        Ok(Statement::Drop(Drop { object: ObjectType::Query, if_exists: false, names, cascade: false }))
    }

    fn update(&mut self) -> Result<Statement> {
        match self.read(|parser| parser.parse_statement())? {
            sp::Statement::Update(mut update) => {
                window::normalize(&mut update)?;
                Ok(Statement::Update { with: None, update: Box::new(update) })
            }
            _ => Err(self.unexpected("UPDATE")),
        }
    }

    fn delete(&mut self) -> Result<Statement> {
        match self.read(|parser| parser.parse_statement())? {
            sp::Statement::Delete(mut delete) => {
                window::normalize(&mut delete)?;
                Ok(Statement::Delete { with: None, delete: Box::new(delete) })
            }
            _ => Err(self.unexpected("DELETE")),
        }
    }
}
