//! WITH before what changes rows, and changes of rows inside of WITH.
//!
//! ```text
//!   WITH gone AS (DELETE FROM q WHERE … RETURNING *) INSERT INTO done SELECT * FROM gone
//! ```
//!
//! is the DELETE, and an INSERT whose `gone` is a query of the relation that holds what the DELETE returned ([`returned`]). Each
//! statement keeps the queries of WITH that stand before it.

use std::ops::ControlFlow;

use sqlparser::ast::{self as sp, Visit, Visitor};

use super::columns::{folded, same};
use super::query::{Query, is_change, refuse, refuse_ctes};
use crate::error::{Error, Result};
use crate::sql::ast::{Options, Statement};

/// The relation of what the change of this number returned. It starts as names of the catalog do, so that nobody's is called so.
pub fn returned(number: usize) -> String {
    format!("pg_returned_{number}")
}

/// A query, or what sqlparser reads as one: WITH before INSERT, UPDATE or DELETE.
pub(super) fn whole(mut read: Query) -> Result<Statement> {
    let query = read.query.as_mut();
    let Some(with) = query.with.take() else {
        refuse(query)?;
        let query = Statement::Query { query: read.query, emit: read.emit };
        return check_reads(&query, &[]).map(|()| query);
    };
    let Apart { changes, silent, with } = apart(with)?;
    if !changes.is_empty() && read.emit.is_some() {
        let error = Error::unsupported("a query that changes rows in its WITH ends, and has no EMIT");
        return Err(error.with_hint("changes of rows are statements; what runs on reads what they have changed"));
    }
    let last = match change(with.as_ref(), query) {
        Some(change) if read.emit.is_none() => change,
        _ => {
            query.with = with;
            refuse(query)?;
            Statement::Query { query: read.query, emit: read.emit }
        }
    };
    check_reads(&last, &silent)?;
    match changes.is_empty() {
        true => Ok(last),
        false => Ok(Statement::With { changes, last: Box::new(last) }),
    }
}

/// A WITH and the changes of rows that were in it.
struct Apart {
    /// In order; each may read what those before it return.
    changes: Vec<Statement>,
    /// Those that return nothing, by name.
    silent: Vec<sp::Ident>,
    /// What follows may read this.
    with: Option<sp::With>,
}

fn apart(with: sp::With) -> Result<Apart> {
    let sp::With { with_token, recursive, cte_tables } = with;
    let (mut changes, mut silent, mut before) = (Vec::new(), Vec::new(), Vec::new());
    let with_of = |ctes: &[sp::Cte]| {
        let with = sp::With { with_token: with_token.clone(), recursive, cte_tables: ctes.to_vec() };
        Some(with).filter(|with| !with.cte_tables.is_empty())
    };
    for mut cte in cte_tables {
        if !is_change(&cte.query.body) {
            before.push(cte);
            continue;
        }
        let with = match (with_of(&before), cte.query.with.take()) {
            (Some(mut with), Some(own)) => {
                with.recursive |= own.recursive;
                with.cte_tables.extend(own.cte_tables);
                Some(with)
            }
            (outer, own) => outer.or(own),
        };
        let Some(change) = change(with.as_ref(), &cte.query) else {
            let error = Error::unsupported("MERGE is not supported inside of WITH");
            return Err(error.with_hint("INSERT … ON CONFLICT, UPDATE and DELETE are"));
        };
        check_reads(&change, &silent)?;
        if returns(&change) {
            cte.query = super::parse_query(&format!("SELECT * FROM {}", returned(changes.len())))?;
            before.push(cte);
        } else {
            silent.push(cte.alias.name);
        }
        changes.push(change);
    }
    Ok(Apart { changes, silent, with: with_of(&before) })
}

/// The INSERT, UPDATE or DELETE that a query is, with this WITH before it.
fn change(with: Option<&sp::With>, query: &sp::Query) -> Option<Statement> {
    if query.order_by.is_some() || query.limit_clause.is_some() {
        return None;
    }
    let with = with.cloned();
    Some(match query.body.as_ref() {
        sp::SetExpr::Insert(sp::Statement::Insert(insert)) => {
            let mut insert = Box::new(insert.clone());
            insert.source = insert.source.take().map(|source| Box::new(under(with, *source)));
            Statement::Insert { insert, options: Options::new() }
        }
        sp::SetExpr::Update(sp::Statement::Update(update)) => Statement::Update { with, update: Box::new(update.clone()) },
        sp::SetExpr::Delete(sp::Statement::Delete(delete)) => Statement::Delete { with, delete: Box::new(delete.clone()) },
        _ => return None,
    })
}

fn returns(change: &Statement) -> bool {
    match change {
        Statement::Insert { insert, .. } => insert.returning.is_some(),
        Statement::Update { update, .. } => update.returning.is_some(),
        Statement::Delete { delete, .. } => delete.returning.is_some(),
        _ => false,
    }
}

/// What a statement reads: no rows of changes that return none, and no changes further inside. What it writes to is no matter.
fn check_reads(statement: &Statement, silent: &[sp::Ident]) -> Result<()> {
    let mut reads = Reads { silent };
    let read = match statement {
        Statement::Query { query, .. } => vec![query.visit(&mut reads)],
        Statement::Insert { insert, .. } => vec![insert.source.visit(&mut reads)],
        Statement::Update { with, update } => vec![
            with.visit(&mut reads),
            update.from.visit(&mut reads),
            update.assignments.visit(&mut reads),
            update.selection.visit(&mut reads),
        ],
        Statement::Delete { with, delete } => {
            vec![with.visit(&mut reads), delete.using.visit(&mut reads), delete.selection.visit(&mut reads)]
        }
        _ => Vec::new(),
    };
    read.into_iter().find_map(ControlFlow::break_value).map_or(Ok(()), Err)
}

struct Reads<'a> {
    silent: &'a [sp::Ident],
}

impl Visitor for Reads<'_> {
    type Break = Error;

    fn pre_visit_relation(&mut self, name: &sp::ObjectName) -> ControlFlow<Error> {
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let is_named = |silent: &&sp::Ident| part.as_ident().is_some_and(|name| same(name, silent));
        match self.silent.iter().find(is_named) {
            None => ControlFlow::Continue(()),
            Some(silent) => {
                let message = format!("WITH query \"{}\" does not have a RETURNING clause", folded(silent));
                ControlFlow::Break(Error::unsupported(message))
            }
        }
    }

    fn pre_visit_query(&mut self, query: &sp::Query) -> ControlFlow<Error> {
        refuse_ctes(query).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

/// The query below a WITH; a query that has one of its own sees both.
fn under(with: Option<sp::With>, mut query: sp::Query) -> sp::Query {
    if query.with.is_none() {
        query.with = with;
        return query;
    }
    sp::Query {
        with,
        body: Box::new(sp::SetExpr::Query(Box::new(query))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
