//! Which chunks of a version may have rows that some conditions ask for, by the least and the greatest values in them.
//!
//! Rows stand in the order in which they came, so that a range of time, or of anything that grows with it, lies in few chunks
//! (Moerkotte, "Small Materialized Aggregates", VLDB 1998; PostgreSQL's BRIN). What is left is filtered row by row all the same:
//! this only ever spares work. Dead rows count, so a chunk may be read for nothing.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Accumulator, Between, BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::Version;
use crate::limits::BATCH_ROWS;

/// The least and the greatest values of a column, a chunk of [`BATCH_ROWS`] rows at a time.
pub(super) struct Bounds {
    least: ArrayRef,
    greatest: ArrayRef,
}

impl Bounds {
    pub fn of(column: &ArrayRef) -> Result<Bounds> {
        let chunk = |start| column.slice(start, BATCH_ROWS.min(column.len() - start));
        let chunks: Vec<ArrayRef> = (0..column.len()).step_by(BATCH_ROWS).map(chunk).collect();
        let (mut least, mut greatest) = (Vec::with_capacity(chunks.len()), Vec::with_capacity(chunks.len()));
        for chunk in chunks {
            let (mut min, mut max) = (MinAccumulator::try_new(column.data_type())?, MaxAccumulator::try_new(column.data_type())?);
            min.update_batch(std::slice::from_ref(&chunk))?;
            max.update_batch(&[chunk])?;
            least.push(min.evaluate()?);
            greatest.push(max.evaluate()?);
        }
        let array = |values: Vec<ScalarValue>| match values.is_empty() {
            true => Ok(column.slice(0, 0)),
            false => ScalarValue::iter_to_array(values),
        };
        Ok(Bounds { least: array(least)?, greatest: array(greatest)? })
    }
}

/// Whether a filter may spare chunks: a column beside constants. Not a float, whose -0 equals 0.
pub(super) fn can_prune(filter: &Expr, schema: &SchemaRef) -> bool {
    let ordered = |expr: &Expr, constants: &[&Expr]| {
        let Expr::Column(column) = expr else { return false };
        let Ok(field) = schema.field_with_name(&column.name) else { return false };
        let orderly = match field.data_type() {
            DataType::Utf8 | DataType::Decimal128(..) | DataType::Date32 | DataType::Timestamp(..) => true,
            other => other.is_integer(),
        };
        let same = |constant: &&Expr| matches!(constant, Expr::Literal(value, _) if value.data_type() == *field.data_type());
        orderly && constants.iter().all(same)
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => can_prune(left, schema) || can_prune(right, schema),
            Operator::Or => can_prune(left, schema) && can_prune(right, schema),
            Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                ordered(left, &[right]) || ordered(right, &[left])
            }
            _ => false,
        },
        Expr::Between(Between { expr, negated: false, low, high }) => ordered(expr, &[low, high]),
        Expr::InList(InList { expr, list, negated: false }) => ordered(expr, &list.iter().collect::<Vec<_>>()),
        _ => false,
    }
}

/// For each chunk of a version, in their order, whether rows of it may be what the filter asks for; `None`: nothing is known.
/// `schema` and `visible` are the columns that the filter can name, and where they are in the version.
pub(super) fn chunks_to_read(
    version: &Version,
    (schema, visible): (&SchemaRef, &[usize]),
    filter: Arc<dyn PhysicalExpr>,
) -> Result<Option<Vec<bool>>> {
    let predicate = PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(filter);
    predicate.map(|predicate| predicate.prune(&Chunks { version, schema, visible })).transpose()
}

/// The chunks of a version, as what is to be pruned.
struct Chunks<'a> {
    version: &'a Version,
    schema: &'a SchemaRef,
    visible: &'a [usize],
}

impl Chunks<'_> {
    fn values(&self, column: &Column, of: impl Fn(&Bounds) -> &ArrayRef) -> Option<ArrayRef> {
        let column = self.visible[self.schema.index_of(&column.name).ok()?];
        let bounds: Vec<&Bounds> = self.version.parts().iter().map(|part| part.segment.bounds(column)).collect::<Option<_>>()?;
        let arrays: Vec<&dyn Array> = bounds.into_iter().map(|bounds| of(bounds).as_ref()).collect();
        concat(&arrays).ok()
    }
}

