//! What the columns of a query are to a client: which column of which relation, and the SQL type that this one was declared with.
//!
//! Arrow has one type for `uuid`, `jsonb` and `varchar(10)`. The plan knows which columns pass through unchanged, so a column of
//! its output is followed down to the relation that it comes from. What is computed has the type that Arrow says, save where
//! each argument of MIN, MAX or COALESCE is of one type, or a function names its own.
//!
//! This is for descriptions only; nothing that runs looks at it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::source::{RelationSource, SourceColumn, scan_columns};
use crate::catalog::{Catalog, Relation, RelationId};
use crate::sql::system::{document_type, visible_name};
use crate::sql::types::{self, PG_TYPE};

/// Keys of a field's metadata: OID of the relation that a column comes from, and the column's number there, from 1.
pub const ORIGIN: [&str; 2] = ["relation", "column"];

/// What is known of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    sql_type: Option<String>,
    origin: Option<(RelationId, usize)>,
}

/// The columns of a plan under the names that the user gave them, with their types and origins.
pub fn visible_schema(plan: &LogicalPlan, catalog: &Catalog) -> SchemaRef {
    let describe = |(at, field): (usize, &Arc<Field>)| {
        let known = Described { catalog }.output(plan, at);
        let mut visible = field.as_ref().clone().with_name(visible_name(field.name()));
        if let Some(sql_type) = known.sql_type {
            visible = types::with_type(visible, &sql_type);
        }
        match known.origin {
            Some((relation, column)) => from_relation(visible, relation, column),
            None => visible,
        }
    };
    Arc::new(Schema::new(plan.schema().fields().iter().enumerate().map(describe).collect::<Vec<_>>()))
}

/// The columns of what computes a plan, with their types where the plan knows them.
pub fn declared(computed: &SchemaRef, plan: &LogicalPlan, catalog: &Catalog) -> SchemaRef {
    let described = visible_schema(plan, catalog);
    let declare = |(field, described): (&Arc<Field>, &Arc<Field>)| match described.metadata().get(PG_TYPE) {
        Some(sql_type) if field.data_type() == described.data_type() => types::with_type(field.as_ref().clone(), sql_type),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(computed.fields().iter().zip(described.fields()).map(declare).collect::<Vec<_>>()))
}

/// The SQL type of an expression without columns, where Arrow does not tell it.
pub(super) fn type_of(expr: &Expr, catalog: &Catalog) -> Option<String> {
    type_beside(expr, &[], catalog)
}

/// The same of an expression over the columns of these plans.
pub(super) fn type_beside(expr: &Expr, inputs: &[&LogicalPlan], catalog: &Catalog) -> Option<String> {
    Described { catalog }.expression(expr, inputs).sql_type
}

/// A column of a relation as clients are told of it, under a name of the query's.
pub fn of_relation(relation: &Relation, at: usize, name: &str) -> Field {
    let column = &relation.columns[at];
    let field = Field::new(name, column.data_type.clone(), true);
    from_relation(types::with_type(field, &column.sql_type), relation.id, at)
}

fn from_relation(field: Field, relation: RelationId, column: usize) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.extend(ORIGIN.into_iter().map(str::to_string).zip([relation.to_string(), (column + 1).to_string()]));
    field.with_metadata(metadata)
}

/// SQL types of parameters that are compared with a column, or read as a type, that Arrow has no name for: `$1` first.
pub fn parameter_types(plan: &LogicalPlan, catalog: &Catalog) -> Vec<Option<String>> {
    let mut found = Vec::new();
    let described = Described { catalog };
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                described.parameters_of(node, expr, &mut found);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(visited.is_ok(), "the visitor itself never fails");
    found
}

/// Types of parameters that a list is made of (`x = ANY ($1)`), that are cast (`$1::int`), or that stand for a condition
/// (`WHERE $1`).
pub(super) fn told_parameters(node: &LogicalPlan, found: &mut HashMap<String, Option<DataType>>) -> DfResult<()> {
    let mut schema = DFSchema::empty();
    node.inputs().iter().for_each(|input| schema.merge(input.schema()));
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Expr::ScalarFunction(call) = expr
                && let ("parameter_list", [Expr::Placeholder(parameter), _]) = (call.name(), call.args.as_slice())
            {
                let data_type = expr.get_type(&schema)?;
                found.entry(parameter.id.clone()).or_default().get_or_insert(data_type);
            }
            if let Expr::Cast(cast) = expr
                && let Expr::Placeholder(parameter) = cast.expr.as_ref()
            {
                found.entry(parameter.id.clone()).or_default().get_or_insert(cast.field.data_type().clone());
            }
            match expr {
                Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                    [left, right].into_iter().for_each(|side| told_condition(side, found));
                }
                Expr::Not(condition) => told_condition(condition, found),
                Expr::Case(case) if case.expr.is_none() => {
                    case.when_then_expr.iter().for_each(|(condition, _)| told_condition(condition, found));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match node {
        LogicalPlan::Filter(filter) => told_condition(&filter.predicate, found),
        LogicalPlan::Join(join) => join.filter.iter().for_each(|condition| told_condition(condition, found)),
        _ => {}
    }
    Ok(())
}

fn told_condition(condition: &Expr, found: &mut HashMap<String, Option<DataType>>) {
    if let Expr::Placeholder(parameter) = condition {
        found.entry(parameter.id.clone()).or_default().get_or_insert(DataType::Boolean);
    }
}

/// Follows columns down a plan.
struct Described<'a> {
    catalog: &'a Catalog,
}

