//! Relations as they were: what AS OF reads.
//!
//! The log is the truth, so every commit that it holds can be read again. A stream is its log up to the commit. A table is put together
//! from its keyed records up to there. A view is what its query, as it was defined then, says of streams and tables at that
//! commit: its batch answer ([`super::expected`]), which is what it showed.
//!
//! A former commit becomes a [`Source`] like the present one. The engine has no part in it, and keeps nothing for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{LogicalPlan, cast as cast_expr};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::{Options, Source, expected};
use crate::catalog::{COMMIT_TIME, Catalog, Kind, Relation, RelationId};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::flow::sink::Sink;
use crate::log::{self, CommitId, LogHandle};
use crate::sql::plan::as_of::{AsOfNode, Unit};
use crate::sql::plan::{Planner, RelationSource};
use crate::time::Micros;
use crate::view::{Snapshot, Store, Version};

/// Stored batches of a table decoded at once.
const PORTION: usize = 64;

/// What the AS OF of a plan read, by commit.
#[derive(Default)]
pub struct History {
    sources: BTreeMap<CommitId, Source>,
}

impl History {
    /// What is below this node.
    pub fn at(&self, node: &AsOfNode, source: &Source, state: &SessionState) -> Result<&Source> {
        let commit = commit_of(node, source, state)?;
        self.sources.get(&commit).ok_or_else(|| Error::internal(format!("commit {commit} was not read")))
    }

    /// Read all that the plan asks for. `state` knows what `now()` is.
    pub fn read<'a>(
        plan: &'a LogicalPlan,
        source: &'a Source,
        state: &'a SessionState,
        options: &'a Options,
    ) -> BoxFuture<'a, Result<History>> {
        Box::pin(async move {
            let mut wanted = BTreeMap::new();
            collect(plan, None, source, state, &mut wanted)?;
            let mut history = History::default();
            for (commit, wanted) in wanted {
                let past = Past::open(source, commit)?;
                history.sources.insert(commit, past.read(&wanted, state, options).await?);
            }
            Ok(history)
        })
    }
}

/// A relation that is read at a former commit.
struct Wanted {
    relation: Arc<Relation>,
    /// The statement says so: it is an error if the relation was not there yet. Otherwise it had no rows.
    named: bool,
}

