//! `GET /admin/journal/stream`: every change as a server-sent event, from any event on.
//!
//! A follower reads the journal at its own pace: nothing is queued for it, so that a slow one costs
//! a place and what one answer takes, and holds nobody up. It goes on where the header
//! `Last-Event-ID` says that it was, and is told if the journal has forgotten what comes next.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::past::Past;
use crate::http::errors::{self, ApiError};
use crate::http::events::event;
use crate::http::gate::{self, Holding};
use crate::http::health::Readiness;
use crate::http::serve::connection::Connection;
use crate::store::StoreError;
use crate::store::event::Envelope;
use crate::store::history::log::entry;
use clipper_clock::{self as clock, Instant};

/// The path served here.
pub(super) const PATH: &str = "/admin/journal/stream";

/// Events read at a time, and about how many bytes of them.
const STEP: u64 = 256;
const STEP_BYTES: usize = 256 << 10;

/// A sign of life at least this often: that is how a follower that has gone away is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What comes with the path.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamParams {
    /// Those after this event; without it, those from now on.
    after: Option<u64>,
    app: Option<String>,
    model: Option<String>,
}

/// A follower, and where it is.
struct JournalFollower {
    past: Past,
    asked: Arc<StreamParams>,
    /// The last event that it was given, or that it did not ask for.
    given: u64,
    last: watch::Receiver<u64>,
    readiness: Arc<Readiness>,
    /// When the last piece was given to the connection.
    at: Option<Instant>,
    has_ended: bool,
    /// It ends with the key of who follows.
    holding: Option<Rc<Holding>>,
    _place: OwnedSemaphorePermit,
}

/// Starts to follow.
pub(super) fn respond(
    request: &HttpRequest,
    past: Past,
    readiness: Arc<Readiness>,
) -> HttpResponse {
    match begin(request, past, readiness) {
        Ok(following) => {
            if let Some(connection) = request.conn_data::<Rc<Connection>>() {
                connection.streams();
            }
            let pieces = stream::unfold(following, |mut following| async move {
                let piece = following.next().await?;
                Some((Ok::<_, std::convert::Infallible>(piece), following))
            });
            HttpResponse::Ok()
                .insert_header((header::CONTENT_TYPE, "text/event-stream"))
                .insert_header((header::CACHE_CONTROL, "no-cache"))
                .insert_header(("X-Accel-Buffering", "no"))
                .streaming(pieces)
        }
        Err(error) => error.error_response(),
    }
}

fn begin(
    request: &HttpRequest,
    past: Past,
    readiness: Arc<Readiness>,
) -> Result<JournalFollower, ApiError> {
    let asked = web::Query::<StreamParams>::from_query(request.query_string());
    let asked = asked.map_err(|error| ApiError::new(errors::QUERY, error.to_string()))?.0;
    let resumed = match request.headers().get("last-event-id").map(HeaderValue::to_str) {
        Some(id) => {
            let id = id.ok().and_then(|id| id.trim().parse().ok());
            let wrong = || ApiError::new(errors::QUERY, "Last-Event-ID is no number of an event");
            Some(id.ok_or_else(wrong)?)
        }
        None => None,
    };
    let last = past.history.follow();
    let now = *last.borrow();
    let given = resumed.or(asked.after).unwrap_or(now);
    if given > now {
        let cause = format!("There is no event {given} yet: the last one is {now}");
        return Err(ApiError::new(errors::QUERY, cause));
    }
    let forgotten = past.history.forgotten();
    if given < forgotten {
        return Err(ApiError::new(errors::GONE, lost(given, forgotten)));
    }
    let place = Arc::clone(&past.followers).try_acquire_owned().map_err(|_| {
        let max = past.limits.followers_max;
        ApiError::unavailable(format!("{max} follow already (journal.followers_max)"))
    })?;
    Ok(JournalFollower {
        past,
        asked: Arc::new(asked),
        given,
        last,
        readiness,
        at: None,
        has_ended: false,
        holding: gate::holding(request),
        _place: place,
    })
}

fn lost(given: u64, forgotten: u64) -> String {
    let from = given + 1;
    format!("The journal has forgotten events {from} to {forgotten} (journal.keep_events)")
}

impl JournalFollower {
    /// The next piece; none after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let piece = if let Some(limit) = self.is_too_slow() {
            self.end("cut", &format!("It took {limit} ms and more to read a piece"))
        } else {
            let holding = self.holding.clone();
            tokio::select! {
                biased;
                // Events may come without a pause.
                refused = gate::ended(holding) => self.end("cut", &refused.to_string()),
                piece = self.piece() => piece,
            }
        };
        self.at = Some(clock::now());
        Some(piece)
    }

    /// It has left the last piece unread for so long, ms.
    fn is_too_slow(&self) -> Option<u64> {
        let limit = self.past.limits.follower_stall_ms;
        let waited = self.at.map(|at| clock::now().saturating_duration_since(at));
        waited.filter(|waited| *waited > Duration::from_millis(limit)).map(|_| limit)
    }

    async fn piece(&mut self) -> Bytes {
        loop {
            let last = *self.last.borrow_and_update();
            if self.given < last {
                match self.read(last).await {
                    Ok(Some(events)) => return events,
                    Ok(None) => continue,
                    Err(StoreError::NotKept { .. }) => {
                        let forgotten = self.past.history.forgotten();
                        return self.end("forgotten", &lost(self.given, forgotten));
                    }
                    Err(error) => return self.end("cut", &error.to_string()),
                }
            }
            let readiness = Arc::clone(&self.readiness);
            let changed = readiness.changed();
            if readiness.is_draining() {
                return self.end("cut", "The server stops");
            }
            tokio::select! {
                more = self.last.changed() => if more.is_err() {
                    return self.end("cut", "The server stops");
                },
                () = changed => {}
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    return Bytes::from_static(b": nothing new\n\n");
                }
            }
        }
    }

    /// Some of the events up to `last`; none that were asked for among them: nothing.
    async fn read(&mut self, last: u64) -> Result<Option<Bytes>, StoreError> {
        let (given, asked) = (self.given, Arc::clone(&self.asked));
        let seqs: Vec<u64> = (given + 1..=last.min(given + STEP)).collect();
        let history = self.past.history.clone();
        let read = self.past.threads.look(move || -> Result<(u64, Vec<u8>), StoreError> {
            let events = history.events(&seqs, STEP_BYTES)?;
            let mut pieces = Vec::new();
            for envelope in events.iter().filter(|envelope| asked.wants(envelope)) {
                let data = serde_json::to_string(&entry(envelope, true)).unwrap_or_default();
                pieces.extend_from_slice(format!("id: {}\n", envelope.seq).as_bytes());
                pieces.extend_from_slice(&event(Some("change"), &data));
            }
            Ok((events.last().map_or(given, |envelope| envelope.seq), pieces))
        });
        let (given, pieces) = read.await.unwrap_or(Err(StoreError::Closed))?;
        self.given = given;
        Ok((!pieces.is_empty()).then(|| pieces.into()))
    }

    /// The last piece: why there are no more.
    fn end(&mut self, name: &'static str, why: &str) -> Bytes {
        self.has_ended = true;
        let data = json!({"reason": why, "last_event_id": self.given});
        event(Some(name), &data.to_string())
    }
}

impl StreamParams {
    fn wants(&self, envelope: &Envelope) -> bool {
        let event = &envelope.event;
        let app = self.app.as_deref();
        let model = self.model.as_deref();
        app.is_none_or(|app| event.app().is_some_and(|name| name.as_str() == app))
            && model.is_none_or(|model| event.model().is_some_and(|name| name.as_str() == model))
    }
}
