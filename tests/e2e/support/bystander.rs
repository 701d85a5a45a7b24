//! A second application that has nothing to do with the fault and has to be served all the time.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::eventually;
use super::http::Client;
use super::server::{Prediction, Server};

const NAME: &str = "bystander";
/// So long that only a broken server misses it.
const SLO_US: u64 = 30_000_000;
/// Between two queries: the machine is there for the test, too.
const PAUSE: Duration = Duration::from_millis(2);

/// Queries its application in a loop until it is asked how that went.
pub struct Bystander {
    container: Child,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    client: Option<JoinHandle<()>>,
}

impl Bystander {
    /// Registers it and starts to query.
    pub fn start(server: &Server) -> Self {
        server.serve(NAME, "doubles", SLO_US);
        let container = Command::new(crate::binary())
            .args(["container", "noop", "--name", NAME, "--version", "1", "--output", "7"])
            .args(["--connect", &server.rpc])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        server.await_replicas(NAME, 1);
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter, addr) = (Arc::clone(&stop), Arc::clone(&count), server.query);
        let client = std::thread::spawn(move || {
            let mut client = Client::new(addr);
            while !stopped.load(Ordering::SeqCst) {
                // Never the same twice, so that no cache answers.
                let number = counter.load(Ordering::SeqCst);
                let body = json!({"input": [number]}).to_string();
                let prediction =
                    Prediction::from(&client.post("/bystander/predict", body.as_bytes()));
                assert_eq!(prediction.status, 200, "{prediction:?}");
                assert!(!prediction.is_default(), "query {number}: {prediction:?}");
                counter.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(PAUSE);
            }
        });
        Self { container, stop, served: count, client: Some(client) }
    }

    /// Fails if one query of the whole time had an error or the default output.
    pub fn was_served(mut self, server: &Server) {
        let before = self.served.load(Ordering::SeqCst);
        let client = self.client.take().unwrap();
        eventually("the second application is served after the fault", || {
            client.is_finished() || self.served.load(Ordering::SeqCst) > before + 1
        });
        self.stop.store(true, Ordering::SeqCst);
        client.join().expect("the second application is served");
        let last = server.predict(NAME, &json!({"input": [-1.5]}));
        assert_eq!((last.status, last.output()), (200, &json!(7)), "{last:?}");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}
