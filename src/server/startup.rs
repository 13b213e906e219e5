//! The first packets of a connection: encryption agreed on or refused, a protocol version agreed on, a client that says who it
//! is, or one that only wants to cancel another's statement.
//!
//! Packets are read one by one and never beyond their end, so that nothing sent ahead of an answer is taken for more than it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::authenticate::Peer;
use super::frontend::Fields;
use super::output::Fault;
use super::tls::{Encrypted, Tls};
use crate::error::{Error, Result};
use crate::limits;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const VERSION_3: u32 = 3 << 16;
const VERSION_3_2: u32 = VERSION_3 | 2;

#[derive(Debug)]
pub enum Request {
    Session(Startup),
    Cancel { process: i32, secret: Vec<u8> },
}

#[derive(Debug)]
pub struct Startup {
    /// Bytes of the secret that cancels this session's statements: more since protocol 3.2.
    pub secret_length: usize,
    /// The client asked for what we don't know: it is told the version and the options that are not spoken.
    pub negotiate: Option<(u32, Vec<String>)>,
    pub user: String,
    pub database: String,
    pub settings: Vec<(String, String)>,
}

/// Reads up to the request itself. The stream becomes an encrypted one if the client asks for that and there is a
/// certificate. Its `peer` is told so.
pub(super) async fn receive<S: Stream>(
    mut stream: S,
    tls: Option<&Tls>,
    peer: &mut Peer,
) -> Result<(Box<dyn Stream>, Request), Refused> {
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(_) => return Err(Refused::silently()),
    };
    if first == TLS_HANDSHAKE {
        // Encrypted from the first byte on; what is not ours to decrypt is not ours to answer.
        let Some(tls) = tls else { return Err(Refused::silently()) };
        return encrypted(tls, Replay { first: Some(first), stream }, true, peer).await;
    }
    match negotiate(&mut stream, first, tls.is_some()).await {
        Ok(Negotiated::Request(request)) => Ok((Box::new(stream), request)),
        Ok(Negotiated::Encrypt) => match tls {
            Some(tls) => encrypted(tls, stream, false, peer).await,
            None => Err(Refused::silently()),
        },
        Err(fault) => Err(Refused { stream: Some(Box::new(stream)), fault }),
    }
}

/// A client that does not come in, and the connection that it can be told on.
pub(super) struct Refused {
    pub stream: Option<Box<dyn Stream>>,
    pub fault: Fault,
}

impl Refused {
    fn silently() -> Refused {
        Refused { stream: None, fault: Fault::Gone }
    }
}

/// A connection, whatever carries it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// From now on the current runtime watches it, where that can be changed: a thread that is woken by it then does the work.
    fn move_here(self: Box<Self>) -> std::io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn move_here(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(Box::new(TcpStream::from_std(self.into_std()?)?))
    }
}

/// What carries it cannot be taken out of it.
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for TlsStream<S> {
    fn move_here(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(self)
    }
}

impl Stream for Box<dyn Stream> {
    fn move_here(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        (*self).move_here()
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn move_here(self: Box<Self>) -> std::io::Result<Box<dyn Stream>> {
        Ok(self)
    }
}

/// The first byte of TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// The handshake, and the request that comes after it. Bytes that the client sent ahead of our answer are taken for a part of
/// the handshake and nothing else, so that nobody between us can put words before it that count as the client's.
async fn encrypted<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    tls: &Tls,
    stream: S,
    direct: bool,
    peer: &mut Peer,
) -> Result<(Box<dyn Stream>, Request), Refused> {
    let Encrypted { mut stream, end_point } = match tls.accept(stream, direct).await {
        Ok(encrypted) => encrypted,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return Err(Refused::silently());
        }
    };
    (peer.is_encrypted, peer.end_point) = (true, end_point);
    let request = async {
        let first = stream.read_u8().await?;
        match negotiate(&mut stream, first, false).await? {
            Negotiated::Request(request) => Ok(request),
            Negotiated::Encrypt => Err(Fault::Gone),
        }
    };
    match request.await {
        Ok(request) => Ok((Box::new(stream), request)),
        Err(fault) => Err(Refused { stream: Some(Box::new(stream)), fault }),
    }
}

enum Negotiated {
    Request(Request),
    /// The client was told that it may begin the handshake.
    Encrypt,
}