impl Described<'_> {
    /// Column `index` of what a node gives.
    fn output(&self, node: &LogicalPlan, index: usize) -> Known {
        let known = match node {
            LogicalPlan::TableScan(scan) => RelationSource::of(scan).map(|source| match scan_columns(scan, source).get(index) {
                Some(SourceColumn::User(column)) => {
                    let relation = source.relation();
                    let sql_type = Some(relation.columns[*column].sql_type.clone());
                    Known { sql_type, origin: Some((relation.id, *column)) }
                }
                _ => Known::default(),
            }),
            LogicalPlan::Projection(projection) => {
                projection.expr.get(index).map(|expr| self.expression(expr, &[projection.input.as_ref()]))
            }
            LogicalPlan::Values(values) => {
                let cells: Option<Vec<Expr>> = values.values.iter().map(|row| row.get(index).cloned()).collect();
                cells.map(|cells| Known { origin: None, ..self.common(&cells, &[]) })
            }
            LogicalPlan::Aggregate(aggregate) => {
                let mut exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
                let plain = !matches!(aggregate.group_expr.first(), Some(Expr::GroupingSet(_)));
                let expr = exprs.nth(index).filter(|_| plain);
                expr.map(|expr| self.expression(expr, &[aggregate.input.as_ref()]))
            }
            LogicalPlan::SubqueryAlias(alias) => match alias.alias.schema() {
                // A plain view in its place, for no other alias has a schema.
                Some(schema) => {
                    let view = self.catalog.find(schema, alias.alias.table());
                    view.and_then(|view| Some((view.id, view.columns.get(index)?)))
                        .map(|(id, column)| Known { sql_type: Some(column.sql_type.clone()), origin: Some((id, index)) })
                }
                None => Some(self.output(&alias.input, index)),
            },
            LogicalPlan::Unnest(unnest) => unnest.dependency_indices.get(index).map(|from| {
                let known = self.output(&unnest.input, *from);
                let is_list = unnest.list_type_columns.iter().any(|(list, _)| list == from);
                if is_list { Known { sql_type: known.sql_type.as_deref().and_then(item_type), origin: None } } else { known }
            }),
            LogicalPlan::Union(union) => {
                let mut branches = union.inputs.iter().map(|input| self.output(input, index).sql_type);
                let first = branches.next().flatten().filter(|first| branches.all(|other| other.as_deref() == Some(first)));
                Some(Known { sql_type: first, origin: None })
            }
            other => {
                let (qualifier, field) = other.schema().qualified_field(index);
                let column = Column::new(qualifier.cloned(), field.name());
                Some(self.column(&column, &other.inputs()))
            }
        };
        let field = node.schema().field(index);
        let mut known = known.unwrap_or_default();
        known.sql_type =
            known.sql_type.filter(|name| fits(name, field.data_type())).or_else(|| field.metadata().get(PG_TYPE).cloned());
        known
    }

    fn column(&self, column: &Column, inputs: &[&LogicalPlan]) -> Known {
        let found = inputs.iter().find_map(|input| Some((input, input.schema().maybe_index_of_column(column)?)));
        found.map_or_else(Known::default, |(input, index)| self.output(input, index))
    }

    fn expression(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Known {
        match expr {
            Expr::Alias(alias) => self.expression(&alias.expr, inputs),
            Expr::Column(column) => self.column(column, inputs),
            Expr::OuterReferenceColumn(_, _) => Known::default(),
            Expr::ScalarSubquery(query) => Known { origin: None, ..self.output(&query.subquery, 0) },
            Expr::AggregateFunction(call) if matches!(call.func.name(), "min" | "max" | "first_value" | "last_value") => {
                self.common(&call.params.args, inputs)
            }
            Expr::AggregateFunction(call) if call.func.name() == "array_agg" => self.list_of(&call.params.args, inputs),
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref().clone());
                let results: Vec<Expr> = results.chain(case.else_expr.as_deref().cloned()).collect();
                self.common(&results, inputs)
            }
            Expr::ScalarFunction(call) if call.name() == "declared" => Known { origin: None, ..self.common(&call.args, inputs) },
            Expr::ScalarFunction(call) if call.name() == "make_array" => self.list_of(&call.args, inputs),
            Expr::ScalarFunction(call) if call.name() == "array_element" => {
                let list = call.args.first().and_then(|list| self.expression(list, inputs).sql_type);
                Known { sql_type: list.as_deref().and_then(item_type), origin: None }
            }
            Expr::ScalarFunction(call) if matches!(call.name(), "coalesce" | "nullif" | "greatest" | "least") => {
                self.common(&call.args, inputs)
            }
            Expr::ScalarFunction(call) => Known { sql_type: document_type(call.name()).map(str::to_string), origin: None },
            _ => Known::default(),
        }
    }

    /// The type of a value that is one of several.
    fn common(&self, exprs: &[Expr], inputs: &[&LogicalPlan]) -> Known {
        let mut each = exprs.iter().filter(|expr| !is_null(expr)).map(|expr| self.expression(expr, inputs).sql_type);
        let first = each.next().flatten().filter(|first| each.all(|other| other.as_deref() == Some(first)));
        Known { sql_type: first, origin: None }
    }

    fn list_of(&self, items: &[Expr], inputs: &[&LogicalPlan]) -> Known {
        let known = self.common(items, inputs);
        Known { sql_type: known.sql_type.map(|item| format!("{item}[]")), origin: None }
    }

    fn parameters_of(&self, node: &LogicalPlan, expr: &Expr, found: &mut Vec<Option<String>>) {
        let inputs = node.inputs();
        let typed = |expr: &Expr| self.expression(expr, &inputs).sql_type.filter(|name| is_more_than_text(name));
        let mut pairs: Vec<(&Expr, Option<String>)> = Vec::new();
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
                pairs.extend([(left.as_ref(), typed(right)), (right.as_ref(), typed(left))]);
            }
            Expr::InList(list) => pairs.extend(list.list.iter().map(|item| (item, typed(&list.expr)))),
            Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
                ("parameter_list", [list, item]) => pairs.push((list, typed(item).map(|item| format!("{item}[]")))),
                (name, [text]) => pairs.push((text, read_by(name).map(str::to_string))),
                _ => {}
            },
            _ => {}
        }
        for (expr, sql_type) in pairs {
            let Expr::Placeholder(parameter) = expr else { continue };
            let number = parameter.id.trim_start_matches('$').parse::<usize>().ok();
            let Some(index) = number.and_then(|n| n.checked_sub(1)).filter(|n| *n < usize::from(u16::MAX)) else { continue };
            if found.len() <= index {
                found.resize(index + 1, None);
            }
            found[index] = found[index].take().or(sql_type);
        }
    }
}

