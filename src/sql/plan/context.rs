//! The catalog as DataFusion's planner sees it: names are resolved when they are met, and not before.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, SchemaRef, TimeUnit};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF, cast,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use sqlparser::ast as sp;

use super::as_of::AsOfPlanner;
use super::gap_fill::GapFillPlanner;
use super::source::{Hidden, RelationSource};
use super::{Planner, Reader, clocks, dialect, marks};
use crate::catalog::schema::RelationName;
use crate::catalog::{Kind, Relation, RelationId};
use crate::error::Error;
use crate::sql::functions::{ZONED_NOW, declared};
use crate::sql::pattern::PatternPlanner;
use crate::sql::system::gives_records;
use crate::sql::types;
use crate::sql::window::WindowPlanner;
use crate::time::{TIMESTAMP, is_zoned};

/// One statement's view of the catalog.
pub(super) struct Context<'a> {
    planner: &'a Planner,
    /// Hidden columns that the statement names.
    hidden: Vec<Hidden>,
    relations: [Arc<dyn RelationPlanner>; 4],
    /// Views that are being inlined, from the outermost: a view that is met again would never end.
    inlining: Vec<RelationId>,
    /// Views that were inlined before, for statements that name them more than once.
    inlined: RefCell<HashMap<RelationId, Arc<dyn TableSource>>>,
}

impl<'a> Context<'a> {
    pub fn new(planner: &'a Planner, hidden: Vec<Hidden>, inlining: Vec<RelationId>) -> Context<'a> {
        Context {
            planner,
            hidden,
            relations: [Arc::new(AsOfPlanner), Arc::new(WindowPlanner), Arc::new(PatternPlanner), Arc::new(GapFillPlanner)],
            inlining,
            inlined: RefCell::default(),
        }
    }

    fn user_relation(&self, relation: &Arc<Relation>) -> DfResult<Arc<dyn TableSource>> {
        self.planner.check_read(relation)?;
        let says = match relation.kind {
            Kind::Query => Some(("running INSERT", "SHOW QUERIES says what it writes to")),
            Kind::Sink => Some(("sink", "SHOW SINKS says what it writes to")),
            _ => None,
        };
        if let Some((what, hint)) = says {
            let error = Error::wrong_object_type(format!("\"{}\" is a {what}, which has no rows of its own", relation.name));
            return Err(error.with_hint(hint).into());
        }
        if relation.kind != Kind::View {
            return Ok(Arc::new(RelationSource::new(Arc::clone(relation), &self.hidden)));
        }
        if let Some(source) = self.inlined.borrow().get(&relation.id) {
            return Ok(Arc::clone(source));
        }
        let source: Arc<dyn TableSource> = Arc::new(ViewSource::new(self.plan_view(relation)?));
        self.inlined.borrow_mut().insert(relation.id, Arc::clone(&source));
        Ok(source)
    }

    fn plan_view(&self, view: &Arc<Relation>) -> DfResult<LogicalPlan> {
        let plan = self.query_of(view)?;
        // Its columns are the view's: see `columns`.
        LogicalPlanBuilder::from(plan).alias(TableReference::partial(view.schema.as_str(), view.name.as_str()))?.build()
    }

    fn query_of(&self, view: &Arc<Relation>) -> DfResult<LogicalPlan> {
        if self.inlining.contains(&view.id) {
            return Err(Error::invalid_object_definition(format!("view \"{}\" reads itself", view.name)).into());
        }
        let inlining = self.inlining.iter().copied().chain([view.id]).collect();
        Ok(self.planner.for_view(view).view_query(view, inlining)?)
    }
}

/// 42P01, with the names that come close.
fn undefined_relation(planner: &Planner, schema: Option<&str>, name: &str) -> Error {
    let written = RelationName::new(schema.unwrap_or_default(), name);
    let error = Error::undefined_table(format!("relation \"{written}\" does not exist"));
    let distance = |other: &str| datafusion::common::utils::datafusion_strsim::levenshtein(name, other);
    let is_seen = |relation: &&Arc<Relation>| match &planner.reader {
        Reader::Server => true,
        Reader::Role(rights) => rights.sees(relation),
    };
    let mut similar: Vec<(usize, bool, &Arc<Relation>)> = planner
        .catalog
        .relations()
        .filter(is_seen)
        .map(|r| (distance(&r.name), !planner.path.schemas().any(|schema| *schema == r.schema), r))
        // In other schemas only what is called just so.
        .filter(|(far, is_elsewhere, _)| !is_elsewhere || *far == 0)
        .filter(|(far, _, other)| *far <= 1 + name.len() / 4 || name.eq_ignore_ascii_case(&other.name))
        .collect();
    similar.sort_unstable_by_key(|(far, is_elsewhere, other)| (*far, *is_elsewhere, &other.name));
    match similar.first() {
        None => error,
        Some((1..=2, false, other)) if name.eq_ignore_ascii_case(&other.name) => {
            error.with_hint(format!("write \"{}\" with its quotes", other.name))
        }
        Some((_, false, other)) => error.with_hint(format!("did you mean {}?", other.name)),
        Some((_, true, other)) => error.with_hint(format!("did you mean {}.{}?", other.schema, other.name)),
    }
}

/// A view's query, in its place.
struct ViewSource {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl ViewSource {
    fn new(plan: LogicalPlan) -> ViewSource {
        ViewSource { schema: Arc::new(plan.schema().as_arrow().clone()), plan }
    }
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        let (schema, table) = (name.schema(), name.table());
        if let (Some(named), Some(database)) = (name.catalog(), &self.planner.database)
            && named != &**database
        {
            let error = Error::unsupported(format!("cross-database references are not implemented: {name}"));
            return Err(error.with_hint(format!("the database is \"{database}\"; its name may be left out")).into());
        }
        let system = |schema: Option<&str>| self.planner.system.as_ref().and_then(|system| system.table(schema, table));
        let found = match schema {
            // pg_catalog is looked at first, wherever it is on the path.
            None if table.starts_with("pg_") => system(None),
            _ => None,
        };
        let found = found.map(|provider| Ok(provider_as_source(provider))).or_else(|| {
            let path = schema.is_none().then(|| self.planner.path.schemas());
            schema.into_iter().chain(path.into_iter().flatten()).find_map(|schema| {
                let relation = self.planner.catalog.find(schema, table).map(|relation| self.user_relation(relation));
                relation.or_else(|| Some(Ok(provider_as_source(system(Some(schema))?))))
            })
        });
        found.unwrap_or_else(|| Err(undefined_relation(self.planner, schema, table).into()))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        let state = &self.planner.state;
        if gives_records(name) {
            let error = Error::syntax("a column definition list is required for functions returning \"record\"");
            return Err(error.with_hint("write which columns it gives: AS t(a int, b text)").into());
        }
        let Some(function) = state.table_functions().get(name) else {
            return Err(Error::undefined_function(format!("function {name} does not exist in FROM")).into());
        };
        let context = SimplifyContext::builder().with_config_options(Arc::clone(state.config_options())).build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let formats = self.planner.formats;
        let constant = |arg| {
            let arg = match arg {
                Expr::Cast(_) => dialect::moments_read(dialect::expression(arg, &schema)?, formats)?.data,
                // Whole numbers stay what the function takes.
                other => other,
            };
            let local = arg.get_type(&schema).is_ok_and(|of| is_zoned(&of)) && !formats.are_usual();
            // Series of instants are of what clocks show.
            let arg = if local { cast(arg, TIMESTAMP) } else { arg };
            let arg = clocks::expression_in_session(formats, arg, &schema)?;
            match simplifier.simplify(simplifier.coerce(arg, &schema)?)? {
                // The one unit that series know.
                Expr::Literal(at @ ScalarValue::TimestampMicrosecond(..), metadata) => {
                    Ok(Expr::Literal(at.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None))?, metadata))
                }
                other => Ok(other),
            }
        };
        let args = of_their_types(args, &schema)?.into_iter().map(constant).collect::<DfResult<Vec<_>>>()?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, state.as_ref()))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.planner.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // A name that is built in is none that users can give.
        if self.planner.zoned_now && ["now", "current_timestamp"].contains(&name) {
            return Some(Arc::clone(&ZONED_NOW));
        }
        let ours = super::inline::function(self.planner, name);
        let system = || self.planner.system.as_ref().and_then(|system| system.function(name));
        ours.or_else(system)
            .or_else(|| marks::function(name))
            .or_else(|| super::documents::function(name))
            .or_else(|| declared::plain_function(name))
            .or_else(|| self.planner.state.scalar_functions().get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.planner.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.planner.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.planner.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.planner.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        let ours = self.planner.catalog.functions().map(|function| function.name.clone());
        self.planner.state.scalar_functions().keys().cloned().chain(ours).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.planner.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.planner.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.planner.state.window_functions().keys().cloned().collect()
    }
}

