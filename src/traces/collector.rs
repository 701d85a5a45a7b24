//! The collector: what it is sent and what it answers.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clipper_domain::shown_url::shown_url;
use clipper_tools::tls::{Trust, TrustError};
use prost::Message as _;

use super::otlp::ExportResponse;
use crate::metrics::SpanEnd;
use clipper_config::TracesConfig;

/// Where OTLP over HTTP has traces, below the URL of a collector.
const PATH: &str = "/v1/traces";

/// Longest answer that is read.
const ANSWER_MAX_BYTES: u64 = 64 << 10;

/// Longest file of headers that is read.
const HEADERS_MAX_BYTES: u64 = 64 << 10;

const USER_AGENT: &str = concat!("clipper/", env!("CARGO_PKG_VERSION"));

/// Where traces are sent for a setting `traces.endpoint`.
pub(super) fn url(endpoint: &str) -> Cow<'_, str> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    match rest.split_once('/') {
        None => Cow::Owned(format!("{endpoint}{PATH}")),
        Some((_, "")) => Cow::Owned(format!("{}{PATH}", endpoint.trim_end_matches('/'))),
        Some(_) => Cow::Borrowed(endpoint),
    }
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Delivery {
    /// It was taken, but for so many spans.
    Taken { rejected: usize, why: String },
    /// It may be taken if it is sent again.
    Again(NotSent),
    /// It will not be.
    Lost(NotSent),
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("traces.headers_file: {}: {error}", file.display())]
    HeadersFile { file: PathBuf, error: io::Error },
    #[error("traces.headers_file: line {0} is no header (NAME: VALUE)")]
    Header(usize),
    #[error(transparent)]
    Http(#[from] ureq::Error),
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("its answer is none of OTLP: is it a collector?")]
    Garbled,
}

impl NotSent {
    /// As what spans are counted that were lost so.
    pub(super) fn end(&self) -> SpanEnd {
        match self {
            Self::Status(_) => SpanEnd::Refused,
            Self::Garbled | Self::Http(ureq::Error::Protocol(_)) => SpanEnd::Garbled,
            Self::Http(ureq::Error::Timeout(_)) => SpanEnd::TimedOut,
            Self::Trust(_) | Self::HeadersFile { .. } | Self::Header(_) | Self::Http(_) => {
                SpanEnd::Unreachable
            }
        }
    }

    /// Whether another attempt may do better: as OTLP has it, for some statuses, and wherever it is
    /// not known what the collector did.
    fn is_passing(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 429 | 502 | 503 | 504),
            Self::Http(error) => !matches!(
                error,
                ureq::Error::Protocol(_) | ureq::Error::BadUri(_) | ureq::Error::Http(_)
            ),
            Self::Garbled => false,
            Self::Trust(_) | Self::HeadersFile { .. } | Self::Header(_) => true,
        }
    }
}

impl From<NotSent> for Delivery {
    fn from(why: NotSent) -> Self {
        if why.is_passing() { Self::Again(why) } else { Self::Lost(why) }
    }
}

/// Where it is, and what it is told besides.
pub(super) struct Collector {
    url: String,
    headers_file: PathBuf,
    /// Made at the first message: the system's authorities may not be readable.
    agent: Option<ureq::Agent>,
}

impl Collector {
    pub(super) fn new(config: &TracesConfig) -> Self {
        let url = url(&config.endpoint).into_owned();
        Self { url, headers_file: config.headers_file.clone(), agent: None }
    }

    /// As it may be told.
    pub(super) fn url(&self) -> Cow<'_, str> {
        shown_url(&self.url)
    }

    /// Sends a message; takes no longer than `patience`.
    pub(super) fn send(&mut self, message: &[u8], patience: Duration) -> Delivery {
        match self.answer(message, patience) {
            Ok(answer) => delivery(&answer),
            Err(why) => why.into(),
        }
    }

    fn answer(&mut self, message: &[u8], patience: Duration) -> Result<Vec<u8>, NotSent> {
        let agent = match &self.agent {
            Some(agent) => agent,
            None => self.agent.insert(agent(&self.url)?),
        };
        let mut request = agent
            .post(&self.url)
            .header("Content-Type", "application/x-protobuf")
            .header("User-Agent", USER_AGENT);
        for (name, value) in headers(&self.headers_file)? {
            request = request.header(name, value);
        }
        let request = request.config().timeout_global(Some(patience)).build();
        let mut answer = request.send(message)?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(NotSent::Status(status));
        }
        Ok(answer.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec()?)
    }
}

