//! `/livez`, `/readyz` and `/healthz`: is the process up, and should it get traffic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::errors::other_method;

/// The paths served here, for lists of endpoints.
pub const PATHS: [&str; 3] = ["/livez", "/readyz", "/healthz"];

const ALLOW: &str = "GET, HEAD, OPTIONS";

/// What has to be done before the server takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The journal has been replayed into the catalog.
    JournalReplayed,
    /// The HTTP listeners are bound.
    ListenersBound,
    /// The port for model containers is bound.
    RpcBound,
    /// There is metadata to serve: the journal's, or what a first look at the tables in Redis gave.
    MetadataKnown,
}

impl Condition {
    pub const ALL: [Self; 4] =
        [Self::JournalReplayed, Self::ListenersBound, Self::RpcBound, Self::MetadataKnown];

    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JournalReplayed => "journal replayed",
            Self::ListenersBound => "listeners bound",
            Self::RpcBound => "rpc bound",
            Self::MetadataKnown => "metadata known",
        }
    }
}

/// Which conditions are met, and whether the server is on its way out. Shared by all threads.
#[derive(Debug, Default)]
pub struct Readiness {
    met: [AtomicBool; Condition::ALL.len()],
    reasons: Mutex<BTreeMap<&'static str, String>>,
    draining: AtomicBool,
    changed: Notify,
}

impl Readiness {
    /// Nothing is met yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A condition is met from now on.
    pub fn meet(&self, condition: Condition) {
        self.met[condition as usize].store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether a condition is met.
    #[must_use]
    pub fn is_met(&self, condition: Condition) -> bool {
        self.met[condition as usize].load(Ordering::Acquire)
    }

    /// Why a condition is not met, for whoever asks.
    pub fn explain(&self, condition: Condition, reason: String) {
        self.reasons.lock().insert(condition.name(), reason);
    }

    /// The server stops: never ready again.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Ends at the next change; taken before a look at what is so far, none is missed.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Names of what is missing; empty = ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let unmet = Condition::ALL.into_iter().filter(|c| !self.is_met(*c)).map(Condition::name);
        let draining = self.draining.load(Ordering::Acquire).then_some("not draining");
        unmet.chain(draining).collect()
    }
}

#[derive(Serialize)]
struct ReadyBody {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<&'static str>,
    /// Of those that somebody has explained.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, String>,
}

/// Adds them to a frontend.
pub fn configure(readiness: Arc<Readiness>) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        config.app_data(web::Data::from(Arc::clone(&readiness)));
        let (live_paths, ready_paths) =
            (["/livez", "/livez/"], ["/readyz", "/readyz/", "/healthz", "/healthz/"]);
        config.service(web::resource(live_paths).route(web::to(live)));
        config.service(web::resource(ready_paths).route(web::to(ready)));
    }
}

fn wants_page(request: &HttpRequest) -> bool {
    use actix_web::http::Method;
    [Method::GET, Method::HEAD].contains(request.method())
}

async fn live(request: HttpRequest) -> HttpResponse {
    if !wants_page(&request) {
        return other_method(request.method(), ALLOW);
    }
    HttpResponse::Ok().content_type("application/json").body(r#"{"live":true}"#)
}

async fn ready(request: HttpRequest, readiness: web::Data<Readiness>) -> HttpResponse {
    if !wants_page(&request) {
        return other_method(request.method(), ALLOW);
    }
    let missing = readiness.missing();
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut reasons = readiness.reasons.lock().clone();
    reasons.retain(|name, _| missing.contains(name));
    HttpResponse::build(status).json(ReadyBody { ready, missing, reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_condition_and_not_draining() {
        let readiness = Readiness::new();
        let missing = ["journal replayed", "listeners bound", "rpc bound", "metadata known"];
        assert_eq!(readiness.missing(), missing);
        readiness.meet(Condition::ListenersBound);
        assert_eq!(readiness.missing(), ["journal replayed", "rpc bound", "metadata known"]);
        for condition in Condition::ALL {
            readiness.meet(condition);
        }
        assert!(readiness.missing().is_empty());
        readiness.drain();
        assert_eq!(readiness.missing(), ["not draining"]);
    }
}
