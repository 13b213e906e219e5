//! MATCH_RECOGNIZE in a plan.
//!
//! A [`MatchNode`] gives the rows of matches: columns of the input, then one column for each value that MEASURES read of a match (a
//! column of some row of it, an aggregate, its number). A projection above makes the measures of them, and is DataFusion's as
//! any other:
//!
//! ```text
//!   Projection: card, "$0" AS first_country, "$1" - "$2" AS took        MEASURES
//!     Match: (a b b) by card order by at within 00:05:00               ← this node
//!       TableScan: transactions
//! ```
//!
//! * [`text`]: the pattern;
//! * [`values`]: which values of a match DEFINE and MEASURES read;
//! * [`recognize`]: the clause as a node;
//! * [`spec`](mod@spec): the node as the matcher takes it ([`crate::flow::pattern`]), for operators and for batch answers;
//! * [`exec`]: the latter.
//!
//! Invariants. The node's expressions are over its input, and are the matcher's columns; all else speaks of those by number, so the
//! optimizer may rewrite them as it likes. Conditions are over values of a match only ([`slot_name`]), coerced already, and
//! depend on nothing else.

pub mod exec;
mod recognize;
mod spec;
mod text;
mod values;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Error, Result};
use crate::flow::pattern::program::{ANY, Pattern};
use crate::flow::pattern::{Anchor, Measure, Shown, Skip, Slot};
use crate::sql::plan::event_time::input_column;
use crate::sql::window::show_duration;
use crate::time::Micros;

pub use recognize::PatternPlanner;
pub use spec::spec;

