//! Filter and projection: row by row, nothing kept, weights untouched.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;

use super::{Context, Operator};
use crate::delta::Delta;
use crate::error::{Error, Result};

pub struct Filter {
    pub predicate: Arc<dyn PhysicalExpr>,
}

impl Operator for Filter {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        cx.emit(filter(&self.predicate, delta)?);
        Ok(())
    }
}

/// The rows for which `predicate` is true; NULL is not true.
pub fn filter(predicate: &Arc<dyn PhysicalExpr>, delta: Delta) -> Result<Delta> {
    let keep = predicate.evaluate(&delta.rows)?.into_array(delta.len())?;
    let keep = keep.as_boolean_opt().ok_or_else(|| Error::datatype_mismatch("a filter must be of type boolean"))?;
    match (keep.true_count(), keep.null_count()) {
        (n, _) if n == delta.len() => Ok(delta),
        (_, 0) => delta.filter(keep),
        _ => delta.filter(&compute::prep_null_mask_filter(keep)),
    }
}

pub struct Project {
    pub expressions: Vec<Arc<dyn PhysicalExpr>>,
    pub schema: SchemaRef,
}

impl Operator for Project {
    fn update(&mut self, _port: usize, delta: Delta, cx: &mut Context) -> Result<()> {
        let rows = project(&self.expressions, &self.schema, &delta.rows)?;
        cx.emit(delta.with_rows(rows));
        Ok(())
    }
}

/// One column per expression, of exactly the schema's types.
pub fn project(expressions: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let column = |(expression, field): (&Arc<dyn PhysicalExpr>, &Arc<arrow::datatypes::Field>)| {
        let array = expression.evaluate(rows)?.into_array(rows.num_rows())?;
        if array.data_type() == field.data_type() { Ok(array) } else { Ok(compute::cast(&array, field.data_type())?) }
    };
    let columns = expressions.iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
