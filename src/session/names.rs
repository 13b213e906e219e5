//! What the names in a session's statements mean: the one place where a name gets its schema.
//!
//! A name without a schema is that of the first schema of the session's path that has it; a new relation is made in the first
//! schema of the path. What the catalog keeps as text is changed to mean the same under the default path before it is looked at
//! ([`crate::sql::rename`]), so no definition depends on a setting.

use std::borrow::Cow;

use sqlparser::ast as sp;

use super::Client;
use super::define::{check_new_name, existing};
use crate::catalog::Catalog;
use crate::catalog::schema::{RelationName, SYSTEM_SCHEMAS, Schema, SearchPath};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{Parsed, Statement};
use crate::sql::parse::parse;
use crate::sql::plan::names::{fold, fold_object};
use crate::sql::rename::{Renaming, Scope};

impl Client {
    /// Where names without a schema are looked up now: in schemas that are there, and that the role may use.
    pub(super) fn path(&self) -> SearchPath {
        self.rights().search_path(&self.settings.search_path())
    }

    /// The name of a relation that a statement speaks of.
    pub(super) fn relation_name(&self, name: &sp::ObjectName) -> Result<RelationName> {
        relation_name(&self.database.log.catalog(), &self.path(), &self.database_name, name)
    }

    /// Is it one of those that show the catalog?
    pub(super) fn is_system_relation(&self, name: &sp::ObjectName) -> bool {
        let Some((schema, name)) = fold_object(name) else { return false };
        let system = self.system(&self.peek_snapshot());
        (schema.is_some() || name.starts_with("pg_")) && system.table(schema.as_deref(), &name).is_some()
    }

    /// The name of an index.
    pub(super) fn index_name(&self, name: &sp::ObjectName) -> Result<RelationName> {
        let catalog = self.database.log.catalog();
        found_name(&self.path(), &self.database_name, name, |name| catalog.index_named(name).is_some())
    }

    /// The same of relations in statements that define, which tell of a schema that is not there.
    pub(super) fn defined_name(&self, name: &sp::ObjectName) -> Result<RelationName> {
        let found = self.relation_name(name)?;
        self.check_is_no_system_relation(name, &found)?;
        match found.schema.is_empty() {
            true => Ok(found),
            false => check_schema_exists(&self.database.log.catalog(), &found.schema).map(|()| found),
        }
    }

    /// Nobody changes those that show the catalog.
    pub(super) fn check_is_no_system_relation(&self, name: &sp::ObjectName, found: &RelationName) -> Result<()> {
        if self.database.log.catalog().named(found).is_none() && self.is_system_relation(name) {
            let message = format!("permission denied: \"{}\" is a system catalog", found.name);
            return Err(Error::insufficient_privilege(message));
        }
        Ok(())
    }

