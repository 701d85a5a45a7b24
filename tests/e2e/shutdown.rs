//! How the server ends: queries under way first, then everything else.

use serde_json::json;

use crate::e2e::support::container::Container;
use crate::e2e::support::http;
use crate::e2e::support::server::Server;
use crate::e2e::support::{descendants_of, eventually, is_running};
use crate::support::signals::signal;
use nix::sys::signal::Signal;

const PATIENT_US: u64 = 25_000_000;

#[test]
fn sigterm_lets_a_query_under_way_finish() {
    let mut server = Server::start();
    server.serve("m", "doubles", PATIENT_US);
    let mut container = Container::serving(&server, "m", &["--how", "hold"]);
    let addr = server.query;
    let client =
        std::thread::spawn(move || http::call(addr, "POST", "/m/predict", b"{\"input\": [1.5]}"));
    container.await_input(&json!([1.5]));
    signal(server.pid(), Signal::SIGTERM);
    eventually("it says that it stops", || server.log_line("stopping").is_some());
    for addr in [server.management, server.metrics] {
        let (ready, live) = (http::get(addr, "/readyz"), http::get(addr, "/livez"));
        assert_eq!((ready.status, live.status), (503, 200), "{}", ready.text());
    }
    assert!(!client.is_finished());
    container.answer("right");
    let answer = client.join().unwrap().expect("the query under way is answered");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"output\":[1.5],\"default\":false"), "{}", answer.text());
    assert!(server.ended().success(), "exit code 0");
}

#[test]
fn sigterm_ends_an_idle_server_and_its_containers() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut server = Server::with_config_file(folder.join("config/quickstart.toml"));
    server.await_replicas("digits", 2);
    let children = descendants_of(server.pid());
    assert_eq!(children.len(), 2);
    assert!(server.terminate().success());
    assert!(!children.iter().any(|child| is_running(*child)), "its children ended before it");
    // Its last line may still be on its way from the pipe.
    eventually("it says so", || server.log_line("stopped").is_some());
}
