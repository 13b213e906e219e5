//! Forms of PostgreSQL's grammar that DataFusion's planner has no word for, put in its words, on the tree.
//!
//! | written | planned |
//! | --- | --- |
//! | `pg_catalog.f(x)`, `x OPERATOR(pg_catalog.~) y`, `x COLLATE "default"` | `f(x)`, `x ~ y`, `x` |
//! | `x::regclass`, shown · compared | `regclassout(regclassin(x))` · `regclassin(x)` |
//! | `uuid 'text'` | `'text'::uuid` |
//! | `x::oid`, `x::name`, `x::"char"`, `x::pg_catalog.int4[]` | casts to the types that hold them |
//! | `ARRAY(SELECT …)` | `rows_or_empty((SELECT array_agg(…) …))` |
//! | `x LIKE p ESCAPE '!'` | `x LIKE p'`, with the backslash as escape |
//! | `x = ANY ('{a,b}')`, `x = '{a,b}'` | `x IN ('a', 'b')`, `array_out(x) = '{a,b}'` |
//! | `x < ALL (ARRAY[a, b])` | `x < a AND x < b` |
//! | `FROM pg_catalog.unnest(x) y`, `FROM version() v` | `FROM UNNEST(x) AS y(y)`, `FROM (SELECT version() AS v) v` |
//! | `(a, b) < (c, d)` | `a < c OR a = c AND b < d` |
//! | `WHERE (a, b) IN (SELECT x, y …)` | `WHERE EXISTS (SELECT 1 FROM (SELECT x, y …) r(x, y) WHERE x = a AND y = b)` |
//! | `SELECT 1, 1` | every column has a name of its own, see [`names`] |
//! | `c.tableoid`, `mod(a, b)` | `regclassin('pg_catalog.pg_class')::oid`, `a % b` |
//! | `SELECT k FROM a FULL JOIN b USING (k)` | `SELECT coalesce(a.k, b.k) AS k FROM a FULL JOIN b ON a.k = b.k` |
//! | `to_timestamp(x, 'YYYY-MM-DD')`, `to_date(…)` | with the planner's templates, see [`templates`] |
//! | `t AT TIME ZONE z`, `localtimestamp` | `timezone(z, t)`, `now()::timestamp` |
//! | `substring(s FROM 'a(b)')` | `(regexp_match(s, 'a(b)'))[1]` |
//! | `make_interval(days => 1)` | `make_interval(0, 0, 0, 1, 0, 0, 0)` |
//! | `OVER w`, `OVER (w ORDER BY b)` with `WINDOW w AS (PARTITION BY a)` | `OVER (PARTITION BY a)`, `OVER (PARTITION BY a ORDER BY b)` |
//! | `generate_subscripts(a, 1)` | `unnest(generate_series(1, array_upper(a, 1)))` |
//! | `json_agg(x)`, `jsonb_array_elements(j)`, `to_json(t)` | see [`sets`] |
//! | `JSON_OBJECT(k VALUE v)`, `JSON_ARRAYAGG(x)` | see [`json`] |
//! | `LIKE ANY`, `SIMILAR TO`, `FETCH FIRST` | see [`forms`] |
//! | `percentile_disc(…)`, `mode()`, `rank(5) WITHIN GROUP (ORDER BY x)` | see [`ordered`] |
//! | `GROUP BY b::int, b`, `CUBE (a, a)` | see [`groups`] |
//! | `a[2:3]` | `array_part(a, 2, 3)` |
//! | `MAP('a' := 1)`, `STRUCT(x := 1)`, `FILTER(a, x => x > 1)` | see [`collections`] |
//! | `LEN(x)`, `COLLECT_LIST(x)`, `DATE_FORMAT(t, 'yyyy')` and others of ksqlDB and Flink | see [`borrowed`] |
//!
//! Nothing else is touched, and nothing is known of who asks.

mod arrays;
mod borrowed;
mod casts;
mod collections;
mod forms;
mod from;
mod groups;
mod json;
mod names;
mod ordered;
mod rows;
mod sets;
mod templates;
mod using;
mod windows;

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use crate::error::{Error, Result};

pub(super) use arrays::array_items;
pub use arrays::lists_of_parameters;
pub use borrowed::is_borrowed;
pub use collections::takes_lambdas;
pub use from::select_from;
pub use json::constructs_json;
pub use names::visible_name;
pub use sets::{gives_records, gives_rows};

