//! A connection from its first byte: startup, the proof of who it is, then a task that reads for the session until one of them ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authenticate::{self, Arrival, Authentication, Peer};
use super::cancel::{Interrupt, Registration};
use super::conversation::Conversation;
use super::frontend::Input;
use super::output::{Fault, Output};
use super::startup::{self, Refused, Request, Startup, Stream};
use super::{SERVER_VERSION, Shared, backend};
use crate::error::Error;
use crate::limits;
use crate::session;

/// Serves a client, whose `arrival` ends when it has proven who it is. Runs on the network's runtime.
pub(super) async fn serve<S: Stream>(shared: Arc<Shared>, stream: S, mut peer: Peer, arrival: Arrival) {
    let begun = tokio::select! {
        begun = tokio::time::timeout(limits::STARTUP_TIME, begin(&shared, stream, &mut peer)) => begun,
        () = shared.stopping.cancelled() => return,
    };
    drop(arrival);
    match begun {
        Ok(Ok(Some(Begun { stream, startup, greeting }))) => {
            let interrupt = Arc::new(Interrupt::new(shared.killed.clone()));
            let (sender, chunks) = mpsc::channel(limits::READS_AHEAD);
            let gone = interrupt.gone.clone();
            let stream = {
                let _there = shared.queries.enter();
                Box::new(stream).move_here()
            };
            let Ok(stream) = stream else { return };
            let (reader, writer) = tokio::io::split(stream);
            let mut output = Output::new(writer);
            output.buffer().extend(greeting);
            let peer = session::Peer { address: peer.address, port: peer.port, is_encrypted: peer.is_encrypted };
            let session = hold(shared.clone(), startup, peer, Input::new(chunks), output, interrupt);
            shared.queries.spawn(session);
            shared.queries.spawn(forward(reader, sender, gone));
        }
        Ok(Err(Refused { stream: Some(stream), fault: Fault::Statement(error) | Fault::Fatal(error) })) => {
            farewell(&mut Output::new(stream), &error).await;
        }
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}

/// A client that has proven who it is.
struct Begun {
    stream: Box<dyn Stream>,
    startup: Startup,
    /// What it is still to be told of that.
    greeting: Vec<u8>,
}

/// From the first byte to the last proof; `None` if it only wanted to cancel a statement.
async fn begin<S: Stream>(shared: &Shared, stream: S, peer: &mut Peer) -> Result<Option<Begun>, Refused> {
    let (mut stream, request) = startup::receive(stream, shared.tls.as_ref(), peer).await?;
    let startup = match request {
        Request::Session(startup) => startup,
        Request::Cancel { process, secret } => {
            shared.cancels.cancel(process, &secret);
            return Ok(None);
        }
    };
    let mut greeting = Vec::new();
    match admit(shared, &mut stream, &startup, peer, &mut greeting).await {
        Ok(()) => Ok(Some(Begun { stream, startup, greeting })),
        Err(fault) => Err(Refused { stream: Some(stream), fault }),
    }
}

async fn admit<S: Stream>(
    shared: &Shared,
    stream: &mut S,
    startup: &Startup,
    peer: &Peer,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if !peer.is_encrypted && peer.address.is_some_and(|address| !address.to_canonical().is_loopback()) {
        let error = Error::invalid_authorization("connections from other machines must be encrypted");
        return Err(error.with_hint("connect with sslmode=require, or better verify-full").into());
    }
    if let Some((version, unknown)) = &startup.negotiate {
        backend::negotiate_version(out, *version, unknown);
    }
    if shared.authentication == Authentication::Trust {
        return Ok(());
    }
    tokio::time::sleep(shared.failures.delay(peer.address, Instant::now())).await;
    let login = shared.backend.login(&startup.user);
    match authenticate::prove(stream, out, &startup.user, login, peer).await {
        Err(Fault::Statement(error)) => {
            shared.failures.failed(peer.address, Instant::now());
            tracing::warn!(user = startup.user, address = ?peer.address, "a client was not let in: {}", error.message());
            Err(Fault::Fatal(error))
        }
        proven => {
            if proven.is_ok() {
                shared.failures.succeeded(peer.address);
            }
            proven
        }
    }
}

/// Hands over what the client sends, until it or the session has gone. While the session is busy and has all it may have in
/// advance, the client is not read, and has to wait.
async fn forward<R: AsyncRead + Unpin>(mut reader: R, chunks: mpsc::Sender<BytesMut>, gone: CancellationToken) {
    // Most messages are short; a buffer that was filled says that more is on its way.
    const SHORT: usize = 4 << 10;
    let mut room = SHORT;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(room);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read,
            () = chunks.closed() => return,
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => room = if read < room { SHORT } else { limits::READ_BYTES },
        }
        if chunks.send(buffer.split()).await.is_err() {
            return;
        }
    }
    gone.cancel();
}

/// The life of a session. Runs on the runtime for queries.
async fn hold<W>(
    shared: Arc<Shared>,
    startup: Startup,
    peer: session::Peer,
    input: Input,
    mut output: Output<W>,
    interrupt: Arc<Interrupt>,
) where
    W: AsyncWrite + Unpin + Send,
{
    let _permit = match shared.seat(&startup.user) {
        Ok(permit) => permit,
        Err(error) => return farewell(&mut output, &error).await,
    };
    let mut session = match shared.backend.connect(&startup.user, &startup.database, &startup.settings) {
        Ok(session) => session,
        Err(error) => return farewell(&mut output, &error).await,
    };
    // Forgotten when this ends, however it ends.
    let registration = match shared.cancels.register(session.number(), startup.secret_length, interrupt.clone()) {
        Ok(registration) => registration,
        Err(error) => return farewell(&mut output, &error).await,
    };
    session.attach(peer, interrupt.clone());
    let mut conversation = Conversation::new(session, input, output, interrupt, shared.stopping.clone());
    greet(conversation.buffer(), &startup, shared.backend.is_superuser(&startup.user), &registration);
    // A fault of ours in one session must not be one of the others.
    let held = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(conversation.hold())).await;
    let error = match held {
        Ok(Ok(()) | Err(Fault::Gone)) => None,
        Ok(Err(Fault::Statement(error) | Fault::Fatal(error))) => Some(error),
        Err(_) => Some(Error::internal("a fault of the server ended this session")),
    };
    let mut output = conversation.into_output();
    match error {
        Some(error) => farewell(&mut output, &error).await,
        None => output.close().await,
    }
}

/// What a client is told before its first statement. The session adds where it differs.
fn greet(out: &mut Vec<u8>, startup: &Startup, is_superuser: bool, registration: &Registration) {
    backend::authentication_ok(out);
    let settings = [
        ("server_version", SERVER_VERSION),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", ""),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("is_superuser", if is_superuser { "on" } else { "off" }),
        ("session_authorization", &startup.user),
    ];
    settings.iter().for_each(|(name, value)| backend::parameter_status(out, name, value));
    backend::backend_key(out, registration.process, &registration.secret);
}

/// Says why the connection is closed, to a client that may not listen.
async fn farewell<W: AsyncWrite + Unpin>(output: &mut Output<W>, error: &Error) {
    backend::fatal(output.buffer(), error);
    let _ = tokio::time::timeout(Duration::from_secs(1), output.flush()).await;
    output.close().await;
}
