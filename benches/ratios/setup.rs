//! Starts what is measured, and measures it.

use std::fmt::{Display, Write as _};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clipper_clock as clock;
use clipper_domain::InputType;
use clipper_tools::bench::inputs::{Choice, InputPlan, Protocol};
use clipper_tools::bench::report::Report;
use clipper_tools::bench::{self, Load, Plan, Target};

use crate::Result;
use crate::process::{Process, cpu_us, get, wait_for};

/// What the command line says.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub clipper: PathBuf,
    /// That of the containers, if it is another one.
    pub container: Option<PathBuf>,
    pub rounds: usize,
    pub seconds: f64,
    pub input_len: usize,
    pub config: String,
}

pub(crate) fn say(text: impl Display) {
    // A closed stdout is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A server's applications and limits.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Applications, each with a model of its own: `app0` with `model0` and so on.
    pub apps: usize,
    pub slo: Duration,
    /// Settings, by the environment, so that --config may have a [serving] of its own.
    pub env: Vec<(&'static str, String)>,
}

impl Shape {
    pub(crate) const RATIOS: Self =
        Self { apps: 1, slo: Duration::from_millis(100), env: Vec::new() };

    fn config(&self, settings: &Settings) -> Result<String> {
        let mut text = settings.config.clone();
        for n in 0..self.apps {
            let slo_us = self.slo.as_micros();
            write!(
                text,
                "\n[[application]]\nname = \"app{n}\"\ninput_type = \"doubles\"\n\
                 default_output = \"-1\"\nlatency_slo_micros = {slo_us}\nmodel = \"model{n}\"\n\
                 [[model]]\nname = \"model{n}\"\nversion = \"1\"\ninput_type = \"doubles\"\n"
            )?;
        }
        Ok(text)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub process: Process,
    pub query: SocketAddr,
    pub management: SocketAddr,
    pub containers: Vec<Process>,
    metrics: SocketAddr,
    rpc: String,
    /// The binary of its containers.
    container: PathBuf,
    /// Holds config, log and data.
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(settings: &Settings, shape: &Shape) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (config, log) = (dir.path().join("clipper.toml"), dir.path().join("log"));
        fs::write(&config, shape.config(settings)?)?;
        let process = Process::start(
            Command::new(&settings.clipper)
                .arg("serve")
                .arg("--config")
                .arg(&config)
                .arg("--data-dir")
                .arg(dir.path().join("data"))
                .args(["--query-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"])
                .args(["--metrics-addr", "127.0.0.1:0", "--rpc-addr", "tcp://127.0.0.1:0"])
                // Versions without such a port pass over it; the oldest refuse to start.
                .env("CLIPPER_GRPC_ADDR", "127.0.0.1:0")
                .args(["--log-format", "json"])
                .envs(shape.env.iter().map(|(key, value)| (key, value)))
                .stdin(Stdio::null())
                .stdout(File::create(dir.path().join("stdout"))?)
                .stderr(File::create(&log)?),
        )?;
        let line = wait_for("the server's first line", || {
            let text = fs::read_to_string(&log).ok()?;
            text.lines().find(|line| line.contains("\"listening\"")).map(str::to_owned)
        })
        .map_err(|error| format!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()))?;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let field = |name: &str| -> Result<String> {
            let fields = line.get("fields").unwrap_or(&line);
            let text = fields.get(name).and_then(serde_json::Value::as_str);
            Ok(text.ok_or("a strange first line")?.to_owned())
        };
        let http = |name: &str| -> Result<SocketAddr> {
            let text = field(name)?;
            let text = text.trim_start_matches("https://").trim_start_matches("http://");
            Ok(text.split('/').next().unwrap_or(text).parse()?)
        };
        Ok(Self {
            process,
            query: http("query")?,
            management: http("management")?,
            metrics: http("metrics")?,
            rpc: field("rpc")?,
            container: settings.container.clone().unwrap_or_else(|| settings.clipper.clone()),
            containers: Vec::new(),
            _dir: dir,
        })
    }

    /// Starts replicas of `model{n}` and waits until they are connected.
    pub(crate) fn replicas(&mut self, model: usize, count: usize, sleep: Duration) -> Result<()> {
        for _ in 0..count {
            self.spawn(model, "1", sleep, &[])?;
        }
        self.served(model, "1", count)
    }

    /// Starts a replica of a version, and waits until it is connected.
    pub(crate) fn replica(&mut self, model: usize, version: &str, sleep: Duration) -> Result<()> {
        self.spawn(model, version, sleep, &[])?;
        self.served(model, version, 1)
    }

    /// Starts a replica with these variables, and waits until it is connected.
    pub(crate) fn replica_with(&mut self, model: usize, env: &[(&str, String)]) -> Result<()> {
        self.spawn(model, "1", Duration::ZERO, env)?;
        self.served(model, "1", 1)
    }

    fn spawn(
        &mut self,
        model: usize,
        version: &str,
        sleep: Duration,
        env: &[(&str, String)],
    ) -> Result<()> {
        let name = format!("model{model}");
        self.containers.push(Process::start(
            Command::new(&self.container)
                .args(["container", "noop", "--version", version, "--name", &name])
                .args(["--connect", &self.rpc])
                .args(["--sleep-us", &sleep.as_micros().to_string()])
                .envs(env.iter().map(|(key, value)| (key, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?);
        Ok(())
    }

    fn served(&self, model: usize, version: &str, count: usize) -> Result<()> {
        let series = format!("clipper_replicas{{model=\"model{model}\",version=\"{version}\"}}");
        wait_for(&format!("{count} replicas of model{model}:{version}"), || {
            (self.metric(&series)? >= number(count as u64)).then_some(())
        })
    }

    /// The value of one series of `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let page = get(self.metrics, "/metrics").ok()?;
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

/// A count as a value of a table.
pub(crate) fn number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Starts the bare handler.
pub(crate) fn bare() -> Result<(Process, SocketAddr)> {
    // Free for the moment, which is enough on a machine that measures.
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let process = Process::start(Command::new(std::env::current_exe()?).args([
        "bare",
        "--addr",
        &addr.to_string(),
    ]))?;
    wait_for("the bare handler", || std::net::TcpStream::connect(addr).ok())?;
    Ok((process, addr))
}

/// Seeds that no run of this process shares with another.
fn fresh_seed() -> u64 {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    clock::unix_millis().wrapping_add(RUNS.fetch_add(1, Ordering::Relaxed) << 48)
}

/// A closed loop of unique inputs, to be changed where a case differs.
pub(crate) fn plan(settings: &Settings, addr: SocketAddr) -> Plan {
    Plan {
        target: Target {
            addr,
            host: addr.to_string(),
            app: "app0".to_owned(),
            key: None,
            tls: None,
        },
        inputs: InputPlan {
            protocol: Protocol::Predict,
            input_type: InputType::Doubles,
            len: settings.input_len,
            batch: None,
            choice: Choice::Unique,
        },
        tensors: None,
        load: Load::Closed,
        connections: 64,
        idle_connections: 0,
        threads: 1,
        warmup: Duration::ZERO,
        duration: Duration::from_secs_f64(settings.seconds),
        timeout: Duration::from_secs(10),
        slo: Duration::from_millis(100),
        seed: fresh_seed(),
    }
}

/// Runs a plan. A plan that is run again asks for other unique inputs than before: answers that a
/// cache has kept would be measured in place of the model's.
pub(crate) fn load(plan: &Plan) -> Result<Report> {
    Ok(bench::run(&Plan { seed: fresh_seed(), ..plan.clone() }, |_| {})?)
}

/// One measurement with what it cost.
#[derive(Debug)]
pub(crate) struct Measured {
    pub report: Report,
    /// Of the server, for each query.
    pub server_us: f64,
    /// Of its containers, for each query.
    pub containers_us: f64,
}

/// Runs a plan and reads the CPU time before and after.
pub(crate) fn measure(plan: &Plan, server: &Process, containers: &[Process]) -> Result<Measured> {
    let before = (server.cpu_us()?, cpu_us(containers)?);
    let report = load(plan)?;
    let after = (server.cpu_us()?, cpu_us(containers)?);
    // Without warmup, every query of the run is in the report.
    let queries = report.queries_per_s * report.duration_s;
    Ok(Measured {
        server_us: (after.0 - before.0) / queries,
        containers_us: (after.1 - before.1) / queries,
        report,
    })
}
