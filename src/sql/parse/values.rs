//! Values, and parts of them, as ksqlDB, Flink and RisingWave write them: what the dialect's hooks read beside PostgreSQL's.
//!
//! | written | read as |
//! | --- | --- |
//! | `MAP['a', 1]` | `map('a' := 1)`, as ksqlDB writes it |
//! | `a->x`, `a->x[1]->y` | `a -> x`, of which the planner makes a field where `a` is a struct |
//! | `x IS JSON OBJECT`, `x IS NOT JSON` | `is_json(x, 'OBJECT')`, `NOT is_json(x, 'VALUE')` |
//! | `(k, v) => k`, <code>&#124;x&#124; x + 1</code> | a lambda; `x => x + 1` is an argument by name until its function is known |
//!
//! A field binds as tightly as a subscript, so that `a->x * a->y` is a product. `j -> 'key'` and `j -> (e)` are PostgreSQL's operator, as
//! loose as there, and so is an arrow before what cannot be the name of a field.

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, LambdaFunction, LambdaFunctionParameter, LambdaSyntax, OneOrManyWithParens, UnaryOperator, Value,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::tokens::is_word;
use crate::limits::STATEMENT_OPERATORS;
use crate::sql::ast::function_call;

/// Looser than every operator: `k := a = b` is one entry.
const LOOSEST: u8 = 1;

/// As tight as a subscript of PostgreSQL's.
const FIELD: u8 = 140;

/// Words that stand for values, so that no field is called so without quotes.
const VALUES: [Keyword; 6] = [Keyword::ARRAY, Keyword::CASE, Keyword::FALSE, Keyword::NOT, Keyword::NULL, Keyword::TRUE];

/// What an expression may begin with here.
pub(super) fn prefix(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let [first, second] = parser.peek_tokens_ref();
    match (&first.token, &second.token) {
        (Token::Pipe, _) => Some(lambda_between_bars(parser)),
        (map, Token::LBracket) if is_word(map, "MAP") => parser.maybe_parse(map_literal).transpose(),
        _ => None,
    }
}

/// How tightly the next token binds, where that is not what it does in PostgreSQL.
pub(super) fn precedence(parser: &Parser) -> Option<u8> {
    match parser.peek_token_ref().token {
        Token::Assignment | Token::RArrow => Some(LOOSEST),
        Token::Arrow if is_field(parser) => Some(FIELD),
        _ => None,
    }
}

/// What goes on with a value.
pub(super) fn infix(parser: &mut Parser, left: &Expr) -> Option<Result<Expr, ParserError>> {
    match parser.peek_token_ref().token {
        Token::Assignment => Some(assignment(parser, left)),
        Token::RArrow => Some(lambda_of(parser, left)),
        Token::Arrow if is_field(parser) => Some(fields(parser, left)),
        Token::Word(_) => is_json(parser, left),
        _ => None,
    }
}

/// `MAP[k, v, …]`. One value alone is a subscript of a column called so.
fn map_literal(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.parse_identifier()?;
    parser.expect_token(&Token::LBracket)?;
    let items = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RBracket)?;
    if items.len() % 2 == 1 {
        return parser.expected_ref("a value for each key", parser.get_current_token());
    }
    let mut items = items.into_iter();
    let pairs = std::iter::from_fn(|| Some(assigned(items.next()?, items.next()?)));
    Ok(Expr::Function(function_call(name, pairs.collect())))
}

fn assigned(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Assignment, right: Box::new(right) }
}

fn assignment(parser: &mut Parser, left: &Expr) -> Result<Expr, ParserError> {
    parser.advance_token();
    Ok(assigned(left.clone(), parser.parse_subexpr(LOOSEST)?))
}

/// An arrow, and a name that is no call, no qualifier, no type of a literal, and not cast.
fn is_field(parser: &Parser) -> bool {
    let [arrow, name, after] = parser.peek_tokens_ref();
    let Token::Word(word) = &name.token else { return false };
    let is_name = word.quote_style.is_some() || !VALUES.contains(&word.keyword);
    let goes_on = matches!(after.token, Token::LParen | Token::Period | Token::DoubleColon | Token::SingleQuotedString(_));
    arrow.token == Token::Arrow && is_name && !goes_on
}

/// `->x[1]->y`, ahead.
fn fields(parser: &mut Parser, left: &Expr) -> Result<Expr, ParserError> {
    let mut value = left.clone();
    let mut steps = 0;
    while is_field(parser) {
        steps += 1;
        if steps > STATEMENT_OPERATORS {
            return Err(ParserError::RecursionLimitExceeded);
        }
        parser.advance_token();
        let field = Expr::Identifier(parser.parse_identifier()?);
        value = Expr::BinaryOp { left: Box::new(value), op: BinaryOperator::Arrow, right: Box::new(field) };
        let mut access_chain = Vec::new();
        parser.parse_multi_dim_subscript(&mut access_chain)?;
        if !access_chain.is_empty() {
            value = Expr::CompoundFieldAccess { root: Box::new(value), access_chain };
        }
    }
    Ok(value)
}

/// `|k, v| body`.
fn lambda_between_bars(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.expect_token(&Token::Pipe)?;
    let names = parser.parse_comma_separated(Parser::parse_identifier)?;
    parser.expect_token(&Token::Pipe)?;
    lambda(parser, names)
}

/// `(k, v) => body`, at the arrow.
fn lambda_of(parser: &mut Parser, left: &Expr) -> Result<Expr, ParserError> {
    let name = |expr: &Expr| match expr {
        Expr::Identifier(name) => Some(name.clone()),
        _ => None,
    };
    let names = match left {
        Expr::Tuple(names) => names.iter().map(name).collect(),
        Expr::Nested(one) => name(one).map(|name| vec![name]),
        _ => None,
    };
    let Some(names) = names else { return parser.expected_ref("an operator", parser.peek_token_ref()) };
    parser.advance_token();
    lambda(parser, names)
}

fn lambda(parser: &mut Parser, names: Vec<Ident>) -> Result<Expr, ParserError> {
    let parameters = names.into_iter().map(|name| LambdaFunctionParameter { name, data_type: None });
    let params = OneOrManyWithParens::Many(parameters.collect());
    let body = Box::new(parser.parse_subexpr(LOOSEST)?);
    Ok(Expr::Lambda(LambdaFunction { params, body, syntax: LambdaSyntax::Arrow }))
}

fn is_json(parser: &mut Parser, left: &Expr) -> Option<Result<Expr, ParserError>> {
    const KINDS: [&str; 4] = ["VALUE", "SCALAR", "ARRAY", "OBJECT"];
    let [is, second, third] = parser.peek_tokens_ref();
    let negated = is_word(&second.token, "NOT");
    if !is_word(&is.token, "IS") || !is_word(if negated { &third.token } else { &second.token }, "JSON") {
        return None;
    }
    (0..2 + usize::from(negated)).for_each(|_| parser.advance_token());
    let kind = KINDS.iter().find(|kind| is_word(&parser.peek_token_ref().token, kind));
    if kind.is_some() {
        parser.advance_token();
    }
    let kind = Value::SingleQuotedString(kind.unwrap_or(&KINDS[0]).to_string()).with_empty_span();
    let is_one = Expr::Function(function_call(Ident::new("is_json"), vec![left.clone(), Expr::Value(kind)]));
    Some(Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(is_one) } } else { is_one }))
}
