//! Views: making them, giving them other queries, pausing them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use sqlparser::ast as sp;
use sqlparser::ast::{Visit, Visitor};

use super::client::done;
use super::define::{RETENTION, existing, free_name};
use super::definition::Definition;
use super::read::STOPPED_OUTPUT;
use super::replace::check_cycle;
use super::{Client, Outcome};
use crate::catalog::schema::{RelationName, SearchPath};
use crate::catalog::{Catalog, Change, Column, Kind, NOW, Relation, RelationId};
use crate::error::{Error, Result};
use crate::flow::Fragment;
use crate::ingest::interval_option;
use crate::sql::ast::CreateView;
use crate::sql::lower::lower;
use crate::sql::plan::columns::{declared, visible_schema};
use crate::sql::plan::names::{Ctes, fold, fold_object, read_by};
use crate::sql::plan::{RelationSource, output_key};
use crate::sql::system::visible_name;
use crate::sql::types;

/// Suffix of the relation of a view's late rows.
const LATE_SUFFIX: &str = "$late";

impl Client {
    pub(super) async fn create_materialized_view(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE MATERIALIZED VIEW")?;
        let name = self.new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE MATERIALIZED VIEW");
        }
        self.check_query_options(&create.options)?;
        self.define(|definition| {
            let former = former(definition.catalog, &name, create.or_replace, Kind::MaterializedView)?;
            define_view(definition, create, &name, sql, former)
        })
        .await?;
        done("CREATE MATERIALIZED VIEW")
    }

    /// `ALTER MATERIALIZED VIEW name AS query`, `ALTER STREAM name AS query`: another query, all else as it is.
    pub(super) async fn alter_view(&mut self, alter: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("ALTER MATERIALIZED VIEW")?;
        let name = self.defined_name(&alter.name)?;
        // With what follows the query: EMIT.
        let query = sql.find(&alter.query_sql).map_or(alter.query_sql.as_str(), |at| sql[at..].trim_end_matches(';'));
        if self.database.log.catalog().named(&name).is_some_and(|relation| relation.is_derived()) {
            self.alter_stream_query(&name, alter, query).await?;
            return done("ALTER STREAM");
        }
        self.define(|definition| {
            let former = former(definition.catalog, &name, true, Kind::MaterializedView)?;
            let Some(former) = former else {
                return Err(Error::undefined_table(format!("materialized view \"{name}\" does not exist")));
            };
            let sql = format!("CREATE MATERIALIZED VIEW {}{} AS {query}", name.to_kept_sql(), with_clause(&former.options));
            let create = CreateView { options: former.options.clone(), ..alter.clone() };
            define_view(definition, &create, &name, &sql, Some(former))
        })
        .await?;
        done("ALTER MATERIALIZED VIEW")
    }

    pub(super) async fn create_view(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE VIEW")?;
        let name = self.new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE VIEW");
        }
        self.define(|definition| {
            let catalog = definition.catalog;
            let former = former(catalog, &name, create.or_replace, Kind::View)?;
            let planner = definition.planner();
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
            let Some(former) = former else { return definition.create(view).map(drop) };
            check_cycle(catalog, former, &view)?;
            let view = Relation { id: former.id, comment: former.comment.clone(), ..view };
            definition.changes.push(Change::Alter(view));
            definition.replace_dependents(former)
        })
        .await?;
        done("CREATE VIEW")
    }

    /// `PAUSE name`: a view and those that read it keep the rows that they have; what a query writes to gets no more.
    pub(super) async fn pause(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        self.beside_block("PAUSE")?;
        let name = self.defined_name(name)?;
        self.change_catalog(|catalog| {
            let query = existing_query(catalog, &name)?;
            if query.paused.is_some() {
                return Ok(Vec::new());
            }
            let queries = with_readers(catalog, query).into_iter().filter(|query| query.paused.is_none());
            Ok(queries.map(|view| Change::Alter(Relation { paused: Some(NOW), ..Relation::clone(&view) })).collect())
        })
        .await?;
        done("PAUSE")
    }

    /// `RESUME name`: a view that is paused or has stopped, and those that read it, are built again, and swapped in when they have
    /// caught up. What writes to the log goes on where it was.
    pub(super) async fn resume(&mut self, name: &sp::ObjectName) -> Result<Outcome> {
        self.beside_block("RESUME")?;
        let name = self.defined_name(name)?;
        let resumed = parking_lot::Mutex::new(Vec::new());
        let snapshot = self.peek_snapshot();
        let stopped = |query: &Relation| snapshot.failures.get(&query.id);
        let stands = |query: &Relation| query.paused.is_some() || query.output.is_none() && stopped(query).is_some();
        self.define(|definition| {
            let catalog = definition.catalog;
            let query = existing_query(catalog, &name)?;
            resumed.lock().clear();
            if !stands(query) {
                return stopped(query).map_or(Ok(()), |error| Err(cannot_go_on(query, error)));
            }
            let running = Relation { paused: None, ..Relation::clone(query) };
            check_inputs(catalog, &running)?;
            for query in with_readers(catalog, query).into_iter().filter(|query| stands(query)) {
                let running = Relation { paused: None, ..Relation::clone(&query) };
                match query.output {
                    None => definition.rebuild(running)?,
                    Some(_) => {
                        resumed.lock().push(query.full_name());
                        definition.changes.push(Change::Alter(running));
                    }
                }
            }
            Ok(())
        })
        .await?;
        for query in resumed.into_inner() {
            self.await_query(&query).await?;
        }
        done("RESUME")
    }
}

