//! Random statements, asked of PostgreSQL and of Tidegate: where both answer, they answer the same.
//!
//! ```text
//! TIDEGATE_RANDOM=20000 TIDEGATE_RANDOM_SEED=7 cargo test --test it random_statements
//! ```
//!
//! What is computed first is open in SQL, so that one of the two may divide by zero and the other not; and some statements are
//! refused here. All other errors of one side are failures. What was found stands in `tests/compat/random.slt`.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::wire::{Answer, Session};
use super::{connect_postgres, postgres};
use crate::server::{Server, Settings};
use crate::{number_from_env, say};

#[tokio::test(flavor = "multi_thread")]
async fn random_statements_are_answered_as_postgres_does() {
    let (count, seed) = (number_from_env("TIDEGATE_RANDOM", 1500), number_from_env("TIDEGATE_RANDOM_SEED", 1));
    let postgres = match postgres::Postgres::start() {
        Ok(postgres) => postgres,
        Err(why) => return say(&format!("compat: SKIPPED random statements: {why}")),
    };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), Settings::default()).await;
    let mut sessions = [connect_postgres(&postgres), Session::connect(server.port(), "tidegate", "tidegate")];
    let mut rng = SmallRng::seed_from_u64(0);
    let tables = ["a", "b"].into_iter().flat_map(|table| filled(table, &mut rng)).collect::<Vec<_>>();
    for statement in &tables {
        for session in &mut sessions {
            assert!(!matches!(session.ask(statement), Answer::Failed(..)), "{statement}");
        }
    }
    let (mut same, mut failures) = (0, Vec::new());
    for seed in seed..seed + count {
        let statement = Statement::new(seed).write();
        let [theirs, ours] = sessions.each_mut().map(|session| session.ask(&statement));
        match (theirs, ours) {
            (Answer::Rows { rows: theirs, .. }, Answer::Rows { rows: ours, .. }) if are_equal(&theirs, &ours) => same += 1,
            (Answer::Failed(..), Answer::Failed(state, _)) if state != "XX000" => {}
            (_, Answer::Failed(state, _)) if ["0A000", "22012", "22003"].contains(&state.as_str()) => {}
            (Answer::Failed(..), Answer::Rows { .. }) => {}
            (theirs, ours) => {
                let [theirs, ours] = [theirs, ours].map(|answer| super::written(&answer));
                failures.push(format!("seed {seed}\n{statement}\nPostgreSQL says\n{theirs}\nfound\n{ours}"));
            }
        }
    }
    say(&format!("compat: {count} random statements from seed {seed} on, {same} answered by both, and the same"));
    assert!(failures.is_empty(), "{} failures:\n\n{}", failures.len(), failures.join("\n\n"));
    assert!(same > count / 2, "only {same} of {count} statements were answered by both");
}

/// Rows in any order; numbers may have other digits behind the ninth.
fn are_equal(theirs: &[Vec<Option<String>>], ours: &[Vec<Option<String>>]) -> bool {
    let canonical = |value: &Option<String>| match value.as_deref().map(|text| (text, text.parse::<f64>())) {
        // Which of -0 and 0 stands for both is open.
        Some((_, Ok(number))) => Some(format!("{:.9e}", number + 0.0)),
        Some((text, Err(_))) => Some(text.to_string()),
        None => None,
    };
    let sorted = |rows: &[Vec<Option<String>>]| {
        let mut rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(canonical).collect()).collect();
        rows.sort();
        rows
    };
    sorted(theirs) == sorted(ours)
}

/// Columns of both tables by the letters of their types, and values.
const COLUMNS: [(char, &str, &str, &[&str]); 8] = [
    ('i', "i", "int", &["-7", "-3", "-1", "0", "1", "2", "3", "10"]),
    ('l', "l", "bigint", &["-4", "0", "1", "3", "7", "9000000000"]),
    ('n', "n", "numeric(10,2)", &["-2.50", "0", "0.01", "1.25", "3.33", "10.00"]),
    ('f', "f", "float8", &["'-1.5'", "'0.5'", "'2.25'", "'100'", "'0'", "'-0'", "'NaN'"]),
    ('t', "t", "text", &["''", "'a'", "'B'", "'ab'", "'abc'", "'Xyz'", "'a b'", "'10'", "'%x_'"]),
    ('d', "d", "date", &["'2024-01-31'", "'2024-02-29'", "'2023-12-31'", "'2000-01-01'"]),
    ('m', "ts", "timestamp", &["'2024-01-31 10:11:12.5'", "'2024-02-29'", "'2023-12-31 23:59:59.999'", "'1999-06-15 12:30'"]),
    ('b', "b", "boolean", &["true", "false"]),
];

