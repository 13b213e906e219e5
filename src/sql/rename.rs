//! Another name for a relation in the statements that the catalog keeps as text.
//!
//! Where a statement names the relation, and nowhere else, its text is changed. Columns that a query qualifies by the former name
//! keep that: it becomes an alias.
//!
//! ```text
//!   SELECT orders.id FROM orders, customers    ──►    SELECT orders.id FROM sales AS orders, customers
//!   SELECT id FROM TUMBLE(orders, at, …)       ──►    SELECT id FROM TUMBLE(sales, at, …)
//! ```
//!
//! What cannot be said so is an error here, or in the plan that the caller makes of the new text.

use std::ops::{ControlFlow, Range};

use sqlparser::ast as sp;
use sqlparser::ast::{Visit, Visitor};
use sqlparser::tokenizer::Span;

use super::ast::{AlterRelation, CreateRelation, CreateView, RunningInsert, Statement};
use super::parse::parse;
use super::plan::names::{fold, fold_object, window_input};
use super::system::quote_ident;
use crate::error::{Error, Result};

/// From one name to another.
pub struct Renaming<'a> {
    pub from: &'a str,
    pub to: &'a str,
}

impl Renaming<'_> {
    /// The text of statements, with the relation's new name.
    pub fn apply(&self, sql: &str) -> Result<String> {
        let mut places =
            Places { renaming: self, names: Vec::new(), without_alias: Vec::new(), qualified: false, hidden_by: false };
        for parsed in parse(sql)? {
            places.statement(&parsed.statement);
        }
        if places.hidden_by {
            let message = format!("a WITH of \"{}\" or \"{}\" stands in it", self.from, self.to);
            return Err(Error::dependent_objects(message));
        }
        let Places { names, without_alias, qualified, .. } = places;
        let name = quote_ident(self.to);
        let alias = format!("{name} AS {}", quote_ident(self.from));
        let mut edits: Vec<(Range<usize>, &str)> = names.into_iter().map(|at| (at, name.as_str())).collect();
        edits.extend(without_alias.into_iter().map(|at| (at, if qualified { alias.as_str() } else { name.as_str() })));
        match edits.iter().all(|(at, _)| self.stands_at(sql, at.clone())) {
            true => Ok(edited(sql, edits)),
            false => Err(Error::internal("the name is not where the statement has it")),
        }
    }

    /// Whether the former name is what is written there.
    fn stands_at(&self, sql: &str, at: Range<usize>) -> bool {
        let Some(written) = sql.get(at) else { return false };
        match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\"") == self.from,
            None => written.to_lowercase() == self.from,
        }
    }
}

/// Replaces ranges of a text that do not overlap.
fn edited(sql: &str, mut edits: Vec<(Range<usize>, &str)>) -> String {
    edits.sort_by_key(|(at, _)| std::cmp::Reverse(at.start));
    let mut text = sql.to_string();
    edits.dedup();
    for (at, new) in edits {
        text.replace_range(at, new);
    }
    text
}

/// Where statements name the relation.
struct Places<'a> {
    renaming: &'a Renaming<'a>,
    names: Vec<Range<usize>>,
    /// Those in FROM whose name also qualifies columns.
    without_alias: Vec<Range<usize>>,
    /// Whether any column is qualified by the former name.
    qualified: bool,
    /// Whether a CTE has one of the two names.
    hidden_by: bool,
}

impl Places<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::CreateStream(CreateRelation { name, .. }) | Statement::CreateTable(CreateRelation { name, .. }) => {
                self.name(name)
            }
            Statement::CreateMaterializedView(view) | Statement::CreateDerivedStream(view) | Statement::CreateView(view) => {
                let CreateView { name, query, .. } = view;
                self.name(name);
                let _ = query.visit(self);
            }
            Statement::AlterRelation(alter) => {
                let AlterRelation { name, .. } = alter.as_ref();
                self.name(name);
            }
            Statement::RunningInsert(RunningInsert { insert, .. }) => {
                if let sp::TableObject::TableName(name) = &insert.table {
                    self.name(name);
                }
                let _ = insert.source.visit(self);
            }
            Statement::Query { query, .. } => {
                let _ = query.visit(self);
            }
            // The catalog keeps no others.
            _ => {}
        }
    }

    fn name(&mut self, name: &sp::ObjectName) {
        let place = self.place(name);
        self.names.extend(place);
    }

    /// Where the name stands, if it is the relation's.
    fn place(&self, name: &sp::ObjectName) -> Option<Range<usize>> {
        let (schema, folded) = fold_object(name)?;
        let ours = folded == self.renaming.from && schema.is_none_or(|schema| schema == "public");
        ours.then(|| name.0.last()?.as_ident().map(|ident| bytes(ident.span)))?
    }

    fn qualifier(&mut self, idents: &[sp::Ident]) {
        self.qualified |= idents.iter().any(|ident| fold(ident) == self.renaming.from);
    }
}

impl Visitor for Places<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &sp::Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.hidden_by |=
            ctes.map(|cte| fold(&cte.alias.name)).any(|name| name == self.renaming.from || name == self.renaming.to);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &sp::Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
                self.qualified |= fold_object(name).is_some_and(|(_, name)| name == self.renaming.from);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &sp::TableFactor) -> ControlFlow<()> {
        let sp::TableFactor::Table { name, alias, args, .. } = factor else { return ControlFlow::Continue(()) };
        match (args, alias) {
            (Some(args), _) => window_input(name, args).iter().for_each(|input| self.name(input)),
            (None, Some(_)) => self.name(name),
            (None, None) => {
                let place = self.place(name);
                self.without_alias.extend(place);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &sp::Expr) -> ControlFlow<()> {
        if let sp::Expr::CompoundIdentifier(idents) = expr
            && let Some((_, qualifiers)) = idents.split_last()
        {
            self.qualifier(qualifiers);
        }
        ControlFlow::Continue(())
    }
}

/// Spans are absolute: a line is an offset in bytes, from 1.
fn bytes(span: Span) -> Range<usize> {
    let at = |line: u64| usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    at(span.start.line)..at(span.end.line)
}
