//! Aggregates of other streaming databases, the value at an extreme and the greatest values; and `string_agg` and `array_agg` as they
//! should be.
//!
//! | call | answer |
//! | --- | --- |
//! | `arg_max(x, y)`, `max_by(x, y)` | the x of the row with the greatest y; of several, the least x |
//! | `arg_min(x, y)`, `min_by(x, y)` | the same with the least y |
//! | `topk(x, n)` | the n greatest values, greatest first |
//! | `topkdistinct(x, n)` | the same without repetitions |
//!
//! Rows where y (or the x of `topk`) is NULL do not count. The answers do not depend on the order of the rows, so a view keeps them
//! without ambiguity.
//!
//! DataFusion's `string_agg` and `array_agg` sort their values themselves and still ask for sorted input. So a query could not have two
//! `string_agg` in different orders, and of two `array_agg` in opposite orders, one with DISTINCT came the wrong way round. Ours do
//! not ask.

use std::cmp::Ordering;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, GroupsAccumulator, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use crate::error::Error;

/// All of them.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    let extreme = |name, other: &'static str, wanted| {
        let signature = Signature::any(2, Volatility::Immutable);
        AggregateUDF::new_from_impl(ArgExtreme { name, wanted, signature }).with_aliases([other])
    };
    let top = |name, distinct| {
        let signature = Signature::any(2, Volatility::Immutable);
        AggregateUDF::new_from_impl(TopK { name, distinct, signature })
    };
    let functions = [
        extreme("arg_max", "max_by", Ordering::Greater),
        extreme("arg_min", "min_by", Ordering::Less),
        top("topk", false),
        top("topkdistinct", true),
    ];
    let sorting = [string_agg_udaf(), array_agg_udaf()].map(|inner| AggregateUDF::new_from_impl(Sorting { inner }));
    functions.into_iter().chain(sorting).map(Arc::new).collect()
}

/// An aggregate that sorts what it is given.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sorting {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Sorting {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        Some(Box::new(|call, _| match call.params.args.as_slice() {
            [_, delimiter] if delimiter.any_column_refs() => {
                let error = Error::unsupported(format!("the delimiter of string_agg is a column: {delimiter}"));
                Err(error.with_hint("write a constant, or string_agg(delimiter || value, '')").into())
            }
            _ => Ok(Expr::AggregateFunction(call)),
        }))
    }

    /// Sorted input is sorted again.
    fn with_beneficial_ordering(self: Arc<Self>, _sorted: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArgExtreme {
    name: &'static str,
    /// What the wanted y is, compared with the others.
    wanted: Ordering,
    signature: Signature,
}

impl AggregateUDFImpl for ArgExtreme {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let types = args.expr_fields.iter().map(|field| ScalarValue::try_from(field.data_type())).collect::<Result<Vec<_>>>()?;
        let [x, y] = types.try_into().map_err(|_| Error::internal("an extreme's value has two arguments"))?;
        Ok(Box::new(Extreme { x, y, wanted: self.wanted }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |(place, field): (usize, &FieldRef)| {
            Arc::new(Field::new(format!("{}[{place}]", args.name), field.data_type().clone(), true))
        };
        Ok(args.input_fields.iter().enumerate().map(field).collect())
    }
}

/// The best row so far; no row has come while y is NULL.
#[derive(Debug)]
struct Extreme {
    x: ScalarValue,
    y: ScalarValue,
    wanted: Ordering,
}

impl Extreme {
    fn offer(&mut self, x: ScalarValue, y: ScalarValue) {
        let order = if self.y.is_null() { Some(self.wanted) } else { y.partial_cmp(&self.y) };
        let better = match order {
            Some(Ordering::Equal) => x.partial_cmp(&self.x) == Some(Ordering::Less),
            order => order == Some(self.wanted),
        };
        if better {
            (self.x, self.y) = (x, y);
        }
    }
}

impl Accumulator for Extreme {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[1].len()).filter(|row| values[1].is_valid(*row)) {
            let value = |column: usize| ScalarValue::try_from_array(&values[column], row);
            self.offer(value(0)?, value(1)?);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.x.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.x.size() + self.y.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.x.clone(), self.y.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TopK {
    name: &'static str,
    distinct: bool,
    signature: Signature,
}

impl AggregateUDFImpl for TopK {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::new_list(arguments[0].clone(), true))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let number = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let number = number.and_then(|number| number.value().cast_to(&DataType::UInt32).ok());
        let Some(ScalarValue::UInt32(Some(limit))) = number else {
            let error = Error::datatype_mismatch(format!("{}(x, n) takes a number for n, not an expression", self.name));
            return Err(error.into());
        };
        let data_type = args.expr_fields[0].data_type().clone();
        Ok(Box::new(Greatest { data_type, limit: limit as usize, distinct: self.distinct, values: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let data_type = DataType::new_list(args.input_fields[0].data_type().clone(), true);
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), data_type, true))])
    }
}

/// The greatest values so far, greatest first.
#[derive(Debug)]
struct Greatest {
    data_type: DataType,
    limit: usize,
    distinct: bool,
    values: Vec<ScalarValue>,
}

impl Greatest {
    fn offer_all(&mut self, values: &ArrayRef) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = ScalarValue::try_from_array(values, row)?;
            let place = self.values.partition_point(|other| other.partial_cmp(&value) == Some(Ordering::Greater));
            let known = self.distinct && self.values.get(place) == Some(&value);
            if place < self.limit && !known {
                self.values.insert(place, value);
                self.values.truncate(self.limit);
            }
        }
        Ok(())
    }

    fn list(&self) -> ScalarValue {
        ScalarValue::List(ScalarValue::new_list_nullable(&self.values, &self.data_type))
    }
}

impl Accumulator for Greatest {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.offer_all(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.list())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(ScalarValue::size).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.list()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.offer_all(&values))
    }
}
