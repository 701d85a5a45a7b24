//! Where the public keys of an issuer are: in a file, or at a URL of his.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clipper_clock::{self as clock, Instant};
use clipper_domain::shown_url::shown_url;
use clipper_tools::tls::{Trust, TrustError};
use parking_lot::Mutex;

use super::super::listed;
use super::jwk::KeySetFault;

/// Longest JWKS that is read from a URL.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// For the issuer to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// He is asked again after this, where he was away or a token is by a key that is not known yet.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Why the keys of an issuer are not known.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("access.jwt_keys: {}: {error}", file.display())]
    File { file: PathBuf, error: io::Error },
    #[error("access.jwt_keys: {from}: {fault}")]
    Content { from: String, fault: KeySetFault },
    #[error("access.jwt_keys: {url}: {fault}")]
    Url { url: String, fault: UrlFault },
}

/// Why a URL gives no keys.
#[derive(Debug, thiserror::Error)]
pub enum UrlFault {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Http(#[from] ureq::Error),
    #[error("it answers with status {0}")]
    Status(u16),
}

#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Url(Remote),
}

/// At a URL, asked now and then.
#[derive(Debug)]
pub(super) struct Remote {
    url: String,
    refresh: Duration,
    asked: Mutex<LastFetch>,
    /// A token came by a key that is not known.
    is_missed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum LastFetch {
    Never,
    Answered(Instant),
    Failed(Instant),
}

impl Source {
    /// As `access.jwt_keys` has it.
    pub(super) fn of(setting: &Path, refresh: Duration) -> Self {
        match setting.to_str().filter(|text| is_url(text)) {
            None => Self::File(setting.to_owned()),
            Some(url) => Self::Url(Remote {
                url: url.to_owned(),
                refresh,
                asked: Mutex::new(LastFetch::Never),
                is_missed: AtomicBool::new(false),
            }),
        }
    }

    /// Whether it takes as long as somebody else wants.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Url(_))
    }

    /// A token came by a key that is not known: he may have a new one.
    pub(super) fn missed(&self) {
        if let Self::Url(remote) = self {
            remote.is_missed.store(true, Relaxed);
        }
    }

    /// The JWKS as it is now; none where it is not time to ask.
    pub(super) fn read(&self) -> Result<Option<String>, KeySetError> {
        match self {
            Self::File(file) => {
                let of = |error| KeySetError::File { file: file.clone(), error };
                listed::whole(file).map(Some).map_err(of)
            }
            Self::Url(remote) => {
                let now = clock::now();
                if !remote.is_due(now) {
                    return Ok(None);
                }
                let answer = fetch(&remote.url);
                let is_answered = answer.is_ok();
                let at = clock::now();
                *remote.asked.lock() =
                    if is_answered { LastFetch::Answered(at) } else { LastFetch::Failed(at) };
                let of = |fault| KeySetError::Url { url: remote.shown(), fault };
                answer.map(Some).map_err(of)
            }
        }
    }

    /// For errors.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Url(remote) => remote.shown(),
        }
    }
}

impl Remote {
    fn shown(&self) -> String {
        shown_url(&self.url).into_owned()
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_missed = || self.is_missed.swap(false, Relaxed);
        match *self.asked.lock() {
            LastFetch::Never => true,
            LastFetch::Failed(at) => now >= at + ASK_AGAIN,
            LastFetch::Answered(at) => {
                now >= at + self.refresh || now >= at + ASK_AGAIN && is_missed()
            }
        }
    }
}

/// Whether `access.jwt_keys` is a URL.
#[must_use]
pub fn is_url(setting: &str) -> bool {
    setting.starts_with("https://") || setting.starts_with("http://")
}

/// Of https, or of this machine: whoever is on the way could put in keys of his own.
fn fetch(url: &str) -> Result<String, UrlFault> {
    let mut config = ureq::Agent::config_builder();
    if url.starts_with("https://") {
        config = config.tls_config(Trust::default().for_agent()?);
    }
    let agent = config
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent();
    let mut answer = agent.get(url).call()?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(UrlFault::Status(status));
    }
    Ok(answer.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_string()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn he_is_asked_now_and_then_and_sooner_for_a_key_that_is_missed() {
        let source = Source::of(Path::new("https://issuer.example/jwks"), ASK_AGAIN * 10);
        let Source::Url(remote) = &source else { panic!("a URL") };
        let start = clock::now();
        assert!(remote.is_due(start));
        *remote.asked.lock() = LastFetch::Failed(start);
        assert!(!remote.is_due(start) && remote.is_due(start + ASK_AGAIN));
        *remote.asked.lock() = LastFetch::Answered(start);
        assert!(!remote.is_due(start + ASK_AGAIN) && remote.is_due(start + ASK_AGAIN * 10));
        source.missed();
        assert!(!remote.is_due(start), "not by each wrong token");
        assert!(remote.is_due(start + ASK_AGAIN));
        assert!(!remote.is_due(start + ASK_AGAIN), "once");
        assert!(!Source::of(Path::new("/etc/jwks.json"), ASK_AGAIN).is_remote());
    }
}
