//! `FROM x AS OF COMMIT n`, `AS OF TIMESTAMP t`: a relation as it was.
//!
//! The node says which moment its input is read at; which commit that is, is known when the statement runs (it may be a
//! parameter, or depend on `now()`), or, of a view that is shown with a delay, when its batch answer is; and [`crate::sql::batch`] gives all relations below the node the rows they had then. Names and columns
//! are those of today.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore, cast, lit};
use sqlparser::ast as sp;
use sqlparser::ast::Spanned;

use super::errors::at;
use super::source::RelationSource;
use crate::error::{Error, SqlState};
use crate::log::CommitId;

/// In what a moment is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub enum Unit {
    /// The number of a commit.
    Commit,
    /// A time: the last commit that is not after it.
    Time,
    /// The commit that a view with a delay shows. What was not there yet had no rows.
    Refresh,
}

impl Unit {
    /// What the expression evaluates to.
    fn data_type(self) -> DataType {
        match self {
            Unit::Commit | Unit::Refresh => DataType::Int64,
            Unit::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    pub fn clause(self) -> &'static str {
        match self {
            Unit::Commit | Unit::Refresh => "AS OF COMMIT",
            Unit::Time => "AS OF TIMESTAMP",
        }
    }
}

/// Its input at another moment than the rest of the query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct AsOfNode {
    pub unit: Unit,
    /// Without columns; of the unit's type.
    pub at: Expr,
    pub input: Arc<LogicalPlan>,
}

impl AsOfNode {
    /// The node, if the plan's root is one.
    pub fn of(plan: &LogicalPlan) -> Option<&AsOfNode> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The plan as of the commit that its view shows.
    pub fn refreshed(commit: CommitId, plan: LogicalPlan) -> LogicalPlan {
        let node = AsOfNode { unit: Unit::Refresh, at: lit(commit as i64), input: Arc::new(plan) };
        LogicalPlan::Extension(Extension { node: Arc::new(node) })
    }
}

impl UserDefinedLogicalNodeCore for AsOfNode {
    fn name(&self) -> &str {
        "AsOf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.at.clone()]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AsOf: {} {}", self.unit.clause(), self.at)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(at), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return Err(Error::internal("AS OF was rewritten without its input or its moment").into());
        };
        Ok(AsOfNode { unit: self.unit, at, input: Arc::new(input) })
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output.to_vec()])
    }
}

/// Plans relations that say AS OF.
#[derive(Debug)]
pub struct AsOfPlanner;

impl RelationPlanner for AsOfPlanner {
    fn plan_relation(
        &self,
        mut relation: sp::TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let sp::TableFactor::Table { version, alias, name, .. } = &mut relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(version) = version.take() else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let (alias, span, shown) = (alias.take(), name.span(), name.to_string());
        let (unit, moment) = match version {
            sp::TableVersion::VersionAsOf(moment) => (Unit::Commit, moment),
            sp::TableVersion::TimestampAsOf(moment) | sp::TableVersion::ForSystemTimeAsOf(moment) => (Unit::Time, moment),
            _ => {
                let error = Error::unsupported("this way to name a former state is not supported");
                return Err(at(error.with_hint("write AS OF COMMIT n or AS OF TIMESTAMP '…'"), span));
            }
        };
        let moment_span = moment.span();
        let input = context.plan(relation)?;
        if RelationSource::all_in(&input).is_empty() {
            let error = Error::wrong_object_type(format!("{shown} has no history"));
            return Err(at(error.with_hint("AS OF reads streams, tables and views"), span));
        }
        let moment = context.sql_to_expr(moment, &DFSchema::empty()).map_err(|error| match Error::from(error) {
            error if matches!(error.state(), SqlState::UndefinedColumn | SqlState::UndefinedTable) => {
                let error = Error::unsupported(format!("{} takes one moment for all rows, not a column", unit.clause()));
                at(error.with_hint("give a number, a timestamp, now() - INTERVAL '…' or a parameter"), moment_span)
            }
            error => error.into(),
        })?;
        let node = AsOfNode { unit, at: typed(moment, unit), input: Arc::new(input) };
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The expression as of the unit's type; so is a parameter of which nobody said one.
fn typed(mut expr: Expr, unit: Unit) -> Expr {
    if let Expr::Placeholder(parameter) = &mut expr
        && parameter.field.is_none()
    {
        parameter.field = Some(Arc::new(Field::new("", unit.data_type(), true)));
    }
    cast(expr, unit.data_type())
}