/// Rewrites a query in place. Its output columns' names may carry a mark afterwards: [`visible_name`] takes it off.
pub fn rewrite(query: &mut sp::Query) -> Result<()> {
    // Names first: they come from what was written.
    names::name_columns(query);
    if let ControlFlow::Break(error) = query.visit(&mut Forms) {
        return Err(error);
    }
    casts::show_outermost(query);
    Ok(())
}

/// The same for an expression that stands alone: a default, a computed column.
pub fn rewrite_expression(expr: &mut sp::Expr) -> Result<()> {
    match expr.visit(&mut Forms) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Rewrites from the leaves up, so that what a form contains is done before the form.
struct Forms;

impl VisitorMut for Forms {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<Error> {
        forms::fetch(query);
        forms::values(query);
        match query.body.as_mut() {
            sp::SetExpr::Select(select) => go_on(clauses(select, query.order_by.as_mut())),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<Error> {
        if let (sp::SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &mut query.order_by) {
            sets::name_rows(&select.from, order_by);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<Error> {
        for condition in [&mut select.selection, &mut select.having].into_iter().flatten() {
            go_on(rows::in_condition(condition))?;
        }
        go_on(clauses(select, None))
    }

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<Error> {
        go_on(expression(expr))
    }

    fn post_visit_table_factor(&mut self, factor: &mut sp::TableFactor) -> ControlFlow<Error> {
        from::table_factor(factor);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<Error> {
        from::table_oids(select);
        let from = select.from.clone();
        sets::name_rows(&from, select);
        [&mut select.selection, &mut select.having].into_iter().flatten().for_each(casts::read_condition);
        go_on(refused(select))
    }
}

/// What sqlparser takes, and PostgreSQL does not: a join without a condition, a string as the name of a column.
fn refused(select: &sp::Select) -> Result<()> {
    use sp::JoinOperator as J;
    for join in select.from.iter().flat_map(|from| &from.joins) {
        if let J::Join(on) | J::Inner(on) | J::Left(on) | J::LeftOuter(on) | J::Right(on) | J::RightOuter(on) | J::FullOuter(on) =
            &join.join_operator
            && *on == sp::JoinConstraint::None
        {
            let error = Error::syntax(format!("the join with {} has no condition", join.relation));
            return Err(error.with_hint("write ON or USING (…) after it, or CROSS JOIN"));
        }
    }
    for item in &select.projection {
        if let sp::SelectItem::ExprWithAlias { alias, .. } = item
            && alias.quote_style == Some('\'')
        {
            let error = Error::syntax(format!("syntax error at or near \"'{}'\"", alias.value));
            return Err(error.with_hint("names of columns stand in double quotes"));
        }
    }
    Ok(())
}

/// What a select's clauses say of its expressions, and of those of its ORDER BY, put into these.
fn clauses(select: &mut sp::Select, mut order: Option<&mut sp::OrderBy>) -> Result<()> {
    windows::resolve(select, order.as_deref_mut())?;
    groups::tell_apart(select, order.as_deref_mut());
    using::merge_columns(select, order)
}

fn go_on(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn expression(expr: &mut sp::Expr) -> Result<()> {
    if let Some(form) = forms::unary(expr).or_else(|| forms::like_several(expr)) {
        *expr = form;
        return Ok(());
    }
    rows::compare(expr)?;
    match expr {
        sp::Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default") => {
            let error = Error::syntax("DEFAULT is not allowed in this context");
            return Err(error.with_hint("it stands alone, in VALUES of an INSERT or behind SET"));
        }
        sp::Expr::Function(function) => {
            unqualify(&mut function.name);
            forms::null_treatment(function);
            casts::show_arguments(function);
            if let sp::FunctionArguments::List(list) = &function.args
                && list.args.is_empty()
                && simple_name(&function.name).is_some_and(|name| name == "count")
            {
                let message = "count(*) must be used to call a parameterless aggregate function";
                return Err(Error::wrong_object_type(message));
            }
            let name = simple_name(&function.name);
            let form = match &name {
                Some(name) => match collections::function(name, function)? {
                    None => match json::constructor(name, function)? {
                        None => forms::function(name, function)?,
                        form => form,
                    },
                    form => form,
                },
                None => None,
            };
            let form = match (form.or_else(|| function_form(function)), name) {
                (None, Some(name)) => borrowed::function(&name, function)?,
                (form, _) => form,
            };
            if let Some(new) = form {
                *expr = new;
            }
        }
        sp::Expr::BinaryOp { left, op: sp::BinaryOperator::Overlaps, right } => {
            let error = || Error::syntax("wrong number of parameters on a side of OVERLAPS expression");
            *expr = forms::overlap(left, right).ok_or_else(|| error().with_hint("write (start, end) OVERLAPS (start, end)"))?;
        }
        sp::Expr::BinaryOp { left, op, right } => {
            if let Some(plain) = plain_operator(op) {
                *op = plain;
            }
            match op {
                sp::BinaryOperator::StringConcat => [left, right].into_iter().for_each(|side| casts::show(side)),
                sp::BinaryOperator::Eq | sp::BinaryOperator::NotEq => arrays::compare(left, right),
                _ => {}
            }
        }
        sp::Expr::Substring { expr: text, substring_from: Some(pattern), substring_for: None, .. }
            if string(pattern).is_some() =>
        {
            *expr = first_match(take(text), take(pattern));
        }
        sp::Expr::Collate { expr: inner, collation } if is_default_collation(collation) => {
            *expr = take(inner);
        }
        sp::Expr::AnyOp { compare_op, right, .. } | sp::Expr::AllOp { compare_op, right, .. } => {
            if let Some(plain) = plain_operator(compare_op) {
                *compare_op = plain;
            }
            arrays::read_literal(right)?;
            arrays::by_element(expr);
        }
        sp::Expr::Like { pattern, escape_char, .. } | sp::Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                like(pattern, escape)?;
            }
        }
        sp::Expr::AtTimeZone { timestamp, time_zone } => {
            *expr = call("timezone", vec![take(time_zone), take(timestamp)]);
        }
        sp::Expr::Cast { .. } => casts::cast(expr)?,
        sp::Expr::TypedString(typed) => {
            let string = sp::Expr::Value(typed.value.clone());
            *expr = forms::cast(string, typed.data_type.clone());
            casts::cast(expr)?;
        }
        // Flink's and MySQL's word for it.
        sp::Expr::RLike { negated, expr: text, pattern, .. } => {
            let op = if *negated { sp::BinaryOperator::PGRegexNotMatch } else { sp::BinaryOperator::PGRegexMatch };
            *expr = nested(binary(take(text), op, take(pattern)));
        }
        sp::Expr::SimilarTo { .. } => *expr = forms::similar(expr),
        sp::Expr::Map(map) => *expr = collections::map_literal(map),
        sp::Expr::Lambda(lambda) => collections::body(lambda),
        sp::Expr::Struct { values, .. } => {
            if let Some(form) = collections::structure(values)? {
                *expr = form;
            }
        }
        sp::Expr::Floor { .. } | sp::Expr::Ceil { .. } => {
            if let Some(form) = borrowed::rounded(expr)? {
                *expr = form;
            }
        }
        sp::Expr::CompoundFieldAccess { root, access_chain } => {
            if let Some(slice) = arrays::slice(root, access_chain)? {
                *expr = slice;
            } else if matches!(root.as_ref(), sp::Expr::Nested(_))
                && let Some(fields) = access_chain.iter().map(field_name).collect::<Option<Vec<_>>>()
            {
                *expr = fields.into_iter().fold(take(root), |value, field| call("get_field", vec![value, field]));
            }
        }
        sp::Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("current_schema") => {
            *expr = call("current_schema", Vec::new());
        }
        _ => {}
    }
    Ok(())
}

fn field_name(access: &sp::AccessExpr) -> Option<sp::Expr> {
    match access {
        sp::AccessExpr::Dot(sp::Expr::Identifier(field)) => Some(literal(&normal(field))),
        _ => None,
    }
}

/// `pg_catalog.f` and `information_schema.f` are `f`.
fn unqualify(name: &mut sp::ObjectName) {
    let is_system = |part: &sp::ObjectNamePart| {
        part.as_ident().is_some_and(|i| ["pg_catalog", "information_schema"].iter().any(|s| i.value.eq_ignore_ascii_case(s)))
    };
    if let [schema, _] = &name.0[..]
        && is_system(schema)
    {
        name.0.remove(0);
    }
}

fn function_form(function: &mut sp::Function) -> Option<sp::Expr> {
    let name = simple_name(&function.name)?;
    if name == "array" {
        return match &mut function.args {
            sp::FunctionArguments::Subquery(query) => Some(arrays::of_rows(query)),
            _ => None,
        };
    }
    if let Some(form) = sets::expression(&name, function) {
        return Some(form);
    }
    let sp::FunctionArguments::List(list) = &mut function.args else { return None };
    match (name.as_str(), &mut list.args[..]) {
        (
            "mod",
            [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(a)), sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(b))],
        ) => {
            let (left, right) = (nested(take(a)), nested(take(b)));
            Some(nested(sp::Expr::BinaryOp { left: Box::new(left), op: sp::BinaryOperator::Modulo, right: Box::new(right) }))
        }
        (
            "generate_subscripts",
            [
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(array)),
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(dimension)),
            ],
        ) => Some(call("unnest", vec![from::subscripts(take(array), take(dimension))])),
        // A record for each element: the element and its number.
        ("_pg_expandarray", [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(array))]) => {
            Some(call("unnest", vec![call("numbered", vec![take(array)])]))
        }
        (
            "to_timestamp" | "to_date",
            [
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(text)),
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(template)),
            ],
        ) if !borrowed::is_java(template) => templates::parse_call(&name, text, template),
        ("make_interval", arguments) => make_interval(arguments),
        ("gen_random_uuid", []) => Some(call("uuid", Vec::new())),
        _ => None,
    }
}

