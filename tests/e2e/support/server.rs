//! The real binary as a process of its own, on free ports, with a data directory of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::eventually;
use super::http::{self, Answer};
use crate::support::ports::free_addr;
use crate::support::secrets::Watch;
use crate::support::signals::signal;

/// Lines of the server's log that a failing test prints.
const LOG_TAIL: usize = 60;

/// For query, management and metrics.
fn free_addrs() -> [SocketAddr; 3] {
    [(); 3].map(|()| free_addr())
}

pub struct Server {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub query: SocketAddr,
    pub management: SocketAddr,
    pub metrics: SocketAddr,
    pub rpc: String,
    data: Arc<tempfile::TempDir>,
    config: Option<PathBuf>,
    heard: Option<JoinHandle<()>>,
    watch: Watch,
}

/// One prediction as a client sees it.
#[derive(Debug)]
pub struct Prediction {
    pub status: u16,
    pub body: Value,
}

impl Prediction {
    pub fn output(&self) -> &Value {
        &self.body["output"]
    }

    pub fn is_default(&self) -> bool {
        self.body["default"].as_bool().unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn explanation(&self) -> &str {
        self.body["default_explanation"].as_str().unwrap_or_default()
    }
}

impl Server {
    /// A ready server with nothing registered.
    pub fn start() -> Self {
        Self::start_anywhere(Arc::new(tempfile::tempdir().unwrap()), None)
    }

    /// A ready server with the config file `config`.
    pub fn with_config_file(config: PathBuf) -> Self {
        Self::start_anywhere(Arc::new(tempfile::tempdir().unwrap()), Some(config))
    }

    /// A ready server with a config file of this text; relative paths mean its data directory.
    pub fn with_config(text: &str) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let file = data.path().join("clipper.toml");
        std::fs::write(&file, text).unwrap();
        Self::start_anywhere(data, Some(file))
    }

    /// Kills this one at once and starts another on its data and RPC port.
    pub fn restart(self) -> Self {
        self.restart_with(free_addrs())
    }

    /// [`Self::restart`] on its HTTP ports as well.
    pub fn restart_in_place(self) -> Self {
        let http = [self.query, self.management, self.metrics];
        self.restart_with(http)
    }

    fn restart_with(self, http: [SocketAddr; 3]) -> Self {
        let (data, config, rpc) = (Arc::clone(&self.data), self.config.clone(), self.rpc.clone());
        drop(self);
        Self::start_in(data, config, rpc.strip_prefix("tcp://").unwrap(), http)
    }

    fn start_anywhere(data: Arc<tempfile::TempDir>, config: Option<PathBuf>) -> Self {
        Self::start_in(data, config, &free_addr().to_string(), free_addrs())
    }

    fn start_in(
        data: Arc<tempfile::TempDir>,
        config: Option<PathBuf>,
        rpc: &str,
        http: [SocketAddr; 3],
    ) -> Self {
        let mut command = Command::new(crate::binary());
        command.arg("serve");
        if let Some(config) = &config {
            command.arg("--config").arg(config);
        }
        let flags = ["--query-addr", "--management-addr", "--metrics-addr"];
        for (flag, addr) in flags.into_iter().zip(http) {
            command.arg(flag).arg(addr.to_string());
        }
        command.arg("--rpc-addr").arg(format!("tcp://{rpc}"));
        command.arg("--data-dir").arg(data.path().join("data"));
        command.env("CLIPPER_HTTP__DRAIN_DELAY_MS", "0").env("CLIPPER_GRPC_ADDR", "127.0.0.1:0");
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let text = config.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let kept = data.path().join("data");
        let watch = Watch::over(&mut command, &text.unwrap_or_default(), &kept);
        let mut process = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (process.stderr.take().unwrap(), Arc::clone(&log));
        let heard = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let [query, management, metrics] = http;
        let (rpc, heard) = (String::new(), Some(heard));
        let mut server =
            Self { process, log, query, management, metrics, rpc, data, config, heard, watch };
        server.read_addresses();
        eventually("the server is ready", || http::get(server.query, "/readyz").status == 200);
        server
    }

