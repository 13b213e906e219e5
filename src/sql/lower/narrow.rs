//! Expressions with lambdas are evaluated over the columns that they were planned over. Their parameters count from behind the last
//! column, and operators give them rows that have got more columns since: computed keys, for one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{ColumnarValue, Expr};
use datafusion::physical_expr::PhysicalExpr;

use crate::error::Error;

/// The physical form of an expression over so many columns.
pub(super) fn narrow(expr: &Expr, physical: Arc<dyn PhysicalExpr>, width: usize) -> DfResult<Arc<dyn PhysicalExpr>> {
    let has_lambdas = expr.exists(|expr| Ok(matches!(expr, Expr::HigherOrderFunction(_))))?;
    Ok(if has_lambdas { Arc::new(Narrow { inner: physical, width }) } else { physical })
}

#[derive(Debug)]
struct Narrow {
    inner: Arc<dyn PhysicalExpr>,
    width: usize,
}

impl PartialEq for Narrow {
    fn eq(&self, other: &Narrow) -> bool {
        self.width == other.width && self.inner.eq(&other.inner)
    }
}

impl Eq for Narrow {}

impl Hash for Narrow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.width.hash(state);
    }
}

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Narrow {
    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if batch.num_columns() <= self.width {
            return self.inner.evaluate(batch);
        }
        self.inner.evaluate(&batch.project(&(0..self.width).collect::<Vec<_>>())?)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let [inner] = <[_; 1]>::try_from(children).map_err(|_| Error::internal("a narrow expression has one within"))?;
        Ok(Arc::new(Narrow { inner, width: self.width }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
