//! The two pages, on each frontend, and the files of the second.

use std::sync::OnceLock;

use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};

use super::document::document;
use crate::access::table::Port;
use crate::http::errors::other_method;
use crate::http::management::page;

const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
/// The files of the page.
const FILES: [&str; 4] = ["docs.js", "dom.js", "style.css", "icon.svg"];

const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The answer to a request for one of them; `None`: it is for something else.
fn respond(request: &HttpRequest, port: Port) -> Option<HttpResponse> {
    let path = request.path();
    let file = match path.strip_prefix(DOCS) {
        Some("") => "docs.html",
        Some(file) => FILES.into_iter().find(|name| file.strip_prefix('/') == Some(name))?,
        None if path == OPENAPI => "",
        None => return None,
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Some(other_method(request.method(), ALLOW));
    }
    if !file.is_empty() {
        return page::respond(request, file);
    }
    let mut response = HttpResponse::Ok();
    response
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Content-Type-Options", "nosniff"));
    Some(response.body(text(port)))
}

/// Made once.
fn text(port: Port) -> Bytes {
    static QUERY: OnceLock<Bytes> = OnceLock::new();
    static MANAGEMENT: OnceLock<Bytes> = OnceLock::new();
    let made = if port == Port::Query { &QUERY } else { &MANAGEMENT };
    made.get_or_init(|| document(port).to_string().into()).clone()
}

/// Adds them to a frontend whose endpoints are routes.
pub fn configure(port: Port) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        let files = FILES.map(|file| format!("{DOCS}/{file}"));
        for path in [OPENAPI.to_owned(), DOCS.to_owned()].into_iter().chain(files) {
            let handler = move |request: HttpRequest| async move {
                respond(&request, port).unwrap_or_else(|| HttpResponse::NotFound().finish())
            };
            config.service(web::resource(path).route(web::to(handler)));
        }
    }
}
