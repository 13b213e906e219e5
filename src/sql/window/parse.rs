//! From the canonical table function (see [`WINDOW_FUNCTIONS`]) to a [`WindowNode`].

use arrow::datatypes::{DataType, IntervalUnit};
use chrono_tz::Tz;
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast as sp;
use sqlparser::ast::Spanned;
use sqlparser::tokenizer::Span;

use super::implied::timed;
use super::{Assignment, WINDOW_COLUMNS, WindowNode};
use crate::error::Error;
use crate::sql::ast::WINDOW_FUNCTIONS;
use crate::sql::plan::errors::at;
use crate::sql::plan::names::{fold, fold_object, input_name};
use crate::time::Micros;
use crate::time::window::Windows;

/// Plans the window functions of FROM.
#[derive(Debug)]
pub struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(&self, relation: sp::TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let (name, args, alias) = match relation {
            sp::TableFactor::Table { name, args: Some(args), alias, .. } if function_of(&name).is_some() => (name, args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let kind = function_of(&name).expect("just seen");
        let node = plan(kind, name.span(), args.args, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(node.into_plan(), alias))))
    }
}

fn function_of(name: &sp::ObjectName) -> Option<&'static str> {
    let (schema, name) = fold_object(name)?;
    WINDOW_FUNCTIONS.into_iter().find(|function| schema.is_none() && *function == name)
}

fn plan(
    kind: &'static str,
    span: Span,
    args: Vec<sp::FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> DfResult<WindowNode> {
    let mut args = args.into_iter();
    let Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(input))) = args.next() else {
        let error = Error::syntax(format!("{} needs a relation as its first argument", kind.to_uppercase()));
        return Err(at(error.with_hint(usage(kind)), span));
    };
    let input = context.plan(input_factor(input)?)?;
    let named = Arguments::read(kind, args, input.schema(), context)?;

    let (input, time, time_span) = match named.time {
        Some((time, at)) => (input, time, at),
        None => {
            let (input, time) = timed(input).map_err(|error| at(error, span))?;
            (input, time, span)
        }
    };
    let required = |value: Option<(Micros, Span)>, name: &str| {
        value.ok_or_else(|| at(Error::syntax(format!("{} needs a {name}", kind.to_uppercase())).with_hint(usage(kind)), span))
    };
    let assignment = match kind {
        "session" => Assignment::Session { gap: required(named.gap, "gap")?.0, partition: named.partition },
        _ => {
            let (size, size_span) = required(named.size, "size")?;
            let windows = match kind {
                "hop" => Windows::hop(size, required(named.slide, "slide")?.0, named.offset),
                "cumulate" => Windows::cumulate(size, required(named.slide, "step")?.0, named.offset),
                _ => Windows::tumble(size, named.offset),
            };
            let windows = Windows { zone: named.zone, ..windows };
            super::check_windows(&windows).map_err(|error| at(error, size_span))?;
            Assignment::Clock(windows)
        }
    };
    let (input, renamed) = make_room(input)?;
    let assignment = match assignment {
        Assignment::Session { gap, partition } => {
            Assignment::Session { gap, partition: partition.into_iter().map(&renamed).collect() }
        }
        clock => clock,
    };
    WindowNode::new(assignment, named.lateness, renamed(time), input).map_err(|error| at(error, time_span))
}

fn usage(kind: &str) -> &'static str {
    match kind {
        "hop" => "write HOP(relation, time column, slide, size)",
        "cumulate" => "write CUMULATE(relation, time column, step, size)",
        "session" => "write SESSION(relation PARTITION BY (columns), time column, gap)",
        _ => "write TUMBLE(relation, time column, size)",
    }
}

pub(in crate::sql) fn input_factor(input: sp::Expr) -> DfResult<sp::TableFactor> {
    if let Some(name) = input_name(&input) {
        return Ok(sp::TableFactor::Table {
            name,
            alias: None,
            args: None,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        });
    }
    match input {
        sp::Expr::Subquery(subquery) => Ok(sp::TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }),
        other => Err(at(Error::syntax("a function in FROM reads a relation or a query in parentheses"), other.span())),
    }
}

/// The named arguments.
#[derive(Default)]
struct Arguments {
    time: Option<(Column, Span)>,
    size: Option<(Micros, Span)>,
    slide: Option<(Micros, Span)>,
    gap: Option<(Micros, Span)>,
    offset: Micros,
    lateness: Micros,
    partition: Vec<Column>,
    zone: Option<Tz>,
}

