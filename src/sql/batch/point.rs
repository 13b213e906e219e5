//! Point reads: the row of a relation by its whole key, without running a query.
//!
//! `SELECT a, b FROM view WHERE key = $1` is a look-up in the snapshot's version and a choice of columns. That a plan is one is
//! found when it is planned; from then on it costs what the look-up costs. What does not fit — other shapes, a value of another
//! type, a relation that is not there yet — takes the way of all queries, which gives the same rows.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Alias, Placeholder};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, FetchType, Limit, LogicalPlan, Operator, SkipType};

use crate::catalog::{Kind, Relation, RelationId};
use crate::error::Result;
use crate::sql::plan::RelationSource;
use crate::view::Snapshot;

/// A query that asks for one row by its key. Columns are those of the relation's stored rows.
#[derive(Debug)]
pub struct PointRead {
    relation: RelationId,
    shown: Vec<usize>,
    key: Vec<(usize, Value)>,
}

/// What a column of the key has to be.
#[derive(Debug)]
enum Value {
    Literal(ScalarValue),
    /// By its place among the parameters.
    Parameter(usize),
}

impl PointRead {
    /// `plan` comes from the planner, its parameters not bound.
    pub fn of(plan: &LogicalPlan) -> Option<PointRead> {
        let LogicalPlan::Projection(projection) = without_limit(plan) else { return None };
        let LogicalPlan::Filter(filter) = without_alias(&projection.input) else { return None };
        let LogicalPlan::TableScan(scan) = without_alias(&filter.input) else { return None };
        let of = RelationSource::of(scan)?;
        let relation = of.relation();
        let whole = scan.projection.is_none() && scan.filters.is_empty() && scan.fetch.is_none();
        if !whole || relation.kind == Kind::Stream || of.is_history() {
            return None;
        }
        let shown = projection.expr.iter().map(|expr| stored_column(expr, projection.input.schema(), relation));
        let compared = split_conjunction(&filter.predicate).into_iter().map(|condition| {
            let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
            let of =
                |column: &Expr, value: &Expr| Some((stored_column(column, filter.input.schema(), relation)?, Value::of(value)?));
            of(left, right).or_else(|| of(right, left))
        });
        Some(PointRead { relation: relation.id, shown: shown.collect::<Option<_>>()?, key: compared.collect::<Option<_>>()? })
    }

    /// The row, if it is there. `None`: ask in the way of all queries.
    pub fn rows(&self, snapshot: &Snapshot, parameters: &[ScalarValue]) -> Result<Option<RecordBatch>> {
        let Some(version) = snapshot.versions.get(&self.relation) else { return Ok(None) };
        let schema = version.schema();
        let key_is_compared = !version.key().is_empty() && version.key().len() == self.key.len();
        let value_of = |column: &usize| {
            let (_, value) = self.key.iter().find(|(compared, _)| compared == column)?;
            fitted(value.among(parameters)?, schema.field(*column).data_type())
        };
        let Some(values) = version.key().iter().map(value_of).collect::<Option<Vec<_>>>().filter(|_| key_is_compared) else {
            return Ok(None);
        };
        if values.iter().any(|value| value.is_null()) {
            return Ok(Some(RecordBatch::new_empty(schema).project(&self.shown)?));
        }
        let keys = values.iter().map(|value| Ok(value.to_array()?)).collect::<Result<Vec<_>>>()?;
        Ok(Some(version.lookup(&keys)?.project(&self.shown)?))
    }
}

impl Value {
    fn of(expr: &Expr) -> Option<Value> {
        match expr {
            Expr::Literal(value, _) => Some(Value::Literal(value.clone())),
            Expr::Placeholder(Placeholder { id, .. }) => {
                let number: usize = id.strip_prefix('$')?.parse().ok()?;
                Some(Value::Parameter(number.checked_sub(1)?))
            }
            _ => None,
        }
    }

    fn among<'a>(&'a self, parameters: &'a [ScalarValue]) -> Option<&'a ScalarValue> {
        match self {
            Value::Literal(value) => Some(value),
            Value::Parameter(at) => parameters.get(*at),
        }
    }
}

/// The value as one of the column's type, if that is the same to `=`.
fn fitted(value: &ScalarValue, data_type: &DataType) -> Option<ScalarValue> {
    // Floats: -0.0 = 0.0 for SQL, while keys are their bits.
    if data_type.is_floating() || data_type.is_nested() {
        return None;
    }
    match value.data_type() {
        same if same == *data_type => Some(value.clone()),
        other if other.is_integer() && data_type.is_integer() => value.cast_to(data_type).ok(),
        _ => None,
    }
}

/// A key has one row, and that is within LIMIT 1.
fn without_limit(plan: &LogicalPlan) -> &LogicalPlan {
    let takes_first = |limit: &Limit| {
        let skips = !matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
        !skips && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(1..))))
    };
    match plan {
        LogicalPlan::Limit(limit) if takes_first(limit) => &limit.input,
        other => other,
    }
}

fn without_alias(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => without_alias(&alias.input),
        other => other,
    }
}

/// The column of the stored rows that an expression is; row ids stand before the user's columns.
fn stored_column(expr: &Expr, schema: &DFSchema, relation: &Relation) -> Option<usize> {
    match expr {
        Expr::Alias(Alias { expr, .. }) => stored_column(expr, schema, relation),
        Expr::Column(column) => {
            let index = schema.maybe_index_of_column(column).filter(|index| *index < relation.columns.len())?;
            Some(index + usize::from(relation.has_row_id()))
        }
        _ => None,
    }
}
