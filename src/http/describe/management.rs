//! The endpoints of the management frontend. What their bodies have to be is said beside their
//! handlers.

use super::operation::{AnswerSchema, BodySchema, Operation, op};
use crate::http::management;

const fn get(path: &'static str, summary: &'static str, answer: AnswerSchema) -> Operation {
    op("GET", path, summary, BodySchema::None, answer, "")
}

const fn post(
    path: &'static str,
    summary: &'static str,
    answer: AnswerSchema,
    example: &'static str,
) -> Operation {
    op("POST", path, summary, BodySchema::None, answer, example)
}

const VERBOSE: &str = r#"{"verbose": true}"#;
const NAME: &str = r#"{"name": "digits"}"#;
const APP_NAME: &str = r#"{"app_name": "digits"}"#;
const VERSION: &str = r#"{"model_name": "digits", "model_version": "1"}"#;
const ADD_APP: &str = r#"{"name": "letters", "input_type": "strings", "default_output": "?",
    "latency_slo_micros": 20000}"#;
const ADD_MODEL: &str = r#"{"model_name": "letters", "model_version": "1", "labels": [],
    "input_type": "strings", "container_name": "letters", "model_data_path": ""}"#;
const LINK: &str = r#"{"app_name": "letters", "model_names": ["letters"]}"#;
/// Its refusals show the original's schema, which asks for more than is needed.
const NAME_SCHEMA: &str =
    r#"{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}"#;
const PREDICT: &str = r#"{"input": [1.0, 2.0]}"#;