/// Relations that are read at former commits. `at`: the one that an AS OF above the plan has named.
fn collect(
    plan: &LogicalPlan,
    at: Option<(CommitId, Unit)>,
    source: &Source,
    state: &SessionState,
    wanted: &mut BTreeMap<CommitId, Vec<Wanted>>,
) -> Result<()> {
    let at = match AsOfNode::of(plan) {
        Some(node) => {
            let commit = commit_of(node, source, state)?;
            // Also if all below it is read at other commits.
            wanted.entry(commit).or_default();
            Some((commit, node.unit))
        }
        None => at,
    };
    if let (LogicalPlan::TableScan(scan), Some((commit, unit))) = (plan, at)
        && let Some(of) = RelationSource::of(scan)
    {
        let (relations, named) = (wanted.entry(commit).or_default(), unit != Unit::Refresh);
        match relations.iter_mut().find(|known| known.relation.id == of.relation().id) {
            Some(known) => known.named |= named,
            None => relations.push(Wanted { relation: Arc::clone(of.relation()), named }),
        }
    }
    let mut result = Ok(());
    let mut below = |input: &LogicalPlan| {
        if result.is_ok() {
            result = collect(input, at, source, state, wanted);
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_children(&mut below)?;
    plan.apply_subqueries(&mut below)?;
    result
}

/// The commit that a node names, of those that the statement sees.
fn commit_of(node: &AsOfNode, source: &Source, state: &SessionState) -> Result<CommitId> {
    let nothing = DFSchema::empty();
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    // Puts the time in place of now().
    let simplifier = ExprSimplifier::new(context);
    let moment = simplifier.simplify(simplifier.coerce(cast_expr(node.at.clone(), DataType::Int64), &nothing)?)?;
    let one = RecordBatchOptions::new().with_row_count(Some(1));
    let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one)?;
    let value = state.create_physical_expr(moment, &nothing)?.evaluate(&one)?;
    let value = value.into_array(1)?;
    let value = value.as_primitive::<Int64Type>();
    let Some(value) = value.iter().next().flatten() else {
        return Err(Error::invalid_parameter("AS OF needs a moment, not NULL"));
    };
    let newest = source.snapshot.commit;
    match node.unit {
        Unit::Commit | Unit::Refresh => match CommitId::try_from(value) {
            Ok(commit) if commit > newest => Err(Error::invalid_parameter(format!("commit {commit} has not happened yet"))
                .with_hint(format!("the newest commit that this statement sees is {newest}; tidegate.commits lists them"))),
            Ok(commit) if commit > 0 => Ok(commit),
            _ => Err(Error::invalid_parameter(format!("there is no commit {value}: commits are numbered from 1"))),
        },
        Unit::Time => commit_at(value, source),
    }
}

/// The last commit that is not after a time.
fn commit_at(time: Micros, source: &Source) -> Result<CommitId> {
    match last_commit(time, source)? {
        0 => Err(Error::invalid_parameter(format!("there was nothing yet at {}: the log begins later", show(time)))
            .with_hint("tidegate.commits lists the commits and their times")),
        commit => Ok(commit),
    }
}

/// The same; 0 if there is none. Commit times never go back.
fn last_commit(time: Micros, source: &Source) -> Result<CommitId> {
    let newest = &source.snapshot;
    if time >= newest.time {
        return Ok(newest.commit);
    }
    let (mut before, mut after) = (0, newest.commit);
    while before + 1 < after {
        let middle = before + (after - before) / 2;
        let not_after = time_of(&source.log, middle)? <= time;
        *(if not_after { &mut before } else { &mut after }) = middle;
    }
    Ok(before)
}

/// The last commit before a time; 0 if there is none.
pub fn before(time: Micros, source: &Source) -> Result<CommitId> {
    last_commit(time.saturating_sub(1), source)
}

/// A commit for the plans of views.
pub fn at(commit: CommitId, catalog: &Arc<Catalog>, source: &Source) -> Result<Source> {
    for_plans(&source.log, catalog, commit, time_of(&source.log, commit)?)
}

/// A commit as what views are planned over: with what was final then.
fn for_plans(log: &LogHandle, catalog: &Arc<Catalog>, commit: CommitId, time: Micros) -> Result<Source> {
    let finals = catalog.relations().any(|r| r.emit.is_final());
    let streams: Vec<RelationId> = catalog.relations().filter(|r| finals && r.watermark.is_some()).map(|r| r.id).collect();
    let mut watermarks = log::watermarks_at(log.reader().as_ref(), &streams, commit)?;
    watermarks.insert(COMMIT_TIME, time);
    let snapshot = Snapshot { commit, time, catalog: Arc::clone(catalog), watermarks, ..Snapshot::default() };
    Ok(Source { snapshot: Arc::new(snapshot), log: log.clone() })
}

fn show(time: Micros) -> String {
    chrono::DateTime::from_timestamp_micros(time).map_or_else(|| time.to_string(), |t| t.format("%F %T%.6f").to_string())
}

fn time_of(log: &LogHandle, commit: CommitId) -> Result<Micros> {
    let record = log.reader().commits(commit, 1)?.pop();
    record.map(|record| record.time).ok_or_else(|| Error::corrupted(format!("commit {commit} is missing from the log")))
}

/// The catalog at a commit, and the commit since which each relation is there.
fn catalog_at(log: &LogHandle, commit: CommitId) -> Result<Catalog> {
    let mut catalog = Catalog::default();
    for (id, change) in log.reader().changes()? {
        if id > commit {
            break;
        }
        catalog.apply(&change);
    }
    Ok(catalog)
}

/// An error if a relation of today was not there yet.
pub fn must_exist(log: &LogHandle, today: &Catalog, relation: RelationId, commit: CommitId) -> Result<()> {
    match (catalog_at(log, commit)?.get(relation), today.get(relation)) {
        (None, Some(relation)) => Err(missing(relation, commit)),
        _ => Ok(()),
    }
}

fn missing(relation: &Relation, commit: CommitId) -> Error {
    let message = format!("{} \"{}\" did not exist at commit {commit}", relation.kind.noun(), relation.name);
    Error::undefined_table(message).with_hint(match relation.kind {
        Kind::MaterializedView | Kind::Late => "ask its query over streams and tables AS OF that commit instead",
        _ => "tidegate.commits lists the commits and their times",
    })
}

/// A former commit, while it is being read.
struct Past<'a> {
    present: &'a Source,
    commit: CommitId,
    time: Micros,
    catalog: Arc<Catalog>,
}

