//! A connection from its first byte: startup, then a task that reads for the session until one of them ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cancel::{Interrupt, Registration};
use super::conversation::Conversation;
use super::frontend::Input;
use super::output::{Fault, Output};
use super::startup::{self, Request, Startup};
use super::{SERVER_VERSION, Shared, backend};
use crate::error::Error;
use crate::limits;

/// Serves a client, whose `permit` ends when it has said who it is. Runs on the network's runtime.
pub(super) async fn serve<R, W>(shared: Arc<Shared>, mut reader: R, mut writer: W, permit: OwnedSemaphorePermit)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let request = tokio::select! {
        request = tokio::time::timeout(limits::STARTUP_TIME, startup::receive(&mut reader, &mut writer)) => request,
        () = shared.stopping.cancelled() => return,
    };
    drop(permit);
    match request {
        Ok(Ok(Request::Cancel { process, secret })) => shared.cancels.cancel(process, &secret),
        Ok(Ok(Request::Session(startup))) => {
            let interrupt = Arc::new(Interrupt::new(shared.killed.clone()));
            let (sender, chunks) = mpsc::channel(limits::READS_AHEAD);
            let gone = interrupt.gone.clone();
            let session = hold(shared.clone(), startup, Input::new(chunks), Output::new(writer), interrupt);
            shared.queries.spawn(session);
            forward(reader, sender, gone).await;
        }
        Ok(Err(Fault::Statement(error) | Fault::Fatal(error))) => farewell(&mut Output::new(writer), &error).await,
        Ok(Err(Fault::Gone)) | Err(_) => {}
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
async fn hold<W>(shared: Arc<Shared>, startup: Startup, input: Input, mut output: Output<W>, interrupt: Arc<Interrupt>)
where
    W: AsyncWrite + Unpin + Send,
{
    let Ok(_permit) = shared.sessions.clone().try_acquire_owned() else {
        let error = Error::too_many_connections("sorry, too many clients already");
        return farewell(&mut output, &error.with_hint(format!("the server takes {} at a time", limits::CONNECTIONS))).await;
    };
    let session = match shared.backend.connect(&startup.user, &startup.database, &startup.settings) {
        Ok(session) => session,
        Err(error) => return farewell(&mut output, &error).await,
    };
    // Forgotten when this ends, however it ends.
    let registration = match shared.cancels.register(startup.secret_length, interrupt.clone()) {
        Ok(registration) => registration,
        Err(error) => return farewell(&mut output, &error).await,
    };
    let mut conversation = Conversation::new(session, input, output, interrupt, shared.stopping.clone());
    greet(conversation.buffer(), &startup, &registration);
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
fn greet(out: &mut Vec<u8>, startup: &Startup, registration: &Registration) {
    if let Some((version, unknown)) = &startup.negotiate {
        backend::negotiate_version(out, *version, unknown);
    }
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
        ("is_superuser", "on"),
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
