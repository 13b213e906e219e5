use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use futures::TryStreamExt;

use super::memory::{runtime, runtime_of_query};
use super::*;
use crate::catalog::schema::PUBLIC;
use crate::catalog::{Catalog, Change, Emit, Kind, Relation};
use crate::copy::value::Formats;
use crate::delta::Delta;
use crate::error::SqlState;
use crate::log::{self, Rows, Transaction, Write, memory};
use crate::sql::plan::Planner;
use crate::sql::testing;
use crate::sql::verify::verify;
use crate::time::{ManualClock, NO_TIME};
use crate::view::Store;

const MINUTE: i64 = 60_000_000;

/// An order: id, category, amount, and its time in minutes.
type Order = (i64, &'static str, i64, i64);

/// A log in memory, and the rows that tables and views have.
struct World {
    log: LogHandle,
    clock: Arc<ManualClock>,
    versions: Vec<(u32, Arc<crate::view::Version>)>,
}

impl World {
    fn new(more: impl IntoIterator<Item = Relation>) -> World {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let log = LogHandle::start(Box::new(memory::log().unwrap()), clock.clone(), log::Options::default()).unwrap();
        let catalog = testing::catalog();
        let relations = catalog.relations().map(|r| r.as_ref().clone()).chain(more);
        let changes = relations.map(Change::Create).collect();
        log.submit(Transaction { changes, ..Default::default() }).wait().unwrap();
        World { log, clock, versions: Vec::new() }
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.log.catalog()
    }

    fn relation(&self, name: &str) -> Arc<Relation> {
        Arc::clone(self.catalog().find(PUBLIC, name).unwrap())
    }

    /// One commit of these rows.
    fn commit(&self, stream: &str, orders: &[Order]) {
        let times: Vec<i64> = orders.iter().map(|o| o.3 * MINUTE).collect();
        let relation = self.relation(stream);
        let rows = RecordBatch::try_new(
            relation.schema(),
            vec![
                Arc::new(Int64Array::from_iter_values(orders.iter().map(|o| o.0))),
                Arc::new(StringArray::from_iter_values(orders.iter().map(|o| o.1))),
                Arc::new(Int64Array::from_iter_values(orders.iter().map(|o| o.2))),
                Arc::new(TimestampMicrosecondArray::from(times.clone())),
            ],
        );
        let watermark = times.iter().copied().max();
        let write = Write {
            relation: relation.id,
            partition: 0,
            kind: log::Kind::Append,
            rows: Rows::Batch(rows.unwrap()),
            event_times: times.iter().copied().min().zip(watermark),
            watermark,
            number: None,
            checked: 0,
        };
        self.log.submit(Transaction { writes: vec![write], ..Default::default() }).wait().unwrap();
    }

    fn keep(&mut self, name: &str, rows: RecordBatch) {
        let relation = self.relation(name);
        let mut store = Store::new("rows", relation.stored_schema(), relation.stored_key());
        store.apply(&[Delta::append(rows)]).unwrap();
        self.versions.push((relation.id, store.version()));
    }

    fn source(&self) -> Source {
        let catalog = self.catalog();
        let watermarks = catalog.relations().filter_map(|r| Some((r.id, self.log.head(r.id)?.watermark?))).collect();
        let snapshot = Snapshot {
            commit: self.log.end(),
            catalog,
            versions: self.versions.iter().cloned().collect(),
            watermarks,
            ..Default::default()
        };
        Source { snapshot: Arc::new(snapshot), log: self.log.clone() }
    }

    fn planner(&self) -> Planner {
        Planner::new(self.catalog(), Arc::new(crate::sql::functions::state()))
    }

    fn options(&self) -> Options {
        Options { target_partitions: 2, now: 0, formats: Formats::default(), runtime: runtime(64 << 20).unwrap(), stop: None }
    }

    fn rows(&self, sql: &str) -> Result<Vec<String>> {
        let planner = self.planner();
        let plan = planner.query(&testing::parse(sql))?;
        block_on(async {
            let batches = execute(plan, &self.source(), planner.state(), &self.options()).await?;
            collect(batches).await
        })
    }

    fn expected(&self, name: &str) -> Vec<String> {
        let (planner, view) = (self.planner(), self.relation(name));
        block_on(async {
            let batches = expected::expected(&planner, &view, &self.source(), None, &self.options()).await?;
            collect(batches).await
        })
        .unwrap()
    }

    fn verify(&self, name: &str) -> Vec<String> {
        let (planner, view) = (self.planner(), self.relation(name));
        let report = block_on(async { verify(&planner, &view, &self.source(), None, &self.options()).await }).unwrap();
        show(&[report])
    }
}

/// Panics with a word, in the way of Arrow.
fn panicking(word: &'static str) -> ScalarUDF {
    let panic = move |_: &[ColumnarValue]| -> datafusion::common::Result<ColumnarValue> { panic!("{word}") };
    create_udf("panicking", vec![DataType::Int64], DataType::Int64, Volatility::Volatile, Arc::new(panic))
}

#[rstest::rstest]
#[case("offset overflow", SqlState::LimitExceeded)]
#[case("no", SqlState::InternalError)]
fn a_panic_ends_its_query(
    #[case] word: &'static str,
    #[case] state: SqlState,
    #[values("SELECT panicking(1)", "SELECT panicking(id) FROM orders", "SELECT panicking(id) FROM orders ORDER BY 1")] sql: &str,
) {
    let world = World::new([]);
    world.commit("orders", &[(1, "a", 1, 1), (2, "b", 1, 1)]);
    let mut functions = crate::sql::functions::state();
    functions.register_udf(Arc::new(panicking(word))).unwrap();
    let planner = Planner::new(world.catalog(), Arc::new(functions));
    let plan = planner.query(&testing::parse(sql)).unwrap();
    let answer = block_on(async {
        let batches = execute(plan, &world.source(), planner.state(), &world.options()).await?;
        collect(batches).await
    });
    assert_eq!(answer.unwrap_err().state(), state);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(future)
}

async fn collect(batches: SendableRecordBatchStream) -> Result<Vec<String>> {
    let batches: Result<Vec<RecordBatch>, DataFusionError> = batches.try_collect().await;
    Ok(show(&batches?))
}

/// Rows as text, sorted; instants in minutes.
fn show(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let value = |column: &arrow::array::ArrayRef, row| match column.as_any().downcast_ref::<TimestampMicrosecondArray>() {
            Some(instants) => (instants.value(row) as f64 / MINUTE as f64).to_string(),
            None => ArrayFormatter::try_new(column, &FormatOptions::default().with_null("-")).unwrap().value(row).to_string(),
        };
        rows.extend((0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| value(c, row)).collect::<Vec<_>>().join(" ")));
    }
    rows.sort();
    rows
}

