//! The Postgres face: who may connect, and what their messages do.
//!
//! ```text
//!  network runtime                         query runtime
//!  accept ──► startup ──► read socket ══════► conversation ──► session: prepare, execute
//!               │ TLS       chunks, bounded        │
//!               │ SCRAM                            │
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

mod authenticate;
mod backend;
mod cancel;
mod connection;
mod conversation;
mod decode;
mod encode;
mod execute;
mod frontend;
mod output;
mod portals;
mod startup;
mod tls;
pub mod types;

pub use authenticate::Authentication;
pub use tls::TlsFiles;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::limits;
use crate::session::Backend;
use authenticate::{Arrival, Arrivals, Failures, Peer};
use tls::Tls;

/// The version that clients are told: features go by the number, the rest is for people.
pub const SERVER_VERSION: &str = concat!("15.0 (Tidegate ", env!("CARGO_PKG_VERSION"), ")");

/// How a server listens, and whom it lets in.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`
    pub listen: String,
    pub tls: Option<TlsFiles>,
    pub authentication: Authentication,
    /// Sessions at a time.
    pub connections: usize,
}

impl Options {
    /// For clients of this machine, without passwords and encryption.
    pub fn loopback(listen: &str) -> Options {
        let (tls, authentication) = (None, Authentication::Trust);
        Options { listen: listen.to_string(), tls, authentication, connections: limits::CONNECTIONS }
    }
}

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
    tls: Option<Tls>,
    authentication: Authentication,
    failures: Failures,
    arrivals: Arrivals,
    cancels: Arc<cancel::Registry>,
    /// A permit per session, of so many.
    sessions: Arc<Semaphore>,
    connections: usize,
    /// A permit per client that has not proven yet who it is.
    startups: Arc<Semaphore>,
    /// No new statements.
    stopping: CancellationToken,
    /// No statements at all.
    killed: CancellationToken,
}

impl Server {
    /// Listens. Addresses that other machines can reach need encryption and passwords. Sessions run on `queries`, which must
    /// not be the runtime that [`Server::run`] runs on.
    pub async fn bind(options: &Options, backend: Arc<dyn Backend>, queries: Handle) -> Result<Server> {
        let listen = &options.listen;
        let addresses = resolve(listen).await?;
        if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
            check_public(options, backend.as_ref(), address)?;
        }
        let shared = Arc::new(Shared::new(options, backend, queries)?);
        let listener = TcpListener::bind(&*addresses).await;
        let listener = listener.map_err(|error| Error::io(format!("cannot listen on {listen}: {error}")))?;
        Ok(Server { listener, shared })
    }

    /// Something that reads the certificate again, for connections from then on.
    pub fn reloader(&self) -> impl Fn() + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || match shared.tls.as_ref().map(Tls::reload) {
            None => tracing::info!("there is no certificate to be read again"),
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the certificate stays as it was"),
        }
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
                    Ok((socket, address)) => self.shared.welcome(socket, address),
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
    fn new(options: &Options, backend: Arc<dyn Backend>, queries: Handle) -> Result<Shared> {
        let connections = options.connections;
        Ok(Shared {
            backend,
            queries,
            tls: options.tls.clone().map(Tls::load).transpose()?,
            authentication: options.authentication,
            failures: Failures::default(),
            arrivals: Arrivals::default(),
            cancels: Arc::default(),
            sessions: Arc::new(Semaphore::new(connections)),
            connections,
            startups: Arc::new(Semaphore::new(connections)),
            stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
        })
    }

    /// Room for a client that has still to prove who it is: of one address, for half of them.
    fn arrive(&self, address: Option<IpAddr>) -> Option<Arrival> {
        let permit = self.startups.clone().try_acquire_owned().ok()?;
        self.arrivals.enter(address, self.connections / 2, permit)
    }

    fn welcome(self: &Arc<Self>, socket: TcpStream, address: SocketAddr) {
        // Beyond the bound of those that have not even spoken, closing the socket is the only answer we can afford.
        let Some(arrival) = self.arrive(Some(address.ip())) else { return };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a socket has failed already");
        }
        let peer = Peer { address: Some(address.ip()), port: Some(address.port()), ..Peer::default() };
        tokio::spawn(connection::serve(self.clone(), socket, peer, arrival));
    }

    /// A place for a session. The last ones are for superusers, who can find out why there are no others.
    fn seat(&self, user: &str) -> Result<OwnedSemaphorePermit> {
        let full = |message: &str| {
            Error::too_many_connections(message)
                .with_hint(format!("the server takes {} at a time (--max-connections)", self.connections))
        };
        let Ok(seat) = self.sessions.clone().try_acquire_owned() else {
            return Err(full("sorry, too many clients already"));
        };
        if self.sessions.available_permits() < limits::SUPERUSER_CONNECTIONS && !self.backend.is_superuser(user) {
            return Err(full("remaining connection slots are reserved for superuser connections"));
        }
        Ok(seat)
    }

    async fn end(&self) {
        self.stopping.cancel();
        // All permits are there when all sessions have ended.
        let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits::SHUTDOWN_TIME, self.sessions.acquire_many(all)).await.is_err() {
            tracing::warn!("statements still run: they are ended now");
            self.killed.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(2), self.sessions.acquire_many(all)).await;
        }
    }
}

/// The addresses of `listen`.
async fn resolve(listen: &str) -> Result<Vec<SocketAddr>> {
    let addresses = tokio::net::lookup_host(listen).await;
    let addresses = addresses.map_err(|error| {
        let hint = "write it as host:port, for example 127.0.0.1:6433";
        Error::invalid_parameter(format!("cannot listen on \"{listen}\": {error}")).with_hint(hint)
    })?;
    Ok(addresses.collect())
}

/// Other machines can reach this address: what is missing before they may?
fn check_public(options: &Options, backend: &dyn Backend, address: &SocketAddr) -> Result<()> {
    let mut missing = Vec::new();
    if options.tls.is_none() {
        missing.push("--tls-cert and --tls-key (TIDEGATE_TLS_CERT, TIDEGATE_TLS_KEY): the server's certificate and its key");
    }
    if options.authentication == Authentication::Trust {
        missing.push("--auth scram-sha-256 (TIDEGATE_AUTH): passwords are asked for");
    }
    if !backend.has_passwords() {
        missing.push("--password-file (TIDEGATE_PASSWORD_FILE, or TIDEGATE_PASSWORD): the first password of the superuser");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("refusing to listen on {address}, which other machines can reach, without encryption and passwords");
    Err(Error::invalid_parameter(message).with_hint(format!("missing: {}", missing.join("; "))))
}
