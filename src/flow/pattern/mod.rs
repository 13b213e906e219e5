//! MATCH_RECOGNIZE: runs of rows of a partition that fit a pattern.
//!
//! The rows of a partition stand in order. From the first row on, [`search`] looks for the match that SQL:2016 prefers; after a
//! match it goes on where AFTER MATCH SKIP says, and otherwise at the next row. One such look is an *attempt*. It depends on the
//! rows that it examined and, by PREV, on a few before them; not on former attempts. Everything here follows from that:
//!
//! ```text
//!   rows        r1  r2  r3  r4  r5  r6  r7  r8           a change at r6:
//!   attempts    ├───────┤                                 examined rows before r6 only: it stands
//!                       ├───────────┤                     looked at r6: made again, and so are those that follow,
//!                                   ├───────┤             until a row from which the former attempts went on as well
//! ```
//!
//! * [`operator`]: what became of matches is found by going through the rows as they were and as they are, from the first attempt
//!   that the change can touch until both come to the same place behind it.
//! * An attempt is *final* once the frontier has passed all that it examined, or all that WITHIN lets it examine. EMIT FINAL gives
//!   matches then, and rows before the first attempt that is not final are dropped.
//! * A batch answer is the same [`scan`] over all rows.
//!
//! Of equals in the order of the rows, all other columns decide, as they do in an [`Arrangement`](super::arrangement::Arrangement).
//! WITHIN: the last row of a match is at most so long after its first.

pub mod operator;
pub mod program;
pub mod scan;
mod search;
mod values;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::time::Micros;

use program::{Pattern, Program, Variables};

/// Where the next attempt starts after a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(Variables),
    ToLast(Variables),
}

/// What is shown of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Shown {
    OneRow,
    /// Each row that is not excluded; of a match without rows, the row where it was found, if they are shown.
    AllRows {
        empty_matches: bool,
    },
}

/// From which row of a match a navigation sets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Anchor {
    /// In DEFINE: the row that the condition is about.
    Current,
    /// The first row of these variables, but for so many.
    First { of: Variables, but: usize },
    /// The last row of these variables, but for so many.
    Last { of: Variables, but: usize },
}

/// A value that depends on a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Slot {
    /// A column of the row so many after (or before) the anchor's; NULL without such a row.
    Column { column: usize, anchor: Anchor, shift: i64 },
    /// An aggregate, by index, over the rows of these variables.
    Aggregate { call: usize, of: Variables },
    /// The name of the last row's variable.
    Classifier,
    /// The number of the match in its partition, from 1.
    Number,
}

/// What is computed of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct Measure {
    pub slot: Slot,
    /// FINAL: of the whole match at each of its rows. Otherwise of the rows so far.
    pub whole: bool,
}

/// A condition over values of these slots, which are the columns of `schema`.
#[derive(Clone, Debug)]
pub struct Test {
    pub slots: Vec<Slot>,
    pub schema: SchemaRef,
    pub condition: Arc<dyn PhysicalExpr>,
}

/// What DEFINE says of a variable. No test: every row fits.
#[derive(Clone, Debug, Default)]
pub struct Define {
    /// Of the row and those at fixed distances from it: asked of many rows at once.
    pub of_row: Option<Test>,
    /// Of the match so far as well.
    pub of_match: Option<Test>,
    /// How many rows behind its own NEXT looks.
    pub ahead: usize,
}

/// An aggregate and its arguments, over the matcher's columns.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: Arc<AggregateFunctionExpr>,
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
}

/// What to look for and what to make of it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The matcher's columns.
    pub columns: SchemaRef,
    pub partition: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    /// The first column of the order, if it is a timestamp that ascends.
    pub time: Option<usize>,
    pub names: Vec<String>,
    pub pattern: Pattern,
    pub program: Program,
    pub within: Option<Micros>,
    pub skip: Skip,
    pub shown: Shown,
    /// By variable.
    pub defines: Vec<Define>,
    pub calls: Vec<Call>,
    pub measures: Vec<Measure>,
    /// Columns of each output row that are those of a row of the match, before the measures.
    pub passed: Vec<usize>,
    pub output: SchemaRef,
}

impl Spec {
    /// How many rows before the first row of a match are looked at.
    pub fn back(&self) -> usize {
        let back = |slot: &Slot, current: usize| {
            let Slot::Column { anchor, shift, .. } = slot else { return 0 };
            let before = match anchor {
                Anchor::Current => current,
                // The n-th row of some is n rows after the first of them, at least.
                Anchor::First { of, but } => self.pattern.before(*of).unwrap_or(0).saturating_add(*but),
                Anchor::Last { of, .. } => self.pattern.before(*of).unwrap_or(0),
            };
            usize::try_from(-shift).unwrap_or(0).saturating_sub(before)
        };
        let of_measures = self.measures.iter().map(|measure| back(&measure.slot, 0));
        let of_defines = self.defines.iter().enumerate().flat_map(|(variable, define)| {
            let current = self.pattern.before(program::bit(variable as u8)).unwrap_or(0);
            let tests = define.of_row.iter().chain(&define.of_match);
            tests.flat_map(|test| &test.slots).map(move |slot| back(slot, current))
        });
        of_measures.chain(of_defines).max().unwrap_or(0)
    }

    /// How many rows after its last row the measures of a match look at.
    fn ahead(&self) -> usize {
        let ahead = |measure: &Measure| match measure.slot {
            Slot::Column { shift, .. } => usize::try_from(shift).unwrap_or(0),
            _ => 0,
        };
        self.measures.iter().map(ahead).max().unwrap_or(0)
    }

    /// Something looks behind the rows of a match.
    fn looks_ahead(&self) -> bool {
        self.ahead() > 0 || self.defines.iter().any(|define| define.ahead > 0)
    }

    /// Whether `^` or `$` is in the pattern: then every row may decide about the first match, or any row about the last.
    pub fn is_anchored(&self) -> bool {
        self.pattern.any(&|part| matches!(part, Pattern::Start | Pattern::End))
    }

    /// Matches are told apart by their number.
    pub fn counts(&self) -> bool {
        self.measures.iter().any(|measure| measure.slot == Slot::Number)
    }
}
