use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::functions_window::rank::rank_udwf;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::{WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::windows::create_window_expr;
use datafusion::scalar::ScalarValue;
use rand::prelude::*;
use rand::rngs::SmallRng;

use super::*;

/// Group, value, tag.
type Row = (i64, i64, i64);

fn schema() -> SchemaRef {
    let fields = ["g", "v", "tag"].map(|name| Field::new(name, DataType::Int64, false));
    Arc::new(Schema::new(fields.to_vec()))
}

fn spec(function: WindowFunctionDefinition, argument: bool, offset: Option<i64>, frame: WindowFrame, reach: Reach) -> Spec {
    let column = |name: &str, index| Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>;
    let mut arguments = if argument { vec![column("tag", 2)] } else { Vec::new() };
    arguments.extend(offset.map(lit));
    let options = SortOptions { descending: true, nulls_first: true };
    let by = [PhysicalSortExpr { expr: column("v", 1), options }];
    let expr = create_window_expr(
        &function,
        "w".into(),
        &arguments,
        &[column("g", 0)],
        &by,
        Arc::new(frame),
        schema(),
        false,
        false,
        None,
    );
    let expr = expr.unwrap();
    let field = expr.field().unwrap().as_ref().clone().with_name("w").with_nullable(true);
    let fields: Vec<_> = schema().fields().iter().cloned().chain([Arc::new(field)]).collect();
    let layout = Layout { schema: schema(), key: vec![0], time: None, order: vec![(1, options)] };
    Spec { layout, width: 3, functions: vec![expr], reach, schema: Arc::new(Schema::new(fields)), delay: None }
}

fn rows_between(from: i64, to: i64) -> WindowFrame {
    let bound = |at: i64| match at {
        0 => WindowFrameBound::CurrentRow,
        at if at < 0 => WindowFrameBound::Preceding(ScalarValue::UInt64(Some(at.unsigned_abs()))),
        at => WindowFrameBound::Following(ScalarValue::UInt64(Some(at as u64))),
    };
    WindowFrame::new_bounds(WindowFrameUnits::Rows, bound(from), bound(to))
}

type Answer = fn(&[Row], usize) -> Option<i64>;

fn some(of: &[Row], from: i64, to: i64) -> Option<&[Row]> {
    let (from, to) = (from.max(0) as usize, (to + 1).clamp(0, of.len() as i64) as usize);
    (from < to).then(|| &of[from..to])
}

/// What the operator has given so far is what the functions are, by their definition, after every step.
#[rstest::rstest]
#[case::lag(lag_udwf().into(), true, Some(2), WindowFrame::new(None), Reach { behind: Some(2), ahead: Some(0) },
    |rows: &[Row], i: usize| i.checked_sub(2).map(|i| rows[i].2))]
#[case::lead(lead_udwf().into(), true, Some(1), WindowFrame::new(None), Reach { behind: Some(0), ahead: Some(1) },
    |rows: &[Row], i: usize| rows.get(i + 1).map(|r| r.2))]
#[case::row_number(row_number_udwf().into(), false, None, WindowFrame::new(None), Reach { behind: None, ahead: Some(0) },
    |_: &[Row], i: usize| Some(i as i64 + 1))]
#[case::rank(rank_udwf().into(), false, None, WindowFrame::new(None), Reach { behind: None, ahead: Some(0) },
    |rows: &[Row], i: usize| rows.iter().position(|r| r.1 == rows[i].1).map(|i| i as i64 + 1))]
#[case::running_sum(sum_udaf().into(), true, None, WindowFrame::new(Some(false)), Reach { behind: None, ahead: Some(0) },
    |rows: &[Row], i: usize| Some(rows.iter().filter(|r| r.1 >= rows[i].1).map(|r| r.2).sum()))]
#[case::sum_around(sum_udaf().into(), true, None, rows_between(-1, 2), Reach { behind: Some(1), ahead: Some(2) },
    |rows: &[Row], i: usize| some(rows, i as i64 - 1, i as i64 + 2).map(|r| r.iter().map(|r| r.2).sum()))]
