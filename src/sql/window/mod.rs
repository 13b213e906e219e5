//! Time windows in a plan: `FROM TUMBLE(…)`, `HOP(…)`, `CUMULATE(…)` and `SESSION(…)` as a node of the logical plan.
//!
//! A [`WindowNode`] gives every row of its input the windows it falls into: the input's columns, then `window_start`,
//! `window_end` and `window_time`; a row that falls into three windows becomes three rows. What the windows are used for, most
//! often a GROUP BY, is no affair of its.
//!
//! ```text
//!   Aggregate: groupBy=[window_start, window_end, category]
//!     Window: tumble 00:05:00 on event_time                   ← this node
//!       TableScan: orders
//! ```
//!
//! Sessions depend on what other rows there are: rows of one partition belong together as long as each comes less than the gap
//! after the one before, and the session ends a gap after its last row. When a row is too late for that is said in
//! [`crate::flow::session`].
//!
//! Invariants: the time expression is a column of the input, an instant, and the window's columns are of its type; the windows are valid
//! (0 < slide <= size, at most [`limits::WINDOWS_PER_ROW`] a row). The node needs all columns of its input, whatever is read
//! of them above: late rows are kept whole. Rows whose time is NULL are in no window.

mod implied;
mod parse;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult, TableReference};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::{Error, Result};
use crate::limits;
use crate::sql::functions::instants::Keep;
use crate::time::window::{DAY, Family, Windows};
use crate::time::{Micros, is_instant};

pub use parse::WindowPlanner;
pub(in crate::sql) use parse::{column, constant_duration, constant_micros, input_factor};

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";
/// The last millisecond of the window: what an event at the window's end is said to happen at.
pub const WINDOW_TIME: &str = "window_time";
/// Names of the columns that the node adds, in their order.
pub const WINDOW_COLUMNS: [&str; 3] = [WINDOW_START, WINDOW_END, WINDOW_TIME];

/// How far `window_time` is before `window_end`.
pub const WINDOW_TIME_BEFORE_END: Micros = 1000;

/// What makes the windows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Assignment {
    /// The clock.
    Clock(Windows),
    /// The rows themselves.
    Session {
        gap: Micros,
        /// Columns of the input: only rows that agree in them make sessions together.
        partition: Vec<Column>,
    },
}

impl Assignment {
    /// How long before its end a window can have started; `None` if there is no telling.
    pub fn longest(&self) -> Option<Micros> {
        match self {
            Assignment::Clock(Windows { size, zone: None, .. }) => Some(*size),
            // Clocks have been put back by up to a day.
            Assignment::Clock(Windows { size, .. }) => Some(size.saturating_add(DAY)),
            Assignment::Session { .. } => None,
        }
    }

    /// How long every window is; `None` if they differ.
    pub fn length(&self) -> Option<Micros> {
        match self {
            Assignment::Clock(windows) => windows.length(),
            Assignment::Session { .. } => None,
        }
    }

    /// Every row is in one window at most.
    pub fn is_single(&self) -> bool {
        match self {
            Assignment::Clock(windows) => windows.is_tumbling(),
            Assignment::Session { .. } => true,
        }
    }
}

#[derive(Clone, Debug)]
pub struct WindowNode {
    pub assignment: Assignment,
    /// How long after its end a window still takes rows.
    pub lateness: Micros,
    /// The time column, of the input.
    pub time: Column,
    pub input: Arc<LogicalPlan>,
    /// Which windows of a row are let through; others than those in time only in batch answers.
    pub keep: Keep,
    /// A silence of its stream that closes its windows; known in batch answers only.
    pub timeout: Option<Micros>,
    schema: DFSchemaRef,
}

impl WindowNode {
    pub fn new(assignment: Assignment, lateness: Micros, time: Column, input: LogicalPlan) -> Result<WindowNode> {
        match &assignment {
            Assignment::Clock(windows) => check_windows(windows)?,
            Assignment::Session { gap, partition } => {
                if *gap <= 0 {
                    return Err(Error::invalid_parameter("the gap of a session must be greater than zero"));
                }
                partition.iter().try_for_each(|column| input.schema().index_of_column(column).map(drop))?;
            }
        }
        if lateness < 0 {
            return Err(Error::invalid_parameter("the allowed lateness must not be negative"));
        }
        let (_, field) = input.schema().qualified_field_from_column(&time)?;
        if !is_instant(field.data_type()) {
            let message = format!("column \"{}\" is of type {}, but a window needs a timestamp", time.name, field.data_type());
            return Err(
                Error::datatype_mismatch(message).with_hint(format!("read from a query that casts it: {}::timestamp", time.name))
            );
        }
        let schema = Arc::new(output_schema(input.schema(), field.data_type())?);
        Ok(WindowNode { assignment, lateness, time, input: Arc::new(input), keep: Keep::InTime, timeout: None, schema })
    }

