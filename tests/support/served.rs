//! The real server as a process, and a plain HTTP client for it.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ports::free_addr;
use super::secrets::Watch;

/// Far above what any step takes; only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Polls until `condition` gives something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does not outlive its test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server with all ports free ones.
pub struct Served {
    process: Process,
    pub query: SocketAddr,
    pub management: SocketAddr,
    pub metrics: SocketAddr,
    pub rpc: SocketAddr,
    /// Where that is known.
    pub grpc: Option<SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
    /// Who reads the log, until its end.
    heard: Option<JoinHandle<()>>,
    watch: Watch,
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.is_up() {
            self.watch.look(self.pid(), self.metrics);
        }
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        self.watch.end(self.heard.as_ref(), || self.log.lock().unwrap().clone());
    }
}

impl Served {
    /// Starts the server and waits until it listens.
    pub fn start(config: &str, data_dir: &Path) -> Self {
        Self::start_by(Command::new(crate::binary()), config, data_dir)
    }

    /// The same with at most `files` open file descriptors.
    pub fn start_with_files(files: u32, config: &str, data_dir: &Path) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$@\"");
        shell.args(["-c", &script, "sh", crate::binary()]);
        Self::start_by(shell, config, data_dir)
    }

    /// The same run by `command`, which gets the arguments.
    pub fn start_by(mut command: Command, config: &str, data_dir: &Path) -> Self {
        let ports = ["127.0.0.1:0"; 4].map(|addr| addr.parse().unwrap());
        let watch = arguments(&mut command, ports, config, data_dir);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Process(child);
        let stderr = process.0.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&log);
        let heard = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                keep.lock().unwrap().push(line);
            }
        });
        let listening = until("the server listens", || {
            let ended = process.0.try_wait().unwrap();
            let lines = log.lock().unwrap();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", lines.join("\n"));
            lines.iter().find(|line| line.contains("\"listening\"")).cloned()
        });
        let line: serde_json::Value = serde_json::from_str(&listening).unwrap();
        let addr = |key: &str| {
            let text = line[key].as_str().unwrap();
            let text = text.trim_start_matches("https://").trim_start_matches("http://");
            let text = text.trim_start_matches("tcp://");
            text.trim_end_matches("/metrics").parse().unwrap()
        };
        Self {
            query: addr("query"),
            management: addr("management"),
            metrics: addr("metrics"),
            rpc: addr("rpc"),
            grpc: line["grpc"].as_str().map(|text| text.parse().unwrap()),
            process,
            log,
            heard: Some(heard),
            watch,
        }
    }

    /// Keeps the folder of its data until that has been searched for secrets, which is when the
    /// server ends.
    pub fn keeping(mut self, folder: &Arc<tempfile::TempDir>) -> Self {
        self.watch.keep(folder);
        self
    }

    /// The same with another standard error, which is not read; waits until it is ready.
    pub fn start_unheard(stderr: Stdio, config: &str, data_dir: &Path) -> Self {
        let mut command = Command::new(crate::binary());
        let ports = [(); 4].map(|()| free_addr());
        let watch = arguments(&mut command, ports, config, data_dir);
        let process = Process(command.stderr(stderr).spawn().unwrap());
        // With it goes this end of what it writes to.
        drop(command);
        let [query, management, metrics, rpc] = ports;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (grpc, heard) = (None, None);
        let mut served = Self { process, query, management, metrics, rpc, grpc, log, heard, watch };
        until("the server is ready", || {
            assert!(served.is_up(), "the server ended");
            let answer = Http::new(query).request("GET", "/readyz", "");
            answer.is_ok_and(|(status, _)| status == 200).then_some(())
        });
        served
    }

    /// Waits for its end.
    pub fn exit_status(mut self) -> std::process::ExitStatus {
        until("the server ends", || self.process.0.try_wait().unwrap())
    }

    /// The lines it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line of the log, which comes after what it tells of.
    pub fn says(&self, text: &str) {
        until(text, || self.log().iter().any(|line| line.contains(text)).then_some(()));
    }

    /// Whether it still runs.
    pub fn is_up(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// Ends it at once, as a crash does.
    pub fn kill_9(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Resident memory, MB.
    pub fn resident_mb(&self) -> f64 {
        self.memory_mb("VmRSS:")
    }

    /// The most of it so far.
    pub fn peak_mb(&self) -> f64 {
        self.memory_mb("VmHWM:")
    }

    /// [`Self::peak_mb`] starts over.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn memory_mb(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// User and system CPU time so far, in clock ticks (hundredths of a second on Linux).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// The value of the sample whose line starts with `sample`; 0 if there is none.
    pub fn metric(&self, sample: &str) -> f64 {
        let (_, text) = Http::new(self.metrics).request("GET", "/metrics", "").unwrap();
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(is_value));
        line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    /// Connections that ended for `reason`.
    pub fn ended(&self, reason: &str) -> f64 {
        self.metric(&format!("clipper_rpc_ended_total{{reason=\"{reason}\"}}"))
    }

    /// One admin command that must be acknowledged.
    pub fn admin(&self, path: &str, body: &serde_json::Value) {
        let (status, text) =
            Http::new(self.management).request("POST", path, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{path} {body}: {text}");
    }

    /// Registers an application, its model and the link.
    pub fn add_linked(&self, name: &str, slo_micros: u32) {
        self.admin("/admin/add_app", &app(name, slo_micros));
        self.admin("/admin/add_model", &model(name));
        let link = serde_json::json!({ "app_name": name, "model_names": [name] });
        self.admin("/admin/add_model_links", &link);
    }

    /// A container that answers "7" to everything.
    pub fn noop(&self, model: &str) -> Process {
        let child = Command::new(crate::binary())
            .args(["container", "noop", "--name", model, "--version", "1", "--output", "7"])
            .args(["--connect", &format!("tcp://{}", self.rpc)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    /// Replicas of a model's version 1 that take queries.
    pub fn replicas(&self, model: &str) -> f64 {
        self.metric(&format!("clipper_replicas{{model=\"{model}\",version=\"1\"}}"))
    }

    /// Waits until a version's number of attached replicas is `n`.
    pub fn await_replicas(&self, model: &str, n: u32) {
        let wanted = f64::from(n);
        until(&format!("{n} replicas of {model}"), || {
            (self.replicas(model).to_bits() == wanted.to_bits()).then_some(())
        });
    }
}

/// `serve` on these ports. Nobody waits for load balancers, unless the test says how long.
fn arguments(
    command: &mut Command,
    ports: [SocketAddr; 4],
    config: &str,
    data_dir: &Path,
) -> Watch {
    let file = data_dir.join("clipper.toml");
    std::fs::write(&file, config).unwrap();
    let flags = ["--query-addr", "--management-addr", "--metrics-addr", "--rpc-addr"];
    command.arg("serve");
    for (flag, addr) in flags.into_iter().zip(ports) {
        let scheme = if flag == "--rpc-addr" { "tcp://" } else { "" };
        command.arg(flag).arg(format!("{scheme}{addr}"));
    }
    // An older binary passes over it; the oldest take it for a misspelt CLIPPER_RPC_ADDR.
    command.env("CLIPPER_GRPC_ADDR", "127.0.0.1:0");
    // An older binary under test does not know the setting and refuses to start.
    let is_old = std::env::var_os("CLIPPER_TEST_BINARY").is_some();
    if !is_old && !config.contains("drain_delay_ms") {
        command.env("CLIPPER_HTTP__DRAIN_DELAY_MS", "0");
    }
    command
        .args(["--log-format", "json", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(data_dir.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Watch::over(command, config, &data_dir.join("data"))
}

fn is_value(rest: &str) -> bool {
    rest.strip_prefix(' ').is_some_and(|value| value.parse::<f64>().is_ok())
}

/// The body that adds an application over doubles.
pub fn app(name: &str, slo_micros: u32) -> serde_json::Value {
    serde_json::json!({
        "name": name, "input_type": "doubles", "default_output": "-1.0",
        "latency_slo_micros": slo_micros,
    })
}

/// The body that adds version 1 of a model over doubles.
pub fn model(name: &str) -> serde_json::Value {
    serde_json::json!({
        "model_name": name, "model_version": "1", "input_type": "doubles", "labels": [],
        "container_name": "external", "model_data_path": "", "batch_size": 1,
    })
}

/// A connection that is kept alive and opened anew when it broke.
pub struct Http {
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Status and body of the answer.
    pub fn request(
        &mut self,
        verb: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let answer = self.attempt(verb, path, body);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn attempt(&mut self, verb: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.addr, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().unwrap();
        let request = format!(
            "{verb} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        read_answer(stream)
    }
}

/// Status and body of an answer.
pub fn read_answer(stream: &mut impl BufRead) -> std::io::Result<(u16, String)> {
    let broken = || std::io::Error::other("not an HTTP answer");
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.to_ascii_lowercase());
    }
    let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
    if let Some(length) = length {
        let mut body = vec![0; length.trim().parse().map_err(|_| broken())?];
        stream.read_exact(&mut body)?;
        return Ok((status.ok_or_else(broken)?, String::from_utf8(body).map_err(|_| broken())?));
    }
    // Chunked.
    let mut body = String::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok((status.ok_or_else(broken)?, body));
        }
        body.push_str(std::str::from_utf8(&chunk[..size]).map_err(|_| broken())?);
    }
}