    fn read_addresses(&mut self) {
        let mut listening = None;
        eventually("the server listens", || {
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the server ended with {ended:?}: {:?}",
                self.log.lock().unwrap()
            );
            listening = self.log_line("listening");
            listening.is_some()
        });
        let line = listening.unwrap();
        let value = |key: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
        };
        let addr = |key: &str| -> SocketAddr {
            value(key).trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap()
        };
        self.query = addr("query=");
        self.management = addr("management=");
        self.metrics = addr("metrics=");
        self.rpc = value("rpc=");
    }

    /// Where its journal is.
    pub fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The first line of the log with `text` in it.
    pub fn log_line(&self, text: &str) -> Option<String> {
        self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
    }

    /// Waits for a line of the log, which comes after what it tells of.
    pub fn says(&self, text: &str) -> String {
        eventually(text, || self.log_line(text).is_some());
        self.log_line(text).unwrap()
    }

    pub fn admin(&self, endpoint: &str, body: &Value) -> Answer {
        let path = format!("/admin/{endpoint}");
        http::call(self.management, "POST", &path, body.to_string().as_bytes()).expect("an answer")
    }

    /// [`Self::admin`] that has to be acknowledged.
    pub fn manage(&self, endpoint: &str, body: &Value) -> String {
        let answer = self.admin(endpoint, body);
        assert_eq!(answer.status, 200, "{endpoint} {body}: {}", answer.text());
        answer.text()
    }

    pub fn add_app(&self, name: &str, input_type: &str, default: &str, slo_us: u64) {
        self.manage(
            "add_app",
            &json!({"name": name, "input_type": input_type, "default_output": default,
                    "latency_slo_micros": slo_us}),
        );
    }

    pub fn add_model(&self, name: &str, version: &str, input_type: &str) {
        self.manage(
            "add_model",
            &json!({"model_name": name, "model_version": version, "input_type": input_type,
                    "labels": [], "container_name": "test", "model_data_path": "",
                    "batch_size": -1}),
        );
    }

    pub fn link(&self, app: &str, model: &str) {
        self.manage("add_model_links", &json!({"app_name": app, "model_names": [model]}));
    }

    /// Application and model `name`, linked: default output -1.
    pub fn serve(&self, name: &str, input_type: &str, slo_us: u64) {
        self.add_app(name, input_type, "-1", slo_us);
        self.add_model(name, "1", input_type);
        self.link(name, name);
    }

    pub fn predict(&self, app: &str, body: &Value) -> Prediction {
        let path = format!("/{app}/predict");
        let answer = http::call(self.query, "POST", &path, body.to_string().as_bytes());
        Prediction::from(&answer.expect("an answer"))
    }

    /// The value of one Prometheus sample, 0 where it is not there.
    pub fn sample(&self, name: &str) -> f64 {
        let page = http::get(self.metrics, "/metrics").text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    pub fn connections_ended(&self, reason: &str) -> f64 {
        self.sample(&format!("clipper_rpc_ended_total{{reason=\"{reason}\"}}"))
    }

    /// Replicas of a model's version 1 that take queries.
    pub fn replicas(&self, model: &str) -> f64 {
        self.sample(&format!("clipper_replicas{{model=\"{model}\",version=\"1\"}}"))
    }

    pub fn await_replicas(&self, model: &str, n: u32) {
        eventually(&format!("{model} has {n} replicas"), || {
            (self.replicas(model) - f64::from(n)).abs() < 0.5
        });
    }

    /// The connected containers, as `model:version:replica`.
    pub fn containers(&self) -> Vec<String> {
        let list = self.manage("get_all_containers", &json!({"verbose": false}));
        serde_json::from_str(&list).unwrap()
    }

    /// Asks it to stop and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), Signal::SIGTERM);
        self.ended()
    }

    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl From<&Answer> for Prediction {
    fn from(answer: &Answer) -> Self {
        let body = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
        Self { status: answer.status, body }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let has_failed = std::thread::panicking();
        if !has_failed && self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.watch.look(self.pid(), self.metrics);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if has_failed {
            let log = self.log.lock().unwrap();
            let tail = log.len().saturating_sub(LOG_TAIL);
            eprintln!("the server's log ended with:\n{}", log[tail..].join("\n"));
        } else {
            self.watch.end(self.heard.as_ref(), || self.log.lock().unwrap().clone());
        }
    }
}
