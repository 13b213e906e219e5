//! `round_time(t, digits)`: a time with so many digits of a second. What `t::timestamp(2)` is, and a column of that type keeps.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::copy::modifier::Modifier;
use crate::error::Error;

pub fn round_time() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(RoundTime { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundTime {
    signature: Signature,
}

impl ScalarUDFImpl for RoundTime {
    fn name(&self) -> &str {
        "round_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [time @ (DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(TimeUnit::Microsecond)), digits]
                if digits.is_integer() =>
            {
                Ok(vec![time.clone(), DataType::Int64])
            }
            _ => {
                let error = Error::undefined_function("round_time takes a timestamp or a time, and a number of digits");
                Err(error.with_hint("write round_time(t::timestamp, 3)").into())
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(self.coerce_types(types)?.swap_remove(0))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[0]))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [time, ColumnarValue::Scalar(ScalarValue::Int64(Some(digits)))] = &args.args[..] else {
            return Err(Error::unsupported("the digits of round_time are a number, not a column").into());
        };
        let modifier = match usize::try_from(*digits) {
            Ok(digits @ 0..=6) => Modifier::of_digits(digits),
            _ => return Err(Error::invalid_parameter(format!("{digits} digits: there are between 0 and 6")).into()),
        };
        let rounded = |array| Ok::<_, Error>(modifier.apply(&array).map_err(|bad| bad.error)?.unwrap_or(array));
        Ok(match time {
            ColumnarValue::Array(array) => ColumnarValue::Array(rounded(Arc::clone(array))?),
            ColumnarValue::Scalar(scalar) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded(scalar.to_array()?)?, 0)?)
            }
        })
    }
}
