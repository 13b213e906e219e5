//! Planning: from a tree of SQL to a logical plan over our catalog.
//!
//! DataFusion's planner resolves names and types; what it resolves them to is ours:
//!
//! * [`source`]: a relation as a plan scans it;
//! * [`names`]: hidden columns, and other things settled before names are resolved;
//! * `namesakes`: relations of one name in several schemas;
//! * `context`: the catalog as the planner sees it; plain views are planned in their place;
//! * [`columns`]: what the columns of a query are to a client;
//! * `arguments`: what functions take their arguments for;
//! * [`dialect`]: what PostgreSQL means by literals and casts;
//! * [`documents`]: `json` and `jsonb`, which are text to Arrow;
//! * [`clocks`]: what a session's time zone and DateStyle change;
//! * [`as_of`]: relations as they were at a former commit;
//! * [`inline`], `overload`: users' functions: what their calls stand for, and which of several one means;
//! * `lateral`: UNNEST of a column beside it in FROM;
//! * `floats`: -0 and 0, which are equal, as keys, and intervals by their length;
//! * `gap_fill`: GAP_FILL in FROM;
//! * [`event_time`](mod@event_time): which watermark speaks of a column;
//! * [`marks`]: what joins are said to be before ON: WITHIN, ASOF, FOR SYSTEM_TIME AS OF;
//! * [`nearest`], [`versions`]: joins with the nearest row, and with the version of a table's row at a time;
//! * [`on_error`]: plans in which what fails for a row is NULL;
//! * [`on_time`], [`time_bound`], [`within`], [`late_rows`]: joins with a bound on time, which see no late rows, and where those go;
//! * [`final_rows`]: when rows are final that no group of windows is made of;
//! * [`continuous`]: plans that run for ever, and the keys of their output;
//! * `parameters`: their types;
//! * `registered`: OIDs of functions, shown as their names;
//! * `unknown`: strings whose type is that of what stands beside them;
//! * [`order`], [`reach`]: which of two equal rows comes first, where it matters, and how far OVER looks in that order;
//! * [`errors`]: what went wrong, and where in the statement.
//!
//! Planning is synchronous and reads nothing but the catalog it was given.

mod arguments;
mod arrival;
pub mod as_of;
pub mod clocks;
pub mod columns;
mod context;
pub mod continuous;
pub mod dialect;
pub mod documents;
pub mod errors;
pub mod event_time;
pub mod final_rows;
mod floats;
mod gap_fill;
mod grouping;
pub mod inline;
pub mod late_rows;
mod lateral;
pub mod marks;
pub mod names;
mod namesakes;
pub mod nearest;
pub mod on_error;
pub mod on_time;
mod one_stream;
pub mod order;
mod overload;
pub mod parameters;
pub mod silence;
mod proctime;
pub mod reach;
mod registered;
mod set_all;
mod size;
pub mod source;
pub mod time_bound;
mod unknown;
mod versions;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use parking_lot::Mutex;
use sqlparser::ast as sp;

use crate::catalog::acl::{Object, Privilege};
use crate::catalog::function::{FunctionId, FunctionRef};
use crate::catalog::rights::Rights;
use crate::catalog::schema::SearchPath;
use crate::catalog::{Catalog, Change, Kind, Relation, RelationId, gives_null};
use crate::copy::value::Formats;
use crate::error::{Error, Result};
use crate::sql::parse::{parse_expression, parse_query};
use crate::view::Nulled;
use context::Context;

pub use continuous::output_key;
pub use event_time::{EventTime, event_time, window_event_time};
pub use parameters::{bind, inferred};
pub use source::{Hidden, RelationSource, SourceColumn};

/// Relations that are not in the catalog: `pg_catalog` and `information_schema`.
pub trait SystemRelations: Send + Sync {
    /// `schema` is `None` for a name without one that starts with `pg_`.
    fn table(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>>;

    /// A function that looks at the catalog or the session; it goes before the others of its name.
    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>>;
}

/// Plans statements over one state of the catalog. Cheap to make and to clone.
#[derive(Clone)]
pub struct Planner {
    /// What the names of the statement mean.
    catalog: Arc<Catalog>,
    /// Where those without a schema are looked up.
    path: SearchPath,
    /// The only database there is, as the session calls it; `None`: names are taken for those of it.
    database: Option<Arc<str>>,
    /// What the names in the queries of views start from, see [`Planner::with_columns_of`].
    whole: Arc<Catalog>,
    state: Arc<SessionState>,
    system: Option<Arc<dyn SystemRelations>>,
    reader: Reader,
    /// How strings that stand for moments are read: what is stored reads them in UTC.
    formats: Formats,
    /// Whether `now()` says which instant it is, and not what clocks show in UTC.
    zoned_now: bool,
    /// What fails for a row is NULL in queries that run on, and is counted here.
    nulled: Option<Arc<Nulled>>,
    /// Functions that go before the newest ones of their names.
    made_with: Arc<[FunctionRef]>,
    /// Functions whose bodies are being planned, from the outermost.
    calling: Arc<[FunctionId]>,
    /// All that were called.
    called: Arc<Mutex<BTreeSet<FunctionRef>>>,
}

impl fmt::Debug for Planner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Planner")
    }
}