/// The type of a list's items.
fn item_type(list: &str) -> Option<String> {
    list.strip_suffix("[]").map(str::to_string)
}

/// The type that an input function reads.
fn read_by(function: &str) -> Option<&'static str> {
    Some(match function {
        "uuid_from_text" => "uuid",
        "json_from_text" => "json",
        "jsonb_from_text" | "jsonb_sort_key" => "jsonb",
        _ => return None,
    })
}

/// A parameter compared with `varchar(10)` is text, but one compared with a uuid is a uuid.
fn is_more_than_text(sql_type: &str) -> bool {
    matches!(sql_type.trim_end_matches("[]"), "uuid" | "json" | "jsonb")
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        // It was given the type of the others.
        Expr::Cast(cast) => is_null(&cast.expr),
        _ => false,
    }
}

/// Coercions may have changed a column on its way.
fn fits(sql_type: &str, data_type: &DataType) -> bool {
    use DataType as D;
    let element = |t: &DataType| matches!(t, D::List(_) | D::LargeList(_) | D::FixedSizeList(..));
    let is_list = sql_type.ends_with("[]");
    let name = sql_type.trim_end_matches("[]").split(['(', ' ', '<']).next().unwrap_or_default();
    match data_type {
        list if element(list) => is_list,
        D::Utf8 | D::LargeUtf8 | D::Utf8View => {
            !is_list && matches!(name, "text" | "uuid" | "json" | "jsonb" | "character" | "varchar" | "name" | "char")
        }
        D::Timestamp(..) => name == "timestamp",
        D::Time32(_) | D::Time64(_) => name == "time",
        D::Decimal128(..) | D::Decimal256(..) => {
            name == "numeric" && (sql_type == "numeric" || sql_type == types::sql_type(data_type))
        }
        // Arrow says it all.
        _ => false,
    }
}
