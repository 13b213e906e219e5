use arrow::datatypes::{DataType, FieldRef};
use rstest::rstest;

use super::*;
use crate::error::SqlState;
use crate::session::Bound;
use crate::sql::testing::{continuous, names, parse, plan, planner};
use crate::sql::window::WindowNode;

fn columns(sql: &str) -> Vec<String> {
    names(&plan(sql).unwrap())
}

#[rstest]
#[case::star("SELECT * FROM orders", "id category amount event_time")]
#[case::folded("SELECT ID FROM Public.ORDERS", "id")]
#[case::quoted("SELECT * FROM \"Lines\"", "text ts")]
#[case::hidden_once("SELECT *, _offset FROM orders", "id category amount event_time _offset")]
#[case::hidden_in_where("SELECT * FROM orders WHERE _partition = 0", "id category amount event_time")]
#[case::hidden_in_order("SELECT id FROM orders ORDER BY _offset", "id")]
#[case::qualified_star("SELECT o.*, o._commit FROM orders o", "id category amount event_time _commit")]
#[case::two_streams(
    "SELECT *, o._offset FROM orders o, refunds r WHERE o.id = r.id",
    "id category amount event_time id category amount event_time _offset"
)]
#[case::using("SELECT * FROM orders JOIN customers USING (id) WHERE _offset > 1", "category amount event_time id name category")]
#[case::outer_star_of_a_query("SELECT * FROM (SELECT id, _offset FROM orders) q", "id _offset")]
#[case::cte_shadows("WITH orders AS (SELECT id, _offset FROM orders) SELECT * FROM orders", "id _offset")]
#[case::inner_of_shadowing_cte(
    "WITH orders AS (SELECT *, _offset FROM orders) SELECT * FROM orders",
    "id category amount event_time _offset"
)]
#[case::not_of_tables("SELECT *, (SELECT max(_offset) FROM orders) AS m FROM customers", "id name category m")]
#[case::view_inlined("SELECT * FROM big", "key amount")]
#[case::window(
    "SELECT * FROM TUMBLE(orders, ts => event_time, size => INTERVAL '5' MINUTE)",
    "id category amount event_time window_start window_end window_time"
)]
#[case::window_hidden(
    "SELECT * FROM TUMBLE(orders, ts => _ingested_at, size => INTERVAL '5' MINUTE)",
    "id category amount event_time window_start window_end window_time"
)]
#[case::window_alias(
    "SELECT t.id, t.window_start FROM TUMBLE(orders, ts => event_time, size => INTERVAL '5' MINUTE) AS t",
    "id window_start"
)]
#[case::window_own_name(
    "SELECT orders.id, orders.window_start FROM TUMBLE(orders, ts => event_time, size => INTERVAL '5' MINUTE)",
    "id window_start"
)]
#[case::window_of_event_time("SELECT id, window_end FROM TUMBLE(orders, size => INTERVAL '5' MINUTE)", "id window_end")]
#[case::window_of_query(
    "SELECT * FROM HOP((SELECT id, event_time AS t FROM orders), ts => t, slide => INTERVAL '1' MINUTE, size => INTERVAL '5' MINUTE)",
    "id t window_start window_end window_time"
)]
#[case::window_of_window(
    "SELECT * FROM TUMBLE((SELECT id, window_time, window_start FROM TUMBLE(orders, size => INTERVAL '5' MINUTE)), ts => window_time, size => INTERVAL '1' HOUR)",
    "id inner_window_time inner_window_start window_start window_end window_time"
)]
#[case::unnest_select("SELECT unnest(string_to_array(text, ' ')) AS word FROM \"Lines\"", "word")]
#[case::unnest_from("SELECT ts, word FROM \"Lines\" l, UNNEST(split(l.text, ' ')) AS w(word)", "ts word")]
#[case::unnest_alias("SELECT text, word FROM \"Lines\" CROSS JOIN UNNEST(split(text, ' ')) AS word", "text word")]
#[case::lateral("SELECT text, w.x FROM \"Lines\" l, LATERAL (SELECT unnest(split(l.text, ' ')) AS x) AS w", "text x")]
#[case::unnest_star("SELECT * FROM \"Lines\" l, UNNEST(split(l.text, ' ')) AS w(text)", "text ts text")]
#[case::pg_catalog_function("SELECT pg_catalog.upper(category) AS c FROM orders", "c")]
fn output_columns(#[case] sql: &str, #[case] expected: &str) {
    assert_eq!(columns(sql).join(" "), expected);
}

