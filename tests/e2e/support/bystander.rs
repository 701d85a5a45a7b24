//! A second application that has nothing to do with the fault and has to be served all the time.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

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
    client: Option<JoinHandle<u64>>,
}

impl Bystander {
    /// Registers it and starts to query.
    pub fn start(server: &Server) -> Self {
        server.serve(NAME, "doubles", SLO_US);
        let container = Command::new(env!("CARGO_BIN_EXE_clipper"))
            .args(["container", "noop", "--name", NAME, "--version", "1", "--output", "7"])
            .args(["--connect", &server.rpc])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        server.await_replicas(NAME, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, addr) = (Arc::clone(&stop), server.query);
        let client = std::thread::spawn(move || {
            let mut client = Client::new(addr);
            let mut served = 0;
            while !stopped.load(Ordering::SeqCst) {
                served += 1;
                let body = json!({"input": [served]}).to_string();
                let answer = client.post("/bystander/predict", body.as_bytes());
                let prediction = Prediction::from(&answer);
                assert_eq!(prediction.status, 200, "{prediction:?}");
                assert!(!prediction.is_default(), "query {served}: {prediction:?}");
                std::thread::sleep(PAUSE);
            }
            served
        });
        Self { container, stop, client: Some(client) }
    }

    /// Fails if one query of the whole time had an error or the default output.
    pub fn was_served(mut self, server: &Server) {
        let last = server.predict(NAME, &json!({"input": [-1.5]}));
        assert_eq!((last.status, last.output()), (200, &json!(7)), "{last:?}");
        self.stop.store(true, Ordering::SeqCst);
        let served = self.client.take().unwrap().join().expect("the second application is served");
        assert!(served > 0);
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}
