//! Relations of one name in one statement: `FROM orders JOIN archive.orders ON orders.id = archive.orders.id`.
//!
//! A column is known to DataFusion by the name of its relation as the query writes it, and a name without a schema is taken for
//! any with one. So where a relation that is named with its schema shares its name with another entry of FROM, anywhere in the
//! statement, each such entry gets an alias of its own, and the columns that mean it are qualified by that:
//!
//! ```text
//!   FROM orders AS "public.orders" JOIN archive.orders AS "archive.orders" ON "public.orders".id = "archive.orders".id
//! ```
//!
//! Which entry a qualifier means is PostgreSQL's rule: that of the innermost FROM that has one of the name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{Visit, VisitMut, Visitor, VisitorMut};

use super::Planner;
use super::names::{Ctes, fold, fold_object, read_by};
use crate::error::{Error, Result};

/// Give entries of FROM that could be taken for one another aliases of their own.
pub(super) fn tell_apart(query: &mut sp::Query, planner: &Planner) -> Result<()> {
    let shared = shared_names(query);
    if shared.is_empty() {
        return Ok(());
    }
    let mut apart = Apart { planner, shared, ctes: Ctes::default(), queries: Vec::new(), levels: Vec::new() };
    match query.visit(&mut apart) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Names that entries of FROM are known by, of which one is written with a schema, and another differently.
fn shared_names(query: &sp::Query) -> BTreeSet<String> {
    /// By name: the schemas that it is written with.
    struct Entries(BTreeMap<String, BTreeSet<Written>>);
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Written {
        Alias,
        Bare,
        In(String),
    }
    impl Visitor for Entries {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &sp::TableFactor) -> ControlFlow<()> {
            let entry = match (alias_of(factor), relation_of(factor)) {
                (Some(alias), _) => Some((fold(&alias.name), Written::Alias)),
                (None, Some(name)) => fold_object(&name).map(|(schema, name)| (name, schema.map_or(Written::Bare, Written::In))),
                (None, None) => None,
            };
            if let Some((name, written)) = entry {
                self.0.entry(name).or_default().insert(written);
            }
            ControlFlow::Continue(())
        }
    }
    let mut entries = Entries(BTreeMap::new());
    let _ = query.visit(&mut entries);
    let in_schema = |written: &BTreeSet<Written>| written.iter().any(|w| matches!(w, Written::In(_)));
    entries.0.into_iter().filter(|(_, written)| written.len() > 1 && in_schema(written)).map(|(name, _)| name).collect()
}

fn alias_of(factor: &sp::TableFactor) -> Option<&sp::TableAlias> {
    use sp::TableFactor as F;
    match factor {
        F::Table { alias, .. }
        | F::Derived { alias, .. }
        | F::UNNEST { alias, .. }
        | F::Function { alias, .. }
        | F::NestedJoin { alias, .. }
        | F::MatchRecognize { alias, .. } => alias.as_ref(),
        _ => None,
    }
}

/// What an entry names: a relation, or that which a window function reads.
fn relation_of(factor: &sp::TableFactor) -> Option<sp::ObjectName> {
    match factor {
        sp::TableFactor::Table { name, args: None, .. } => Some(name.clone()),
        sp::TableFactor::Table { name, args: Some(args), .. } => read_by(name, args),
        _ => None,
    }
}

/// An entry of FROM.
struct Entry {
    name: String,
    /// Of a relation without an alias: its schema, and the alias that it got.
    given: Option<(String, sp::Ident)>,
}

struct Apart<'a> {
    planner: &'a Planner,
    /// The names that are told apart.
    shared: BTreeSet<String>,
    ctes: Ctes,
    /// Of the queries around this place: how many levels there were before them, and whether each is one SELECT, whose FROM
    /// its ORDER BY sees.
    queries: Vec<(usize, bool)>,
    /// The entries of each FROM around this place.
    levels: Vec<Vec<Entry>>,
}

