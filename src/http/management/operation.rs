//! What the operations of the management frontend are made of: what they work on, what comes of
//! them, and how a client is told.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use futures_util::future::{BoxFuture, LocalBoxFuture};

use super::past::Past;
use super::ports::{ChangeError, Containers, Metadata, PolicyStates};
use crate::access::Access;
use crate::dashboard::Dashboard;
use crate::http::errors::{self, ApiError};
use crate::http::handed::HandOver;
use crate::http::health::Readiness;
use crate::http::parsing::Parsing;
use crate::http::request_id;
use crate::http::schema::{self, Object, SchemaError};
use crate::logging::outsiders;
use clipper_config::Deploy;
use clipper_container::allowed::Allowed;
use clipper_domain::access::Denied;
use clipper_domain::{AccessKey, Asker, Command, CommandError};

/// The methods of operations.
pub(super) const POST_ALLOW: &str = "POST, OPTIONS";
/// The methods of pages.
pub(super) const PAGE_ALLOW: &str = "GET, HEAD, OPTIONS";
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// Makes a page from a request. The one of `/admin/metrics` has the form that the `Accept` header
/// chooses.
pub type MetricsPage =
    Arc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, HttpResponse> + Send + Sync>;

/// What the handlers work on. Cheap to clone.
#[derive(Clone)]
pub struct ManagementState {
    /// The metadata and its writer.
    pub metadata: Arc<dyn Metadata>,
    pub containers: Arc<dyn Containers>,
    /// Replicas of a version that may be asked for; none where deploying is off.
    pub replicas_max: Option<u32>,
    /// What applications have learnt.
    pub states: Arc<dyn PolicyStates>,
    pub metrics: MetricsPage,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
    /// Where what takes long is done.
    pub parsing: Parsing,
    pub access: Arc<Access>,
    /// The journal's past; none where nothing is kept.
    pub past: Option<Past>,
    /// What the pages are told by; none where there are none.
    pub dashboard: Option<Dashboard>,
    /// Where predictions are asked for; none where no queries are answered.
    pub hand_over: Option<HandOver>,
    /// Whose key came with the request, if one was needed.
    pub by: Option<Arc<AccessKey>>,
    /// What else is known of who asks.
    pub asker: Asker,
    /// Whose requests may start programs.
    pub deploy: Deploy,
    /// Which programs.
    pub allowed: Arc<Allowed>,
    /// Why this request may not.
    pub no_programs: Option<String>,
}

impl ManagementState {
    /// Carries out a change for whoever asks.
    pub(super) fn execute(&self, command: Command) -> BoxFuture<'static, Result<(), Failure>> {
        if let Some(key) = &self.by {
            let denied = command.subjects().into_iter().find_map(|name| key.check_name(name).err());
            if let Some(denied) = denied {
                return Box::pin(std::future::ready(Err(denied.into())));
            }
        }
        let key = self.by.as_ref().map(|key| key.name.clone());
        let done = self.metadata.execute(command, Asker { key, ..self.asker.clone() });
        Box::pin(async move { Ok(done.await?) })
    }

    /// Whether whoever asks may change the model of this name; without one, everything.
    pub(super) fn check_model(&self, name: Option<&str>) -> Result<(), Failure> {
        match (&self.by, name) {
            (Some(key), Some(name)) => Ok(key.check_name(name)?),
            (Some(key), None) if !key.only.is_everything() => Ok(key.check_name("")?),
            _ => Ok(()),
        }
    }
}

/// A request that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Not the JSON that was asked for: 400.
    Schema(SchemaError),
    /// A member that may be left out is not what it has to be if it is there: 400.
    Optional(SchemaError),
    /// Not allowed: 400 with this text.
    Refused(String),
    /// Planned on a state that has moved on: 409.
    Conflict(String),
    /// Not with this key: 403.
    Denied(Denied),
    /// Not for whoever asks: 403.
    Forbidden(String),
    /// Not now: 503.
    Unavailable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema(error) | Self::Optional(error) => error.fmt(f),
            Self::Denied(denied) => denied.fmt(f),
            Self::Refused(text)
            | Self::Conflict(text)
            | Self::Forbidden(text)
            | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl Failure {
    /// A value that its type does not take.
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        Self::Schema(error)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(why @ CommandError::PlanIsOld { .. }) => {
                Self::Conflict(why.to_string())
            }
            ChangeError::Refused(why) => Self::Refused(why.to_string()),
            ChangeError::Unavailable { reason } => Self::Unavailable(reason),
        }
    }
}

/// A request that succeeded.
#[derive(Debug)]
pub(super) enum Reply {
    Text(String),
    Json(String),
}

