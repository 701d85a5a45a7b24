//! Two replicas, one killed in the middle of a batch under load: clients notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::e2e::support::http::Client;
use crate::e2e::support::server::{Prediction, Server};
use crate::e2e::support::{PATIENCE, config_of_noop, descendants_of, eventually, within};
use crate::support::is_full;
use crate::support::signals::signal;

const CLIENTS: u64 = 8;
const KILLS: usize = 5;

/// The processes that answer: the leaves below the server, where a wrapper holds each.
fn replica_processes(server: &Server) -> Vec<u32> {
    let all = descendants_of(server.pid());
    all.into_iter().filter(|pid| descendants_of(*pid).is_empty()).collect()
}

#[test]
fn a_replica_killed_under_load_costs_no_query() {
    costs_no_query(-1, 20_000);
}

/// Full batches wait and end soon at any time, so a killed replica has a second one.
#[test]
fn a_replica_killed_with_a_batch_behind_its_own_costs_no_query() {
    costs_no_query(1, 1_000);
}

fn costs_no_query(batch_size: i32, sleep_us: u32) {
    // Almost every moment is the middle of a batch.
    let server = Server::with_config(&config_of_noop(batch_size, sleep_us, 2));
    server.await_replicas("m", 2);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, answered, addr) = (Arc::clone(&stop), Arc::clone(&answered), server.query);
            std::thread::spawn(move || {
                let mut connection = Client::new(addr);
                let mut number = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let body = json!({"input": [client, number]}).to_string();
                    let answer = connection.post("/m/predict", body.as_bytes());
                    let prediction = Prediction::from(&answer);
                    assert_eq!(prediction.status, 200, "{prediction:?}");
                    assert!(!prediction.is_default(), "{prediction:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..KILLS {
        let before = answered.load(Ordering::SeqCst);
        eventually("the load runs", || answered.load(Ordering::SeqCst) > before + 3 * CLIENTS);
        let listed = server.containers();
        let doomed = *replica_processes(&server).first().expect("a replica");
        let killed = Instant::now();
        signal(doomed, Signal::SIGKILL);
        // A busy machine says nothing of the time.
        let limit = if is_full() { Duration::from_secs(2) } else { PATIENCE };
        within(limit, "the replica is back", || {
            let now = server.containers();
            now.len() == 2 && now != listed && (server.replicas("m") - 2.0).abs() < 0.5
        });
        println!("two replicas again {:?} after kill -9", killed.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no error and no default");
    }
    let retried = server.sample("clipper_queue_retried_total{model=\"m\",version=\"1\"}");
    println!("{} queries answered, {retried} tried twice", answered.load(Ordering::SeqCst));
    assert!(retried > 0.0, "no kill hit a batch");
}
