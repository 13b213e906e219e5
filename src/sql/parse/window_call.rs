//! One call of a window function: its arguments, in any spelling, in the documented order and under the documented names.

use sqlparser::ast::{self as sp, Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator, Spanned, TableFactor};

use super::interval::interval;
use super::parse_query;
use crate::error::{Error, Result};
use crate::sql::ast::WINDOW_FUNCTIONS;
use crate::sql::ast::{PARTITION_MARK, TABLE_MARK};

/// How ksqlDB's clause and ALLOWED LATENESS after an alias come out of the rewrite, beside the functions' own names.
const LATENESS_HINT: &str = "allowed";

/// The arguments of a window function, by name.
#[derive(Default)]
struct Arguments {
    input: Option<Expr>,
    /// `ts`, `size`, `slide`, `gap`, `offset`, `lateness`, `partition_by`.
    named: Vec<(&'static str, Expr)>,
}

/// What the argument may be called, and our name of it. DATA and its kin are the input.
const NAMES: [(&str, &str); 19] = [
    ("data", "input"),
    ("input", "input"),
    ("timecol", "ts"),
    ("time", "ts"),
    ("ts", "ts"),
    ("size", "size"),
    ("max_size", "size"),
    ("slide", "slide"),
    ("step", "slide"),
    ("gap", "gap"),
    ("session_gap", "gap"),
    ("offset", "offset"),
    ("timezone", "zone"),
    ("time_zone", "zone"),
    ("zone", "zone"),
    ("lateness", "lateness"),
    ("grace", "lateness"),
    ("partition_by", "partition_by"),
    ("partitionby", "partition_by"),
];

/// The order of the named arguments.
const ORDER: [&str; 8] = ["ts", "size", "slide", "gap", "offset", "zone", "lateness", "partition_by"];

/// An identifier of ours.
pub(super) fn identifier(name: &str) -> sp::Ident {
    sp::Ident::new(name)
}

/// Is the function called this, without a schema and not quoted?
pub(super) fn call_name(name: &sp::ObjectName, word: &str) -> bool {
    let [part] = name.0.as_slice() else { return false };
    part.as_ident().is_some_and(|name| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(word))
}

/// The arguments of a plain call.
pub(super) fn function_args(function: &sp::Function) -> Option<&[FunctionArg]> {
    match &function.args {
        sp::FunctionArguments::List(list) => Some(&list.args),
        _ => None,
    }
}

/// The text of a string literal.
pub(super) fn text(expr: &Expr) -> Option<String> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        sp::Value::SingleQuotedString(text) | sp::Value::EscapedStringLiteral(text) => Some(text.clone()),
        _ => None,
    }
}

/// Brings a window function in FROM to its one form. Leaves all else alone.
pub(super) fn normalize(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::Table { name, args: Some(args), with_hints, .. } = factor else { return Ok(()) };
    let Some(function) = WINDOW_FUNCTIONS.into_iter().find(|function| call_name(name, function)) else { return Ok(()) };
    let position = position(name);
    let mut arguments = read(function, &args.args).map_err(|error| at(error, position))?;
    if let [hint] = with_hints.as_slice()
        && let Some((LATENESS_HINT, extra)) = clause(hint)
    {
        arguments.named.extend(named_intervals(extra)?);
        with_hints.clear();
    }
    args.args = write(function, arguments).map_err(|error| at(error, position))?;
    rename(name, function);
    Ok(())
}

/// Give a window function, in its one form, a lateness. Not one over another window: that waits already. Says whether it did.
pub(super) fn add_lateness(factor: &mut TableFactor, lateness: &Expr) -> Result<bool> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return Ok(false) };
    if !WINDOW_FUNCTIONS.into_iter().any(|function| call_name(name, function)) || reads_window(&args.args) {
        return Ok(false);
    }
    let is_lateness = |arg: &FunctionArg| matches!(arg, FunctionArg::Named { name, .. } if name.value == "lateness");
    if args.args.iter().any(is_lateness) {
        let error = Error::syntax("a window has one allowed lateness, and WITH DELAY is another word for it");
        return Err(at(error.with_hint("add both up"), position(name)));
    }
    let (arg, operator) = (FunctionArgExpr::Expr(lateness.clone()), FunctionArgOperator::RightArrow);
    args.args.push(FunctionArg::Named { name: identifier("lateness"), arg, operator });
    Ok(true)
}

