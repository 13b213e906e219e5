//! `a JOIN t FOR SYSTEM_TIME AS OF a.ts ON a.k = t.id`: beside each row the version of the table's row that held then.
//!
//! ```text
//!   Filter: not deleted                                LEFT JOIN: NULLs instead, where deleted or not found
//!     AsOf: a.k = t.id, the newest $version <= a.ts    the join with the nearest row, see `nearest`
//!       a
//!       versions of t                                  every record of t in the log, see `crate::flow::history`
//! ```
//!
//! A row that is to see what was there at its own commit (PROCTIME(), now(), its `_ingested_at`) is compared by commit, for two
//! commits may be of one instant. Other conditions than equal keys say which versions count once found; they do not
//! make the join look for an older one.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult, TableReference};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, when};
use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::Planner;
use super::names::{fold, window_input};
use super::nearest::{Sought, equalities, is_of, join_nearest};
use super::source::{Hidden, RelationSource};
use crate::catalog::{Kind, Relation};
use crate::error::{Error, Result};
use crate::flow::as_of::Nearest;
use crate::flow::history::{DELETED, VERSION};
use crate::sql::ast::AS_OF_MARK;

const SPELLING: &str = "write a JOIN t FOR SYSTEM_TIME AS OF a.ts ON a.key = t.id, where t is a table with a PRIMARY KEY";

/// Before names are resolved: `$as_of()`, and `$as_of(a._ingested_at)`, become `$as_of(a._commit)`.
pub(super) fn name_commits(query: &mut sp::Query, planner: &Planner) -> Result<()> {
    match query.visit(&mut NameCommits { planner }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct NameCommits<'a> {
    planner: &'a Planner,
}

impl VisitorMut for NameCommits<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<Error> {
        for table in &mut select.from {
            let first = table.relation.clone();
            for join in &mut table.joins {
                let Some(mark) = condition(&mut join.join_operator).and_then(as_of_mark) else { continue };
                if let Err(error) = self.name(mark, &first) {
                    return ControlFlow::Break(error);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl NameCommits<'_> {
    fn name(&self, args: &mut Vec<sp::FunctionArg>, first: &sp::TableFactor) -> Result<()> {
        let commit = || sp::Ident::new(Hidden::Commit.name());
        let path = match args.first_mut() {
            None => self.stream(first)?.into_iter().chain([commit()]).collect(),
            Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::CompoundIdentifier(path)))) => {
                if let Some(last) = path.last_mut().filter(|last| fold(last) == Hidden::IngestedAt.name()) {
                    *last = commit();
                }
                return Ok(());
            }
            Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Identifier(name))))
                if fold(name) == Hidden::IngestedAt.name() =>
            {
                vec![commit()]
            }
            Some(_) => return Ok(()),
        };
        let column = if path.len() == 1 { sp::Expr::Identifier(commit()) } else { sp::Expr::CompoundIdentifier(path) };
        *args = vec![sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(column))];
        Ok(())
    }

    /// What the columns of the left are called, if that is a stream.
    fn stream(&self, factor: &sp::TableFactor) -> Result<Vec<sp::Ident>> {
        if let sp::TableFactor::Table { name, alias, args, .. } = factor
            && let Some(name) = args.as_ref().map_or(Some(name.clone()), |args| window_input(name, args))
            && self.planner.relation(&name).is_some_and(|relation| relation.kind == Kind::Stream)
        {
            let written = || name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
            return Ok(alias.as_ref().map_or_else(written, |alias| vec![alias.name.clone()]));
        }
        let error = Error::unsupported("FOR SYSTEM_TIME AS OF the time of processing needs a stream on the left");
        Err(error.with_hint("name the stream's rows first in FROM, or write AS OF a time column"))
    }
}