#[rstest]
#[case::table("SELECT * FROM ordes", SqlState::UndefinedTable, "relation \"ordes\" does not exist", Some(15))]
#[case::table_in_line_two("SELECT *\n  FROM ordes", SqlState::UndefinedTable, "relation \"ordes\" does not exist", Some(17))]
#[case::schema("SELECT * FROM other.orders", SqlState::UndefinedTable, "relation \"other.orders\" does not exist", Some(15))]
#[case::column("SELECT id, amonut FROM orders", SqlState::UndefinedColumn, "column \"amonut\" does not exist", Some(12))]
#[case::hidden_of_table("SELECT _offset FROM customers", SqlState::UndefinedColumn, "column \"_offset\" does not exist", Some(8))]
#[case::function("SELECT cuont(id) FROM orders", SqlState::UndefinedFunction, "function cuont does not exist", Some(8))]
#[case::grouping("SELECT id, count(*) FROM orders GROUP BY category", SqlState::GroupingError, "", None)]
#[case::circle("SELECT * FROM a", SqlState::InvalidObjectDefinition, "view \"a\" reads itself", None)]
#[case::window_column(
    "SELECT * FROM TUMBLE(orders, ts => tme, size => INTERVAL '5' MINUTE)",
    SqlState::UndefinedColumn,
    "column \"tme\" does not exist",
    Some(36)
)]
#[case::window_type(
    "SELECT * FROM TUMBLE(orders, ts => id, size => INTERVAL '5' MINUTE)",
    SqlState::DatatypeMismatch,
    "column \"id\" is of type Int64, but a window needs a timestamp",
    Some(36)
)]
#[case::window_size(
    "SELECT * FROM TUMBLE(orders, ts => event_time, size => INTERVAL '0' MINUTE)",
    SqlState::InvalidParameterValue,
    "the size and the slide of a window must be greater than zero",
    None
)]
#[case::nested_relation(
    "SELECT * FROM (SELECT * FROM ordes) q",
    SqlState::UndefinedTable,
    "relation \"ordes\" does not exist",
    Some(30)
)]
#[case::window_many(
    "SELECT * FROM HOP(orders, ts => event_time, slide => INTERVAL '1' SECOND, size => INTERVAL '1' DAY)",
    SqlState::LimitExceeded,
    "a row would fall into 86400 windows, more than 10000",
    None
)]
#[case::window_months(
    "SELECT * FROM TUMBLE(orders, ts => event_time, size => INTERVAL '1 month')",
    SqlState::FeatureNotSupported,
    "the size of a window must have a fixed length, and months do not",
    None
)]
#[case::session(
    "SELECT * FROM SESSION(orders, ts => event_time, gap => INTERVAL '0' MINUTE)",
    SqlState::InvalidParameterValue,
    "the gap of a session must be greater than zero",
    None
)]
#[case::cumulate(
    "SELECT * FROM CUMULATE(orders, ts => event_time, slide => INTERVAL '7' MINUTE, size => INTERVAL '1' HOUR)",
    SqlState::InvalidParameterValue,
    "the size of a CUMULATE, 01:00:00, is no multiple of its step, 00:07:00",
    None
)]
#[case::no_event_time(
    "SELECT * FROM TUMBLE(customers, size => INTERVAL '1' MINUTE)",
    SqlState::UndefinedColumn,
    "the relation of this window has no event-time column",
    Some(15)
)]
fn refused(#[case] sql: &str, #[case] state: SqlState, #[case] message: &str, #[case] position: Option<u32>) {
    let error = plan(sql).unwrap_err();
    assert_eq!(error.state(), state, "{error:?}");
    if !message.is_empty() {
        assert_eq!(error.message(), message);
    }
    if position.is_some() {
        assert_eq!(error.position(), position, "{error:?}");
    }
}

#[test]
fn an_undefined_relation_comes_with_one_like_it() {
    assert_eq!(plan("SELECT * FROM ordes").unwrap_err().hint(), Some("did you mean orders?"));
    assert_eq!(plan("SELECT * FROM Lines").unwrap_err().hint(), Some("write \"Lines\" with its quotes"));
}

#[rstest]
#[case::now("SELECT id, now() FROM orders", "now()")]
#[case::current_timestamp("SELECT id, event_time > current_timestamp FROM orders", "now()")]
#[case::in_a_join("SELECT o.id FROM orders o JOIN refunds r ON o.id = r.id AND r.event_time > now()", "now()")]
#[case::random("SELECT random() FROM orders", "random()")]
#[case::in_a_subquery("SELECT id FROM orders WHERE id IN (SELECT id FROM refunds WHERE amount > random())", "random()")]
#[case::recursive(
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
    "WITH RECURSIVE"
)]
fn continuous_queries_refuse(#[case] sql: &str, #[case] named: &str) {
    let error = continuous(sql).unwrap_err();
    assert_eq!(error.state(), SqlState::FeatureNotSupported, "{error:?}");
    assert!(error.message().contains(named), "{error:?}");
    assert!(error.hint().is_some());
}

