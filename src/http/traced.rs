//! Requests over HTTP with their traces, on their way to whoever answers them.

use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest};

use super::serve::shown;
use super::{accessed, request_id, trace_context};
use crate::actors::plane::data_plane::DataPlane;
use crate::traces::facts::Call;
use crate::traces::request::{OpenRequest, RequestTrace};

/// Begins the span of a request to this route, where spans are made and it is to be recorded.
pub(super) fn begin(request: &HttpRequest, plane: &DataPlane, route: &'static str) {
    let Some(traces) = &plane.traces else { return };
    let is_tls = request.app_config().secure();
    let call = || {
        let call = Call::http(request.method().as_str(), route, request.path(), is_tls);
        (call, request_id::of(request))
    };
    let came = trace_context::of(request);
    let came = (came.as_ref(), shown::arrived(request));
    let open = OpenRequest::begin(traces, came, call);
    if let Some(open) = open {
        accessed::traced(request, open.trace().id());
        let mut extensions = request.extensions_mut();
        extensions.insert(open.trace().context().context().clone());
        extensions.insert(open);
    }
}

/// What a request's queries carry with them.
pub(super) fn trace(request: &HttpRequest) -> Option<Arc<RequestTrace>> {
    if let Some(open) = request.extensions().get::<OpenRequest>() {
        return Some(Arc::clone(open.trace()));
    }
    trace_context::of(request).map(|came| Arc::new(RequestTrace::passed_on(came)))
}
