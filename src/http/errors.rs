//! The error table of both frontends: kind, HTTP status, whether and when to try again.
//!
//! The JSON form is `{"error": kind, "cause": text}`, as clients of the query frontend know it. The
//! management frontend's refusals (400) are plain text instead; see [`super::management`].

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use clipper_domain::printable::is_deceptive;
use clipper_oip::Encoding;
use clipper_scheduling::quota::Exceeded;
use serde::Serialize;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The value of the metric label `error`.
    pub label: &'static str,
    /// The `error` member of the body.
    pub error: &'static str,
    pub status: StatusCode,
    /// Seconds after which the same request may succeed; `None` = not as it stands.
    pub retry_after_s: Option<u32>,
    /// When it is sent.
    pub when: &'static str,
}

/// The body is not JSON, or not the JSON that was asked for.
pub const JSON: Kind = Kind {
    label: "json",
    error: "Json error",
    status: StatusCode::BAD_REQUEST,
    retry_after_s: None,
    when: "the body is not JSON, or not of the expected schema",
};
/// The query is well formed and cannot be answered.
pub const QUERY: Kind = Kind {
    label: "query",
    error: "Query processing error",
    status: StatusCode::BAD_REQUEST,
    retry_after_s: None,
    when: "the query asks for something that does not exist",
};
/// Nobody knows who asks.
pub const UNAUTHORIZED: Kind = Kind {
    label: "unauthorized",
    error: "Unauthorized",
    status: StatusCode::UNAUTHORIZED,
    retry_after_s: None,
    when: "a key is asked for, and none came, or one that is not good",
};
/// Not for this client.
pub const FORBIDDEN: Kind = Kind {
    label: "forbidden",
    error: "Forbidden",
    status: StatusCode::FORBIDDEN,
    retry_after_s: None,
    when: "the configuration, or the role of the key, does not let this client do that",
};
pub const UNKNOWN_APPLICATION: Kind = Kind {
    label: "unknown_application",
    error: "Unknown application",
    status: StatusCode::NOT_FOUND,
    retry_after_s: None,
    when: "no application of that name is registered",
};
pub const NOT_FOUND: Kind = Kind {
    label: "not_found",
    error: "Not found",
    status: StatusCode::NOT_FOUND,
    retry_after_s: None,
    when: "the path is not an endpoint",
};
/// It was there once.
pub const GONE: Kind = Kind {
    label: "gone",
    error: "Gone",
    status: StatusCode::GONE,
    retry_after_s: None,
    when: "the journal has forgotten the events that a follower asks for",
};
/// A known path with the wrong verb.
pub const METHOD_NOT_ALLOWED: Kind = Kind {
    label: "method_not_allowed",
    error: "Method not allowed",
    status: StatusCode::METHOD_NOT_ALLOWED,
    retry_after_s: None,
    when: "the endpoint does not take that method; see the Allow header",
};
/// The body did not arrive in time.
pub const TIMEOUT: Kind = Kind {
    label: "timeout",
    error: "Request timeout",
    status: StatusCode::REQUEST_TIMEOUT,
    retry_after_s: None,
    when: "the client stopped sending its body",
};
/// The connection broke or its framing is wrong.
pub const BROKEN_BODY: Kind = Kind {
    label: "broken_body",
    error: "Broken request body",
    status: StatusCode::BAD_REQUEST,
    retry_after_s: None,
    when: "the body ends early or its chunks are malformed",
};
/// What a web page could have sent.
pub const MEDIA_TYPE: Kind = Kind {
    label: "media_type",
    error: "Unsupported media type",
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    retry_after_s: None,
    when: "a change of the metadata came as something else than JSON",
};
/// The body is compressed otherwise.
pub const ENCODING: Kind = Kind {
    label: "encoding",
    error: "Unsupported content encoding",
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    retry_after_s: None,
    when: "the body is compressed in a way that is not read; see the Accept-Encoding header",
};
/// The body is larger than configured.
pub const TOO_LARGE: Kind = Kind {
    label: "too_large",
    error: "Request too large",
    status: StatusCode::PAYLOAD_TOO_LARGE,
    retry_after_s: None,
    when: "the body or the number of inputs is over its limit",
};
/// It was planned on what is no more.
pub const CONFLICT: Kind = Kind {
    label: "conflict",
    error: "Conflict",
    status: StatusCode::CONFLICT,
    retry_after_s: None,
    when: "a change was planned on a state that has moved on; nothing was changed",
};
/// Too many queries at once.
pub const TOO_MANY: Kind = Kind {
    label: "too_many",
    error: "Too many requests",
    status: StatusCode::TOO_MANY_REQUESTS,
    retry_after_s: Some(1),
    when: "the server answers as many queries as it is configured to, or too many wrong keys came \
           from that address",
};
/// More than whoever asks may ask for.
pub const LIMITED: Kind = Kind {
    label: "limited",
    error: "Limit reached",
    status: StatusCode::TOO_MANY_REQUESTS,
    retry_after_s: Some(1),
    when: "the holder of the key, or all clients of the application, ask for more than one of \
           their limits; the text says whose and which",
};
/// The model answered with an error.
pub const MODEL: Kind = Kind {
    label: "model",
    error: "Model error",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    retry_after_s: None,
    when: "the model answered this input with an error, and the application passes it on",
};
/// No output of a model, where the default output was not asked for (Open Inference Protocol).
pub const NO_PREDICTION: Kind = Kind {
    label: "no_prediction",
    error: "No prediction",
    status: StatusCode::SERVICE_UNAVAILABLE,
    retry_after_s: Some(1),
    when: "no model answered within the objective, and the default output was not asked for",
};
/// A part of a protocol that is not served.
pub const UNSUPPORTED: Kind = Kind {
    label: "unsupported",
    error: "Not supported",
    status: StatusCode::NOT_IMPLEMENTED,
    retry_after_s: None,
    when: "the request asks for a part of the protocol that is not served",
};
/// Something the request needs is away.
pub const UNAVAILABLE: Kind = Kind {
    label: "unavailable",
    error: "Service unavailable",
    status: StatusCode::SERVICE_UNAVAILABLE,
    retry_after_s: Some(1),
    when: "the server starts, stops, or cannot store changes now; nothing was changed",
};

