//! Values on their way to columns: what the column's type says of parameters and literals that stand for them.
//!
//! PostgreSQL gives an unknown literal or parameter the type of the column that it is assigned to. DataFusion asks the other
//! rows of VALUES instead, and has nothing to say of a parameter that stands alone.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use sqlparser::ast as sp;

use crate::catalog::{Column, Relation};
use crate::error::Result;
use crate::sql::parse::parse_type;
use crate::sql::plan::names::fold;

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

/// The same for the SET of an UPDATE.
pub(super) fn updated<'a>(update: &sp::Update, relation: &'a Relation) -> Vec<(usize, &'a Column)> {
    let set = |assignment: &sp::Assignment| {
        let sp::AssignmentTarget::ColumnName(name) = &assignment.target else { return None };
        let column = relation.column(&name.0.last().and_then(|part| part.as_ident()).map(fold)?)?;
        Some((parameter(&assignment.value)?, &relation.columns[column]))
    };
    update.assignments.iter().filter_map(set).collect()
}

/// What the client declared, and where it did not, the columns' types.
pub(super) fn types(assigned: &[(usize, &Column)], declared: &[Option<DataType>]) -> Vec<Option<DataType>> {
    let mut types = declared.to_vec();
    for (index, column) in assigned {
        if types.len() <= *index {
            types.resize(index + 1, None);
        }
        types[*index].get_or_insert_with(|| column.data_type.clone());
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
