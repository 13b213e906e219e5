//! What is settled in the tree before names are resolved.
//!
//! * Which hidden columns the statement names: only those are offered by its streams, and `*` leaves them out. So `SELECT *`
//!   never shows them, and `SELECT *, _offset FROM s` shows one.
//! * `UNNEST(…) AS word`: as in PostgreSQL, the alias names the column too.
//! * `FROM t AS x(a, b)`: what is not named keeps its name, hidden columns among it.
//! * `ARRAY[t.x]`, which may stand in a subquery: the call that it is short for.
//! * `LATEST_BY_OFFSET(x)`: `arg_max(x, _offset)` of the rows where x is not NULL; `LATEST_BY_OFFSET(x, n)`: a list of the last n.
//! * `pg_catalog.f(…)`: the schema of a built-in function says nothing more than its name does; nor does that of a user's.
//! * `f(b => 2, a => 1)`: arguments of users' functions in the order of their parameters.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{Visit, VisitMut, Visitor, VisitorMut};

use super::Planner;
use super::inline::order_arguments;
use super::source::{Hidden, RelationSource};
use crate::catalog::Kind;
use crate::sql::ast::{WINDOW_FUNCTIONS, function_call};

/// A name as PostgreSQL folds it: lower case unless quoted.
pub fn fold(ident: &sp::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Schema and name of an object, folded. `None` for parts that are no identifiers, or too many of them.
pub fn fold_object(name: &sp::ObjectName) -> Option<(Option<String>, String)> {
    let parts = name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Option<Vec<_>>>()?;
    match parts.as_slice() {
        [name] => Some((None, name.clone())),
        [schema, name] | [_, schema, name] => Some((Some(schema.clone()), name.clone())),
        _ => None,
    }
}

/// The hidden columns that the tree names anywhere.
pub fn hidden_columns(tree: &impl Visit) -> Vec<Hidden> {
    struct Mentions(Vec<Hidden>);
    impl Visitor for Mentions {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &sp::Expr) -> ControlFlow<()> {
            let last = match expr {
                sp::Expr::Identifier(ident) => Some(ident),
                sp::Expr::CompoundIdentifier(idents) => idents.last(),
                _ => None,
            };
            if let Some(hidden) = last.and_then(|ident| Hidden::find(&fold(ident)))
                && !self.0.contains(&hidden)
            {
                self.0.push(hidden);
            }
            ControlFlow::Continue(())
        }
    }
    let mut mentions = Mentions(Vec::new());
    let _ = tree.visit(&mut mentions);
    mentions.0.sort();
    mentions.0
}

/// ksqlDB's `LATEST_BY_OFFSET(x [, ignore nulls])` and `EARLIEST_BY_OFFSET`: the x of the row with the greatest or least offset.
pub fn by_offset(tree: &mut impl VisitMut) {
    let _ = sp::visit_expressions_mut(tree, |expr| {
        if let sp::Expr::Function(function) = expr
            && let Some((None, name)) = fold_object(&function.name)
            && let Some((_, extreme)) = BY_OFFSET.iter().find(|(known, _)| *known == name)
        {
            match several_by_offset(function, *extreme == "arg_max") {
                Some(list) => *expr = list,
                None => drop(replace_by_offset(function, extreme)),
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

const BY_OFFSET: [(&str, &str); 2] = [("latest_by_offset", "arg_max"), ("earliest_by_offset", "arg_min")];

/// `LATEST_BY_OFFSET(x, n [, ignore nulls])`: of the n rows with the greatest or least offsets, the least first.
fn several_by_offset(function: &sp::Function, latest: bool) -> Option<sp::Expr> {
    let sp::FunctionArguments::List(list) = &function.args else { return None };
    let number = |argument: &sp::FunctionArg| match argument {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Value(value))) => match &value.value {
            sp::Value::Number(..) => Some(sp::Expr::Value(value.clone())),
            _ => None,
        },
        _ => None,
    };
    let count = number(list.args.get(1)?)?;
    let mut inner = function.clone();
    let sp::FunctionArguments::List(arguments) = &mut inner.args else { return None };
    arguments.args.remove(1);
    replace_by_offset(&mut inner, "array_agg")?;
    let sp::FunctionArguments::List(arguments) = &mut inner.args else { return None };
    let sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(offset)) = arguments.args.pop()? else { return None };
    let options = sp::OrderByOptions { asc: Some(!latest), nulls_first: None };
    arguments.clauses.push(sp::FunctionArgumentClause::OrderBy(vec![sp::OrderByExpr { expr: offset, options, with_fill: None }]));
    let call = |name: &str, arguments| sp::Expr::Function(function_call(sp::Ident::new(name), arguments));
    let one = sp::Expr::Value(sp::Value::Number("1".into(), false).with_empty_span());
    let part = call("array_part", vec![sp::Expr::Function(inner), one, count]);
    Some(if latest { call("array_reverse", vec![part]) } else { part })
}

/// `None`: the arguments are others, and the planner says that there is no such function.
fn replace_by_offset(function: &mut sp::Function, extreme: &str) -> Option<()> {
    let sp::FunctionArguments::List(list) = &mut function.args else { return None };
    let (value, keeps_nulls) = match list.args.as_slice() {
        [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value))] => (value.clone(), false),
        [
            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)),
            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Value(ignore))),
        ] => {
            let sp::Value::Boolean(ignore) = &ignore.value else { return None };
            (value.clone(), !*ignore)
        }
        _ => return None,
    };
    let offset = sp::Expr::Identifier(sp::Ident::new(Hidden::Offset.name()));
    list.args.truncate(1);
    list.args.push(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(offset)));
    function.name = sp::ObjectName::from(vec![sp::Ident::new(extreme)]);
    if !keeps_nulls {
        let not_null = sp::Expr::IsNotNull(Box::new(value));
        let filter = function.filter.take();
        let both = |filter: Box<sp::Expr>, right: sp::Expr| {
            let left = Box::new(sp::Expr::Nested(filter));
            sp::Expr::BinaryOp { left, op: sp::BinaryOperator::And, right: Box::new(right) }
        };
        function.filter = Some(Box::new(match filter {
            Some(filter) => both(filter, not_null),
            None => not_null,
        }));
    }
    Some(())
}

