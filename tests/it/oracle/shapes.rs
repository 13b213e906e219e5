//! Queries for the oracle that look at several rows of a group again: top-N, OVER, DISTINCT ON, aggregates over all values.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::patterns;

const ORDERS: [&str; 6] = ["n", "n DESC", "x NULLS FIRST, n", "k DESC, x", "n % 3, x DESC NULLS LAST", "n + 0"];

const GROUPS: [&str; 4] = ["", "PARTITION BY k ", "PARTITION BY n % 4 ", "PARTITION BY k, n % 2 "];

/// Functions of OVER that have no frame.
const OVER: [&str; 10] = [
    "row_number()",
    "rank()",
    "dense_rank()",
    "percent_rank()",
    "cume_dist()",
    "ntile(3)",
    "lag(n)",
    "lag(k, 2, 'none')",
    "lead(x)",
    "lead(n, 2)",
];

/// Functions over a frame.
const FRAMED: [&str; 14] = [
    "first_value(n)",
    "last_value(x)",
    "nth_value(n, 2)",
    "sum(n)",
    "avg(n)",
    "count(*)",
    "count(x)",
    "min(x)",
    "max(n)",
    "sum(x)",
    "avg(x)",
    "array_agg(n)",
    "bit_xor(n)",
    "count(n) FILTER (WHERE n > 0)",
];

const FRAMES: [&str; 9] = [
    "",
    "",
    " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    " ROWS BETWEEN 3 PRECEDING AND 2 PRECEDING",
    " ROWS UNBOUNDED PRECEDING",
    " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    " RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    " GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
];

/// Aggregates of which a group keeps all values.
const VALUES: [&str; 43] = [
    "histogram(k)",
    "collect(n % 3)",
    "attr(n % 2)",
    "json_arrayagg(n)",
    "percentile(n, 0.3)",
    "array_reduce(array_agg(n ORDER BY n), 0, (s, e) => s + coalesce(e, 1))",
    "mode() WITHIN GROUP (ORDER BY n)",
    "rank(3) WITHIN GROUP (ORDER BY n DESC)",
    "sum(n * INTERVAL '1 day 2 hours')",
    "avg(n * INTERVAL '1 month')",
    "arg_max(k, n)",
    "min_by(x, n)",
    "topk(n, 3)",
    "topkdistinct(k, 2)",
    "array_agg(n)",
    "array_agg(x) FILTER (WHERE n > 0)",
    "first_value(n) IGNORE NULLS",
    "last_value(k)",
    "array_agg(n ORDER BY x DESC)",
    "array_agg(DISTINCT n)",
    "string_agg(k, '-')",
    "string_agg(k, '-' ORDER BY n)",
    "first_value(n ORDER BY x)",
    "last_value(k ORDER BY n, x)",
    "first_value(n)",
    "nth_value(n, 2 ORDER BY n DESC)",
    "any_value(n)",
    "median(n)",
    "percentile_cont(0.3) WITHIN GROUP (ORDER BY n)",
    "approx_distinct(n)",
    "approx_median(n)",
    "stddev(n)",
    "var_pop(n)",
    "corr(n, x)",
    "regr_slope(x, n)",
    "covar_samp(n, x)",
    "bool_and(n > 0)",
    "bit_or(n)",
    "bit_and(n) FILTER (WHERE n > 3)",
    "json_agg(n)",
    "jsonb_agg(k ORDER BY x DESC) FILTER (WHERE n > 0)",
    "jsonb_object_agg(coalesce(n, 0), x)",
    "percentile_disc(0.3) WITHIN GROUP (ORDER BY n DESC)",
];

pub fn one<'a>(rng: &mut SmallRng, of: &[&'a str]) -> &'a str {
    of.choose(rng).expect("there are some")
}

