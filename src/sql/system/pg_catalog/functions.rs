//! Functions and aggregates: those that the planner knows, and those that read and write types.

use super::super::context::SystemContext;
use super::super::definitions::PG_CATALOG;
use super::super::objects::{Function, OWNER};
use super::super::table::Table;
use super::super::types;
use super::super::value::Value;
use crate::catalog::{self, acl::Object};

/// Oid of `anyelement`, the type of arguments and results that depend on the call.
const ANY_ELEMENT: u32 = 2283;

pub(in crate::sql::system) fn result_type(function: &Function) -> u32 {
    if let Some(user) = &function.user {
        return crate::sql::types::oid(&user.returns, &user.returns_sql);
    }
    let named = function.info.result.as_deref().and_then(types::by_name);
    named.map_or(ANY_ELEMENT, |t| t.oid)
}

pub(in crate::sql::system) fn argument_types(function: &Function) -> Vec<u32> {
    if let Some(user) = &function.user {
        return user.parameters.iter().map(|p| crate::sql::types::oid(&p.data_type, &p.sql_type)).collect();
    }
    let arguments = function.info.arguments.as_deref().unwrap_or_default();
    arguments.iter().map(|name| types::by_name(name).map_or(ANY_ELEMENT, |t| t.oid)).collect()
}

pub(super) fn proc(context: &SystemContext, table: &mut Table<'_>) {
    for function in &context.objects().functions {
        match &function.user {
            None => built_in(function, table),
            Some(user) => of_user(context, function, user, table),
        }
    }
}

fn built_in(function: &Function, table: &mut Table<'_>) {
    let arguments = argument_types(function);
    // Any number of arguments of any types, where the signature is not one list of types.
    let variadic = if function.info.arguments.is_none() { 2276u32 } else { 0 };
    table.row([
        ("oid", function.oid.into()),
        ("proname", function.info.name.as_str().into()),
        ("pronamespace", PG_CATALOG.into()),
        ("proowner", OWNER.into()),
        ("prolang", 12.into()),
        ("procost", 1.0.into()),
        ("provariadic", variadic.into()),
        ("prokind", function.info.kind.to_string().into()),
        ("provolatile", function.info.volatility.to_string().into()),
        ("proparallel", "s".into()),
        ("pronargs", i16::try_from(arguments.len()).unwrap_or(i16::MAX).into()),
        ("prorettype", result_type(function).into()),
        ("proargtypes", arguments.into()),
        ("prosrc", function.info.name.as_str().into()),
    ]);
}

fn of_user(context: &SystemContext, function: &Function, user: &catalog::function::Function, table: &mut Table<'_>) {
    let (owner, acl) = context.access(Object::Function(user.id));
    let count = |n: usize| Value::from(i16::try_from(n).unwrap_or(i16::MAX));
    let names: Vec<Value> = user.parameters.iter().map(|p| p.name.as_deref().unwrap_or_default().into()).collect();
    let is_named = user.parameters.iter().any(|p| p.name.is_some());
    let defaults: Vec<&str> = user.parameters.iter().filter_map(|p| p.default.as_deref()).collect();
    table.row([
        ("oid", function.oid.into()),
        ("proname", user.name.as_str().into()),
        ("pronamespace", function.namespace().into()),
        ("proowner", owner.into()),
        ("prolang", 14.into()),
        ("procost", 100.0.into()),
        ("provariadic", 0.into()),
        ("prokind", "f".into()),
        ("proisstrict", Value::Bool(user.strict)),
        ("provolatile", user.volatility.letter().to_string().into()),
        ("proparallel", "s".into()),
        ("pronargs", count(user.parameters.len())),
        ("pronargdefaults", count(defaults.len())),
        ("prorettype", result_type(function).into()),
        ("proargtypes", argument_types(function).into()),
        ("proargnames", if is_named { Value::List(names) } else { Value::Null }),
        ("proargdefaults", (!defaults.is_empty()).then(|| defaults.join(", ")).into()),
        ("prosrc", user.body.as_str().into()),
        ("proacl", acl),
    ]);
}

pub(super) fn aggregate(context: &SystemContext, table: &mut Table<'_>) {
    for function in context.objects().functions.iter().filter(|f| f.info.kind == 'a') {
        table.row([
            ("aggfnoid", function.oid.into()),
            ("aggkind", "n".into()),
            ("aggfinalmodify", "r".into()),
            ("aggmfinalmodify", "r".into()),
        ]);
    }
}
