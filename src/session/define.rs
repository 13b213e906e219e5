//! Making, changing and dropping relations: each is one commit of catalog changes.
//!
//! Everything that can be wrong with a definition is found here, before the commit: what is in the log has to work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use sqlparser::ast as sp;

use super::check::with_check;
use super::client::done;
use super::names::is_missing;
use super::redefine::redefine;
use super::{Client, Outcome};
use crate::catalog::acl::{Access, Object};
use crate::catalog::role::{RoleId, SUPERUSER};
use crate::catalog::schema::{RelationName, quoted};
use crate::catalog::{Catalog, Change, Column, Durability, Kind, ON_ERROR, Relation, RelationId, Watermark};
use crate::connect::{self, Connector};
use crate::error::{Error, Result};
use crate::ingest::{CompiledRelation, dead_letter_relation};
use crate::limits;
use crate::sql::ast::{ColumnDef, CreateRelation, Drop, ObjectType, Statement, WatermarkDef};
use crate::sql::parse::parse_expression;
use crate::sql::plan::names::fold;
use crate::sql::plan::{Hidden, Planner};
use crate::sql::types;

/// Names that tell the relations that belong to another apart; no user may choose one.
const RESERVED: char = '$';

/// Options that every relation takes.
const OPTIONS: &[&str] =
    &["durability", "history", "idle_timeout", "max_future", "partitions", "format", "kafka_topic", "value_format", "key_format"];

/// What ksqlDB's WINDOW clause may say of windows.
pub(super) const RETENTION: &str = "retention";

impl Client {
    pub(super) async fn create_relation(&mut self, statement: &Statement, create: &CreateRelation, sql: &str) -> Result<Outcome> {
        let is_stream = matches!(statement, Statement::CreateStream(_));
        let tag = if is_stream { "CREATE STREAM" } else { "CREATE TABLE" };
        self.beside_block(tag)?;
        let name = self.new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done(tag);
        }
        let is_stream =
            is_stream || create.append_only || (create.primary_key.is_empty() && create.options.contains_key(connect::CONNECTOR));
        let kind = if is_stream { Kind::Stream } else { Kind::Table };
        let mut relation = relation_of(create, name.clone(), kind, sql)?;
        for check in &create.checks {
            relation = with_check(&relation, check, self.database.new_relation_id(), true)?;
        }
        Connector::of(&relation)?;
        self.define(|definition| {
            let planner = definition.planner();
            let relation = with_types(relation.clone(), &planner)?;
            if let Some(former) = definition.catalog.named(&name).filter(|_| create.or_replace) {
                return redefine(definition, former, relation, create);
            }
            CompiledRelation::compile(Arc::new(relation.clone()), &planner)?;
            let relation = definition.create(Relation { functions: planner.functions_called(), ..relation })?;
            let has_source = relation.options.contains_key(connect::CONNECTOR);
            if kind == Kind::Stream && (relation.watermark.is_some() || has_source) {
                definition.create(dead_letter_relation(&relation))?;
            }
            Ok(())
        })
        .await?;
        done(tag)
    }

    /// IF NOT EXISTS: whether there is one already.
    pub(super) fn skip_existing(&mut self, name: &RelationName) -> bool {
        let exists = self.database.log.catalog().named(name).is_some();
        if exists {
            self.notices.push(Error::duplicate_table(format!("relation \"{}\" already exists, skipping", name.name)));
        }
        exists
    }

    pub(super) async fn drop_objects(&mut self, drop: &Drop) -> Result<Outcome> {
        let tag = match drop.object {
            ObjectType::Stream => "DROP STREAM",
            ObjectType::Table => "DROP TABLE",
            ObjectType::MaterializedView => "DROP MATERIALIZED VIEW",
            ObjectType::View => "DROP VIEW",
            ObjectType::Query => "DROP QUERY",
            ObjectType::Index => return self.drop_indexes(drop).await,
            ObjectType::Sink => "DROP SINK",
        };
        self.beside_block(tag)?;
        let catalog = self.database.log.catalog();
        let mut names = Vec::new();
        for name in &drop.names {
            let found = self.defined_name(name).and_then(|name| match catalog.named(&name) {
                Some(_) => Ok(name),
                None => Err(Error::undefined_table(format!("{} \"{name}\" does not exist", noun(drop.object)))),
            });
            match found {
                Err(error) if drop.if_exists && is_missing(&error) => {
                    self.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
                }
                found => names.push(found?),
            }
        }
        self.change_catalog(|catalog| {
            let mut gone = BTreeSet::new();
            for name in &names {
                match catalog.named(name) {
                    Some(relation) => {
                        check_kind(relation, drop.object, "DROP")?;
                        collect(catalog, relation, drop.cascade, &mut gone)?;
                    }
                    None if drop.if_exists => {}
                    None => return Err(Error::undefined_table(format!("{} \"{name}\" does not exist", noun(drop.object)))),
                }
            }
            check_dependents(catalog, &gone)?;
            // Readers before what they read.
            Ok(gone.into_iter().rev().map(Change::Drop).collect())
        })
        .await?;
        connect::sink::settled(&self.database.log, &self.database.sinks).await;
        done(tag)
    }

    pub(super) async fn comment(
        &mut self,
        on: &sp::ObjectName,
        column: Option<&sp::Ident>,
        comment: Option<&str>,
    ) -> Result<Outcome> {
        self.beside_block("COMMENT")?;
        if let (Ok((name, _)), None) = (self.existing_index(on), column) {
            return self.comment_on_index(&name, comment).await;
        }
        let name = self.defined_name(on)?;
        self.change_catalog(|catalog| {
            let mut relation = Relation::clone(existing(catalog, &name)?);
            let comment = comment.map(str::to_string);
            match column {
                None => relation.comment = comment,
                Some(column) => {
                    let column = fold(column);
                    let at = relation.column(&column).ok_or_else(|| no_column(&column, &name.name))?;
                    relation.columns[at].comment = comment;
                }
            }
            Ok(vec![Change::Alter(relation)])
        })
        .await?;
        done("COMMENT")
    }
}

