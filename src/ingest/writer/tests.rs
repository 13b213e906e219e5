use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::prelude::SessionContext;

use super::*;
use crate::catalog::{self, Column, Watermark};
use crate::ingest::dead_letter_relation;
use crate::sql::plan::Planner;
use crate::time::TIMESTAMP;

const NOW: Micros = 1_735_689_600_000_000;
const HOUR: i64 = 3_600_000_000;

fn column(name: &str, data_type: DataType, sql_type: &str) -> Column {
    let (default, generated, comment) = (None, None, None);
    Column {
        name: name.to_string(),
        data_type,
        sql_type: sql_type.to_string(),
        nullable: true,
        default,
        generated,
        identity: None,
        comment,
    }
}

fn relation(kind: catalog::Kind, columns: Vec<Column>) -> Relation {
    Relation { partitions: 3, ..Relation::new(16384, "orders", kind, columns) }
}

fn stream() -> Relation {
    let columns = vec![
        column("user_id", DataType::Utf8, "text"),
        column("n", DataType::Int32, "integer"),
        column("ts", TIMESTAMP, "timestamp(3) without time zone"),
    ];
    relation(catalog::Kind::Stream, columns)
}

fn compiled(relation: Relation) -> Arc<CompiledRelation> {
    Arc::new(
        CompiledRelation::compile(Arc::new(relation), &Planner::new(Arc::default(), Arc::new(SessionContext::new().state())))
            .unwrap(),
    )
}

fn rows(relation: &Relation, users: Vec<Option<&str>>, times: Vec<Option<Micros>>) -> RecordBatch {
    let count = users.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(users)),
        Arc::new(arrow::array::Int32Array::from_iter_values(0..count as i32)),
        Arc::new(TimestampMicrosecondArray::from(times)),
    ];
    batch(nullable(&relation.schema()), columns, count).unwrap()
}

fn batch_of(write: &Write) -> &RecordBatch {
    match &write.rows {
        Rows::Batch(batch) => batch,
        Rows::Staged(_) => panic!("nothing is staged here"),
    }
}

fn numbers(write: &Write) -> Vec<i32> {
    batch_of(write).column_by_name("n").unwrap().as_primitive::<Int32Type>().values().to_vec()
}

#[test]
fn rows_of_a_key_stay_together_and_in_order() {
    let mut relation = stream();
    relation.partition_by = vec![0];
    let input = rows(&relation, vec![Some("u7"), Some("u8"), Some("u7")], vec![None; 3]);
    let writer = RelationWriter::new(compiled(relation), None, None);
    let writes = writer.write(input, Kind::Append, NOW).unwrap();
    let of_u7: Vec<&Write> = writes.iter().filter(|w| numbers(w).contains(&0)).collect();
    assert_eq!(of_u7.len(), 1);
    let numbers_of_u7: Vec<i32> = numbers(of_u7[0]).into_iter().filter(|n| *n != 1).collect();
    assert_eq!(numbers_of_u7, [0, 2], "both rows of u7, in their order");
    assert_eq!(writes.iter().map(|w| batch_of(w).num_rows()).sum::<usize>(), 3);
    assert!(writes.iter().all(|w| w.partition < 3));
}

#[test]
fn without_a_key_batches_take_turns() {
    let relation = stream();
    let input = rows(&relation, vec![None; 3 * BATCH_ROWS], vec![None; 3 * BATCH_ROWS]);
    let writer = RelationWriter::new(compiled(relation), None, None).starting_at(2);
    let writes = writer.write(input, Kind::Append, NOW).unwrap();
    assert_eq!(writes.iter().map(|w| w.partition).collect::<Vec<_>>(), [2, 0, 1]);
    assert!(writes.iter().all(|w| batch_of(w).num_rows() == BATCH_ROWS));
    assert_eq!(numbers(&writes[1])[0], BATCH_ROWS as i32);
}

#[test]
fn event_times_and_watermark() {
    let mut relation = stream();
    relation.watermark = Some(Watermark { column: 2, expression: "ts - INTERVAL '5' SECOND".to_string(), carried: false });
    let input = rows(&relation, vec![None; 3], vec![Some(NOW + 1400), Some(NOW - HOUR), Some(NOW + 600)]);
    let dead = Arc::new(catalog::Relation { id: 16385, ..dead_letter_relation(&relation) });
    let writer = RelationWriter::new(compiled(relation), Some(dead), None);
    let [write] = &writer.write(input, Kind::Append, NOW).unwrap()[..] else { panic!("one write") };
    assert_eq!(write.event_times, Some((NOW - HOUR, NOW + 1000)), "rounded to timestamp(3)");
    assert_eq!(write.watermark, Some(NOW + 1000 - 5_000_000));
}

