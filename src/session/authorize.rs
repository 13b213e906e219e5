//! May the session's role run this statement? Every kind of statement has its line here, and none runs without one.
//!
//! There are two gates. Relations in queries are checked where their names are resolved, by the planner, which is given the
//! rights of the session ([`Client::reader`]); so this file has nothing to say of a SELECT, wherever it stands. What a
//! statement names itself is checked here. DDL is checked a third time, where it becomes changes of the catalog.

use sqlparser::ast as sp;

use super::Client;
use super::change::{changed_name, delete_target};
use super::define::existing;
use super::function::find_function;
use super::write::insert_target;
use crate::catalog::Kind;
use crate::catalog::acl::Privilege;
use crate::catalog::rights::Rights;
use crate::catalog::schema::PUBLIC;
use crate::error::{Error, Result};
use crate::sql::ast::{CopyTarget, Drop, ExplainOf, FunctionChange, NewName, ObjectType, Rename, Statement, SubscribeTarget};
use crate::sql::plan::Reader;
use crate::sql::plan::names::fold;

impl Client {
    /// What the session may do now.
    pub(super) fn rights(&self) -> Rights {
        Rights::new(self.database.log.catalog(), self.who.current)
    }

    /// For the planner.
    pub(super) fn reader(&self) -> Reader {
        Reader::Role(self.rights())
    }

