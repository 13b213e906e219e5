//! What DEFINE and MEASURES read of a match.
//!
//! An expression there is an ordinary one over *values of a match*: `a.price` (of the last row that is an a), `PREV(price, 2)`,
//! `FIRST(a.price)`, `SUM(b.amount)`, `CLASSIFIER()`. Each such part is taken out of the expression, where a name is left in its
//! place, so that DataFusion plans and evaluates the rest.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use sqlparser::ast::{self as sp, Spanned, VisitMut, VisitorMut};
use sqlparser::tokenizer::Span;

use super::{column_name, slot_name};
use crate::error::Error;
use crate::flow::pattern::program::{ANY, Variables, bit};
use crate::flow::pattern::{Anchor, Measure, Slot};
use crate::limits;
use crate::sql::plan::errors::at;
use crate::sql::plan::inline::inline_calls;
use crate::sql::plan::names::{fold, fold_object};

/// Functions that navigate a match.
const NAVIGATIONS: [&str; 4] = ["first", "last", "prev", "next"];

/// What expressions of one clause may name, and what they were found to read.
pub struct Values<'a> {
    pub context: &'a mut dyn RelationPlannerContext,
    pub input: &'a DFSchema,
    /// Variables and subsets.
    pub variables: &'a [(String, Variables)],
    /// The first column of the order.
    pub rowtime: Option<usize>,
    /// The matcher's columns, which grow.
    pub columns: &'a mut Vec<Expr>,
    pub calls: &'a mut Vec<Expr>,
    /// What was read, with types.
    pub slots: Vec<(Measure, DataType)>,
    /// DEFINE of this variable; otherwise MEASURES.
    pub defining: Option<u8>,
}

