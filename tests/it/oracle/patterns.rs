//! Queries for the oracle with MATCH_RECOGNIZE.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::shapes::one;

const PATTERNS: [&str; 14] = [
    "a b c",
    "a b+",
    "b+",
    "a b*? c",
    "(a | b)+ c",
    "(a | b c)+",
    "a b{1,3} c?",
    "PERMUTE(a, b)",
    "a (b c)* b",
    "a? b+? c",
    "a {- b* -} c",
    "(a? b?)* c",
    "a*",
    "c | a b{2}",
];

/// In these, b is there and not the first.
const WITH_B: [&str; 3] = ["a b+ c", "a b+", "a c? b{1,2}"];

const CONDITIONS: [&str; 14] = [
    "n > 0",
    "n > PREV(n)",
    "k <> 'k1'",
    "x IS NOT NULL",
    "n % 3 = 0",
    "n < NEXT(n)",
    "n > a.n",
    "n <> LAST(n, 1)",
    "n > FIRST(a.n)",
    "SUM(a.n) < 20",
    "COUNT(*) < 4 AND n > -20",
    "n > 0 OR b.n > a.n",
    "x > AVG(x)",
    "k <> PREV(LAST(k), 2) OR n < 0",
];

const MEASURES: [&str; 14] = [
    "a.n",
    "LAST(b.n)",
    "COUNT(*)",
    "SUM(x)",
    "MATCH_NUMBER()",
    "CLASSIFIER()",
    "FIRST(n)",
    "PREV(FIRST(n))",
    "NEXT(n, 2)",
    "MAX(b.k)",
    "FINAL LAST(n)",
    "COUNT(b.*) - COUNT(a.n)",
    "RUNNING MIN(n)",
    "FIRST(b.n + 1, 1)",
];

pub fn query(rng: &mut SmallRng) -> String {
    if rng.random_bool(0.15) {
        return windows_of_matches(rng);
    }
    let stream = rng.random_bool(0.6);
    let from = if stream { one(rng, &["s", "s", "q"]) } else { one(rng, &["t", "p", "(SELECT * FROM t WHERE n > -20)"]) };
    let order = if stream { one(rng, &["ts", "ts, n DESC"]) } else { one(rng, &["n", "n DESC, x", "x NULLS FIRST, n"]) };
    let within = if stream { one(rng, &["", " WITHIN INTERVAL '4' SECOND", " WITHIN INTERVAL '15' SECOND"]) } else { "" };
    let emit = if stream { one(rng, &["", "", " EMIT FINAL"]) } else { "" };
    let partition = one(rng, &["", "PARTITION BY k ", "PARTITION BY k "]);
    let rows = one(rng, &["", "ONE ROW PER MATCH ", "ALL ROWS PER MATCH ", "ALL ROWS PER MATCH OMIT EMPTY MATCHES "]);
    let (pattern, skip) = match rng.random_bool(0.3) {
        true => (one(rng, &WITH_B), one(rng, &["AFTER MATCH SKIP TO FIRST b ", "AFTER MATCH SKIP TO b "])),
        false => (one(rng, &PATTERNS), one(rng, &["", "", "AFTER MATCH SKIP TO NEXT ROW ", "AFTER MATCH SKIP PAST LAST ROW "])),
    };
    let (measures, defines) = (measures(rng, pattern), defines(rng, pattern));
    format!(
        "SELECT * FROM {from} MATCH_RECOGNIZE ({partition}ORDER BY {order} MEASURES {measures} {rows}{skip}PATTERN ({pattern}){within} \
         DEFINE {defines}){emit}"
    )
}

fn has(pattern: &str, variable: char) -> bool {
    pattern.replace("PERMUTE", "").contains(variable)
}

/// It names no variable that the pattern does not have.
fn speaks_of(pattern: &str, text: &str) -> bool {
    ['a', 'b'].into_iter().all(|variable| has(pattern, variable) || !text.contains(&format!("{variable}.")))
}

fn measures(rng: &mut SmallRng, pattern: &str) -> String {
    let count = rng.random_range(1..5);
    let known: Vec<&str> = MEASURES.into_iter().filter(|measure| speaks_of(pattern, measure)).collect();
    let chosen: Vec<&str> = known.choose_multiple(rng, count).copied().collect();
    chosen.iter().enumerate().map(|(i, measure)| format!("{measure} AS m{i}")).collect::<Vec<_>>().join(", ")
}

/// Conditions of some of the variables, of one at least.
fn defines(rng: &mut SmallRng, pattern: &str) -> String {
    let names: Vec<char> = ['a', 'b', 'c'].into_iter().filter(|variable| has(pattern, *variable)).collect();
    let known: Vec<&str> = CONDITIONS.into_iter().filter(|condition| speaks_of(pattern, condition)).collect();
    let first = rng.random_range(0..names.len());
    let mut defines = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if place != first && rng.random_bool(0.3) {
            continue;
        }
        defines.push(format!("{name} AS {}", one(rng, &known)));
    }
    defines.join(", ")
}

/// Matches counted by time.
fn windows_of_matches(rng: &mut SmallRng) -> String {
    let condition = one(rng, &["n > a.n", "n > PREV(n)", "n > 0"]);
    let emit = one(rng, &["", " EMIT FINAL"]);
    format!(
        "SELECT window_start, window_end, COUNT(*) AS c, SUM(most) AS total FROM TUMBLE((SELECT at, most FROM s MATCH_RECOGNIZE \
         (PARTITION BY k ORDER BY ts MEASURES MATCH_ROWTIME() AS at, MAX(n) AS most PATTERN (a b+) WITHIN INTERVAL '8' SECOND \
         DEFINE b AS {condition})), at, INTERVAL '10' SECOND) GROUP BY window_start, window_end{emit}"
    )
}
