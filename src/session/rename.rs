//! ALTER … RENAME TO: another name for a relation, in its own definition and in those that name it.
//!
//! What runs refers to a relation by its id, and goes on. Definitions are kept as text, and read again at a start: the commit that
//! gives the name changes them too ([`crate::sql::rename`]). Each is planned before that, over the names of before and of after,
//! and has to read the same relations into the same columns; otherwise the new name is refused.

use std::sync::Arc;

use super::client::done;
use super::define::{check_kind, check_new_name, existing, free_name, relation_name};
use super::definition::after;
use super::read::planner_over;
use super::{Client, Outcome};
use crate::catalog::rights::Rights;
use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::error::{Error, Result};
use crate::ingest::CompiledRelation;
use crate::sql::ast::{ObjectType, Rename};
use crate::sql::plan::names::fold;
use crate::sql::plan::{Planner, Reader, RelationSource};
use crate::sql::rename::Renaming;

impl Client {
    pub(super) async fn rename(&mut self, rename: &Rename) -> Result<Outcome> {
        let tag = match rename.object {
            ObjectType::Stream => "ALTER STREAM",
            ObjectType::MaterializedView => "ALTER MATERIALIZED VIEW",
            ObjectType::View => "ALTER VIEW",
            _ => "ALTER TABLE",
        };
        self.beside_block(tag)?;
        let (from, to) = (relation_name(&rename.name)?, fold(&rename.to));
        check_new_name(&to)?;
        if rename.if_exists && self.database.log.catalog().find(&from).is_none() {
            self.notices.push(Error::undefined_table(format!("relation \"{from}\" does not exist, skipping")));
            return done(tag);
        }
        let (database, role) = (Arc::clone(&self.database), self.who.current);
        // Those that name it may be others': they are asked no more than in PostgreSQL.
        self.commit_catalog(|catalog| {
            let relation = existing(catalog, &from)?;
            Rights::new(Arc::new(catalog.clone()), role).check_owner(relation)?;
            // To ALTER TABLE, every relation is a table.
            if rename.object != ObjectType::Table || relation.parent.is_some() {
                check_kind(relation, rename.object, "ALTER")?;
            }
            free_name(catalog, &to)?;
            let renamed = renamed(catalog, relation, &to)?;
            let changed = with_readers(catalog, &renamed)?;
            let changes: Vec<Change> = changed.iter().cloned().map(Change::Alter).collect();
            let over = |catalog: Catalog| planner_over(&database, Arc::new(catalog), Reader::Server);
            let (before, after) = (over(catalog.clone()), over(after(catalog, &changes)));
            for relation in &changed {
                check(catalog, &before, &after, relation).map_err(|error| refused(&from, &relation.name, &error))?;
            }
            Ok(changes)
        })
        .await?;
        done(tag)
    }
}

/// A relation and those that belong to it, each with its former name.
fn renamed(catalog: &Catalog, relation: &Arc<Relation>, to: &str) -> Result<Vec<(String, Relation)>> {
    let named = |r: &Relation, name: String| (r.name.clone(), Relation { name, ..r.clone() });
    let mut all = vec![named(relation, to.to_string())];
    for belonging in catalog.relations().filter(|r| r.parent == Some(relation.id)) {
        let suffix = belonging.name.strip_prefix(relation.name.as_str()).unwrap_or_default();
        let name = format!("{to}{suffix}");
        free_name(catalog, &name)?;
        let (from, mut belonging) = named(belonging, name);
        // It says what it belongs to.
        let says = belonging.comment.take();
        belonging.comment = says.map(|says| says.replace(&format!("\"{}\"", relation.name), &format!("\"{to}\"")));
        all.push((from, belonging));
    }
    Ok(all)
}

/// The renamed, and those that name them, with the new names in their texts.
fn with_readers(catalog: &Catalog, renamed: &[(String, Relation)]) -> Result<Vec<Relation>> {
    let ids: Vec<RelationId> = renamed.iter().map(|(_, relation)| relation.id).collect();
    let mut all: Vec<Relation> = renamed.iter().map(|(_, relation)| relation.clone()).collect();
    let reads = |r: &&Arc<Relation>| !ids.contains(&r.id) && r.depends_on.iter().any(|id| ids.contains(id));
    all.extend(catalog.relations().filter(reads).map(|reader| Relation::clone(reader)));
    for relation in &mut all {
        for (from, Relation { name: to, .. }) in renamed {
            let renaming = Renaming { from, to };
            let refused = |error| refused(&renamed[0].0, &relation.name, &error);
            relation.create_sql = renaming.apply(&relation.create_sql).map_err(refused)?;
            relation.query = relation.query.as_deref().map(|query| renaming.apply(query)).transpose().map_err(refused)?;
        }
    }
    all.retain(|relation| catalog.get(relation.id).is_none_or(|former| **former != *relation));
    Ok(all)
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

fn refused(from: &str, name: &str, error: &Error) -> Error {
    let what = if from == name { "its own definition".to_string() } else { format!("the definition of \"{name}\"") };
    Error::dependent_objects(format!("cannot rename \"{from}\" because {what} cannot follow"))
        .with_detail(error.message().to_string())
        .with_hint("DROP what reads it first, and create it again with the new name")
}