    #[must_use]
    pub fn keeping(self, keep: Keep) -> WindowNode {
        WindowNode { keep, ..self }
    }

    #[must_use]
    pub fn timed(self, after: Micros) -> WindowNode {
        WindowNode { timeout: Some(after), ..self }
    }

    /// Index of the time column in the input.
    pub fn time_index(&self) -> usize {
        self.input.schema().index_of_column(&self.time).expect("the time column was found when the node was made")
    }

    /// The type of the time column, and of the window's columns.
    pub fn time_type(&self) -> &DataType {
        self.input.schema().field(self.time_index()).data_type()
    }

    /// Indices in the input of the columns that divide sessions.
    pub fn partition(&self) -> Vec<usize> {
        let Assignment::Session { partition, .. } = &self.assignment else { return Vec::new() };
        let index = |column| self.input.schema().index_of_column(column).expect("found when the node was made");
        partition.iter().map(index).collect()
    }

    /// How many columns of the output are the input's; the window's follow.
    pub fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    /// What qualifies the names of the window's columns.
    pub fn qualifier(&self) -> Option<&TableReference> {
        self.schema.qualified_field(self.input_columns()).0
    }

    /// `tumble 00:05:00`, `hop 00:10:00 every 00:05:00`, `session gap 00:30:00 by user_id`.
    pub fn describe(&self) -> String {
        match &self.assignment {
            Assignment::Clock(windows) => {
                let mut text = match (windows.is_tumbling(), windows.family) {
                    (true, _) => format!("tumble {}", show_duration(windows.size)),
                    (_, Family::Hop) => {
                        format!("hop {} every {}", show_duration(windows.size), show_duration(windows.slide))
                    }
                    (_, Family::Cumulate) => {
                        format!("cumulate {} every {}", show_duration(windows.size), show_duration(windows.slide))
                    }
                };
                if windows.offset != 0 {
                    text.push_str(&format!(" offset {}", show_duration(windows.offset)));
                }
                if let Some(zone) = windows.zone {
                    text.push_str(&format!(" in {zone}"));
                }
                text
            }
            Assignment::Session { gap, partition } => {
                let by = match partition.as_slice() {
                    [] => String::new(),
                    columns => format!(" by {}", columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")),
                };
                format!("session gap {}{by}", show_duration(*gap))
            }
        }
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The node, if the plan's root is one.
    pub fn of(plan: &LogicalPlan) -> Option<&WindowNode> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }
}

/// The bounds of a family of windows; messages name the arguments.
fn check_windows(windows: &Windows) -> Result<()> {
    let Windows { size, slide, .. } = *windows;
    if size <= 0 || slide <= 0 {
        return Err(Error::invalid_parameter("the size and the slide of a window must be greater than zero"));
    }
    let cumulates = windows.family == Family::Cumulate;
    if slide > size {
        let (what, hint) = match cumulates {
            true => ("step", "CUMULATE takes the step first and the greatest size second"),
            false => ("slide", "HOP takes the slide first and the size second"),
        };
        let message =
            format!("the {what} of a window, {}, is greater than its size, {}", show_duration(slide), show_duration(size));
        return Err(Error::invalid_parameter(message).with_hint(hint));
    }
    if cumulates && size % slide != 0 {
        let message =
            format!("the size of a CUMULATE, {}, is no multiple of its step, {}", show_duration(size), show_duration(slide));
        return Err(Error::invalid_parameter(message).with_hint("choose a step that divides the size"));
    }
    if windows.zone.is_some() && (size % DAY != 0 || slide % DAY != 0 && !cumulates) {
        let error = Error::invalid_parameter("a time zone needs windows of whole days");
        return Err(error.with_hint("leave the time zone out: hours and less are the same in all of them, up to an offset"));
    }
    if windows.per_row() > limits::WINDOWS_PER_ROW {
        let message = format!("a row would fall into {} windows, more than {}", windows.per_row(), limits::WINDOWS_PER_ROW);
        return Err(Error::limit_exceeded(message).with_hint("make the slide greater or the size smaller"));
    }
    Ok(())
}

/// The input's columns and the window's. The latter get the input's qualifier when it has only one: so `t.window_start` works,
/// and two windowed relations can be joined without aliases.
fn output_schema(input: &DFSchema, time: &DataType) -> Result<DFSchema> {
    let mut qualifiers = input.iter().map(|(qualifier, _)| qualifier);
    let first: Option<TableReference> = qualifiers.next().flatten().cloned();
    let common = if qualifiers.all(|q| q == first.as_ref()) { first } else { None };
    let mut fields: Vec<_> = input.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    fields.extend(WINDOW_COLUMNS.map(|name| (common.clone(), Arc::new(Field::new(name, time.clone(), false)))));
    Ok(DFSchema::new_with_metadata(fields, input.metadata().clone())?)
}

/// A duration as an interval is written: `00:05:00`, `3 days`.
pub fn show_duration(micros: Micros) -> String {
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (days, rest) = (micros / 86_400_000_000, micros % 86_400_000_000);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let mut text = String::from(sign);
    match days {
        0 => {}
        1 => text.push_str("1 day"),
        _ => text.push_str(&format!("{days} days")),
    }
    if rest > 0 || days == 0 {
        let space = if days > 0 { " " } else { "" };
        text.push_str(&format!("{space}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    if fraction > 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text
}

impl PartialEq for WindowNode {
    fn eq(&self, other: &Self) -> bool {
        let of = |node: &WindowNode| (node.lateness, node.keep, node.timeout);
        of(self) == of(other) && self.assignment == other.assignment && self.time == other.time && self.input == other.input
    }
}

impl Eq for WindowNode {}

impl Hash for WindowNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.assignment, self.lateness, self.keep, self.timeout, &self.time, &self.input).hash(state);
    }
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |node: &WindowNode| (node.lateness, node.keep, node.timeout, node.time.clone());
        match key(self).partial_cmp(&key(other)) {
            Some(Ordering::Equal) if self.assignment == other.assignment => self.input.partial_cmp(&other.input),
            // Families of windows have no order.
            Some(Ordering::Equal) => None,
            ordering => ordering,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "Window"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let partition = match &self.assignment {
            Assignment::Clock(_) => &[],
            Assignment::Session { partition, .. } => partition.as_slice(),
        };
        std::iter::once(&self.time).chain(partition).cloned().map(Expr::Column).collect()
    }

    /// A filter above may go below the window, unless it speaks of the window; below a session, only if it takes whole sessions.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let mut kept: HashSet<String> = WINDOW_COLUMNS.map(String::from).into();
        if let Assignment::Session { partition, .. } = &self.assignment {
            let columns = self.input.schema().columns();
            kept.extend(columns.into_iter().filter(|column| !partition.contains(column)).map(|column| column.name));
        }
        kept
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Window: {}", self.describe())?;
        if self.lateness != 0 {
            write!(f, " lateness={}", show_duration(self.lateness))?;
        }
        write!(f, " on {}", self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let mut columns = exprs.into_iter().filter_map(|expr| if let Expr::Column(column) = expr { Some(column) } else { None });
        let (Some(time), Some(input)) = (columns.next(), inputs.pop()) else {
            return Err(Error::internal("a window node was rewritten without its input or its time column").into());
        };
        let assignment = match &self.assignment {
            Assignment::Session { gap, .. } => Assignment::Session { gap: *gap, partition: columns.collect() },
            clock => clock.clone(),
        };
        let window = WindowNode::new(assignment, self.lateness, time, input)?.keeping(self.keep);
        Ok(WindowNode { timeout: self.timeout, ..window })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input_columns()).collect()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(0, "00:00:00")]
    #[case(300_000_000, "00:05:00")]
    #[case(86_400_000_000, "1 day")]
    #[case(2 * 86_400_000_000 + 3_600_000_000, "2 days 01:00:00")]
    #[case(-1_500_000, "-00:00:01.5")]
    fn durations(#[case] micros: Micros, #[case] expected: &str) {
        assert_eq!(show_duration(micros), expected);
    }
}