/// What a pattern finds first: its first group, if it has groups.
fn first_match(text: sp::Expr, pattern: sp::Expr) -> sp::Expr {
    let one = sp::Expr::Value(sp::Value::Number("1".to_string(), false).with_empty_span());
    call("array_element", vec![call("regexp_match", vec![text, pattern]), one])
}

/// Arguments by name, with 0 for those that are not given; others stay as they are.
fn make_interval(arguments: &mut [sp::FunctionArg]) -> Option<sp::Expr> {
    const PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let zero = || sp::Expr::Value(sp::Value::Number("0".to_string(), false).with_empty_span());
    if arguments.len() == PARTS.len() || arguments.len() > PARTS.len() {
        return None;
    }
    let mut values: Vec<sp::Expr> = PARTS.iter().map(|_| zero()).collect();
    for (at, argument) in arguments.iter_mut().enumerate() {
        let (at, value) = match argument {
            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)) => (at, value),
            sp::FunctionArg::Named { name, arg: sp::FunctionArgExpr::Expr(value), .. } => {
                (PARTS.iter().position(|part| *part == normal(name))?, value)
            }
            _ => return None,
        };
        values[at] = take(value);
    }
    Some(call("make_interval", values))
}

/// The name in lower case unless quoted, if it has one part.
fn simple_name(name: &sp::ObjectName) -> Option<String> {
    match &name.0[..] {
        [sp::ObjectNamePart::Identifier(ident)] => Some(normal(ident)),
        _ => None,
    }
}