/// Who owns a new relation, and what default privileges grant on it; `None` if nothing differs from what holds anyway.
pub(super) fn new_access(catalog: &Catalog, owner: RoleId, relation: &Relation) -> Option<Change> {
    let defaults = |schema| catalog.explicit_acl(Object::Default { owner, schema });
    let (everywhere, here) = (defaults(None), defaults(Some(catalog.schema_of(relation))));
    let object = Object::Relation(relation.id);
    let acl = (everywhere.is_some() || here.is_some()).then(|| {
        let mut acl = everywhere.cloned().unwrap_or_else(|| object.default_acl(owner));
        here.iter().flat_map(|acl| &acl.0).for_each(|grant| acl.grant(*grant));
        acl
    });
    (owner != SUPERUSER || acl.is_some()).then_some(Change::SetAccess(object, Access { owner, acl }))
}

fn noun(object: ObjectType) -> &'static str {
    match object {
        ObjectType::Stream => "stream",
        ObjectType::Table => "table",
        ObjectType::MaterializedView => "materialized view",
        ObjectType::View => "view",
        ObjectType::Index => "index",
        ObjectType::Sink => "sink",
        ObjectType::Query => "query",
    }
}

pub(super) fn no_column(column: &str, relation: &str) -> Error {
    Error::undefined_column(format!("column \"{column}\" of relation \"{relation}\" does not exist"))
}

/// A relation that must be there.
pub(super) fn existing<'a>(catalog: &'a Catalog, name: &RelationName) -> Result<&'a Arc<Relation>> {
    catalog.named(name).ok_or_else(|| Error::undefined_table(format!("relation \"{name}\" does not exist")))
}