#[case::count_behind(count_udaf().into(), true, None, rows_between(-3, -2), Reach { behind: Some(3), ahead: Some(0) },
    |rows: &[Row], i: usize| Some(some(rows, i as i64 - 3, i as i64 - 2).map_or(0, |r| r.len() as i64)))]
fn answers_are_those_of_the_definition(
    #[case] function: WindowFunctionDefinition,
    #[case] argument: bool,
    #[case] offset: Option<i64>,
    #[case] frame: WindowFrame,
    #[case] reach: Reach,
    #[case] answer: Answer,
    #[values(false, true)] look_at_all: bool,
) {
    let spec = spec(function, argument, offset, frame, if look_at_all { Reach::ALL } else { reach });
    for seed in 0..6 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut over = Over::new(spec.clone(), Shard::WHOLE).unwrap();
        let (mut rows, mut shown, mut saved) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for step in 0..50 {
            let mut cx = Context::new(0);
            for _ in 0..rng.random_range(0..3) {
                let changes = random_changes(&mut rng, &mut rows);
                over.update(0, delta(&changes), &mut cx).unwrap();
            }
            over.finish(&mut cx).unwrap();
            for (_, delta) in cx.into_output() {
                collect(&delta, &mut shown);
            }
            assert_eq!(shown, expected(&rows, answer), "seed {seed}, step {step}");
            if rng.random_bool(0.3) {
                saved.extend(over.rows.changes().unwrap());
            }
            if rng.random_bool(0.1) {
                saved.extend(over.rows.changes().unwrap());
                over = Over::new(spec.clone(), Shard::WHOLE).unwrap();
                saved.iter().for_each(|delta: &Delta| over.rows.load(delta.clone()).unwrap());
            }
        }
    }
}

fn random_changes(rng: &mut SmallRng, rows: &mut BTreeMap<Row, i64>) -> Vec<(Row, i64)> {
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(0..6) {
        let present = rows.keys().nth(rng.random_range(0..rows.len().max(1))).copied();
        let (row, weight) = match present {
            Some(row) if rng.random_bool(0.45) => (row, -1),
            _ => ((rng.random_range(0..2), rng.random_range(0..8), rng.random_range(0..4)), rng.random_range(1..3)),
        };
        *rows.entry(row).or_default() += weight;
        rows.retain(|_, weight| *weight != 0);
        changes.push((row, weight));
    }
    changes
}

fn delta(rows: &[(Row, i64)]) -> Delta {
    let column = |value: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| value(r)))) as ArrayRef;
    let batch = RecordBatch::try_new(schema(), vec![column(|r| r.0), column(|r| r.1), column(|r| r.2)]).unwrap();
    Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight)))
}

type Shown = BTreeMap<(Row, Option<i64>), i64>;

fn collect(delta: &Delta, shown: &mut Shown) {
    let int = |c: usize, row: usize| delta.rows.column(c).as_primitive::<Int64Type>().value(row);
    let answers = delta.rows.column(3);
    for row in 0..delta.len() {
        let value = match answers.as_primitive_opt::<Int64Type>() {
            Some(answers) => answers.value(row),
            None => answers.as_primitive::<UInt64Type>().value(row) as i64,
        };
        let key = ((int(0, row), int(1, row), int(2, row)), answers.is_valid(row).then_some(value));
        *shown.entry(key).or_default() += delta.weight(row);
    }
    shown.retain(|_, weight| *weight != 0);
}

fn expected(rows: &BTreeMap<Row, i64>, answer: Answer) -> Shown {
    let mut shown = Shown::new();
    for group in 0..2 {
        let of_group = rows.iter().filter(|(row, _)| row.0 == group);
        let mut of_group: Vec<Row> = of_group.flat_map(|(row, weight)| (0..*weight).map(|_| *row)).collect();
        of_group.sort_by_key(|row| (-row.1, row.2));
        for i in 0..of_group.len() {
            *shown.entry((of_group[i], answer(&of_group, i))).or_default() += 1;
        }
    }
    shown
}
