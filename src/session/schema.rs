//! CREATE, ALTER, DROP and COMMENT ON SCHEMA.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::client::done;
use super::function::Gone;
use super::names::existing_schema;
use super::rename::with_readers;
use super::role::role_id;
use super::{Client, Outcome};
use crate::catalog::acl::{Access, Object, Privilege};
use crate::catalog::rights::Rights;
use crate::catalog::role::SUPERUSER;
use crate::catalog::schema::{PUBLIC, SYSTEM_SCHEMAS, Schema};
use crate::catalog::{Catalog, Change, Relation, RelationId};
use crate::error::{Error, Result};
use crate::limits;
use crate::sql::ast::{RoleName, SchemaStatement};
use crate::sql::plan::names::fold;

/// How many of the things in the way a message lists.
const LISTED: usize = 20;

impl Client {
    pub(super) async fn change_schemas(&mut self, statement: &SchemaStatement) -> Result<Outcome> {
        match statement {
            SchemaStatement::Create { name, if_not_exists, owner } => {
                let name = match (name, owner) {
                    (Some(name), _) => fold(name),
                    (None, owner) => {
                        let catalog = self.database.log.catalog();
                        let owner = role_id(&catalog, self.who, owner.as_ref().unwrap_or(&RoleName::Current))?;
                        catalog.roles().name(owner)
                    }
                };
                self.create_schema(name, *if_not_exists, owner.as_ref()).await
            }
            SchemaStatement::Rename { name, to } => self.rename_schema(&fold(name), fold(to)).await,
            SchemaStatement::Comment { on, comment } => self.comment_on_schema(&fold(on), comment.as_deref()).await,
            SchemaStatement::Drop { names, if_exists, cascade } => {
                let names: Vec<String> = names.iter().map(fold).collect();
                self.drop_schemas(&names, *if_exists, *cascade).await
            }
        }
    }

    async fn create_schema(&mut self, name: String, if_not_exists: bool, owner: Option<&RoleName>) -> Result<Outcome> {
        let tag = "CREATE SCHEMA";
        self.beside_block(tag)?;
        let (who, in_database, id) = (self.who, self.database_name.clone(), self.database.new_relation_id());
        let created = self
            .commit_catalog(|catalog| {
                let rights = Rights::new(Arc::new(catalog.clone()), who.current);
                let owner = owner.map_or(Ok(who.current), |owner| role_id(catalog, who, owner))?;
                if !rights.holds(Object::Database, Privilege::Create) {
                    return Err(Error::insufficient_privilege(format!("permission denied for database {in_database}")));
                }
                if !rights.is_superuser() && !catalog.roles().member_of(who.current).contains(&owner) {
                    let message = format!("must be member of role \"{}\"", catalog.roles().name(owner));
                    return Err(Error::insufficient_privilege(message));
                }
                check_new_schema(catalog, &name)?;
                let mut changes = vec![Change::SetSchema(Schema { id, name: name.clone(), comment: None })];
                if owner != SUPERUSER {
                    changes.push(Change::SetAccess(Object::Schema(id), Access { owner, acl: None }));
                }
                Ok(changes)
            })
            .await;
        match created {
            Err(error) if if_not_exists && error.state() == crate::error::SqlState::DuplicateSchema => {
                self.notices.push(Error::duplicate_schema(format!("{}, skipping", error.message())));
            }
            created => created?,
        }
        done(tag)
    }

    async fn rename_schema(&mut self, name: &str, to: String) -> Result<Outcome> {
        let tag = "ALTER SCHEMA";
        self.beside_block(tag)?;
        let (who, database, in_database) = (self.who, Arc::clone(&self.database), self.database_name.clone());
        self.commit_catalog(|catalog| {
            let rights = Rights::new(Arc::new(catalog.clone()), who.current);
            let schema = existing_schema(catalog, name)?;
            rights.check_schema_owner(schema)?;
            if !rights.holds(Object::Database, Privilege::Create) {
                return Err(Error::insufficient_privilege(format!("permission denied for database {in_database}")));
            }
            check_is_users(schema, "rename")?;
            check_new_schema(catalog, &to)?;
            let moved = catalog.relations_in(name).map(|r| Relation { schema: to.clone(), ..Relation::clone(r) }).collect();
            let renamed = Change::SetSchema(Schema { name: to.clone(), ..schema.clone() });
            with_readers(&database, catalog, vec![renamed], moved, name)
        })
        .await?;
        done(tag)
    }

