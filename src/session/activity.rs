//! Who is there, and what they are doing: the sessions of a database, as others see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::settings::Settings;
use super::{Client, ClientSession, Handle, Peer, TransactionStatus};
use crate::catalog::role::RoleId;
use crate::limits;
use crate::sql::batch::stop::Stop;
use crate::sql::system::Activity;
use crate::time::Micros;

/// The sessions that clients hold, by number.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<i32, Arc<Session>>>);

/// One of them. It is in the list for as long as its client is.
pub(super) struct Session {
    peer: Peer,
    handle: Arc<dyn Handle>,
    role: RoleId,
    settings: Settings,
    started: Micros,
    now: Mutex<Now>,
}

#[derive(Clone, Default)]
struct Now {
    state: &'static str,
    since: Micros,
    query: String,
    query_start: Option<Micros>,
    transaction_start: Option<Micros>,
}

impl Sessions {
    /// All of them; `name` tells the name of a role.
    pub fn all(&self, name: impl Fn(RoleId) -> String) -> Vec<Activity> {
        let shown = |(pid, session): (&i32, &Arc<Session>)| {
            let now = session.now.lock().clone();
            Activity {
                pid: *pid,
                user: name(session.role),
                application_name: session.settings.get("application_name").unwrap_or_default(),
                client_address: session.address(),
                client_port: session.peer.port,
                is_encrypted: session.peer.is_encrypted,
                backend_start: Some(session.started),
                transaction_start: now.transaction_start,
                query_start: now.query_start,
                state_change: Some(now.since),
                state: now.state,
                query: now.query,
            }
        };
        self.0.lock().iter().map(shown).collect()
    }

    pub fn signal(&self, pid: i32, terminate: bool) -> bool {
        let Some(session) = self.0.lock().get(&pid).cloned() else { return false };
        match terminate {
            true => session.handle.terminate(),
            false => session.handle.cancel(),
        }
        true
    }
}

impl Session {
    pub fn address(&self) -> Option<String> {
        self.peer.address.map(|address| address.to_canonical().to_string())
    }
}

impl Client {
    pub(super) fn enter(&mut self, peer: Peer, handle: Arc<dyn Handle>) {
        let started = self.database.clock.now();
        let now = Mutex::new(Now { state: "idle", since: started, ..Now::default() });
        let session = Session { peer, handle, role: self.who.session, settings: self.settings.clone(), started, now };
        let session = Arc::new(session);
        self.database.sessions.0.lock().insert(self.number(), Arc::clone(&session));
        self.session = Some(session);
    }

    /// What says to the running statement that it is to stop.
    pub(super) fn stop(&self) -> Option<Arc<dyn Stop>> {
        Some(Arc::clone(&self.session.as_ref()?.handle) as Arc<dyn Stop>)
    }

    pub(super) fn leave(&mut self) {
        if self.session.take().is_some() {
            self.database.sessions.0.lock().remove(&self.number());
        }
    }

    /// A statement begins.
    pub(super) fn runs(&self, sql: &str) {
        let Some(session) = &self.session else { return };
        let now = self.database.clock.now();
        let mut state = session.now.lock();
        state.transaction_start.get_or_insert(now);
        (state.state, state.since, state.query_start) = ("active", now, Some(now));
        let end = sql.char_indices().nth(limits::SHOWN_QUERY).map_or(sql.len(), |(end, _)| end);
        sql[..end].clone_into(&mut state.query);
    }

    /// It waits for its client.
    pub(super) fn rests(&self) {
        let Some(session) = &self.session else { return };
        let mut state = session.now.lock();
        state.state = match self.transaction_status() {
            TransactionStatus::Idle => {
                state.transaction_start = None;
                "idle"
            }
            TransactionStatus::Active => "idle in transaction",
            TransactionStatus::Failed => "idle in transaction (aborted)",
        };
        state.since = self.database.clock.now();
    }
}