#[test]
fn bad_event_times_go_to_the_dead_letters() {
    let mut relation = stream();
    relation.watermark = Some(Watermark { column: 2, expression: "ts".to_string(), carried: false });
    relation.options.insert("max_future".to_string(), "1 hour".to_string());
    let input = rows(&relation, vec![Some("a"), Some("b"), Some("c")], vec![Some(NOW + 2 * HOUR), Some(NOW), None]);
    let dead = Arc::new(catalog::Relation { id: 16385, ..dead_letter_relation(&relation) });
    assert_eq!((dead.name.as_str(), dead.parent), ("orders$dead", Some(16384)));
    let with_dead = RelationWriter::new(compiled(relation.clone()), Some(dead), None);
    let writes = with_dead.write(input.clone(), Kind::Append, NOW).unwrap();
    assert_eq!(writes.iter().map(|w| w.relation).collect::<Vec<_>>(), [16385, 16384]);
    assert_eq!(numbers(&writes[1]), [1]);
    assert_eq!(writes[1].watermark, Some(NOW));
    let letters = batch_of(&writes[0]);
    let text = |column: usize| letters.column(column).as_string::<i32>().iter().flatten().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(text(0)[1], r#"{"user_id":"c","n":2,"ts":null}"#);
    assert_eq!(text(1), ["event time \"ts\" is too far in the future: 2025-01-01 02:00:00", "event time \"ts\" is null",]);

    let without = RelationWriter::new(compiled(relation), None, None);
    assert_eq!(without.write(input, Kind::Append, NOW).unwrap_err().state().code(), "22008");
}

#[test]
fn defaults_generated_columns_and_constraints() {
    let mut relation = stream();
    relation.columns[0].default = Some("'nobody'".to_string());
    relation.columns[2].default = Some("now() - INTERVAL '1 hour'".to_string());
    relation.columns[1].nullable = false;
    relation.columns.push(Column { generated: Some("n * 2 + 1".to_string()), ..column("odd", DataType::Int64, "bigint") });
    relation.columns.push(column("code", DataType::Utf8, "character varying(2)"));
    let compiled = compiled(relation);
    let given: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![Some(7), Some(8)]));
    let given = RecordBatch::try_from_iter([("n", given)]).unwrap();
    let complete = compiled.complete(&[1], &given, NOW).unwrap();
    let writer = RelationWriter::new(compiled.clone(), None, None);
    let [write] = &writer.write(complete.clone(), Kind::Append, NOW).unwrap()[..] else { panic!("one write") };
    let shown = arrow::util::pretty::pretty_format_batches(&[batch_of(write).slice(1, 1)]).unwrap().to_string();
    assert!(shown.contains("| nobody  | 8 | 2024-12-31T23:00:00 | 17  |      |"), "{shown}");

    let with = |column: usize, array: ArrayRef| {
        let mut columns = complete.columns().to_vec();
        columns[column] = array;
        let names = complete.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        let rows = RecordBatch::try_from_iter_with_nullable(names.iter().zip(columns).map(|(name, array)| (name, array, true)));
        writer.write(rows.unwrap(), Kind::Append, NOW).unwrap_err()
    };
    let error = with(1, Arc::new(arrow::array::Int32Array::from(vec![Some(1), None])));
    assert_eq!(error.message(), "null value in column \"n\" of relation \"orders\" violates not-null constraint");
    assert_eq!(error.detail(), Some("Failing row contains (nobody, null, 2024-12-31 23:00:00, null, null)."));
    assert_eq!(
        with(4, Arc::new(StringArray::from(vec!["ab  ", "abc"]))).message(),
        "value too long for type character varying(2)"
    );
    assert_eq!(with(1, Arc::new(StringArray::from(vec!["1", "2"]))).state().code(), "42804");
}

#[test]
fn tables_without_a_key_get_row_ids() {
    let compiled = compiled(Relation { kind: catalog::Kind::Table, ..stream() });
    let ids = Arc::new(Numbers::new(100, 1));
    let writer = RelationWriter::new(compiled.clone(), None, Some(ids.clone()));
    let input = rows(&compiled.relation, vec![None; 5], vec![None; 5]);
    let writes = writer.write(input, Kind::Upsert, NOW).unwrap();
    let id = |write: &Write| batch_of(write).column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
    let mut all: Vec<i64> = writes.iter().flat_map(id).collect();
    all.sort_unstable();
    assert_eq!(all, [100, 101, 102, 103, 104]);
    assert_eq!(batch_of(&writes[0]).schema(), compiled.relation.stored_schema());

    // A row that is written back goes to where it was.
    let again = batch_of(&writes[0]).clone();
    let rewritten = writer.write(again.clone(), Kind::Upsert, NOW).unwrap();
    assert_eq!((rewritten[0].partition, id(&rewritten[0])), (writes[0].partition, id(&writes[0])));
    let deleted = writer.write(again, Kind::Delete, NOW).unwrap();
    assert_eq!((deleted[0].partition, deleted[0].kind), (writes[0].partition, Kind::Delete));
    let next = ids.take(1, &DataType::Int64).unwrap();
    assert_eq!(next.as_primitive::<arrow::datatypes::Int64Type>().value(0), 105, "no id was used up by rows that have one");
}

