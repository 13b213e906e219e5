//! CREATE, ALTER and DROP INDEX: words of the catalog, kept with the relation they are on.

use std::sync::Arc;

use sqlparser::ast as sp;

use super::client::done;
use super::define::{check_new_name, column_index, existing, free_name};
use super::{Client, Outcome};
use crate::catalog::index::Index;
use crate::catalog::schema::RelationName;
use crate::catalog::{Catalog, Change, Column, Kind, Relation};
use crate::error::{Error, Result};
use crate::sql::ast::{CreateIndex, Drop, NewName, Rename};
use crate::sql::plan::names::fold;

/// As PostgreSQL's max_index_keys.
const COLUMNS: usize = 32;

impl Client {
    pub(super) async fn create_index(&mut self, create: &CreateIndex) -> Result<Outcome> {
        const TAG: &str = "CREATE INDEX";
        self.beside_block(TAG)?;
        let on = self.defined_name(&create.on)?;
        let name = create.name.as_ref().map(|name| RelationName::new(&on.schema, fold(name)));
        if let Some(name) = &name {
            check_new_name(&name.name)?;
            let catalog = self.database.log.catalog();
            if create.if_not_exists && (catalog.named(name).is_some() || catalog.index_named(name).is_some()) {
                self.notices.push(Error::duplicate_table(format!("relation \"{}\" already exists, skipping", name.name)));
                return done(TAG);
            }
        }
        self.define(|definition| {
            let catalog = definition.catalog;
            let mut relation = Relation::clone(existing(catalog, &on)?);
            let columns = indexed_columns(&relation, create)?;
            let name = name.clone().unwrap_or_else(|| free_index_name(catalog, &relation, &columns));
            free_name(catalog, &name)?;
            let (id, name) = (definition.id_of(name.clone()), name.name);
            relation.indexes.push(Index { id, name, columns, unique: create.unique, primary: false, comment: None });
            definition.changes.push(Change::Alter(relation));
            Ok(())
        })
        .await?;
        done(TAG)
    }

    pub(super) async fn drop_indexes(&mut self, drop: &Drop) -> Result<Outcome> {
        const TAG: &str = "DROP INDEX";
        self.beside_block(TAG)?;
        let mut names = Vec::new();
        for name in &drop.names {
            match self.existing_index(name) {
                Err(error) if drop.if_exists => {
                    self.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
                }
                found => names.push(found?.0),
            }
        }
        self.change_catalog(|catalog| {
            let mut changed: Vec<Relation> = Vec::new();
            for name in &names {
                let (relation, index) = made_by_user(catalog, name)?;
                let at = changed.iter().position(|r| r.id == relation.id).unwrap_or_else(|| {
                    changed.push(relation.clone());
                    changed.len() - 1
                });
                changed[at].indexes.retain(|other| other.id != index.id);
            }
            Ok(changed.into_iter().map(Change::Alter).collect())
        })
        .await?;
        done(TAG)
    }

    pub(super) async fn rename_index(&mut self, rename: &Rename) -> Result<Outcome> {
        const TAG: &str = "ALTER INDEX";
        self.beside_block(TAG)?;
        let NewName::Name(to) = &rename.to else {
            return Err(Error::unsupported("an index is in the schema of its relation")
                .with_hint("move the relation with ALTER … SET SCHEMA, and its indexes go with it"));
        };
        let to = fold(to);
        check_new_name(&to)?;
        let name = match self.existing_index(&rename.name) {
            Err(error) if rename.if_exists => {
                self.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
                return done(TAG);
            }
            found => found?.0,
        };
        self.change_catalog(|catalog| {
            free_name(catalog, &RelationName::new(&name.schema, &to))?;
            changed(catalog, &name, |index| index.name.clone_from(&to))
        })
        .await?;
        done(TAG)
    }

    pub(super) async fn comment_on_index(&mut self, name: &RelationName, comment: Option<&str>) -> Result<Outcome> {
        self.change_catalog(|catalog| changed(catalog, name, |index| index.comment = comment.map(str::to_string))).await?;
        done("COMMENT")
    }