pub(super) fn check_new_name(name: &str) -> Result<()> {
    if name.contains(RESERVED) {
        let message = format!("the name \"{name}\" is not allowed: names with $ belong to late rows and dead letters");
        return Err(Error::invalid_object_definition(message));
    }
    if name.len() > limits::NAME_BYTES {
        return Err(Error::name_too_long(format!("the name \"{name}\" is longer than 63 bytes")));
    }
    Ok(())
}

pub(super) fn free_name(catalog: &Catalog, name: &RelationName) -> Result<()> {
    match catalog.named(name).is_some() || catalog.index_named(name).is_some() {
        true => Err(Error::duplicate_table(format!("relation \"{}\" already exists", name.name))),
        false => Ok(()),
    }
}

pub(super) fn check_kind(relation: &Relation, object: ObjectType, verb: &str) -> Result<()> {
    let fits = match object {
        ObjectType::Stream => relation.kind == Kind::Stream,
        // Of CREATE TABLE … AS: a view is a table to who made it so, and a stream to who wrote CREATE TABLE … APPEND ONLY.
        ObjectType::Table => {
            matches!(relation.kind, Kind::Table | Kind::Stream | Kind::MaterializedView) && made_by_table(relation)
        }
        ObjectType::MaterializedView => relation.kind == Kind::MaterializedView,
        ObjectType::View => relation.kind == Kind::View,
        ObjectType::Query => relation.kind == Kind::Query,
        ObjectType::Sink => relation.kind == Kind::Sink,
        ObjectType::Index => false,
    };
    if let Some(of) = relation.parent {
        let message = format!("\"{}\" belongs to another relation (number {of}) and goes with it", relation.name);
        return Err(Error::dependent_objects(message));
    }
    if fits {
        return Ok(());
    }
    let word = relation.kind.noun();
    Err(Error::wrong_object_type(format!("\"{}\" is not a {}", relation.name, noun(object)))
        .with_hint(format!("use {verb} {} for a {word}", word.to_uppercase())))
}

fn made_by_table(relation: &Relation) -> bool {
    relation.kind == Kind::Table || relation.create_sql.split_whitespace().take(4).any(|word| word.eq_ignore_ascii_case("table"))
}

/// The relation, what belongs to it, and with CASCADE all that read it.
pub(super) fn collect(catalog: &Catalog, relation: &Relation, cascade: bool, gone: &mut BTreeSet<RelationId>) -> Result<()> {
    if !gone.insert(relation.id) {
        return Ok(());
    }
    for child in catalog.relations().filter(|r| r.parent == Some(relation.id)) {
        collect(catalog, child, cascade, gone)?;
    }
    if cascade {
        for reader in catalog.dependents(relation.id) {
            collect(catalog, reader, cascade, gone)?;
        }
    }
    Ok(())
}

pub(super) fn check_dependents(catalog: &Catalog, gone: &BTreeSet<RelationId>) -> Result<()> {
    for id in gone {
        let readers: Vec<_> = catalog.dependents(*id).filter(|r| !gone.contains(&r.id)).collect();
        if let (Some(relation), Some(_)) = (catalog.get(*id), readers.first()) {
            let message =
                format!("cannot drop {} {} because other objects depend on it", relation.kind.noun(), relation.full_name());
            let detail: Vec<String> = readers
                .iter()
                .map(|r| {
                    format!("{} {} depends on {} {}", r.kind.noun(), r.full_name(), relation.kind.noun(), relation.full_name())
                })
                .collect();
            let hint = "use DROP … CASCADE to drop the dependent objects too";
            return Err(Error::dependent_objects(message).with_detail(detail.join("\n")).with_hint(hint));
        }
    }
    Ok(())
}

impl Client {
    /// The options of what a query gives. ksqlDB's RETENTION is for how long windows are there at least; here they stay.
    pub(super) fn check_query_options(&mut self, options: &BTreeMap<String, String>) -> Result<()> {
        let mut options = options.clone();
        if options.remove(RETENTION).is_some() {
            let notice = Error::notice("RETENTION is a lower bound, and a view keeps all of its windows");
            self.notices
                .push(notice.with_hint("a view over this one WHERE window_end > now() - INTERVAL '7 days' drops old windows"));
        }
        check_on_error(&options)?;
        options.remove(ON_ERROR);
        check_options(&options)
    }
}

