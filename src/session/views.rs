//! Views: making them, and giving them other queries while they run.
//!
//! A materialized view is built first and committed when it is up to date ([`crate::engine::Prepared`]); so a CREATE that fails
//! or is cancelled leaves nothing, and a view that is replaced shows its old rows until the new ones are there. Views that read
//! a replaced one are planned over its new columns and replaced with it; what does not fit is refused before anything is built.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use parking_lot::Mutex;
use sqlparser::ast as sp;

use super::client::done;
use super::define::{check_options, existing, free_name, new_access, new_name, quote_ident, relation_name};
use super::read::planner_over;
use super::{Client, Outcome};
use crate::catalog::acl::{Access, Object, Privilege};
use crate::catalog::rights::Rights;
use crate::catalog::role::SUPERUSER;
use crate::catalog::{Catalog, Change, Column, Kind, NOW, Relation, RelationId};
use crate::database::Database;
use crate::engine::{Prepared, Rebuild};
use crate::error::{Error, Result, SqlState};
use crate::flow::Fragment;
use crate::ingest::interval_option;
use crate::log::{Expect, Transaction};
use crate::sql::ast::CreateView;
use crate::sql::lower::lower;
use crate::sql::plan::columns::{declared, visible_schema};
use crate::sql::plan::names::fold;
use crate::sql::plan::{Planner, Reader, RelationSource, output_key};
use crate::sql::system::visible_name;
use crate::sql::types;

/// Suffix of the relation of a view's late rows.
const LATE_SUFFIX: &str = "$late";

/// Changes of the catalog, and the views that are to be up to date when they are committed.
#[derive(Default)]
pub(super) struct Definition {
    pub changes: Vec<Change>,
    /// Those that read others after them.
    pub views: Vec<(Relation, Fragment)>,
}

/// Ids for the relations that a statement makes; however often it is planned, a name has the same.
pub(super) struct Ids<'a> {
    database: &'a Database,
    given: Mutex<BTreeMap<String, RelationId>>,
}

impl<'a> Ids<'a> {
    pub fn new(database: &'a Database) -> Ids<'a> {
        Ids { database, given: Mutex::default() }
    }

    /// The id that the name has.
    pub fn of(&self, name: &str) -> RelationId {
        *self.given.lock().entry(name.to_string()).or_insert_with(|| self.database.new_relation_id())
    }

    /// The relation with its id.
    pub fn give(&self, relation: Relation) -> Relation {
        Relation { id: self.of(&relation.name), ..relation }
    }
}

impl Client {
    /// Build what is to be built, then commit. Until then, not to await it any more leaves everything as it was. Whatever it is,
    /// the session's role must have the right to it, and owns what it makes.
    pub(super) async fn define(&mut self, plan: impl Fn(&Catalog) -> Result<Definition>) -> Result<()> {
        let role = self.who.current;
        self.commit_defined(|catalog| {
            let mut definition = plan(catalog)?;
            let rights = Rights::new(Arc::new(catalog.clone()), role);
            for (number, change) in definition.changes.iter().enumerate() {
                match change {
                    Change::Create(_) => rights.check_schema(Privilege::Create)?,
                    Change::Alter(relation) => rights.check_owner(relation)?,
                    // The first is what the statement names. Of what follows it, and of what is dropped with something else, the
                    // owner is not asked.
                    Change::Replace(relation) if number == 0 => rights.check_owner(relation)?,
                    Change::Replace(_) | Change::Drop(_) | Change::DropFunction(_) => {}
                    Change::SetFunction(function) => match catalog.function(function.id) {
                        None => rights.check_schema(Privilege::Create)?,
                        Some(former) => rights.check_function_owner(former)?,
                    },
                    Change::SetRole(_) | Change::DropRole(_) | Change::SetAccess(..) => {
                        return Err(Error::internal("roles and privileges are changed elsewhere"));
                    }
                }
            }
            let owned = definition.changes.iter().filter_map(|change| match change {
                Change::Create(relation) if relation.parent.is_none() => new_access(catalog, role, relation),
                Change::SetFunction(function) if catalog.function(function.id).is_none() && role != SUPERUSER => {
                    Some(Change::SetAccess(Object::Function(function.id), Access { owner: role, acl: None }))
                }
                _ => None,
            });
            let owned: Vec<Change> = owned.collect();
            definition.changes.extend(owned);
            Ok(definition)
        })
        .await
    }