impl<'a> Past<'a> {
    fn open(present: &'a Source, commit: CommitId) -> Result<Past<'a>> {
        let (time, catalog) = (time_of(&present.log, commit)?, Arc::new(catalog_at(&present.log, commit)?));
        Ok(Past { present, commit, time, catalog })
    }

    /// The commit as something to read: `catalog` says in which columns.
    fn source(&self, catalog: &Arc<Catalog>) -> Source {
        let (commit, time) = (self.commit, self.time);
        let snapshot = Snapshot { commit, time, catalog: Arc::clone(catalog), ..Snapshot::default() };
        Source { snapshot: Arc::new(snapshot), log: self.present.log.clone() }
    }

    /// These relations, with the columns that they have today.
    async fn read(&self, wanted: &[Wanted], state: &SessionState, options: &Options) -> Result<Source> {
        let mut source = self.source(&self.present.snapshot.catalog);
        let mut versions = Vec::new();
        for Wanted { relation, named } in wanted {
            let then = self.catalog.get(relation.id);
            if then.is_none() && *named {
                return Err(missing(relation, self.commit));
            }
            match (relation.kind, then) {
                (Kind::Table, _) => versions.push((relation.id, table(&source, relation)?)),
                (Kind::MaterializedView | Kind::Late, Some(then)) => {
                    versions.push((relation.id, self.view(then, relation, state, options).await?));
                }
                _ => {}
            }
        }
        Arc::make_mut(&mut source.snapshot).versions.extend(versions);
        Ok(source)
    }

    /// The rows of a view, by its query as it was then, with the columns of today.
    async fn view(
        &self,
        then: &Arc<Relation>,
        today: &Relation,
        state: &SessionState,
        options: &Options,
    ) -> Result<Arc<Version>> {
        let planner = Planner::new(Arc::clone(&self.catalog), Arc::new(state.clone()));
        let mut source = for_plans(&self.present.log, &self.catalog, self.commit, self.time)?;
        let plan = expected::plan(&planner, then, &source)?;
        let read = RelationSource::all_in(&plan);
        let tables: Vec<_> = read.iter().filter(|r| r.kind == Kind::Table).collect();
        let tables = tables.into_iter().map(|r| Ok((r.id, table(&source, r)?))).collect::<Result<Vec<_>>>()?;
        Arc::make_mut(&mut source.snapshot).versions.extend(tables);
        let rows: Vec<RecordBatch> = expected::run(plan, &planner, &source, options).await?.try_collect().await?;
        let names = then.schema();
        let schema = today.schema();
        let rows = rows.into_iter().map(|rows| as_today(&rows, &names, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Version::of_rows(schema, today.primary_key.clone(), rows)))
    }
}

/// The rows under the columns of today: those that were not there are NULL.
fn as_today(rows: &RecordBatch, then: &Schema, today: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef> {
        match then.index_of(field.name()) {
            Ok(index) if index < rows.num_columns() => Ok(cast(rows.column(index), field.data_type())?),
            _ => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns = today.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let fields = today.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// The rows of a table, from its records in the log. With all columns, also where a view's query knows of fewer.
fn table(source: &Source, relation: &Relation) -> Result<Arc<Version>> {
    let Source { snapshot, log } = source;
    let relation = snapshot.catalog.get(relation.id).map_or(relation, Arc::as_ref);
    let store = Store::new("history", relation.stored_schema(), relation.stored_key());
    let mut sink = Sink::table(relation.id, store);
    for partition in 0..relation.partitions {
        let mut offset = 0;
        loop {
            // Rows of one key are in one partition, in order.
            let batches = log.scan(&snapshot.catalog, relation.id, partition, offset, snapshot.commit, PORTION)?;
            let Some(last) = batches.last() else { break };
            offset = last.header.base_offset + u64::from(last.header.rows);
            for batch in batches {
                sink.update(match batch.header.kind {
                    log::Kind::Delete => Delta::weighted(batch.rows, -1),
                    log::Kind::Append | log::Kind::Upsert => Delta::append(batch.rows),
                })?;
            }
        }
    }
    sink.version().ok_or_else(|| Error::internal("a table keeps its rows"))
}