    async fn comment_on_schema(&mut self, name: &str, comment: Option<&str>) -> Result<Outcome> {
        self.beside_block("COMMENT")?;
        let role = self.who.current;
        self.commit_catalog(|catalog| {
            let schema = existing_schema(catalog, name)?;
            Rights::new(Arc::new(catalog.clone()), role).check_schema_owner(schema)?;
            Ok(vec![Change::SetSchema(Schema { comment: comment.map(str::to_string), ..schema.clone() })])
        })
        .await?;
        done("COMMENT")
    }

    async fn drop_schemas(&mut self, names: &[String], if_exists: bool, cascade: bool) -> Result<Outcome> {
        let tag = "DROP SCHEMA";
        self.beside_block(tag)?;
        let role = self.who.current;
        let catalog = self.database.log.catalog();
        let is_there = |name: &str| catalog.schemas().find(name).is_some() || SYSTEM_SCHEMAS.contains(&name);
        for name in names.iter().filter(|name| if_exists && !is_there(name)) {
            self.notices.push(Error::undefined_schema(format!("schema \"{name}\" does not exist, skipping")));
        }
        self.commit_catalog(|catalog| {
            let rights = Rights::new(Arc::new(catalog.clone()), role);
            let mut gone = Gone::default();
            for name in names {
                if SYSTEM_SCHEMAS.contains(&name.as_str()) {
                    return Err(required(name, "drop"));
                }
                match existing_schema(catalog, name) {
                    Err(_) if if_exists => {}
                    Err(error) => return Err(error),
                    Ok(schema) => {
                        rights.check_schema_owner(schema)?;
                        check_is_users(schema, "drop")?;
                        gone.add_schema(catalog, schema, cascade)?;
                    }
                }
            }
            gone.changes(catalog)
        })
        .await?;
        done(tag)
    }
}

fn check_new_schema(catalog: &Catalog, name: &str) -> Result<()> {
    if name.starts_with("pg_") && !SYSTEM_SCHEMAS.contains(&name) {
        return Err(Error::reserved_name(format!("unacceptable schema name \"{name}\""))
            .with_detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    match name.len() {
        0 => return Err(Error::syntax("zero-length delimited identifier")),
        1..=limits::NAME_BYTES => {}
        _ => return Err(Error::name_too_long(format!("the name \"{name}\" is longer than 63 bytes"))),
    }
    match catalog.schemas().find(name).is_some() || SYSTEM_SCHEMAS.contains(&name) {
        true => Err(Error::duplicate_schema(format!("schema \"{name}\" already exists"))),
        false => Ok(()),
    }
}

/// What is kept as text says nothing of `public`, and so cannot follow.
fn check_is_users(schema: &Schema, verb: &str) -> Result<()> {
    if schema.name == PUBLIC { Err(required(&schema.name, verb)) } else { Ok(()) }
}

fn required(name: &str, verb: &str) -> Error {
    Error::dependent_objects(format!("cannot {verb} schema {name} because it is required by the database system"))
}

/// Nothing may be left in a schema that goes but what goes with it.
pub(super) fn check_empty(catalog: &Catalog, schema: &Schema, gone: &BTreeSet<RelationId>) -> Result<()> {
    let inside: Vec<String> = catalog
        .relations_in(&schema.name)
        .filter(|relation| relation.parent.is_none() && !gone.contains(&relation.id))
        .map(|relation| format!("{} {} depends on schema {}", relation.kind.noun(), relation.full_name(), schema.name))
        .collect();
    if inside.is_empty() {
        return Ok(());
    }
    let more = inside.len().saturating_sub(LISTED);
    let mut detail = inside[..inside.len() - more].join("\n");
    if more > 0 {
        detail.push_str(&format!("\nand {more} more"));
    }
    Err(Error::dependent_objects(format!("cannot drop schema {} because other objects depend on it", schema.name))
        .with_detail(detail)
        .with_hint("use DROP … CASCADE to drop the dependent objects too"))
}
