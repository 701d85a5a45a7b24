//! A Redis server and `clipper` processes of a test's own, and what it asks of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::ports::free_port;
use crate::support::secrets::{self, Watch};
use crate::support::signals::signal;

/// Far above what any step takes; only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a test measures real time")]
    Instant::now()
}

pub fn pause(length: Duration) {
    #[allow(clippy::disallowed_methods, reason = "between two looks at a condition")]
    std::thread::sleep(length);
}

/// Polls until `condition` gives something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        pause(Duration::from_millis(2));
    }
}

pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// A redis-server on a port and in a directory of its own.
pub struct Redis {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    args: Vec<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments of redis-server.
    pub fn start_with(args: &[&str]) -> Self {
        let port = free_port();
        let args = args.iter().map(ToString::to_string).collect();
        let mut redis = Self { child: None, dir: tempfile::tempdir().unwrap(), port, args };
        redis.run();
        redis
    }

    /// Starts it again on what its directory holds.
    pub fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.dir.path())
            .args(["--unixsocket"])
            .arg(self.socket())
            .args(&self.args)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        until_true("redis-server answers", || self.try_ping());
    }

    fn try_ping(&self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_secs(1));
        connection.is_ok_and(|mut c| redis::cmd("PING").query::<String>(&mut c).is_ok())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets an operator at it where no frontend finds it.
    pub fn run_elsewhere(&mut self, work: impl FnOnce(&Self)) {
        let port = std::mem::replace(&mut self.port, free_port());
        self.run();
        work(self);
        self.kill();
        self.port = port;
    }

    /// Deletes what it has kept; it must not run.
    pub fn forget(&self) {
        let kept = self.dir.path().join("appendonlydir");
        if kept.exists() {
            std::fs::remove_dir_all(kept).unwrap();
        }
    }

    pub fn signal(&self, what: nix::sys::signal::Signal) {
        signal(self.child.as_ref().unwrap().id(), what);
    }

    /// A connection of an operator to one table.
    pub fn db(&self, number: i64) -> Operator {
        let client = redis::Client::open(format!("{}/{number}", self.url())).unwrap();
        Operator(client.get_connection().unwrap())
    }

    /// All of a table, in a form that compares.
    pub fn dump(&self, number: i64) -> Vec<String> {
        let mut db = self.db(number);
        let mut lines = Vec::new();
        for key in self.keys(number) {
            let kind: String = db.ask(&format!("TYPE {key}"));
            let values: Vec<String> = match kind.as_str() {
                "hash" => db.run(&["HGETALL", &key]),
                "set" => {
                    let mut members: Vec<String> = db.run(&["SMEMBERS", &key]);
                    members.sort();
                    members
                }
                "string" => match db.run(&["GET", &key]) {
                    Some(value) => vec![value],
                    None => continue,
                },
                // Gone meanwhile.
                _ => continue,
            };
            lines.push(format!("{key} {kind} {values:?}"));
        }
        lines
    }

    fn keys(&self, number: i64) -> Vec<String> {
        let mut keys: Vec<String> = self.db(number).ask("KEYS *");
        keys.sort();
        keys
    }

    /// What [`Clipper::catalog`] has to be, from the tables alone.
    pub fn shown(&self) -> [Value; 2] {
        type Hash = std::collections::BTreeMap<String, String>;
        let [mut models, mut apps, mut current, mut links] = [2, 5, 6, 7].map(|n| self.db(n));
        let apps = self.keys(5).into_iter().map(|name| {
            let row: Hash = apps.run(&["HGETALL", &name]);
            let mut linked: Vec<String> = links.run(&["SMEMBERS", &name]);
            linked.sort();
            let mut shown = json!({"name": name, "input_type": row["input_type"],
                "linked_models": linked, "default_output": row["default_output"],
                "latency_slo_micros": row["latency_slo_micros"].parse::<i64>().unwrap()});
            if row["policy"] != "DefaultOutputSelectionPolicy" {
                shown["policy"] = json!(row["policy"]);
                shown["policy_parameters"] = json!({});
            }
            shown
        });
        let models = self.keys(2).into_iter().map(|key| {
            let row: Hash = models.run(&["HGETALL", &key]);
            let name = format!("CURRENT_MODEL_VERSION:{}", row["model_name"]);
            let version: Option<String> = current.run(&["GET", &name]);
            let labels: Vec<&str> = row["labels"].split(',').filter(|l| !l.is_empty()).collect();
            json!({"model_name": row["model_name"], "model_version": row["model_version"],
                "input_type": row["input_type"], "labels": labels,
                "container_name": row["container_name"],
                "model_data_path": row["model_data_path"],
                "is_current_version": version.as_ref() == Some(&row["model_version"])})
        });
        [apps.collect(), models.collect()]
    }

    /// The tables that the catalog is made of.
    pub fn catalog(&self) -> Vec<Vec<String>> {
        [2, 5, 6, 7].map(|number| self.dump(number)).into()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            // Whatever it was told is in its file, in clear.
            let found = secrets::found(&[self.dir.path()], &[]);
            assert!(found.is_empty(), "a secret is in Redis:\n{}", found.join("\n"));
        }
    }
}

/// What redis-cli does.
pub struct Operator(redis::Connection);