/// The options of a query as they are written, if there are some.
pub(super) fn with_clause(options: &BTreeMap<String, String>) -> String {
    let options: Vec<String> = options.iter().map(|(key, value)| format!("{key} = '{}'", value.replace('\'', "''"))).collect();
    if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) }
}

/// What it wrote is in the log, and it would stop where it stopped.
fn cannot_go_on(query: &Relation, error: &Error) -> Error {
    let error = error.clone().with_context(format!("\"{}\" has stopped", query.name));
    error.with_hint(STOPPED_OUTPUT)
}

/// A query that is to be paused or resumed.
fn existing_query<'a>(catalog: &'a Catalog, name: &RelationName) -> Result<&'a Arc<Relation>> {
    let relation = existing(catalog, name)?;
    if relation.kind == Kind::MaterializedView || relation.output.is_some() {
        return Ok(relation);
    }
    let error = Error::wrong_object_type(format!("\"{name}\" is a {}, which runs no query", relation.kind.noun()));
    Err(error.with_hint("PAUSE and RESUME are for materialized views, derived streams and running INSERTs: SHOW QUERIES"))
}

/// A query, then all that read its rows, if it keeps some: those that read what it writes go on, and only get no more.
fn with_readers(catalog: &Catalog, query: &Arc<Relation>) -> Vec<Arc<Relation>> {
    let mut queries = vec![Arc::clone(query)];
    let mut stopped: BTreeSet<RelationId> = query.output.is_none().then_some(query.id).into_iter().collect();
    for reader in catalog.in_order() {
        if !reader.depends_on.iter().chain(&reader.parent).any(|id| stopped.contains(id)) {
            continue;
        }
        if reader.output.is_none() {
            stopped.insert(reader.id);
        }
        if reader.kind == Kind::MaterializedView || reader.output.is_some() {
            queries.push(Arc::clone(reader));
        }
    }
    queries
}

/// What runs cannot read what stands still.
pub(super) fn check_inputs(catalog: &Catalog, view: &Relation) -> Result<()> {
    // A derived stream that is paused only gets no more rows.
    let stands = |r: &&Arc<Relation>| r.paused.is_some() && r.output.is_none();
    let paused = view.depends_on.iter().filter_map(|id| catalog.get(*id)).find(stands);
    match paused {
        Some(paused) => Err(Error::not_ready(format!("\"{}\" is paused, so \"{}\" cannot read it", paused.name, view.name))
            .with_hint(format!("RESUME {} first", paused.name))),
        None => Ok(()),
    }
}

