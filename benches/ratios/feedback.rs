//! How much feedback the server takes, what predictions notice of it, and what users cost.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clipper_clock as clock;
use clipper_tools::bench::report::Report;
use clipper_tools::bench::{Arrivals, Load};

use crate::Result;
use crate::process::{Process, wait_for};
use crate::setup::{self, Server, Settings, Shape, note, plan};
use crate::table::{Table, median};

/// The application; each of its queries asks all models, and each feedback judges all of them.
const APP: &str = "judged";
const MODELS: usize = 2;
/// Observations of a list.
const LIST: usize = 100;
/// Predictions a second beside the feedback.
const BESIDE_PER_S: f64 = 200.0;
/// Observations a millisecond that there are answers for, in lists and one by one.
const PREPARED_PER_MS: [usize; 2] = [120, 40];
/// Queries of a request that prepares answers.
const ASKED_AT_ONCE: usize = 500;
const CONNECTIONS: [usize; 2] = [4, 32];
const USERS: usize = 100_000;
/// For what is not measured.
const PATIENCE: Duration = Duration::from_mins(5);

const NAMES: [&str; 2] = ["lists of 100", "one by one"];
const LEARNED: &str = "clipper_feedback_total{app=\"judged\",result=\"learned\"}";

/// A connection that is kept.
struct Http(TcpStream);

impl Http {
    fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(stream))
    }

    /// The body of the answer, which has to be a good one.
    fn post(&mut self, path: &str, body: &str) -> Result<String> {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        self.0.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
        let (mut answer, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let n = self.0.read(&mut piece)?;
            if n == 0 {
                return Err("the server closed a connection".into());
            }
            answer.extend_from_slice(&piece[..n]);
            if let Some(body) = body_of(&answer) {
                let text = String::from_utf8_lossy(body).into_owned();
                let is_good = answer.starts_with(b"HTTP/1.1 200");
                return if is_good { Ok(text) } else { Err(text.into()) };
            }
        }
    }
}

/// The body of a whole answer.
fn body_of(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    answer.get(end..end + length.trim().parse::<usize>().ok()?)
}

/// Does the jobs from 0 to `count` on so many connections, for `time` at most: what they made.
fn on_connections<T: Send>(
    addr: SocketAddr,
    connections: usize,
    count: usize,
    time: Duration,
    job: impl Fn(&mut Http, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, made) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let end = clock::now() + time;
    let work = || -> Result<()> {
        let mut http = Http::open(addr)?;
        while clock::now() < end {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let one = job(&mut http, number)?;
            made.lock().map_err(|_| "a thread panicked")?.push(one);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "panicked")?)
    })?;
    Ok(made.into_inner().map_err(|_| "a thread panicked")?)
}

/// The ids of `requests` times `at_once` answers; the users count from 1, 0: all are everybody's.
fn ask(server: &Server, requests: usize, at_once: usize, users: usize) -> Result<Vec<u64>> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let connections = if at_once == 1 { CONNECTIONS[1] } else { CONNECTIONS[0] };
    let path = format!("/{APP}/predict");
    let ids = on_connections(server.query, connections, requests, PATIENCE, |http, n| {
        let first = ASKED.fetch_add(at_once, Ordering::Relaxed);
        let inputs: Vec<[usize; 1]> = (first..first + at_once).map(|number| [number]).collect();
        let uid = if users == 0 { 0 } else { n % users + 1 };
        let body = serde_json::json!({"uid": uid, "input_batch": inputs}).to_string();
        let answer: serde_json::Value = serde_json::from_str(&http.post(&path, &body)?)?;
        let answers = match answer["batch_predictions"].as_array() {
            Some(answers) => answers.as_slice(),
            // Of one input.
            None => std::slice::from_ref(&answer),
        };
        // Default outputs, as of a machine that is busy otherwise, are nobody's to be judged.
        let given = answers.iter().filter(|answer| answer["default"] == false);
        Ok(given.filter_map(|answer| answer["query_id"].as_u64()).collect::<Vec<u64>>())
    })?;
    Ok(ids.concat())
}