/// A continuous query of one of these shapes.
pub fn query(rng: &mut SmallRng, filter: &str) -> String {
    if rng.random_bool(0.15) {
        return temporal(rng);
    }
    if rng.random_bool(0.2) {
        return patterns::query(rng);
    }
    if rng.random_bool(0.2) {
        return in_windows(rng, filter);
    }
    let from = one(rng, &["s", "t", "p", "q"]);
    let (order, group) = (one(rng, &ORDERS), one(rng, &GROUPS));
    let bound = rng.random_range(1..5);
    match rng.random_range(0..15) {
        13 => taken_apart(rng, &format!("{from}{filter}")),
        14 => of_no_columns(rng, from, filter),
        12 => documents(rng, &format!("{from}{filter}")),
        11 => {
            let partition = one(rng, &[" PARTITION BY k", " PARTITION BY (k)", ""]);
            let fills = one(rng, &["LOCF(n), INTERPOLATE(x)", "INTERPOLATE(n), LOCF(k)", "KEEP(x), LOCF(k), LOCF(n)"]);
            let (step, having) =
                (one(rng, &["2", "7"]), one(rng, &["", " WHERE at > to_timestamp_seconds(-5)", " WHERE n IS NOT NULL"]));
            format!(
                "SELECT k, at, n, x FROM GAP_FILL(TABLE (SELECT k, n, x, to_timestamp_seconds(n)::timestamp AS at FROM {from}{filter})
                 {partition}, at, INTERVAL '{step}' SECOND, {fills}){having}"
            )
        }
        0 => {
            let offset = one(rng, &["", " OFFSET 1", " OFFSET 3"]);
            let columns = one(rng, &["*", "k, n", "n, x, k"]);
            format!("SELECT {columns} FROM {from}{filter} ORDER BY {order} LIMIT {bound}{offset}")
        }
        1 => {
            let offset = one(rng, &["", " OFFSET 2"]);
            format!(
                "SELECT COUNT(*) AS c, SUM(n) AS total FROM (SELECT n, k FROM {from}{filter} ORDER BY {order} LIMIT {bound}{offset})"
            )
        }
        2 | 3 => ranked(rng, &format!("{from}{filter}"), &format!("{group}ORDER BY {order}"), "k, n, x"),
        4 => {
            let window = one(
                rng,
                &[
                    "TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)",
                    "HOP(s, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
                ],
            );
            let counted = format!(
                "(SELECT window_start, window_end, k, COUNT(*) AS n, MAX(x) AS x FROM {window}{filter} GROUP BY window_start, window_end, k)"
            );
            let group = one(rng, &["PARTITION BY window_end ", "PARTITION BY window_start, window_end ", "PARTITION BY k "]);
            ranked(rng, &counted, &format!("{group}ORDER BY n DESC"), "window_end, k, n, x")
        }
        5 => {
            let order = one(rng, &["", " ORDER BY k, n DESC", " ORDER BY k, x NULLS FIRST"]);
            format!("SELECT DISTINCT ON (k) k, n, x FROM {from}{filter}{order}")
        }
        6 => format!("SELECT k, {} FROM {from}{filter} GROUP BY k", values(rng)),
        7 => {
            let sets = one(
                rng,
                &["ROLLUP (k, n % 3)", "CUBE (k, n % 3)", "GROUPING SETS ((k), (n % 3), ())", "GROUPING SETS ((k, n % 3), (k))"],
            );
            let shown = one(rng, &["grouping(k) AS no_k, COUNT(*) AS c, SUM(n) AS total", "COUNT(*) AS c", "MAX(x) AS most"]);
            format!("SELECT k, n % 3 AS m, {shown} FROM {from}{filter} GROUP BY {sets}")
        }
        _ => over(rng, &format!("{from}{filter}"), group, order),
    }
}

/// Aggregates of all values of a window, which Flink and RisingWave put into FROM, and Arroyo among the keys. The values go by the order
/// in which the rows came.
fn in_windows(rng: &mut SmallRng, filter: &str) -> String {
    let (from, emit) = (one(rng, &["s", "q"]), one(rng, &["", " EMIT FINAL"]));
    if rng.random_bool(0.5) {
        let window = one(
            rng,
            &[
                "TUMBLE(F, ts, INTERVAL '10' SECOND)",
                "HOP(F, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND)",
                "SESSION(F PARTITION BY k, ts, INTERVAL '4' SECOND)",
            ],
        );
        let window = window.replace('F', from);
        return format!(
            "SELECT window_start, window_end, k, {} FROM {window}{filter} GROUP BY window_start, window_end, k{emit}",
            values(rng)
        );
    }
    let call = one(
        rng,
        &[
            "tumble(INTERVAL '10 seconds')",
            "hop(ts, INTERVAL '5 seconds', INTERVAL '10 seconds')",
            "session(INTERVAL '4 seconds')",
            "cumulate(INTERVAL '3 seconds', INTERVAL '9 seconds')",
        ],
    );
    let from = match rng.random_bool(0.5) || call.contains("ts") {
        true => format!("{from}{filter}"),
        false => format!("(SELECT k, n, x FROM {from}{filter}) f"),
    };
    let (keys, having) = (one(rng, &["", ", k", ", n % 3"]), one(rng, &["", "", " HAVING COUNT(*) > 1"]));
    let shown = keys.replace("n % 3", "n % 3 AS m");
    format!("SELECT {call} AS w{shown}, {} FROM {from} GROUP BY w{keys}{having}{emit}", values(rng))
}