fn filled(table: &str, rng: &mut SmallRng) -> Vec<String> {
    let columns: Vec<String> = COLUMNS.iter().map(|(_, name, data_type, _)| format!("{name} {data_type}")).collect();
    let row = |id: usize| {
        let value = |(_, _, _, values): &(char, &str, &str, &[&str])| {
            if rng.random_bool(0.15) { "NULL" } else { values.choose(rng).unwrap() }.to_string()
        };
        let values: Vec<String> = COLUMNS.iter().map(value).collect();
        format!("INSERT INTO {table} VALUES ({id}, {})", values.join(", "))
    };
    let create = format!("CREATE TABLE {table} (id int PRIMARY KEY, {})", columns.join(", "));
    std::iter::once(create).chain((0..8).map(row).collect::<Vec<_>>()).collect()
}

/// Expressions of each type: a letter in braces stands for an expression of that type.
const EXPRESSIONS: [(char, &[&str]); 8] = [
    (
        'i',
        &[
            "({i} + {i})",
            "({i} - {i})",
            "({i} * {i})",
            "({i} / {i})",
            "({i} % {i})",
            "(- {i})",
            "abs({i})",
            "length({t})",
            "({d} - {d})",
            "extract(year from {d})::int",
            "extract(dow from {m})::int",
            "({n})::int",
            "({f})::int",
            "position({t} in {t})",
            "ascii({t})",
            "({i} & {i})",
            "({i} | {i})",
            "({i} # {i})",
            "({b})::int",
            "mod({i}, {i})",
            "strpos({t}, {t})",
            "octet_length({t})",
            "(cardinality((string_to_array({t}, 'b'))[{i}:2]) + 0)",
            "(jsonb_build_object('a', {i}) ->> 'a')::int",
            "jsonb_array_length(jsonb_build_array({i}, {t}))",
        ],
    ),
    ('l', &["({l} + {i})", "({i} - {l})", "({l} * {i})", "({l} / {i})", "({l} % {l})", "({i})::bigint", "({n})::bigint"]),
    (
        'n',
        &[
            "({n} + {n})",
            "({i} - {n})",
            "({n} * {l})",
            "round({n} / {i}, 4)",
            "({n} % {n})",
            "round({n}, 1)",
            "trunc({n})",
            "floor({n})",
            "ceil({n})",
            "abs({n})",
            "({i})::numeric(12,3)",
            "extract(epoch from {m})",
            "sign({n})",
        ],
    ),
    ('f', &["({f} + {f})", "({f} * {n})", "({f} / {f})", "({n})::float8", "floor({f})", "round({f})", "sqrt(abs({f}))"]),
    (
        't',
        &[
            "({t} || {t})",
            "upper({t})",
            "lower({t})",
            "substr({t}, 2)",
            "substring({t} from 1 for 2)",
            "trim({t})",
            "replace({t}, {t}, {t})",
            "({i})::text",
            "({d})::text",
            "({m})::text",
            "left({t}, {i})",
            "right({t}, {i})",
            "lpad({t}, 5, {t})",
            "repeat({t}, 2)",
            "reverse({t})",
            "concat({t}, {i}, {t})",
            "concat_ws('-', {t}, {i})",
            "split_part({t}, 'b', 1)",
            "to_char({m}, 'YYYY-MM-DD HH24:MI:SS')",
            "initcap({t})",
            "md5({t})",
            "({b})::text",
            "translate({t}, 'ab', 'x')",
            "regexp_replace({t}, '[ab]', '_', 'g')",
            "to_hex({i})",
            "age({m}, {m})::text",
            "btrim({t}, 'ab')",
            "overlay({t} placing 'x' from 2)",
            "array_to_string((ARRAY[{t}, {t}, {t}])[{i}:2], ',')",
            "(ARRAY[{i}, {i}])[:1]::text",
            "jsonb_build_array({i}, {t}, {b})::text",
            "(jsonb_build_object('k', {t}, 'b', {b}) -> 'k')::text",
            "to_json({t})::text",
            "quote_literal({t})",
        ],
    ),
    (
        'd',
        &["({d} + {i})", "({d} - {i})", "({m})::date", "date_trunc('month', {d})::date", "make_date(2024, abs({i}) % 12 + 1, 5)"],
    ),
    (
        'm',
        &[
            "({d})::timestamp",
            "({m} + interval '1 month')",
            "({m} - interval '90 minutes')",
            "date_trunc('week', {m})",
            "({d} + interval '1 year 2 mons')",
            "({m} + {i} * interval '1 day')",
            "({m})::timestamp(0)",
        ],
    ),
    (
        'b',
        &[
            "({b} AND {b})",
            "({b} OR {b})",
            "(NOT {b})",
            "({i} < {n})",
            "({d} < {m})",
            "({f} > {n})",
            "({t} LIKE '%b%')",
            "({t} ~ '^[a-z]')",
            "({b} IS TRUE)",
            "({b} IS NOT FALSE)",
            "({b} IS UNKNOWN)",
            "({i} = ANY (ARRAY[{i}, {i}]))",
            "({l} <> ALL (ARRAY[{l}, {l}]))",
            "(({i}, {t}) = ({i}, {t}))",
            "(({i}, {d}) < ({i}, {d}))",
            "({i} IN ({i}, {i}))",
            "({t} NOT IN ({t}, {t}))",
            "({n} BETWEEN {n} AND {i})",
            "({f} NOT BETWEEN {n} AND {f})",
        ],
    ),
];

