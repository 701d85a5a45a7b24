//! The management frontend: `/admin/*`.
//!
//! Every operation is a row of [`ENDPOINTS`]: a path, the schema its errors show, and a function.
//! The schemas are the original's, which name what a body has to have; what it may have besides is
//! shown where such a member is wrong.
//!
//! A change becomes a [`Command`](clipper_domain::Command) for the one writer of metadata; a read
//! looks at the catalog. Refusals are 400 with the original's plain text, which `clipper_admin`
//! shows to its users.
//!
//! Architecture invariant: nothing here decides what a change does; that is
//! [`crate::store::projection::Catalog::decide`].

mod apply;
mod apps;
mod asked;
mod backup;
mod containers;
mod dashboard;
pub mod deploy;
pub mod explain;
mod journal;
mod keys;
mod limits;
mod models;
mod names;
mod operation;
pub mod page;
pub mod past;
mod policies;
pub mod ports;
mod predict;
mod rollouts;
mod stream;

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};

use self::operation::{
    Act, Change, Decided, Failure, Operation, PAGE_ALLOW, PLAIN, POST_ALLOW, Reply,
    is_page_request, resource, respond, tell_failure,
};
pub use self::operation::{ManagementState, MetricsPage};
use super::body::{self, Body, BodyLimits};
use super::errors::{ApiError, other_method};
use super::gate;
use super::health;
use super::opening;
use super::schema::Object;

#[derive(Clone, Copy)]
struct OriginalEndpoint {
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
) -> OriginalEndpoint {
    OriginalEndpoint { path, schema, optional: "", operation: Operation::Change(run) }
}

const fn read(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &ManagementState) -> Result<Reply, Failure>,
) -> OriginalEndpoint {
    OriginalEndpoint { path, schema, optional: "", operation: Operation::Read(run) }
}

const fn look(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &past::Past) -> Result<Reply, Failure>,
) -> OriginalEndpoint {
    OriginalEndpoint { path, schema, optional: schema, operation: Operation::Look(run) }
}

const fn act(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>,
) -> OriginalEndpoint {
    OriginalEndpoint { path, schema, optional: "", operation: Operation::Act(run) }
}

const fn plan(
    path: &'static str,
    schema: &'static str,
    run: fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>,
) -> OriginalEndpoint {
    OriginalEndpoint { path, schema, optional: schema, operation: Operation::Plan(run) }
}

impl OriginalEndpoint {
    const fn with_optional(self, optional: &'static str) -> Self {
        Self { optional, ..self }
    }
}

const VERBOSE_SCHEMA: &str = "\n  {\n    \"verbose\" := bool\n  }\n";

const ENDPOINTS: [OriginalEndpoint; 36] = [
    change("/admin/add_app", apps::ADD_SCHEMA, apps::add).with_optional(apps::ADD_OPTIONAL),
    change("/admin/update_app", apps::UPDATE_SCHEMA, apps::update)
        .with_optional(apps::UPDATE_SCHEMA),
    change("/admin/set_policy", policies::SET_SCHEMA, policies::set),
    change("/admin/start_rollout", rollouts::START_SCHEMA, rollouts::start)
        .with_optional(rollouts::START_OPTIONAL),
    change("/admin/promote_rollout", apps::LINKED_SCHEMA, rollouts::promote),
    change("/admin/abort_rollout", apps::LINKED_SCHEMA, rollouts::abort)
        .with_optional(rollouts::ABORT_OPTIONAL),
    read("/admin/get_rollout", apps::LINKED_SCHEMA, rollouts::get),
    change("/admin/delete_app", apps::ADD_SCHEMA, apps::delete),
    change("/admin/add_model", models::ADD_SCHEMA, models::add).with_optional(models::ADD_OPTIONAL),
    change("/admin/update_model", models::VERSION_SCHEMA, models::update)
        .with_optional(models::UPDATE_OPTIONAL),
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
    act("/admin/add_key", keys::ADD_SCHEMA, keys::add).with_optional(keys::ADD_SCHEMA),
    act("/admin/rotate_key", keys::ROTATE_SCHEMA, keys::rotate).with_optional(keys::ROTATE_SCHEMA),
    act("/admin/limit_key", keys::LIMIT_SCHEMA, keys::limit),
    act("/admin/revoke_key", apps::GET_SCHEMA, keys::revoke),
    plan("/admin/apply", apply::SCHEMA, apply::apply),
    plan("/admin/rollback", apply::ROLLBACK_SCHEMA, apply::rollback),
    read("/admin/export", apply::EXPORT_SCHEMA, apply::export),
    read("/admin/get_all_keys", VERBOSE_SCHEMA, keys::list),
    look("/admin/journal/log", journal::LOG_SCHEMA, journal::log),
    look("/admin/journal/blame", journal::BLAME_SCHEMA, journal::blame),
    look("/admin/journal/diff", journal::DIFF_SCHEMA, journal::diff),
    look("/admin/journal/state", journal::STATE_SCHEMA, journal::state),
];