/// UNNEST of rows and of maps that are made of columns.
fn taken_apart(rng: &mut SmallRng, from: &str) -> String {
    let join = one(rng, &["CROSS JOIN", "LEFT JOIN"]);
    let on = if join == "LEFT JOIN" { " ON true" } else { "" };
    let unnest = one(
        rng,
        &[
            "UNNEST(ARRAY[ROW(f.k, f.n), ROW('all', f.n + 1), ROW(f.k, NULL)]) AS u(a, b)",
            "UNNEST(MAP('n' := f.n, 'm' := f.n % 3)) AS u(a, b)",
            "UNNEST(MAP('n' := f.n, 'm' := f.n % 3)) WITH ORDINALITY AS u(a, b, o)",
            "UNNEST(CASE WHEN f.n > 0 THEN MAP(coalesce(f.k, '') := f.n) END) AS u(a, b)",
        ],
    );
    let of = format!("(SELECT k, n, x FROM {from}) f {join} {unnest}{on}");
    match rng.random_bool(0.5) {
        true => format!("SELECT f.k, f.x, u.a, u.b FROM {of}"),
        false => format!("SELECT u.a, COUNT(*) AS c, SUM(u.b) AS total FROM {of} GROUP BY u.a"),
    }
}

/// Rows of which nothing is asked but how many there are.
fn of_no_columns(rng: &mut SmallRng, from: &str, filter: &str) -> String {
    let (not, least) = (one(rng, &["", "NOT "]), one(rng, &["20", "27", "29"]));
    let exists = format!("{not}EXISTS (SELECT 1 FROM {from} WHERE n > {least})");
    match rng.random_range(0..5) {
        0 => format!("SELECT 1 AS x WHERE {exists}"),
        1 => format!("SELECT COUNT(*) AS c FROM t WHERE {exists}"),
        2 => format!("SELECT row_number() OVER () AS place FROM {from}{filter}"),
        3 => format!("SELECT COUNT(*) OVER () AS c FROM {from}{filter}"),
        _ => format!("SELECT COUNT(*) AS c FROM (SELECT 1 FROM {from}{filter}) a CROSS JOIN (VALUES (1), (2)) b"),
    }
}

/// Documents made of rows, changed, taken apart and put together.
fn documents(rng: &mut SmallRng, from: &str) -> String {
    let made = format!("(SELECT k, n, jsonb_build_object('n', n, 'k', k, 'l', jsonb_build_array(n, x, k)) AS j FROM {from}) d");
    match rng.random_range(0..5) {
        0 => format!(
            "SELECT k, j || jsonb_build_object('m', n % 3) AS a, j - 'k' AS b, jsonb_set(j, '{{l,1}}', to_jsonb(k)) AS c,
             j @> '{{\"n\": 3}}' AS e, to_jsonb(d) AS w FROM {made}"
        ),
        1 => format!("SELECT k, key, value FROM {made}, jsonb_each(d.j)"),
        2 => format!("SELECT k, e, o FROM {made}, jsonb_array_elements(d.j -> 'l') WITH ORDINALITY AS t(e, o)"),
        3 => format!("SELECT j -> 'n' AS v, count(*) AS c, jsonb_agg(j ORDER BY k) AS all_of FROM {made} GROUP BY j -> 'n'"),
        _ => format!("SELECT k, j FROM {made} ORDER BY j, k LIMIT {}", rng.random_range(1..5)),
    }
}

