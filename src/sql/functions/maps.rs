//! Functions of maps. A map has each key once, in the order in which the keys came first; of several values the last one counts.
//!
//! | call | answer |
//! | --- | --- |
//! | `map_from_arrays(keys, values)` | the keys with the values at their places, as far as both go |
//! | `map_from_entries(entries)` | of a list of structs, their first field with their second |
//! | `map_from_pairs(pairs)` | of a list of lists, their first element with their second |
//! | `map_union(m, …)` | the entries of all |
//! | `map_delete(m, k)`, `map_contains(m, k)` | without a key; whether there is a key |
//! | `map_items(m, sorted)` | a list of structs `(k, v)`, in the order of keys if that is wanted |
//! | `map_counts(list)` | how often each value is in a list, in the order of values |
//!
//! No entry has NULL as its key: such ones are left out. Of a NULL the answer is NULL.

use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, MapArray, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::{Error, Result};
use crate::sql::types;

/// All of them.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let function = |name, what| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(OfMaps { name, what, signature }))
    };
    vec![
        function("map_from_arrays", What::FromArrays),
        function("map_from_entries", What::FromEntries),
        function("map_from_pairs", What::FromPairs),
        function("map_union", What::Union),
        function("map_delete", What::Delete),
        function("map_contains", What::Contains),
        function("map_items", What::Items),
        function("map_counts", What::Counts),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    FromArrays,
    FromEntries,
    FromPairs,
    Union,
    Delete,
    Contains,
    Items,
    Counts,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfMaps {
    name: &'static str,
    what: What,
    signature: Signature,
}

impl OfMaps {
    fn wrong(&self, arguments: &[DataType]) -> Error {
        let given: Vec<String> = arguments.iter().map(types::plain_name).collect();
        Error::undefined_function(format!("function {}({}) does not exist", self.name, given.join(", ")))
    }

    fn returned(&self, arguments: &[DataType]) -> Option<DataType> {
        use DataType as D;
        Some(match (self.what, arguments) {
            (What::FromArrays, [D::List(keys), D::List(values)]) => {
                types::map(keys.data_type().clone(), values.data_type().clone())
            }
            (What::FromEntries, [D::List(entry)]) => match entry.data_type() {
                D::Struct(fields) if fields.len() == 2 => {
                    types::map(fields[0].data_type().clone(), fields[1].data_type().clone())
                }
                _ => return None,
            },
            (What::FromPairs, [D::List(pair)]) => match pair.data_type() {
                D::List(item) => types::map(item.data_type().clone(), item.data_type().clone()),
                _ => return None,
            },
            (What::Union, [first @ D::Map(..), ..]) | (What::Delete, [first @ D::Map(..), _]) => {
                let (key, value) = parts(first)?;
                types::map(key, value)
            }
            (What::Contains, [D::Map(..), _]) => D::Boolean,
            (What::Items, [map @ D::Map(..), D::Boolean]) => D::new_list(D::Struct(item(map)?), true),
            (What::Counts, [D::List(value)]) => types::map(value.data_type().clone(), D::Int64),
            _ => return None,
        })
    }
}

/// Types of a map's keys and values.
fn parts(map: &DataType) -> Option<(DataType, DataType)> {
    match map {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => Some((fields[0].data_type().clone(), fields[1].data_type().clone())),
            _ => None,
        },
        _ => None,
    }
}

/// What ENTRIES gives: ksqlDB's names of its fields.
fn item(map: &DataType) -> Option<Fields> {
    let (key, value) = parts(map)?;
    Some(Fields::from(vec![Field::new("k", key, true), Field::new("v", value, true)]))
}

