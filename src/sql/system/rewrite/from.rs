//! FROM: functions as relations, `UNNEST` of rows of several columns, and the hidden column `tableoid`.

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::{call, literal, normal, sets, simple_name, take, unqualify};

pub(super) fn table_factor(factor: &mut sp::TableFactor) {
    as_table(factor);
    if let sp::TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = factor {
        array_exprs.iter_mut().for_each(sets::list_of_series);
        columns_of_rows(alias.as_ref(), array_exprs, *with_ordinality);
        name_columns("unnest", alias, array_exprs, &[], with_ordinality);
    }
    let sp::TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } = factor else { return };
    unqualify(name);
    let Some(function) = simple_name(name) else { return };
    let arguments = unnamed(&args.args);
    if let (Some(alias), Some([document])) = (alias.as_mut(), arguments.as_deref())
        && let Some(lists) = sets::columns_of_records(&function, document, alias)
    {
        let mut lists = lists;
        if std::mem::take(with_ordinality) {
            let named = lists.len();
            sets::number(&mut lists, alias, named);
        }
        *factor = unnest(lists, Some(alias.clone()));
        return;
    }
    if let (Some(rows), Some(arguments)) = (sets::rows(&function), &arguments) {
        let mut array_exprs = sets::lists(rows, arguments.clone());
        name_columns(&function, alias, &mut array_exprs, rows.columns, with_ordinality);
        *factor = unnest(array_exprs, alias.take());
        return;
    }
    match (function.as_str(), arguments) {
        ("unnest", Some(mut array_exprs)) => {
            array_exprs.iter_mut().for_each(sets::list_of_series);
            columns_of_rows(alias.as_ref(), &mut array_exprs, *with_ordinality);
            name_columns("unnest", alias, &mut array_exprs, &[], with_ordinality);
            *factor = unnest(array_exprs, alias.take());
        }
        _ if *with_ordinality => {}
        // With constants DataFusion's own table function makes the rows without an array of them.
        ("generate_series" | "range", Some(arguments)) => {
            let mut alias = alias.take().unwrap_or_else(|| plain_alias(&function));
            name_column(&mut alias);
            match arguments.iter().all(is_constant) {
                true => set_alias(factor, alias),
                false => {
                    let arguments = arguments.into_iter().map(bigint_parameter).collect();
                    *factor = unnest(vec![call(&function, arguments)], Some(alias));
                }
            }
        }
        ("generate_subscripts", Some(arguments)) => {
            let Ok([array, dimension]) = <[sp::Expr; 2]>::try_from(arguments) else { return };
            let mut alias = alias.take().unwrap_or_else(|| plain_alias(&function));
            name_column(&mut alias);
            *factor = unnest(vec![subscripts(array, dimension)], Some(alias));
        }
        (name, Some(arguments)) if name == "string_to_array" || super::super::functions::is_ours(name) => {
            let alias = alias.take().unwrap_or_else(|| plain_alias(&function));
            let column = alias.columns.first().map_or_else(|| alias.name.clone(), |c| c.name.clone());
            let mut query = select_from(call(&function, arguments), Vec::new());
            if let sp::SetExpr::Select(select) = query.body.as_mut()
                && let Some(item @ sp::SelectItem::UnnamedExpr(_)) = select.projection.first_mut()
                && let sp::SelectItem::UnnamedExpr(expr) = item
            {
                let expr = take(expr);
                *item = sp::SelectItem::ExprWithAlias { expr, alias: column };
            }
            let alias = Some(sp::TableAlias { columns: Vec::new(), ..alias });
            *factor = sp::TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None };
        }
        _ => {}
    }
}

/// `UNNEST(x) AS t(a, b)`: x has rows of several columns, and is unnested once for each of them.
fn columns_of_rows(alias: Option<&sp::TableAlias>, array_exprs: &mut Vec<sp::Expr>, with_ordinality: bool) {
    let names = alias.map_or(0, |alias| alias.columns.len()).saturating_sub(usize::from(with_ordinality));
    if let [rows] = array_exprs.as_slice()
        && names > 1
    {
        let column = |at: usize| call("unnest_column", vec![rows.clone(), literal(&at.to_string())]);
        *array_exprs = (1..=names).map(column).collect();
    }
}