impl Reply {
    pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<Self, Failure> {
        let json = serde_json::to_string(value).map(Self::Json);
        json.map_err(|error| Failure::Unavailable(format!("the answer has no JSON form: {error}")))
    }
}

/// A change of the metadata and the text that tells of its success.
pub(super) struct Change {
    pub(super) command: Command,
    pub(super) done: String,
}

#[derive(Clone, Copy)]
pub(super) enum Operation {
    Change(fn(&Object<'_>) -> Result<Change, Failure>),
    Read(fn(&Object<'_>, &ManagementState) -> Result<Reply, Failure>),
    Act(fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>),
    /// As [`Self::Act`], after what takes long.
    Plan(fn(&Object<'_>, &ManagementState) -> Result<Act, Failure>),
    /// Looks into the journal's past.
    Look(fn(&Object<'_>, &Past) -> Result<Reply, Failure>),
}

/// Something under way that is no change of the metadata.
pub(super) type Act = BoxFuture<'static, Result<Reply, Failure>>;

/// What an operation is about to do.
pub(super) enum Decided {
    Done(Reply),
    Act(Act),
    Change(Change),
}

impl Operation {
    /// Reads a body. Without IO; with a large body or many applications it takes long.
    pub(super) fn decide(
        self,
        body: &[u8],
        schema: &str,
        state: &ManagementState,
    ) -> Result<Decided, Failure> {
        let object = Object::parse(body)?;
        // The original passes over what it does not know; of a misspelt member of these everything
        // would be pruned, taken back or shown.
        if matches!(self, Self::Plan(_) | Self::Look(_)) {
            object.only_of(schema)?;
        }
        match self {
            Self::Read(read) => read(&object, state).map(Decided::Done),
            Self::Act(act) | Self::Plan(act) => act(&object, state).map(Decided::Act),
            Self::Look(look) => match &state.past {
                Some(past) => look(&object, past).map(Decided::Done),
                None => Err(Failure::Unavailable("This server keeps no journal".to_owned())),
            },
            Self::Change(change) => change(&object).map(Decided::Change),
        }
    }
}

/// A member that may be left out.
pub(super) fn optional<'a, T>(
    body: &Object<'a>,
    key: &'static str,
    read: impl FnOnce(&Object<'a>, &'static str) -> Result<T, SchemaError>,
) -> Result<Option<T>, Failure> {
    body.optional(key, read).map_err(Failure::Optional)
}

/// In words; as a text, so that what a request holds stays on one line. Whoever reaches the port
/// can cause such lines, so that they are limited.
pub(super) fn tell_failure(path: &'static str, failure: &Failure, request: &HttpRequest) {
    let Some(from) = peer(request) else { return };
    if let Some(left_out) = outsiders::line(path, from) {
        let failure = failure.to_string();
        let failure = failure.trim_end();
        let request_id = request_id::of(request);
        let request_id = request_id.as_deref();
        tracing::info!(path, %from, failure, request_id, left_out, "management request failed");
    }
}

/// Whether a page is asked for.
pub(super) fn is_page_request(request: &HttpRequest) -> bool {
    [Method::GET, Method::HEAD].contains(request.method())
}

/// The address that a request came from.
pub(super) fn peer(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|peer| peer.ip())
}

pub(super) fn respond(
    outcome: Result<Reply, Failure>,
    schema: &str,
    optional: &str,
) -> HttpResponse {
    let refuse = |text| HttpResponse::BadRequest().content_type(PLAIN).body(text);
    match outcome {
        Ok(Reply::Text(text)) => HttpResponse::Ok().content_type(PLAIN).body(text),
        Ok(Reply::Json(json)) => HttpResponse::Ok().content_type("application/json").body(json),
        Err(Failure::Schema(error)) => refuse(schema::explain(&error, schema)),
        Err(Failure::Optional(error)) => refuse(schema::explain(&error, optional)),
        Err(Failure::Refused(text)) => refuse(text),
        Err(Failure::Forbidden(text)) => ApiError::new(errors::FORBIDDEN, text).error_response(),
        Err(Failure::Conflict(text)) => ApiError::new(errors::CONFLICT, text).error_response(),
        Err(Failure::Denied(denied)) => {
            ApiError::new(errors::FORBIDDEN, denied.to_string()).error_response()
        }
        Err(Failure::Unavailable(reason)) => ApiError::unavailable(reason).error_response(),
    }
}

/// A path with and without a slash at its end.
pub(super) fn resource(path: &str) -> actix_web::Resource {
    web::resource([path.to_owned(), format!("{path}/")])
}