fn agent(url: &str) -> Result<ureq::Agent, TrustError> {
    let mut config = ureq::Agent::config_builder();
    if url.starts_with("https://") {
        config = config.tls_config(Trust::default().for_agent()?);
    }
    Ok(config.http_status_as_error(false).proxy(None).max_redirects(0).build().new_agent())
}

/// The headers of a file, if one is named.
fn headers(file: &Path) -> Result<Vec<(String, String)>, NotSent> {
    if file.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(HEADERS_MAX_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| NotSent::HeadersFile { file: file.to_owned(), error })?;
    headers_of(&text)
}

fn headers_of(text: &str) -> Result<Vec<(String, String)>, NotSent> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = |(at, line): (usize, &str)| {
        let (name, value) = line.split_once(':').ok_or(NotSent::Header(at))?;
        let (name, value) = (name.trim(), value.trim());
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
        let is_value = |c: u8| c.is_ascii_graphic() || c == b' ';
        let is_good = !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(is_value);
        let header = is_good.then(|| (name.to_owned(), value.to_owned()));
        header.ok_or(NotSent::Header(at))
    };
    lines.map(header).collect()
}

/// What an answer with status 200 says.
fn delivery(answer: &[u8]) -> Delivery {
    match ExportResponse::decode(answer) {
        Err(_) => Delivery::Lost(NotSent::Garbled),
        Ok(ExportResponse { partial_success: None }) => {
            Delivery::Taken { rejected: 0, why: String::new() }
        }
        Ok(ExportResponse { partial_success: Some(partial) }) => {
            let rejected = usize::try_from(partial.rejected_spans).unwrap_or(0);
            Delivery::Taken { rejected, why: partial.error_message }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::otlp::PartialSuccess;

    #[test]
    fn a_url_without_a_path_has_that_of_otlp() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector/", "https://collector/v1/traces"),
            ("http://h:1/v1/traces", "http://h:1/v1/traces"),
            ("http://h/otlp/t", "http://h/otlp/t"),
        ] {
            assert_eq!(url(endpoint), expected);
        }
    }

    #[test]
    fn headers_are_lines_of_a_file() {
        let read = headers_of("# for us\nAuthorization: Bearer a:b\n\n x-team:  a b \n").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read, [pair("Authorization", "Bearer a:b"), pair("x-team", "a b")]);
        for (bad, line) in [("a: b\nc", 2), (": b", 1), ("a b: c", 1), ("a: \u{1}", 1)] {
            match headers_of(bad) {
                Err(NotSent::Header(at)) => assert_eq!(at, line, "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_answer_says_how_much_was_taken() {
        assert!(matches!(delivery(b""), Delivery::Taken { rejected: 0, .. }));
        let partial = PartialSuccess { rejected_spans: 3, error_message: "no".to_owned() };
        let answer = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
        assert!(matches!(delivery(&answer), Delivery::Taken { rejected: 3, .. }));
        assert!(matches!(delivery(b"<html>"), Delivery::Lost(NotSent::Garbled)));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (status, passes) in
            [(429, true), (502, true), (503, true), (504, true), (400, false), (500, false)]
        {
            let why = NotSent::Status(status);
            assert_eq!(why.end(), SpanEnd::Refused);
            assert_eq!(matches!(why.into(), Delivery::Again(_)), passes, "{status}");
        }
        let unreachable = NotSent::Http(ureq::Error::ConnectionFailed);
        assert_eq!(unreachable.end(), SpanEnd::Unreachable);
        assert!(matches!(unreachable.into(), Delivery::Again(_)));
    }
}
