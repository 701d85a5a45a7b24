//! A blocking client of the management frontend.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// Largest answer that is read, bytes: far above a list of everything.
const ANSWER_MAX_BYTES: u64 = 256 << 20;

/// Longest line of a stream of progress that is read, bytes.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
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
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its text.
        why: String,
    },
    /// An answer that no Clipper server gives.
    #[error("{url} does not answer as a Clipper management frontend does: {why}")]
    Broken {
        /// The management frontend asked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// Where the management frontend is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    url: String,
}

impl Client {
    /// A client of the frontend at `url` (`http://HOST:PORT`, or without the scheme). Nothing is
    /// sent yet. Each request has `timeout` from its first packet to the end of its answer.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, String> {
        let host = match url.split_once("://") {
            Some(("http", host)) => host,
            Some((scheme, _)) => {
                return Err(format!("{scheme}:// is not spoken here, expected http://HOST:PORT"));
            }
            None => url,
        };
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(format!("'{url}' is not http://HOST:PORT"));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        Ok(Self { agent, url: format!("http://{host}") })
    }

    /// Where it asks.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `POST /admin/{endpoint}`; the text of a successful answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post(&self, endpoint: &str, body: &Value) -> Result<String, ClientError> {
        let sent = self
            .agent
            .post(format!("{}/admin/{endpoint}", self.url))
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

    /// `GET {path}`; the text of a successful answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get(&self, path: &str, accept: &str) -> Result<String, ClientError> {
        let sent = self.agent.get(format!("{}{path}", self.url)).header("accept", accept).call();
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
            .agent
            .post(format!("{}/admin/{endpoint}", self.url))
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
                Line::End => return Ok(()),
                // Of an older server, that shows an output however long it is.
                Line::TooLong => continue,
                Line::Whole(line) => line,
            };
            let line = serde_json::from_slice(&line);
            take(line.map_err(|error| self.broken(format!("a line is not JSON: {error}")))?);
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
            _ => ClientError::Unreachable { url: self.url.clone(), why: plain(&error) },
        })?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        // 400 is plain text; every other status has a JSON body with a cause.
        let cause = serde_json::from_str::<Value>(&text).ok();
        let cause = cause.as_ref().and_then(|body| body.get("cause")).and_then(Value::as_str);
        let why = match cause {
            Some(cause) => cause.to_owned(),
            None if text.trim().is_empty() => format!("the server answered with status {status}"),
            None => text.trim().to_owned(),
        };
        Err(ClientError::Refused { status, why })
    }

    fn broken(&self, why: impl Into<String>) -> ClientError {
        ClientError::Broken { url: self.url.clone(), why: why.into() }
    }
}

/// A line of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    /// It was read to its end and thrown away.
    TooLong,
    /// There is none any more.
    End,
}

fn bounded_line(lines: &mut impl BufRead, max_bytes: u64) -> std::io::Result<Line> {
    let mut line = Vec::new();
    let mut is_too_long = false;
    loop {
        let mut bounded = std::io::Read::take(&mut *lines, max_bytes);
        let read = bounded.read_until(b'\n', &mut line)?;
        let has_ended = read == 0 || line.ends_with(b"\n");
        match (has_ended, is_too_long) {
            (true, true) => return Ok(Line::TooLong),
            (true, false) if line.is_empty() => return Ok(Line::End),
            (true, false) => return Ok(Line::Whole(line)),
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
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::ConnectionFailed => "the connection was refused".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_21_a_line_that_is_too_long_is_passed_over() {
        let text = format!("one\n{}\ntwo\nthree", "x".repeat(25));
        let mut lines = BufReader::with_capacity(4, text.as_bytes());
        let mut next = || bounded_line(&mut lines, 10).unwrap();
        assert_eq!(next(), Line::Whole(b"one\n".to_vec()));
        assert_eq!(next(), Line::TooLong);
        assert_eq!(next(), Line::Whole(b"two\n".to_vec()));
        assert_eq!(next(), Line::Whole(b"three".to_vec()));
        assert_eq!(next(), Line::End);
    }

    #[test]
    fn a_url_is_http_with_or_without_saying_so() {
        let url = |text| Client::new(text, Duration::from_secs(1)).map(|c| c.url().to_owned());
        assert_eq!(url("http://h:1338/").unwrap(), "http://h:1338");
        assert_eq!(url("h:1338").unwrap(), "http://h:1338");
        assert!(url("https://h:1338").unwrap_err().contains("https"));
        assert!(url("http://").is_err());
    }
}
