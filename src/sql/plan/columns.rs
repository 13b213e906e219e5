//! What the columns of a query are to a client: which column of which relation, and the SQL type that this one was declared with.
//!
//! Arrow has one type for `uuid`, `jsonb` and `varchar(10)`. The plan knows which columns pass through unchanged, so a column of
//! its output is followed down to the relation that it comes from. What is computed has the type that Arrow says, save where
//! each argument of MIN, MAX or COALESCE is of one type, or a function names its own.
//!
//! This is for descriptions only; nothing that runs looks at it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use super::source::{RelationSource, SourceColumn, scan_columns};
use super::unknown::is_string;
use crate::catalog::{Catalog, Relation, RelationId};
use crate::sql::functions::or_null::bare;
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

impl Known {
    fn of_field(field: &Field) -> Known {
        let told = field.metadata().get(PG_TYPE).filter(|name| *name != types::INTERNAL);
        Known { sql_type: told.cloned(), origin: None }
    }
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

/// What the expressions of a node say of parameters by SQL types that Arrow has no name for: `uuid`, `json`, `jsonb` and lists of them.
pub(super) struct ParameterNames<'a> {
    described: Described<'a>,
    inputs: Vec<&'a LogicalPlan>,
}

impl<'a> ParameterNames<'a> {
    pub fn new(node: &'a LogicalPlan, catalog: &'a Catalog) -> ParameterNames<'a> {
        ParameterNames { described: Described { catalog }, inputs: node.inputs() }
    }

    /// Ids of parameters in an expression, their types, and whether the expression is what it is whether they are known or not.
    pub fn of<'e>(&self, expr: &'e Expr) -> Vec<(&'e str, String, bool)> {
        let typed = |expr: &Expr| self.described.expression(expr, &self.inputs).sql_type.filter(|name| is_more_than_text(name));
        let mut pairs: Vec<(&Expr, Option<String>, bool)> = Vec::new();
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() || *op == Operator::NotEq => {
                pairs.extend([(left.as_ref(), typed(right), true), (right.as_ref(), typed(left), true)]);
            }
            Expr::InList(list) => pairs.extend(list.list.iter().map(|item| (item, typed(&list.expr), true))),
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
                let results: Vec<&Expr> = results.chain(case.else_expr.as_deref()).collect();
                let common = results.iter().find_map(|result| typed(result));
                pairs.extend(results.into_iter().map(|result| (result, common.clone(), false)));
            }
            Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
                ("parameter_list", [list, item]) => pairs.push((list, typed(item).map(|item| format!("{item}[]")), true)),
                ("coalesce" | "nullif" | "greatest" | "least", args) => {
                    let common = args.iter().find_map(typed);
                    pairs.extend(args.iter().map(|arg| (arg, common.clone(), false)));
                }
                (name, [text]) => pairs.push((text, read_by(name).map(str::to_string), true)),
                _ => {}
            },
            _ => {}
        }
        let named = |(expr, name, is_settled): (&'e Expr, Option<String>, bool)| match expr {
            Expr::Placeholder(parameter) => Some((parameter.id.as_str(), name?, is_settled)),
            _ => None,
        };
        pairs.into_iter().filter_map(named).collect()
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
                let branches: Vec<_> = union.inputs.iter().map(|input| self.output(input, index).sql_type).collect();
                Some(Known { sql_type: one_of(&branches), origin: None })
            }
            other => {
                let (qualifier, field) = other.schema().qualified_field(index);
                let column = Column::new(qualifier.cloned(), field.name());
                Some(self.column(&column, &other.inputs()))
            }
        };
        let field = node.schema().field(index);
        let mut known = known.unwrap_or_default();
        // What a cast was made of may be told of beside it.
        let told = field.metadata().get(PG_TYPE).filter(|name| !name.contains('(') || fits(name, field.data_type()));
        // And a field of several branches is that of the first.
        let told = told.filter(|name| !matches!(node, LogicalPlan::Union(_)) || !name.starts_with("character"));
        known.sql_type = known.sql_type.filter(|name| fits(name, field.data_type())).or_else(|| told.cloned());
        known
    }

    fn column(&self, column: &Column, inputs: &[&LogicalPlan]) -> Known {
        let found = inputs.iter().find_map(|input| Some((input, input.schema().maybe_index_of_column(column)?)));
        found.map_or_else(Known::default, |(input, index)| self.output(input, index))
    }

    fn expression(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Known {
        if let Some(expr) = bare(expr) {
            return self.expression(&expr, inputs);
        }
        match expr {
            Expr::Alias(alias) => self.expression(&alias.expr, inputs),
            Expr::Column(column) => self.column(column, inputs),
            Expr::OuterReferenceColumn(_, _) => Known::default(),
            // What was declared: of a parameter, of its value, by a cast.
            Expr::Placeholder(parameter) => parameter.field.as_deref().map_or_else(Known::default, Known::of_field),
            Expr::Literal(_, Some(metadata)) => Known { sql_type: metadata.inner().get(PG_TYPE).cloned(), origin: None },
            Expr::Cast(cast) if types::is_text(cast.field.data_type()) && cast.field.metadata().is_empty() => {
                Known { sql_type: Some("text".to_string()), origin: None }
            }
            Expr::Cast(cast) => Known::of_field(&cast.field),
            Expr::ScalarSubquery(query) => Known { origin: None, ..self.output(&query.subquery, 0) },
            Expr::AggregateFunction(call) if matches!(call.func.name(), "min" | "max") => {
                // There are none of `varchar`.
                let known = self.common(&call.params.args, inputs);
                let of_text = |name: String| match name.as_str() {
                    varying if varying.starts_with("character varying") => "text".to_string(),
                    fixed if fixed.starts_with("character") => types::without_modifier(fixed),
                    _ => name,
                };
                Known { sql_type: known.sql_type.map(of_text), ..known }
            }
            Expr::AggregateFunction(call) if matches!(call.func.name(), "first_value" | "last_value") => {
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
        let typed = exprs.iter().filter(|expr| !is_null(expr) && !is_string(expr));
        let mut each: Vec<_> = typed.map(|expr| self.expression(expr, inputs).sql_type).collect();
        // A string beside them is read as one of them, however long it is.
        if exprs.iter().any(is_string) {
            let text = |name: &str| name.starts_with("character");
            each.iter_mut().flatten().filter(|name| text(name)).for_each(|name| *name = types::without_modifier(name));
        }
        Known { sql_type: one_of(&each), origin: None }
    }

    fn list_of(&self, items: &[Expr], inputs: &[&LogicalPlan]) -> Known {
        let known = self.common(items, inputs);
        Known { sql_type: known.sql_type.map(|item| format!("{item}[]")), origin: None }
    }
}

/// The type that several have in common: the one that all are, or a `varchar` of any length.
fn one_of(each: &[Option<String>]) -> Option<String> {
    const VARYING: &str = "character varying";
    let first = each.first()?.as_ref()?;
    let all = |same: &dyn Fn(&str) -> bool| each.iter().all(|other| other.as_deref().is_some_and(same));
    if all(&|other| other == first) {
        return Some(first.clone());
    }
    all(&|other| other.starts_with(VARYING) && !other.ends_with("[]")).then(|| VARYING.to_string())
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
        "uuids_from_texts" => "uuid[]",
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
            !is_list && matches!(name, "text" | "uuid" | "json" | "jsonb" | "character" | "varchar" | "name" | "char" | "void")
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