    /// The same in ALTER … IF EXISTS, where what is not there is but a notice.
    pub(super) fn altered_name(&mut self, name: &sp::ObjectName, if_exists: bool) -> Result<Option<RelationName>> {
        let found = self.defined_name(name).and_then(|name| {
            existing(&self.database.log.catalog(), &name)?;
            Ok(name)
        });
        match found {
            Err(error) if if_exists && is_missing(&error) => {
                self.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// The name of a relation that a statement makes.
    pub(super) fn new_name(&self, name: &sp::ObjectName) -> Result<RelationName> {
        let (schema, name) = parts(name, &self.database_name)?;
        check_new_name(&name)?;
        Ok(RelationName { schema: self.new_schema(schema, &name)?, name })
    }

    /// The schema of a new relation: the one it says, or else the first of the path.
    pub(super) fn new_schema(&self, said: Option<String>, name: &str) -> Result<String> {
        let Some(schema) = said.or_else(|| self.path().schemas().next().map(str::to_string)) else {
            return Err(Error::undefined_schema("no schema has been selected to create in")
                .with_hint("SET search_path TO a schema that is there, or write the schema before the name"));
        };
        if SYSTEM_SCHEMAS.contains(&schema.as_str()) {
            return Err(Error::insufficient_privilege(format!("permission denied to create \"{schema}.{name}\""))
                .with_detail("what is in this schema is the server's own"));
        }
        check_schema_exists(&self.database.log.catalog(), &schema).map(|()| schema)
    }

    /// A statement whose text the catalog will keep, in names that mean the same under the default path.
    pub(super) fn as_kept<'a>(&self, parsed: &'a Parsed) -> Result<Cow<'a, Parsed>> {
        let new = match &parsed.statement {
            Statement::CreateStream(create) | Statement::CreateTable(create) => Some(&create.name),
            Statement::CreateMaterializedView(view)
            | Statement::CreateDerivedStream(view)
            | Statement::CreateView(view)
            | Statement::CreateSink(view) => Some(&view.name),
            Statement::AlterView(_) | Statement::AlterRelation(_) | Statement::RunningInsert(_) => None,
            _ => return Ok(Cow::Borrowed(parsed)),
        };
        let path = self.path();
        if path == SearchPath::default() {
            return Ok(Cow::Borrowed(parsed));
        }
        // Every name gets its schema: what others make meanwhile must not come before it on the path.
        let nowhere = SearchPath::new("", None, |_| false);
        let new = new.map(|name| self.new_name(name)).transpose()?;
        let catalog = self.database.log.catalog();
        let scope = |path| Scope { catalog: &catalog, path };
        let renaming = Renaming { from: scope(&path), to: scope(&nowhere), new: new.as_ref() };
        let sql = renaming.apply(&parsed.sql)?;
        if sql == parsed.sql {
            return Ok(Cow::Borrowed(parsed));
        }
        let parsed = parse(&sql)?.pop();
        parsed.map(Cow::Owned).ok_or_else(|| Error::internal("a statement was read as none"))
    }
}

/// IF EXISTS passes over what is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error.state(), SqlState::UndefinedTable | SqlState::UndefinedSchema)
}

pub(super) fn relation_name(catalog: &Catalog, path: &SearchPath, database: &str, name: &sp::ObjectName) -> Result<RelationName> {
    found_name(path, database, name, |name| catalog.named(name).is_some())
}

/// A name with the first schema of the path in which it is there, unless it says one.
fn found_name(
    path: &SearchPath,
    database: &str,
    name: &sp::ObjectName,
    is_there: impl Fn(&RelationName) -> bool,
) -> Result<RelationName> {
    let (schema, name) = parts(name, database)?;
    if let Some(schema) = schema {
        return Ok(RelationName { schema, name });
    }
    let mut names = path.schemas().map(|schema| RelationName::new(schema, &name));
    Ok(names.find(is_there).unwrap_or_else(|| RelationName::new("", &name)))
}

/// Schema and name of a relation in the one database there is.
fn parts(name: &sp::ObjectName, database: &str) -> Result<(Option<String>, String)> {
    if let [named, _, _] = name.0.as_slice()
        && named.as_ident().is_some_and(|named| fold(named) != database)
    {
        let error = Error::unsupported(format!("cross-database references are not implemented: {name}"));
        return Err(error.with_hint(format!("the database is \"{database}\"; its name may be left out")));
    }
    fold_object(name).ok_or_else(|| Error::syntax(format!("improper relation name \"{name}\"")))
}

/// A schema that users may have made.
pub(super) fn existing_schema<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Schema> {
    let found = catalog.schemas().find(name).map(AsRef::as_ref);
    found.ok_or_else(|| Error::undefined_schema(format!("schema \"{name}\" does not exist")))
}

fn check_schema_exists(catalog: &Catalog, schema: &str) -> Result<()> {
    if SYSTEM_SCHEMAS.contains(&schema) { Ok(()) } else { existing_schema(catalog, schema).map(drop) }
}
