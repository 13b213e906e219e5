//! CREATE FUNCTION, and how statements name a function: by its name, or with the types of its parameters.

use sqlparser::ast as sp;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Token;

use super::grammar::Grammar;
use super::tokens::is_word;
use crate::catalog::function::Volatility;
use crate::error::{Error, Result};
use crate::limits::FUNCTION_PARAMETERS;
use crate::sql::ast::{AlterFunction, CreateFunction, DropFunctions, FunctionChange, FunctionName, ParameterDef, Statement};

/// Clauses that say nothing of a function in SQL that is not known anyway.
const INDIFFERENT: [&str; 9] = [
    "PARALLEL SAFE",
    "PARALLEL UNSAFE",
    "PARALLEL RESTRICTED",
    "NOT LEAKPROOF",
    "LEAKPROOF",
    "EXTERNAL SECURITY INVOKER",
    "SECURITY INVOKER",
    "NOT DETERMINISTIC",
    "DETERMINISTIC",
];

/// What the clauses of CREATE FUNCTION have said so far.
#[derive(Default)]
struct Clauses {
    volatility: Option<Volatility>,
    strict: Option<bool>,
    is_sql: bool,
    /// The text and where it begins.
    body: Option<(String, u32)>,
}

impl Grammar<'_> {
    /// What follows CREATE [OR REPLACE] FUNCTION.
    pub(super) fn create_function(&mut self, or_replace: bool) -> Result<Statement> {
        let if_not_exists = self.eat("IF NOT EXISTS");
        let name = self.object_name()?;
        let parameters = self.parameters()?;
        if !self.is("RETURNS") {
            return Err(self.unexpected("RETURNS"));
        }
        self.skip(1);
        if self.is("TABLE") || self.is("SETOF") {
            return Err(self
                .unsupported("functions that return rows are not supported")
                .with_hint("CREATE VIEW names a query; a function gives one value for each row"));
        }
        let returns = self.data_type()?;
        let mut clauses = Clauses::default();
        while !self.at_end() {
            self.function_clause(&mut clauses)?;
        }
        let Some((body, body_at)) = clauses.body else {
            return Err(self.unexpected("AS 'expression' or RETURN expression"));
        };
        Ok(Statement::CreateFunction(CreateFunction {
            or_replace,
            if_not_exists,
            name,
            parameters,
            returns,
            volatility: clauses.volatility,
            strict: clauses.strict.unwrap_or(false),
            body,
            body_at,
        }))
    }

    fn parameters(&mut self) -> Result<Vec<ParameterDef>> {
        self.expect_token(&Token::LParen)?;
        let mut parameters: Vec<ParameterDef> = Vec::new();
        if self.eat_token(&Token::RParen) {
            return Ok(parameters);
        }
        loop {
            let position = self.position();
            let (name, data_type) = self.parameter()?;
            let has_default = self.eat("DEFAULT") || self.eat_token(&Token::Eq);
            let default = if has_default { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|before| before.default.is_some()) {
                let message = "input parameters after one with a default value must also have defaults";
                return Err(Error::invalid_function_definition(message).at(position));
            }
            parameters.push(ParameterDef { name, data_type, default, position });
            if parameters.len() > FUNCTION_PARAMETERS {
                let message = format!("functions cannot have more than {FUNCTION_PARAMETERS} arguments");
                return Err(Error::limit_exceeded(message).at(position));
            }
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(parameters)
    }

    /// `[IN] [name] type`. Many names are types, too: the one before a type is a name.
    fn parameter(&mut self) -> Result<(Option<sp::Ident>, sp::DataType)> {
        let other_mode = ["OUT", "INOUT", "VARIADIC"].iter().any(|mode| self.is(mode));
        if other_mode && matches!(self.peek_nth(1), Token::Word(_)) {
            return Err(self.unsupported("parameters are IN: OUT, INOUT and VARIADIC are not supported"));
        }
        let _ = self.is("IN") && matches!(self.peek_nth(1), Token::Word(_)) && self.eat("IN");
        if !matches!(self.peek(), Token::Word(_)) {
            return Err(self.unexpected("a parameter"));
        }
        let alone = self.read(|parser| {
            parser.maybe_parse(|parser| {
                let data_type = parser.parse_data_type()?;
                let next = &parser.peek_token_ref().token;
                let ends = matches!(next, Token::Comma | Token::RParen | Token::Eq) || is_word(next, "DEFAULT");
                if ends { Ok(data_type) } else { Err(ParserError::ParserError("a name before a type".into())) }
            })
        })?;
        match alone {
            Some(data_type) => Ok((None, data_type)),
            None => Ok((Some(self.identifier()?), self.data_type()?)),
        }
    }

    fn function_clause(&mut self, clauses: &mut Clauses) -> Result<()> {
        const VOLATILITIES: [(&str, Volatility); 3] =
            [("IMMUTABLE", Volatility::Immutable), ("STABLE", Volatility::Stable), ("VOLATILE", Volatility::Volatile)];
        const NULLS: [(&str, bool); 3] =
            [("STRICT", true), ("RETURNS NULL ON NULL INPUT", true), ("CALLED ON NULL INPUT", false)];
        let position = self.position();
        let again = || Err(Error::syntax("conflicting or redundant options").at(position));
        if let Some((word, volatility)) = VOLATILITIES.iter().find(|(word, _)| self.is(word)) {
            self.expect(word)?;
            return if clauses.volatility.replace(*volatility).is_some() { again() } else { Ok(()) };
        }
        if let Some((words, strict)) = NULLS.iter().find(|(words, _)| self.is_all(words)) {
            self.expect(words)?;
            return if clauses.strict.replace(*strict).is_some() { again() } else { Ok(()) };
        }
        if self.eat_one(&INDIFFERENT).is_some() {
            return Ok(());
        }
        if self.eat_one(&["COST", "ROWS"]).is_some() {
            return self.number().map(drop);
        }
        if self.eat("LANGUAGE") {
            if std::mem::replace(&mut clauses.is_sql, true) {
                return again();
            }
            return self.language();
        }
        if self.is("AS") || self.is("RETURN") || self.is_all("BEGIN ATOMIC") {
            let body = self.body()?;
            return if clauses.body.replace(body).is_some() { again() } else { Ok(()) };
        }
        for clause in ["SECURITY DEFINER", "WINDOW", "TRANSFORM", "SUPPORT", "SET"] {
            if self.is_all(clause) {
                return Err(self.unsupported(format!("{clause} of functions is not supported")));
            }
        }
        Err(self.unexpected("LANGUAGE SQL, IMMUTABLE, STABLE, VOLATILE, STRICT, AS or RETURN"))
    }

    fn language(&mut self) -> Result<()> {
        let position = self.position();
        let name = match self.peek().clone() {
            Token::Word(word) => word.value,
            Token::SingleQuotedString(text) => text,
            _ => return Err(self.unexpected("SQL")),
        };
        self.skip(1);
        if name.eq_ignore_ascii_case("sql") {
            return Ok(());
        }
        Err(Error::unsupported(format!("language \"{}\" is not supported", name.to_lowercase()))
            .with_hint("functions are expressions in SQL: LANGUAGE SQL")
            .at(position))
    }

    /// `AS 'text'`, `AS $$text$$`, `RETURN expression`.
    fn body(&mut self) -> Result<(String, u32)> {
        if self.is("BEGIN") {
            return Err(self.unsupported("BEGIN ATOMIC is not supported").with_hint("write RETURN expression"));
        }
        if self.eat("RETURN") {
            let position = self.position();
            return Ok((self.expression()?.sql, position));
        }
        self.expect("AS")?;
        let quotes = match self.peek() {
            Token::DollarQuotedString(text) => text.tag.as_ref().map_or(0, |tag| tag.chars().count()) + 2,
            Token::SingleQuotedString(_) => 1,
            Token::EscapedStringLiteral(_) => 2,
            _ => 0,
        };
        let position = self.position();
        let text = self.string()?;
        if *self.peek() == Token::Comma {
            return Err(self.unsupported("functions in other languages than SQL are not supported"));
        }
        Ok((text, position + u32::try_from(quotes).unwrap_or(0)))
    }

    /// `name [( types )]`, as DROP and GRANT name a function.
    pub(super) fn function_name(&mut self) -> Result<FunctionName> {
        let name = self.object_name()?;
        if !self.eat_token(&Token::LParen) {
            return Ok(FunctionName { name, types: None });
        }
        if self.eat_token(&Token::RParen) {
            return Ok(FunctionName { name, types: Some(Vec::new()) });
        }
        let types = self.comma_separated(|grammar| grammar.parameter().map(|(_, data_type)| data_type))?;
        self.expect_token(&Token::RParen)?;
        Ok(FunctionName { name, types: Some(types) })
    }

    /// `DROP FUNCTION …`, if it is next.
    pub(super) fn drop_functions(&mut self) -> Result<Option<Statement>> {
        if self.eat_one(&["FUNCTION", "ROUTINE"]).is_none() {
            return Ok(None);
        }
        let if_exists = self.eat("IF EXISTS");
        let names = self.comma_separated(Grammar::function_name)?;
        let cascade = self.eat_one(&["CASCADE", "RESTRICT"]) == Some("CASCADE");
        Ok(Some(Statement::DropFunctions(DropFunctions { if_exists, names, cascade })))
    }

    /// `ALTER FUNCTION … RENAME TO …`, if it is next; OWNER TO is among the privileges.
    pub(super) fn alter_function(&mut self) -> Result<Option<Statement>> {
        if self.eat_one(&["FUNCTION", "ROUTINE"]).is_none() {
            return Ok(None);
        }
        let function = self.function_name()?;
        if self.eat("OWNER TO") {
            return self.owner_of_function(function).map(Some);
        }
        if !self.eat("RENAME TO") {
            return Err(self
                .unexpected("RENAME TO or OWNER TO")
                .with_hint("CREATE OR REPLACE FUNCTION changes what a function does"));
        }
        let change = FunctionChange::Rename(self.identifier()?);
        Ok(Some(Statement::AlterFunction(AlterFunction { function, change })))
    }

    /// `COMMENT ON FUNCTION … IS …`, if it is next.
    pub(super) fn comment_on_function(&mut self) -> Result<Option<Statement>> {
        if !self.is_all("COMMENT ON FUNCTION") {
            return Ok(None);
        }
        self.skip(3);
        let function = self.function_name()?;
        self.expect("IS")?;
        let comment = if self.eat("NULL") { None } else { Some(self.string()?) };
        Ok(Some(Statement::AlterFunction(AlterFunction { function, change: FunctionChange::Comment(comment) })))
    }
}

