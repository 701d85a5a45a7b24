//! A client of HTTP/1.1 over TLS, and certificates for it.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::served::{PATIENCE, read_answer};

/// Makes a certificate by the command line; `more` are further arguments.
pub fn self_signed(dir: &Path, more: &[&str]) -> (PathBuf, PathBuf) {
    let made = Command::new(crate::binary())
        .args(["cert", "self-signed"])
        .arg(dir)
        .args(more)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (dir.join("cert.pem"), dir.join("key.pem"))
}

/// The table of the config that names them.
pub fn section(cert: &Path, key: &Path) -> String {
    let (cert, key) = (cert.display(), key.display());
    format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nreload_ms = 20\n")
}

/// Whom the client trusts, and as whom it speaks.
pub fn config(trusted: &[&Path], own: Option<(&Path, &Path)>, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for file in trusted {
        for one in CertificateDer::pem_file_iter(file).unwrap() {
            roots.add(one.unwrap()).unwrap();
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    Arc::new(config)
}

/// A connection over which requests follow each other.
pub struct Tls(pub BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Tls {
    /// Connects as far as TCP; the handshake comes with the first request.
    pub fn new(addr: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self(BufReader::new(StreamOwned::new(connection, stream)))
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Status and body.
    pub fn request(
        &mut self,
        verb: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        self.request_with((verb, path), "", body)
    }

    /// With further headers, each with its line's end.
    pub fn request_with(
        &mut self,
        (verb, path): (&str, &str),
        headers: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             {headers}Accept: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes())?;
        self.0.get_mut().flush()?;
        read_answer(&mut self.0)
    }
}
