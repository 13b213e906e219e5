//! From the clause to a [`MatchNode`] and the projection of its measures.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, Volatility, lit,
};
use sqlparser::ast::{self as sp, Spanned};
use sqlparser::tokenizer::Span;

use super::values::{Values, column};
use super::{MatchNode, Order, Recognition, text};
use crate::error::Error;
use crate::flow::pattern::program::{Pattern, Program, Variables, bit};
use crate::flow::pattern::{Shown, Skip};
use crate::sql::ast::{PATTERN_INPUT, PATTERN_SUBSET, PATTERN_WITHIN};
use crate::sql::plan::errors::at;
use crate::sql::plan::inline::inline_calls;
use crate::sql::plan::names::{fold, fold_object};
use crate::sql::window::constant_duration;

/// Plans MATCH_RECOGNIZE, and the queries that it reads.
#[derive(Debug)]
pub struct PatternPlanner;

impl RelationPlanner for PatternPlanner {
    fn plan_relation(&self, relation: sp::TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        match relation {
            sp::TableFactor::MatchRecognize {
                table,
                partition_by,
                order_by,
                measures,
                rows_per_match,
                after_match_skip,
                pattern,
                symbols,
                alias,
            } => {
                let clause = Clause { partition_by, order_by, measures, rows_per_match, after_match_skip, pattern, symbols };
                let plan = clause.plan(*table, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            sp::TableFactor::Table { name, args: Some(mut args), alias, .. } if is_input(&name) => match args.args.pop() {
                Some(sp::FunctionArg::Unnamed(sp::FunctionArgExpr::Expr(sp::Expr::Subquery(subquery)))) => {
                    let query = sp::TableFactor::Derived { lateral: false, subquery, alias, sample: None };
                    Ok(RelationPlanning::Original(Box::new(query)))
                }
                _ => Err(at(Error::syntax("MATCH_RECOGNIZE reads a relation or a query in parentheses"), name.span())),
            },
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn is_input(name: &sp::ObjectName) -> bool {
    fold_object(name).is_some_and(|(schema, name)| schema.is_none() && name == PATTERN_INPUT)
}

/// The clause as it was parsed.
struct Clause {
    partition_by: Vec<sp::Expr>,
    order_by: Vec<sp::OrderByExpr>,
    measures: Vec<sp::Measure>,
    rows_per_match: Option<sp::RowsPerMatch>,
    after_match_skip: Option<sp::AfterMatchSkip>,
    pattern: sp::MatchRecognizePattern,
    symbols: Vec<sp::SymbolDefinition>,
}

/// The pattern with the names that it gives.
struct Names {
    pattern: Pattern,
    names: Vec<String>,
    /// Variables, then subsets.
    variables: Vec<(String, Variables)>,
}

impl Names {
    fn find(&self, ident: &sp::Ident) -> DfResult<Variables> {
        let name = fold(ident);
        let found = self.variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, variables)| *variables).ok_or_else(|| {
            let known: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
            let error = Error::undefined_object(format!("pattern variable \"{name}\" does not exist"));
            at(error.with_hint(format!("the pattern has {}", known.join(", "))), ident.span)
        })
    }
}

impl Clause {
    fn plan(self, table: sp::TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<LogicalPlan> {
        let place = table.span();
        let input = context.plan(table)?;
        let schema = input.schema().as_ref().clone();
        let mut columns: Vec<Expr> = Vec::new();
        let names = self.names()?;
        let partition = self.partition(&schema, &mut columns, context)?;
        let order = self.order(&schema, &mut columns, context, place)?;
        let within = self.within(&order, &columns, &schema, context)?;
        let shown = self.shown()?;
        let skip = self.skip(&names)?;
        let rowtime = order.first().map(|first| first.column);
        let mut calls = Vec::new();
        let (mut slots, mut conditions) = (Vec::new(), vec![None; names.names.len()]);
        for (variable, definition) in self.definitions(&names)? {
            let mut values = Values {
                context: &mut *context,
                input: &schema,
                variables: &names.variables,
                rowtime,
                columns: &mut columns,
                calls: &mut calls,
                slots,
                defining: Some(variable),
            };
            conditions[usize::from(variable)] = Some(condition(&mut values, definition)?);
            slots = values.slots;
        }
        let mut values = Values {
            context: &mut *context,
            input: &schema,
            variables: &names.variables,
            rowtime,
            columns: &mut columns,
            calls: &mut calls,
            slots: Vec::new(),
            defining: None,
        };
        let measures = self.measures.iter().map(|measure| Ok((values.expression(&measure.expr)?, fold(&measure.alias))));
        let shown_measures: Vec<(Expr, String)> = measures.collect::<DfResult<_>>()?;
        let measures = values.slots;
        let passed = match shown {
            Shown::OneRow => partition.clone(),
            Shown::AllRows { .. } => schema.columns().into_iter().map(|c| column(&mut columns, Expr::Column(c))).collect(),
        };
        Program::new(&names.pattern).map_err(|error| at(error, self.pattern_span()))?;
        let recognition = Recognition {
            names: names.names,
            pattern: names.pattern,
            partition,
            order,
            within,
            skip,
            shown,
            slots,
            conditions,
            calls,
            measures,
            passed,
        };
        let node = MatchNode::new(columns, recognition, input)?;
        self.project(node, shown_measures)
    }

    fn pattern_span(&self) -> Span {
        match &self.pattern {
            sp::MatchRecognizePattern::Symbol(sp::MatchRecognizeSymbol::Named(text)) => text.span,
            _ => Span::empty(),
        }
    }

    fn names(&self) -> DfResult<Names> {
        let sp::MatchRecognizePattern::Symbol(sp::MatchRecognizeSymbol::Named(written)) = &self.pattern else {
            return Err(Error::internal("the pattern is not text").into());
        };
        let position = u32::try_from(written.span.start.column).unwrap_or(1);
        let (pattern, names) = text::parse(&written.value, position)?;
        let variables = names.iter().enumerate().map(|(n, name)| (name.clone(), bit(n as u8))).collect();
        let mut names = Names { pattern, names, variables };
        for definition in self.symbols.iter().filter(|definition| is(&definition.symbol, PATTERN_SUBSET)) {
            let (name, members) = subset(&definition.definition)?;
            let mut variables = 0;
            for member in members {
                variables |= names.find(member)?;
            }
            if names.find(name).is_ok() {
                let error = Error::duplicate_object(format!("pattern variable \"{}\" exists already", fold(name)));
                return Err(at(error.with_hint("give the SUBSET another name"), name.span));
            }
            names.variables.push((fold(name), variables));
        }
        Ok(names)
    }

    fn partition(
        &self,
        schema: &DFSchema,
        columns: &mut Vec<Expr>,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<Vec<usize>> {
        let mut partition = Vec::new();
        for by in &self.partition_by {
            let expr = normalize(context.sql_to_expr(by.clone(), schema)?, schema)?;
            if !matches!(expr, Expr::Column(_)) {
                let error = Error::unsupported("PARTITION BY of MATCH_RECOGNIZE takes columns");
                let hint = "compute it in a query: (SELECT *, … AS k FROM relation) MATCH_RECOGNIZE (PARTITION BY k …)";
                return Err(at(error.with_hint(hint), by.span()));
            }
            let number = column(columns, expr);
            if !partition.contains(&number) {
                partition.push(number);
            }
        }
        Ok(partition)
    }

    fn order(
        &self,
        schema: &DFSchema,
        columns: &mut Vec<Expr>,
        context: &mut dyn RelationPlannerContext,
        place: Span,
    ) -> DfResult<Vec<Order>> {
        if self.order_by.is_empty() {
            let error = Error::syntax("MATCH_RECOGNIZE needs ORDER BY: a pattern is about rows one after the other");
            return Err(at(error.with_hint("write ORDER BY with the time column, behind PARTITION BY"), place));
        }
        let order = |by: &sp::OrderByExpr| -> DfResult<Order> {
            let expr = normalize(context.sql_to_expr(by.expr.clone(), schema)?, schema)?;
            let descending = by.options.asc == Some(false);
            let nulls_first = by.options.nulls_first.unwrap_or(descending);
            Ok(Order { column: column(columns, expr), descending, nulls_first })
        };
        self.order_by.iter().map(order).collect()
    }

    fn within(
        &self,
        order: &[Order],
        columns: &[Expr],
        schema: &DFSchema,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<Option<i64>> {
        let Some(within) = self.symbols.iter().find(|definition| is(&definition.symbol, PATTERN_WITHIN)) else { return Ok(None) };
        let span = within.definition.span();
        let length = constant_duration(within.definition.clone(), "length of WITHIN", context)?;
        if length <= 0 {
            return Err(at(Error::invalid_parameter("the length of WITHIN must be greater than zero"), span));
        }
        let first =
            order.first().map(|first| Ok::<_, DataFusionError>((columns[first.column].get_type(schema)?, first.ascends())));
        match first.transpose()? {
            Some((DataType::Timestamp(..), true)) => Ok(Some(length)),
            _ => {
                let error = Error::datatype_mismatch("WITHIN needs rows in the order of a timestamp that ascends");
                Err(at(error.with_hint("put the time column first in ORDER BY"), span))
            }
        }
    }

    fn shown(&self) -> DfResult<Shown> {
        match self.rows_per_match {
            None | Some(sp::RowsPerMatch::OneRow) => Ok(Shown::OneRow),
            Some(sp::RowsPerMatch::AllRows(None | Some(sp::EmptyMatchesMode::Show))) => {
                Ok(Shown::AllRows { empty_matches: true })
            }
            Some(sp::RowsPerMatch::AllRows(Some(sp::EmptyMatchesMode::Omit))) => Ok(Shown::AllRows { empty_matches: false }),
            Some(sp::RowsPerMatch::AllRows(Some(sp::EmptyMatchesMode::WithUnmatched))) => {
                let error = Error::unsupported("ALL ROWS PER MATCH WITH UNMATCHED ROWS is not supported");
                let hint = "add an alternative that takes any other row: PATTERN (a b c | other), with other not in DEFINE";
                Err(at(error.with_hint(hint), self.pattern_span()))
            }
        }
    }

    fn skip(&self, names: &Names) -> DfResult<Skip> {
        let (skip, ident, of) = match &self.after_match_skip {
            None | Some(sp::AfterMatchSkip::PastLastRow) => return Ok(Skip::PastLastRow),
            Some(sp::AfterMatchSkip::ToNextRow) => return Ok(Skip::ToNextRow),
            Some(sp::AfterMatchSkip::ToFirst(to)) => (Skip::ToFirst(names.find(to)?), to, names.find(to)?),
            Some(sp::AfterMatchSkip::ToLast(to)) => (Skip::ToLast(names.find(to)?), to, names.find(to)?),
        };
        if matches!(skip, Skip::ToFirst(_)) && always_first(&names.pattern, of) {
            let name = fold(ident);
            let error = Error::skip_to_first_row(format!(
                "\"{name}\" is the first row of every match, which would be found again for ever"
            ));
            return Err(at(error.with_hint("write AFTER MATCH SKIP TO NEXT ROW or PAST LAST ROW"), ident.span));
        }
        Ok(skip)
    }

    /// What DEFINE says of each variable, once.
    fn definitions<'a>(&'a self, names: &Names) -> DfResult<Vec<(u8, &'a sp::Expr)>> {
        let mut found: Vec<(u8, &sp::Expr)> = Vec::new();
        for definition in &self.symbols {
            let symbol = &definition.symbol;
            if is(symbol, PATTERN_WITHIN) || is(symbol, PATTERN_SUBSET) {
                continue;
            }
            let name = fold(symbol);
            let Some(variable) = names.names.iter().position(|known| *known == name) else {
                let error = Error::undefined_object(format!("pattern variable \"{name}\" is defined, but not in PATTERN"));
                return Err(at(error.with_hint(format!("the pattern has {}", names.names.join(", "))), symbol.span));
            };
            if found.iter().any(|(known, _)| usize::from(*known) == variable) {
                return Err(at(Error::duplicate_object(format!("pattern variable \"{name}\" is defined twice")), symbol.span));
            }
            found.push((variable as u8, &definition.definition));
        }
        Ok(found)
    }

    /// The columns in the order of the standard: those of PARTITION BY, of ORDER BY, the measures, the rest.
    fn project(&self, node: MatchNode, measures: Vec<(Expr, String)>) -> DfResult<LogicalPlan> {
        let of = &node.recognition;
        let place = |number: usize| of.passed.iter().position(|passed| *passed == number);
        let mut first: Vec<usize> = of.partition.iter().filter_map(|number| place(*number)).collect();
        if matches!(of.shown, Shown::AllRows { .. }) {
            for place in of.order.iter().filter_map(|order| place(order.column)) {
                if !first.contains(&place) {
                    first.push(place);
                }
            }
        }
        let schema = node.schema();
        let column = |place: usize| Expr::Column(Column::from(schema.qualified_field(place)));
        let rest = (0..of.passed.len()).filter(|place| !first.contains(place));
        let mut taken: Vec<&str> = (0..of.passed.len()).map(|place| schema.field(place).name().as_str()).collect();
        for (measure, (_, name)) in self.measures.iter().zip(&measures) {
            if taken.contains(&name.as_str()) {
                let error = Error::duplicate_column(format!("the result of MATCH_RECOGNIZE has two columns \"{name}\""));
                return Err(at(error.with_hint("give the measure another name"), measure.alias.span));
            }
            taken.push(name);
        }
        let shown = first.iter().copied().map(column);
        let shown = shown.chain(measures.iter().map(|(expr, name)| expr.clone().alias(name))).chain(rest.map(column));
        let exprs: Vec<Expr> = shown.collect();
        LogicalPlanBuilder::from(node.into_plan()).project(exprs)?.build()
    }
}

fn is(symbol: &sp::Ident, name: &str) -> bool {
    symbol.value == name
}

/// The column with its relation; functions as their expressions.
fn normalize(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    match &expr {
        Expr::Column(column) if column.relation.is_none() => {
            let (qualifier, field) = schema.qualified_field_with_unqualified_name(&column.name)?;
            Ok(Expr::Column(Column::from((qualifier, field))))
        }
        _ => inline_calls(expr, schema),
    }
}

/// `name = (a, b)`.
fn subset(expr: &sp::Expr) -> DfResult<(&sp::Ident, Vec<&sp::Ident>)> {
    let wrong = || at(Error::syntax("SUBSET is written SUBSET name = (variable, …)"), expr.span());
    let sp::Expr::BinaryOp { left, op: sp::BinaryOperator::Eq, right } = expr else { return Err(wrong()) };
    let members: Vec<&sp::Expr> = match right.as_ref() {
        sp::Expr::Nested(one) => vec![one],
        sp::Expr::Tuple(members) => members.iter().collect(),
        _ => return Err(wrong()),
    };
    let members: Option<Vec<&sp::Ident>> = members.into_iter().map(identifier).collect();
    identifier(left).zip(members).ok_or_else(wrong)
}

fn identifier(expr: &sp::Expr) -> Option<&sp::Ident> {
    if let sp::Expr::Identifier(ident) = expr { Some(ident) } else { None }
}

/// The condition of a variable, over values of the match.
fn condition(values: &mut Values, definition: &sp::Expr) -> DfResult<Expr> {
    let span = definition.span();
    let condition = values.expression(definition)?;
    let data_type = condition.get_type(&values.schema()?)?;
    if !matches!(data_type, DataType::Boolean | DataType::Null) {
        let error = Error::datatype_mismatch(format!("a condition of DEFINE is boolean, not {data_type}"));
        return Err(at(error, span));
    }
    let varies = condition.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::Placeholder(_) => true,
            _ => false,
        })
    })?;
    if varies {
        let error = Error::unsupported(
            "a condition of DEFINE depends on the rows alone: no parameters, no function that changes by itself",
        );
        return Err(at(error.with_hint("compute the value as a column of a subquery that MATCH_RECOGNIZE reads"), span));
    }
    Ok(if data_type == DataType::Null { lit(false) } else { condition })
}

/// Every match begins with a row of these variables.
fn always_first(pattern: &Pattern, of: Variables) -> bool {
    match pattern {
        Pattern::Variable(variable) => of & bit(*variable) != 0,
        Pattern::Start | Pattern::End => false,
        Pattern::Sequence(parts) => {
            let anchors = |part: &&Pattern| !matches!(part, Pattern::Start | Pattern::End);
            parts.iter().find(anchors).is_some_and(|first| always_first(first, of))
        }
        Pattern::Either(ways) => ways.iter().all(|way| always_first(way, of)),
        Pattern::Repeat { of: inner, least, .. } => *least > 0 && always_first(inner, of),
        Pattern::Exclude(inner) => always_first(inner, of),
    }
}