/// Rows that come and go as commit time passes, which begins with 2025 and is a second per commit. Event time is ten hours later
/// and a few times as fast.
fn temporal(rng: &mut SmallRng) -> String {
    const FROM_STREAM: [&str; 8] = [
        "NOT (ts - now() >= INTERVAL '10 hours 20 seconds')",
        "date_trunc('second', now()) + INTERVAL '10 hours' >= ts",
        "ts - now() < INTERVAL '10 hours 20 seconds'",
        "ts > now() + INTERVAL '10 hours' - INTERVAL '9 seconds'",
        "ts - INTERVAL '9 hours 59 minutes 30 seconds' BETWEEN now() - INTERVAL '1 minute' AND now()",
        "now() >= ts - INTERVAL '10 hours 20 seconds' AND n > -20",
        "ts <= now() + INTERVAL '10 hours 50 seconds'",
        "_ingested_at > now() - INTERVAL '3 seconds'",
    ];
    const FROM_TABLE: [&str; 9] = [
        "NOT (to_timestamp(1735689600 + n) <= now())",
        "to_timestamp(1735689600 + n) < CURRENT_DATE",
        "now() - to_timestamp(1735689600 + n) BETWEEN INTERVAL '1 second' AND INTERVAL '6 seconds'",
        "date_trunc('second', now()) = date_trunc('second', to_timestamp(1735689600.5 + n))",
        "date_trunc('minute', to_timestamp(1735689610 + n)) >= date_trunc('minute', now())",
        "to_timestamp(1735689600 + n)::date = CURRENT_DATE - 1",
        "to_timestamp(1735689610 + n) > now()",
        "to_timestamp(1735689600 + n) <= now() AND x IS NOT NULL",
        "now() BETWEEN to_timestamp(1735689600 + n) AND to_timestamp(1735689605 + n)",
    ];
    let (from, condition) = match rng.random_bool(0.5) {
        true => ("s", one(rng, &FROM_STREAM)),
        false => (one(rng, &["t", "p"]), one(rng, &FROM_TABLE)),
    };
    let condition = match rng.random_range(0..4) {
        0 => format!("({condition} OR n % 3 = 1 OR k = 'k2')"),
        _ => condition.to_string(),
    };
    match rng.random_range(0..6) {
        5 => format!(
            "SELECT k, MAX(ts) AS newest, COUNT(*) AS c FROM s GROUP BY k HAVING MAX(ts) > now() + INTERVAL '10 hours {} seconds'",
            rng.random_range(1..30)
        ),
        0 => format!("SELECT k, n, x FROM {from} WHERE {condition}"),
        1 => {
            let join = one(rng, &["JOIN", "LEFT JOIN"]);
            format!("SELECT a.k, a.n, b.n AS bn FROM (SELECT k, n FROM {from} WHERE {condition}) a {join} q b ON b.k = a.k")
        }
        2 => format!(
            "SELECT b.k, b.n FROM q b WHERE {}EXISTS (SELECT 1 FROM {from} a WHERE a.k = b.k AND {condition})",
            one(rng, &["", "NOT "])
        ),
        3 => format!("SELECT k, COUNT(*) AS c, SUM(n) AS total, MAX(x) AS most FROM {from} WHERE {condition} GROUP BY k"),
        _ => format!("SELECT k, n FROM {from} WHERE {condition} ORDER BY n DESC LIMIT 3"),
    }
}

fn ranked(rng: &mut SmallRng, from: &str, over: &str, columns: &str) -> String {
    let rank = one(rng, &["row_number()", "rank()", "dense_rank()"]);
    let bound = rng.random_range(1..5);
    let filter = match rng.random_range(0..4) {
        0 => "r = 1".to_string(),
        1 => format!("r < {bound} AND n > -25"),
        2 => format!("r = {bound}"),
        _ => format!("r <= {bound}"),
    };
    let shown = one(rng, &[", r", ""]);
    let other = one(rng, &["", "", ", rank() OVER (W) AS q"]).replace('W', over);
    let shown = if other.is_empty() { shown.to_string() } else { format!("{shown}, q") };
    format!("SELECT {columns}{shown} FROM (SELECT *, {rank} OVER ({over}) AS r{other} FROM {from}) WHERE {filter}")
}

fn over(rng: &mut SmallRng, from: &str, group: &str, order: &str) -> String {
    let functions: Vec<String> = (0..rng.random_range(1..4))
        .map(|i| {
            let plain = rng.random_bool(0.4);
            let function = if plain { one(rng, &OVER) } else { one(rng, &FRAMED) };
            let (call, condition) =
                function.split_once(" FILTER").map_or((function, String::new()), |(call, f)| (call, format!(" FILTER{f}")));
            let frame = if plain { "" } else { one(rng, &FRAMES) };
            let group = if rng.random_bool(0.8) { group } else { one(rng, &GROUPS) };
            let over = match rng.random_range(0..10) {
                0 if frame.is_empty() => group.to_string(),
                1 if !plain => format!("{group}ORDER BY n RANGE BETWEEN 5 PRECEDING AND 3 FOLLOWING"),
                _ => format!("{group}ORDER BY {order}{frame}"),
            };
            format!("{call}{condition} OVER ({over}) AS w{i}")
        })
        .collect();
    format!("SELECT k, n, x, {} FROM {from}", functions.join(", "))
}

fn values(rng: &mut SmallRng) -> String {
    let count = rng.random_range(1..4);
    let calls: Vec<&str> = VALUES.choose_multiple(rng, count).copied().collect();
    calls.iter().enumerate().map(|(i, call)| format!("{call} AS a{i}")).collect::<Vec<_>>().join(", ")
}