/// `first`: the byte that was read already.
async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, first: u8, can_encrypt: bool) -> Result<Negotiated, Fault> {
    let mut first = Some(first);
    // Once each for both kinds of encryption, then the request itself.
    for _ in 0..3 {
        let mut packet = Fields(packet(stream, first.take()).await?);
        match packet.i32()? as u32 {
            SSL if can_encrypt => {
                stream.write_all(b"S").await?;
                stream.flush().await?;
                return Ok(Negotiated::Encrypt);
            }
            SSL | GSS => {
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            CANCEL => {
                let (process, secret) = (packet.i32()?, packet.0.to_vec());
                return Ok(Negotiated::Request(Request::Cancel { process, secret }));
            }
            version if version >> 16 == 3 => return Ok(Negotiated::Request(Request::Session(startup(version, packet)?))),
            version => {
                let message =
                    format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", version >> 16, version & 0xffff);
                return Err(Error::unsupported(message).into());
            }
        }
    }
    Err(Error::protocol_violation("encryption was refused already").into())
}

/// A stream whose first byte was read already.
struct Replay<S> {
    first: Option<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.first.take_if(|_| buffer.remaining() > 0) {
            Some(first) => {
                buffer.put_slice(&[first]);
                Poll::Ready(Ok(()))
            }
            None => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A packet without its length.
async fn packet<R: AsyncRead + Unpin>(reader: &mut R, first: Option<u8>) -> Result<Bytes, Fault> {
    let mut head = [0; 4];
    let read = first.map_or(0, |first| {
        head[0] = first;
        1
    });
    reader.read_exact(&mut head[read..]).await?;
    let length = u32::from_be_bytes(head) as usize;
    if !(8..=limits::STARTUP_BYTES).contains(&length) {
        return Err(Error::protocol_violation("invalid length of startup packet").into());
    }
    let mut packet = vec![0; length - 4];
    reader.read_exact(&mut packet).await?;
    Ok(packet.into())
}

fn startup(version: u32, mut packet: Fields) -> Result<Startup> {
    let (mut user, mut database, mut settings, mut unknown) = (String::new(), String::new(), Vec::new(), Vec::new());
    while packet.0.first().is_some_and(|first| *first != 0) {
        let (name, value) = (packet.string()?, packet.string()?);
        match name.as_str() {
            "user" => user = value,
            "database" => database = value,
            "options" => settings.extend(options(&value)?),
            "replication" if ["true", "on", "yes", "1", "database"].contains(&value.as_str()) => {
                return Err(Error::unsupported("replication connections are not supported"));
            }
            "replication" => {}
            name if name.starts_with("_pq_.") => unknown.push(name.to_string()),
            _ => settings.push((name, value)),
        }
    }
    if packet.0.len() != 1 {
        return Err(Error::protocol_violation("invalid startup packet layout: expected terminator as last byte"));
    }
    if user.is_empty() {
        return Err(Error::invalid_authorization("no user name specified in startup packet"));
    }
    if database.is_empty() {
        database.clone_from(&user);
    }
    let spoken = version.min(VERSION_3_2);
    let negotiate = (spoken != version || !unknown.is_empty()).then_some((spoken, unknown));
    Ok(Startup { secret_length: if spoken < VERSION_3_2 { 4 } else { 32 }, negotiate, user, database, settings })
}

/// `-c name=value` and `--name=value`; a backslash keeps a space in a word.
fn options(text: &str) -> Result<Vec<(String, String)>> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (space, _) if space.is_ascii_whitespace() => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => Some(setting.to_string()),
            (None, Some("")) => words.next(),
            (None, Some(setting)) => Some(setting.to_string()),
            (None, None) => None,
        };
        let Some((name, value)) = setting.as_deref().and_then(|setting| setting.split_once('=')) else {
            return Err(Error::syntax(format!("invalid command-line argument for server process: {word}"))
                .with_hint("write -c name=value"));
        };
        settings.push((name.replace('-', "_"), value.to_string()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("-c geqo=off --search-path=a,b", &[("geqo", "off"), ("search_path", "a,b")])]
    #[case(r"-cTimeZone=Europe/Berlin -c application_name=a\ b", &[("TimeZone", "Europe/Berlin"), ("application_name", "a b")])]
    #[case("", &[])]
    fn options_are_settings(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let settings = options(text).expect("the options are well formed");
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(settings, expected);
    }

    #[rstest::rstest]
    #[case("-c")]
    #[case("-x 1")]
    #[case("--a")]
    fn other_options_are_refused(#[case] text: &str) {
        assert!(options(text).is_err());
    }
}
