//! The functions of SQL, and the settings that queries are planned and run with.
//!
//! DataFusion's own come first; what PostgreSQL's users or streams need beside them is registered by [`register`], one file
//! per family.

mod aggregates;
mod bounded;
mod bytes;
mod common;
pub mod convert;
pub mod declared;
mod fields;
pub mod instants;
mod intervals;
mod lists;
mod maps;
mod now;
pub mod operators;
mod optimizer;
pub mod or_null;
mod precision;
mod reduce;
mod rounding;
pub mod sessions;
pub mod steps;
mod sums;
mod unnested;
pub mod zones;

use std::sync::Arc;

use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::SessionConfig;

pub use self::now::ZONED_NOW;
use crate::limits;

/// How many partitions a batch query runs in, unless the caller says otherwise.
pub const TARGET_PARTITIONS: usize = 2;

/// Functions and settings. Made once; shared by all planners.
pub fn state() -> SessionState {
    let functions = state_with(Vec::new());
    let operators = operators::Operators::new(|name| functions.scalar_functions().get(name).cloned());
    state_with(operators.into_iter().map(|operators| Arc::new(operators) as Arc<dyn ExprPlanner>).collect())
}

/// The first planner that knows an operator plans it: these go before DataFusion's.
fn state_with(planners: Vec<Arc<dyn ExprPlanner>>) -> SessionState {
    let config = SessionConfig::new()
        .with_batch_size(limits::BATCH_ROWS)
        .with_target_partitions(TARGET_PARTITIONS)
        .with_information_schema(false)
        // `SELECT * FROM (SELECT … ORDER BY a) AS t` gives the rows in that order, as in PostgreSQL; tools wrap queries so.
        .set_bool("datafusion.sql_parser.enable_subquery_sort_elimination", false)
        // Some expressions, `b IS TRUE` among them, say once that they may be NULL and once that they are never.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_expr_planners(planners)
        .with_default_features()
        .with_query_planner(Arc::new(crate::sql::pattern::exec::Queries))
        // Correlated subqueries of any shape, before DataFusion's own rules for some.
        .with_analyzer_rule(Arc::new(crate::sql::system::Decorrelate))
        .with_optimizer_rules(optimizer::rules())
        .with_physical_optimizer_rules(optimizer::physical_rules())
        .build();
    // Statements reach files and the network through connectors only.
    state.table_factories_mut().clear();
    register(&mut state).expect("names of functions are fixed, and so is that they register");
    state
}

/// Names that mean something else in SQL than a function that is registered.
const FORMS: [&str; 24] = [
    "array",
    "earliest_by_offset",
    "exists",
    "extract",
    "gap_fill",
    "gen_random_uuid",
    "generate_subscripts",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "latest_by_offset",
    "localtimestamp",
    "mod",
    "overlay",
    "position",
    "row",
    "statement_timestamp",
    "substring",
    "transaction_timestamp",
    "trim_scale",
    "unnest",
    crate::sql::plan::documents::WHOLE_ROW,
    declared::PLAIN,
];

/// Does a call of this name mean something already? Then users cannot give it.
pub fn is_built_in(state: &SessionState, name: &str) -> bool {
    state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || state.table_functions().contains_key(name)
        || crate::sql::system::is_function(name)
        || FORMS.contains(&name)
        || crate::sql::system::gives_rows(name)
        || crate::sql::system::gives_records(name)
        || crate::sql::system::is_borrowed(name)
        || crate::sql::system::constructs_json(name)
        || crate::sql::system::takes_lambdas(name)
        || crate::sql::ast::WINDOW_FUNCTIONS.contains(&name)
}

/// Register all functions of ours.
pub fn register(registry: &mut dyn FunctionRegistry) -> datafusion::error::Result<()> {
    for function in scalar_functions()
        .into_iter()
        .chain(common::all())
        .chain(fields::all())
        .chain(lists::all())
        .chain(maps::all())
        .chain(rounding::all())
        .chain(zones::all())
        .chain(crate::sql::system::pure_functions())
    {
        registry.register_udf(function)?;
    }
    registry.register_udf(Arc::new(now::now()))?;
    registry.register_higher_order_function(reduce::array_reduce())?;
    for function in aggregates::all() {
        registry.register_udaf(function)?;
    }
    // By PostgreSQL's other names for them.
    let renamed = [
        datafusion::functions_aggregate::variance::var_samp_udaf().as_ref().clone().with_aliases(["variance"]),
        datafusion::functions_aggregate::bool_and_or::bool_and_udaf().as_ref().clone().with_aliases(["every"]),
    ];
    for function in sums::all().into_iter().chain(renamed) {
        registry.register_udaf(Arc::new(function))?;
    }
    bounded::bound(registry)?;
    bytes::measured(registry)
}

/// Ours, by the name they have here. Word counts are the first query everyone writes: `split` is `string_to_array`.
fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let split = datafusion::functions_nested::string::string_to_array_udf();
    vec![Arc::new(split.as_ref().clone().with_aliases(["split"])), precision::round_time(), unnested::unnest_column()]
}
