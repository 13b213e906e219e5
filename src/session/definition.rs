//! What a statement makes of the catalog: one commit of changes, when the views that belong to it are up to date.
//!
//! A statement says its changes against the catalog that is current ([`Definition`]), and says them again if that has changed
//! meanwhile. Materialized views are built first and committed when they have caught up ([`Prepared`]); so a CREATE that fails or
//! is cancelled leaves nothing, and a view that is replaced shows its old rows until the new ones are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Client;
use super::define::{free_name, new_access};
use super::read::planner_over;
use super::views::late_relation;
use crate::catalog::acl::{Access, Object, Privilege};
use crate::catalog::rights::Rights;
use crate::catalog::role::{RoleId, SUPERUSER};
use crate::catalog::schema::{PUBLIC, RelationName, SearchPath};
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId};
use crate::database::Database;
use crate::engine::{Prepared, Rebuild};
use crate::error::{Error, Result, SqlState};
use crate::flow::Fragment;
use crate::log::{Expect, Transaction};
use crate::sql::plan::{Planner, Reader};

/// The ids of what a statement makes, by name: the same however often it is planned.
type Ids = Mutex<BTreeMap<RelationName, RelationId>>;

/// Changes of the catalog, and the views that are to be up to date when they are committed.
pub(super) struct Definition<'a> {
    pub database: &'a Database,
    /// As it is before the changes.
    pub catalog: &'a Arc<Catalog>,
    /// Who makes them, and what names mean to them.
    reader: &'a Reader,
    path: &'a SearchPath,
    session_database: &'a str,
    ids: &'a Ids,
    pub changes: Vec<Change>,
    /// Those that read others after them.
    views: Vec<(Relation, Fragment)>,
}

impl Definition<'_> {
    /// Plans queries of who asks, over what there is before the changes.
    pub fn planner(&self) -> Planner {
        planner_over(self.database, Arc::clone(self.catalog), self.reader.clone())
            .for_session(self.path.clone(), self.session_database)
    }

    /// Plans the queries of views that are there already, over what there is after the changes so far.
    pub fn planner_after(&self) -> Planner {
        planner_over(self.database, Arc::new(after(self.catalog, &self.changes)), Reader::Server)
    }

    /// The id of what is made by this name.
    pub fn id_of(&self, name: RelationName) -> RelationId {
        *self.ids.lock().entry(name).or_insert_with(|| self.database.new_relation_id())
    }

    /// Make a relation, whose name has to be free; returns it with its id.
    pub fn create(&mut self, relation: Relation) -> Result<Relation> {
        let name = relation.full_name();
        free_name(self.catalog, &name)?;
        let relation = Relation { id: self.id_of(name), ..relation };
        self.changes.push(Change::Create(relation.clone()));
        Ok(relation)
    }

    /// What becomes of the late rows of a query whose own change is said already.
    pub fn follow_with_late_rows(&mut self, of: &Relation, fragment: &Fragment) -> Result<()> {
        let old = self.catalog.relations().find(|r| r.kind == Kind::Late && r.parent == Some(of.id));
        let new = fragment.late_schema.as_ref().map(|schema| late_relation(of, schema));
        match (old, new) {
            (None, None) => {}
            (None, Some(late)) => drop(self.create(late)?),
            (Some(old), Some(late)) => self.changes.push(Change::Replace(Relation { id: old.id, ..late })),
            (Some(old), None) => self.changes.push(Change::Drop(old.id)),
        }
        Ok(())
    }

    /// Build a view whose own change is said already.
    pub fn build(&mut self, view: Relation, fragment: Fragment) -> Result<()> {
        self.follow_with_late_rows(&view, &fragment)?;
        self.views.push((view, fragment));
        Ok(())
    }

    /// The role must have the right to each change. It owns what it makes.
    fn authorize(&mut self, role: RoleId) -> Result<()> {
        let rights = Rights::new(Arc::clone(self.catalog), role);
        for (number, change) in self.changes.iter().enumerate() {
            match change {
                // What belongs to another may be made by who may make that, or write to it.
                Change::Create(relation) if relation.parent.is_some() => {}
                Change::Create(relation) => rights.check_schema(&relation.schema, Privilege::Create)?,
                Change::Alter(relation) => rights.check_owner(relation)?,
                // The first is what the statement names. Of what follows it, and of what is dropped with something else, the
                // owner is not asked.
                Change::Replace(relation) if number == 0 => rights.check_owner(relation)?,
                Change::Replace(_) | Change::Drop(_) | Change::DropFunction(_) => {}
                Change::SetFunction(function) => match self.catalog.function(function.id) {
                    None => rights.check_schema(PUBLIC, Privilege::Create)?,
                    Some(former) => rights.check_function_owner(former)?,
                },
                Change::SetRole(_)
                | Change::DropRole(_)
                | Change::SetAccess(..)
                | Change::SetSchema(_)
                | Change::DropSchema(_) => {
                    return Err(Error::internal("roles, schemas and privileges are changed elsewhere"));
                }
            }
        }
        let owned = self.changes.iter().filter_map(|change| match change {
            Change::Create(relation) if relation.parent.is_none() => new_access(self.catalog, role, relation),
            Change::SetFunction(function) if self.catalog.function(function.id).is_none() && role != SUPERUSER => {
                Some(Change::SetAccess(Object::Function(function.id), Access { owner: role, acl: None }))
            }
            _ => None,
        });
        let owned: Vec<Change> = owned.collect();
        self.changes.extend(owned);
        Ok(())
    }
}

