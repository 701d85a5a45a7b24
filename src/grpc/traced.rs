//! Calls with their traces: those of the metadata `traceparent` and `tracestate`, or where spans
//! are made some that begin here.

use std::sync::Arc;

use clipper_domain::TraceContext;
use clipper_grpc::{HeaderMap, Status};
use clipper_oip::grpc as messages;

use super::reader::Context;
use crate::actors::plane::data_plane::DataPlane;
use crate::http::trace_context::{TRACE_PARENT, TRACE_STATE};
use crate::traces::facts::Call;
use crate::traces::request::{OpenRequest, RequestTrace};

/// What the metadata of a call say.
pub(super) fn of_metadata(metadata: &HeaderMap) -> Option<TraceContext> {
    metadata.get(TRACE_PARENT)?;
    let all = |name| metadata.get_all(name).into_iter().map(AsRef::as_ref);
    TraceContext::of(all(TRACE_PARENT), all(TRACE_STATE))
}

/// Begins the span of a request, where spans are made and it is to be recorded; from here on its
/// context has the trace that its queries carry with them.
pub(super) fn begin(
    plane: &DataPlane,
    context: &mut Context,
    method: &'static str,
) -> Option<OpenRequest> {
    let came = of_metadata(&context.metadata);
    let call = || Call::Grpc { service: messages::SERVICE, method };
    let traces = plane.traces.as_ref();
    let open = traces.and_then(|traces| OpenRequest::begin(traces, came.as_ref(), None, call));
    context.explaining.trace = match &open {
        Some(open) => Some(Arc::clone(open.trace())),
        None => came.map(|came| Arc::new(RequestTrace::passed_on(came))),
    };
    open
}

/// Ends it with the status of the answer.
pub(super) fn end(open: Option<OpenRequest>, status: &Status) {
    if let Some(mut open) = open {
        open.answered(status.code as u16);
    }
}
