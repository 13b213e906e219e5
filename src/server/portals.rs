//! Portals as cursors: to PostgreSQL they are one, so MOVE and CLOSE reach those that were bound by messages.

use tokio::io::AsyncWrite;

use super::conversation::{Conversation, Portal, Progress};
use super::output::Fault;
use crate::error::Error;
use crate::sql::ast;
use crate::sql::plan::names::fold;

impl<W: AsyncWrite + Unpin + Send> Conversation<W> {
    /// MOVE and CLOSE of a portal; `None`: the statement is another, or its cursor none of these.
    pub(super) async fn of_portal(&mut self, statement: &ast::Statement) -> Result<Option<String>, Fault> {
        match statement {
            ast::Statement::Close(Some(name)) => {
                let name = fold(name);
                Ok(self.portals.remove(&name).map(|_| {
                    self.session.name_portal(&name, None);
                    "CLOSE CURSOR".to_string()
                }))
            }
            ast::Statement::Move { cursor, count } => {
                let name = fold(cursor);
                let Some(mut portal) = self.portals.remove(&name) else { return Ok(None) };
                let count = match count {
                    ast::FetchCount::Rows(count) => *count,
                    ast::FetchCount::All => u64::MAX,
                    ast::FetchCount::Absolute(_) | ast::FetchCount::Relative(_) => {
                        self.portals.insert(name, portal);
                        return Err(Error::unsupported("a portal is moved by a number of rows").into());
                    }
                };
                let moved = Box::pin(self.skip_in(&mut portal, count)).await?;
                self.portals.insert(name, portal);
                Ok(Some(format!("MOVE {moved}")))
            }
            _ => Ok(None),
        }
    }

    /// Passes over rows of a portal; says how many there were.
    async fn skip_in(&mut self, portal: &mut Portal, count: u64) -> Result<u64, Fault> {
        if let (Progress::Bound, Some(prepared)) = (&portal.progress, &portal.statement.clone().prepared) {
            let (parameters, formats) = (std::mem::take(&mut portal.parameters), portal.formats.clone());
            portal.progress = self.start(prepared, parameters, formats, false).await?;
        }
        match &mut portal.progress {
            Progress::Suspended(cursor) => self.skip(cursor, count).await,
            _ => Ok(0),
        }
    }
}
