//! A small catalog and a parser for the tests of planning.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast as sp;

use crate::catalog::{Catalog, Change, Column, Emit, FIRST_RELATION, Kind, Relation, Watermark};
use crate::error::Result;
use crate::sql::plan::Planner;
use crate::time::TIMESTAMP;

pub fn relation(id: u32, name: &str, kind: Kind, columns: &[(&str, DataType)]) -> Relation {
    let column = |(name, data_type): &(&str, DataType)| Column {
        name: (*name).into(),
        data_type: data_type.clone(),
        sql_type: data_type.to_string(),
        nullable: true,
        default: None,
        generated: None,
        identity: None,
        comment: None,
    };
    Relation::new(FIRST_RELATION + id, name, kind, columns.iter().map(column).collect())
}

pub fn stream(id: u32, name: &str, columns: &[(&str, DataType)], event_time: usize) -> Relation {
    let watermark = Some(Watermark { column: event_time, expression: columns[event_time].0.into(), carried: false });
    Relation { watermark, ..relation(id, name, Kind::Stream, columns) }
}

pub fn table(id: u32, name: &str, columns: &[(&str, DataType)], key: &[usize]) -> Relation {
    Relation { primary_key: key.to_vec(), ..relation(id, name, Kind::Table, columns) }
}

pub fn view(id: u32, name: &str, kind: Kind, columns: &[(&str, DataType)], query: &str) -> Relation {
    Relation { query: Some(query.into()), ..relation(id, name, kind, columns) }
}

/// Streams `orders` and `refunds`, table `customers`, a materialized view `totals`, plain views `big` and, in a circle, `a`, `b`.
pub fn catalog() -> Catalog {
    use DataType::{Int64, Utf8};
    let orders = [("id", Int64), ("category", Utf8), ("amount", Int64), ("event_time", TIMESTAMP)];
    let relations = [
        stream(0, "orders", &orders, 3),
        stream(1, "refunds", &orders, 3),
        table(2, "customers", &[("id", Int64), ("name", Utf8), ("category", Utf8)], &[0]),
        view(
            3,
            "totals",
            Kind::MaterializedView,
            &[("category", Utf8), ("total", Int64)],
            "SELECT category, sum(amount) FROM orders GROUP BY category",
        ),
        view(4, "big", Kind::View, &[("key", Int64), ("amount", Int64)], "SELECT id, amount FROM orders WHERE amount > 100"),
        view(5, "a", Kind::View, &[("id", Int64)], "SELECT id FROM b"),
        view(6, "b", Kind::View, &[("id", Int64)], "SELECT id FROM a"),
        stream(7, "Lines", &[("text", Utf8), ("ts", TIMESTAMP)], 1),
    ];
    let mut catalog = Catalog::default();
    relations.into_iter().for_each(|relation| catalog.apply(&Change::Create(relation)));
    catalog
}

pub fn planner() -> Planner {
    Planner::new(Arc::new(catalog()), Arc::new(crate::sql::functions::state()))
}

pub fn parse(sql: &str) -> sp::Query {
    *crate::sql::parse::parse_query(sql).expect("the test's SQL parses")
}

pub fn plan(sql: &str) -> Result<LogicalPlan> {
    planner().query(&parse(sql))
}

pub fn continuous(sql: &str) -> Result<LogicalPlan> {
    planner().continuous(&parse(sql), Emit::Changes)
}

/// Names of a plan's output.
pub fn names(plan: &LogicalPlan) -> Vec<String> {
    plan.schema().fields().iter().map(|field| crate::sql::system::visible_name(field.name()).to_string()).collect()
}
