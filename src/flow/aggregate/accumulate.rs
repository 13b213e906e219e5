//! Accumulators: what an aggregate remembers of each group, as columns indexed by the group's number.
//!
//! [`make`] chooses, by the function and by whether rows can be taken away again:
//!
//! | aggregate | append-only input | with retractions |
//! | --- | --- | --- |
//! | count, sum, avg | a number or two ([`super::numeric`]) | the same |
//! | min, max | the extreme value ([`super::extreme`]) | all values with their weights ([`super::multiset`]) |
//! | those of [`FOLDED`] | DataFusion's own accumulator ([`super::fold`]) | all values with their weights, evaluated again |
//! | count(DISTINCT x) | all values ([`super::distinct`]) | all values with their weights |
//! | all others | all values with their weights, evaluated again ([`super::multiset`]) | the same |

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use std::sync::Arc;

use super::distinct::Distinct;
use super::extreme::Extreme;
use super::fold::Fold;
use super::multiset::{Evaluate, Multiset};
use super::numeric::{Average, Count, Sum};
use crate::error::Result;

/// Aggregates whose accumulators in DataFusion can be saved and go on afterwards as if nothing had happened, to the last bit. Those
/// of floats cannot.
pub const FOLDED: [&str; 10] =
    ["bool_and", "bool_or", "bit_and", "bit_or", "bit_xor", "approx_distinct", "topk", "topkdistinct", "arg_max", "arg_min"];

/// One aggregate over all groups of a table.
pub trait Accumulator: Send {
    /// Groups `..count` exist from now on; new ones are empty.
    fn resize(&mut self, count: usize);

    /// Row `i` of the arguments belongs to `groups[i]`, with weight `diff[i]` (+1 if there is none).
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef], diff: Option<&Int64Array>) -> Result<()>;

    /// The aggregate's value for each of these groups.
    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef>;

    /// Make a group empty again.
    fn clear(&mut self, group: u32);

    /// Types of the columns of `state`. None, if all values are kept.
    fn state_types(&self) -> Vec<DataType>;

    /// What is remembered of these groups, for a checkpoint.
    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// The reverse of `state`; the groups are empty before.
    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// Add to each of these groups, each given once, what `state` says that another remembers; or, with a sign of -1, take it
    /// away. Only accumulators with a state, and multisets of extreme values, are merged.
    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()>;

    /// The values that it keeps, if it keeps them all: their changes are saved row by row.
    fn values(&self) -> Option<&dyn Values> {
        None
    }

    /// Bytes held, roughly.
    fn bytes(&self) -> usize;
}

/// What an accumulator is that keeps all values of a group.
pub trait Values {
    /// Of each value, which is one of every argument.
    fn types(&self) -> &[DataType];

    /// All values of a group with their weights: columns, then weights.
    fn content(&self, group: u32) -> Result<(Vec<ArrayRef>, Vec<i64>)>;

    /// Which rows of the last update a checkpoint has to know of; `None`: all of them.
    fn news(&self) -> Option<&[u32]> {
        None
    }
}

/// An aggregate call of the query.
#[derive(Clone)]
pub struct Call {
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    /// Its arguments, then the expressions of its ORDER BY.
    pub arguments: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    pub argument_types: Vec<DataType>,
    pub output: FieldRef,
}

impl Call {
    /// It keeps all values of a group instead of a summary.
    pub fn keeps_values(&self, append_only: bool) -> bool {
        self.summary(append_only).is_none()
    }

    /// What it remembers of some rows and of others adds up to what it remembers of all.
    pub fn adds_up(&self, append_only: bool) -> bool {
        !matches!(self.summary(append_only), None | Some(Summary::Fold))
    }

    fn summary(&self, append_only: bool) -> Option<Summary> {
        let function = &self.function;
        if function.is_distinct() || !function.order_bys().is_empty() {
            return None;
        }
        let output = self.output.data_type();
        match (function.fun().name(), self.argument_types.first()) {
            ("count", _) if self.argument_types.len() <= 1 => Some(Summary::Count),
            ("sum", Some(_)) if Sum::supports(output) => Some(Summary::Sum),
            ("avg", Some(input)) if Average::supports(input, output) => Some(Summary::Average),
            ("min", Some(_)) if append_only => Some(Summary::Extreme { greatest: false }),
            ("max", Some(_)) if append_only => Some(Summary::Extreme { greatest: true }),
            (name, _) if append_only && FOLDED.contains(&name) => Some(Summary::Fold),
            _ => None,
        }
    }
}

enum Summary {
    Count,
    Sum,
    Average,
    Extreme { greatest: bool },
    Fold,
}

pub fn make(call: &Call, append_only: bool) -> Result<Box<dyn Accumulator>> {
    let output = call.output.data_type();
    Ok(match call.summary(append_only) {
        Some(Summary::Count) => Box::new(Count::new()),
        Some(Summary::Sum) => Box::new(Sum::new(output)?),
        Some(Summary::Average) => Box::new(Average::new(&call.argument_types[0], output)?),
        Some(Summary::Extreme { greatest }) => Box::new(Extreme::new(output, greatest)?),
        Some(Summary::Fold) => Box::new(Fold::new(call)?),
        None => {
            let plain = call.function.order_bys().is_empty() && call.argument_types.len() == 1;
            match (call.function.fun().name(), call.function.is_distinct()) {
                ("count", true) if plain => Box::new(Distinct::new(call.argument_types.clone(), append_only)?),
                ("min", _) if plain => Box::new(Multiset::new(call, Evaluate::First)?),
                ("max", _) if plain => Box::new(Multiset::new(call, Evaluate::Last)?),
                _ => Box::new(Multiset::new(call, Evaluate::Again)?),
            }
        }
    })
}

/// A field of a state table; all of them may be NULL, because a deleted key has no state.
pub fn state_field(name: String, data_type: &DataType) -> Field {
    Field::new(name, data_type.clone(), true)
}