const PING: &str = "/admin/ping";
const METRICS: &str = "/admin/metrics";

/// What the body of an operation has to be, in the notation of its refusals.
#[must_use]
pub fn notation(path: &str) -> Option<&'static str> {
    let found = ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    let text = |it: &OriginalEndpoint| if it.optional.is_empty() { it.schema } else { it.optional };
    found.map(text).or((path == deploy::PATH).then_some(deploy::SCHEMA))
}

/// All endpoints but the files of the pages, with their methods.
fn endpoints() -> impl Iterator<Item = (&'static str, &'static str)> {
    let posts = ENDPOINTS.iter().map(|endpoint| endpoint.path);
    let posts = posts.chain([deploy::PATH, backup::PATH, predict::PATH]);
    let pages = [PING, METRICS, explain::PATH, stream::PATH].into_iter().chain(dashboard::PATHS);
    let pages = pages.chain(health::PATHS).map(|path| ("GET", path));
    posts.map(|path| ("POST", path)).chain(pages)
}

/// The endpoints as a line of text, for the answer to an unknown path.
fn endpoint_list() -> String {
    let texts: Vec<String> = endpoints().map(|(method, path)| format!("{method} {path}")).collect();
    texts.join(", ")
}

/// Adds the management endpoints and the health pages to a frontend.
pub fn configure(
    state: ManagementState,
    limits: BodyLimits,
) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        health::configure(Arc::clone(&state.readiness))(config);
        if let Some(dashboard) = &state.dashboard {
            page::configure(config);
            dashboard::configure(dashboard, &state.readiness, config);
            predict::configure(&state, &limits, config);
        }
        for endpoint in ENDPOINTS {
            let (state, limits) = (state.clone(), limits.clone());
            let handler = move |request: HttpRequest, payload| {
                let (mut state, limits) = (state.clone(), limits.clone());
                state.by = gate::holder(&request);
                state.no_programs = deploy::obstacle(state.deploy, &request, state.by.as_deref());
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
        if let Some(past) = &state.past {
            let (past, readiness) = (past.clone(), Arc::clone(&state.readiness));
            let follow = move |request: HttpRequest| {
                let (past, readiness) = (past.clone(), Arc::clone(&readiness));
                async move {
                    if request.method() == Method::GET {
                        stream::respond(&request, past, readiness)
                    } else {
                        other_method(request.method(), "GET, OPTIONS")
                    }
                }
            };
            config.service(resource(stream::PATH).route(web::to(follow)));
            let past = state.past.clone();
            let back_up = move |request: HttpRequest| {
                let past = past.clone();
                async move {
                    match past.filter(|_| request.method() == Method::POST) {
                        Some(past) => backup::respond(&request, past),
                        None => other_method(request.method(), POST_ALLOW),
                    }
                }
            };
            config.service(resource(backup::PATH).route(web::to(back_up)));
        }
        let page = Arc::clone(&state.metrics);
        let metrics = move |request: HttpRequest| page(request);
        config.service(resource(METRICS).route(web::to(metrics)));
        let limits = limits.clone();
        let not_found = move |request: HttpRequest, payload: web::Payload| {
            let limits = limits.clone();
            async move {
                body::skip(&request, payload, &limits).await;
                unknown(request.path()).error_response()
            }
        };
        config.default_service(web::to(not_found));
    }
}

