//! The first packets of a connection: encryption refused, a protocol version agreed on, a client that says who it is, or one
//! that only wants to cancel another's statement.
//!
//! Packets are read one by one and never beyond their end, so that nothing sent ahead of an answer is taken for more than it is.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use bytes::Bytes;

use super::frontend::Fields;
use super::output::Fault;
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

pub async fn receive<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(reader: &mut R, writer: &mut W) -> Result<Request, Fault> {
    // Once each for both kinds of encryption, then the request itself.
    for _ in 0..3 {
        let mut packet = Fields(packet(reader).await?);
        match packet.i32()? as u32 {
            SSL | GSS => {
                writer.write_all(b"N").await?;
                writer.flush().await?;
            }
            CANCEL => return Ok(Request::Cancel { process: packet.i32()?, secret: packet.0.to_vec() }),
            version if version >> 16 == 3 => return Ok(Request::Session(startup(version, packet)?)),
            version => {
                let message =
                    format!("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", version >> 16, version & 0xffff);
                return Err(Error::unsupported(message).into());
            }
        }
    }
    Err(Error::protocol_violation("encryption was refused already").into())
}

/// A packet without its length.
async fn packet<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Bytes, Fault> {
    let length = reader.read_u32().await? as usize;
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
