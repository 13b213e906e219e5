//! A version as a table of DataFusion.
//!
//! Filters that give every column of the key or of an index its values become a look-up. Others that compare columns with
//! constants say which chunks of a large version need not be read ([`super::prune`]); they, and all the rest, are DataFusion's to
//! apply. Columns may be hidden: a table without a primary key does not show its row ids.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result, ScalarValue, Statistics};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExecBuilder;

use super::Version;
use super::prune::{can_prune, chunks_to_read};
use super::scan::{Rows, ViewScan};
use super::search::Search;
use crate::limits::BATCH_ROWS;

/// Keys a query may ask for in one look-up; more of them are a scan.
const KEYS: usize = 4096;

/// A version of fewer rows is read sooner than its chunks are weighed.
const ROWS_TO_PRUNE: usize = 4 * BATCH_ROWS;

/// The rows of a version, as far as they are to be seen.
#[derive(Debug)]
pub struct ViewProvider {
    version: Arc<Version>,
    /// The columns shown, as columns of the version.
    visible: Vec<usize>,
    schema: SchemaRef,
    /// Columns of the version that rows are found by; the key first, if it has one.
    indexes: Vec<Arc<[usize]>>,
}

/// Values for all columns of an index, in its order.
struct Found {
    columns: Arc<[usize]>,
    values: Vec<HashSet<ScalarValue>>,
}

impl ViewProvider {
    /// All columns are shown.
    pub fn new(version: Arc<Version>) -> ViewProvider {
        let visible = (0..version.schema().fields().len()).collect();
        ViewProvider { schema: version.schema(), visible, indexes: by_key(&version), version }
    }

    /// Only these columns of the version are shown, in this order.
    pub fn with_columns(version: Arc<Version>, visible: Vec<usize>) -> Result<ViewProvider> {
        let schema = Arc::new(version.schema().project(&visible)?);
        Ok(ViewProvider { indexes: by_key(&version), version, visible, schema })
    }

    /// Rows are found by these columns of the version, too.
    #[must_use]
    pub fn with_indexes(mut self, indexes: impl IntoIterator<Item = Arc<[usize]>>) -> ViewProvider {
        let first = self.indexes.len();
        self.indexes.extend(indexes);
        // The more columns, the fewer rows.
        self.indexes[first..].sort_by_key(|columns| std::cmp::Reverse(columns.len()));
        self
    }

    /// The filter may say that some rows need not be read.
    fn prunes(&self, filter: &Expr) -> bool {
        self.version.rows() >= ROWS_TO_PRUNE && can_prune(filter, &self.schema)
    }

    /// The values a filter leaves to a column: which of the version's, and the values.
    fn column_values(&self, filter: &Expr) -> Option<(usize, HashSet<ScalarValue>)> {
        let (name, values) = values(filter)?;
        let shown = self.schema.index_of(name).ok()?;
        let data_type = self.schema.field(shown).data_type();
        // Floats: -0.0 = 0.0 for SQL, while keys are their bits.
        let fits = !data_type.is_nested() && !data_type.is_floating() && values.iter().all(|v| v.data_type() == *data_type);
        fits.then(|| (self.visible[shown], values.into_iter().filter(|v| !v.is_null()).collect()))
    }

    /// The first index to all columns of which the filters leave not too many values.
    fn find(&self, filters: &[&Expr]) -> Option<Found> {
        let given: Vec<_> = filters.iter().filter_map(|filter| self.column_values(filter)).collect();
        let left_to = |column: &usize| {
            let of_it = given.iter().filter(|(of, _)| of == column).map(|(_, values)| values.clone());
            of_it.reduce(|some, others| some.intersection(&others).cloned().collect())
        };
        self.indexes.iter().find_map(|columns| {
            let values: Vec<HashSet<ScalarValue>> = columns.iter().map(left_to).collect::<Option<_>>()?;
            let count = values.iter().try_fold(1_usize, |count, values| count.checked_mul(values.len()))?;
            (count <= KEYS).then(|| Found { columns: columns.clone(), values })
        })
    }

