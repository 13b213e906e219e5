//! CHECK constraints: what CREATE and ALTER make of them.
//!
//! One that is added to rows that are there holds at once for those that come; then the rows are looked at, and it goes again if
//! one of them breaks it. A server that dies in between leaves it as NOT VALID would.

use std::ops::ControlFlow;

use sqlparser::ast as sp;

use super::client::done;
use super::define::{check_new_name, existing};
use super::{Client, Outcome};
use crate::catalog::check::{Check, CheckId};
use crate::catalog::schema::{RelationName, quoted};
use crate::catalog::{Change, Relation};
use crate::error::{Error, Result};
use crate::sql::ast::CheckDef;
use crate::sql::parse::{parse_expression, parse_query};
use crate::sql::plan::Reader;
use crate::sql::plan::names::fold;

/// The relation with one more.
pub(super) fn with_check(relation: &Relation, def: &CheckDef, id: CheckId, validated: bool) -> Result<Relation> {
    let columns = columns_of(relation, &def.expression.expr)?;
    let name = match &def.name {
        None => relation.free_check_name(&columns),
        Some(name) => {
            let name = fold(name);
            check_new_name(&name)?;
            if relation.has_constraint(&name) {
                let message = format!("constraint \"{name}\" for relation \"{}\" already exists", relation.name);
                return Err(Error::duplicate_object(message));
            }
            name
        }
    };
    let mut checked = relation.clone();
    checked.checks.push(Check { id, name, expression: def.expression.sql.trim().to_string(), columns, validated });
    Ok(checked)
}

/// The columns that an expression over a row names.
fn columns_of(relation: &Relation, expression: &sp::Expr) -> Result<Vec<usize>> {
    let mut columns = Vec::new();
    let looked = sp::visit_expressions(expression, |expr| {
        let name = match expr {
            sp::Expr::Subquery(_) | sp::Expr::Exists { .. } | sp::Expr::InSubquery { .. } => {
                return ControlFlow::Break(Error::unsupported("cannot use subquery in check constraint"));
            }
            sp::Expr::Identifier(name) => Some(name),
            sp::Expr::CompoundIdentifier(path) => path.last(),
            _ => None,
        };
        columns.extend(name.and_then(|name| relation.column(&fold(name))));
        ControlFlow::Continue(())
    });
    if let ControlFlow::Break(error) = looked {
        return Err(error);
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

pub(super) fn without_constraint(relation: &Relation, name: &str) -> Result<Relation> {
    if relation.key_index().is_some_and(|key| key.name == name) {
        let error = Error::unsupported(format!("the primary key of \"{}\" cannot be dropped", relation.name));
        return Err(
            error.with_hint("its rows are told apart by it; CREATE TABLE another, and INSERT INTO it SELECT from this one")
        );
    }
    let mut without = relation.clone();
    without.checks.retain(|check| check.name != name);
    match without.checks.len() < relation.checks.len() {
        true => Ok(without),
        false => Err(no_constraint(name, &relation.name)),
    }
}

/// Its definition without the statement at its end.
fn as_before(mut relation: Relation, sql: &str) -> Relation {
    if let Some(before) = relation.create_sql.strip_suffix(sql).and_then(|before| before.strip_suffix(";\n")) {
        relation.create_sql = before.to_string();
    }
    relation
}

fn no_constraint(name: &str, relation: &str) -> Error {
    Error::undefined_object(format!("constraint \"{name}\" of relation \"{relation}\" does not exist"))
}

/// The relation with what is known of this CHECK.
fn with_validated(relation: &Relation, id: CheckId) -> Relation {
    let mut changed = relation.clone();
    changed.checks.iter_mut().filter(|check| check.id == id).for_each(|check| check.validated = true);
    changed
}

impl Client {
    /// Look at the rows that are there. If one of them breaks a CHECK that this statement has added, it goes again.
    pub(super) async fn validate_check(
        &mut self,
        name: &RelationName,
        constraint: &str,
        added_by: Option<&str>,
    ) -> Result<Outcome> {
        let relation = existing(&self.database.log.catalog(), name)?.clone();
        let found = relation.checks.iter().find(|check| check.name == constraint);
        let check = found.ok_or_else(|| no_constraint(constraint, &relation.name))?;
        if check.validated {
            return done("ALTER TABLE");
        }
        let broken = self.breaks(&relation, check).await;
        if matches!(broken, Ok(false)) || added_by.is_some() {
            let (id, holds) = (check.id, matches!(broken, Ok(false)));
            self.change_catalog(|catalog| {
                let Some(relation) = catalog.get(relation.id).filter(|r| r.checks.iter().any(|check| check.id == id)) else {
                    return Ok(Vec::new());
                };
                let changed = match added_by {
                    Some(sql) if !holds => as_before(without_constraint(relation, constraint)?, sql),
                    _ => with_validated(relation, id),
                };
                Ok(vec![Change::Alter(changed)])
            })
            .await?;
        }
        match broken? {
            false => done("ALTER TABLE"),
            true => {
                let message =
                    format!("check constraint \"{constraint}\" of relation \"{}\" is violated by some row", relation.name);
                Err(Error::check_violation(message))
            }
        }
    }

    /// Whether a row that is there does.
    async fn breaks(&mut self, relation: &Relation, check: &Check) -> Result<bool> {
        self.await_own_writes().await?;
        let snapshot = self.database.engine.snapshot();
        let query = format!("SELECT 1 FROM {} WHERE NOT ({}) LIMIT 1", relation.full_name().to_sql(), check.expression);
        let query = parse_query(&query)?;
        // Who may alter it need not be allowed to read it.
        let plan = self.plan_query_as(Reader::Server, &snapshot, &query, &[])?;
        Ok(self.collect_plan(plan, &snapshot).await?.iter().any(|rows| rows.num_rows() > 0))
    }
}

/// An expression with another name in the place of a column's.
pub(super) fn with_renamed_column(check: &Check, from: &str, to: &str) -> Result<Check> {
    let renamed = crate::sql::rename::column_renamed(&check.expression, from, &quoted(to))?;
    parse_expression(&renamed)?;
    Ok(Check { expression: renamed, ..check.clone() })
}
