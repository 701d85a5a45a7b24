//! An answer in pieces as server-sent events: an event for each piece, and a last one that says how
//! it ended.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;

use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::Value;
use smol_str::SmolStr;

use super::accessed::{self, Later};
use super::gate::{self, Holding};
use super::request_id;
use super::serve::connection::Connection;
use super::trace_context;
use crate::actors::apps::streaming::{StreamEnd, StreamStep, Streaming};
use crate::traces::request::OpenRequest;
use clipper_domain::UNAUTHORIZED;
use clipper_scheduling::output::Output;

/// Whether a request wants server-sent events.
#[must_use]
pub fn are_wanted(accept: Option<&header::HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|value| value.to_str().ok()) else { return false };
    accept.split(',').any(|wanted| {
        let kind = wanted.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/event-stream")
    })
}

/// How the steps of an answer are put into events.
pub trait EventForm: 'static {
    /// The data of a piece's event, a JSON value.
    fn piece(&self, output: &Output) -> String;

    /// The last event, if there is one: its name, if it has one, and its data.
    fn end(&self, streaming: &Streaming, end: &StreamEnd)
    -> Option<(Option<&'static str>, String)>;
}

/// The events of `streaming`, which `request` has asked for; `held` lives until the last one is on
/// its way.
pub fn respond<H: 'static>(
    request: &HttpRequest,
    streaming: Streaming,
    form: impl EventForm,
    first: Option<StreamStep>,
    held: H,
) -> HttpResponse {
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.streams();
    }
    let (holding, from) = (gate::holding(request), request.peer_addr().map(|peer| peer.ip()));
    let (request_id, later) = (request_id::of(request), accessed::later());
    let noted = later.clone();
    let open = trace_context::take(request);
    let state = Some(Events {
        streaming,
        form,
        first,
        holding,
        from,
        request_id,
        later,
        open,
        _held: held,
    });
    let events = stream::unfold(state, |state| async move {
        let mut events = state?;
        let (step, goes_on) = events.next().await?;
        let event = match &step {
            StreamStep::Piece(output) => event(None, &events.form.piece(output)),
            StreamStep::End(end) => {
                events.note(end);
                last(&events.form, &events.streaming, end)?
            }
        };
        Some((Ok::<_, Infallible>(event), goes_on.then_some(events)))
    });
    let mut response = HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        // Proxies that collect answers would make one of it.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events);
    if let Some(later) = noted {
        later.note(&mut response);
    }
    response
}

/// The rest of an answer.
struct Events<F, H> {
    streaming: Streaming,
    form: F,
    first: Option<StreamStep>,
    holding: Option<Rc<Holding>>,
    from: Option<IpAddr>,
    request_id: Option<SmolStr>,
    later: Option<Later>,
    /// Its span: that of a client that has gone, unless it ends otherwise.
    open: Option<OpenRequest>,
    _held: H,
}

impl<F, H> Events<F, H> {
    /// How it ended, for the access log and its span.
    fn note(&mut self, end: &StreamEnd) {
        if let Some(later) = &self.later {
            later.ended(end);
        }
        if let Some(open) = &mut self.open {
            open.answered(StatusCode::OK.as_u16());
            if let Some((outcome, why)) = end.failure() {
                open.broke_off(outcome, &why);
            }
        }
    }

    /// The next step, and whether others may follow. The answer ends with the key of who asked.
    async fn next(&mut self) -> Option<(StreamStep, bool)> {
        if let Some(first) = self.first.take() {
            return Some((first, true));
        }
        tokio::select! {
            biased;
            // Pieces may come without a pause.
            refused = gate::ended(self.holding.clone()) => {
                gate::tell(&refused, self.from, self.request_id.as_deref());
                let why = StreamEnd::Unauthorized(refused.to_string().into());
                Some((StreamStep::End(why), false))
            }
            step = self.streaming.next() => Some((step?, true)),
        }
    }
}

/// The last event, and one that explains the answer, if its client wants to know.
fn last(form: &impl EventForm, streaming: &Streaming, end: &StreamEnd) -> Option<Bytes> {
    let last = form.end(streaming, end).map(|(name, data)| event(name, &data));
    let explained = streaming.explained().and_then(|why| serde_json::to_string(why).ok());
    let explained = explained.map(|why| event(Some("explain"), &why));
    let events: Vec<Bytes> = last.into_iter().chain(explained).collect();
    (!events.is_empty()).then(|| events.concat().into())
}

/// One event. Each line of the data has a line of its own: JSON may have some between its values.
#[must_use]
pub fn event(name: Option<&str>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 32);
    if let Some(name) = name {
        text.push_str("event: ");
        text.push_str(name);
        text.push('\n');
    }
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

/// The events of `POST /{app}/predict`.
pub struct OfPredict;

impl EventForm for OfPredict {
    fn piece(&self, output: &Output) -> String {
        format!("{{\"output\":{}}}", json(output))
    }

    fn end(
        &self,
        streaming: &Streaming,
        end: &StreamEnd,
    ) -> Option<(Option<&'static str>, String)> {
        let (how, why) = described(end);
        let mut told = format!(
            "{{\"query_id\":{},\"end\":\"{how}\",\"pieces\":{}",
            streaming.query_id(),
            streaming.pieces()
        );
        if let StreamEnd::Default { output, .. } = end {
            told.push_str(",\"default\":true,\"output\":");
            told.push_str(json(output));
        }
        if let Some(why) = why {
            told.push_str(",\"reason\":");
            told.push_str(&Value::from(why).to_string());
        }
        told.push('}');
        Some((Some("end"), told))
    }
}

/// How an answer ended in one word, and why, in words.
#[must_use]
pub fn described(end: &StreamEnd) -> (&'static str, Option<String>) {
    match end {
        StreamEnd::Complete => ("complete", None),
        StreamEnd::Default { reason, .. } => ("default", Some(reason.to_string())),
        StreamEnd::Broken(reason) => ("broken", Some(reason.to_string())),
        StreamEnd::Error(why) => ("error", Some(why.to_string())),
        StreamEnd::Unauthorized(why) => (UNAUTHORIZED, Some(why.to_string())),
        StreamEnd::Cut => (
            "cut",
            Some("The answer had not ended within its time (serving.stream_max_ms)".to_owned()),
        ),
    }
}

/// An output is JSON.
#[must_use]
pub fn json(output: &Output) -> &str {
    std::str::from_utf8(output.json()).unwrap_or("null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn events_are_wanted_by_their_type_alone_or_among_others() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream; q=0.9", true),
            ("application/json", false),
            ("*/*", false),
            ("text/event-streams", false),
        ] {
            assert_eq!(are_wanted(Some(&HeaderValue::from_static(accept))), expected, "{accept}");
        }
        assert!(!are_wanted(None));
    }

    #[test]
    fn every_line_of_the_data_has_a_line_of_its_own() {
        assert_eq!(&event(None, "{\"output\":1}")[..], b"data: {\"output\":1}\n\n");
        let pretty = event(Some("end"), "{\n \"a\":\r1}");
        assert_eq!(&pretty[..], b"event: end\ndata: {\ndata:  \"a\":\ndata: 1}\n\n");
    }
}
