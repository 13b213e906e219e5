//! `GAP_FILL(t PARTITION BY (k), ts, INTERVAL '1 minute', LOCF(a), INTERPOLATE(b), KEEP(c))`, RisingWave's table function, also with `PARTITION_BY(k)` among
//! the fillings: rows for the times that are missing between each row and the next of its partition.
//!
//! It is made of what there is: `lead` tells the next row's time, a list of the times up to there is unnested, and the columns
//! of the rows that are new are computed from the two rows around them:
//!
//! ```text
//!   Projection: $at, k, a, CASE WHEN $at = ts THEN b ELSE b + ($next_b - b) * … END
//!     Unnest: $at                                            ts, ts + 1 minute, … before $next
//!       Projection: *, tidegate_steps(ts, $next) AS $at
//!         Window: lead(ts) OVER (PARTITION BY k ORDER BY ts) AS $next, lead(b) OVER (…) AS $next_b
//! ```
//!
//! LOCF repeats the value of the row before, INTERPOLATE goes in a straight line to that of the row after; KEEP, and columns that
//! are not named, are NULL. There is nothing before the first row and after the last.

use std::collections::HashMap;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::functions::math::expr_fn::round;
use datafusion::functions_window::lead_lag::lead_udwf;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, cast, lit, when};
use sqlparser::ast as sp;
use sqlparser::ast::Spanned;
use sqlparser::tokenizer::Span;

use super::dialect::plain_cast;
use super::errors::at;
use super::names::{fold, fold_object, input_name};
use crate::error::Error;
use crate::sql::ast::{PARTITION_MARK, TABLE_MARK};
use crate::sql::functions::steps::Steps;
use crate::sql::window::{column, constant_duration, input_factor};
use crate::time::Micros;

const USAGE: &str = "write GAP_FILL(relation PARTITION BY (columns), time column, interval, LOCF(a), INTERPOLATE(b), KEEP(c))";

/// The time of a row, one that was there or one that is new.
const AT: &str = "$at";
/// The next row's time; behind the name, the number of the column whose next value it is.
const NEXT: &str = "$next";

/// Plans GAP_FILL in FROM.
#[derive(Debug)]
pub struct GapFillPlanner;