impl PruningStatistics for Chunks<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| &bounds.least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |bounds| &bounds.greatest)
    }

    fn num_containers(&self) -> usize {
        self.version.chunks().count()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use datafusion::prelude::SessionContext;
    use rand::rngs::SmallRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::view::{Store, ViewProvider};

    /// Columns that grow with the key, that do not, and that are NULL for long.
    fn rows(rng: &mut SmallRng, schema: &SchemaRef, keys: std::ops::Range<i64>) -> RecordBatch {
        let nothing = rng.random_range(0..3) == 0;
        let mut column = |most: i64, of: &dyn Fn(i64, i64) -> i64| -> Vec<Option<i64>> {
            let mut value = |key| of(key, rng.random_range(-most..most));
            keys.clone().map(|key| (!nothing && key % 11 != 0).then(|| value(key))).collect()
        };
        let int = column(50, &|key, some| key / 100 + some);
        let date = column(3, &|key, some| key / 1000 + some);
        let time = column(1_000_000, &|key, some| key * 1_000 + some);
        let text = column(1000, &|_, some| some);
        let number = column(10, &|key, some| key + some);
        let text = text.into_iter().map(|value| value.map(|value| format!("{value}")));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(keys)),
            Arc::new(Int32Array::from_iter(int.into_iter().map(|v| v.map(|v| v as i32)))),
            Arc::new(Date32Array::from_iter(date.into_iter().map(|v| v.map(|v| v as i32)))),
            Arc::new(TimestampMicrosecondArray::from_iter(time)),
            Arc::new(StringArray::from_iter(text)),
            Arc::new(
                Decimal128Array::from_iter(number.into_iter().map(|v| v.map(i128::from)))
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    }

    fn store(rng: &mut SmallRng) -> Store {
        let types = [
            ("k", DataType::Int64),
            ("int", DataType::Int32),
            ("date", DataType::Date32),
            ("time", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("text", DataType::Utf8),
            ("number", DataType::Decimal128(20, 2)),
        ];
        let fields: Vec<Field> = types.into_iter().map(|(name, data_type)| Field::new(name, data_type, name != "k")).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut store = Store::new("test", schema.clone(), vec![0]);
        for _ in 0..rng.random_range(3..8) {
            let (start, count) = (rng.random_range(0..60_000), rng.random_range(1..40_000));
            store.upsert(&rows(rng, &schema, start..start + count)).unwrap();
            let (start, count) = (rng.random_range(0..60_000), rng.random_range(1..9_000));
            store.delete(&rows(rng, &schema, start..start + count)).unwrap();
        }
        store
    }

    fn condition(rng: &mut SmallRng) -> String {
        let at = rng.random_range(-2_000..70_000);
        let (column, value) = match rng.random_range(0..6) {
            0 => ("k", at.to_string()),
            1 => ("int", format!("({})::int", at / 100)),
            2 => ("date", format!("({})::int::date", at / 1000)),
            3 => ("time", format!("to_timestamp_micros({})", at * 1_000)),
            4 => ("text", format!("'{}'", at % 1000)),
            _ => ("number", format!("({at}.5)::decimal(20, 2)")),
        };
        let one = match rng.random_range(0..6) {
            0 => format!("{column} BETWEEN {value} AND {value} + 0"),
            1 => format!("{column} IN ({value}, NULL)"),
            2 => format!("{value} {} {column}", ["<", "<=", ">", ">=", "="].choose(rng).unwrap()),
            3 => format!("NOT ({column} < {value})"),
            _ => format!("{column} {} {value}", ["<", "<=", ">", ">=", "=", "<>"].choose(rng).unwrap()),
        };
        // What has no sum is no bound of BETWEEN here.
        let one = if matches!(column, "date" | "time" | "text") { one.replace(" + 0", "") } else { one };
        match rng.random_range(0..5) {
            0 => format!("({one} OR {})", condition(rng)),
            1 => format!("({one} AND {})", condition(rng)),
            2 => format!("({one} AND {column} IS NOT NULL)"),
            _ => one,
        }
    }

    #[tokio::test]
    async fn no_row_that_is_asked_for_is_passed_over() {
        let mut spared = 0;
        for seed in 0..6 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut store = store(&mut rng);
            let version = store.version();
            let context = SessionContext::new_with_state(crate::sql::functions::state());
            context.register_table("pruned", Arc::new(ViewProvider::new(Arc::clone(&version)))).unwrap();
            let whole = datafusion::datasource::MemTable::try_new(version.schema(), vec![version.scan(None).unwrap()]).unwrap();
            context.register_table("whole", Arc::new(whole)).unwrap();
            for _ in 0..60 {
                let condition = condition(&mut rng);
                let found = async |from: &str| {
                    let sql = format!(
                        "SELECT count(*) AS n, min(k) AS least, max(k) AS most, sum(k) AS sum FROM {from} WHERE {condition}"
                    );
                    let query = context.sql(&sql).await.unwrap_or_else(|error| panic!("seed {seed}: {sql}: {error}"));
                    let plan = query.clone().create_physical_plan().await.unwrap();
                    let plan = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
                    (arrow::util::pretty::pretty_format_batches(&query.collect().await.unwrap()).unwrap().to_string(), plan)
                };
                let (pruned, plan) = found("pruned").await;
                assert_eq!(pruned, found("whole").await.0, "seed {seed}: {condition}");
                spared += usize::from(plan.contains("chunks="));
            }
        }
        assert!(spared > 100, "{spared} of 360 conditions spared something");
    }
}