#[rstest]
#[case::group("SELECT category, count(*) FROM orders GROUP BY category", Some(vec![0]))]
#[case::renamed("SELECT count(*) AS n, category AS c FROM orders GROUP BY category", Some(vec![1]))]
#[case::key_not_shown("SELECT count(*) FROM orders GROUP BY category", None)]
#[case::one_row("SELECT count(*) FROM orders", Some(vec![]))]
#[case::window("SELECT window_start, window_end, category, sum(amount) FROM TUMBLE(orders, ts => event_time, size => INTERVAL '5' MINUTE) GROUP BY window_start, window_end, category", Some(vec![0, 1, 2]))]
#[case::having("SELECT category, count(*) FROM orders GROUP BY category HAVING count(*) > 1", Some(vec![0]))]
#[case::distinct("SELECT DISTINCT category, amount FROM orders", Some(vec![0, 1]))]
#[case::table("SELECT name, id FROM customers WHERE name > 'a'", Some(vec![1]))]
#[case::stream("SELECT id FROM orders", None)]
#[case::stream_position("SELECT id, _offset, _partition FROM orders", Some(vec![2, 1]))]
#[case::look_up("SELECT o._partition, o._offset, c.name FROM orders o JOIN customers c ON c.id = o.id", Some(vec![0, 1]))]
#[case::union("SELECT id FROM customers UNION ALL SELECT id FROM customers", None)]
fn output_keys(#[case] sql: &str, #[case] expected: Option<Vec<usize>>) {
    let plan = continuous(sql).unwrap();
    assert_eq!(output_key(&plan), expected, "{}", plan.display_indent());
}

fn find_window(plan: &LogicalPlan) -> Option<&WindowNode> {
    WindowNode::of(plan).or_else(|| plan.inputs().into_iter().find_map(find_window))
}

#[rstest]
#[case::plain("orders", "event_time", "orders")]
#[case::renamed("(SELECT id, event_time AS t FROM orders WHERE amount > 1)", "t", "orders")]
#[case::cast("(SELECT event_time::timestamp AS t FROM orders)", "t", "orders")]
#[case::union("(SELECT id, event_time FROM orders UNION ALL SELECT id, event_time FROM refunds)", "event_time", "orders refunds")]
#[case::ingestion("orders", "_ingested_at", "none")]
#[case::shifted("(SELECT event_time + INTERVAL '1' HOUR AS t FROM orders)", "t", "none")]
#[case::aggregate("(SELECT category, max(event_time) AS t FROM orders GROUP BY category)", "t", "none")]
fn watermarks_speak_of_event_time(#[case] input: &str, #[case] time: &str, #[case] expected: &str) {
    let sql = format!(
        "SELECT window_start, count(*) FROM TUMBLE({input}, ts => {time}, size => INTERVAL '1' MINUTE) GROUP BY window_start"
    );
    for plan in [plan(&sql).unwrap(), continuous(&sql).unwrap()] {
        let node = find_window(&plan).unwrap();
        let time = event_time(&node.input, node.time_index());
        let names = time.map(|t| t.streams.iter().map(|r| r.name.clone()).collect::<Vec<_>>().join(" "));
        assert_eq!(names.as_deref().unwrap_or("none"), expected);
    }
}

#[test]
fn windows_of_windows_know_when_they_close() {
    let inner = "SELECT window_time, count(*) AS n FROM TUMBLE(orders, ts => event_time, size => INTERVAL '1' MINUTE, lateness => INTERVAL '2' SECOND) \
                 GROUP BY window_time";
    let sql = format!("SELECT sum(n) FROM TUMBLE(({inner}), ts => window_time, size => INTERVAL '1' HOUR) GROUP BY window_start");
    let plan = plan(&sql).unwrap();
    let node = find_window(&plan).unwrap();
    let time = event_time(&node.input, node.time_index()).unwrap();
    assert!(time.hard);
    assert_eq!(time.delay, 2_000_000 + 1000);
}

