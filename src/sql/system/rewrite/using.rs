//! `FULL JOIN … USING` and `RIGHT JOIN … USING`: the column that both sides share is neither side's own; and joins of several relations
//! by one column.
//!
//! The planner takes the left side's, which is NULL where that side has no row, and does not know that all of `a JOIN b USING (k) JOIN
//! c USING (k)` share one `k`. Here the join gets a condition, and the shared column's name stands for `COALESCE(a.k, b.k)` (FULL), `b.k`
//! (RIGHT) or `a.k` wherever the query says it without a relation. A name within a subquery is left to the planner, which refuses it
//! as ambiguous if it means this one.

use std::collections::BTreeSet;

use sqlparser::ast as sp;
use sqlparser::ast::VisitMut;

use super::from::select_item;
use super::{binary, call, normal};
use crate::error::{Error, Result};
use crate::sql::ast::change_outside_subqueries;

/// Rewrites the joins of a select, and its expressions; `order` are those of its ORDER BY.
pub(super) fn merge_columns(select: &mut sp::Select, order: Option<&mut sp::OrderBy>) -> Result<()> {
    let mut shared = Vec::new();
    let mut sides = Vec::new();
    for from in &mut select.from {
        without_parentheses(from)?;
    }
    if !select.from.iter().any(needs_merging) {
        return Ok(());
    }
    for from in &mut select.from {
        merge(from, &mut shared, &mut sides)?;
    }
    let shown = project(select, &shared, &sides);
    let visit = |expr: &mut sp::Expr| replace(expr, &shared);
    if let Some(sp::Distinct::On(keys)) = &mut select.distinct {
        keys.iter_mut().for_each(visit);
    }
    if let sp::GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.iter_mut().for_each(visit);
    }
    [&mut select.selection, &mut select.having, &mut select.qualify].into_iter().flatten().for_each(visit);
    if let Some(sp::OrderBy { kind: sp::OrderByKind::Expressions(keys), .. }) = order {
        // A name of the output comes before one of the input.
        let of_output = |expr: &sp::Expr| matches!(expr, sp::Expr::Identifier(name) if shown.contains(&normal(name)));
        keys.iter_mut().filter(|key| !of_output(&key.expr)).for_each(|key| visit(&mut key.expr));
    }
    Ok(())
}

/// A column that joins share: its name as written, and what it means.
type Shared = (sp::Ident, sp::Expr);

/// A relation of FROM by the name that it has there, and its columns that are shared.
struct Side {
    name: sp::Ident,
    shared: Vec<sp::Ident>,
}