/// The server has as much to do as it is configured to take.
pub const OVERLOADED: Kind = Kind {
    label: "overloaded",
    error: "Overloaded",
    status: StatusCode::SERVICE_UNAVAILABLE,
    retry_after_s: Some(1),
    when: "bodies, answers or connections under way are at their limit in sum",
};
/// What came cannot be read as HTTP.
pub const NOT_HTTP: Kind = Kind {
    label: "not_http",
    error: "Not HTTP",
    status: StatusCode::BAD_REQUEST,
    retry_after_s: None,
    when: "what came is not a request of HTTP/1.1",
};
/// The head of the request is too large.
pub const HEAD_TOO_LARGE: Kind = Kind {
    label: "head_too_large",
    error: "Request head too large",
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    retry_after_s: None,
    when: "the request line and the headers are over 128 KiB",
};

/// The metric label of an error that is no row of the table.
pub const OTHER_LABEL: &str = "other";

/// Every row, for documentation and tests.
pub const TABLE: [Kind; 23] = [
    JSON,
    QUERY,
    UNAUTHORIZED,
    FORBIDDEN,
    UNKNOWN_APPLICATION,
    NOT_FOUND,
    GONE,
    METHOD_NOT_ALLOWED,
    TIMEOUT,
    BROKEN_BODY,
    MEDIA_TYPE,
    ENCODING,
    TOO_LARGE,
    CONFLICT,
    TOO_MANY,
    LIMITED,
    MODEL,
    NO_PREDICTION,
    UNSUPPORTED,
    UNAVAILABLE,
    OVERLOADED,
    NOT_HTTP,
    HEAD_TOO_LARGE,
];

/// An error on its way to a client: a row of [`TABLE`] and what exactly happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {cause}")]
pub struct ApiError {
    pub status: StatusCode,
    /// The kind, from [`TABLE`].
    pub error: &'static str,
    /// The metric label of the kind.
    pub label: &'static str,
    /// What happened, for a person.
    pub cause: String,
    /// The `Retry-After` header, seconds.
    pub retry_after_s: Option<u32>,
}

/// Goes with an error's response to where it is counted.
#[derive(Debug, Clone, Copy)]
pub struct ErrorLabel(pub &'static str);

#[derive(Serialize)]
struct WrittenError<'a> {
    error: &'a str,
    cause: &'a str,
}

