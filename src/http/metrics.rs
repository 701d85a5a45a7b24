//! `GET /metrics`: Clipper JSON for those who know the original, Prometheus text for those who ask.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::{self, Accept, Header, HeaderValue, Quality};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError as _, web};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::errors::{self, ApiError, other_method};
use super::management::MetricsPage;
use crate::metrics::{FlatNames, Metrics};
use crate::metrics::{open_metrics, prometheus_text};
use crate::metrics::{write_clipper_json, write_open_metrics, write_prometheus_text};
use crate::priority::Lane;

const PATH: &str = "/metrics";
const OPEN_METRICS: &str = "openmetrics-text";
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Bytes of one piece of a page.
const PIECE_BYTES: usize = 64 << 10;
/// A page up to this is sent at once, larger ones while they are made.
const WHOLE_BYTES: usize = 1 << 20;
/// Pieces that are made before the client has taken the first.
const PIECES_AHEAD: usize = 4;
/// Pages that are made at the same time, on one port; above it 503.
const PAGES_MAX: usize = 4;
/// Threads that make the pages of all three ports: each may wait for a slow client.
const THREADS: usize = 3 * PAGES_MAX;

/// What the pages of all ports are made of, and where.
#[derive(Debug, Clone)]
pub struct Pages {
    metrics: Arc<Metrics>,
    threads: Arc<Lane>,
}

impl Pages {
    /// # Errors
    /// The system has no room for threads.
    pub fn new(metrics: Arc<Metrics>) -> io::Result<Self> {
        Ok(Self { metrics, threads: Arc::new(Lane::background(THREADS, "metrics")?) })
    }
}

/// The route of the query frontend: by content negotiation, JSON unless text is preferred.
/// The text has the labelled metrics only.
pub fn configure_query(pages: Pages) -> impl Fn(&mut web::ServiceConfig) + Clone {
    configure(by_preference(pages))
}

/// The route of the metrics port: always a format of Prometheus, the original's flat names
/// included.
pub fn configure_metrics(pages: Pages) -> impl Fn(&mut web::ServiceConfig) + Clone {
    configure(page(pages, |request| PageForm::of_prometheus(request, FlatNames::Listed)))
}

/// The page in the form that the request's `Accept` header prefers; JSON unless text is.
#[must_use]
pub fn by_preference(pages: Pages) -> MetricsPage {
    page(pages, PageForm::preferred)
}

fn configure(page: MetricsPage) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        let page = Arc::clone(&page);
        let handler = move |request: HttpRequest| page(request);
        config.service(web::resource(PATH).route(web::to(handler)));
    }
}

fn page(pages: Pages, form: fn(&HttpRequest) -> PageForm) -> MetricsPage {
    let places = Arc::new(Semaphore::new(PAGES_MAX));
    Arc::new(move |request: HttpRequest| {
        let (pages, places) = (pages.clone(), Arc::clone(&places));
        Box::pin(async move {
            let form = form(&request);
            match *request.method() {
                Method::GET => {}
                Method::HEAD => return form.response().finish(),
                _ => return other_method(request.method(), ALLOW),
            }
            let Ok(place) = places.try_acquire_owned() else {
                let cause = format!("{PAGES_MAX} pages of metrics are being made");
                return ApiError::new(errors::OVERLOADED, cause).error_response();
            };
            respond(form, pages, place).await
        })
    })
}

#[derive(Debug, Clone, Copy)]
enum PageForm {
    Json,
    Text(FlatNames),
    Open(FlatNames),
}

impl PageForm {
    fn preferred(request: &HttpRequest) -> Self {
        if prefers_text(request) {
            Self::of_prometheus(request, FlatNames::LeftOut)
        } else {
            Self::Json
        }
    }

    /// `OpenMetrics` for those who name it and do not like the other format better.
    fn of_prometheus(request: &HttpRequest, names: FlatNames) -> Self {
        if prefers_open_metrics(request) { Self::Open(names) } else { Self::Text(names) }
    }

    fn write(self, metrics: &Metrics, out: impl io::Write) -> io::Result<()> {
        match self {
            Self::Json => write_clipper_json(metrics, out),
            Self::Text(names) => write_prometheus_text(metrics, names, out),
            Self::Open(names) => write_open_metrics(metrics, names, out),
        }
    }

    fn response(self) -> actix_web::HttpResponseBuilder {
        let content_type = match self {
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Text(_) => HeaderValue::from_static(prometheus_text::CONTENT_TYPE),
            Self::Open(_) => HeaderValue::from_static(open_metrics::CONTENT_TYPE),
        };
        let mut response = HttpResponse::Ok();
        response.content_type(content_type).insert_header((header::VARY, "Accept"));
        response
    }
}

