//! `x IN (q)`, `x NOT IN (q)`, `x > ANY (q)` and `x > ALL (q)` with the three values of SQL, as EXISTS.
//!
//! ```text
//! x NOT IN (q)    NOT EXISTS (q WHERE v = x) AND NOT EXISTS (q WHERE v IS NULL) AND (x IS NOT NULL OR NOT EXISTS (q))
//! x IN (q)        CASE WHEN EXISTS (q WHERE v = x) THEN true
//!                      WHEN EXISTS (q WHERE v IS NULL) OR x IS NULL AND EXISTS (q) THEN NULL ELSE false END
//! x > ALL (q)     CASE WHEN EXISTS (q WHERE NOT x > v) THEN false
//!                      WHEN EXISTS (q WHERE (x > v) IS NULL) THEN NULL ELSE true END
//! ```
//!
//! The first holds where a NULL is as good as false: in WHERE, below nothing but AND and OR; there, IN itself is left to
//! DataFusion's semi and mark joins, and so is NOT IN of a subquery that stands for itself. What cannot be NULL is not asked.

use std::ops::Not;
use std::sync::Arc;

use super::becomes_semi_join;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, lit, when,
};

/// The condition of a WHERE over these columns.
pub(super) fn in_where(condition: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let conjuncts = split_conjunction_owned(condition).into_iter().map(|conjunct| match inverted(conjunct) {
        // Of a column, DataFusion's anti join knows what a NULL means.
        Expr::InSubquery(membership) if membership.subquery.outer_ref_columns.is_empty() && is_column(&membership) => {
            Ok(Expr::InSubquery(membership))
        }
        other => null_is_false(other, schema),
    });
    Ok(conjunction(conjuncts.collect::<DfResult<Vec<_>>>()?).unwrap_or_else(|| lit(true)))
}

/// An expression of which NULL is as good as false.
fn null_is_false(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match inverted(expr) {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (null_is_false(*left, schema)?, null_is_false(*right, schema)?);
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::InSubquery(membership) if membership.negated => not_in(&Membership::of(membership, schema)?),
        Expr::InSubquery(membership) if !becomes_semi_join(&membership.subquery) => {
            Membership::of(membership, schema)?.is_there(false)
        }
        Expr::InSubquery(membership) => Ok(Expr::InSubquery(membership)),
        other => anywhere(other, schema),
    }
}

/// An expression that stands where NULL and false are different.
pub(super) fn anywhere(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let replaced = expr.transform_up(|expr| match inverted(expr) {
        Expr::InSubquery(membership) => Ok(Transformed::yes(three_values(&Membership::of(membership, schema)?)?)),
        Expr::SetComparison(comparison) => Ok(Transformed::yes(quantified(comparison, schema)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

/// Does it ask [`in_where`] or [`anywhere`] for something?
pub(super) fn asks(expr: &Expr) -> bool {
    matches!(expr, Expr::InSubquery(_) | Expr::SetComparison(_))
}

/// `NOT (x IN (q))` as `x NOT IN (q)`.
fn inverted(expr: Expr) -> Expr {
    match expr {
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(membership) => Expr::InSubquery(InSubquery { negated: !membership.negated, ..membership }),
            other => Expr::Not(Box::new(other)),
        },
        other => other,
    }
}

fn is_column(membership: &InSubquery) -> bool {
    matches!(*membership.expr, Expr::Column(_))
}

struct Membership {
    value: Expr,
    /// The value as the subquery sees it.
    outer: Expr,
    value_is_nullable: bool,
    negated: bool,
    /// Its only column is [`MEMBER`].
    members: LogicalPlan,
    members_are_nullable: bool,
}

const MEMBER: &str = "__member";

fn member() -> Expr {
    Expr::Column(Column::new_unqualified(MEMBER))
}

impl Membership {
    fn of(membership: InSubquery, schema: &DFSchema) -> DfResult<Membership> {
        let InSubquery { expr: value, subquery, negated } = membership;
        let members_are_nullable = subquery.subquery.schema().field(0).is_nullable();
        let column = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
        let members = LogicalPlanBuilder::new_from_arc(subquery.subquery).project([column.alias(MEMBER)])?.build()?;
        let outer = value.as_ref().clone().transform_up(|expr| match expr {
            Expr::Column(column) => {
                let field = Arc::clone(schema.qualified_field_from_column(&column)?.1);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let value_is_nullable = value.nullable(schema)?;
        Ok(Membership { value: *value, outer: outer.data, value_is_nullable, negated, members, members_are_nullable })
    }

    /// Whether there is a member with this condition.
    fn exists(&self, condition: Option<Expr>, negated: bool) -> DfResult<Expr> {
        let members = LogicalPlanBuilder::from(self.members.clone());
        let plan = match condition {
            Some(condition) => members.filter(condition)?.build()?,
            None => members.build()?,
        };
        let outer_ref_columns = plan.all_out_ref_exprs();
        let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Default::default() };
        Ok(Expr::Exists(Exists { subquery, negated }))
    }

    fn is_there(&self, negated: bool) -> DfResult<Expr> {
        self.exists(Some(member().eq(self.outer.clone())), negated)
    }
}

/// The first row that decides is the answer; one that may is unknown.
fn quantified(comparison: SetComparison, schema: &DFSchema) -> DfResult<Expr> {
    let SetComparison { expr, subquery, op, quantifier } = comparison;
    let membership = Membership::of(InSubquery { expr, subquery, negated: false }, schema)?;
    let compared = binary_expr(membership.outer.clone(), op, member());
    let (decides, answer) = match quantifier {
        SetQuantifier::Any => (compared.clone(), true),
        SetQuantifier::All => (compared.clone().not(), false),
    };
    when(membership.exists(Some(decides), false)?, lit(answer))
        .when(membership.exists(Some(compared.is_null()), false)?, lit(ScalarValue::Boolean(None)))
        .otherwise(lit(!answer))
}

fn not_in(membership: &Membership) -> DfResult<Expr> {
    let mut all = membership.is_there(true)?;
    if membership.members_are_nullable {
        all = all.and(membership.exists(Some(member().is_null()), true)?);
    }
    if membership.value_is_nullable {
        all = all.and(membership.value.clone().is_not_null().or(membership.exists(None, true)?));
    }
    Ok(all)
}

fn three_values(membership: &Membership) -> DfResult<Expr> {
    let is_there = membership.is_there(false)?;
    let mut unknown = Vec::new();
    if membership.members_are_nullable {
        unknown.push(membership.exists(Some(member().is_null()), false)?);
    }
    if membership.value_is_nullable {
        unknown.push(membership.value.clone().is_null().and(membership.exists(None, false)?));
    }
    let (yes, no) = (lit(!membership.negated), lit(membership.negated));
    match unknown.into_iter().reduce(Expr::or) {
        Some(unknown) => when(is_there, yes).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(no),
        None => when(is_there, yes).otherwise(no),
    }
}
