//! A client's session: what it remembers between statements, and which statement is done where.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::activity::Session;
use super::cursor::Cursor;
use super::identity::Who;
use super::settings::{IDLE_IN_TRANSACTION, IDLE_SESSION, MAX_CONNECTIONS, Settings};
use super::transaction::Transaction;
use super::with::Returned;
use super::{
    Bound, ClientSession, CopyIn, Handle, Known, Outcome, Parameter, Parameters, Peer, Prepared, Rows, TransactionStatus,
};
use crate::catalog::role::RoleId;
use crate::copy::value::Formats;
use crate::database::{Database, Seat};
use crate::error::{Error, Result};
use crate::locks::Mode;
use crate::log::{CommitId, Write};
use crate::sql::ast::{CopyTarget, ExplainOf, Parsed, SetValue, Statement};
use crate::sql::parse;
use crate::sql::plan::names::fold;
use crate::sql::system::Named;

/// One client. Dropping it rolls back its open transaction and ends its cursors.
pub struct Client {
    pub(super) database: Arc<Database>,
    pub(super) who: Who,
    pub(super) database_name: String,
    pub(super) number: u64,
    pub(super) settings: Settings,
    pub(super) transaction: Option<Transaction>,
    pub(super) cursors: HashMap<String, Cursor>,
    pub(super) prepared: HashMap<String, Prepared>,
    /// What of these and of the protocol's has a name, as the catalog shows it.
    pub(super) named: Arc<Named>,
    /// Its newest commit: its reads see it. A COPY under way shares it.
    pub(super) last_commit: Arc<AtomicU64>,
    /// Writes of COPYs that ended in the open transaction block.
    pub(super) copied: Arc<Mutex<Vec<Write>>>,
    pub(super) notices: Vec<Error>,
    /// What the changes of a WITH have returned to the rest of their statement.
    pub(super) returned: Returned,
    /// As others see it, if it is a client's.
    pub(super) session: Option<Arc<Session>>,
    /// Held for its end.
    _seat: Option<Seat>,
}

impl Client {
    pub(crate) fn new(database: Arc<Database>, role: RoleId, database_name: &str) -> Client {
        let mut client = Client {
            number: database.next_session.fetch_add(1, Ordering::Relaxed),
            database,
            who: Who::of(role),
            database_name: database_name.to_string(),
            settings: Settings::default(),
            transaction: None,
            cursors: HashMap::new(),
            prepared: HashMap::new(),
            named: Arc::default(),
            last_commit: Arc::default(),
            copied: Arc::default(),
            notices: Vec::new(),
            returned: Returned::default(),
            session: None,
            _seat: None,
        };
        client.database.locks.enter(client.number());
        client.show_who();
        client
    }

    /// As one of so many that its role may have.
    pub(crate) fn seated(mut self, seat: Seat) -> Client {
        self._seat = Some(seat);
        self
    }

    /// As one of so many that the server takes.
    pub(crate) fn among(self, connections: usize) -> Client {
        self.settings.tell(MAX_CONNECTIONS, &connections.to_string());
        self
    }

    /// Run a string of statements and return what the last one answered.
    pub async fn run(&mut self, sql: &str) -> Result<Option<Outcome>> {
        let mut outcome = None;
        for parsed in parse::parse(sql)? {
            outcome = Some(self.run_one(Arc::new(parsed)).await?);
        }
        Ok(outcome)
    }

    async fn run_one(&mut self, parsed: Arc<Parsed>) -> Result<Outcome> {
        self.end_statements();
        let prepared = self.prepare(parsed, &[]).await?;
        let result = self.execute(&prepared, Vec::new()).await;
        if result.is_err() {
            self.fail_transaction();
        }
        result
    }

    /// A setting of the client's start-up message.
    pub(crate) fn start_up_setting(&mut self, name: &str, value: &str) -> Result<()> {
        self.settings.set(name, value, false, &mut self.notices)
    }

