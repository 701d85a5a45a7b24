//! A certificate for trials, signed by itself.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use clipper_clock as clock;

/// How long before now it begins: clocks differ.
const BEFORE: Duration = Duration::hours(1);

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    #[error("{}: {error}", file.display())]
    File { file: PathBuf, error: std::io::Error },
    #[error("a certificate cannot be made of these names: {0}")]
    Made(#[from] rcgen::Error),
    #[error("it would be valid for too long")]
    TooLong,
}

/// Writes `cert.pem` and `key.pem` for these names and addresses into a folder, which is made if it
/// is not there.
///
/// # Errors
/// A file that is there already is left alone.
pub fn write(dir: &Path, names: &[String], days: u32) -> Result<Written, NotWritten> {
    let (cert, key) = made(names, days)?;
    let written = Written { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    put(dir, &[("key.pem", key, 0o600), ("cert.pem", cert, 0o644)])?;
    Ok(written)
}

/// Writes new files with these modes into a folder, which is made if it is not there.
///
/// # Errors
/// A file that is there already is left alone.
pub fn put(dir: &Path, files: &[(&str, String, u32)]) -> Result<(), NotWritten> {
    let fail = |file: &Path, error| NotWritten::File { file: file.to_owned(), error };
    std::fs::create_dir_all(dir).map_err(|error| fail(dir, error))?;
    for (name, text, mode) in files {
        let file = dir.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&file);
        let put = opened.and_then(|mut opened| opened.write_all(text.as_bytes()));
        put.map_err(|error| fail(&file, error))?;
    }
    Ok(())
}

/// Certificate and key as PEM.
fn made(names: &[String], days: u32) -> Result<(String, String), NotWritten> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    let now = i64::try_from(clock::unix_millis() / 1_000).map_err(|_| NotWritten::TooLong)?;
    let now = OffsetDateTime::from_unix_timestamp(now).map_err(|_| NotWritten::TooLong)?;
    params.not_before = now.checked_sub(BEFORE).ok_or(NotWritten::TooLong)?;
    let end = now.checked_add(Duration::days(i64::from(days)));
    params.not_after = end.ok_or(NotWritten::TooLong)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "clipper, for trials");
    // No authority: whoever trusts it trusts this server and nobody else.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}
