//! Values on their way to columns: what the column's type says of parameters and literals that stand for them.
//!
//! PostgreSQL gives an unknown literal or parameter the type of the column that it is assigned to. DataFusion asks the other
//! rows of VALUES instead, and has nothing to say of a parameter that stands alone. Nor does it know DEFAULT.

use std::borrow::Cow;

use arrow::datatypes::FieldRef;
use sqlparser::ast as sp;

use super::define::no_column;
use crate::catalog::{Column, Relation};
use crate::error::{Error, Result};
use crate::sql::parse::parse_type;
use crate::sql::plan::names::{fold, fold_object};

/// Parameters, by index, that an INSERT's query gives to a column as they are.
pub(super) fn inserted<'a>(source: &sp::Query, relation: &'a Relation, targets: &[usize]) -> Vec<(usize, &'a Column)> {
    let rows: Vec<Vec<&sp::Expr>> = match source.body.as_ref() {
        sp::SetExpr::Values(values) => values.rows.iter().map(|row| row.iter().collect()).collect(),
        sp::SetExpr::Select(select) => vec![
            select
                .projection
                .iter()
                .map_while(|item| match item {
                    sp::SelectItem::UnnamedExpr(expr) | sp::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                    _ => None,
                })
                .collect(),
        ],
        _ => Vec::new(),
    };
    let cells = rows.into_iter().flat_map(|row| row.into_iter().zip(targets));
    cells.filter_map(|(cell, target)| Some((parameter(cell)?, &relation.columns[*target]))).collect()
}

/// The same for what SET gives.
pub(super) fn parameters_of<'a>(set: &[Assigned], relation: &'a Relation) -> Vec<(usize, &'a Column)> {
    let found = |assigned: &Assigned| Some((parameter(assigned.value.as_ref()?)?, &relation.columns[assigned.column]));
    set.iter().filter_map(found).collect()
}

/// A column that SET gives a value.
pub(super) struct Assigned {
    pub column: usize,
    /// `None`: its default.
    pub value: Option<sp::Expr>,
}

/// The columns that SET names, and their values: `a = 1`, `(a, b) = (1, DEFAULT)`, `(a, b) = (SELECT x, y FROM …)`.
pub(super) fn set(assignments: &[sp::Assignment], relation: &Relation) -> Result<Vec<Assigned>> {
    let mut set: Vec<Assigned> = Vec::new();
    for assignment in assignments {
        let given = match &assignment.target {
            sp::AssignmentTarget::ColumnName(name) => vec![(name, assignment.value.clone())],
            sp::AssignmentTarget::Tuple(names) => names.iter().zip(values_of(&assignment.value, names.len())?).collect(),
        };
        for (name, value) in given {
            let name = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
            let column = relation.column(&name).ok_or_else(|| no_column(&name, &relation.name))?;
            if set.iter().any(|other| other.column == column) {
                return Err(Error::syntax(format!("multiple assignments to same column \"{name}\"")));
            }
            let value = Some(value).filter(|value| !is_default(value));
            let definition = &relation.columns[column];
            if value.is_some() && definition.identity.is_some_and(|identity| identity.always) {
                let message = format!("column \"{name}\" can only be updated to DEFAULT: it is an identity column");
                return Err(Error::generated_always(message));
            }
            match definition.generated {
                None => set.push(Assigned { column, value }),
                // Its value is computed, whatever it was.
                Some(_) if value.is_none() => {}
                Some(_) => {
                    let message = format!("column \"{name}\" can only be updated to DEFAULT: it is a generated column");
                    return Err(Error::generated_always(message));
                }
            }
        }
    }
    Ok(set)
}

/// The values of a row for so many columns.
fn values_of(row: &sp::Expr, columns: usize) -> Result<Vec<sp::Expr>> {
    let unequal = || Error::syntax("number of columns does not match number of values");
    let values = match row {
        sp::Expr::Tuple(values) => values.clone(),
        sp::Expr::Function(call) if fold_object(&call.name).is_some_and(|(_, name)| name == "row") => match &call.args {
            sp::FunctionArguments::List(list) => list
                .args
                .iter()
                .map(|arg| match arg {
                    sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)) => Ok(value.clone()),
                    _ => Err(unequal()),
                })
                .collect::<Result<_>>()?,
            _ => Vec::new(),
        },
        sp::Expr::Subquery(query) => {
            if let sp::SetExpr::Select(select) = query.body.as_ref()
                && !select.projection.iter().any(is_wildcard)
                && select.projection.len() != columns
            {
                return Err(unequal());
            }
            return Ok((0..columns).map(|at| sp::Expr::Subquery(Box::new(column_of(query, at, columns)))).collect());
        }
        _ => {
            let error = Error::unsupported("the values of several columns must be a row or a subquery");
            return Err(error.with_hint("write SET (a, b) = (1, 2), or SET (a, b) = (SELECT x, y FROM …)"));
        }
    };
    if values.len() == columns { Ok(values) } else { Err(unequal()) }
}