/// What to look for, over the node's columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Recognition {
    pub names: Vec<String>,
    pub pattern: Pattern,
    pub partition: Vec<usize>,
    pub order: Vec<Order>,
    pub within: Option<Micros>,
    pub skip: Skip,
    pub shown: Shown,
    /// Values that conditions read, and their types.
    pub slots: Vec<(Measure, DataType)>,
    /// By variable: a condition over [`slot_name`]s. `None`: every row fits.
    pub conditions: Vec<Option<Expr>>,
    /// Aggregate calls over [`column_name`]s.
    pub calls: Vec<Expr>,
    /// Values that the node gives, and their types.
    pub measures: Vec<(Measure, DataType)>,
    /// The columns that are passed on with each output row.
    pub passed: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Order {
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Order {
    /// From the least to the greatest, NULLs behind all.
    pub fn ascends(&self) -> bool {
        !self.descending && !self.nulls_first
    }
}

/// Finds the matches in the rows of its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchNode {
    /// The matcher's columns, over the input.
    pub columns: Vec<Expr>,
    pub recognition: Arc<Recognition>,
    /// Only matches that are final by this frontier of the first column of the order; only in batch answers.
    pub final_by: Option<Micros>,
    pub input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

/// The name of a value of a match, where conditions and the plan above the node speak of it.
pub fn slot_name(slot: usize) -> String {
    format!("${slot}")
}

/// The name of a column of the matcher.
pub fn column_name(column: usize) -> String {
    format!("c{column}")
}

impl MatchNode {
    pub fn new(columns: Vec<Expr>, recognition: Recognition, input: LogicalPlan) -> Result<MatchNode> {
        let mut fields = Vec::new();
        for column in &recognition.passed {
            let index = input_column(&columns[*column], &input)
                .ok_or_else(|| Error::internal("a match passes on what is no column of its input"))?;
            let (qualifier, field) = input.schema().qualified_field(index);
            fields.push((qualifier.cloned(), Arc::clone(field)));
        }
        for (slot, (_, data_type)) in recognition.measures.iter().enumerate() {
            fields.push((None, Arc::new(Field::new(slot_name(slot), data_type.clone(), true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(MatchNode { columns, recognition: Arc::new(recognition), final_by: None, input: Arc::new(input), schema })
    }

    /// The node, if the plan's root is one.
    pub fn of(plan: &LogicalPlan) -> Option<&MatchNode> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The same over another input with the same columns.
    #[must_use]
    pub fn over(self, input: Arc<LogicalPlan>) -> MatchNode {
        MatchNode { input, ..self }
    }

    #[must_use]
    pub fn final_by(self, frontier: Micros) -> MatchNode {
        MatchNode { final_by: Some(frontier), ..self }
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The matcher's columns as a schema.
    pub fn column_schema(&self) -> Result<DFSchema> {
        columns_of(&self.columns, self.input.schema())
    }

    /// The column of the input whose time the rows are in the order of, if it ascends.
    pub fn time_index(&self) -> Option<usize> {
        let first = self.recognition.order.first().filter(|first| first.ascends())?;
        let index = input_column(&self.columns[first.column], &self.input)?;
        matches!(self.input.schema().field(index).data_type(), DataType::Timestamp(..)).then_some(index)
    }

    /// Output columns whose times are those of rows of the match, and how long before the last of them its first row may be: as far
    /// behind the frontier as that, a match may still change.
    pub fn times(&self) -> Option<(Vec<usize>, Micros)> {
        let of = self.recognition.as_ref();
        let time = of.order.first().filter(|_| self.time_index().is_some())?.column;
        let ahead = |(measure, _): &(Measure, DataType)| matches!(measure.slot, Slot::Column { shift, .. } if shift > 0);
        let anchored = of.pattern.any(&|part| matches!(part, Pattern::Start | Pattern::End));
        let within = of.within.filter(|_| !anchored && !of.slots.iter().chain(&of.measures).any(ahead))?;
        let is_there = |anchor: Anchor| match anchor {
            Anchor::First { of: rows, but: 0 } | Anchor::Last { of: rows, but: 0 } => {
                if rows == ANY {
                    !of.pattern.is_nullable()
                } else {
                    of.pattern.always_has(rows)
                }
            }
            _ => false,
        };
        let passed = of.passed.iter().map(|column| *column == time);
        let measured = of.measures.iter().map(|(measure, _)| match measure.slot {
            Slot::Column { column, anchor, shift: 0 } => column == time && is_there(anchor),
            _ => false,
        });
        let times = passed.chain(measured).enumerate().filter(|(_, is_time)| *is_time).map(|(column, _)| column);
        Some((times.collect(), within))
    }

    /// `(a b+ c) by card order by at within 00:05:00, one row per match`.
    pub fn describe(&self) -> String {
        let of = self.recognition.as_ref();
        let name = |column: usize| match &self.columns[column] {
            Expr::Column(column) => column.name.clone(),
            other => other.human_display().to_string(),
        };
        let names = |columns: &[usize]| columns.iter().map(|column| name(*column)).collect::<Vec<_>>().join(", ");
        let mut text = format!("({})", text::show(&of.pattern, &of.names));
        if !of.partition.is_empty() {
            text.push_str(&format!(" by {}", names(&of.partition)));
        }
        let order: Vec<String> = of
            .order
            .iter()
            .map(|order| format!("{}{}", name(order.column), if order.descending { " desc" } else { "" }))
            .collect();
        text.push_str(&format!(" order by {}", order.join(", ")));
        if let Some(within) = of.within {
            text.push_str(&format!(" within {}", show_duration(within)));
        }
        text.push_str(match of.shown {
            Shown::OneRow => ", one row per match",
            Shown::AllRows { empty_matches: true } => ", all rows per match",
            Shown::AllRows { empty_matches: false } => ", all rows per match, no empty matches",
        });
        let variables = |variables: u64| {
            let names = of.names.iter().enumerate().filter(|(n, _)| variables & (1 << n) != 0).map(|(_, name)| name.as_str());
            names.collect::<Vec<_>>().join(" or ")
        };
        text.push_str(&match of.skip {
            Skip::PastLastRow => String::new(),
            Skip::ToNextRow => ", skip to next row".into(),
            Skip::ToFirst(of) => format!(", skip to first {}", variables(of)),
            Skip::ToLast(of) => format!(", skip to last {}", variables(of)),
        });
        text
    }
}

/// Expressions over a relation as the matcher's columns.
fn columns_of(columns: &[Expr], input: &DFSchema) -> Result<DFSchema> {
    let field = |(n, expr): (usize, &Expr)| -> Result<_> {
        let (data_type, nullable) = (expr.get_type(input)?, expr.nullable(input)?);
        Ok((None, Arc::new(Field::new(column_name(n), data_type, nullable))))
    };
    let fields = columns.iter().enumerate().map(field).collect::<Result<Vec<_>>>()?;
    Ok(DFSchema::new_with_metadata(fields, Default::default())?)
}

impl PartialOrd for MatchNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |node: &MatchNode| (node.columns.clone(), Arc::clone(&node.recognition), node.final_by);
        match key(self).partial_cmp(&key(other)) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            ordering => ordering,
        }
    }
}

impl UserDefinedLogicalNodeCore for MatchNode {
    fn name(&self) -> &str {
        "Match"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.columns.clone()
    }

    /// A filter above may go below only if it takes whole partitions.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let of = self.recognition.as_ref();
        let shown = of.passed.iter().chain(std::iter::repeat(&usize::MAX));
        let kept = self.schema.fields().iter().zip(shown).filter(|(_, column)| !of.partition.contains(column));
        kept.map(|(field, _)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Match: {}", self.describe())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let Some(input) = inputs.pop().filter(|_| exprs.len() == self.columns.len()) else {
            return Err(Error::internal("a match was rewritten without its input or its columns").into());
        };
        Ok(MatchNode { columns: exprs, input: Arc::new(input), ..self.clone() })
    }

    // Its columns are its expressions.
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![Vec::new()])
    }
}
