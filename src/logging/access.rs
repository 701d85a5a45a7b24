//! The access log: a line for each request, once it has been answered or its client has gone.
//!
//! Lines wait in a bounded queue of their own ([`super::sink`]), and what cannot be written is lost
//! and counted (`clipper_access_log_lines_lost_total`). While it is off, a request costs one load.
//! A line has no header, no query of a URL and no body: those may have secrets.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fmt, io};

use clipper_domain::printable::{is_deceptive, printable_json};
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::output::{self, Appended};
use super::sink::Sink;
use clipper_config::{AccessLogConfig, AccessLogMode, LogFormat, Network};
use clipper_domain::{GONE, Outcome};

/// Longest text of a request that a line repeats, characters.
const TEXT_MAX_CHARS: usize = 200;
/// Proxies that a header names, beyond which it is not read.
const HOPS_MAX: usize = 32;

/// The name of the status of a call that went well.
const GRPC_OK: &str = "OK";

/// From [`start`] on.
static LOG: OnceLock<AccessLog> = OnceLock::new();

/// The log of the process.
#[derive(Debug)]
pub struct AccessLog {
    mode: AccessLogMode,
    one_in: u32,
    format: LogFormat,
    proxies: Vec<Network>,
    sink: Sink,
}

/// Begins to write lines, unless there are none to be; the first call of the process counts.
///
/// # Errors
/// The file or the thread cannot be had.
pub fn start(config: &AccessLogConfig) -> io::Result<()> {
    if config.mode == AccessLogMode::Off || LOG.get().is_some() {
        return Ok(());
    }
    let sink = Sink::new(config.queue_max_bytes);
    let tell = |lines| tracing::warn!(lines, "lines of the access log were lost");
    if config.file.as_os_str().is_empty() {
        sink.write_to(output::stderr()?, tell)?;
    } else {
        sink.write_to(Appended::open(&config.file)?, tell)?;
    }
    let _ = LOG.set(AccessLog {
        mode: config.mode,
        one_in: config.one_in,
        format: config.format,
        proxies: config.trusted_proxies.clone(),
        sink,
    });
    Ok(())
}

/// The log, where there is one.
#[must_use]
pub fn log() -> Option<&'static AccessLog> {
    LOG.get()
}

/// How many lines could not be written so far; counted on.
#[must_use]
pub fn lost_lines() -> Arc<AtomicU64> {
    log().map_or_else(Arc::default, |log| log.sink.lost())
}

/// Gives the last lines a moment to be written.
pub(super) fn flush(patience: Duration) {
    if let Some(log) = log() {
        log.sink.flush(patience);
    }
}

/// What came of the queries of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    pub queries: usize,
    /// Those that got the default output, or an error of the model.
    pub defaults: usize,
    /// As a metric label: of the first of those, else of all.
    pub outcome: &'static str,
    /// Why it was the default output.
    pub reason: Option<String>,
}

impl Ended {
    /// What came of one query: a prediction, unless there is a reason why not.
    #[must_use]
    pub fn of_one(outcome: &'static str, reason: Option<String>) -> Self {
        let defaults = usize::from(outcome != Outcome::Prediction.label());
        Self { queries: 1, defaults, outcome, reason }
    }

    /// What came of further queries of the same request.
    pub fn add(&mut self, later: Self) {
        if self.queries == 0 || self.defaults == 0 && later.defaults > 0 {
            (self.outcome, self.reason) = (later.outcome, later.reason);
        }
        self.queries += later.queries;
        self.defaults += later.defaults;
    }
}

/// One request that has been answered, or given up by its client.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Of the server.
    pub port: &'static str,
    pub address: Option<IpAddr>,
    /// The name of the key that it was let in by.
    pub key: Option<String>,
    pub method: String,
    pub path: String,
    /// None where its client has not waited for one.
    pub status: Option<u16>,
    /// Over gRPC.
    pub grpc_status: Option<&'static str>,
    /// Of bodies, where they are counted.
    pub bytes_in: Option<u64>,
    pub bytes_out: Option<u64>,
    pub duration: Duration,
    pub request_id: Option<String>,
    pub trace_id: Option<String>,
    /// The application or model that the path names.
    pub app: Option<String>,
    /// As a metric label: why it was refused.
    pub error: Option<&'static str>,
    pub ended: Option<Ended>,
    /// The client did not take the whole answer.
    pub is_cut: bool,
    /// It has gone before anything came of its request.
    pub is_gone: bool,
}

