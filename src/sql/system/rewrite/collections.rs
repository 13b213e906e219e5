//! Maps, structs and lambdas, as ksqlDB, Flink and RisingWave write them.
//!
//! | written | planned |
//! | --- | --- |
//! | `MAP('a' := 1)`, `MAP['a', 1]`, `MAP {'a': 1}` | `map_from_arrays(ARRAY['a'], ARRAY[1])` |
//! | `STRUCT(x := 1)` | `named_struct('x', 1)` |
//! | `f(x := 1)` | `f(x => 1)`, as in PostgreSQL |
//! | `TRANSFORM(a, x => x + 1)`, `FILTER(a, x => x > 1)` | `array_transform`, `array_filter` with a lambda |
//! | `REDUCE(a, 0, (s, x) => s + x)` | `array_reduce` with a lambda |
//! | `FILTER(m, (k, v) => v > 1)` | `map_from_entries(array_filter(map_entries(m), e -> get_field(e, 'value') > 1))` |
//! | `TRANSFORM(m, (k, v) => UCASE(k), (k, v) => v + 1)` | `map_from_arrays` of two such lists |

use std::ops::ControlFlow;

use sqlparser::ast as sp;

use super::{call, literal, normal, take};
use crate::error::{Error, Result};

/// Functions that take lambdas, and what they are called here.
const LAMBDAS: [(&str, &str); 11] = [
    ("transform", "array_transform"),
    ("array_transform", "array_transform"),
    ("list_transform", "array_transform"),
    ("filter", "array_filter"),
    ("array_filter", "array_filter"),
    ("list_filter", "array_filter"),
    ("reduce", "array_reduce"),
    ("array_reduce", "array_reduce"),
    ("any_match", "array_any_match"),
    ("array_any_match", "array_any_match"),
    ("list_any_match", "array_any_match"),
];

/// Does a call of this name take lambdas under another name?
pub fn takes_lambdas(name: &str) -> bool {
    LAMBDAS.iter().any(|(known, _)| *known == name)
}

/// What a call stands for; one with arguments by name, or with lambdas, is put in the planner's words where it is.
pub(super) fn function(name: &str, function: &mut sp::Function) -> Result<Option<sp::Expr>> {
    let sp::FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    if name == "map" && !list.args.is_empty() && list.args.iter().all(is_pair) {
        return Ok(Some(map(list.args.drain(..).filter_map(|mut argument| taken_pair(&mut argument)))));
    }
    if let Some((_, ours)) = LAMBDAS.iter().find(|(known, _)| *known == name) {
        list.args.iter_mut().for_each(by_arrow);
        if let Some(form) = of_map(name, &mut list.args)? {
            return Ok(Some(form));
        }
        function.name = sp::ObjectName::from(vec![sp::Ident::new(*ours)]);
        return Ok(None);
    }
    list.args.iter_mut().for_each(by_name);
    Ok(None)
}

/// `MAP {'a': 1}`.
pub(super) fn map_literal(map: &mut sp::Map) -> sp::Expr {
    self::map(map.entries.drain(..).map(|mut entry| (take(&mut entry.key), take(&mut entry.value))))
}

/// `STRUCT(x := 1, y := 2)`; fields without names are the planner's.
pub(super) fn structure(values: &mut [sp::Expr]) -> Result<Option<sp::Expr>> {
    let named = |value: &sp::Expr| matches!(value, sp::Expr::BinaryOp { op: sp::BinaryOperator::Assignment, .. });
    if !values.iter().any(named) {
        return Ok(None);
    }
    let mut fields = Vec::with_capacity(2 * values.len());
    for value in values {
        match value {
            sp::Expr::BinaryOp { left, op: sp::BinaryOperator::Assignment, right } => match left.as_ref() {
                sp::Expr::Identifier(name) => fields.extend([literal(&normal(name)), take(right)]),
                other => return Err(Error::syntax(format!("{other} is not the name of a field"))),
            },
            other => {
                let error = Error::syntax(format!("the field {other} has no name"));
                return Err(error.with_hint("write STRUCT(name := value, …), a name for each field"));
            }
        }
    }
    Ok(Some(call("named_struct", fields)))
}

fn map(pairs: impl Iterator<Item = (sp::Expr, sp::Expr)>) -> sp::Expr {
    let array = |elem| sp::Expr::Array(sp::Array { elem, named: true });
    let (keys, values) = pairs.unzip();
    call("map_from_arrays", vec![array(keys), array(values)])
}

