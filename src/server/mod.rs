//! The Postgres face: who may connect, and what their messages do.
//!
//! ```text
//!  network runtime                         query runtime
//!  accept ──► startup ──► read socket ══════► conversation ──► session: prepare, execute
//!               │           chunks, bounded        │
//!               └─ CancelRequest ──► interrupt ──► │ ──► rows, encoded ──► write socket
//! ```
//!
//! Each connection has two tasks. One, on the network's runtime, reads the socket, so that a client's going is noticed and a
//! CancelRequest is obeyed whatever the statements do. The other, on the runtime for queries, holds the conversation: it cuts
//! messages out of what was read, drives the session, polls its rows, and writes the answers. Nothing that computes runs on the
//! network's threads.
//!
//! Every wait of a running statement (for its rows, for COPY data, for a client that does not read) ends when it is cancelled.
//! Everything a client can make the server hold is bounded in [`crate::limits`].

mod backend;
mod cancel;
mod connection;
mod conversation;
mod decode;
mod encode;
mod execute;
mod frontend;
mod output;
mod startup;
pub mod types;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::limits;
use crate::session::Backend;

/// The version that clients are told: features go by the number, the rest is for people.
pub const SERVER_VERSION: &str = concat!("15.0 (Tidegate ", env!("CARGO_PKG_VERSION"), ")");

/// A listening server.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    backend: Arc<dyn Backend>,
    /// The runtime that conversations run on.
    queries: Handle,
    cancels: Arc<cancel::Registry>,
    /// A permit per session.
    sessions: Arc<Semaphore>,
    /// A permit per client that has not said yet who it is.
    startups: Arc<Semaphore>,
    /// No new statements.
    stopping: CancellationToken,
    /// No statements at all.
    killed: CancellationToken,
}

impl Server {
    /// Listens on `listen`, `host:port`, which must be of this machine only. Sessions run on `queries`, which must not be the
    /// runtime that [`Server::run`] runs on.
    pub async fn bind(listen: &str, backend: Arc<dyn Backend>, queries: Handle) -> Result<Server> {
        let listener = TcpListener::bind(&*resolve(listen).await?).await;
        let listener = listener.map_err(|error| Error::io(format!("cannot listen on {listen}: {error}")))?;
        Ok(Server { listener, shared: Arc::new(Shared::new(backend, queries)) })
    }

    pub fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves clients until `stop` is done; then idle sessions are closed, and statements may end within
    /// [`limits::SHUTDOWN_TIME`].
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => self.shared.welcome(socket),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Most often there are no file descriptors left: trying again at once would only burn time.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(self.listener);
        self.shared.end().await;
    }
}

impl Shared {
    fn new(backend: Arc<dyn Backend>, queries: Handle) -> Shared {
        Shared {
            backend,
            queries,
            cancels: Arc::default(),
            sessions: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            startups: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
        }
    }

    fn welcome(self: &Arc<Self>, socket: TcpStream) {
        // Beyond the bound of those that have not even spoken, closing the socket is the only answer we can afford.
        let Ok(permit) = self.startups.clone().try_acquire_owned() else { return };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a socket has failed already");
        }
        let (reader, writer) = socket.into_split();
        tokio::spawn(connection::serve(self.clone(), reader, writer, permit));
    }

    async fn end(&self) {
        self.stopping.cancel();
        // All permits are there when all sessions have ended.
        let all = limits::CONNECTIONS as u32;
        if tokio::time::timeout(limits::SHUTDOWN_TIME, self.sessions.acquire_many(all)).await.is_err() {
            tracing::warn!("statements still run: they are ended now");
            self.killed.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(2), self.sessions.acquire_many(all)).await;
        }
    }
}

/// The addresses of `listen`, all of this machine only: without passwords and encryption, nobody else may come near.
async fn resolve(listen: &str) -> Result<Vec<SocketAddr>> {
    let addresses = tokio::net::lookup_host(listen).await;
    let addresses = addresses.map_err(|error| {
        let hint = "write it as host:port, for example 127.0.0.1:6433";
        Error::invalid_parameter(format!("cannot listen on \"{listen}\": {error}")).with_hint(hint)
    })?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    match addresses.iter().find(|address| !address.ip().is_loopback()) {
        None => Ok(addresses),
        Some(address) => {
            let message = format!("refusing to listen on {address}, which is no loopback address: other machines could reach it");
            Err(Error::invalid_parameter(message).with_hint("there are no passwords yet: listen on 127.0.0.1 or ::1"))
        }
    }
}
