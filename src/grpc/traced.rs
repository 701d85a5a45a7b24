//! Calls with their traces: those of the metadata `traceparent` and `tracestate`, or where spans
//! are made some that begin here.

use std::sync::Arc;

use clipper_grpc::Status;
use clipper_oip::grpc as messages;
use smol_str::format_smolstr;

use super::reader::Context;
use crate::actors::plane::data_plane::DataPlane;
use crate::http::trace_context;
use crate::traces::facts::Call;
use crate::traces::request::{OpenRequest, RequestTrace};

/// Begins the span of a request, where spans are made and it is to be recorded; from here on its
/// context has the trace that its queries carry with them.
pub(super) fn begin(
    plane: &DataPlane,
    context: &mut Context,
    method: &'static str,
) -> Option<OpenRequest> {
    let came = trace_context::of_metadata(&context.metadata);
    let id = context.explaining.request_id.as_ref();
    let call = || {
        let id = id.map(|id| format_smolstr!("{id}"));
        (Call::Grpc { service: messages::SERVICE, method }, id)
    };
    let traces = plane.traces.as_ref();
    let arrived = context.arrived();
    let open = traces.and_then(|traces| OpenRequest::begin(traces, (came.as_ref(), arrived), call));
    if let Some(open) = &open {
        context.noted.trace(open.trace().id());
    }
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
