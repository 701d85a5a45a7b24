//! What the original survives, and so must we.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::json;

use super::{GENEROUS_SLO_US, ask, scene};
use crate::e2e::support::bystander::Bystander;
use crate::e2e::support::container::{Container, type_code};
use crate::e2e::support::eventually;
use crate::e2e::support::http::{Client, Connection, request};
use crate::e2e::support::server::{Prediction, Server};
use crate::support::signals::signal;

#[test]
fn random_bytes_on_the_rpc_port_hurt_nobody() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    let rpc: SocketAddr = server.rpc.strip_prefix("tcp://").unwrap().parse().unwrap();
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    for round in 0..200 {
        let mut stream = TcpStream::connect(rpc).unwrap();
        let mut bytes = vec![0; random.random_range(1..4096)];
        random.fill_bytes(&mut bytes);
        if round % 2 == 0 {
            // Past the signature of a greeting.
            let greeting = [&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0][..], b"NULL"].concat();
            bytes.splice(0..0, greeting);
        }
        // The server may have closed already.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    assert!(server.connections_ended("zmtp") > 100.0);
    bystander.was_served(&server);
}

#[test]
fn http_sent_to_the_rpc_port_and_zmtp_sent_to_http_hurt_nobody() {
    let (server, bystander) = scene();
    let rpc = server.rpc.strip_prefix("tcp://").unwrap().parse().unwrap();
    let mut http = Connection::open(rpc);
    http.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    eventually("it is refused", || server.connections_ended("zmtp") > 0.0);
    let mut zmtp = Connection::open(server.query);
    zmtp.send(&[&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f][..], b"\r\n\r\n"].concat());
    assert!(zmtp.answer("GET").is_none_or(|answer| answer.status == 400));
    bystander.was_served(&server);
}

#[test]
fn connections_by_the_thousand_are_served() {
    const CONNECTIONS: usize = 1_500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > 2_000, "this test needs more open files than the hard limit of {hard}");
    // Time for a busy machine to serve the last, which is silent until the others have been.
    let server = Server::with_config("[http]\nclient_request_timeout_ms = 600000\n");
    // This process holds the other ends; the server raises its limit by itself.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let bystander = Bystander::start(&server);
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let _container = Container::serving(&server, "m", &["--quiet"]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::new(server.query)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let body = json!({"input": [number]}).to_string();
        let prediction = Prediction::from(&client.post("/m/predict", body.as_bytes()));
        assert!(!prediction.is_default(), "{prediction:?}");
    }
    bystander.was_served(&server);
}

#[test]
fn containers_come_back_after_a_restart_of_the_server() {
    let server = Server::start();
    server.serve("m", "doubles", GENEROUS_SLO_US);
    let mut container = Container::serving(&server, "m", &[]);
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    let server = server.restart();
    let took = eventually("the container serves again", || server.replicas("m") > 0.5);
    println!("the container was back {took:?} after the server");
    let prediction = ask(&server, 2.5);
    assert_eq!(prediction.output(), &json!([2.5]), "{prediction:?}");
    assert_eq!(server.containers(), ["m:1:0"]);
    assert_eq!(container.counted("registrations"), 2);
}

#[test]
fn a_container_may_connect_before_its_model_is_registered() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    let _early = Container::spawn(&server, "m", &[]);
    let list = || server.containers().contains(&"m:1:0".to_owned());
    eventually("the container is listed", list);
    server.serve("m", "doubles", GENEROUS_SLO_US);
    server.await_replicas("m", 1);
    assert_eq!(ask(&server, 1.5).output(), &json!([1.5]));
    bystander.was_served(&server);
}

#[test]
fn a_model_deleted_and_registered_again_is_served_each_time() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &[]);
    let id = json!({"model_name": "m", "model_version": "1"});
    for round in 0..20 {
        server.manage("delete_versioned_model", &id);
        assert_eq!(ask(&server, 1.5).explanation(), "No connected models found for query");
        server.add_model("m", "1", "doubles");
        server.await_replicas("m", 1);
        let input = f64::from(round) + 0.5;
        let prediction = ask(&server, input);
        assert_eq!(prediction.output(), &json!([input]), "{prediction:?}");
    }
    bystander.was_served(&server);
}

#[test]
fn a_container_of_another_type_than_its_later_model_is_dropped() {
    let server = Server::start();
    let bystander = Bystander::start(&server);
    let _early = Container::spawn(&server, "m", &["--type-code", type_code("strings")]);
    let listed = || server.containers().contains(&"m:1:0".to_owned());
    eventually("the container is listed", listed);
    server.serve("m", "doubles", GENEROUS_SLO_US);
    eventually("it is dropped", || server.connections_ended("input_type") > 0.0 && !listed());
    assert_eq!(ask(&server, 1.5).explanation(), "No connected models found for query");
    bystander.was_served(&server);
}

#[test]
fn deleting_a_model_under_load_answers_every_query() {
    let (server, bystander) = scene();
    let _container = Container::serving(&server, "m", &["--quiet", "--slow-ms", "1"]);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let addr = server.query;
            std::thread::spawn(move || {
                let mut connection = Client::new(addr);
                let mut unlinked = 0;
                for number in 0_u32.. {
                    let body = json!({"input": [client, number]}).to_string();
                    let answer = connection.post("/m/predict", body.as_bytes());
                    let prediction = Prediction::from(&answer);
                    assert_eq!(prediction.status, 200, "{prediction:?}");
                    if prediction.is_default() {
                        let why = prediction.explanation();
                        let no_model = "No connected models found for query";
                        assert!(why == no_model || why.contains("was deleted"), "{why}");
                        unlinked += 1;
                    }
                    // It was served, then the model went, and the queries go on being answered.
                    if unlinked == 50 {
                        break;
                    }
                }
            })
        })
        .collect();
    let answered = "clipper_predictions_total{app=\"m\",outcome=\"prediction\"}";
    eventually("the load runs", || server.sample(answered) > 50.0);
    let id = json!({"model_name": "m", "model_version": "1"});
    server.manage("delete_versioned_model", &id);
    for client in clients {
        client.join().expect("no query failed");
    }
    bystander.was_served(&server);
}

/// The objective counts from when the server's machine had the request, also where the server has
/// no core to read it.
#[test]
fn what_the_server_is_kept_from_reading_is_as_late_as_its_client_finds_it() {
    const SLO_US: u64 = 1_000_000;
    let server = Server::start();
    server.serve("m", "doubles", SLO_US);
    let _container = Container::serving(&server, "m", &[]);
    let infer = br#"{"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 1],
                    "data": [2.5]}]}"#;
    let mut predict = Connection::open(server.query);
    signal(server.pid(), Signal::SIGSTOP);
    // The kernel accepts it all the same.
    let mut v2 = Connection::open(server.query);
    predict.send(&request("POST", "/m/predict", br#"{"input": [1.5]}"#));
    v2.send(&request("POST", "/v2/models/m/infer", infer));
    std::thread::sleep(2 * Duration::from_micros(SLO_US));
    signal(server.pid(), Signal::SIGCONT);
    let late = "Failed to retrieve a prediction response within the specified latency SLO";
    let prediction = Prediction::from(&predict.answer("POST").unwrap());
    assert!(prediction.is_default(), "{prediction:?}");
    assert_eq!(prediction.explanation(), late);
    let answer = v2.answer("POST").unwrap();
    assert!(answer.status != 200 && answer.text().contains(late), "{answer:?}");
}
