//! The SQL expressions stored with a relation (defaults, generated columns, the watermark), ready to run over batches.
//!
//! `now()` and its relatives become a column of the batch that is evaluated, so that the time is the caller's and the same
//! for a whole statement.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr, ExprSchemable, cast, col};
use datafusion::physical_expr::PhysicalExpr;

use super::numbers::Numbers;
use crate::catalog::check::Check;
use crate::catalog::{Kind, Relation};
use crate::copy::DefaultValues;
use crate::copy::modifier::Modifier;
use crate::copy::value::{Formats, parse_interval};
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::functions::convert::converted_in;
use crate::sql::plan::Planner;
use crate::sql::types;
use crate::time::Micros;

/// The column that stands for `now()`.
const NOW: &str = "_now";

/// A relation with its expressions compiled.
#[derive(Clone, Debug)]
pub struct CompiledRelation {
    pub relation: Arc<Relation>,
    /// The user's columns.
    pub schema: SchemaRef,
    /// Per column; over no columns but [`NOW`].
    pub defaults: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Per column; over the user's columns and [`NOW`].
    pub generated: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// What must not be false of a row, by name; over the user's columns and [`NOW`].
    pub(super) checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
    /// Over the user's columns; of a derived stream whose watermark is carried, none.
    pub watermark: Option<Arc<dyn PhysicalExpr>>,
    /// What the column that numbers the rows gets: without it nothing is left out of that column.
    pub(super) numbers: Option<Arc<Numbers>>,
    pub(super) modifiers: Vec<Modifier>,
    /// How far ahead of now an event time may be.
    pub(super) max_future: Micros,
}

impl CompiledRelation {
    /// Plan the expressions; they name columns and functions only.
    pub fn compile(relation: Arc<Relation>, planner: &Planner) -> Result<CompiledRelation> {
        let planner = planner.as_made(&relation);
        let schema = relation.schema();
        let over_columns = with_now(types::declare(&schema, &relation.columns).fields().iter().cloned());
        let over_nothing = with_now(std::iter::empty());
        let mut defaults = Vec::new();
        let mut generated = Vec::new();
        for column in &relation.columns {
            let compile = |sql: &Option<String>, schema: &SchemaRef| {
                sql.as_ref().map(|sql| compile(sql, schema, &column.data_type, &planner)).transpose().map_err(|error| {
                    let context = format!("column \"{}\" of relation \"{}\"", column.name, relation.name);
                    error.with_context(context)
                })
            };
            defaults.push(compile(&column.default, &over_nothing)?);
            generated.push(compile(&column.generated, &over_columns)?);
        }
        let check = |check: &Check| {
            let compiled = compile_check(&check.expression, &over_columns, &planner);
            let compiled = compiled.map_err(|error| error.with_context(format!("constraint \"{}\"", check.name)));
            Ok((check.name.clone(), compiled?))
        };
        let mut checks = relation.checks.iter().map(check).collect::<Result<Vec<_>>>()?;
        checks.sort_by(|a, b| a.0.cmp(&b.0));
        let watermark = match &relation.watermark {
            None => None,
            Some(watermark) => {
                let column =
                    relation.columns.get(watermark.column).ok_or_else(|| Error::internal("a watermark is of a column"))?;
                if !matches!(column.data_type, DataType::Timestamp(TimeUnit::Microsecond, _)) {
                    let message =
                        format!("event time must be a timestamp, and column \"{}\" is {}", column.name, column.sql_type);
                    return Err(Error::invalid_object_definition(message));
                }
                match watermark.carried {
                    true => None,
                    false => Some(compile(&watermark.expression, &over_columns, &column.data_type, &planner)?),
                }
            }
        };
        Ok(CompiledRelation {
            modifiers: relation.columns.iter().map(|c| Modifier::new(&c.sql_type, &c.data_type)).collect(),
            max_future: {
                idle_timeout(&relation)?;
                max_future(&relation)?
            },
            relation,
            schema,
            defaults,
            generated,
            checks,
            watermark,
            numbers: None,
        })
    }

