//! `VERIFY name`: is a view, or a derived stream, what its query says?
//!
//! The batch answer is computed from streams and tables ([`crate::sql::batch::expected`]) and compared with the rows that the
//! view has at the same commit, as multisets: order does not count, duplicates do. Floating-point columns are equal within
//! [`TOLERANCE`], because sums of floats depend on their order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast as cast_expr, lit};
use futures::TryStreamExt;

use super::batch::expected::expected;
use super::batch::{Options, Source, execute};
use super::plan::{Hidden, Planner, RelationSource};
use crate::catalog::{CHANGELOG_COLUMNS, Column, Kind, ROW_ID, Relation};
use crate::copy::dead_letters;
use crate::delta::{Delta, consolidate};
use crate::error::{Error, Result};
use crate::log::CommitId;

/// Relative difference at which two floats still count as equal.
pub const TOLERANCE: f64 = 1e-9;

/// Differing rows that are shown; more are counted.
pub const ROWS_SHOWN: usize = 1000;

/// Columns of the answer: `relation`, `status` ('equal', 'missing', 'unexpected'), how many `rows`, and the `row` that differs.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("relation", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("row", DataType::Utf8, true),
    ]))
}

/// Compare a materialized view or a derived stream, and its late rows if it has them, with their batch answers: as of the commit
/// that paused it, if one did; `written`: up to which commit a derived stream has been written, if that is not the snapshot's.
pub async fn verify(
    planner: &Planner,
    view: &Relation,
    source: &Source,
    written: Option<CommitId>,
    options: &Options,
) -> Result<RecordBatch> {
    let late = planner.catalog().relations().find(|r| r.kind == Kind::Late && r.parent == Some(view.id));
    let mut report = Report::default();
    for relation in std::iter::once(view).chain(late.map(Arc::as_ref)) {
        let at = if relation.is_derived() { written.or(view.paused) } else { view.paused };
        let comparison = compare(planner, relation, source, at, options).await?;
        report.add(relation, &comparison);
        if let (Some(dead), true) = (planner.catalog().dead_letters_of(relation.id), comparison.dead > 0) {
            report.push(dead, "equal", comparison.dead, None);
        }
    }
    report.finish()
}

async fn compare(
    planner: &Planner,
    relation: &Relation,
    source: &Source,
    at: Option<CommitId>,
    options: &Options,
) -> Result<Comparison> {
    let batches: Vec<RecordBatch> = expected(planner, relation, source, at, options).await?.try_collect().await?;
    if relation.is_derived() {
        let columns = relation.query_columns().iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable));
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        let dead = Dead::of(planner, relation, source, options).await?;
        // Of a stream that had another query: what this one said before it was this one's turn was not written.
        let before = match relation.output.as_ref().and_then(|output| output.since) {
            None => Vec::new(),
            Some(since) => {
                expected(planner, relation, source, Some(since.consumed), options)
                    .await?
                    .try_collect::<Vec<RecordBatch>>()
                    .await?
            }
        };
        let before = typed(&schema, before)?;
        return Comparison::new(&schema, [batches, written(planner, relation, source, before, options).await?], dead);
    }
    let version = source.snapshot.versions.get(&relation.id);
    let version = version.ok_or_else(|| Error::not_ready(format!("\"{}\" is still being built", relation.name)))?;
    let schema = version.schema();
    let visible: Vec<usize> = (0..schema.fields().len()).filter(|c| schema.field(*c).name() != ROW_ID).collect();
    let actual = version.scan(Some(&visible))?;
    Comparison::new(&relation.schema(), [batches, actual], Dead::default())
}

/// The rows of a derived stream that its query has written, after others; of a changelog, what the changes add up to.
async fn written(
    planner: &Planner,
    stream: &Relation,
    source: &Source,
    before: Vec<RecordBatch>,
    options: &Options,
) -> Result<Vec<RecordBatch>> {
    let since = stream.output.as_ref().and_then(|output| output.since).map(|since| since.commit);
    let mut batches = read(planner, stream, source, since, options).await?;
    if !stream.output.as_ref().is_some_and(|output| output.changelog) {
        batches.extend(before);
        return Ok(batches);
    }
    let lead = CHANGELOG_COLUMNS.len();
    let change = |rows: RecordBatch| -> Result<Delta> {
        let columns: Vec<usize> = (lead..rows.num_columns()).collect();
        let diff = rows.column(lead - 1).as_primitive::<Int64Type>().clone();
        Ok(Delta::new(rows.project(&columns)?, diff))
    };
    let mut changes = batches.into_iter().map(change).collect::<Result<Vec<_>>>()?;
    changes.extend(before.into_iter().map(Delta::append));
    let Some(schema) = changes.first().map(Delta::schema) else { return Ok(Vec::new()) };
    let rows = consolidate(&schema, &changes)?;
    let each = (0..rows.len()).flat_map(|row| std::iter::repeat_n(row as u32, rows.weight(row).max(0) as usize));
    Ok(vec![arrow::compute::take_record_batch(&rows.rows, &UInt32Array::from_iter_values(each))?])
}

