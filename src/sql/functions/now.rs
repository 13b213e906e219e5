//! `now()`, in microseconds: DataFusion's counts nanoseconds, and a time beside it would have to lie between 1677 and 2262.
//!
//! The optimizer puts the statement's time in its place. It is not told one for a continuous query, where `now()` stays and is the
//! time of the commit.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};

use crate::error::Error;
use crate::sql::functions::zones::instants;
use crate::time::TIMESTAMP;

/// The time in UTC, without a zone.
pub fn now() -> ScalarUDF {
    function(TIMESTAMP)
}

/// The same as an instant, for sessions whose clocks do not show UTC.
pub static ZONED_NOW: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(function(instants())));

fn function(data_type: DataType) -> ScalarUDF {
    let signature = Signature::nullary(Volatility::Stable);
    ScalarUDF::new_from_impl(Now { data_type, signature, aliases: ["current_timestamp".to_string()] })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    data_type: DataType,
    signature: Signature,
    aliases: [String; 1],
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.data_type.clone())
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        Ok(match context.query_execution_start_time() {
            Some(now) => {
                let now = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), None);
                ExprSimplifyResult::Simplified(lit(now.cast_to(&self.data_type)?))
            }
            None => ExprSimplifyResult::Original(arguments),
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::internal("now() was to be replaced by a time").into())
    }
}
