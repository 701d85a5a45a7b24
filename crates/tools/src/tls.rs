//! The client's side of TLS: whom it trusts, and as whom it speaks.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// What a client of https:// goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The authorities, as PEM; those of the system if there is none.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("{}: {why}", file.display())]
    File { file: PathBuf, why: String },
    #[error("the system has no certificates of authorities: name a file of them with --tls-ca")]
    NoAuthorities,
    #[error("'{0}' is no name of a server")]
    Name(String),
    #[error("{0}")]
    Library(String),
}

impl TrustError {
    #[allow(clippy::needless_pass_by_value, reason = "errors are passed on")]
    fn file(file: &Path, why: impl ToString) -> Self {
        Self::File { file: file.to_owned(), why: why.to_string() }
    }
}

/// A certificate with those behind it, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Trust {
    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        if let Some(file) = &self.ca {
            return certificates(file);
        }
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() { Err(TrustError::NoAuthorities) } else { Ok(found) }
    }

    fn identity(&self) -> Result<Option<Identity>, TrustError> {
        let Some((cert, key)) = &self.identity else { return Ok(None) };
        let read = PrivateKeyDer::from_pem_file(key);
        let read = read.map_err(|error| TrustError::file(key, error))?;
        Ok(Some((certificates(cert)?, read)))
    }

    /// For requests over HTTP.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn for_agent(&self) -> Result<TlsConfig, TrustError> {
        let roots = self.authorities()?;
        let roots: Vec<_> =
            roots.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(provider);
        if let Some((_, key_file)) = &self.identity
            && let Some((chain, _)) = self.identity()?
        {
            let fail = |error: &dyn std::fmt::Display| TrustError::file(key_file, error);
            let text = std::fs::read(key_file).map_err(|error| fail(&error))?;
            let key = PrivateKey::from_pem(&text).map_err(|error| fail(&error))?;
            let chain: Vec<_> =
                chain.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect();
            config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(config.build())
    }

    /// For connections to `host`, `HOST:PORT`, over which `protocol` is spoken (its name in ALPN).
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn connector(&self, host: &str, protocol: &[u8]) -> Result<Connector, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities()?);
        let library = |error: rustls::Error| TrustError::Library(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(library)?
            .with_root_certificates(roots);
        let mut config = match self.identity()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(library)?,
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| TrustError::Name(name))?;
        Ok(Connector { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let read = CertificateDer::pem_file_iter(file);
    let read = read.map_err(|error| TrustError::file(file, error))?;
    let all: Result<Vec<_>, _> = read.collect();
    let all = all.map_err(|error| TrustError::file(file, error))?;
    if all.is_empty() {
        return Err(TrustError::file(file, "there is no certificate in it (PEM)"));
    }
    Ok(all)
}

/// Makes encrypted connections to one server.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({:?})", self.name)
    }
}

/// A connection to a server, plain or encrypted.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Encrypts a connection, if it is to be.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn over(stream: TcpStream, connector: Option<&Connector>) -> io::Result<Self> {
        let Some(Connector { connector, name }) = connector else { return Ok(Self::Plain(stream)) };
        Ok(Self::Tls(Box::new(connector.connect(name.clone(), stream).await?)))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What helps with an error of TLS: a sentence to put behind it.
#[must_use]
pub fn remedy(error: &str) -> &'static str {
    let foreign = ["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"];
    if foreign.iter().any(|why| error.contains(why)) {
        ": its certificate is of no authority that is trusted here (--tls-ca FILE)"
    } else if error.contains("NotValidForName") {
        ": its certificate is for another name"
    } else if error.contains("expired") || error.contains("Expired") {
        ": its certificate has expired"
    } else if error.contains("CertificateRequired") {
        ": it asks for a certificate of the client (--tls-cert FILE --tls-key FILE)"
    } else if error.contains("InvalidContentType") {
        ": it does not speak TLS (use http://)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let trust = Trust { ca: Some(file.clone()), identity: None };
        let told = trust.connector("h:1", b"h2").unwrap_err().to_string();
        assert!(told.contains("ca.pem: "), "{told}");
        std::fs::write(&file, "nothing").unwrap();
        let told = trust.connector("h:1", b"h2").unwrap_err().to_string();
        assert!(told.ends_with("there is no certificate in it (PEM)"), "{told}");
        assert!(trust.for_agent().is_err());
    }
}