    /// With numbers for its rows.
    #[must_use]
    pub fn numbered(self, numbers: Option<Arc<Numbers>>) -> CompiledRelation {
        CompiledRelation { numbers, ..self }
    }

    /// Rows of all columns from those that an INSERT or COPY names (`targets`, in the batch's order): the others get their
    /// default or NULL. Generated columns are computed later, by the writer.
    pub fn complete(&self, targets: &[usize], rows: &RecordBatch, now: Micros) -> Result<RecordBatch> {
        if targets.iter().copied().eq(0..self.relation.columns.len()) {
            return Ok(rows.clone());
        }
        let column = |at: usize| match targets.iter().position(|target| *target == at) {
            Some(given) => Ok(rows.column(given).clone()),
            None => self.default_of(at, rows.num_rows(), now),
        };
        let columns = (0..self.relation.columns.len()).map(column).collect::<Result<Vec<_>>>()?;
        batch(nullable(&self.schema), columns, rows.num_rows())
    }

    /// What an INSERT that leaves a column out puts into it.
    pub fn default_of(&self, column: usize, rows: usize, now: Micros) -> Result<ArrayRef> {
        let definition = &self.relation.columns[column];
        if let (Some(numbers), Some(_)) = (&self.numbers, definition.identity) {
            return numbers.take(rows, &definition.data_type);
        }
        match &self.defaults[column] {
            None => Ok(new_null_array(&definition.data_type, rows)),
            Some(default) => evaluate(default, with_now(std::iter::empty()), Vec::new(), rows, now),
        }
    }

    /// The defaults of some columns, for a decoder whose rows may leave them out.
    pub fn default_values(self: &Arc<Self>, targets: &[usize], now: Micros) -> Vec<Option<DefaultValues>> {
        let default = |column: usize| -> Option<DefaultValues> {
            let compiled = Arc::clone(self);
            let has_one = self.defaults[column].is_some() || self.relation.columns[column].identity.is_some();
            has_one.then(|| Arc::new(move |rows| compiled.default_of(column, rows, now)) as DefaultValues)
        };
        targets.iter().map(|column| default(*column)).collect()
    }

    /// All columns, the generated ones computed.
    pub(super) fn generate(&self, mut columns: Vec<ArrayRef>, rows: usize, now: Micros) -> Result<Vec<ArrayRef>> {
        for (at, expr) in self.generated.iter().enumerate() {
            if let Some(expr) = expr {
                let value = evaluate(expr, with_now(self.schema.fields().iter().cloned()), columns.clone(), rows, now);
                columns[at] =
                    value.map_err(|error| error.with_context(format!("column \"{}\"", self.relation.columns[at].name)))?;
            }
        }
        Ok(columns)
    }

    /// The first row that breaks a CHECK, and which.
    pub(super) fn broken(&self, columns: &[ArrayRef], rows: usize, now: Micros) -> Result<Option<(usize, &str)>> {
        let mut first: Option<(usize, &str)> = None;
        for (name, check) in &self.checks {
            let holds = evaluate(check, with_now(self.schema.fields().iter().cloned()), columns.to_vec(), rows, now);
            let holds = holds.map_err(|error| error.with_context(format!("constraint \"{name}\"")))?;
            let holds = holds.as_boolean();
            let upto = first.map_or(rows, |(row, _)| row);
            if let Some(row) = (0..upto).find(|row| holds.is_valid(*row) && !holds.value(*row)) {
                first = Some((row, name));
            }
        }
        Ok(first)
    }

    /// Values of the watermark expression.
    pub(super) fn watermark_of(&self, columns: &[ArrayRef], rows: usize, now: Micros) -> Result<Option<ArrayRef>> {
        let Some(expr) = &self.watermark else { return Ok(None) };
        let values = evaluate(expr, with_now(self.schema.fields().iter().cloned()), columns.to_vec(), rows, now);
        values.map(Some).map_err(|error| error.with_context("computing the watermark"))
    }
}

