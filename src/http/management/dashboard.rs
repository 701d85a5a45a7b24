//! What the dashboard's pages ask for beside what everybody may: `/admin/dashboard/stream`,
//! `/admin/dashboard/history` and `/admin/dashboard/you`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use smol_str::SmolStr;

use super::operation::{PAGE_ALLOW, is_page_request, resource};
use crate::dashboard::{Dashboard, Topic, Viewer};
use crate::http::errors::{self, ApiError, other_method};
use crate::http::events::event;
use crate::http::gate::{self, Holding};
use crate::http::health::Readiness;
use crate::http::request_id;
use crate::http::serve::connection::Connection;
use clipper_domain::{Action, Role};

const STREAM: &str = "/admin/dashboard/stream";
const HISTORY: &str = "/admin/dashboard/history";
const YOU: &str = "/admin/dashboard/you";

/// The paths served here.
pub(super) const PATHS: [&str; 3] = [STREAM, HISTORY, YOU];

/// A sign of life at least this often: that is how a page that has gone away is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DashboardParams {
    app: Option<String>,
    model: Option<String>,
    version: Option<String>,
}

impl DashboardParams {
    fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let asked = web::Query::<Self>::from_query(request.query_string());
        Ok(asked.map_err(|error| ApiError::new(errors::QUERY, error.to_string()))?.0)
    }

    fn topic(self) -> Result<Topic, ApiError> {
        match (self.app, self.model, self.version) {
            (None, None, None) => Ok(Topic::Overview),
            (Some(app), None, None) => Ok(Topic::App(app)),
            (None, Some(model), Some(version)) => Ok(Topic::Model(model, version)),
            _ => {
                let cause = "Expected nothing, app=NAME, or model=NAME and version=VERSION";
                Err(ApiError::new(errors::QUERY, cause))
            }
        }
    }
}

/// Adds them to the management frontend.
pub(super) fn configure(
    dashboard: &Dashboard,
    readiness: &Arc<Readiness>,
    config: &mut web::ServiceConfig,
) {
    let (told, readiness) = (dashboard.clone(), Arc::clone(readiness));
    get(config, STREAM, move |request| match follow(request, &told, &readiness) {
        Ok(response) => response,
        Err(error) => error.error_response(),
    });
    let past = dashboard.clone();
    get(config, HISTORY, move |request| {
        match DashboardParams::of(request).map(|asked| asked.app) {
            Ok(Some(app)) => {
                HttpResponse::Ok().content_type("application/json").body(past.history(&app))
            }
            Ok(None) => ApiError::new(errors::QUERY, "Expected app=NAME").error_response(),
            Err(error) => error.error_response(),
        }
    });
    let settings = dashboard.clone();
    get(config, YOU, move |request| {
        let prometheus = settings.config().prometheus_url.as_str();
        you(request, prometheus)
    });
}

fn get(
    config: &mut web::ServiceConfig,
    path: &str,
    respond: impl Fn(&HttpRequest) -> HttpResponse + Clone + 'static,
) {
    let handler = move |request: HttpRequest| {
        let respond = respond.clone();
        async move {
            if is_page_request(&request) {
                respond(&request)
            } else {
                other_method(request.method(), PAGE_ALLOW)
            }
        }
    };
    config.service(resource(path).route(web::to(handler)));
}

/// Who asks, and what they may.
fn you(request: &HttpRequest, prometheus_url: &str) -> HttpResponse {
    let key = gate::holder(request);
    let may = |action: Action| key.as_ref().is_none_or(|key| key.role.may(action));
    let actions =
        [("observe", Action::Observe), ("operate", Action::Operate), ("predict", Action::Predict)];
    let may: Vec<&str> =
        actions.iter().filter(|(_, action)| may(*action)).map(|(name, _)| *name).collect();
    HttpResponse::Ok().json(json!({
        "key": key.as_ref().map(|key| key.name.as_str()),
        "role": key.as_ref().map(|key| Role::name(key.role)),
        "may": may,
        "prometheus_url": (!prometheus_url.is_empty()).then_some(prometheus_url),
    }))
}

fn follow(
    request: &HttpRequest,
    dashboard: &Dashboard,
    readiness: &Arc<Readiness>,
) -> Result<HttpResponse, ApiError> {
    let topic = DashboardParams::of(request)?.topic()?;
    if request.method() == actix_web::http::Method::HEAD {
        return Ok(HttpResponse::Ok().content_type("text/event-stream").finish());
    }
    let viewer = dashboard.watch(topic).map_err(|full| ApiError::unavailable(full.to_string()))?;
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.streams();
    }
    let following = PageFollower {
        viewer,
        holding: gate::holding(request),
        from: request.peer_addr().map(|peer| peer.ip()),
        request_id: request_id::of(request),
        readiness: Arc::clone(readiness),
        has_ended: false,
    };
    let pieces = stream::unfold(following, |mut following| async move {
        let piece = following.next().await?;
        Some((Ok::<_, Infallible>(piece), following))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(pieces))
}

/// A page that is told.
struct PageFollower {
    viewer: Viewer,
    holding: Option<Rc<Holding>>,
    from: Option<IpAddr>,
    request_id: Option<SmolStr>,
    readiness: Arc<Readiness>,
    has_ended: bool,
}

impl PageFollower {
    /// The next event; none after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let readiness = Arc::clone(&self.readiness);
        let changed = readiness.changed();
        if readiness.is_draining() {
            return Some(self.end("The server stops"));
        }
        let holding = self.holding.clone();
        tokio::select! {
            biased;
            refused = gate::ended(holding) => {
                gate::tell(&refused, self.from, self.request_id.as_deref());
                Some(self.end(&refused.to_string()))
            }
            () = changed => Some(Bytes::from_static(b": \n\n")),
            picture = self.viewer.next() => match picture {
                Some(picture) => Some(picture),
                None => Some(self.end("The server stops")),
            },
            () = tokio::time::sleep(SIGN_OF_LIFE) => Some(Bytes::from_static(b": \n\n")),
        }
    }

    /// The last event: why there are no more.
    fn end(&mut self, why: &str) -> Bytes {
        self.has_ended = true;
        event(Some("end"), &json!({"reason": why}).to_string())
    }
}