    pub(super) fn authorize(&self, statement: &Statement) -> Result<()> {
        let rights = self.rights();
        if rights.is_superuser() {
            return Ok(());
        }
        let needs = |name: &sp::ObjectName, privilege: Privilege| {
            rights.check(existing(rights.catalog(), &self.relation_name(name)?)?, privilege)
        };
        let owned = |name: &sp::ObjectName| rights.check_owner(existing(rights.catalog(), &self.defined_name(name)?)?);
        let seen = |name: &sp::ObjectName| rights.check_sees(existing(rights.catalog(), &self.relation_name(name)?)?);
        let creates = |name: &sp::ObjectName| rights.check_schema(&self.new_name(name)?.schema, Privilege::Create);
        let index_owned = |name: &sp::ObjectName, if_exists: bool| match self.existing_index(name) {
            Err(_) if if_exists => Ok(()),
            found => rights.check_owner(found?.1.as_ref()),
        };
        match statement {
            // The planner checks what is read.
            Statement::Query { .. } => Ok(()),
            Statement::Subscribe(subscribe) => match &subscribe.target {
                SubscribeTarget::Name(name) => needs(name, Privilege::Select),
                SubscribeTarget::Query(_) => Ok(()),
            },
            Statement::Print { name, .. } | Statement::AnalyzeWatermark(name) => needs(name, Privilege::Select),
            Statement::Verify(name) => {
                let view = existing(rights.catalog(), &self.relation_name(name)?)?;
                rights.check(view, Privilege::Select)?;
                // It shows late rows that differ, too.
                let mut late = rights.catalog().relations().filter(|r| r.parent == Some(view.id));
                late.try_for_each(|late| rights.check(late, Privilege::Select))
            }
            Statement::Explain { of: ExplainOf::Name(name), .. } => needs(name, Privilege::Select),
            Statement::ShowCreate(name) | Statement::Describe { name, .. } => seen(name),

            Statement::Insert { insert, .. } => {
                needs(insert_target(insert)?, Privilege::Insert)?;
                if insert.returning.is_some() {
                    needs(insert_target(insert)?, Privilege::Select)?;
                }
                if matches!(&insert.on, Some(sp::OnInsert::OnConflict(c)) if matches!(c.action, sp::OnConflictAction::DoUpdate(_)))
                {
                    needs(insert_target(insert)?, Privilege::Update)?;
                    needs(insert_target(insert)?, Privilege::Select)?;
                }
                Ok(())
            }
            // Into a table it puts rows in place of others, and removes them.
            Statement::RunningInsert(running) => {
                let target = insert_target(&running.insert)?;
                let is_table = existing(rights.catalog(), &self.relation_name(target)?)?.kind == Kind::Table;
                let more: &[Privilege] = if is_table { &[Privilege::Update, Privilege::Delete] } else { &[] };
                rights.check_schema(&self.new_schema(None, "query")?, Privilege::Create)?;
                [Privilege::Insert].iter().chain(more).try_for_each(|privilege| needs(target, *privilege))
            }
            // More than one table is refused where it is planned.
            Statement::Update { update, .. } => changed_name(&update.table).map_or(Ok(()), |name| needs(name, Privilege::Update)),
            Statement::Delete { delete, .. } => {
                changed_name(delete_target(delete)?).map_or(Ok(()), |name| needs(name, Privilege::Delete))
            }
            Statement::With { changes, last } => changes.iter().chain([&**last]).try_for_each(|part| self.authorize(part)),
            Statement::Truncate(names) => names.iter().try_for_each(|name| needs(name, Privilege::Truncate)),
            Statement::Copy(copy) => match &copy.target {
                CopyTarget::Relation { name, .. } => needs(name, if copy.from { Privilege::Insert } else { Privilege::Select }),
                CopyTarget::Query(query) => self.authorize(query),
            },

            Statement::CreateFunction(_) => rights.check_schema(PUBLIC, Privilege::Create),
            Statement::CreateStream(create) | Statement::CreateTable(create) => creates(&create.name),
            Statement::CreateMaterializedView(create)
            | Statement::CreateDerivedStream(create)
            | Statement::CreateView(create) => creates(&create.name),
            // It writes as the user of its connection.
            Statement::CreateSink(_) => Err(Error::insufficient_privilege("must be superuser to create a sink")),
            // It depends on the database, the schema and the roles, and is decided where it is done.
            Statement::Schema(_) => Ok(()),
            Statement::CreateIndex(create) => owned(&create.on),
            Statement::Drop(Drop { object: ObjectType::Index, names, if_exists, .. }) => {
                names.iter().try_for_each(|name| index_owned(name, *if_exists))
            }
            Statement::Drop(Drop { names, if_exists, .. }) => {
                let found = |name| self.defined_name(name).and_then(|name| existing(rights.catalog(), &name).cloned());
                names
                    .iter()
                    .map(found)
                    .filter(|found| !*if_exists || found.is_ok())
                    .try_for_each(|r| rights.check_may_drop(r?.as_ref()))
            }
            Statement::DropFunctions(drop) => {
                let mut there = drop.names.iter().filter_map(|name| match find_function(rights.catalog(), name) {
                    Err(_) if drop.if_exists => None,
                    found => Some(found),
                });
                there.try_for_each(|function| rights.check_function_owner(function?))
            }
            Statement::AlterFunction(alter) => {
                rights.check_function_owner(find_function(rights.catalog(), &alter.function)?)?;
                match alter.change {
                    FunctionChange::Rename(_) => rights.check_schema(PUBLIC, Privilege::Create),
                    FunctionChange::Comment(_) => Ok(()),
                }
            }
            Statement::Rename(Rename { object: ObjectType::Index, name, if_exists, .. }) => index_owned(name, *if_exists),
            Statement::Rename(rename) => {
                let found = self.defined_name(&rename.name).and_then(|name| existing(rights.catalog(), &name).cloned());
                let relation = match found {
                    Err(_) if rename.if_exists => return Ok(()),
                    found => found?,
                };
                rights.check_owner(&relation)?;
                match &rename.to {
                    NewName::Name(_) => rights.check_schema(&relation.schema, Privilege::Create),
                    NewName::Schema(schema) => {
                        rights.check_schema(&self.new_schema(Some(fold(schema)), &relation.name)?, Privilege::Create)
                    }
                }
            }
            Statement::Comment { on, .. } if self.existing_index(on).is_ok() => index_owned(on, false),
            Statement::Comment { on, .. } => owned(on),
            Statement::AlterView(alter) => owned(&alter.name),
            Statement::AlterRelation(alter) => match self.defined_name(&alter.name) {
                Ok(name) if alter.if_exists && rights.catalog().named(&name).is_none() => Ok(()),
                Err(_) if alter.if_exists => Ok(()),
                _ => owned(&alter.name),
            },
            Statement::Pause(name) | Statement::Resume(name) => owned(name),
            // Who may do what to roles and grants is decided where it is done: it depends on the roles.
            Statement::Role(_) | Statement::Grant(_) => Ok(()),

            // What is in them is checked.
            Statement::Explain { of: ExplainOf::Statement(statement), .. }
            | Statement::Declare { query: statement, .. }
            | Statement::Prepare { statement, .. } => self.authorize(statement),
            // It was checked when it was prepared, and is again when it runs, as any statement is.
            Statement::Execute { .. } => Ok(()),

            // They tell of what the role may see, by the catalog that it is shown.
            Statement::ShowObjects(_) => Ok(()),
            // What functions there are, and what they compute, everybody may know, as in PostgreSQL.
            Statement::ShowCreateFunction(_) => Ok(()),
            // Of the session alone.
            Statement::Fetch { .. }
            | Statement::Move { .. }
            | Statement::Close(_)
            | Statement::Deallocate(_)
            | Statement::Begin { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint(_)
            | Statement::RollbackTo(_)
            | Statement::Release(_)
            | Statement::Set { .. }
            | Statement::ShowSetting(_)
            | Statement::Reset(_)
            | Statement::Discard => Ok(()),
            // Nothing is done, or waited for.
            Statement::NoOperation(_) | Statement::Flush => Ok(()),
        }
    }
}
