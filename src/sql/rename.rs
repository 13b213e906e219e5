//! The names of relations in the statements that the catalog keeps as text.
//!
//! A text names relations as one scope knows them: a catalog, and the path along which names without a schema are looked up in it.
//! For another scope the names are written anew, where statements name relations, and nowhere else:
//!
//! * a relation has got another name, or its schema has;
//! * a definition was written under a session's path, and is kept under the default one: what it means is settled when it is made;
//! * or it is shown under the path of its reader.
//!
//! Columns that a query qualifies by a former name keep that: it becomes an alias.
//!
//! ```text
//!   SELECT orders.id FROM orders, customers    ──►    SELECT orders.id FROM sales AS orders, customers
//!   SELECT id FROM TUMBLE(orders, at, …)       ──►    SELECT id FROM TUMBLE(shop.orders, at, …)
//! ```
//!
//! What cannot be said so is an error here, or in the plan that the caller makes of the new text.

use std::ops::{ControlFlow, Range};

use sqlparser::ast as sp;
use sqlparser::ast::{Visit, Visitor};
use sqlparser::tokenizer::Span;

use super::ast::{CreateView, Statement};
use super::parse::{parse, parse_expression};
use super::plan::names::{Ctes, fold, fold_object, read_by};
use super::system::quote_ident;
use crate::catalog::schema::{RelationName, SearchPath};
use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result};

/// What names mean.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub catalog: &'a Catalog,
    pub path: &'a SearchPath,
}

impl<'a> Scope<'a> {
    fn find(self, schema: Option<&str>, name: &str) -> Option<&'a Relation> {
        self.catalog.resolve(self.path, schema, name).map(AsRef::as_ref)
    }
}

/// From what names mean in one scope to the names of the same relations in another.
pub struct Renaming<'a> {
    pub from: Scope<'a>,
    pub to: Scope<'a>,
    /// What the statement makes: it is in neither catalog yet.
    pub new: Option<&'a RelationName>,
}

impl Renaming<'_> {
    /// The text of statements, in the names of the other scope.
    pub fn apply(&self, sql: &str) -> Result<String> {
        let mut places =
            Places { renaming: self, edits: Vec::new(), aliased: Vec::new(), qualifiers: Vec::new(), ctes: Ctes::default() };
        for parsed in parse(sql)? {
            places.statement(&parsed.statement);
        }
        let Places { mut edits, aliased, qualifiers, .. } = places;
        for (Edit { at, text }, former) in aliased {
            let text = match qualifiers.contains(&former) {
                true => format!("{text} AS {}", quote_ident(&former)),
                false => text,
            };
            edits.push(Edit { at, text });
        }
        edited(sql, edits)
    }

    /// The relation that a name means, and what it is called in the other scope, if it has to be called so there.
    fn renamed(&self, schema: Option<&str>, name: &str, ctes: &Ctes) -> Option<(&Relation, String)> {
        let former = self.from.find(schema, name)?;
        let now = self.to.catalog.get(former.id)?;
        let same = self.to.find(schema, name).is_some_and(|found| found.id == former.id);
        if same {
            return None;
        }
        let bare = self.to.find(None, &now.name).is_some_and(|found| found.id == now.id) && !ctes.has(&now.name);
        let text = match schema.is_none() && bare {
            true => quote_ident(&now.name),
            false => qualified(&now.schema, &now.name),
        };
        Some((now, text))
    }
}

/// A text that the catalog keeps, as it would be written under a path; as it is kept, if it cannot be.
pub fn shown(catalog: &Catalog, path: &SearchPath, sql: &str) -> String {
    let kept = SearchPath::default();
    let scope = |path| Scope { catalog, path };
    let renaming = Renaming { from: scope(&kept), to: scope(path), new: None };
    let text = if *path == kept { None } else { renaming.apply(sql).ok() };
    text.unwrap_or_else(|| sql.to_string())
}

/// A name as SQL, in quotes where it needs them.
fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// Another text in place of that of a range.
#[derive(PartialEq)]
struct Edit {
    at: Range<usize>,
    text: String,
}

/// Replaces ranges of a text that do not overlap.
fn edited(sql: &str, mut edits: Vec<Edit>) -> Result<String> {
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.at.start));
    edits.dedup();
    let mut text = sql.to_string();
    for edit in edits {
        if sql.get(edit.at.clone()).is_none() {
            return Err(Error::internal("the name is not where the statement has it"));
        }
        text.replace_range(edit.at, &edit.text);
    }
    Ok(text)
}

/// Where statements name relations that are called otherwise.
struct Places<'a> {
    renaming: &'a Renaming<'a>,
    edits: Vec<Edit>,
    /// Those in FROM whose former name may qualify columns, with that.
    aliased: Vec<(Edit, String)>,
    /// Names, without a schema, that qualify columns.
    qualifiers: Vec<String>,
    ctes: Ctes,
}

