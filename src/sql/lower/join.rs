//! JOIN, and what subqueries, INTERSECT and EXCEPT become: which columns it is kept by, and what is known of its rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Join as JoinPlan, LogicalPlan, lit};
use datafusion::physical_expr::PhysicalExpr;

use super::join_time::{LEFT, RIGHT, Timing};
use super::{Lowered, Lowering, arrow_schema, shown, unsupported};
use crate::error::Result;
use crate::flow::join::{Join, SideSpec, Spec};
use crate::flow::{Edge, Input, MAIN, Make, Node, Operator};
use crate::sql::plan::event_time::input_column;
use crate::sql::plan::time_bound::{TimeBound, time_bounds};

/// One input of a join, computed keys behind its columns.
struct Side {
    lowered: Lowered,
    width: usize,
    key: Vec<usize>,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &JoinPlan) -> Result<Lowered> {
        if join.null_aware {
            return self.not_in(join);
        }
        let left = self.lower(&join.left)?;
        let right = self.lower(&join.right)?;
        let (left_keys, right_keys): (Vec<&Expr>, Vec<&Expr>) = join.on.iter().map(|(l, r)| (l, r)).unzip();
        let left = self.side(left, &left_keys, &join.left)?;
        let right = self.side(right, &right_keys, &join.right)?;
        let residual = match &join.filter {
            None => None,
            Some(filter) => Some(self.physical(filter, &join.left.schema().join(join.right.schema())?)?),
        };
        let shape = Shape {
            join_type: join.join_type,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            schema: arrow_schema(&join.schema),
            label: label(join),
            bounds: time_bounds(join),
        };
        self.join_sides(left, right, residual, shape)
    }

    fn join_sides(&mut self, left: Side, right: Side, residual: Option<Arc<dyn PhysicalExpr>>, shape: Shape) -> Result<Lowered> {
        for (l, r) in left.key.iter().zip(&right.key) {
            let [l, r] = [(&left, l), (&right, r)].map(|(side, index)| side.lowered.edge.schema.field(*index).data_type());
            if l != r {
                let what = format!("a join of columns of the types {l} and {r} is not supported in a continuous query");
                return Err(unsupported(what, "cast one of them to the other's type"));
            }
        }
        let edges = [&left.lowered.edge, &right.lowered.edge];
        let timing = Timing::new(edges, &shape.bounds, shape.join_type);
        let edge = output_edge(&left, &right, &shape, &timing);
        let [left_spec, right_spec] = [(&left, LEFT), (&right, RIGHT)].map(|(side, at)| SideSpec {
            time: timing.columns.map(|columns| columns[at]),
            dead_after: timing.kept[at],
            ..side.spec()
        });
        // Where the times are equal keys, a key's rows are all of one time.
        let by_key = timing.columns.is_some_and(|[l, r]| left.key.iter().zip(&right.key).any(|(a, b)| (*a, *b) == (l, r)));
        let spec = Spec {
            join_type: shape.join_type,
            residual,
            null_equals_null: shape.null_equals_null,
            bound: timing.bound.filter(|_| !by_key),
            pairs: nullable(left.fields().chain(right.fields())),
            append_only: edge.append_only,
            schema: Arc::clone(&edge.schema),
            sides: [left_spec, right_spec],
        };
        let keeps = timing.keeps(edges);
        let exchange = (!left.key.is_empty()).then(|| vec![left.key.clone(), right.key.clone()]);
        let make: Make = Box::new(move |shard| Ok(Box::new(Join::new(spec.clone(), shard)?) as Box<dyn Operator>));
        let at = |port: usize| move |input: Input| (input, port);
        let inputs = left.lowered.inputs.into_iter().map(at(0)).chain(right.lowered.inputs.into_iter().map(at(1))).collect();
        self.nodes.push(Node { label: shape.label, keeps, inputs, make, exchange, edge: edge.clone() });
        Ok(Lowered { inputs: vec![Input::Node { index: self.nodes.len() - 1, output: MAIN }], edge })
    }

    /// The input with its keys as columns.
    fn side(&mut self, input: Lowered, keys: &[&Expr], plan: &LogicalPlan) -> Result<Side> {
        let width = input.edge.schema.fields().len();
        let mut computed = Vec::new();
        let mut key = Vec::new();
        for expr in keys {
            key.push(match input_column(expr, plan) {
                Some(index) => index,
                None => {
                    let physical = self.physical(expr, plan.schema())?;
                    let data_type = physical.data_type(&input.edge.schema)?;
                    computed.push((physical, Field::new(format!("key{}", computed.len()), data_type, true)));
                    width + computed.len() - 1
                }
            });
        }
        let lowered = if computed.is_empty() { input } else { self.append_columns(input, computed) };
        Ok(Side { lowered, width, key })
    }

    /// `x NOT IN (subquery)`, where NULLs may be. It holds if x is none of the subquery's values, and none of these is NULL, and
    /// x is not NULL unless the subquery is empty: three anti joins, one after the other.
    fn not_in(&mut self, join: &JoinPlan) -> Result<Lowered> {
        let ([(x, value)], None, JoinType::LeftAnti) = (&join.on[..], &join.filter, join.join_type) else {
            return Err(unsupported(
                "NOT IN over a subquery that refers to the outer query is not supported where values may be NULL",
                "write NOT EXISTS (SELECT … WHERE …), or add IS NOT NULL to both sides' columns",
            ));
        };
        let shape = |label: &str| Shape {
            join_type: JoinType::LeftAnti,
            null_equals_null: false,
            schema: arrow_schema(&join.schema),
            label: format!("Join: left anti, {} NOT IN: {label}", shown(x)),
            bounds: Vec::new(),
        };
        let left = self.lower(&join.left)?;
        let values = self.lower(&join.right)?;
        let null = self.filter(values.again(), &value.clone().is_null(), join.right.schema())?;

        let (left, right) = (self.side(left, &[x], &join.left)?, self.side(values.again(), &[value], &join.right)?);
        let rest = self.join_sides(left, right, None, shape("no equal value"))?;
        let (left, right) = (self.side(rest, &[], &join.left)?, self.side(null, &[], &join.right)?);
        let rest = self.join_sides(left, right, None, shape("no value is NULL"))?;
        let (left_key, right_key) = (x.clone().is_null(), lit(true));
        let (left, right) = (self.side(rest, &[&left_key], &join.left)?, self.side(values, &[&right_key], &join.right)?);
        self.join_sides(left, right, None, shape("NULL, while there are values"))
    }
}