impl Grammar<'_> {
    /// The body of a function: an expression, or a SELECT of one that reads nothing.
    pub(super) fn function_body(&mut self) -> Result<sp::Expr> {
        let position = self.position();
        if !["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| self.is(word)) {
            let expression = self.expression()?;
            self.expect_end()?;
            return Ok(expression.expr);
        }
        let query = self.query()?;
        self.expect_end()?;
        only_expression(*query.query).filter(|_| query.emit.is_none()).ok_or_else(|| {
            Error::unsupported("the body of a function is one expression over its parameters")
                .with_hint("write SELECT expression, without FROM; CREATE VIEW names a query")
                .at(position)
        })
    }
}

/// The expression of `SELECT expression`, if the query is no more than that.
fn only_expression(query: sp::Query) -> Option<sp::Expr> {
    let sp::Query { with: None, body, order_by: None, limit_clause: None, fetch: None, locks, .. } = query else { return None };
    let sp::SetExpr::Select(select) = *body else { return None };
    let is_bare = locks.is_empty()
        && select.distinct.is_none()
        && select.top.is_none()
        && select.into.is_none()
        && select.from.is_empty()
        && select.lateral_views.is_empty()
        && select.selection.is_none()
        && select.group_by == sp::GroupByExpr::Expressions(Vec::new(), Vec::new())
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.qualify.is_none();
    match <[sp::SelectItem; 1]>::try_from(select.projection) {
        Ok([sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. }]) if is_bare => Some(expr),
        _ => None,
    }
}
