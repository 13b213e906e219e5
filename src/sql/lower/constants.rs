//! What a continuous query reads and that never changes: VALUES, SELECT without FROM, a series of constants.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, TableScan};

use super::{Lowered, Lowering, arrow_schema, unsupported};
use crate::error::{Error, Result};
use crate::flow::constants::Constants;
use crate::flow::{Edge, Make, Operator};
use crate::limits::{BATCH_ROWS, STEP_ROWS};
use crate::sql::plan::source::series;

impl Lowering<'_> {
    /// Rows of expressions that name no column.
    pub(super) fn constants(&mut self, values: &[Vec<Expr>], schema: SchemaRef) -> Result<Lowered> {
        let columns = schema.fields().iter().enumerate().map(|(at, field)| -> Result<ArrayRef> {
            let value = |row: &Vec<Expr>| {
                let expr = row.get(at).ok_or_else(|| Error::internal("a row of VALUES has all columns"))?;
                Ok(self.constant(expr)?.cast_to(field.data_type())?)
            };
            let values = values.iter().map(value).collect::<Result<Vec<_>>>()?;
            match values.is_empty() {
                true => Ok(new_empty_array(field.data_type())),
                false => Ok(ScalarValue::iter_to_array(values)?),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
        Ok(self.rows_given(RecordBatch::try_new_with_options(schema, columns, &options)?))
    }

    /// The rows of `generate_series` or `range` in FROM, if that is what is scanned. At most as many as a step takes in.
    pub(super) fn series(&mut self, scan: &TableScan) -> Result<Option<Lowered>> {
        let Some(generator) = series(scan, BATCH_ROWS).transpose()? else { return Ok(None) };
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = generator.write().generate_next_batch()? {
            rows += batch.num_rows();
            if rows > STEP_ROWS {
                return Err(unsupported(
                    format!("a series of more than {STEP_ROWS} rows is not supported in a continuous query"),
                    "INSERT it INTO a table, and read that",
                ));
            }
            batches.push(batch);
        }
        let all = concat_batches(&scan.source.schema(), &batches)?;
        let columns: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..all.num_columns()).collect());
        let all = all.project(&columns)?.columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = arrow_schema(&scan.projected_schema);
        Ok(Some(self.rows_given(RecordBatch::try_new_with_options(schema, all, &options)?)))
    }

    fn rows_given(&mut self, rows: RecordBatch) -> Lowered {
        let count = rows.num_rows();
        let label = format!("Constants: {count} {}", if count == 1 { "row" } else { "rows" });
        let edge =
            Edge { schema: rows.schema(), append_only: true, key: None, sources: Vec::new(), times: Vec::new(), window: None };
        let make: Make = Box::new(move |_| Ok(Box::new(Constants::new(rows.clone())) as Box<dyn Operator>));
        self.add(label, String::new(), Vec::new(), make, None, edge)
    }

    fn constant(&self, expr: &Expr) -> Result<ScalarValue> {
        let row = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &row)?;
        let value = self.physical(expr, &DFSchema::empty())?.evaluate(&row)?.into_array(1)?;
        Ok(ScalarValue::try_from_array(&value, 0)?)
    }
}
