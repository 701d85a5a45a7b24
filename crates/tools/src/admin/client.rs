//! A blocking client of the management frontend.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::RequestBuilder;
use ureq::http::{HeaderValue, Response};

use clipper_domain::admin::ErrorBody;
use clipper_domain::asker::{REASON_HEADER, USER_HEADER};
use clipper_domain::shown_url::shown_url;

use super::events::{EventReader, ServerEvent};
use crate::tls::{self, Trust, TrustError};

/// Largest answer that is read, bytes: far above a list of everything.
const ANSWER_MAX_BYTES: u64 = 256 << 20;

/// For a stream to begin.
const SILENCE: Duration = Duration::from_mins(1);

/// Longest line of a stream of progress that is read, bytes.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// Why there is no answer to work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no Clipper server answers at {url}: {why}\nStart one with `clipper serve`, or point \
         elsewhere with --url http://HOST:PORT or CLIPPER_MANAGEMENT_URL"
    )]
    Unreachable {
        /// The management frontend asked for.
        url: String,
        /// What the connection says.
        why: String,
    },
    /// The server says no.
    #[error("{why}")]
    Refused { status: u16, why: String },
    /// An answer that no Clipper server gives.
    #[error("{url} does not answer as a Clipper management frontend does: {why}")]
    Broken {
        /// The management frontend asked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{0}:// is not spoken here, expected http://HOST:PORT or https://HOST:PORT")]
    Scheme(String),
    #[error("'{0}' is not http://HOST:PORT")]
    NotAnAddress(String),
    /// Of https://.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Where the management frontend is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    /// The same for people to read.
    shown: String,
    /// The header that says whose requests these are.
    authorization: Option<HeaderValue>,
    /// Who runs the command, and why.
    notes: Vec<(&'static str, HeaderValue)>,
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key is one word of printable ASCII")]
pub struct KeyError;

impl Client {
    /// A client of the frontend at `url` (`http://HOST:PORT`, `https://HOST:PORT`, or without the
    /// scheme). Nothing is sent yet. Each request has `timeout` from its first packet to the end of
    /// its answer. `trust` is for https.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, timeout: Duration, trust: &Trust) -> Result<Self, UrlError> {
        let (scheme, host) = match url.split_once("://") {
            Some((scheme @ ("http" | "https"), host)) => (scheme, host),
            Some((scheme, _)) => {
                return Err(UrlError::Scheme(scheme.to_owned()));
            }
            None => ("http", url),
        };
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(UrlError::NotAnAddress(shown_url(url).into_owned()));
        }
        let mut config = Agent::config_builder();
        if scheme == "https" {
            config = config.tls_config(trust.for_agent()?);
        }
        let agent = config
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        let url = format!("{scheme}://{host}");
        let shown = shown_url(&url).into_owned();
        Ok(Self { agent, url, shown, authorization: None, notes: Vec::new() })
    }

    /// The same client with a key for servers that ask for one.
    ///
    /// # Errors
    /// It is none.
    pub fn with_key(mut self, key: Option<&str>) -> Result<Self, KeyError> {
        let value = |key: &str| {
            let is_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
            let mut value =
                HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| KeyError)?;
            value.set_sensitive(true);
            if is_word { Ok(value) } else { Err(KeyError) }
        };
        self.authorization = key.map(value).transpose()?;
        Ok(self)
    }

    /// The same client, which says who runs the command and why. A text that no header takes is
    /// left out.
    #[must_use]
    pub fn with_notes(mut self, user: Option<&str>, reason: Option<&str>) -> Self {
        let notes = [(USER_HEADER, user), (REASON_HEADER, reason)].into_iter();
        let notes = notes.filter_map(|(name, text)| {
            let value = HeaderValue::from_bytes(text?.as_bytes());
            Some((name, value.ok()?))
        });
        self.notes = notes.collect();
        self
    }

    fn authorized<B>(&self, mut request: RequestBuilder<B>) -> RequestBuilder<B> {
        for (name, value) in &self.notes {
            request = request.header(*name, value);
        }
        match &self.authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }

    /// Where it is, for people to read.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// `POST /admin/{endpoint}`; the text of a successful answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post(&self, endpoint: &str, body: &Value) -> Result<String, ClientError> {
        let sent = self
            .authorized(self.agent.post(format!("{}/admin/{endpoint}", self.url)))
            .header("content-type", "application/json")
            .send(body.to_string());
        self.text(sent)
    }

    /// [`Self::post`] of a question whose answer is JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask(&self, endpoint: &str, body: &Value) -> Result<Value, ClientError> {
        let text = self.post(endpoint, body)?;
        serde_json::from_str(&text).map_err(|error| self.broken(format!("{error} in {text:?}")))
    }

    /// Everything that a `get_all_...` endpoint lists, in full.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn list<T: DeserializeOwned>(&self, endpoint: &str) -> Result<Vec<T>, ClientError> {
        let text = self.post(endpoint, &json!({"verbose": true}))?;
        serde_json::from_str(&text).map_err(|error| self.broken(format!("{endpoint}: {error}")))
    }

    /// `GET {path}`; the text of a successful answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get(&self, path: &str, accept: &str) -> Result<String, ClientError> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.url)));
        let sent = request.header("accept", accept).call();
        self.text(sent)
    }

    /// `POST /admin/{endpoint}`, whose answer is a line of JSON at a time; `timeout` is for the
    /// whole of it. Each line goes to `take` when it comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn follow(
        &self,
        endpoint: &str,
        body: &Value,
        timeout: Duration,
        mut take: impl FnMut(Value),
    ) -> Result<(), ClientError> {
        let sent = self
            .authorized(self.agent.post(format!("{}/admin/{endpoint}", self.url)))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("content-type", "application/json")
            .send(body.to_string());
        let response = self.answered(sent)?;
        let mut lines = BufReader::new(response.into_body().into_reader());
        loop {
            let line = bounded_line(&mut lines, LINE_MAX_BYTES);
            let line = match line.map_err(|error| self.broken(format!("it broke off: {error}")))? {
                StreamLine::End => return Ok(()),
                // Of an older server, that shows an output however long it is.
                StreamLine::TooLong => continue,
                StreamLine::Whole(line) => line,
            };
            let line = serde_json::from_slice(&line);
            take(line.map_err(|error| self.broken(format!("a line is not JSON: {error}")))?);
        }
    }

    /// `POST /admin/{endpoint}`, whose answer is as long as it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn download(&self, endpoint: &str) -> Result<impl Read + use<>, ClientError> {
        let sent = self
            .authorized(self.agent.post(format!("{}/admin/{endpoint}", self.url)))
            .config()
            .timeout_global(None)
            .timeout_recv_response(Some(SILENCE))
            .build()
            .header("content-type", "application/json")
            .send("{}");
        Ok(self.answered(sent)?.into_body().into_reader())
    }

    /// `GET {path}`, whose answer is server-sent events, from the one after `last_id` on. Each goes
    /// to `take` when it comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events(
        &self,
        path: &str,
        last_id: u64,
        mut take: impl FnMut(ServerEvent),
    ) -> Result<(), ClientError> {
        let sent = self
            .authorized(self.agent.get(format!("{}{path}", self.url)))
            .config()
            .timeout_global(None)
            .timeout_recv_response(Some(SILENCE))
            .build()
            .header("accept", "text/event-stream")
            .header("last-event-id", last_id.to_string())
            .call();
        let response = self.answered(sent)?;
        let mut lines = BufReader::new(response.into_body().into_reader());
        let mut reader = EventReader::default();
        loop {
            let line = bounded_line(&mut lines, LINE_MAX_BYTES);
            match line.map_err(|error| self.broken(format!("it broke off: {error}")))? {
                StreamLine::End => return Ok(()),
                StreamLine::TooLong => {}
                StreamLine::Whole(line) => reader.take(&line).into_iter().for_each(&mut take),
            }
        }
    }

    fn text(&self, sent: Result<Response<ureq::Body>, ureq::Error>) -> Result<String, ClientError> {
        let mut response = self.answered(sent)?;
        let body = response.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_string();
        body.map_err(|error| self.broken(error.to_string()))
    }

    /// An answer of status 200, its body not read yet.
    fn answered(
        &self,
        sent: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, ClientError> {
        let mut response = sent.map_err(|error| match error {
            ureq::Error::Protocol(_) | ureq::Error::Http(_) => self.broken(error.to_string()),
            _ => ClientError::Unreachable { url: self.shown.clone(), why: plain(&error) },
        })?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        // 400 is plain text; every other status has a JSON body with a cause.
        let why = match serde_json::from_str::<ErrorBody>(&text).ok() {
            Some(body) => body.cause,
            None if text.trim().is_empty() => format!("the server answered with status {status}"),
            None => text.trim().to_owned(),
        };
        Err(ClientError::Refused { status, why })
    }

    fn broken(&self, why: impl Into<String>) -> ClientError {
        ClientError::Broken { url: self.shown.clone(), why: why.into() }
    }
}

