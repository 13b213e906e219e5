//! Names of output columns: PostgreSQL's, and each once.
//!
//! A column without an alias is called by its expression as PostgreSQL does it: a function by its name, a cast by its type,
//! anything else `?column?`. DataFusion refuses two columns of one name, so further ones of the same name get a mark and a
//! number, which [`visible_name`] takes off again where names are shown.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::{casts, normal};

/// Stands between a name and the number that makes it unique: a control character that no one types.
const MARK: char = '\u{1f}';

/// The name that users see.
pub fn visible_name(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(visible, _)| visible)
}

pub(super) fn name_columns(query: &mut sp::Query) {
    struct Selects;
    impl VisitorMut for Selects {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
            order_by_name(query);
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
            name_select(select, false);
            ControlFlow::Continue(())
        }
    }
    outermost(&mut query.body, &mut |select| name_select(select, true));
    let _ = query.visit(&mut Selects);
}

/// With DISTINCT the planner wants to see in ORDER BY what it sees in the select list: the name that a column was given.
fn order_by_name(query: &mut sp::Query) {
    let sp::SetExpr::Select(select) = query.body.as_mut() else { return };
    if select.distinct.is_none() {
        return;
    }
    name_select(select, false);
    let Some(sp::OrderBy { kind: sp::OrderByKind::Expressions(order), .. }) = &mut query.order_by else { return };
    for by in order {
        let named = select.projection.iter().find_map(|item| match item {
            sp::SelectItem::ExprWithAlias { expr, alias } if *expr == by.expr => Some(alias),
            _ => None,
        });
        if let Some(alias) = named {
            by.expr = sp::Expr::Identifier(alias.clone());
        }
    }
}

/// The selects whose columns are the query's.
pub(super) fn outermost(body: &mut sp::SetExpr, each: &mut dyn FnMut(&mut sp::Select)) {
    match body {
        sp::SetExpr::Select(select) => each(select),
        sp::SetExpr::Query(query) => outermost(&mut query.body, each),
        sp::SetExpr::SetOperation { left, right, .. } => {
            outermost(left, each);
            outermost(right, each);
        }
        _ => {}
    }
}

/// Beside a wildcard, plain columns may repeat one of its: they are marked too, but only where no outer query names them.
fn name_select(select: &mut sp::Select, is_outermost: bool) {
    let relations = relations(&select.from);
    let is_column = |expr: &sp::Expr| is_column(expr) && !is_field(expr, relations.as_deref());
    let is_wildcard = |item: &sp::SelectItem| matches!(item, sp::SelectItem::Wildcard(_) | sp::SelectItem::QualifiedWildcard(..));
    let repeats = is_outermost && select.projection.iter().any(is_wildcard);
    let has_having = select.having.is_some();
    let mut seen = HashSet::new();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let (name, is_column, hides) = match item {
            // In HAVING the planner would take a name for this column where PostgreSQL takes it for the one beneath.
            sp::SelectItem::UnnamedExpr(expr) => {
                (name_of(expr), is_column(expr), has_having && !is_column(expr) && is_cast(expr))
            }
            sp::SelectItem::ExprWithAlias { alias, .. } => (normal(alias), false, false),
            _ => continue,
        };
        let is_first = seen.insert(name.clone()) && !(is_column && repeats) && !hides;
        if is_first && is_column {
            continue;
        }
        let unique = if is_first { name } else { format!("{name}{MARK}{at}") };
        set_alias(item, unique);
    }
}

fn is_column(expr: &sp::Expr) -> bool {
    matches!(expr, sp::Expr::Identifier(_) | sp::Expr::CompoundIdentifier(_))
}

/// What qualifies columns in a FROM: names of relations, also of those that functions read. `None`: it is not known.
fn relations(from: &[sp::TableWithJoins]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut add = |name: &sp::ObjectName| names.extend(name.0.last().and_then(|part| part.as_ident()).map(normal));
    for factor in from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation))) {
        match factor {
            sp::TableFactor::Table { name, alias: None, args, .. } => {
                add(name);
                let _ = sp::visit_expressions(args, |expr| {
                    match expr {
                        sp::Expr::Identifier(name) => add(&sp::ObjectName::from(vec![name.clone()])),
                        sp::Expr::CompoundIdentifier(names) => add(&sp::ObjectName::from(names.clone())),
                        _ => {}
                    }
                    ControlFlow::<()>::Continue(())
                });
            }
            sp::TableFactor::Table { alias: Some(alias), .. } | sp::TableFactor::Derived { alias: Some(alias), .. } => {
                add(&sp::ObjectName::from(vec![alias.name.clone()]));
            }
            sp::TableFactor::Derived { alias: None, .. } => {}
            _ => return None,
        }
    }
    Some(names)
}