impl Apart<'_> {
    fn select(&mut self, select: &mut sp::Select) -> Result<()> {
        let mut entries = Vec::new();
        for table in &mut select.from {
            self.entries(table, &mut entries)?;
        }
        self.levels.push(entries);
        for item in &mut select.projection {
            if let sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
                && let Some(idents) = name.0.iter().map(|part| part.as_ident().cloned()).collect::<Option<Vec<_>>>()
                && let Some(alias) = self.alias(&idents)?
            {
                *name = sp::ObjectName::from(vec![alias]);
            }
        }
        Ok(())
    }

    fn entries(&self, table: &mut sp::TableWithJoins, entries: &mut Vec<Entry>) -> Result<()> {
        let joined = table.joins.iter_mut().map(|join| &mut join.relation);
        for factor in std::iter::once(&mut table.relation).chain(joined) {
            if let sp::TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
                self.entries(table_with_joins, entries)?;
                continue;
            }
            let Some(entry) = self.entry(factor).filter(|entry| self.shared.contains(&entry.name)) else { continue };
            let clashes = |other: &&Entry| {
                let differ = matches!((&other.given, &entry.given), (Some((a, _)), Some((b, _))) if a != b);
                other.name == entry.name && !differ
            };
            if entries.iter().any(|other| clashes(&other)) {
                return Err(Error::duplicate_alias(format!("table name \"{}\" specified more than once", entry.name))
                    .with_hint("give one of them another name with AS"));
            }
            if let (sp::TableFactor::Table { alias, .. }, Some((_, given))) = (factor, &entry.given) {
                *alias = Some(sp::TableAlias { explicit: true, name: given.clone(), columns: Vec::new(), at: None });
            }
            entries.push(entry);
        }
        Ok(())
    }

    fn entry(&self, factor: &sp::TableFactor) -> Option<Entry> {
        if let Some(alias) = alias_of(factor) {
            return Some(Entry { name: fold(&alias.name), given: None });
        }
        let written = relation_of(factor)?;
        let (schema, name) = fold_object(&written)?;
        let schema = match schema {
            None if self.ctes.has(&name) => None,
            None => self.planner.relation(&written).map(|relation| relation.schema.clone()),
            schema => schema,
        };
        let given = schema.map(|schema| (schema.clone(), sp::Ident::with_quote('"', format!("{schema}.{name}"))));
        Some(Entry { name, given })
    }

    /// The alias of the entry that a qualifier means, if it has got one.
    fn alias(&self, qualifier: &[sp::Ident]) -> Result<Option<sp::Ident>> {
        let (schema, name) = match qualifier {
            [name] => (None, fold(name)),
            [.., schema, name] => (Some(fold(schema)), fold(name)),
            [] => return Ok(None),
        };
        if !self.shared.contains(&name) {
            return Ok(None);
        }
        for level in self.levels.iter().rev() {
            let means = |entry: &&Entry| {
                let of_schema = |wanted: &String| entry.given.as_ref().is_some_and(|(schema, _)| schema == wanted);
                entry.name == name && schema.as_ref().is_none_or(of_schema)
            };
            let mut found = level.iter().filter(means);
            match (found.next(), found.next()) {
                (None, _) => {}
                (Some(entry), None) => return Ok(entry.given.as_ref().map(|(_, alias)| alias.clone())),
                (Some(_), Some(_)) => {
                    return Err(Error::ambiguous_alias(format!("table reference \"{name}\" is ambiguous"))
                        .with_hint(format!("write its schema before it: schema.{name}.column")));
                }
            }
        }
        Ok(None)
    }

    fn column(&self, idents: &mut Vec<sp::Ident>) -> Result<()> {
        let Some((_, qualifier)) = idents.split_last() else { return Ok(()) };
        let whole = self.alias(qualifier)?.map(|alias| (qualifier.len(), alias));
        // Or `relation.column.field`.
        let first = || Ok::<_, Error>(self.alias(&qualifier[..1])?.map(|alias| (1, alias)));
        let found = if whole.is_some() || qualifier.len() < 2 { whole } else { first()? };
        if let Some((replaced, alias)) = found {
            idents.splice(..replaced, [alias]);
        }
        Ok(())
    }
}

fn broken(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Apart<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<Error> {
        self.ctes.enter(query);
        self.queries.push((self.levels.len(), matches!(query.body.as_ref(), sp::SetExpr::Select(_))));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<Error> {
        self.ctes.leave();
        if let Some((levels, _)) = self.queries.pop() {
            self.levels.truncate(levels);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<Error> {
        broken(self.select(select))
    }

    fn post_visit_select(&mut self, _: &mut sp::Select) -> ControlFlow<Error> {
        if self.queries.last().is_none_or(|(_, is_select)| !is_select) {
            self.levels.pop();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<Error> {
        match expr {
            sp::Expr::CompoundIdentifier(idents) => broken(self.column(idents)),
            _ => ControlFlow::Continue(()),
        }
    }
}
