//! PostgreSQL's dialect with our words in it, and with bounds on the parser's work.
//!
//! The parser asks its dialect before each prefix and infix of an expression. Here these hooks
//!
//! * accept `TABLE s` and `s PARTITION BY (k)` as arguments of a window function, marked as [`sqlparser::ast::Expr::Prefixed`] so that
//!   nothing else takes them;
//! * read the marks that [`super::join`] put behind ON, together with the condition that follows;
//! * keep `EMIT …` from being read as an alias;
//! * build chains of AND and OR as balanced trees, and bound all other chains: a tree of n operators in a row would be n deep, and
//!   overflow the stack when it is dropped;
//! * read BETWEEN SYMMETRIC as what it is short for, and the right side of IS DISTINCT FROM as far as it goes;
//! * read `interval` as a name where no value follows;
//! * read maps, fields of structs and lambdas ([`super::values`]), and names between backticks;
//! * count the prefixes: the parser tries alternatives, and a nest of failing ones takes time exponential in its depth;
//! * remember how far it came: after alternatives that all failed, the error is there, not where they started.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{BinaryOperator, Expr, Ident};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::{Keyword, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::is_word;
use super::values;
use crate::limits::STATEMENT_OPERATORS;
use crate::sql::ast::{AS_OF_MARK, NEAREST_MARK, PARTITION_MARK, TABLE_MARK, WITHIN_MARK, function_call, marked};

/// For one statement.
#[derive(Debug)]
pub(super) struct StreamDialect {
    /// Prefixes of expressions that may still be tried.
    budget: Cell<usize>,
    /// Index of the last token that was looked at where an expression or alias may start or end.
    furthest: Cell<usize>,
    /// Somewhere the statement says AS OF. Others keep words like `at` and `changes` as names of their tables.
    versioned: bool,
}

impl StreamDialect {
    /// For a statement: each token may be looked at a few dozen times.
    pub fn new(tokens: &[TokenWithSpan]) -> StreamDialect {
        let versioned = tokens.windows(2).any(|pair| is_word(&pair[0].token, "AS") && is_word(&pair[1].token, "OF"));
        StreamDialect { budget: Cell::new(tokens.len() * 32 + 1000), furthest: Cell::new(0), versioned }
    }

    /// To tokenize only.
    pub fn for_tokens() -> StreamDialect {
        StreamDialect { budget: Cell::new(0), furthest: Cell::new(0), versioned: false }
    }

    pub fn furthest(&self) -> usize {
        self.furthest.get()
    }

    fn reached(&self, parser: &Parser) {
        self.furthest.set(self.furthest.get().max(parser.index()));
    }

    pub fn is_exhausted(&self) -> bool {
        self.budget.get() == 0
    }

    fn spend(&self) -> Result<(), ParserError> {
        let left = self.budget.get().saturating_sub(1);
        self.budget.set(left);
        if left == 0 { Err(ParserError::RecursionLimitExceeded) } else { Ok(()) }
    }
}

/// `interval` as the name of a column: PostgreSQL does not reserve it.
fn parse_interval_name(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let [first, second] = parser.peek_tokens_ref();
    let value = matches!(
        second.token,
        Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::Number(..)
            | Token::LParen
            | Token::Placeholder(_)
            | Token::Minus
            | Token::Plus
    );
    (is_word(&first.token, "INTERVAL") && !value).then(|| parser.parse_identifier().map(Expr::Identifier))
}

/// `$within(…) condition`: both must hold.
fn parse_mark(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let is_mark = [WITHIN_MARK, NEAREST_MARK, AS_OF_MARK].iter().any(|mark| is_word(&parser.peek_token_ref().token, mark));
    is_mark.then(|| {
        let name = parser.parse_identifier()?;
        parser.expect_token(&Token::LParen)?;
        let args = parser.parse_comma_separated0(Parser::parse_expr, Token::RParen)?;
        parser.expect_token(&Token::RParen)?;
        Ok(marked(Expr::Function(function_call(name, args)), parser.parse_expr()?))
    })
}

/// Does `EMIT` with a word after it that makes it ours start at the current token, which has been consumed?
fn is_emit(parser: &Parser) -> bool {
    const FOLLOWERS: [&str; 4] = ["CHANGES", "FINAL", "ON", "AFTER"];
    is_word(&parser.get_current_token().token, "EMIT")
        && FOLLOWERS.iter().any(|word| is_word(&parser.peek_token_ref().token, word))
}

/// `TABLE s`, `TABLE (SELECT …)`, `s PARTITION BY …`: only where a function's argument starts.
fn parse_table_argument(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let [first, second] = parser.peek_tokens_ref();
    let table = is_word(&first.token, "TABLE") && matches!(second.token, Token::Word(_) | Token::LParen);
    if !table && !is_partitioned(parser) {
        return None;
    }
    // Without TABLE it is the first argument, or has a name: `GROUP BY a, b PARTITION BY b` is none.
    let begins = match parser.get_current_token().token {
        Token::LParen | Token::RArrow => true,
        Token::Comma => table,
        _ => false,
    };
    if !begins {
        return None;
    }
    Some(parse_input(parser, table))
}