/// Bring a tree into the form that the planner takes; see the head of this file.
pub(super) fn prepare(tree: &mut impl VisitMut, planner: &Planner, hidden: &[Hidden]) {
    let _ = tree.visit(&mut Prepare { planner, hidden, ctes: Ctes::default() });
}

/// The CTEs that are seen from a place in a query, for visitors of trees.
#[derive(Default)]
pub struct Ctes {
    /// Names of those that each query around this place sees.
    scopes: Vec<Vec<String>>,
    /// What the bodies of CTEs see, by the address of their query: those before them, and themselves only if RECURSIVE.
    of_bodies: HashMap<*const sp::Query, Vec<String>>,
}

impl Ctes {
    pub fn enter(&mut self, query: &sp::Query) {
        let inherited = self.of_bodies.remove(&std::ptr::from_ref(query));
        let mut scope = inherited.or_else(|| self.scopes.last().cloned()).unwrap_or_default();
        for (with, cte) in query.with.iter().flat_map(|with| with.cte_tables.iter().map(move |cte| (with, cte))) {
            let mut of_body = scope.clone();
            scope.push(fold(&cte.alias.name));
            if with.recursive {
                of_body.clone_from(&scope);
            }
            self.of_bodies.insert(std::ptr::from_ref(&*cte.query), of_body);
        }
        self.scopes.push(scope);
    }

    pub fn leave(&mut self) {
        self.scopes.pop();
    }

    /// Is the name, without a schema, that of one?
    pub fn has(&self, name: &str) -> bool {
        self.scopes.last().is_some_and(|scope| scope.iter().any(|cte| cte == name))
    }

    /// The same of a name that may have a schema.
    pub fn means(&self, name: &sp::ObjectName) -> bool {
        name.0.len() == 1 && fold_object(name).is_some_and(|(_, name)| self.has(&name))
    }
}

struct Prepare<'a> {
    planner: &'a Planner,
    hidden: &'a [Hidden],
    ctes: Ctes,
}