/// Feedback, and predictions beside it.
struct Fed {
    per_s: f64,
    server_us: f64,
    beside: Report,
}

/// Gives feedback about these answers, `at_once` in a request, for some time at most.
fn feed(
    settings: &Settings,
    server: &Server,
    ids: &[u64],
    at_once: usize,
    time: Duration,
) -> Result<Fed> {
    let path = format!("/{APP}/update");
    let said = |id: &u64| format!("{{\"query_id\":{id},\"label\":{}}}", id % 2);
    let connections = if at_once == 1 { CONNECTIONS[1] } else { CONNECTIONS[0] };
    let mut beside = plan(settings, server.query);
    APP.clone_into(&mut beside.target.app);
    beside.load = Load::Open { rate: BESIDE_PER_S, arrivals: Arrivals::Poisson };
    let learned = || server.metric(LEARNED).unwrap_or(0.0);
    let (cpu, before, start) = (server.process.cpu_us()?, learned(), clock::now());
    let (told, took, beside) = std::thread::scope(|scope| -> Result<_> {
        let beside = scope.spawn(|| setup::load(&beside));
        let requests = ids.len().div_ceil(at_once);
        let told = on_connections(server.query, connections, requests, time, |http, n| {
            let about = &ids[n * at_once..ids.len().min((n + 1) * at_once)];
            let items: Vec<String> = about.iter().map(said).collect();
            let body = match items.as_slice() {
                [one] if at_once == 1 => one.clone(),
                items => format!("{{\"feedback\":[{}]}}", items.join(",")),
            };
            http.post(&path, &body)?;
            Ok(about.len())
        })?;
        let took = clock::now() - start;
        let beside = beside.join().map_err(|_| "the load panicked")??;
        Ok((told.into_iter().sum::<usize>(), took, beside))
    })?;
    let cpu = server.process.cpu_us()? - cpu;
    let told = setup::number(told as u64);
    if learned() - before < told {
        return Err(format!("of {told} observations {} were learned", learned() - before).into());
    }
    Ok(Fed { per_s: told / took.as_secs_f64(), server_us: cpu / told, beside })
}