    /// The client has said all its settings.
    pub(crate) fn started(&self) {
        self.settings.started();
    }

    /// Columns of the rows that a statement returns.
    fn columns_of(&self, statement: &Statement, types: &[Option<FieldRef>]) -> Result<(Vec<Parameter>, Option<SchemaRef>)> {
        match statement {
            Statement::Query { query, .. } => {
                let (parameters, schema) = self.describe_query(query, types)?;
                Ok((parameters, Some(schema)))
            }
            Statement::Insert { insert, .. } => self.describe_insert(insert, types),
            Statement::Update { with, update } => self.describe_update(with.as_ref(), update, types),
            Statement::Delete { with, delete } => self.describe_delete(with.as_ref(), delete, types),
            Statement::With { changes, last } => self.describe_with(changes, last, types),
            Statement::Declare { query, .. } => Ok((self.columns_of(query, types)?.0, None)),
            Statement::Explain { of: ExplainOf::Statement(of), .. } => {
                Ok((self.columns_of(of, types)?.0, self.describe_show(statement)?))
            }
            Statement::Subscribe(subscribe) => Ok((Vec::new(), Some(self.describe_subscribe(subscribe)?))),
            Statement::Fetch { cursor, .. } => Ok((Vec::new(), Some(self.cursor(&fold(cursor))?.schema()))),
            Statement::Execute { name, .. } => {
                let prepared = self.prepared_statement(&fold(name))?;
                Ok((Vec::new(), prepared.schema))
            }
            other => Ok((Vec::new(), self.describe_show(other)?)),
        }
    }

    fn prepared_statement(&self, name: &str) -> Result<Prepared> {
        let found = self.prepared.get(name).cloned();
        found.ok_or_else(|| Error::invalid_statement_name(format!("prepared statement \"{name}\" does not exist")))
    }

