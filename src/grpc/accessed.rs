//! The access log's lines of calls.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use clipper_clock::{self as clock, Instant};
use clipper_grpc::{Call, Code, Reply};

use super::refusal::Refusal;
use crate::access::table::Port;
use crate::actors::apps::prediction::QueryAnswer;
use crate::actors::apps::streaming::StreamEnd;
use crate::http::{accessed, trace_context};
use crate::logging::access::{AccessLog, Ended, Line, log};
use clipper_domain::{AccessKey, RequestId, TraceId};

/// A call that will have a line, perhaps. It is written when this is dropped.
pub(super) struct CallLine {
    log: &'static AccessLog,
    began: Instant,
    line: Line,
    noted: Rc<RefCell<Facts>>,
    has_ended: bool,
}

/// What its messages say, and what comes of them.
#[derive(Debug, Default)]
struct Facts {
    app: Option<String>,
    trace: Option<TraceId>,
    bytes_in: u64,
    ended: Option<Ended>,
}

/// Where whoever answers a call notes that, if anybody wants to know. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    facts: Option<Rc<RefCell<Facts>>>,
    /// Why it is answered no longer; only of calls that may go on for long.
    refused: Option<Rc<OnceCell<Arc<str>>>>,
}

impl Noted {
    fn note(&self, note: impl FnOnce(&mut Facts)) {
        if let Some(facts) = &self.facts {
            note(&mut facts.borrow_mut());
        }
    }

    /// The same of a call that ends with its key.
    pub(super) fn ending_with_key(self) -> Self {
        Self { refused: Some(Rc::default()), ..self }
    }

    /// Its key is no good any more: whatever is still answered will be dropped.
    pub(super) fn refused(&self, why: &str) {
        if let Some(refused) = &self.refused {
            // Only the first one ends it.
            let _ = refused.set(why.into());
        }
    }

    /// How an answer in pieces has ended that is dropped before its end; `None`: its client gave
    /// it up.
    pub(super) fn dropped(&self) -> Option<StreamEnd> {
        let why = self.refused.as_ref()?.get()?;
        Some(StreamEnd::Unauthorized(Arc::clone(why)))
    }

    /// So many bytes of a message have come.
    pub(super) fn received(&self, bytes: usize) {
        self.note(|facts| facts.bytes_in += bytes as u64);
    }

    /// The application or model that a message names; of a stream the first one counts.
    pub(super) fn app(&self, name: &str) {
        self.note(|facts| {
            if facts.app.is_none() && !name.is_empty() {
                facts.app = Some(name.to_owned());
            }
        });
    }

    /// The trace that begins with it, or goes on.
    pub(super) fn trace(&self, id: TraceId) {
        self.note(|facts| facts.trace = facts.trace.or(Some(id)));
    }

    /// What came of a message.
    pub(super) fn answered(&self, answers: &[QueryAnswer]) {
        self.note(|facts| facts.add(accessed::ended(answers)));
    }

    /// How an answer in pieces has ended.
    pub(super) fn streamed(&self, end: &StreamEnd) {
        self.note(|facts| facts.add(Some(accessed::of_stream(end))));
    }
}

impl Facts {
    fn add(&mut self, ended: Option<Ended>) {
        if let Some(ended) = ended {
            self.ended.get_or_insert_default().add(ended);
        }
    }
}

impl CallLine {
    /// Notes what a call says of itself, if anybody wants to know.
    pub(super) fn of(call: &Call, from: IpAddr, id: Option<&RequestId>) -> Option<Self> {
        let log = log()?;
        let metadata = &call.metadata;
        let forwarded = || {
            let values = metadata.get_all("x-forwarded-for").iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_ref()));
            values.collect::<Vec<Cow<'_, str>>>().join(",")
        };
        let line = Line {
            port: Port::Grpc.name(),
            address: Some(log.client(from, forwarded)),
            method: "POST".to_owned(),
            path: call.path.clone(),
            status: Some(200),
            grpc_status: Some(Code::Ok.name()),
            bytes_out: Some(0),
            request_id: id.map(ToString::to_string),
            ..Line::default()
        };
        let trace = trace_context::of_metadata(metadata).map(|trace| trace.parent.trace);
        let noted = Rc::new(RefCell::new(Facts { trace, ..Facts::default() }));
        Some(Self { log, began: call.arrived, line, noted, has_ended: false })
    }

    /// Where more of it is noted.
    pub(super) fn noted(line: Option<&Self>) -> Noted {
        Noted { facts: line.map(|line| Rc::clone(&line.noted)), refused: None }
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
        (self.line.is_cut, self.has_ended) = (is_cut, true);
    }
}

/// The reply to a call, while somebody writes it. Whatever ends that, the line of the call says how
/// many bytes of messages have gone.
pub(super) struct Counted<'c> {
    pub(super) reply: &'c mut Reply,
    pub(super) line: &'c mut Option<CallLine>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line {
            line.line.bytes_out = Some(self.reply.sent_bytes());
        }
    }
}

impl Drop for CallLine {
    fn drop(&mut self) {
        let Self { log, began, line, noted, has_ended } = self;
        if !*has_ended {
            line.is_cut = true;
            line.grpc_status = Some(Code::Cancelled.name());
        }
        let Facts { app, trace, bytes_in, ended } = std::mem::take(&mut *noted.borrow_mut());
        line.app = app;
        line.trace_id = trace.map(|trace| trace.to_string());
        line.bytes_in = Some(bytes_in);
        line.is_gone = line.is_cut && ended.is_none();
        line.ended = ended;
        line.duration = clock::now().saturating_duration_since(*began);
        log.add(line);
    }
}
