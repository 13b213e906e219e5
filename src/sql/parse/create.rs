//! CREATE STREAM, TABLE, VIEW, MATERIALIZED VIEW: relations with columns, and relations that are queries.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::tokenizer::Token;

use super::columns::{Columns, take_timestamp};
use super::grammar::Grammar;
use super::message;
use super::query::Query;
use crate::catalog::Emit;
use crate::error::{Error, Result};
use crate::limits::PARTITIONS;
use crate::sql::ast::{CreateRelation, CreateView, Options, Statement, WatermarkDef};

/// What CREATE … and the name say, before the columns or the query.
struct Head {
    or_replace: bool,
    if_not_exists: bool,
    name: sp::ObjectName,
    position: u32,
}

/// The clauses between the columns (or the name) and AS, in any order.
#[derive(Default)]
struct Clauses {
    partition_by: Vec<sp::Ident>,
    partitions: Option<u32>,
    append_only: bool,
    options: Options,
}

impl Grammar<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        let position = self.position();
        self.skip(1);
        if let Some(statement) = self.create_role()? {
            return Ok(statement);
        }
        let or_replace = self.eat("OR REPLACE");
        if self.eat("FUNCTION") {
            return self.create_function(or_replace);
        }
        if self.eat("STREAM") || self.eat("SOURCE") {
            return self.create_stream(or_replace, position);
        }
        if self.eat("TABLE") {
            return self.create_table(or_replace, position);
        }
        if self.eat("MATERIALIZED VIEW") {
            let head = self.head(or_replace, position)?;
            return Ok(Statement::CreateMaterializedView(self.create_view(head)?));
        }
        if self.eat("VIEW") {
            let head = self.head(or_replace, position)?;
            let view = self.create_view(head)?;
            if view.emit != Emit::default() || !view.options.is_empty() {
                let error = Error::syntax("a plain view stores nothing: it has no EMIT and no options").at(position);
                return Err(error.with_hint("write CREATE MATERIALIZED VIEW"));
            }
            return Ok(Statement::CreateView(view));
        }
        if self.is("SINK") {
            if or_replace {
                let error = self.unsupported("CREATE OR REPLACE SINK is not supported");
                return Err(error.with_hint("DROP SINK, then CREATE SINK: it begins again with all rows"));
            }
            self.skip(1);
            let head = self.head(false, position)?;
            return Ok(Statement::CreateSink(self.create_sink(head)?));
        }
        if !or_replace && let Some(statement) = self.create_index()? {
            return Ok(statement);
        }
        if !or_replace && self.eat("SCHEMA") {
            return self.create_schema();
        }
        Err(self.refuse_create(position))
    }

    /// What else PostgreSQL and the field can create, by name.
    fn refuse_create(&self, position: u32) -> Error {
        for word in ["TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL"] {
            if self.is(word) {
                let message = format!("CREATE {word} TABLE is not supported");
                return Error::unsupported(message).with_hint("CREATE TABLE without a key is a plain table").at(position);
            }
        }
        if self.is("EXTERNAL") || self.is("FOREIGN") || self.is("SERVER") || self.is("EXTENSION") {
            let message = "SQL does not reach the server's files or network except through connectors";
            let hint = "load files from the client with COPY … FROM STDIN, or CREATE STREAM … WITH (connector = …)";
            return Error::insufficient_privilege(message).with_hint(hint).at(position);
        }
        match self.peek() {
            token if message::mistyped(token).is_some() => {
                self.unexpected("STREAM, TABLE, MATERIALIZED VIEW, VIEW, INDEX or FUNCTION")
            }
            Token::Word(word) if word.quote_style.is_none() && matches!(self.peek_nth(1), Token::Word(_)) => {
                let what = word.value.to_ascii_uppercase();
                Error::unsupported(format!("CREATE {what} is not supported yet"))
                    .with_hint("there are CREATE STREAM, TABLE, MATERIALIZED VIEW, VIEW, SINK, INDEX and FUNCTION")
                    .at(position)
            }
            _ => self.unexpected("STREAM, TABLE, MATERIALIZED VIEW, VIEW, INDEX or FUNCTION"),
        }
    }

    fn head(&mut self, or_replace: bool, position: u32) -> Result<Head> {
        let if_not_exists = self.eat("IF NOT EXISTS");
        let name = self.object_name()?;
        Ok(Head { or_replace, if_not_exists, name, position })
    }

    fn create_stream(&mut self, or_replace: bool, position: u32) -> Result<Statement> {
        let head = self.head(or_replace, position)?;
        if self.has_columns() {
            let mut stream = self.create_relation(head, true)?;
            if !stream.primary_key.is_empty() {
                let error = Error::syntax("a stream has no primary key: every row is an event of its own").at(position);
                return Err(
                    error.with_hint("CREATE TABLE keeps the newest row of each key; KEY or PARTITION BY only groups rows")
                );
            }
            stream.append_only = true;
            return Ok(Statement::CreateStream(stream));
        }
        Ok(Statement::CreateDerivedStream(self.create_as(head)?))
    }

    fn create_table(&mut self, or_replace: bool, position: u32) -> Result<Statement> {
        let head = self.head(or_replace, position)?;
        if !self.has_columns() {
            return Ok(Statement::CreateMaterializedView(self.create_view(head)?));
        }
        let mut table = self.create_relation(head, false)?;
        if table.append_only && !table.primary_key.is_empty() {
            let error = Error::syntax("a relation with a primary key is not APPEND ONLY").at(position);
            return Err(error.with_hint("leave out one of them: without a key it is a stream"));
        }
        // Flink's and RisingWave's spelling of a stream.
        let stream = table.append_only || table.primary_key.is_empty() && table.options.contains_key("connector");
        if stream {
            table.append_only = true;
            return Ok(Statement::CreateStream(table));
        }
        Ok(Statement::CreateTable(table))
    }

    /// `( a INT, …` against `( a, b, WATERMARK FOR b ) AS` and no parenthesis at all.
    fn has_columns(&self) -> bool {
        if *self.peek() != Token::LParen {
            return false;
        }
        let (mut depth, mut begins) = (0, 0);
        for at in 0.. {
            match self.peek_nth(at) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            let is_last = depth == 0 || *self.peek_nth(at) == Token::EOF;
            let ends = is_last || (depth == 1 && *self.peek_nth(at) == Token::Comma);
            let is_name = at == begins + 2;
            let is_watermark = self.is_nth(begins + 1, "WATERMARK") && self.is_nth(begins + 2, "FOR");
            if ends && !is_name && !is_watermark {
                return true;
            }
            if is_last {
                break;
            }
            if ends {
                begins = at;
            }
        }
        false
    }

    fn create_relation(&mut self, head: Head, stream: bool) -> Result<CreateRelation> {
        let mut columns = self.column_list()?;
        let mut clauses = self.clauses(true)?;
        take_timestamp(&mut clauses.options, &mut columns.watermark, head.position)?;
        if self.is("AS") {
            return Err(self.unexpected("end of statement").with_hint("a query gives the columns: leave out their types"));
        }
        let mut primary_key = columns.primary_key;
        if stream && clauses.partition_by.is_empty() {
            clauses.partition_by = columns.key;
        } else if !stream && primary_key.is_empty() {
            primary_key = columns.key;
        }
        Ok(CreateRelation {
            or_replace: head.or_replace,
            if_not_exists: head.if_not_exists,
            name: head.name,
            columns: columns.columns,
            primary_key,
            checks: columns.checks,
            watermark: columns.watermark,
            partition_by: clauses.partition_by,
            partitions: clauses.partitions,
            append_only: clauses.append_only,
            options: clauses.options,
        })
    }

    /// As of [`Grammar::create_as`], of what is no stream.
    fn create_view(&mut self, head: Head) -> Result<CreateView> {
        let position = head.position;
        let view = self.create_as(head)?;
        let only_streams = |what: &str, hint: &str| {
            Err(Error::syntax(format!("{what} goes with CREATE STREAM … AS")).with_hint(hint).at(position))
        };
        if view.watermark.is_some() {
            return only_streams("WATERMARK FOR", "a view has the times of what it reads");
        }
        if view.changelog {
            return only_streams("CHANGELOG OF", "SUBSCRIBE follows the changes of a view");
        }
        Ok(view)
    }

    /// `[(a, b)] [PARTITION BY …] [WITH (…)] AS [CHANGELOG OF] query [EMIT …] [WITH [NO] DATA]`.
    fn create_as(&mut self, head: Head) -> Result<CreateView> {
        let (columns, mut watermark) = if *self.peek() == Token::LParen { self.names()? } else { (Vec::new(), None) };
        let mut clauses = self.clauses(false)?;
        take_timestamp(&mut clauses.options, &mut watermark, head.position)?;
        if !self.is("AS") {
            let expected = if columns.is_empty() { "( column type, … ) or AS" } else { "AS" };
            return Err(self.unexpected(expected));
        }
        self.skip(1);
        let changelog = self.eat("CHANGELOG OF");
        self.takes_partition = true;
        let query = if changelog && !self.is_query() { self.whole_relation()? } else { self.query()? };
        self.takes_partition = false;
        if let Some(partition_by) = self.partition_by.take() {
            if !clauses.partition_by.is_empty() {
                return Err(Error::syntax("PARTITION BY stands before AS or behind the query, not both").at(head.position));
            }
            clauses.partition_by = partition_by;
        }
        if self.is_all("WITH NO DATA") {
            return Err(self.unsupported("WITH NO DATA is not supported: a view always holds its rows"));
        }
        let _ = self.eat("WITH DATA");
        clauses.options.append(&mut self.window_options);
        if clauses.append_only {
            return Err(Error::syntax("APPEND ONLY goes with columns, not with a query").at(head.position));
        }
        Ok(CreateView {
            or_replace: head.or_replace,
            if_not_exists: head.if_not_exists,
            name: head.name,
            columns,
            options: clauses.options,
            partition_by: clauses.partition_by,
            partitions: clauses.partitions,
            query: query.query,
            query_sql: query.sql,
            emit: query.emit.unwrap_or_default(),
            watermark,
            changelog,
        })
    }

    /// `[WITH (…)] {FROM relation | AS query [EMIT …]} [WITH (…)]`.
    fn create_sink(&mut self, head: Head) -> Result<CreateView> {
        let mut options = Options::default();
        self.with_options(&mut options)?;
        let from = self.eat("FROM");
        if !from && !self.eat("AS") {
            if self.is("INTO") {
                let error = self.unsupported("CREATE SINK … INTO is not supported");
                return Err(error.with_hint("write INSERT INTO name SELECT … EMIT CHANGES"));
            }
            return Err(self.unexpected("FROM or AS"));
        }
        // sqlparser would take the options for hints to the last relation of the query.
        let end = self.last_options();
        let mut query = match (from, end) {
            (true, _) => self.whole_relation()?,
            (false, Some(end)) => self.within(end, Grammar::query)?,
            (false, None) => self.query()?,
        };
        self.with_options(&mut options)?;
        Ok(CreateView {
            or_replace: false,
            if_not_exists: head.if_not_exists,
            name: head.name,
            columns: Vec::new(),
            options,
            partition_by: Vec::new(),
            partitions: None,
            emit: query.emit.take().unwrap_or_default(),
            query: query.query,
            query_sql: query.sql,
            watermark: None,
            changelog: false,
        })
    }

    /// How many tokens there are before a `WITH (…)` that ends the statement.
    fn last_options(&self) -> Option<usize> {
        let end = (0..).find(|at| *self.peek_nth(*at) == Token::EOF)?;
        let mut depth = 0;
        let open = (0..end).rev().find(|at| {
            match self.peek_nth(*at) {
                Token::RParen => depth += 1,
                Token::LParen => depth -= 1,
                _ => {}
            }
            depth <= 0
        })?;
        let begins = open.checked_sub(1)?;
        (*self.peek_nth(open) == Token::LParen && self.is_nth(begins, "WITH")).then_some(begins)
    }

    /// `( name, …, WATERMARK FOR … )`.
    fn names(&mut self) -> Result<(Vec<sp::Ident>, Option<WatermarkDef>)> {
        let (mut names, mut columns) = (Vec::new(), Columns::default());
        self.expect_token(&Token::LParen)?;
        loop {
            if self.is_all("WATERMARK FOR") {
                self.watermark(&mut columns)?;
            } else {
                names.push(self.identifier()?);
            }
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok((names, columns.watermark))
    }

    /// A name, as the query of all its rows.
    fn whole_relation(&mut self) -> Result<Query> {
        let from = self.here();
        let name = self.object_name()?;
        let sql = format!("SELECT * FROM {}", self.text_since(from));
        let mut query = super::parse_query(&sql)?;
        // The name stands where it was written.
        let _: ControlFlow<()> = sp::visit_relations_mut(&mut query, |relation| {
            *relation = name.clone();
            ControlFlow::Continue(())
        });
        Ok(Query { query, sql, emit: None })
    }

    /// `ALTER MATERIALIZED VIEW name` is read: `[(a, b)] AS query [EMIT …]`.
    pub(super) fn altered_view(&mut self, name: sp::ObjectName, position: u32) -> Result<CreateView> {
        let view = self.create_as(Head { or_replace: true, if_not_exists: false, name, position })?;
        match view.options.is_empty() && view.partition_by.is_empty() && view.partitions.is_none() {
            true => Ok(view),
            false => Err(Error::syntax("ALTER … AS changes the query alone").at(position)),
        }
    }

    fn clauses(&mut self, relation: bool) -> Result<Clauses> {
        let mut clauses = Clauses::default();
        loop {
            if self.eat("PARTITION BY") || self.eat("PARTITIONED BY") {
                self.partition_columns(&mut clauses)?;
            } else if self.eat("DISTRIBUTED BY") || self.eat("DISTRIBUTED INTO") {
                let _ = self.eat("HASH");
                if *self.peek() == Token::LParen {
                    self.partition_columns(&mut clauses)?;
                } else {
                    clauses.partitions = Some(self.partition_count()?);
                }
            } else if self.eat("INTO") {
                clauses.partitions = Some(self.partition_count()?);
            } else if self.is("WITH") && *self.peek_nth(1) == Token::LParen {
                self.with_options(&mut clauses.options)?;
            } else if self.eat("APPEND ONLY") {
                clauses.append_only = true;
            } else if relation && self.is("COMMENT") {
                self.skip(1);
                let _ = self.eat_token(&Token::Eq);
                let comment = self.string()?;
                clauses.options.insert("comment".into(), comment);
            } else if relation && self.is("FORMAT") && matches!(self.peek_nth(1), Token::Word(_)) {
                self.format(&mut clauses.options)?;
            } else {
                return Ok(clauses);
            }
        }
    }

    fn partition_columns(&mut self, clauses: &mut Clauses) -> Result<()> {
        if !clauses.partition_by.is_empty() {
            return Err(self.unexpected("one PARTITION BY"));
        }
        clauses.partition_by = if *self.peek() == Token::LParen {
            self.parenthesized(Grammar::identifier)?
        } else {
            self.comma_separated(Grammar::identifier)?
        };
        Ok(())
    }

    /// `n PARTITIONS`, `n BUCKETS`.
    fn partition_count(&mut self) -> Result<u32> {
        let position = self.position();
        let count = self.number()?;
        if self.eat_one(&["PARTITIONS", "PARTITION", "BUCKETS"]).is_none() {
            return Err(self.unexpected("PARTITIONS"));
        }
        match u32::try_from(count) {
            Ok(count) if (1..=PARTITIONS).contains(&count) => Ok(count),
            _ => {
                Err(Error::invalid_parameter(format!("a stream has between 1 and {PARTITIONS} partitions, not {count}"))
                    .at(position))
            }
        }
    }

    /// RisingWave's `FORMAT PLAIN ENCODE JSON [( key = value, … )]`, as options.
    fn format(&mut self, options: &mut Options) -> Result<()> {
        self.expect("FORMAT")?;
        let format = self.option_value()?;
        self.expect("ENCODE")?;
        let encode = self.option_value()?;
        options.insert("format".into(), format);
        options.insert("encode".into(), encode);
        if *self.peek() != Token::LParen {
            return Ok(());
        }
        let more = self.parenthesized(|grammar| {
            let key = grammar.option_key()?;
            grammar.expect_token(&Token::Eq)?;
            Ok((key, grammar.option_value()?))
        })?;
        options.extend(more);
        Ok(())
    }
}
