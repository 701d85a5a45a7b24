//! `/openapi.json` and `/docs`: each endpoint is there, and each example works.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::access::send;
use super::support::container::Container;
use super::support::server::Server;

const JSON: &str = "Content-Type: application/json\r\n";

/// A server with what the examples are about.
fn described() -> (Server, Container) {
    let server = Server::with_config("");
    server.add_app("digits", "doubles", "-1", 5_000_000);
    server.add_model("digits", "1", "doubles");
    server.link("digits", "digits");
    let container = Container::spawn(&server, "digits", &["--quiet"]);
    server.await_replicas("digits", 1);
    (server, container)
}

fn document(addr: SocketAddr) -> Value {
    let answer = send(addr, "GET", "/openapi.json", "", "");
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.text()).unwrap()
}

/// What is made comes first, what is taken away last.
fn rank(path: &str) -> u8 {
    match path {
        "/admin/delete_model_links" => 2,
        path if path.contains("/add_") => 0,
        path if path.contains("/delete_") => 3,
        _ => 1,
    }
}

/// Sends every example, and asks for every page.
fn tried(addr: SocketAddr) -> usize {
    let document = document(addr);
    let mut operations: Vec<(String, String, Option<Value>)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, told) in methods.as_object().unwrap() {
            let example = &told["requestBody"]["content"]["application/json"]["example"];
            let example = (!example.is_null()).then(|| example.clone());
            operations.push((method.to_uppercase(), path.clone(), example));
        }
    }
    operations.sort_by_key(|(_, path, _)| (rank(path), path.clone()));
    let mut tried = 0;
    for (method, path, example) in operations {
        // Ends with its connection only.
        if method == "POST" && example.is_none() || path.ends_with("/stream") {
            continue;
        }
        let filled = path.replace("{name}", "digits").replace("{version}", "1");
        let filled =
            filled.replace("{file}", if path.starts_with("/docs") { "docs.js" } else { "page.js" });
        let filled = if path.ends_with("/history") { filled + "?app=digits" } else { filled };
        let body = example.map(|example| example.to_string()).unwrap_or_default();
        let answer = send(addr, &method, &filled, JSON, &body);
        assert_eq!(answer.status, 200, "{method} {filled} {body}: {}", answer.text());
        let types = &document["paths"][&path][method.to_lowercase()]["responses"]["200"]["content"];
        let found = answer.header("content-type").unwrap_or_default();
        let kind = found.split(';').next().unwrap_or_default();
        assert!(types.get(kind).is_some(), "{path}: {kind} is not one of {types}");
        tried += 1;
    }
    tried
}

#[test]
fn every_example_of_the_description_works() {
    let (server, _container) = described();
    assert!(tried(server.query) >= 20);
    assert!(tried(server.management) >= 35);
}

#[test]
fn the_description_is_a_page_too_and_needs_no_key() {
    let (server, _container) = described();
    for addr in [server.query, server.management] {
        let page = send(addr, "GET", "/docs", "", "");
        assert_eq!(page.status, 200);
        assert!(page.text().contains("/docs/docs.js"), "{}", page.text());
        assert_eq!(send(addr, "GET", "/docs/style.css", "", "").status, 200);
        assert_eq!(send(addr, "GET", "/docs/none.js", "", "").status, 404);
        assert_eq!(send(addr, "POST", "/openapi.json", JSON, "{}").status, 405);
        let error = &document(addr)["components"]["responses"]["E404"]["description"];
        assert!(error.as_str().unwrap().contains("Unknown application"), "{error}");
    }
    assert_eq!(document(server.query)["openapi"], json!("3.1.0"));
}
