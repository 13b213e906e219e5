//! WITH RECURSIVE in a correlated subquery: one recursion for all outer values at once.
//!
//! The domain's columns are columns of the recursion: the static term brings them in, the work table hands them on from round to
//! round, and the recursive term finds them there. So each outer value's rows go their own way, and a UNION without ALL compares
//! rows of the same outer value only.
//!
//! ```text
//!   static term           SELECT .., outer FROM (static term × domain)
//!     UNION [ALL]    ──►    UNION [ALL]
//!   .. FROM work table    SELECT .., outer FROM (.. FROM work table with outer)
//! ```
//!
//! A round must not give rows to outer values whose recursion has ended. PostgreSQL refuses all forms that could (aggregates, the
//! optional side of an outer join, subqueries over the work table); here they are refused where they would.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result as DfResult};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, TableScan, TableSource};

use super::{Domain, Pushed, Unnesting, unsupported};

/// The work table of a recursion that carries the domain.
#[derive(Clone)]
pub(super) struct WorkTable {
    name: String,
    source: Arc<dyn TableSource>,
    keys: Vec<String>,
}

impl WorkTable {
    /// Reads it in the place of the one without the domain.
    pub(super) fn scan(&self, old: &TableScan) -> DfResult<Pushed> {
        let table = || old.table_name.clone();
        let plan = LogicalPlanBuilder::scan(table(), self.source.clone(), None)?.build()?;
        Ok(Pushed { plan, keys: self.keys.iter().map(|key| Column::new(Some(table()), key)).collect() })
    }
}

impl Domain {
    /// The work table that a scan is of, if it carries this domain.
    pub(super) fn work_table(&self, scan: &TableScan) -> Option<&WorkTable> {
        self.work_tables.iter().rev().find(|table| is_scan_of(scan, &table.name))
    }

    /// Whether a plan reads a work table that carries this domain.
    pub(super) fn is_recursive_in(&self, plan: &LogicalPlan) -> DfResult<bool> {
        plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if self.work_table(scan).is_some())))
    }

    /// An aggregate over a work table without GROUP BY would have a row for every outer value in every round.
    pub(super) fn check_aggregate(&self, input: &LogicalPlan) -> DfResult<()> {
        if self.is_recursive_in(input)? {
            return Err(unsupported("an aggregate over its own recursion"));
        }
        Ok(())
    }

    /// A join that keeps rows without a match would keep them in every round.
    pub(super) fn check_join(&self, join: &Join) -> DfResult<()> {
        let optional = match join.join_type {
            JoinType::Left | JoinType::LeftAnti => &join.right,
            JoinType::Right => &join.left,
            _ => return Ok(()),
        };
        if self.is_recursive_in(optional)? {
            return Err(unsupported("its own recursion on the optional side of an outer join"));
        }
        Ok(())
    }
}

impl Unnesting {
    pub(super) fn push_recursive(&mut self, query: &RecursiveQuery, domain: &Domain) -> DfResult<Pushed> {
        if scans(&query.recursive_term, &query.name, true)? > scans(&query.recursive_term, &query.name, false)? {
            return Err(unsupported("a recursion that is read in a subquery"));
        }
        let number = self.fresh();
        let keys: Vec<String> = (0..domain.names.len()).map(|i| format!("__outer_{number}_{i}")).collect();
        let static_term = keyed(&query.static_term, self.push(&query.static_term, domain)?, &keys)?;
        let fields = static_term.schema().fields().iter().map(|field| Field::clone(field).with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let source = provider_as_source(Arc::new(CteWorkTable::new(&query.name, schema)));
        let mut within = domain.clone();
        within.work_tables.push(WorkTable { name: query.name.clone(), source, keys: keys.clone() });
        let recursive_term = keyed(&query.recursive_term, self.push(&query.recursive_term, &within)?, &keys)?;
        let (name, distinct) = (query.name.clone(), query.is_distinct);
        let plan = RecursiveQuery::try_new(name, Arc::new(static_term), Arc::new(recursive_term), distinct)?;
        Ok(Pushed { plan: LogicalPlan::RecursiveQuery(plan), keys: keys.iter().map(Column::new_unqualified).collect() })
    }
}

/// A term's columns in its own order, then the domain's: the terms of a recursion are matched by position.
fn keyed(term: &LogicalPlan, pushed: Pushed, names: &[String]) -> DfResult<LogicalPlan> {
    let keys = pushed.keys.into_iter().map(Expr::Column).zip(names).map(|(key, name)| key.alias(name));
    let columns = term.schema().columns().into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(pushed.plan).project(columns.chain(keys))?.build()
}

fn is_scan_of(scan: &TableScan, work_table: &str) -> bool {
    source_as_provider(&scan.source)
        .is_ok_and(|provider| provider.downcast_ref::<CteWorkTable>().is_some_and(|table| table.name() == work_table))
}

/// How often a plan reads a work table, with or without the subqueries in its expressions.
fn scans(plan: &LogicalPlan, work_table: &str, with_subqueries: bool) -> DfResult<usize> {
    let mut count = 0;
    let mut visit = |node: &LogicalPlan| {
        count += usize::from(matches!(node, LogicalPlan::TableScan(scan) if is_scan_of(scan, work_table)));
        Ok(TreeNodeRecursion::Continue)
    };
    if with_subqueries {
        plan.apply_with_subqueries(&mut visit)?
    } else {
        plan.apply(&mut visit)?
    };
    Ok(count)
}
