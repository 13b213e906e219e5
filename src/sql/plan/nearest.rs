//! ASOF JOIN: beside each row of the left, the nearest row of the right by time.
//!
//! ```text
//!   FROM trades t ASOF JOIN quotes q MATCH_CONDITION (t.at >= q.at) ON t.symbol = q.symbol      Snowflake's spelling
//!   FROM trades t ASOF JOIN quotes q ON t.symbol = q.symbol AND t.at >= q.at                    DuckDB's, RisingWave's
//! ```
//!
//! The planner knows no such join; it comes as one with a mark ([`super::marks`]), and [`nearest`] makes an [`NearestNode`] of it, for
//! operators and batch answers alike. Keys and times are columns of the node's inputs: what is computed is projected below, and
//! left out above. ASOF JOIN gives rows that find one; ASOF LEFT JOIN all rows of the left.
//!
//! If both times are event time, late rows are cut before the join, as they are where a join has a bound on time.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchemaRef, JoinType, Result as DfResult, ScalarValue};
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, LogicalPlanBuilder, Operator,
    UserDefinedLogicalNodeCore, cast,
};

use super::event_time::event_time;
use super::on_time::on_time;
use crate::error::{Error, Result};
use crate::flow::as_of::Nearest;
use crate::flow::join::Bound;
use crate::sql::functions::operators::of_moments;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NearestNode {
    /// Left rows that find nothing are given beside NULLs.
    pub outer: bool,
    /// Columns of the left and of the right that must be equal.
    pub on: Vec<(Column, Column)>,
    /// The columns that are compared, of one type.
    pub times: (Column, Column),
    pub nearest: Nearest,
    /// A column of the right: among rows of one time, that with the greatest value comes first.
    pub then: Option<Column>,
    /// Commits are compared.
    pub by_commit: bool,
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl NearestNode {
    fn new(
        outer: bool,
        on: Vec<(Column, Column)>,
        times: (Column, Column),
        nearest: Nearest,
        sides: [LogicalPlan; 2],
    ) -> DfResult<Self> {
        let join_type = if outer { JoinType::Left } else { JoinType::Inner };
        let [left, right] = sides.map(Arc::new);
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &join_type)?);
        Ok(NearestNode { outer, on, times, nearest, then: None, by_commit: false, left, right, schema })
    }

    /// The node, if the plan's root is one.
    pub fn of(plan: &LogicalPlan) -> Option<&NearestNode> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    pub fn join_type(&self) -> JoinType {
        if self.outer { JoinType::Left } else { JoinType::Inner }
    }

    /// Indices of the columns that are compared, of the left and of the right.
    pub fn time_indices(&self) -> [usize; 2] {
        [(&self.left, &self.times.0), (&self.right, &self.times.1)].map(|(side, column)| index(side, column))
    }

    /// Indices of the columns that must be equal.
    pub fn key_indices(&self) -> [Vec<usize>; 2] {
        let left = self.on.iter().map(|(column, _)| index(&self.left, column)).collect();
        [left, self.on.iter().map(|(_, column)| index(&self.right, column)).collect()]
    }

    /// Index in the right of [`NearestNode::then`].
    pub fn then_index(&self) -> Option<usize> {
        self.then.as_ref().map(|column| index(&self.right, column))
    }

    /// What it says of the distance between times.
    pub fn bound(&self) -> Bound {
        match self.nearest.backward {
            true => Bound { least: None, greatest: Some(0) },
            false => Bound { least: Some(0), greatest: None },
        }
    }

    /// `left on t.symbol = q.symbol, the newest q.at <= t.at`.
    pub fn describe(&self) -> String {
        let kind = if self.outer { "left" } else { "inner" };
        let equal: Vec<String> = self.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
        let on = if equal.is_empty() { String::new() } else { format!(" on {}", equal.join(" and ")) };
        if self.then.is_some() {
            let when = if self.by_commit { "the row's own commit".into() } else { self.times.0.to_string() };
            return format!("{kind}{on}, the version at {when}");
        }
        let which = if self.nearest.backward { "newest" } else { "oldest" };
        let op = match (self.nearest.backward, self.nearest.equal) {
            (true, true) => "<=",
            (true, false) => "<",
            (false, true) => ">=",
            (false, false) => ">",
        };
        format!("{kind}{on}, the {which} {} {op} {}", self.times.1, self.times.0)
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

fn index(plan: &LogicalPlan, column: &Column) -> usize {
    plan.schema().index_of_column(column).expect("columns were found when the node was made")
}

impl PartialOrd for NearestNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |node: &NearestNode| (node.outer, node.on.clone(), node.times.clone(), node.nearest);
        match key(self).partial_cmp(&key(other)) {
            Some(Ordering::Equal) => (&self.left, &self.right).partial_cmp(&(&other.left, &other.right)),
            ordering => ordering,
        }
    }
}