    async fn execute_statement(&mut self, parsed: &Parsed, prepared: &Prepared, parameters: Bound) -> Result<Outcome> {
        let parsed = &*self.as_kept(parsed)?;
        let sql = &parsed.sql;
        match &parsed.statement {
            Statement::Query { query, emit: None } => self.select(query, parameters, &prepared.known).await,
            Statement::Query { query, emit: Some(emit) } => self.follow_query(query, *emit, parameters).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Statement::Insert { insert, options } => self.insert(insert, options, parameters).await,
            Statement::RunningInsert(running) => self.start_insert(running, sql).await,
            Statement::Update { with, update } => self.update(with.as_ref(), update, parameters).await,
            Statement::Delete { with, delete } => self.delete(with.as_ref(), delete, parameters).await,
            Statement::With { changes, last } => self.run_with(changes, last, parameters).await,
            Statement::Truncate(names) => self.truncate(names).await,
            Statement::Copy(copy) if copy.from => self.copy_in(copy).map(|sink| {
                let columns = sink.columns();
                Outcome::CopyIn(CopyIn { columns, binary: sink.is_binary(), sink: Box::new(sink) })
            }),
            Statement::Copy(copy) => self.copy_out(copy, sql).await,

            Statement::CreateStream(create) | Statement::CreateTable(create) => {
                self.create_relation(&parsed.statement, create, sql).await
            }
            Statement::CreateMaterializedView(create) => self.create_materialized_view(create, sql).await,
            Statement::CreateView(create) => self.create_view(create, sql).await,
            Statement::CreateSink(create) => self.create_sink(create, sql).await,
            Statement::CreateDerivedStream(create) => self.create_derived_stream(create, sql).await,
            Statement::AlterView(alter) => self.alter_view(alter, sql).await,
            Statement::AlterRelation(alter) => self.alter_relation(alter, sql).await,
            Statement::Pause(name) => self.pause(name).await,
            Statement::Resume(name) => self.resume(name).await,
            Statement::CreateIndex(create) => self.create_index(create).await,
            Statement::CreateFunction(create) => self.create_function(create, sql).await,
            Statement::Schema(statement) => self.change_schemas(statement).await,
            Statement::Drop(drop) => self.drop_objects(drop).await,
            Statement::DropFunctions(drop) => self.drop_functions(drop).await,
            Statement::AlterFunction(alter) => self.alter_function(alter).await,
            Statement::Role(statement) => self.change_roles(statement).await,
            Statement::Grant(statement) => self.change_grants(statement).await,
            Statement::Rename(rename) => self.rename(rename).await,
            Statement::Comment { on, column, comment } => self.comment(on, column.as_ref(), comment.as_deref()).await,

            Statement::Explain { of, analyze, verbose, format } => {
                self.explain(of, *analyze, *verbose, format.as_deref(), parameters).await
            }
            Statement::Verify(name) => self.verify(name).await,
            Statement::AnalyzeWatermark(name) => self.analyze_watermark(name).await,
            Statement::Print { name, from_beginning, limit } => self.print(name, *from_beginning, *limit).await,
            Statement::ShowObjects(_)
            | Statement::ShowCreate(_)
            | Statement::ShowCreateFunction(_)
            | Statement::Describe { .. }
            | Statement::ShowSetting(_) => self.show(&parsed.statement).await,
            Statement::Flush => self.flush().await,

            Statement::Declare { name, query, hold } => self.declare(&fold(name), query, sql, *hold, parameters).await,
            Statement::Fetch { cursor, count, timeout_ms } => self.fetch(&fold(cursor), *count, *timeout_ms).await,
            Statement::Move { cursor, count } => self.move_cursor(&fold(cursor), *count).await,
            Statement::Close(cursor) => self.close_cursor(cursor.as_ref().map(fold)),

            Statement::Prepare { name, types, statement } => self.prepare_by_name(fold(name), types, statement, parsed).await,
            Statement::Execute { name, arguments } => {
                let statement = self.prepared_statement(&fold(name))?;
                let values = self.values_of(arguments, &statement.parameters)?;
                Box::pin(self.execute(&statement, values)).await
            }
            Statement::Deallocate(name) => self.deallocate(name.as_ref().map(fold)),

            Statement::Begin { start, read_only } => {
                self.begin(*read_only)?;
                done(if *start { "START TRANSACTION" } else { "BEGIN" })
            }
            Statement::Commit { chain: false } => self.commit().await.map(|tag| Outcome::Done(tag.into())),
            Statement::Commit { chain: true } => {
                let read_only = self.chained("COMMIT")?;
                let tag = self.commit().await?;
                self.begin(Some(read_only))?;
                done(tag)
            }
            Statement::Rollback { chain } => {
                let read_only = if *chain { Some(self.chained("ROLLBACK")?) } else { None };
                self.rollback();
                if read_only.is_some() {
                    self.begin(read_only)?;
                }
                done("ROLLBACK")
            }
            Statement::Savepoint(name) => self.savepoint(fold(name)).map(|()| Outcome::Done("SAVEPOINT".into())),
            Statement::RollbackTo(name) => self.rollback_to(&fold(name)).map(|()| Outcome::Done("ROLLBACK".into())),
            Statement::Release(name) => self.release(&fold(name)).map(|()| Outcome::Done("RELEASE".into())),

            Statement::Set { local, name, value } if name == "role" => self.set_role(value, *local),
            Statement::Set { local, name, value } if name == "session_authorization" => self.set_session_role(value, *local),
            Statement::Reset(name) if name == "role" => self.set_role(&SetValue::Default, false),
            Statement::Reset(name) if name == "session_authorization" => self.set_session_role(&SetValue::Default, false),
            Statement::Set { name, value, .. } if name.starts_with("transaction_") => {
                self.set_in_block(name, value)?;
                done("SET")
            }
            Statement::Set { local: true, .. } if self.transaction.is_none() => {
                self.notices.push(Error::no_active_transaction("SET LOCAL can only be used in transaction blocks"));
                done("SET")
            }
            Statement::Set { name, value, local } => {
                self.settings.assign(name, value, *local, &mut self.notices)?;
                done("SET")
            }
            Statement::Reset(name) => {
                self.settings.reset(name)?;
                done("RESET")
            }
            Statement::Discard => {
                if self.transaction.is_some() {
                    return Err(Error::active_transaction("DISCARD ALL cannot run inside a transaction block"));
                }
                self.cursors.clear();
                self.prepared.clear();
                self.unlist_statements();
                self.unlist_closed_cursors();
                self.settings.reset("all")?;
                self.database.locks.unlock_all(self.number());
                self.set_session_role(&SetValue::Default, false)?;
                done("DISCARD ALL")
            }
            Statement::NoOperation(tag) => done(tag),
        }
        .map(|outcome| named(outcome, prepared))
    }

