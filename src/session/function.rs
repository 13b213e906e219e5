//! Making, changing and dropping users' functions.
//!
//! A function is right when it is made: its body is planned, and so are those of the functions that call it when it is replaced.
//! What is stored keeps the version that it was made with ([`crate::sql::plan::inline`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlparser::ast as sp;

use super::client::done;
use super::define::{check_dependents, check_new_name, collect};
use super::definition::after;
use super::read::planner_over;
use super::schema::check_empty;
use super::{Client, Outcome};
use crate::catalog::acl::Object;
use crate::catalog::function::{Function, FunctionId, Parameter, Volatility, base_type};
use crate::catalog::schema::{PUBLIC, RelationName, Schema, SchemaId};
use crate::catalog::{Catalog, Change, Kind, RelationId};
use crate::error::{Error, Result};
use crate::sql::ast::{AlterFunction, CreateFunction, DropFunctions, FunctionChange, FunctionName};
use crate::sql::functions::is_built_in;
use crate::sql::plan::names::{fold, fold_object};
use crate::sql::plan::{Planner, Reader};
use crate::sql::types;

impl Client {
    pub(super) async fn create_function(&mut self, create: &CreateFunction, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE FUNCTION")?;
        let name = function_name(&create.name)?;
        check_new_name(&name)?;
        if is_built_in(&self.database.state, &name) {
            return Err(Error::duplicate_function(format!("function \"{name}\" is built in")).with_hint("choose another name"));
        }
        let wanted = function_of(create, name, sql)?;
        let (database, reader, notices) = (Arc::clone(&self.database), self.reader(), Mutex::new(Vec::new()));
        self.define(|definition| {
            let catalog = definition.catalog;
            notices.lock().clear();
            let mut function = wanted.clone();
            match of_signature(catalog, &wanted) {
                None => function.id = definition.id_of(RelationName::new(PUBLIC, wanted.signature())),
                Some(former) if create.or_replace => {
                    check_replacement(former, &wanted)?;
                    (function.id, function.version) = (former.id, former.version + 1);
                    function.comment.clone_from(&former.comment);
                    notices.lock().extend(keepers(catalog, former));
                }
                Some(former) => {
                    let message = format!("function {} already exists with same argument types", former.signature());
                    let error = Error::duplicate_function(message);
                    if !create.if_not_exists {
                        return Err(error);
                    }
                    notices.lock().push(error);
                    return Ok(());
                }
            }
            let planner = |function: &Function, reader: Reader| {
                planner_over(&database, Arc::new(after(catalog, &[Change::SetFunction(function.clone())])), reader)
            };
            let body = planner(&function, reader.clone());
            let found = body.check_function(&function).map_err(|error| in_statement(error, create.body_at))?;
            function.volatility = volatility(create, &function, found)?;
            function.calls = body.functions_called().into_iter().map(|called| called.id).collect();
            check_callers(&planner(&function, Reader::Server), &function)?;
            definition.changes.push(Change::SetFunction(function));
            Ok(())
        })
        .await?;
        self.notices.append(&mut notices.lock());
        done("CREATE FUNCTION")
    }

    pub(super) async fn drop_functions(&mut self, drop: &DropFunctions) -> Result<Outcome> {
        self.beside_block("DROP FUNCTION")?;
        let notices = Mutex::new(Vec::new());
        self.change_catalog(|catalog| {
            notices.lock().clear();
            let mut gone = Gone::default();
            for name in &drop.names {
                match find_function(catalog, name) {
                    Ok(function) => gone.add(catalog, function, drop.cascade)?,
                    Err(error) if drop.if_exists && error.state() == crate::error::SqlState::UndefinedFunction => {
                        notices.lock().push(Error::notice(format!("{}, skipping", error.message())));
                    }
                    Err(error) => return Err(error),
                }
            }
            gone.changes(catalog)
        })
        .await?;
        self.notices.append(&mut notices.lock());
        done("DROP FUNCTION")
    }

    pub(super) async fn alter_function(&mut self, alter: &AlterFunction) -> Result<Outcome> {
        let tag = match alter.change {
            FunctionChange::Rename(_) => "ALTER FUNCTION",
            FunctionChange::Comment(_) => "COMMENT",
        };
        self.beside_block(tag)?;
        self.change_catalog(|catalog| {
            let mut function = Function::clone(find_function(catalog, &alter.function)?);
            match &alter.change {
                FunctionChange::Comment(comment) => function.comment.clone_from(comment),
                FunctionChange::Rename(to) => {
                    let former = std::mem::replace(&mut function.name, fold(to));
                    check_new_name(&function.name)?;
                    if of_signature(catalog, &function).is_some() {
                        let message = format!("function {} already exists", function.signature());
                        return Err(Error::duplicate_function(message));
                    }
                    // Queries and bodies are kept as text, which would no longer find it.
                    if let Some(user) = users(catalog, function.id).next() {
                        let message = format!("cannot rename function {former} because {user} uses it");
                        return Err(Error::dependent_objects(message).with_hint("drop the user first"));
                    }
                }
            }
            Ok(vec![Change::SetFunction(function)])
        })
        .await?;
        done(tag)
    }
}