impl UserDefinedLogicalNodeCore for NearestNode {
    fn name(&self) -> &str {
        "Nearest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let pairs = self.on.iter().chain([&self.times]).flat_map(|(left, right)| [left, right]);
        pairs.chain(&self.then).cloned().map(Expr::Column).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Nearest: {}", self.describe())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let mut columns = exprs.into_iter().filter_map(|expr| if let Expr::Column(column) = expr { Some(column) } else { None });
        let mut pairs = Vec::new();
        for _ in 0..=self.on.len() {
            pairs.extend(columns.next().zip(columns.next()));
        }
        let (Some(times), Ok(sides), true) = (pairs.pop(), <[LogicalPlan; 2]>::try_from(inputs), self.on.len() == pairs.len())
        else {
            return Err(Error::internal("an ASOF join was rewritten without its inputs or its columns").into());
        };
        let node = NearestNode::new(self.outer, pairs, times, self.nearest, sides)?;
        Ok(NearestNode { then: columns.next(), by_commit: self.by_commit, ..node })
    }

    fn necessary_children_exprs(&self, columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let (left, right): (Vec<usize>, Vec<usize>) = columns.iter().partition(|column| **column < width);
        Some(vec![left, right.into_iter().map(|column| column - width).collect()])
    }
}

/// What a join looks for beside each row of the left.
pub struct Sought {
    /// Expressions of the left and of the right that must be equal.
    pub equal: Vec<(Expr, Expr)>,
    /// What is compared, of the left and of the right.
    pub times: (Expr, Expr),
    pub nearest: Nearest,
    /// A column of the right: among rows of one time, that with the greatest value comes first.
    pub then: Option<&'static str>,
    /// Commits are compared: a row's answer is known when its commit is.
    pub by_commit: bool,
}

/// The conditions of an ASOF join.
#[derive(Default)]
struct Conditions {
    /// Expressions of the left and of the right.
    equal: Vec<(Expr, Expr)>,
    compared: Option<(Expr, Operator, Expr)>,
    /// What must hold of the right alone.
    of_right: Vec<Expr>,
}

/// The node of a join that was marked ASOF. `comparison`: its MATCH_CONDITION.
pub fn nearest(join: Join, comparison: Option<Expr>) -> DfResult<LogicalPlan> {
    let Conditions { equal, compared, of_right } = Conditions::read(&join, comparison)?;
    let (l, op, r) = compared.ok_or_else(|| {
        let error = Error::syntax("an ASOF JOIN needs a comparison of times");
        error.with_hint("write MATCH_CONDITION (a.ts >= b.ts) before ON, or AND a.ts >= b.ts after it")
    })?;
    let nearest =
        Nearest { backward: matches!(op, Operator::GtEq | Operator::Gt), equal: matches!(op, Operator::GtEq | Operator::LtEq) };
    let right = match conjunction(of_right) {
        Some(predicate) => Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, join.right)?)),
        None => join.right,
    };
    join_nearest(join.join_type, join.left, right, Sought { equal, times: (l, r), nearest, then: None, by_commit: false })
}

