//! Which type does a string literal have that stands beside other values? Theirs, as in PostgreSQL. So it is with a parameter whose
//! type is open.
//!
//! | written | read |
//! | --- | --- |
//! | `CASE WHEN x THEN d ELSE '2025-01-31' END`, `COALESCE(d, '2025-01-31')` | as the type of the others, once they have one |
//! | `SELECT d FROM t UNION SELECT '2025-01-31'` | as the type of the column that it is for |
//! | `VALUES (DATE '2025-01-01'), ('2025-01-31')` | as a cast, before the planner asks the rows what they have in common |
//!
//! Values that have no type in common are refused here: DataFusion would make text of them, or numbers of text.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::{Planner, columns};
use crate::error::{Error, Result};
use crate::sql::ast::function_call;
use crate::sql::functions::convert::{converted, is_open, tell};
use crate::sql::functions::declared::PLAIN;
use crate::sql::functions::operators::{kind, of_moments};
use crate::sql::parse::parse_type;
use crate::sql::types;

/// Make values one type of. `what` is the word of SQL that brings them together.
pub(super) fn of_one_type(what: &str, mut values: Vec<&mut Expr>, schema: &DFSchema) -> DfResult<()> {
    let typed = values.iter().filter(|value| !is_string(value)).map(|value| value.get_type(schema));
    let typed: Vec<DataType> = typed.collect::<DfResult<Vec<_>>>()?.into_iter().filter(|t| !t.is_null()).collect();
    match_kinds(what, &typed)?;
    let Some(common) = common(&typed) else {
        values.iter_mut().for_each(|value| tell(value, &DataType::Utf8));
        return Ok(());
    };
    for value in &mut values {
        tell(value, &common);
        let from = value.get_type(schema)?;
        if from == common {
            continue;
        }
        let old = std::mem::take(*value);
        **value = if is_string(&old) { converted(old, common.clone())? } else { cast(old, common.clone()) };
    }
    Ok(())
}

/// Parameters whose types are open are of the type of what they are compared with, or stand in a list with.
pub(super) fn compared(mut values: Vec<&mut Expr>, schema: &DFSchema) -> DfResult<()> {
    if !values.iter().any(|value| is_open(value)) {
        return Ok(());
    }
    let mut typed = Vec::new();
    for value in values.iter().filter(|value| !is_string(value) && !is_open(value)) {
        typed.push(value.get_type(schema)?);
    }
    typed.retain(|t| !t.is_null());
    let common = common(&typed).unwrap_or(DataType::Utf8);
    // Which of the types that are text it is, is known later.
    if !types::is_text(&common) || typed.is_empty() {
        values.iter_mut().for_each(|value| tell(value, &common));
    }
    Ok(())
}

/// The type that values of these types have in common.
fn common(types: &[DataType]) -> Option<DataType> {
    of_moments(&types.iter().collect::<Vec<_>>()).or_else(|| type_union_resolution(types))
}

/// 42804 for types that have none in common.
fn match_kinds(what: &str, typed: &[DataType]) -> Result<()> {
    let known = || typed.iter().filter_map(|t| Some((kind(t)?, t)));
    let Some((first, one)) = known().next() else { return Ok(()) };
    let Some((_, other)) = known().find(|(kind, _)| *kind != first) else { return Ok(()) };
    let (one, other) = (types::plain_name(one), types::plain_name(other));
    let error = Error::datatype_mismatch(format!("{what} types {one} and {other} cannot be matched"));
    Err(error.with_hint("cast one of them to the other's type"))
}

/// The type of a column that several queries give, of which some give no more than a string.
pub(super) fn of_branches(branches: &[&LogicalPlan], column: usize) -> DfResult<DataType> {
    let all = || branches.iter().map(|branch| branch.schema().field(column).data_type().clone());
    let typed = branches.iter().filter(|branch| string_column(branch, column).is_none());
    let typed: Vec<DataType> =
        typed.map(|branch| branch.schema().field(column).data_type().clone()).filter(|t| !t.is_null()).collect();
    match_kinds("UNION", &typed)?;
    let found = if typed.is_empty() { None } else { common(&typed) };
    Ok(found.or_else(|| common(&all().collect::<Vec<_>>())).unwrap_or_else(|| all().next().unwrap_or(DataType::Null)))
}

/// The string, or the open parameter, that a query's column is in each of its rows.
pub(super) fn string_column(query: &LogicalPlan, column: usize) -> Option<&Expr> {
    let LogicalPlan::Projection(projection) = query else { return None };
    let mut expr = projection.expr.get(column)?;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    Some(expr).filter(|expr| is_string(expr) || is_open(expr))
}