fn normal(ident: &sp::Ident) -> String {
    if ident.quote_style.is_none() { ident.value.to_lowercase() } else { ident.value.clone() }
}

/// The operator that `OPERATOR(pg_catalog.x)` names.
fn plain_operator(op: &sp::BinaryOperator) -> Option<sp::BinaryOperator> {
    use sp::BinaryOperator as B;
    let B::PGCustomBinaryOperator(parts) = op else { return None };
    Some(match parts.last()?.as_str() {
        "~" => B::PGRegexMatch,
        "~*" => B::PGRegexIMatch,
        "!~" => B::PGRegexNotMatch,
        "!~*" => B::PGRegexNotIMatch,
        "~~" => B::PGLikeMatch,
        "~~*" => B::PGILikeMatch,
        "!~~" => B::PGNotLikeMatch,
        "!~~*" => B::PGNotILikeMatch,
        "=" => B::Eq,
        "<>" | "!=" => B::NotEq,
        "<" => B::Lt,
        "<=" => B::LtEq,
        ">" => B::Gt,
        ">=" => B::GtEq,
        "+" => B::Plus,
        "-" => B::Minus,
        "*" => B::Multiply,
        "/" => B::Divide,
        "%" => B::Modulo,
        "||" => B::StringConcat,
        "@>" => B::AtArrow,
        "<@" => B::ArrowAt,
        _ => return None,
    })
}

