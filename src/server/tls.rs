//! Encryption: the server's certificate, read when it starts and again at SIGHUP, and what a password exchange binds to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Error, Result};

/// The protocol that a client names when it encrypts from its first byte on.
const ALPN: &[u8] = b"postgresql";

/// Where the certificate and its key are, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and after it those that vouch for it.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Encrypts connections.
pub(super) struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
}

/// An encrypted connection, and the hash of the certificate that it was shown (`tls-server-end-point`), if that has one.
pub(super) struct Encrypted<S> {
    pub stream: TlsStream<S>,
    pub end_point: Option<Arc<[u8]>>,
}

impl Tls {
    pub fn load(files: TlsFiles) -> Result<Tls> {
        let current = ArcSwap::from_pointee(Loaded::read(&files)?);
        Ok(Tls { files, current })
    }

    /// Reads the files again, for connections from now on. When they can't be used, what is there stays in use.
    pub fn reload(&self) -> Result<()> {
        self.current.store(Arc::new(Loaded::read(&self.files)?));
        Ok(())
    }

    /// `direct`: the client did not ask first, so it must say by ALPN that it speaks our protocol, and not another that
    /// somebody made it send here.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, direct: bool) -> std::io::Result<Encrypted<S>> {
        let loaded = self.current.load_full();
        let stream = loaded.acceptor.accept(stream).await?;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(std::io::Error::other("direct TLS without ALPN"));
        }
        Ok(Encrypted { stream, end_point: loaded.end_point.clone() })
    }
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Loaded> {
        let TlsFiles { certificate, key } = files;
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain: Vec<CertificateDer<'static>> =
            chain.map_err(|error| unusable("certificate", certificate, &error.to_string()))?;
        let Some(own) = chain.first() else {
            return Err(unusable("certificate", certificate, "there is none in it"));
        };
        let end_point = end_point(own).map(Arc::from);
        check_permissions(key)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("key", key, &error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
        let mut config = config.map_err(|error| unusable("certificate", certificate, &error.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Loaded { acceptor: TlsAcceptor::from(Arc::new(config)), end_point })
    }
}

fn unusable(what: &str, path: &Path, why: &str) -> Error {
    Error::invalid_parameter(format!("cannot use the TLS {what} in {}: {why}", path.display()))
        .with_hint("--tls-cert (TIDEGATE_TLS_CERT) and --tls-key (TIDEGATE_TLS_KEY) name PEM files that belong together")
}

/// A key that others on the machine may read is no secret.
fn check_permissions(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(|error| unusable("key", path, &error.to_string()))?;
    // The key of root may be read by a group that the server is in, as packages of certificates set it up.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    match metadata.mode() & forbidden {
        0 => Ok(()),
        _ => Err(Error::invalid_parameter(format!("the TLS key in {} has group or world access", path.display()))
            .with_hint("chmod 600 it; a file of root's may be 640")),
    }
}

/// `tls-server-end-point` (RFC 5929): the certificate, hashed as its signature is, but not weaker than SHA-256. `None` for
/// signatures without a hash of their own: such a connection cannot be bound to.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use ring::digest::{SHA256, SHA384, SHA512, digest};
    const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

    let (_, body, _) = element(certificate)?;
    let (_, _, rest) = element(body)?;
    let (_, algorithm, _) = element(rest)?;
    let (_, id, parameters) = element(algorithm)?;
    let pss_hash = || -> Option<u8> {
        let (_, all, _) = element(parameters)?;
        let (tag, hash, _) = element(all)?;
        let (_, algorithm, _) = if tag == 0xa0 { element(hash)? } else { return None };
        let (_, id, _) = element(algorithm)?;
        id.strip_prefix(&SHA2)?.first().copied()
    };
    let hash = match (id.strip_prefix(&RSA), id.strip_prefix(&ECDSA_SHA2)) {
        // MD5 and SHA-1.
        (Some([4 | 5]), _) => &SHA256,
        (Some([11]), _) | (_, Some([2])) => &SHA256,
        (Some([12]), _) | (_, Some([3])) => &SHA384,
        (Some([13]), _) | (_, Some([4])) => &SHA512,
        (Some([10]), _) => match pss_hash()? {
            1 => &SHA256,
            2 => &SHA384,
            3 => &SHA512,
            _ => return None,
        },
        _ => return None,
    };
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// The first element of DER: its tag, what is in it, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            let (bytes, rest) = (count <= 4).then(|| rest.split_at_checked(count))??;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((tag, inside, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as far as its hash depends on it.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let body = [&[0x30, 0x02, 0x05, 0x00], algorithm].concat();
        [&[0x30, body.len() as u8], body.as_slice()].concat()
    }

    #[rstest::rstest]
    #[case::ecdsa_sha256(&[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], Some(32))]
    #[case::ecdsa_sha384(&[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], Some(48))]
    #[case::rsa_sha1(&[0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], Some(32))]
    #[case::rsa_sha512(&[0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], Some(64))]
    #[case::ed25519(&[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70], None)]
    #[case::cut_off(&[0x30, 0x0a, 0x06], None)]
    fn hashes_as_the_signature_does(#[case] algorithm: &[u8], #[case] length: Option<usize>) {
        assert_eq!(end_point(&certificate(algorithm)).map(|hash| hash.len()), length);
    }

    #[test]
    fn der_that_promises_too_much_is_nothing() {
        for bytes in [&[0x30][..], &[0x30, 0x05, 0x00], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x85, 1, 1, 1, 1, 1]] {
            assert_eq!(element(bytes), None);
        }
    }
}
