//! Functions that give rows, and aggregates that are made of `array_agg`.
//!
//! | written | planned |
//! | --- | --- |
//! | `SELECT jsonb_array_elements(j)` | `SELECT unnest(jsonb_array_items(j))` |
//! | `SELECT generate_series(1, 3)`, `SELECT unnest(generate_series(1, 3))` | `SELECT unnest(generate_series(1, 3))` |
//! | `FROM jsonb_each(j) AS e` | `FROM UNNEST(json_keys(j), jsonb_values(j)) AS e(key, value)` |
//! | `FROM jsonb_to_recordset(j) AS r(a int, b text)` | `FROM UNNEST(json_column_texts(j, 'a')::int[], json_column_texts(j, 'b')) AS r(a, b)` |
//! | `FROM unnest(a) WITH ORDINALITY` | `FROM UNNEST(a, generate_series(1, array_upper(a, 1)))` |
//! | `SELECT e -> 'a' FROM jsonb_array_elements(j) AS e` | `SELECT e.value -> 'a' …` |
//! | `json_agg(x ORDER BY y)` | `json_from_list(array_agg(x ORDER BY y))` |
//! | `json_object_agg(k, v)` | `json_from_pairs(array_agg(json_pair(k, v)))` |
//! | `json_agg_strict(x)`, `json_object_agg_strict(k, v)` | `json_from_present(…)`, `json_pair_if_present(k, v)`: without NULLs |
//! | `to_json(t)`, with `t` in FROM | `to_json(whole_row(t.*))` |

use std::ops::ControlFlow;

use sqlparser::ast as sp;
use sqlparser::ast::{VisitMut, VisitorMut};

use super::{call, function, normal, simple_name, take};
use crate::sql::plan::documents::WHOLE_ROW;

/// A function of rows: the functions of lists that its columns are taken from, and the names of these, where they have names.
pub(super) struct Rows {
    name: &'static str,
    pub lists: &'static [&'static str],
    pub columns: &'static [&'static str],
}

const ROWS: [Rows; 15] = [
    Rows { name: "json_array_elements", lists: &["json_array_items"], columns: &["value"] },
    Rows { name: "jsonb_array_elements", lists: &["jsonb_array_items"], columns: &["value"] },
    Rows { name: "json_array_elements_text", lists: &["json_array_texts"], columns: &["value"] },
    Rows { name: "jsonb_array_elements_text", lists: &["json_array_texts"], columns: &["value"] },
    Rows { name: "json_object_keys", lists: &["json_keys"], columns: &[] },
    Rows { name: "jsonb_object_keys", lists: &["jsonb_keys"], columns: &[] },
    Rows { name: "json_each", lists: &["json_keys", "json_values"], columns: &["key", "value"] },
    Rows { name: "jsonb_each", lists: &["jsonb_keys", "jsonb_values"], columns: &["key", "value"] },
    Rows { name: "json_each_text", lists: &["json_keys", "json_value_texts"], columns: &["key", "value"] },
    Rows { name: "jsonb_each_text", lists: &["jsonb_keys", "jsonb_value_texts"], columns: &["key", "value"] },
    Rows { name: "regexp_matches", lists: &["regexp_match_list"], columns: &["regexp_matches"] },
    Rows { name: "regexp_split_to_table", lists: &["regexp_split_to_array"], columns: &[] },
    Rows { name: "pg_listening_channels", lists: &["listened_channels"], columns: &[] },
    Rows {
        name: "pg_get_keywords",
        lists: &["keyword_words", "keyword_codes", "keyword_labels", "keyword_categories", "keyword_uses"],
        columns: &["word", "catcode", "barelabel", "catdesc", "baredesc"],
    },
    Rows { name: "string_to_table", lists: &["string_to_array"], columns: &[] },
];

pub(super) fn rows(name: &str) -> Option<&'static Rows> {
    ROWS.iter().find(|rows| rows.name == name)
}

/// Is it the name of a function that gives rows?
pub fn gives_rows(name: &str) -> bool {
    rows(name).is_some()
}

/// The list of a call that gives its elements as rows, where they would be taken apart once more: `unnest(generate_series(1, 3))`.
pub(super) fn list_of_series(expr: &mut sp::Expr) {
    if let Some(series) = only_argument(expr, "unnest").filter(|argument| is_call(argument, SERIES)) {
        *expr = take(series);
    }
}

const SERIES: &str = "generate_series";

/// What the bounds of a series are where nothing says it: numbers, or times beside a step that is a length of time.
fn bounds(series: &mut sp::Function) {
    let sp::FunctionArguments::List(list) = &mut series.args else { return };
    let mut bounds: Vec<&mut sp::Expr> = list
        .args
        .iter_mut()
        .filter_map(|argument| match argument {
            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(bound)) => Some(bound),
            _ => None,
        })
        .collect();
    bounds.iter_mut().for_each(|bound| **bound = super::from::bigint_parameter(take(bound)));
    let [from, to, step] = bounds.as_mut_slice() else { return };
    if super::string(step).is_none_or(|step| step.trim().parse::<f64>().is_ok()) {
        return;
    }
    let said = [&**from, &**to].into_iter().find_map(|bound| match bound {
        sp::Expr::Cast { data_type, .. } => Some(data_type.clone()),
        _ => None,
    });
    let moment = said.unwrap_or(sp::DataType::Timestamp(None, sp::TimezoneInfo::None));
    for bound in [from, to].into_iter().filter(|bound| super::string(bound).is_some()) {
        **bound = super::forms::cast(take(bound), moment.clone());
    }
    **step = super::forms::cast(take(step), sp::DataType::Interval { fields: None, precision: None });
}

