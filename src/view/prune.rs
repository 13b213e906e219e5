//! Which chunks of a version may have rows that some conditions ask for, by the least and the greatest values in them.
//!
//! Rows stand in the order in which they came, so that a range of time, or of anything that grows with it, lies in few chunks
//! (Moerkotte, "Small Materialized Aggregates", VLDB 1998; PostgreSQL's BRIN). What is left is filtered row by row all the same:
//! this only ever spares work. Dead rows count, so a chunk may be read for nothing.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Accumulator, Between, BinaryExpr, Expr, Operator};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::Version;
use crate::limits::BATCH_ROWS;

/// The least and the greatest values of a column, a chunk of [`BATCH_ROWS`] rows at a time.
pub(super) struct Bounds {
    least: ArrayRef,
    greatest: ArrayRef,
}

impl Bounds {
    pub fn of(column: &ArrayRef) -> Result<Bounds> {
        let chunk = |start| column.slice(start, BATCH_ROWS.min(column.len() - start));
        let chunks: Vec<ArrayRef> = (0..column.len()).step_by(BATCH_ROWS).map(chunk).collect();
        let (mut least, mut greatest) = (Vec::with_capacity(chunks.len()), Vec::with_capacity(chunks.len()));
        for chunk in chunks {
            let (mut min, mut max) = (MinAccumulator::try_new(column.data_type())?, MaxAccumulator::try_new(column.data_type())?);
            min.update_batch(std::slice::from_ref(&chunk))?;
            max.update_batch(&[chunk])?;
            least.push(min.evaluate()?);
            greatest.push(max.evaluate()?);
        }
        let array = |values: Vec<ScalarValue>| match values.is_empty() {
            true => Ok(column.slice(0, 0)),
            false => ScalarValue::iter_to_array(values),
        };
        Ok(Bounds { least: array(least)?, greatest: array(greatest)? })
    }
}

/// Whether a filter may spare chunks: a column beside constants. Not a float, whose -0 equals 0.
pub(super) fn can_prune(filter: &Expr, schema: &SchemaRef) -> bool {
    let ordered = |expr: &Expr, constants: &[&Expr]| {
        let Expr::Column(column) = expr else { return false };
        let Ok(field) = schema.field_with_name(&column.name) else { return false };
        let orderly = match field.data_type() {
            DataType::Utf8 | DataType::Decimal128(..) | DataType::Date32 | DataType::Timestamp(..) => true,
            other => other.is_integer(),
        };
        let same = |constant: &&Expr| matches!(constant, Expr::Literal(value, _) if value.data_type() == *field.data_type());
        orderly && constants.iter().all(same)
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => can_prune(left, schema) || can_prune(right, schema),
            Operator::Or => can_prune(left, schema) && can_prune(right, schema),
            Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                ordered(left, &[right]) || ordered(right, &[left])
            }
            _ => false,
        },
        Expr::Between(Between { expr, negated: false, low, high }) => ordered(expr, &[low, high]),
        Expr::InList(InList { expr, list, negated: false }) => ordered(expr, &list.iter().collect::<Vec<_>>()),
        _ => false,
    }
}

/// For each chunk of a version, in their order, whether rows of it may be what all of these filters ask for; `None`: nothing is
/// known. `schema` and `visible` are the columns that filters can name, and where they are in the version.
pub(super) fn chunks_to_read(
    version: &Version,
    (schema, visible): (&SchemaRef, &[usize]),
    filters: &[&Expr],
    session: &dyn Session,
) -> Result<Option<Vec<bool>>> {
    let Some(filter) = conjunction(filters.iter().map(|filter| (*filter).clone())) else { return Ok(None) };
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(schema.as_ref().clone())?)?;
    let predicate = PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(filter);
    predicate.map(|predicate| predicate.prune(&Chunks { version, schema, visible })).transpose()
}

/// The chunks of a version, as what is to be pruned.
struct Chunks<'a> {
    version: &'a Version,
    schema: &'a SchemaRef,
    visible: &'a [usize],
}

impl Chunks<'_> {
    fn values(&self, column: &Column, of: impl Fn(&Bounds) -> &ArrayRef) -> Option<ArrayRef> {
        let column = self.visible[self.schema.index_of(&column.name).ok()?];
        let bounds: Vec<&Bounds> = self.version.parts().iter().map(|part| part.segment.bounds(column)).collect::<Option<_>>()?;
        let arrays: Vec<&dyn Array> = bounds.into_iter().map(|bounds| of(bounds).as_ref()).collect();
        concat(&arrays).ok()
    }
}

impl PruningStatistics for Chunks<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| &bounds.least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| &bounds.greatest)
    }

    fn num_containers(&self) -> usize {
        self.version.chunks().count()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
