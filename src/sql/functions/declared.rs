//! A value, and what is known of it besides: its SQL type, for functions that ask what they were given, as `to_json` and `pg_typeof`
//! do (to Arrow a `jsonb` is text); that it may be NULL, where DataFusion believes that it is not. These are no functions of SQL: the
//! planner puts them around a value.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::sql::types;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    /// Of a value that may be NULL, nothing.
    sql_type: Option<String>,
    signature: Signature,
}

/// The value, in a field that names its type.
pub fn declared(value: Expr, sql_type: &str) -> Expr {
    call(value, Some(sql_type.to_string()))
}

/// The value, in a field that may be NULL.
pub fn may_be_null(value: Expr) -> Expr {
    call(value, None)
}

/// The name by which a value without a declared type comes through the planner.
pub const PLAIN: &str = "plain_value";

/// The function of that name: DataFusion takes no VALUES whose rows know their types differently well.
pub fn plain_function(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == PLAIN).then(|| Arc::new(function(None)))
}

fn call(value: Expr, sql_type: Option<String>) -> Expr {
    function(sql_type).call(vec![value])
}

fn function(sql_type: Option<String>) -> ScalarUDF {
    ScalarUDF::new_from_impl(Declared { sql_type, signature: Signature::any(1, Volatility::Immutable) })
}

impl ScalarUDFImpl for Declared {
    fn name(&self) -> &str {
        "declared"
    }

    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        Ok(arguments.first().map(|value| value.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        types.first().cloned().ok_or_else(|| Error::internal("a type is declared of one value").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let value = args.arg_fields.first().ok_or_else(|| Error::internal("a type is declared of one value"))?;
        let field = |nullable| Field::new(self.name(), value.data_type().clone(), nullable);
        Ok(Arc::new(match &self.sql_type {
            Some(sql_type) => types::with_type(field(value.is_nullable()), sql_type),
            None => field(true),
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| Error::internal("a type is declared of one value").into())
    }
}
