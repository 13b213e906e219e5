//! RETURNING: rows that a statement wrote or took away, as the client asks for them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::utils::collect_columns;
use sqlparser::ast as sp;

use super::change::Target;
use super::write::rows_of;
use super::{Client, Outcome, Rows};
use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result};
use crate::flow::graph::{HIDDEN_COLUMNS, with_hidden};
use crate::flow::linear::project;
use crate::log::{Committed, Header, Kind, Write};
use crate::sql::plan::columns::{of_relation, visible_schema};
use crate::sql::plan::names::{fold, fold_object};
use crate::sql::system::visible_name;
use crate::sql::types;
use crate::time::NO_TIME;

/// Columns of the relations beside the table that is changed, with what qualifies them.
#[derive(Default)]
pub(super) struct Beside(Vec<(Option<TableReference>, Arc<Field>)>);

impl Beside {
    /// The columns of a plan from this one on, as clients are told of them.
    pub fn of_plan(plan: &LogicalPlan, from: usize, catalog: &Catalog) -> Beside {
        let told = visible_schema(plan, catalog);
        let column = |((qualifier, field), told): ((Option<&TableReference>, &Arc<Field>), &Arc<Field>)| {
            let told = told.as_ref().clone().with_name(field.name()).with_data_type(field.data_type().clone());
            (qualifier.cloned(), Arc::new(told.with_nullable(true)))
        };
        Beside(plan.schema().iter().zip(told.fields()).skip(from).map(column).collect())
    }
}

/// What RETURNING computes.
struct Returning {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
    /// As clients are told of it.
    schema: SchemaRef,
    /// The relation's columns, the hidden ones, and those beside it: what is computed from.
    all: SchemaRef,
}

impl Returning {
    /// It asks for a row's place in the log.
    fn asks_place(&self, relation: &Relation) -> bool {
        let hidden = relation.columns.len()..relation.columns.len() + HIDDEN_COLUMNS.len();
        let is_hidden = |column: &PhysicalColumn| hidden.contains(&column.index());
        self.expressions.iter().any(|expr| collect_columns(expr).iter().any(is_hidden))
    }

    /// A column as it is.
    fn push(&mut self, at: usize, field: Field) {
        self.expressions.push(Arc::new(PhysicalColumn::new(self.all.field(at).name(), at)));
        let fields = self.schema.fields().iter().cloned().chain([Arc::new(field)]);
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    }
}

impl Client {
    pub(super) fn returning_schema(&self, items: &[sp::SelectItem], target: &Target, beside: &Beside) -> Result<SchemaRef> {
        Ok(self.returning(items, target, beside)?.schema)
    }

