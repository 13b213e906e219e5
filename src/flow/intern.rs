//! Interning: the distinct keys of a relation as dense numbers.
//!
//! State is kept in columns indexed by the number of a key, so a batch's keys are looked up once and everything after works on
//! numbers. Numbers of removed keys are used again. The order in which keys come decides the numbers, nothing else does: the
//! hash is seeded with constants, and no result depends on it.

use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt32Array, new_empty_array};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;

use crate::error::Result;

/// The seeds are arbitrary and fixed.
pub fn hasher() -> RandomState {
    RandomState::with_seeds(0x5eed_0001, 0x5eed_0002, 0x5eed_0003, 0x5eed_0004)
}

/// Keys of one or more columns, or of none (then there is one key).
pub struct Interner {
    types: Vec<DataType>,
    table: HashTable<u32>,
    keys: Keys,
    free: Vec<u32>,
    hasher: RandomState,
}

/// The keys by number.
enum Keys {
    /// No column.
    Unit { used: bool },
    /// One column of a type that casts to and from `i64` without loss; NULL has a number too, not in the table.
    Integer { values: Vec<i64>, null: Option<u32> },
    /// Anything else in the comparable row format.
    Rows { converter: Arc<RowConverter>, values: Vec<Box<[u8]>> },
}

/// Types whose values fit an `i64`.
fn is_integer(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32 | Timestamp(_, _))
}

impl Interner {
    pub fn new(types: Vec<DataType>) -> Result<Interner> {
        let keys = match types.as_slice() {
            [] => Keys::Unit { used: false },
            [one] if is_integer(one) => Keys::Integer { values: Vec::new(), null: None },
            several => {
                let fields = several.iter().map(|t| SortField::new(t.clone())).collect();
                Keys::Rows { converter: Arc::new(RowConverter::new(fields)?), values: Vec::new() }
            }
        };
        Ok(Interner { types, table: HashTable::new(), keys, free: Vec::new(), hasher: hasher() })
    }

    /// One more than the greatest number ever given.
    pub fn capacity(&self) -> usize {
        match &self.keys {
            Keys::Unit { used } => usize::from(*used),
            Keys::Integer { values, .. } => values.len(),
            Keys::Rows { values, .. } => values.len(),
        }
    }

