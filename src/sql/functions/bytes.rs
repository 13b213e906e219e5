//! `length`, `octet_length` and `bit_length` of a `bytea`: DataFusion's are of texts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What is counted, and how many of them a byte has.
const MEASURES: [(&str, i32); 3] = [("length", 1), ("octet_length", 1), ("bit_length", 8)];

/// Puts functions of bytes, too, in the place of those that are registered.
pub fn measured(registry: &mut dyn FunctionRegistry) -> DfResult<()> {
    for (name, of_a_byte) in MEASURES {
        let inner = registry.udf(name)?;
        let signature = Signature::user_defined(Volatility::Immutable);
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(Measure { inner, of_a_byte, signature })))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Measure {
    /// Of texts.
    inner: Arc<ScalarUDF>,
    of_a_byte: i32,
    signature: Signature,
}

impl Measure {
    fn count(&self, bytes: &ArrayRef) -> ArrayRef {
        let count = |bytes: &[u8]| i32::try_from(bytes.len()).unwrap_or(i32::MAX).saturating_mul(self.of_a_byte);
        Arc::new(bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(count)).collect::<Int32Array>())
    }
}

impl ScalarUDFImpl for Measure {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        if let [DataType::Binary] = types {
            return Ok(types.to_vec());
        }
        let fields: Vec<FieldRef> = types.iter().map(|of| Arc::new(Field::new("", of.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.inner.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        if let [DataType::Binary] = types { Ok(DataType::Int32) } else { self.inner.return_type(types) }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        match args.arg_fields {
            [bytes] if *bytes.data_type() == DataType::Binary => {
                Ok(Arc::new(Field::new(self.name(), DataType::Int32, bytes.is_nullable())))
            }
            _ => self.inner.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(bytes)] if *bytes.data_type() == DataType::Binary => {
                Ok(ColumnarValue::Array(self.count(bytes)))
            }
            [ColumnarValue::Scalar(bytes @ ScalarValue::Binary(_))] => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&self.count(&bytes.to_array()?), 0)?))
            }
            _ => self.inner.invoke_with_args(args),
        }
    }
}
