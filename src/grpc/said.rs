//! What is said of an answer beside it: the id of its request, the model that has answered, and
//! why it is so. Over HTTP headers do that; here the headers of a call, or its trailers, and in a
//! stream of answers a parameter of each.

use clipper_grpc::http::{HeaderName, HeaderValue};
use clipper_grpc::{HeaderMap, Reply};
use clipper_oip::grpc::{ModelInferResponse, ParameterChoice};

use crate::actors::apps::traced::Answerer;
use crate::http::explaining::{EXPLAIN_HEADER, Explaining, MODEL_HEADER, in_a_header, is_yes};
use crate::http::v2::answer::Told;
use clipper_domain::RequestId;
use clipper_domain::asker::REQUEST_ID_HEADER;
use clipper_domain::explain::ExplainedQuery;

/// The parameter of an answer in a stream that says why it is so.
const PARAMETER: &str = "clipper_explain";

/// What a call wants to know, and how it is called.
pub(super) fn asked(metadata: &HeaderMap) -> Explaining {
    let header = |name: &str| metadata.get(name).map(HeaderValue::as_bytes);
    let given = header(REQUEST_ID_HEADER).filter(|given| RequestId::may_be(given));
    let request_id = given.map_or_else(
        || RequestId::Made(rand::random()),
        |given| RequestId::Given(String::from_utf8_lossy(given).into()),
    );
    let is_wanted = header(EXPLAIN_HEADER).is_some_and(is_yes);
    // The trace is found where its span begins.
    Explaining { is_wanted, request_id: Some(request_id), trace: None }
}

fn say(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.say(HeaderName::from_static(name), value);
    }
}

/// Says how a call is called.
pub(super) fn name(reply: &mut Reply, id: Option<&RequestId>) {
    match id {
        Some(RequestId::Given(id)) => say(reply, REQUEST_ID_HEADER, id),
        Some(RequestId::Made(number)) => {
            if let Ok(value) = HeaderValue::from_bytes(&RequestId::digits(*number)) {
                reply.say(HeaderName::from_static(REQUEST_ID_HEADER), value);
            }
        }
        None => {}
    }
}

/// What is known of an answer that is on its way, or of one that was refused.
#[derive(Debug, Default)]
pub(super) struct Said {
    model: Option<Answerer>,
    explained: Option<String>,
}

impl Said {
    pub(super) fn of(told: &Told) -> Self {
        Self { model: told.model.clone(), explained: in_a_header(told.explained.first()) }
    }

    /// Puts it into the headers of the answer, or into its trailers.
    pub(super) fn put(&self, reply: &mut Reply) {
        if let Some(model) = &self.model {
            say(reply, MODEL_HEADER, model.shown());
        }
        if let Some(explained) = &self.explained {
            say(reply, EXPLAIN_HEADER, explained);
        }
    }

    /// Puts into one of several answers why it is so.
    pub(super) fn put_in(&self, response: &mut ModelInferResponse) {
        if let Some(explained) = &self.explained {
            let text = ParameterChoice::Text(explained.clone());
            response.parameters.insert(PARAMETER.to_owned(), text.into());
        }
    }
}

/// [`Said::put_in`] what the end of an answer in pieces says.
pub(super) fn put_in(explained: Option<&ExplainedQuery>, response: &mut ModelInferResponse) {
    Said { model: None, explained: in_a_header(explained) }.put_in(response);
}