/// All text is compared byte by byte here, which is what these collations are taken to mean.
fn is_default_collation(name: &sp::ObjectName) -> bool {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|i| ["default", "c", "posix"].iter().any(|known| i.value.eq_ignore_ascii_case(known)))
}

/// Brings a pattern to the backslash as escape character.
fn like(pattern: &mut sp::Expr, escape: sp::ValueWithSpan) -> Result<()> {
    if let (Some(text), Some(escape)) = (string(pattern), text_of(&escape.value)) {
        let escaped = super::functions::escape_pattern(text, escape)?;
        *pattern = literal(&escaped);
        return Ok(());
    }
    let inner = take(pattern);
    *pattern = call("like_escape", vec![inner, sp::Expr::Value(escape)]);
    Ok(())
}

// Small parts of trees.

fn take(expr: &mut sp::Expr) -> sp::Expr {
    std::mem::replace(expr, sp::Expr::Value(sp::Value::Null.with_empty_span()))
}

fn nested(expr: sp::Expr) -> sp::Expr {
    sp::Expr::Nested(Box::new(expr))
}

fn literal(text: &str) -> sp::Expr {
    sp::Expr::Value(sp::Value::SingleQuotedString(text.to_string()).with_empty_span())
}

fn text_of(value: &sp::Value) -> Option<&str> {
    match value {
        sp::Value::SingleQuotedString(text) | sp::Value::EscapedStringLiteral(text) => Some(text),
        _ => None,
    }
}

/// The text of a string literal.
fn string(expr: &sp::Expr) -> Option<&str> {
    match expr {
        sp::Expr::Value(value) => text_of(&value.value),
        sp::Expr::Nested(inner) => string(inner),
        _ => None,
    }
}

