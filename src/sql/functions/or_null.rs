//! NULL in place of an error: what an operator, a cast or a function is in a query `WITH (on_error = 'null')`.
//!
//! ```text
//!   100 / x        or_null[$0 / $1](100, x)      evaluated over all rows; if that fails, over each half, down to the rows
//! ```
//!
//! It is a function of what the node is of, so plans are free to move and to share it, and it may be NULL whatever its arguments
//! are, so nothing is concluded from their not being so. What decides which of its operands are evaluated (CASE, AND, OR,
//! `coalesce`) is never such a function: only what is below it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::error::Error;
use crate::view::Nulled;

/// Functions that have a value for all arguments, and that others look for.
const TOTAL: [&str; 6] = ["canonical", "declared", "get_field", "make_array", "named_struct", "struct"];

/// A node of an expression whose operands are arguments.
#[derive(Debug)]
struct OrNull {
    /// The node; its children are only places.
    node: Expr,
    /// A function's own, because some are known by it.
    name: String,
    signature: Signature,
    /// Who counts; what is computed for comparison only is not counted.
    nulled: Option<Arc<Nulled>>,
}

impl PartialEq for OrNull {
    fn eq(&self, other: &OrNull) -> bool {
        self.node == other.node
    }
}

impl Eq for OrNull {}

impl Hash for OrNull {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.node.hash(state);
    }
}

/// An expression over such columns, in which what fails is NULL.
pub fn in_expression(expr: Expr, schema: &DFSchema, config: &Arc<ConfigOptions>, nulled: Option<&Arc<Nulled>>) -> DfResult<Expr> {
    let marked = expr.transform_up(|expr| match expr {
        Expr::OuterReferenceColumn(field, column) => {
            let field = Arc::new(field.as_ref().clone().with_nullable(true));
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        expr if may_fail(&expr, schema)? && !(is_constant(&expr)? && has_value(&expr, config)) => {
            Ok(Transformed::yes(or_null(expr, nulled)?))
        }
        expr => Ok(Transformed::no(expr)),
    })?;
    Ok(marked.data)
}

/// Whether the node itself, whatever its operands are, may fail for some of their values.
fn may_fail(expr: &Expr, schema: &DFSchema) -> DfResult<bool> {
    use Operator as O;
    Ok(match expr {
        Expr::BinaryExpr(pair) => !matches!(
            pair.op,
            O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::And | O::Or | O::IsDistinctFrom | O::IsNotDistinctFrom
        ),
        Expr::Cast(cast) => !is_total(&cast.expr.get_type(schema)?, cast.field.data_type()),
        Expr::Negative(_) | Expr::Like(_) | Expr::SimilarTo(_) => true,
        Expr::ScalarFunction(call) => !has_always_a_value(call),
        _ => false,
    })
}

/// A function that has a value for all arguments, that decides which of them are evaluated, or that is NULL already where it fails.
fn has_always_a_value(call: &ScalarFunction) -> bool {
    call.args.is_empty()
        || is_or_null(call)
        || TOTAL.contains(&call.name())
        || call.func.short_circuits()
        || call.func.conditional_arguments(&call.args).is_some()
}

/// Whether every value of a type is one of the other.
fn is_total(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let bits = |of: &DataType| of.primitive_width().unwrap_or_default();
    match (from, to) {
        _ if from == to => true,
        (D::Null, _) => true,
        (D::Timestamp(from, _), D::Timestamp(to, _)) => from == to,
        (D::Boolean | D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8 | D::LargeUtf8 | D::Utf8View) => true,
        (from, D::Utf8 | D::LargeUtf8 | D::Utf8View) => from.is_integer(),
        (D::Float32, D::Float64) => true,
        (from, D::Float32 | D::Float64) => from.is_integer(),
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => bits(from) <= bits(to),
        _ => false,
    }
}

/// Whether it is of literals alone.
fn is_constant(expr: &Expr) -> DfResult<bool> {
    let varies = expr.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::BinaryExpr(_) | Expr::Cast(_) | Expr::Negative(_) | Expr::Literal(..) | Expr::Alias(_) => false,
            _ => true,
        })
    })?;
    Ok(!varies)
}

/// The same value; NULL where it fails for a row.
fn or_null(expr: Expr, nulled: Option<&Arc<Nulled>>) -> DfResult<Expr> {
    let (name, volatility) = match &expr {
        Expr::ScalarFunction(call) => (call.name().to_string(), call.func.signature().volatility),
        Expr::BinaryExpr(pair) => (pair.op.to_string(), Volatility::Immutable),
        other => (other.variant_name().to_lowercase(), Volatility::Immutable),
    };
    let mut args = Vec::new();
    let node = expr.map_children(|child| {
        args.push(child);
        Ok(Transformed::yes(place(args.len() - 1)))
    })?;
    let function = OrNull { node: node.data, name, signature: Signature::user_defined(volatility), nulled: nulled.cloned() };
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(function)), args)))
}

