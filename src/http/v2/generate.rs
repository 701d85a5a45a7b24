//! `POST /v2/models/{name}[/versions/{version}]/generate` and `generate_stream`: Triton's way to
//! ask for texts without tensors. The first answers with all of it, the second with an event for
//! each piece.

use std::time::Duration;

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use clipper_oip::{As, Fault, INPUT, Infer, InferError, OutputForm, text_bytes};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::accessed;
use super::super::answer::too_much;
use super::super::body;
use super::super::errors::{self as api, ApiError};
use super::super::events::{self, EventForm, described};
use super::super::explaining::{self, Explaining};
use super::super::limits;
use super::super::serve::shown;
use super::arrival::Asked;
use super::state::V2;
use super::{arrival, ask, errors, target};
use crate::actors::apps::messages::RequestBody;
use crate::actors::apps::streaming::{PredictStream, StreamEnd, StreamStep, Streaming};
use clipper_clock as clock;
use clipper_domain::InputType;
use clipper_scheduling::output::Output;
use clipper_scheduling::parse::{self, BodyError, PredictBody};
use clipper_scheduling::share::Class;
use clipper_scheduling::ticket::Excess;

const TEXT_INPUT: &str = "text_input";

/// What a body says; other members are parameters of other servers' models.
#[derive(Deserialize)]
struct Generate<'b> {
    id: Option<String>,
    #[serde(borrow)]
    text_input: Option<&'b RawValue>,
    #[serde(borrow)]
    input: Option<&'b RawValue>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    timeout: Option<u64>,
    priority: u64,
    default: bool,
}

fn read(body: &[u8], input_type: InputType) -> Result<Infer, InferError> {
    let json = |error: &dyn std::fmt::Display| Fault::Json(error.to_string());
    let body: Generate<'_> =
        serde_json::from_slice(body).map_err(|error| InferError::new("the body", json(&error)))?;
    let (field, value) = match (body.text_input, body.input) {
        (Some(text), None) => (TEXT_INPUT, text),
        (None, Some(input)) => (INPUT, input),
        (None, None) => return Err(InferError::new(TEXT_INPUT, Fault::Missing)),
        (Some(_), Some(_)) => return Err(InferError::new(INPUT, Fault::Twice)),
    };
    let text = format!("{{\"input\":{}}}", value.get());
    let parsed = parse::predict_body(text.as_bytes(), input_type, 1).map_err(|error| {
        let fault = match error {
            BodyError::Syntax(error) => json(&error),
            BodyError::Semantic(text) => Fault::Json(text),
            BodyError::NotAnObject(found) => Fault::Json(format!("it is {found}")),
            BodyError::TooManyInputs(max) => Fault::Json(format!("more than {max} inputs")),
        };
        InferError::new(field, fault)
    })?;
    let Parameters { timeout, priority, default } = body.parameters.unwrap_or_default();
    Ok(Infer {
        inputs: parsed.inputs,
        id: body.id,
        timeout: timeout.filter(|micros| *micros > 0).map(Duration::from_micros),
        priority,
        takes_default: default,
        output: OutputForm { binary: false, datatype: As::Texts },
        tensors: None,
    })
}

/// An answer, or a part of it.
#[derive(Serialize)]
struct Generated<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    text_output: &'a str,
}

/// Whose answer it is.
struct Of {
    id: Option<String>,
    name: String,
    version: Option<String>,
    takes_default: bool,
}

impl Of {
    fn told(&self, text_output: &str, default: bool) -> String {
        let told = Generated {
            id: self.id.as_deref(),
            model_name: &self.name,
            model_version: self.version.as_deref(),
            default,
            text_output,
        };
        serde_json::to_string(&told).unwrap_or_default()
    }
}

impl EventForm for Of {
    fn piece(&self, output: &Output) -> String {
        self.told(&text(output), false)
    }

