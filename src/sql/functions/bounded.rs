//! Bounds on what a function may make of its arguments.
//!
//! Some functions make much of little: `rpad('a', 2000000000)`, `array_repeat(1, n)`. They compute a batch of rows at once, and an
//! allocation that the machine cannot meet ends the process. So their results are estimated, and a call is refused when those of
//! one batch would take more than [`limits::FUNCTION_BYTES`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use crate::error::Error;
use crate::limits;
use crate::time::window::DAY;

/// About how many bytes the results of a batch take.
type Estimate = fn(&Arguments) -> DfResult<u64>;

const BOUNDED: [(&str, Estimate); 10] = [
    ("array_repeat", |call| call.each(|row| row.count(1).saturating_mul(row.size(0) + 8))),
    ("array_resize", |call| call.each(|row| row.count(1).saturating_mul(row.size(2) + 8))),
    ("array_to_string", |call| call.each(|row| row.elements(0).saturating_mul(row.size(1) + 32).saturating_add(row.size(0)))),
    ("concat_ws", |call| {
        let values = call.arguments.len() as u64;
        call.each(|row| row.size(0).saturating_mul(values))
    }),
    ("generate_series", |call| call.steps()),
    ("lpad", |call| call.each(|row| row.count(1).saturating_mul(MOST_OF_A_CHARACTER))),
    ("range", |call| call.steps()),
    // A pattern may be found before every character, and the replacement may name the whole of what was found.
    ("regexp_replace", |call| call.each(|row| (row.size(0) + 1).saturating_mul(row.size(2) + 1))),
    ("replace", |call| {
        call.each(|row| (row.size(0) / row.size(1).max(1) + 1).saturating_mul(row.size(2)).saturating_add(row.size(0)))
    }),
    ("rpad", |call| call.each(|row| row.count(1).saturating_mul(MOST_OF_A_CHARACTER))),
];

const MOST_OF_A_CHARACTER: u64 = 4;

/// DataFusion takes a negative length for a very great one; to PostgreSQL it is none.
const PADS: [&str; 2] = ["lpad", "rpad"];

/// Puts the bounded functions in the place of those that are registered.
pub fn bound(registry: &mut dyn FunctionRegistry) -> DfResult<()> {
    for (name, estimate) in BOUNDED {
        let inner = registry.udf(name)?;
        registry.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, estimate })))?;
    }
    Ok(())
}

#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    estimate: Estimate,
}

/// The estimate goes with the function.
impl PartialEq for Bounded {
    fn eq(&self, other: &Bounded) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
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
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let all_scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalars { 1 } else { args.number_rows };
        let bytes = (self.estimate)(&Arguments { arguments: &args.args, rows })?;
        if bytes > limits::FUNCTION_BYTES {
            let message =
                format!("requested length too large: the results of {} for a batch of rows would take too much", self.name());
            let bound = format!("about {bytes} bytes; at most {} are possible", limits::FUNCTION_BYTES);
            return Err(Error::limit_exceeded(message).with_detail(bound).into());
        }
        if PADS.contains(&self.name()) {
            args.args[1] = not_negative(&args.args[1])?;
        }
        self.inner.invoke_with_args(args)
    }
}

fn not_negative(lengths: &ColumnarValue) -> DfResult<ColumnarValue> {
    let raise = |array: ArrayRef| -> DfResult<ArrayRef> {
        let lengths = cast(&array, &DataType::Int64)?;
        let raised = lengths.as_primitive::<Int64Type>().unary::<_, Int64Type>(|length| length.max(0));
        Ok(cast(&raised, array.data_type())?)
    };
    Ok(match lengths {
        ColumnarValue::Array(array) => ColumnarValue::Array(raise(Arc::clone(array))?),
        ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(ScalarValue::try_from_array(&raise(scalar.to_array()?)?, 0)?),
    })
}

/// The arguments of a call for a batch of rows.
struct Arguments<'a> {
    arguments: &'a [ColumnarValue],
    rows: usize,
}

/// One argument.
struct Argument {
    values: ArrayRef,
    counts: Option<ArrayRef>,
    /// It stands for all rows.
    is_scalar: bool,
    /// Of a value, if all are about the same.
    average: u64,
}

impl Argument {
    fn of(argument: &ColumnarValue) -> DfResult<Argument> {
        let (values, is_scalar) = match argument {
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
            ColumnarValue::Array(array) => (Arc::clone(array), false),
        };
        let counts = if values.data_type().is_integer() { Some(cast(&values, &DataType::Int64)?) } else { None };
        let average = (values.get_array_memory_size() / values.len().max(1)) as u64;
        Ok(Argument { values, counts, is_scalar, average })
    }
}

