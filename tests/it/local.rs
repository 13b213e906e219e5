//! A database in the test's own process: statements, answers, and whether a view is right. `who`: what a failure is called.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use tidegate::session::{Client, Outcome};

/// The statements must succeed.
pub async fn execute(session: &mut Client, who: &str, sql: &str) {
    if let Err(error) = session.run(sql).await {
        panic!("{who}: {error:?}\n{sql}");
    }
}

async fn batches(session: &mut Client, who: &str, sql: &str) -> Vec<RecordBatch> {
    let answer = session.run(sql).await.unwrap_or_else(|error| panic!("{who}: {error:?}\n{sql}"));
    let Some(Outcome::Rows(rows)) = answer else { panic!("{who}: no rows come from\n{sql}") };
    rows.batches.try_collect().await.unwrap_or_else(|error| panic!("{who}: {error:?}\n{sql}"))
}

/// Rows whose columns are all whole numbers.
pub async fn numbers<const COLUMNS: usize>(session: &mut Client, who: &str, sql: &str) -> Vec<[i64; COLUMNS]> {
    let mut rows = Vec::new();
    for batch in batches(session, who, sql).await {
        let column = |at: usize| arrow::compute::cast(batch.column(at), &DataType::Int64).expect("whole numbers");
        let columns: [_; COLUMNS] = std::array::from_fn(column);
        let values = columns.each_ref().map(|column| column.as_primitive::<Int64Type>());
        rows.extend((0..batch.num_rows()).map(|row| values.map(|column| column.value(row))));
    }
    rows
}

/// Rows as sorted lines of text; `None` if one of the columns is a float, which has no one text.
pub async fn lines(session: &mut Client, who: &str, sql: &str) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for batch in batches(session, who, sql).await {
        if batch.schema().fields().iter().any(|field| field.data_type().is_floating()) {
            return None;
        }
        lines.extend(text(&batch, 0));
    }
    lines.sort_unstable();
    Some(lines)
}

/// What the changes of a SUBSCRIBE come to: the lines of [`lines`], each as often as it was added and not taken away again.
pub async fn sum_of_changes(session: &mut Client, who: &str, sql: &str) -> Vec<String> {
    let mut sums = std::collections::BTreeMap::<String, i64>::new();
    for batch in batches(session, who, sql).await {
        let diffs = batch.column(1).as_primitive::<Int64Type>();
        for (row, line) in text(&batch, 2).into_iter().enumerate() {
            *sums.entry(line).or_default() += diffs.value(row);
        }
    }
    let times = |(line, times): (String, i64)| {
        assert!(times >= 0, "{who}: {line} is taken away more often than it came\n{sql}");
        std::iter::repeat_n(line, times as usize)
    };
    sums.into_iter().flat_map(times).collect()
}

/// The rows from a column on as text.
fn text(batch: &RecordBatch, from: usize) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.columns()[from..].iter();
    let columns: Vec<_> = columns.map(|c| ArrayFormatter::try_new(c, &options).expect("every type has a text")).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|")).collect()
}

/// How a view differs from its batch answer, if it does.
pub async fn differences(session: &mut Client, who: &str, view: &str) -> Option<String> {
    let mut differs = Vec::new();
    for batch in batches(session, who, &format!("VERIFY {view}")).await {
        let (status, row) = (batch.column(1).as_string::<i32>(), batch.column(3).as_string::<i32>());
        let unequal = (0..batch.num_rows()).filter(|i| status.value(*i) != "equal");
        differs.extend(unequal.map(|i| format!("{} {}", status.value(i), row.value(i))));
    }
    (!differs.is_empty()).then(|| differs.join("\n"))
}
