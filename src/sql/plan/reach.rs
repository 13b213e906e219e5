//! How far around a row OVER looks for its answer, and so when that changes no more.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::event_time::input_column;
use super::order::window_function;
use crate::flow::over::Reach;

/// The column of the input by which the rows of a node stand in their partitions, if none depends on one behind it. If it is event
/// time, they change no more once the watermark has passed them.
pub fn order_column(window: &Window) -> Option<usize> {
    let mut columns = window.window_expr.iter().map(|call| {
        let function = window_function(call)?;
        let first = function.params.order_by.first().filter(|key| key.asc)?;
        let looks_back = reach(function, &window.input).ahead == Some(0);
        input_column(&first.expr, &window.input).filter(|_| looks_back)
    });
    let column = columns.next()??;
    columns.all(|other| other == Some(column)).then_some(column)
}

/// How many rows before and after a row, in the order of its partition, the answer of a call depends on; `plan`: its input.
pub fn reach(function: &WindowFunction, plan: &LogicalPlan) -> Reach {
    let params = &function.params;
    let ignores_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(of) => match of.name() {
            "row_number" | "rank" | "dense_rank" => Reach { behind: None, ahead: Some(0) },
            name @ ("lag" | "lead") => {
                let Some(shift) = shift(params.args.get(1)) else { return Reach::ALL };
                let shift = if name == "lag" { shift } else { -shift };
                let distance = (!ignores_nulls).then_some(shift.unsigned_abs());
                if shift >= 0 { Reach { behind: distance, ahead: Some(0) } } else { Reach { behind: Some(0), ahead: distance } }
            }
            "first_value" | "last_value" | "nth_value" => frame_reach(function, true),
            _ => Reach::ALL,
        },
        WindowFunctionDefinition::AggregateUDF(of) => {
            let schema = plan.schema();
            let floating = params.args.iter().any(|arg| arg.get_type(schema).map_or(true, |t| t.is_floating()));
            let exact = match of.name() {
                "min" | "max" | "count" | "bool_and" | "bool_or" | "bit_and" | "bit_or" | "bit_xor" => true,
                "sum" => !floating,
                _ => false,
            };
            frame_reach(function, exact)
        }
    }
}

/// `exact`: the answer is the same wherever the looking begins.
fn frame_reach(function: &WindowFunction, exact: bool) -> Reach {
    let frame = &function.params.window_frame;
    let rows = frame.units == WindowFrameUnits::Rows;
    let distance = |value: &ScalarValue| {
        value.cast_to(&DataType::UInt64).ok().and_then(|v| match v {
            ScalarValue::UInt64(distance) => distance,
            _ => None,
        })
    };
    let behind = match &frame.start_bound {
        WindowFrameBound::Preceding(value) => distance(value),
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => Some(0),
    };
    let ahead = match &frame.end_bound {
        WindowFrameBound::Following(value) if rows => distance(value),
        WindowFrameBound::Following(_) => None,
        WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(_) => Some(0),
    };
    Reach { behind: behind.filter(|_| rows && exact), ahead }
}

/// By how many rows `lag` looks back.
fn shift(offset: Option<&Expr>) -> Option<i64> {
    let Some(offset) = offset else { return Some(1) };
    let Expr::Literal(value, _) = offset else { return None };
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(shift) => Some(shift.unwrap_or(1)),
        _ => None,
    }
}