impl ApiError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Self {
            status: kind.status,
            error: kind.error,
            label: kind.label,
            cause: cause.into(),
            retry_after_s: kind.retry_after_s,
        }
    }

    /// The body or its schema is wrong.
    #[must_use]
    pub fn json(cause: impl Into<String>) -> Self {
        Self::new(JSON, cause)
    }

    /// The query cannot be answered.
    #[must_use]
    pub fn query(cause: impl Into<String>) -> Self {
        Self::new(QUERY, cause)
    }

    /// No application of that name.
    #[must_use]
    pub fn unknown_application(name: &str) -> Self {
        Self::new(UNKNOWN_APPLICATION, format!("No application with name '{}'", shown(name)))
    }

    /// The path is not an endpoint; `endpoints` are those that are.
    #[must_use]
    pub fn not_found(path: &str, endpoints: &str) -> Self {
        let path = shown(path);
        Self::new(NOT_FOUND, format!("There is no {path} here. Endpoints: {endpoints}"))
    }

    /// The path is an endpoint of another port; `where_it_is` says which.
    #[must_use]
    pub fn elsewhere(path: &str, where_it_is: &str) -> Self {
        Self::new(NOT_FOUND, format!("There is no {} here: {where_it_is}", shown(path)))
    }

    /// Too many queries at once.
    #[must_use]
    pub fn too_many(cause: impl Into<String>) -> Self {
        Self::new(TOO_MANY, cause)
    }

    #[must_use]
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, reason)
    }

    /// Its answer without a body.
    pub(super) fn answer(&self) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((RETRY_AFTER, seconds));
        }
        if self.label == ENCODING.label {
            response.insert_header((ACCEPT_ENCODING, Encoding::NAMES));
        }
        response
    }

    #[must_use]
    pub fn body(&self) -> String {
        // Serialising two strings cannot fail; an empty body would still carry the status.
        serde_json::to_string(&WrittenError { error: self.error, cause: &self.cause })
            .unwrap_or_default()
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        let Some(wait) = exceeded.wait else {
            return Self::new(TOO_LARGE, exceeded.to_string());
        };
        let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
        let cause = format!("{exceeded}: try again in {seconds} s");
        Self { retry_after_s: Some(seconds), ..Self::new(LIMITED, cause) }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.answer();
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"clipper\""));
        }
        let mut response = response.content_type("application/json").body(self.body());
        response.extensions_mut().insert(ErrorLabel(self.label));
        response
    }
}

/// 405 with the methods that the endpoint takes, such as `GET, HEAD, OPTIONS`; 204 to OPTIONS.
#[must_use]
pub fn other_method(method: &actix_web::http::Method, allow: &'static str) -> HttpResponse {
    let mut response = if method == actix_web::http::Method::OPTIONS {
        HttpResponse::NoContent().finish()
    } else {
        let cause = format!("{} is not one of: {allow}", shown(method.as_str()));
        ApiError::new(METHOD_NOT_ALLOWED, cause).error_response()
    };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Longest piece of a request that an error repeats, characters.
const SHOWN_MAX_CHARS: usize = 200;

/// Text of a request, fit to be repeated in an error: bounded, and nothing in it can change how the
/// text around it looks.
#[must_use]
pub fn shown(text: &str) -> String {
    let clean = |c: char| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX_CHARS).map(clean).collect();
    if text.chars().nth(SHOWN_MAX_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_two_members_in_the_order_clients_know() {
        let error = ApiError::json("say \"what\"\n");
        assert_eq!(error.body(), r#"{"error":"Json error","cause":"say \"what\"\n"}"#);
        assert_eq!(error.error_response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn only_a_kind_that_passes_says_when_to_try_again() {
        for kind in TABLE {
            let response = ApiError::new(kind, "x").error_response();
            let retryable = [429, 503].contains(&kind.status.as_u16());
            assert_eq!(response.headers().contains_key(RETRY_AFTER), retryable, "{}", kind.error);
        }
    }

    #[test]
    fn request_text_in_an_error_is_bounded_and_clean() {
        assert_eq!(shown("a\r\nb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(shown(&"é".repeat(9_000)).chars().count(), SHOWN_MAX_CHARS + 3);
    }
}