/// The function of a CREATE FUNCTION; its id, version and callees are still to be found.
fn function_of(create: &CreateFunction, name: String, sql: &str) -> Result<Function> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for parameter in &create.parameters {
        let (data_type, sql_type) = types::from_ast(&parameter.data_type).map_err(|error| error.at(parameter.position))?;
        let name = parameter.name.as_ref().map(fold);
        if let Some(name) = &name
            && parameters.iter().any(|other| other.name.as_ref() == Some(name))
        {
            let message = format!("parameter name \"{name}\" used more than once");
            return Err(Error::invalid_function_definition(message).at(parameter.position));
        }
        let default = parameter.default.as_ref().map(|default| default.sql.clone());
        parameters.push(Parameter { name, data_type, sql_type, default });
    }
    let (returns, returns_sql) = types::from_ast(&create.returns)?;
    Ok(Function {
        id: 0,
        version: 1,
        name,
        parameters,
        returns,
        returns_sql,
        body: create.body.clone(),
        volatility: create.volatility.unwrap_or(Volatility::Volatile),
        strict: create.strict,
        calls: Vec::new(),
        create_sql: sql.to_string(),
        comment: None,
    })
}

fn of_signature<'a>(catalog: &'a Catalog, like: &Function) -> Option<&'a Arc<Function>> {
    catalog.functions().find(|function| function.name == like.name && function.types().eq(like.types()))
}

/// A place in the body, as one in the statement.
fn in_statement(error: Error, body_at: u32) -> Error {
    match error.position() {
        Some(position) => error.at(body_at + position.saturating_sub(1)),
        None => error,
    }
}

/// What is declared must be true of the body, for continuous queries go by the body.
fn volatility(create: &CreateFunction, function: &Function, (found, because): (Volatility, String)) -> Result<Volatility> {
    match create.volatility {
        None => Ok(found),
        Some(declared) if declared >= found => Ok(declared),
        Some(declared) => {
            let message = format!("function {} is declared {}, and its body is not", function.signature(), declared.word());
            let detail = format!("it calls {because}(), which is {}", found.word());
            Err(Error::invalid_function_definition(message).with_detail(detail).with_hint(format!("declare it {}", found.word())))
        }
    }
}

/// As in PostgreSQL, calls that were right stay right.
fn check_replacement(former: &Function, new: &Function) -> Result<()> {
    let invalid = |message: String| {
        Err(Error::invalid_function_definition(message).with_hint(format!("use DROP FUNCTION {} first", former.signature())))
    };
    if (&former.returns, base_type(&former.returns_sql)) != (&new.returns, base_type(&new.returns_sql)) {
        return invalid("cannot change return type of existing function".to_string());
    }
    for (old, new) in former.parameters.iter().zip(&new.parameters) {
        if old.data_type != new.data_type {
            return invalid(format!("cannot change type {} of an input parameter to {}", old.sql_type, new.sql_type));
        }
        if let Some(name) = old.name.as_ref().filter(|_| old.name != new.name) {
            return invalid(format!("cannot change name of input parameter \"{name}\""));
        }
        if old.default.is_some() && new.default.is_none() {
            return invalid("cannot remove parameter defaults from existing function".to_string());
        }
    }
    Ok(())
}

/// Functions that call a function must be right with its new version, too.
fn check_callers(planner: &Planner, function: &Function) -> Result<()> {
    for caller in planner.catalog().functions().filter(|caller| caller.calls.contains(&function.id)) {
        let context = |error: Error| error.without_position().with_context(format!("function {}", caller.signature()));
        let (found, _) = planner.check_function(caller).map_err(context)?;
        if found > caller.volatility {
            let message = format!("function {} calls it and is {}", caller.signature(), caller.volatility.word());
            return Err(Error::invalid_function_definition(message)
                .with_detail(format!("the new body is {}", found.word()))
                .with_hint("replace the caller first"));
        }
    }
    Ok(())
}

/// A word for those who go on with the former version.
fn keepers(catalog: &Catalog, former: &Function) -> Option<Error> {
    let keepers = catalog.callers(former.id).filter(|relation| relation.kind != Kind::View);
    let keepers: Vec<String> = keepers.map(|relation| format!("{} \"{}\"", relation.kind.noun(), relation.name)).collect();
    (!keepers.is_empty()).then(|| {
        Error::notice(format!("what is stored goes on with the function that it was made with: {}", keepers.join(", ")))
            .with_hint("CREATE OR REPLACE, or DROP and CREATE, makes it anew, with the new one")
    })
}