/// Whether there is a window function in the input of one.
fn reads_window(args: &[FunctionArg]) -> bool {
    struct Windows(bool);
    impl sp::Visitor for Windows {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> std::ops::ControlFlow<()> {
            if let TableFactor::Table { name, args: Some(_), .. } = factor {
                self.0 |= WINDOW_FUNCTIONS.into_iter().any(|function| call_name(name, function));
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut windows = Windows(false);
    for arg in args {
        let _ = sp::Visit::visit(arg, &mut windows);
    }
    windows.0
}

/// Give an object another name at the same place: errors of planning speak of it.
fn rename(name: &mut sp::ObjectName, function: &str) {
    let ident = sp::Ident { span: name.span(), ..identifier(function) };
    *name = sp::ObjectName::from(vec![ident]);
}

/// Does ksqlDB's WINDOW clause stand at this relation?
pub(super) fn has_clause(factor: &TableFactor) -> bool {
    let TableFactor::Table { with_hints, .. } = factor else { return false };
    with_hints.iter().any(|hint| clause(hint).is_some())
}

/// What a query around a window without arguments of its own says about it.
#[derive(Default)]
pub(super) struct Around {
    /// What else it groups by; of a session the columns that divide it.
    pub keys: Vec<Expr>,
    /// Of these, what is computed: the columns below the session that are to hold it.
    pub computed: Vec<(sp::Ident, Expr)>,
    /// Its WHERE, which is to hold before rows make sessions.
    pub selection: Option<Expr>,
}

/// `s WITH (tumble(size => …))` becomes `tumble(s, size => …)`.
pub(super) fn apply_clause(factor: &mut TableFactor, around: Around) -> Result<()> {
    let TableFactor::Table { with_hints, name, version, .. } = factor else { return Ok(()) };
    let position = position(name);
    if version.is_some() {
        let error = Error::unsupported("a WINDOW clause after AS OF is not supported");
        return Err(at(error.with_hint("write FROM (SELECT * FROM s AS OF COMMIT n) WINDOW …"), position));
    }
    let hints = std::mem::take(with_hints);
    let [hint] = hints.as_slice() else { return Err(at(Error::syntax("a relation has one WINDOW clause"), position)) };
    let Some((function, extra)) = clause(hint) else { return Ok(()) };
    if function == LATENESS_HINT {
        let error = Error::syntax("ALLOWED LATENESS belongs to a time window");
        return Err(at(
            error.with_hint("write FROM TUMBLE(s, ts, INTERVAL '5 minutes') ALLOWED LATENESS INTERVAL '1 minute'"),
            position,
        ));
    }
    let input = around.input(factor)?;
    let mut named = named_intervals(extra)?;
    named.extend(around.partition(function));
    put_call(factor, function, Arguments { input: Some(input), named }).map_err(|error| at(error, position))
}

/// Is the window of the clause a session?
pub(super) fn is_session_clause(factor: &TableFactor) -> bool {
    let TableFactor::Table { with_hints, .. } = factor else { return false };
    with_hints.iter().any(|hint| clause(hint).is_some_and(|(function, _)| function == "session"))
}

impl Around {
    /// The relation of FROM, or the query of its rows that WHERE lets through, with what divides them.
    fn input(&self, factor: &mut TableFactor) -> Result<Expr> {
        if self.selection.is_none() && self.computed.is_empty() {
            return take_relation(factor);
        }
        let relation = match &*factor {
            TableFactor::Table { name, alias, .. } => table_of(name.clone(), alias.clone()),
            other => other.clone(),
        };
        take_relation(factor)?;
        let mut query = parse_query("SELECT * FROM window")?;
        if let sp::SetExpr::Select(select) = query.body.as_mut() {
            select.from = vec![sp::TableWithJoins { relation, joins: Vec::new() }];
            select.selection.clone_from(&self.selection);
            let computed = self.computed.iter().cloned();
            select.projection.extend(computed.map(|(alias, expr)| sp::SelectItem::ExprWithAlias { expr, alias }));
        }
        Ok(Expr::Subquery(query))
    }

    /// A session is of rows that agree in what else the query groups by.
    fn partition(&self, function: &str) -> Option<(&'static str, Expr)> {
        if function != "session" || self.keys.is_empty() {
            return None;
        }
        let column = |key: &Expr| match key {
            Expr::CompoundIdentifier(names) if !names.is_empty() => Expr::Identifier(names[names.len() - 1].clone()),
            other => other.clone(),
        };
        Some(("partition_by", Expr::Tuple(self.keys.iter().map(column).collect())))
    }
}

/// `GROUP BY TUMBLE(ts, size)`: the relation in FROM becomes the input.
pub(super) fn apply_group(
    factor: &mut TableFactor,
    function: &'static str,
    args: Vec<FunctionArg>,
    around: Around,
) -> Result<()> {
    let input = around.input(factor)?;
    let all = std::iter::once(FunctionArg::Unnamed(FunctionArgExpr::Expr(input))).chain(args).collect::<Vec<_>>();
    let mut arguments = read(function, &all)?;
    arguments.named.extend(around.partition(function));
    put_call(factor, function, arguments)
}

/// A hint that the rewrite made of a clause: the function and its arguments.
fn clause(hint: &Expr) -> Option<(&'static str, &[FunctionArg])> {
    let Expr::Function(function) = hint else { return None };
    let names = WINDOW_FUNCTIONS.into_iter().chain([LATENESS_HINT]);
    let name = names.into_iter().find(|name| call_name(&function.name, name))?;
    Some((name, function_args(function)?))
}

/// A relation of FROM as an expression. Its alias stays where it is; a relation without one keeps its name as alias, so that
/// `s.column` still means it.
fn take_relation(factor: &mut TableFactor) -> Result<Expr> {
    match factor {
        TableFactor::Table { name, args: None, alias, .. } => {
            let parts: Vec<sp::Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
            if alias.is_none() {
                *alias = parts.last().map(|last| table_alias(last.clone()));
            }
            Ok(relation(parts))
        }
        TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
            let (subquery, alias) = (subquery.clone(), alias.take());
            *factor = table(identifier("window"), alias);
            Ok(Expr::Subquery(subquery))
        }
        _ => Err(Error::unsupported("a time window over this kind of relation is not supported")
            .with_hint("put it into a subquery: TUMBLE((SELECT * FROM …), ts, INTERVAL '5 minutes')")),
    }
}

fn relation(mut parts: Vec<sp::Ident>) -> Expr {
    match parts.len() {
        1 => Expr::Identifier(parts.remove(0)),
        _ => Expr::CompoundIdentifier(parts),
    }
}

fn table_alias(name: sp::Ident) -> sp::TableAlias {
    sp::TableAlias { explicit: true, name, columns: Vec::new(), at: None }
}

fn table(name: sp::Ident, alias: Option<sp::TableAlias>) -> TableFactor {
    table_of(sp::ObjectName::from(vec![name]), alias)
}

fn table_of(name: sp::ObjectName, alias: Option<sp::TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn put_call(factor: &mut TableFactor, function: &'static str, arguments: Arguments) -> Result<()> {
    let TableFactor::Table { name, args, .. } = factor else { return Ok(()) };
    *args = Some(sp::TableFunctionArgs { args: write(function, arguments)?, settings: None });
    rename(name, function);
    Ok(())
}

/// Positional and named arguments, by name.
fn read(function: &'static str, args: &[FunctionArg]) -> Result<Arguments> {
    let positions: &[&str] = match function {
        "tumble" => &["input", "ts", "size", "offset", "zone"],
        "hop" | "cumulate" => &["input", "ts", "slide", "size", "offset", "zone"],
        _ => &["input", "ts", "gap"],
    };
    // Arroyo's calls begin with a length: the time is the stream's.
    let timeless = matches!(args.get(1), Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) if is_length(first));
    let mut arguments = Arguments::default();
    let mut named = false;
    for (n, arg) in args.iter().enumerate() {
        let (name, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if !named => {
                match positions.get(n + usize::from(timeless && n > 0)) {
                    Some(name) if *name != "zone" || text(expr).is_some() => (*name, expr),
                    _ => return Err(usage(function, "too many arguments")),
                }
            }
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), operator: FunctionArgOperator::RightArrow } => {
                named = true;
                (argument_name(function, &name.value)?, expr)
            }
            _ => return Err(usage(function, "an argument that it can't take")),
        };
        arguments.put(function, name, expr)?;
    }
    Ok(arguments)
}

