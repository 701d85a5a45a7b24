//! The access log's lines of calls.

use std::borrow::Cow;
use std::net::IpAddr;

use clipper_clock::{self as clock, Instant};
use clipper_grpc::{Call, Code, HeaderMap};

use super::refusal::Refusal;
use super::traced;
use crate::access::table::Port;
use crate::logging::access::{AccessLog, Line, log};
use clipper_domain::AccessKey;

/// A longer id of a client is left out.
const ID_MAX_BYTES: usize = 128;

/// A call that will have a line, perhaps.
pub(super) struct CallLine {
    log: &'static AccessLog,
    began: Instant,
    line: Line,
}

fn text<'m>(metadata: &'m HeaderMap, name: &str) -> Option<&'m str> {
    let value = metadata.get(name)?.to_str().ok()?;
    let is_good = (1..=ID_MAX_BYTES).contains(&value.len());
    (is_good && value.bytes().all(|byte| byte.is_ascii_graphic())).then_some(value)
}

impl CallLine {
    /// Notes what a call says of itself, if anybody wants to know.
    pub(super) fn of(call: &Call, from: IpAddr) -> Option<Self> {
        let log = log()?;
        let metadata = &call.metadata;
        let forwarded = || {
            let values = metadata.get_all("x-forwarded-for").iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_ref()));
            values.collect::<Vec<Cow<'_, str>>>().join(",")
        };
        let trace = traced::of_metadata(metadata);
        let line = Line {
            port: Port::Grpc.name(),
            address: Some(log.client(from, forwarded)),
            method: "POST".to_owned(),
            path: call.path.clone(),
            status: 200,
            grpc_status: Some(Code::Ok.name()),
            request_id: text(metadata, "x-request-id").map(str::to_owned),
            trace_id: trace.map(|trace| trace.parent.trace.to_string()),
            ..Line::default()
        };
        Some(Self { log, began: call.arrived, line })
    }

    /// Whose call it is.
    pub(super) fn is_of(&mut self, key: &AccessKey) {
        self.line.key = Some(key.name.to_string());
    }

    /// Why it is not answered.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.line.grpc_status = Some(refusal.status.code.name());
        self.line.error = refusal.label;
    }

    /// It has ended; `is_cut`: its client did not wait for that.
    pub(super) fn end(mut self, is_cut: bool) {
        self.line.duration = clock::now().saturating_duration_since(self.began);
        self.line.is_cut = is_cut;
        self.log.add(&self.line);
    }
}
