//! Certificates and keys as files, and what can be wrong with them.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use time::OffsetDateTime;

use clipper_config::TlsConfig;

/// Largest file that is read: thousands of authorities.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// The setting that names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKey {
    Cert,
    Private,
    ClientCa,
}

impl FileKey {
    fn name(self) -> &'static str {
        match self {
            Self::Cert => "tls.cert",
            Self::Private => "tls.key",
            Self::ClientCa => "tls.client_ca",
        }
    }
}

/// Why the files do not make a certificate that can be shown.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {why}", file.display())]
pub struct TlsError {
    setting: &'static str,
    file: PathBuf,
    why: String,
}

impl TlsError {
    #[allow(clippy::needless_pass_by_value, reason = "errors are passed on")]
    pub(super) fn unusable(key: FileKey, file: &Path, why: impl ToString) -> Self {
        Self { setting: key.name(), file: file.to_owned(), why: why.to_string() }
    }

    pub(super) fn not_a_pair(config: &TlsConfig, error: &Error) -> Self {
        let why = match error {
            Error::InconsistentKeys(_) => {
                format!("it is not the key of the certificate in {}", config.cert.display())
            }
            other => other.to_string(),
        };
        Self::unusable(FileKey::Private, &config.key, why)
    }
}

/// Who the server is.
pub(super) struct ServerIdentity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    cert: PathBuf,
}

impl ServerIdentity {
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(FileKey::Cert, cert)?;
        let text = read(FileKey::Private, key)?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
            let why = match error {
                pem::Error::NoItemsFound if has(&text, b"ENCRYPTED") => {
                    "its key has a password: take it away (openssl pkey -in FILE -out NEW)".into()
                }
                pem::Error::NoItemsFound => "there is no private key in it (PEM)".to_owned(),
                other => other.to_string(),
            };
            TlsError::unusable(FileKey::Private, key, why)
        })?;
        Ok(Self { chain, key, cert: cert.to_owned() })
    }

    /// Until when the certificate is valid, Unix seconds.
    pub(super) fn check_dates(&self, now: u64) -> Result<u64, TlsError> {
        let fail = |why: String| TlsError::unusable(FileKey::Cert, &self.cert, why);
        let leaf = self.chain.first().ok_or_else(|| fail("it is empty".to_owned()))?;
        let leaf = ParsedCertificate::try_from(leaf).map_err(|error| fail(error.to_string()))?;
        match dates(&leaf, now) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => {
                return Err(fail(format!("it has expired: {}", date(not_after))));
            }
            Some(CertificateError::NotValidYetContext { not_before, .. }) => {
                return Err(fail(format!("it is valid from {} only", date(not_before))));
            }
            _ => {}
        }
        Ok(match dates(&leaf, u64::MAX) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => not_after.as_secs(),
            _ => u64::MAX,
        })
    }
}

/// What is wrong with a certificate at a time. Its dates are looked at before its authority, of
/// which none is known here.
fn dates(leaf: &ParsedCertificate<'_>, at: u64) -> Option<CertificateError> {
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    let none = RootCertStore::empty();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    match verify_server_cert_signed_by_trust_anchor(leaf, &none, &[], at, algorithms.all) {
        Err(Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

fn date(at: UnixTime) -> String {
    let at = i64::try_from(at.as_secs()).ok();
    let at = at.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(String::new, |at| {
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", at.hour(), at.minute())
    })
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

fn read(key: FileKey, file: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let fail = |error: std::io::Error| TlsError::unusable(key, file, error);
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(fail)?;
    opened.take(FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(TlsError::unusable(key, file, format!("it is over {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn certificates(key: FileKey, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(key, file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| TlsError::unusable(key, file, error))?;
    if chain.is_empty() {
        return Err(TlsError::unusable(key, file, "there is no certificate in it (PEM)"));
    }
    Ok(chain)
}

/// The authorities in a file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(FileKey::ClientCa, file)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::unusable(FileKey::ClientCa, file, error))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;

    const DAY: u64 = 86_400;

    fn made() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        self_signed::write(dir.path(), &["localhost".to_owned()], 30).unwrap();
        dir
    }

    fn told(cert: &Path, key: &Path) -> String {
        ServerIdentity::read(cert, key).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_certificate_is_read_and_its_dates_hold() {
        let dir = made();
        let identity =
            ServerIdentity::read(&dir.path().join("cert.pem"), &dir.path().join("key.pem"))
                .unwrap();
        let now = clipper_clock::unix_millis() / 1_000;
        let expires = identity.check_dates(now).unwrap();
        assert!((now + 29 * DAY..=now + 31 * DAY).contains(&expires), "{expires}");
        let late = identity.check_dates(now + 60 * DAY).unwrap_err().to_string();
        assert!(late.contains("cert.pem: it has expired: 20"), "{late}");
        let early = identity.check_dates(now - 60 * DAY).unwrap_err().to_string();
        assert!(early.contains("it is valid from 20"), "{early}");
    }

    #[test]
    fn what_cannot_be_used_names_its_file_and_why() {
        let dir = made();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let missing = told(&dir.path().join("none.pem"), &key);
        assert!(missing.starts_with("tls.cert: ") && missing.contains("none.pem: No such file"));
        assert!(told(&key, &key).contains("there is no certificate in it"));
        assert!(told(&cert, &cert).contains("tls.key: "));
        assert!(told(&cert, &cert).contains("there is no private key in it"));
        let locked = dir.path().join("locked.pem");
        let pem = |what, text| format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n");
        std::fs::write(&locked, pem("ENCRYPTED PRIVATE KEY", "AAAA")).unwrap();
        assert!(told(&cert, &locked).contains("its key has a password"));
        std::fs::write(&locked, pem("CERTIFICATE", "!!")).unwrap();
        assert!(told(&locked, &key).starts_with("tls.cert: "));
    }
}