fn argument_name(function: &str, name: &str) -> Result<&'static str> {
    let found = NAMES.iter().find(|(theirs, _)| name.eq_ignore_ascii_case(theirs));
    found.map(|(_, ours)| *ours).ok_or_else(|| usage(function, &format!("no argument {}", name.to_uppercase())))
}

fn named_intervals(args: &[FunctionArg]) -> Result<Vec<(&'static str, Expr)>> {
    let mut out = Vec::new();
    for arg in args {
        if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } = arg {
            out.push((argument_name("window", &name.value)?, expr.clone()));
        }
    }
    Ok(out)
}

impl Arguments {
    fn get(&self, name: &str) -> Option<&Expr> {
        self.named.iter().find(|(n, _)| *n == name).map(|(_, expr)| expr)
    }

    fn put(&mut self, function: &str, name: &'static str, expr: &Expr) -> Result<()> {
        if name == "input" {
            return self.put_input(function, expr);
        }
        let expr = match name {
            "ts" => column(expr).ok_or_else(|| usage(function, "a time column that is none"))?,
            "partition_by" | "zone" => expr.clone(),
            _ => length(expr),
        };
        self.named.push((name, expr));
        Ok(())
    }

    /// `s`, `TABLE s`, `(SELECT …)`, each with `PARTITION BY (k, …)`.
    fn put_input(&mut self, function: &str, expr: &Expr) -> Result<()> {
        match expr {
            Expr::Prefixed { prefix, value } if prefix.value == PARTITION_MARK => {
                let Expr::Tuple(parts) = value.as_ref() else { return Ok(()) };
                let [input, columns @ ..] = parts.as_slice() else { return Ok(()) };
                self.named.push(("partition_by", Expr::Tuple(columns.to_vec())));
                self.put_input(function, input)
            }
            Expr::Prefixed { prefix, value } if prefix.value == TABLE_MARK => self.put_input(function, value),
            Expr::Nested(inner) => self.put_input(function, inner),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => {
                self.input = Some(expr.clone());
                Ok(())
            }
            _ => Err(usage(function, "an input that is neither a relation nor a subquery")),
        }
    }
}