/// Of a type and of booleans: `{_}` is an expression of that type.
const ANY_TYPE: [&str; 5] = [
    "CASE WHEN {b} THEN {_} ELSE {_} END",
    "coalesce({_}, {_})",
    "nullif({_}, {_})",
    "greatest({_}, {_})",
    "CASE {i} WHEN 1 THEN {_} WHEN {i} THEN {_} END",
];
const COMPARISONS: [&str; 8] = [
    "({_} = {_})",
    "({_} <> {_})",
    "({_} < {_})",
    "({_} >= {_})",
    "({_} IS NULL)",
    "({_} IS NOT NULL)",
    "({_} IS DISTINCT FROM {_})",
    "({_} IS NOT DISTINCT FROM {_})",
];

/// Conditions with a subquery over `b AS w`: `{w}` is a condition that may name `w`.
const SUBQUERIES: [&str; 9] = [
    "({_} IN (SELECT w.{c} FROM b AS w WHERE {w}))",
    "({_} NOT IN (SELECT w.{c} FROM b AS w WHERE {w}))",
    "({_} NOT IN (SELECT w.{c} FROM b AS w))",
    "EXISTS (SELECT 1 FROM b AS w WHERE {w})",
    "(NOT EXISTS (SELECT 1 FROM b AS w WHERE {w}))",
    "({_} = (SELECT max(w.{c}) FROM b AS w WHERE {w}))",
    "({_} < ANY (SELECT w.{c} FROM b AS w WHERE {w}))",
    "({_} >= ALL (SELECT w.{c} FROM b AS w WHERE {w}))",
    "({_} <> (SELECT min(w.{c}) FROM b AS w WHERE w.id < x.id))",
];

const JOINS: [&str; 5] = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN"];
const KEYS: [&str; 5] = ["x.i = y.i", "x.id = y.id", "x.t = y.t AND x.id <> y.id", "x.l = y.i", "x.d = y.d"];
const AGGREGATES: [&str; 17] = [
    "count(*)",
    "count({_})",
    "sum({i})",
    "sum({n})",
    "round(avg({l}), 3)",
    "min({_})",
    "max({_})",
    "bool_or({b})",
    "count(DISTINCT {t})",
    "max({_}) FILTER (WHERE {b})",
    "count(DISTINCT {f})",
    "mode() WITHIN GROUP (ORDER BY {_})",
    "rank(2) WITHIN GROUP (ORDER BY {i})",
    "dense_rank(2) WITHIN GROUP (ORDER BY {n} DESC)",
    "cume_dist(1.5) WITHIN GROUP (ORDER BY {f})",
    "sum({m} - {m})",
    "sum({i} * interval '1 mon 3 days 04:00')",
];
const WINDOWS: [&str; 9] =
    ["row_number()", "rank()", "lag({i})", "lead({t}, 2)", "sum({i})", "count({t})", "max({d})", "first_value({t})", "ntile(3)"];
const FRAMES: [&str; 4] = [
    "",
    " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
    " ROWS 2 PRECEDING",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
];
const SETS: [&str; 6] = ["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"];

/// How deep expressions are.
const DEPTH: usize = 3;

/// A statement that is being written.
struct Statement {
    rng: SmallRng,
    /// The relations that can be named.
    scope: Vec<&'static str>,
    /// How many subqueries there may yet be.
    subqueries: usize,
}

