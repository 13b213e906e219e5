//! Many changes of a state table as few.

use arrow::array::{Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute;

use crate::delta::Delta;
use crate::delta::keys::Keys;
use crate::error::{Error, Result};

/// Rows put together at once.
const ROWS: usize = 64 << 10;

/// A row of one of the deltas.
#[derive(Clone, Copy)]
struct At {
    delta: u32,
    row: u32,
    weight: i64,
}

/// The same changes, each key (or, without a key, each row) once. With `all` these are all changes there ever were: what is
/// gone need not be remembered.
pub(super) fn merge(deltas: &[Delta], key_columns: usize, all: bool) -> Result<Vec<Delta>> {
    let deltas: Vec<Delta> = deltas.iter().filter(|delta| !delta.is_empty()).cloned().collect();
    let Some(first) = deltas.first() else { return Ok(Vec::new()) };
    let types = |delta: &Delta| delta.rows.columns().iter().map(|c| c.data_type().clone()).collect::<Vec<_>>();
    if deltas.iter().any(|delta| types(delta) != types(first)) {
        return Err(Error::internal("the columns of a state table have changed"));
    }
    if key_columns == 0 && deltas.iter().all(|delta| delta.diff.is_none()) {
        return concat(&deltas);
    }
    let columns = if key_columns == 0 { first.rows.num_columns() } else { key_columns };
    let types = types(first);
    let key_types: Vec<_> = types.get(..columns).unwrap_or(&types).iter().collect();
    let mut keys = Keys::new(&key_types)?;
    // By number of the key.
    let mut last: Vec<At> = Vec::new();
    for (number, delta) in deltas.iter().enumerate() {
        let key = &delta.rows.columns()[..key_types.len()];
        for (row, id) in keys.intern(key, delta.len())?.into_iter().enumerate() {
            let this = At { delta: number as u32, row: row as u32, weight: delta.weight(row) };
            match last.get_mut(id as usize) {
                None => last.push(this),
                Some(before) if key_columns == 0 => before.weight += this.weight,
                Some(before) if this.weight != 0 => *before = this,
                Some(_) => (),
            }
        }
    }
    let lasting = |at: &At| at.weight > 0 || (at.weight < 0 && !all);
    if all && key_columns == 0 && last.iter().any(|at| at.weight < 0) {
        return Err(Error::corrupted("a state table has taken away rows that it never had"));
    }
    last.retain(lasting);
    last.chunks(ROWS).map(|rows| gather(&deltas, rows)).collect()
}

/// Append-only deltas put together, a bounded number of rows at a time.
fn concat(deltas: &[Delta]) -> Result<Vec<Delta>> {
    let (mut merged, mut run, mut rows): (Vec<Delta>, Vec<Delta>, usize) = (Vec::new(), Vec::new(), 0);
    for delta in deltas {
        if rows + delta.len() > ROWS && !run.is_empty() {
            merged.push(Delta::concat(&run[0].schema(), &run)?);
            run.clear();
            rows = 0;
        }
        rows += delta.len();
        run.push(delta.clone());
    }
    if !run.is_empty() {
        merged.push(Delta::concat(&run[0].schema(), &run)?);
    }
    Ok(merged)
}

fn gather(deltas: &[Delta], rows: &[At]) -> Result<Delta> {
    let at: Vec<(usize, usize)> = rows.iter().map(|at| (at.delta as usize, at.row as usize)).collect();
    let schema = deltas[0].schema();
    let column = |c: usize| {
        let arrays: Vec<&dyn Array> = deltas.iter().map(|delta| delta.rows.column(c).as_ref()).collect();
        compute::interleave(&arrays, &at)
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(at.len()));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
    if rows.iter().all(|at| at.weight == 1) {
        return Ok(Delta::append(batch));
    }
    Ok(Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|at| at.weight))))
}
