//! What one changed row costs where there is much state: the ten best of each of a million groups, and a join of two tables of
//! five million rows. The time is that of a step with a commit of one row, until readers could have its rows.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tidegate::catalog::Relation;
use tidegate::limits::BATCH_ROWS;
use tidegate::log::Commit;

use super::engine::{self, Running};
use super::table::{Table, percentile};

const GROUPS: i64 = 1_000_000;
const PER_GROUP: i64 = 5;
const TABLE_ROWS: i64 = 5_000_000;
const CHANGES: i64 = 5_000;
/// Batches that are loaded in a step.
const PER_STEP: usize = 16;

pub fn run(scale: u64) {
    let scale = scale as i64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let statements = [
        "CREATE STREAM scores (player BIGINT, game BIGINT, points BIGINT)",
        "CREATE MATERIALIZED VIEW best AS SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY player ORDER BY points DESC, game) \
         AS place FROM scores) AS ranked WHERE place <= 10",
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT, amount BIGINT)",
        "CREATE TABLE customers (id BIGINT PRIMARY KEY, country BIGINT)",
        "CREATE MATERIALIZED VIEW placed AS SELECT orders.id, orders.amount, customers.country FROM orders \
         JOIN customers ON customers.id = orders.customer",
    ];
    let catalog = runtime.block_on(engine::catalog(&statements.map(String::from)));
    let relation = |name: &str| engine::relation(&catalog, name);
    let mut table = Table::new(["one changed row", "p50 ms", "p99 ms", "rows of the view"]);

    let groups = GROUPS / scale;
    let scores = relation("scores");
    let score = |n: i64| [mixed(n) % groups, n, mixed(n + 1) % 10_000];
    let loaded = groups * PER_GROUP;
    let load = batches(0..loaded, ["player", "game", "points"], score).map(|rows| vec![(scores.clone(), rows)]);
    let change = |n: i64| vec![(scores.clone(), batch(n..n + 1, ["player", "game", "points"], score))];
    let commits = engine::commits(load.chain((loaded..loaded + CHANGES).map(change)));
    measure(&mut table, "ten best of each of a million groups", Running::new(&catalog, &relation("best")), &commits);
    drop(commits);

    let rows = TABLE_ROWS / scale;
    let [orders, customers] = ["orders", "customers"].map(relation);
    let order = |n: i64| [n, mixed(n) % rows, n % 1000];
    let customer = |n: i64| [n, mixed(n) % 200];
    let load = batches(0..rows, ["id", "country"], customer).map(|batch| vec![(Arc::<Relation>::clone(&customers), batch)]);
    let load = load.chain(batches(0..rows, ["id", "customer", "amount"], order).map(|batch| vec![(orders.clone(), batch)]));
    // Orders get another amount, and every second change is a customer who moves: all of their orders change.
    let change = |n: i64| match n % 2 {
        0 => vec![(orders.clone(), batch(n..n + 1, ["id", "customer", "amount"], |n| [mixed(n) % rows, mixed(n + 1) % rows, n]))],
        _ => vec![(customers.clone(), batch(n..n + 1, ["id", "country"], |n| [mixed(n) % rows, n % 200]))],
    };
    let commits = engine::commits(load.chain((0..CHANGES).map(change)));
    measure(&mut table, "join of two tables of five million rows", Running::new(&catalog, &relation("placed")), &commits);
    table.print(&format!("Changes of single rows, {CHANGES} of each, one worker"));
}

fn measure(table: &mut Table, what: &str, mut running: Running, commits: &[Arc<Commit>]) {
    let (load, changes) = commits.split_at(commits.len() - CHANGES as usize);
    load.chunks(PER_STEP).for_each(|step| _ = running.step(step));
    let (mut times, mut rows) = (Vec::new(), 0);
    for change in changes {
        let start = Instant::now();
        rows = running.step(std::slice::from_ref(change));
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let at = |share| format!("{:.3}", percentile(times.iter().copied(), share));
    table.row([what.into(), at(0.5), at(0.99), rows.to_string()]);
}

/// A number that looks like any other: the finaliser of MurmurHash3, without its sign.
fn mixed(n: i64) -> i64 {
    let mut h = n as u64;
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((h ^ (h >> 33)) >> 1) as i64
}

fn batches<const COLUMNS: usize>(
    numbers: std::ops::Range<i64>,
    columns: [&'static str; COLUMNS],
    row: impl Fn(i64) -> [i64; COLUMNS] + Copy,
) -> impl Iterator<Item = RecordBatch> {
    let end = numbers.end;
    numbers.step_by(BATCH_ROWS).map(move |from| batch(from..(from + BATCH_ROWS as i64).min(end), columns, row))
}

fn batch<const COLUMNS: usize>(
    numbers: std::ops::Range<i64>,
    names: [&'static str; COLUMNS],
    row: impl Fn(i64) -> [i64; COLUMNS],
) -> RecordBatch {
    let rows: Vec<[i64; COLUMNS]> = numbers.map(row).collect();
    let column = |index: usize| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[index]))) as ArrayRef;
    let columns = names.iter().enumerate().map(|(index, name)| (*name, column(index), true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
}
