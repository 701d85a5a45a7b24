//! `clipper bench`

use std::io::{IsTerminal as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, TryFromFloatSecsError};

use clap::Args;

use super::output::{answer, answer_json, exit};
use super::remote::{KeyArg, TlsArgs};
use super::value::{self, Expected};
use clipper_clock as clock;
use clipper_domain::printable::printable;
use clipper_domain::shown_url::shown_url;
use clipper_domain::{InputType, Signature};
use clipper_tensors::{RowError, json};
use clipper_tools::bench::inputs::tensors::{NoRequests, TensorPlan, TensorRows};
use clipper_tools::bench::inputs::{Choice, InputPlan, Protocol};
use clipper_tools::bench::report::Report;
use clipper_tools::bench::search::GoodputSearch;
use clipper_tools::bench::signature::{self, NoSignature};
use clipper_tools::bench::{self, Arrivals, BenchError, BenchProgress, Load, Plan, Target, plot};
use clipper_tools::tls::{Trust, TrustError};

/// Highest rate that a search tries, requests per second.
const RATE_MAX: f64 = 1e6;
/// Connections of an open loop, unless told: enough for 10,000 requests/s at 100 ms each.
const OPEN_CONNECTIONS: usize = 1000;
/// Connections of a closed loop, unless told.
const CLOSED_CONNECTIONS: usize = 64;

/// `clipper bench`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Without --rate each connection sends its next request when it has its answer (closed loop). With
--rate requests start at their own times, and a latency counts from the time at which its request
was meant to start, so a server that stalls cannot hide what it kept waiting (open loop).

Exits with 1 when a request failed or got another status than 200, or a search found no rate.

Examples:
  clipper bench --app digits --input-len 64
  clipper bench --app digits --input-len 64 --rate 2000 --slo-ms 20
  clipper bench --app digits --input-len 64 --batch 100 --inputs zipf:1.0:1000000 --json
  clipper bench --app digits --input-len 64 --find-goodput --slo-ms 20 --duration 5
  clipper bench --app reader --input-type tensors --protocol grpc --open-length 128 --below 30000
  clipper bench --app reader --input-type tensors --protocol v2-binary --rows rows.jsonl")]
pub(super) struct BenchArgs {
    /// The query frontend, or with grpc the gRPC port [default: http://127.0.0.1:1337; grpc: 8001].
    #[arg(long, value_name = "http://HOST:PORT")]
    url: Option<String>,
    #[command(flatten)]
    key: KeyArg,
    /// The application.
    #[arg(long, value_name = "NAME")]
    app: String,
    /// predict (POST /APP/predict), or the Open Inference Protocol, v2, v2-binary or grpc; then
    /// --app is an application or a model. Statuses below 100 are gRPC's codes.
    #[arg(long, default_value = "predict", value_parser = Protocol::parse)]
    protocol: Protocol,
    /// The application's input type. Of tensors the server is asked for the signature, and rows are
    /// made by it, or are those of --rows.
    #[arg(long, default_value = "doubles", value_parser = value::input_type)]
    input_type: InputType,
    /// Elements of one input: numbers, characters or bytes.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = at_most(1 << 20))]
    input_len: u64,
    /// Inputs of one request, sent as input_batch [default: one, sent as input].
    #[arg(long, value_name = "N", value_parser = at_most(100_000))]
    batch: Option<u64>,
    /// unique, same, or zipf:S:N for N inputs with exponent S. Unique floats and short texts
    /// repeat when their digits are used up; floats after 10 million.
    #[arg(long, default_value = "unique", value_parser = Choice::parse)]
    inputs: Choice,
    /// Rows of tensors, a JSON object a line, as input of /APP/predict has them; they are sent in
    /// turn [default: made by chance].
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Of rows of tensors that are made: how long dimensions are that the signature leaves open.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = at_most(1 << 20))]
    open_length: u64,
    /// Of rows of tensors that are made: whole numbers are from 0, and less than this.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = at_most(1 << 31))]
    below: u64,
    /// Connections; in an open loop the most requests under way [default: 64; open loop: 1000].
    #[arg(long, value_name = "N", value_parser = at_most(60_000))]
    connections: Option<u64>,
    /// Further connections, held open and silent.
    #[arg(long, default_value_t = 0, value_name = "N")]
    idle_connections: usize,
    /// Requests per second: open loop.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Evenly spaced requests instead of random (Poisson) ones.
    #[arg(long)]
    constant: bool,
    /// Search for the highest rate with 99 % of queries in time, --duration for each step.
    #[arg(long)]
    find_goodput: bool,
    /// Measured time, s.
    #[arg(long, default_value = "10", value_name = "S", value_parser = value::seconds_or_none)]
    duration: Duration,
    /// Time under load before that, s.
    #[arg(long, default_value = "1", value_name = "S", value_parser = value::seconds_or_none)]
    warmup: Duration,
    /// A request without an answer after this has failed, s.
    #[arg(long, default_value = "5", value_name = "S", value_parser = value::seconds_or_none)]
    timeout: Duration,
    /// The objective that goodput is counted against, ms.
    #[arg(long, default_value_t = 100.0, value_name = "MS")]
    slo_ms: f64,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_most(256))]
    threads: u64,
    /// Repeats a run's inputs and arrivals [default: from the clock].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

