//! Which dense number stands for which key.
//!
//! A store is asked for millions of keys a second, so a key is looked up once per batch row and from then on is its number: an
//! index into plain vectors. Keys of one column of four or eight bytes are kept in the hash table itself; all others as bytes
//! in one arena, strings as they are and the rest in Arrow's row format. Two keys are the same if they are the same bits, with
//! NULL a value like others: NULL = NULL and NaN = NaN, but -0.0 is not 0.0.
//!
//! Invariant: a number belongs to one key from `intern` until `release`, and then to the next new key.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, StringArray, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::Result;

/// Seeds of the hash: fixed, so that a run is the same every time.
const HASH: ahash::RandomState = ahash::RandomState::with_seeds(0x7469_6465, 0x6761_7465, 0x6b65, 0x7973);

/// Arena bytes of released keys that are not worth a compaction.
const GARBAGE: usize = 64 << 10;

/// Marks the span of a released number.
const RELEASED: u32 = u32::MAX;

/// Numbers for keys of one list of types.
pub enum Keys {
    Words(Words),
    Bytes(Bytes),
}

impl Keys {
    pub fn new(types: &[&DataType]) -> Result<Keys> {
        match types {
            [one] if matches!(one.primitive_width(), Some(4 | 8)) => Ok(Keys::Words(Words::new((*one).clone()))),
            [one @ (DataType::Utf8 | DataType::Utf8View)] => Ok(Keys::Bytes(Bytes::new(vec![(*one).clone()], None))),
            _ => {
                let fields = types.iter().map(|t| SortField::new((*t).clone())).collect();
                let types = types.iter().map(|t| (*t).clone()).collect();
                Ok(Keys::Bytes(Bytes::new(types, Some(RowConverter::new(fields)?))))
            }
        }
    }

    /// The numbers of `rows` keys; new keys get one.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        match self {
            Keys::Words(words) => Ok(words.intern(&columns[0])),
            Keys::Bytes(bytes) => bytes.intern(columns, rows),
        }
    }

    /// The numbers of `rows` keys, where they have one.
    pub fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<u32>>> {
        match self {
            Keys::Words(words) => Ok(words.find(&columns[0])),
            Keys::Bytes(bytes) => bytes.find(columns, rows),
        }
    }

    /// The keys of these numbers, a column per type.
    pub fn columns(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        match self {
            Keys::Words(words) => Ok(vec![words.column(numbers)?]),
            Keys::Bytes(bytes) => bytes.columns(numbers),
        }
    }

    /// Forget a key; its number may come back for another.
    pub fn release(&mut self, id: u32) {
        match self {
            Keys::Words(words) => words.release(id),
            Keys::Bytes(bytes) => bytes.release(id),
        }
    }

    /// All numbers given so far are below this.
    pub fn end(&self) -> usize {
        match self {
            Keys::Words(words) => words.words.len(),
            Keys::Bytes(bytes) => bytes.spans.len(),
        }
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            Keys::Words(words) => words.table.allocation_size() + words.words.capacity() * 8 + words.free.capacity() * 4,
            Keys::Bytes(bytes) => {
                bytes.table.allocation_size() + bytes.spans.capacity() * 16 + bytes.arena.capacity() + bytes.free.capacity() * 4
            }
        }
    }
}

/// Keys of one machine word.
pub struct Words {
    data_type: DataType,
    table: HashTable<(u64, u32)>,
    /// By number. Of a released one: whatever was there.
    words: Vec<u64>,
    null: Option<u32>,
    free: Vec<u32>,
}

impl Words {
    fn new(data_type: DataType) -> Words {
        Words { data_type, table: HashTable::new(), words: Vec::new(), null: None, free: Vec::new() }
    }

    fn intern(&mut self, column: &ArrayRef) -> Vec<u32> {
        let mut ids = Vec::with_capacity(column.len());
        each_word(column, |word| {
            ids.push(match word {
                Some(word) => self.intern_word(word),
                None => self.intern_null(),
            });
        });
        ids
    }

