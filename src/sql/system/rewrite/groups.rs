//! Groups that DataFusion takes for one another.
//!
//! | written | planned |
//! | --- | --- |
//! | `GROUP BY b::int, b`, `ROLLUP (b::int)` | `GROUP BY coalesce(b::int), b`: a cast has the name of what is cast |
//! | `CUBE (a, a)`, `ROLLUP (a, a)` | `GROUPING SETS ((a), (a), (a), ())`, `GROUPING SETS ((a), (a), ())` |

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::VisitMut;

use super::{call, take};

/// As many columns as PostgreSQL takes in a CUBE.
const MOST_OF_CUBE: usize = 12;

pub(super) fn tell_apart(select: &mut sp::Select, order: Option<&mut sp::OrderBy>) {
    let sp::GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    groups.iter_mut().for_each(sets_of_repeated);
    let single: Vec<&sp::Expr> = groups.iter().filter(|group| !is_sets(group)).collect();
    let is_shadow = |cast: &&&sp::Expr| {
        matches!(cast, sp::Expr::Cast { .. }) && single.iter().any(|other| *other != **cast && bare(other) == bare(cast))
    };
    let in_sets = groups.iter().filter(|group| is_sets(group)).flat_map(in_sets).filter(|group| is_cast_column(group));
    let casts: Vec<sp::Expr> = single.iter().filter(is_shadow).copied().chain(in_sets).cloned().collect();
    if casts.is_empty() {
        return;
    }
    let mut named = Named(&casts);
    let _ = select.visit(&mut named);
    if let Some(order) = order {
        let _ = order.visit(&mut named);
    }
}

struct Named<'a>(&'a [sp::Expr]);

impl sp::VisitorMut for Named<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        if self.0.contains(expr) {
            *expr = call("coalesce", vec![take(expr)]);
        }
        ControlFlow::Continue(())
    }
}

/// What is cast.
fn bare(expr: &sp::Expr) -> &sp::Expr {
    match expr {
        sp::Expr::Cast { expr, .. } | sp::Expr::Nested(expr) => bare(expr),
        other => other,
    }
}

fn in_sets(group: &sp::Expr) -> impl Iterator<Item = &sp::Expr> {
    match group {
        sp::Expr::Cube(sets) | sp::Expr::Rollup(sets) | sp::Expr::GroupingSets(sets) => sets.iter().flatten(),
        _ => [].iter().flatten(),
    }
}

fn is_cast_column(group: &sp::Expr) -> bool {
    let column = matches!(bare(group), sp::Expr::Identifier(_) | sp::Expr::CompoundIdentifier(_));
    column && matches!(group, sp::Expr::Cast { .. })
}

fn is_sets(group: &sp::Expr) -> bool {
    matches!(group, sp::Expr::Cube(_) | sp::Expr::Rollup(_) | sp::Expr::GroupingSets(_))
}

/// A CUBE or ROLLUP that names a column twice, as all of its sets.
fn sets_of_repeated(group: &mut sp::Expr) {
    let (parts, is_cube) = match group {
        sp::Expr::Cube(parts) => (parts, true),
        sp::Expr::Rollup(parts) => (parts, false),
        _ => return,
    };
    let columns: Vec<&sp::Expr> = parts.iter().flatten().collect();
    let repeats = columns.iter().enumerate().any(|(at, column)| columns[..at].contains(column));
    if !repeats || parts.len() > MOST_OF_CUBE {
        return;
    }
    let chosen: Vec<usize> = match is_cube {
        true => (0..1 << parts.len()).rev().collect(),
        false => (0..=parts.len()).rev().map(|length| (1 << length) - 1).collect(),
    };
    let set = |chosen: usize| {
        let mut set: Vec<sp::Expr> = Vec::new();
        for column in parts.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1).flat_map(|(_, part)| part) {
            if !set.contains(column) {
                set.push(column.clone());
            }
        }
        set
    };
    *group = sp::Expr::GroupingSets(chosen.into_iter().map(set).collect());
}
