//! The endpoints of the query frontend.

use super::operation::{AnswerSchema, BodySchema, Operation, op};

const PREDICT: BodySchema = BodySchema::Schema(
    r#"{"type": "object", "description": "input or input_batch, of the application's type",
        "properties": {"input": {}, "input_batch": {"type": "array"},
                       "version": {"type": "string"}},
        "anyOf": [{"required": ["input"]}, {"required": ["input_batch"]}]}"#,
);
const UPDATE: BodySchema = BodySchema::Schema(
    r#"{"type": "object", "description": "One, or several as feedback",
        "properties": {"uid": {"type": "integer"}, "input": {},
                       "query_id": {"description": "An integer, in place of uid and input"},
                       "label": {},
                       "loss": {"description": "A number from 0 to 1, in place of label"},
                       "feedback": {"description": "A list of such objects, in place of all"}}}"#,
);
const INFER: BodySchema = BodySchema::Schema(
    r#"{"type": "object", "required": ["inputs"],
        "properties": {"id": {"type": ["string", "null"]},
          "parameters": {"type": ["object", "null"]},
          "inputs": {"type": "array", "items": {"type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {"name": {"type": "string"}, "datatype": {"type": "string"},
              "shape": {"type": "array", "items": {"type": "integer"}},
              "parameters": {"type": ["object", "null"]}, "data": {"type": "array"}}}},
          "outputs": {"type": ["array", "null"], "items": {"type": "object"}}}}"#,
);
const GENERATE: BodySchema = BodySchema::Schema(
    r#"{"type": "object", "required": ["text_input"],
        "properties": {"text_input": {"type": "string"}, "id": {"type": ["string", "null"]},
                       "parameters": {"type": ["object", "null"]}}}"#,
);
const OBJECT: BodySchema = BodySchema::Optional(r#"{"type": "object"}"#);

const fn get(path: &'static str, summary: &'static str) -> Operation {
    op("GET", path, summary, BodySchema::None, AnswerSchema::Json, "")
}

const fn post(
    path: &'static str,
    summary: &'static str,
    body: BodySchema,
    example: &'static str,
) -> Operation {
    op("POST", path, summary, body, AnswerSchema::Json, example)
}

const DIGIT: &str = r#"{"input": [1.0, 2.0]}"#;
const FEEDBACK: &str = r#"{"uid": 0, "input": [1.0, 2.0], "label": 1.0}"#;
const TENSOR: &str = r#"{"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64",
                         "data": [1.0, 2.0]}]}"#;

pub(super) const OPERATIONS: &[Operation] = &[
    post("/{name}/predict", "A prediction, or the default output in time", PREDICT, DIGIT),
    op(
        "POST",
        "/{name}/update",
        "What would have been right",
        UPDATE,
        AnswerSchema::Page,
        FEEDBACK,
    ),
    post("/v2/models/{name}/infer", "Open Inference Protocol: predictions", INFER, TENSOR),
    post(
        "/v2/models/{name}/versions/{version}/infer",
        "The same of one version of a model",
        INFER,
        TENSOR,
    ),
    post("/v2/models/{name}/generate", "A text for a text", GENERATE, ""),
    post(
        "/v2/models/{name}/versions/{version}/generate",
        "The same of one version of a model",
        GENERATE,
        "",
    ),
    op(
        "POST",
        "/v2/models/{name}/generate_stream",
        "A text for a text, in pieces",
        GENERATE,
        AnswerSchema::Stream,
        "",
    ),
    op(
        "POST",
        "/v2/models/{name}/versions/{version}/generate_stream",
        "The same of one version of a model",
        GENERATE,
        AnswerSchema::Stream,
        "",
    ),
    get("/v2", "Name, version and extensions of the server"),
    get("/v2/health/live", "Whether the server lives"),
    get("/v2/health/ready", "Whether the server takes traffic"),
    get("/v2/models", "What can be asked"),
    get("/v2/models/stats", "Statistics of all models"),
    get("/v2/models/{name}", "What an application or model takes and gives"),
    get("/v2/models/{name}/versions/{version}", "What a version takes and gives"),
    get("/v2/models/{name}/ready", "Whether an application or model can answer"),
    get("/v2/models/{name}/versions/{version}/ready", "Whether a version can answer"),
    get("/v2/models/{name}/config", "The configuration of a model, as Triton has it"),
    get("/v2/models/{name}/versions/{version}/config", "The configuration of a version"),
    get("/v2/models/{name}/stats", "Statistics of a model"),
    get("/v2/models/{name}/versions/{version}/stats", "Statistics of a version"),
    post("/v2/repository/index", "All models and their states", OBJECT, "{}"),
    post("/v2/repository/models/{name}/load", "Makes a model ready, if it can be", OBJECT, ""),
    post("/v2/repository/models/{name}/unload", "Takes a model away", OBJECT, ""),
    op(
        "GET",
        "/metrics",
        "Clipper JSON, or Prometheus text",
        BodySchema::None,
        AnswerSchema::Page,
        "",
    ),
    get("/livez", "Whether the server's threads turn"),
    get("/readyz", "Whether it takes traffic, and what is missing"),
    get("/healthz", "The same"),
    get("/openapi.json", "This description"),
    op("GET", "/docs", "This description, to be read", BodySchema::None, AnswerSchema::Html, ""),
    op("GET", "/docs/{file}", "A file of that page", BodySchema::None, AnswerSchema::Html, ""),
];
