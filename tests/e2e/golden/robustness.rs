//! What clients of every kind throw at the management frontend.

use std::net::SocketAddr;

use super::double::InMemoryServer;
use crate::e2e::support::http::{self as client, Answer, Connection, request};

const LIMIT: usize = 16 << 20;
const PING: &[u8] = b"GET /admin/ping HTTP/1.1\r\nHost: test\r\n\r\n";

fn post(addr: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    client::call(addr, "POST", path, body.as_ref()).unwrap()
}

fn app(name: &str, input_type: &str, slo: i64) -> String {
    serde_json::json!({
        "name": name, "input_type": input_type, "default_output": "-1", "latency_slo_micros": slo,
    })
    .to_string()
}

#[test]
fn deep_huge_and_broken_bodies_are_refused_and_the_server_lives() {
    let server = InMemoryServer::start(LIMIT);
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let nested = post(server.addr(), "/admin/add_app", &deep);
    assert_eq!(nested.status, 400);
    assert!(nested.text().contains("Nested deeper than 128 levels."), "{}", nested.text());

    let member = post(server.addr(), "/admin/get_application", format!("{{\"name\": {deep}}}"));
    assert_eq!(member.status, 400);

    let huge = post(server.addr(), "/admin/add_app", vec![b' '; 20_000_000]);
    assert_eq!(huge.status, 413);
    assert!(huge.text().contains("http.body_max_bytes = 16777216"), "{}", huge.text());

    let utf8 = post(server.addr(), "/admin/get_application", b"{\"name\": \"\xff\xfe\"}");
    assert_eq!(utf8.status, 400);
    assert!(utf8.text().contains("Invalid UTF-8 encoding. (offset 10)"), "{}", utf8.text());

    for garbage in [&b"\0\0\0\0"[..], b"\x89PNG\r\n", b"\xef\xbb\xbf{}", b"{\"verbose\": tru}"] {
        assert_eq!(post(server.addr(), "/admin/get_all_models", garbage).status, 400);
    }
    assert_eq!(client::call(server.addr(), "GET", "/admin/ping", b"").unwrap().text(), "PONG");
}

#[test]
fn a_body_refused_by_its_length_is_not_read_as_requests() {
    let server = InMemoryServer::start(1_000);
    let mut connection = Connection::open(server.addr());
    let delete = request("POST", "/admin/add_app", app("smuggled", "doubles", 1).as_bytes());
    connection.send(&request("POST", "/admin/add_app", &delete.repeat(20)));
    assert_eq!(connection.answer("POST").unwrap().status, 413);
    assert!(connection.answer("POST").is_none(), "the connection ends with the refusal");
    let apps = post(server.addr(), "/admin/get_all_applications", "{\"verbose\": false}");
    assert_eq!(apps.text(), "[]");
}

#[test]
fn bytes_that_are_not_http_hurt_only_their_connection() {
    let server = InMemoryServer::start(LIMIT);
    let mut bytes: u8 = 7;
    for _ in 0..50 {
        let mut garbage = Connection::open(server.addr());
        let noise = (0..512).map(|_| {
            bytes = bytes.wrapping_mul(73).wrapping_add(41);
            bytes
        });
        garbage.send(&noise.collect::<Vec<_>>());
        garbage.send(b"\r\n\r\n");
        let answer = garbage.answer("GET");
        assert!(answer.is_none_or(|a| a.status == 400));
    }
    assert_eq!(client::call(server.addr(), "GET", "/admin/ping", b"").unwrap().status, 200);
}

#[test]
fn a_body_that_never_arrives_gets_a_timeout() {
    let server = InMemoryServer::start(LIMIT);
    let mut slow = Connection::open(server.addr());
    slow.send(b"POST /admin/add_app HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{\"na");
    assert_eq!(slow.answer("POST").unwrap().status, 408);
}

#[test]
fn pipelined_requests_are_answered_one_by_one_in_order() {
    let server = InMemoryServer::start(LIMIT);
    let mut connection = Connection::open(server.addr());
    let mut requests = Vec::new();
    requests.extend(request("POST", "/admin/add_app", app("a", "d", 1).as_bytes()));
    requests.extend(request("POST", "/admin/nope", b"{}"));
    requests.extend(request("POST", "/admin/get_application", b"{\"name\": \"a\"}"));
    requests.extend(PING);
    connection.send(&requests);
    let statuses: Vec<u16> =
        (0..3).map(|_| connection.answer("POST").unwrap()).map(|a| a.status).collect();
    assert_eq!(statuses, [200, 404, 200]);
    assert_eq!(connection.answer("GET").unwrap().text(), "PONG");
}