    fn end(&self, _: &Streaming, end: &StreamEnd) -> Option<(Option<&'static str>, String)> {
        match end {
            StreamEnd::Complete => None,
            StreamEnd::Default { output, .. } if self.takes_default => {
                Some((None, self.told(&text(output), true)))
            }
            other => {
                let (_, why) = described(other);
                let why = why.unwrap_or_default();
                Some((None, serde_json::json!({ "error": why }).to_string()))
            }
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&text_bytes(output.json())).into_owned()
}

/// The answer of an application or a model, as it is generated.
pub(super) async fn generate_stream(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    (name, version): (&str, Option<&str>),
) -> Result<HttpResponse, ApiError> {
    let (mut streaming, of, asked) = begin(request, payload, v2, (name, version)).await?;
    // Without a piece there is an error to answer, with its status.
    let first = streaming.next().await;
    if let Some(StreamStep::End(end)) = &first
        && !end.is_answer(of.takes_default)
    {
        let ended = accessed::later().map(|_| accessed::of_stream(end));
        let mut response = about(errors::response(&failure(end)), &streaming);
        accessed::note(&mut response, ended);
        return Ok(response);
    }
    let model = streaming.answerer();
    let mut response = events::respond(request, streaming, of, first, asked);
    explaining::name_model(&mut response, model.as_ref());
    Ok(response)
}

/// Says in an answer which model was asked, and why it is so if its client wants to know.
fn about(mut response: HttpResponse, streaming: &Streaming) -> HttpResponse {
    explaining::name_model(&mut response, streaming.answerer().as_ref());
    explaining::tell(&mut response, streaming.explained());
    response
}

/// All of it.
pub(super) async fn generate(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    (name, version): (&str, Option<&str>),
) -> Result<HttpResponse, ApiError> {
    let (mut streaming, of, _asked) = begin(request, payload, v2, (name, version)).await?;
    let bounds = &v2.limits.answers;
    let (mut whole, mut held) = (String::new(), bounds.all.hold());
    let later = accessed::later();
    let mut is_default = false;
    while let Some(step) = streaming.next().await {
        if let (Some(later), StreamStep::End(end)) = (&later, &step) {
            later.ended(end);
        }
        match step {
            StreamStep::Piece(piece) => {
                let text = text(&piece);
                if whole.len() + text.len() > bounds.max_bytes {
                    return Err(too_much(Excess::OfOne, None, bounds));
                }
                if !held.grow(text.len()) {
                    return Err(too_much(Excess::InSum, None, bounds));
                }
                whole.push_str(&text);
            }
            StreamStep::End(StreamEnd::Default { output, .. }) if of.takes_default => {
                whole = text(&output);
                is_default = true;
            }
            StreamStep::End(end) if !end.is_answer(of.takes_default) => {
                let mut response = about(errors::response(&failure(&end)), &streaming);
                accessed::note(&mut response, later.and_then(|later| later.taken()));
                return Ok(response);
            }
            StreamStep::End(_) => {}
        }
    }
    let told = of.told(&whole, is_default);
    let response = HttpResponse::Ok().content_type("application/json").body(told);
    let mut response = about(response, &streaming);
    accessed::note(&mut response, later.and_then(|later| later.taken()));
    Ok(response)
}

/// Why there is no answer, or no more of it.
pub(crate) fn failure(end: &StreamEnd) -> ApiError {
    match end {
        StreamEnd::Default { reason, .. } | StreamEnd::Broken(reason) => {
            errors::no_prediction(0, 1, reason)
        }
        StreamEnd::Error(why) => errors::model_error(0, 1, why),
        StreamEnd::Unauthorized(why) => ApiError::new(api::UNAUTHORIZED, &**why),
        StreamEnd::Complete | StreamEnd::Cut => {
            let (_, why) = described(end);
            ApiError::new(api::NO_PREDICTION, why.unwrap_or_default())
        }
    }
}

async fn begin(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    (name, version): (&str, Option<&str>),
) -> Result<(Streaming, Of, Asked), ApiError> {
    let found = target::find(&v2.view.read(), name, version);
    let found = found.and_then(|target| Ok((target, limits::claim(request, &v2.routes, name)?)));
    let (target, mut claim) = match found {
        Ok(found) => found,
        Err(refusal) => {
            body::skip(request, payload, &v2.limits.bodies).await;
            return Err(refusal);
        }
    };
    let body = body::read_within(request, payload, &v2.limits.bodies, &mut claim).await?;
    let arrived = shown::arrived(request);
    let input_type = target.input_type;
    let parse = move |body: &[u8]| read(body, input_type);
    let due = target.due(v2, arrived);
    let parsed = arrival::parsed((body, claim), due, &v2.limits, parse).await;
    let mut asked = ask::counted(parsed, v2, &target)?;
    asked.explaining = Explaining::of(request);
    let meant = ask::Meant { name, version, target: &target };
    let streaming = stream(v2, &meant, &mut asked, arrived).await?;
    let of = Of {
        id: asked.infer.id.take(),
        name: name.to_owned(),
        version: ask::answered_by(&target),
        takes_default: asked.infer.takes_default,
    };
    Ok((streaming, of, asked))
}

/// The answer on its way. The input is taken out of `asked`, which has to live until then.
pub(crate) async fn stream(
    v2: &V2,
    meant: &ask::Meant<'_>,
    asked: &mut Asked,
    arrived: clock::Instant,
) -> Result<Streaming, ApiError> {
    let ask::Meant { name, version, target } = *meant;
    let app = target::actor(v2, name, target).await?;
    let inputs = std::mem::take(&mut asked.infer.inputs);
    let version_asked = version.map(str::to_owned);
    let parsed = PredictBody { inputs, version: version_asked, ..PredictBody::default() };
    let body = RequestBody::Parsed(Box::new(parsed));
    let class = Class::of_priority(asked.infer.priority);
    let claim = std::mem::take(&mut asked.claim);
    let Explaining { is_wanted: explain, request_id, trace } =
        std::mem::take(&mut asked.explaining);
    let within = asked.infer.timeout;
    app.send(PredictStream { body, arrived, within, class, claim, trace, explain, request_id })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?
        .map_err(|refused| errors::not_asked(&refused, name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, input_type: InputType) -> String {
        read(body.as_bytes(), input_type).unwrap_err().to_string()
    }

    #[test]
    fn the_input_is_a_text_or_what_the_model_takes() {
        let infer = read(br#"{"text_input": "a", "id": "7", "max_tokens": 5}"#, InputType::Strings);
        let infer = infer.unwrap();
        assert_eq!((infer.inputs.len(), infer.id.as_deref()), (1, Some("7")));
        assert_eq!(&infer.inputs[0].0[..], b"a");
        let body = br#"{"input": [1.5], "parameters": {"timeout": 2000, "default": true}}"#;
        let infer = read(body, InputType::Doubles).unwrap();
        assert_eq!(infer.timeout, Some(Duration::from_millis(2)));
        assert!(infer.takes_default && infer.inputs[0].0.len() == 8);
    }

    #[test]
    fn a_body_that_is_none_names_its_field() {
        for (body, input_type, field) in [
            ("{}", InputType::Strings, "text_input: it is missing"),
            ("[", InputType::Strings, "the body"),
            (r#"{"text_input": 1}"#, InputType::Strings, "text_input"),
            (r#"{"input": "x"}"#, InputType::Doubles, "input"),
            (r#"{"input": "x", "text_input": "x"}"#, InputType::Strings, "input"),
            (r#"{"text_input": "x", "parameters": 7}"#, InputType::Strings, "the body"),
        ] {
            let told = refused(body, input_type);
            assert!(told.starts_with(field), "{body}: {told}");
        }
    }
}
