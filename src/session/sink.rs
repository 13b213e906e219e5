//! CREATE SINK: what a query's changes are written to.
//!
//! What cannot be written is refused here: rows that change without a key to find them by, connections that there are not, tables
//! over there that the rows do not fit.

use super::client::done;
use super::define::{check_on_error, free_name};
use super::definition::Definition;
use super::derive::check_prompt;
use super::views::{check_inputs, named_relations, view_relation, widths_of};
use super::{Client, Outcome};
use crate::catalog::schema::RelationName;
use crate::catalog::{Kind, Relation};
use crate::connect::sink;
use crate::error::{Error, Result};
use crate::sql::ast::CreateView;
use crate::sql::lower::lower;
use crate::sql::plan::columns::declared;
use crate::sql::plan::{RelationSource, output_key};

impl Client {
    pub(super) async fn create_sink(&mut self, create: &CreateView, sql: &str) -> Result<Outcome> {
        self.beside_block("CREATE SINK")?;
        let name = self.new_name(&create.name)?;
        if create.if_not_exists && self.skip_existing(&name) {
            return done("CREATE SINK");
        }
        check_prompt(create.emit, "a sink")?;
        check_on_error(&create.options)?;
        // The other server is asked once, and before anything is kept of the sink.
        let planned = parking_lot::Mutex::new(None);
        self.define(|definition| {
            free_name(definition.catalog, &name)?;
            *planned.lock() = Some(plan_sink(definition, create, &name, sql)?);
            Ok(())
        })
        .await?;
        let Some(planned) = planned.into_inner() else { return Err(Error::internal("a sink was not planned")) };
        let options = sink::prepare(planned, &self.database.connections).await?.options;
        self.define(|definition| {
            let sink = plan_sink(definition, create, &name, sql)?;
            definition.create(Relation { options: options.clone(), ..sink }).map(drop)
        })
        .await?;
        done("CREATE SINK")
    }
}

fn plan_sink(definition: &Definition, create: &CreateView, name: &RelationName, sql: &str) -> Result<Relation> {
    let (catalog, planner) = (definition.catalog, definition.planner().for_query(&create.options, &name.name));
    let plan = planner.continuous(&create.query, create.emit)?;
    let fragment = lower(&planner, &plan, create.emit)?;
    let schema = declared(&fragment.edge.schema, &plan, catalog);
    let mut sink = view_relation(create, name, sql, &schema, Kind::Sink)?;
    sink.primary_key = output_key(&plan).unwrap_or_default();
    if sink.primary_key.is_empty() && !fragment.edge.append_only {
        let error = Error::invalid_object_definition("the rows of the sink change, and nothing tells them apart");
        return Err(error.with_hint(
            "select the key of what it reads, or the columns of GROUP BY; a single row has one with GROUP BY of a constant",
        ));
    }
    let plain = named_relations(&create.query, catalog, |r| r.kind == Kind::View);
    sink.depends_on = RelationSource::all_in(&plan).iter().map(|r| r.id).chain(plain).collect();
    sink.widths = widths_of(catalog, &sink);
    sink.functions = planner.functions_called();
    check_inputs(catalog, &sink)?;
    Ok(sink)
}