/// `ts`, `DESCRIPTOR(ts)`.
fn column(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(expr.clone()),
        Expr::Function(function) if call_name(&function.name, "descriptor") => match function_args(function)? {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))))] => {
                Some(inner.clone())
            }
            _ => None,
        },
        _ => None,
    }
}

/// A length of time: `'5 minutes'` and `'5 minutes'::interval` as INTERVAL '5 minutes'.
fn length(expr: &Expr) -> Expr {
    match expr {
        Expr::Cast { expr: inner, data_type: sp::DataType::Interval { .. }, .. } => length(inner),
        Expr::Nested(inner) => length(inner),
        other => text(other).map_or_else(|| other.clone(), interval),
    }
}

/// Is it written as a length of time?
pub(super) fn is_length(expr: &Expr) -> bool {
    match length(expr) {
        Expr::Interval(interval) => {
            text(&interval.value).is_some_and(|text| approximate(&text).is_some() || interval.leading_field.is_some())
        }
        _ => false,
    }
}

/// The arguments in order, complete and without strangers.
fn write(function: &'static str, arguments: Arguments) -> Result<Vec<FunctionArg>> {
    let (needed, allowed): (&[&str], &[&str]) = match function {
        "tumble" => (&["size"], &["ts", "size", "offset", "zone", "lateness"]),
        "hop" | "cumulate" => (&["size", "slide"], &["ts", "size", "slide", "offset", "zone", "lateness"]),
        _ => (&["gap"], &["ts", "gap", "lateness", "partition_by"]),
    };
    let Some(input) = &arguments.input else { return Err(usage(function, "no input")) };
    if let Some(missing) = needed.iter().find(|name| arguments.get(name).is_none()) {
        return Err(usage(function, &format!("no {missing}")));
    }
    for (n, (name, _)) in arguments.named.iter().enumerate() {
        if !allowed.contains(name) {
            return Err(usage(function, &format!("no argument {}", name.to_uppercase())));
        }
        if arguments.named.iter().take(n).any(|(other, _)| other == name) {
            return Err(usage(function, &format!("{} twice", name.to_uppercase())));
        }
    }
    check_slide(function, &arguments)?;
    let input = FunctionArg::Unnamed(FunctionArgExpr::Expr(input.clone()));
    let named = ORDER.into_iter().filter_map(|name| {
        let arg = FunctionArgExpr::Expr(arguments.get(name)?.clone());
        Some(FunctionArg::Named { name: identifier(name), arg, operator: FunctionArgOperator::RightArrow })
    });
    Ok(std::iter::once(input).chain(named).collect())
}

