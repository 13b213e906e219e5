//! What a query reads: streams as the log gives them, tables, views.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use super::{Lowered, Lowering, arrow_schema, lower};
use crate::catalog::{Emit, Kind, Relation};
use crate::error::{Error, Result};
use crate::flow::graph::HIDDEN_COLUMNS;
use crate::flow::history::history_schema;
use crate::flow::{Edge, Input, TimeColumn};
use crate::sql::plan::source::scan_columns;
use crate::sql::plan::{Hidden, RelationSource, SourceColumn};

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Lowered> {
        let source = RelationSource::of(scan)
            .ok_or_else(|| Error::unsupported(format!("a continuous query cannot read {}", scan.table_name)))?;
        let relation = self.widest(source.relation());
        let columns = scan_columns(scan, source);
        let whole = match relation.kind {
            _ if source.is_history() => history(&relation),
            Kind::Stream => stream(&relation, columns.iter().any(|c| matches!(c, SourceColumn::Hidden(_)))),
            Kind::Table | Kind::Late => rows(&relation),
            Kind::MaterializedView => self.view(&relation)?,
            Kind::View | Kind::Query | Kind::Sink => return Err(Error::internal("a plain view was not replaced by its query")),
        };
        let user_columns = relation.columns.len();
        let skipped = usize::from(relation.has_row_id());
        let index = |column: &SourceColumn| match column {
            SourceColumn::User(index) => index + skipped,
            SourceColumn::Hidden(Hidden::RowId) => 0,
            SourceColumn::Hidden(hidden) if source.is_history() => {
                user_columns + source.hidden().iter().position(|h| h == hidden).expect("all are listed")
            }
            SourceColumn::Hidden(hidden) => user_columns + Hidden::ALL.iter().position(|h| h == hidden).expect("all are listed"),
        };
        let indices: Vec<usize> = columns.iter().map(index).collect();
        if let Some(filter) = scan.filters.first() {
            return Err(Error::internal(format!("the filter {filter} was pushed into a scan")));
        }
        Ok(self.pick(whole, &indices, arrow_schema(&scan.projected_schema)))
    }

    /// Before anything is lowered: what the scans of a plan know of their relations, those of linear views among them.
    pub(super) fn note_widths(&mut self, plan: &LogicalPlan) -> Result<()> {
        for relation in RelationSource::all_in(plan) {
            match relation.kind {
                Kind::Stream | Kind::Table => {
                    let width = relation.stored_schema().fields().len();
                    let widest = self.widths.entry(relation.id).or_insert(width);
                    *widest = width.max(*widest);
                }
                Kind::MaterializedView => {
                    let view = self.widest(&relation);
                    let plan = self.planner.continuous_view(&view)?;
                    if view.emit == Emit::Changes && is_linear(&plan) {
                        self.note_widths(&plan)?;
                    }
                }
                Kind::View | Kind::Late | Kind::Query | Kind::Sink => {}
            }
        }
        Ok(())
    }

    /// A relation as its widest scan sees it; a view as it is.
    pub(super) fn widest(&self, relation: &Arc<Relation>) -> Arc<Relation> {
        let Some(whole) = self.planner.catalog().get(relation.id) else { return Arc::clone(relation) };
        match self.widths.get(&relation.id) {
            Some(width) if *width < whole.stored_schema().fields().len() => {
                Arc::new(whole.narrowed(width - usize::from(whole.has_row_id())))
            }
            _ => Arc::clone(whole),
        }
    }

    /// The changes of a view's rows. A view that only selects from streams is computed again in place, because the watermark
    /// before each row's commit is known only on the way from the log.
    pub(super) fn view(&mut self, view: &Arc<Relation>) -> Result<Lowered> {
        let plan = self.planner.continuous_view(view)?;
        if view.emit == Emit::Changes && is_linear(&plan) {
            self.text.push_str(&format!("\n{}", plan.display_indent()));
            let lowered = self.lower(&plan)?;
            return Ok(self.fit(lowered, &view.schema()));
        }
        let edge = lower(self.planner, &plan, view.emit)?.edge;
        Ok(Lowered { inputs: vec![Input::Relation(view.id)], edge: Edge { schema: view.schema(), ..edge } })
    }
}

/// The rows of a stream as the log gives them.
fn stream(relation: &Relation, hidden: bool) -> Lowered {
    let schema = if hidden {
        let fields = HIDDEN_COLUMNS.map(|(name, t)| Arc::new(arrow::datatypes::Field::new(name, t, false)));
        Arc::new(Schema::new(relation.schema().fields().iter().cloned().chain(fields).collect::<Vec<_>>()))
    } else {
        relation.schema()
    };
    let times = relation.watermark.iter().map(|w| TimeColumn { column: w.column, delay: 0, hard: false }).collect();
    let sources = relation.watermark.iter().map(|_| relation.id).collect();
    let input = if hidden { Input::WithHidden(relation.id) } else { Input::Relation(relation.id) };
    Lowered { inputs: vec![input], edge: Edge { schema, append_only: true, key: None, sources, times, window: None } }
}

/// The versions of a table's rows.
fn history(relation: &Relation) -> Lowered {
    let time = relation.watermark.as_ref().map(|watermark| watermark.column);
    let version = relation.columns.len();
    let times = time.iter().map(|_| TimeColumn { column: version, delay: 0, hard: false }).collect();
    let sources = time.iter().map(|_| relation.id).collect();
    let schema = history_schema(&relation.schema());
    let edge = Edge { schema, append_only: true, key: None, sources, times, window: None };
    Lowered { inputs: vec![Input::Versions { table: relation.id, time }], edge }
}

/// The changes of rows that are kept.
fn rows(relation: &Relation) -> Lowered {
    let append_only = relation.kind == Kind::Late;
    let key = (relation.kind == Kind::Table).then(|| relation.stored_key());
    let edge = Edge { schema: relation.stored_schema(), append_only, key, sources: Vec::new(), times: Vec::new(), window: None };
    Lowered { inputs: vec![Input::Relation(relation.id)], edge }
}

/// Row by row from streams, through nothing that keeps state.
fn is_linear(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            RelationSource::of(scan).is_some_and(|s| matches!(s.relation().kind, Kind::Stream | Kind::MaterializedView))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().all(is_linear),
        _ => false,
    }
}