/// The relation that OR REPLACE replaces; without it, the name has to be free.
fn former<'a>(catalog: &'a Catalog, name: &RelationName, or_replace: bool, kind: Kind) -> Result<Option<&'a Arc<Relation>>> {
    match catalog.named(name) {
        Some(former) if or_replace && former.kind == kind => Ok(Some(former)),
        Some(former) if or_replace => {
            let message = format!("\"{name}\" is a {}, not a {}", former.kind.noun(), kind.noun());
            Err(Error::wrong_object_type(message).with_hint("DROP it first, or choose another name"))
        }
        _ => free_name(catalog, name).map(|()| None),
    }
}

fn define_view(
    definition: &mut Definition,
    create: &CreateView,
    name: &RelationName,
    sql: &str,
    former: Option<&Arc<Relation>>,
) -> Result<()> {
    let (view, fragment) = plan_view(definition, create, name, sql)?;
    let Some(former) = former else {
        let view = definition.create(view)?;
        return definition.build(view, fragment);
    };
    check_cycle(definition.catalog, former, &view)?;
    let indexes = former.indexes_of(&view);
    let view = Relation { id: former.id, comment: former.comment.clone(), indexes, ..view };
    definition.changes.push(Change::Replace(view.clone()));
    definition.build(view, fragment)?;
    definition.replace_dependents(former)
}

fn plan_view(definition: &Definition, create: &CreateView, name: &RelationName, sql: &str) -> Result<(Relation, Fragment)> {
    let (catalog, planner) = (definition.catalog, definition.planner().for_query(&create.options, &name.name));
    let plan = planner.continuous(&create.query, create.emit)?;
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

/// Relations of a kind that the query of a definition names.
pub(super) fn named_relations(query: &sp::Query, catalog: &Catalog, counts: impl Fn(&Relation) -> bool) -> Vec<RelationId> {
    struct Named<'a> {
        catalog: &'a Catalog,
        path: SearchPath,
        ctes: Ctes,
        found: Vec<Arc<Relation>>,
    }
    impl Visitor for Named<'_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &sp::Query) -> ControlFlow<()> {
            self.ctes.enter(query);
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &sp::Query) -> ControlFlow<()> {
            self.ctes.leave();
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &sp::TableFactor) -> ControlFlow<()> {
            let sp::TableFactor::Table { name, args, .. } = factor else { return ControlFlow::Continue(()) };
            let name = args.as_ref().map_or_else(|| Some(name.clone()), |args| read_by(name, args));
            if let Some((schema, name)) = name.as_ref().and_then(fold_object)
                && (schema.is_some() || !self.ctes.has(&name))
            {
                self.found.extend(self.catalog.resolve(&self.path, schema.as_deref(), &name).cloned());
            }
            ControlFlow::Continue(())
        }
    }
    let mut named = Named { catalog, path: SearchPath::default(), ctes: Ctes::default(), found: Vec::new() };
    let _ = query.visit(&mut named);
    let mut ids: Vec<RelationId> = named.found.iter().filter(|relation| counts(relation)).map(|r| r.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The relation of a view; its id is still to be chosen.
pub(super) fn view_relation(
    create: &CreateView,
    name: &RelationName,
    sql: &str,
    schema: &SchemaRef,
    kind: Kind,
) -> Result<Relation> {
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
    let mut options = create.options.clone();
    options.remove(RETENTION);
    Ok(Relation {
        options,
        create_sql: sql.to_string(),
        query: Some(create.query_sql.clone()),
        emit: create.emit,
        schema: name.schema.clone(),
        ..Relation::new(0, &name.name, kind, columns)
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
        identity: None,
        comment: None,
    }
}

/// `view$late`: the rows that windows and joins with a bound on time left out, with the window that was missed.
pub(super) fn late_relation(view: &Relation, schema: &SchemaRef) -> Relation {
    let columns = schema.fields().iter().map(computed).collect();
    Relation {
        parent: Some(view.id),
        schema: view.schema.clone(),
        comment: Some(format!("rows that came too late for \"{}\"", view.name)),
        ..Relation::new(0, format!("{}{LATE_SUFFIX}", view.name), Kind::Late, columns)
    }
}