/// The arguments of one row.
struct Row<'a> {
    arguments: &'a [Argument],
    row: usize,
}

impl Row<'_> {
    fn at(&self, argument: usize) -> Option<(&Argument, usize)> {
        let argument = self.arguments.get(argument)?;
        let row = if argument.is_scalar { 0 } else { self.row };
        argument.values.is_valid(row).then_some((argument, row))
    }

    /// A number of things that are asked for.
    fn count(&self, argument: usize) -> u64 {
        let number =
            self.at(argument).and_then(|(argument, row)| Some(argument.counts.as_ref()?.as_primitive::<Int64Type>().value(row)));
        number.map_or(0, |number| u64::try_from(number).unwrap_or(0))
    }

    /// The bytes of a value, exactly those of a text.
    fn size(&self, argument: usize) -> u64 {
        let Some((argument, row)) = self.at(argument) else { return 0 };
        let values = &argument.values;
        match values.data_type() {
            DataType::Utf8 => values.as_string::<i32>().value_length(row) as u64,
            DataType::LargeUtf8 => values.as_string::<i64>().value_length(row) as u64,
            DataType::Utf8View => values.as_string_view().value(row).len() as u64,
            _ => argument.average,
        }
    }

    /// The length of a list.
    fn elements(&self, argument: usize) -> u64 {
        let Some((argument, row)) = self.at(argument) else { return 0 };
        let values = &argument.values;
        match values.data_type() {
            DataType::List(_) => values.as_list::<i32>().value_length(row) as u64,
            DataType::LargeList(_) => values.as_list::<i64>().value_length(row) as u64,
            DataType::FixedSizeList(_, size) => *size as u64,
            _ => 0,
        }
    }
}

impl Arguments<'_> {
    fn read(&self) -> DfResult<Vec<Argument>> {
        self.arguments.iter().map(Argument::of).collect()
    }

    /// The sum of what the results of the rows take.
    fn each(&self, bytes: impl Fn(&Row) -> u64) -> DfResult<u64> {
        let arguments = self.read()?;
        let rows = (0..self.rows).map(|row| bytes(&Row { arguments: &arguments, row }));
        Ok(rows.fold(0, u64::saturating_add))
    }

    /// `range(end)`, `range(start, end)`, `range(start, end, step)`, of numbers or times.
    fn steps(&self) -> DfResult<u64> {
        let mut arguments = self.read()?;
        for argument in &mut arguments {
            argument.counts = match argument.values.data_type() {
                DataType::Date32 | DataType::Timestamp(..) => Some(instants(&argument.values)?),
                DataType::Interval(IntervalUnit::MonthDayNano) => Some(micros(&argument.values)),
                _ => argument.counts.take(),
            };
        }
        let arguments = &arguments;
        let number = |at: usize, row: usize| {
            let row = Row { arguments, row };
            let (argument, row) = row.at(at)?;
            Some(i128::from(argument.counts.as_ref()?.as_primitive::<Int64Type>().value(row)))
        };
        let of_row = |row: usize| {
            let (start, end) = if arguments.len() == 1 { (0, number(0, row)?) } else { (number(0, row)?, number(1, row)?) };
            let step = if arguments.len() > 2 { number(2, row)? } else { 1 };
            let distance = if step < 0 { start - end } else { end - start };
            // A step of nothing is refused by the function itself.
            u64::try_from(distance.checked_div(step.abs())?.max(0) * 8).ok()
        };
        Ok((0..self.rows).filter_map(of_row).fold(0, u64::saturating_add))
    }
}

/// Microseconds since the epoch.
fn instants(values: &ArrayRef) -> DfResult<ArrayRef> {
    let micros = cast(values, &crate::time::TIMESTAMP)?;
    Ok(cast(&micros, &DataType::Int64)?)
}

/// At least so long is each interval.
fn micros(values: &ArrayRef) -> ArrayRef {
    let intervals = values.as_primitive::<IntervalMonthDayNanoType>();
    let micros = intervals.unary::<_, Int64Type>(|interval| {
        let days = i64::from(interval.months) * 28 + i64::from(interval.days);
        days.saturating_mul(DAY).saturating_add(interval.nanoseconds / 1000)
    });
    Arc::new(micros)
}
