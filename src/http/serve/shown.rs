//! What is known of the connection of a request, whatever it speaks.

use std::rc::Rc;

use actix_web::{HttpMessage as _, HttpRequest};

use super::connection::Connection;
use super::receive_time::ReceiveTime;
use clipper_clock::{self as clock, Instant};
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

/// When the last of a request had come, asked when it has been read.
#[must_use]
pub fn arrived(request: &HttpRequest) -> Instant {
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        return connection.receive_time().last();
    }
    request.extensions().get::<ReceiveTime>().map_or_else(clock::now, ReceiveTime::last)
}
