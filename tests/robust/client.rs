//! The well-behaved ones beside the attacker: a container and a client that predicts all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::served::Http;

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    wrong: Vec<String>,
}

/// A client that predicts until dropped.
pub struct LiveClient {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What it saw during one case.
pub struct Window {
    pub answers: usize,
    pub p99: Duration,
    /// Answers that were not the model's, the first few.
    pub wrong: Vec<String>,
}

impl LiveClient {
    pub fn start(query: SocketAddr, app: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stopped, record) = (Arc::clone(&stop), Arc::clone(&seen));
        let path = format!("/{app}/predict");
        let thread = std::thread::spawn(move || {
            let mut http = Http::new(query);
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                // A new input each time: none is answered by the cache.
                let body = format!("{{\"input\": [{number}.5, 2.0]}}");
                let asked = Instant::now();
                let answer = http.request("POST", &path, &body);
                let latency = asked.elapsed();
                let mut seen = record.lock().unwrap();
                seen.latencies.push(latency);
                match answer {
                    Ok((200, text))
                        if text.contains("\"output\":7,") && text.contains("\"default\":false") => {
                    }
                    other => seen.wrong.push(format!("{other:?}")),
                }
                drop(seen);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// What was seen since the last call.
    pub fn window(&self) -> Window {
        let Seen { mut latencies, mut wrong } = std::mem::take(&mut *self.seen.lock().unwrap());
        latencies.sort_unstable();
        wrong.truncate(5);
        let at = (latencies.len() * 99 / 100).min(latencies.len().saturating_sub(1));
        let p99 = latencies.get(at).copied().unwrap_or_default();
        Window { answers: latencies.len(), p99, wrong }
    }

    /// Waits until it has seen `n` more answers.
    pub fn await_answers(&self, n: usize) {
        crate::support::served::until("the live client is answered", || {
            (self.seen.lock().unwrap().latencies.len() >= n).then_some(())
        });
    }
}

impl Drop for LiveClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