/// What [`or_null`] was made of, if this was.
pub fn bare(expr: &Expr) -> Option<Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<OrNull>()?.of(call.args.iter().cloned()).ok()
}

/// Whether [`or_null`] made it.
fn is_or_null(call: &ScalarFunction) -> bool {
    call.func.inner().is::<OrNull>()
}

fn place(at: usize) -> Expr {
    Expr::Column(Column::new_unqualified(at.to_string()))
}

fn literal(value: ScalarValue, field: &Field) -> Expr {
    let metadata = Some(FieldMetadata::from(field.metadata())).filter(|metadata| !metadata.is_empty());
    Expr::Literal(value, metadata)
}

fn placed(field: &Field, at: usize) -> Field {
    field.clone().with_name(at.to_string()).with_nullable(true)
}

/// The physical form of an expression over such columns.
fn compile(expr: &Expr, fields: Vec<Field>, config: Arc<ConfigOptions>) -> DfResult<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(Schema::new(fields))?;
    let mut props = ExecutionProps::new();
    props.config_options = Some(config);
    create_physical_expr(expr, &schema, &props, &Default::default())
}

/// Whether an expression of constants alone has a value.
fn has_value(constant: &Expr, config: &Arc<ConfigOptions>) -> bool {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
    compile(constant, Vec::new(), Arc::clone(config)).and_then(|value| value.evaluate(&row?)).is_ok()
}

impl OrNull {
    /// The node with these children.
    fn of(&self, args: impl IntoIterator<Item = Expr>) -> DfResult<Expr> {
        let mut args = args.into_iter();
        let next = |_| args.next().map(Transformed::yes).ok_or_else(|| Error::internal("a node has lost its operands").into());
        Ok(self.node.clone().map_children(next)?.data)
    }

    /// Its values for these rows, in pieces.
    fn evaluate(&self, node: &Arc<dyn PhysicalExpr>, of: &DataType, rows: &RecordBatch, out: &mut Vec<ArrayRef>) -> DfResult<()> {
        let count = rows.num_rows();
        let failed = match node.evaluate(rows).and_then(|values| values.into_array(count)) {
            Ok(values) => {
                out.push(values);
                return Ok(());
            }
            Err(failed) => failed,
        };
        let error = Error::from(&failed);
        if !error.is_data_exception() {
            return Err(failed);
        }
        if count > 1 {
            let half = count / 2;
            self.evaluate(node, of, &rows.slice(0, half), out)?;
            return self.evaluate(node, of, &rows.slice(half, count - half), out);
        }
        self.nulled.iter().for_each(|nulled| nulled.record(&error));
        out.push(new_null_array(of, count));
        Ok(())
    }
}

impl ScalarUDFImpl for OrNull {
    fn name(&self) -> &str {
        &self.name
    }

    /// That of the node, so that columns are called what they were.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        Ok(self.of(args.iter().cloned())?.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// They are what the node was planned for.
    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Err(DataFusionError::from(Error::internal("the type depends on the arguments")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let each = args.arg_fields.iter().zip(args.scalar_arguments).enumerate();
        let children = each.map(|(at, (field, value))| value.map_or_else(|| place(at), |value| literal(value.clone(), field)));
        let children: Vec<Expr> = children.collect();
        let fields: Vec<Field> =
            args.arg_fields.iter().enumerate().map(|(at, field)| field.as_ref().clone().with_name(at.to_string())).collect();
        let (_, field) = self.of(children)?.to_field(&DFSchema::try_from(Schema::new(fields))?)?;
        Ok(Arc::new(field.as_ref().clone().with_name(&self.name).with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (mut children, mut fields, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (value, field)) in args.args.into_iter().zip(&args.arg_fields).enumerate() {
            match value {
                ColumnarValue::Scalar(value) => children.push(literal(value, field)),
                ColumnarValue::Array(values) => {
                    children.push(place(at));
                    fields.push(placed(field, at));
                    columns.push(values);
                }
            }
        }
        // Of constants alone there is one value.
        let is_constant = columns.is_empty();
        let count = if is_constant { 1 } else { args.number_rows };
        let node = compile(&self.of(children)?, fields.clone(), args.config_options)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let mut pieces = Vec::new();
        self.evaluate(&node, args.return_field.data_type(), &rows, &mut pieces)?;
        let values = match pieces.as_slice() {
            [whole] => Arc::clone(whole),
            pieces => concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
            false => ColumnarValue::Array(values),
        })
    }

    /// Some functions are others, once their arguments are known.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        let Expr::ScalarFunction(call) = &self.node else { return Ok(ExprSimplifyResult::Original(args)) };
        Ok(match call.func.simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => {
                let nulled = in_expression(expr, info.schema(), info.config_options(), self.nulled.as_ref())?;
                ExprSimplifyResult::Simplified(nulled)
            }
            original => original,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::common::ToDFSchema;
    use datafusion::logical_expr::{binary_expr, cast, col, lit};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("x", DataType::Int64, false), Field::new("t", DataType::Utf8, false)])
    }