    /// The same of what the role has the right to.
    pub(super) async fn commit_defined(&mut self, plan: impl Fn(&Catalog) -> Result<Definition>) -> Result<()> {
        let mut prepared: Option<Prepared> = None;
        loop {
            let at = self.database.log.end();
            let catalog = self.database.log.catalog();
            if prepared.is_some() {
                // It knows then whether what it reads has been replaced.
                self.database.engine.wait_for(at).await?;
            }
            let Definition { changes, views } = plan(&catalog)?;
            if changes.is_empty() {
                return Ok(());
            }
            if !views.is_empty() {
                let rebuild = Rebuild { catalog: Arc::new(after(&catalog, &changes)), views, changes: changes.clone() };
                if !prepared.as_ref().is_some_and(|prepared| prepared.is_for(&rebuild)) {
                    drop(prepared.take());
                    prepared = Some(self.database.engine.prepare(rebuild).await?);
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

    pub(super) async fn create_materialized_view(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE MATERIALIZED VIEW")?;
        let name = new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE MATERIALIZED VIEW");
        }
        check_options(&create.options)?;
        let (database, reader) = (Arc::clone(&self.database), self.reader());
        let ids = Ids::new(&database);
        self.define(|catalog| {
            let former = former(catalog, &name, create.or_replace, Kind::MaterializedView)?;
            define_view(&database, catalog, &reader, create, &name, sql, former, &ids)
        })
        .await?;
        done("CREATE MATERIALIZED VIEW")
    }

    /// `ALTER MATERIALIZED VIEW name AS query`: another query, all else as it is.
    pub(super) async fn alter_view(&mut self, alter: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("ALTER MATERIALIZED VIEW")?;
        let name = relation_name(&alter.name)?;
        // With what follows the query: EMIT.
        let query = sql.find(&alter.query_sql).map_or(alter.query_sql.as_str(), |at| sql[at..].trim_end_matches(';'));
        let (database, reader) = (Arc::clone(&self.database), self.reader());
        let ids = Ids::new(&database);
        self.define(|catalog| {
            let former = former(catalog, &name, true, Kind::MaterializedView)?;
            let Some(former) = former else {
                return Err(Error::undefined_table(format!("materialized view \"{name}\" does not exist")));
            };
            let sql = format!("CREATE MATERIALIZED VIEW {} AS {query}", quote_ident(&name));
            let create = CreateView { options: former.options.clone(), ..alter.clone() };
            define_view(&database, catalog, &reader, &create, &name, &sql, Some(former), &ids)
        })
        .await?;
        done("ALTER MATERIALIZED VIEW")
    }

    pub(super) async fn create_view(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE VIEW")?;
        let name = new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE VIEW");
        }
        let (database, reader) = (Arc::clone(&self.database), self.reader());
        let ids = Ids::new(&database);
        self.define(|catalog| {
            let former = former(catalog, &name, create.or_replace, Kind::View)?;
            let planner = planner_over(&database, Arc::new(catalog.clone()), reader.clone());
            let plan = planner.query(&create.query)?;
            let schema = visible_schema(&plan, planner.catalog());
            let mut view = view_relation(create, &name, sql, &schema, Kind::View)?;
            let read = RelationSource::all_in(&plan);
            view.depends_on = named_relations(&create.query, catalog, |_| true);
            view.depends_on.extend(read.iter().map(|r| r.id));
            view.depends_on.sort_unstable();
            view.depends_on.dedup();
            view.widths = widths_of(catalog, &view);
            view.functions = planner.functions_called();
            let mut definition = Definition::default();
            match former {
                None => definition.changes.push(Change::Create(ids.give(view))),
                Some(former) => {
                    check_cycle(catalog, former, &view)?;
                    let view = Relation { id: former.id, comment: former.comment.clone(), ..view };
                    definition.changes.push(Change::Alter(view));
                    replace_dependents(&database, catalog, former, &mut definition, &ids)?;
                }
            }
            Ok(definition)
        })
        .await?;
        done("CREATE VIEW")
    }

    /// `PAUSE name`: a view and those that read it keep the rows that they have.
    pub(super) async fn pause(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        self.beside_block("PAUSE")?;
        let name = relation_name(name)?;
        self.change_catalog(|catalog| {
            let view = existing_view(catalog, &name)?;
            if view.paused.is_some() {
                return Ok(Vec::new());
            }
            let views = with_readers(catalog, view)?.into_iter().filter(|view| view.paused.is_none());
            Ok(views.map(|view| Change::Alter(Relation { paused: Some(NOW), ..Relation::clone(&view) })).collect())
        })
        .await?;
        done("PAUSE")
    }

    /// `RESUME name`: a paused view and those that read it are built again, and swapped in when they have caught up.
    pub(super) async fn resume(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        self.beside_block("RESUME")?;
        let name = relation_name(name)?;
        let database = Arc::clone(&self.database);
        let ids = Ids::new(&database);
        self.define(|catalog| {
            let view = existing_view(catalog, &name)?;
            let mut definition = Definition::default();
            if view.paused.is_none() {
                return Ok(definition);
            }
            let running = Relation { paused: None, ..Relation::clone(view) };
            check_inputs(catalog, &running)?;
            for view in with_readers(catalog, view)?.into_iter().filter(|view| view.paused.is_some()) {
                let planner = planner_over(&database, Arc::new(after(catalog, &definition.changes)), Reader::Server);
                replace_reader(&planner, catalog, &view, &mut definition, &ids)?;
            }
            Ok(definition)
        })
        .await?;
        done("RESUME")
    }
}

/// A materialized view that is to be paused or resumed.
fn existing_view<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Relation>> {
    let relation = existing(catalog, name)?;
    if relation.kind == Kind::MaterializedView {
        return Ok(relation);
    }
    let error = Error::wrong_object_type(format!("\"{name}\" is a {}, which runs no query", relation.kind.noun()));
    Err(error.with_hint("PAUSE and RESUME are for materialized views"))
}

/// A view, then all that read it and keep rows.
fn with_readers(catalog: &Catalog, view: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
    let mut views = vec![Arc::clone(view)];
    for reader in catalog.all_dependents(&[view.id]) {
        match reader.kind {
            Kind::MaterializedView => views.push(reader),
            Kind::View | Kind::Late => {}
            kind => {
                let (word, name) = (kind.noun(), &reader.name);
                let message = format!("cannot pause materialized view {} because {word} {name} is written from it", view.name);
                return Err(Error::dependent_objects(message).with_hint(format!("DROP the {word} first")));
            }
        }
    }
    Ok(views)
}

/// What runs cannot read what stands still.
fn check_inputs(catalog: &Catalog, view: &Relation) -> Result<()> {
    let paused = view.depends_on.iter().filter_map(|id| catalog.get(*id)).find(|r| r.paused.is_some());
    match paused {
        Some(paused) => Err(Error::not_ready(format!("\"{}\" is paused, so \"{}\" cannot read it", paused.name, view.name))
            .with_hint(format!("RESUME {} first", paused.name))),
        None => Ok(()),
    }
}

/// The relation that OR REPLACE replaces; without it, the name has to be free.
fn former<'a>(catalog: &'a Catalog, name: &str, or_replace: bool, kind: Kind) -> Result<Option<&'a Arc<Relation>>> {
    match catalog.find(name) {
        Some(former) if or_replace && former.kind == kind => Ok(Some(former)),
        Some(former) if or_replace => {
            let message = format!("\"{name}\" is a {}, not a {}", former.kind.noun(), kind.noun());
            Err(Error::wrong_object_type(message).with_hint("DROP it first, or choose another name"))
        }
        _ => free_name(catalog, name).map(|()| None),
    }
}

#[expect(clippy::too_many_arguments, reason = "a statement, what it is about, and who says it")]
fn define_view(
    database: &Database,
    catalog: &Catalog,
    asks: &Reader,
    create: &CreateView,
    name: &str,
    sql: &str,
    former: Option<&Arc<Relation>>,
    ids: &Ids<'_>,
) -> Result<Definition> {
    let (view, fragment) = plan_view(database, catalog, asks, create, name, sql)?;
    let mut definition = Definition::default();
    match former {
        None => {
            let view = ids.give(view);
            definition.changes.push(Change::Create(view.clone()));
            definition.add(catalog, view, fragment, ids)?;
        }
        Some(former) => {
            check_cycle(catalog, former, &view)?;
            let view = Relation { id: former.id, comment: former.comment.clone(), ..view };
            definition.changes.push(Change::Replace(view.clone()));
            definition.add(catalog, view, fragment, ids)?;
            replace_dependents(database, catalog, former, &mut definition, ids)?;
        }
    }
    Ok(definition)
}

impl Definition {
    /// A view whose own change is said already, with what becomes of its late rows.
    pub fn add(&mut self, catalog: &Catalog, view: Relation, fragment: Fragment, ids: &Ids<'_>) -> Result<()> {
        let old = catalog.relations().find(|r| r.kind == Kind::Late && r.parent == Some(view.id));
        let new = fragment.late_schema.as_ref().map(|schema| late_relation(&view, schema));
        match (old, new) {
            (None, None) => {}
            (None, Some(late)) => {
                free_name(catalog, &late.name)?;
                self.changes.push(Change::Create(ids.give(late)));
            }
            (Some(old), Some(late)) => self.changes.push(Change::Replace(Relation { id: old.id, ..late })),
            (Some(old), None) => self.changes.push(Change::Drop(old.id)),
        }
        self.views.push((view, fragment));
        Ok(())
    }
}

/// A view must not come to read itself.
fn check_cycle(catalog: &Catalog, former: &Relation, view: &Relation) -> Result<()> {
    let behind: HashSet<RelationId> = catalog.all_dependents(&[former.id]).iter().map(|r| r.id).chain([former.id]).collect();
    match view.depends_on.iter().any(|id| behind.contains(id)) {
        true => Err(Error::invalid_object_definition(format!("{} \"{}\" would read itself", view.kind.noun(), view.name))),
        false => Ok(()),
    }
}

/// Plan the readers of a relation over its new definition: materialized views are replaced with it, of others it is enough that
/// their queries still mean something.
pub(super) fn replace_dependents(
    database: &Database,
    catalog: &Catalog,
    former: &Relation,
    definition: &mut Definition,
    ids: &Ids<'_>,
) -> Result<()> {
    let mut problems = Vec::new();
    for reader in catalog.all_dependents(&[former.id]) {
        let (reader, moved) = with_new_widths(catalog, &definition.changes, &reader);
        if moved && reader.kind == Kind::View {
            definition.changes.push(Change::Alter(reader.clone()));
        }
        let planner = planner_over(database, Arc::new(after(catalog, &definition.changes)), Reader::Server);
        let followed = match reader.kind {
            Kind::Late => Ok(()),
            Kind::View => check_reader(&planner, &reader),
            Kind::MaterializedView if reader.paused.is_some() => Err(Error::not_ready("it is paused: RESUME it first")),
            Kind::MaterializedView => {
                // What is made over something new is made with the functions that there are now.
                let reader = Relation { functions: Vec::new(), ..Relation::clone(&reader) };
                replace_reader(&planner, catalog, &reader, definition, ids)
            }
            kind => Err(Error::dependent_objects(format!("a {} cannot be made anew: its rows are in the log", kind.noun()))),
        };
        if let Err(error) = followed {
            problems.push(format!("{} {}: {}", reader.kind.noun(), reader.name, error.message()));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("cannot replace {} {} because other objects depend on it as it is", former.kind.noun(), former.name);
    let hint = "keep the names and types of the columns that they read, or DROP them first and create them again after it";
    Err(Error::dependent_objects(message).with_detail(problems.join("\n")).with_hint(hint))
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

fn check_reader(planner: &Planner, view: &Relation) -> Result<()> {
    let plan = planner.view(view)?;
    check_columns(view, plan.schema().fields())
}

fn replace_reader(
    planner: &Planner,
    catalog: &Catalog,
    view: &Relation,
    definition: &mut Definition,
    ids: &Ids<'_>,
) -> Result<()> {
    let plan = planner.continuous_view(view)?;
    let fragment = lower(planner, &plan, view.emit)?;
    check_columns(view, fragment.edge.schema.fields())?;
    let mut view = view.clone();
    view.functions = planner.functions_called();
    for (column, field) in view.columns.iter_mut().zip(fragment.edge.schema.fields()) {
        column.nullable = field.is_nullable();
    }
    view.primary_key = output_key(&plan).unwrap_or_default();
    view.paused = None;
    definition.changes.push(Change::Replace(view.clone()));
    definition.add(catalog, view, fragment, ids)
}

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

/// The catalog with these changes.
pub(super) fn after(catalog: &Catalog, changes: &[Change]) -> Catalog {
    let mut after = catalog.clone();
    changes.iter().for_each(|change| after.apply(change));
    after
}

fn plan_view(
    database: &Database,
    catalog: &Catalog,
    asks: &Reader,
    create: &CreateView,
    name: &str,
    sql: &str,
) -> Result<(Relation, Fragment)> {
    let planner = planner_over(database, Arc::new(catalog.clone()), asks.clone());
    let plan = planner.continuous(&create.query)?;
    let fragment = lower(&planner, &plan, create.emit)?;
    let schema = declared(&fragment.edge.schema, &plan, catalog);
    let mut view = view_relation(create, name, sql, &schema, Kind::MaterializedView)?;
    // Kept anyway: AS OF reads every commit that the log holds.
    interval_option(&view, "history", "1 hour", 0)?;
    view.primary_key = output_key(&plan).unwrap_or_default();
    // Its operators read what plain views are made of; its text names these views, too.
    let plain = named_relations(&create.query, catalog, |r| r.kind == Kind::View);
    view.depends_on = RelationSource::all_in(&plan).iter().map(|r| r.id).chain(plain).collect();
    view.widths = widths_of(catalog, &view);
    view.functions = planner.functions_called();
    check_inputs(catalog, &view)?;
    Ok((view, fragment))
}

/// How many columns the relations that a view reads have now.
pub(super) fn widths_of(catalog: &Catalog, view: &Relation) -> BTreeMap<RelationId, usize> {
    view.depends_on.iter().filter_map(|id| Some((*id, catalog.get(*id)?.columns.len()))).collect()
}

/// Relations of a kind that a query names.
fn named_relations(query: &sp::Query, catalog: &Catalog, counts: impl Fn(&Relation) -> bool) -> Vec<RelationId> {
    let mut ids = Vec::new();
    let _: std::ops::ControlFlow<()> = sp::visit_relations(query, |name| {
        if let Some(relation) = relation_name(name).ok().and_then(|name| catalog.find(&name))
            && counts(relation)
            && !ids.contains(&relation.id)
        {
            ids.push(relation.id);
        }
        std::ops::ControlFlow::Continue(())
    });
    ids
}

/// The relation of a view; its id is still to be chosen.
pub(super) fn view_relation(create: &CreateView, name: &str, sql: &str, schema: &SchemaRef, kind: Kind) -> Result<Relation> {
    let given: Vec<String> = create.columns.iter().map(fold).collect();
    if !given.is_empty() && given.len() != schema.fields().len() {
        let (wanted, got) = (schema.fields().len(), given.len());
        return Err(Error::invalid_object_definition(format!("{got} column names for the {wanted} columns of the query")));
    }
    let column = |(at, field): (usize, &Arc<Field>)| {
        let name = given.get(at).map_or_else(|| visible_name(field.name()).to_string(), String::clone);
        Column { name, ..computed(field) }
    };
    let columns: Vec<Column> = schema.fields().iter().enumerate().map(column).collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|c| !seen.insert(c.name.as_str())) {
        return Err(Error::duplicate_column(format!("column \"{}\" specified more than once", twice.name))
            .with_hint("give the columns names with AS"));
    }
    Ok(Relation {
        options: create.options.clone(),
        create_sql: sql.to_string(),
        query: Some(create.query_sql.clone()),
        emit: create.emit,
        ..Relation::new(0, name, kind, columns)
    })
}

/// A column that a query computes.
fn computed(field: &Arc<Field>) -> Column {
    Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        sql_type: types::field_type(field),
        nullable: field.is_nullable(),
        default: None,
        generated: None,
        comment: None,
    }
}

/// `view$late`: the rows that windows and joins with a bound on time left out, with the window that was missed.
pub(super) fn late_relation(view: &Relation, schema: &SchemaRef) -> Relation {
    let columns = schema.fields().iter().map(computed).collect();
    Relation {
        parent: Some(view.id),
        comment: Some(format!("rows that came too late for \"{}\"", view.name)),
        ..Relation::new(0, format!("{}{LATE_SUFFIX}", view.name), Kind::Late, columns)
    }
}
