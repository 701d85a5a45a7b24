//! Certificates that `clipper cert` does not make.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

fn put(dir: &Path, name: &str, text: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// A certificate of the first of January 2001, and its key.
pub fn expired(dir: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2001, 1, 2);
    let cert = params.self_signed(&key).unwrap();
    (put(dir, "cert.pem", &cert.pem()), put(dir, "key.pem", &key.serialize_pem()))
}

/// An authority, and a client of it.
pub struct Clients {
    pub authority: PathBuf,
    pub client: PathBuf,
    pub key: PathBuf,
}

pub fn authority(dir: &Path) -> Clients {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = put(dir, "ca.pem", &ca.self_signed(&ca_key).unwrap().pem());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    let client = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    Clients {
        authority,
        client: put(dir, "client.pem", &client.pem()),
        key: put(dir, "client-key.pem", &key.serialize_pem()),
    }
}