    /// The look-up of every combination of the values.
    fn search(&self, Found { columns, values }: &Found) -> Result<Search> {
        let mut combinations: Vec<Vec<&ScalarValue>> = vec![Vec::new()];
        for values in values {
            let mut sorted: Vec<&ScalarValue> = values.iter().collect();
            sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            let with = |start: &Vec<_>| sorted.iter().map(|value| [start.as_slice(), &[*value]].concat()).collect::<Vec<_>>();
            combinations = combinations.iter().flat_map(with).collect();
        }
        let schema = self.version.schema();
        let column = |(at, column): (usize, &usize)| match combinations.is_empty() {
            true => Ok(arrow::array::new_empty_array(schema.field(*column).data_type())),
            false => ScalarValue::iter_to_array(combinations.iter().map(|values| values[at].clone())),
        };
        let arrays = columns.iter().enumerate().map(column).collect::<Result<_>>()?;
        Ok(Search::new(&self.version, columns.clone(), arrays)?)
    }
}

fn by_key(version: &Version) -> Vec<Arc<[usize]>> {
    if version.key().is_empty() { Vec::new() } else { vec![version.key().into()] }
}

/// `c = v`, `c IN (v, …)` and such with OR between them: the column and the values.
fn values(filter: &Expr) -> Option<(&str, Vec<ScalarValue>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
                Some((&column.name, vec![value.clone()]))
            }
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((name, mut all), (other, more)) = (values(left)?, values(right)?);
            all.extend(more);
            (name == other).then_some((name, all))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let literal = |item: &Expr| match item {
                Expr::Literal(value, _) => Some(value.clone()),
                _ => None,
            };
            Some((&column.name, list.iter().map(literal).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

#[async_trait::async_trait]
impl TableProvider for ViewProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(self.version.rows());
        Some(statistics)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Filters may come in several calls, and by other indexes each time. The key is found whenever its filters are there, so
        // these are as good as applied; what is found by another index DataFusion filters again.
        let found = self.find(filters);
        let columns = found.as_ref().map_or(&[][..], |found| &found.columns);
        let support = |filter: &&Expr| match self.column_values(filter) {
            Some((column, _)) if columns.contains(&column) && columns == self.version.key() => TableProviderFilterPushDown::Exact,
            Some((column, _)) if columns.contains(&column) => TableProviderFilterPushDown::Inexact,
            _ if self.prunes(filter) => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = match projection {
            Some(shown) => shown.iter().map(|c| self.visible[*c]).collect(),
            None => self.visible.clone(),
        };
        // A filter that was taken may have become a constant since.
        let (constants, filters): (Vec<&Expr>, Vec<&Expr>) =
            filters.iter().partition(|filter| matches!(filter, Expr::Literal(..)));
        let is_true = |filter: &&Expr| matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
        if !constants.iter().all(is_true) {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.version.schema().project(&columns)?))));
        }
        let partitions = session.config().target_partitions();
        let scan = |rows, columns, limit| ViewScan::new(self.version.clone(), rows, columns, limit, partitions).map(Arc::new);
        if let Some(found) = self.find(&filters) {
            return Ok(scan(Rows::Found(self.search(&found)?), columns, limit)?);
        }
        let Some(filter) = conjunction(filters.iter().map(|filter| (*filter).clone())) else {
            return Ok(scan(Rows::All, columns, limit)?);
        };
        let filter = session.create_physical_expr(filter, &DFSchema::try_from(self.schema.as_ref().clone())?)?;
        let rows = match chunks_to_read(&self.version, (&self.schema, &self.visible), Arc::clone(&filter))? {
            Some(chunks) => Rows::Chunks(chunks.into()),
            None => Rows::All,
        };
        // What only spares work is applied again. Anything else was taken for a look-up, and is no longer one.
        if filters.iter().all(|filter| can_prune(filter, &self.schema) && self.column_values(filter).is_none()) {
            return Ok(scan(rows, columns, limit)?);
        }
        let rows = scan(rows, self.visible.clone(), None)?;
        Ok(Arc::new(FilterExecBuilder::new(filter, rows).apply_projection(projection.cloned())?.build()?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use rstest::rstest;

    use super::*;
    use crate::error::Error;
    use crate::view::Store;

    /// 20,000 rows (k, name, hidden) with keys 0, 2, 4, …; every 10th was replaced, and the keys that end in 2 are gone.
    fn version(key: Vec<usize>) -> Arc<Version> {
        let field = |name, data_type| Field::new(name, data_type, false);
        let fields = vec![field("k", DataType::Int64), field("name", DataType::Utf8), field("_row_id", DataType::Int64)];
        let schema = Arc::new(Schema::new(fields));
        let rows = |keys: Vec<i64>, prefix: &str| {
            let names: StringArray = keys.iter().map(|k| Some(format!("{prefix}{k}"))).collect();
            let keys = Arc::new(Int64Array::from(keys));
            RecordBatch::try_new(schema.clone(), vec![keys.clone(), Arc::new(names), keys]).unwrap()
        };
        let mut store = Store::new("test", schema.clone(), key);
        store.upsert(&rows((0..40_000).step_by(2).collect(), "n")).unwrap();
        if store.version().key() == [0] {
            store.upsert(&rows((0..40_000).step_by(20).collect(), "new")).unwrap();
            store.delete(&rows((2..40_000).step_by(10).collect(), "")).unwrap();
        }
        store.version()
    }

    fn query(provider: ViewProvider, sql: &str) -> (String, String) {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        context.register_table("v", Arc::new(provider)).unwrap();
        let run = async {
            let rows = context.sql(sql).await?.collect().await?;
            let plan = context.sql(sql).await?.create_physical_plan().await?;
            let plan = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
            Result::<_, Error>::Ok((arrow::util::pretty::pretty_format_batches(&rows)?.to_string(), plan))
        };
        let (rows, plan) = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run).unwrap();
        let cells =
            |line: &str| line.split('|').map(|c| c.trim().to_string()).filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
        let rows = rows.lines().filter(|l| l.starts_with('|')).skip(1).map(cells).collect::<Vec<_>>().join("; ");
        (rows, plan)
    }

    /// All columns but the first, which is a row id.
    fn without_row_id(version: Arc<Version>) -> ViewProvider {
        let columns =
            (0..version.schema().fields().len()).filter(|c| version.schema().field(*c).name() != crate::catalog::ROW_ID);
        ViewProvider::with_columns(Arc::clone(&version), columns.collect()).unwrap()
    }

    #[rstest]
    #[case("SELECT * FROM v WHERE k = 4", "4 n4", "ViewLookup: columns=[k, name], keys=1")]
    #[case("SELECT * FROM v WHERE 20 = k", "20 new20", "ViewLookup: columns=[k, name], keys=1")]
    #[case(
        "SELECT name FROM v WHERE k IN (6, 4, 5, 4, 8, 12, 40) ORDER BY 1",
        "n4; n6; n8; new40",
        "ViewLookup: columns=[name], keys=6"
    )]
    #[case("SELECT name FROM v WHERE k = 6 OR k = 4 ORDER BY 1", "n4; n6", "ViewLookup: columns=[name], keys=2")]
    #[case("SELECT name FROM v WHERE k IN (4, 6, 8, 10) AND k IN (6, 10, 7, 9) AND name <> 'n6'", "n10", "ViewLookup")]
    #[case("SELECT name FROM v WHERE k IN (4, 6) AND name = 'n6'", "n6", "ViewLookup: columns=[name], keys=2")]
    #[case("SELECT k FROM v WHERE name = 'n6'", "6", "ViewScan: columns=[k, name], rows=16000, partitions=3")]
    #[case("SELECT k FROM v WHERE k < 3 OR k = 39998 ORDER BY k", "0; 39998", "ViewScan")]
    #[case("SELECT COUNT(*), MIN(k), SUM(k) FROM v", "16000 0 319992000", "ViewScan: columns=[k]")]
    #[case("SELECT COUNT(*) FROM v", "16000", "PlaceholderRowExec")]
    #[case("SELECT k FROM v LIMIT 2", "4; 6", "ViewScan: columns=[k], rows=16000, partitions=1, limit=2")]
    fn queries(#[case] sql: &str, #[case] rows: &str, #[case] plan: &str) {
        let (found, used) = query(without_row_id(version(vec![0])), sql);
        assert!(used.contains(plan), "{used}");
        assert_eq!(found, rows);
    }

    #[rstest]
    #[case("SELECT k FROM v WHERE k IN (4, 6, 8, 10) AND name IN ('n4', 'n8', 'n10', 'x') ORDER BY k", "4; 8; 10", "keys=16")]
    #[case("SELECT k FROM v WHERE k = 4 AND name = 'n5'", "", "keys=1")]
    #[case("SELECT k FROM v WHERE k = 4", "4", "ViewScan")]
    fn a_key_of_two_columns_needs_both(#[case] sql: &str, #[case] rows: &str, #[case] plan: &str) {
        let (found, used) = query(ViewProvider::new(version(vec![1, 0])), sql);
        assert!(used.contains(plan), "{used}");
        assert_eq!(found, rows);
    }

    /// `name` has 10 values, so a look-up of one is long; some rows are dead.
    fn indexed(indexes: &[&[usize]]) -> ViewProvider {
        let field = |name| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("k"), field("name"), field("x")]));
        let rows = |keys: std::ops::Range<i64>, plus: i64| {
            let column = |of: &dyn Fn(i64) -> Option<i64>| Arc::new(keys.clone().map(of).collect::<Int64Array>()) as _;
            let columns = vec![column(&Some), column(&|k| Some(k % 10)), column(&|k| (k % 7 != 0).then_some(k % 1000 + plus))];
            RecordBatch::try_new(schema.clone(), columns).unwrap()
        };
        let mut store = Store::new("test", schema.clone(), vec![0]);
        for start in (0..200_000).step_by(50_000) {
            store.upsert(&rows(start..start + 50_000, 0)).unwrap();
        }
        store.upsert(&rows(0..1000, 5000)).unwrap();
        store.delete(&rows(100_000..101_000, 0)).unwrap();
        ViewProvider::new(store.version()).with_indexes(indexes.iter().map(|columns| Arc::from(*columns)))
    }

    #[rstest]
    #[case("SELECT COUNT(*), MIN(k), MAX(k), SUM(k) FROM v WHERE name = 3", "by=[name], values=1")]
    #[case("SELECT COUNT(*), MIN(k), MAX(k), SUM(k) FROM v WHERE name IN (3, 4, 77) AND k > 500", "by=[name], values=3")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE name = 3 AND x = 113", "by=[x, name], values=1")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x = 5001 OR x = 1", "by=[x], values=2")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x = 5001 AND k = 1", "FilterExec: x@1 = 5001")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x = 5001 AND k = 1", "ViewLookup: columns=[k, x], keys=1")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x IN (1, 3, 5) AND x IN (2, 3, 4, 5)", "by=[x], values=2")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x = 1 AND name <> 5", "by=[x], values=1")]
    #[case("SELECT COUNT(*), SUM(k) FROM v WHERE x IS NULL", "ViewScan")]
    #[case("SELECT k FROM v WHERE name = 1 ORDER BY k LIMIT 3", "by=[name], values=1")]
    #[case("SELECT a.k FROM v a JOIN v b ON a.k = b.x AND b.name = 3 AND a.x = 13 ORDER BY 1", "by=[x], values=1")]
    fn an_index_finds_the_same_rows(#[case] sql: &str, #[case] plan: &str) {
        let (found, used) = query(indexed(&[&[1], &[2], &[2, 1]]), sql);
        let (expected, _) = query(indexed(&[]), sql);
        assert!(used.contains(plan), "{used}");
        assert_eq!(found, expected);
        assert!(!found.is_empty());
    }

    #[rstest]
    #[case("k BETWEEN 100000 AND 110000", "rows=199000, chunks=2 of 29")]
    #[case("k >= 199000", "chunks=2 of 29")]
    #[case("199000 <= k AND name = 3", "chunks=2 of 29")]
    #[case("k < 500 OR k > 199500", "chunks=3 of 29")]
    #[case("k < 0", "chunks=0 of 29")]
    #[case("x > 5000 AND x < 5010", "chunks=1 of 29")]
    #[case("x > 5000 AND k < 100000", "chunks=1 of 29")]
    #[case("x IS NULL AND k > 190000", "chunks=3 of 29")]
    #[case("NOT k > 3000 AND abs(x) < 10", "chunks=2 of 29")]
    #[case("k > 199000.5", "FilterExec")]
    #[case("k <> 3", "rows=199000, partitions=3")]
    #[case("k > name", "rows=199000, partitions=3")]
    fn a_range_reads_the_chunks_that_may_have_it(#[case] condition: &str, #[case] plan: &str) {
        let sql = format!("SELECT COUNT(*), SUM(k), SUM(x), COUNT(x) FROM v WHERE {condition}");
        let (found, used) = query(indexed(&[]), &sql);
        let computed = sql.replace("FROM v", "FROM (SELECT k + 0 AS k, name + 0 AS name, x + 0 AS x FROM v)");
        let (expected, _) = query(indexed(&[]), &computed);
        assert!(used.contains(plan), "{used}");
        assert_eq!(found, expected);
    }

    #[test]
    fn hidden_columns_can_not_be_named() {
        let provider = without_row_id(version(vec![0]));
        let context = SessionContext::new();
        context.register_table("v", Arc::new(provider)).unwrap();
        let plan = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(context.sql("SELECT _row_id FROM v"));
        assert_eq!(Error::from(plan.unwrap_err()).state(), crate::error::SqlState::UndefinedColumn);
    }
}