/// The rows of a stream; `after`: only those of later commits.
async fn read(
    planner: &Planner,
    stream: &Relation,
    source: &Source,
    after: Option<CommitId>,
    options: &Options,
) -> Result<Vec<RecordBatch>> {
    let relation = Arc::new(RelationSource::new(Arc::new(stream.clone()), &[Hidden::Commit]));
    let plan = LogicalPlanBuilder::scan(stream.name.as_str(), relation, None)?;
    let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let commit = columns.split_off(stream.columns.len()).pop().ok_or_else(|| Error::internal("a row without its commit"))?;
    let after = lit(after.map_or(0, |after| after as i64));
    let plan = plan.filter(cast_expr(commit, DataType::Int64).gt(after))?.project(columns)?.build()?;
    Ok(execute(plan, source, planner.state(), options).await?.try_collect().await?)
}

/// Rows of a derived stream that it could not take, as they stand among its dead letters.
#[derive(Default)]
struct Dead {
    columns: Vec<Column>,
    letters: HashMap<String, usize>,
}

impl Dead {
    async fn of(planner: &Planner, stream: &Relation, source: &Source, options: &Options) -> Result<Dead> {
        let Some(dead) = planner.catalog().dead_letters_of(stream.id) else { return Ok(Dead::default()) };
        let mut letters = HashMap::new();
        let since = stream.output.as_ref().and_then(|output| output.since).map(|since| since.commit);
        for rows in read(planner, dead, source, since, options).await? {
            let raw = cast(rows.column(0), &DataType::Utf8)?;
            raw.as_string::<i32>().iter().flatten().for_each(|row| *letters.entry(row.to_string()).or_default() += 1);
        }
        Ok(Dead { columns: stream.query_columns().to_vec(), letters })
    }

    /// The rows that are not among them.
    fn without(mut self, batches: &[RecordBatch], rows: Vec<Place>) -> Result<Vec<Place>> {
        if self.letters.is_empty() {
            return Ok(rows);
        }
        let mut others = Vec::new();
        for (batch, row) in rows {
            let letter = dead_letters(&self.columns, &batches[batch as usize].slice(row as usize, 1))?.pop().unwrap_or_default();
            match self.letters.get_mut(&letter).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => others.push((batch, row)),
            }
        }
        Ok(others)
    }
}

/// Two multisets of rows, side by side.
struct Comparison {
    equal: i64,
    /// Rows of the batch answer that are dead letters.
    dead: i64,
    /// Rows of the batch answer that the view does not have, and rows of the view that the batch answer does not have.
    missing: Vec<String>,
    unexpected: Vec<String>,
}

/// A row: its batch, and its place in it.
type Place = (u32, u32);

/// Rows of both sides, by what is compared exactly.
type Groups = HashMap<Box<[u8]>, [Vec<Place>; 2], ahash::RandomState>;

const EXPECTED: usize = 0;
const ACTUAL: usize = 1;

impl Comparison {
    fn new(schema: &SchemaRef, sides: [Vec<RecordBatch>; 2], dead: Dead) -> Result<Comparison> {
        let [expected, actual] = sides;
        let sides = [typed(schema, expected)?, typed(schema, actual)?];
        let floats: Vec<usize> = (0..schema.fields().len()).filter(|c| schema.field(*c).data_type().is_floating()).collect();
        let exact: Vec<usize> = (0..schema.fields().len()).filter(|c| !floats.contains(c)).collect();

        let mut comparison = Comparison { equal: 0, dead: 0, missing: Vec::new(), unexpected: Vec::new() };
        let mut differing = [Vec::new(), Vec::new()];
        for (_, places) in group(schema, &sides, &exact)? {
            comparison.equal += pair(places, |side, place| float_values(&sides[side], &floats, place), &mut differing);
        }
        let [differing, unexpected] = differing;
        let without_a_place = differing.len();
        let missing = dead.without(&sides[EXPECTED], differing)?;
        comparison.dead = (without_a_place - missing.len()) as i64;
        comparison.missing = show(&sides[EXPECTED], missing)?;
        comparison.unexpected = show(&sides[ACTUAL], unexpected)?;
        Ok(comparison)
    }
}