/// What uses a function, as messages call it.
fn users(catalog: &Catalog, id: FunctionId) -> impl Iterator<Item = String> {
    let relations = catalog.callers(id).map(|relation| format!("{} {}", relation.kind.noun(), relation.name));
    let functions = catalog.functions().filter(move |function| function.calls.contains(&id));
    relations.chain(functions.map(|function| format!("function {}", function.signature())))
}

/// The name of a function: all of them are in the schema `public`.
fn function_name(name: &sp::ObjectName) -> Result<String> {
    match fold_object(name) {
        Some((None, name)) => Ok(name),
        Some((Some(schema), name)) if schema == PUBLIC => Ok(name),
        Some((Some(schema), name)) => {
            let error =
                Error::undefined_function(format!("there is no function {schema}.{name}: functions are in schema \"public\""));
            Err(error.with_hint(format!("leave the schema out, or write public.{name}")))
        }
        None => Err(Error::syntax(format!("improper function name \"{name}\""))),
    }
}

/// The function that a statement names.
pub(super) fn find_function<'a>(catalog: &'a Catalog, name: &FunctionName) -> Result<&'a Arc<Function>> {
    let of = function_name(&name.name)?;
    let named: Vec<&Arc<Function>> = catalog.functions().filter(|function| function.name == of).collect();
    let Some(wanted) = &name.types else {
        return match named.as_slice() {
            [one] => Ok(one),
            [] => Err(Error::undefined_function(format!("could not find a function named \"{of}\""))),
            _ => Err(Error::ambiguous_function(format!("function name \"{of}\" is not unique"))
                .with_hint("specify the argument list to select the function unambiguously")),
        };
    };
    let wanted = wanted.iter().map(|wanted| Ok(types::from_ast(wanted)?.1)).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<&str> = wanted.iter().map(|wanted| base_type(wanted)).collect();
    let found = named.into_iter().find(|function| function.types().eq(wanted.iter().copied()));
    found.ok_or_else(|| Error::undefined_function(format!("function {of}({}) does not exist", wanted.join(","))))
}

/// What goes with a DROP that drops functions.
#[derive(Default)]
pub(super) struct Gone {
    functions: BTreeSet<FunctionId>,
    pub(super) relations: BTreeSet<RelationId>,
    schemas: BTreeSet<SchemaId>,
}

impl Gone {
    pub(super) fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Relation(id) => self.relations.contains(id),
            Object::Function(id) => self.functions.contains(id),
            Object::Schema(id) | Object::Default { schema: Some(id), .. } => self.schemas.contains(id),
            _ => false,
        }
    }

    /// A function, and with CASCADE all that use it.
    pub(super) fn add(&mut self, catalog: &Catalog, function: &Function, cascade: bool) -> Result<()> {
        if !self.functions.insert(function.id) || !cascade {
            return Ok(());
        }
        for relation in catalog.callers(function.id) {
            collect(catalog, relation, cascade, &mut self.relations)?;
        }
        let mut callers = catalog.functions().filter(|caller| caller.calls.contains(&function.id));
        callers.try_for_each(|caller| self.add(catalog, caller, cascade))
    }

    /// A schema, and with CASCADE all that is in it.
    pub(super) fn add_schema(&mut self, catalog: &Catalog, schema: &Schema, cascade: bool) -> Result<()> {
        self.schemas.insert(schema.id);
        match cascade {
            true => catalog.relations_in(&schema.name).try_for_each(|r| collect(catalog, r, cascade, &mut self.relations)),
            false => Ok(()),
        }
    }

    /// Users before what they use, if nothing is left that uses what goes.
    pub(super) fn changes(self, catalog: &Catalog) -> Result<Vec<Change>> {
        check_dependents(catalog, &self.relations)?;
        for schema in self.schemas.iter().filter_map(|id| catalog.schemas().get(*id)) {
            check_empty(catalog, schema, &self.relations)?;
        }
        for id in &self.functions {
            let Some(function) = catalog.function(*id) else { continue };
            let relations = catalog.callers(*id).filter(|relation| !self.relations.contains(&relation.id));
            let relations = relations.map(|relation| format!("{} {}", relation.kind.noun(), relation.name));
            let functions = catalog.functions().filter(|f| f.calls.contains(id) && !self.functions.contains(&f.id));
            let users: Vec<String> = relations.chain(functions.map(|f| format!("function {}", f.signature()))).collect();
            if !users.is_empty() {
                let signature = function.signature();
                let detail: Vec<String> = users.iter().map(|user| format!("{user} depends on function {signature}")).collect();
                let message = format!("cannot drop function {signature} because other objects depend on it");
                return Err(Error::dependent_objects(message)
                    .with_detail(detail.join("\n"))
                    .with_hint("use DROP … CASCADE to drop the dependent objects too"));
            }
        }
        let relations = self.relations.into_iter().rev().map(Change::Drop);
        let functions = self.functions.into_iter().rev().map(Change::DropFunction);
        Ok(relations.chain(functions).chain(self.schemas.into_iter().map(Change::DropSchema)).collect())
    }
}
