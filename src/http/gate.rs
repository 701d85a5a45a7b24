//! What stands before every endpoint of a frontend: whoever may not have what is asked for is
//! refused here, before anything of the body is read.

use std::future::{Ready, ready};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_service::{Service, Transform};
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN};
use actix_web::{Error, HttpMessage as _, ResponseError as _};
use futures_util::future::{Either, LocalBoxFuture};

use super::accessed;
use super::cors::Cors;
use super::errors::{self, ApiError, shown};
pub use super::holding::{Asker, Holding, Memory, asker, ended, holder, holding};
use super::request_id;
use super::serve::connection::Connection;
use super::serve::shown::certificates;
use crate::access::table::{Port, asked};
use crate::access::{Access, Refused, Shown, browser};
use crate::logging::outsiders;
use clipper_config::{HttpConfig, ManagementConfig};
use clipper_domain::Action;

/// The gate of one frontend. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    access: Arc<Access>,
    port: Port,
    /// What browsers are asked for; only where the server is managed.
    browsers: Option<Arc<Browsers>>,
    /// Whose pages may read the answers, beside its own.
    cors: Option<Arc<Cors>>,
}

/// What is asked of whatever a browser may have sent for a page.
#[derive(Debug)]
struct Browsers {
    hosts: Vec<String>,
    takes_any_type: bool,
}

impl Gate {
    #[must_use]
    pub fn new(access: &Arc<Access>, port: Port) -> Self {
        Self { access: Arc::clone(access), port, browsers: None, cors: None }
    }

    /// The gate of the query frontend.
    #[must_use]
    pub fn of_queries(access: &Arc<Access>, config: &HttpConfig) -> Self {
        let cors = Cors::new(Port::Query, &config.cors_origins, config.cors_credentials);
        Self { cors, ..Self::new(access, Port::Query) }
    }

    /// The gate of the management frontend.
    #[must_use]
    pub fn of_management(access: &Arc<Access>, config: &ManagementConfig) -> Self {
        let browsers =
            Browsers { hosts: config.hosts.clone(), takes_any_type: config.legacy_content_types };
        let (port, origins) = (Port::Management, &config.cors_origins);
        let cors = Cors::new(port, origins, config.cors_credentials);
        Self { browsers: Some(Arc::new(browsers)), cors, ..Self::new(access, port) }
    }

    /// The port that it is of.
    #[must_use]
    pub(super) fn port(&self) -> Port {
        self.port
    }

    /// Whose pages may read the answers.
    #[must_use]
    pub(super) fn cors(&self) -> Option<Arc<Cors>> {
        self.cors.clone()
    }

    /// Lets a request in, and says who asks if a key was needed.
    fn admit(&self, request: &ServiceRequest) -> Result<Option<Rc<Holding>>, GateRefusal> {
        let asks = self.access.asks();
        // As the router reads it: `%6D` is an `m` to it.
        let path = request.match_info().as_str();
        if !asks && self.port == Port::Query && path != METRICS {
            return Ok(None);
        }
        if let Some(holding) = self.let_in_before(request, path) {
            return Ok(Some(holding));
        }
        let (action, name) = asked(self.port, path);
        if let Some(browsers) = &self.browsers {
            browsers.check(request, action, self.cors.as_deref())?;
        }
        let from = || request.peer_addr().map(|peer| peer.ip());
        if !asks {
            self.check_stranger(action, from())?;
            return Ok(None);
        }
        match self.check(request, (action, name.as_deref())) {
            Ok(None) => Ok(None),
            Ok(Some(holding)) => {
                if holding.holder().is_by_certificate() {
                    check_page(request, self.cors.as_deref())?;
                } else if let Some(connection) = request.conn_data::<Rc<Connection>>() {
                    connection.memory().let_in(path);
                }
                Ok(Some(holding))
            }
            Err(refused) => {
                let id = request_id::of_service(request);
                tell(&refused, from(), id.as_deref());
                let held = self.access.hold(&refused, from()).map(|held| -> Held {
                    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
                        connection.is_held_back();
                    }
                    Box::pin(held)
                });
                Err(GateRefusal { error: refused.into(), held })
            }
        }
    }

    /// Who asks, if it is the same one as before over its connection, for the same path. Pages are
    /// looked at each time.
    fn let_in_before(&self, request: &ServiceRequest, path: &str) -> Option<Rc<Holding>> {
        if self.browsers.is_some() {
            return None;
        }
        let header = request.headers().get(AUTHORIZATION)?.as_bytes();
        let memory = request.conn_data::<Rc<Connection>>()?.memory();
        memory.let_in_before(path, (header, &self.access))
    }

    /// Who asks, if a key is needed for what is asked.
    fn check(
        &self,
        request: &ServiceRequest,
        asked: (Action, Option<&str>),
    ) -> Result<Option<Rc<Holding>>, Refused> {
        let certificates = certificates(request.request());
        let shown = Shown {
            header: request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes),
            certificates: certificates.as_deref().unwrap_or_default(),
            from: request.peer_addr().map(|peer| peer.ip()),
        };
        let memory = request.conn_data::<Rc<Connection>>().map(|connection| connection.memory());
        Memory::check(memory, asked, (shown, &self.access))
    }

    /// Metrics name every application and model: on the port of queries, strangers see them only
    /// if somebody wants that.
    fn check_stranger(&self, action: Action, from: Option<IpAddr>) -> Result<(), ApiError> {
        let is_local = from.is_some_and(|from| from.to_canonical().is_loopback());
        let concerns = self.port == Port::Query && action == Action::Scrape;
        if !concerns || is_local || self.access.has_open_metrics() {
            return Ok(());
        }
        let cause = "Metrics of this port are for the server's machine, or for a key of the role \
                     observe; access.open_metrics = true lets everybody read them";
        Err(ApiError::new(errors::FORBIDDEN, cause))
    }
}