/// Our types for SQL's, so that a cast gives what a column of that type holds.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &sp::DataType) -> DfResult<Option<FieldRef>> {
        let data_type = match oid_type(sql_type) {
            // Named, so that it is not taken for what was cast.
            Some(DataType::UInt32) => return Ok(Some(Arc::new(types::with_type(Field::new("", DataType::UInt32, true), "oid")))),
            Some(oids) => oids,
            None => {
                let (data_type, name) = types::from_ast(sql_type).map_err(DataFusionError::from)?;
                let is_told = name.contains('(') || types::is_text(&data_type) && name != "text";
                let is_list = name.ends_with("[]") && name != types::sql_type(&data_type);
                return Ok(Some(match is_told && !data_type.is_nested() || is_list {
                    true => Arc::new(types::with_type(Field::new("", data_type, true), &name)),
                    false => data_type.into_nullable_field_ref(),
                }));
            }
        };
        Ok(Some(data_type.into_nullable_field_ref()))
    }
}

/// What casts to `oid` and `oid[]` are rewritten to; columns of users have no such type.
fn oid_type(sql_type: &sp::DataType) -> Option<DataType> {
    match sql_type {
        sp::DataType::IntegerUnsigned(None) => Some(DataType::UInt32),
        sp::DataType::Array(sp::ArrayElemTypeDef::SquareBracket(element, _)) => {
            oid_type(element).map(|element| DataType::new_list(element, true))
        }
        _ => None,
    }
}

/// The arguments of a series, with texts as what stands beside them: a bound is of the other's type, a step of moments an interval.
fn of_their_types(args: Vec<Expr>, schema: &DFSchema) -> DfResult<Vec<Expr>> {
    let is_text = |arg: &Expr| matches!(arg, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
    let Some(known) = args.iter().take(2).find(|arg| !is_text(arg)) else { return Ok(args) };
    let of_bounds = known.get_type(schema)?;
    let of_step = match of_bounds {
        DataType::Timestamp(..) | DataType::Date32 => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => of_bounds.clone(),
    };
    let typed = |(at, arg): (usize, Expr)| match is_text(&arg) {
        true => cast(arg, if at < 2 { of_bounds.clone() } else { of_step.clone() }),
        false => arg,
    };
    Ok(args.into_iter().enumerate().map(typed).collect())
}