/// A line of a stream.
#[derive(Debug, PartialEq, Eq)]
enum StreamLine {
    Whole(Vec<u8>),
    /// It was read to its end and thrown away.
    TooLong,
    /// There is none any more.
    End,
}

fn bounded_line(lines: &mut impl BufRead, max_bytes: u64) -> std::io::Result<StreamLine> {
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let mut bounded = std::io::Read::take(&mut *lines, max_bytes);
        let read = bounded.read_until(b'\n', &mut line)?;
        let has_ended = read == 0 || line.ends_with(b"\n");
        match (has_ended, is_too_long) {
            (true, true) => return Ok(StreamLine::TooLong),
            (true, false) if line.is_empty() => return Ok(StreamLine::End),
            (true, false) => return Ok(StreamLine::Whole(line)),
            (false, _) => {
                // The stream may end here, at a line without its end.
                is_too_long |= line.len() as u64 >= max_bytes;
                if is_too_long {
                    line.clear();
                }
            }
        }
    }
}

/// The system's words, without the library's in front.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => explained(error.to_string()),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "the connection was refused".to_owned(),
        other => explained(other.to_string()),
    }
}

fn explained(error: String) -> String {
    let remedy = tls::remedy(&error);
    if remedy.is_empty() { error } else { error + remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_21_a_line_that_is_too_long_is_passed_over() {
        let text = format!("one\n{}\ntwo\nthree", "x".repeat(25));
        let mut lines = BufReader::with_capacity(4, text.as_bytes());
        let mut next = || bounded_line(&mut lines, 10).unwrap();
        assert_eq!(next(), StreamLine::Whole(b"one\n".to_vec()));
        assert_eq!(next(), StreamLine::TooLong);
        assert_eq!(next(), StreamLine::Whole(b"two\n".to_vec()));
        assert_eq!(next(), StreamLine::Whole(b"three".to_vec()));
        assert_eq!(next(), StreamLine::End);
    }

    #[test]
    fn a_url_is_http_with_or_without_saying_so() {
        let trust = Trust { ca: Some("none.pem".into()), identity: None };
        let url =
            |text| Client::new(text, Duration::from_secs(1), &trust).map(|c| c.shown().to_owned());
        assert_eq!(url("http://h:1338/").unwrap(), "http://h:1338");
        assert_eq!(url("h:1338").unwrap(), "http://h:1338");
        assert!(matches!(url("https://h:1338"), Err(UrlError::Trust(_))), "no such file");
        assert_eq!(url("ftp://h:1338").unwrap_err(), UrlError::Scheme("ftp".to_owned()));
        assert!(url("http://").is_err());
    }
}
