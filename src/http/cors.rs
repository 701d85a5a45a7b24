//! Whose pages may read the answers of a frontend (CORS): those of the sites that are configured.
//!
//! A browser asks before it sends what a form could not, by a request without a key. That is
//! answered here, before anybody is asked for one; the request that follows is one as any other.
//! The methods of an endpoint are those that the table of endpoints has for it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    self, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::access::table::{Port, methods};

/// For so long a browser need not ask again, seconds.
const MAX_AGE_S: u32 = 600;
/// Names of headers that a page wants to send, bytes; above it they are not allowed.
const HEADERS_MAX_BYTES: usize = 2 << 10;
/// What pages may see of an answer beside what they always may.
const EXPOSED: &str = "X-Request-Id, X-Clipper-Model, X-Clipper-Explain, Retry-After, \
                       Inference-Header-Content-Length, Accept-Encoding, Allow, WWW-Authenticate";
const PREFLIGHT_VARIES: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// The sites of one frontend.
#[derive(Debug, Clone)]
pub struct Cors {
    port: Port,
    /// Of all sites.
    any: bool,
    origins: Vec<String>,
    credentials: bool,
}

impl Cors {
    /// `None` where there are no such sites.
    #[must_use]
    pub fn new(port: Port, origins: &[String], credentials: bool) -> Option<Arc<Self>> {
        if origins.is_empty() {
            return None;
        }
        let any = origins.iter().any(|origin| origin == "*");
        Some(Arc::new(Self { port, any, origins: origins.to_vec(), credentials }))
    }

    /// Whether pages of this site may read answers.
    #[must_use]
    pub fn lets_in(&self, origin: &str) -> bool {
        self.any || self.origins.iter().any(|known| known == origin)
    }

    /// Whether their requests may come with the certificate of the browser's user.
    #[must_use]
    pub fn takes_certificates_of(&self, origin: &str) -> bool {
        self.credentials && !self.any && self.lets_in(origin)
    }

    /// The site of the page that has sent a request, if it may read the answer.
    pub(super) fn origin(&self, request: &ServiceRequest) -> Option<HeaderValue> {
        let origin = request.headers().get(ORIGIN)?;
        self.lets_in(origin.to_str().ok()?).then(|| origin.clone())
    }

    /// The answer to a browser that asks whether a page of this site may send something.
    pub(super) fn preflight(
        &self,
        request: &ServiceRequest,
        origin: &HeaderValue,
    ) -> Option<HttpResponse> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS
            || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let methods = methods(self.port, request.match_info().as_str());
        if methods.is_empty() {
            return None;
        }
        let mut response = HttpResponse::NoContent();
        response
            .insert_header((ACCESS_CONTROL_ALLOW_METHODS, methods.join(", ")))
            .insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE_S))
            .insert_header((VARY, PREFLIGHT_VARIES));
        let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(wanted) = wanted.filter(|wanted| wanted.len() <= HEADERS_MAX_BYTES) {
            // What protects is the key, whatever the header.
            response.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
        }
        let mut response = response.finish();
        self.allow(origin, response.headers_mut());
        Some(response)
    }

    fn allow(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let allowed = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials && !self.any {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Says in an answer which page may read it.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        // What is kept for one site is not for another.
        if !self.any && !headers.get_all(VARY).any(|value| value == PREFLIGHT_VARIES) {
            headers.append(VARY, HeaderValue::from(header::ORIGIN));
        }
        if let Some(origin) = origin {
            self.allow(origin, headers);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Arc<Cors> {
        let origins: Vec<String> = origins.iter().map(|one| (*one).to_owned()).collect();
        Cors::new(Port::Query, &origins, credentials).unwrap()
    }

    fn asks(path: &str, origin: &str) -> ServiceRequest {
        TestRequest::with_uri(path)
            .method(Method::OPTIONS)
            .insert_header((ORIGIN, origin))
            .insert_header((ACCESS_CONTROL_REQUEST_METHOD, "POST"))
            .insert_header((ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type"))
            .to_srv_request()
    }

    #[test]
    fn a_site_is_let_in_by_its_whole_name() {
        assert!(Cors::new(Port::Query, &[], true).is_none());
        let cors = cors(&["https://app.example.com", "http://localhost:3000"], false);
        for (origin, expected) in [
            ("https://app.example.com", true),
            ("http://localhost:3000", true),
            ("http://app.example.com", false),
            ("https://app.example.com.evil.com", false),
            ("https://evil.com", false),
            ("http://localhost", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(cors.lets_in(origin), expected, "{origin}");
            assert_eq!(cors.origin(&asks("/a/predict", origin)).is_some(), expected, "{origin}");
        }
    }

    #[test]
    fn a_browser_that_asks_is_told_the_methods_of_the_endpoint() {
        let cors = cors(&["https://a.com"], true);
        let request = asks("/a/predict", "https://a.com");
        let origin = cors.origin(&request).unwrap();
        let answer = cors.preflight(&request, &origin).unwrap();
        let of = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(of(ACCESS_CONTROL_ALLOW_METHODS), Some("POST"));
        assert_eq!(of(ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://a.com"));
        assert_eq!(of(ACCESS_CONTROL_ALLOW_HEADERS), Some("authorization,content-type"));
        assert_eq!(of(ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        let pages = cors.preflight(&asks("/v2/models", "https://a.com"), &origin).unwrap();
        assert_eq!(pages.headers().get(ACCESS_CONTROL_ALLOW_METHODS).unwrap(), "GET");
        assert!(cors.preflight(&asks("/no/such/path", "https://a.com"), &origin).is_none());
        let plain = TestRequest::with_uri("/a/predict").method(Method::OPTIONS).to_srv_request();
        assert!(cors.preflight(&plain, &origin).is_none());
    }

    #[test]
    fn every_site_may_be_let_in_but_never_with_certificates() {
        let cors = cors(&["*"], true);
        let mut headers = HeaderMap::new();
        cors.mark(Some(&HeaderValue::from_static("https://a.com")), &mut headers);
        assert_eq!(headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "*");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        assert!(cors.lets_in("https://a.com") && !cors.takes_certificates_of("https://a.com"));
    }
}
