//! TLS of the ports: the certificate from its files, read again when they change.
//!
//! Handshakes are where connections are served: `http::serve::tls`.

mod files;
pub mod self_signed;
mod stamp;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion, version};
use tracing::{info, warn};

pub use self::files::TlsError;

use self::files::{FileKey, ServerIdentity};
use self::stamp::Stamps;
use crate::metrics::Metrics;
use clipper_clock as clock;
use clipper_config::{TlsConfig, TlsVersion};

/// What a port speaks over TLS, by its names in ALPN.
const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
const HTTP1: &[&[u8]] = &[b"http/1.1"];
const GRPC: &[&[u8]] = &[b"h2"];
/// Sessions of TLS 1.2 clients that take no tickets, for each port.
const SESSIONS_MAX: usize = 1_024;

/// How the connections of one port are encrypted from now on.
#[derive(Debug, Clone)]
pub struct Port(Arc<ArcSwap<ServerConfig>>);

impl Port {
    /// For one more connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// The certificate of all ports.
#[derive(Debug, Clone)]
pub struct Tls {
    config: TlsConfig,
    pub http: Port,
    pub grpc: Port,
    metrics: Arc<Metrics>,
    /// Of the files as they were read.
    stamps: Stamps,
}

impl Tls {
    /// Reads the files; `None` if there is no certificate.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn load(config: &TlsConfig, metrics: &Arc<Metrics>) -> Result<Option<Self>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        // Before the files: a change while they are read is seen.
        let stamps = Stamps::of(config);
        let LoadedFiles { http, grpc, expires } =
            LoadedFiles::from_files(config, clock::unix_millis())?;
        metrics.tls().expires.store(expires, Relaxed);
        let port = |config| Port(Arc::new(ArcSwap::new(config)));
        let (http, grpc) = (port(http), port(grpc));
        Ok(Some(Self { config: config.clone(), http, grpc, metrics: Arc::clone(metrics), stamps }))
    }

    /// Reads the files again whenever they change.
    pub async fn keep_fresh(mut self) {
        let pause = Duration::from_millis(self.config.reload_ms);
        loop {
            tokio::time::sleep(pause).await;
            let (config, before) = (self.config.clone(), self.stamps);
            // A folder that another machine serves may keep who asks waiting.
            let looked = tokio::task::spawn_blocking(move || {
                let stamps = Stamps::of(&config);
                let is_new = stamps != before;
                (stamps, is_new.then(|| LoadedFiles::from_files(&config, clock::unix_millis())))
            });
            if let Ok((stamps, Some(loaded))) = looked.await {
                self.stamps = stamps;
                self.take(loaded);
            }
        }
    }

    fn take(&self, loaded: Result<LoadedFiles, TlsError>) {
        let counts = self.metrics.tls();
        match loaded {
            Ok(LoadedFiles { http, grpc, expires }) => {
                self.http.0.store(http);
                self.grpc.0.store(grpc);
                counts.expires.store(expires, Relaxed);
                counts.loaded.fetch_add(1, Relaxed);
                info!(cert = %self.config.cert.display(), "the certificate was read again");
            }
            // Certificate and key are often written one after the other: the next change follows.
            Err(error) => {
                counts.failed.fetch_add(1, Relaxed);
                warn!("the certificate before it stays in use: {error}");
            }
        }
    }
}

/// What the files make.
struct LoadedFiles {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// Unix seconds.
    expires: u64,
}

impl LoadedFiles {
    fn from_files(config: &TlsConfig, now_ms: u64) -> Result<Self, TlsError> {
        let identity = ServerIdentity::read(&config.cert, &config.key)?;
        let expires = identity.check_dates(now_ms / 1_000)?;
        let clients = if config.client_ca.as_os_str().is_empty() {
            None
        } else {
            Some(files::authorities(&config.client_ca)?)
        };
        let port =
            |protocols: &[&[u8]]| server_config(config, &identity, clients.clone(), protocols);
        let http = if config.http2 { HTTP } else { HTTP1 };
        Ok(Self { http: port(http)?, grpc: port(GRPC)?, expires })
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => FROM_1_2.split_at(1).0,
    }
}

fn server_config(
    config: &TlsConfig,
    identity: &ServerIdentity,
    clients: Option<RootCertStore>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(config.min_version))
        .map_err(|error| TlsError::unusable(FileKey::Cert, &config.cert, error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if config.client_required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| {
                    TlsError::unusable(FileKey::ClientCa, &config.client_ca, error)
                })?,
            )
        }
    };
    let mut server = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| TlsError::not_a_pair(config, &error))?;
    server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS_MAX);
    server.ticketer = rustls::crypto::ring::Ticketer::new()
        .map_err(|error| TlsError::unusable(FileKey::Cert, &config.cert, error))?;
    Ok(Arc::new(server))
}
