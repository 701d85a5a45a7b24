//! `GET /metrics`: Clipper JSON for those who know the original, Prometheus text for those who ask.

use std::sync::Arc;

use actix_web::http::header::{self, Accept, Header, HeaderValue, Quality};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use tokio::sync::Mutex;

use crate::metrics::{FlatNames, Metrics};
use crate::metrics::{clipper_json_body, prometheus_text, prometheus_text_body};

const PATH: &str = "/metrics";

/// The route of the query frontend: by content negotiation, JSON unless text is preferred.
/// The text has the labelled metrics only.
pub fn configure_query(metrics: Arc<Metrics>) -> impl Fn(&mut web::ServiceConfig) + Clone {
    configure(metrics, Port::Query)
}

/// The route of the metrics port: always Prometheus text, the original's flat names included.
pub fn configure_metrics(metrics: Arc<Metrics>) -> impl Fn(&mut web::ServiceConfig) + Clone {
    configure(metrics, Port::Metrics)
}

#[derive(Clone, Copy)]
enum Port {
    Query,
    Metrics,
}

fn configure(metrics: Arc<Metrics>, port: Port) -> impl Fn(&mut web::ServiceConfig) + Clone {
    // One page at a time: a large one takes much memory while it is made.
    let turn = Arc::new(Mutex::new(()));
    move |config| {
        let (metrics, turn) = (Arc::clone(&metrics), Arc::clone(&turn));
        let handler = move |request: HttpRequest| {
            let form = match port {
                Port::Metrics => Form::Text(FlatNames::Listed),
                Port::Query => Form::preferred(&request),
            };
            let (metrics, turn) = (Arc::clone(&metrics), Arc::clone(&turn));
            // With thousands of applications a page takes seconds: not on a thread that answers
            // queries.
            async move {
                let _turn = turn.lock().await;
                let page = web::block(move || form.body(&metrics)).await;
                respond(form, page.map_err(|error| error.to_string()).flatten())
            }
        };
        config.service(web::resource(PATH).route(web::get().to(handler)));
    }
}

/// The page in the form that the request's `Accept` header prefers; JSON unless text is.
pub fn by_preference(metrics: &Metrics, request: &HttpRequest) -> HttpResponse {
    let form = Form::preferred(request);
    respond(form, form.body(metrics))
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Text(FlatNames),
}

impl Form {
    fn preferred(request: &HttpRequest) -> Self {
        if prefers_text(request) { Self::Text(FlatNames::LeftOut) } else { Self::Json }
    }

    fn body(self, metrics: &Metrics) -> Result<String, String> {
        match self {
            Self::Json => Ok(clipper_json_body(metrics)),
            Self::Text(names) => prometheus_text_body(metrics, names).map_err(|e| e.to_string()),
        }
    }
}

fn respond(form: Form, page: Result<String, String>) -> HttpResponse {
    let content_type = match form {
        Form::Json => HeaderValue::from_static("application/json"),
        Form::Text(_) => HeaderValue::from_static(prometheus_text::CONTENT_TYPE),
    };
    match page {
        Ok(body) => HttpResponse::Ok()
            .content_type(content_type)
            .insert_header((header::VARY, "Accept"))
            .body(body),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            HttpResponse::InternalServerError().body(error)
        }
    }
}

/// Whether a Prometheus format is strictly preferred to JSON. Without an `Accept` header, or with
/// one that says nothing of either, it is not.
fn prefers_text(request: &impl HttpMessage) -> bool {
    let Ok(accept) = Accept::parse(request) else { return false };
    let text = quality(&accept, "text", "plain");
    let open_metrics = quality(&accept, "application", "openmetrics-text");
    text.max(open_metrics) > quality(&accept, "application", "json")
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
