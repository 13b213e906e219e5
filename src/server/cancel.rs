//! How a running statement is stopped from outside: by a CancelRequest, by its client's going, by the server's end.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::auth::{random, same};
use crate::error::{Error, Result};
use crate::session::Handle;
use crate::sql::batch::stop::Stop;

pub const TERMINATED: &str = "terminating connection due to administrator command";
pub const SHUTTING_DOWN: &str = "terminating connection: the server is shutting down";

/// Sessions that can be cancelled, by process number.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<i32, Entry>>,
}

/// A session's secret, and how it is stopped.
type Entry = (Vec<u8>, Arc<Interrupt>);

/// A session's entry, gone with it.
pub struct Registration {
    registry: Arc<Registry>,
    pub process: i32,
    pub secret: Vec<u8>,
}

impl Registry {
    /// `process` is the session's number; `length` is that of the secret: 4 bytes in protocol 3.0, more later.
    pub fn register(self: &Arc<Self>, process: i32, length: usize, interrupt: Arc<Interrupt>) -> Result<Registration> {
        let mut secret = vec![0; length];
        random(&mut secret)?;
        self.sessions.lock().insert(process, (secret.clone(), interrupt));
        Ok(Registration { registry: self.clone(), process, secret })
    }

    /// Cancels what the session runs, if the secret is its own. Nobody is told whether it was.
    pub fn cancel(&self, process: i32, secret: &[u8]) {
        let sessions = self.sessions.lock();
        if let Some((own, interrupt)) = sessions.get(&process)
            && same(own, secret)
        {
            interrupt.cancel();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.lock().remove(&self.process);
    }
}

/// What may stop a session's statement.
pub struct Interrupt {
    /// The server ends, and waits no longer.
    killed: CancellationToken,
    /// The client has gone, the session was ended from outside, or the server was killed.
    pub gone: CancellationToken,
    /// Another session has ended this one.
    terminated: CancellationToken,
    /// The statement that runs; a cancellation that comes when none does has no effect on the next.
    running: Mutex<Option<CancellationToken>>,
    /// When the statement that runs must have ended.
    deadline: Mutex<Option<Instant>>,
}

impl Interrupt {
    pub fn new(killed: CancellationToken) -> Interrupt {
        let (terminated, running, deadline) = (CancellationToken::new(), Mutex::new(None), Mutex::new(None));
        Interrupt { gone: killed.child_token(), killed, terminated, running, deadline }
    }

    /// Until when the statements have to end from now on that the client waits for.
    pub fn limit(&self, timeout: Option<Duration>) {
        *self.deadline.lock() = timeout.map(|timeout| Instant::now() + timeout);
    }

    pub fn is_limited(&self) -> bool {
        self.deadline.lock().is_some()
    }

    /// Done when another session ends this one.
    pub async fn terminated(&self) {
        self.terminated.cancelled().await;
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
        let deadline = *self.deadline.lock();
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = token.cancelled() => Err(self.cancelled()),
            () = late => Err(timed_out()),
            done = work => Ok(done),
        }
    }

    /// Why the statement was cancelled, now that it is.
    fn cancelled(&self) -> Error {
        if self.killed.is_cancelled() {
            Error::shutting_down(SHUTTING_DOWN)
        } else if self.terminated.is_cancelled() {
            Error::shutting_down(TERMINATED)
        } else if self.gone.is_cancelled() {
            Error::canceled("the client has disconnected")
        } else {
            Error::canceled("canceling statement due to user request")
        }
    }
}

fn timed_out() -> Error {
    Error::canceled("canceling statement due to statement timeout")
}

impl Stop for Interrupt {
    fn reason(&self) -> Option<Error> {
        let cancelled = self.gone.is_cancelled() || self.running.lock().as_ref().is_some_and(CancellationToken::is_cancelled);
        if cancelled {
            return Some(self.cancelled());
        }
        let late = self.deadline.lock().is_some_and(|deadline| deadline <= Instant::now());
        late.then(timed_out)
    }
}

impl Handle for Interrupt {
    fn cancel(&self) {
        if let Some(running) = &*self.running.lock() {
            running.cancel();
        }
    }

    fn terminate(&self) {
        self.terminated.cancel();
        self.gone.cancel();
    }
}