impl Operator {
    pub fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query(&mut self.0).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Words separated by spaces; `''` is an empty one.
    pub fn ask<T: redis::FromRedisValue>(&mut self, line: &str) -> T {
        let words: Vec<&str> = line.split(' ').map(|w| if w == "''" { "" } else { w }).collect();
        self.run(&words)
    }

    pub fn tell(&mut self, line: &str) {
        let _: redis::Value = self.ask(line);
    }
}

/// A `clipper serve` process.
pub struct Clipper {
    child: Option<Child>,
    pub query: SocketAddr,
    pub management: SocketAddr,
    pub metrics: SocketAddr,
    pub rpc: String,
    pub log: Arc<Mutex<Vec<String>>>,
    heard: Option<JoinHandle<()>>,
    watch: Watch,
}

impl Clipper {
    pub fn start(redis: &str, data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let clipper = Self::start_unready(redis, data_dir, env);
        until_true("ready", || get(clipper.query, "/readyz").0 == 200);
        clipper
    }

    /// Starts it and does not wait until it is ready.
    pub fn start_unready(redis: &str, data_dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(crate::binary());
        command
            .args(["serve", "--log-format", "json", "--query-addr", "127.0.0.1:0"])
            .args(["--management-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"])
            .args(["--grpc-addr", "127.0.0.1:0"])
            .args(["--rpc-addr", "tcp://127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env("CLIPPER_HTTP__QUERY_WORKERS", "2")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if !redis.is_empty() {
            command.args(["--redis-url", redis]);
        }
        let watch = Watch::over(&mut command, "", data_dir);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (addresses, listening) = mpsc::channel();
        let kept = Arc::clone(&log);
        let heard = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
                if parsed["message"] == "listening" {
                    let _ = addresses.send(parsed);
                }
                kept.lock().push(line);
            }
        });
        let Ok(fields) = listening.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("no start: {:#?}", log.lock());
        };
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        let http = |name: &str| {
            let address = text(name);
            let address = address.trim_start_matches("http://").trim_end_matches("/metrics");
            address.parse().unwrap()
        };
        Self {
            child: Some(child),
            query: http("query"),
            management: http("management"),
            metrics: http("metrics"),
            rpc: text("rpc"),
            log,
            heard: Some(heard),
            watch,
        }
    }

    /// Keeps the folder of its data until that has been searched for secrets, which is when it
    /// ends.
    pub fn keeping(mut self, folder: &Arc<tempfile::TempDir>) -> Self {
        self.watch.keep(folder);
        self
    }

    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn stop(mut self) {
        let mut child = self.child.take().unwrap();
        signal(child.id(), nix::sys::signal::Signal::SIGTERM);
        assert!(child.wait().unwrap().success());
    }

    pub fn admin(&self, operation: &str, body: &Value) -> (u16, String) {
        post(self.management, &format!("/admin/{operation}"), &body.to_string())
    }

    /// An admin command that succeeds.
    pub fn done(&self, operation: &str, body: &Value) -> String {
        let (status, text) = self.admin(operation, body);
        assert_eq!(status, 200, "{operation} {body}: {text}");
        text
    }

    pub fn predict(&self, app: &str) -> (u16, Value) {
        let (status, body) = post(self.query, &format!("/{app}/predict"), r#"{"input": [1.0]}"#);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub fn serves(&self, app: &str) -> bool {
        self.predict(app).0 == 200
    }

    /// Everything that `/admin/get_*` tells of the catalog.
    pub fn catalog(&self) -> [Value; 2] {
        ["get_all_applications", "get_all_models"].map(|operation| {
            let answer = self.done(operation, &serde_json::json!({"verbose": true}));
            serde_json::from_str(&answer).unwrap()
        })
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = get(self.metrics, "/metrics").1;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Processor time it has used.
    pub fn cpu_seconds(&self) -> f64 {
        let pid = self.child.as_ref().unwrap().id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // In hundredths of a second: user, system.
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
    }

    /// As the kernel counts it; to ask for the metric would take memory for all metrics.
    pub fn resident_mib(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub fn connected(&self) -> bool {
        self.metric("clipper_redis_connected") > 0.5
    }

    /// A container that answers every input with `output`.
    pub fn container(&self, model: &str, version: &str, output: &str) -> Container {
        let child = Command::new(crate::binary())
            .args(["container", "noop", "--name", model, "--version", version])
            .args(["--connect", &self.rpc, "--output", output])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Container(child)
    }

    /// Waits for a line of the log, which comes after what it tells of.
    pub fn says(&self, text: &str) {
        until_true(text, || self.logged(text));
    }

    pub fn logged(&self, text: &str) -> bool {
        self.log.lock().iter().any(|line| line.contains(text))
    }
}

impl Drop for Clipper {
    fn drop(&mut self) {
        let has_failed = std::thread::panicking();
        if let Some(mut child) = self.child.take() {
            if !has_failed {
                self.watch.look(child.id(), self.metrics);
            }
            let _ = child.kill();
            let _ = child.wait();
            if has_failed {
                println!("{}", self.log.lock().join("\n"));
            }
        }
        if !has_failed {
            self.watch.end(self.heard.as_ref(), || self.log.lock().clone());
        }
    }
}

pub struct Container(Child);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    Http::open(addr).call("GET", path, "")
}

pub fn post(addr: SocketAddr, path: &str, body: &str) -> (u16, String) {
    Http::open(addr).call("POST", path, body)
}

/// A kept connection.
pub struct Http(BufReader<TcpStream>);

impl Http {
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}
