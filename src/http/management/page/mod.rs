//! The dashboard's pages: plain ES modules and one stylesheet, in this binary as they are in this
//! folder. They tell nothing of the server; what they show they ask for as everybody does.

use std::io::Write as _;
use std::sync::OnceLock;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};

use super::operation::{PAGE_ALLOW, is_page_request};
use crate::http::errors::other_method;

/// Where the other files are.
const FOLDER: &str = "/dashboard/";

/// What the files of the descriptions begin with; those are served by both frontends.
const DOCS: &str = "docs.";

const INDEX: &str = "index.html";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing from elsewhere, nothing inline, and nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

const GUARDS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

macro_rules! files {
    ($($name:literal: $kind:expr),+ $(,)?) => {
        &[$(($name, $kind, include_bytes!($name))),+]
    };
}

const FILES: &[(&str, &str, &[u8])] = files![
    "index.html": HTML,
    "page.js": SCRIPT,
    "api.js": SCRIPT,
    "dom.js": SCRIPT,
    "charts.js": SCRIPT,
    "overview.js": SCRIPT,
    "application.js": SCRIPT,
    "explained.js": SCRIPT,
    "model.js": SCRIPT,
    "changes.js": SCRIPT,
    "predict.js": SCRIPT,
    "docs.html": HTML,
    "docs.js": SCRIPT,
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
];

/// A file as it goes over the wire.
struct PageFile {
    name: &'static str,
    kind: &'static str,
    plain: EncodedFile,
    gzip: EncodedFile,
}

struct EncodedFile {
    bytes: Bytes,
    etag: HeaderValue,
}

impl EncodedFile {
    fn new(bytes: Bytes) -> Self {
        let digest = digest(&SHA256, &bytes);
        let sum = digest.as_ref().get(..12).unwrap_or_default();
        let sum = base64::engine::general_purpose::STANDARD.encode(sum);
        let etag = HeaderValue::from_str(&format!("\"{sum}\""));
        Self { bytes, etag: etag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")) }
    }
}

/// Made once, when the first page is asked for.
fn files() -> &'static [PageFile] {
    static MADE: OnceLock<Vec<PageFile>> = OnceLock::new();
    MADE.get_or_init(|| {
        let make = |(name, kind, bytes): &(&'static str, &'static str, &'static [u8])| {
            let plain = Bytes::from_static(bytes);
            let gzip = compressed(bytes).map_or_else(|| plain.clone(), Bytes::from);
            PageFile { name, kind, plain: EncodedFile::new(plain), gzip: EncodedFile::new(gzip) }
        };
        FILES.iter().map(make).collect()
    })
}

fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// Adds the pages to the management frontend.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    for (name, ..) in FILES.iter().filter(|(name, ..)| !name.starts_with(DOCS)) {
        let name = *name;
        let path = if name == INDEX { "/".to_owned() } else { format!("{FOLDER}{name}") };
        let handler = move |request: HttpRequest| async move { serve(&request, name) };
        config.service(web::resource(path).route(web::to(handler)));
    }
}

/// A file by its name; `None`: there is none.
#[must_use]
pub fn respond(request: &HttpRequest, name: &str) -> Option<HttpResponse> {
    let file = files().iter().find(|file| file.name == name)?;
    Some(file.respond(request.method(), request.headers()))
}

fn serve(request: &HttpRequest, name: &str) -> HttpResponse {
    if !is_page_request(request) {
        return other_method(request.method(), PAGE_ALLOW);
    }
    respond(request, name).unwrap_or_else(|| HttpResponse::NotFound().finish())
}