/// The join of two sides with what is sought, late rows cut before it if both times are event time.
pub fn join_nearest(
    join_type: JoinType,
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
    sought: Sought,
) -> DfResult<LogicalPlan> {
    if !matches!(join_type, JoinType::Inner | JoinType::Left) {
        let error =
            Error::unsupported(format!("a {} JOIN with the nearest row is not supported", join_type.to_string().to_uppercase()));
        return Err(error.with_hint("write a LEFT JOIN, with the sides exchanged if need be").into());
    }
    let (mut left, mut right) = (Side::new(left, "left"), Side::new(right, "right"));
    let mut pairs = Vec::new();
    for (l, r) in sought.equal.into_iter().chain([sought.times]) {
        let types = [l.get_type(left.plan.schema())?, r.get_type(right.plan.schema())?];
        let common = common_type(&types, &l, &r)?;
        pairs.push((left.column(l, &types[0], &common)?, right.column(r, &types[1], &common)?));
    }
    let times = pairs.pop().expect("the times are the last pair");
    check_time(&left, &times.0)?;
    let widths = [left.width, right.width];
    let (left, right) = (left.projected()?, right.projected()?);
    let places = [index(&left, &times.0), index(&right, &times.1)];
    let timed = event_time(&left, places[0]).is_some() && event_time(&right, places[1]).is_some();
    let [left, right] = [(left, places[0]), (right, places[1])].map(|(side, place)| {
        let side = Arc::new(side);
        Arc::unwrap_or_clone(if timed { on_time(side, place, 0) } else { side })
    });
    let then = sought.then.and_then(|name| right.schema().columns().into_iter().find(|column| column.name == name));
    let node = NearestNode::new(join_type == JoinType::Left, pairs, times, sought.nearest, [left, right])?;
    own_columns(NearestNode { then, by_commit: sought.by_commit, ..node }, widths)
}

/// The equalities of a join whose right expression is as wanted, and its other conditions.
pub fn equalities(join: &Join, wanted: impl Fn(&Expr) -> bool) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
    let (mut equal, mut others) = (Vec::new(), Vec::new());
    for condition in conditions(join) {
        match sides(&condition, join) {
            Some((l, Operator::Eq, r)) if wanted(&r) => equal.push((l, r)),
            _ => others.push(condition),
        }
    }
    (equal, others)
}

fn conditions(join: &Join) -> impl Iterator<Item = Expr> {
    let on = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
    on.chain(join.filter.clone().map_or_else(Vec::new, split_conjunction_owned))
}

/// The node without the columns that were computed for it.
fn own_columns(node: NearestNode, [left, right]: [usize; 2]) -> DfResult<LogicalPlan> {
    let all_left = node.left.schema().fields().len();
    let own: Vec<usize> = (0..left).chain(all_left..all_left + right).collect();
    let schema = Arc::clone(&node.schema);
    let plan = node.into_plan();
    if own.len() == schema.fields().len() {
        return Ok(plan);
    }
    let columns = own.into_iter().map(|column| Expr::Column(Column::from(schema.qualified_field(column))));
    LogicalPlanBuilder::from(plan).project(columns.collect::<Vec<_>>())?.build()
}

impl Conditions {
    fn read(join: &Join, comparison: Option<Expr>) -> Result<Conditions> {
        let mut read = Conditions::default();
        let given = comparison.is_some();
        if let Some(condition) = comparison {
            read.compared = Some(match sides(&condition, join) {
                Some((l, op, r)) if op != Operator::Eq => (l, op, r),
                _ => {
                    let error = Error::syntax(format!(
                        "MATCH_CONDITION compares a time of the left side with one of the right, not {}",
                        condition.human_display()
                    ));
                    return Err(error.with_hint("write MATCH_CONDITION (a.ts >= b.ts), or with >, <= or <"));
                }
            });
        }
        for condition in conditions(join) {
            match sides(&condition, join) {
                Some((l, Operator::Eq, r)) => read.equal.push((l, r)),
                Some(compared) if !given && read.compared.is_none() => read.compared = Some(compared),
                None if condition == Expr::Literal(ScalarValue::Boolean(Some(true)), None) => {}
                None if is_of(&condition, &join.right) => read.of_right.push(condition),
                _ => {
                    let condition = condition.human_display();
                    let error =
                        Error::unsupported(format!("{condition} is neither an equality nor the one comparison of an ASOF JOIN"));
                    return Err(error.with_hint(
                        "put it into WHERE, which holds of the rows that were found, or into a subquery on the left",
                    ));
                }
            }
        }
        Ok(read)
    }
}

