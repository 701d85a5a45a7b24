//! Keys of whoever shows a certificate of TLS: the same gate over HTTP and gRPC.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use clipper_grpc::client::Client;
use clipper_grpc::{Code, framed};
use clipper_oip::grpc::OfModel;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::certificates::authority_of;
use super::client::{Tls, config, section, self_signed};
use crate::support::served::Served;

const READ: (&str, &str) = ("/admin/get_all_applications", "{\"verbose\": false}");

/// The SHA-256 of a certificate, as openssl shows it.
fn fingerprint(cert: &Path) -> String {
    let shown = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(cert)
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    text.trim().rsplit_once('=').unwrap().1.to_owned()
}

fn called(server: &Served, trust: &Arc<ClientConfig>, path: &str) -> Code {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.grpc.unwrap()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(trust));
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut client, connection) = Client::open(stream, "localhost", path, None).await.unwrap();
        tokio::spawn(connection);
        let frame = framed(&OfModel { name: "a".to_owned(), ..OfModel::default() });
        client.call(frame).await.unwrap().0.code
    })
}

/// Commands of whoever has a secret.
struct Admin<'s> {
    server: &'s Served,
    cert: &'s Path,
    client: &'s (PathBuf, PathBuf),
    secret: &'s str,
}

impl Admin<'_> {
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(crate::binary());
        command.args(args).arg("--url").arg(format!("https://{}", self.server.management));
        command.arg("--tls-ca").arg(self.cert).arg("--tls-cert").arg(&self.client.0);
        command.arg("--tls-key").arg(&self.client.1).env("CLIPPER_KEY", self.secret);
        command.output().unwrap()
    }

    fn done(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_certificate_is_known_by_its_names_or_its_fingerprint_and_has_its_role() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_signed(&dir.path().join("tls"), &[]);
    let names = ["eye.example", "stranger.example"];
    let (authority, clients) = authority_of(&dir.path().join("clients"), &names);
    let (keys, secret) = (dir.path().join("keys"), "0123456789abcdef".repeat(2));
    let list = format!("eye observe certificate:dns:eye.example\nroot admin {secret}\n");
    std::fs::write(&keys, list).unwrap();
    let text = format!(
        "{}client_ca = {authority:?}\nclient_required = false\nmetrics = false\n\
         [access]\nkeys_file = {keys:?}\nopen_metrics = true\n",
        section(&cert, &key)
    );
    let server = Served::start(&text, dir.path());
    let shows = |alpn: &[u8], client: Option<&(PathBuf, PathBuf)>| {
        let own = client.map(|(cert, key)| (cert.as_path(), key.as_path()));
        config(&[&cert], own, alpn)
    };
    let ask = |client: Option<&(PathBuf, PathBuf)>, (path, body): (&str, &str)| {
        let mut tls = Tls::new(server.management, &shows(b"http/1.1", client));
        tls.request("POST", path, body).unwrap()
    };
    let [eye, other] = &clients[..] else { panic!("two clients") };
    assert_eq!(ask(Some(eye), READ).0, 200);
    let change = ("/admin/add_app", "{}");
    let (status, told) = ask(Some(eye), change);
    assert!(status == 403 && told.contains("key 'eye' has the role observe"), "{status} {told}");
    let (status, told) = ask(None, READ);
    assert!(status == 401 && told.contains("none came"), "{status} {told}");
    let (status, told) = ask(Some(other), READ);
    assert!(status == 401 && told.contains("certificate that came"), "{status} {told}");
    // A page of a stranger in the browser of its owner.
    let mut tls = Tls::new(server.query, &shows(b"http/1.1", Some(eye)));
    let page = ("GET", "/v2/models");
    let origin = "Origin: https://evil.example\r\n";
    assert_eq!(tls.request_with(page, "", "").unwrap().0, 200);
    assert_eq!(tls.request_with(page, origin, "").unwrap().0, 403);

    let index = "/inference.GRPCInferenceService/RepositoryIndex";
    let load = "/inference.GRPCInferenceService/RepositoryModelLoad";
    let grpc = |client, path| called(&server, &shows(b"h2", client), path);
    assert_eq!(grpc(Some(eye), load), Code::PermissionDenied);
    assert_eq!(grpc(Some(other), index), Code::Unauthenticated);
    assert_ne!(grpc(Some(eye), index), Code::Unauthenticated);

    // By its fingerprint, in the catalog, and no more once it is revoked.
    let admin = Admin { server: &server, cert: &cert, client: other, secret: &secret };
    let digest = fingerprint(&other.0);
    let add = ["key", "add", "ops", "--role", "operate", "--certificate", &digest];
    admin.done(&add);
    assert_eq!(ask(Some(other), READ).0, 200);
    assert_eq!(ask(Some(other), change).0, 400, "its role may, its body is none");
    assert_ne!(grpc(Some(other), load), Code::PermissionDenied);
    admin.done(&["key", "revoke", "ops"]);
    assert_eq!(ask(Some(other), READ).0, 401);
    let refused = admin.run(&["key", "add", "c", "--role", "container", "--certificate", &digest]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("cannot be known by a certificate"), "{told}");
    assert!(!server.log().join("\n").contains(&secret));
}
