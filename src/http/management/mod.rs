//! The management frontend: `/admin/*` (protocol page, section 5).
//!
//! Every operation is a row of [`ENDPOINTS`]: a path, the schema its errors show, and a function.
//! The schemas are the original's, which name what a body has to have; what it may have besides is
//! shown where such a member is wrong.
//!
//! A change becomes a [`Command`] for the one writer of metadata; a read looks at the catalog.
//! Refusals are 400 with the original's plain text, which `clipper_admin` shows to its users.
//!
//! Architecture invariant: nothing here decides what a change does; that is
//! [`crate::store::projection::Catalog::decide`].

mod apps;
mod containers;
pub mod deploy;
mod models;
mod names;
mod policies;
pub mod ports;

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use futures_util::future::{BoxFuture, LocalBoxFuture};

use self::ports::{ChangeError, Containers, Metadata, PolicyStates};
use super::body::{self, BodyLimits};
use super::errors::{ApiError, other_method};
use super::health::{self, Readiness};
use super::schema::{self, Object, SchemaError};
use clipper_domain::Command;

/// Makes a page from a request. The one of `/admin/metrics` has the form that the `Accept` header
/// chooses.
pub type MetricsPage =
    Arc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, HttpResponse> + Send + Sync>;

/// What the handlers work on. Cheap to clone.
#[derive(Clone)]
pub struct ManagementState {
    /// The metadata and its writer.
    pub metadata: Arc<dyn Metadata>,
    /// The connected replicas.
    pub containers: Arc<dyn Containers>,
    /// Replicas of a version that may be asked for; none where deploying is off.
    pub replicas_max: Option<u32>,
    /// What applications have learnt.
    pub states: Arc<dyn PolicyStates>,
    /// The metrics page.
    pub metrics: MetricsPage,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
}

/// A request that did not succeed.
#[derive(Debug)]
enum Failure {
    /// Not the JSON that was asked for: 400.
    Schema(SchemaError),
    /// A member that may be left out is not what it has to be if it is there: 400.
    Optional(SchemaError),
    /// Not allowed: 400 with this text.
    Refused(String),
    /// Not now: 503.
    Unavailable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema(error) | Self::Optional(error) => error.fmt(f),
            Self::Refused(text) | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        Self::Schema(error)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(why) => Self::Refused(why.to_string()),
            ChangeError::Unavailable { reason } => Self::Unavailable(reason),
        }
    }
}

/// A request that succeeded.
#[derive(Debug)]
enum Reply {
    Text(String),
    Json(String),
}

impl Reply {
    fn json<T: serde::Serialize>(value: &T) -> Result<Self, Failure> {
        let json = serde_json::to_string(value).map(Self::Json);
        json.map_err(|error| Failure::Unavailable(format!("the answer has no JSON form: {error}")))
    }
}

/// A change of the metadata and the text that tells of its success.
struct Change {
    command: Command,
    done: String,
}

