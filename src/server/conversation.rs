//! A conversation: messages in, answers out. This is the protocol's state machine.
//!
//! ```text
//!   ready ──Query──► its statements, one by one ──► ready
//!     │ ▲
//!     │ └─────────────Sync──────────────┐
//!     └─Parse, Bind, Describe, Execute──┴─► an error skips all up to the next Sync
//! ```
//!
//! Answers are sent when the client asks for them (Sync, Flush, the end of a Query), on errors, when enough of them have gathered, and,
//! while rows come that never end, whenever there are no more of them for now.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use super::cancel::{Interrupt, SHUTTING_DOWN, TERMINATED};
use super::execute::Cursor;
use super::frontend::{Bind, Format, Frame, Input, Message, Target};
use super::output::{Fault, Output};
use super::types::{declared, origin, parameter_oid, wire_type};
use super::{backend, decode};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::{ClientSession, Parameters, Prepared, TransactionStatus};
use crate::sql::ast;
use crate::sql::plan::names::fold;
use crate::sql::system::visible_name;

pub(super) struct Conversation<W> {
    pub(super) session: Box<dyn ClientSession>,
    pub(super) input: Input,
    pub(super) output: Output<W>,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) stopping: CancellationToken,
    /// Prepared statements by name; the one without a name, too.
    statements: HashMap<String, Arc<Statement>>,
    pub(super) portals: HashMap<String, Portal>,
    /// A message of the extended protocol failed: everything up to the next Sync is skipped.
    skipping: bool,
}

/// A prepared statement as the client knows it.
pub(super) struct Statement {
    /// `None` for an empty string.
    pub(super) prepared: Option<Prepared>,
    /// OIDs of its parameters: as the client declared them, or ours.
    parameters: Vec<u32>,
}

/// A statement with its parameters, and how far it has run.
pub(super) struct Portal {
    pub(super) statement: Arc<Statement>,
    pub(super) parameters: Parameters,
    pub(super) formats: Vec<Format>,
    pub(super) progress: Progress,
}

pub(super) enum Progress {
    Bound,
    /// Rows are left for the next Execute.
    Suspended(Cursor),
    /// The word of its tag, if it gave rows: it gives no more.
    Finished(Option<&'static str>),
}

/// What comes after a message.
enum Next {
    Message,
    Ready,
    End,
}

impl<W: AsyncWrite + Unpin + Send> Conversation<W> {
    pub fn new(
        session: Box<dyn ClientSession>,
        input: Input,
        output: Output<W>,
        interrupt: Arc<Interrupt>,
        stopping: CancellationToken,
    ) -> Conversation<W> {
        let (statements, portals) = (HashMap::new(), HashMap::new());
        Conversation { session, input, output, interrupt, stopping, statements, portals, skipping: false }
    }

    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.output.buffer()
    }

    pub fn into_output(self) -> Output<W> {
        self.output
    }