/// In whose name a plan reads.
#[derive(Clone)]
pub enum Reader {
    /// The server's own, which computes what was allowed when it was defined.
    Server,
    /// A role's: it needs SELECT on every relation that a query names, and a view's owner on what is below the view.
    Role(Rights),
}

impl Planner {
    /// `state`: functions and settings, see [`crate::sql::functions::state`].
    pub fn new(catalog: Arc<Catalog>, state: Arc<SessionState>) -> Planner {
        Planner {
            whole: Arc::clone(&catalog),
            catalog,
            path: SearchPath::default(),
            database: None,
            state,
            system: None,
            reader: Reader::Server,
            formats: Formats::default(),
            zoned_now: false,
            nulled: None,
            made_with: Arc::from([]),
            calling: Arc::from([]),
            called: Arc::default(),
        }
    }

    #[must_use]
    pub fn reading_as(mut self, reader: Reader) -> Planner {
        self.reader = reader;
        self
    }

    /// Names mean what they mean to a session: those without a schema are looked up along its path, and it has one database. What is
    /// stored is read along the default path.
    #[must_use]
    pub fn for_session(mut self, path: SearchPath, database: &str) -> Planner {
        (self.path, self.database) = (path, Some(Arc::from(database)));
        self
    }

    /// Strings and `now()` mean what they mean to a session, for what is computed at once. What is stored or runs on means the same
    /// whatever the settings were, and is read without this.
    #[must_use]
    pub fn reading_in(mut self, formats: Formats) -> Planner {
        (self.formats, self.zoned_now) = (formats, !formats.zone.is_utc());
        self
    }

    /// Plans a continuous query with these options, and of this name: what fails for a row may be NULL, and is then counted.
    #[must_use]
    pub fn for_query(mut self, options: &BTreeMap<String, String>, name: &str) -> Planner {
        self.nulled = gives_null(options).then(|| Arc::new(Nulled::new(name)));
        self
    }

    /// Who counts what fails for a row, if that is NULL.
    pub fn nulled(&self) -> Option<&Arc<Nulled>> {
        self.nulled.as_ref()
    }

    /// The relation that a name in a query means, if it is one of the catalog's.
    pub fn relation(&self, name: &sp::ObjectName) -> Option<&Arc<Relation>> {
        let (schema, name) = names::fold_object(name)?;
        self.catalog.resolve(&self.path, schema.as_deref(), &name)
    }

    /// May the query name this relation?
    fn check_read(&self, relation: &Relation) -> Result<()> {
        match &self.reader {
            Reader::Server => Ok(()),
            Reader::Role(rights) => rights.check(relation, Privilege::Select),
        }
    }

    /// Reads what is below a view in the name of its owner.
    fn for_view(&self, view: &Relation) -> Planner {
        let reader = match &self.reader {
            Reader::Server => Reader::Server,
            Reader::Role(rights) => Reader::Role(rights.of(rights.catalog().owner(Object::Relation(view.id)))),
        };
        self.clone().reading_as(reader)
    }

