//! Tokens of an issuer (JWT) in the place of keys, signed by openssl: over HTTP and gRPC.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clipper_grpc::client::Client;
use clipper_grpc::{Code, framed};
use clipper_oip::grpc::OfModel;
use serde_json::{Value, json};

use super::support::http::Connection;
use crate::support::served::{Served, app, until};

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn openssl(args: &[&str], file: &Path, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(args).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{args:?}");
    done.stdout
}

/// Somebody with an RSA key.
struct Issuer {
    key: PathBuf,
    modulus: Vec<u8>,
}

impl Issuer {
    fn new(key: PathBuf) -> Self {
        let make = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"];
        openssl(&make, &key, b"");
        let shown = openssl(&["rsa", "-noout", "-modulus", "-in"], &key, b"");
        let digits = String::from_utf8(shown).unwrap();
        let digits = digits.trim().strip_prefix("Modulus=").unwrap().as_bytes().to_vec();
        let value = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
        let modulus = digits.chunks(2).map(|pair| value(pair[0]) * 16 + value(pair[1])).collect();
        Self { key, modulus }
    }

    fn jwks(&self) -> String {
        let key = json!({"kty": "RSA", "use": "sig", "n": text(&self.modulus), "e": "AQAB"});
        json!({ "keys": [key] }).to_string()
    }

    fn publish(&self, file: &Path) {
        let next = file.with_extension("next");
        std::fs::write(&next, self.jwks()).unwrap();
        std::fs::rename(next, file).unwrap();
    }

    fn token(&self, claims: &Value) -> String {
        let head = text(json!({"alg": "RS256", "typ": "JWT"}).to_string());
        let signed = format!("{head}.{}", text(claims.to_string()));
        let signature = openssl(&["dgst", "-sha256", "-sign"], &self.key, signed.as_bytes());
        format!("{signed}.{}", text(signature))
    }
}

/// Seconds from now.
fn at(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

fn claims(subject: &str, role: &str, only: &str) -> Value {
    json!({"iss": "https://issuer.example", "aud": "clipper", "sub": subject, "exp": at(3_600),
        "role": role, "app": only})
}

fn post(addr: std::net::SocketAddr, path: &str, token: &str, body: &Value) -> (u16, String) {
    let (mut connection, body) = (Connection::open(addr), body.to_string());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: \
         application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(head.as_bytes());
    let answer = connection.answer("POST").expect("an answer");
    (answer.status, answer.text())
}

fn called(server: &Served, path: &str, token: &str) -> Code {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.grpc.unwrap()).await.unwrap();
        let (client, connection) = Client::open(stream, "test", path, None).await.unwrap();
        tokio::spawn(connection);
        let frame = framed(&OfModel { name: "a1".to_owned(), ..OfModel::default() });
        client.with_key(Some(token)).call(frame).await.unwrap().0.code
    })
}

/// The line of an event in a journal.
fn listed(data: &Path, event: &str) -> String {
    let mut command = Command::new(crate::binary());
    let list = command.args(["journal", "list", "--data-dir"]).arg(data).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    list.lines().find(|line| line.contains(event)).unwrap().to_owned()
}

#[test]
fn tokens_of_the_issuer_are_keys_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new(folder.path().join("issuer.pem"));
    let other = Issuer::new(folder.path().join("other.pem"));
    let jwks = folder.path().join("jwks.json");
    issuer.publish(&jwks);
    let config = format!(
        "[access]\njwt_keys = {jwks:?}\njwt_issuer = \"https://issuer.example\"\n\
         jwt_audience = \"clipper\"\nfailures_per_minute = 60000\n[log]\nfilter = \"trace\"\n\
         outsider_lines_max = 100000\n"
    );
    let server = Served::start(&config, folder.path());
    let operate = issuer.token(&claims("ops/1", "operate", "a*"));
    let change = |token: &str, name: &str| {
        post(server.management, "/admin/add_app", token, &app(name, 20_000_000))
    };
    assert_eq!(change(&operate, "a1").0, 200);
    let (status, told) = change(&operate, "b1");
    assert!(status == 403 && told.contains("key 'jwt ops%2F1' is for 'a*' only"), "{told}");
    let predict = issuer.token(&claims("ci", "predict", "a*"));
    let ask = |token: &str| post(server.query, "/a1/predict", token, &json!({"input": [1.0]})).0;
    assert_eq!((ask(&predict), ask(&operate)), (200, 403));
    let ready = "/inference.GRPCInferenceService/ModelReady";
    assert!(
        ![Code::Unauthenticated, Code::PermissionDenied]
            .contains(&called(&server, ready, &predict))
    );

    let with = |claim: &str, value: Value| {
        let mut claims = claims("ci", "predict", "a*");
        claims[claim] = value;
        issuer.token(&claims)
    };
    let (signed, signature) = predict.rsplit_once('.').unwrap();
    let body = signed.split_once('.').unwrap().1;
    let none = format!("{}.{body}.", text(json!({"alg": "none"}).to_string()));
    let hmac = format!("{}.{body}.{signature}", text(json!({"alg": "HS256"}).to_string()));
    for (token, why) in [
        (with("exp", json!(at(-1))), "it has expired (exp)"),
        (with("nbf", json!(at(600))), "it is not good yet (nbf)"),
        (with("aud", json!("others")), "it is not for this server (aud)"),
        (with("iss", json!("https://evil.example")), "it is of another issuer (iss)"),
        (with("role", json!("root")), "its claim role does not name one of the roles"),
        (other.token(&claims("ci", "predict", "a*")), "its signature is wrong"),
        (none, "signed by an algorithm that is not taken"),
        (hmac, "signed by an algorithm that is not taken"),
    ] {
        let (status, told) = post(server.query, "/a1/predict", &token, &json!({"input": [1.0]}));
        assert_eq!(status, 401, "{why}: {told}");
        assert!(told.contains("The token that came is not taken") && !told.contains(why), "{told}");
        assert_eq!(called(&server, ready, &token), Code::Unauthenticated, "{why}");
        server.says(why);
    }

    // Another key of the issuer: what the one before has signed is no good any more.
    other.publish(&jwks);
    until("the keys are read again", || (ask(&predict) == 401).then_some(()));
    assert_eq!(ask(&other.token(&claims("ci", "predict", "a*"))), 200);
    // One that expires while it is remembered.
    let mut soon = claims("ci", "predict", "a*");
    soon["exp"] = json!(at(2));
    let soon = other.token(&soon);
    until("it expires", || (ask(&soon) == 401).then_some(()));
    let log = server.log().join("\n");
    for token in [&operate, &predict, &soon] {
        assert!(!log.contains(token.as_str()), "a token is in the log");
    }
    server.kill_9();
    let added = listed(&folder.path().join("data"), "app_added");
    assert!(added.contains("key 'jwt ops%2F1'"), "{added}");
}