/// The batches with the types of the relation: an answer may have come by other ones of the same values.
fn typed(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let nullable: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let nullable = Arc::new(Schema::new(nullable));
    let one = |batch: RecordBatch| -> Result<RecordBatch> {
        if batch.num_columns() != schema.fields().len() {
            return Err(Error::internal("the batch answer has another number of columns than the view"));
        }
        let typed = |(array, field): (&ArrayRef, &Arc<Field>)| cast(array, field.data_type());
        let columns = batch.columns().iter().zip(schema.fields()).map(typed).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&nullable), columns)?)
    };
    batches.into_iter().map(one).collect()
}

/// Rows of both sides that agree in the columns compared exactly.
fn group(schema: &SchemaRef, sides: &[Vec<RecordBatch>; 2], exact: &[usize]) -> Result<Groups> {
    let fields = exact.iter().map(|column| SortField::new(schema.field(*column).data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut groups = Groups::default();
    for (side, batches) in sides.iter().enumerate() {
        for (batch, rows) in batches.iter().enumerate() {
            let columns: Vec<ArrayRef> = exact.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            if columns.is_empty() {
                let all = (0..rows.num_rows()).map(|row| (batch as u32, row as u32));
                groups.entry(Box::default()).or_default()[side].extend(all);
                continue;
            }
            for (row, key) in converter.convert_columns(&columns)?.iter().enumerate() {
                groups.entry(key.data().into()).or_default()[side].push((batch as u32, row as u32));
            }
        }
    }
    Ok(groups)
}

/// Pair the rows of a group whose floats agree; those left over differ. Returns how many pairs there are.
fn pair(places: [Vec<Place>; 2], floats: impl Fn(usize, Place) -> Vec<Option<f64>>, differing: &mut [Vec<Place>; 2]) -> i64 {
    let mut side = 0;
    let [expected, actual] = places.map(|places| {
        let mut rows: Vec<_> = places.into_iter().map(|place| (floats(side, place), place)).collect();
        side += 1;
        rows.sort_by(|(a, _), (b, _)| order(a, b));
        rows
    });
    let (mut expected, mut actual) = (expected.into_iter().peekable(), actual.into_iter().peekable());
    let mut pairs = 0;
    loop {
        match (expected.peek(), actual.peek()) {
            (Some((a, _)), Some((b, _))) if close(a, b) => {
                expected.next();
                actual.next();
                pairs += 1;
            }
            (Some((a, _)), Some((b, _))) if order(a, b) == Ordering::Less => {
                differing[EXPECTED].extend(expected.next().map(|(_, at)| at))
            }
            (_, Some(_)) => differing[ACTUAL].extend(actual.next().map(|(_, at)| at)),
            (Some(_), None) => differing[EXPECTED].extend(expected.next().map(|(_, at)| at)),
            (None, None) => return pairs,
        }
    }
}

fn float_values(batches: &[RecordBatch], floats: &[usize], (batch, row): Place) -> Vec<Option<f64>> {
    let row = row as usize;
    let value = |column: &usize| {
        let array = batches[batch as usize].column(*column);
        if array.is_null(row) {
            return None;
        }
        match array.data_type() {
            DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(row)),
            DataType::Float32 => Some(f64::from(array.as_primitive::<Float32Type>().value(row))),
            _ => Some(array.as_primitive::<arrow::datatypes::Float16Type>().value(row).to_f64()),
        }
    };
    floats.iter().map(value).collect()
}

fn order(a: &[Option<f64>], b: &[Option<f64>]) -> Ordering {
    let each = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(b),
        _ => a.is_some().cmp(&b.is_some()),
    };
    a.iter().zip(b).map(each).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

fn close(a: &[Option<f64>], b: &[Option<f64>]) -> bool {
    a.iter().zip(b).all(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
        _ => a.is_none() && b.is_none(),
    })
}

/// The text of rows, as PostgreSQL shows a record: `(1,a)`.
fn show(batches: &[RecordBatch], mut places: Vec<Place>) -> Result<Vec<String>> {
    places.sort_unstable();
    let options = FormatOptions::default().with_null("");
    let mut rows = Vec::with_capacity(places.len());
    for (batch, row) in places {
        let batch = &batches[batch as usize];
        let mut values = Vec::with_capacity(batch.num_columns());
        for column in batch.columns() {
            values.push(ArrayFormatter::try_new(column, &options)?.value(row as usize).to_string());
        }
        rows.push(format!("({})", values.join(",")));
    }
    Ok(rows)
}