impl Statement {
    fn new(seed: u64) -> Statement {
        Statement { rng: SmallRng::seed_from_u64(seed), scope: Vec::new(), subqueries: 2 }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.rng).unwrap()
    }

    fn letter(&mut self) -> char {
        self.one(&COLUMNS).0
    }

    /// A type whose values can be told apart by all that tells values apart: of floats, 0 and -0 are two and one.
    fn key_letter(&mut self) -> char {
        self.one(&['i', 'l', 'n', 't', 'd', 'm', 'b'])
    }

    fn write(&mut self) -> String {
        match self.rng.random_range(0..10) {
            0..4 => self.select(),
            4..7 => self.grouped(),
            7 => self.windowed(),
            8 => {
                let letters: Vec<char> = (0..self.rng.random_range(1..3)).map(|_| self.key_letter()).collect();
                let (left, op, right) = (self.side(&letters), self.one(&SETS), self.side(&letters));
                format!("{left} {op} {right}")
            }
            _ => {
                let inner =
                    self.select_as("x.id, {i} AS i, {t} AS t, {d} AS d, {b} AS b, {n} AS n, {l} AS l, {f} AS f, {m} AS ts");
                self.scope = vec!["s"];
                let outer = self.fill("s.id, {t}, {i}", 1);
                let condition = self.expression('b', 0);
                format!("SELECT {outer} FROM ({inner}) AS s WHERE {condition}")
            }
        }
    }

    fn select(&mut self) -> String {
        let shown: Vec<String> = (0..self.rng.random_range(1..5)).map(|_| format!("{{{}}}", self.letter())).collect();
        self.select_as(&format!("x.id, {}", shown.join(", ")))
    }

    fn select_as(&mut self, shown: &str) -> String {
        let from = self.from();
        let shown = self.fill(shown, 0);
        format!("SELECT {shown} FROM {from}{}", self.filter())
    }

    fn side(&mut self, letters: &[char]) -> String {
        let from = self.from();
        let shown: Vec<String> = letters.iter().map(|letter| self.expression(*letter, 1)).collect();
        format!("SELECT {} FROM {from}{}", shown.join(", "), self.filter())
    }

    fn grouped(&mut self) -> String {
        let from = self.from();
        let mut keys: Vec<String> = (0..self.rng.random_range(0..3)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let aggregates: Vec<String> = (0..self.rng.random_range(1..4)).map(|_| self.aggregate()).collect();
        let by = match (keys.is_empty(), self.rng.random_range(0..4)) {
            (true, _) => String::new(),
            (false, 0) => format!(" GROUP BY ROLLUP ({})", keys.join(", ")),
            (false, 1) => format!(" GROUP BY CUBE ({})", keys.join(", ")),
            _ => format!(" GROUP BY {}", keys.join(", ")),
        };
        let having = self.one(&["", "", " HAVING count(*) > 1", " HAVING min(x.i) IS NOT NULL"]);
        let filter = self.filter();
        keys.extend(aggregates);
        format!("SELECT {} FROM {from}{filter}{by}{having}", keys.join(", "))
    }

    /// What rows are grouped by: never a constant, which would be a number of a column.
    fn key(&mut self) -> String {
        let template = self.one(&["{c}", "{c}", "upper({t})", "({i} + 1)", "abs({n})", "({d} + interval '1 day')"]);
        if template == "{c}" {
            let letter = self.key_letter();
            return self.column(letter);
        }
        let letter = template.chars().nth(template.find('{').unwrap() + 1).unwrap();
        template.replace(&format!("{{{letter}}}"), &self.column(letter))
    }

    fn aggregate(&mut self) -> String {
        let aggregate = self.one(&AGGREGATES);
        // There is no least or greatest boolean.
        let letter = self.one(&['i', 'l', 'n', 't', 'd', 'm']);
        self.fill(&aggregate.replace("{_}", &format!("{{{letter}}}")), 2)
    }

    fn windowed(&mut self) -> String {
        let from = self.from();
        let ids: Vec<String> = self.scope.iter().map(|relation| format!("{relation}.id")).collect();
        let (function, frame) = (self.one(&WINDOWS), self.one(&FRAMES));
        let key = self.one(&['b', 'i', 't', 'f']);
        let partition = format!("PARTITION BY {}", self.column(key));
        let order = self.one(&["x.i", "x.t", "x.d DESC", "x.n NULLS FIRST", "x.l DESC NULLS LAST"]);
        let (call, ids) = (self.columns_of(function), ids.join(", "));
        let filter = self.filter();
        let order = format!("ORDER BY {order}, {ids}{frame}");
        if self.rng.random_bool(0.5) {
            return format!("SELECT {ids}, {call} OVER ({partition} {order}) FROM {from}{filter}");
        }
        format!("SELECT {ids}, {call} OVER (w {order}) FROM {from}{filter} WINDOW w AS ({partition})")
    }

    fn columns_of(&mut self, call: &str) -> String {
        let mut call = call.to_string();
        for (letter, ..) in COLUMNS {
            let column = self.column(letter);
            call = call.replace(&format!("{{{letter}}}"), &column);
        }
        call
    }

    fn from(&mut self) -> String {
        self.scope = vec!["x"];
        if self.rng.random_bool(0.4) {
            return "a AS x".to_string();
        }
        self.scope.push("y");
        let (join, key) = (self.one(&JOINS), self.one(&KEYS));
        let rest = if join != "FULL JOIN" && self.rng.random_bool(0.4) {
            // A subquery about both sides of an outer join is refused.
            let subqueries = std::mem::take(&mut self.subqueries);
            let rest = format!(" AND {}", self.expression('b', 1));
            self.subqueries = subqueries;
            rest
        } else {
            String::new()
        };
        format!("a AS x {join} b AS y ON {key}{rest}")
    }

    fn filter(&mut self) -> String {
        if self.rng.random_bool(0.5) { format!(" WHERE {}", self.expression('b', 0)) } else { String::new() }
    }

    /// A column of a type, or one of its values.
    fn leaf(&mut self, letter: char) -> String {
        if self.rng.random_bool(0.75) {
            return self.column(letter);
        }
        let (_, _, data_type, values) = COLUMNS[COLUMNS.iter().position(|column| column.0 == letter).unwrap()];
        let value = if self.rng.random_bool(0.15) { "NULL" } else { self.one(values) };
        format!("({value})::{data_type}")
    }

    fn column(&mut self, letter: char) -> String {
        let scope = self.scope.clone();
        let relation = self.one(&scope);
        let name = COLUMNS[COLUMNS.iter().position(|column| column.0 == letter).unwrap()].1;
        if letter == 'i' && self.rng.random_bool(0.3) { format!("{relation}.id") } else { format!("{relation}.{name}") }
    }

    fn expression(&mut self, letter: char, depth: usize) -> String {
        if depth >= DEPTH || self.rng.random_bool(0.3) {
            return self.leaf(letter);
        }
        if letter == 'b' && depth + 1 < DEPTH && self.subqueries > 0 && self.rng.random_bool(0.15) {
            return self.subquery(depth);
        }
        let of_all = self.rng.random_range(0..10);
        let template = match letter {
            _ if of_all == 0 => self.one(&ANY_TYPE).replace("{_}", &format!("{{{letter}}}")),
            'b' if of_all < 5 => {
                let compared = self.letter();
                self.one(&COMPARISONS).replace("{_}", &format!("{{{compared}}}"))
            }
            _ => {
                let own = EXPRESSIONS.iter().find(|(of, _)| *of == letter).unwrap().1;
                self.one(own).to_string()
            }
        };
        self.fill(&template, depth + 1)
    }

    fn subquery(&mut self, depth: usize) -> String {
        self.subqueries -= 1;
        let letter = self.one(&['i', 't', 'd', 'l', 'n']);
        let name = COLUMNS[COLUMNS.iter().position(|column| column.0 == letter).unwrap()].1;
        let template = self.one(&SUBQUERIES).replace("{c}", name).replace("{_}", &format!("{{{letter}}}"));
        let template = if self.scope.contains(&"x") { template } else { template.replace("x.id", "s.id") };
        let subqueries = std::mem::take(&mut self.subqueries);
        let mut filled = self.fill(&template.replace("{w}", "\u{1}"), depth + 1);
        if filled.contains('\u{1}') {
            let outer = self.scope.clone();
            if self.rng.random_bool(0.5) {
                self.scope.clear();
            }
            self.scope.push("w");
            let condition = self.expression('b', 1);
            self.scope = outer;
            filled = filled.replace('\u{1}', &condition);
        }
        self.subqueries = subqueries;
        filled
    }

    /// The template with expressions in the place of its letters.
    fn fill(&mut self, template: &str, depth: usize) -> String {
        let mut parts = template.split('{');
        let mut filled = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let (letter, rest) = part.split_once('}').expect("a letter in braces");
            filled += &self.expression(letter.chars().next().expect("a letter"), depth);
            filled += rest;
        }
        filled
    }
}
