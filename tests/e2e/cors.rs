//! Whose pages may read answers: what a browser is told before and after, by raw requests. A real
//! one tries it in `tests/system/test_cors.py`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::access::{guarded, post, secret, send};
use super::support::http::Answer;
use crate::support::served::Served;
use clipper_domain::Role;

const SITE: &str = "https://app.example.com";
const CONFIG: &str = "[http]\ncors_origins = [\"https://app.example.com\"]\n\
                      [management]\ncors_origins = [\"https://ops.example.com\"]\n";

fn from(origin: &str) -> String {
    format!("Origin: {origin}\r\n")
}

/// A browser that asks.
fn preflight(addr: SocketAddr, path: &str, origin: &str) -> Answer {
    let asks = "Access-Control-Request-Method: POST\r\n\
                Access-Control-Request-Headers: authorization,content-type\r\n";
    send(addr, "OPTIONS", path, &format!("{}{asks}", from(origin)), "")
}

fn start(config: &str, folder: &Path) -> Served {
    let server = guarded(config, folder);
    let app = json!({"name": "a", "input_type": "doubles", "default_output": "-1.0",
        "latency_slo_micros": 20_000_000});
    let root = secret(Role::Admin);
    assert_eq!(post(server.management, "/admin/add_app", Some(&root), &app).0, 200);
    server
}

#[test]
fn a_page_of_a_known_site_asks_without_a_key_and_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(CONFIG, folder.path());
    let answer = preflight(server.query, "/a/predict", SITE);
    assert_eq!(answer.status, 204, "{}", answer.text());
    for (name, expected) in [
        ("access-control-allow-origin", SITE),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{name}");
    }
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(answer.header("vary").unwrap().contains("Origin"));
    // The request itself: refused without a key, in a way that the page can read.
    let body = json!({"input": [1.0]}).to_string();
    let answer = send(server.query, "POST", "/a/predict", &from(SITE), &body);
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some(SITE));
    let key = format!("{}Authorization: Bearer {}\r\n", from(SITE), secret(Role::Predict));
    let answer = send(server.query, "POST", "/a/predict", &key, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some(SITE));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("X-Request-Id"));
    let pages = preflight(server.query, "/v2/models", SITE);
    assert_eq!(pages.header("access-control-allow-methods"), Some("GET"));
}

#[test]
fn a_page_of_another_site_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(CONFIG, folder.path());
    let key = |origin: &str| {
        format!("{}Authorization: Bearer {}\r\n", from(origin), secret(Role::Predict))
    };
    let body = json!({"input": [1.0]}).to_string();
    let ops = "https://ops.example.com";
    for origin in ["https://evil.com", "http://app.example.com", "null", ops] {
        let answer = preflight(server.query, "/a/predict", origin);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        // A browser hides it from its page; others are nobody's pages.
        let answer = send(server.query, "POST", "/a/predict", &key(origin), &body);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    // Neither where the server is managed, whose list is another.
    let answer = preflight(server.management, "/admin/get_application", SITE);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let manage = |origin: &str| {
        let key = format!("{}Authorization: Bearer {}\r\n", from(origin), secret(Role::Admin));
        let headers = format!("Content-Type: application/json\r\n{key}");
        send(server.management, "POST", "/admin/get_application", &headers, "{\"name\":\"a\"}")
    };
    assert_eq!(manage(SITE).status, 403);
    let answer = manage(ops);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some(ops));
    let asked = preflight(server.management, "/admin/get_application", ops);
    assert_eq!(asked.header("access-control-allow-methods"), Some("POST"));
    // Whatever its site, no page starts programs.
    let deploy = format!(
        "Content-Type: application/json\r\n{}Authorization: Bearer {}\r\n",
        from(ops),
        secret(Role::Admin)
    );
    let answer = send(server.management, "POST", "/admin/deploy_model", &deploy, "{}");
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[test]
fn without_a_list_no_answer_says_anything_of_pages() {
    let folder = tempfile::tempdir().unwrap();
    let server = start("", folder.path());
    for addr in [server.query, server.management] {
        let answer = preflight(addr, "/a/predict", SITE);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("vary"), None);
    }
}

#[test]
fn every_site_may_ask_but_not_with_certificates_and_not_manage() {
    let folder = tempfile::tempdir().unwrap();
    let server = start("[http]\ncors_origins = [\"*\"]\n", folder.path());
    let answer = preflight(server.query, "/a/predict", "https://anybody.example");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    for (config, told) in [
        ("[management]\ncors_origins = [\"*\"]\n", "each by its name"),
        ("[http]\ncors_origins = [\"*\"]\ncors_credentials = true\n", "http.cors_credentials"),
        ("[http]\ncors_origins = [\"https://a.com/x\"]\n", "a list of sites"),
    ] {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, config).unwrap();
        let mut check = Command::new(crate::binary());
        let output = check.arg("check-config").arg(&file).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        let says = says + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && says.contains(told), "{says}");
    }
}