/// One of the columns of a query, where only a query with one may stand.
fn column_of(query: &sp::Query, at: usize, columns: usize) -> sp::Query {
    let mut query = query.clone();
    if let sp::SetExpr::Select(select) = query.body.as_mut()
        && select.distinct.is_none()
        && query.order_by.is_none()
        && !select.projection.iter().any(is_wildcard)
    {
        select.projection = vec![select.projection.swap_remove(at)];
        return query;
    }
    let ident = |name: String| sp::Ident::with_quote('"', name);
    let column = |at| sp::TableAliasColumnDef { name: ident(format!("${at}")), data_type: None };
    let alias =
        sp::TableAlias { explicit: true, name: ident("$set".into()), columns: (0..columns).map(column).collect(), at: None };
    let from = sp::TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None };
    crate::sql::system::select_from(
        sp::Expr::Identifier(ident(format!("${at}"))),
        vec![sp::TableWithJoins { relation: from, joins: Vec::new() }],
    )
}

fn is_wildcard(item: &sp::SelectItem) -> bool {
    matches!(item, sp::SelectItem::Wildcard(_) | sp::SelectItem::QualifiedWildcard(..))
}

/// DEFAULT in the place of a value: the parser takes it for a name.
fn is_default(value: &sp::Expr) -> bool {
    matches!(value, sp::Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

/// The columns of an INSERT of which some VALUES say DEFAULT. NULL stands in the place of each, and at the end of the rows come
/// columns of booleans that say where.
pub(super) fn mark_defaults(source: &mut Cow<'_, sp::Query>, targets: &[usize]) -> Vec<usize> {
    let sp::SetExpr::Values(values) = source.body.as_ref() else { return Vec::new() };
    let says_default = |at: &usize| values.rows.iter().any(|row| row.get(*at).is_some_and(is_default));
    let marked: Vec<usize> = (0..targets.len()).filter(says_default).collect();
    if marked.is_empty() {
        return marked;
    }
    let value = |value: sp::Value| sp::Expr::Value(value.with_empty_span());
    if let sp::SetExpr::Values(values) = source.to_mut().body.as_mut() {
        for row in &mut values.rows {
            for at in &marked {
                let Some(cell) = row.get_mut(*at) else { continue };
                let is_default = is_default(cell);
                if is_default {
                    *cell = value(sp::Value::Null);
                }
                row.push(value(sp::Value::Boolean(is_default)));
            }
        }
    }
    marked
}

/// What the client declared, and where it did not, the columns' types.
pub(super) fn types(assigned: &[(usize, &Column)], declared: &[Option<FieldRef>]) -> Vec<Option<FieldRef>> {
    let mut types = declared.to_vec();
    for (index, column) in assigned {
        if types.len() <= *index {
            types.resize(index + 1, None);
        }
        types[*index].get_or_insert_with(|| crate::sql::types::field(&column.data_type, &column.sql_type));
    }
    types
}

fn parameter(expr: &sp::Expr) -> Option<usize> {
    let sp::Expr::Value(value) = expr else { return None };
    let sp::Value::Placeholder(name) = &value.value else { return None };
    let number = name.strip_prefix('$')?.parse::<usize>().ok()?;
    number.checked_sub(1).filter(|index| *index < usize::from(u16::MAX))
}

/// VALUES whose rows differ in kind: literals beside other expressions are read as the column's type.
pub(super) fn with_types<'a>(source: &'a sp::Query, relation: &Relation, targets: &[usize]) -> Result<Cow<'a, sp::Query>> {
    let sp::SetExpr::Values(values) = source.body.as_ref() else { return Ok(Cow::Borrowed(source)) };
    let is_mixed = |at: &usize| {
        let mut cells = values.rows.iter().filter_map(|row| row.get(*at)).filter(|cell| !is_null(cell)).map(is_literal);
        cells.next().is_some_and(|first| cells.any(|other| other != first))
    };
    let mixed: Vec<usize> = (0..targets.len()).filter(is_mixed).collect();
    if mixed.is_empty() {
        return Ok(Cow::Borrowed(source));
    }
    let mut source = source.clone();
    let sp::SetExpr::Values(values) = source.body.as_mut() else { return Ok(Cow::Owned(source)) };
    for at in mixed {
        let column = &relation.columns[targets[at]];
        let data_type = parse_type(&column.sql_type)?;
        // A number beside a float is one, and no decimal that could not be NaN.
        let is_cast =
            |cell: &sp::Expr| is_literal(cell) || (column.data_type.is_floating() && !is_null(cell) && parameter(cell).is_none());
        for cell in values.rows.iter_mut().filter_map(|row| row.get_mut(at)).filter(|cell| is_cast(cell)) {
            let literal = std::mem::replace(cell, sp::Expr::Value(sp::Value::Null.with_empty_span()));
            *cell = sp::Expr::Cast {
                kind: sp::CastKind::DoubleColon,
                array: false,
                expr: Box::new(literal),
                data_type: data_type.clone(),
                format: None,
            };
        }
    }
    Ok(Cow::Owned(source))
}

fn is_literal(expr: &sp::Expr) -> bool {
    matches!(expr, sp::Expr::Value(value) if matches!(value.value, sp::Value::SingleQuotedString(_) | sp::Value::EscapedStringLiteral(_)))
}

fn is_null(expr: &sp::Expr) -> bool {
    matches!(expr, sp::Expr::Value(value) if value.value == sp::Value::Null)
}
