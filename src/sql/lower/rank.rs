//! The first rows of a group: `ORDER BY … LIMIT n OFFSET m`, and a filter that bounds a rank.

use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Expr, FetchType, Filter, Limit, LogicalPlan, Operator as Op, SkipType, Sort, Window, WindowFunctionDefinition,
};

use super::over::{Arranged, grouped_edge, window_function};
use super::{Lowered, Lowering, arrow_schema, unsupported};
use crate::error::Result;
use crate::flow::top_n::{Rank, Spec, TopN};
use crate::flow::{Make, Operator};
use crate::sql::plan::event_time::input_column;

/// What a filter says of a rank that stands behind the columns of its input.
struct Bound {
    /// Which of the ranks.
    rank: usize,
    /// The greatest number that passes.
    last: u64,
}

impl Lowering<'_> {
    /// A filter over ranks that bounds one of them: only the first rows of a group are ever looked at. `None`: it is not one.
    pub(super) fn rank_filter(&mut self, filter: &Filter) -> Result<Option<Lowered>> {
        let ranked = below_projections(&filter.input);
        let LogicalPlan::Window(window) = ranked else { return Ok(None) };
        let Some((ranks, first)) = ranks(window)? else { return Ok(None) };
        let width = window.input.schema().fields().len();
        let mut rest = Vec::new();
        let mut bound: Option<Bound> = None;
        for part in split_conjunction(&filter.predicate) {
            let upper = upper_bound(part, &filter.input).filter(|upper| upper.column >= width);
            let rank = upper.as_ref().map(|upper| upper.column - width);
            // One rank's bound is kept by the operator, those of others by a filter.
            match (upper, &mut bound) {
                (Some(upper), None) => bound = Some(Bound { rank: upper.column - width, last: upper.last }),
                (Some(upper), Some(known)) if rank == Some(known.rank) => known.last = known.last.min(upper.last),
                _ => {
                    rest.push(part.clone());
                    continue;
                }
            }
            if !upper.is_some_and(|upper| upper.is_all) {
                rest.push(part.clone());
            }
        }
        let Some(Bound { rank, last }) = bound else { return Ok(None) };
        let function = window_function(first)?;
        let input = self.lower(&window.input)?;
        let arranged = self.arrange(input, &function.params.partition_by, &function.params.order_by, &window.input)?;
        self.require_final(&arranged, "a rank")?;
        let wide = arranged.layout.schema.fields().len();
        let fields = window.schema.as_arrow().fields();
        let shown = arranged.layout.schema.fields().iter().chain(&fields[width..]).cloned().collect::<Vec<_>>();
        let spec = Spec {
            layout: arranged.layout.clone(),
            by: ranks[rank],
            skip: 0,
            last,
            numbers: ranks,
            schema: std::sync::Arc::new(arrow::datatypes::Schema::new(shown)),
            append_only: arranged.input.edge.append_only,
            delay: arranged.delay,
        };
        let label = format!("Top {last} by {}", super::shown(&window.window_expr[rank]));
        let lowered = self.top_n(spec, label, arranged);
        let indices: Vec<usize> = (0..width).chain(wide..wide + window.window_expr.len()).collect();
        let lowered = self.pick(lowered, &indices, arrow_schema(&window.schema));
        let lowered = self.held_back(lowered, ranked);
        let lowered = self.projections_over(lowered, &filter.input)?;
        match conjunction(rest) {
            None => Ok(Some(lowered)),
            Some(rest) => self.filter(lowered, &rest, filter.input.schema()).map(Some),
        }
    }

    /// What stands between a filter and the ranks that it bounds.
    fn projections_over(&mut self, ranked: Lowered, plan: &LogicalPlan) -> Result<Lowered> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.projections_over(ranked, &projection.input)?;
                self.project(input, &projection.expr, &projection.input, arrow_schema(&projection.schema))
            }
            LogicalPlan::SubqueryAlias(alias) => self.projections_over(ranked, &alias.input),
            _ => Ok(ranked),
        }
    }

    pub(super) fn limit(&mut self, limit: &Limit) -> Result<Lowered> {
        let constant = || unsupported("LIMIT and OFFSET of a continuous query must be numbers", "write the numbers themselves");
        let SkipType::Literal(skip) = limit.get_skip_type()? else { return Err(constant()) };
        let FetchType::Literal(fetch) = limit.get_fetch_type()? else { return Err(constant()) };
        let last = fetch.map_or(u64::MAX, |fetch| skip.saturating_add(fetch) as u64);
        self.first_rows(&limit.input, skip as u64, last)
    }

    /// The rows of a plan after the first `skip`, up to the `last`-th, in the plan's order.
    fn first_rows(&mut self, plan: &LogicalPlan, skip: u64, last: u64) -> Result<Lowered> {
        match plan {
            LogicalPlan::Sort(Sort { expr, input, fetch }) => {
                let last = fetch.map_or(last, |fetch| last.min(fetch as u64));
                self.sorted(expr, input, skip, last)
            }
            LogicalPlan::Projection(projection) => {
                let rows = self.first_rows(&projection.input, skip, last)?;
                self.project(rows, &projection.expr, &projection.input, arrow_schema(&projection.schema))
            }
            LogicalPlan::SubqueryAlias(alias) => self.first_rows(&alias.input, skip, last),
            unordered => self.sorted(&[], unordered, skip, last),
        }
    }

    pub(super) fn sorted(&mut self, order: &[SortExpr], plan: &LogicalPlan, skip: u64, last: u64) -> Result<Lowered> {
        let input = self.lower(plan)?;
        let width = input.edge.schema.fields().len();
        let shown = std::sync::Arc::clone(&input.edge.schema);
        let arranged = self.arrange(input, &[], order, plan)?;
        self.require_final(&arranged, "LIMIT")?;
        let spec = Spec {
            layout: arranged.layout.clone(),
            by: Rank::RowNumber,
            skip,
            last,
            numbers: Vec::new(),
            schema: std::sync::Arc::clone(&arranged.layout.schema),
            append_only: arranged.input.edge.append_only,
            delay: None,
        };
        let by: Vec<String> = order.iter().map(ToString::to_string).collect();
        let rows = match (skip, last) {
            (0, last) => format!("Top {last}"),
            (skip, u64::MAX) => format!("All rows but the first {skip}"),
            (skip, last) => format!("Top {last} without the first {skip}"),
        };
        let lowered = self.top_n(spec, format!("{rows} by {}", by.join(", ")), arranged);
        Ok(self.pick(lowered, &(0..width).collect::<Vec<_>>(), shown))
    }

    fn top_n(&mut self, spec: Spec, label: String, arranged: Arranged) -> Lowered {
        let (what, grows) = match (spec.append_only, spec.layout.key.is_empty()) {
            (true, true) if spec.last < u64::MAX => ("the first rows", ""),
            (true, false) => ("the first rows of each group", "the number of groups"),
            _ => ("all rows", "the input"),
        };
        let keeps = format!("{what}, {}", arranged.until(grows));
        // What comes before a row in the order counts, and nothing behind it.
        let edge = grouped_edge(&arranged.input.edge, &arranged, true, std::sync::Arc::clone(&spec.schema));
        let exchange = arranged.exchange();
        let make: Make = Box::new(move |shard| Ok(Box::new(TopN::new(spec.clone(), shard)?) as Box<dyn Operator>));
        self.add(label, keeps, arranged.input.inputs, make, exchange, edge)
    }
}