/// In an order in which all examples work, one after the other.
const OPERATIONS: &[Operation] = &[
    post("/admin/add_app", "Adds an application", AnswerSchema::Text, ADD_APP),
    post(
        "/admin/update_app",
        "Changes an application while it serves",
        AnswerSchema::Text,
        r#"{"name": "letters", "latency_slo_micros": 30000}"#,
    ),
    post("/admin/add_model", "Registers a model version", AnswerSchema::Text, ADD_MODEL),
    post(
        "/admin/update_model",
        "Changes a registered version",
        AnswerSchema::Text,
        r#"{"model_name": "letters", "model_version": "1", "labels": ["tried"]}"#,
    ),
    post("/admin/add_model_links", "Links models to an application", AnswerSchema::Text, LINK),
    post(
        "/admin/set_policy",
        "Sets what chooses among an application's models",
        AnswerSchema::Text,
        r#"{"app_name": "letters", "policy": "majority"}"#,
    ),
    post(
        "/admin/set_model_version",
        "Sends a model's queries to a version",
        AnswerSchema::Text,
        r#"{"model_name": "letters", "model_version": "1"}"#,
    ),
    post("/admin/start_rollout", "Starts a rollout", AnswerSchema::Text, ""),
    post("/admin/promote_rollout", "Ends a rollout with the new version", AnswerSchema::Text, ""),
    post("/admin/abort_rollout", "Ends a rollout with the old version", AnswerSchema::Text, ""),
    post("/admin/get_rollout", "How a rollout stands", AnswerSchema::Json, APP_NAME),
    post("/admin/get_all_applications", "All applications", AnswerSchema::Json, VERBOSE),
    post("/admin/get_application", "An application", AnswerSchema::Json, NAME),
    post("/admin/get_linked_models", "The models of an application", AnswerSchema::Json, APP_NAME),
    post("/admin/get_all_models", "All model versions", AnswerSchema::Json, VERBOSE),
    post("/admin/get_model", "A model version", AnswerSchema::Json, VERSION),
    post("/admin/get_all_containers", "All connected replicas", AnswerSchema::Json, VERBOSE),
    post(
        "/admin/get_container",
        "A connected replica",
        AnswerSchema::Json,
        r#"{"model_name": "digits", "model_version": "1", "replica_id": 0}"#,
    ),
    post(
        "/admin/get_state",
        "What a policy has learned from a user",
        AnswerSchema::Text,
        r#"{"app_name": "digits", "uid": 0}"#,
    ),
    post("/admin/journal/log", "What was changed, by whom and why", AnswerSchema::Json, "{}"),
    post(
        "/admin/journal/blame",
        "What made an application what it is",
        AnswerSchema::Json,
        r#"{"app": "digits"}"#,
    ),
    post(
        "/admin/journal/diff",
        "What lies between two points in time",
        AnswerSchema::Json,
        r#"{"from": "0", "to": "1"}"#,
    ),
    post(
        "/admin/journal/state",
        "The state at a point in time",
        AnswerSchema::Json,
        r#"{"at": "1"}"#,
    ),
    post("/admin/export", "Everything as a config file", AnswerSchema::Text, "{}"),
    post(
        "/admin/apply",
        "Makes what is served what a file says",
        AnswerSchema::Json,
        r#"{"application": [], "dry_run": true}"#,
    ),
    post(
        "/admin/rollback",
        "Makes what is served what it was",
        AnswerSchema::Json,
        r#"{"to": "1", "dry_run": true}"#,
    ),
    post("/admin/restart_replicas", "Replaces processes of replicas", AnswerSchema::Text, ""),
    post("/admin/set_replicas", "Says how many processes are kept", AnswerSchema::Text, ""),
    post("/admin/deploy_model", "Starts a model version and links it", AnswerSchema::Stream, ""),
    post("/admin/journal/backup", "Everything that is kept, as a file", AnswerSchema::Archive, ""),
    post("/admin/add_key", "Makes a key", AnswerSchema::Json, ""),
    post("/admin/rotate_key", "Gives a key another secret", AnswerSchema::Json, ""),
    post("/admin/limit_key", "Limits what a key's holder may ask for", AnswerSchema::Text, ""),
    post("/admin/get_all_keys", "All keys, without secrets", AnswerSchema::Json, VERBOSE),
    post("/admin/revoke_key", "Takes a key away", AnswerSchema::Text, ""),
    post(
        "/admin/delete_model_links",
        "Unlinks models",
        AnswerSchema::Text,
        r#"{"app_name": "letters", "model_names": ["letters"]}"#,
    ),
    op(
        "POST",
        "/admin/delete_app",
        "Deletes an application",
        BodySchema::Schema(NAME_SCHEMA),
        AnswerSchema::Text,
        r#"{"name": "letters"}"#,
    ),
    post(
        "/admin/delete_versioned_model",
        "Deletes a model version",
        AnswerSchema::Text,
        r#"{"model_name": "letters", "model_version": "1"}"#,
    ),
    op(
        "POST",
        "/admin/predict/{name}",
        "A prediction, for pages of this port",
        BodySchema::Schema(
            r#"{"type": "object", "properties": {"input": {}}, "required": ["input"]}"#,
        ),
        AnswerSchema::Json,
        PREDICT,
    ),
    get("/admin/ping", "PONG", AnswerSchema::Text),
    get("/admin/metrics", "Clipper JSON, or Prometheus text", AnswerSchema::Page),
    get("/admin/explain", "Why the latest queries were answered so", AnswerSchema::Json),
    get("/admin/journal/stream", "Every change as it is made", AnswerSchema::Stream),
    get("/admin/dashboard/stream", "What the dashboard's pages are told", AnswerSchema::Stream),
    get("/admin/dashboard/history", "The history of an application", AnswerSchema::Json),
    get("/admin/dashboard/you", "Whose key this is, and what it may", AnswerSchema::Json),
    get("/livez", "Whether the server's threads turn", AnswerSchema::Json),
    get("/readyz", "Whether it takes traffic, and what is missing", AnswerSchema::Json),
    get("/healthz", "The same", AnswerSchema::Json),
    get("/", "The dashboard", AnswerSchema::Html),
    get("/dashboard/{file}", "A file of the dashboard", AnswerSchema::Html),
    get("/openapi.json", "This description", AnswerSchema::Json),
    get("/docs", "This description, to be read", AnswerSchema::Html),
    get("/docs/{file}", "A file of that page", AnswerSchema::Html),
];

/// With their bodies.
pub(super) fn operations() -> Vec<Operation> {
    let with_body = |row: &Operation| match (row.body, management::notation(row.path)) {
        (BodySchema::None, Some(text)) => Operation { body: BodySchema::Notation(text), ..*row },
        _ => *row,
    };
    OPERATIONS.iter().map(with_body).collect()
}