/// `key := value`.
fn is_pair(argument: &sp::FunctionArg) -> bool {
    matches!(
        argument,
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::BinaryOp { op: sp::BinaryOperator::Assignment, .. }))
    )
}

fn taken_pair(argument: &mut sp::FunctionArg) -> Option<(sp::Expr, sp::Expr)> {
    match argument {
        sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::BinaryOp { left, right, .. })) => {
            Some((take(left), take(right)))
        }
        _ => None,
    }
}

/// `name := value` is an argument by its name.
fn by_name(argument: &mut sp::FunctionArg) {
    if let sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::BinaryOp { left, op, right })) = argument
        && *op == sp::BinaryOperator::Assignment
        && let sp::Expr::Identifier(name) = left.as_ref()
    {
        let (name, arg) = (name.clone(), sp::FunctionArgExpr::Expr(take(right)));
        *argument = sp::FunctionArg::Named { name, arg, operator: sp::FunctionArgOperator::Assignment };
    }
}

/// `x => body` is a lambda.
fn by_arrow(argument: &mut sp::FunctionArg) {
    if let sp::FunctionArg::Named { name, arg: sp::FunctionArgExpr::Expr(body), operator: sp::FunctionArgOperator::RightArrow } =
        argument
    {
        let lambda = lambda(name.clone(), take(body));
        *argument = sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(lambda));
    }
}

fn lambda(name: sp::Ident, body: sp::Expr) -> sp::Expr {
    let mut lambda = sp::LambdaFunction {
        params: sp::OneOrManyWithParens::One(sp::LambdaFunctionParameter { name, data_type: None }),
        body: Box::new(body),
        syntax: sp::LambdaSyntax::Arrow,
    };
    self::body(&mut lambda);
    sp::Expr::Lambda(lambda)
}

/// Lists that are written out are calls: in `ARRAY[x]` the planner forgets what the parameters of a lambda are.
pub(super) fn body(lambda: &mut sp::LambdaFunction) {
    let _ = sp::visit_expressions_mut(lambda.body.as_mut(), |expr| {
        if let sp::Expr::Array(list) = expr {
            *expr = call("make_array", std::mem::take(&mut list.elem));
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The parameter that stands for an entry of a map.
const ENTRY: &str = "entry of a map";

/// FILTER and TRANSFORM of a map: their lambdas have two parameters, a key and its value.
fn of_map(name: &str, arguments: &mut [sp::FunctionArg]) -> Result<Option<sp::Expr>> {
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments.iter() {
        let sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(value)) = argument else { return Ok(None) };
        values.push(value);
    }
    let of_entries =
        |map: &sp::Expr, function: &str, lambda: sp::Expr| call(function, vec![call("map_entries", vec![map.clone()]), lambda]);
    Ok(match (name, values.as_slice()) {
        ("filter", [map, lambda]) => {
            of_entry(lambda).map(|lambda| call("map_from_entries", vec![of_entries(map, "array_filter", lambda)]))
        }
        ("transform", [map, keys, values]) => match (of_entry(keys), of_entry(values)) {
            (Some(keys), Some(values)) => {
                let lists = [keys, values].map(|lambda| of_entries(map, "array_transform", lambda));
                Some(call("map_from_arrays", lists.to_vec()))
            }
            _ => return Err(Error::syntax("TRANSFORM of a map takes (k, v) => key and (k, v) => value")),
        },
        _ => None,
    })
}

/// `(k, v) => body` as a lambda of an entry.
fn of_entry(lambda: &sp::Expr) -> Option<sp::Expr> {
    let sp::Expr::Lambda(of) = lambda else { return None };
    let sp::OneOrManyWithParens::Many(parameters) = &of.params else { return None };
    let [key, value] = parameters.as_slice() else { return None };
    let parts = [(normal(&key.name), "key"), (normal(&value.name), "value")];
    let entry = || sp::Ident::with_quote('"', ENTRY);
    let mut body = of.body.as_ref().clone();
    let _ = sp::visit_expressions_mut(&mut body, |expr| {
        if let sp::Expr::Identifier(name) = expr
            && let Some((_, part)) = parts.iter().find(|(known, _)| *known == normal(name))
        {
            *expr = call("get_field", vec![sp::Expr::Identifier(entry()), literal(part)]);
        }
        ControlFlow::<()>::Continue(())
    });
    Some(self::lambda(entry(), body))
}
