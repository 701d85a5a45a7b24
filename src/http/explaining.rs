//! Whether a client wants to know why it is answered so, and how it is told where the answer
//! itself has no place for that.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

use super::request_id;
use super::traced;
use crate::actors::apps::traced::Answerer;
use crate::traces::request::RequestTrace;
use clipper_domain::RequestId;
use clipper_domain::explain::ExplainedQuery;

/// In requests: `1`. In answers of the Open Inference Protocol: why.
pub(crate) const EXPLAIN_HEADER: &str = "x-clipper-explain";
static EXPLAIN: HeaderName = HeaderName::from_static(EXPLAIN_HEADER);

/// A longer explanation is left out of a header: clients and proxies refuse those.
const HEADER_MAX_BYTES: usize = 7 << 10;

/// In answers: the model that has answered, or was to.
pub(crate) const MODEL_HEADER: &str = "x-clipper-model";
static MODEL: HeaderName = HeaderName::from_static(MODEL_HEADER);

/// What a request says of itself to those who explain its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Explaining {
    pub(crate) is_wanted: bool,
    pub(crate) request_id: Option<RequestId>,
    /// The trace that it belongs to.
    pub(crate) trace: Option<Arc<RequestTrace>>,
}

impl Explaining {
    pub(super) fn of(request: &HttpRequest) -> Self {
        let (is_wanted, request_id) = (is_wanted(request), request_id::named(request));
        Self { is_wanted, request_id, trace: traced::trace(request) }
    }
}

thread_local! {
    /// What an answer of this thread had last, which mostly is what the next one has.
    static LAST_MODEL: RefCell<HeaderValue> =
        const { RefCell::new(HeaderValue::from_static("")) };
}

/// Says in an answer which models have answered.
pub(super) fn name_model(response: &mut HttpResponse, model: Option<&Answerer>) {
    let Some(model) = model.map(Answerer::shown) else { return };
    let value = LAST_MODEL.with_borrow_mut(|last| {
        if last.as_bytes() != model.as_bytes() {
            *last = HeaderValue::from_str(model).ok()?;
        }
        Some(last.clone())
    });
    if let Some(value) = value {
        response.headers_mut().insert(MODEL.clone(), value);
    }
}

/// Whether a request asks for it: `?explain=1`, or the header.
fn is_wanted(request: &HttpRequest) -> bool {
    let header = request.headers().get(&EXPLAIN).map(HeaderValue::as_bytes);
    header.is_some_and(is_yes) || is_wanted_by(request.query_string())
}

fn is_wanted_by(query: &str) -> bool {
    if query.is_empty() {
        return false;
    }
    let is_wanted = |value: &str| is_yes(value.as_bytes());
    query.split('&').any(|it| it.strip_prefix("explain=").is_some_and(is_wanted))
}

/// Whether a value asks for it.
pub(crate) fn is_yes(value: &[u8]) -> bool {
    value == b"1" || value == b"true"
}

/// Tells why a query was answered so.
pub(super) fn tell(response: &mut HttpResponse, explained: Option<&ExplainedQuery>) {
    let text = in_a_header(explained);
    if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(EXPLAIN.clone(), value);
    }
}

/// As a header takes it.
pub(crate) fn in_a_header(explained: Option<&ExplainedQuery>) -> Option<String> {
    let text = ascii(&serde_json::to_string(explained?).ok()?);
    (text.len() <= HEADER_MAX_BYTES).then_some(text)
}

/// The same JSON in visible characters.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to memory does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn it_is_asked_for_by_a_header_or_a_parameter() {
        let wanted = |request: TestRequest| is_wanted(&request.to_http_request());
        assert!(!wanted(TestRequest::with_uri("/a/predict")));
        for yes in ["/a/predict?explain=1", "/a/predict?x=2&explain=true"] {
            assert!(wanted(TestRequest::with_uri(yes)), "{yes}");
        }
        for no in ["/a/predict?explain=0", "/a/predict?explain", "/a/predict?unexplain=1"] {
            assert!(!wanted(TestRequest::with_uri(no)), "{no}");
        }
        assert!(wanted(TestRequest::with_uri("/a/predict").insert_header((&EXPLAIN, "1"))));
        assert!(!wanted(TestRequest::with_uri("/a/predict").insert_header((&EXPLAIN, "0"))));
    }

    #[test]
    fn json_stays_the_same_in_visible_characters() {
        let text = ascii("{\"model\":\"模型😀\"}");
        assert!(text.is_ascii());
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["model"], "模型😀");
    }
}