/// The catalog with these changes.
pub(super) fn after(catalog: &Catalog, changes: &[Change]) -> Catalog {
    let mut after = catalog.clone();
    changes.iter().for_each(|change| after.apply(change));
    after
}

impl Client {
    /// Build what is to be built, then commit. Until then, not to await it any more leaves everything as it was. Whatever it is,
    /// the session's role must have the right to it, and owns what it makes.
    pub(super) async fn define(&mut self, plan: impl Fn(&mut Definition) -> Result<()>) -> Result<()> {
        let role = self.who.current;
        self.commit_defined(|definition| {
            plan(definition)?;
            definition.authorize(role)
        })
        .await
    }

    /// The same for statements that only change the catalog.
    pub(super) async fn change_catalog(&mut self, changes: impl Fn(&Catalog) -> Result<Vec<Change>>) -> Result<()> {
        self.define(|definition| {
            definition.changes = changes(definition.catalog)?;
            Ok(())
        })
        .await
    }

    /// The same for changes whose rights have been checked.
    pub(super) async fn commit_catalog(&mut self, changes: impl Fn(&Catalog) -> Result<Vec<Change>>) -> Result<()> {
        self.commit_defined(|definition| {
            definition.changes = changes(definition.catalog)?;
            Ok(())
        })
        .await
    }

    async fn commit_defined(&mut self, plan: impl Fn(&mut Definition) -> Result<()>) -> Result<()> {
        let (database, reader, path, ids) = (Arc::clone(&self.database), self.reader(), self.path(), Ids::default());
        let session_database = self.database_name.clone();
        let mut prepared: Option<Prepared> = None;
        loop {
            let at = database.log.end();
            let catalog = database.log.catalog();
            if prepared.is_some() {
                // It knows then whether what it reads has been replaced.
                database.engine.wait_for(at).await?;
            }
            let (changes, views) = {
                let (changes, views) = (Vec::new(), Vec::new());
                let mut definition = Definition {
                    database: &database,
                    catalog: &catalog,
                    reader: &reader,
                    path: &path,
                    session_database: &session_database,
                    ids: &ids,
                    changes,
                    views,
                };
                plan(&mut definition)?;
                (definition.changes, definition.views)
            };
            if changes.is_empty() {
                return Ok(());
            }
            if !views.is_empty() {
                let rebuild = Rebuild { catalog: Arc::new(after(&catalog, &changes)), views, changes: changes.clone() };
                if !prepared.as_ref().is_some_and(|prepared| prepared.is_for(&rebuild)) {
                    drop(prepared.take());
                    prepared = Some(database.engine.prepare(rebuild).await?);
                    // The catalog may have changed meanwhile.
                    continue;
                }
            }
            let expect = Some(Expect { unchanged_since: at, relations: Vec::new(), catalog: true });
            let transaction = Transaction { changes, expect, ..Transaction::default() };
            match self.commit_definition(transaction, &mut prepared).await {
                Ok(()) => return self.await_own_writes().await,
                Err(error) if error.state() == SqlState::SerializationFailure => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From here on it is done, even if nobody waits for it any more.
    async fn commit_definition(&mut self, transaction: Transaction, prepared: &mut Option<Prepared>) -> Result<()> {
        let (database, held) = (Arc::clone(&self.database), prepared.take());
        let commit = tokio::spawn(async move {
            let committed = database.log.submit(transaction).await;
            if let Ok(committed) = &committed {
                // What is prepared is held until the engine has it; it says so itself if it stops.
                let _ = database.engine.wait_for(committed.commit).await;
            }
            (committed, held)
        });
        let (committed, held) = commit.await.map_err(|error| Error::internal(format!("committing a definition: {error}")))?;
        *prepared = held;
        self.committed(committed?.commit);
        Ok(())
    }
}