pub(super) fn is_string(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// Cast the strings and the open parameters in VALUES to the type of the rest of their column.
pub(super) fn in_values(query: &mut sp::Query, planner: &Planner, declared: &[Option<FieldRef>]) -> Result<()> {
    match query.visit(&mut Values { planner, declared }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Values<'a> {
    planner: &'a Planner,
    /// Types of parameters.
    declared: &'a [Option<FieldRef>],
}

impl VisitorMut for Values<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<Error> {
        match self.set(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Values<'_> {
    fn set(&self, set: &mut sp::SetExpr) -> Result<()> {
        match set {
            sp::SetExpr::Values(values) => {
                let width = values.rows.iter().map(|row| row.len()).max().unwrap_or(0);
                (0..width).try_for_each(|column| self.column(values, column))?;
                if values.rows.len() > 1 {
                    let cells = values.rows.iter_mut().flat_map(|row| row.iter_mut());
                    cells.filter(|cell| is_declared(cell)).for_each(as_plain);
                }
                Ok(())
            }
            sp::SetExpr::SetOperation { left, right, .. } => {
                self.set(left)?;
                self.set(right)
            }
            _ => Ok(()),
        }
    }

    fn column(&self, values: &mut sp::Values, column: usize) -> Result<()> {
        let cells = || values.rows.iter().filter_map(|row| row.get(column));
        let is_unknown = |cell: &sp::Expr| is_text(cell) || self.is_open(cell);
        let has_type = |cell: &sp::Expr| has_type(cell) && !self.is_open(cell);
        if !cells().any(is_unknown) || !cells().any(has_type) {
            return Ok(());
        }
        let Some(data_type) = self.common(cells().filter(|cell| has_type(cell)))? else { return Ok(()) };
        for cell in values.rows.iter_mut().filter_map(|row| row.get_mut(column)).filter(|cell| is_unknown(cell)) {
            let expr = Box::new(std::mem::replace(cell, sp::Expr::Value(sp::Value::Null.with_empty_span())));
            let data_type = data_type.clone();
            *cell = sp::Expr::Cast { kind: sp::CastKind::DoubleColon, array: false, expr, data_type, format: None };
            crate::sql::system::rewrite_expression(cell)?;
        }
        Ok(())
    }

    /// Is it a parameter whose type nothing has said yet?
    fn is_open(&self, cell: &sp::Expr) -> bool {
        parameter_number(cell).is_some_and(|number| self.declared.get(number - 1).is_none_or(Option::is_none))
    }

    /// The type of expressions without columns; `None` where the planner is to say what is wrong with them.
    fn common<'e>(&self, cells: impl Iterator<Item = &'e sp::Expr>) -> Result<Option<sp::DataType>> {
        let mut found = Vec::new();
        for cell in cells {
            let nothing = DFSchema::empty();
            let Ok(expr) = self.planner.expression(cell, &nothing) else { return Ok(None) };
            if let Some(name) = columns::type_of(&expr, self.planner.catalog()) {
                return parse_type(&name).map(Some);
            }
            match expr.get_type(&nothing) {
                Ok(data_type) if is_plain(&data_type) => found.push(data_type),
                _ => return Ok(None),
            }
        }
        match common(&found) {
            // A number has the decimals that it is written with.
            Some(DataType::Decimal128(..)) => parse_type("numeric").map(Some),
            Some(common) => parse_type(&types::sql_type(&common)).map(Some),
            None => Ok(None),
        }
    }
}

/// Has it a name that SQL reads as it? Records and maps have not.
fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => is_plain(item.data_type()),
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => false,
        _ => true,
    }
}

/// May it say more of its type than Arrow does?
fn is_declared(cell: &sp::Expr) -> bool {
    match cell {
        sp::Expr::Nested(inner) => is_declared(inner),
        sp::Expr::Cast { .. } => true,
        cell => parameter_number(cell).is_some(),
    }
}

fn as_plain(cell: &mut sp::Expr) {
    let value = std::mem::replace(cell, sp::Expr::Value(sp::Value::Null.with_empty_span()));
    *cell = sp::Expr::Function(function_call(sp::Ident::new(PLAIN), vec![value]));
}

fn parameter_number(cell: &sp::Expr) -> Option<usize> {
    let sp::Expr::Value(value) = cell else { return None };
    let sp::Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse().ok().filter(|number| *number > 0)
}

fn is_text(cell: &sp::Expr) -> bool {
    let is_string = |value: &sp::Value| matches!(value, sp::Value::SingleQuotedString(_) | sp::Value::EscapedStringLiteral(_));
    matches!(cell, sp::Expr::Value(value) if is_string(&value.value))
}

fn has_type(cell: &sp::Expr) -> bool {
    let is_open = |value: &sp::Value| matches!(value, sp::Value::Null | sp::Value::Placeholder(_));
    !is_text(cell) && !matches!(cell, sp::Expr::Value(value) if is_open(&value.value)) && !is_default(cell)
}

/// The word of INSERT, which the planner takes for a column.
fn is_default(cell: &sp::Expr) -> bool {
    matches!(cell, sp::Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"))
}