    /// Keys present.
    pub fn len(&self) -> usize {
        self.capacity() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Unit { .. } => 0,
            Keys::Integer { values, .. } => values.capacity() * 8,
            Keys::Rows { values, .. } => values.iter().map(|v| v.len() + 16).sum(),
        };
        keys + self.table.capacity() * 5 + self.free.capacity() * 4
    }

    /// The number of each row's key, new ones made where needed.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize, numbers: &mut Vec<u32>) -> Result<()> {
        numbers.clear();
        numbers.reserve(rows);
        match &mut self.keys {
            Keys::Unit { used } => {
                *used = true;
                self.free.clear();
                numbers.resize(rows, 0);
            }
            Keys::Integer { values, null } => {
                let array = as_i64(&columns[0])?;
                let (table, free, hasher) = (&mut self.table, &mut self.free, &self.hasher);
                let mut intern = |value: i64, values: &mut Vec<i64>| {
                    let hash = hasher.hash_one(value);
                    let entry = table.entry(hash, |n| values[*n as usize] == value, |n| hasher.hash_one(values[*n as usize]));
                    match entry {
                        hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
                        hashbrown::hash_table::Entry::Vacant(place) => *place.insert(place_at(free, values, value)).get(),
                    }
                };
                if array.null_count() == 0 {
                    let mut last: Option<(i64, u32)> = None;
                    for value in array.values() {
                        let number = match last {
                            Some((same, number)) if same == *value => number,
                            _ => intern(*value, values),
                        };
                        last = Some((*value, number));
                        numbers.push(number);
                    }
                } else {
                    for value in array.iter() {
                        numbers.push(match (value, &null) {
                            (Some(value), _) => intern(value, values),
                            (None, Some(number)) => *number,
                            (None, None) => *null.insert(free_place(values, self.hasher.hash_one(0u8) as i64)),
                        });
                    }
                }
            }
            Keys::Rows { converter, values } => {
                let encoded = converter.convert_columns(columns)?;
                let (table, free, hasher) = (&mut self.table, &mut self.free, &self.hasher);
                for row in encoded.iter() {
                    let data = row.data();
                    let hash = hasher.hash_one(data);
                    let entry = table.entry(hash, |n| *values[*n as usize] == *data, |n| hasher.hash_one(&*values[*n as usize]));
                    numbers.push(match entry {
                        hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
                        hashbrown::hash_table::Entry::Vacant(place) => *place.insert(place_at(free, values, data.into())).get(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Forget a key; its number will be given to another.
    pub fn remove(&mut self, number: u32) {
        match &mut self.keys {
            Keys::Unit { used } => {
                *used = false;
                return;
            }
            Keys::Integer { null: Some(null), .. } if *null == number => {
                // The place of NULL is not in the table; it stays NULL's own.
                return;
            }
            Keys::Integer { values, .. } => {
                let hash = self.hasher.hash_one(values[number as usize]);
                if let Ok(entry) = self.table.find_entry(hash, |n| *n == number) {
                    entry.remove();
                }
            }
            Keys::Rows { values, .. } => {
                let hash = self.hasher.hash_one(&*values[number as usize]);
                if let Ok(entry) = self.table.find_entry(hash, |n| *n == number) {
                    entry.remove();
                }
                values[number as usize] = Box::default();
            }
        }
        self.free.push(number);
    }

    /// The keys of these numbers, one array per column.
    pub fn keys(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.keys {
            Keys::Unit { .. } => Ok(Vec::new()),
            Keys::Integer { values, null } => {
                let value = |n: &u32| (Some(*n) != *null).then(|| values[*n as usize]);
                let array: PrimitiveArray<Int64Type> = match null {
                    None => PrimitiveArray::from_iter_values(numbers.iter().map(|n| values[*n as usize])),
                    Some(_) => numbers.iter().map(value).collect(),
                };
                Ok(vec![from_i64(array, &self.types[0])?])
            }
            Keys::Rows { converter, values } => {
                let parser = converter.parser();
                let arrays = converter.convert_rows(numbers.iter().map(|n| parser.parse(&values[*n as usize])))?;
                let fit = |(array, data_type): (ArrayRef, &DataType)| {
                    if array.data_type() == data_type { Ok(array) } else { Ok(arrow::compute::cast(&array, data_type)?) }
                };
                arrays.into_iter().zip(&self.types).map(fit).collect()
            }
        }
    }

    /// Columns of no rows, for schemas.
    pub fn empty_keys(&self) -> Vec<ArrayRef> {
        self.types.iter().map(new_empty_array).collect()
    }
}

/// Put a value into a free place, or behind the last.
fn place_at<T>(free: &mut Vec<u32>, values: &mut Vec<T>, value: T) -> u32 {
    match free.pop() {
        Some(number) => {
            values[number as usize] = value;
            number
        }
        None => free_place(values, value),
    }
}

fn free_place<T>(values: &mut Vec<T>, value: T) -> u32 {
    values.push(value);
    u32::try_from(values.len() - 1).expect("fewer than 2^32 keys in one operator")
}

fn as_i64(array: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    let as_int = match array.data_type() {
        DataType::Int64 => Arc::clone(array),
        DataType::Date32 => arrow::compute::cast(&arrow::compute::cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => arrow::compute::cast(array, &DataType::Int64)?,
    };
    Ok(as_int.as_primitive::<Int64Type>().clone())
}

fn from_i64(array: PrimitiveArray<Int64Type>, data_type: &DataType) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Int64 => Arc::new(array),
        DataType::Date32 => arrow::compute::cast(&arrow::compute::cast(&array, &DataType::Int32)?, data_type)?,
        _ => arrow::compute::cast(&array, data_type)?,
    })
}

/// The shard that owns each row, by the hash of its key columns. The same for equal keys of equal types, always.
pub fn shards(columns: &[ArrayRef], rows: usize, of: usize) -> Result<Vec<u32>> {
    if columns.is_empty() || of == 1 {
        return Ok(vec![0; rows]);
    }
    let hasher = hasher();
    // The upper half of the hash: the tables behind use the lower one.
    let shard = |hash: u64| ((hash >> 32) % of as u64) as u32;
    if let [one] = columns
        && is_integer(one.data_type())
    {
        let array = as_i64(one)?;
        return Ok(array.iter().map(|value| value.map_or(0, |value| shard(hasher.hash_one(value)))).collect());
    }
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect::<Vec<_>>();
    let encoded = RowConverter::new(fields)?.convert_columns(columns)?;
    Ok(encoded.iter().map(|row| shard(hasher.hash_one(row.data()))).collect())
}

/// The rows of each shard, in order.
pub fn split(shards: &[u32], of: usize) -> Vec<UInt32Array> {
    let mut indices = vec![Vec::with_capacity(shards.len() / of + 1); of];
    for (row, shard) in shards.iter().enumerate() {
        indices[*shard as usize].push(row as u32);
    }
    indices.into_iter().map(UInt32Array::from).collect()
}

/// A field of the same type that may be NULL.
pub fn nullable(name: impl Into<String>, data_type: &DataType) -> Field {
    Field::new(name, data_type.clone(), true)
}