impl VisitorMut for Prepare<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut sp::Query) -> ControlFlow<()> {
        self.ctes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut sp::Query) -> ControlFlow<()> {
        self.ctes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut sp::Select) -> ControlFlow<()> {
        qualify_wildcards(select);
        if !self.hidden.is_empty() {
            self.narrow_wildcards(select);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut sp::TableFactor) -> ControlFlow<()> {
        if let sp::TableFactor::UNNEST { alias: Some(alias), array_exprs, .. } = factor
            && alias.columns.is_empty()
            && array_exprs.len() == 1
        {
            alias.columns = vec![sp::TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
        }
        if let sp::TableFactor::Table { name, alias: Some(alias), args, .. } = factor
            && !alias.columns.is_empty()
            && let Some(read) = read_in_from(name, args.as_ref())
            && let Some(relation) = self.planner.relation(&read).filter(|_| !self.ctes.means(&read))
        {
            let column = |name: &str| sp::TableAliasColumnDef { name: sp::Ident::with_quote('"', name), data_type: None };
            // Those that are not named keep their names, and so do hidden ones, which are behind them.
            let rest = relation.columns.iter().skip(alias.columns.len()).map(|own| column(&own.name));
            alias.columns.extend(rest);
            let hidden = self.offered(&read);
            let behind = relation.columns.len()..relation.columns.len();
            alias.columns.splice(behind, hidden.iter().map(|hidden| column(hidden.name())));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        // Of the elements of an array that is written so, the planner does not see that they are of an outer row.
        if let sp::Expr::Array(array) = expr
            && array.elem.iter().any(names_column)
        {
            *expr = sp::Expr::Function(function_call(sp::Ident::new("make_array"), std::mem::take(&mut array.elem)));
        }
        if let sp::Expr::Function(function) = expr {
            let Some((schema, name)) = fold_object(&function.name) else { return ControlFlow::Continue(()) };
            let users = self.planner.functions_named(&name);
            let names_no_other = |schema: &str| match schema {
                "pg_catalog" | "information_schema" => true,
                "public" => !users.is_empty(),
                _ => false,
            };
            if schema.as_deref().is_some_and(names_no_other) {
                function.name.0.drain(..function.name.0.len() - 1);
            }
            order_arguments(function, &users);
        }
        ControlFlow::Continue(())
    }
}

fn names_column(expr: &sp::Expr) -> bool {
    let found = sp::visit_expressions(expr, |expr| match expr {
        sp::Expr::Identifier(_) | sp::Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// `SELECT s.* FROM public.s`: the planner knows the columns by the whole name only.
fn qualify_wildcards(select: &mut sp::Select) {
    for item in &mut select.projection {
        if let sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(qualifier), _) = item
            && let Some((None, word)) = fold_object(qualifier)
        {
            let factors =
                select.from.iter().flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)));
            let mut whole = factors.filter_map(|factor| match factor {
                sp::TableFactor::Table { name, alias: None, args: None, .. } => Some((name, fold_object(name)?)),
                _ => None,
            });
            if let Some((name, _)) = whole.find(|(_, (schema, name))| schema.is_some() && *name == word) {
                *qualifier = name.clone();
            }
        }
    }
}

/// An entry of FROM: the name that qualifies its columns, and the hidden columns it offers.
struct FromEntry {
    qualifier: Option<sp::Ident>,
    hidden: Vec<Hidden>,
}

impl Prepare<'_> {
    fn narrow_wildcards(&self, select: &mut sp::Select) {
        let mut entries = Vec::new();
        select.from.iter().for_each(|table| self.entries_of(table, &mut entries));
        if entries.iter().all(|entry| entry.hidden.is_empty()) {
            return;
        }
        // The columns that USING merges belong to no single entry, so the wildcard must stay one.
        let merged = select.from.iter().flat_map(|table| &table.joins).any(|join| merges_columns(&join.join_operator));
        let separable = entries.len() > 1 && !merged && entries.iter().all(|entry| entry.qualifier.is_some());
        let items = std::mem::take(&mut select.projection);
        for item in items {
            match item {
                sp::SelectItem::Wildcard(options) if separable && options == sp::WildcardAdditionalOptions::default() => {
                    select.projection.extend(entries.iter().filter_map(qualified_wildcard));
                }
                sp::SelectItem::Wildcard(mut options) => {
                    entries.iter().for_each(|entry| exclude(&mut options, &entry.hidden));
                    select.projection.push(sp::SelectItem::Wildcard(options));
                }
                sp::SelectItem::QualifiedWildcard(sp::SelectItemQualifiedWildcardKind::ObjectName(name), mut options) => {
                    let qualifier = fold_object(&name).map(|(_, name)| name);
                    let named = entries.iter().find(|entry| entry.qualifier.as_ref().map(fold) == qualifier);
                    named.into_iter().for_each(|entry| exclude(&mut options, &entry.hidden));
                    let kind = sp::SelectItemQualifiedWildcardKind::ObjectName(name);
                    select.projection.push(sp::SelectItem::QualifiedWildcard(kind, options));
                }
                other => select.projection.push(other),
            }
        }
    }

    fn entries_of(&self, table: &sp::TableWithJoins, entries: &mut Vec<FromEntry>) {
        let factors = std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation));
        for factor in factors {
            match factor {
                sp::TableFactor::NestedJoin { table_with_joins, alias: None } => self.entries_of(table_with_joins, entries),
                sp::TableFactor::Table { name, alias, args, .. } => {
                    let input = read_in_from(name, args.as_ref());
                    let hidden = input.as_ref().map_or(Vec::new(), |name| self.offered(name));
                    let last = input.as_ref().and_then(|name| name.0.last()?.as_ident().cloned());
                    entries.push(FromEntry { qualifier: alias.as_ref().map(|a| a.name.clone()).or(last), hidden });
                }
                sp::TableFactor::Derived { alias, .. }
                | sp::TableFactor::UNNEST { alias, .. }
                | sp::TableFactor::Function { alias, .. }
                | sp::TableFactor::NestedJoin { alias, .. } => {
                    entries.push(FromEntry { qualifier: alias.as_ref().map(|a| a.name.clone()), hidden: Vec::new() });
                }
                _ => entries.push(FromEntry { qualifier: None, hidden: Vec::new() }),
            }
        }
    }

    /// The hidden columns that a relation offers to this statement.
    fn offered(&self, name: &sp::ObjectName) -> Vec<Hidden> {
        match self.planner.relation(name) {
            Some(relation) if relation.kind != Kind::View && !self.ctes.means(name) => {
                RelationSource::new(relation.clone(), self.hidden).hidden().to_vec()
            }
            _ => Vec::new(),
        }
    }
}

