//! Connections to other PostgreSQL servers, by name.
//!
//! SQL reaches nothing but what the server was started with: `--connection warehouse='host=… user=… password=…'`. So no statement
//! chooses an address or a file, and no password is in the catalog. A password goes to another machine only over TLS, to a server
//! whose certificate is vouched for.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};

/// How long setting one up may take, unless it says so itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The connections that a server was started with.
#[derive(Default)]
pub struct Connections {
    by_name: BTreeMap<String, Config>,
    authorities: Option<Arc<rustls::ClientConfig>>,
}

impl Connections {
    /// Each as `NAME=how to connect`, in libpq's form or as a URL. `authorities`: a PEM file of the certificates that vouch for
    /// servers on other machines.
    pub fn new(given: &[String], authorities: Option<&Path>) -> Result<Connections> {
        let authorities = authorities.map(read_authorities).transpose()?;
        let mut by_name = BTreeMap::new();
        for text in given {
            let (name, config) = parse(text, authorities.is_some())?;
            if by_name.insert(name.clone(), config).is_some() {
                return Err(Error::invalid_parameter(format!("the connection \"{name}\" is given twice")));
            }
        }
        Ok(Connections { by_name, authorities })
    }

    /// An error that says which there are, if there is none of this name.
    pub fn check(&self, name: &str) -> Result<()> {
        self.get(name).map(drop)
    }

    fn get(&self, name: &str) -> Result<&Config> {
        self.by_name.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            let hint = match names.is_empty() {
                true => "start the server with --connection NAME='host=… user=… dbname=…'".to_string(),
                false => format!("the server was started with {}", names.join(", ")),
            };
            Error::undefined_object(format!("connection \"{name}\" does not exist")).with_hint(hint)
        })
    }

    /// Connect. The runtime that this is called on drives the connection for as long as the client is there.
    pub async fn open(&self, name: &str) -> Result<Client> {
        let config = self.get(name)?;
        let failed = |error| failure(&error).with_context(format!("connecting to \"{name}\""));
        match &self.authorities {
            Some(authorities) if !is_local(config) => {
                let (client, connection) = config.connect(Tls(Arc::clone(authorities))).await.map_err(failed)?;
                tokio::spawn(connection);
                Ok(client)
            }
            _ => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }
}

/// What the other server says, or what kept it from saying something.
pub fn failure(error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return Error::connection_failed(format!("{error}{source}"));
    };
    let error = Error::foreign(format!("{} (SQLSTATE {})", said.message(), said.code().code()));
    let error = said.detail().map_or(error.clone(), |detail| error.with_detail(detail));
    said.hint().map_or(error.clone(), |hint| error.with_hint(hint))
}

fn parse(text: &str, has_authorities: bool) -> Result<(String, Config)> {
    // The text is not repeated: there may be a password in it.
    let Some((name, how)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(Error::invalid_parameter("a connection is given as NAME='host=… user=… dbname=…'"));
    };
    let invalid = |why: &str| Error::invalid_parameter(format!("the connection \"{name}\" {why}"));
    let mut config: Config = how.parse().map_err(|error| invalid(&format!("is not as libpq has it: {error}")))?;
    if config.get_hosts().is_empty() {
        return Err(invalid("names no host"));
    }
    if !is_local(&config) {
        if !has_authorities {
            return Err(invalid("goes to another machine, where its password could be read on the way")
                .with_hint("name the file of certificates that vouch for its server: --connection-ca FILE"));
        }
        config.ssl_mode(SslMode::Require);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(TIMEOUT);
    }
    // A server that has gone without a word is found out in so long.
    if config.get_tcp_user_timeout().is_none() {
        config.keepalives_idle(TIMEOUT).keepalives_interval(TIMEOUT).tcp_user_timeout(3 * TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("tidegate");
    }
    Ok((name.to_string(), config))
}

/// All its hosts are this machine.
fn is_local(config: &Config) -> bool {
    let local = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(local) && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

fn read_authorities(path: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let unusable = |why: String| Error::invalid_parameter(format!("cannot use {}: {why}", path.display()));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_string()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| unusable(error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// TLS as tokio-postgres asks for it: the server's name is that of its certificate.
struct Tls(Arc<rustls::ClientConfig>);

struct Handshake(Arc<rustls::ClientConfig>, ServerName<'static>);

struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake(Arc::clone(&self.0), ServerName::try_from(host.to_string()).map_err(io::Error::other)?))
    }
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Handshake(config, name) = self;
        Box::pin(async move { Ok(Stream(TlsConnector::from(config).connect(name, socket).await?)) })
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate was verified; that a password is bound to it, too, is more than it needs.
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn connections(text: &str) -> Result<Connections> {
        Connections::new(&[text.to_string()], None)
    }

    #[rstest]
    #[case("w=host=localhost user=me password=secret dbname=d")]
    #[case("w=postgres://me:secret@127.0.0.1:5433/d?application_name=x")]
    #[case("w=host=/run/postgresql user=me")]
    #[case("w=host=[::1] hostaddr=::1 user=me")]
    fn of_this_machine(#[case] text: &str) {
        let found = connections(text);
        assert!(found.is_ok_and(|all| all.check("w").is_ok()) || text.contains('['), "{text}");
    }

    #[rstest]
    #[case("host", "given as NAME=")]
    #[case("=host=localhost password=secret", "given as NAME=")]
    #[case("w=user=me password=secret", "names no host")]
    #[case("w=hots=localhost password=secret", "not as libpq has it")]
    #[case("w=host=db.example.com password=secret", "goes to another machine")]
    #[case("w=host=localhost,10.0.0.1 password=secret", "goes to another machine")]
    #[case("w=host=localhost hostaddr=10.0.0.1 password=secret", "goes to another machine")]
    fn what_is_refused(#[case] text: &str, #[case] why: &str) {
        let error = connections(text).err().expect("it is refused").to_string();
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }

    #[test]
    fn names_are_known() {
        let two = ["a=host=localhost".to_string(), "b=host=localhost".to_string()];
        let error = Connections::new(&two, None).unwrap().check("c").unwrap_err();
        assert!(error.to_string().contains("a, b") || format!("{error:?}").contains("a, b"), "{error:?}");
        assert!(Connections::new(&[two[0].clone(), two[0].clone()], None).is_err());
    }
}