fn parse_input(parser: &mut Parser, table: bool) -> Result<Expr, ParserError> {
    let span = parser.peek_token_ref().span;
    let mark = |word: &str, value: Expr| Expr::Prefixed { prefix: Ident::with_span(span, word), value: Box::new(value) };
    if table {
        parser.advance_token();
    }
    let mut input = match parser.peek_token_ref().token {
        Token::LParen => parser.parse_prefix()?,
        _ => {
            let name = parser.parse_object_name(false)?;
            let mut parts: Vec<Ident> = name.0.into_iter().filter_map(|part| part.as_ident().cloned()).collect();
            if parts.len() == 1 { Expr::Identifier(parts.remove(0)) } else { Expr::CompoundIdentifier(parts) }
        }
    };
    if table {
        input = mark(TABLE_MARK, input);
    }
    if !parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        return Ok(input);
    }
    let mut parts = vec![input];
    if parser.consume_token(&Token::LParen) {
        parts.extend(parser.parse_comma_separated(|p| p.parse_identifier().map(Expr::Identifier))?);
        parser.expect_token(&Token::RParen)?;
    } else {
        parts.push(Expr::Identifier(parser.parse_identifier()?));
    }
    Ok(mark(PARTITION_MARK, Expr::Tuple(parts)))
}

/// `a.b PARTITION BY`.
fn is_partitioned(parser: &Parser) -> bool {
    let mut n = 0;
    while matches!(parser.peek_nth_token_ref(n).token, Token::Word(_))
        && parser.peek_nth_token_ref(n + 1).token == Token::Period
        && n < 4
    {
        n += 2;
    }
    matches!(parser.peek_nth_token_ref(n).token, Token::Word(_))
        && is_word(&parser.peek_nth_token_ref(n + 1).token, "PARTITION")
        && is_word(&parser.peek_nth_token_ref(n + 2).token, "BY")
}

/// `first AND b AND c …` (or OR) as a balanced tree.
fn parse_chain(
    parser: &mut Parser,
    first: Expr,
    keyword: Keyword,
    op: BinaryOperator,
    precedence: u8,
) -> Result<Expr, ParserError> {
    let mut operands = vec![first];
    while parser.parse_keyword(keyword) {
        operands.push(parser.parse_subexpr(precedence)?);
    }
    while operands.len() > 1 {
        let mut halved = Vec::with_capacity(operands.len().div_ceil(2));
        let mut pairs = operands.into_iter();
        while let Some(left) = pairs.next() {
            halved.push(match pairs.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        operands = halved;
    }
    operands.pop().ok_or_else(|| ParserError::ParserError("a chain has operands".into()))
}

/// `x [NOT] BETWEEN {SYMMETRIC | ASYMMETRIC} a AND b`: SYMMETRIC takes the bounds in either order.
fn parse_between(parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
    let negated = is_word(&parser.peek_token_ref().token, "NOT");
    let first = usize::from(negated);
    let word = |n: usize, word: &str| is_word(&parser.peek_nth_token_ref(n).token, word);
    let symmetric = word(first + 1, "SYMMETRIC");
    if !word(first, "BETWEEN") || !symmetric && !word(first + 1, "ASYMMETRIC") {
        return None;
    }
    (0..first + 2).for_each(|_| parser.advance_token());
    let mut bounds = || -> Result<(Box<Expr>, Box<Expr>), ParserError> {
        let low = parser.parse_subexpr(precedence)?;
        parser.expect_keyword(Keyword::AND)?;
        Ok((Box::new(low), Box::new(parser.parse_subexpr(precedence)?)))
    };
    Some(bounds().map(|(low, high)| {
        let between = |negated, low, high| Expr::Between { expr: Box::new(expr.clone()), negated, low, high };
        if !symmetric {
            return between(negated, low, high);
        }
        let (one, other) = (between(negated, low.clone(), high.clone()), between(negated, high, low));
        let op = if negated { BinaryOperator::And } else { BinaryOperator::Or };
        Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(one), op, right: Box::new(other) }))
    }))
}

/// `x IS [NOT] DISTINCT FROM y`, whose right side ends where that of another comparison does: the parser would take all of
/// `y AND z` for it.
fn parse_distinct(parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
    use Keyword::{DISTINCT, FROM, IS, NOT};
    let negated = parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]);
    if !negated && !parser.parse_keywords(&[IS, DISTINCT, FROM]) {
        return None;
    }
    let left = Box::new(expr.clone());
    Some(parser.parse_subexpr(precedence).map(Box::new).map(|right| match negated {
        true => Expr::IsNotDistinctFrom(left, right),
        false => Expr::IsDistinctFrom(left, right),
    }))
}