    /// Answers messages until the client takes its leave, or is lost.
    pub async fn hold(&mut self) -> Result<(), Fault> {
        self.ready().await?;
        while let Some(frame) = self.next().await? {
            if self.skipping && !matches!(frame.tag, b'S' | b'X') {
                continue;
            }
            let extended = frame.is_extended();
            self.interrupt.begin();
            if !self.interrupt.is_limited() {
                self.interrupt.limit(self.session.statement_timeout());
            }
            let answered = self.answer(frame).await;
            self.interrupt.end();
            match answered {
                Ok(Next::Message) => {}
                Ok(Next::Ready) => self.ready().await?,
                Ok(Next::End) => break,
                Err(Fault::Statement(error)) if self.interrupt.gone.is_cancelled() => return Err(Fault::Fatal(error)),
                Err(Fault::Statement(error)) => {
                    self.fail(&error);
                    if extended {
                        self.skipping = true;
                        // A client that asked with Flush sends its Sync only after the error. The statement's time is over.
                        self.interrupt.limit(None);
                        self.send().await?;
                    } else {
                        // Something of it failed: nothing of it stays.
                        if let Err(error) = self.session.leave_implicit_block().await {
                            self.fail(&error);
                        }
                        self.ready().await?;
                    }
                }
                Err(fault) => return Err(fault),
            }
            if self.output.is_full() {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// The next message. While there is none, the session is idle and ends if the server does.
    async fn next(&mut self) -> Result<Option<Frame>, Fault> {
        if let Some(frame) = self.input.buffered().map_err(Fault::Fatal)? {
            return Ok(Some(frame));
        }
        self.output.rest();
        let idle = self.session.idle_timeout().filter(|_| !self.interrupt.is_limited());
        let too_long = async {
            match idle {
                Some((limit, error)) => {
                    tokio::time::sleep(limit).await;
                    error
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err(Fault::Fatal(Error::shutting_down(SHUTTING_DOWN))),
            () = self.interrupt.terminated() => Err(Fault::Fatal(Error::shutting_down(TERMINATED))),
            error = too_long => Err(Fault::Fatal(error)),
            frame = self.input.frame() => frame.map_err(Fault::Fatal),
        }
    }

    async fn answer(&mut self, frame: Frame) -> Result<Next, Fault> {
        // What is left of a COPY that has failed already.
        if matches!(frame.tag, b'd' | b'c' | b'f') {
            return Ok(Next::Message);
        }
        match frame.read()? {
            Message::Query(sql) => {
                self.query(&sql).await?;
                return Ok(Next::Ready);
            }
            Message::Parse { name, sql, types } => self.parse(name, &sql, types).await?,
            Message::Bind(bind) => self.bind(bind)?,
            Message::Describe(target) => self.describe(&target)?,
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows).await?,
            Message::Close(target) => self.close(&target),
            Message::Flush => self.send().await?,
            Message::Sync => {
                self.skipping = false;
                // Whatever comes of it, the client has its turn.
                let left = self.interrupt.unless(self.session.leave_implicit_block()).await;
                if let Err(error) = left.and_then(|left| left) {
                    self.fail(&error);
                }
                return Ok(Next::Ready);
            }
            Message::FunctionCall => {
                self.skipping = false;
                self.fail(
                    &Error::unsupported("the function call protocol is not supported").with_hint("call functions with SELECT"),
                );
                return Ok(Next::Ready);
            }
            Message::Terminate => return Ok(Next::End),
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => {}
        }
        Ok(Next::Message)
    }

    /// Tells the client that it is its turn, and in what state.
    async fn ready(&mut self) -> Result<(), Fault> {
        self.interrupt.limit(None);
        self.session.rest();
        let status = self.session.transaction_status();
        if status == TransactionStatus::Idle {
            // Portals live as long as their transaction.
            for (name, _) in self.portals.drain().filter(|(name, _)| !name.is_empty()) {
                self.session.name_portal(&name, None);
            }
        }
        for (name, value) in self.session.parameter_status() {
            backend::parameter_status(self.output.buffer(), &name, &value);
        }
        backend::ready(self.output.buffer(), status);
        self.send().await
    }

    fn fail(&mut self, error: &Error) {
        self.session.fail_transaction();
        self.notices();
        backend::error(self.output.buffer(), error);
    }

    pub(super) fn notices(&mut self) {
        for notice in self.session.notices() {
            backend::notice(self.output.buffer(), &notice);
        }
    }

    /// Sends what has gathered, unless the statement is to stop before the client has taken it.
    pub(super) async fn send(&mut self) -> Result<(), Fault> {
        Ok(self.interrupt.unless(self.output.flush()).await??)
    }

    /// The simple protocol: all statements of a string, until one fails.
    async fn query(&mut self, sql: &str) -> Result<(), Fault> {
        self.statements.remove("");
        self.portals.remove("");
        let statements = self.session.parse(sql)?;
        if statements.is_empty() {
            backend::empty_query(self.output.buffer());
        }
        let last = statements.len().saturating_sub(1);
        for (number, parsed) in statements.into_iter().enumerate() {
            // Each has its own time.
            self.interrupt.limit(self.session.statement_timeout());
            self.interrupt.unless(self.session.enter_implicit_block(&parsed, number < last)).await??;
            self.statement(Arc::new(parsed)).await?;
        }
        self.interrupt.unless(self.session.leave_implicit_block()).await??;
        Ok(())
    }

    async fn statement(&mut self, parsed: Arc<ast::Parsed>) -> Result<(), Fault> {
        self.check_block(&parsed)?;
        let prepared = self.interrupt.unless(self.session.prepare(parsed, &[])).await??;
        if !prepared.parameters.is_empty() {
            return Err(Error::undefined_parameter("there is no parameter $1").into());
        }
        if let Progress::Suspended(mut cursor) = self.start(&prepared, Vec::new(), Vec::new(), true).await? {
            self.rows(&mut cursor, usize::MAX).await?;
            backend::command_complete(self.output.buffer(), &cursor.tag());
        }
        Ok(())
    }

    async fn parse(&mut self, name: String, sql: &str, types: Vec<u32>) -> Result<(), Fault> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Error::duplicate_prepared_statement(format!("prepared statement \"{name}\" already exists")).into());
        }
        if self.statements.len() >= limits::PREPARED_STATEMENTS {
            let message = format!("a connection may have {} prepared statements", limits::PREPARED_STATEMENTS);
            return Err(Error::limit_exceeded(message).with_hint("close those no longer needed: DEALLOCATE").into());
        }
        let mut statements = self.session.parse(sql)?;
        if statements.len() > 1 {
            return Err(Error::syntax("cannot insert multiple commands into a prepared statement").into());
        }
        let statement = match statements.pop() {
            None => Statement { prepared: None, parameters: types },
            Some(parsed) => self.prepare(parsed, types).await?,
        };
        if !name.is_empty() {
            self.session.name_statement(&name, statement.prepared.as_ref());
        }
        self.statements.insert(name, Arc::new(statement));
        backend::parse_complete(self.output.buffer());
        Ok(())
    }

    async fn prepare(&mut self, parsed: ast::Parsed, types: Vec<u32>) -> Result<Statement, Fault> {
        self.check_block(&parsed)?;
        let wanted = types.iter().map(|oid| declared(*oid)).collect::<Result<Vec<_>>>()?;
        let prepared = self.interrupt.unless(self.session.prepare(Arc::new(parsed), &wanted)).await?;
        let prepared = prepared?;
        let inferred = |index: usize| prepared.parameters.get(index).map_or(0, parameter_oid);
        let declared =
            |index: usize| types.get(index).copied().filter(|oid| *oid != 0 && *oid != postgres_types::Type::UNKNOWN.oid());
        let parameters = (0..prepared.parameters.len()).map(|index| declared(index).unwrap_or_else(|| inferred(index))).collect();
        Ok(Statement { prepared: Some(prepared), parameters })
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Fault> {
        let statement = self.find_statement(&bind.statement)?.clone();
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(Error::duplicate_cursor(format!("portal \"{}\" already exists", bind.portal)).into());
        }
        if self.portals.len() >= limits::PREPARED_STATEMENTS {
            return Err(Error::limit_exceeded(format!("a connection may have {} portals", limits::PREPARED_STATEMENTS)).into());
        }
        let (parameters, formats) = match &statement.prepared {
            None => (Vec::new(), Vec::new()),
            Some(prepared) => {
                self.check_block(&prepared.parsed)?;
                let columns = prepared.schema.as_ref().map_or(0, |schema| schema.fields().len());
                (self.values(&bind, &statement, prepared)?, formats(&bind.result_formats, columns, "result")?)
            }
        };
        if let (false, Some(prepared)) = (bind.portal.is_empty(), &statement.prepared) {
            let is_binary = !formats.is_empty() && formats.iter().all(|format| *format == Format::Binary);
            self.session.name_portal(&bind.portal, Some((prepared, is_binary)));
        }
        self.portals.insert(bind.portal, Portal { statement, parameters, formats, progress: Progress::Bound });
        backend::bind_complete(self.output.buffer());
        Ok(())
    }

    fn values(&self, bind: &Bind, statement: &Statement, prepared: &Prepared) -> Result<Parameters> {
        let (given, wanted) = (bind.parameters.len(), prepared.parameters.len());
        if given != wanted {
            let name = &bind.statement;
            let message =
                format!("bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}");
            return Err(Error::protocol_violation(message));
        }
        let formats = formats(&bind.parameter_formats, wanted, "parameter")?;
        let read_as = self.session.formats();
        let types = statement.parameters.iter().zip(&prepared.parameters);
        let values = bind.parameters.iter().zip(formats).zip(types).enumerate();
        let values = values.map(|(index, ((value, format), (oid, parameter)))| {
            let value = decode::parameter(value.as_deref(), format, *oid, parameter, read_as);
            value.map_err(|error| match error.context() {
                None => error.with_context(format!("parameter ${}", index + 1)),
                Some(_) => error,
            })
        });
        values.collect()
    }

    fn describe(&mut self, target: &Target) -> Result<(), Fault> {
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.find_statement(name)?.clone();
                backend::parameter_description(self.output.buffer(), &statement.parameters);
                (statement, Vec::new())
            }
            Target::Portal(name) => match self.portals.get(name) {
                Some(portal) => (portal.statement.clone(), portal.formats.clone()),
                None => {
                    let schema = self.session.cursor_schema(name).ok_or_else(|| no_portal(name))?;
                    self.describe_rows(&schema, &[]);
                    return Ok(());
                }
            },
        };
        match statement.prepared.as_ref().and_then(|prepared| prepared.schema.as_ref()) {
            Some(schema) => self.describe_rows(schema, &formats),
            None => backend::no_data(self.output.buffer()),
        }
        Ok(())
    }

    pub(super) fn describe_rows(&mut self, schema: &Schema, formats: &[Format]) {
        let format = |index: usize| formats.get(index).copied().unwrap_or(Format::Text);
        let columns = schema.fields().iter().enumerate();
        let columns = columns.map(|(index, field)| backend::Described {
            name: visible_name(field.name()),
            origin: origin(field),
            wire: wire_type(field),
            format: format(index),
        });
        backend::row_description(self.output.buffer(), columns);
    }

    async fn execute(&mut self, name: String, max_rows: usize) -> Result<(), Fault> {
        // Out of the map while it runs: a portal that fails is gone.
        let Some(mut portal) = self.portals.remove(&name) else { return Err(no_portal(&name).into()) };
        let statement = portal.statement.clone();
        let Some(prepared) = &statement.prepared else {
            backend::empty_query(self.output.buffer());
            self.portals.insert(name, portal);
            return Ok(());
        };
        self.check_block(&prepared.parsed)?;
        let more = !self.input.syncs_next().await;
        self.interrupt.unless(self.session.enter_implicit_block(&prepared.parsed, more)).await??;
        let run = self.advance(prepared, &mut portal, if max_rows == 0 { usize::MAX } else { max_rows });
        run.await?;
        self.portals.insert(name, portal);
        Ok(())
    }

    /// Runs a portal, from its beginning or from where it was suspended.
    async fn advance(&mut self, prepared: &Prepared, portal: &mut Portal, max_rows: usize) -> Result<(), Fault> {
        if let Progress::Bound = portal.progress {
            let (parameters, formats) = (std::mem::take(&mut portal.parameters), portal.formats.clone());
            portal.progress = self.start(prepared, parameters, formats, false).await?;
            if let Progress::Finished(_) = portal.progress {
                return Ok(());
            }
        }
        let complete = match &mut portal.progress {
            Progress::Suspended(cursor) => match self.rows(cursor, max_rows).await? {
                true => cursor.tag(),
                false => {
                    backend::portal_suspended(self.output.buffer());
                    return Ok(());
                }
            },
            Progress::Finished(Some(word)) => format!("{word} 0"),
            Progress::Finished(None) | Progress::Bound => return Err(Error::not_ready("portal cannot be run anymore").into()),
        };
        if let Progress::Suspended(cursor) = &portal.progress {
            portal.progress = Progress::Finished(Some(cursor.word()));
        }
        backend::command_complete(self.output.buffer(), &complete);
        Ok(())
    }

    /// It is no error to close what isn't there.
    fn close(&mut self, target: &Target) {
        match target {
            Target::Statement(name) => {
                if self.statements.remove(name).is_some() {
                    self.session.name_statement(name, None);
                }
            }
            Target::Portal(name) => {
                if self.portals.remove(name).is_some() {
                    self.session.name_portal(name, None);
                }
            }
        }
        backend::close_complete(self.output.buffer());
    }

    /// DEALLOCATE and DISCARD reach statements prepared by messages, too; true if that is all there is to do.
    pub(super) fn deallocate(&mut self, statement: &ast::Statement) -> bool {
        match statement {
            ast::Statement::Deallocate(Some(name)) => {
                let name = fold(name);
                let found = self.statements.remove(&name).is_some();
                if found {
                    self.session.name_statement(&name, None);
                }
                found
            }
            ast::Statement::Deallocate(None) | ast::Statement::Discard => {
                self.statements.clear();
                false
            }
            _ => false,
        }
    }

    fn find_statement(&self, name: &str) -> Result<&Arc<Statement>> {
        self.statements.get(name).ok_or_else(|| match name {
            "" => Error::invalid_statement_name("unnamed prepared statement does not exist"),
            name => Error::invalid_statement_name(format!("prepared statement \"{name}\" does not exist")),
        })
    }

    /// A failed transaction takes nothing but its end.
    fn check_block(&self, parsed: &ast::Parsed) -> Result<()> {
        use ast::Statement::{Commit, Rollback, RollbackTo};
        let ends = matches!(parsed.statement, Commit { .. } | Rollback { .. } | RollbackTo(_));
        if ends || self.session.transaction_status() != TransactionStatus::Failed {
            return Ok(());
        }
        Err(Error::in_failed_transaction("current transaction is aborted, commands ignored until end of transaction block"))
    }
}

fn no_portal(name: &str) -> Error {
    Error::invalid_cursor_name(format!("portal \"{name}\" does not exist"))
}

/// None means text for all, one is for all, otherwise each has its own.
fn formats(given: &[Format], count: usize, what: &str) -> Result<Vec<Format>> {
    match given {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![*one; count]),
        each if each.len() == count => Ok(each.to_vec()),
        each => Err(Error::protocol_violation(format!(
            "bind message has {} {what} formats but there are {count} {what}s",
            each.len()
        ))),
    }
}
