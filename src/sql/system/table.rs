//! A system relation as DataFusion scans it: the schema is known from its definition, rows are made when it is read.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::context::SystemContext;
use super::definitions::{SystemRelation, arrow_type};
use super::value::{Value, array};
use super::{information_schema, pg_catalog, tidegate};
use crate::error::Result;

/// Rows on their way into a batch, a column at a time.
pub(super) struct Table<'a> {
    relation: &'a SystemRelation,
    columns: Vec<Vec<Value>>,
    rows: usize,
}

impl<'a> Table<'a> {
    fn new(relation: &'a SystemRelation) -> Table<'a> {
        Table { relation, columns: vec![Vec::new(); relation.columns.len()], rows: 0 }
    }

    /// Adds a row. Columns that are not named are null, or their type's zero where they can't be null.
    pub fn row<const N: usize>(&mut self, values: [(&'static str, Value); N]) {
        self.row_of(values);
    }

    /// The same, of values whose number is not known before.
    pub fn row_of(&mut self, values: impl IntoIterator<Item = (&'static str, Value)>) {
        for (name, value) in values {
            let at = self.relation.column(name);
            let at = at.unwrap_or_else(|| panic!("{} has no column {name}", self.relation.name));
            self.columns[at].push(value);
        }
        self.rows += 1;
        for (column, values) in self.relation.columns.iter().zip(&mut self.columns) {
            if values.len() < self.rows {
                values.push(if column.not_null { zero(column.pg_type) } else { Value::Null });
            }
        }
    }

    fn finish(self) -> Result<RecordBatch> {
        let arrays = self.relation.columns.iter().zip(&self.columns);
        let arrays = arrays.map(|(c, values)| array(values, &arrow_type(c.pg_type))).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(self.relation.arrow.clone(), arrays, &options)?)
    }
}

/// The value of a NOT NULL column of which there is nothing to say.
fn zero(pg_type: &str) -> Value {
    match pg_type {
        "bool" => Value::Bool(false),
        "int2" | "int4" | "int8" | "oid" | "xid" | "cid" | "regproc" | "regtype" | "float4" | "float8" | "numeric" => {
            Value::Int(0)
        }
        "timestamptz" | "interval" => Value::Int(0),
        list if list.ends_with("[]") || list.ends_with("vector") => Value::List(Vec::new()),
        _ => Value::from(""),
    }
}

/// The rows of a relation for a session. A relation without a builder is one that is always empty here: there are no
/// foreign tables, policies, triggers, … .
pub(super) fn rows(relation: &SystemRelation, context: &SystemContext) -> Result<RecordBatch> {
    let mut table = Table::new(relation);
    match relation.schema {
        "information_schema" => information_schema::fill(relation.name, context, &mut table),
        "tidegate" => tidegate::fill(relation.name, context, &mut table),
        _ => pg_catalog::fill(relation.name, context, &mut table),
    }
    table.finish()
}

/// The provider of one relation, for one statement.
#[derive(Debug)]
pub(super) struct SystemTable {
    pub relation: &'static Arc<SystemRelation>,
    pub context: Arc<SystemContext>,
}

#[async_trait::async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.relation.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        if self.relation.kind == "v" { TableType::View } else { TableType::Base }
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let batch = rows(self.relation, &self.context)?;
        let exec = MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?;
        Ok(exec)
    }
}