/// How many operators stand in a row at the left of `expr`.
fn chain_length(mut expr: &Expr) -> usize {
    let mut length = 0;
    loop {
        expr = match expr {
            Expr::BinaryOp { left, .. } | Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => left,
            Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => left,
            Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => inner,
            Expr::Cast { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::AtTimeZone { timestamp: inner, .. }
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::Between { expr: inner, .. }
            | Expr::Like { expr: inner, .. }
            | Expr::ILike { expr: inner, .. }
            | Expr::SimilarTo { expr: inner, .. }
            | Expr::RLike { expr: inner, .. }
            | Expr::InList { expr: inner, .. }
            | Expr::InSubquery { expr: inner, .. }
            | Expr::InUnnest { expr: inner, .. }
            | Expr::IsNormalized { expr: inner, .. }
            | Expr::JsonAccess { value: inner, .. } => inner,
            Expr::CompoundFieldAccess { root, .. } => root,
            Expr::MemberOf(member) => &member.value,
            _ => return length,
        };
        length += 1;
    }
}

macro_rules! as_in_postgres {
    ($($name:ident)*) => { $(fn $name(&self) -> bool { PostgreSqlDialect {}.$name() })* };
}

impl Dialect for StreamDialect {
    /// The parser's branches for PostgreSQL are ours.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Err(error) = self.spend() {
            return Some(Err(error));
        }
        self.reached(parser);
        parse_mark(parser)
            .or_else(|| parse_table_argument(parser))
            .or_else(|| parse_interval_name(parser))
            .or_else(|| values::prefix(parser))
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        if chain_length(expr) >= STATEMENT_OPERATORS {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        if let Some(between) = parse_between(parser, expr, self.prec_value(Precedence::Between)) {
            return Some(between);
        }
        if let Some(distinct) = parse_distinct(parser, expr, self.prec_value(Precedence::Is)) {
            return Some(distinct);
        }
        let (keyword, op, precedence) = match &parser.peek_token_ref().token {
            Token::Word(word) if word.keyword == Keyword::AND => (Keyword::AND, BinaryOperator::And, Precedence::And),
            Token::Word(word) if word.keyword == Keyword::OR => (Keyword::OR, BinaryOperator::Or, Precedence::Or),
            _ => return values::infix(parser, expr),
        };
        Some(parse_chain(parser, expr.clone(), keyword, op, self.prec_value(precedence)))
    }

    fn is_select_item_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        // `INSERT INTO t SELECT 1 ON CONFLICT …`
        let is_free = |kw: &Keyword| *kw != Keyword::ON && !RESERVED_FOR_COLUMN_ALIAS.contains(kw);
        let alias = explicit || (is_free(kw) && !is_emit(parser));
        if alias {
            self.reached(parser);
        }
        alias
    }

    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        let alias = !RESERVED_FOR_TABLE_ALIAS.contains(kw) && !is_emit(parser);
        if alias {
            self.reached(parser);
        }
        alias
    }

    /// `f(a => 1)` with a plain name: trying every argument as `expression => …` first doubles the work at each level of a nest.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    /// `x AS OF COMMIT n`, after [`super::rewrite`].
    fn supports_table_versioning(&self) -> bool {
        self.versioned
    }

    /// `first_value(x IGNORE NULLS)`.
    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_map_literal_with_angle_brackets(&self) -> bool {
        true
    }

    /// `MAP {'a': 1}`, as RisingWave has it.
    fn support_map_literal_syntax(&self) -> bool {
        true
    }

    /// `STRUCT<a INT>` as a type.
    fn supports_struct_literal(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        PostgreSqlDialect {}.identifier_quote_style(identifier)
    }

    /// Between backticks, too, as in Flink and ksqlDB.
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`' || PostgreSqlDialect {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        PostgreSqlDialect {}.is_reserved_for_identifier(kw)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        ch != '`' && PostgreSqlDialect {}.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        self.reached(parser);
        match values::precedence(parser) {
            Some(precedence) => Some(Ok(precedence)),
            None => PostgreSqlDialect {}.get_next_precedence(parser),
        }
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        PostgreSqlDialect {}.prec_value(precedence)
    }

    as_in_postgres! {
        supports_unicode_string_literal supports_filter_during_aggregation supports_group_by_expr allow_extract_custom
        allow_extract_single_quotes supports_create_index_with_clause supports_explain_with_utility_options
        supports_listen_notify supports_factorial_operator supports_bitwise_shift_operators supports_comment_on
        supports_load_extension supports_named_fn_args_with_colon_operator supports_empty_projections
        supports_nested_comments supports_string_escape_constant supports_numeric_literal_underscores
        supports_array_typedef_with_brackets supports_geometric_types supports_set_names supports_alter_column_type_using
        supports_notnull_operator supports_interval_options supports_insert_table_alias
        supports_create_table_like_parenthesized supports_comma_separated_trim supports_xml_expressions
    }
}
