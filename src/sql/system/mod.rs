//! What clients ask about the server itself: the catalog as PostgreSQL and the SQL standard tell it.
//!
//! Drivers, psql and BI tools find their way by queries over `pg_catalog` and `information_schema`, and by functions such as
//! `format_type`. Here these are ordinary relations and functions over our own registry, so that any query over them has an
//! answer; no client's query is known by its text.
//!
//! ```text
//!   Query ──rewrite──► Query ──SqlToRel──► LogicalPlan ──Decorrelate──► LogicalPlan ──► as any other query
//!            casts to reg…,        relation(schema, name)      subqueries of any
//!            qualified functions   function(name)              shape become joins
//! ```
//!
//! * [`context`]: what a statement's relations and functions look at: a snapshot, the session, the server.
//! * `definitions`, `types`: which relations, columns and types there are; data files read once.
//! * `objects`: everything that has an OID, in one form.
//! * `pg_catalog`, `information_schema`, `tidegate`: the rows, made when a relation is scanned.
//! * `functions`: the functions, a table per theme.
//! * [`rewrite`](mod@rewrite): forms of PostgreSQL's grammar that DataFusion's planner lacks, on the tree.
//! * [`decorrelate`]: correlated subqueries that DataFusion's optimizer can't turn into joins.
//! * [`show`]: the answers of SHOW and DESCRIBE.

pub mod context;
pub mod decorrelate;
mod definitions;
mod functions;
mod information_schema;
mod objects;
mod pg_catalog;
pub mod rewrite;
pub mod show;
mod table;
#[cfg(test)]
mod tests;
mod tidegate;
mod types;
mod value;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ScalarUDF, Volatility};

pub use context::{
    Activity, CommitInfo, FunctionInfo, Named, NamedCursor, NamedStatement, Server, Setting, Settings, SinkStatus, SystemContext,
};
pub use decorrelate::Decorrelate;
pub use definitions::PG_TYPE;
pub(in crate::sql) use functions::definitions::quote_ident;
pub(in crate::sql) use functions::interval_divided;
pub use rewrite::{
    constructs_json, gives_records, gives_rows, is_borrowed, lists_of_parameters, rewrite, rewrite_expression, select_from,
    takes_lambdas, visible_name,
};

/// The system relation of this name; without a schema, one of pg_catalog.
pub fn relation(schema: Option<&str>, name: &str, context: &Arc<SystemContext>) -> Option<Arc<dyn TableProvider>> {
    let relation = definitions::find(schema.unwrap_or("pg_catalog"), name)?;
    Some(Arc::new(table::SystemTable { relation, context: context.clone() }))
}

/// The names of the relations of a schema.
pub fn relation_names(schema: &str) -> impl Iterator<Item = &'static str> {
    definitions::all().filter(move |r| r.schema == schema).map(|r| r.name)
}

/// The function of this name, if it is one that looks at the catalog or the session.
pub fn function(name: &str, context: &Arc<SystemContext>) -> Option<Arc<ScalarUDF>> {
    functions::function(name, context)
}

/// Is there a function of ours of this name?
pub fn is_function(name: &str) -> bool {
    functions::infos().any(|function| function.name == name)
}

/// Those that look at their arguments alone, for every planner: a view must mean what a query means.
pub fn pure_functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    functions::pure()
}

/// The type of a function's results, where it is text to Arrow and more to clients: `uuid`, `json`, `jsonb`.
pub fn document_type(function: &str) -> Option<&'static str> {
    functions::document_type(function)
}

/// Registers all functions for a statement. They replace those of DataFusion that have the same names.
pub fn register(context: &Arc<SystemContext>, state: &mut SessionState) -> crate::error::Result<()> {
    for function in functions::functions(context) {
        state.register_udf(function)?;
    }
    Ok(())
}

/// What pg_proc lists: the functions of a planner and our own. Made once; a context is given a share of it.
pub fn functions_of(state: &SessionState) -> Arc<[FunctionInfo]> {
    let volatility = |v: Volatility| match v {
        Volatility::Immutable => 'i',
        Volatility::Stable => 's',
        Volatility::Volatile => 'v',
    };
    let info = |name: &str, kind: char, v: Volatility| FunctionInfo {
        name: name.to_string(),
        kind,
        volatility: volatility(v),
        result: None,
        arguments: None,
    };
    let scalar = state.scalar_functions().iter().map(|(name, f)| info(name, 'f', f.signature().volatility));
    let aggregate = state.aggregate_functions().iter().map(|(name, f)| info(name, 'a', f.signature().volatility));
    let window = state.window_functions().iter().map(|(name, f)| info(name, 'w', f.signature().volatility));
    let own: std::collections::BTreeMap<String, FunctionInfo> = functions::infos().map(|f| (f.name.clone(), f)).collect();
    let theirs = scalar.chain(aggregate).chain(window).filter(|f| !own.contains_key(&f.name));
    let mut all: Vec<FunctionInfo> = theirs.collect();
    all.extend(own.into_values());
    all.sort();
    all.dedup();
    all.into()
}
