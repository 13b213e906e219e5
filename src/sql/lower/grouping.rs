//! GROUPING SETS, ROLLUP, CUBE: one aggregate per set, each with NULL for the columns it does not group by, all together.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, GroupingSet, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use super::{Lowered, Lowering, arrow_schema, carry, column, project, shown, union_edge, unsupported};
use crate::error::{Error, Result};
use crate::flow::Edge;

impl Lowering<'_> {
    pub(super) fn grouping_sets(&mut self, input: &Lowered, aggregate: &AggregatePlan, set: &GroupingSet) -> Result<Lowered> {
        let columns = set.distinct_expr();
        let sets = members(set, &columns)?;
        let mut inputs = Vec::new();
        let mut edge: Option<Edge> = None;
        for (place, members) in sets.iter().enumerate() {
            let repeats = sets[..place].iter().filter(|other| *other == members).count();
            let part = self.grouping_set(input, aggregate, &columns, members, repeats)?;
            inputs.extend(part.inputs);
            edge = Some(match edge {
                None => part.edge,
                Some(edge) => union_edge(edge, part.edge),
            });
        }
        let edge = edge.ok_or_else(|| Error::internal("GROUPING SETS of nothing"))?;
        // The grouping's number is among the columns, so no two rows share all of these.
        Ok(Lowered { inputs, edge: Edge { key: Some((0..=columns.len()).collect()), ..edge } })
    }

    /// One set, `repeats` of which came before.
    fn grouping_set(
        &mut self,
        input: &Lowered,
        aggregate: &AggregatePlan,
        columns: &[&Expr],
        members: &[usize],
        repeats: usize,
    ) -> Result<Lowered> {
        let group: Vec<Expr> = members.iter().map(|member| columns[*member].clone()).collect();
        // The whole is one row, whatever there is in it; an aggregate needs a call or a group to be one.
        let whole = group.is_empty() && aggregate.aggr_expr.is_empty();
        let calls = if whole { vec![count(lit(1))] } else { aggregate.aggr_expr.clone() };
        let plan = AggregatePlan::try_new(Arc::clone(&aggregate.input), group, calls)?;
        let part = self.aggregate(input.clone(), &plan)?;
        let schema = arrow_schema(&aggregate.schema);
        let of_calls = (0..aggregate.aggr_expr.len()).map(|call| Some(members.len() + call));
        let of_group = (0..columns.len()).map(|column| members.iter().position(|member| *member == column));
        let passed: Vec<Option<usize>> = of_group.chain([None]).chain(of_calls).collect();
        // As DataFusion numbers them: a bit per column that is left out, the first one the highest; then the repeats.
        let left_out = (0..columns.len()).fold(0, |bits, column| (bits << 1) | u64::from(!members.contains(&column)));
        let number = ScalarValue::UInt64(Some(left_out | ((repeats as u64) << columns.len())));
        let expressions = passed.iter().enumerate().map(|(to, from)| -> Result<Arc<dyn PhysicalExpr>> {
            let data_type = schema.field(to).data_type();
            Ok(match from {
                Some(from) => column(&part.edge.schema, *from),
                None if to == columns.len() => Arc::new(Literal::new(number.cast_to(data_type)?)),
                None => Arc::new(Literal::new(ScalarValue::try_from(data_type)?)),
            })
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        let edge = carry(&part.edge, &passed, Arc::clone(&schema));
        let names: Vec<String> = members.iter().map(|member| shown(columns[*member])).collect();
        let label = format!("Grouping: ({})", names.join(", "));
        Ok(self.add(label, String::new(), part.inputs, project(expressions, schema), None, edge))
    }
}

/// The sets, as places among the columns.
fn members(set: &GroupingSet, columns: &[&Expr]) -> Result<Vec<Vec<usize>>> {
    let place = |expr: &Expr| columns.iter().position(|column| *column == expr);
    let places = |exprs: &[Expr]| -> Vec<usize> {
        let mut places: Vec<usize> = exprs.iter().filter_map(place).collect();
        places.sort_unstable();
        places.dedup();
        places
    };
    Ok(match set {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| places(set)).collect(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).map(|count| places(&exprs[..count])).collect(),
        GroupingSet::Cube(exprs) if exprs.len() <= 12 => {
            let chosen =
                |bits: usize| (0..exprs.len()).filter(|i| bits >> i & 1 == 1).map(|i| exprs[i].clone()).collect::<Vec<_>>();
            (0..1_usize << exprs.len()).map(|bits| places(&chosen(bits))).collect()
        }
        GroupingSet::Cube(exprs) => {
            let message = format!("CUBE of {} columns would be {} aggregates", exprs.len(), 1_u64 << exprs.len().min(63));
            return Err(unsupported(message, "write the GROUPING SETS that you need"));
        }
    })
}