fn condition(operator: &mut sp::JoinOperator) -> Option<&mut sp::Expr> {
    use sp::JoinOperator as J;
    match operator {
        J::Join(on) | J::Inner(on) | J::Left(on) | J::LeftOuter(on) | J::Right(on) | J::RightOuter(on) | J::FullOuter(on) => {
            if let sp::JoinConstraint::On(expr) = on {
                Some(expr)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The arguments of the mark in front of a condition.
fn as_of_mark(condition: &mut sp::Expr) -> Option<&mut Vec<sp::FunctionArg>> {
    let sp::Expr::BinaryOp { left, .. } = condition else { return None };
    let sp::Expr::Function(function) = left.as_mut() else { return None };
    let is_mark = function.name.0.first().and_then(|part| part.as_ident()).is_some_and(|name| name.value == AS_OF_MARK);
    match &mut function.args {
        sp::FunctionArguments::List(list) if is_mark => Some(&mut list.args),
        _ => None,
    }
}

/// The join with the versions that held at `time`.
pub fn as_of(join: Join, time: Expr) -> DfResult<LogicalPlan> {
    let (relation, name, alias) = versioned(&join.right)?;
    if !is_of(&time, &join.left) {
        let error = Error::unsupported(format!("FOR SYSTEM_TIME AS OF {time} is not a time of the left side's rows"));
        return Err(error.with_hint(SPELLING).into());
    }
    let by_commit = matches!(&time, Expr::Column(column) if column.name == Hidden::Commit.name());
    let history = history(&relation, &name, alias.as_ref())?;
    let qualifier = alias.unwrap_or_else(|| name.clone());
    let of_version = |column: &str| Expr::Column(Column::new(Some(qualifier.clone()), column));
    let key: HashSet<&str> = relation.primary_key.iter().map(|column| relation.columns[*column].name.as_str()).collect();
    let own: Vec<Column> = join.right.schema().columns();
    let is_key = |expr: &Expr| matches!(expr, Expr::Column(column) if key.contains(column.name.as_str()));
    let (equal, others) = equalities(&join, is_key);
    let given: HashSet<&str> =
        equal.iter().filter_map(|(_, r)| if let Expr::Column(c) = r { Some(c.name.as_str()) } else { None }).collect();
    if given != key {
        let names: Vec<&str> = relation.primary_key.iter().map(|column| relation.columns[*column].name.as_str()).collect();
        let error = Error::unsupported(format!(
            "a join FOR SYSTEM_TIME AS OF must be ON the whole primary key of \"{}\": {}",
            relation.name,
            names.join(", ")
        ));
        return Err(error.with_hint("add the missing columns to ON").into());
    }
    let sought = Sought {
        equal,
        times: (time, of_version(if by_commit { Hidden::Commit.name() } else { VERSION })),
        nearest: Nearest { backward: true, equal: true },
        then: Some(Hidden::Offset.name()),
        by_commit,
    };
    let left: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let join_type = join.join_type;
    let found = Arc::new(join_nearest(join_type, join.left, Arc::new(history), sought)?);
    let valid = conjunction([of_version(DELETED).is_false()].into_iter().chain(others)).expect("there is one");
    if join_type == datafusion::common::JoinType::Inner {
        let kept = LogicalPlanBuilder::from(LogicalPlan::Filter(Filter::try_new(valid, found)?));
        return kept.project(left.into_iter().chain(own.into_iter().map(Expr::Column)))?.build();
    }
    let shown = own.into_iter().map(|column| {
        let value = when(valid.clone(), Expr::Column(column.clone())).end()?;
        Ok(value.alias_qualified(column.relation, column.name))
    });
    let exprs = left.into_iter().map(Ok).chain(shown).collect::<DfResult<Vec<_>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, found)?))
}

/// The table whose versions are meant, its name, and how it is called.
fn versioned(plan: &LogicalPlan) -> Result<(Arc<Relation>, TableReference, Option<TableReference>)> {
    let (scan, alias) = match plan {
        LogicalPlan::SubqueryAlias(alias) => (alias.input.as_ref(), Some(alias.alias.clone())),
        other => (other, None),
    };
    let refused = |what: String, hint: &str| Err(Error::unsupported(what).with_hint(hint));
    let LogicalPlan::TableScan(scan) = scan else {
        return refused("FOR SYSTEM_TIME AS OF needs a table, not a query".into(), SPELLING);
    };
    let Some(source) = RelationSource::of(scan) else {
        return refused(format!("{} has no versions", scan.table_name), SPELLING);
    };
    let relation = source.relation();
    match relation.kind {
        Kind::Table if !relation.primary_key.is_empty() => Ok((Arc::clone(relation), scan.table_name.clone(), alias)),
        Kind::Table => refused(format!("\"{}\" has no PRIMARY KEY, so its rows have no versions", relation.name), SPELLING),
        Kind::Stream => refused(
            format!("\"{}\" is a stream, whose rows have no versions", relation.name),
            "write a ASOF JOIN b ON a.key = b.key AND a.ts >= b.ts: each row beside the newest one of its key",
        ),
        kind => refused(
            format!("\"{}\" is a {}, whose versions are not kept", relation.name, kind.noun()),
            "join the view itself, which follows its changes, or ASOF JOIN the stream that it reads",
        ),
    }
}

fn history(relation: &Arc<Relation>, name: &TableReference, alias: Option<&TableReference>) -> DfResult<LogicalPlan> {
    let source = Arc::new(RelationSource::history(Arc::clone(relation)));
    let scan = LogicalPlanBuilder::scan(name.clone(), source, None)?.build()?;
    match alias {
        Some(alias) => Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(scan), alias.clone())?)),
        None => Ok(scan),
    }
}