/// The relation that a window function in FROM reads, if it is one and its input has a name.
pub fn window_input(function: &sp::ObjectName, args: &sp::TableFunctionArgs) -> Option<sp::ObjectName> {
    let (_, name) = fold_object(function)?;
    if !WINDOW_FUNCTIONS.contains(&name.as_str()) {
        return None;
    }
    match args.args.first()? {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(input)) => input_name(input),
        _ => None,
    }
}

/// The relation that an entry of FROM is, or is the windows of.
pub(super) fn read_in_from(name: &sp::ObjectName, args: Option<&sp::TableFunctionArgs>) -> Option<sp::ObjectName> {
    match args {
        None => Some(name.clone()),
        Some(args) => window_input(name, args),
    }
}

/// The relation that a function in FROM reads, if its input has a name.
pub fn read_by(function: &sp::ObjectName, args: &sp::TableFunctionArgs) -> Option<sp::ObjectName> {
    window_input(function, args).or_else(|| super::gap_fill::input(function, args))
}

/// The name of a window function's input, unless it is a query.
pub fn input_name(input: &sp::Expr) -> Option<sp::ObjectName> {
    match input {
        sp::Expr::Identifier(ident) => Some(sp::ObjectName::from(vec![ident.clone()])),
        sp::Expr::CompoundIdentifier(idents) => Some(sp::ObjectName::from(idents.clone())),
        _ => None,
    }
}

fn merges_columns(operator: &sp::JoinOperator) -> bool {
    use sp::JoinOperator as J;
    match operator {
        J::Join(on) | J::Inner(on) | J::Left(on) | J::LeftOuter(on) | J::Right(on) | J::RightOuter(on) | J::FullOuter(on) => {
            matches!(on, sp::JoinConstraint::Using(_) | sp::JoinConstraint::Natural)
        }
        // The result of these has the columns of one side only.
        J::Semi(_) | J::LeftSemi(_) | J::RightSemi(_) | J::Anti(_) | J::LeftAnti(_) | J::RightAnti(_) => true,
        _ => false,
    }
}

fn qualified_wildcard(entry: &FromEntry) -> Option<sp::SelectItem> {
    let qualifier = entry.qualifier.clone()?;
    let mut options = sp::WildcardAdditionalOptions::default();
    exclude(&mut options, &entry.hidden);
    let kind = sp::SelectItemQualifiedWildcardKind::ObjectName(sp::ObjectName::from(vec![qualifier]));
    Some(sp::SelectItem::QualifiedWildcard(kind, options))
}

/// Add to what a wildcard leaves out.
fn exclude(options: &mut sp::WildcardAdditionalOptions, hidden: &[Hidden]) {
    let mut names = match options.opt_exclude.take() {
        None => Vec::new(),
        Some(sp::ExcludeSelectItem::Single(name)) => vec![name],
        Some(sp::ExcludeSelectItem::Multiple(names)) => names,
    };
    for hidden in hidden {
        let there = names.iter().any(|name| fold_object(name).is_some_and(|(_, name)| name == hidden.name()));
        if !there {
            names.push(sp::ObjectName::from(vec![sp::Ident::new(hidden.name())]));
        }
    }
    options.opt_exclude = (!names.is_empty()).then_some(sp::ExcludeSelectItem::Multiple(names));
}