    fn returning(&self, items: &[sp::SelectItem], target: &Target, beside: &Beside) -> Result<Returning> {
        let relation = &target.relation;
        let own = types::declare(&relation.schema(), &relation.columns);
        let hidden = HIDDEN_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let own = own.fields().iter().cloned().chain(hidden).map(|field| (Some(target.qualifier()), field));
        let scope: Vec<_> = own.chain(beside.0.iter().cloned()).collect();
        let all = Arc::new(Schema::new(scope.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()));
        let scope = DFSchema::new_with_metadata(scope, HashMap::default())?;
        let first_beside = relation.columns.len() + HIDDEN_COLUMNS.len();
        let as_told = |at: usize, name: &str| match at.checked_sub(first_beside) {
            Some(beside_at) => beside.0[beside_at].1.as_ref().clone().with_name(name),
            None if at < relation.columns.len() => of_relation(relation, at, name),
            None => all.field(at).clone().with_name(name),
        };
        let planner = self.planner(&self.peek_snapshot());
        let mut returning = Returning { expressions: Vec::new(), schema: Arc::new(Schema::empty()), all: Arc::clone(&all) };
        for item in items {
            let (expr, name) = match item {
                sp::SelectItem::UnnamedExpr(expr) => (expr, None),
                sp::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(fold(alias))),
                sp::SelectItem::Wildcard(_)
                | sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(_), _) => {
                    for at in wildcard(item, &scope, relation.columns.len()..first_beside)? {
                        returning.push(at, as_told(at, visible_name(all.field(at).name())));
                    }
                    continue;
                }
                other => return Err(Error::unsupported(format!("RETURNING {other} is not supported"))),
            };
            let logical = planner.expression(expr, &scope)?;
            let column = if let Expr::Column(column) = &logical { scope.maybe_index_of_column(column) } else { None };
            let name = name.unwrap_or_else(|| match &logical {
                Expr::Column(column) => visible_name(&column.name).to_string(),
                Expr::ScalarFunction(call) => call.name().to_string(),
                _ => "?column?".to_string(),
            });
            if let Some(at) = column {
                returning.push(at, as_told(at, &name));
                continue;
            }
            let physical = planner.physical(logical, &scope)?;
            let field = Field::new(visible_name(&name), physical.data_type(&all)?, true);
            returning.expressions.push(physical);
            let fields = returning.schema.fields().iter().cloned().chain([Arc::new(field)]);
            returning.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        Ok(returning)
    }

    /// Rows that an INSERT wrote. `committed` is there if they have their place in the log already.
    pub(super) fn returning_inserted(
        &self,
        items: &[sp::SelectItem],
        target: &Target,
        writes: &[Write],
        committed: Option<&Committed>,
    ) -> Result<Outcome> {
        let relation = &target.relation;
        let returning = self.returning(items, target, &Beside::default())?;
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
            batches.push(computed(&returning, &header, &rows.project(&own_columns(relation, &rows))?, &[])?);
        }
        Ok(outcome(returning, batches, "INSERT 0"))
    }

    /// Rows that a statement changed: the relation's columns, and the values of those beside it.
    pub(super) fn returning_changed(
        &self,
        items: &[sp::SelectItem],
        target: &Target,
        rows: Vec<RecordBatch>,
        beside: &Beside,
        values: &[Vec<ArrayRef>],
        tag: &'static str,
    ) -> Result<Outcome> {
        let returning = self.returning(items, target, beside)?;
        if returning.asks_place(&target.relation) {
            let tag = tag.trim_end_matches(" 0");
            return Err(Error::unsupported(format!("RETURNING of this {tag} gives columns of the table, not places in the log")));
        }
        let none = Vec::new();
        let computed = |(at, rows): (usize, &RecordBatch)| {
            computed(&returning, &header(&target.relation, rows), rows, values.get(at).unwrap_or(&none))
        };
        let batches = rows.iter().enumerate().map(computed).collect::<Result<Vec<_>>>()?;
        Ok(outcome(returning, batches, tag))
    }
}

/// The columns that `*` or `t.*` stands for, among those of a scope; the hidden ones are in none.
fn wildcard(item: &sp::SelectItem, scope: &DFSchema, hidden: Range<usize>) -> Result<Vec<usize>> {
    let of = match item {
        sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            let (schema, table) = fold_object(name).ok_or_else(|| Error::syntax(format!("improper relation name \"{name}\"")))?;
            Some(
                schema
                    .map_or_else(|| TableReference::bare(table.clone()), |schema| TableReference::partial(schema, table.clone())),
            )
        }
        _ => None,
    };
    let is_of = |qualifier: Option<&TableReference>| match &of {
        Some(of) => qualifier.is_some_and(|qualifier| of.resolved_eq(qualifier)),
        None => true,
    };
    let columns = scope.iter().enumerate().filter(|(at, (qualifier, _))| !hidden.contains(at) && is_of(*qualifier));
    let columns: Vec<usize> = columns.map(|(at, _)| at).collect();
    match of {
        Some(of) if columns.is_empty() => Err(Error::undefined_table(format!("missing FROM-clause entry for table \"{of}\""))),
        _ => Ok(columns),
    }
}

/// The columns of stored rows that are the user's.
fn own_columns(relation: &Relation, rows: &RecordBatch) -> Vec<usize> {
    (usize::from(relation.has_row_id())..rows.num_columns()).collect()
}

fn computed(returning: &Returning, header: &Header, rows: &RecordBatch, beside: &[ArrayRef]) -> Result<RecordBatch> {
    let wide = with_hidden(header, rows);
    let columns = wide.columns().iter().chain(beside).cloned().collect();
    let wide = RecordBatch::try_new(Arc::clone(&returning.all), columns)?;
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