impl RelationPlanner for GapFillPlanner {
    fn plan_relation(&self, relation: sp::TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        match relation {
            sp::TableFactor::Table { name, args: Some(args), alias, .. } if is_gap_fill(&name) => {
                let filled = GapFill::read(name.span(), args.args, context)?.plan()?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(filled, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// The relation that GAP_FILL reads, if it is that, and its input has a name.
pub(super) fn input(function: &sp::ObjectName, args: &sp::TableFunctionArgs) -> Option<sp::ObjectName> {
    match args.args.first()? {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(input)) if is_gap_fill(function) => {
            input_name(&partitioned(input.clone()).0)
        }
        _ => None,
    }
}

fn is_gap_fill(name: &sp::ObjectName) -> bool {
    fold_object(name).is_some_and(|(schema, name)| schema.is_none() && name == "gap_fill")
}

/// How a column of the rows that are new is filled.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Locf,
    Interpolate,
    Keep,
}

struct GapFill {
    input: LogicalPlan,
    time: Column,
    step: Micros,
    partition: Vec<Column>,
    fills: HashMap<Column, Fill>,
}

impl GapFill {
    fn read(span: Span, args: Vec<sp::FunctionArg>, context: &mut dyn RelationPlannerContext) -> DfResult<GapFill> {
        let usage = |what: &str, span| at(Error::syntax(what).with_hint(USAGE), span);
        let mut exprs = Vec::new();
        for arg in args {
            match arg {
                sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) => exprs.push(expr),
                other => return Err(usage("the arguments of GAP_FILL have no names", other.span())),
            }
        }
        let mut exprs = exprs.into_iter();
        let (Some(input), Some(time), Some(step)) = (exprs.next(), exprs.next(), exprs.next()) else {
            return Err(usage("GAP_FILL needs a relation, a time column and an interval", span));
        };
        let (input, partition) = partitioned(input);
        let input = context.plan(input_factor(input)?)?;
        let schema = input.schema().as_ref().clone();
        let partition = partition.into_iter().map(|expr| column(expr, &schema, context));
        let mut partition = partition.collect::<DfResult<Vec<_>>>()?;
        let (time_span, step_span) = (time.span(), step.span());
        let time = column(time, &schema, context)?;
        if !matches!(schema.qualified_field_from_column(&time)?.1.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            let error = Error::datatype_mismatch(format!("GAP_FILL needs a timestamp, and \"{}\" is none", time.name));
            return Err(at(error.with_hint(format!("read from a query that casts it: {}::timestamp", time.name)), time_span));
        }
        let step = constant_duration(step, "interval of GAP_FILL", context)?;
        if step <= 0 {
            return Err(at(Error::invalid_parameter("the interval of GAP_FILL must be greater than zero"), step_span));
        }
        let mut fills = HashMap::new();
        for expr in exprs {
            let span = expr.span();
            if let Some(columns) = partition_call(&expr) {
                let columns = columns.into_iter().map(|expr| column(expr, &schema, context));
                partition.extend(columns.collect::<DfResult<Vec<_>>>()?);
                continue;
            }
            let (column, fill) = fill(expr, &schema, context)?;
            if fills.insert(column.clone(), fill).is_some() || column == time {
                return Err(usage(&format!("GAP_FILL is told twice how to fill \"{}\"", column.name), span));
            }
        }
        Ok(GapFill { input, time, step, partition, fills })
    }

    fn plan(self) -> DfResult<LogicalPlan> {
        let columns = self.input.schema().columns();
        let is_line = |column: &Column| self.fills.get(column) == Some(&Fill::Interpolate);
        let mut next = vec![self.lead(&self.time).alias(NEXT)];
        let lines = columns.iter().enumerate().filter(|(_, column)| is_line(column));
        next.extend(lines.map(|(index, column)| self.lead(column).alias(next_of(index))));
        let exprs = columns.iter().enumerate().map(|(index, column)| self.filled(index, column));
        let exprs = exprs.collect::<DfResult<Vec<_>>>()?;
        let of = self.input.schema().qualified_field_from_column(&self.time)?.1.data_type().clone();
        let steps = Steps::call(self.step, &of, Expr::Column(self.time.clone()), unqualified(NEXT)).alias(AT);
        let with_next = LogicalPlanBuilder::from(self.input).window(next)?;
        let all: Vec<Expr> = with_next.schema().columns().into_iter().map(Expr::Column).chain([steps]).collect();
        with_next.project(all)?.unnest_column(Column::new_unqualified(AT))?.project(exprs)?.build()
    }

    fn lead(&self, column: &Column) -> Expr {
        let mut lead = WindowFunction::new(lead_udwf(), vec![Expr::Column(column.clone())]);
        lead.params.partition_by = self.partition.iter().cloned().map(Expr::Column).collect();
        lead.params.order_by = vec![Sort::new(Expr::Column(self.time.clone()), true, false)];
        Expr::WindowFunction(Box::new(lead))
    }

    /// A column of the answer, under its own name.
    fn filled(&self, index: usize, column: &Column) -> DfResult<Expr> {
        let value = Expr::Column(column.clone());
        if *column == self.time {
            return Ok(unqualified(AT).alias_qualified(column.relation.clone(), column.name.as_str()));
        }
        let fill = self.fills.get(column).copied().unwrap_or(Fill::Keep);
        if self.partition.contains(column) || fill == Fill::Locf {
            return Ok(value);
        }
        let time = Box::new(Expr::Column(self.time.clone()));
        let was_there = Expr::BinaryExpr(BinaryExpr::new(Box::new(unqualified(AT)), Operator::IsNotDistinctFrom, time));
        let case = when(was_there, value.clone());
        let filled = match fill {
            Fill::Interpolate => case.clone().otherwise(self.on_the_line(index, column)?)?,
            _ => case.clone().end()?,
        };
        Ok(filled.alias_qualified(column.relation.clone(), column.name.as_str()))
    }

    /// Between the value of the row before and that of the row after.
    fn on_the_line(&self, index: usize, column: &Column) -> DfResult<Expr> {
        let (_, field) = self.input.schema().qualified_field_from_column(column)?;
        let float = |expr: Expr| cast(expr, DataType::Float64);
        let instant = |expr: Expr| float(plain_cast(expr, DataType::Int64));
        let (before, after) = (float(Expr::Column(column.clone())), float(unqualified(next_of(index))));
        let start = instant(Expr::Column(self.time.clone()));
        let share = (instant(unqualified(AT)) - start.clone()) / (instant(unqualified(NEXT)) - start);
        let value = before.clone() + (after - before) * share;
        let value = if field.data_type().is_integer() { round(vec![value, lit(0)]) } else { value };
        Ok(cast(value, field.data_type().clone()))
    }
}

fn next_of(index: usize) -> String {
    format!("{NEXT}{index}")
}

fn unqualified(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The relation, and the columns of its PARTITION BY.
fn partitioned(input: sp::Expr) -> (sp::Expr, Vec<sp::Expr>) {
    match input {
        sp::Expr::Prefixed { prefix, value } if prefix.value == TABLE_MARK => partitioned(*value),
        sp::Expr::Prefixed { prefix, value } if prefix.value == PARTITION_MARK => match *value {
            sp::Expr::Tuple(mut parts) if !parts.is_empty() => {
                let columns = parts.split_off(1);
                let (input, _) = partitioned(parts.remove(0));
                (input, columns)
            }
            other => (other, Vec::new()),
        },
        other => (other, Vec::new()),
    }
}

/// `PARTITION_BY(a, b)`.
fn partition_call(expr: &sp::Expr) -> Option<Vec<sp::Expr>> {
    let sp::Expr::Function(function) = expr else { return None };
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    fold_object(&function.name).filter(|(schema, name)| schema.is_none() && name == "partition_by")?;
    let column = |arg: &sp::FunctionArg| match arg {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(column).collect()
}

/// `LOCF(column)` and its kin.
fn fill(expr: sp::Expr, input: &DFSchema, context: &mut dyn RelationPlannerContext) -> DfResult<(Column, Fill)> {
    let span = expr.span();
    let wrong = || {
        let error = Error::syntax("GAP_FILL fills columns by LOCF(column), INTERPOLATE(column) or KEEP(column)");
        at(error.with_hint(USAGE), span)
    };
    let sp::Expr::Function(function) = expr else { return Err(wrong()) };
    let name = function.name.0.last().and_then(|part| part.as_ident().map(fold)).unwrap_or_default();
    let sp::FunctionArguments::List(list) = function.args else { return Err(wrong()) };
    let mut args = list.args.into_iter();
    let (Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(arg))), None) = (args.next(), args.next()) else {
        return Err(wrong());
    };
    let column = column(arg, input, context)?;
    let fill = match name.as_str() {
        "locf" => Fill::Locf,
        "interpolate" => Fill::Interpolate,
        "keep" | "keepnull" => Fill::Keep,
        _ => return Err(wrong()),
    };
    let (_, field) = input.qualified_field_from_column(&column)?;
    if fill == Fill::Interpolate && !field.data_type().is_numeric() {
        let error = Error::datatype_mismatch(format!("INTERPOLATE needs numbers, and \"{}\" is none", column.name));
        return Err(at(error.with_hint("write LOCF or KEEP"), span));
    }
    Ok((column, fill))
}