/// A materialized view and the relation of its late rows.
fn windowed(emit: Emit) -> [Relation; 2] {
    use arrow::datatypes::DataType::{Int64, Utf8};
    let time = crate::time::TIMESTAMP;
    let query = "SELECT window_start, count(*) AS n FROM TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '10' MINUTES) \
                 ALLOWED LATENESS INTERVAL '2' MINUTES GROUP BY window_start";
    let view = testing::view(20, "counts", Kind::MaterializedView, &[("window_start", time.clone()), ("n", Int64)], query);
    let columns = [("id", Int64), ("category", Utf8), ("amount", Int64), ("event_time", time.clone())];
    let bounds = [("window_start", time.clone()), ("window_end", time.clone()), ("window_time", time)];
    let columns: Vec<_> = columns.into_iter().chain(bounds).collect();
    let late = testing::relation(21, "counts$late", Kind::Late, &columns);
    let view = Relation { emit, primary_key: vec![0], ..view };
    let late = Relation { parent: Some(view.id), ..late };
    [view, late]
}

/// The literature's example: lateness of two minutes, watermark without delay.
fn late_example(emit: Emit) -> World {
    let world = World::new(windowed(emit));
    world.commit("orders", &[(1, "a", 1, 1), (2, "a", 1, 4), (3, "a", 1, 9)]);
    world.commit("orders", &[(4, "a", 1, 11)]);
    world.commit("orders", &[(5, "a", 1, 8)]);
    world.commit("orders", &[(6, "a", 1, 13)]);
    world.commit("orders", &[(7, "a", 1, 7)]);
    world
}