#[derive(Clone, Copy)]
enum Operation {
    Change(fn(&Object<'_>) -> Result<Change, Failure>),
    Read(fn(&Object<'_>, &ManagementState) -> Result<Reply, Failure>),
    Act(fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>),
}

/// Something under way that is no change of the metadata.
type Act = BoxFuture<'static, Result<Reply, Failure>>;

/// One `POST` endpoint.
#[derive(Clone, Copy)]
struct Endpoint {
    path: &'static str,
    /// Shown in the errors of its body; the texts differ in spacing, as in the original.
    schema: &'static str,
    /// Shown beside it in the errors of members that may be left out, which the original lacks.
    optional: &'static str,
    operation: Operation,
}

const fn change(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>) -> Result<Change, Failure>,
) -> Endpoint {
    Endpoint { path, schema, optional: "", operation: Operation::Change(run) }
}

const fn read(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &ManagementState) -> Result<Reply, Failure>,
) -> Endpoint {
    Endpoint { path, schema, optional: "", operation: Operation::Read(run) }
}

const fn act(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>,
) -> Endpoint {
    Endpoint { path, schema, optional: "", operation: Operation::Act(run) }
}

impl Endpoint {
    const fn with_optional(self, optional: &'static str) -> Self {
        Self { optional, ..self }
    }
}

const VERBOSE_SCHEMA: &str = "\n  {\n    \"verbose\" := bool\n  }\n";

/// Every `POST` endpoint.
const ENDPOINTS: [Endpoint; 19] = [
    change("/admin/add_app", apps::ADD_SCHEMA, apps::add).with_optional(apps::ADD_OPTIONAL),
    change("/admin/update_app", apps::UPDATE_SCHEMA, apps::update)
        .with_optional(apps::UPDATE_SCHEMA),
    change("/admin/set_policy", policies::SET_SCHEMA, policies::set),
    change("/admin/delete_app", apps::ADD_SCHEMA, apps::delete),
    change("/admin/add_model", models::ADD_SCHEMA, models::add).with_optional(models::ADD_OPTIONAL),
    change("/admin/set_model_version", models::VERSION_SCHEMA, models::set_version),
    change("/admin/delete_versioned_model", models::VERSION_SCHEMA, models::delete_version)
        .with_optional(models::DELETE_OPTIONAL),
    change("/admin/add_model_links", apps::LINK_SCHEMA, apps::link),
    change("/admin/delete_model_links", apps::UNLINK_SCHEMA, apps::unlink),
    read("/admin/get_all_applications", VERBOSE_SCHEMA, apps::list),
    read("/admin/get_application", apps::GET_SCHEMA, apps::get),
    read("/admin/get_linked_models", apps::LINKED_SCHEMA, apps::linked_models),
    read("/admin/get_all_models", VERBOSE_SCHEMA, models::list),
    read("/admin/get_model", models::GET_SCHEMA, models::get),
    read("/admin/get_all_containers", VERBOSE_SCHEMA, containers::list),
    read("/admin/get_container", containers::GET_SCHEMA, containers::get),
    read("/admin/get_state", apps::STATE_SCHEMA, apps::state),
    act("/admin/restart_replicas", containers::RESTART_SCHEMA, containers::restart),
    act("/admin/set_replicas", containers::SET_SCHEMA, containers::set),
];

/// For what is shown only where it is not as usual.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(value: &bool) -> bool {
    *value
}

const PING: &str = "/admin/ping";
const METRICS: &str = "/admin/metrics";

const POST_ALLOW: &str = "POST, OPTIONS";
const PAGE_ALLOW: &str = "GET, HEAD, OPTIONS";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The endpoints as a line of text, for the answer to an unknown path.
fn endpoint_list() -> String {
    let posts = ENDPOINTS.iter().map(|endpoint| endpoint.path).chain([deploy::PATH]);
    let posts = posts.map(|path| format!("POST {path}"));
    let pages = [PING, METRICS].into_iter().chain(health::PATHS).map(|path| format!("GET {path}"));
    posts.chain(pages).collect::<Vec<_>>().join(", ")
}

/// Adds the management endpoints and the health pages to a frontend.
pub fn configure(
    state: ManagementState,
    limits: BodyLimits,
) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        health::configure(Arc::clone(&state.readiness))(config);
        for endpoint in ENDPOINTS {
            let (state, limits) = (state.clone(), limits.clone());
            let handler = move |request, payload| {
                let (state, limits) = (state.clone(), limits.clone());
                async move { post(endpoint, state, limits, request, payload).await }
            };
            config.service(resource(endpoint.path).route(web::to(handler)));
        }
        let ping = |request: HttpRequest| async move {
            if is_page_request(&request) {
                HttpResponse::Ok().content_type(PLAIN).body("PONG")
            } else {
                other_method(request.method(), PAGE_ALLOW)
            }
        };
        config.service(resource(PING).route(web::to(ping)));
        let page = Arc::clone(&state.metrics);
        let metrics = move |request: HttpRequest| page(request);
        config.service(resource(METRICS).route(web::to(metrics)));
        let limits = limits.clone();
        let not_found = move |request: HttpRequest, payload: web::Payload| {
            let limits = limits.clone();
            async move {
                body::skip(&request, payload, &limits).await;
                ApiError::not_found(request.path(), &endpoint_list()).error_response()
            }
        };
        config.default_service(web::to(not_found));
    }
}

/// A path with and without a slash at its end.
fn resource(path: &str) -> actix_web::Resource {
    web::resource([path.to_owned(), format!("{path}/")])
}

fn is_page_request(request: &HttpRequest) -> bool {
    [Method::GET, Method::HEAD].contains(request.method())
}

async fn post(
    endpoint: Endpoint,
    state: ManagementState,
    limits: BodyLimits,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    if request.method() != Method::POST {
        body::skip(&request, payload, &limits).await;
        return other_method(request.method(), POST_ALLOW);
    }
    let body = match body::read(&request, payload, &limits).await {
        Ok(body) => body,
        Err(error) => return error.error_response(),
    };
    let outcome = run(endpoint.operation, &state, &body).await;
    match &outcome {
        Ok(_) => tracing::debug!(path = endpoint.path, "management request answered"),
        Err(failure) => tell_failure(endpoint.path, failure),
    }
    respond(outcome, endpoint.schema, endpoint.optional)
}

/// A member that may be left out.
fn optional<'a, T>(
    body: &Object<'a>,
    key: &'static str,
    read: impl FnOnce(&Object<'a>, &'static str) -> Result<T, SchemaError>,
) -> Result<Option<T>, Failure> {
    body.optional(key, read).map_err(Failure::Optional)
}

/// In words; as a text, so that what a request holds stays on one line.
fn tell_failure(path: &str, failure: &Failure) {
    let failure = failure.to_string();
    tracing::info!(path, failure = failure.trim_end(), "management request failed");
}

async fn run(operation: Operation, state: &ManagementState, body: &[u8]) -> Result<Reply, Failure> {
    let object = Object::parse(body)?;
    match operation {
        Operation::Read(read) => read(&object, state),
        Operation::Act(act) => act(&object, state)?.await,
        Operation::Change(change) => {
            let Change { command, done } = change(&object)?;
            state.metadata.execute(command).await?;
            Ok(Reply::Text(done))
        }
    }
}

fn respond(outcome: Result<Reply, Failure>, schema: &str, optional: &str) -> HttpResponse {
    let refuse = |text| HttpResponse::BadRequest().content_type(PLAIN).body(text);
    match outcome {
        Ok(Reply::Text(text)) => HttpResponse::Ok().content_type(PLAIN).body(text),
        Ok(Reply::Json(json)) => HttpResponse::Ok().content_type("application/json").body(json),
        Err(Failure::Schema(error)) => refuse(schema::explain(&error, schema)),
        Err(Failure::Optional(error)) => refuse(schema::explain(&error, optional)),
        Err(Failure::Refused(text)) => refuse(text),
        Err(Failure::Unavailable(reason)) => ApiError::unavailable(reason).error_response(),
    }
}