fn at_most(max: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=max)
}

fn rate(text: &str) -> Result<f64, Expected> {
    let rate = text.parse().ok().filter(|rate| (0.001..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| Expected::new(format!("a number, 0.001 to {RATE_MAX}")))
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
enum BenchFailure {
    #[error("--url {url}: {error}")]
    Url { url: String, error: std::io::Error },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("--url {0}: no such host")]
    NoHost(String),
    #[error("--slo-ms: {0}")]
    Slo(#[from] TryFromFloatSecsError),
    #[error("there is no application '{app}' at {host}: `clipper admin apps` lists them")]
    NoApplication { app: String, host: String },
    #[error("no rate had 99 % of its queries in time")]
    NoRate,
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error("the report has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("what '{app}' takes is not known: {why}")]
    Signature { app: String, why: NoSignature },
    #[error("--rows {}: {error}", file.display())]
    File { file: PathBuf, error: std::io::Error },
    #[error("--rows {}: line {line}: {why}", file.display())]
    Row { file: PathBuf, line: usize, why: RowError },
    #[error("no request can be made: {0}")]
    Rows(#[from] NoRequests),
    #[error("--rows is for --input-type tensors")]
    RowsOfOther,
}

/// A row on each line that is not empty.
fn rows_of(file: &Path, signature: &Signature) -> Result<Vec<Arc<[u8]>>, BenchFailure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| BenchFailure::File { file: file.to_owned(), error })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(at, line)| {
        json::read_row(line, signature.inputs(), &"row").map_err(|why| BenchFailure::Row {
            file: file.to_owned(),
            line: at + 1,
            why,
        })
    };
    lines.map(row).collect()
}

/// `http://HOST:PORT` or `https://HOST:PORT` into its address.
fn target(
    (url, app): (&str, &str),
    key: Option<&str>,
    trust: &Trust,
    protocol: Protocol,
) -> Result<Target, BenchFailure> {
    let encrypted = url.strip_prefix("https://");
    let host = encrypted.or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    let host = host.trim_end_matches('/');
    let alpn: &[u8] = if protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
    let tls = encrypted.map(|_| trust.connector(host, alpn)).transpose()?;
    let shown = |url| shown_url(url).into_owned();
    let addr = host
        .to_socket_addrs()
        .map_err(|error| BenchFailure::Url { url: shown(url), error })?
        .next()
        .ok_or_else(|| BenchFailure::NoHost(shown(url)))?;
    let key = key.map(str::to_owned);
    Ok(Target { addr, host: host.to_owned(), app: app.to_owned(), key, tls })
}

impl BenchArgs {
    fn url(&self) -> &str {
        let usual = match self.protocol {
            Protocol::Grpc => "http://127.0.0.1:8001",
            _ => "http://127.0.0.1:1337",
        };
        self.url.as_deref().unwrap_or(usual)
    }

    fn plan(&self) -> Result<Plan, BenchFailure> {
        let arrivals = if self.constant { Arrivals::Constant } else { Arrivals::Poisson };
        let open = self.rate.is_some() || self.find_goodput;
        let connections = match self.connections {
            Some(n) => size(n),
            None if open => OPEN_CONNECTIONS,
            None => CLOSED_CONNECTIONS,
        };
        let target =
            target((self.url(), &self.app), self.key.get(), &self.tls.trust(), self.protocol)?;
        let tensors = self.tensors(&target)?.map(Arc::new);
        Ok(Plan {
            target,
            tensors,
            inputs: InputPlan {
                protocol: self.protocol,
                input_type: self.input_type,
                len: size(self.input_len),
                batch: self.batch.map(size),
                choice: self.inputs,
            },
            load: self.rate.map_or(Load::Closed, |rate| Load::Open { rate, arrivals }),
            connections,
            idle_connections: self.idle_connections,
            threads: size(self.threads),
            warmup: self.warmup,
            duration: self.duration,
            timeout: self.timeout,
            slo: Duration::try_from_secs_f64(self.slo_ms / 1e3)?,
            seed: self.seed.unwrap_or_else(clock::unix_millis),
        })
    }

    /// Of type tensors: the rows to send.
    fn tensors(&self, target: &Target) -> Result<Option<TensorPlan>, BenchFailure> {
        if self.input_type != InputType::Tensors {
            return if self.rows.is_some() { Err(BenchFailure::RowsOfOther) } else { Ok(None) };
        }
        QueryFrontend::new(target, &self.tls.trust())?.find_app(target, self.protocol)?;
        let signature = signature::of(target, self.protocol, self.timeout);
        let unknown = |why| BenchFailure::Signature { app: self.app.clone(), why };
        let signature = signature.map_err(unknown)?;
        let rows = match &self.rows {
            None => TensorRows::Random {
                open: self.open_length,
                below: u32::try_from(self.below).unwrap_or(u32::MAX),
            },
            Some(file) => TensorRows::Given(rows_of(file, &signature)?),
        };
        let asked = (self.protocol, self.batch.map(size));
        Ok(Some(TensorPlan::new(signature, rows, asked)?))
    }

    pub(super) fn run(&self) -> ExitCode {
        let result = self.plan().and_then(|plan| {
            let asked = QueryFrontend::new(&plan.target, &self.tls.trust())?;
            asked.find_app(&plan.target, plan.inputs.protocol)?;
            // The gRPC port does not tell of the cache.
            let is_told = plan.inputs.protocol != Protocol::Grpc;
            let unique = plan.inputs.choice == Choice::Unique && is_told;
            let target = plan.target.clone();
            let before = if unique { Lookups::of(&asked, &target) } else { None };
            let report =
                if self.find_goodput { self.search(plan) } else { Ok(Some(measure(&plan)?)) };
            if unique && let (Some(before), Some(after)) = (before, Lookups::of(&asked, &target)) {
                after.warn_of_hits_since(&before);
            }
            report
        });
        let shown = result.and_then(|report| {
            let report = report.ok_or(BenchFailure::NoRate)?;
            self.show(&report)?;
            Ok(report.errors())
        });
        match shown {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => exit(Err(error)),
        }
    }

    /// The report of the highest rate that was good.
    fn search(&self, mut plan: Plan) -> Result<Option<Report>, BenchFailure> {
        let arrivals = if self.constant { Arrivals::Constant } else { Arrivals::Poisson };
        let mut search = GoodputSearch::new(self.rate.unwrap_or(100.0), RATE_MAX);
        let mut best = None;
        while let Some(rate) = search.next_rate() {
            plan.load = Load::Open { rate, arrivals };
            plan.seed = plan.seed.wrapping_add(1);
            let report = measure(&plan)?;
            search.record(report.share_in_time);
            let _ = writeln!(
                std::io::stderr(),
                "{rate:>10.0} requests/s: {:>6.2} % in time, p99 {:.2} ms",
                report.share_in_time * 100.0,
                report.prediction_latency.p99_ms
            );
            if search.best() == Some(rate) {
                best = Some(report);
            }
        }
        Ok(best)
    }

    fn show(&self, report: &Report) -> Result<(), serde_json::Error> {
        if self.json {
            answer_json(serde_json::to_string(report)?);
        } else {
            answer(format_args!("{}\n{}", report.table(), plot::text(report)));
        }
        Ok(())
    }
}

/// The query frontend, for questions beside the load.
struct QueryFrontend {
    agent: ureq::Agent,
    /// Scheme and host.
    url: String,
}

impl QueryFrontend {
    fn new(target: &Target, trust: &Trust) -> Result<Self, BenchFailure> {
        let mut config = ureq::Agent::config_builder();
        let is_encrypted = target.tls.is_some();
        if is_encrypted {
            config = config.tls_config(trust.for_agent()?);
        }
        let scheme = if is_encrypted { "https" } else { "http" };
        let url = format!("{scheme}://{}", target.host);
        Ok(Self { agent: config.build().new_agent(), url })
    }

    /// # Errors
    /// The server says that there is no such application.
    fn find_app(&self, target: &Target, protocol: Protocol) -> Result<(), BenchFailure> {
        if protocol == Protocol::Grpc {
            // Its answers say so.
            return Ok(());
        }
        let url = format!("{}{}", self.url, protocol.path(&target.app));
        // No query: an application refuses it, and whoever is none is not found.
        match target.authorized(self.agent.post(&url)).send("") {
            Err(ureq::Error::StatusCode(404)) => {
                let (app, host) = (printable(&target.app).to_string(), self.url.clone());
                Err(BenchFailure::NoApplication { app, host })
            }
            // Whatever else is wrong, the measurement will show.
            _ => Ok(()),
        }
    }
}

/// What the server says of its prediction cache.
struct Lookups {
    hits: f64,
    all: f64,
}

/// Of unique inputs so many may be found in the cache, by others' queries.
const HITS_EXPECTED: f64 = 0.02;

impl Lookups {
    fn of(asked: &QueryFrontend, target: &Target) -> Option<Self> {
        let url = format!("{}/metrics", asked.url);
        let page = target
            .authorized(asked.agent.get(&url))
            .call()
            .ok()?
            .body_mut()
            .read_to_string()
            .ok()?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        let value = |category: &str, name: &str, field: &str| -> Option<f64> {
            let metrics = page.get(category)?.as_array()?;
            let metric = metrics.iter().find_map(|metric| metric.get(name))?;
            metric.get(field)?.as_str()?.parse().ok()
        };
        let all = value("counters", "internal:prediction_cache_lookups", "count")?;
        let ratio = value("ratio_counters", "internal:prediction_cache_hit_ratio", "ratio")?;
        Some(Self { hits: if all > 0.0 { ratio * all } else { 0.0 }, all })
    }

    fn warn_of_hits_since(&self, before: &Self) {
        let share = (self.hits - before.hits) / (self.all - before.all).max(1.0);
        if share > HITS_EXPECTED {
            let _ = writeln!(
                std::io::stderr(),
                "warning: the inputs were to be unique, and the server answered {:.0} % of them \
                 from its cache: this measures the cache. Is --input-type the application's, and \
                 --input-len large enough?",
                share * 100.0
            );
        }
    }
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// One measurement, with a line of progress where somebody looks at it.
fn measure(plan: &Plan) -> Result<Report, BenchError> {
    let mut stderr = std::io::stderr();
    let watched = stderr.is_terminal();
    let begin = clock::now();
    let total = (plan.warmup + plan.duration).as_secs_f64();
    let report = bench::run(plan, |BenchProgress { answered, failed }| {
        if watched {
            let elapsed = (clock::now() - begin).as_secs_f64();
            let _ = write!(
                stderr,
                "\r{elapsed:>6.1} of {total:.0} s  {answered} answered  {failed} failed\x1b[K"
            );
        }
    });
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    report
}