#[test]
fn a_row_is_late_in_windows_that_were_closed_before_its_commit() {
    let world = late_example(Emit::Changes);
    assert_eq!(world.expected("counts"), ["0 4", "10 2"]);
    assert_eq!(world.expected("counts$late"), ["7 a 1 7 0 10 9.999983333333333"]);
}

#[test]
fn final_rows_are_those_of_closed_windows() {
    let world = late_example(Emit::Final);
    assert_eq!(world.expected("counts"), ["0 4"]);
    world.commit("orders", &[(8, "a", 1, 22)]);
    assert_eq!(world.expected("counts"), ["0 4", "10 2"]);
}

#[test]
fn rows_of_one_commit_never_make_each_other_late() {
    let world = World::new(windowed(Emit::Changes));
    world.commit("orders", &[(1, "a", 1, 100), (2, "a", 1, 1)]);
    assert_eq!(world.expected("counts"), ["0 1", "100 1"]);
}

#[test]
fn a_row_may_be_late_in_some_of_its_windows() {
    let world = World::new([]);
    world.commit("orders", &[(1, "a", 1, 12)]);
    world.commit("orders", &[(2, "a", 1, 8)]);
    let sql = "SELECT id, window_start, window_end FROM HOP(orders, event_time, INTERVAL '5 minutes', INTERVAL '10 minutes')";
    assert_eq!(world.rows(sql).unwrap(), ["1 10 20", "1 5 15", "2 5 15"]);
}

#[test]
fn a_union_is_judged_by_the_least_watermark() {
    let world = World::new([]);
    let sql = "SELECT id, window_start FROM TUMBLE((SELECT id, event_time FROM orders UNION ALL SELECT id, event_time FROM refunds), \
               event_time, INTERVAL '10 minutes')";
    world.commit("orders", &[(1, "a", 1, 50)]);
    world.commit("orders", &[(2, "a", 1, 1)]);
    assert_eq!(world.rows(sql).unwrap(), ["1 50", "2 0"], "refunds may still come");
    world.commit("refunds", &[(3, "a", 1, 20)]);
    world.commit("refunds", &[(4, "a", 1, 5)]);
    world.commit("orders", &[(5, "a", 1, 25)]);
    assert_eq!(world.rows(sql).unwrap(), ["1 50", "2 0", "3 20", "5 20"], "4 is late, behind both");
}

#[test]
fn windows_by_another_column_are_never_closed() {
    let world = World::new([]);
    world.clock.set(30 * MINUTE);
    world.commit("orders", &[(1, "a", 1, 500)]);
    world.commit("orders", &[(2, "a", 1, 1)]);
    let sql = "SELECT id, window_start FROM TUMBLE(orders, _ingested_at, INTERVAL '10 minutes')";
    assert_eq!(world.rows(sql).unwrap(), ["1 30", "2 30"]);
}

#[test]
fn a_stream_reads_as_its_log_so_far() {
    let world = World::new([]);
    world.commit("orders", &[(1, "a", 10, 1), (2, "b", 20, 2)]);
    world.commit("orders", &[(3, "a", 30, 3)]);
    let sql = "SELECT id, _partition, _offset, _commit FROM orders WHERE amount > 10";
    assert_eq!(world.rows(sql).unwrap(), ["2 0 1 2", "3 0 2 3"]);
    assert_eq!(world.rows("SELECT count(*), count(DISTINCT category) FROM orders").unwrap(), ["3 2"]);
    assert_eq!(world.rows("SELECT * FROM orders ORDER BY _offset DESC LIMIT 1").unwrap(), ["3 a 30 3"]);
}

