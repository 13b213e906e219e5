//! ALTER … RENAME TO and SET SCHEMA: another name for a relation, in its own definition and in those that name it.
//!
//! What runs refers to a relation by its id, and goes on. Definitions are kept as text, and read again at a start: the commit that
//! gives the name changes them too ([`crate::sql::rename`]). Each is planned before that, over the names of before and of after,
//! and has to read the same relations into the same columns; otherwise the new name is refused.

use std::sync::Arc;

use super::client::done;
use super::define::{check_kind, check_new_name, existing, free_name};
use super::definition::after;
use super::names::existing_schema;
use super::read::planner_over;
use super::{Client, Outcome};
use crate::catalog::rights::Rights;
use crate::catalog::schema::{RelationName, SearchPath};
use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::ingest::CompiledRelation;
use crate::sql::ast::{NewName, ObjectType, Rename};
use crate::sql::plan::names::fold;
use crate::sql::plan::{Planner, Reader, RelationSource};
use crate::sql::rename::{Renaming, Scope};

impl Client {
    pub(super) async fn rename(&mut self, rename: &Rename) -> Result<Outcome> {
        let tag = match rename.object {
            ObjectType::Index => return self.rename_index(rename).await,
            ObjectType::Stream => "ALTER STREAM",
            ObjectType::MaterializedView => "ALTER MATERIALIZED VIEW",
            ObjectType::View => "ALTER VIEW",
            _ => "ALTER TABLE",
        };
        self.beside_block(tag)?;
        let Some(from) = self.altered_name(&rename.name, rename.if_exists)? else { return done(tag) };
        let to = match &rename.to {
            NewName::Name(to) => RelationName::new(&from.schema, fold(to)),
            NewName::Schema(to) => RelationName::new(self.new_schema(Some(fold(to)), &from.name)?, &from.name),
        };
        if matches!(rename.to, NewName::Name(_)) {
            check_new_name(&to.name)?;
        }
        let (database, role) = (Arc::clone(&self.database), self.who.current);
        // Those that name it may be others': they are asked no more than in PostgreSQL.
        self.commit_catalog(|catalog| {
            let relation = existing(catalog, &from)?;
            Rights::new(Arc::new(catalog.clone()), role).check_owner(relation)?;
            existing_schema(catalog, &to.schema)?;
            // To ALTER TABLE, every relation is a table.
            if rename.object != ObjectType::Table || relation.parent.is_some() {
                check_kind(relation, rename.object, "ALTER")?;
            }
            if from == to && matches!(rename.to, NewName::Schema(_)) {
                return Ok(Vec::new());
            }
            free_name(catalog, &to)?;
            with_readers(&database, catalog, Vec::new(), renamed(catalog, relation, &to)?, &from.to_string())
        })
        .await?;
        done(tag)
    }
}

/// A relation and those that belong to it, with their new names.
fn renamed(catalog: &Catalog, relation: &Arc<Relation>, to: &RelationName) -> Result<Vec<Relation>> {
    let named = |r: &Relation, name: String| Relation { name, schema: to.schema.clone(), ..r.clone() };
    let mut all = vec![named(relation, to.name.clone())];
    for belonging in catalog.relations().filter(|r| r.parent == Some(relation.id)) {
        let suffix = belonging.name.strip_prefix(relation.name.as_str()).unwrap_or_default();
        let mut belonging = named(belonging, format!("{}{suffix}", to.name));
        free_name(catalog, &belonging.full_name())?;
        // It says what it belongs to.
        let says = belonging.comment.take();
        belonging.comment = says.map(|says| says.replace(&format!("\"{}\"", relation.name), &format!("\"{}\"", to.name)));
        all.push(belonging);
    }
    Ok(all)
}

/// The changes that give relations their new names, after others that these need, with the new names in the texts of all that
/// name them. `what` is renamed, to messages.
pub(super) fn with_readers(
    database: &Database,
    catalog: &Catalog,
    mut changes: Vec<Change>,
    renamed: Vec<Relation>,
    what: &str,
) -> Result<Vec<Change>> {
    let first = changes.len();
    let ids: Vec<RelationId> = renamed.iter().map(|relation| relation.id).collect();
    let reads = |r: &&Arc<Relation>| !ids.contains(&r.id) && r.depends_on.iter().any(|id| ids.contains(id));
    let readers: Vec<Relation> = catalog.relations().filter(reads).map(|reader| Relation::clone(reader)).collect();
    changes.extend(renamed.into_iter().map(Change::Alter));
    let (path, named) = (SearchPath::default(), after(catalog, &changes));
    let scope = |catalog| Scope { catalog, path: &path };
    let renaming = Renaming { from: scope(catalog), to: scope(&named), new: None };
    changes.extend(readers.into_iter().map(Change::Alter));
    for change in &mut changes[first..] {
        let Change::Alter(relation) = change else { continue };
        let refused = |error: Error| refused(what, &relation.name, &error);
        let create_sql = renaming.apply(&relation.create_sql).map_err(refused)?;
        let query = relation.query.as_deref().map(|query| renaming.apply(query)).transpose().map_err(refused)?;
        (relation.create_sql, relation.query) = (create_sql, query);
    }
    let is_changed = |change: &Change| match change {
        Change::Alter(relation) => catalog.get(relation.id).is_none_or(|former| **former != *relation),
        _ => true,
    };
    changes.retain(is_changed);
    let over = |catalog: Catalog| planner_over(database, Arc::new(catalog), Reader::Server);
    let (before, then) = (over(catalog.clone()), over(after(catalog, &changes)));
    for change in &changes {
        if let Change::Alter(relation) = change {
            check(catalog, &before, &then, relation).map_err(|error| refused(what, &relation.name, &error))?;
        }
    }
    Ok(changes)
}

/// A definition means by the new names what it meant by the former ones.
fn check(catalog: &Catalog, before: &Planner, after: &Planner, relation: &Relation) -> Result<()> {
    if relation.kind.in_log() {
        CompiledRelation::compile(Arc::new(relation.clone()), after)?;
    }
    let (Some(former), Some(_)) = (catalog.get(relation.id), &relation.query) else { return Ok(()) };
    let (former, relation) = (before.view(former)?, after.view(relation)?);
    let reads = |plan| RelationSource::all_in(plan).iter().map(|r| r.id).collect::<Vec<_>>();
    let columns = |plan: &datafusion::logical_expr::LogicalPlan| plan.schema().as_arrow().clone();
    match reads(&former) == reads(&relation) && columns(&former) == columns(&relation) {
        true => Ok(()),
        false => Err(Error::dependent_objects("it would read other relations, or have other columns")),
    }
}

fn refused(what: &str, name: &str, error: &Error) -> Error {
    Error::dependent_objects(format!("cannot rename \"{what}\" because the definition of \"{name}\" cannot follow"))
        .with_detail(error.message().to_string())
        .with_hint("DROP what reads it first, and create it again with the new name")
}