/// What is told to whoever is not let in, and what it waits for before that.
struct GateRefusal {
    error: ApiError,
    held: Option<Held>,
}

type Held = LocalBoxFuture<'static, ()>;

impl From<ApiError> for GateRefusal {
    fn from(error: ApiError) -> Self {
        Self { error, held: None }
    }
}

const METRICS: &str = "/metrics";

impl Browsers {
    fn check(
        &self,
        request: &ServiceRequest,
        action: Action,
        cors: Option<&Cors>,
    ) -> Result<(), ApiError> {
        let text = |name: HeaderName| {
            request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
        };
        let host = text(HOST);
        if let Some(host) = host.filter(|host| !browser::is_host_ours(host, &self.hosts)) {
            let cause = format!(
                "This server is not called '{}': management.hosts lists the names that it is \
                 managed by, beside addresses",
                shown(host)
            );
            return Err(ApiError::new(errors::FORBIDDEN, cause));
        }
        if action == Action::Deploy {
            // It takes no page at all, and no other type whatever is set (`management::deploy`).
            return Ok(());
        }
        let origin = text(ORIGIN);
        if let Some(origin) = origin
            && !browser::is_origin_ours(origin, host.unwrap_or_default())
            && !cors.is_some_and(|cors| cors.lets_in(origin))
        {
            let cause = format!(
                "Web pages of '{}' may not manage this server (management.cors_origins)",
                shown(origin)
            );
            return Err(ApiError::new(errors::FORBIDDEN, cause));
        }
        let changes = [Action::Operate, Action::ManageKeys].contains(&action);
        let is_json = text(CONTENT_TYPE).is_some_and(browser::is_json);
        if changes && request.method() == Method::POST && !is_json && !self.takes_any_type {
            let cause = "Changes are taken as JSON: send the header Content-Type: \
                         application/json (management.legacy_content_types = true takes any)";
            return Err(ApiError::new(errors::MEDIA_TYPE, cause));
        }
        Ok(())
    }
}

/// A browser shows its user's certificate for every page that asks, also for those of strangers.
fn check_page(request: &ServiceRequest, cors: Option<&Cors>) -> Result<(), ApiError> {
    let text = |name: HeaderName| {
        request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
    };
    match text(ORIGIN) {
        Some(origin)
            if !browser::is_origin_ours(origin, text(HOST).unwrap_or_default())
                && !cors.is_some_and(|cors| cors.takes_certificates_of(origin)) =>
        {
            let cause = format!("Web pages of '{}' may not use a certificate", shown(origin));
            Err(ApiError::new(errors::FORBIDDEN, cause))
        }
        _ => Ok(()),
    }
}

/// Whoever reaches the port can cause such lines, so that they are limited.
pub fn tell(refused: &Refused, from: Option<IpAddr>, request_id: Option<&str>) {
    let Some(from) = from else { return };
    if let Some(left_out) = outsiders::line("not allowed", from) {
        let refused = refused.in_full();
        tracing::info!(%from, refused, request_id, left_out, "a request was refused");
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let kind = match &refused {
            Refused::Denied(_) => errors::FORBIDDEN,
            Refused::TooOften { .. } => errors::TOO_MANY,
            _ => errors::UNAUTHORIZED,
        };
        let error = Self::new(kind, refused.to_string());
        match refused {
            Refused::TooOften { retry_after_s } => {
                Self { retry_after_s: Some(retry_after_s), ..error }
            }
            _ => error,
        }
    }
}

impl<S> Transform<S, ServiceRequest> for Gate
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Gated<S>;
    type InitError = ();
    type Future = Ready<Result<Gated<S>, ()>>;

    fn new_transform(&self, endpoints: S) -> Self::Future {
        ready(Ok(Gated { gate: self.clone(), endpoints }))
    }
}

/// The endpoints of a frontend behind its gate.
pub struct Gated<S> {
    gate: Gate,
    endpoints: S,
}

impl<S> Service<ServiceRequest> for Gated<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Either<LocalBoxFuture<'static, Result<Self::Response, Error>>, S::Future>;

    actix_service::forward_ready!(endpoints);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(None) => {}
            Ok(Some(holding)) => {
                accessed::is_of(request.request(), &holding.holder().key);
                request.extensions_mut().insert(holding);
            }
            Err(GateRefusal { error, held }) => {
                let answer = request.into_response(error.error_response());
                return Either::Left(Box::pin(async {
                    if let Some(held) = held {
                        held.await;
                    }
                    Ok(answer)
                }));
            }
        }
        Either::Right(self.endpoints.call(request))
    }
}