    /// An index that must be there: its name, and the relation that it is on.
    pub(super) fn existing_index(&self, name: &sp::ObjectName) -> Result<(RelationName, Arc<Relation>)> {
        let (index, catalog) = (self.index_name(name)?, self.database.log.catalog());
        if catalog.index_named(&index).is_none()
            && let Some(relation) = catalog.named(&self.relation_name(name)?)
        {
            return Err(Error::wrong_object_type(format!("\"{}\" is not an index", relation.name)));
        }
        let (relation, _) = found(&catalog, &index)?;
        let relation = existing(&catalog, &relation.full_name())?;
        Ok((index, Arc::clone(relation)))
    }
}

fn found<'a>(catalog: &'a Catalog, name: &RelationName) -> Result<(&'a Relation, Index)> {
    catalog.index_named(name).ok_or_else(|| Error::undefined_object(format!("index \"{name}\" does not exist")))
}

fn made_by_user<'a>(catalog: &'a Catalog, name: &RelationName) -> Result<(&'a Relation, Index)> {
    let (relation, index) = found(catalog, name)?;
    if index.primary {
        let message = format!("index {name} belongs to the primary key of table {}", relation.full_name());
        return Err(Error::dependent_objects(message).with_hint("it is named after the table, and stays as long as that does"));
    }
    Ok((relation, index))
}

fn changed(catalog: &Catalog, name: &RelationName, change: impl Fn(&mut Index)) -> Result<Vec<Change>> {
    let (relation, changed) = made_by_user(catalog, name)?;
    let mut relation = relation.clone();
    relation.indexes.iter_mut().filter(|index| index.id == changed.id).for_each(change);
    Ok(vec![Change::Alter(relation)])
}

fn indexed_columns(relation: &Relation, create: &CreateIndex) -> Result<Vec<usize>> {
    let noun = relation.kind.noun();
    if !matches!(relation.kind, Kind::Table | Kind::MaterializedView) || relation.parent.is_some() {
        let hint = match relation.kind {
            Kind::Stream => "a stream is read from end to end: index a materialized view over it",
            _ => "indexes are on tables and materialized views",
        };
        return Err(Error::wrong_object_type(format!("cannot create index on {noun} \"{}\"", relation.name)).with_hint(hint));
    }
    if create.columns.len() > COLUMNS {
        return Err(Error::limit_exceeded(format!("cannot use more than {COLUMNS} columns in an index")));
    }
    for column in &create.mentioned {
        column_index(&relation.columns, column, &relation.name)?;
    }
    let mut columns: Vec<usize> = Vec::new();
    for column in &create.columns {
        let at = column_index(&relation.columns, column, &relation.name)?;
        if columns.contains(&at) {
            let name = &relation.columns[at].name;
            return Err(Error::duplicate_column(format!("column \"{name}\" is named twice in the index")));
        }
        if relation.columns[at].data_type.is_nested() {
            let Column { name, sql_type, .. } = &relation.columns[at];
            let message = format!("column \"{name}\" of type {sql_type} cannot be in an index");
            return Err(Error::unsupported(message).with_hint("index a column of a view that takes out of it what is looked up"));
        }
        columns.push(at);
    }
    // Nothing but the key keeps two rows from being the same in some columns.
    let key = &relation.primary_key;
    if create.unique && (key.is_empty() || !key.iter().all(|column| columns.contains(column))) {
        let hint = match relation.kind {
            Kind::Table => "leave UNIQUE out; what has to be unique is the PRIMARY KEY of its table",
            _ => "leave UNIQUE out, or GROUP BY these columns in the view: that makes them its key",
        };
        let message = format!("nothing makes these columns unique in {noun} \"{}\"", relation.name);
        return Err(Error::unsupported(message).with_hint(hint));
    }
    Ok(columns)
}

/// `t_a_b_idx`, with a number if that is taken.
fn free_index_name(catalog: &Catalog, relation: &Relation, columns: &[usize]) -> RelationName {
    let names: Vec<&str> = columns.iter().map(|column| relation.columns[*column].name.as_str()).collect();
    let mut stem = format!("{}_{}", relation.name, names.join("_"));
    while stem.len() > 55 {
        stem.pop();
    }
    let numbers = std::iter::once(String::new()).chain((1..).map(|number: u32| number.to_string()));
    let mut candidates = numbers.map(|number| RelationName::new(&relation.schema, format!("{stem}_idx{number}")));
    candidates.find(|name| free_name(catalog, name).is_ok()).expect("there are more numbers than names")
}
