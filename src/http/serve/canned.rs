//! Whole answers as bytes, for clients that actix-http answers without a body or not at all.

use actix_web::http::StatusCode;

use super::super::errors::{self, ApiError};
use crate::metrics::http::ConnectionEnd;

/// The setting that limits connections of the HTTP frontends.
pub const HTTP_LIMIT: &str = "http.connections_max";

/// An answer that takes the place of an empty one.
#[derive(Debug)]
pub struct Replaced {
    /// All that is to be written.
    pub text: Vec<u8>,
    /// The metric label of its error.
    pub label: &'static str,
}

/// The longest head that actix-http writes for an error of its own.
const OWN_HEAD_MAX_BYTES: usize = 256;

/// If `data` ends with the empty answer of actix-http to something that it could not read: the
/// same with an error in it. `opening` is how the connection began.
///
/// None of our own answers with these statuses is empty.
#[must_use]
pub fn in_place_of(data: &[u8], opening: [u8; 2]) -> Option<Replaced> {
    if !data.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = data.get(data.len().saturating_sub(OWN_HEAD_MAX_BYTES)..)?;
    let start = find_last(tail, b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(tail.get(start..)?).ok()?.to_ascii_lowercase();
    if !head.contains("\r\ncontent-length: 0\r\n") {
        return None;
    }
    let error = match head.get(9..12)? {
        "400" => ApiError::new(errors::NOT_HTTP, not_http(opening)),
        "431" => ApiError::new(errors::HEAD_TOO_LARGE, "The head of the request is over 128 KiB"),
        _ => return None,
    };
    let before = data.len() - tail.len() + start;
    let mut text = data.get(..before)?.to_vec();
    text.extend_from_slice(&whole(&error));
    Some(Replaced { text, label: error.label })
}

fn find_last(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

/// What a client that does not speak HTTP probably wanted.
fn not_http(opening: [u8; 2]) -> &'static str {
    match opening {
        // A handshake record of TLS, version 3.x.
        [0x16, 0x03] => {
            "These bytes are TLS, and this port speaks plain HTTP: use http://, or put a proxy \
             that ends TLS in front"
        }
        // The signature of a ZMTP greeting.
        [0xff, 0x00] => {
            "These bytes are ZeroMQ's, and this port speaks HTTP: containers connect to rpc.addr"
        }
        _ => "These bytes are not a request of HTTP/1.1",
    }
}

/// What a client is told at the end of its connection; `None` = nothing.
#[must_use]
pub fn last_words(why: ConnectionEnd) -> Option<Vec<u8>> {
    let error = match why {
        ConnectionEnd::HeadTimeout => ApiError::new(
            errors::TIMEOUT,
            "The head of the request did not come in time (http.client_request_timeout_ms)",
        ),
        ConnectionEnd::RequestTimeout => ApiError::new(
            errors::TIMEOUT,
            "The request did not come in time (http.request_timeout_ms)",
        ),
        ConnectionEnd::GaveWay => too_many_connections(HTTP_LIMIT),
        _ => return None,
    };
    Some(whole(&error))
}

/// What a client is told for which there is no room by this setting.
#[must_use]
pub fn too_many_connections(limit: &str) -> ApiError {
    ApiError::new(errors::OVERLOADED, format!("Too many connections are open ({limit})"))
}

/// The answer with head and body, after which the connection is closed.
#[must_use]
pub fn whole(error: &ApiError) -> Vec<u8> {
    let body = error.body();
    let retry = error.retry_after_s.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
    let reason = StatusCode::canonical_reason(&error.status).unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\nconnection: close\r\n{retry}\
         content-type: application/json\r\n\r\n{body}",
        error.status.as_u16(),
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\
                         date: Thu, 26 Nov 2026 13:00:00 GMT\r\n\r\n";

    fn replaced(before: &str, opening: [u8; 2]) -> String {
        let data = format!("{before}{EMPTY}");
        String::from_utf8(in_place_of(data.as_bytes(), opening).unwrap().text).unwrap()
    }

    #[test]
    fn an_empty_400_gets_the_body_of_every_error_and_what_stands_before_it_stays() {
        let answer = replaced("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", [b'x', b'y']);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 400 "));
        let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("content-type: application/json"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"], errors::NOT_HTTP.error);
        assert!(replaced("", [0x16, 0x03]).contains("These bytes are TLS"));
    }

    #[test]
    fn other_answers_are_left_alone() {
        for answer in [
            "HTTP/1.1 204 No Content\r\nallow: POST\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\nHTTP/1.",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "",
        ] {
            assert!(in_place_of(answer.as_bytes(), [0, 0]).is_none(), "{answer}");
        }
    }
}