/// A field of a column, `a.b`, where nothing in FROM is called so.
fn is_field(expr: &sp::Expr, relations: Option<&[String]>) -> bool {
    match expr {
        sp::Expr::CompoundIdentifier(parts) if parts.len() == 2 => {
            relations.is_some_and(|relations| !relations.contains(&normal(&parts[0])))
        }
        _ => false,
    }
}

/// It is called like the column that it is made of.
fn is_cast(expr: &sp::Expr) -> bool {
    match expr {
        sp::Expr::Nested(inner) | sp::Expr::Collate { expr: inner, .. } | sp::Expr::Cast { expr: inner, .. } => is_cast(inner),
        sp::Expr::Case { else_result: Some(inner), .. } | sp::Expr::CompoundFieldAccess { root: inner, .. } => is_cast(inner),
        expr => is_column(expr),
    }
}

fn set_alias(item: &mut sp::SelectItem, name: String) {
    match item {
        sp::SelectItem::UnnamedExpr(expr) => {
            let expr = super::take(expr);
            *item = sp::SelectItem::ExprWithAlias { expr, alias: sp::Ident::with_quote('"', name) };
        }
        sp::SelectItem::ExprWithAlias { alias, .. } if alias.value != name => *alias = sp::Ident::with_quote('"', name),
        _ => {}
    }
}

fn name_of(expr: &sp::Expr) -> String {
    strong_name(expr).or_else(|| weak_name(expr)).unwrap_or_else(|| "?column?".to_string())
}

/// A name that comes from a column or a function: it goes before the name of a cast around it.
fn strong_name(expr: &sp::Expr) -> Option<String> {
    let fixed = |name: &str| Some(name.to_string());
    match expr {
        sp::Expr::Identifier(ident) => Some(normal(ident)),
        sp::Expr::CompoundIdentifier(parts) => parts.last().map(normal),
        sp::Expr::CompoundFieldAccess { root, access_chain } => field(access_chain).or_else(|| strong_name(root)),
        // The field of a struct.
        sp::Expr::BinaryOp { op: sp::BinaryOperator::Arrow, right, .. } => match right.as_ref() {
            sp::Expr::Identifier(field) => Some(normal(field)),
            _ => None,
        },
        sp::Expr::Map(_) => fixed("map"),
        sp::Expr::Struct { .. } => fixed("row"),
        sp::Expr::Function(function) => function.name.0.last().and_then(|p| p.as_ident()).map(normal),
        sp::Expr::Nested(inner) | sp::Expr::Collate { expr: inner, .. } | sp::Expr::Cast { expr: inner, .. } => {
            strong_name(inner)
        }
        sp::Expr::Exists { .. } => fixed("exists"),
        sp::Expr::Array(_) => fixed("array"),
        sp::Expr::Tuple(_) => fixed("row"),
        sp::Expr::Extract { .. } => fixed("extract"),
        sp::Expr::Substring { .. } => fixed("substring"),
        sp::Expr::Position { .. } => fixed("position"),
        sp::Expr::Overlay { .. } => fixed("overlay"),
        sp::Expr::AtTimeZone { .. } => fixed("timezone"),
        sp::Expr::Ceil { .. } => fixed("ceil"),
        sp::Expr::Floor { .. } => fixed("floor"),
        sp::Expr::Trim { trim_where, .. } => fixed(match trim_where {
            Some(sp::TrimWhereField::Leading) => "ltrim",
            Some(sp::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        sp::Expr::Subquery(query) => first_column(&query.body),
        sp::Expr::Case { else_result: Some(other), .. } => strong_name(other),
        _ => None,
    }
}

/// The last name of `s.a[1]`: a subscript has none.
fn field(access: &[sp::AccessExpr]) -> Option<String> {
    access.iter().rev().find_map(|access| match access {
        sp::AccessExpr::Dot(sp::Expr::Identifier(field)) => Some(normal(field)),
        _ => None,
    })
}

fn weak_name(expr: &sp::Expr) -> Option<String> {
    match expr {
        sp::Expr::Cast { data_type, .. } => Some(casts::type_name(data_type)),
        sp::Expr::TypedString(typed) => Some(casts::type_name(&typed.data_type)),
        sp::Expr::Interval(_) => Some("interval".to_string()),
        sp::Expr::Case { .. } => Some("case".to_string()),
        sp::Expr::Value(value) if matches!(value.value, sp::Value::Boolean(_)) => Some("bool".to_string()),
        sp::Expr::Nested(inner) => weak_name(inner),
        _ => None,
    }
}

/// The name of the one column of a scalar subquery.
fn first_column(body: &sp::SetExpr) -> Option<String> {
    match body {
        sp::SetExpr::Select(select) => match select.projection.first()? {
            sp::SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
            sp::SelectItem::ExprWithAlias { alias, .. } => Some(visible_name(&normal(alias)).to_string()),
            _ => None,
        },
        sp::SetExpr::Query(query) => first_column(&query.body),
        sp::SetExpr::SetOperation { left, .. } => first_column(left),
        _ => None,
    }
}
