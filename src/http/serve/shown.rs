//! Certificates that the clients of requests have shown, whatever their connection speaks.

use std::rc::Rc;

use actix_web::{HttpMessage as _, HttpRequest};

use super::connection::Connection;
use clipper_domain::SecretHash;

/// By what a client of HTTP/2 is known that has shown a certificate, in its requests' extensions.
#[derive(Debug, Clone)]
pub(super) struct Certificates(pub(super) Rc<[SecretHash]>);

/// By what the client of a request is known that has shown a certificate.
#[must_use]
pub fn certificates(request: &HttpRequest) -> Option<Rc<[SecretHash]>> {
    let over_http2 = request.extensions().get::<Certificates>().map(|shown| Rc::clone(&shown.0));
    over_http2.or_else(|| request.conn_data::<Rc<Connection>>()?.certificates())
}