fn binary(left: sp::Expr, op: sp::BinaryOperator, right: sp::Expr) -> sp::Expr {
    sp::Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn call(name: &str, arguments: Vec<sp::Expr>) -> sp::Expr {
    sp::Expr::Function(function(name, arguments))
}

fn function(name: &str, arguments: Vec<sp::Expr>) -> sp::Function {
    crate::sql::ast::function_call(sp::Ident::new(name), arguments)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    fn rewritten(sql: &str) -> String {
        let mut query = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap().parse_query().unwrap();
        super::rewrite(&mut query).unwrap();
        query.to_string()
    }

    #[rstest]
    #[case("SELECT a FROM t WHERE b > 1", "SELECT a FROM t WHERE b > 1")]
    #[case(
        "SELECT a FROM t WHERE a OPERATOR(pg_catalog.~) '^(x)$' COLLATE pg_catalog.default",
        "SELECT a FROM t WHERE a ~ '^(x)$'"
    )]
    #[case("SELECT a FROM t WHERE pg_catalog.f(a) = 1", "SELECT a FROM t WHERE f(a) = 1")]
    #[case("SELECT a FROM t WHERE o = 'x'::regclass", "SELECT a FROM t WHERE o = regclassin('x')")]
    #[case("SELECT o::regclass FROM t", "SELECT regclassout(regclassin(o)) AS \"o\" FROM t")]
    #[case("SELECT 'x'::pg_catalog.regclass::pg_catalog.oid", "SELECT regclassin('x')::INTEGER UNSIGNED AS \"oid\"")]
    #[case("SELECT a FROM t ORDER BY o::regclass::text", "SELECT a FROM t ORDER BY regclassout(regclassin(o))")]
    #[case("SELECT a FROM t WHERE b::\"char\" = 'c'", "SELECT a FROM t WHERE left(b::TEXT, 1) = 'c'")]
    #[case("SELECT a FROM t WHERE a LIKE 'x!_%' ESCAPE '!'", "SELECT a FROM t WHERE a LIKE 'x\\_%'")]
    #[case("SELECT a FROM t WHERE a = ANY ('{r,\"v w\"}')", "SELECT a FROM t WHERE (a) IN ('r', 'v w')")]
    #[case("SELECT a FROM t WHERE r <> '{0}'", "SELECT a FROM t WHERE array_out(r) <> '{0}'")]
    #[case("SELECT a FROM t WHERE mod(a, 2 + 1) = 0", "SELECT a FROM t WHERE ((a) % (2 + 1)) = 0")]
    #[case("SELECT x FROM pg_catalog.unnest(a) x", "SELECT x FROM UNNEST(a) x (x)")]
    #[case("SELECT * FROM a JOIN b USING (k)", "SELECT * FROM a JOIN b USING(k)")]
    #[case(
        "SELECT k, a.n FROM a FULL JOIN b USING (k) WHERE k > 1 ORDER BY k",
        "SELECT coalesce(a.k, b.k) AS k, a.n FROM a FULL JOIN b ON a.k = b.k WHERE coalesce(a.k, b.k) > 1 ORDER BY k"
    )]
    #[case(
        "SELECT count(*) FROM a RIGHT JOIN b AS c USING (k, l) GROUP BY k HAVING l > 0",
        "SELECT count(*) AS \"count\" FROM a RIGHT JOIN b AS c ON a.k = c.k AND a.l = c.l GROUP BY c.k HAVING c.l > 0"
    )]
    #[case(
        "SELECT k FROM a JOIN b USING (k, l) LEFT JOIN c USING (k) WHERE l > 0",
        "SELECT a.k AS k FROM a JOIN b ON a.k = b.k AND a.l = b.l LEFT JOIN c ON a.k = c.k WHERE a.l > 0"
    )]
    #[case("SELECT k FROM a JOIN b USING (k) JOIN c USING (m)", "SELECT k FROM a JOIN b USING(k) JOIN c USING(m)")]
    #[case(
        "SELECT * FROM a FULL JOIN b USING (k) FULL JOIN c USING (k)",
        "SELECT coalesce(a.k, b.k, c.k) AS k, a.* EXCLUDE (k), b.* EXCLUDE (k), c.* EXCLUDE (k) \
         FROM a FULL JOIN b ON a.k = b.k FULL JOIN c ON coalesce(a.k, b.k) = c.k"
    )]
    #[case(
        "SELECT a, sum(b) OVER w AS c, count(*) OVER (v ROWS 1 PRECEDING) AS d FROM t WINDOW w AS (PARTITION BY k), v AS (w ORDER BY b) ORDER BY rank() OVER v",
        "SELECT a, sum(b) OVER (PARTITION BY k) AS c, count(*) OVER (PARTITION BY k ORDER BY b ROWS 1 PRECEDING) AS d FROM t \
         ORDER BY rank() OVER (PARTITION BY k ORDER BY b)"
    )]
    #[case(
        "SELECT (SELECT max(x) FROM (SELECT sum(b) OVER w AS x FROM u WINDOW w AS (ORDER BY u.b))) AS y, sum(b) OVER w AS z FROM t WINDOW W AS (ORDER BY t.b)",
        "SELECT (SELECT max(x) AS \"max\" FROM (SELECT sum(b) OVER (ORDER BY u.b) AS x FROM u)) AS y, sum(b) OVER (ORDER BY t.b) AS z FROM t"
    )]
    fn forms_of_postgres_become_forms_of_the_planner(#[case] sql: &str, #[case] expected: &str) {
        assert_eq!(rewritten(sql), expected);
    }

    #[rstest]
    #[case("SELECT 1, 1", &["?column?", "?column?"])]
    #[case("SELECT count(*), now()::date, a.b, CASE WHEN true THEN 1 END", &["count", "now", "b", "case"])]
    #[case("SELECT 'x'::regclass, ARRAY(SELECT 1), 1::int4", &["regclass", "array", "int4"])]
    fn columns_have_the_names_that_postgres_gives(#[case] sql: &str, #[case] expected: &[&str]) {
        let mut query = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap().parse_query().unwrap();
        super::rewrite(&mut query).unwrap();
        let sqlparser::ast::SetExpr::Select(select) = *query.body else { panic!("a select") };
        let names: Vec<String> = select
            .projection
            .iter()
            .map(|item| match item {
                sqlparser::ast::SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
                sqlparser::ast::SelectItem::UnnamedExpr(sqlparser::ast::Expr::CompoundIdentifier(parts)) => {
                    parts[1].value.clone()
                }
                other => other.to_string(),
            })
            .collect();
        assert_eq!(names.iter().map(|n| super::visible_name(n)).collect::<Vec<_>>(), expected);
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }
}
