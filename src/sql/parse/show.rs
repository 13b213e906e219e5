//! SHOW and DESCRIBE: of objects, of definitions, of settings.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::error::Result;
use crate::sql::ast::{ShowObjects, Statement};

/// What SHOW and ksqlDB's LIST list.
const OBJECTS: [(&str, ShowObjects); 10] = [
    ("STREAMS", ShowObjects::Streams),
    ("TABLES", ShowObjects::Tables),
    ("MATERIALIZED VIEWS", ShowObjects::MaterializedViews),
    ("VIEWS", ShowObjects::Views),
    ("QUERIES", ShowObjects::Queries),
    ("JOBS", ShowObjects::Queries),
    ("SOURCES", ShowObjects::Sources),
    ("SINKS", ShowObjects::Sinks),
    ("CONNECTORS", ShowObjects::Sources),
    ("FUNCTIONS", ShowObjects::Functions),
];

impl Grammar<'_> {
    /// `LIST STREAMS`, ahead.
    pub(super) fn lists_objects(&self) -> bool {
        OBJECTS.iter().any(|(words, _)| words.split(' ').enumerate().all(|(at, word)| self.is_nth(at + 1, word)))
    }

    pub(super) fn show(&mut self) -> Result<Statement> {
        // PostgreSQL's settings that are written with spaces.
        const SETTINGS: [(&str, &str); 4] = [
            ("TIME ZONE", "timezone"),
            ("TRANSACTION ISOLATION LEVEL", "transaction_isolation"),
            ("SESSION AUTHORIZATION", "session_authorization"),
            ("ALL", "all"),
        ];
        self.skip(1);
        if let Some((words, objects)) = OBJECTS.iter().find(|(words, _)| self.is_all(words)) {
            self.expect(words)?;
            return Ok(Statement::ShowObjects(*objects));
        }
        if self.eat("CREATE FUNCTION") {
            return Ok(Statement::ShowCreateFunction(self.function_name()?));
        }
        if self.eat("CREATE") {
            if matches!(self.peek_nth(1), Token::Word(_)) {
                let _ = self.eat_one(&["MATERIALIZED VIEW", "STREAM", "SOURCE", "TABLE", "VIEW"]);
            }
            return Ok(Statement::ShowCreate(self.object_name()?));
        }
        if let Some((words, name)) = SETTINGS.iter().find(|(words, _)| self.is_all(words)) {
            self.expect(words)?;
            return Ok(Statement::ShowSetting(name.to_string()));
        }
        Ok(Statement::ShowSetting(self.setting_name()?))
    }

    /// `DESCRIBE [EXTENDED] x`; ksqlDB says `DESCRIBE x EXTENDED`.
    pub(super) fn describe(&mut self) -> Result<Statement> {
        self.skip(1);
        let before = self.is("EXTENDED") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("EXTENDED");
        if self.is_query() && !(self.is("TABLE") && matches!(self.peek_nth(1), Token::Word(_))) {
            return Err(self.unexpected("a name").with_hint("EXPLAIN shows how a query runs"));
        }
        if matches!(self.peek_nth(1), Token::Word(_)) && !self.is_nth(1, "EXTENDED") || self.is_all("MATERIALIZED VIEW") {
            let _ = self.eat_one(&["MATERIALIZED VIEW", "STREAM", "SOURCE", "TABLE", "VIEW"]);
        }
        let name = self.object_name()?;
        Ok(Statement::Describe { extended: self.eat("EXTENDED") || before, name })
    }
}
