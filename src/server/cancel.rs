//! How a running statement is stopped from outside: by a CancelRequest, by its client's going, by the server's end.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::auth::{random, same};
use crate::error::{Error, Result};

pub const SHUTTING_DOWN: &str = "terminating connection: the server is shutting down";

/// Sessions that can be cancelled, by process number.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    last: i32,
    by_process: HashMap<i32, (Vec<u8>, Arc<Interrupt>)>,
}

/// A session's entry, gone with it.
pub struct Registration {
    registry: Arc<Registry>,
    pub process: i32,
    pub secret: Vec<u8>,
}

impl Registry {
    /// `length` is that of the secret: 4 bytes in protocol 3.0, more later.
    pub fn register(self: &Arc<Self>, length: usize, interrupt: Arc<Interrupt>) -> Result<Registration> {
        let mut secret = vec![0; length];
        random(&mut secret)?;
        let mut sessions = self.sessions.lock();
        let process = loop {
            sessions.last = sessions.last.checked_add(1).unwrap_or(1);
            if !sessions.by_process.contains_key(&sessions.last) {
                break sessions.last;
            }
        };
        sessions.by_process.insert(process, (secret.clone(), interrupt));
        Ok(Registration { registry: self.clone(), process, secret })
    }

    /// Cancels what the session runs, if the secret is its own. Nobody is told whether it was.
    pub fn cancel(&self, process: i32, secret: &[u8]) {
        let sessions = self.sessions.lock();
        if let Some((own, interrupt)) = sessions.by_process.get(&process)
            && same(own, secret)
        {
            interrupt.cancel();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.lock().by_process.remove(&self.process);
    }
}

/// What may stop a session's statement.
pub struct Interrupt {
    /// The server ends, and waits no longer.
    killed: CancellationToken,
    /// The client has gone, or the server was killed.
    pub gone: CancellationToken,
    /// The statement that runs; a cancellation that comes when none does has no effect on the next.
    running: Mutex<Option<CancellationToken>>,
}

impl Interrupt {
    pub fn new(killed: CancellationToken) -> Interrupt {
        Interrupt { gone: killed.child_token(), killed, running: Mutex::new(None) }
    }

    fn cancel(&self) {
        if let Some(running) = &*self.running.lock() {
            running.cancel();
        }
    }

    /// From now until [`Interrupt::end`], a statement runs.
    pub fn begin(&self) {
        *self.running.lock() = Some(self.gone.child_token());
    }

    pub fn end(&self) {
        *self.running.lock() = None;
    }

    /// Does some of the running statement's work; drops it when it is to stop.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let token = self.running.lock().clone().unwrap_or_else(|| self.gone.clone());
        tokio::select! {
            biased;
            () = token.cancelled() => Err(self.reason()),
            done = work => Ok(done),
        }
    }

    fn reason(&self) -> Error {
        if self.killed.is_cancelled() {
            Error::shutting_down(SHUTTING_DOWN)
        } else if self.gone.is_cancelled() {
            Error::canceled("the client has disconnected")
        } else {
            Error::canceled("canceling statement due to user request")
        }
    }
}
