//! Functions of lists that forms of PostgreSQL's grammar stand for: `a[2:3]`, and `mode()` of a group's sorted values.
//!
//! | call | answer |
//! | --- | --- |
//! | `array_part(a, from, to)` | the elements from one place to another, both counted from 1; places outside are none |
//! | `array_mode(a)` | the value that follows itself most often, the first of several: of a sorted list, the most frequent one |
//! | `array_cube(a)` | ksqlDB's CUBE_EXPLODE as a list: `a` with every choice of its elements replaced by NULL |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;
use crate::sql::types;

pub fn all() -> Vec<Arc<ScalarUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    [
        OfList { name: "array_part", call: part, bounds: 2, gives: Gives::List, signature: signature() },
        OfList { name: "array_mode", call: mode, bounds: 0, gives: Gives::Element, signature: signature() },
        OfList { name: "array_cube", call: cube, bounds: 0, gives: Gives::Lists, signature: signature() },
    ]
    .map(|function| Arc::new(ScalarUDF::new_from_impl(function)))
    .to_vec()
}

/// A function of a list, and of numbers behind it.
#[derive(Debug)]
struct OfList {
    name: &'static str,
    call: fn(&ListArray, &[&Int64Array]) -> DfResult<ArrayRef>,
    bounds: usize,
    gives: Gives,
    signature: Signature,
}

#[derive(Clone, Copy, Debug)]
enum Gives {
    Element,
    List,
    /// A list of such lists.
    Lists,
}

impl PartialEq for OfList {
    fn eq(&self, other: &OfList) -> bool {
        self.name == other.name
    }
}

impl Eq for OfList {}

impl std::hash::Hash for OfList {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for OfList {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        let [DataType::List(item), bounds @ ..] = arguments else {
            let of = arguments.first().map(types::plain_name).unwrap_or_default();
            return Err(Error::datatype_mismatch(format!("cannot subscript type {of} because it does not support slices")).into());
        };
        let is_number = |t: &DataType| t.is_integer() || t.is_null();
        if bounds.len() != self.bounds || !bounds.iter().all(is_number) {
            return Err(Error::datatype_mismatch("array subscript must have type integer").into());
        }
        let bounds = bounds.iter().map(|_| DataType::Int64);
        Ok([DataType::List(Arc::clone(item))].into_iter().chain(bounds).collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [list @ DataType::List(item), ..] => Ok(match self.gives {
                Gives::Element => item.data_type().clone(),
                Gives::List => list.clone(),
                Gives::Lists => DataType::new_list(list.clone(), true),
            }),
            _ => Err(Error::internal("a function of lists is given one").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.into_iter().map(|value| value.into_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let lists = arrays.first().and_then(|lists| lists.as_list_opt::<i32>());
        let lists = lists.ok_or_else(|| Error::internal("a function of lists is given one"))?;
        let bounds: Vec<&Int64Array> = arrays[1..].iter().filter_map(|bound| bound.as_primitive_opt::<Int64Type>()).collect();
        Ok(ColumnarValue::Array((self.call)(lists, &bounds)?))
    }
}

fn part(lists: &ListArray, bounds: &[&Int64Array]) -> DfResult<ArrayRef> {
    let [from, to] = bounds else { return Err(Error::internal("a part of a list has two bounds").into()) };
    let (mut places, mut lengths) = (Vec::new(), Vec::with_capacity(lists.len()));
    let nulls = NullBuffer::union(lists.nulls(), NullBuffer::union(from.nulls(), to.nulls()).as_ref());
    for row in 0..lists.len() {
        let start = lists.offsets()[row] as u64;
        let length = i64::from(lists.value_length(row));
        let (first, last) = (from.value(row).max(1), to.value(row).min(length));
        let is_some = first <= last && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let before = places.len();
        if is_some {
            places.extend((first..=last).map(|place| start + (place - 1) as u64));
        }
        lengths.push(places.len() - before);
    }
    let values = compute::take(lists.values(), &UInt64Array::from(places), None)?;
    let DataType::List(item) = lists.data_type() else { return Err(Error::internal("a list is one").into()) };
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, nulls)?))
}

fn mode(lists: &ListArray, _: &[&Int64Array]) -> DfResult<ArrayRef> {
    let values = lists.values();
    let rows = RowConverter::new(vec![SortField::new(values.data_type().clone())])?.convert_columns(&[Arc::clone(values)])?;
    let most = |row: usize| {
        if lists.is_null(row) {
            return None;
        }
        let (start, end) = (lists.offsets()[row] as usize, lists.offsets()[row + 1] as usize);
        let (mut best, mut run) = (None, 0usize..0);
        for place in start..end {
            run = if !run.is_empty() && rows.row(place) == rows.row(run.start) { run.start..place + 1 } else { place..place + 1 };
            if best.as_ref().is_none_or(|(longest, _)| run.len() > *longest) {
                best = Some((run.len(), run.start as u64));
            }
        }
        best.map(|(_, place)| place)
    };
    let places: UInt64Array = (0..lists.len()).map(most).collect();
    Ok(compute::take(values, &places, None)?)
}

/// Longer lists have more choices than anybody wants rows.
const MOST_OF_A_CUBE: usize = 12;

fn cube(lists: &ListArray, _: &[&Int64Array]) -> DfResult<ArrayRef> {
    let values = lists.values();
    let (mut places, mut inner, mut outer) = (Vec::new(), Vec::new(), Vec::with_capacity(lists.len()));
    for row in 0..lists.len() {
        let all = lists.offsets()[row] as usize..lists.offsets()[row + 1] as usize;
        if lists.is_null(row) {
            outer.push(0);
            continue;
        }
        // What is NULL is no choice.
        let chosen: Vec<usize> = all.clone().filter(|at| values.is_valid(*at)).collect();
        if chosen.len() > MOST_OF_A_CUBE {
            let message = format!("a list of {} elements has too many subsets, {MOST_OF_A_CUBE} are possible", chosen.len());
            return Err(Error::limit_exceeded(message).into());
        }
        for choice in 0..1usize << chosen.len() {
            let is_in = |at: &usize| chosen.iter().rev().position(|place| place == at).is_some_and(|bit| choice >> bit & 1 == 1);
            places.extend(all.clone().map(|at| is_in(&at).then_some(at as u64)));
            inner.push(all.len());
        }
        outer.push(1 << chosen.len());
    }
    let items = compute::take(values, &UInt64Array::from(places), None)?;
    let DataType::List(item) = lists.data_type() else { return Err(Error::internal("a list is one").into()) };
    let inner = ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(inner), items, None)?;
    let field = Arc::new(Field::new_list_field(lists.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(outer), Arc::new(inner), lists.nulls().cloned())?))
}