#[test]
fn a_row_too_large_to_store_is_refused() {
    let relation = stream();
    let big = "x".repeat(STORED_VALUE_BYTES);
    let input = rows(&relation, vec![Some(&big)], vec![None]);
    let writer = RelationWriter::new(compiled(relation), None, None);
    assert_eq!(writer.write(input, Kind::Append, NOW).unwrap_err().state().code(), "54000");
}

fn dead_of(relation: &Relation) -> Arc<Relation> {
    Arc::new(catalog::Relation { id: 16385, ..dead_letter_relation(relation) })
}

/// The rows that were taken by their number, and of the others what is kept and why.
fn fitting(relation: Relation, given: RecordBatch) -> (Vec<i32>, Vec<(String, String)>) {
    let dead = dead_of(&relation);
    let targets: Vec<usize> = (0..given.num_columns()).collect();
    let writer = RelationWriter::new(compiled(relation), Some(dead), None);
    let (writes, taken) = writer.write_fitting(&targets, &given, Kind::Append, NOW).unwrap();
    let of = |relation: u32| writes.iter().filter(move |write| write.relation == relation);
    let mut written: Vec<i32> = of(16384).flat_map(numbers).collect();
    written.sort_unstable();
    assert_eq!(written.len(), taken.num_rows());
    let text = |batch: &RecordBatch, column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_string();
    let letters = of(16385).map(batch_of);
    let letters = letters.flat_map(|batch| (0..batch.num_rows()).map(move |row| (text(batch, 0, row), text(batch, 1, row))));
    (written, letters.collect())
}

#[test]
fn of_rows_that_do_not_fit_each_is_a_dead_letter_and_the_others_are_written() {
    let mut relation = stream();
    relation.columns[0].nullable = false;
    relation.columns.push(Column { generated: Some("10 / (n - 3)".to_string()), ..column("share", DataType::Int32, "integer") });
    let given = rows(&relation.narrowed(3), vec![Some("a"), None, Some("b"), Some("c"), Some("d")], vec![None; 5]);
    let (written, letters) = fitting(relation, given);
    assert_eq!(written, [0, 2, 4]);
    let letter = |raw: &str, reason: &str| (raw.to_string(), reason.to_string());
    let null = r#"null value in column "user_id" of relation "orders" violates not-null constraint"#;
    assert_eq!(
        letters,
        [
            letter(r#"{"user_id":null,"n":1,"ts":null}"#, null),
            letter(r#"{"user_id":"c","n":3,"ts":null}"#, r#"division by zero; column "share""#),
        ]
    );
}

#[test]
fn a_row_too_large_to_be_stored_shows_how_it_begins() {
    let relation = stream();
    let large = "ü".repeat(STORED_VALUE_BYTES / 2);
    let given = rows(&relation, vec![Some("a"), Some(&large), Some("b")], vec![None; 3]);
    let (written, letters) = fitting(relation, given);
    assert_eq!((written, letters.len()), (vec![0, 2], 1));
    let (raw, reason) = &letters[0];
    assert!(raw.starts_with(r#"{"user_id":"üüü"#) && raw.len() <= crate::limits::DEAD_LETTER_BYTES);
    assert!(reason.starts_with("a row of 419") && reason.ends_with("is too large to be stored, at most 3145728"), "{reason}");
}

#[test]
fn without_dead_letters_and_for_what_is_no_rows_fault_nothing_is_written() {
    let mut relation = stream();
    relation.columns[0].nullable = false;
    let given = rows(&relation, vec![Some("a"), None], vec![None; 2]);
    let writer = RelationWriter::new(compiled(relation), None, None);
    assert_eq!(writer.write_fitting(&[0, 1, 2], &given, Kind::Append, NOW).unwrap_err().state().code(), "23502");
    let full = |rows: &RecordBatch| match rows.num_rows() {
        1 => Err::<(), _>(Error::disk_full("no space")),
        _ => Err(Error::numeric_out_of_range("too much")),
    };
    assert_eq!(crate::ingest::misfits::in_parts(&given, &full).err().map(|e| e.state().code()), Some("53100"));
}