#[test]
fn a_snapshot_does_not_see_later_commits() {
    let world = World::new([]);
    world.commit("orders", &[(1, "a", 10, 1)]);
    let (source, planner) = (world.source(), world.planner());
    world.commit("orders", &[(2, "a", 10, 1)]);
    let sql = "SELECT id FROM orders";
    let plan = planner.query(&testing::parse(sql)).unwrap();
    let rows = block_on(async { collect(execute(plan, &source, planner.state(), &world.options()).await?).await });
    assert_eq!(rows.unwrap(), ["1"]);
}

#[test]
fn tables_and_views_are_read_with_streams() {
    let mut world = World::new([]);
    world.commit("orders", &[(1, "a", 10, 1), (2, "b", 20, 2)]);
    let rows = [
        Arc::new(Int64Array::from(vec![1])) as _,
        Arc::new(StringArray::from(vec!["x"])) as _,
        Arc::new(StringArray::from(vec!["a"])) as _,
    ];
    let customers = RecordBatch::try_new(world.relation("customers").schema(), rows.into()).unwrap();
    world.keep("customers", customers);
    assert_eq!(world.rows("SELECT o.id, name FROM orders o LEFT JOIN customers c ON c.id = o.id").unwrap(), ["1 x", "2 -"]);
    assert_eq!(world.rows("SELECT name FROM customers WHERE id IN (SELECT id FROM orders)").unwrap(), ["x"]);
    assert_eq!(world.rows("SELECT * FROM totals").unwrap_err().state(), SqlState::ObjectNotReady);
}

#[test]
fn words_are_counted() {
    let world = World::new([]);
    world.commit("orders", &[(1, "to be or not to be", 1, 1)]);
    let sql = "SELECT word, count(*) FROM orders o, UNNEST(split(o.category, ' ')) AS w(word) WHERE word <> 'or' GROUP BY word";
    assert_eq!(world.rows(sql).unwrap(), ["be 2", "not 1", "to 2"]);
    let sql = "SELECT word, count(*) FROM (SELECT unnest(string_to_array(category, ' ')) AS word FROM orders) w GROUP BY word";
    assert_eq!(world.rows(sql).unwrap(), ["be 2", "not 1", "or 1", "to 2"]);
}

#[test]
fn the_answer_of_a_view_on_views_comes_from_the_log() {
    use arrow::datatypes::DataType::{Int64, Utf8};
    let top = testing::view(
        22,
        "top",
        Kind::MaterializedView,
        &[("cat", Utf8), ("t", Int64)],
        "SELECT category, total FROM totals WHERE total > 5",
    );
    let world = World::new([top]);
    world.commit("orders", &[(1, "a", 10, 1), (2, "b", 2, 2), (3, "a", 1, 3)]);
    assert_eq!(world.expected("top"), ["a 11"]);
}

#[test]
fn verify_shows_what_differs() {
    let mut world = late_example(Emit::Changes);
    let view = world.relation("counts");
    let counts = |starts: Vec<i64>, n: Vec<i64>| {
        let starts: Vec<i64> = starts.into_iter().map(|start| start * MINUTE).collect();
        RecordBatch::try_new(
            view.schema(),
            vec![Arc::new(TimestampMicrosecondArray::from(starts)), Arc::new(Int64Array::from(n))],
        )
        .unwrap()
    };
    let late = world.relation("counts$late");
    world.keep("counts$late", RecordBatch::new_empty(late.schema()));
    world.keep("counts", counts(vec![0, 10], vec![4, 2]));
    let report = world.verify("counts");
    assert_eq!(report[..2], ["counts equal 2 -", "counts$late equal 0 -"]);
    assert!(report[2].starts_with("counts$late missing 1 (7,a,1,"), "{report:?}");

    world.versions.retain(|(id, _)| *id != view.id);
    world.keep("counts", counts(vec![0, 20], vec![5, 2]));
    let report = world.verify("counts").join("\n");
    assert!(report.contains("counts equal 0") && report.contains("counts missing 1 (1970-01-01T00:00:00,4)"), "{report}");
    assert!(report.contains("counts unexpected 1 (1970-01-01T00:00:00,5)"), "{report}");
}

