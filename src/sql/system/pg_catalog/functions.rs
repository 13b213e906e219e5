//! Functions and aggregates: those that the planner knows, and those that read and write types.

use super::super::context::SystemContext;
use super::super::definitions::PG_CATALOG;
use super::super::objects::{Function, OWNER};
use super::super::table::Table;
use super::super::types;

/// Oid of `anyelement`, the type of arguments and results that depend on the call.
const ANY_ELEMENT: u32 = 2283;

pub(in crate::sql::system) fn result_type(function: &Function) -> u32 {
    let named = function.info.result.as_deref().and_then(types::by_name);
    named.map_or(ANY_ELEMENT, |t| t.oid)
}

pub(in crate::sql::system) fn argument_types(function: &Function) -> Vec<u32> {
    let arguments = function.info.arguments.as_deref().unwrap_or_default();
    arguments.iter().map(|name| types::by_name(name).map_or(ANY_ELEMENT, |t| t.oid)).collect()
}

pub(super) fn proc(context: &SystemContext, table: &mut Table<'_>) {
    for function in &context.objects().functions {
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