impl Line {
    /// Whether it has a line also where only some have.
    fn is_notable(&self) -> bool {
        let is_default = self.ended.as_ref().is_some_and(|ended| ended.defaults > 0);
        let is_refused = self.status.is_none_or(|status| status >= 400)
            || self.grpc_status.is_some_and(|code| code != GRPC_OK);
        is_refused || is_default || self.is_gone
    }
}

impl AccessLog {
    /// Whether such a request gets a line; chance may decide, so that it is asked once.
    #[must_use]
    pub fn wants(&self, is_notable: bool) -> bool {
        match self.mode {
            AccessLogMode::Off => false,
            AccessLogMode::All => true,
            AccessLogMode::Sampled => is_notable || rand::random_ratio(1, self.one_in.max(1)),
        }
    }

    /// The address of a client; `forwarded` has the header `X-Forwarded-For`, all of it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, forwarded: impl FnOnce() -> String) -> IpAddr {
        let mut found = peer.to_canonical();
        let is_proxy = |address: IpAddr| self.proxies.iter().any(|known| known.holds(address));
        if !is_proxy(found) {
            return found;
        }
        for hop in forwarded().rsplit(',').take(HOPS_MAX) {
            let Some(address) = address(hop.trim()) else { break };
            found = address;
            if !is_proxy(address) {
                break;
            }
        }
        found
    }

    /// Adds a line, if such a request has one.
    pub fn add(&self, line: &Line) {
        if self.wants(line.is_notable()) {
            self.write(line);
        }
    }

    /// Adds a line.
    pub fn write(&self, line: &Line) {
        let mut text = match self.format {
            LogFormat::Json => json(line),
            LogFormat::Text => text(line),
        };
        text.push('\n');
        self.sink.push(text.as_bytes());
    }
}

/// An address of that header, which may have a port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let parsed = bare.parse::<IpAddr>().ok();
    let parsed = parsed.or_else(|| hop.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    parsed.map(|address| address.to_canonical())
}

