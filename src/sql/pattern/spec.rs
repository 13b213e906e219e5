//! The node as the matcher takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;

use super::{MatchNode, slot_name};
use crate::error::{Error, Result};
use crate::flow::pattern::program::Program;
use crate::flow::pattern::{Anchor, Call, Define, Slot, Spec, Test};

/// What the matcher looks for.
pub fn spec(node: &MatchNode, session: &dyn Session) -> Result<Spec> {
    let of = node.recognition.as_ref();
    let columns = node.column_schema()?;
    let defines = of.conditions.iter().map(|condition| match condition {
        Some(condition) => define(node, condition, session),
        None => Ok(Define::default()),
    });
    let first = of.order.first().filter(|first| first.ascends());
    let time = first.map(|first| first.column).filter(|c| matches!(columns.field(*c).data_type(), DataType::Timestamp(..)));
    let order =
        |order: &super::Order| (order.column, SortOptions { descending: order.descending, nulls_first: order.nulls_first });
    Ok(Spec {
        partition: of.partition.clone(),
        order: of.order.iter().map(order).collect(),
        time,
        names: of.names.clone(),
        program: Program::new(&of.pattern)?,
        pattern: of.pattern.clone(),
        within: of.within,
        skip: of.skip,
        shown: of.shown,
        defines: defines.collect::<Result<_>>()?,
        calls: of.calls.iter().map(|call| self::call(call, &columns, session)).collect::<Result<_>>()?,
        measures: of.measures.iter().map(|(measure, _)| *measure).collect(),
        passed: of.passed.clone(),
        columns: readable(node, &columns),
        output: Arc::new(node.schema.as_arrow().clone()),
    })
}

/// The matcher's columns, those of the input under their own names where these tell them apart: for EXPLAIN.
fn readable(node: &MatchNode, columns: &DFSchema) -> SchemaRef {
    let own = |column: &Expr| if let Expr::Column(column) = column { Some(column.name.clone()) } else { None };
    let names: Vec<Option<String>> = node.columns.iter().map(own).collect();
    let field = |(field, name): (&FieldRef, &Option<String>)| {
        let unique = names.iter().filter(|other| *other == name).count() == 1;
        match name.as_ref().filter(|_| unique) {
            Some(name) => field.as_ref().clone().with_name(name),
            None => field.as_ref().clone(),
        }
    };
    Arc::new(Schema::new(columns.fields().iter().zip(&names).map(field).collect::<Vec<_>>()))
}

fn call(call: &Expr, columns: &DFSchema, session: &dyn Session) -> Result<Call> {
    let context = Default::default();
    let lowered = LoweredAggregateBuilder::new(call, columns, columns.as_arrow(), session.execution_props(), &context).build()?;
    let arguments = lowered.aggregate.expressions();
    Ok(Call { function: lowered.aggregate, arguments })
}

/// A condition in two parts: what the rows alone decide, and the rest.
fn define(node: &MatchNode, condition: &Expr, session: &dyn Session) -> Result<Define> {
    let slots = &node.recognition.slots;
    let read = |part: &Expr| -> Vec<Slot> { numbers(part, slots.len()).into_iter().map(|slot| slots[slot].0.slot).collect() };
    let of_row = |part: &&Expr| read(part).iter().all(|slot| matches!(slot, Slot::Column { anchor: Anchor::Current, .. }));
    let (rows, rest): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(condition).into_iter().partition(of_row);
    let test = |parts: Vec<&Expr>| conjunction(parts.into_iter().cloned()).map(|part| test(node, part, session)).transpose();
    let ahead = |slot: &Slot| match slot {
        Slot::Column { shift, .. } => usize::try_from(*shift).unwrap_or(0),
        _ => 0,
    };
    Ok(Define { of_row: test(rows)?, of_match: test(rest)?, ahead: read(condition).iter().map(ahead).max().unwrap_or(0) })
}

fn test(node: &MatchNode, condition: Expr, session: &dyn Session) -> Result<Test> {
    let known = &node.recognition.slots;
    let numbers = numbers(&condition, known.len());
    let field = |slot: usize| Field::new(slot_name(slot), known[slot].1.clone(), true);
    let schema = Schema::new(numbers.iter().map(|slot| field(*slot)).collect::<Vec<_>>());
    let condition = session.create_physical_expr(condition, &DFSchema::try_from(schema.clone())?)?;
    if condition.data_type(&schema)? != DataType::Boolean {
        return Err(Error::internal("a condition of DEFINE is not boolean"));
    }
    Ok(Test { slots: numbers.into_iter().map(|slot| known[slot].0.slot).collect(), schema: Arc::new(schema), condition })
}

/// The values that an expression reads.
fn numbers(expr: &Expr, slots: usize) -> Vec<usize> {
    let names: BTreeSet<&str> = expr.column_refs().into_iter().map(|column| column.name.as_str()).collect();
    (0..slots).filter(|slot| names.contains(slot_name(*slot).as_str())).collect()
}
