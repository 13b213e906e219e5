//! What a session has given names to, as `pg_prepared_statements` and `pg_cursors` list it: by PREPARE and DECLARE, and by the
//! protocol's messages.

use std::sync::Arc;

use super::{Client, Prepared};
use crate::sql::system::{Named, NamedCursor, NamedStatement};

impl Client {
    fn named(&mut self) -> &mut Named {
        Arc::make_mut(&mut self.named)
    }

    /// A prepared statement; `None`: it is there no more.
    pub(super) fn list_statement(&mut self, name: &str, prepared: Option<&Prepared>, from_sql: bool) {
        let Some(prepared) = prepared else {
            self.named().statements.remove(name);
            return;
        };
        let parameter_types = prepared.parameters.iter().map(|parameter| parameter.sql_type.clone()).collect();
        let since = self.database.clock.now();
        let statement = NamedStatement { sql: prepared.parsed.sql.clone(), since, parameter_types, from_sql };
        self.named().statements.insert(name.to_string(), statement);
    }

    pub(super) fn list_cursor(&mut self, name: &str, sql: &str, is_holdable: bool, is_binary: bool) {
        let since = self.database.clock.now();
        let cursor = NamedCursor { sql: sql.to_string(), since, is_holdable, is_binary };
        self.named().cursors.insert(name.to_string(), cursor);
    }

    pub(super) fn unlist_cursor(&mut self, name: &str) {
        if self.named.cursors.contains_key(name) {
            self.named().cursors.remove(name);
        }
    }

    pub(super) fn unlist_statements(&mut self) {
        if !self.named.statements.is_empty() {
            self.named().statements.clear();
        }
    }

    /// Cursors have been closed; portals have gone with them.
    pub(super) fn unlist_closed_cursors(&mut self) {
        if self.named.cursors.keys().any(|name| !self.cursors.contains_key(name)) {
            let open = &self.cursors;
            Arc::make_mut(&mut self.named).cursors.retain(|name, _| open.contains_key(name));
        }
    }
}