#[test]
fn filters_go_below_the_window_unless_they_speak_of_it() {
    let sql = "SELECT category, window_start FROM TUMBLE(orders, ts => event_time, size => INTERVAL '1' MINUTE) \
               WHERE amount > 5 AND window_start > TIMESTAMP '2024-01-01 00:00:00'";
    let plan = continuous(sql).unwrap();
    let shown = plan.display_indent().to_string();
    let nodes = shown.lines().map(|line| line.trim().split(':').next().unwrap());
    assert_eq!(
        nodes.filter(|node| *node != "Projection").collect::<Vec<_>>(),
        ["Filter", "Window", "Filter", "TableScan"],
        "{shown}"
    );
    assert!(shown.contains("projection=[id, category, amount, event_time]"), "late rows are kept whole: {shown}");
}

#[test]
fn words_are_counted_over_a_plain_unnest() {
    let plan = continuous("SELECT word, count(*) FROM \"Lines\" l, UNNEST(split(l.text, ' ')) AS w(word) GROUP BY word").unwrap();
    let shown = plan.display_indent().to_string();
    assert!(shown.contains("Unnest") && !shown.contains("Join") && !shown.contains("Subquery:"), "{shown}");
}

#[test]
fn parameters_get_types_and_values() {
    let sql = "SELECT id FROM orders WHERE amount > $1 AND category = $2 LIMIT $3";
    let planner = planner();
    let types = |sql: &str, declared: &[Option<FieldRef>]| {
        let plan = |types: &[Option<FieldRef>]| Ok(vec![planner.query_with_parameters(&parse(sql), types)?]);
        let (parameters, plans) = inferred(declared, planner.catalog(), plan).unwrap();
        (parameters.into_iter().map(|parameter| parameter.sql_type).collect::<Vec<_>>(), plans[0].clone())
    };
    let (found, plan) = types(sql, &[]);
    assert_eq!(found, ["bigint", "text", "bigint"]);
    let values = vec![5_i64.into(), "a".into(), 3_i64.into()];
    let bound = bind(plan, Bound { values, types: vec![None; 3] }).unwrap();
    assert!(bound.get_parameter_names().unwrap().is_empty());

    let uuid = crate::sql::types::field(&DataType::Utf8, "uuid");
    let (found, plan) = types("SELECT $1", &[Some(uuid)]);
    assert_eq!(found, ["uuid"]);
    assert_eq!(columns::visible_schema(&plan, planner.catalog()).field(0).metadata()[crate::sql::types::PG_TYPE], "uuid");
}

#[test]
fn literals_are_as_in_postgres() {
    let plan = plan("SELECT 1.5, TIMESTAMP '2024-01-01 00:00:00', 'x'::text").unwrap();
    let types: Vec<_> = plan.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Decimal128(2, 1), crate::time::TIMESTAMP, DataType::Utf8]);
}

#[test]
fn a_table_without_a_key_hides_its_row_id() {
    let (plain, mut catalog) =
        (crate::sql::testing::table(30, "plain", &[("x", DataType::Int64)], &[]), crate::sql::testing::catalog());
    catalog.apply(&crate::catalog::Change::Create(plain));
    let planner = Planner::new(Arc::new(catalog), Arc::clone(planner().state()));
    assert_eq!(names(&planner.query(&parse("SELECT *, _row_id FROM plain")).unwrap()), ["x", "_row_id"]);
}

#[test]
fn the_windows_size_is_checked_again() {
    use crate::time::window::Windows;
    let windows = crate::sql::window::Assignment::Clock(Windows::hop(1, 2, 0));
    let input = plan("SELECT event_time FROM orders").unwrap();
    let time = input.schema().columns().remove(0);
    assert!(WindowNode::new(windows, 0, time, input).unwrap_err().message().contains("greater than its size"));
}

/// What clients are told of columns: `name:type:column of a relation`.
#[rstest]
#[case::passed_through("SELECT id, amount FROM orders", "id:1 amount:3")]
#[case::renamed("SELECT q.k FROM (SELECT id AS k FROM orders WHERE id > 1 ORDER BY 1 LIMIT 3) q", "k:1")]
#[case::joined("SELECT c.name, o.id FROM orders o LEFT JOIN customers c ON o.id = c.id", "name:2 id:1")]
#[case::computed("SELECT id + 1 AS next, count(*) AS n FROM orders GROUP BY id", "next n")]
#[case::grouped("SELECT id, max(amount) AS m FROM orders GROUP BY id", "id:1 m")]
#[case::of_a_cte("WITH big AS (SELECT amount FROM orders) SELECT amount FROM big", "amount:3")]
fn origins_of_columns(#[case] sql: &str, #[case] expected: &str) {
    let plan = plan(sql).unwrap();
    let schema = columns::visible_schema(&plan, planner().catalog());
    let shown = schema.fields().iter().map(|field| match field.metadata().get(columns::ORIGIN[1]) {
        Some(column) => format!("{}:{column}", field.name()),
        None => field.name().clone(),
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
}