impl Arguments {
    fn read(
        kind: &str,
        args: impl Iterator<Item = sp::FunctionArg>,
        input: &DFSchema,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<Arguments> {
        let mut read = Arguments::default();
        for arg in args {
            let (name, expr) = named(arg)?;
            let span = expr.span();
            match fold(&name).as_str() {
                "ts" => read.time = Some((column(expr, input, context)?, span)),
                "size" => read.size = Some((duration(expr, "size", context)?, span)),
                "gap" if kind == "session" => read.gap = Some((duration(expr, "gap", context)?, span)),
                "partition_by" if kind == "session" => {
                    let columns = columns(expr).into_iter().map(|expr| column(expr, input, context));
                    read.partition = columns.collect::<DfResult<_>>()?;
                }
                "zone" => read.zone = Some(zone(&expr).map_err(|error| at(error, span))?),
                "slide" if ["hop", "cumulate"].contains(&kind) => read.slide = Some((duration(expr, "slide", context)?, span)),
                "offset" => read.offset = duration(expr, "offset", context)?,
                "lateness" => {
                    read.lateness = duration(expr, "allowed lateness", context)?;
                    if read.lateness < 0 {
                        return Err(at(Error::invalid_parameter("the allowed lateness must not be negative"), span));
                    }
                }
                other => {
                    let error = Error::syntax(format!("{} has no argument \"{other}\"", kind.to_uppercase()));
                    return Err(at(error.with_hint(usage(kind)), name.span));
                }
            }
        }
        Ok(read)
    }
}

fn named(arg: sp::FunctionArg) -> DfResult<(sp::Ident, sp::Expr)> {
    match arg {
        sp::FunctionArg::Named { name, arg: sp::FunctionArgExpr::Expr(expr), .. }
        | sp::FunctionArg::ExprNamed { name: sp::Expr::Identifier(name), arg: sp::FunctionArgExpr::Expr(expr), .. } => {
            Ok((name, expr))
        }
        other => Err(at(Error::syntax("a window function's arguments are its relation, then names with values"), other.span())),
    }
}

pub(in crate::sql) fn column(expr: sp::Expr, input: &DFSchema, context: &mut dyn RelationPlannerContext) -> DfResult<Column> {
    let span = expr.span();
    match context.sql_to_expr(expr, input)? {
        Expr::Column(column) => {
            let (qualifier, field) = match &column.relation {
                Some(relation) => input.qualified_field_with_name(Some(relation), &column.name)?,
                None => input.qualified_field_with_unqualified_name(&column.name)?,
            };
            Ok(Column::from((qualifier, field)))
        }
        _ => {
            let error = Error::datatype_mismatch("the time of a window must be a column of its relation");
            Err(at(error.with_hint("compute it in a query: TUMBLE((SELECT *, … AS ts FROM relation), ts, size)"), span))
        }
    }
}

/// `a`, `(a)`, `(a, b)`.
fn columns(expr: sp::Expr) -> Vec<sp::Expr> {
    match expr {
        sp::Expr::Tuple(columns) => columns,
        sp::Expr::Nested(column) => vec![*column],
        column => vec![column],
    }
}

fn zone(expr: &sp::Expr) -> Result<Tz, Error> {
    let hint = "name it as in 'Europe/Berlin'";
    let sp::Expr::Value(sp::ValueWithSpan { value: sp::Value::SingleQuotedString(name), .. }) = expr else {
        return Err(Error::datatype_mismatch("the time zone of a window must be a constant string").with_hint(hint));
    };
    let found = chrono_tz::TZ_VARIANTS.into_iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| Error::invalid_parameter(format!("time zone \"{name}\" is not known")).with_hint(hint))
}

/// A constant interval of a window, in microseconds.
fn duration(expr: sp::Expr, what: &str, context: &mut dyn RelationPlannerContext) -> DfResult<Micros> {
    constant_duration(expr, &format!("{what} of a window"), context)
}

/// A constant interval, in microseconds; `what` it is.
pub(crate) fn constant_duration(expr: sp::Expr, what: &str, context: &mut dyn RelationPlannerContext) -> DfResult<Micros> {
    let span = expr.span();
    let planned = context.sql_to_expr(expr, &DFSchema::empty())?;
    micros_of(&planned, what).map_err(|error| at(error, span))
}

/// The same of what is planned, if it is a constant of a fixed length.
pub(crate) fn constant_micros(expr: &Expr) -> Option<Micros> {
    micros_of(expr, "length").ok()
}

fn micros_of(expr: &Expr, what: &str) -> Result<Micros, Error> {
    let not_constant = || {
        let error = Error::datatype_mismatch(format!("the {what} must be a constant interval"));
        error.with_hint("write it as in INTERVAL '5' MINUTE")
    };
    match expr {
        Expr::Negative(inner) => micros_of(inner, what)?.checked_neg().ok_or_else(not_constant),
        Expr::Literal(value, _) => {
            let interval = value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).map_err(|_| not_constant())?;
            let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else { return Err(not_constant()) };
            if interval.months != 0 {
                let error = Error::unsupported(format!("the {what} must have a fixed length, and months do not"));
                return Err(error.with_hint("write it in days or smaller units"));
            }
            if interval.nanoseconds % 1000 != 0 {
                return Err(Error::unsupported(format!("the {what} must be whole microseconds")));
            }
            let days = i64::from(interval.days).checked_mul(86_400_000_000);
            days.and_then(|days| days.checked_add(interval.nanoseconds / 1000)).ok_or_else(not_constant)
        }
        _ => Err(not_constant()),
    }
}

/// Columns of the input that are called like the window's are renamed (`window_start` to `inner_window_start`): a window over
/// a windowed relation keeps them, and the plain names mean the outermost window. Also what each column is called now.
fn make_room(input: LogicalPlan) -> DfResult<(LogicalPlan, impl Fn(Column) -> Column)> {
    let taken = |name: &str| WINDOW_COLUMNS.contains(&name);
    let renamed = move |column: Column| {
        if !taken(&column.name) {
            return column;
        }
        Column::new(column.relation.clone(), format!("inner_{}", column.name))
    };
    if !input.schema().fields().iter().any(|field| taken(field.name())) {
        return Ok((input, renamed));
    }
    let rename = |column: Column| {
        if !taken(&column.name) {
            return Expr::Column(column);
        }
        let now = renamed(column.clone());
        Expr::Column(column).alias_qualified(now.relation, now.name)
    };
    let exprs: Vec<Expr> = input.schema().columns().into_iter().map(rename).collect();
    Ok((LogicalPlanBuilder::from(input).project(exprs)?.build()?, renamed))
}
