//! An endpoint, as it is described.

/// What the body of a request has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum BodySchema {
    None,
    /// In the notation of refusals.
    Notation(&'static str),
    /// As JSON Schema.
    Schema(&'static str),
    /// The same; it may be left out.
    Optional(&'static str),
}

/// What the answer is where all went well.
#[derive(Debug, Clone, Copy)]
pub(super) enum AnswerSchema {
    Json,
    Text,
    /// Server-sent events, or something else that only ends with the connection.
    Stream,
    Html,
    /// JSON or text, as is asked for.
    Page,
    Archive,
}

impl AnswerSchema {
    pub(super) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["application/json"],
            Self::Text => &["text/plain"],
            Self::Stream => &["text/event-stream"],
            Self::Html => &["text/html", "text/javascript", "text/css", "image/svg+xml"],
            Self::Page => &["application/json", "text/plain"],
            Self::Archive => &["application/octet-stream"],
        }
    }
}

/// One endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) body: BodySchema,
    pub(super) answer: AnswerSchema,
    /// A body that works on a server with the application `digits` of type doubles, its model
    /// `digits:1` and a replica of it; empty: none is needed, or it needs what such a server lacks.
    pub(super) example: &'static str,
}

pub(super) const fn op(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: BodySchema,
    answer: AnswerSchema,
    example: &'static str,
) -> Operation {
    Operation { method, path, summary, body, answer, example }
}
