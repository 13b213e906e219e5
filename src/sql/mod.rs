//! SQL: from text to plans.
//!
//! * [`ast`]: our statements; what PostgreSQL has too is sqlparser's own.
//! * [`parse`]: text to [`ast::Statement`], with every spelling of SQL.md brought to one form.
//! * [`plan`]: names and types resolved by DataFusion's planner over our catalog; windows become [`window::WindowNode`]s.
//! * [`batch`]: a plan as an ordinary DataFusion query over a snapshot. This is also what "correct" means.
//! * [`system`]: the catalog that clients ask: pg_catalog, information_schema, and the functions they call.
//! * [`lower`]: the same plan as a graph of operators.

pub mod ast;
pub mod batch;
pub mod functions;
pub mod lower;
pub mod parse;
pub mod plan;
pub mod system;
pub mod types;
pub mod window;
