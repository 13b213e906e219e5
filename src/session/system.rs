//! What the catalog's relations and functions are told of a session and its server.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::{Client, ClientSession};
use crate::catalog::RelationId;
use crate::catalog::rights::Rights;
use crate::database::Database;
use crate::engine::Backfill;
use crate::error::Error;
use crate::log::CommitId;
use crate::sql::plan::SystemRelations;
use crate::sql::system::{self, Activity, CommitInfo, SystemContext};
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
        match name {
            Sleep::NAME => Some(Arc::clone(&SLEEP)),
            _ => system::function(name, &self.0),
        }
    }
}

static SLEEP: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(
        AsyncScalarUDF::new(Arc::new(Sleep(Signature::exact(vec![DataType::Float64], Volatility::Volatile)))).into_scalar_udf(),
    )
});

/// `pg_sleep(seconds)`: waits, and blocks nobody else.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep(Signature);

impl Sleep {
    const NAME: &str = "pg_sleep";
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::unsupported("pg_sleep cannot be called here").into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let seconds = arrays.first().map(|seconds| seconds.as_primitive::<Float64Type>());
        // A row after the other.
        for seconds in seconds.into_iter().flatten().flatten().filter(|seconds| *seconds > 0.0) {
            let wait = Duration::try_from_secs_f64(seconds);
            tokio::time::sleep(wait.map_err(|_| Error::invalid_parameter(format!("cannot sleep for {seconds} seconds")))?).await;
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(vec![""; rows]))))
    }
}

impl Client {
    pub(super) fn system(&self, snapshot: &Arc<Snapshot>) -> Arc<dyn SystemRelations> {
        Arc::new(System(self.system_context(snapshot)))
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
}
