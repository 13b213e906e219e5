//! Replacing a relation under those that read it.
//!
//! Views that read a replaced one are planned over its new columns and replaced with it; what does not fit is refused before
//! anything is built, with all the readers that stand in the way.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Field;

use super::definition::Definition;
use crate::catalog::{Catalog, Change, Column, Kind, Relation, RelationId};
use crate::error::{Error, Result};
use crate::sql::lower::lower;
use crate::sql::plan::output_key;
use crate::sql::types;

impl Definition<'_> {
    /// Plan the readers of a relation over its new definition: materialized views are replaced with it, of others it is enough
    /// that their queries still mean something.
    pub fn replace_dependents(&mut self, former: &Relation) -> Result<()> {
        let mut problems = Vec::new();
        for reader in self.catalog.all_dependents(&[former.id]) {
            if let Err(error) = self.replace_dependent(&reader) {
                problems.push(format!("{} {}: {}", reader.kind.noun(), reader.name, error.message()));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let message =
            format!("cannot replace {} {} because other objects depend on it as it is", former.kind.noun(), former.name);
        let hint = "keep the names and types of the columns that they read, or DROP them first and create them again after it";
        Err(Error::dependent_objects(message).with_detail(problems.join("\n")).with_hint(hint))
    }

    fn replace_dependent(&mut self, reader: &Relation) -> Result<()> {
        let (reader, moved) = with_new_widths(self.catalog, &self.changes, reader);
        if moved && reader.kind == Kind::View {
            self.changes.push(Change::Alter(reader.clone()));
        }
        match reader.kind {
            Kind::Late => Ok(()),
            Kind::View => check_columns(&reader, self.planner_after().view(&reader)?.schema().fields()),
            Kind::MaterializedView if reader.paused.is_some() => Err(Error::not_ready("it is paused: RESUME it first")),
            // What is made over something new is made with the functions that there are now.
            Kind::MaterializedView => self.rebuild(Relation { functions: Vec::new(), ..reader }),
            Kind::Sink => Err(Error::dependent_objects("a sink has written the rows of before: DROP it first")),
            kind => Err(Error::dependent_objects(format!("a {} cannot be made anew: its rows are in the log", kind.noun()))),
        }
    }

    /// Build a view's query anew, over what there is after the changes so far.
    pub fn rebuild(&mut self, mut view: Relation) -> Result<()> {
        let planner = self.planner_after().for_query(&view.options, &view.name);
        let plan = planner.continuous_view(&view)?;
        let fragment = lower(&planner, &plan, view.emit)?;
        check_columns(&view, fragment.edge.schema.fields())?;
        view.functions = planner.functions_called();
        for (column, field) in view.columns.iter_mut().zip(fragment.edge.schema.fields()) {
            column.nullable = field.is_nullable();
        }
        view.primary_key = output_key(&plan).unwrap_or_default();
        view.paused = None;
        self.changes.push(Change::Replace(view.clone()));
        self.build(view, fragment)
    }
}

/// A view must not come to read itself.
pub(super) fn check_cycle(catalog: &Catalog, former: &Relation, view: &Relation) -> Result<()> {
    let behind: HashSet<RelationId> = catalog.all_dependents(&[former.id]).iter().map(|r| r.id).chain([former.id]).collect();
    match view.depends_on.iter().any(|id| behind.contains(id)) {
        true => Err(Error::invalid_object_definition(format!("{} \"{}\" would read itself", view.kind.noun(), view.name))),
        false => Ok(()),
    }
}

/// A reader of relations that are replaced. It keeps to their former columns if the new ones begin with these, and meets all of
/// them otherwise. Also says whether it does.
fn with_new_widths(catalog: &Catalog, changes: &[Change], reader: &Relation) -> (Relation, bool) {
    let mut reader = reader.clone();
    let mut moved = false;
    for change in changes {
        let (Change::Alter(new) | Change::Replace(new)) = change else { continue };
        let (Some(old), Some(width)) = (catalog.get(new.id), reader.widths.get_mut(&new.id)) else { continue };
        let same = |(a, b): (&Column, &Column)| a.name == b.name && a.data_type == b.data_type;
        let kept = new.columns.len() >= *width && old.columns.iter().zip(&new.columns).take(*width).all(same);
        if !kept {
            (*width, moved) = (new.columns.len(), true);
        }
    }
    (reader, moved)
}

/// Whether a view's columns are still what its query gives.
fn check_columns(view: &Relation, fields: &[Arc<Field>]) -> Result<()> {
    if fields.len() != view.columns.len() {
        let (was, is) = (view.columns.len(), fields.len());
        return Err(Error::invalid_table_definition(format!("it would have {is} columns instead of {was}")));
    }
    match view.columns.iter().zip(fields).find(|(column, field)| column.data_type != *field.data_type()) {
        None => Ok(()),
        Some((column, field)) => {
            let (was, is) = (&column.sql_type, types::sql_type(field.data_type()));
            Err(Error::invalid_table_definition(format!("its column {} would be {is} instead of {was}", column.name)))
        }
    }
}
