//! Implicit transaction blocks: what a client sends together is written together.
//!
//! As in PostgreSQL, the statements of one Query message, and those between two Syncs, are a transaction of their own unless
//! they say BEGIN. Here such a block begins with the first statement that writes, if another follows: a single statement needs
//! none, and goes its quicker way, which tries again after a conflict. What cannot be undone (CREATE, GRANT, …) or runs on
//! (SUBSCRIBE, EMIT CHANGES) ends the block before it: it has to see what was written.

use super::Client;
use crate::error::{Error, Result};
use crate::sql::ast::Statement;
use crate::sql::plan::names::fold;

/// What a statement means to an implicit block.
enum Part {
    /// It begins one.
    Writes,
    /// It is in one, if there is one.
    Within,
    /// It is in none.
    Alone,
}

impl Client {
    /// A statement is about to run; `more`: others of its message, or of its pipeline, may follow.
    pub(super) async fn enter_implicit_block(&mut self, statement: &Statement, more: bool) -> Result<()> {
        match self.part(statement) {
            Part::Writes if more && self.transaction.is_none() => self.begin_implicit(),
            Part::Alone => self.leave_implicit_block().await,
            Part::Writes | Part::Within => Ok(()),
        }
    }

    /// Begin a block that nobody has asked for.
    pub(super) fn begin_implicit(&mut self) -> Result<()> {
        self.begin(None)?;
        self.transaction.iter_mut().for_each(|transaction| transaction.implicit = true);
        Ok(())
    }

    /// The client has sent all that belongs together. A block in which something failed leaves nothing.
    pub(super) async fn leave_implicit_block(&mut self) -> Result<()> {
        match &self.transaction {
            Some(transaction) if transaction.implicit => self.commit().await.map(drop),
            _ => {
                self.end_statements();
                Ok(())
            }
        }
    }

    /// Whether a statement may run where nothing may be written; what defines says so itself.
    pub(super) fn check_may_write(&self, statement: &Statement) -> Result<()> {
        if !self.is_read_only() || !matches!(self.part(statement), Part::Writes) {
            return Ok(());
        }
        Err(Error::read_only_transaction(format!("cannot execute {} in a read-only transaction", verb(statement))))
    }

    fn part(&self, statement: &Statement) -> Part {
        match statement {
            Statement::Insert { .. }
            | Statement::Update { .. }
            | Statement::Delete { .. }
            | Statement::With { .. }
            | Statement::Truncate(_) => Part::Writes,
            Statement::Copy(copy) if copy.from => Part::Writes,
            Statement::Execute { name, .. } => match self.prepared.get(&fold(name)) {
                Some(prepared) => self.part(&prepared.parsed.statement),
                None => Part::Within,
            },
            Statement::Query { emit: None, .. }
            | Statement::Copy(_)
            | Statement::Explain { .. }
            | Statement::ShowObjects(_)
            | Statement::ShowCreate(_)
            | Statement::ShowCreateFunction(_)
            | Statement::ShowSetting(_)
            | Statement::Describe { .. }
            | Statement::Declare { .. }
            | Statement::Fetch { .. }
            | Statement::Move { .. }
            | Statement::Close(_)
            | Statement::Prepare { .. }
            | Statement::Deallocate(_)
            | Statement::Begin { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint(_)
            | Statement::RollbackTo(_)
            | Statement::Release(_)
            | Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::NoOperation(_) => Part::Within,
            _ => Part::Alone,
        }
    }
}

/// What a statement that writes is called.
fn verb(statement: &Statement) -> &'static str {
    match statement {
        Statement::Query { .. } => "SELECT",
        Statement::Insert { .. } => "INSERT",
        Statement::Update { .. } => "UPDATE",
        Statement::Delete { .. } => "DELETE",
        Statement::With { last, .. } => verb(last),
        Statement::Truncate(_) => "TRUNCATE TABLE",
        Statement::Copy(_) => "COPY FROM",
        _ => "EXECUTE",
    }
}
