//! A value, and the SQL type that it is known to have: for functions that ask what they were given, as `to_json` and `pg_typeof` do.
//! To Arrow a `jsonb` is text. It is no function of SQL: the planner puts it around an argument.

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
    sql_type: String,
    signature: Signature,
}

/// The value, in a field that names its type.
pub fn declared(value: Expr, sql_type: &str) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::new_from_impl(Declared { sql_type: sql_type.to_string(), signature }).call(vec![value])
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
        let field = Field::new(self.name(), value.data_type().clone(), value.is_nullable());
        Ok(Arc::new(types::with_type(field, &self.sql_type)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| Error::internal("a type is declared of one value").into())
    }
}
