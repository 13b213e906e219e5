//! What a join was said to be between its relation and ON, as it comes through the planner: calls of functions that nobody can
//! write, among the join's conditions. They are taken out, and the join made into what they mean, before anything else looks at
//! the plan ([`super::on_time`]).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Join, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::time_bound::duration;
use crate::error::Error;
use crate::sql::ast::{AS_OF_MARK, NEAREST_MARK, WITHIN_MARK};
use crate::time::Micros;

/// What a join was marked with.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// The right side's time is at most so far before and after the left's; rows may be late by a grace.
    Within { before: Micros, after: Micros, grace: Micros },
    /// Only the nearest row of the right side by a comparison: this one, or one of the conditions.
    Nearest(Option<Expr>),
    /// The rows that the right side had at a time.
    AsOf(Expr),
}

/// The function that stands for a mark.
pub fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
        [WITHIN_MARK, NEAREST_MARK, AS_OF_MARK].map(|name| {
            let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(MarkFunction { name, signature }))
        })
    });
    FUNCTIONS.iter().find(|function| function.name() == name).cloned()
}

/// Take the mark of a join out of its conditions.
pub fn take(join: &mut Join) -> DfResult<Option<Mark>> {
    if !join.filter.as_ref().is_some_and(|filter| split_conjunction(filter).into_iter().any(|e| called(e).is_some())) {
        return Ok(None);
    }
    let conditions = join.filter.take().map_or_else(Vec::new, split_conjunction_owned);
    let (marks, conditions): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|expr| called(expr).is_some());
    join.filter = conjunction(conditions);
    match &marks[..] {
        [one] => read(one).map(Some),
        _ => Err(Error::unsupported("a join is one of WITHIN, ASOF and FOR SYSTEM_TIME AS OF").into()),
    }
}

/// Name and arguments of the mark that an expression is.
fn called(expr: &Expr) -> Option<(&str, &[Expr])> {
    let Expr::ScalarFunction(call) = expr else { return None };
    function(call.func.name()).map(|_| (call.func.name(), &call.args[..]))
}

fn read(expr: &Expr) -> DfResult<Mark> {
    let wrong = || Error::internal(format!("a join is marked with {expr}"));
    match called(expr).ok_or_else(wrong)? {
        (WITHIN_MARK, [before, after, grace]) => {
            let length = |expr: &Expr| {
                let length = duration(expr).filter(|length| *length >= 0);
                length.ok_or_else(|| {
                    let error = Error::invalid_parameter("WITHIN and GRACE PERIOD take a length of time in days or less");
                    error.with_hint("for example WITHIN 30 DAYS: months and years have no fixed length")
                })
            };
            Ok(Mark::Within { before: length(before)?, after: length(after)?, grace: length(grace)? })
        }
        (NEAREST_MARK, comparison @ ([] | [_])) => Ok(Mark::Nearest(comparison.first().cloned())),
        (AS_OF_MARK, [time]) => Ok(Mark::AsOf(time.clone())),
        _ => Err(wrong().into()),
    }
}

/// Never evaluated: it is gone when the plan is made.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MarkFunction {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for MarkFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::undefined_function(format!("{} is not a function", self.name)).into())
    }
}
