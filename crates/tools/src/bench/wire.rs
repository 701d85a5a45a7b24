//! Just enough HTTP/1.1 for a client: heads with a `Content-Length`, and what an answer says.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Largest head of a response, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Most headers of a response.
const HEADERS_MAX: usize = 64;
/// Largest body of a response, bytes.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// The header that says how many bytes of a body are JSON.
pub(super) const JSON_BYTES: &str = "Inference-Header-Content-Length";
/// Where the outputs of an answer begin at the latest, bytes.
const OUTPUTS_WITHIN: usize = 4096;

/// Whether a 200 of the Open Inference Protocol has outputs.
pub(super) fn is_v2_answer(body: &[u8]) -> bool {
    let mark = b"\"outputs\":[";
    let start = body.get(..OUTPUTS_WITHIN).unwrap_or(body);
    start.windows(mark.len()).any(|window| window == mark)
}

/// The head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub status: u16,
    /// Bytes of head and body together.
    pub total: usize,
    /// Where the body starts.
    pub body: usize,
    /// The server closes after this response.
    pub close: bool,
}

/// A response that this client does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoResponse;

/// Reads a head; `None` while it is incomplete.
pub(super) fn head(bytes: &[u8]) -> Result<Option<ResponseHead>, NoResponse> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(bytes) {
        Ok(httparse::Status::Complete(body)) => body,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        _ => return Err(NoResponse),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(NoResponse);
    };
    let (mut len, mut close) = (None, minor == 0);
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| NoResponse)?;
            len = Some(text.trim().parse::<usize>().map_err(|_| NoResponse)?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    match len {
        Some(len) if len <= BODY_MAX => {
            Ok(Some(ResponseHead { status, total: body + len, body, close }))
        }
        _ => Err(NoResponse),
    }
}

/// What one answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SeenAnswer<'a> {
    Prediction,
    /// The default output, or in a batch an error of the model instead, and why.
    Default(Cow<'a, str>),
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(rename = "output", default)]
    _output: IgnoredAny,
    default: Option<bool>,
    #[serde(borrow)]
    default_explanation: Option<Cow<'a, str>>,
    /// In place of the others: the model's error.
    #[serde(borrow)]
    cause: Option<Cow<'a, str>>,
}

impl<'a> One<'a> {
    fn answer(self) -> Result<SeenAnswer<'a>, NoResponse> {
        match (self.default, self.cause) {
            (Some(false), None) => Ok(SeenAnswer::Prediction),
            (Some(true), None) => {
                let why = self.default_explanation.unwrap_or(Cow::Borrowed("no explanation"));
                Ok(SeenAnswer::Default(why))
            }
            (None, Some(cause)) => Ok(SeenAnswer::Default(cause)),
            _ => Err(NoResponse),
        }
    }
}

#[derive(Deserialize)]
struct Many<'a> {
    #[serde(borrow)]
    batch_predictions: Vec<One<'a>>,
}

/// Calls `each` with every answer of a 200.
pub(super) fn answers(
    body: &[u8],
    batch: bool,
    mut each: impl FnMut(SeenAnswer<'_>),
) -> Result<(), NoResponse> {
    // The common case, without a parser.
    if !batch && body.ends_with(b",\"default\":false}") {
        each(SeenAnswer::Prediction);
        return Ok(());
    }
    if let Ok(Ok(one)) = serde_json::from_slice::<One<'_>>(body).map(One::answer) {
        each(one);
        return Ok(());
    }
    let many: Many<'_> = serde_json::from_slice(body).map_err(|_| NoResponse)?;
    for one in many.batch_predictions {
        each(one.answer()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_piece_by_piece() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhello";
        let body = text.len() - 5;
        for end in 0..body {
            assert_eq!(head(&text[..end]), Ok(None));
        }
        let expected = ResponseHead { status: 200, total: text.len(), body, close: false };
        assert_eq!(head(text), Ok(Some(expected)));
        let closing = b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert!(head(closing).unwrap().unwrap().close);
    }

    #[test]
    fn other_framings_are_refused_and_nothing_is_read_for_ever() {
        for text in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert_eq!(head(text.as_bytes()), Err(NoResponse), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_MAX));
        assert_eq!(head(endless.as_bytes()), Err(NoResponse));
    }

    #[test]
    fn answers_tell_predictions_from_defaults() {
        let read = |body: &str, batch| {
            let mut seen = Vec::new();
            let result = answers(body.as_bytes(), batch, |answer| {
                seen.push(match answer {
                    SeenAnswer::Prediction => "prediction".to_owned(),
                    SeenAnswer::Default(why) => why.into_owned(),
                });
            });
            result.map(|()| seen)
        };
        let good = r#"{"query_id":1,"output":{"default":true},"default":false}"#;
        let late =
            r#"{"query_id":1,"output":0,"default":true,"default_explanation":"too \"late\""}"#;
        assert_eq!(read(good, false).unwrap(), ["prediction"]);
        assert_eq!(read(late, false).unwrap(), ["too \"late\""]);
        let batch = format!("{{\"batch_predictions\":[{good},{late},{good}]}}");
        assert_eq!(read(&batch, true).unwrap(), ["prediction", "too \"late\"", "prediction"]);
        let failed = r#"{"query_id":2,"error":"Model error","cause":"no 13"}"#;
        let batch = format!("{{\"batch_predictions\":[{failed},{good}]}}");
        assert_eq!(read(&batch, true).unwrap(), ["no 13", "prediction"]);
        let null = r#"{"batch_predictions":[{"query_id":1,"output":null,"default":false}]}"#;
        assert_eq!(read(null, true).unwrap(), ["prediction"]);
        // The server answers a batch of one as it answers an input.
        assert_eq!(read(good, true).unwrap(), ["prediction"]);
        assert_eq!(read("{}", false), Err(NoResponse));
    }
}