/// The page, made elsewhere: with thousands of applications it takes seconds. One that is not large
/// has its length.
async fn respond(form: PageForm, pages: Pages, place: OwnedSemaphorePermit) -> HttpResponse {
    let Pages { metrics, threads } = pages;
    let (pieces, mut made) = mpsc::channel(PIECES_AHEAD);
    let making = actix_web::rt::spawn(async move {
        let page = move || {
            let _place = place;
            let mut page = SentPage { pieces, piece: BytesMut::new() };
            form.write(&metrics, &mut page).and_then(|()| io::Write::flush(&mut page))
        };
        threads.done(page).await.ok_or_else(|| io::Error::other("the thread has ended"))?
    });
    let mut start = BytesMut::new();
    while start.len() <= WHOLE_BYTES {
        if let Some(piece) = made.recv().await {
            start.extend_from_slice(&piece);
            continue;
        }
        return match making.await.map_err(io::Error::other).flatten() {
            Ok(()) => form.response().body(start.freeze()),
            Err(error) => {
                tracing::error!(%error, "the metrics could not be written");
                HttpResponse::InternalServerError().body(error.to_string())
            }
        };
    }
    let rest = stream::poll_fn(move |cx| made.poll_recv(cx));
    let pieces = stream::iter([start.freeze()]).chain(rest);
    form.response().streaming(pieces.map(Ok::<Bytes, Infallible>))
}

/// A page on its way to a client; writing waits for the client.
struct SentPage {
    pieces: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl io::Write for SentPage {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(text);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Whether a Prometheus format is strictly preferred to JSON. Without an `Accept` header, or with
/// one that says nothing of either, it is not.
fn prefers_text(request: &impl HttpMessage) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let text = quality(&accept, "text", "plain");
    let open_metrics = quality(&accept, "application", OPEN_METRICS);
    text.max(open_metrics) > quality(&accept, "application", "json")
}

/// Whether `OpenMetrics` is named, and liked as well as the older text.
fn prefers_open_metrics(request: &impl HttpMessage) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let is_named = accept.iter().any(|range| range.item.subtype() == OPEN_METRICS);
    let weight = quality(&accept, "application", OPEN_METRICS);
    is_named && weight > Quality::ZERO && weight >= quality(&accept, "text", "plain")
}

/// The weight a client gives to a media type, by its most specific range that matches (RFC 9110,
/// section 12.5.1); 0 if none does.
fn quality(accept: &Accept, kind: &str, subtype: &str) -> Quality {
    accept
        .iter()
        .filter_map(|range| {
            let specific = match (range.item.type_().as_str(), range.item.subtype().as_str()) {
                ("*", "*") => 0,
                (k, "*") if k == kind => 1,
                (k, s) if k == kind && s == subtype => 2,
                _ => return None,
            };
            Some((specific, range.quality))
        })
        .max()
        .map_or(Quality::ZERO, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn text_for(accept: &[&str]) -> bool {
        let mut request = TestRequest::default();
        for value in accept {
            request = request.append_header((header::ACCEPT, *value));
        }
        prefers_text(&request.to_http_request())
    }

    #[test]
    fn text_goes_to_those_who_prefer_it_to_json() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in [
            prometheus,
            "text/plain",
            "TEXT/Plain; charset=utf-8",
            "text/*",
            "application/openmetrics-text; version=1.0.0",
            "application/json;q=0.2, text/plain;q=0.3",
            "*/*;q=0.5, text/plain;q=0.6",
            "application/json;q=0, */*",
            "nonsense, text/plain",
        ] {
            assert!(text_for(&[accept]), "{accept}");
        }
        assert!(text_for(&["application/json;q=0.1", "text/plain"]), "two header lines");
    }

    #[test]
    fn open_metrics_go_to_those_who_name_them() {
        let open_for = |accept: &'static str| {
            let request = TestRequest::default().insert_header((header::ACCEPT, accept));
            prefers_open_metrics(&request.to_http_request())
        };
        for accept in [
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
            "application/openmetrics-text",
            "text/plain, application/openmetrics-text",
        ] {
            assert!(open_for(accept), "{accept}");
        }
        for accept in [
            "text/plain",
            "*/*",
            "application/*",
            "text/plain;q=0.6, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0, text/plain",
            "",
        ] {
            assert!(!open_for(accept), "{accept}");
        }
    }

    #[test]
    fn json_goes_to_everybody_else() {
        for accept in [
            "*/*",
            "application/json",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
            "text/plain, application/json",
            "text/plain;q=0.3, application/json;q=0.4",
            "text/plain;q=0.1, */*",
            "text/plain;q=0",
            "application/*",
            "text/html",
            "",
            ";;;,q=1,/",
            "text/plain;q=7",
        ] {
            assert!(!text_for(&[accept]), "{accept}");
        }
        assert!(!text_for(&[]), "no header");
    }
}
