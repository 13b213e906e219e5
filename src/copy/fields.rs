//! Where the fields of a block are: what the row formats find, and what the column parsers read.
//!
//! Rows are cut first, then each column is parsed in a loop of its own type. Positions are kept by row; text that had to be
//! unescaped stands in a second buffer.

use crate::error::Error;

/// An error and the row it is in.
#[derive(Debug)]
pub(crate) struct Bad {
    pub row: usize,
    pub error: Error,
}

impl Bad {
    pub fn at(row: usize) -> impl FnOnce(Error) -> Bad {
        move |error| Bad { row, error }
    }
}

/// Text of the values of a column; `None` is NULL.
pub(crate) trait Values {
    fn len(&self) -> usize;
    fn get(&self, row: usize) -> Option<&[u8]>;
}

/// Start and end in the block, or, with the top bit of the start, in the scratch buffer.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    end: u32,
}

const SCRATCH: u32 = 1 << 31;
const NULL: Field = Field { start: u32::MAX, end: 0 };
const MISSING: Field = Field { start: u32::MAX, end: 1 };

/// Why no more rows of a block were read.
pub(super) struct Stop {
    pub row: usize,
    /// Errors in earlier columns of the row come first; those in others don't matter.
    pub column: usize,
    pub error: Error,
}

pub(super) struct Fields<'a> {
    data: &'a [u8],
    scratch: Vec<u8>,
    fields: Vec<Field>,
    columns: usize,
    /// Where each row begins.
    starts: Vec<u32>,
    pub stop: Option<Stop>,
}

impl<'a> Fields<'a> {
    pub fn new(data: &'a [u8], columns: usize) -> Fields<'a> {
        assert!(data.len() < SCRATCH as usize, "a block has fewer than 2^31 bytes");
        // A guess of 16 bytes a field: no more than twice the size of what was read.
        let fields = Vec::with_capacity(data.len() / 16 + columns);
        Fields { data, scratch: Vec::new(), fields, columns, starts: Vec::new(), stop: None }
    }

    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// Bytes before the row.
    pub fn before(&self, row: usize) -> &'a [u8] {
        let start = self.starts.get(row).map_or(self.data.len(), |start| *start as usize);
        self.data.get(..start).unwrap_or_default()
    }

    /// What was sent from the row on.
    pub fn from(&self, row: usize) -> &'a [u8] {
        self.data.get(self.before(row).len()..).unwrap_or_default()
    }

    pub fn begin_row(&mut self, start: usize) {
        self.starts.push(start as u32);
    }

    /// Forget all rows.
    pub fn clear(&mut self) {
        self.starts.clear();
        self.fields.clear();
    }

    /// Forget the fields of a row that was begun last.
    pub fn abandon_row(&mut self) {
        self.starts.pop();
        self.fields.truncate(self.starts.len() * self.columns);
    }

    /// Stop in the row that was begun last. Its fields from `column` on are not there.
    pub fn stop(&mut self, column: usize, error: Error) {
        let row = self.starts.len().saturating_sub(1);
        self.fields.resize(self.starts.len() * self.columns, NULL);
        self.stop = Some(Stop { row, column, error });
    }

    #[inline]
    pub fn push(&mut self, start: usize, end: usize) {
        self.fields.push(Field { start: start as u32, end: end as u32 });
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.fields.push(NULL);
    }

    /// All fields of the row that was begun last, to be set in any order.
    pub fn push_missing(&mut self) {
        self.fields.resize(self.starts.len() * self.columns, MISSING);
    }

    pub fn set(&mut self, column: usize, start: usize, end: usize) {
        self.set_field(column, Field { start: start as u32, end: end as u32 });
    }

    pub fn set_null(&mut self, column: usize) {
        self.set_field(column, NULL);
    }

    pub fn set_scratch(&mut self, column: usize, start: usize) {
        let field = Field { start: start as u32 | SCRATCH, end: self.scratch.len() as u32 };
        self.set_field(column, field);
    }

    fn set_field(&mut self, column: usize, field: Field) {
        let first = self.fields.len() - self.columns;
        self.fields[first + column] = field;
    }

    /// Buffer for unescaped text; what is written from here to [`Fields::push_scratch`] is a field.
    pub fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    pub fn push_scratch(&mut self, start: usize) {
        self.fields.push(Field { start: start as u32 | SCRATCH, end: self.scratch.len() as u32 });
    }

    pub fn column(&self, column: usize) -> Column<'_> {
        assert!(column < self.columns, "a column of the block");
        Column { fields: self, column, rows: self.rows() }
    }

    pub fn is_missing(&self, row: usize, column: usize) -> bool {
        let field = self.fields[row * self.columns + column];
        (field.start, field.end) == (MISSING.start, MISSING.end)
    }
}

/// The values of one column.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    fields: &'a Fields<'a>,
    column: usize,
    pub rows: usize,
}

impl Values for arrow::array::StringArray {
    fn len(&self) -> usize {
        arrow::array::Array::len(self)
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        arrow::array::Array::is_valid(self, row).then(|| self.value(row).as_bytes())
    }
}

impl Values for Column<'_> {
    fn len(&self) -> usize {
        self.rows
    }

    #[inline]
    fn get(&self, row: usize) -> Option<&[u8]> {
        let field = self.fields.fields[row * self.fields.columns + self.column];
        if field.start < SCRATCH {
            return Some(&self.fields.data[field.start as usize..field.end as usize]);
        }
        if field.start == u32::MAX {
            return None;
        }
        Some(&self.fields.scratch[(field.start & !SCRATCH) as usize..field.end as usize])
    }
}

impl<T: AsRef<[u8]>> Values for Vec<Option<T>> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    #[inline]
    fn get(&self, row: usize) -> Option<&[u8]> {
        self[row].as_ref().map(AsRef::as_ref)
    }
}