    fn column(&self, numbers: &[u32]) -> Result<ArrayRef> {
        let words = || numbers.iter().map(|number| self.words[*number as usize]);
        let buffer: Buffer = match self.data_type.primitive_width() {
            Some(8) => words().collect::<Vec<u64>>().into(),
            _ => words().map(|word| word as u32).collect::<Vec<u32>>().into(),
        };
        let nulls = self.null.map(|null| numbers.iter().map(|number| *number != null).collect::<NullBuffer>());
        let data = ArrayData::builder(self.data_type.clone()).len(numbers.len()).add_buffer(buffer).nulls(nulls);
        Ok(make_array(data.build()?))
    }

    fn find(&self, column: &ArrayRef) -> Vec<Option<u32>> {
        let known = |word: u64| self.table.find(hash_word(word), |(other, _)| *other == word).map(|(_, id)| *id);
        let mut ids = Vec::with_capacity(column.len());
        each_word(column, |word| ids.push(word.map_or(self.null, known)));
        ids
    }

    fn intern_word(&mut self, word: u64) -> u32 {
        let hash = hash_word(word);
        // Most keys are there already, and a look-up is quicker than an entry.
        if let Some((_, id)) = self.table.find(hash, |(other, _)| *other == word) {
            return *id;
        }
        let id = next_id(&mut self.free, &mut self.words, word);
        self.table.insert_unique(hash, (word, id), |(other, _)| hash_word(*other));
        id
    }

    fn intern_null(&mut self) -> u32 {
        *self.null.get_or_insert_with(|| next_id(&mut self.free, &mut self.words, 0))
    }

    fn release(&mut self, id: u32) {
        if self.null == Some(id) {
            self.null = None;
        } else {
            let word = self.words[id as usize];
            let entry = self.table.find_entry(hash_word(word), |(_, other)| *other == id);
            entry.expect("a number is released once").remove();
        }
        self.free.push(id);
    }
}

/// Keys of any length.
pub struct Bytes {
    types: Vec<DataType>,
    /// None: the key is one column of strings, taken as it is.
    converter: Option<RowConverter>,
    table: HashTable<(u64, u32)>,
    /// By number: where in the arena its bytes are.
    spans: Vec<(usize, u32)>,
    arena: Vec<u8>,
    /// Arena bytes of released keys.
    garbage: usize,
    null: Option<u32>,
    free: Vec<u32>,
}

impl Bytes {
    fn new(types: Vec<DataType>, converter: Option<RowConverter>) -> Bytes {
        Bytes {
            types,
            converter,
            table: HashTable::new(),
            spans: Vec::new(),
            arena: Vec::new(),
            garbage: 0,
            null: None,
            free: Vec::new(),
        }
    }

    fn columns(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        let bytes = |number: &u32| slice(&self.spans, &self.arena, *number);
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let arrays = match &self.converter {
            Some(converter) => {
                let parser = converter.parser();
                converter.convert_rows(numbers.iter().map(|number| parser.parse(bytes(number))))?
            }
            None => {
                let text = |number: &u32| std::str::from_utf8(bytes(number)).expect("a string's bytes are UTF-8");
                let text = |number: &u32| (self.null != Some(*number)).then(|| text(number));
                vec![Arc::new(numbers.iter().map(text).collect::<StringArray>()) as ArrayRef]
            }
        };
        let fit = |(array, data_type): (ArrayRef, &DataType)| {
            if array.data_type() == data_type { Ok(array) } else { Ok(arrow::compute::cast(&array, data_type)?) }
        };
        arrays.into_iter().zip(&self.types).map(fit).collect()
    }

    fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(rows);
        // Taken out for the time, so that the rest of `self` can be changed.
        let converter = self.converter.take();
        let done = each_key(converter.as_ref(), columns, rows, |key| ids.push(self.intern_key(key)));
        self.converter = converter;
        done.map(|()| ids)
    }

    fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<u32>>> {
        let known = |key: &[u8]| {
            let hash = HASH.hash_one(key);
            let same = |(other, id): &(u64, u32)| *other == hash && slice(&self.spans, &self.arena, *id) == key;
            self.table.find(hash, same).map(|(_, id)| *id)
        };
        let mut ids = Vec::with_capacity(rows);
        each_key(self.converter.as_ref(), columns, rows, |key| ids.push(key.map_or(self.null, known)))?;
        Ok(ids)
    }

    fn intern_key(&mut self, key: Option<&[u8]>) -> u32 {
        match key {
            Some(key) => self.intern_bytes(key),
            None => *self.null.get_or_insert_with(|| next_id(&mut self.free, &mut self.spans, (0, 0))),
        }
    }

    fn intern_bytes(&mut self, key: &[u8]) -> u32 {
        let (spans, arena) = (&self.spans, &self.arena);
        let same = |(_, id): &(u64, u32)| slice(spans, arena, *id) == key;
        let hash = HASH.hash_one(key);
        match self.table.entry(hash, |entry| entry.0 == hash && same(entry), |entry| entry.0) {
            Entry::Occupied(entry) => entry.get().1,
            Entry::Vacant(entry) => {
                let length =
                    u32::try_from(key.len()).ok().filter(|length| *length != RELEASED).expect("a key has less than 4 GiB");
                let id = next_id(&mut self.free, &mut self.spans, (self.arena.len(), length));
                append(&mut self.arena, key);
                entry.insert((hash, id));
                id
            }
        }
    }

    fn release(&mut self, id: u32) {
        if self.null == Some(id) {
            self.null = None;
        } else {
            let hash = HASH.hash_one(slice(&self.spans, &self.arena, id));
            self.table.find_entry(hash, |(_, other)| *other == id).expect("a number is released once").remove();
            self.garbage += self.spans[id as usize].1 as usize;
        }
        self.spans[id as usize] = (0, RELEASED);
        self.free.push(id);
        if self.garbage > GARBAGE && self.garbage > self.arena.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage);
        for (start, length) in self.spans.iter_mut().filter(|(_, length)| *length != RELEASED) {
            let at = arena.len();
            append(&mut arena, &self.arena[*start..*start + *length as usize]);
            *start = at;
        }
        self.arena = arena;
        self.garbage = 0;
    }
}

/// The two halves of a product, folded: half the work of the general hash, and as good for numbers.
fn hash_word(word: u64) -> u64 {
    let product = u128::from(word ^ 0x7469_6465_6761_7465) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
    product as u64 ^ (product >> 64) as u64
}

/// A hash per key: the same for equal keys of equal types, in every process.
pub fn hashes(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = Vec::with_capacity(rows);
    match columns {
        [one] if matches!(one.data_type().primitive_width(), Some(4 | 8)) => {
            each_word(one, |word| hashes.push(HASH.hash_one(word)));
        }
        [one] if matches!(one.data_type(), DataType::Utf8 | DataType::Utf8View) => {
            each_key(None, columns, rows, |key| hashes.push(HASH.hash_one(key)))?;
        }
        _ => {
            let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
            each_key(Some(&RowConverter::new(fields)?), columns, rows, |key| hashes.push(HASH.hash_one(key)))?;
        }
    }
    Ok(hashes)
}

/// The values of a column of four or eight bytes.
fn each_word(column: &ArrayRef, mut visit: impl FnMut(Option<u64>)) {
    let data = column.to_data();
    let buffer = data.buffers()[0].clone();
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    let mut visit = |row: usize, word: u64| visit((!nulls.is_some_and(|nulls| nulls.is_null(row))).then_some(word));
    if column.data_type().primitive_width() == Some(8) {
        let words: ScalarBuffer<u64> = ScalarBuffer::new(buffer, data.offset(), data.len());
        words.iter().enumerate().for_each(|(row, word)| visit(row, *word));
    } else {
        let words: ScalarBuffer<u32> = ScalarBuffer::new(buffer, data.offset(), data.len());
        words.iter().enumerate().for_each(|(row, word)| visit(row, u64::from(*word)));
    }
}