impl ScalarUDFImpl for OfMaps {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        let mut wanted = arguments.to_vec();
        // The other maps, and a key, are of the type of the first.
        if let (What::Union, Some((first, others))) = (self.what, wanted.split_first_mut()) {
            others.iter_mut().for_each(|other| *other = first.clone());
        }
        if let (What::Delete | What::Contains, [map, key]) = (self.what, wanted.as_mut_slice())
            && let Some((wanted, _)) = parts(map)
        {
            *key = wanted;
        }
        match self.returned(&wanted) {
            Some(_) => Ok(wanted),
            None => Err(self.wrong(arguments).into()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        self.returned(arguments).ok_or_else(|| self.wrong(arguments).into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.into_iter().map(|value| value.into_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let nulls = arrays.iter().fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref()));
        Ok(ColumnarValue::Array(evaluate(self.what, &arrays, nulls, args.return_field.data_type())?))
    }
}

/// The keys and values that a row's map may have, by where they are: the number of an array, and a place in it.
type Place = (usize, usize);

fn evaluate(what: What, arrays: &[ArrayRef], nulls: Option<NullBuffer>, returned: &DataType) -> DfResult<ArrayRef> {
    let rows = arrays.first().map_or(0, |array| array.len());
    let is_there = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    match what {
        What::FromArrays => {
            let (keys, values) = (list(&arrays[0])?, list(&arrays[1])?);
            let mut made = Entries::new(vec![Arc::clone(keys.values())], vec![Arc::clone(values.values())])?;
            for row in 0..rows {
                if is_there(row) {
                    let (key, value) = (keys.offsets()[row] as usize, values.offsets()[row] as usize);
                    let length = keys.value_length(row).min(values.value_length(row)) as usize;
                    (0..length).for_each(|at| made.add((0, key + at), (0, value + at)));
                }
                made.end();
            }
            made.finish(returned, nulls)
        }
        What::FromEntries => {
            let entries = list(&arrays[0])?;
            let fields = entries.values().as_struct();
            let mut made = Entries::new(vec![Arc::clone(fields.column(0))], vec![Arc::clone(fields.column(1))])?;
            for row in 0..rows {
                let places = entries.offsets()[row] as usize..entries.offsets()[row + 1] as usize;
                places.filter(|at| is_there(row) && fields.is_valid(*at)).for_each(|at| made.add((0, at), (0, at)));
                made.end();
            }
            made.finish(returned, nulls)
        }
        What::FromPairs => {
            let pairs = list(&arrays[0])?;
            let inner = list(pairs.values())?;
            let mut made = Entries::new(vec![Arc::clone(inner.values())], vec![Arc::clone(inner.values())])?;
            for row in 0..rows {
                let places = pairs.offsets()[row] as usize..pairs.offsets()[row + 1] as usize;
                for at in places.filter(|at| is_there(row) && inner.is_valid(*at) && inner.value_length(*at) == 2) {
                    let key = inner.offsets()[at] as usize;
                    made.add((0, key), (0, key + 1));
                }
                made.end();
            }
            made.finish(returned, nulls)
        }
        What::Union => {
            let maps: Vec<&MapArray> = arrays.iter().map(|array| array.as_map()).collect();
            let keys = maps.iter().map(|map| Arc::clone(map.keys())).collect();
            let mut made = Entries::new(keys, maps.iter().map(|map| Arc::clone(map.values())).collect())?;
            for row in 0..rows {
                for (number, map) in maps.iter().enumerate().filter(|_| is_there(row)) {
                    places(map, row).for_each(|at| made.add((number, at), (number, at)));
                }
                made.end();
            }
            made.finish(returned, nulls)
        }
        What::Delete | What::Contains => {
            let map = arrays[0].as_map();
            let converter = converter(map.keys().data_type())?;
            let (keys, sought) =
                (converter.convert_columns(&[Arc::clone(map.keys())])?, converter.convert_columns(&[Arc::clone(&arrays[1])])?);
            if what == What::Contains {
                let found = |row: usize| is_there(row).then(|| places(map, row).any(|at| keys.row(at) == sought.row(row)));
                return Ok(Arc::new((0..rows).map(found).collect::<BooleanArray>()));
            }
            let mut made = Entries::new(vec![Arc::clone(map.keys())], vec![Arc::clone(map.values())])?;
            for row in 0..rows {
                let others = places(map, row).filter(|at| is_there(row) && keys.row(*at) != sought.row(row));
                others.for_each(|at| made.add((0, at), (0, at)));
                made.end();
            }
            made.finish(returned, nulls)
        }
        What::Items => items(arrays[0].as_map(), arrays[1].as_boolean(), nulls),
        What::Counts => counts(list(&arrays[0])?, returned),
    }
}

fn list(array: &ArrayRef) -> Result<&ListArray> {
    array.as_list_opt::<i32>().ok_or_else(|| Error::internal("a function of lists is given one"))
}

fn converter(keys: &DataType) -> DfResult<RowConverter> {
    Ok(RowConverter::new(vec![SortField::new(keys.clone())])?)
}

/// Where the entries of a row's map are.
fn places(map: &MapArray, row: usize) -> std::ops::Range<usize> {
    map.offsets()[row] as usize..map.offsets()[row + 1] as usize
}

/// Maps as they are put together, a row after the other.
struct Entries {
    keys: Vec<ArrayRef>,
    values: Vec<ArrayRef>,
    /// The keys as bytes, to be compared.
    bytes: Vec<arrow::row::Rows>,
    picked: Vec<(Place, Place)>,
    lengths: Vec<usize>,
    /// Of the row at hand: where each of its keys is among what was picked.
    known: HashTable<usize>,
    hasher: RandomState,
    start: usize,
}

impl Entries {
    fn new(keys: Vec<ArrayRef>, values: Vec<ArrayRef>) -> DfResult<Entries> {
        let converter = converter(keys.first().map_or(&DataType::Null, |keys| keys.data_type()))?;
        let bytes = keys.iter().map(|keys| Ok(converter.convert_columns(&[Arc::clone(keys)])?)).collect::<DfResult<_>>()?;
        let (picked, lengths) = (Vec::new(), Vec::new());
        Ok(Entries { keys, values, bytes, picked, lengths, known: HashTable::new(), hasher: RandomState::new(), start: 0 })
    }

