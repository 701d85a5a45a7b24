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
    let (authority, mut clients) = authority_of(dir, &["client"]);
    let (client, key) = clients.remove(0);
    Clients { authority, client, key }
}

/// An authority, and the certificates and keys of clients with these names.
pub fn authority_of(dir: &Path, names: &[&str]) -> (PathBuf, Vec<(PathBuf, PathBuf)>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = put(dir, "ca.pem", &ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    let clients = names.iter().map(|name| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        let client = params.signed_by(&key, &issuer).unwrap();
        let file = put(dir, &format!("{name}.pem"), &client.pem());
        (file, put(dir, &format!("{name}-key.pem"), &key.serialize_pem()))
    });
    (authority, clients.collect())
}