/// Where an issuer has his keys: what is answered, and how often he was asked.
#[derive(Clone)]
struct Site {
    url: String,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Site {
    fn open(jwks: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let site = Self { url, answer: Arc::new(Mutex::new((200, jwks))), asked: Arc::default() };
        let of_thread = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or_default();
                assert!(head[..read].starts_with(b"GET /jwks.json HTTP/1.1"));
                let (status, body) = of_thread.answer.lock().unwrap().clone();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} S\r\nConnection: close\r\n");
                let answer = format!("{head}Content-Length: {length}\r\n\r\n{body}");
                // One that has gone is not asked again by itself.
                let _ = stream.write_all(answer.as_bytes());
                of_thread.asked.fetch_add(1, Relaxed);
            }
        });
        site
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }
}

#[test]
fn keys_of_the_issuer_come_from_his_url_and_stay_while_it_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["1.pem", "2.pem"].map(|key| Issuer::new(folder.path().join(key)));
    let site = Site::open(first.jwks());
    let config = format!(
        "[access]\njwt_keys = \"{}\"\njwt_keys_refresh_ms = 100\n\
         jwt_issuer = \"https://issuer.example\"\njwt_audience = \"clipper\"\n\
         failures_per_minute = 60000\n",
        site.url
    );
    let server = Served::start(&config, folder.path());
    let ask = |issuer: &Issuer| {
        let token = issuer.token(&claims("ci", "predict", "*"));
        post(server.query, "/a1/predict", &token, &json!({"input": [1.0]})).0
    };
    until("his keys are there", || (ask(&first) == 404).then_some(()));
    site.answers(503, "away");
    until("it is said", || {
        let log = server.log();
        log.iter().any(|line| line.contains("it answers with status 503")).then_some(())
    });
    assert_eq!((ask(&first), ask(&second)), (404, 401));
    // Nor is anything else a key.
    for body in ["<html>", "{\"keys\": []}", &"x".repeat(2 << 20)] {
        let asked = site.asked.load(Relaxed);
        site.answers(200, body);
        until("it is asked again", || (site.asked.load(Relaxed) > asked).then_some(()));
    }
    assert_eq!(ask(&first), 404);
    site.answers(200, &second.jwks());
    until("other keys are his", || (ask(&second) == 404).then_some(()));
    assert_eq!(ask(&first), 401);
}

#[test]
fn holders_of_tokens_have_limits_each_by_his_name() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new(folder.path().join("issuer.pem"));
    let jwks = folder.path().join("jwks.json");
    issuer.publish(&jwks);
    let config = format!(
        "[access]\njwt_keys = {jwks:?}\njwt_issuer = \"https://issuer.example\"\n\
         jwt_audience = \"clipper\"\njwt_rate = 1\njwt_burst = 3\n"
    );
    let server = Served::start(&config, folder.path());
    let operate = issuer.token(&claims("ops", "operate", "*"));
    for name in ["a1", "a2", "a3", "a4", "a5"] {
        let added = post(server.management, "/admin/add_app", &operate, &app(name, 20_000_000));
        assert_eq!(added.0, 200, "he asks for no predictions: {}", added.1);
    }
    let token = |subject: &str, seconds: i64| {
        let mut claims = claims(subject, "predict", "*");
        claims["exp"] = json!(at(seconds));
        issuer.token(&claims)
    };
    let (one, another) = (token("ci", 3_600), token("ci", 7_200));
    let ask = |token: &str| post(server.query, "/a1/predict", token, &json!({"input": [1.0]}));
    let told = until("he is told to wait", || {
        let (_, told) =
            [&one, &another].map(|token| ask(token)).into_iter().find(|a| a.0 == 429)?;
        Some(told)
    });
    assert!(told.contains("Key 'jwt ci' may make 1 queries a second (rate)"), "{told}");
    assert_eq!(ask(&token("others", 3_600)).0, 200);
    until("he recovers", || (ask(&one).0 == 200).then_some(()));
}