fn now() -> String {
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Text of a request, bounded, and nothing in it that changes how the line looks.
fn clean(text: &str) -> String {
    let clean = |c: char| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut short: String = text.chars().take(TEXT_MAX_CHARS).map(clean).collect();
    if text.chars().nth(TEXT_MAX_CHARS).is_some() {
        short.push_str("...");
    }
    short
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    port: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_out: Option<u64>,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    defaults: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl<'a> Json<'a> {
    fn of(line: &'a Line) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(clean);
        let ended = line.ended.as_ref();
        Self {
            time: now(),
            port: line.port,
            address: line.address,
            key: text(&line.key),
            method: clean(&line.method),
            path: clean(&line.path),
            status: line.status,
            grpc_status: line.grpc_status,
            bytes_in: line.bytes_in,
            bytes_out: line.bytes_out,
            duration_us: u64::try_from(line.duration.as_micros()).unwrap_or(u64::MAX),
            request_id: text(&line.request_id),
            trace_id: line.trace_id.as_deref(),
            app: text(&line.app),
            outcome: ended.map(|ended| ended.outcome).or(line.is_gone.then_some(GONE)),
            queries: ended.map(|ended| ended.queries),
            defaults: ended.map(|ended| ended.defaults),
            reason: ended.and_then(|ended| text(&ended.reason)),
            error: line.error,
            cut: line.is_cut,
        }
    }
}

fn json(line: &Line) -> String {
    let json = serde_json::to_string(&Json::of(line)).unwrap_or_default();
    printable_json(&json).into_owned()
}

/// A value of a line for people: in quotes where it would be taken for several.
fn field(out: &mut String, name: &str, value: Option<impl fmt::Display>) {
    let Some(value) = value else { return };
    let value = value.to_string();
    let is_plain = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    let _ =
        if is_plain { write!(out, " {name}={value}") } else { write!(out, " {name}={value:?}") };
}

fn text(line: &Line) -> String {
    let of = Json::of(line);
    let mut out = of.time;
    let Json { port, method, duration_us, .. } = of;
    let path = of.path.replace(' ', "%20");
    let status = of.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let _ = write!(out, " {port} {method} {path} {status} {duration_us}us");
    field(&mut out, "address", of.address);
    field(&mut out, "key", of.key);
    field(&mut out, "grpc_status", of.grpc_status);
    field(&mut out, "in", of.bytes_in);
    field(&mut out, "out", of.bytes_out);
    field(&mut out, "request_id", of.request_id);
    field(&mut out, "trace_id", of.trace_id);
    field(&mut out, "app", of.app);
    field(&mut out, "outcome", of.outcome);
    field(&mut out, "queries", of.queries);
    field(&mut out, "defaults", of.defaults);
    field(&mut out, "reason", of.reason);
    field(&mut out, "error", of.error);
    field(&mut out, "cut", of.cut.then_some(true));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(mode: AccessLogMode, proxies: &[&str]) -> AccessLog {
        let proxies = proxies.iter().map(|text| text.parse().unwrap()).collect();
        let sink = Sink::new(1 << 20);
        AccessLog { mode, one_in: 4, format: LogFormat::Json, proxies, sink }
    }

    #[test]
    fn what_did_not_go_well_always_has_a_line_and_the_rest_sometimes() {
        let all = |mode, is_notable| {
            let log = log(mode, &[]);
            (0..10_000).filter(|_| log.wants(is_notable)).count()
        };
        assert_eq!((all(AccessLogMode::All, false), all(AccessLogMode::Off, true)), (10_000, 0));
        assert_eq!(all(AccessLogMode::Sampled, true), 10_000);
        let some = all(AccessLogMode::Sampled, false);
        assert!((2_000..3_000).contains(&some), "{some}");
        let ended = |defaults| Some(Ended { queries: 2, defaults, ..Ended::default() });
        let status = Some(200);
        assert!(!Line { status, ended: ended(0), ..Line::default() }.is_notable());
        for line in [
            Line { status, ended: ended(1), ..Line::default() },
            Line { status: Some(404), ..Line::default() },
            Line { status, grpc_status: Some("NOT_FOUND"), ..Line::default() },
            Line { status: None, ..Line::default() },
            Line { status, is_gone: true, ..Line::default() },
        ] {
            assert!(line.is_notable(), "{line:?}");
        }
    }

    #[test]
    fn the_first_default_of_several_answers_says_how_they_ended() {
        let mut all = Ended::default();
        for (outcome, reason) in [
            (Outcome::Prediction, None),
            (Outcome::Late, Some("late".to_owned())),
            (Outcome::Shed, Some("no room".to_owned())),
        ] {
            all.add(Ended::of_one(outcome.label(), reason));
        }
        let (outcome, reason) = ("late", Some("late".to_owned()));
        assert_eq!(all, Ended { queries: 3, defaults: 2, outcome, reason });
    }

    #[test]
    fn who_has_gone_before_anything_came_of_it_is_named_so() {
        let gone = Line { port: "query", is_cut: true, is_gone: true, ..Line::default() };
        let told = text(&gone);
        assert!(told.contains(" - 0us") && told.ends_with(" outcome=gone cut=true"), "{told}");
        let ended = Some(Ended::of_one(Outcome::Prediction.label(), None));
        let told = json(&Line { status: Some(200), ended, ..gone });
        assert!(told.contains("\"outcome\":\"prediction\""), "{told}");
    }

    #[test]
    fn only_what_a_trusted_proxy_says_of_its_client_is_believed() {
        let log = log(AccessLogMode::All, &["10.0.0.0/8", "::1"]);
        let client = |peer: &str, forwarded: &str| {
            log.client(peer.parse().unwrap(), || forwarded.to_owned()).to_string()
        };
        for (peer, forwarded, expected) in [
            ("8.8.8.8", "1.2.3.4", "8.8.8.8"),
            ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
            ("10.0.0.1", "6.6.6.6,[2001:db8::1]:443", "2001:db8::1"),
            ("::1", "1.2.3.4:80", "1.2.3.4"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "1.2.3.4, unknown", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ] {
            assert_eq!(client(peer, forwarded), expected, "{peer} {forwarded}");
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_the_request_says() {
        let line = Line {
            port: "query",
            address: Some("127.0.0.1".parse().unwrap()),
            method: "POST".to_owned(),
            path: format!("/a\n\u{202e} b/{}", "x".repeat(500)),
            status: Some(200),
            request_id: Some("a=\"b\"".to_owned()),
            ended: Some(Ended {
                queries: 1,
                defaults: 1,
                outcome: "late",
                reason: Some("too\nlate".to_owned()),
            }),
            ..Line::default()
        };
        let json = json(&line);
        assert!(!json.contains(['\n', '\u{202e}']) && json.len() < 1_000, "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&read["outcome"], &read["reason"]),
            (&"late".into(), &"too\u{fffd}late".into())
        );
        assert_eq!(read["request_id"], "a=\"b\"");
        assert!(read.get("key").is_none() && read["address"] == "127.0.0.1");
        let text = text(&line);
        assert!(!text.contains(['\n', '\u{202e}']), "{text}");
        assert!(text.contains(" query POST /a\u{fffd}\u{fffd}%20b/xxx"), "{text}");
        assert!(text.contains(r#" request_id="a=\"b\"" outcome=late"#), "{text}");
    }
}