/// What a join is, its sides apart.
struct Shape {
    join_type: JoinType,
    null_equals_null: bool,
    schema: SchemaRef,
    label: String,
    bounds: Vec<TimeBound>,
}

impl Side {
    fn fields(&self) -> impl Iterator<Item = &Field> {
        self.lowered.edge.schema.fields()[..self.width].iter().map(AsRef::as_ref)
    }

    fn spec(&self) -> SideSpec {
        let schema = nullable(self.lowered.edge.schema.fields().iter().map(AsRef::as_ref));
        let append_only = self.lowered.edge.append_only;
        SideSpec { schema, width: self.width, key: self.key.clone(), time: None, dead_after: None, append_only }
    }

    /// Whether the other side's rows meet at most one row of this side each.
    fn is_unique(&self) -> bool {
        self.lowered.edge.key.as_ref().is_some_and(|key| key.iter().all(|column| self.key.contains(column)))
    }
}

pub(super) fn nullable<'a>(fields: impl Iterator<Item = &'a Field>) -> SchemaRef {
    Arc::new(Schema::new(fields.map(|field| field.clone().with_nullable(true)).collect::<Vec<_>>()))
}

fn output_edge(left: &Side, right: &Side, shape: &Shape, timing: &Timing) -> Edge {
    let (l, r) = (&left.lowered.edge, &right.lowered.edge);
    let only_adds = matches!(shape.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
    let (times, window) = timing.output([l, r], left.width, shape.join_type);
    let is_timed = !times.is_empty() || timing.kept.iter().any(Option::is_some);
    let mut sources = if is_timed { [l.sources.clone(), r.sources.clone()].concat() } else { Vec::new() };
    sources.sort_unstable();
    sources.dedup();
    Edge {
        schema: Arc::clone(&shape.schema),
        append_only: only_adds && l.append_only && r.append_only,
        key: output_key(left, right, shape.join_type),
        sources,
        times,
        window,
    }
}

/// Columns by which the joined rows are told apart.
fn output_key(left: &Side, right: &Side, join_type: JoinType) -> Option<Vec<usize>> {
    let of_left = left.lowered.edge.key.clone();
    let of_right = right.lowered.edge.key.as_ref();
    let shifted = of_right.map(|key| key.iter().map(|column| column + left.width).collect::<Vec<_>>());
    match join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => of_left,
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => of_right.cloned(),
        JoinType::Inner | JoinType::Left if right.is_unique() => of_left,
        JoinType::Inner | JoinType::Right if left.is_unique() => shifted,
        JoinType::Inner => Some([of_left?, shifted?].concat()),
        // Keys of the padded side are NULL, and so may repeat.
        JoinType::Left | JoinType::Right | JoinType::Full => None,
    }
}

fn label(join: &JoinPlan) -> String {
    let name = match join.join_type {
        JoinType::Inner if join.on.is_empty() && join.filter.is_none() => return "Join: cross".into(),
        JoinType::Inner => "inner",
        JoinType::Left => "left",
        JoinType::Right => "right",
        JoinType::Full => "full",
        JoinType::LeftSemi => "left semi",
        JoinType::RightSemi => "right semi",
        JoinType::LeftAnti => "left anti",
        JoinType::RightAnti => "right anti",
        JoinType::LeftMark => "left mark",
        JoinType::RightMark => "right mark",
    };
    let equal = join.on.iter().map(|(l, r)| format!("{} = {}", shown(l), shown(r)));
    let conditions: Vec<String> = equal.chain(join.filter.iter().map(shown)).collect();
    match conditions.is_empty() {
        true => format!("Join: {name}"),
        false => format!("Join: {name} on {}", conditions.join(" and ")),
    }
}