/// The ranks of a node that has nothing else, all of one partitioning and order; with the first expression.
fn ranks(window: &Window) -> Result<Option<(Vec<Rank>, &Expr)>> {
    let Some(first) = window.window_expr.first() else { return Ok(None) };
    let of_all = window_function(first)?;
    let mut ranks = Vec::new();
    for expr in &window.window_expr {
        let function = window_function(expr)?;
        let WindowFunctionDefinition::WindowUDF(of) = &function.fun else { return Ok(None) };
        let same =
            function.params.partition_by == of_all.params.partition_by && function.params.order_by == of_all.params.order_by;
        ranks.push(match of.name() {
            "row_number" if same => Rank::RowNumber,
            "rank" if same => Rank::Rank,
            "dense_rank" if same => Rank::DenseRank,
            _ => return Ok(None),
        });
    }
    Ok(Some((ranks, first)))
}

/// Where the ranks are that a filter may bound: nothing but projections stands between.
fn below_projections(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => below_projections(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => below_projections(&alias.input),
        other => other,
    }
}

/// Which column of the node below a column of the plan is.
fn column_below(column: usize, plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(projection) => {
            column_below(input_column(projection.expr.get(column)?, &projection.input)?, &projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => column_below(column, &alias.input),
        _ => Some(column),
    }
}

/// `column <= last`.
#[derive(Clone, Copy)]
struct Upper {
    column: usize,
    last: u64,
    /// The condition says nothing more of a number from 1 on.
    is_all: bool,
}

fn upper_bound(condition: &Expr, input: &LogicalPlan) -> Option<Upper> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let (column, op, value) = match (number(&binary.left), number(&binary.right)) {
        (None, Some(value)) => (&binary.left, binary.op, value),
        (Some(value), None) => (&binary.right, binary.op.swap()?, value),
        _ => return None,
    };
    let column = column_below(input_column(uncast(column), input)?, input)?;
    let clamp = |last: i128| u64::try_from(last.max(0)).unwrap_or(u64::MAX);
    match op {
        Op::LtEq => Some(Upper { column, last: clamp(value), is_all: true }),
        Op::Lt => Some(Upper { column, last: clamp(value - 1), is_all: true }),
        Op::Eq => Some(Upper { column, last: clamp(value), is_all: value <= 1 }),
        _ => None,
    }
}

fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() => uncast(&cast.expr),
        other => other,
    }
}

fn number(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&arrow::datatypes::DataType::Decimal128(38, 0)).ok()? {
        datafusion::common::ScalarValue::Decimal128(number, ..) if value.data_type().is_integer() => number,
        _ => None,
    }
}
