//! Keeps the file that tells Prometheus which containers of this server have metrics of their own.
//!
//! Off the data plane: it runs on the control thread, looks at a list that the container pool
//! keeps, and writes a file. A container that does not announce its metrics is asked for them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{debug, error, info};

use crate::metrics::file_sd::{MetricsAt, file_text, is_containers_page};
use clipper_clock::{self as clock, Instant};
use clipper_config::MetricsConfig;
use clipper_domain::{ModelId, ReplicaId};

type Target = (ModelId, ReplicaId);
type Members = BTreeMap<Target, MetricsAt>;

/// The replicas of this server, with what is known of their metrics. Written by the pool's list.
#[derive(Debug, Clone, Default)]
pub struct Scraped(Arc<SharedTargets>);

#[derive(Debug, Default)]
struct SharedTargets {
    members: Mutex<Members>,
    changed: Notify,
}

impl Scraped {
    pub(super) fn put(&self, model: &ModelId, replica: ReplicaId, at: MetricsAt) {
        self.0.members.lock().insert((model.clone(), replica), at);
        self.0.changed.notify_one();
    }

    pub(super) fn remove(&self, model: &ModelId, replica: ReplicaId) {
        self.0.members.lock().remove(&(model.clone(), replica));
        self.0.changed.notify_one();
    }

    pub(super) fn clear(&self) {
        self.0.members.lock().clear();
        self.0.changed.notify_one();
    }
}

/// The file, if one is configured.
#[derive(Debug)]
pub struct FileSd {
    path: PathBuf,
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("metrics.file_sd_path: cannot write {}: {error}", path.display())]
pub struct FileSdError {
    path: PathBuf,
    error: io::Error,
}

impl FileSd {
    /// Writes the file without targets, and from then on whenever `scraped` changes, until the
    /// thread ends.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(config: &MetricsConfig, scraped: Scraped) -> Result<Self, FileSdError> {
        let path = config.file_sd_path.clone();
        if !path.as_os_str().is_empty() {
            let first = file_text([]);
            write(&path, &first).map_err(|error| FileSdError { path: path.clone(), error })?;
            let keeper = TargetsKeeper {
                config: config.clone(),
                scraped,
                asked: BTreeMap::new(),
                written: Some(first),
            };
            actix::spawn(keeper.run());
        }
        Ok(Self { path })
    }

    /// At the end of the server, which knows no targets any more.
    pub fn leave(&self) {
        if !self.path.as_os_str().is_empty()
            && let Err(error) = write(&self.path, &file_text([]))
        {
            error!(path = %self.path.display(), %error, "the file of targets stays as it was");
        }
    }
}

/// What came of asking a container that does not announce its metrics.
#[derive(Debug, Default)]
struct AskedTarget {
    attempts: u32,
    again_at: Option<Instant>,
    found: Option<SocketAddr>,
}

struct TargetsKeeper {
    config: MetricsConfig,
    scraped: Scraped,
    asked: BTreeMap<Target, AskedTarget>,
    /// The text that is in the file; `None` when the last attempt to write it failed.
    written: Option<String>,
}

impl TargetsKeeper {
    async fn run(mut self) {
        let pause = Duration::from_millis(self.config.file_sd_pause_ms);
        let interval = Duration::from_millis(self.config.probe_interval_ms);
        loop {
            let members = self.scraped.0.members.lock().clone();
            self.asked.retain(|key, _| members.contains_key(key));
            self.update(&members).await;
            let undecided = self.ask(&members).await;
            self.update(&members).await;
            tokio::time::sleep(pause).await;
            tokio::select! {
                () = self.scraped.0.changed.notified() => {}
                () = tokio::time::sleep(interval), if undecided || self.written.is_none() => {}
            }
        }
    }

    /// Writes the file if it would say something else than it does.
    async fn update(&mut self, members: &Members) {
        let targets = members.iter().filter_map(|(key, at)| {
            let address = match at {
                MetricsAt::Known(address) => *address,
                MetricsAt::Nowhere => return None,
                MetricsAt::Perhaps(_) => self.asked.get(key)?.found?,
            };
            Some((&key.0, key.1, address))
        });
        let text = file_text(targets);
        if self.written.as_ref() == Some(&text) {
            return;
        }
        let path = self.config.file_sd_path.clone();
        let body = text.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &body)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => self.written = Some(text),
            Err(error) => {
                if self.written.take().is_some() {
                    let path = self.config.file_sd_path.display();
                    error!(%path, %error, "the file of targets cannot be written for now");
                }
            }
        }
    }

    /// Asks those whose time has come; true if some are to be asked again.
    async fn ask(&mut self, members: &Members) -> bool {
        let (config, now) = (&self.config, clock::now());
        if config.container_port == 0 {
            return false;
        }
        let mut due = Vec::new();
        for (key, at) in members {
            let MetricsAt::Perhaps(peer) = at else { continue };
            let asked = self.asked.entry(key.clone()).or_default();
            let rests = asked.again_at.is_some_and(|at| at > now);
            if asked.found.is_none() && asked.attempts < config.probe_attempts_max && !rests {
                asked.attempts += 1;
                asked.again_at = Some(now + Duration::from_millis(config.probe_interval_ms));
                due.push((key.clone(), SocketAddr::new(*peer, config.container_port)));
            }
        }
        let answers: Vec<(Target, SocketAddr, bool)> = stream::iter(due)
            .map(|(key, address)| async move { (key, address, probe(address, config).await) })
            .buffer_unordered(config.probes_max)
            .collect()
            .await;
        for (key, address, has_metrics) in answers {
            if has_metrics && let Some(asked) = self.asked.get_mut(&key) {
                info!(model = %key.0, replica = %key.1, %address, "the container has metrics");
                asked.found = Some(address);
            }
        }
        let max = self.config.probe_attempts_max;
        self.asked.values().any(|asked| asked.found.is_none() && asked.attempts < max)
    }
}

async fn probe(address: SocketAddr, config: &MetricsConfig) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /metrics HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(config.probe_max_bytes).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let limit = Duration::from_millis(config.probe_timeout_ms);
    match tokio::time::timeout(limit, asking).await {
        Ok(Ok(answer)) => is_containers_page(&answer),
        Ok(Err(error)) => {
            debug!(%address, %error, "no metrics of a container");
            false
        }
        Err(_elapsed) => false,
    }
}

/// Prometheus reads the old file or the new one, never a half. It may run as another user.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let new = path.with_file_name(hidden);
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&new, path)
}