fn is_call(expr: &sp::Expr, name: &str) -> bool {
    matches!(expr, sp::Expr::Function(function) if simple_name(&function.name).is_some_and(|of| of == name))
}

fn only_argument<'e>(expr: &'e mut sp::Expr, name: &str) -> Option<&'e mut sp::Expr> {
    if !is_call(expr, name) {
        return None;
    }
    let sp::Expr::Function(function) = expr else { return None };
    match &mut function.args {
        sp::FunctionArguments::List(list) => match list.args.as_mut_slice() {
            [sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(only))] => Some(only),
            _ => None,
        },
        _ => None,
    }
}

/// A call in a select list, or of an aggregate.
pub(super) fn expression(name: &str, of: &mut sp::Function) -> Option<sp::Expr> {
    if let Some(Rows { lists: [list], .. }) = rows(name) {
        of.name = sp::ObjectName::from(vec![sp::Ident::new(*list)]);
        return Some(call("unnest", vec![sp::Expr::Function(of.clone())]));
    }
    if name == SERIES {
        bounds(of);
        return Some(call("unnest", vec![sp::Expr::Function(of.clone())]));
    }
    if name == "unnest" {
        let mut whole = sp::Expr::Function(of.clone());
        let rows = only_argument(&mut whole, name)?;
        return only_argument(&mut rows.clone(), name).is_some_and(|list| is_call(list, SERIES)).then(|| take(rows));
    }
    let (outer, is_pairs) = match name {
        "json_agg" => ("json_from_list", false),
        "jsonb_agg" => ("jsonb_from_list", false),
        "json_object_agg" => ("json_from_pairs", true),
        "jsonb_object_agg" => ("jsonb_from_pairs", true),
        "json_agg_strict" => ("json_from_present", false),
        "jsonb_agg_strict" => ("jsonb_from_present", false),
        "json_object_agg_strict" => ("json_from_pairs", true),
        "jsonb_object_agg_strict" => ("jsonb_from_pairs", true),
        _ => return None,
    };
    of.name = sp::ObjectName::from(vec![sp::Ident::new("array_agg")]);
    if is_pairs {
        let sp::FunctionArguments::List(list) = &mut of.args else { return None };
        let is_strict = name.ends_with("_strict");
        let pair = function(if is_strict { "json_pair_if_present" } else { "json_pair" }, Vec::new());
        let mut pair = sp::Function { args: sp::FunctionArguments::List(list.clone()), ..pair };
        if let sp::FunctionArguments::List(arguments) = &mut pair.args {
            arguments.clauses.clear();
            arguments.duplicate_treatment = None;
        }
        list.args = vec![sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Function(pair)))];
    }
    Some(call(outer, vec![sp::Expr::Function(of.clone())]))
}

/// Aggregates that make one document of the values of a group, NULL among them or not.
pub(super) fn collects(name: &str) -> bool {
    let name = name.strip_suffix("_strict").unwrap_or(name);
    ["json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg"].contains(&name)
}

/// Functions that take whole rows.
const OF_ROWS: [&str; 11] = [
    "to_json",
    "to_jsonb",
    "row_to_json",
    "json_build_object",
    "jsonb_build_object",
    "json_build_array",
    "jsonb_build_array",
    "json_pair",
    "json_pair_if_present",
    "json_object_of_present",
    "json_array_of_present",
];

/// Names of FROM that stand for rows where a tree has them: of relations, and of lists that are taken apart.
pub(super) fn name_rows(from: &[sp::TableWithJoins], tree: &mut impl VisitMut) {
    let mut names = Names::default();
    for from in from {
        std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)).for_each(|factor| names.add(factor));
    }
    if !names.relations.is_empty() || !names.lists.is_empty() {
        let _ = tree.visit(&mut names);
    }
}

#[derive(Default)]
struct Names {
    relations: Vec<sp::Ident>,
    /// With the name of the one column.
    lists: Vec<(sp::Ident, sp::Ident)>,
}

impl Names {
    fn add(&mut self, factor: &sp::TableFactor) {
        match factor {
            sp::TableFactor::Table { name, alias, args: None, .. } => {
                let last = name.0.last().and_then(|part| part.as_ident());
                self.relations.extend(alias.as_ref().map(|alias| &alias.name).or(last).cloned());
            }
            sp::TableFactor::Derived { alias: Some(alias), .. } => self.relations.push(alias.name.clone()),
            sp::TableFactor::UNNEST { alias: Some(alias), .. } => {
                if let [column] = alias.columns.as_slice()
                    && normal(&column.name) != normal(&alias.name)
                {
                    self.lists.push((alias.name.clone(), column.name.clone()));
                }
            }
            _ => {}
        }
    }
}