/// The answer, row by row.
#[derive(Default)]
struct Report {
    relation: Vec<String>,
    status: Vec<&'static str>,
    rows: Vec<i64>,
    row: Vec<Option<String>>,
}

impl Report {
    fn add(&mut self, relation: &Relation, comparison: &Comparison) {
        self.push(relation, "equal", comparison.equal, None);
        for (status, rows) in [("missing", &comparison.missing), ("unexpected", &comparison.unexpected)] {
            for row in rows.iter().take(ROWS_SHOWN) {
                self.push(relation, status, 1, Some(row.clone()));
            }
            let more = rows.len().saturating_sub(ROWS_SHOWN);
            if more > 0 {
                self.push(relation, status, more as i64, None);
            }
        }
    }

    fn push(&mut self, relation: &Relation, status: &'static str, rows: i64, row: Option<String>) {
        self.relation.push(relation.full_name().to_string());
        self.status.push(status);
        self.rows.push(rows);
        self.row.push(row);
    }

    fn finish(self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.relation)),
            Arc::new(StringArray::from(self.status)),
            Arc::new(Int64Array::from(self.rows)),
            Arc::new(StringArray::from(self.row)),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, record_batch};

    use super::*;

    fn batch(names: &[&str], floats: Vec<Option<f64>>) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names.to_vec())), Arc::new(Float64Array::from(floats))];
        let field = |name: &str, t| Field::new(name, t, true);
        let schema = Schema::new(vec![field("name", DataType::Utf8), field("x", DataType::Float64)]);
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn compare(expected: RecordBatch, actual: RecordBatch) -> (i64, String, String) {
        let schema = expected.schema();
        let comparison = Comparison::new(&schema, [vec![expected], vec![actual]], Dead::default()).unwrap();
        (comparison.equal, comparison.missing.join(" "), comparison.unexpected.join(" "))
    }

    #[rstest::rstest]
    #[case::in_any_order(batch(&["a", "b"], vec![Some(1.0), None]), batch(&["b", "a"], vec![None, Some(1.0)]), (2, "", ""))]
    #[case::nearly(batch(&["a"], vec![Some(0.3)]), batch(&["a"], vec![Some(0.1 + 0.2)]), (1, "", ""))]
    #[case::not_near(batch(&["a"], vec![Some(1.0)]), batch(&["a"], vec![Some(1.001)]), (0, "(a,1.0)", "(a,1.001)"))]
    #[case::nan(batch(&["a"], vec![Some(f64::NAN)]), batch(&["a"], vec![Some(f64::NAN)]), (1, "", ""))]
    #[case::null_is_not_zero(batch(&["a"], vec![None]), batch(&["a"], vec![Some(0.0)]), (0, "(a,)", "(a,0.0)"))]
    #[case::duplicates_count(batch(&["a", "a"], vec![Some(1.0), Some(1.0)]), batch(&["a"], vec![Some(1.0)]), (1, "(a,1.0)", ""))]
    #[case::extra(batch(&["a"], vec![Some(1.0)]), batch(&["a", "b"], vec![Some(1.0), Some(2.0)]), (1, "", "(b,2.0)"))]
    #[case::interleaved(
        batch(&["a", "a", "a"], vec![Some(1.0), Some(2.0), Some(4.0)]),
        batch(&["a", "a", "a"], vec![Some(4.0), Some(3.0), Some(1.0)]),
        (2, "(a,2.0)", "(a,3.0)")
    )]
    fn multisets(#[case] expected: RecordBatch, #[case] actual: RecordBatch, #[case] outcome: (i64, &str, &str)) {
        assert_eq!(compare(expected, actual), (outcome.0, outcome.1.to_string(), outcome.2.to_string()));
    }

    #[test]
    fn rows_without_floats_are_compared_exactly() {
        let expected = record_batch!(("k", Int64, [1, 2, 2]), ("n", Int64, [10, 20, 20])).unwrap();
        let actual = record_batch!(("k", Int64, [2, 1, 3]), ("n", Int64, [20, 10, 30])).unwrap();
        assert_eq!(compare(expected, actual), (2, "(2,20)".into(), "(3,30)".into()));
    }
}
