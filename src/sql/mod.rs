//! SQL: from text to plans.
//!
//! * [`ast`]: our statements; what PostgreSQL has too is sqlparser's own.
//! * [`parse`]: text to [`ast::Statement`], with every spelling of SQL.md brought to one form.
//! * [`types`]: the names of types.
//! * [`plan`]: names and types resolved by DataFusion's planner over our catalog; windows become [`window::WindowNode`]s.
//! * [`pattern`]: MATCH_RECOGNIZE, in plans and in batch queries.
//! * [`functions`]: what can be called.
//! * [`batch`]: a plan as an ordinary DataFusion query over a snapshot. This is also what "correct" means.
//! * [`lower`]: the same plan as a graph of operators.
//! * [`verify`]: the two compared.
//! * [`rename`]: another name for a relation, in the statements that are kept as text.
//! * [`lateness`]: how late the rows of a stream are.
//! * [`system`]: what clients ask about the server itself.

pub mod ast;
pub mod batch;
pub mod functions;
pub mod lateness;
pub mod lower;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod rename;
#[cfg(test)]
mod review;
pub mod system;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;
pub mod verify;
pub mod window;