/// What becomes of a row that an expression of a query fails for.
pub(super) fn check_on_error(options: &BTreeMap<String, String>) -> Result<()> {
    match options.get(ON_ERROR) {
        Some(other) if !["stop", "null"].contains(&other.to_ascii_lowercase().as_str()) => {
            let error = Error::invalid_parameter(format!("on_error is 'stop' or 'null', not '{other}'"));
            Err(error.with_hint("with 'null' an expression that fails for a row is NULL there, and the query goes on"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    match options.keys().find(|key| !OPTIONS.contains(&key.as_str()) && !connect::OPTIONS.contains(&key.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let known = "durability, idle_timeout, max_future, partitions, and those of its connector";
            Err(Error::invalid_parameter(format!("unrecognized option \"{unknown}\""))
                .with_hint(format!("the options are {known}")))
        }
    }
}

pub(super) fn durability(options: &BTreeMap<String, String>) -> Result<Durability> {
    match options.get("durability").map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("commit") => Ok(Durability::Commit),
        Some("interval") => Ok(Durability::Interval),
        Some("none") => Ok(Durability::None),
        Some(other) => Err(Error::invalid_parameter(format!("durability is 'commit', 'interval' or 'none', not '{other}'"))),
    }
}

pub(super) fn partitions(given: Option<u32>, options: &BTreeMap<String, String>) -> Result<u32> {
    let from_option = options.get("partitions").map(|text| {
        text.parse::<u32>().map_err(|_| Error::invalid_parameter(format!("partitions must be a number, not '{text}'")))
    });
    let partitions = given.or(from_option.transpose()?).unwrap_or(1);
    if partitions == 0 || partitions > limits::PARTITIONS {
        return Err(Error::invalid_parameter(format!("a relation has 1 to {} partitions, not {partitions}", limits::PARTITIONS)));
    }
    Ok(partitions)
}

/// The relation of a CREATE STREAM or CREATE TABLE; its id is still to be chosen.
fn relation_of(create: &CreateRelation, name: RelationName, kind: Kind, sql: &str) -> Result<Relation> {
    check_options(&create.options)?;
    let RelationName { schema, name } = name;
    let columns = create.columns.iter().map(|column| column_of(column, create.watermark.as_ref())).collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Err(Error::invalid_table_definition(format!("\"{name}\" needs at least one column")));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|c| !seen.insert(c.name.as_str())) {
        return Err(Error::duplicate_column(format!("column \"{}\" specified more than once", twice.name)));
    }
    let index = |ident: &sp::Ident| column_index(&columns, ident, &name);
    let indices = |idents: &[sp::Ident]| idents.iter().map(index).collect::<Result<Vec<_>>>();
    if kind == Kind::Stream && !create.primary_key.is_empty() {
        return Err(Error::invalid_table_definition("a stream has no primary key: its rows are never replaced").with_hint(
            "use CREATE TABLE for rows that are replaced by key, or PARTITION BY to keep the rows of a key in order",
        ));
    }
    check_identity(&columns, kind)?;
    let primary_key = indices(&create.primary_key)?;
    let partition_by = indices(&create.partition_by)?;
    if kind == Kind::Table && !partition_by.is_empty() && partition_by != primary_key {
        return Err(
            Error::invalid_table_definition("a table is partitioned by its primary key").with_hint("leave PARTITION BY out")
        );
    }
    let watermark = create.watermark.as_ref().map(|w| -> Result<Watermark> {
        let column = index(&w.column)?;
        let expression = w.expression.as_ref().map_or_else(|| quoted(&columns[column].name), |e| e.sql.clone());
        Ok(Watermark { column, expression, carried: false })
    });
    let mut columns_with_keys = columns.clone();
    primary_key.iter().for_each(|at| columns_with_keys[*at].nullable = false);
    Ok(Relation {
        primary_key,
        watermark: watermark.transpose()?,
        partition_by,
        partitions: partitions(create.partitions, &create.options)?,
        durability: durability(&create.options)?,
        options: create.options.clone(),
        create_sql: sql.to_string(),
        schema,
        ..Relation::new(0, name, kind, columns_with_keys)
    })
}

/// Generated columns that were given no type have that of their expression.
fn with_types(mut relation: Relation, planner: &Planner) -> Result<Relation> {
    let schema = DFSchema::try_from(types::declare(&relation.schema(), &relation.columns))?;
    for column in &mut relation.columns {
        let (DataType::Null, Some(expression)) = (&column.data_type, &column.generated) else { continue };
        let context = |error: Error| error.with_context(format!("column \"{}\" of relation \"{}\"", column.name, relation.name));
        let expression = planner.expression_from_text(expression, &schema).map_err(context)?;
        let sql_type = types::field_type(expression.to_field(&schema)?.1.as_ref());
        let sp::Expr::Cast { data_type, .. } = parse_expression(&format!("NULL::{sql_type}"))? else {
            return Err(Error::internal(format!("{sql_type} is no type")));
        };
        (column.data_type, column.sql_type) = types::from_ast(&data_type).map_err(context)?;
    }
    Ok(relation)
}

/// `watermark`: of the statement that the column is in. A generated column may have no type yet.
pub(super) fn column_of(column: &ColumnDef, watermark: Option<&WatermarkDef>) -> Result<Column> {
    let name = fold(&column.name);
    if Hidden::find(&name).is_some() {
        return Err(Error::invalid_table_definition(format!("column name \"{name}\" is reserved: every stream has it already")));
    }
    let (data_type, sql_type) = match (&column.data_type, &column.generated) {
        (Some(data_type), _) => types::from_ast(data_type)?,
        // Told by its expression: see `with_types`.
        (None, Some(_)) => (DataType::Null, String::new()),
        (None, None) => return Err(Error::invalid_column_definition(format!("column \"{name}\" needs a type"))),
    };
    // A row without event time goes to the dead letters, so the column itself may say NOT NULL or not.
    let is_event_time = watermark.is_some_and(|w| fold(&w.column) == name);
    Ok(Column {
        name,
        data_type,
        sql_type,
        nullable: !column.not_null || is_event_time,
        default: column.default.as_ref().map(|e| e.sql.clone()),
        generated: column.generated.as_ref().map(|e| e.sql.clone()),
        identity: column.identity,
        comment: None,
    })
}

/// SERIAL and IDENTITY: of one column of a table, which is an integer.
fn check_identity(columns: &[Column], kind: Kind) -> Result<()> {
    let mut numbered = columns.iter().filter(|column| column.identity.is_some());
    let Some(column) = numbered.next() else { return Ok(()) };
    if kind != Kind::Table {
        return Err(Error::unsupported(format!("a stream has no column that numbers its rows, such as \"{}\"", column.name))
            .with_hint("its hidden columns _partition and _offset do"));
    }
    if numbered.next().is_some() {
        return Err(Error::unsupported("a table has one column that numbers its rows"));
    }
    if !matches!(column.data_type, DataType::Int16 | DataType::Int32 | DataType::Int64) {
        return Err(Error::invalid_parameter("identity column type must be smallint, integer, or bigint"));
    }
    if column.default.is_some() || column.generated.is_some() {
        return Err(Error::syntax(format!("both default and identity specified for column \"{}\"", column.name)));
    }
    Ok(())
}

/// The column of that name of a relation to be.
pub(super) fn column_index(columns: &[Column], ident: &sp::Ident, relation: &str) -> Result<usize> {
    let column = fold(ident);
    columns.iter().position(|c| c.name == column).ok_or_else(|| no_column(&column, relation))
}