/// A comparison of something of the left with something of the right, in that order.
fn sides(condition: &Expr, join: &Join) -> Option<(Expr, Operator, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = condition else { return None };
    let compares = matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq);
    let (a, b) = (a.as_ref(), b.as_ref());
    match (compares, is_of(a, &join.left) && is_of(b, &join.right), is_of(b, &join.left) && is_of(a, &join.right)) {
        (true, true, _) => Some((a.clone(), *op, b.clone())),
        (true, _, true) => Some((b.clone(), op.swap()?, a.clone())),
        _ => None,
    }
}

/// It speaks of columns, and all of them are of this side.
pub fn is_of(expr: &Expr, side: &LogicalPlan) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.into_iter().all(|column| side.schema().maybe_index_of_column(column).is_some())
}

fn common_type(types: &[DataType; 2], l: &Expr, r: &Expr) -> Result<DataType> {
    let [left, right] = types;
    if left == right {
        return Ok(left.clone());
    }
    of_moments(&[left, right]).or_else(|| comparison_coercion(left, right)).ok_or_else(|| {
        let error =
            Error::datatype_mismatch(format!("{l} and {r} are of the types {left} and {right}, which have no order together"));
        error.with_hint("cast one of them to the other's type")
    })
}

/// Times are found by codes of one length.
fn check_time(side: &Side, time: &Column) -> Result<()> {
    let types = side.added.iter().find(|(_, name)| *name == time.name).map(|(expr, _)| expr.get_type(side.plan.schema()));
    let data_type = types.unwrap_or_else(|| Ok(side.plan.schema().qualified_field_from_column(time)?.1.data_type().clone()))?;
    if data_type.is_temporal() || data_type.is_numeric() {
        return Ok(());
    }
    let error = Error::datatype_mismatch(format!("an ASOF JOIN compares times or numbers, and {time} is of type {data_type}"));
    Err(error.with_hint("cast it: ts::timestamp"))
}

/// A side on its way: what was computed behind its columns.
struct Side {
    plan: Arc<LogicalPlan>,
    name: &'static str,
    width: usize,
    added: Vec<(Expr, String)>,
}

impl Side {
    fn new(plan: Arc<LogicalPlan>, name: &'static str) -> Side {
        let width = plan.schema().fields().len();
        Side { plan, name, width, added: Vec::new() }
    }

    /// The column that an expression is, or becomes.
    fn column(&mut self, expr: Expr, own: &DataType, common: &DataType) -> Result<Column> {
        let expr = match expr {
            Expr::Column(column) if own == common => {
                let index = self.plan.schema().index_of_column(&column)?;
                return Ok(Column::from(self.plan.schema().qualified_field(index)));
            }
            other if own == common => other,
            other => cast(other, common.clone()),
        };
        let name = format!("${}{}", self.name, self.added.len());
        self.added.push((expr, name.clone()));
        Ok(Column::new_unqualified(name))
    }

    fn projected(self) -> DfResult<LogicalPlan> {
        if self.added.is_empty() {
            return Ok(Arc::unwrap_or_clone(self.plan));
        }
        let own = self.plan.schema().columns().into_iter().map(Expr::Column);
        let exprs: Vec<Expr> = own.chain(self.added.into_iter().map(|(expr, name)| expr.alias(name))).collect();
        LogicalPlanBuilder::from(Arc::unwrap_or_clone(self.plan)).project(exprs)?.build()
    }
}