/// HOP takes the slide first. Who gives them the other way round is told.
fn check_slide(function: &str, arguments: &Arguments) -> Result<()> {
    let length = |name: &str| arguments.get(name).and_then(approximate_nanoseconds);
    let (Some(slide), Some(size)) = (length("slide"), length("size")) else { return Ok(()) };
    if slide <= size {
        return Ok(());
    }
    let (what, order) = match function {
        "cumulate" => ("step", "CUMULATE takes the step first, then the greatest size: CUMULATE(s, ts, step, size)"),
        _ => (
            "slide",
            "HOP takes the slide first, then the size: HOP(s, ts, slide, size); with a slide above the size rows would be lost between windows",
        ),
    };
    let show = |name: &str| arguments.get(name).map(|expr| expr.to_string()).unwrap_or_default();
    let message = format!("the {what} ({}) is greater than the size ({})", show("slide"), show("size"));
    Err(Error::invalid_parameter(message).with_hint(order))
}

/// For comparing only: months of 30 days.
fn approximate_nanoseconds(expr: &Expr) -> Option<i128> {
    let Expr::Interval(value) = expr else { return None };
    approximate(&text(&value.value)?)
}

fn approximate(text: &str) -> Option<i128> {
    let parsed = arrow::compute::kernels::cast_utils::parse_interval_month_day_nano(text).ok()?;
    let days = i128::from(parsed.months) * 30 + i128::from(parsed.days);
    Some(days * 86_400_000_000_000 + i128::from(parsed.nanoseconds))
}

fn usage(function: &str, what: &str) -> Error {
    let usage = match function {
        "tumble" => "TUMBLE(s, ts, size [, offset [, time zone]])",
        "hop" => "HOP(s, ts, slide, size [, offset [, time zone]])",
        "cumulate" => "CUMULATE(s, ts, step, size [, offset [, time zone]])",
        _ => "SESSION(s [PARTITION BY (k, …)], ts, gap)",
    };
    Error::syntax(format!("{} has {what}", function.to_uppercase()))
        .with_hint(format!("write {usage}, with lengths as INTERVAL '5 minutes'"))
}

fn position(name: &sp::ObjectName) -> u32 {
    name.0.first().and_then(|part| part.as_ident()).map_or(0, |name| name.span.start.column as u32)
}

fn at(error: Error, position: u32) -> Error {
    if position > 0 && error.position().is_none() { error.at(position) } else { error }
}