/// Joins in parentheses: `(a JOIN b) JOIN c` is the same without them, and those with a name are a query.
fn without_parentheses(from: &mut sp::TableWithJoins) -> Result<()> {
    while let sp::TableFactor::NestedJoin { table_with_joins, alias: None } = &from.relation {
        let sp::TableWithJoins { relation, joins } = table_with_joins.as_ref().clone();
        from.relation = relation;
        from.joins.splice(0..0, joins);
    }
    for factor in std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)) {
        let sp::TableFactor::NestedJoin { table_with_joins, alias } = factor else { continue };
        without_parentheses(table_with_joins)?;
        match alias {
            Some(alias) if needs_merging(table_with_joins) => {
                let all = sp::SelectItem::Wildcard(sp::WildcardAdditionalOptions::default());
                let subquery = Box::new(select_item(all, vec![table_with_joins.as_ref().clone()]));
                *factor = sp::TableFactor::Derived { lateral: false, subquery, alias: Some(alias.clone()), sample: None };
            }
            None if has_one_sided(table_with_joins) => {
                let error = Error::unsupported(
                    "a FULL or RIGHT JOIN with USING in parentheses at the right of another join needs a name",
                );
                return Err(error.with_hint("write (a FULL JOIN b USING (k)) AS ab"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn needs_merging(from: &sp::TableWithJoins) -> bool {
    has_one_sided(from) || shares_one(from)
}

fn has_one_sided(from: &sp::TableWithJoins) -> bool {
    let one_sided = |join: &sp::Join| {
        use sp::JoinOperator as J;
        let (J::FullOuter(constraint) | J::Right(constraint) | J::RightOuter(constraint)) = &join.join_operator else {
            return false;
        };
        matches!(constraint, sp::JoinConstraint::Using(_) | sp::JoinConstraint::Natural)
    };
    from.joins.iter().any(one_sided)
}

/// Inner and left joins of three relations or more that all share the same columns.
fn shares_one(from: &sp::TableWithJoins) -> bool {
    let columns = |join: &sp::Join| {
        use sp::JoinOperator as J;
        let (J::Join(constraint) | J::Inner(constraint) | J::Left(constraint) | J::LeftOuter(constraint)) = &join.join_operator
        else {
            return None;
        };
        let sp::JoinConstraint::Using(columns) = constraint else { return None };
        Some(columns.iter().filter_map(|name| column(name).ok().map(|name| normal(&name))).collect::<BTreeSet<_>>())
    };
    let mut all = from.joins.iter().map(columns);
    let first = all.next().flatten();
    let named = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)).all(|of| side(of).is_ok());
    from.joins.len() > 1
        && named
        && first.is_some_and(|first| all.all(|others| others.is_some_and(|others| others.is_subset(&first))))
}

fn merge(from: &mut sp::TableWithJoins, shared: &mut Vec<Shared>, sides: &mut Vec<Side>) -> Result<()> {
    let (first_side, first_shared) = (sides.len(), shared.len());
    sides.push(side(&from.relation)?);
    for join in &mut from.joins {
        let mut right = side(&join.relation)?;
        let (constraint, takes_right, coalesces) = match &mut join.join_operator {
            sp::JoinOperator::FullOuter(constraint) => (constraint, true, true),
            sp::JoinOperator::Right(constraint) | sp::JoinOperator::RightOuter(constraint) => (constraint, true, false),
            sp::JoinOperator::Join(constraint)
            | sp::JoinOperator::Inner(constraint)
            | sp::JoinOperator::Left(constraint)
            | sp::JoinOperator::LeftOuter(constraint) => (constraint, false, false),
            _ => {
                sides.push(right);
                continue;
            }
        };
        match constraint {
            sp::JoinConstraint::Natural => {
                return Err(Error::unsupported("NATURAL beside a FULL or RIGHT JOIN of shared columns is not supported")
                    .with_hint("write USING ( … ) with the columns that both sides have"));
            }
            sp::JoinConstraint::Using(columns) => {
                let columns = columns.iter().map(column).collect::<Result<Vec<_>>>()?;
                let mut conditions = Vec::new();
                for name in columns {
                    let known = (first_shared..shared.len()).find(|at| normal(&shared[*at].0) == normal(&name));
                    let left = match (known, &mut sides[first_side..]) {
                        (Some(at), _) => shared[at].1.clone(),
                        (None, [only]) => {
                            only.shared.push(name.clone());
                            of(&only.name, &name)
                        }
                        _ => return Err(unclear(&name)),
                    };
                    let own = of(&right.name, &name);
                    right.shared.push(name.clone());
                    conditions.push(binary(left.clone(), sp::BinaryOperator::Eq, own.clone()));
                    let means = match (takes_right, coalesces) {
                        (_, true) => coalesced(left, own),
                        (true, _) => own,
                        _ => left,
                    };
                    match known {
                        Some(at) => shared[at].1 = means,
                        None => shared.push((name, means)),
                    }
                }
                let all = conditions.into_iter().reduce(|a, b| binary(a, sp::BinaryOperator::And, b));
                *constraint = all.map_or(sp::JoinConstraint::None, sp::JoinConstraint::On);
            }
            _ => {}
        }
        sides.push(right);
    }
    Ok(())
}

/// The first that is not NULL. One call of all: a nest of them would be planned in a time that doubles with each.
fn coalesced(mut left: sp::Expr, own: sp::Expr) -> sp::Expr {
    if let sp::Expr::Function(sp::Function { args: sp::FunctionArguments::List(list), .. }) = &mut left {
        list.args.push(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(own)));
        return left;
    }
    call("coalesce", vec![left, own])
}

fn side(factor: &sp::TableFactor) -> Result<Side> {
    use sp::TableFactor as F;
    let alias = match factor {
        F::Table { alias, .. } | F::Derived { alias, .. } | F::TableFunction { alias, .. } | F::Function { alias, .. } => alias,
        F::UNNEST { alias, .. } | F::NestedJoin { alias, .. } => alias,
        _ => &None,
    };
    let name = match (alias, factor) {
        (Some(alias), _) => Some(alias.name.clone()),
        (None, F::Table { name, args: None, .. }) => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    };
    let name = name.ok_or_else(|| {
        Error::unsupported("a relation beside a FULL or RIGHT JOIN with USING needs a name").with_hint("give it one with AS")
    })?;
    Ok(Side { name, shared: Vec::new() })
}

fn column(name: &sp::ObjectName) -> Result<sp::Ident> {
    match &name.0[..] {
        [sp::ObjectNamePart::Identifier(name)] => Ok(name.clone()),
        _ => Err(Error::syntax(format!("USING takes names of columns, not {name}"))),
    }
}

fn unclear(name: &sp::Ident) -> Error {
    Error::unsupported(format!("USING ({name}) after a join of several relations, beside a FULL or RIGHT JOIN, is not supported"))
        .with_hint(format!("write ON a.{name} = b.{name}, with the relation that is meant"))
}

fn of(relation: &sp::Ident, column: &sp::Ident) -> sp::Expr {
    sp::Expr::CompoundIdentifier(vec![relation.clone(), column.clone()])
}

/// Rewrites the select list; the names of its columns.
fn project(select: &mut sp::Select, shared: &[Shared], sides: &[Side]) -> Vec<String> {
    let mut items = Vec::with_capacity(select.projection.len());
    for mut item in std::mem::take(&mut select.projection) {
        match &mut item {
            // As in PostgreSQL, the shared columns come first.
            sp::SelectItem::Wildcard(_) => {
                items.extend(shared.iter().map(|(name, means)| named(means.clone(), name)));
                items.extend(sides.iter().map(rest));
                continue;
            }
            sp::SelectItem::UnnamedExpr(sp::Expr::Identifier(name)) => {
                if let Some((_, means)) = shared.iter().find(|(shared, _)| normal(shared) == normal(name)) {
                    item = named(means.clone(), &name.clone());
                }
            }
            sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } => {
                replace(expr, shared);
            }
            _ => {}
        }
        items.push(item);
    }
    let wildcard = items.iter().any(|item| matches!(item, sp::SelectItem::QualifiedWildcard(..)));
    let names = items.iter().filter_map(|item| match item {
        sp::SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        _ => None,
    });
    let names = names.chain(shared.iter().filter(|_| wildcard).map(|(name, _)| normal(name))).collect();
    select.projection = items;
    names
}

fn named(expr: sp::Expr, name: &sp::Ident) -> sp::SelectItem {
    sp::SelectItem::ExprWithAlias { expr, alias: name.clone() }
}

/// The columns of a relation that are not shared.
fn rest(side: &Side) -> sp::SelectItem {
    let kind = sp::SelectItemQualifiedWildcardKind::ObjectName(sp::ObjectName::from(vec![side.name.clone()]));
    let names: Vec<_> = side.shared.iter().map(|name| sp::ObjectName::from(vec![name.clone()])).collect();
    let opt_exclude = (!names.is_empty()).then_some(sp::ExcludeSelectItem::Multiple(names));
    sp::SelectItem::QualifiedWildcard(kind, sp::WildcardAdditionalOptions { opt_exclude, ..Default::default() })
}

/// Puts what shared columns mean in place of their names, outside of subqueries.
fn replace(part: &mut impl VisitMut, shared: &[Shared]) {
    change_outside_subqueries(part, |expr| {
        if let sp::Expr::Identifier(name) = expr
            && let Some((_, means)) = shared.iter().find(|(shared, _)| normal(shared) == normal(name))
        {
            *expr = means.clone();
        }
    });
}