/// The answer to a path that is not one of this frontend.
fn unknown(path: &str) -> ApiError {
    let is_query = ["/predict", "/update"].iter().any(|verb| path.ends_with(verb));
    if !path.starts_with("/admin/") && is_query || path == "/v2" || path.starts_with("/v2/") {
        let there = "applications are queried at another port (http.query_addr, 1337 by default)";
        return ApiError::elsewhere(path, there);
    }
    ApiError::not_found(path, &endpoint_list())
}

async fn post(
    endpoint: OriginalEndpoint,
    mut state: ManagementState,
    limits: BodyLimits,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    if request.method() != Method::POST {
        body::skip(&request, payload, &limits).await;
        return other_method(request.method(), POST_ALLOW);
    }
    state.asker = match asked::asker(&request) {
        Ok(asker) => asker,
        Err(failure) => return respond(Err(failure), endpoint.schema, endpoint.optional),
    };
    let body = match opening::read(&request, payload, &limits, &state.parsing).await {
        Ok(body) => body,
        Err(error) => return error.error_response(),
    };
    let outcome = run(endpoint, &state, body).await;
    match &outcome {
        Ok(_) => tracing::debug!(path = endpoint.path, "management request answered"),
        Err(failure) => tell_failure(endpoint.path, failure, &request),
    }
    respond(outcome, endpoint.schema, endpoint.optional)
}

/// Does what a request asks for. What may take long, on this one thread would keep everybody else
/// waiting: a large body, or a list of everything.
async fn run(
    endpoint: OriginalEndpoint,
    state: &ManagementState,
    body: Body,
) -> Result<Reply, Failure> {
    let operation = endpoint.operation;
    let looks = matches!(operation, Operation::Look(_));
    // Whoever plans waits for nobody who only looks: plans are made where bodies are parsed.
    let past = state.past.as_ref().filter(|_| looks);
    let place = past.map(past::Past::look).transpose();
    let _place = place.map_err(Failure::Unavailable)?;
    let (parsing, schema) = (&state.parsing, endpoint.schema);
    let decided = if let Some(past) = past {
        let (of_thread, text) = (state.clone(), body.join());
        let look = move || operation.decide(&text, schema, &of_thread);
        past.threads.look(look).await.ok_or_else(|| Failure::Unavailable(BROKEN.to_owned()))??
    } else if parsing.is_long(body.size()) || is_long(operation) {
        let (of_thread, size) = (state.clone(), body.size());
        let work = move || operation.decide(&body.join(), schema, &of_thread);
        parsing.aside(size, work).await.ok_or_else(|| Failure::Unavailable(BROKEN.to_owned()))??
    } else {
        operation.decide(&body.join(), endpoint.schema, state)?
    };
    match decided {
        Decided::Done(reply) => Ok(reply),
        Decided::Act(act) => act.await,
        Decided::Change(Change { command, done }) => {
            state.execute(command).await?;
            Ok(Reply::Text(done))
        }
    }
}

fn is_long(operation: Operation) -> bool {
    matches!(operation, Operation::Read(_) | Operation::Plan(_))
}

/// A fault of the server.
const BROKEN: &str = "The request could not be read; nothing was changed";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::endpoints;
    use crate::access::table::{Port, TABLE};

    #[test]
    fn who_may_do_what_knows_every_endpoint_and_no_other() {
        let pages = ["/", "/dashboard/{file}", "/openapi.json", "/docs", "/docs/{file}"]
            .map(|path| ("GET", path));
        let served: BTreeSet<_> = endpoints().chain(pages).collect();
        let rows = TABLE.iter().filter(|row| row.port == Port::Management);
        let listed: BTreeSet<_> = rows.map(|row| (row.method, row.path)).collect();
        assert_eq!(listed, served, "src/access/table.rs");
    }
}