#[test]
fn connection_close_is_honoured() {
    let server = InMemoryServer::start(LIMIT);
    let mut closing = Connection::open(server.addr());
    closing.send(b"GET /admin/ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(closing.answer("GET").unwrap().text(), "PONG");
    assert!(closing.is_closed());

    let mut kept = Connection::open(server.addr());
    for _ in 0..3 {
        kept.send(PING);
        assert_eq!(kept.answer("GET").unwrap().text(), "PONG");
    }
}

#[test]
fn verbs_slashes_query_strings_and_content_types() {
    let server = InMemoryServer::start(LIMIT);
    let call = |method, path| client::call(server.addr(), method, path, b"").unwrap();

    let wrong = call("DELETE", "/admin/add_app");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, OPTIONS")));
    let options = call("OPTIONS", "/admin/ping");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    let head = call("HEAD", "/admin/ping");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    let mut after_head = Connection::open(server.addr());
    after_head.send(&[b"HEAD /livez HTTP/1.1\r\nHost: test\r\n\r\n", PING].concat());
    assert_eq!(after_head.answer("HEAD").unwrap().status, 200);
    assert_eq!(after_head.answer("GET").unwrap().text(), "PONG", "no body follows a HEAD");
    assert_eq!(call("GET", "/admin/ping/?x=1").text(), "PONG");
    assert_eq!(call("GET", "/").status, 404);

    let mut form = Connection::open(server.addr());
    form.send(
        b"POST /admin/get_all_models/?a=b HTTP/1.1\r\nHost: test\r\nContent-Length: 17\r\n\
          Content-Type: application/x-www-form-urlencoded\r\n\r\n{\"verbose\": true}",
    );
    let answer = form.answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "[]"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn values_that_cannot_work_are_refused_with_their_rule() {
    let server = InMemoryServer::start(LIMIT);
    let cases = [
        (app("", "doubles", 1), "Invalid application name supplied: '': it is empty"),
        (app("a/b", "doubles", 1), "Invalid application name supplied: 'a/b': it contains '/'"),
        (
            app("a\nb", "doubles", 1),
            "Invalid application name supplied: 'a\u{fffd}b': it contains a",
        ),
        (app(&"x".repeat(9_000), "doubles", 1), "it is 9000 bytes long; the limit is 256"),
        (
            app("a", "tensor", 1),
            "Invalid input type supplied: 'tensor'. Accepted, in any case: bytes,",
        ),
        (app("a", "doubles", 0), "latency_slo_micros must be 1 to 2147483647, not 0"),
        (app("a", "doubles", -5), "latency_slo_micros must be 1 to 2147483647, not -5"),
        (
            app("a", "doubles", 1 << 40),
            "expected a whole number of 32 bits but found 1099511627776",
        ),
    ];
    for (body, text) in cases {
        let answer = post(server.addr(), "/admin/add_app", &body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(text), "{}", answer.text());
        assert!(answer.body.len() < 1_000, "the answer repeats only the start of a long name");
    }
    let none = post(server.addr(), "/admin/get_all_applications", "{\"verbose\": false}");
    assert_eq!(none.text(), "[]");
}

#[test]
fn a_store_that_is_away_gives_503_for_changes_and_answers_reads() {
    let server = InMemoryServer::start(LIMIT);
    server.set_store_away(true);
    let refused = post(server.addr(), "/admin/add_app", app("a", "doubles", 1));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.text(), r#"{"error":"Service unavailable","cause":"Redis is away"}"#);
    assert_eq!(post(server.addr(), "/admin/get_application", "{\"name\": \"a\"}").text(), "{}");
    server.set_store_away(false);
    assert_eq!(post(server.addr(), "/admin/add_app", app("a", "doubles", 1)).status, 200);
}

#[test]
fn a_stored_state_comes_before_the_default_output() {
    let server = InMemoryServer::start(LIMIT);
    post(server.addr(), "/admin/add_app", app("a", "doubles", 1));
    let state = |uid: i64| {
        let body = format!("{{\"app_name\": \"a\", \"uid\": {uid}}}");
        post(server.addr(), "/admin/get_state", body).text()
    };
    assert_eq!(state(77), "learnt");
    assert_eq!(state(-9_000_000_000), "-1");
}

#[test]
fn readiness_names_what_is_missing() {
    use clipper::http::health::Condition::{self, JournalReplayed, ListenersBound, MetadataKnown};
    let server = InMemoryServer::start(LIMIT);
    let get = |path| client::call(server.addr(), "GET", path, b"").unwrap();
    assert_eq!((get("/livez").status, get("/readyz").status), (200, 503));
    for condition in [JournalReplayed, ListenersBound, MetadataKnown] {
        server.readiness().meet(condition);
    }
    assert_eq!(get("/healthz").text(), r#"{"ready":false,"missing":["rpc bound"]}"#);
    server.readiness().meet(Condition::RpcBound);
    assert_eq!((get("/readyz").status, get("/readyz").text().as_str()), (200, "{\"ready\":true}"));
    server.readiness().drain();
    assert_eq!((get("/readyz").status, get("/livez").status), (503, 200));
}