    fn add(&mut self, key: Place, value: Place) {
        if self.keys[key.0].is_null(key.1) {
            return;
        }
        let row = |(array, at): Place| self.bytes[array].row(at);
        let hash = |place| self.hasher.hash_one(row(place));
        let is_same = |known: &usize| row(self.picked[*known].0) == row(key);
        match self.known.entry(hash(key), is_same, |known| hash(self.picked[*known].0)) {
            Entry::Occupied(known) => self.picked[*known.get()].1 = value,
            Entry::Vacant(new) => {
                new.insert(self.picked.len());
                self.picked.push((key, value));
            }
        }
    }

    fn end(&mut self) {
        self.lengths.push(self.picked.len() - self.start);
        self.start = self.picked.len();
        self.known.clear();
    }

    fn finish(self, returned: &DataType, nulls: Option<NullBuffer>) -> DfResult<ArrayRef> {
        let pick = |arrays: &[ArrayRef], places: Vec<Place>| {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            interleave(&arrays, &places)
        };
        let keys = pick(&self.keys, self.picked.iter().map(|(key, _)| *key).collect())?;
        let values = pick(&self.values, self.picked.iter().map(|(_, value)| *value).collect())?;
        maps(returned, keys, values, self.lengths, nulls)
    }
}

fn maps(
    returned: &DataType,
    keys: ArrayRef,
    values: ArrayRef,
    lengths: Vec<usize>,
    nulls: Option<NullBuffer>,
) -> DfResult<ArrayRef> {
    let DataType::Map(field, _) = returned else { return Err(Error::internal("a map is one").into()) };
    let DataType::Struct(fields) = field.data_type() else { return Err(Error::internal("entries have fields").into()) };
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    Ok(Arc::new(MapArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), entries, nulls, false)?))
}

/// Keys and values as structs.
fn items(map: &MapArray, sorted: &BooleanArray, nulls: Option<NullBuffer>) -> DfResult<ArrayRef> {
    let bytes = converter(map.keys().data_type())?.convert_columns(&[Arc::clone(map.keys())])?;
    let (mut picked, mut lengths) = (Vec::new(), Vec::with_capacity(map.len()));
    for row in 0..map.len() {
        let is_there = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let mut of_row: Vec<usize> = if is_there { places(map, row).collect() } else { Vec::new() };
        if is_there && sorted.value(row) {
            of_row.sort_by(|a, b| bytes.row(*a).cmp(&bytes.row(*b)));
        }
        lengths.push(of_row.len());
        picked.extend(of_row.into_iter().map(|at| (0, at)));
    }
    let Some(fields) = item(map.data_type()) else { return Err(Error::internal("a map has keys and values").into()) };
    let columns = [map.keys(), map.values()].map(|column| interleave(&[column.as_ref()], &picked));
    let columns = columns.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let items = StructArray::try_new(fields.clone(), columns, None)?;
    let field = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(items), nulls)?))
}

fn counts(lists: &ListArray, returned: &DataType) -> DfResult<ArrayRef> {
    let values = lists.values();
    if values.data_type().is_null() {
        return Ok(new_null_array(returned, lists.len()));
    }
    let bytes = converter(values.data_type())?.convert_columns(&[Arc::clone(values)])?;
    let (mut picked, mut counted, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(lists.len()));
    for row in 0..lists.len() {
        let before = picked.len();
        let mut of_row: Vec<usize> = match lists.is_valid(row) {
            true => {
                (lists.offsets()[row] as usize..lists.offsets()[row + 1] as usize).filter(|at| values.is_valid(*at)).collect()
            }
            false => Vec::new(),
        };
        of_row.sort_by(|a, b| bytes.row(*a).cmp(&bytes.row(*b)));
        for equal in of_row.chunk_by(|a, b| bytes.row(*a) == bytes.row(*b)) {
            picked.push((0, equal[0]));
            counted.push(i64::try_from(equal.len()).unwrap_or(i64::MAX));
        }
        lengths.push(picked.len() - before);
    }
    let keys = interleave(&[values.as_ref()], &picked)?;
    maps(returned, keys, Arc::new(Int64Array::from(counted)), lengths, lists.nulls().cloned())
}