impl VisitorMut for Names {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut sp::Expr) -> ControlFlow<()> {
        let same = |a: &sp::Ident, b: &sp::Ident| normal(a) == normal(b);
        match expr {
            sp::Expr::Identifier(name) => {
                if let Some((_, column)) = self.lists.iter().find(|(list, _)| same(list, name)) {
                    *expr = sp::Expr::CompoundIdentifier(vec![name.clone(), column.clone()]);
                }
            }
            sp::Expr::Function(function) => {
                let name = simple_name(&function.name).unwrap_or_default();
                // The one of `json_agg`; others collect what they are given.
                let of_json = |f: &&mut sp::Function| simple_name(&f.name).is_some_and(|name| name == "array_agg");
                match (name.as_str(), &mut function.args) {
                    (
                        "json_from_list" | "jsonb_from_list" | "json_from_present" | "jsonb_from_present",
                        sp::FunctionArguments::List(list),
                    ) => {
                        let inner = list.args.first_mut().and_then(|argument| match argument {
                            sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Function(inner))) => Some(inner),
                            _ => None,
                        });
                        if let Some(inner) = inner.filter(of_json) {
                            self.rows_of(inner);
                        }
                    }
                    (name, _) if OF_ROWS.contains(&name) => self.rows_of(function),
                    _ => {}
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Names {
    /// Its arguments that are names of relations become their rows.
    fn rows_of(&self, function: &mut sp::Function) {
        let sp::FunctionArguments::List(list) = &mut function.args else { return };
        for argument in &mut list.args {
            let sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(expr)) = argument else { continue };
            let sp::Expr::Identifier(name) = expr else { continue };
            let Some(relation) = self.relations.iter().find(|relation| normal(relation) == normal(name)) else { continue };
            let relation = sp::ObjectName::from(vec![relation.clone()]);
            let mut row = super::function(WHOLE_ROW, Vec::new());
            if let sp::FunctionArguments::List(arguments) = &mut row.args {
                arguments.args = vec![sp::FunctionArg::Unnamed(sp::FunctionArgExpr::QualifiedWildcard(relation))];
            }
            *expr = sp::Expr::Function(row);
        }
    }
}

const OF_RECORDS: [&str; 4] = ["json_to_recordset", "jsonb_to_recordset", "json_to_record", "jsonb_to_record"];

/// Is it the name of a function whose columns its alias defines?
pub fn gives_records(name: &str) -> bool {
    OF_RECORDS.contains(&name)
}

/// The lists that are the columns of a function of records, whose alias says what these are: `AS r(a int, b text)`.
pub(super) fn columns_of_records(name: &str, document: &sp::Expr, alias: &mut sp::TableAlias) -> Option<Vec<sp::Expr>> {
    if !gives_records(name) {
        return None;
    }
    let of = if name.ends_with("set") { "column" } else { "field" };
    if alias.columns.is_empty() || alias.columns.iter().any(|column| column.data_type.is_none()) {
        return None;
    }
    let read = if name.starts_with("jsonb") { "jsonb_from_text" } else { "json_from_text" };
    let document = call(read, vec![document.clone()]);
    // What is NULL has a record without values, and no set of records.
    let document = match of {
        "field" => call("coalesce", vec![document, super::literal("{}")]),
        _ => document,
    };
    let list = |column: &mut sp::TableAliasColumnDef| {
        let data_type = column.data_type.take()?;
        let kind = match &data_type {
            sp::DataType::JSON => "json_{of}_documents",
            sp::DataType::JSONB => "jsonb_{of}_documents",
            _ => "json_{of}_texts",
        };
        let list = call(&kind.replace("{of}", of), vec![document.clone(), super::literal(&normal(&column.name))]);
        let is_as_it_is = matches!(data_type, sp::DataType::Text | sp::DataType::JSON | sp::DataType::JSONB);
        let lists = sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(Box::new(data_type), None));
        Some(if is_as_it_is { list } else { super::forms::cast(list, lists) })
    };
    alias.columns.iter_mut().map(list).collect()
}

/// The lists beside each other that are the columns of a function in FROM.
pub(super) fn lists(rows: &Rows, arguments: Vec<sp::Expr>) -> Vec<sp::Expr> {
    rows.lists.iter().map(|list| call(list, arguments.clone())).collect()
}

/// One more list: the numbers of the elements of the first.
pub(super) fn number(array_exprs: &mut Vec<sp::Expr>, alias: &mut sp::TableAlias, named: usize) {
    let Some(first) = array_exprs.first_mut() else { return };
    let list = take(first);
    *first = list.clone();
    let one = || super::forms::number("1");
    let first = super::forms::cast(one(), sp::DataType::BigInt(None));
    array_exprs.push(call(SERIES, vec![first, call("array_upper", vec![list, one()])]));
    if alias.columns.len() == named {
        alias.columns.push(sp::TableAliasColumnDef { name: sp::Ident::new("ordinality"), data_type: None });
    }
}
