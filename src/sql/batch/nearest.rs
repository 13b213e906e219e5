//! An ASOF join as a batch: both sides in one line by time, and every row of the left looks back for the last row of the right.
//!
//! ```text
//!   key  time  side   right row      last right row so far
//!   a    10:00 right  r1             r1
//!   a    10:01 left   -              r1     ◄ answers
//!   a    10:02 right  r2             r2
//!   a    10:02 left   -              r2     ◄   (>=: at one time the right comes first)
//! ```
//!
//! Looking ahead, the line runs backwards. Of right rows of one time, the one that counts comes last.

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::functions_window::nth_value::last_value_udwf;
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits, lit, when,
};

use crate::sql::plan::nearest::NearestNode;

const TIME: &str = "$time";
const IS_RIGHT: &str = "$is_right";
const FOUND: &str = "$found";

/// The node over these inputs, by other nodes.
pub fn nearest(node: &NearestNode, left: LogicalPlan, right: LogicalPlan) -> DfResult<LogicalPlan> {
    let line = Line { node, left, right };
    line.answer()
}

struct Line<'a> {
    node: &'a NearestNode,
    left: LogicalPlan,
    right: LogicalPlan,
}

fn column(name: impl Into<String>) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn key(index: usize) -> String {
    format!("$key{index}")
}

fn of_left(index: usize) -> String {
    format!("$left{index}")
}

fn of_right(index: usize) -> String {
    format!("$right{index}")
}

impl Line<'_> {
    fn answer(self) -> DfResult<LogicalPlan> {
        let widths = [&self.left, &self.right].map(|side| side.schema().fields().len());
        let found = self.found(widths[1])?;
        let together = LogicalPlanBuilder::from(self.side(true)?).union(self.side(false)?)?.build()?;
        // The optimizer would sort each side by itself, and lose sight of the order in which they stand together.
        let columns = together.schema().columns().into_iter().map(|column| match column.name == IS_RIGHT {
            true => Opaque::call(Expr::Column(column)).alias(IS_RIGHT),
            false => Expr::Column(column),
        });
        let columns: Vec<Expr> = columns.collect();
        let answered =
            LogicalPlanBuilder::from(together).project(columns)?.window([found])?.filter(column(IS_RIGHT).is_false())?;
        let answered = if self.node.outer { answered } else { answered.filter(column(FOUND).is_not_null())? };
        let names = (0..widths[0]).map(|index| column(of_left(index)));
        let fields = (0..widths[1]).map(|index| column(FOUND).field(of_right(index)));
        let named = names.chain(fields).zip(UserDefinedLogicalNodeCore::schema(self.node).iter());
        let named = named.map(|(expr, (qualifier, field))| expr.alias_qualified(qualifier.cloned(), field.name()));
        answered.project(named.collect::<Vec<_>>())?.build()
    }

    /// The rows of one side, with NULLs for the other's columns. Right rows that nothing can find are left out.
    fn side(&self, is_right: bool) -> DfResult<LogicalPlan> {
        let node = self.node;
        let plan = if is_right { &self.right } else { &self.left };
        let own = |pair: &(Column, Column)| Expr::Column(if is_right { pair.1.clone() } else { pair.0.clone() });
        let keys: Vec<Expr> = node.on.iter().map(own).collect();
        let mut exprs: Vec<Expr> = keys.iter().enumerate().map(|(index, expr)| expr.clone().alias(key(index))).collect();
        exprs.push(own(&node.times).alias(TIME));
        exprs.push(lit(is_right).alias(IS_RIGHT));
        for (side, name, here) in [(&self.left, of_left as fn(usize) -> String, !is_right), (&self.right, of_right, is_right)] {
            for (index, (qualifier, field)) in side.schema().iter().enumerate() {
                let expr = match here {
                    true => Expr::Column(Column::from((qualifier, field))),
                    false => lit(ScalarValue::try_from(field.data_type())?),
                };
                exprs.push(expr.alias(name(index)));
            }
        }
        let complete = keys.into_iter().chain([own(&node.times)]).map(Expr::is_not_null);
        let plan = LogicalPlanBuilder::from(plan.clone());
        let plan = if is_right { plan.filter(conjunction(complete).unwrap_or(lit(true)))? } else { plan };
        plan.project(exprs)?.build()
    }

    /// The last right row so far.
    fn found(&self, right: usize) -> DfResult<Expr> {
        let node = self.node;
        let fields = (0..right).flat_map(|index| [lit(of_right(index)), column(of_right(index))]).collect();
        let row = when(column(IS_RIGHT), named_struct(fields)).end()?;
        let mut last = WindowFunction::new(last_value_udwf(), vec![row]);
        last.params.null_treatment = Some(NullTreatment::IgnoreNulls);
        last.params.partition_by = (0..node.on.len()).map(|index| column(key(index))).collect();
        // A left row without a time stands before all right rows.
        let mut order = vec![Sort::new(column(TIME), node.nearest.backward, true)];
        order.push(Sort::new(column(IS_RIGHT), !node.nearest.equal, true));
        let then = node.then_index();
        order.extend(then.map(|index| Sort::new(column(of_right(index)), true, true)));
        order.extend(
            (0..right).filter(|index| Some(*index) != then).map(|index| Sort::new(column(of_right(index)), false, false)),
        );
        last.params.order_by = order;
        last.params.window_frame = WindowFrame::new_bounds(
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
            WindowFrameBound::CurrentRow,
        );
        Ok(Expr::WindowFunction(Box::new(last)).alias(FOUND))
    }
}

/// The same value, of which the optimizer knows nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Opaque {
    signature: Signature,
}

impl Opaque {
    fn call(value: Expr) -> Expr {
        ScalarUDF::new_from_impl(Opaque { signature: Signature::any(1, Volatility::Volatile) }).call(vec![value])
    }
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &str {
        "tidegate_opaque"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Ok(args.args.remove(0))
    }
}