/// A function in FROM sees what stands before it whether LATERAL is said or not.
fn as_table(factor: &mut sp::TableFactor) {
    let sp::TableFactor::Function { name, args, with_ordinality, alias, .. } = factor else { return };
    let args = sp::TableFunctionArgs { args: std::mem::take(args), settings: None };
    *factor = sp::TableFactor::Table {
        name: name.clone(),
        alias: alias.take(),
        args: Some(args),
        with_hints: Vec::new(),
        version: None,
        with_ordinality: *with_ordinality,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
}

/// Columns of lists: called as the function says, or one like the function's alias; then the elements' numbers.
fn name_columns(
    function: &str,
    alias: &mut Option<sp::TableAlias>,
    array_exprs: &mut Vec<sp::Expr>,
    names: &[&str],
    with_ordinality: &mut bool,
) {
    let lists = array_exprs.len();
    if alias.is_none() && names.is_empty() && !*with_ordinality {
        return;
    }
    let alias = alias.get_or_insert_with(|| plain_alias(function));
    if alias.columns.is_empty() && !names.is_empty() {
        let column = |name: &&str| sp::TableAliasColumnDef { name: sp::Ident::new(*name), data_type: None };
        alias.columns = names.iter().map(column).collect();
    } else if lists == 1 {
        name_column(alias);
    }
    if std::mem::take(with_ordinality) {
        sets::number(array_exprs, alias, lists);
    }
}

/// The array of an array's subscripts.
pub(super) fn subscripts(array: sp::Expr, dimension: sp::Expr) -> sp::Expr {
    let one = sp::Expr::Value(sp::Value::Number("1".to_string(), false).with_empty_span());
    call("generate_series", vec![one, call("array_upper", vec![array, dimension])])
}

fn set_alias(factor: &mut sp::TableFactor, new: sp::TableAlias) {
    if let sp::TableFactor::Table { alias, .. } = factor {
        *alias = Some(new);
    }
}

fn plain_alias(name: &str) -> sp::TableAlias {
    sp::TableAlias { explicit: true, name: sp::Ident::new(name), columns: Vec::new(), at: None }
}

/// The one column of a function in FROM is called like the function's alias.
fn name_column(alias: &mut sp::TableAlias) {
    if alias.columns.is_empty() {
        alias.columns.push(sp::TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

fn unnest(array_exprs: Vec<sp::Expr>, alias: Option<sp::TableAlias>) -> sp::TableFactor {
    sp::TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_offset_alias: None, with_ordinality: false }
}

fn unnamed(arguments: &[sp::FunctionArg]) -> Option<Vec<sp::Expr>> {
    let expr = |a: &sp::FunctionArg| match a {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    arguments.iter().map(expr).collect()
}

/// A parameter of `generate_series` whose type nothing says is a number.
pub(super) fn bigint_parameter(expr: sp::Expr) -> sp::Expr {
    match &expr {
        sp::Expr::Value(value) if matches!(value.value, sp::Value::Placeholder(_)) => {
            let (kind, data_type) = (sp::CastKind::DoubleColon, sp::DataType::BigInt(None));
            sp::Expr::Cast { kind, array: false, expr: Box::new(expr), data_type, format: None }
        }
        _ => expr,
    }
}

fn is_constant(expr: &sp::Expr) -> bool {
    match expr {
        sp::Expr::Value(value) => !matches!(value.value, sp::Value::Placeholder(_)),
        sp::Expr::Interval(_) | sp::Expr::TypedString(_) => true,
        sp::Expr::UnaryOp { expr, .. } | sp::Expr::Cast { expr, .. } | sp::Expr::Nested(expr) => is_constant(expr),
        _ => false,
    }
}

/// `SELECT expr FROM …`.
pub fn select_from(expr: sp::Expr, from: Vec<sp::TableWithJoins>) -> sp::Query {
    select_item(sp::SelectItem::UnnamedExpr(expr), from)
}

/// `SELECT item FROM …`.
pub(super) fn select_item(item: sp::SelectItem, from: Vec<sp::TableWithJoins>) -> sp::Query {
    let select = sp::Select {
        select_token: sp::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![item],
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: sp::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: sp::SelectFlavor::Standard,
    };
    sp::Query {
        with: None,
        body: Box::new(sp::SetExpr::Select(Box::new(select))),
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

/// `alias.tableoid` is the OID of the relation that the alias stands for.
pub(super) fn table_oids(select: &mut sp::Select) {
    let relations: Vec<(String, String)> = select.from.iter().flat_map(named_relations).collect();
    if relations.is_empty() {
        return;
    }
    let _ = select.visit(&mut TableOids(relations));
}

/// Aliases in FROM and the names of the relations behind them.
fn named_relations(from: &sp::TableWithJoins) -> Vec<(String, String)> {
    let factors = std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation));
    let named = factors.filter_map(|factor| match factor {
        sp::TableFactor::Table { name, alias, args: None, .. } => {
            let last = name.0.last()?.as_ident()?;
            let alias = alias.as_ref().map_or(last, |a| &a.name);
            Some((normal(alias), name.to_string()))
        }
        _ => None,
    });
    named.collect()
}

struct TableOids(Vec<(String, String)>);

impl VisitorMut for TableOids {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        let is_tableoid = |ident: &sp::Ident| ident.value.eq_ignore_ascii_case("tableoid");
        let relation = match expr {
            sp::Expr::CompoundIdentifier(parts) => match &parts[..] {
                [alias, column] if is_tableoid(column) => self.0.iter().find(|(name, _)| *name == normal(alias)),
                _ => None,
            },
            sp::Expr::Identifier(column) if is_tableoid(column) => self.0.first().filter(|_| self.0.len() == 1),
            _ => None,
        };
        if let Some((_, name)) = relation {
            let oid = call("regclassin", vec![literal(name)]);
            *expr = sp::Expr::Cast {
                kind: sp::CastKind::DoubleColon,
                expr: Box::new(oid),
                data_type: sp::DataType::IntegerUnsigned(None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}
