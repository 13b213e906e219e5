//! VALUES, and SELECT without FROM, as a part of a query that reads more than that.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;

use super::{Lowered, Lowering};
use crate::error::{Error, Result};
use crate::flow::constants::Constants;
use crate::flow::{Edge, Make, Operator};

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
        let rows = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;

        let label = format!("Constants: {} {}", values.len(), if values.len() == 1 { "row" } else { "rows" });
        let edge = Edge { schema, append_only: true, key: None, sources: Vec::new(), times: Vec::new(), window: None };
        let make: Make = Box::new(move |_| Ok(Box::new(Constants::new(rows.clone())) as Box<dyn Operator>));
        Ok(self.add(label, String::new(), Vec::new(), make, None, edge))
    }

    fn constant(&self, expr: &Expr) -> Result<ScalarValue> {
        let row = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &row)?;
        let value = self.physical(expr, &DFSchema::empty())?.evaluate(&row)?.into_array(1)?;
        Ok(ScalarValue::try_from_array(&value, 0)?)
    }
}