impl Places<'_> {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::CreateStream(create) | Statement::CreateTable(create) => self.own_name(&create.name),
            Statement::CreateMaterializedView(view)
            | Statement::CreateDerivedStream(view)
            | Statement::CreateView(view)
            | Statement::CreateSink(view) => {
                let CreateView { name, query, .. } = view;
                self.own_name(name);
                let _ = query.visit(self);
            }
            Statement::AlterView(view) => {
                self.name(&view.name);
                let _ = view.query.visit(self);
            }
            Statement::AlterRelation(alter) => self.name(&alter.name),
            Statement::RunningInsert(running) => {
                if let sp::TableObject::TableName(name) = &running.insert.table {
                    self.name(name);
                }
                let _ = running.insert.source.visit(self);
            }
            Statement::Query { query, .. } => {
                let _ = query.visit(self);
            }
            // The catalog keeps no others.
            _ => {}
        }
    }

    /// The name of what a CREATE makes: a new one, or, in a definition that is kept, that of the relation.
    fn own_name(&mut self, name: &sp::ObjectName) {
        let Some(new) = self.renaming.new else { return self.name(name) };
        let is_said = name.0.len() > 1;
        if let (false, Some(at)) = (is_said, range(name)) {
            self.edits.push(Edit { at, text: qualified(&new.schema, &new.name) });
        }
    }

    fn name(&mut self, name: &sp::ObjectName) {
        let edit = self.edit(name).map(|(edit, _)| edit);
        self.edits.extend(edit);
    }

    /// How a name that is to be changed is to be changed, and whether its last part is.
    fn edit(&self, name: &sp::ObjectName) -> Option<(Edit, bool)> {
        let (schema, folded) = fold_object(name)?;
        if schema.is_none() && self.ctes.has(&folded) {
            return None;
        }
        let (now, text) = self.renaming.renamed(schema.as_deref(), &folded, &self.ctes)?;
        Some((Edit { at: range(name)?, text }, now.name != folded))
    }

    /// `schema.relation.column`, or `relation.column`.
    fn qualifier(&mut self, idents: &[sp::Ident]) {
        if let [.., schema, name] = idents {
            let (schema, name) = (fold(schema), fold(name));
            if let Some((_, text)) = self.renaming.renamed(Some(&schema), &name, &self.ctes)
                && let (Some(first), Some(last)) = (idents.first(), idents.last())
            {
                self.edits.push(Edit { at: bytes(first.span).start..bytes(last.span).end, text });
                return;
            }
        }
        self.qualifiers.extend(idents.iter().map(fold));
    }
}

impl Visitor for Places<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &sp::Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &sp::Query) -> ControlFlow<()> {
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &sp::Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                && let Some(idents) = name.0.iter().map(|part| part.as_ident().cloned()).collect::<Option<Vec<_>>>()
            {
                self.qualifier(&idents);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &sp::TableFactor) -> ControlFlow<()> {
        let sp::TableFactor::Table { name, alias, args, .. } = factor else { return ControlFlow::Continue(()) };
        match (args, alias) {
            (Some(args), _) => read_by(name, args).iter().for_each(|input| self.name(input)),
            (None, Some(_)) => self.name(name),
            (None, None) => match (self.edit(name), fold_object(name)) {
                (Some((edit, true)), Some((_, former))) => self.aliased.push((edit, former)),
                (edit, _) => self.edits.extend(edit.map(|(edit, _)| edit)),
            },
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

/// An expression with another text in the place of a column's name.
pub fn column_renamed(expression: &str, from: &str, to: &str) -> Result<String> {
    let expr = parse_expression(expression)?;
    let mut edits = Vec::new();
    let _ = sp::visit_expressions(&expr, |expr| {
        let name = match expr {
            sp::Expr::Identifier(name) => Some(name),
            sp::Expr::CompoundIdentifier(path) => path.last(),
            _ => None,
        };
        edits.extend(name.filter(|name| fold(name) == from).map(|name| Edit { at: bytes(name.span), text: to.to_string() }));
        ControlFlow::<()>::Continue(())
    });
    edited(expression, edits)
}

/// Where a name stands.
fn range(name: &sp::ObjectName) -> Option<Range<usize>> {
    let (first, last) = (name.0.first()?.as_ident()?, name.0.last()?.as_ident()?);
    Some(bytes(first.span).start..bytes(last.span).end)
}

/// Spans are absolute: a line is an offset in bytes, from 1.
fn bytes(span: Span) -> Range<usize> {
    let at = |line: u64| usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    at(span.start.line)..at(span.end.line)
}