impl PageFile {
    fn respond(&self, method: &Method, headers: &HeaderMap) -> HttpResponse {
        let is_gzip = takes_gzip(headers);
        let form = if is_gzip { &self.gzip } else { &self.plain };
        let is_known = headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|known| known.to_str().is_ok_and(|known| matches(known, &form.etag)));
        let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut response = HttpResponse::build(status);
        response
            .insert_header((header::ETAG, form.etag.clone()))
            .insert_header((header::VARY, "Accept-Encoding"))
            // Asked for each time, which a 304 answers.
            .insert_header((header::CACHE_CONTROL, "no-cache"));
        for (name, value) in GUARDS {
            let value = HeaderValue::from_static(value);
            response.insert_header((HeaderName::from_static(name), value));
        }
        if is_known {
            return response.finish();
        }
        response.content_type(self.kind);
        if is_gzip {
            response.insert_header((header::CONTENT_ENCODING, "gzip"));
        }
        if *method == Method::HEAD {
            response.no_chunking(form.bytes.len() as u64);
            return response.finish();
        }
        response.body(form.bytes.clone())
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let Some(Ok(accepted)) = headers.get(header::ACCEPT_ENCODING).map(HeaderValue::to_str) else {
        return false;
    };
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_none_or(|q| q.is_ok_and(|q| q > 0.0))
    })
}

fn matches(known: &str, etag: &HeaderValue) -> bool {
    let tags = known.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    tags.into_iter().any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn respond(headers: &[(&'static str, &str)]) -> HttpResponse {
        let mut request = TestRequest::get();
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        let request = request.to_http_request();
        files()[1].respond(&Method::GET, request.headers())
    }

    fn header(response: &HttpResponse, name: header::HeaderName) -> Option<String> {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_file_is_sent_once_and_compressed_where_that_is_taken() {
        let plain = respond(&[]);
        assert_eq!(plain.status(), StatusCode::OK);
        assert_eq!(header(&plain, header::CONTENT_ENCODING), None);
        let small = respond(&[("accept-encoding", "br, gzip;q=0.5")]);
        assert_eq!(header(&small, header::CONTENT_ENCODING).as_deref(), Some("gzip"));
        let etag = |response| header(response, header::ETAG).unwrap();
        assert_ne!(etag(&plain), etag(&small), "strong: each form has its own");
        for (accepted, known, status) in [
            ("", etag(&plain), 304),
            ("gzip", etag(&small), 304),
            ("gzip", format!("\"x\", W/{}", etag(&small)), 304),
            ("gzip", etag(&plain), 200),
            ("gzip;q=0", etag(&small), 200),
        ] {
            let again = respond(&[("accept-encoding", accepted), ("if-none-match", &known)]);
            assert_eq!(again.status().as_u16(), status, "{accepted} {known}");
            assert!(header(&again, header::CONTENT_SECURITY_POLICY).is_some());
        }
    }

    /// 300 KB is the most that a page with its data may take; its files take a part of that.
    #[test]
    fn all_files_are_small_and_hold_nothing_inline() {
        let all: usize = files().iter().map(|file| file.gzip.bytes.len()).sum();
        assert!(all < 100_000, "{all} bytes");
        for (name, _, bytes) in FILES {
            let text = std::str::from_utf8(bytes).unwrap();
            for inline in ["<script>", "<style", " style=\"", "onclick=", "innerHTML", "://cdn"] {
                assert!(!text.contains(inline), "{name} has {inline}");
            }
            let own = text.replace("http://www.w3.org/", "");
            let is_own = !own.contains("https://") && !own.contains("http://");
            assert!(is_own, "{name} names another site");
            assert!(text.lines().count() <= 500, "{name} has more than 500 lines");
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(100), "{name} has a line of {longest:?} columns");
        }
    }

    #[test]
    fn every_file_that_is_imported_is_here() {
        let there = |wanted: &str| FILES.iter().any(|(name, ..)| *name == wanted);
        for (name, kind, bytes) in FILES {
            if *kind != SCRIPT {
                continue;
            }
            let text = std::str::from_utf8(bytes).unwrap();
            let imported = text.split(" from \"./").skip(1).filter_map(|rest| rest.split_once('"'));
            for (wanted, _) in imported {
                assert!(there(wanted), "{name} imports {wanted}");
            }
        }
    }
}
