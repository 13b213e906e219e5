//! What a plan's scans read: a relation of the catalog, and which of its columns.
//!
//! A plan names [`RelationSource`]s and nothing that could run. The lowering reads the relation from them, a batch query puts
//! rows in their place; neither looks up a name again.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Constraint, Constraints};
use datafusion::datasource::{TableType, source_as_provider};
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::{LogicalPlan, TableScan, TableSource};
use datafusion::physical_plan::memory::LazyBatchGenerator;
use parking_lot::RwLock;

use crate::catalog::{Kind, ROW_ID, Relation};
use crate::error::Result;
use crate::flow::history::{DELETED, VERSION, history_schema};
use crate::time::TIMESTAMP;

/// A column that every row of a stream has from the log, or every row of a table without a key from the server. Selectable by
/// name, and not part of `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hidden {
    Partition,
    Offset,
    Commit,
    IngestedAt,
    /// Of tables without a primary key.
    RowId,
    /// Of a table's versions: from when one holds.
    Version,
    /// Of a table's versions: there is no such row then.
    Deleted,
}

impl Hidden {
    /// Those that a statement may name.
    pub const ALL: [Hidden; 5] = [Hidden::Partition, Hidden::Offset, Hidden::Commit, Hidden::IngestedAt, Hidden::RowId];

    pub fn name(self) -> &'static str {
        match self {
            Hidden::Partition => "_partition",
            Hidden::Offset => "_offset",
            Hidden::Commit => "_commit",
            Hidden::IngestedAt => "_ingested_at",
            Hidden::RowId => ROW_ID,
            Hidden::Version => VERSION,
            Hidden::Deleted => DELETED,
        }
    }

    pub fn data_type(self) -> DataType {
        match self {
            Hidden::Partition => DataType::Int32,
            Hidden::Offset | Hidden::Commit | Hidden::RowId => DataType::Int64,
            Hidden::IngestedAt | Hidden::Version => TIMESTAMP,
            Hidden::Deleted => DataType::Boolean,
        }
    }

    pub fn find(name: &str) -> Option<Hidden> {
        Hidden::ALL.into_iter().find(|hidden| hidden.name() == name)
    }

    pub fn field(self) -> Field {
        Field::new(self.name(), self.data_type(), false)
    }
}

/// Which column of a relation a column of its [`RelationSource`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceColumn {
    /// Index in [`Relation::columns`].
    User(usize),
    Hidden(Hidden),
}

/// A relation as a plan scans it: its columns, then the hidden ones that the statement names.
#[derive(Debug)]
pub struct RelationSource {
    relation: Arc<Relation>,
    hidden: Vec<Hidden>,
    schema: SchemaRef,
    constraints: Constraints,
    history: bool,
}

impl RelationSource {
    /// `hidden` counts where the relation has them, and gives way to columns of the user's with the same name.
    pub fn new(relation: Arc<Relation>, hidden: &[Hidden]) -> RelationSource {
        let of_kind = |h: &Hidden| if *h == Hidden::RowId { relation.has_row_id() } else { relation.kind == Kind::Stream };
        let offered = |h: &Hidden| of_kind(h) && relation.column(h.name()).is_none();
        let hidden: Vec<Hidden> = hidden.iter().copied().filter(offered).collect();
        let mut fields = relation.schema().fields().to_vec();
        fields.extend(hidden.iter().map(|h| Arc::new(h.field())));
        let key = || vec![Constraint::PrimaryKey(relation.primary_key.clone())];
        let keyed = relation.kind == Kind::Table && !relation.primary_key.is_empty();
        let constraints = Constraints::new_unverified(if keyed { key() } else { Vec::new() });
        RelationSource { schema: Arc::new(Schema::new(fields)), relation, hidden, constraints, history: false }
    }

    /// All versions of a table's rows ([`crate::flow::history`]).
    pub fn history(relation: Arc<Relation>) -> RelationSource {
        let schema = history_schema(&relation.schema());
        let hidden = vec![Hidden::Version, Hidden::Offset, Hidden::Commit, Hidden::Deleted];
        RelationSource { relation, hidden, schema, constraints: Constraints::new_unverified(Vec::new()), history: true }
    }

    /// It reads versions of rows instead of rows.
    pub fn is_history(&self) -> bool {
        self.history
    }

    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    pub fn hidden(&self) -> &[Hidden] {
        &self.hidden
    }

    /// What column `index` of the source's schema is.
    pub fn column(&self, index: usize) -> SourceColumn {
        match index.checked_sub(self.relation.columns.len()) {
            None => SourceColumn::User(index),
            Some(hidden) => SourceColumn::Hidden(self.hidden[hidden]),
        }
    }

    /// The relation's source that a scan reads, unless it reads something else (a system relation).
    pub fn of(scan: &TableScan) -> Option<&RelationSource> {
        scan.source.downcast_ref::<RelationSource>()
    }

    /// All that a plan reads, subqueries included, each relation once, in order of appearance.
    pub fn all_in(plan: &LogicalPlan) -> Vec<Arc<Relation>> {
        use datafusion::common::tree_node::TreeNodeRecursion;
        let mut found: Vec<Arc<Relation>> = Vec::new();
        let visited = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(source) = RelationSource::of(scan)
                && !found.iter().any(|r| r.id == source.relation.id)
            {
                found.push(Arc::clone(&source.relation));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "the visitor itself never fails");
        found
    }
}

/// The columns of a scan's output, as columns of its relation.
pub fn scan_columns(scan: &TableScan, source: &RelationSource) -> Vec<SourceColumn> {
    match &scan.projection {
        Some(projection) => projection.iter().map(|&index| source.column(index)).collect(),
        None => (0..source.schema.fields().len()).map(|index| source.column(index)).collect(),
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }
}

/// The rows of `generate_series` or `range` of constants, if that is what is scanned; in batches of so many rows.
pub fn series(scan: &TableScan, batch_rows: usize) -> Option<Result<Arc<RwLock<dyn LazyBatchGenerator>>>> {
    let provider = source_as_provider(&scan.source).ok()?;
    Some(provider.downcast_ref::<GenerateSeriesTable>()?.as_generator(batch_rows).map_err(Into::into))
}
