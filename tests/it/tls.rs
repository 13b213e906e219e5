//! A driver over TLS: the server's name is checked against its certificate (`verify-full`), and passwords are bound to it
//! (SCRAM-SHA-256-PLUS), so that nobody in between can pass them on.

use std::future::Future;
use std::io::{Error, Result};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::ChannelBinding as Binding;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Socket};
use tokio_rustls::{TlsConnector, client, rustls};

use crate::security::{PASSWORD, certificate, guarded};

/// How a client begins TLS: whom it trusts, and what it binds its password to.
#[derive(Clone)]
struct Tls {
    config: Arc<rustls::ClientConfig>,
    /// In the place of the certificate that the server has shown: as one in between would have it.
    binds_to: Option<Vec<u8>>,
}

/// The same for one server.
struct Named(Tls, ServerName<'static>);

struct Stream {
    tls: client::TlsStream<Socket>,
    binding: Vec<u8>,
}

impl Tls {
    fn trusting(certificate: &Path) -> Tls {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Tls { config: Arc::new(builder.with_root_certificates(roots).with_no_client_auth()), binds_to: None }
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Named;
    type Error = Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Named> {
        Ok(Named(self.clone(), ServerName::try_from(domain.to_string()).map_err(Error::other)?))
    }
}

impl TlsConnect<Socket> for Named {
    type Stream = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Named(Tls { config, binds_to }, name) = self;
        Box::pin(async move {
            let tls = TlsConnector::from(config).connect(name, socket).await?;
            let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first).expect("a server shows a certificate");
            // tls-server-end-point: the certificate under the digest of its own signature.
            let binding = binds_to.unwrap_or_else(|| ring::digest::digest(&ring::digest::SHA256, shown).as_ref().to_vec());
            Ok(Stream { tls, binding })
        })
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::tls_server_end_point(self.binding.clone())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

async fn connect(port: u16, host: &str, binding: Binding, tls: Tls) -> std::result::Result<Client, String> {
    let mut config = Config::new();
    config.host(host).port(port).user("tidegate").dbname("tidegate").password(PASSWORD);
    config.ssl_mode(tokio_postgres::config::SslMode::Require).channel_binding(binding);
    // What the server says, or what the handshake failed by.
    let (client, connection) = config.connect(tls).await.map_err(|error| match error.as_db_error() {
        Some(said) => format!("{} {}", said.code().code(), said.message()),
        None => std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
    })?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_checks_the_server_and_binds_its_password() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = guarded(directory.path()).await;
    let port = server.port();
    let tls = Tls::trusting(&directory.path().join("server.crt"));
    for binding in [Binding::Disable, Binding::Prefer, Binding::Require] {
        let client = connect(port, "localhost", binding, tls.clone()).await.unwrap();
        let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{binding:?}");
    }

    // The certificate is for localhost, not for an address.
    let refused = connect(port, "127.0.0.1", Binding::Prefer, tls.clone()).await.err().unwrap();
    assert!(refused.contains("certificate not valid for name"), "{refused}");
    // Nor is it of another authority.
    certificate(other.path());
    let stranger = Tls::trusting(&other.path().join("server.crt"));
    let refused = connect(port, "localhost", Binding::Prefer, stranger).await.err().unwrap();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    // One in between shows the client a certificate of its own, and passes on what it says.
    let between = Tls { binds_to: Some(vec![7; 32]), ..tls };
    let refused = connect(port, "localhost", Binding::Require, between).await.err().unwrap();
    assert!(refused.starts_with("28"), "{refused}");
}