    async fn prepare_by_name(
        &mut self,
        name: String,
        types: &[sqlparser::ast::DataType],
        statement: &Statement,
        parsed: &Parsed,
    ) -> Result<Outcome> {
        if self.prepared.contains_key(&name) {
            return Err(Error::duplicate_prepared_statement(format!("prepared statement \"{name}\" already exists")));
        }
        let declared = |t| {
            let (data_type, sql_type) = crate::sql::types::from_ast(t)?;
            Ok(Some(Parameter { sql_type: crate::sql::types::without_modifier(&sql_type), data_type }.field()))
        };
        let types = types.iter().map(declared).collect::<Result<Vec<_>>>()?;
        let inner = Parsed { statement: statement.clone(), sql: parsed.sql.clone(), offset: parsed.offset, notices: Vec::new() };
        let prepared = self.prepare(Arc::new(inner), &types).await?;
        self.list_statement(&name, Some(&prepared), true);
        self.prepared.insert(name, prepared);
        done("PREPARE")
    }

    fn deallocate(&mut self, name: Option<String>) -> Result<Outcome> {
        match name {
            None => {
                self.prepared.clear();
                self.unlist_statements();
                done("DEALLOCATE ALL")
            }
            Some(name) => {
                self.prepared_statement(&name)?;
                self.prepared.remove(&name);
                self.list_statement(&name, None, true);
                done("DEALLOCATE")
            }
        }
    }

    pub(super) fn last_commit(&self) -> CommitId {
        self.last_commit.load(Ordering::SeqCst)
    }

    pub(super) fn committed(&self, commit: CommitId) {
        self.last_commit.fetch_max(commit, Ordering::SeqCst);
    }

    /// What changes the catalog is a commit of its own, also in a transaction block: it is done at once, and stays if the block
    /// is rolled back. Later reads of the block see it, so they are of a newer snapshot than earlier ones.
    pub(super) fn beside_block(&mut self, statement: &str) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::read_only_transaction(format!("cannot execute {statement} in a read-only transaction")));
        }
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        transaction.unpin();
        let message = format!("{statement} takes effect at once: ROLLBACK of this transaction block does not undo it");
        self.notices.push(Error::active_transaction(message));
        Ok(())
    }
}

pub(super) fn done(tag: &str) -> Result<Outcome> {
    Ok(Outcome::Done(tag.to_string()))
}

/// The rows under the names that the client was told of.
fn named(outcome: Outcome, prepared: &Prepared) -> Outcome {
    match (outcome, &prepared.schema) {
        (Outcome::Rows(rows), Some(schema)) if rows.schema.fields().len() == schema.fields().len() => {
            Outcome::Rows(Rows { schema: Arc::clone(schema), ..rows })
        }
        (outcome, _) => outcome,
    }
}

#[async_trait]
impl ClientSession for Client {
    fn parse(&self, sql: &str) -> Result<Vec<Parsed>> {
        parse::parse(sql)
    }

