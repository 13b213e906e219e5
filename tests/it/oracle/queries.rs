//! Queries for the oracle, of everything that a continuous query may be.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{FUNCTIONS, World, shapes};

/// A watermark of a derived stream's own, which some rows have none of: they are dead letters.
const FAILS: &str = " (WATERMARK FOR ts AS ts - INTERVAL '1' SECOND * (100 / (n * n)))";

/// Expressions of the queries, and others in their place that fail for some rows.
const FAILING: [(&str, &str); 9] = [
    (" n % 3", " 60 / n % 3"),
    (" n > -20", " 60 / n > -20"),
    ("n * 2", "60 / n * 2"),
    ("SUM(n)", "SUM(60 / n)"),
    ("MAX(n)", "MAX((k || '0')::BIGINT + substr(k, 2)::BIGINT / n)"),
    ("MIN(n)", "MIN(coalesce(60 / n, n))"),
    ("COUNT(n)", "COUNT(60 / (n - 3))"),
    ("a.n < b.n", "60 / a.n < b.n"),
    ("a.n % 3 = b.n % 3", "60 / a.n % 3 = 60 / b.n % 3"),
];

/// The statement that makes a view. What may fail in it is NULL.
pub(super) fn create_view(create: &str, name: &str, sql: &str) -> String {
    let fails = FAILING.iter().any(|(_, failing)| sql.contains(failing));
    let options = if fails { " WITH (on_error = 'null')" } else { "" };
    format!("{create} MATERIALIZED VIEW {name}{options} AS {sql}")
}

