//! What the catalog's relations and functions are told of a session and its server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ScalarUDF;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Client, ClientSession};
use crate::catalog::RelationId;
use crate::catalog::rights::Rights;
use crate::database::Database;
use crate::engine::Backfill;
use crate::locks::Locks;
use crate::log::CommitId;
use crate::sql::plan::SystemRelations;
use crate::sql::system::{self, Activity, CommitInfo, SinkStatus, SystemContext};
use crate::time::Micros;
use crate::view::Snapshot;

/// Commits read from the log at once.
const COMMITS_AT_ONCE: usize = 256;

/// The system relations and functions of one statement.
struct System(Arc<SystemContext>);

impl SystemRelations for System {
    fn table(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        system::relation(schema, name, &self.0)
    }

    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        system::function(name, &self.0)
    }
}

impl Client {
    pub(super) fn system(&self, snapshot: &Arc<Snapshot>) -> Arc<dyn SystemRelations> {
        self.returned.over(Arc::new(System(self.system_context(snapshot))))
    }

    pub(super) fn system_context(&self, snapshot: &Arc<Snapshot>) -> Arc<SystemContext> {
        let server = Arc::clone(&self.database) as Arc<dyn system::Server>;
        let settings = Arc::new(self.settings.clone());
        let catalog = self.database.log.catalog();
        let mut context = SystemContext::new(Arc::clone(snapshot), "", &self.database_name, settings, server);
        context.user = catalog.roles().name(self.who.current);
        context.session_user = catalog.roles().name(self.who.session);
        context.rights = Rights::new(catalog, self.who.current);
        context.pid = self.number();
        context.client_address = self.session.as_ref().and_then(|session| session.address());
        context.now = self.database.clock.now();
        context.named = Arc::clone(&self.named);
        context.functions = Arc::clone(&self.database.functions);
        Arc::new(context)
    }
}

impl system::Server for Database {
    fn started(&self) -> Micros {
        self.started
    }

    fn now(&self) -> Micros {
        self.clock.now()
    }

    fn sessions(&self) -> Vec<Activity> {
        let catalog = self.log.catalog();
        self.sessions.all(|role| catalog.roles().name(role))
    }

    fn offsets(&self, relation: RelationId) -> Vec<(u64, u64)> {
        let head = self.log.head(relation).unwrap_or_default();
        head.next_offsets.into_iter().map(|next| (0, next)).collect()
    }

    fn end(&self) -> CommitId {
        self.log.end()
    }

    fn commits(&self, upto: CommitId) -> Vec<CommitInfo> {
        let mut found: Vec<CommitInfo> = Vec::new();
        let (reader, mut next) = (self.log.reader(), 1);
        while next <= upto {
            let Ok(records) = reader.commits(next, COMMITS_AT_ONCE) else { break };
            let Some(last) = records.last() else { break };
            next = last.id + 1;
            found.extend(records.into_iter().take_while(|record| record.id <= upto).map(|record| {
                let mut rows = BTreeMap::<RelationId, u64>::new();
                for header in record.batches.iter().map(|batch| &batch.header) {
                    *rows.entry(header.relation).or_default() += u64::from(header.rows);
                }
                CommitInfo { id: record.id, time: record.time, rows }
            }));
        }
        found
    }

    fn size(&self, _relation: RelationId) -> Option<u64> {
        None
    }

    fn signal(&self, pid: i32, terminate: bool) -> bool {
        self.sessions.signal(pid, terminate)
    }

    fn backfills(&self) -> Vec<Backfill> {
        self.engine.backfills()
    }

    fn sink(&self, sink: RelationId) -> Option<SinkStatus> {
        self.sinks.lock().get(&sink).cloned()
    }

    fn locks(&self) -> &Arc<Locks> {
        &self.locks
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}
