//! Transactions and settings.

use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use crate::copy::value::parse_interval;
use crate::error::{Error, Result};
use crate::sql::ast::{SetValue, Statement};
use crate::sql::system::quote_ident;
use crate::time::zone::Zone;

/// The setting whose value is a list of names.
const SEARCH_PATH: &str = "search_path";

/// What a list of transaction modes asks for. Every transaction reads one snapshot, whatever isolation it names.
#[derive(Default)]
struct Modes {
    read_only: Option<bool>,
    isolation: Option<&'static str>,
    deferrable: Option<bool>,
}

impl Grammar<'_> {
    pub(super) fn begin(&mut self) -> Result<Statement> {
        let start = self.eat("START");
        if start {
            self.expect("TRANSACTION")?;
        } else {
            self.skip(1);
            let _ = self.eat_one(&["WORK", "TRANSACTION"]);
        }
        let modes = self.modes()?;
        Ok(Statement::Begin { start, read_only: modes.read_only })
    }

    pub(super) fn commit(&mut self) -> Result<Statement> {
        Ok(Statement::Commit { chain: self.end_of_transaction()? })
    }

    /// `ROLLBACK`, `ABORT`, `ROLLBACK TO [SAVEPOINT] s`.
    pub(super) fn rollback(&mut self) -> Result<Statement> {
        let rollback = self.is("ROLLBACK");
        let chain = self.end_of_transaction()?;
        if rollback && !chain && self.eat("TO") {
            let _ = self.is("SAVEPOINT") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("SAVEPOINT");
            return Ok(Statement::RollbackTo(self.identifier()?));
        }
        Ok(Statement::Rollback { chain })
    }

    /// Whether another block is to begin.
    fn end_of_transaction(&mut self) -> Result<bool> {
        self.skip(1);
        if self.is("PREPARED") {
            return Err(self.unsupported("two-phase commit is not supported"));
        }
        let _ = self.eat_one(&["WORK", "TRANSACTION"]);
        Ok(self.eat_one(&["AND NO CHAIN", "AND CHAIN"]) == Some("AND CHAIN"))
    }

    pub(super) fn savepoint(&mut self) -> Result<Statement> {
        self.skip(1);
        Ok(Statement::Savepoint(self.identifier()?))
    }

    pub(super) fn release(&mut self) -> Result<Statement> {
        self.skip(1);
        let _ = self.is("SAVEPOINT") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("SAVEPOINT");
        Ok(Statement::Release(self.identifier()?))
    }

    /// `ISOLATION LEVEL …`, `READ ONLY`, `[NOT] DEFERRABLE`, with or without commas.
    fn modes(&mut self) -> Result<Modes> {
        let mut modes = Modes::default();
        let mut after_comma = false;
        loop {
            match self.eat_one(&["ISOLATION LEVEL", "READ ONLY", "READ WRITE", "DEFERRABLE", "NOT DEFERRABLE"]) {
                Some("ISOLATION LEVEL") => {
                    let level = self.eat_one(&["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED"]);
                    modes.isolation = Some(level.ok_or_else(|| self.unexpected("an isolation level"))?);
                }
                Some("READ ONLY") => modes.read_only = Some(true),
                Some("READ WRITE") => modes.read_only = Some(false),
                Some(mode) => modes.deferrable = Some(mode == "DEFERRABLE"),
                None if after_comma => return Err(self.unexpected("a transaction mode")),
                None => return Ok(modes),
            }
            after_comma = self.eat_token(&Token::Comma);
        }
    }

    pub(super) fn set(&mut self) -> Result<Statement> {
        self.skip(1);
        if self.eat("SESSION CHARACTERISTICS AS TRANSACTION") {
            return self.set_modes(false);
        }
        let prefix = matches!(self.peek_nth(1), Token::Word(_)) && !self.is_nth(1, "TO");
        let scope = if prefix { self.eat_one(&["SESSION", "LOCAL"]) } else { None };
        let local = scope == Some("LOCAL");
        if scope.is_none() && self.is("TRANSACTION") && matches!(self.peek_nth(1), Token::Word(_)) && !self.is_nth(1, "TO") {
            self.skip(1);
            if self.is("SNAPSHOT") {
                return Err(self.unsupported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            return self.set_modes(true);
        }
        if self.eat("TIME ZONE") {
            let value = match self.is("INTERVAL") {
                true => SetValue::Value(self.distance_from_greenwich()?.to_string()),
                false if self.eat("LOCAL") => SetValue::Default,
                false => self.setting_value()?,
            };
            return Ok(Statement::Set { local, name: "timezone".into(), value });
        }
        for (word, name) in [("NAMES", "client_encoding"), ("ROLE", "role"), ("AUTHORIZATION", "session_authorization")] {
            if self.is(word) && *self.peek_nth(1) != Token::Eq && !self.is_nth(1, "TO") {
                self.skip(1);
                let value = if self.at_end() { SetValue::Default } else { self.setting_value()? };
                return Ok(Statement::Set { local, name: name.into(), value });
            }
        }
        let name = self.setting_name()?;
        if !self.eat_token(&Token::Eq) && !self.eat("TO") {
            return Err(self.unexpected("= or TO"));
        }
        let value = if name == SEARCH_PATH { self.setting_names()? } else { self.setting_value()? };
        Ok(Statement::Set { local, name, value })
    }

    /// `INTERVAL '+02:00' HOUR TO MINUTE`, as a zone.
    fn distance_from_greenwich(&mut self) -> Result<Zone> {
        let text = self.option_value()?;
        let interval = parse_interval(text.as_bytes())?;
        let invalid = |detail: &str| {
            Error::invalid_parameter(format!("invalid value for parameter \"TimeZone\": \"INTERVAL '{text}'\""))
                .with_detail(detail)
        };
        match (interval.months, interval.days, i32::try_from(interval.nanoseconds / 1_000_000_000)) {
            (0, 0, Ok(east)) => Ok(Zone::Fixed(east)),
            (0, _, Ok(_)) => Err(invalid("Cannot specify days in time zone interval.")),
            (_, _, Ok(_)) => Err(invalid("Cannot specify months in time zone interval.")),
            _ => Err(invalid("UTC timezone offset is out of range.")),
        }
    }

    /// Transaction modes as the setting that they stand for.
    fn set_modes(&mut self, local: bool) -> Result<Statement> {
        let position = self.position();
        let modes = self.modes()?;
        let (name, value) = match modes {
            Modes { read_only: Some(read_only), .. } => ("transaction_read_only", if read_only { "on" } else { "off" }.into()),
            Modes { isolation: Some(level), .. } => ("transaction_isolation", level.to_lowercase()),
            Modes { deferrable: Some(deferrable), .. } => {
                ("transaction_deferrable", if deferrable { "on" } else { "off" }.into())
            }
            _ => return Err(Error::syntax("a transaction mode is missing").at(position)),
        };
        let name = if local { name.to_string() } else { format!("default_{name}") };
        Ok(Statement::Set { local, name, value: SetValue::Value(value) })
    }

    /// `DEFAULT`, or one or more values; several are joined by commas, as in search_path.
    fn setting_value(&mut self) -> Result<SetValue> {
        if self.eat("DEFAULT") {
            return Ok(SetValue::Default);
        }
        let values = self.comma_separated(Grammar::setting_item)?;
        Ok(SetValue::Value(values.join(", ")))
    }

    /// The same for a list of names, which are in quotes where they need them: a string is one name, whatever is in it.
    fn setting_names(&mut self) -> Result<SetValue> {
        if self.eat("DEFAULT") {
            return Ok(SetValue::Default);
        }
        let names = self.comma_separated(Grammar::setting_item)?;
        Ok(SetValue::Value(names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ")))
    }

    fn setting_item(&mut self) -> Result<String> {
        let plus = self.eat_token(&Token::Plus);
        if matches!(self.peek(), Token::Word(_)) && !plus && !self.is("INTERVAL") {
            return self.setting_word();
        }
        self.option_value()
    }

    /// A word, folded as a name is.
    fn setting_word(&mut self) -> Result<String> {
        let name = self.identifier()?;
        Ok(if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() })
    }

    /// A setting's name in lower case: `search_path`, `a.b`, and `'a.b'` as ksqlDB and Flink write theirs.
    pub(super) fn setting_name(&mut self) -> Result<String> {
        if let Token::SingleQuotedString(name) = self.peek()
            && name.contains('.')
        {
            let name = name.to_lowercase();
            self.skip(1);
            return Ok(name);
        }
        let name = self.object_name()?;
        let parts: Vec<String> = name.0.iter().filter_map(|part| Some(part.as_ident()?.value.to_lowercase())).collect();
        Ok(parts.join("."))
    }

    /// `RESET name`, `RESET ALL`.
    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.skip(1);
        if self.eat("TIME ZONE") {
            return Ok(Statement::Reset("timezone".into()));
        }
        if self.eat("SESSION AUTHORIZATION") {
            return Ok(Statement::Reset("session_authorization".into()));
        }
        if self.eat("TRANSACTION ISOLATION LEVEL") {
            return Ok(Statement::Reset("transaction_isolation".into()));
        }
        Ok(Statement::Reset(self.setting_name()?))
    }

    pub(super) fn discard(&mut self) -> Result<Statement> {
        self.skip(1);
        match self.eat_one(&["ALL", "PLANS", "SEQUENCES", "TEMPORARY", "TEMP"]) {
            Some("ALL") => Ok(Statement::Discard),
            // There are none of these.
            Some("PLANS") => Ok(Statement::NoOperation("DISCARD PLANS")),
            Some("SEQUENCES") => Ok(Statement::NoOperation("DISCARD SEQUENCES")),
            Some(_) => Ok(Statement::NoOperation("DISCARD TEMP")),
            None => Err(self.unexpected("ALL, PLANS, SEQUENCES or TEMP")),
        }
    }
}