#[test]
fn a_query_that_needs_too_much_memory_says_so() {
    let world = World::new([]);
    let orders: Vec<Order> = (0..8000).map(|i| (i, "a", i, 1)).collect();
    (0..4).for_each(|_| world.commit("orders", &orders));
    let sql = "SELECT id FROM orders ORDER BY amount, id";
    let planner = world.planner();
    let plan = planner.query(&testing::parse(sql)).unwrap();
    let run = |runtime| {
        let options = Options { runtime, ..world.options() };
        block_on(async { collect(execute(plan.clone(), &world.source(), planner.state(), &options).await?).await })
    };
    let of_all = run(runtime(64 << 10).unwrap()).unwrap_err();
    assert_eq!(of_all.state(), SqlState::OutOfMemory);
    let all = runtime(64 << 20).unwrap();
    let of_query = run(runtime_of_query(&all, 64 << 10)).unwrap_err();
    assert_eq!(of_query.state(), SqlState::OutOfMemory);
    assert!(of_query.detail().is_some_and(|detail| detail.contains("64kB")), "{of_query:?}");
    assert_eq!(run(runtime_of_query(&all, 32 << 20)).unwrap().iter().len(), 32_000);
    assert_eq!(all.memory_pool.reserved(), 0);
}

/// Each way of asking for a row by its key gives what the query gives, and is known to be a look-up, or not.
#[rstest::rstest]
#[case::literal("SELECT name FROM customers WHERE id = 2", true)]
#[case::all_columns("SELECT * FROM customers WHERE 2 = id", true)]
#[case::twice("SELECT name, id AS a, id AS b FROM customers AS c WHERE c.id = 1 LIMIT 1", true)]
#[case::missing("SELECT name FROM customers WHERE id = 9", true)]
#[case::null("SELECT name FROM customers WHERE id = CAST(NULL AS BIGINT)", false)]
#[case::more("SELECT name FROM customers WHERE id = 2 AND name = 'bob'", false)]
#[case::both("SELECT name FROM customers WHERE id = 2 AND id = 1", false)]
#[case::another_type("SELECT name FROM customers WHERE id = 2.0", false)]
#[case::none("SELECT name FROM customers WHERE id = 2 LIMIT 0", false)]
#[case::offset("SELECT name FROM customers WHERE id = 2 OFFSET 1", false)]
#[case::computed("SELECT upper(name) FROM customers WHERE id = 2", false)]
#[case::small("SELECT name FROM customers WHERE id = CAST(2 AS INT)", false)]
#[case::range("SELECT name FROM customers WHERE id > 1", false)]
#[case::stream("SELECT id FROM orders WHERE id = 1", false)]
#[case::past("SELECT name FROM customers AS OF COMMIT 1 WHERE id = 2", false)]
fn a_row_by_its_key(#[case] sql: &str, #[case] is_point: bool) {
    let mut world = World::new([]);
    let columns: [arrow::array::ArrayRef; 3] = [
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec!["ann", "bob", "cy"])),
        Arc::new(StringArray::from(vec!["x", "y", "x"])),
    ];
    world.keep("customers", RecordBatch::try_new(world.relation("customers").schema(), columns.into()).unwrap());
    let plan = world.planner().query(&testing::parse(sql)).unwrap();
    let read = point::PointRead::of(&plan).and_then(|read| read.rows(&world.source().snapshot, &[]).unwrap());
    assert_eq!(read.is_some(), is_point, "{plan}");
    if let Some(rows) = read {
        assert_eq!(show(&[rows]), world.rows(sql).unwrap());
    }
}

#[test]
fn without_a_watermark_nothing_is_late() {
    let world = World::new([]);
    assert_eq!(world.source().snapshot.watermarks.len(), 0);
    assert_eq!(watermarks::Watermarks::read(world.log.reader().as_ref(), &[1], 10).unwrap().before(5), NO_TIME);
}