    async fn prepare(&mut self, parsed: Arc<Parsed>, types: &[Option<FieldRef>]) -> Result<Prepared> {
        self.runs(&parsed.sql);
        self.notices.extend_from_slice(&parsed.notices);
        self.await_own_writes().await?;
        self.authorize(&parsed.statement)?;
        let (parameters, schema) = self.columns_of(&parsed.statement, types)?;
        Ok(Prepared { parsed, parameters, schema, known: Known::default() })
    }

    async fn execute(&mut self, prepared: &Prepared, parameters: Parameters) -> Result<Outcome> {
        if parameters.len() != prepared.parameters.len() {
            let (given, wanted) = (parameters.len(), prepared.parameters.len());
            return Err(Error::protocol_violation(format!("the statement needs {wanted} parameters, and {given} were given")));
        }
        let parsed = Arc::clone(&prepared.parsed);
        self.runs(&parsed.sql);
        self.authorize(&parsed.statement)?;
        self.check_may_write(&parsed.statement)?;
        self.execute_statement(&parsed, prepared, Bound::new(&prepared.parameters, parameters)).await
    }

    fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            None => TransactionStatus::Idle,
            Some(transaction) if transaction.implicit => TransactionStatus::Idle,
            Some(transaction) if transaction.failed => TransactionStatus::Failed,
            Some(_) => TransactionStatus::Active,
        }
    }

    async fn enter_implicit_block(&mut self, parsed: &Parsed, more: bool) -> Result<()> {
        Client::enter_implicit_block(self, &parsed.statement, more).await
    }

    async fn leave_implicit_block(&mut self) -> Result<()> {
        Client::leave_implicit_block(self).await
    }

    fn fail_transaction(&mut self) {
        self.returned.forget();
        self.fail_block();
    }

    fn parameter_status(&mut self) -> Vec<(String, String)> {
        self.settings.take_reported()
    }

    fn notices(&mut self) -> Vec<Error> {
        let unheld = self.database.locks.take_unheld(self.number());
        let warning = |mode: Mode| Error::warning(format!("you don't own a lock of type {}", mode.name()));
        self.notices.extend(unheld.into_iter().map(warning));
        std::mem::take(&mut self.notices)
    }

    fn name_statement(&mut self, name: &str, prepared: Option<&Prepared>) {
        self.list_statement(name, prepared, false);
    }

    fn name_portal(&mut self, name: &str, portal: Option<(&Prepared, bool)>) {
        match portal {
            Some((prepared, is_binary)) => self.list_cursor(name, &prepared.parsed.sql, false, is_binary),
            None => self.unlist_cursor(name),
        }
    }

    fn cursor_schema(&self, name: &str) -> Option<SchemaRef> {
        self.cursor(name).ok().map(Cursor::schema)
    }

    fn number(&self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }

    fn attach(&mut self, peer: Peer, handle: Arc<dyn Handle>) {
        self.enter(peer, handle);
    }

    fn rest(&mut self) {
        self.rests();
    }

    fn statement_timeout(&self) -> Option<Duration> {
        self.settings.duration("statement_timeout")
    }

    fn idle_timeout(&self) -> Option<(Duration, Error)> {
        let idle = |name, error| self.settings.duration(name).map(|limit| (limit, error));
        match self.transaction {
            None => idle(IDLE_SESSION, Error::idle_session_timeout("terminating connection due to idle-session timeout")),
            Some(_) => idle(
                IDLE_IN_TRANSACTION,
                Error::idle_in_transaction_timeout("terminating connection due to idle-in-transaction timeout"),
            ),
        }
    }

    fn formats(&self) -> Formats {
        self.settings.formats()
    }
}

/// `COPY ( … ) TO`, for the columns of its query.
pub(super) fn copied_query(target: &CopyTarget) -> Option<&Statement> {
    match target {
        CopyTarget::Query(statement) => Some(statement),
        CopyTarget::Relation { .. } => None,
    }
}