    /// The values of an expression over rows in which some `x` are 0, and some `t` are no numbers.
    fn values(expr: Expr, nulled: &Arc<Nulled>, from: usize, to: usize) -> Vec<Option<i64>> {
        let schema = schema();
        let config = Arc::new(ConfigOptions::default());
        let expr = in_expression(expr, &schema.clone().to_dfschema().unwrap(), &config, Some(nulled)).unwrap();
        // Some functions are others where they run.
        let info = SimplifyContext::builder().with_schema(Arc::new(schema.clone().to_dfschema().unwrap())).build();
        let expr = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(info).simplify(expr).unwrap();
        let node = compile(&expr, schema.fields().iter().map(|field| field.as_ref().clone()).collect(), config).unwrap();
        let x: ArrayRef = Arc::new((0..1000).map(|n| if n % 7 == 3 || n > 900 { 0 } else { n }).collect::<Int64Array>());
        let texts = (0..1000).map(|n| Some(if n % 5 == 1 { "none".to_string() } else { n.to_string() }));
        let t: ArrayRef = Arc::new(texts.collect::<arrow::array::StringArray>());
        let rows = RecordBatch::try_new(Arc::new(schema), vec![x, t]).unwrap().slice(from, to - from);
        let values = node.evaluate(&rows).unwrap().into_array(rows.num_rows()).unwrap();
        values.as_primitive::<Int64Type>().iter().collect()
    }

    fn quotient() -> Expr {
        binary_expr(lit(1000_i64), Operator::Divide, col("x"))
    }

    #[test]
    fn rows_that_fail_are_null_however_they_are_cut() {
        let sum = quotient() + cast(col("t"), DataType::Int64);
        let nulled = Arc::new(Nulled::new("q"));
        let whole = values(sum.clone(), &nulled, 0, 1000);
        for (row, value) in whole.iter().enumerate() {
            let n = i64::try_from(row).unwrap();
            let fails = n == 0 || n % 7 == 3 || n > 900 || n % 5 == 1;
            assert_eq!(*value, (!fails).then(|| 1000 / n.max(1) + n), "row {row}");
        }
        let divided = (0..1000).filter(|n| *n == 0 || n % 7 == 3 || *n > 900).count();
        let read = (0..1000).filter(|n| n % 5 == 1).count();
        assert_eq!(nulled.count(), u64::try_from(divided + read).unwrap());
        assert!(nulled.last().is_some());
        for step in [1, 3, 64, 999] {
            let cut = (0..1000).step_by(step).flat_map(|from| values(sum.clone(), &nulled, from, (from + step).min(1000)));
            assert_eq!(cut.collect::<Vec<_>>(), whole, "{step} rows at a time");
        }
    }

    #[test]
    fn each_node_is_null_by_itself() {
        let nulled = Arc::new(Nulled::new("q"));
        let five = datafusion::functions::core::expr_fn::coalesce(vec![quotient(), lit(5_i64)]);
        assert_eq!(values(five, &nulled, 1, 5), [Some(1000), Some(500), Some(5), Some(250)]);
        // A NULL is no failure.
        assert_eq!(nulled.count(), 1);
    }

    #[test]
    fn constants_that_have_a_value_stay_as_they_are() {
        let schema = schema().to_dfschema().unwrap();
        let config = Arc::new(ConfigOptions::default());
        let marked = |expr: Expr| in_expression(expr, &schema, &config, None).unwrap();
        let two = cast(lit("2"), DataType::Int64);
        assert_eq!(marked(two.clone()), two);
        let none = cast(lit("none"), DataType::Int64);
        assert_eq!(bare(&marked(none.clone())), Some(none));
        let divided = marked(quotient());
        assert_eq!(divided.schema_name().to_string(), quotient().schema_name().to_string());
        assert!(divided.nullable(&schema).unwrap() && !quotient().nullable(&schema).unwrap());
        assert_eq!(marked(divided.clone()), divided, "twice is once");
    }
}