/// The bytes of each key; `None` for a string that is NULL.
fn each_key(
    converter: Option<&RowConverter>,
    columns: &[ArrayRef],
    rows: usize,
    mut visit: impl FnMut(Option<&[u8]>),
) -> Result<()> {
    match (converter, columns) {
        (Some(_), []) => (0..rows).for_each(|_| visit(Some(&[]))),
        (Some(converter), columns) => converter.convert_columns(columns)?.iter().for_each(|row| visit(Some(row.data()))),
        (None, columns) => match columns[0].data_type() {
            DataType::Utf8 => columns[0].as_string::<i32>().iter().for_each(|key| visit(key.map(str::as_bytes))),
            _ => columns[0].as_string_view().iter().for_each(|key| visit(key.map(str::as_bytes))),
        },
    }
    Ok(())
}

/// Puts bytes behind the others, and writes some beyond them. A short key is compared by loading a whole vector and masking what is
/// too much. Where that reaches into a page that nothing was ever written to, the comparison takes a hundred times as long.
fn append(arena: &mut Vec<u8>, key: &[u8]) {
    arena.extend_from_slice(key);
    let end = arena.len();
    arena.extend_from_slice(&[0; 64]);
    arena.truncate(end);
}

fn slice<'a>(spans: &[(usize, u32)], arena: &'a [u8], id: u32) -> &'a [u8] {
    let (start, length) = spans[id as usize];
    &arena[start..start + length as usize]
}

fn next_id<T>(free: &mut Vec<u32>, all: &mut Vec<T>, value: T) -> u32 {
    if let Some(id) = free.pop() {
        all[id as usize] = value;
        return id;
    }
    all.push(value);
    u32::try_from(all.len() - 1).expect("a store has less than 2^32 keys")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array};
    use rstest::rstest;

    use super::*;

    fn keys(columns: &[ArrayRef]) -> Keys {
        Keys::new(&columns.iter().map(|c| c.data_type()).collect::<Vec<_>>()).unwrap()
    }

    #[rstest]
    #[case::word(vec![Arc::new(Int64Array::from(vec![Some(5), None, Some(0), Some(5), None])) as ArrayRef])]
    #[case::half_word(vec![Arc::new(Int32Array::from(vec![Some(-1), None, Some(0), Some(-1), None])) as ArrayRef])]
    #[case::string(vec![Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a"), None])) as ArrayRef])]
    #[case::two(vec![
        Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a"), None])) as ArrayRef,
        Arc::new(Int64Array::from(vec![1, 1, 1, 1, 1])) as ArrayRef,
    ])]
    fn equal_keys_share_a_number_and_released_numbers_come_back(#[case] columns: Vec<ArrayRef>) {
        let mut keys = keys(&columns);
        assert_eq!(keys.intern(&columns, 5).unwrap(), [0, 1, 2, 0, 1]);
        assert_eq!(keys.find(&columns, 5).unwrap(), [0, 1, 2, 0, 1].map(Some));
        let read: Vec<ArrayRef> = keys.columns(&[0, 1, 2, 0, 1]).unwrap();
        assert_eq!(read.iter().map(|c| c.to_data()).collect::<Vec<_>>(), columns.iter().map(|c| c.to_data()).collect::<Vec<_>>());
        keys.release(1);
        keys.release(0);
        assert_eq!(keys.intern(&columns, 5).unwrap(), [0, 1, 2, 0, 1]);
        assert_eq!(keys.end(), 3);
    }

    #[test]
    fn floats_are_their_bits() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, f64::NAN]));
        assert_eq!(keys(std::slice::from_ref(&column)).intern(&[column], 4).unwrap(), [0, 1, 2, 2]);
    }

    #[test]
    fn released_bytes_do_not_pile_up() {
        let mut keys = Keys::new(&[&DataType::Utf8]).unwrap();
        let kept: ArrayRef = Arc::new(StringArray::from(vec!["kept"]));
        keys.intern(std::slice::from_ref(&kept), 1).unwrap();
        for round in 0..200 {
            let column: ArrayRef = Arc::new(StringArray::from((0..100).map(|i| format!("{round}-{i:050}")).collect::<Vec<_>>()));
            for id in keys.intern(&[column], 100).unwrap() {
                keys.release(id);
            }
        }
        assert!(keys.bytes() < 500_000, "{} bytes", keys.bytes());
        assert_eq!(keys.intern(&[kept], 1).unwrap(), [0]);
    }
}
