//! RETURNING: rows that a statement wrote or took away, as the client asks for them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::utils::collect_columns;
use sqlparser::ast as sp;

use super::write::rows_of;
use super::{Client, Outcome, Rows};
use crate::catalog::Relation;
use crate::error::{Error, Result};
use crate::flow::graph::{HIDDEN_COLUMNS, with_hidden};
use crate::flow::linear::project;
use crate::log::{Committed, Header, Kind, Write};
use crate::sql::plan::columns::of_relation;
use crate::sql::plan::names::fold;
use crate::sql::system::visible_name;
use crate::sql::types;
use crate::time::NO_TIME;

/// What RETURNING computes.
struct Returning {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// As clients are told of it.
    schema: SchemaRef,
    /// The relation's columns and the hidden ones: what is computed from.
    all: SchemaRef,
}

impl Returning {
    /// It asks for a row's place in the log.
    fn asks_place(&self, relation: &Relation) -> bool {
        let is_hidden = |column: &PhysicalColumn| column.index() >= relation.columns.len();
        self.expressions.iter().any(|expr| collect_columns(expr).iter().any(is_hidden))
    }
}

impl Client {
    pub(super) fn returning_schema(&self, items: &[sp::SelectItem], relation: &Relation) -> Result<SchemaRef> {
        Ok(self.returning(items, relation)?.schema)
    }

    fn returning(&self, items: &[sp::SelectItem], relation: &Relation) -> Result<Returning> {
        let hidden = HIDDEN_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let all = Arc::new(Schema::new(relation.schema().fields().iter().cloned().chain(hidden).collect::<Vec<_>>()));
        let schema = DFSchema::try_from(types::declare(&all, &relation.columns))?;
        let planner = self.planner(&self.peek_snapshot());
        let (mut expressions, mut fields): (Vec<Arc<dyn PhysicalExpr>>, Vec<Field>) = (Vec::new(), Vec::new());
        for item in items {
            let (expr, name) = match item {
                sp::SelectItem::UnnamedExpr(expr) => (expr, None),
                sp::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(alias))),
                sp::SelectItem::Wildcard(_) => {
                    for (at, column) in relation.columns.iter().enumerate() {
                        expressions.push(Arc::new(PhysicalColumn::new(&column.name, at)));
                        fields.push(of_relation(relation, at, &column.name));
                    }
                    continue;
                }
                other => return Err(Error::unsupported(format!("RETURNING {other} is not supported"))),
            };
            let logical = planner.expression(unqualified(expr, relation).as_ref().unwrap_or(expr), &schema)?;
            let column = if let Expr::Column(column) = &logical { relation.column(&column.name) } else { None };
            let name = name.unwrap_or_else(|| match &logical {
                Expr::Column(column) => column.name.clone(),
                Expr::ScalarFunction(call) => call.name().to_string(),
                _ => "?column?".to_string(),
            });
            let physical = planner.physical(logical, &schema)?;
            fields.push(match column {
                Some(at) => of_relation(relation, at, &name),
                None => Field::new(visible_name(&name), physical.data_type(&all)?, true),
            });
            expressions.push(physical);
        }
        Ok(Returning { expressions, schema: Arc::new(Schema::new(fields)), all })
    }

    /// Rows that an INSERT wrote. `committed` is there if they have their place in the log already.
    pub(super) fn returning_inserted(
        &self,
        items: &[sp::SelectItem],
        relation: &Relation,
        writes: &[Write],
        committed: Option<&Committed>,
    ) -> Result<Outcome> {
        let returning = self.returning(items, relation)?;
        if committed.is_none() && returning.asks_place(relation) {
            return Err(Error::unsupported("a row has its partition, offset and commit only from COMMIT on")
                .with_hint("ask for other columns in RETURNING, or run the INSERT outside of BEGIN … COMMIT"));
        }
        let mut batches = Vec::new();
        for (at, write) in writes.iter().enumerate().filter(|(_, w)| w.relation == relation.id) {
            let rows = rows_of(write)?;
            let header = Header {
                partition: write.partition,
                base_offset: committed.map_or(0, |c| c.offsets[at]),
                kind: write.kind,
                commit: committed.map_or(0, |c| c.commit),
                commit_time: committed.map_or(0, |c| c.time),
                ..header(relation, &rows)
            };
            batches.push(computed(&returning, relation, &header, &rows)?);
        }
        Ok(outcome(returning, batches, "INSERT 0"))
    }

    /// Rows that an UPDATE wrote or a DELETE found, in the form that the log has them.
    pub(super) fn returning_changed(
        &self,
        items: &[sp::SelectItem],
        relation: &Relation,
        rows: Vec<RecordBatch>,
        tag: &'static str,
    ) -> Result<Outcome> {
        let returning = self.returning(items, relation)?;
        if returning.asks_place(relation) {
            return Err(Error::unsupported(format!("RETURNING of {tag} gives columns of the table, not places in the log")));
        }
        let batches = rows.iter().map(|rows| computed(&returning, relation, &header(relation, rows), rows));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        Ok(outcome(returning, batches, tag))
    }
}

fn computed(returning: &Returning, relation: &Relation, header: &Header, rows: &RecordBatch) -> Result<RecordBatch> {
    let skip = usize::from(relation.has_row_id());
    let wide = with_hidden(header, rows);
    let wide = RecordBatch::try_new(Arc::clone(&returning.all), wide.columns()[skip..].to_vec())?;
    project(&returning.expressions, &returning.schema, &wide)
}

fn outcome(returning: Returning, batches: Vec<RecordBatch>, tag: &'static str) -> Outcome {
    let batches = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
    Outcome::Rows(Rows { schema: returning.schema, batches, tag, live: false })
}

/// The header of rows without a place.
fn header(relation: &Relation, rows: &RecordBatch) -> Header {
    Header {
        relation: relation.id,
        partition: 0,
        base_offset: 0,
        rows: rows.num_rows() as u32,
        columns: rows.num_columns() as u16,
        kind: Kind::Upsert,
        commit: 0,
        commit_time: 0,
        watermark: NO_TIME,
        event_times: None,
        producer: None,
    }
}

/// `customers.id` is `id`: there is one relation to speak of.
fn unqualified(expr: &sp::Expr, relation: &Relation) -> Option<sp::Expr> {
    let sp::Expr::CompoundIdentifier(parts) = expr else { return None };
    let [.., table, column] = parts.as_slice() else { return None };
    (fold(table) == relation.name).then(|| sp::Expr::Identifier(column.clone()))
}
