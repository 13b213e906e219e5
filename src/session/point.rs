//! What is kept of the plan of a prepared query: that it is a look-up by key.
//!
//! It holds as long as names, rights and the role are those it was planned with; any change of the catalog ends it, and the next
//! execution plans again.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;

use super::read::conform;
use super::{Client, Rows};
use crate::catalog::Catalog;
use crate::catalog::role::RoleId;
use crate::copy::value::Formats;
use crate::error::Result;
use crate::sql::batch::point::PointRead;
use crate::sql::plan::columns::visible_schema;
use crate::view::Snapshot;

/// What the plan of a statement was found to be, shared by its copies.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Option<Arc<Planned>>>>);

struct Planned {
    basis: Basis,
    read: PointRead,
    schema: SchemaRef,
}

/// All that planning depends on. The catalogs are held, so that another can't be in their place.
struct Basis {
    /// Of the snapshot: what names mean.
    names: Arc<Catalog>,
    /// Of the log's end: who may read what.
    rights: Arc<Catalog>,
    role: RoleId,
    /// The setting of names' schemas.
    path: Arc<str>,
    /// What text is read as.
    formats: Formats,
}

impl Basis {
    fn is(&self, other: &Basis) -> bool {
        let same = Arc::ptr_eq(&self.names, &other.names) && Arc::ptr_eq(&self.rights, &other.rights);
        same && self.role == other.role && self.path == other.path && self.formats == other.formats
    }
}

impl Client {
    fn basis(&self, snapshot: &Snapshot) -> Basis {
        Basis {
            names: Arc::clone(&snapshot.catalog),
            rights: self.database.log.catalog(),
            role: self.who.current,
            path: self.settings.search_path(),
            formats: self.settings.formats(),
        }
    }

    /// Note whether a statement is a look-up, whose plan this is.
    pub(super) fn note_plan(&self, known: &Known, plan: &LogicalPlan, snapshot: &Snapshot) {
        let planned = PointRead::of(plan).map(|read| {
            let schema = visible_schema(plan, &snapshot.catalog);
            Arc::new(Planned { basis: self.basis(snapshot), read, schema })
        });
        *known.0.lock() = planned;
    }

    /// The rows, if the statement is known to be a look-up.
    pub(super) fn point_read(&self, known: &Known, snapshot: &Snapshot, parameters: &[ScalarValue]) -> Result<Option<Rows>> {
        let planned = known.0.lock().clone();
        let Some(planned) = planned.filter(|planned| planned.basis.is(&self.basis(snapshot))) else { return Ok(None) };
        let Some(rows) = planned.read.rows(snapshot, parameters)? else { return Ok(None) };
        let rows = conform(rows, &planned.schema)?;
        let batches = std::future::ready(Ok(rows)).into_stream().boxed();
        Ok(Some(Rows { schema: Arc::clone(&planned.schema), batches, tag: "SELECT", live: false }))
    }
}