/// A Redis of its own, without anything on a disk; `None` where there is none.
fn redis() -> Result<Option<(Process, String)>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let started = Process::start(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let Ok(process) = started else { return Ok(None) };
    wait_for("Redis", || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(Some((process, format!("redis://127.0.0.1:{port}"))))
}

fn start(settings: &Settings, redis: Option<&String>, window: usize) -> Result<Server> {
    let mut config = settings.config.clone();
    let models: Vec<String> = (0..MODELS).map(|n| format!("\"model{n}\"")).collect();
    write!(
        config,
        "\n[[application]]\nname = \"{APP}\"\ninput_type = \"doubles\"\ndefault_output = \"-1\"\n\
         latency_slo_micros = {}\nmodels = [{}]\n[application.policy]\nname = \"exp4\"\n",
        Shape::RATIOS.slo.as_micros(),
        models.join(", ")
    )?;
    let settings = Settings { config, ..settings.clone() };
    let window = ("CLIPPER_SERVING__FEEDBACK_WINDOW_MAX", window.to_string());
    let redis = redis.map(|url| ("CLIPPER_REDIS_URL", url.clone()));
    let env = std::iter::once(window).chain(redis).collect();
    let mut server = Server::start(&settings, &Shape { apps: MODELS, env, ..Shape::RATIOS })?;
    for model in 0..MODELS {
        server.replicas(model, 1, Duration::ZERO)?;
    }
    Ok(server)
}

fn row(table: &mut Table, name: String, fed: &[Fed]) {
    let of = |value: fn(&Fed) -> f64| median(&fed.iter().map(value).collect::<Vec<_>>());
    let no_answer =
        |fed: &Fed| setup::number(fed.beside.defaults.values().sum::<u64>() + fed.beside.errors());
    let most = fed.iter().map(|fed| fed.beside.latency.p99_ms).fold(0.0, f64::max);
    let not_predicted = fed.iter().map(no_answer).sum();
    let p99 = of(|fed| fed.beside.latency.p99_ms);
    table.row(name, &[of(|f| f.per_s), of(|f| f.server_us), p99, most, not_predicted]);
}

/// Rates, and predictions beside them.
fn rates(settings: &Settings, redis: Option<&String>, mode: &str, table: &mut Table) -> Result<()> {
    let time = Duration::from_secs_f64(settings.seconds);
    let millis = usize::try_from(time.as_millis())?;
    let prepared = PREPARED_PER_MS.map(|per_ms| per_ms * millis);
    // Predictions beside the feedback take room too.
    let server = start(settings, redis, 2 * prepared.iter().sum::<usize>())?;
    let mut all: [Vec<Fed>; 2] = Default::default();
    for round in 0..settings.rounds {
        note(format_args!("{mode}, round {} ...", round + 1));
        for ((prepared, at_once), fed) in prepared.iter().zip([LIST, 1]).zip(&mut all) {
            let ids = ask(&server, prepared.div_ceil(ASKED_AT_ONCE), ASKED_AT_ONCE, 0)?;
            fed.push(feed(settings, &server, &ids, at_once, time)?);
        }
    }
    for (name, fed) in NAMES.iter().zip(&all) {
        row(table, format!("{mode}, {name}"), fed);
    }
    Ok(())
}

/// Feedback of many users, once each, and the memory it takes.
fn users(settings: &Settings, redis: Option<&String>, mode: &str, table: &mut Table) -> Result<()> {
    note(format_args!("{mode}, {USERS} users ..."));
    let server = start(settings, redis, 2 * USERS)?;
    let ids = ask(&server, USERS, 1, USERS)?;
    let before = server.process.rss_mib()?;
    let fed = feed(settings, &server, &ids, LIST, PATIENCE)?;
    // Who got a default output was not judged.
    let judged = setup::number(ids.len() as u64);
    let seen = || server.metric("clipper_policy_users").unwrap_or(0.0);
    wait_for("all users are saved", || (seen() >= judged).then_some(()))?;
    let mib = server.process.rss_mib()? - before;
    row(table, format!("{mode}, {USERS} users"), &[fed]);
    let each = mib * 1024.0 * 1024.0 / judged;
    table.note(format!(
        "{mode}: {judged} users of {MODELS} models took {mib:.0} MiB, {each:.0} bytes each."
    ));
    Ok(())
}

/// Feedback in lists, one by one, and of many users; without and with Redis.
pub(crate) fn feedback(settings: &Settings) -> Result<Table> {
    let mut table =
        Table::new("feedback", &["obs/s", "server us", "p99 ms", "p99 max", "no answer"]);
    let redis = redis()?;
    if redis.is_none() {
        table.note("Without Redis: redis-server is not installed.");
    }
    let with_redis = redis.as_ref().map(|(_, url)| ("Redis", Some(url)));
    for (mode, url) in std::iter::once(("embedded", None)).chain(with_redis) {
        rates(settings, url, mode, &mut table)?;
        users(settings, url, mode, &mut table)?;
    }
    table.note(format!(
        "Medians of {} rounds of {} s. Each observation judges {MODELS} models. p99: of {} \
         predictions a second beside it, which have {} ms; server us: its CPU for an observation, \
         those predictions included. Wanted: 30,000 a second in lists, 10,000 one by one.",
        settings.rounds,
        settings.seconds,
        BESIDE_PER_S,
        Shape::RATIOS.slo.as_millis()
    ));
    Ok(table)
}