/// The columns, all nullable, and [`NOW`] behind them.
fn with_now(fields: impl Iterator<Item = Arc<Field>>) -> SchemaRef {
    let now = Field::new(NOW, DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), false);
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true)).chain([now]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The same columns, where NULL may still be forbidden later.
pub(super) fn nullable(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

pub(super) fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

fn evaluate(
    expr: &Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    mut columns: Vec<ArrayRef>,
    rows: usize,
    now: Micros,
) -> Result<ArrayRef> {
    columns.push(Arc::new(TimestampMicrosecondArray::from_value(now, rows).with_timezone("+00:00")));
    let value = expr.evaluate(&batch(schema, columns, rows)?)?;
    let array = value.into_array(rows)?;
    debug_assert_eq!(array.len(), rows, "a value per row");
    Ok(array)
}

/// An expression of a type, from its SQL.
fn compile(sql: &str, schema: &SchemaRef, to: &DataType, planner: &Planner) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(schema.as_ref().clone())?;
    let expr = planner.expression_from_text(sql, &schema)?.unalias();
    let expr = now_as_column(expr, &schema)?;
    let expr = match &expr {
        _ if expr.get_type(&schema)? == *to => expr,
        // Read as PostgreSQL reads it.
        Expr::Literal(ScalarValue::Utf8(Some(_)), _) => converted_in(expr, to.clone(), Formats::default())?,
        _ => cast(expr, to.clone()),
    };
    planner.physical(expr, &schema)
}

fn compile_check(sql: &str, schema: &SchemaRef, planner: &Planner) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(schema.as_ref().clone())?;
    let expr = planner.expression_from_text(sql, &schema)?.unalias();
    if expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_))))? {
        return Err(Error::grouping("aggregate functions are not allowed in check constraints"));
    }
    if expr.exists(|expr| Ok(matches!(expr, Expr::WindowFunction(_))))? {
        return Err(Error::windowing("window functions are not allowed in check constraints"));
    }
    let expr = match expr.get_type(&schema)? {
        DataType::Boolean => expr,
        DataType::Null => cast(expr, DataType::Boolean),
        other => {
            let message = format!("argument of CHECK must be type boolean, not type {}", types::sql_type(&other));
            return Err(Error::datatype_mismatch(message));
        }
    };
    planner.physical(now_as_column(expr, &schema)?, &schema)
}

fn now_as_column(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let replaced = expr.transform_up(|expr| match &expr {
        Expr::ScalarFunction(call) if matches!(call.name(), "now" | "current_date" | "current_time") => {
            let data_type = expr.get_type(schema)?;
            Ok::<_, DataFusionError>(Transformed::yes(cast(col(NOW), data_type)))
        }
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}

fn max_future(relation: &Relation) -> Result<Micros> {
    let default = i64::try_from(limits::MAX_FUTURE.as_micros()).unwrap_or(i64::MAX);
    Ok(interval_option(relation, "max_future", "1 day", 0)?.unwrap_or(default))
}

/// How long no rows come until a stream is idle, if it can be.
pub fn idle_timeout(relation: &Relation) -> Result<Option<Micros>> {
    let timeout = interval_option(relation, "idle_timeout", "30 seconds", 1)?;
    if timeout.is_some() && relation.kind != Kind::Stream {
        let error = Error::invalid_parameter(format!("a {} has no idle_timeout", relation.kind.noun()));
        return Err(error.with_hint("it moves the watermark of a stream on when no rows come"));
    }
    Ok(timeout)
}

/// A length of time that WITH ( … ) says.
pub fn interval_option(relation: &Relation, key: &str, example: &str, least: Micros) -> Result<Option<Micros>> {
    const DAY: i64 = 24 * 3600 * 1_000_000;
    let Some(option) = relation.options.get(key) else { return Ok(None) };
    let invalid = || {
        let what = if least > 0 { "an interval greater than zero" } else { "an interval" };
        Error::invalid_parameter(format!("{key} must be {what}, not \"{option}\""))
            .with_hint(format!("write {key} = '{example}'"))
    };
    let interval = parse_interval(option.as_bytes()).map_err(|_| invalid())?;
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    let micros = days.saturating_mul(DAY).saturating_add(interval.nanoseconds / 1000);
    if micros < least { Err(invalid()) } else { Ok(Some(micros)) }
}