    #[must_use]
    pub fn with_system(mut self, system: Arc<dyn SystemRelations>) -> Planner {
        self.system = Some(system);
        self
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub fn state(&self) -> &Arc<SessionState> {
        &self.state
    }

    /// The plan of a query, names and types resolved, not optimised. Names of columns may carry a mark: see
    /// [`visible_name`](crate::sql::system::visible_name).
    pub fn query(&self, query: &sp::Query) -> Result<LogicalPlan> {
        self.query_with_parameters(query, &[])
    }

    /// The same, with types that the client says its parameters have.
    pub fn query_with_parameters(&self, query: &sp::Query, types: &[Option<FieldRef>]) -> Result<LogicalPlan> {
        self.plan(query, types, Vec::new())
    }

    fn plan(&self, query: &sp::Query, types: &[Option<FieldRef>], inlining: Vec<RelationId>) -> Result<LogicalPlan> {
        let mut query = query.clone();
        versions::name_commits(&mut query, self)?;
        proctime::of_rows(&mut query, self);
        namesakes::tell_apart(&mut query, self)?;
        crate::sql::system::rewrite(&mut query)?;
        crate::sql::system::lists_of_parameters(&mut query, types);
        unknown::in_values(&mut query, self, types)?;
        names::by_offset(&mut query);
        arrival::order(&mut query, self);
        let hidden = names::hidden_columns(&query);
        names::prepare(&mut query, self, &hidden);
        let context = Context::new(self, hidden, inlining);
        let mut scope = PlannerContext::new().with_prepare_param_data_types(types.to_vec());
        SqlToRel::new_with_options(&context, OPTIONS)
            .sql_statement_to_plan_with_context(sp::Statement::Query(Box::new(query)), &mut scope)
            .and_then(size::check)
            .and_then(set_all::count_copies)
            .and_then(grouping::by_columns)
            .and_then(dialect::in_postgres_types)
            .and_then(|plan| dialect::with_moments_read(plan, self.formats))
            .and_then(inline::inline)
            .and_then(lateral::inline_lateral)
            .and_then(|plan| documents::in_plan(plan, self))
            .and_then(floats::as_keys)
            .and_then(on_time::cut_late_rows)
            .and_then(dialect::counts_as_bigint)
            .and_then(|plan| match &self.system {
                Some(system) => registered::show(plan, system.as_ref()),
                _ => Ok(plan),
            })
            .map_err(errors::locate)
    }

    /// The plan of a view's query (plain or materialized), its columns named as the view's.
    pub fn view(&self, view: &Relation) -> Result<LogicalPlan> {
        self.view_query(view, vec![view.id])
    }

    fn view_query(&self, view: &Relation, inlining: Vec<RelationId>) -> Result<LogicalPlan> {
        let in_view =
            |error: Error| error.without_position().with_context(format!("query of {} \"{}\"", view.kind.noun(), view.name));
        let sql = view.query.as_deref().ok_or_else(|| Error::internal(format!("\"{}\" has no query", view.name)))?;
        let query = parse_query(sql).map_err(in_view)?;
        let planner = self.with_columns_of(view).as_made(view);
        let planner = Planner { path: SearchPath::default(), database: None, formats: Formats::default(), ..planner };
        let plan = planner.plan(&query, &[], inlining).map_err(in_view)?;
        let plan = if view.emit.is_final() { final_rows::prepared(plan)? } else { plan };
        let plan = rename_columns(plan, view.query_columns().iter().map(|column| column.name.as_str()))?;
        let plan = dialect::as_declared(plan, view.query_columns())?;
        if view.kind == Kind::View || !gives_null(&view.options) {
            return Ok(plan);
        }
        Ok(on_error::as_null(plan, &self.state, self.nulled.as_ref())?)
    }

    /// Relations with the columns that they had when a view was made: its query's `*` is those, and its names are found among
    /// them.
    fn with_columns_of(&self, view: &Relation) -> Planner {
        let wider = |(id, width): (&RelationId, &usize)| {
            self.whole.get(*id).filter(|r| r.columns.len() > *width).map(|r| r.narrowed(*width))
        };
        let narrowed: Vec<Relation> = view.widths.iter().filter_map(wider).collect();
        let mut planner = Planner { catalog: Arc::clone(&self.whole), ..self.clone() };
        if !narrowed.is_empty() {
            let mut catalog = Catalog::clone(&self.whole);
            narrowed.into_iter().for_each(|relation| catalog.apply(&Change::Alter(relation)));
            planner.catalog = Arc::new(catalog);
        }
        planner
    }

    /// An expression over columns: a default, a computed column, a watermark, the SET of an UPDATE.
    pub fn expression(&self, expr: &sp::Expr, schema: &DFSchema) -> Result<Expr> {
        let context = Context::new(self, Vec::new(), Vec::new());
        let mut expr = expr.clone();
        crate::sql::system::rewrite_expression(&mut expr)?;
        names::prepare(&mut expr, self, &[]);
        SqlToRel::new_with_options(&context, OPTIONS)
            .sql_to_expr(expr, schema, &mut PlannerContext::new())
            .and_then(|expr| dialect::expression(expr, schema))
            .and_then(|expr| Ok(dialect::moments_read(expr, self.formats)?.data))
            .and_then(|expr| inline::inline_calls(expr, schema))
            .and_then(|expr| documents::expression(expr, schema, self))
            .and_then(|expr| floats::expression(expr, schema))
            .map_err(errors::locate)
    }

    /// The same, from the text that the catalog keeps.
    pub fn expression_from_text(&self, sql: &str, schema: &DFSchema) -> Result<Expr> {
        self.expression(&parse_expression(sql)?, schema).map_err(Error::without_position)
    }

    /// An expression that can be evaluated over batches of `schema`; types are coerced.
    pub fn physical(&self, expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self.state.create_physical_expr(clocks::expression_in_session(self.formats, expr, schema)?, schema)?)
    }
}

/// Give the columns of a plan these names, where they have others.
pub fn rename_columns<'a>(plan: LogicalPlan, names: impl ExactSizeIterator<Item = &'a str>) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    if names.len() != columns.len() {
        let message = format!("{} column names for the {} columns of the query", names.len(), columns.len());
        return Err(Error::invalid_table_definition(message));
    }
    let mut changed = false;
    let exprs: Vec<Expr> = columns
        .into_iter()
        .zip(names)
        .map(|(column, name)| {
            let same = column.name == name;
            changed |= !same;
            if same { Expr::Column(column) } else { Expr::Column(column).alias(name) }
        })
        .collect();
    if !changed {
        return Ok(plan);
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// How SQL is read: identifiers fold, text is `Utf8`, `1.5` is a decimal and NULLs sort last, all as in PostgreSQL.
const OPTIONS: ParserOptions = ParserOptions {
    parse_float_as_decimal: true,
    enable_ident_normalization: true,
    support_varchar_with_length: true,
    enable_options_value_normalization: false,
    collect_spans: true,
    map_string_types_to_utf8view: false,
    default_null_ordering: NullOrdering::NullsMax,
};

#[cfg(test)]
mod tests;