impl World {
    pub(super) fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).expect("there are some")
    }

    pub(super) fn some<'a>(&mut self, of: &[&'a str], least: usize) -> Vec<&'a str> {
        let count = self.rng.random_range(least..=of.len().min(4));
        let mut chosen: Vec<&str> = of.choose_multiple(&mut self.rng, count).copied().collect();
        chosen.sort_unstable();
        chosen
    }

    /// ALTER … ADD COLUMN.
    pub(super) fn add_column(&mut self) -> String {
        let relation = self.one(&["s", "t", "p", "q", "r"]).to_string();
        let column = format!("added{}", self.added.len());
        let default = self.one(&["BIGINT", "BIGINT DEFAULT 7", "BIGINT NOT NULL DEFAULT -2"]);
        let statement = format!("ALTER TABLE {relation} ADD COLUMN {column} {default}");
        self.added.push((relation, column));
        statement
    }

    /// A continuous query.
    pub(super) fn query(&mut self, views: &[(String, String)]) -> String {
        let sql = match self.added.choose(&mut self.rng).cloned() {
            Some((relation, column)) if self.rng.random_bool(0.15) => self.over_added(&relation, &column),
            _ if self.rng.random_bool(0.5) => self.join(views),
            _ => self.single(views),
        };
        if sql.contains(" EMIT ") || self.rng.random_bool(0.85) {
            return sql;
        }
        format!("{sql} EMIT CHANGES WITH DELAY INTERVAL '{}'", self.one(&["2 seconds", "3 seconds", "5 seconds"]))
    }

    pub(super) fn over_added(&mut self, relation: &str, column: &str) -> String {
        match self.rng.random_bool(0.5) {
            true => format!("SELECT k, SUM({column}) AS total, COUNT(*) AS rows FROM {relation} GROUP BY k"),
            false => format!("SELECT * FROM {relation} WHERE COALESCE({column}, 0) <> 5"),
        }
    }

    /// A stream of rows of `s`, or of one that is made of them.
    pub(super) fn derived_stream(&mut self) -> (String, String) {
        let name = format!("d{}", self.streams.len());
        let from = self.streams.choose(&mut self.rng).cloned().filter(|_| self.rng.random_bool(0.5)).unwrap_or("s".into());
        let filter = self.one(&["", " WHERE n > -10", " WHERE k <> 'k2' OR n > 20", " WHERE n % 3 <> 0 AND x IS NOT NULL"]);
        let how = self.one(&["", " PARTITION BY (k) INTO 2 PARTITIONS", " INTO 3 PARTITIONS"]);
        let columns = self.one(&["", " (k, n, d, x, ts)", " (WATERMARK FOR ts)", FAILS]);
        let query = match self.rng.random_range(0..4) {
            0 => format!("SELECT k, n, d, x, ts FROM {from}{filter} UNION ALL SELECT k, n, d, -x, ts FROM s WHERE n < 0"),
            1 => format!(
                "SELECT k, SUM(n)::BIGINT AS n, MAX(d)::DECIMAL(10,2) AS d, MIN(x) AS x, window_end AS ts
                 FROM TUMBLE({from}, ts, INTERVAL '2' SECOND){filter} GROUP BY window_start, window_end, k EMIT FINAL"
            ),
            _ => format!("SELECT k, n, d, x, ts FROM {from}{filter}"),
        };
        let sql = format!("CREATE STREAM {name}{columns}{how} AS {query}");
        (name, sql)
    }

    /// The query, now and then with functions in place of expressions.
    pub(super) fn with_functions(&mut self, sql: String) -> String {
        if self.rng.random_bool(0.7) {
            return sql;
        }
        let sql = FUNCTIONS.iter().fold(sql, |sql, ((expression, call), _)| sql.replace(expression, call));
        // In grouping sets, too.
        sql.replace("(n % 3)", "(modulo(n))")
    }

    /// The query, now and then with expressions that fail for some rows.
    pub(super) fn with_failures(&mut self, sql: String) -> String {
        if self.rng.random_bool(0.75) || sql.contains("MATCH_RECOGNIZE") {
            return sql;
        }
        FAILING.iter().fold(sql, |sql, (expression, failing)| sql.replace(expression, failing))
    }

    /// The query, now and then over a derived stream.
    pub(super) fn over_derived(&mut self, sql: String) -> String {
        let Some(stream) = self.streams.choose(&mut self.rng).cloned().filter(|_| self.rng.random_bool(0.4)) else { return sql };
        if sql.contains("added") {
            return sql;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut out = String::new();
        for part in sql.split_inclusive(|c| !is_word(c)) {
            match part.strip_prefix('s').filter(|rest| rest.chars().all(|c| c != '.' && !is_word(c))) {
                Some(rest) => out.push_str(&format!("{stream}{rest}")),
                None => out.push_str(part),
            }
        }
        out
    }

    /// A query that combines several relations.
    pub(super) fn join(&mut self, views: &[(String, String)]) -> String {
        let mut relations = vec!["s", "t", "p", "q"];
        relations.extend(
            views
                .iter()
                .filter(|(_, sql)| sql.contains(" AS n FROM") || sql.starts_with("SELECT k, n FROM"))
                .map(|(name, _)| name.as_str()),
        );
        let (a, b, c) = (self.one(&relations), self.one(&relations), self.one(&["t", "p"]));
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let rest = self.one(&["", "", " AND a.n < b.n", " AND a.n + b.n > 0", " AND a.n % 3 = b.n % 3"]);
        let filter = self.one(&["", " WHERE n > -20", " WHERE k <> 'k1'", " WHERE n > 25"]);
        let not = self.one(&["", "NOT "]);
        if self.rng.random_bool(0.4) {
            return self.timed_join(views, kind, rest);
        }
        let nearest = self.one(&["a.n >= b.n", "a.n > b.n", "b.n >= a.n", "a.n < b.n", "a.x >= b.n", "a.n - 3 >= b.n"]);
        let (asof, equal) = (self.one(&["ASOF JOIN", "ASOF LEFT JOIN"]), self.one(&["a.k = b.k AND ", "a.k = b.k AND ", ""]));
        match self.rng.random_range(0..24) {
            13 if ["s", "t", "p", "q"].contains(&a) => {
                format!("SELECT a.k, a.n, a.x, b.k AS bk, b.n AS bn FROM {a} a {asof} {c} b ON {equal}{nearest}")
            }
            14 => format!(
                "SELECT a.k, COUNT(*) AS c, COUNT(b.n) AS matched, SUM(b.x) AS total FROM t a {asof} {c} b ON {equal}{nearest} GROUP BY a.k"
            ),
            15 => format!("SELECT k, n, n {not}IN (SELECT n FROM {b}{filter}) AS there FROM {a}"),
            16 => format!("SELECT k, n FROM {a} a WHERE k = 'k1' OR n {not}IN (SELECT n FROM {b} b WHERE b.k = a.k)"),
            17 => format!(
                "SELECT k, n, n >= ALL (SELECT n FROM {b} b WHERE b.k = a.k) AS most, n < ANY (SELECT n FROM {b}{filter}) AS less
                 FROM {a} a"
            ),
            18 => format!(
                "SELECT a.k, a.n, b.k AS bk, b.n AS bn FROM {a} a {kind} (VALUES ('k1', 5), ('k2', -3), ('k9', NULL)) AS b(k, n)
                 ON a.k = b.k{rest}"
            ),
            22 => format!(
                "VALUES ('k1', 5), ('k1', 5), ('k9', NULL) {} SELECT k, n FROM {a}{filter}",
                self.one(&["EXCEPT ALL", "EXCEPT"])
            ),
            23 => format!(
                "SELECT d.k, COUNT(a.n) AS c, SUM(a.n) AS total FROM (VALUES ('k1'), ('k2'), ('k9'), (NULL)) AS d(k) {kind} {a} a
                 ON a.k = d.k GROUP BY d.k HAVING SUM(a.n) IS NULL OR COUNT(*) > 1"
            ),
            19 => format!("SELECT k, n FROM {a}{filter} UNION ALL VALUES ('k1', 5), ('k0', -3)"),
            20 => format!(
                "SELECT a.k, a.n, b.k AS bk, b.n AS bn FROM {c} a {kind} t b ON a.k IS NOT DISTINCT FROM b.k AND a.n % 3 = b.n % 3"
            ),
            21 => format!("SELECT id, a.n, b.n AS bn, c.n AS cn FROM t a {kind} t b USING (id) {kind} t c USING (id)"),
            0 | 1 => format!("SELECT a.k, a.n, b.k AS bk, b.n AS bn FROM {a} a {kind} {b} b ON a.k = b.k{rest}"),
            2 => {
                let theta = self.one(&["a.n < b.n - 30", "a.n = -b.n OR a.k = b.k", "a.n > b.n + 20 AND a.k <> b.k"]);
                format!("SELECT a.k, a.n, b.k AS bk, b.n AS bn FROM {c} a {kind} t b ON {theta}")
            }
            3 => match self.rng.random_bool(0.7) {
                true => format!("SELECT k, n FROM {a} WHERE k {not}IN (SELECT k FROM {b}{filter})"),
                false => format!("SELECT k, n FROM {c} WHERE (k, n % 3) {not}IN (SELECT k, n % 3 FROM t{filter})"),
            },
            4 => format!("SELECT k, n FROM {a} a WHERE {not}EXISTS (SELECT 1 FROM {b} b WHERE b.k = a.k{rest})"),
            5 => {
                let what = self.one(&["INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
                format!("SELECT k, n % 5 AS n FROM {a} {what} SELECT k, n % 5 FROM {b}")
            }
            6 => format!(
                "SELECT a.k, COUNT(*) AS c, COUNT(b.n) AS matched, SUM(b.n) AS total FROM {a} a {kind} {b} b ON a.k = b.k{rest}
                 GROUP BY a.k"
            ),
            7 => format!(
                "SELECT a.k, a.c, b.total FROM (SELECT k, COUNT(*) AS c FROM {a} GROUP BY k) a
                 {kind} (SELECT k, SUM(n) AS total FROM {b} GROUP BY k) b ON a.k = b.k"
            ),
            8 => format!("SELECT a.id, a.n, b.n AS same, b.id IS NULL AS never FROM t a {kind} t b ON a.id = b.id"),
            9 => format!("SELECT k, n FROM {a} WHERE n > (SELECT MAX(n) - 20 FROM {b}{filter})"),
            10 => format!("SELECT a.k, a.n, (SELECT MAX(b.n) FROM {b} b WHERE b.k = a.k) AS best FROM {a} a"),
            11 => format!("SELECT a.k, a.n, b.n AS bn, c.n AS cn FROM {a} a {kind} t b ON a.k = b.k JOIN {c} c ON c.n = b.n"),
            _ => format!("SELECT k, n FROM {a} a WHERE n > 20 OR {not}EXISTS (SELECT 1 FROM {b} b WHERE b.k = a.k{rest})"),
        }
    }

    /// A join that says something of the times of both sides.
    pub(super) fn timed_join(&mut self, views: &[(String, String)], kind: &str, rest: &str) -> String {
        let window = |stream: &str| format!("TUMBLE(TABLE {stream}, DESCRIPTOR(ts), INTERVAL '10' SECOND)");
        let (s, q) = (window("s"), window("q"));
        let same = "a.window_start = b.window_start AND a.window_end = b.window_end";
        let bound = self.one(&[
            "b.ts BETWEEN a.ts - INTERVAL '3' SECOND AND a.ts + INTERVAL '8' SECOND",
            "a.ts <= b.ts AND b.ts < a.ts + INTERVAL '10' SECOND",
            "a.ts - INTERVAL '2' SECOND > b.ts AND b.ts + INTERVAL '12' SECOND >= a.ts",
        ]);
        let (emit, some) = (self.one(&["", " EMIT FINAL"]), self.one(&["JOIN", "LEFT JOIN"]));
        let not = self.one(&["", "NOT "]);
        let grouped = |from: &str| {
            format!("(SELECT window_start, window_end, k, COUNT(*) AS c FROM {from} GROUP BY window_start, window_end, k)")
        };
        let windowed = |sql: &str| {
            sql.starts_with("SELECT window_start, window_end, k, ") && sql.contains("TUMBLE") && sql.contains(" AS a0")
        };
        let windowed = views.iter().find(|(_, sql)| windowed(sql));
        let nearest = self.one(&["a.ts >= b.ts", "b.ts < a.ts", "a.ts <= b.ts", "a.ts < b.ts"]);
        let asof = self.one(&["ASOF JOIN", "ASOF LEFT JOIN"]);
        match self.rng.random_range(0..18) {
            12 => format!("SELECT a.k, a.n, a.ts, b.n AS bn FROM s a {some} q b ON a.k = b.k AND {bound}{rest}{emit}"),
            13 => format!("SELECT a.k, a.n, b.n AS bn, b.ts AS bts FROM s a {asof} q b ON a.k = b.k AND a.ts >= b.ts{emit}"),
            14 => format!("SELECT a.k, a.n, b.n AS bn, b.x FROM s a {some} r FOR SYSTEM_TIME AS OF a.ts AS b ON a.k = b.k{rest}{emit}"),
            15 => {
                let when = self.one(&["PROCTIME()", "a._ingested_at", "a.ts"]);
                format!("SELECT a.k, a.n, b.k AS bk, b.x FROM s a {some} t FOR SYSTEM_TIME AS OF {when} b ON b.id = a.n{rest}")
            }
            16 => format!(
                "SELECT window_end, COUNT(*) AS c, SUM(b.n) AS total FROM {s} a {some} r FOR SYSTEM_TIME AS OF now() AS b
                 ON a.k = b.k GROUP BY window_start, window_end{emit}"
            ),
            9 | 10 => format!("SELECT a.k, a.n, a.ts, b.n AS bn, b.ts AS bts FROM s a {asof} q b ON a.k = b.k AND {nearest}"),
            11 => format!(
                "SELECT window_start, window_end, COUNT(*) AS c, SUM(bn) AS total FROM TUMBLE((SELECT a.ts, b.n AS bn FROM s a {asof} q b
                 ON a.k = b.k AND a.ts >= b.ts), ts => ts, size => INTERVAL '10' SECOND) GROUP BY window_start, window_end{emit}"
            ),
            0 => format!("SELECT a.k, a.n, a.ts, b.n AS bn, b.ts AS bts FROM s a {kind} q b ON a.k = b.k AND {bound}{rest}"),
            1 => {
                let within = self.one(&["5 SECONDS", "(3 SECONDS, 8 SECONDS)", "2 SECONDS GRACE PERIOD 4 SECONDS"]);
                format!("SELECT a.k, a.n, a.ts, b.n AS bn, b.ts AS bts FROM s a {kind} q b WITHIN {within} ON a.k = b.k{rest}")
            }
            2 => format!("SELECT a.n, b.n AS bn FROM s a, q b WHERE a.n < b.n AND {bound}"),
            3 => format!("SELECT a.k, a.n, b.n AS bn, a.window_end FROM {s} a {kind} {q} b ON {same} AND a.k = b.k{rest}"),
            4 => format!(
                "SELECT a.window_start, a.window_end, COUNT(*) AS c, SUM(b.n) AS total FROM {s} a {some} {q} b
                 ON {same} AND a.k = b.k{rest} GROUP BY a.window_start, a.window_end{emit}"
            ),
            5 => format!(
                "SELECT a.window_start, a.k, a.c, b.c AS bc FROM {} a {kind} {} b ON {same} AND a.k = b.k",
                grouped(&s),
                grouped(&q)
            ),
            6 => format!(
                "SELECT window_start, window_end, COUNT(*) AS c FROM TUMBLE((SELECT a.ts, b.n FROM s a {some} q b
                 ON a.k = b.k AND {bound}), ts => ts, size => INTERVAL '10' SECOND) GROUP BY window_start, window_end{emit}"
            ),
            7 => format!(
                "SELECT a.k, a.n, a.window_start FROM {s} a WHERE {not}EXISTS (SELECT 1 FROM {q} b WHERE {same} AND a.k = b.k)"
            ),
            17 => {
                let asked = match self.rng.random_bool(0.7) {
                    true => format!("{not}EXISTS (SELECT 1 FROM q b WHERE a.k = b.k AND {bound}{rest})"),
                    false => format!("a.k IN (SELECT b.k FROM q b WHERE {bound}{rest})"),
                };
                format!("SELECT a.k, a.n, a.ts FROM s a WHERE {asked} AND a.n > -30{emit}")
            }
            _ => match windowed {
                Some((view, _)) => {
                    format!("SELECT a.k, a.n, b.a0, a.window_end FROM {s} a {kind} {view} b ON {same} AND a.k = b.k")
                }
                None => format!("SELECT a.n, b.n AS bn FROM q a {kind} s b ON a.k = b.k AND {bound}"),
            },
        }
    }

    /// A query over one relation.
    pub(super) fn single(&mut self, views: &[(String, String)]) -> String {
        let aggregates = [
            "COUNT(*)",
            "COUNT(n)",
            "SUM(n)",
            "AVG(n)",
            "MIN(n)",
            "MAX(n)",
            "MIN(k)",
            "MAX(k)",
            "COUNT(DISTINCT k)",
            "SUM(x)",
            "AVG(x)",
            "MAX(x)",
            "SUM(n) FILTER (WHERE n > 0)",
            "COUNT(DISTINCT n)",
            "bit_xor(n)",
            "SUM(DISTINCT n)",
        ];
        let list =
            |columns: &[&str]| columns.iter().enumerate().map(|(i, c)| format!("{c} AS a{i}")).collect::<Vec<_>>().join(", ");
        let chosen = self.some(&aggregates, 1);
        let filter = self.one(&["", " WHERE n > -20", " WHERE k <> 'k1'", " WHERE x IS NOT NULL AND n % 2 = 0"]).to_string();
        if self.rng.random_bool(0.5) {
            return shapes::query(&mut self.rng, &filter);
        }
        match self.rng.random_range(0..14) {
            12 | 13 => self.final_rows(&list(&chosen), &filter),
            8 | 9 => self.session(&list(&chosen), &filter),
            10 | 11 => self.window_of_windows(views),
            0 => format!("SELECT k, n * 2 AS n2, upper(k) AS u FROM {}{filter}", self.one(&["s", "t", "p"])),
            1 => {
                let from = self.one(&["s", "t"]);
                let having = self.one(&["", " HAVING COUNT(*) > 2"]);
                format!("SELECT k, {} FROM {from}{filter} GROUP BY k{having}", list(&chosen))
            }
            2 => format!("SELECT {} FROM {}{filter}", list(&chosen), self.one(&["s", "t"])),
            3 => "SELECT k, COUNT(*) AS c, SUM(n) AS total
                FROM (SELECT k, n FROM s UNION ALL SELECT k, -n FROM t UNION ALL SELECT k, n FROM p) GROUP BY k"
                .to_string(),
            4 if !views.is_empty() && views.iter().any(|(_, sql)| sql.contains(" AS n2")) => {
                let base = views.iter().find(|(_, sql)| sql.contains(" AS n2")).map_or("", |(name, _)| name.as_str());
                format!("SELECT u, COUNT(*) AS c, SUM(n2) AS total FROM {base} GROUP BY u")
            }
            _ => {
                let lateness = self.one(&["", " ALLOWED LATENESS INTERVAL '7' SECOND"]);
                let window = self.one(&[
                    "TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)",
                    "TUMBLE(s, ts, INTERVAL '10' SECOND, INTERVAL '3' SECOND)",
                    "HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND)",
                    "HOP(s, ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND, INTERVAL '1' SECOND)",
                    "CUMULATE(s, ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND)",
                    "TUMBLE(TABLE s, DESCRIPTOR(_ingested_at), INTERVAL '3' SECOND)",
                    "HOP(s, _ingested_at, INTERVAL '2' SECOND, INTERVAL '5' SECOND)",
                    "CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '9' SECOND, INTERVAL '2' SECOND)",
                ]);
                let window = format!("{window}{lateness}");
                let key = self.one(&["", ", k", ", n % 3"]).to_string();
                let shown = key.replace("n % 3", "n % 3 AS m");
                let having = self.one(&["", "", " HAVING COUNT(*) > 1", " HAVING window_end > '2025-01-01 10:00:20'"]);
                let delayed = if lateness.is_empty() { " EMIT FINAL WITH DELAY INTERVAL '4' SECOND" } else { " EMIT FINAL" };
                let timeout =
                    if window.contains("_ingested_at") { " EMIT FINAL" } else { " EMIT FINAL AND TIMEOUT INTERVAL '2' SECOND" };
                let emit = self.one(&["", " EMIT FINAL", delayed, timeout]);
                format!(
                    "SELECT window_start, window_end{shown}, {} FROM {window}{filter}
                     GROUP BY window_start, window_end{key}{having}{emit}",
                    list(&chosen)
                )
            }
        }
    }

    /// Rows that become final without groups of windows in the query.
    pub(super) fn final_rows(&mut self, aggregates: &str, filter: &str) -> String {
        let window = self.one(&[
            "TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)",
            "TUMBLE(s, ts, INTERVAL '10' SECOND) ALLOWED LATENESS INTERVAL '7' SECOND",
            "HOP(s, ts, INTERVAL '4' SECOND, INTERVAL '10' SECOND)",
            "CUMULATE(s, ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND)",
            "TUMBLE(TABLE s, DESCRIPTOR(_ingested_at), INTERVAL '3' SECOND)",
        ]);
        let group =
            self.one(&["window_start, window_end", "window_end, k", "window_start", "n % 3, window_time", "k, window_end"]);
        let order = self.one(&["n DESC", "ts", "n % 3, x DESC NULLS LAST", "ts DESC"]);
        let rank = self.one(&["row_number()", "rank()", "dense_rank()"]);
        let shown = self.one(&["*", "k, n", "window_end, k, n, r"]);
        let bound = self.rng.random_range(1..4);
        let query = match self.rng.random_range(0..11) {
            0..3 => format!(
                "SELECT {shown} FROM (SELECT k, n, x, ts, window_start, window_end, {rank} OVER (PARTITION BY {group} ORDER BY {order}) AS r
                 FROM {window}{filter}) WHERE r <= {bound}"
            ),
            3 => format!(
                "SELECT window_end, k, n, SUM(n) OVER (PARTITION BY {group} ORDER BY {order}) AS total,
                 lag(n) OVER (PARTITION BY window_end, k ORDER BY ts) AS before FROM {window}{filter}"
            ),
            4 => format!("SELECT DISTINCT ON (window_end, k) window_end, k, n, x FROM {window}{filter} ORDER BY window_end, k, {order}"),
            5 | 6 => {
                let unit = self.one(&[
                    "ts",
                    "date_trunc('second', ts)",
                    "date_trunc('minute', ts)",
                    "date_bin(INTERVAL '7 seconds', ts, TIMESTAMP '2025-01-01 00:00:03')",
                ]);
                let (key, having) = (self.one(&["", ", k", ", ts", ", k, k"]), self.one(&["", " HAVING COUNT(*) > 1"]));
                let shown = key.replace(", k, k", ", k");
                format!("SELECT {unit} AS at{shown}, {aggregates} FROM s{filter} GROUP BY {unit}{key}{having}")
            }
            7 => match self.rng.random_bool(0.5) {
                true => format!("SELECT k, n, ts FROM s{filter}"),
                false => "SELECT k, n FROM (SELECT k, n, ts FROM s UNION ALL SELECT k, -n, ts FROM q)".into(),
            },
            8 => {
                let frame = self.one(&[
                    "",
                    " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
                    " RANGE BETWEEN INTERVAL '9 seconds' PRECEDING AND CURRENT ROW",
                    " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING",
                ]);
                let (before, key) = (self.one(&["ts", "ts, n DESC"]), self.one(&["PARTITION BY k ", ""]));
                format!(
                    "SELECT k, n, ts, SUM(n) OVER ({key}ORDER BY ts{frame}) AS total,
                     lag(n) OVER (PARTITION BY k ORDER BY {before}) AS before FROM s{filter}"
                )
            }
            9 => format!(
                "SELECT k, n, r FROM (SELECT k, n, {rank} OVER (PARTITION BY k, n % 2 ORDER BY ts, n) AS r FROM s{filter})
                 WHERE r <= {bound}"
            ),
            _ => format!("SELECT k, n FROM {window}{filter}"),
        };
        format!("{query} EMIT FINAL")
    }

    /// Sessions, over a stream or over rows that come and go.
    pub(super) fn session(&mut self, aggregates: &str, filter: &str) -> String {
        let (of, ts) = match self.rng.random_range(0..10) {
            0..6 => ("s", "ts"),
            6 => ("s", "_ingested_at"),
            _ => ("TABLE (SELECT k, n, x, to_timestamp_seconds(n)::timestamp AS at FROM t)", "at"),
        };
        let gap = self.one(&["4", "9"]).to_string();
        let (partition, keys) = *[
            (" PARTITION BY (k)", ", k"),
            (" PARTITION BY k", ", k, n % 2"),
            ("", ""),
            ("", ", k"),
            (" PARTITION BY (k, n)", ", n, k"),
        ]
        .choose(&mut self.rng)
        .expect("there are some");
        let lateness = if of == "s" { self.one(&["", "", " ALLOWED LATENESS INTERVAL '3' SECOND"]) } else { "" };
        let having = self.one(&["", "", " HAVING COUNT(*) > 1", " HAVING window_end > '2025-01-01 10:00:20'"]);
        let emit = match (of, ts) {
            ("s", "ts") => self.one(&["", " EMIT FINAL", " EMIT FINAL AND TIMEOUT INTERVAL '3' SECOND"]),
            ("s", _) => self.one(&["", " EMIT FINAL"]),
            _ => "",
        };
        let shown = keys.replace("n % 2", "n % 2 AS m");
        let from = format!("SESSION({of}{partition}, {ts}, INTERVAL '{gap}' SECOND){lateness}");
        if self.rng.random_bool(0.3) {
            let of_rows = self.one(&[
                "k, n, x, window_start, window_end",
                "k, window_end, n + 1 AS n",
                "k, window_start, n, SUM(n) OVER (PARTITION BY window_start, window_end, k ORDER BY n, x) AS total",
            ]);
            let emit = if emit.contains("TIMEOUT") || of_rows.contains("OVER") { "" } else { emit };
            return format!("SELECT {of_rows} FROM {from}{filter}{emit}");
        }
        format!(
            "SELECT window_start, window_end{shown}, {aggregates} FROM {from}{filter}
             GROUP BY window_start, window_end{keys}{having}{emit}"
        )
    }

    /// Windows over the windows of a query or of a view.
    pub(super) fn window_of_windows(&mut self, views: &[(String, String)]) -> String {
        let mut delayed = false;
        let inner = match views.iter().find(|(_, sql)| sql.starts_with("SELECT window_time AS wt")) {
            Some((name, sql)) if self.rng.random_bool(0.6) => {
                delayed = sql.contains("WITH DELAY");
                name.clone()
            }
            _ => {
                let window = self.one(&[
                    "TUMBLE(s, ts, INTERVAL '5' SECOND)",
                    "HOP(s, ts, INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
                    "CUMULATE(s, ts, INTERVAL '2' SECOND, INTERVAL '6' SECOND)",
                    "SESSION(s PARTITION BY k, ts, INTERVAL '3' SECOND)",
                ]);
                let by = "window_start, window_end, window_time, k";
                let query = format!("SELECT window_time AS wt, k, COUNT(*) AS c, MAX(n) AS n\n FROM {window} GROUP BY {by}");
                if self.rng.random_bool(0.5) {
                    return query;
                }
                format!("TABLE ({query})")
            }
        };
        let outer = self.one(&[
            "TUMBLE(INNER, wt, INTERVAL '20' SECOND)",
            "HOP(INNER, wt, INTERVAL '5' SECOND, INTERVAL '15' SECOND)",
            "CUMULATE(INNER, wt, INTERVAL '5' SECOND, INTERVAL '20' SECOND)",
            "SESSION(INNER PARTITION BY k, wt, INTERVAL '7' SECOND)",
        ]);
        // What is shown with a delay is never known to be final.
        let emit = if delayed { "" } else { self.one(&["", " EMIT FINAL"]) };
        let outer = outer.replace("INNER", &inner);
        format!(
            "SELECT window_start, window_end, k, SUM(c) AS c, MAX(n) AS most FROM {outer} GROUP BY window_start, window_end, k{emit}"
        )
    }
}
