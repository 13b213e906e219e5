//! `coalesce` of a string and of something else: DataFusion's finds no common type for them, before it is known that the string is
//! no more than a literal of the others' type.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::types;

/// DataFusion's `coalesce`, its types apart.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

pub fn all() -> Vec<Arc<ScalarUDF>> {
    let inner = datafusion::functions::core::coalesce();
    vec![Arc::new(ScalarUDF::new_from_impl(Coalesce { inner, signature: Signature::user_defined(Volatility::Immutable) }))]
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    /// The planner has read literals as the others' type, and refused other texts beside them, when this is asked for good.
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let others: Vec<DataType> = types.iter().filter(|t| !types::is_text(t)).cloned().collect();
        if others.len() == types.len() || others.iter().all(DataType::is_null) {
            return self.inner.inner().coerce_types(types);
        }
        let common = self.inner.inner().coerce_types(&others)?;
        let common = common.into_iter().find(|t| !t.is_null()).unwrap_or(DataType::Utf8);
        Ok(vec![common; types.len()])
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        self.inner.inner().simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.inner().conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        true
    }
}