impl Values<'_> {
    /// The expression over [`slot_name`]s.
    pub fn expression(&mut self, expr: &sp::Expr) -> DfResult<Expr> {
        let mut expr = expr.clone();
        if let ControlFlow::Break(error) = expr.visit(&mut TakeOut { values: self, whole: false }) {
            return Err(error);
        }
        let schema = self.schema()?;
        let planned = self.context.sql_to_expr(expr, &schema)?;
        self.coerced(planned, &schema)
    }

    /// The values as columns.
    pub fn schema(&self) -> DfResult<DFSchema> {
        let field = |(slot, (_, data_type)): (usize, &(Measure, DataType))| {
            (None, Arc::new(Field::new(slot_name(slot), data_type.clone(), true)))
        };
        DFSchema::new_with_metadata(self.slots.iter().enumerate().map(field).collect(), Default::default())
    }

    fn coerced(&self, expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
        let expr = inline_calls(expr, schema)?;
        let options = Arc::new(self.context.context_provider().options().clone());
        ExprSimplifier::new(SimplifyContext::builder().with_config_options(options).build()).coerce(expr, schema)
    }

    fn add(&mut self, measure: Measure, data_type: DataType) -> sp::Expr {
        let known = self.slots.iter().position(|(other, _)| *other == measure);
        let slot = known.unwrap_or(self.slots.len());
        if known.is_none() {
            self.slots.push((measure, data_type));
        }
        sp::Expr::Identifier(sp::Ident::with_quote('"', slot_name(slot)))
    }

    /// The number of a matcher's column.
    pub fn column(&mut self, expr: Expr) -> usize {
        column(self.columns, expr)
    }

    fn variable(&self, ident: &sp::Ident) -> Option<Variables> {
        let name = fold(ident);
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, variables)| *variables)
    }

    /// An expression of one variable's rows: without the variable, and which it is.
    fn of_rows(&mut self, expr: &sp::Expr) -> DfResult<(sp::Expr, Variables)> {
        let mut expr = expr.clone();
        let mut strip = Strip { values: self, of: None };
        match expr.visit(&mut strip) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok((expr, strip.of.unwrap_or(ANY))),
        }
    }

    /// The last row of these variables; in DEFINE it may be the row itself.
    fn last(&self, of: Variables) -> Anchor {
        match self.defining {
            Some(variable) if of & bit(variable) != 0 => Anchor::Current,
            _ => Anchor::Last { of, but: 0 },
        }
    }

    /// What a part of an expression reads of a match, if it does.
    fn read(&mut self, expr: &sp::Expr, whole: bool) -> DfResult<Option<sp::Expr>> {
        match expr {
            sp::Expr::Identifier(_) => self.navigate(expr, None, 0, whole).map(Some),
            sp::Expr::CompoundIdentifier(parts) => {
                let known = parts.first().is_some_and(|first| self.variable(first).is_some());
                self.navigate(expr, None, 0, whole).map(Some).map_err(|error| match (known, parts.first()) {
                    (false, Some(first)) => self.undefined(first),
                    _ => error,
                })
            }
            sp::Expr::Function(function) => self.function(expr, function, whole),
            sp::Expr::Subquery(_) | sp::Expr::Exists { .. } | sp::Expr::InSubquery { .. } => {
                let error = Error::unsupported("subqueries are not supported in DEFINE and MEASURES");
                Err(at(error.with_hint("join before MATCH_RECOGNIZE, in a subquery that it reads"), expr.span()))
            }
            _ => Ok(None),
        }
    }

    fn undefined(&self, ident: &sp::Ident) -> DataFusionError {
        let known: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        let error = Error::undefined_object(format!("pattern variable \"{}\" does not exist", fold(ident)));
        at(error.with_hint(format!("the pattern has {}", known.join(", "))), ident.span)
    }

    fn function(&mut self, expr: &sp::Expr, function: &sp::Function, whole: bool) -> DfResult<Option<sp::Expr>> {
        let span = expr.span();
        let Some((None, name)) = fold_object(&function.name) else { return Ok(None) };
        let measure = |slot| Measure { slot, whole };
        match name.as_str() {
            "final" | "running" => {
                let [inner] = arguments(function)?[..] else { return Err(misused(&name, span)) };
                if self.defining.is_some() && name == "final" {
                    let error = Error::syntax("FINAL says nothing in DEFINE: the match is not complete there");
                    return Err(at(error, span));
                }
                match self.read(inner, name == "final")? {
                    Some(value) => Ok(Some(value)),
                    None => Err(misused(&name, span)),
                }
            }
            name if NAVIGATIONS.contains(&name) => self.navigation(name, function, span, whole).map(Some),
            "classifier" if arguments(function)?.is_empty() => Ok(Some(self.add(measure(Slot::Classifier), DataType::Utf8))),
            "match_number" if arguments(function)?.is_empty() => {
                if self.defining.is_some() {
                    let error = Error::unsupported("MATCH_NUMBER() is not supported in DEFINE");
                    return Err(at(error.with_hint("compare it in WHERE, as a measure"), span));
                }
                Ok(Some(self.add(measure(Slot::Number), DataType::Int64)))
            }
            "match_rowtime" if self.rowtime.is_some() => {
                let column = self.rowtime.unwrap_or_default();
                let data_type = self.columns[column].get_type(self.input)?;
                let slot = Slot::Column { column, anchor: Anchor::Last { of: ANY, but: 0 }, shift: 0 };
                Ok(Some(self.add(Measure { slot, whole: self.defining.is_none() }, data_type)))
            }
            name if self.context.context_provider().get_aggregate_meta(name).is_some() => {
                self.aggregate(function, span, whole).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `FIRST(x, n)`, `LAST(x, n)`, `PREV(x, n)`, `NEXT(FIRST(x), n)`.
    fn navigation(&mut self, name: &str, function: &sp::Function, span: Span, whole: bool) -> DfResult<sp::Expr> {
        let (value, offset) = match arguments(function)?[..] {
            [value] => (value, None),
            [value, offset] => (value, Some(constant(offset)?)),
            _ => return Err(misused(name, span)),
        };
        if matches!(name, "first" | "last") {
            return self.navigate(value, Some((name == "first", offset.unwrap_or(0))), 0, whole);
        }
        let by = i64::from(offset.unwrap_or(1));
        let by = if name == "prev" { -by } else { by };
        if let sp::Expr::Function(inner) = value
            && let Some((None, logical)) = fold_object(&inner.name)
            && matches!(logical.as_str(), "first" | "last")
        {
            let (value, offset) = match arguments(inner)?[..] {
                [value] => (value, 0),
                [value, offset] => (value, constant(offset)?),
                _ => return Err(misused(&logical, span)),
            };
            return self.navigate(value, Some((logical == "first", offset)), by, whole);
        }
        self.navigate(value, None, by, whole)
    }

    /// An expression of the row that a navigation comes to.
    fn navigate(&mut self, value: &sp::Expr, logical: Option<(bool, u32)>, shift: i64, whole: bool) -> DfResult<sp::Expr> {
        let (stripped, of) = self.of_rows(value)?;
        let anchor = match logical {
            None | Some((false, 0)) => self.last(of),
            Some((true, but)) => Anchor::First { of, but: but as usize },
            Some((false, but)) => Anchor::Last { of, but: but as usize },
        };
        let planned = self.context.sql_to_expr(stripped, self.input)?;
        let planned = self.coerced(planned, self.input)?;
        let data_type = planned.get_type(self.input)?;
        let column = self.column(planned);
        Ok(self.add(Measure { slot: Slot::Column { column, anchor, shift }, whole }, data_type))
    }

    fn aggregate(&mut self, function: &sp::Function, span: Span, whole: bool) -> DfResult<sp::Expr> {
        let clauses = match &function.args {
            sp::FunctionArguments::List(list) => !list.clauses.is_empty(),
            _ => false,
        };
        if function.over.is_some() || function.filter.is_some() || clauses || !function.within_group.is_empty() {
            let error = Error::unsupported("aggregates of a match take arguments and DISTINCT, no other clause");
            return Err(at(error.with_hint("aggregate a CASE expression: SUM(CASE WHEN condition THEN x END)"), span));
        }
        let mut call = function.clone();
        let mut counted = ANY;
        if let sp::FunctionArguments::List(list) = &mut call.args {
            for argument in &mut list.args {
                let sp::FunctionArg::Unnamed(argument) = argument else { continue };
                match argument {
                    sp::FunctionArgExpr::QualifiedWildcard(name) => {
                        let ident = name.0.last().and_then(|part| part.as_ident()).cloned();
                        let ident = ident.unwrap_or_else(|| sp::Ident::new(""));
                        counted = self.variable(&ident).ok_or_else(|| self.undefined(&ident))?;
                    }
                    sp::FunctionArgExpr::Wildcard => {}
                    _ => continue,
                }
                *argument = sp::FunctionArgExpr::Expr(sp::Expr::value(sp::Value::Number("1".into(), false)));
            }
        }
        let (stripped, of) = self.of_rows_of_call(call, counted)?;
        let planned = self.context.sql_to_expr(stripped, self.input)?;
        let planned = self.coerced(planned, self.input)?.unalias();
        let data_type = planned.get_type(self.input)?;
        let Expr::AggregateFunction(mut call) = planned else { return Err(misused("aggregate", span)) };
        for argument in &mut call.params.args {
            if !matches!(argument, Expr::Literal(..)) {
                let column = self.column(std::mem::replace(argument, Expr::Column(Column::new_unqualified(""))));
                *argument = Expr::Column(Column::new_unqualified(column_name(column)));
            }
        }
        let call = Expr::AggregateFunction(call);
        let number = self.calls.iter().position(|known| *known == call).unwrap_or(self.calls.len());
        if number == self.calls.len() {
            self.calls.push(call);
        }
        Ok(self.add(Measure { slot: Slot::Aggregate { call: number, of }, whole }, data_type))
    }

    /// The arguments of a call, without their variable.
    fn of_rows_of_call(&mut self, mut call: sp::Function, counted: Variables) -> DfResult<(sp::Expr, Variables)> {
        let mut strip = Strip { values: self, of: None };
        match call.args.visit(&mut strip) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => {
                let of = strip.of.unwrap_or(counted);
                Ok((sp::Expr::Function(call), of))
            }
        }
    }
}

/// The number of an expression among columns, to which it is added if need be.
pub fn column(columns: &mut Vec<Expr>, expr: Expr) -> usize {
    let number = columns.iter().position(|known| *known == expr).unwrap_or(columns.len());
    if number == columns.len() {
        columns.push(expr);
    }
    number
}

/// Takes what is read of a match out of an expression.
struct TakeOut<'v, 'a> {
    values: &'v mut Values<'a>,
    whole: bool,
}

impl VisitorMut for TakeOut<'_, '_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<DataFusionError> {
        match self.values.read(expr, self.whole) {
            Ok(Some(value)) => {
                *expr = value;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Takes the variable off the columns of an expression, which must all be of one.
struct Strip<'v, 'a> {
    values: &'v mut Values<'a>,
    of: Option<Variables>,
}

impl Strip<'_, '_> {
    fn of(&mut self, of: Variables, span: Span) -> DfResult<()> {
        if *self.of.get_or_insert(of) == of {
            return Ok(());
        }
        let error = Error::unsupported("an expression inside a navigation or an aggregate reads rows of one variable");
        Err(at(error.with_hint("navigate first and compute then: LAST(a.x) - LAST(b.x), not LAST(a.x - b.x)"), span))
    }

    fn strip(&mut self, expr: &mut sp::Expr) -> DfResult<()> {
        let span = expr.span();
        match expr {
            sp::Expr::Identifier(_) => self.of(ANY, span),
            sp::Expr::CompoundIdentifier(parts) => {
                let Some(of) = parts.first().and_then(|first| self.values.variable(first)) else { return self.of(ANY, span) };
                self.of(of, span)?;
                let rest = parts.split_off(1);
                *expr = match <[sp::Ident; 1]>::try_from(rest) {
                    Ok([column]) => sp::Expr::Identifier(column),
                    Err(rest) => sp::Expr::CompoundIdentifier(rest),
                };
                Ok(())
            }
            sp::Expr::Function(function) => {
                let Some((None, name)) = fold_object(&function.name) else { return Ok(()) };
                let of_match = NAVIGATIONS.contains(&name.as_str())
                    || ["classifier", "match_number", "final", "running"].contains(&name.as_str())
                    || self.values.context.context_provider().get_aggregate_meta(&name).is_some();
                if !of_match {
                    return Ok(());
                }
                let error = Error::unsupported(format!("{}() is not supported inside another function of the match", name));
                Err(at(error.with_hint("PREV and NEXT may hold FIRST and LAST, and nothing else goes into each other"), span))
            }
            _ => Ok(()),
        }
    }
}

impl VisitorMut for Strip<'_, '_> {
    type Break = DataFusionError;

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<DataFusionError> {
        match self.strip(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn arguments(function: &sp::Function) -> DfResult<Vec<&sp::Expr>> {
    let list = match &function.args {
        sp::FunctionArguments::None => return Ok(Vec::new()),
        sp::FunctionArguments::List(list) => list,
        sp::FunctionArguments::Subquery(_) => {
            return Err(at(Error::syntax("a function of the match takes no query"), function.span()));
        }
    };
    let argument = |argument: &'_ sp::FunctionArg| match argument {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(_)) => Ok(()),
        other => Err(at(Error::syntax("a function of the match takes plain expressions"), other.span())),
    };
    list.args.iter().try_for_each(argument)?;
    Ok(list
        .args
        .iter()
        .filter_map(|argument| match argument {
            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect())
}

/// The number of rows that a navigation is told.
fn constant(expr: &sp::Expr) -> DfResult<u32> {
    let number = match expr {
        sp::Expr::Value(sp::ValueWithSpan { value: sp::Value::Number(number, _), .. }) => number.parse().ok(),
        _ => None,
    };
    let small = number.filter(|number| *number <= limits::PATTERN_OFFSET);
    small.ok_or_else(|| {
        let error = Error::syntax(format!("the distance of a navigation is a constant from 0 to {}", limits::PATTERN_OFFSET));
        at(error, expr.span())
    })
}

fn misused(function: &str, span: Span) -> DataFusionError {
    let usage = match function {
        "first" | "last" => "write FIRST(x) or FIRST(x, n), with x an expression of rows: FIRST(a.price)",
        "prev" | "next" => "write PREV(x) or PREV(x, n), with x an expression of rows or FIRST(…) or LAST(…)",
        "final" | "running" => "FINAL and RUNNING stand before FIRST, LAST or an aggregate",
        _ => "write an aggregate of rows of the match: SUM(a.amount)",
    };
    at(Error::syntax(format!("{}() is not used like this", function.to_uppercase())).with_hint(usage), span)
}
