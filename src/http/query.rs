//! The query frontend: `POST /{app}/predict` and `POST /{app}/update`, and the way to
//! [`super::v2`].

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_web::http::{Method, header};
use actix_web::web::{self, Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};

use super::accessed;
use super::answer;
use super::body::{self, Body};
use super::endpoint::{Verb, endpoint};
use super::errors::{self, ApiError, MODEL};
use super::events::{self, OfPredict};
use super::explaining::{self, Explaining};
use super::feedback;
use super::gate::Asker;
use super::limits::{self, QueryLimits};
use super::opening::{self, Opened};
use super::rendering;
use super::schema::rapidjson_phrase;
use super::serve::shown;
use super::traced;
use super::v2;
use super::v2::state::V2;
use crate::actors::apps::app::App;
use crate::actors::apps::inputs::{self, AppInputs};
use crate::actors::apps::messages::{
    AskFacts, Predict, QueryRefused, Recorded, RequestBody, Update,
};
use crate::actors::apps::prediction::{AppFacts, QueryAnswer};
use crate::actors::apps::router::{Route, Routes};
use crate::actors::apps::streaming::PredictStream;
use clipper_clock::{self as clock, Instant};
use clipper_domain::InputType;
use clipper_oip::Encoding;
use clipper_scheduling::budget::Held;
use clipper_scheduling::parse::{self, BodyError, PredictBody};
use clipper_scheduling::quota::Claim;
use clipper_scheduling::share::Class;

/// What an endpoint expects of an application with this input type.
fn schema(verb: Verb, input_type: InputType) -> String {
    let input = match input_type {
        InputType::Doubles => "[double]",
        InputType::Floats => "[float]",
        InputType::Integers => "[int]",
        InputType::Strings => "string",
        InputType::Bytes => "string (base64)",
        InputType::Tensors => "{name: array, nested or flat}",
    };
    match verb {
        Verb::Predict => format!(
            "\n  {{\n   \"input\" := {input},\n   \"input_batch\" := [{input}] (instead of input, \
             for several),\n   \"version\" := string (optional)\n  }}\n"
        ),
        Verb::Update => format!(
            "\n  {{\n   \"uid\" := int,\n   \"input\" := {input},\n   \"query_id\" := int \
             (instead of uid and input),\n   \"label\" := double | string | [double],\n   \
             \"loss\" := double (0 to 1, instead of label)\n  }}\n  or several: {{\"feedback\" \
             := [object of that form]}}\n"
        ),
    }
}

/// What the handlers of one worker share.
#[derive(Clone)]
struct QueryHandlers {
    routes: Routes,
    limits: QueryLimits,
    v2: V2,
}

/// Adds the query endpoints of one HTTP worker.
///
/// They are found by hand and not by route patterns: matching those would be a tenth of a cache
/// hit's cost.
pub fn configure(v2: V2) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        let (routes, limits) = (v2.routes.clone(), v2.limits.clone());
        app.app_data(web::Data::new(QueryHandlers { routes, limits, v2 }));
        app.default_service(web::to(dispatch));
    }
}

/// Where a request goes.
enum Routed {
    /// With what a header of the request says to the policy, and what the request counts against.
    To(Addr<App>, Verb, Option<String>, Claim),
    Refused(HttpResponse),
}

fn route(request: &HttpRequest, routes: &Routes) -> Routed {
    let refuse = |error: ApiError| Routed::Refused(error.error_response());
    let Some((app, verb)) = endpoint(request.path()) else {
        if request.path().starts_with("/admin/") {
            let there = "the server is managed at another port (http.management_addr, 1338 by \
                         default)";
            return refuse(ApiError::elsewhere(request.path(), there));
        }
        return refuse(ApiError::not_found(
            request.path(),
            "POST /{app}/predict, POST /{app}/update, GET /metrics, GET /livez, GET /readyz, \
             GET /v2 and POST /v2/models/{name}/infer (Open Inference Protocol)",
        ));
    };
    if request.method() != Method::POST {
        return Routed::Refused(errors::other_method(request.method(), "POST"));
    }
    let header = |name: &str| request.headers().get(name).map(header::HeaderValue::as_bytes);
    match routes.of(&app) {
        Route::To(found) => match limits::claim(request, routes, &app) {
            Ok(claim) => Routed::To(found, verb, routes.key(&app, header), claim),
            Err(error) => refuse(error),
        },
        Route::Unknown => refuse(ApiError::unknown_application(&app)),
        Route::Starting => refuse(ApiError::unavailable("The server is starting")),
    }
}

async fn dispatch(
    request: HttpRequest,
    payload: Payload,
    frontend: web::Data<QueryHandlers>,
) -> Result<HttpResponse, ApiError> {
    // What is not a usual prediction is boxed: the largest of these futures would be moved about
    // and allocated for each request.
    if v2::owns(request.path()) {
        return Ok(Box::pin(v2::serve(&request, payload, &frontend.v2)).await);
    }
    let (app, verb, key, mut claim) = match route(&request, &frontend.routes) {
        Routed::To(app, verb, key, claim) => (app, verb, key, claim),
        Routed::Refused(refusal) => {
            Box::pin(body::skip(&request, payload, &frontend.limits.bodies)).await;
            return Ok(refusal);
        }
    };
    if matches!(verb, Verb::Predict) {
        traced::begin(&request, &frontend.limits.plane, "/{app}/predict");
    }
    let body = body::read_within(&request, payload, &frontend.limits.bodies, &mut claim).await?;
    match verb {
        Verb::Predict if events::are_wanted(request.headers().get(header::ACCEPT)) => {
            Box::pin(predict_stream(&request, &app, (body, claim), &frontend.limits)).await
        }
        Verb::Predict => {
            let (explaining, arrived) = (Explaining::of(&request), shown::arrived(&request));
            predict(&app, (body, key, claim), (explaining, arrived), &frontend.limits).await
        }
        Verb::Update => {
            // One message counts as one query.
            claim.admit(1, clock::now()).map_err(ApiError::from)?;
            Box::pin(update(&app, (body, claim), &frontend.limits)).await
        }
    }
}

fn restarting<E>(_: E) -> ApiError {
    ApiError::unavailable("The application's actor is being restarted")
}

/// A body as the application's actor takes it.
struct Prepared<T> {
    body: RequestBody<T>,
    /// The text, where it has not been parsed yet: a refusal reads it again.
    text: Bytes,
    /// Its part of the sum of all bodies, until the request is answered: what was made of it lives
    /// as long.
    _held: Option<Held>,
}

/// How long after its arrival a body is of use.
type Patience = fn(&QueryLimits, &AppFacts) -> Duration;

/// As long as its answer may take.
fn of_prediction(limits: &QueryLimits, app: &AppFacts) -> Duration {
    limits.due_within(app.spec.latency_slo.as_duration())
}

/// As long as any request.
fn of_feedback(limits: &QueryLimits, _: &AppFacts) -> Duration {
    limits.bodies.request
}

/// A body, how long it is of use, and what its request counts against.
type Arrival<'a> = (Body, Patience, &'a mut Claim);

/// A long body, or one that is compressed, is opened and parsed first, elsewhere, by what `parser`
/// makes.
async fn prepare<T: Send + 'static, P>(
    app: &Addr<App>,
    (mut body, patience, claim): Arrival<'_>,
    limits: &QueryLimits,
    parser: impl FnOnce() -> P,
) -> Result<Prepared<T>, ApiError>
where
    P: FnOnce(&[u8], &AppInputs) -> Result<T, ApiError> + Send + 'static,
{
    if body.encoding() != Encoding::Identity || limits.parsing.is_long(body.size()) {
        return Box::pin(parsed(app, (body, patience, claim), limits, parser())).await;
    }
    let held = body.take_held();
    let text = body.join();
    Ok(Prepared { body: RequestBody::Text(text.clone()), text, _held: held })
}

/// What `parse` makes of a body, elsewhere. Refusals are put into words there too, since that reads
/// the body again.
async fn parsed<T: Send + 'static>(
    app: &Addr<App>,
    (body, patience, claim): Arrival<'_>,
    limits: &QueryLimits,
    parse: impl FnOnce(&[u8], &AppInputs) -> Result<T, ApiError> + Send + 'static,
) -> Result<Prepared<T>, ApiError> {
    let arrived = clock::now();
    let of = app.send(AskFacts).await.map_err(restarting)?;
    let facts = Arc::clone(&of.facts);
    let input_type = facts.spec.input_type;
    let deadline = arrived + patience(limits, &facts);
    let all = limits.bodies.clone();
    let then = move |Opened { text, held, .. }: Opened| {
        // Numbers may take more room than their text.
        let inputs = parse::input_bytes_max(&text, input_type);
        let mut held = held.unwrap_or_else(|| all.all.hold());
        if !held.resize(inputs.max(text.len())) {
            return Err(body::too_much_in_sum(&all));
        }
        let parsed = parse(&text, &of)?;
        drop(text);
        // Less is always granted.
        let _ = held.resize(inputs);
        Ok((parsed, held))
    };
    let within = (&limits.bodies, &limits.parsing);
    let made = opening::opened(body, claim, within, Some(deadline), then).await;
    let (parsed, held) = made.inspect_err(|_| facts.metrics.rejected())?;
    let body = RequestBody::Parsed(Box::new(parsed));
    Ok(Prepared { body, text: Bytes::new(), _held: Some(held) })
}

/// Reads the body of a predict request, where that takes long.
fn predict_parser(
    limits: &QueryLimits,
) -> impl FnOnce(&[u8], &AppInputs) -> Result<PredictBody, ApiError> + Send + use<> {
    let (inputs_max, plane) = (limits.inputs_max, Arc::clone(&limits.plane));
    move |text: &[u8], AppInputs { facts, linked }: &AppInputs| {
        let input_type = facts.spec.input_type;
        let mut parsed = inputs::predict_body(text, facts, linked, inputs_max)
            .map_err(|error| refusal(QueryRefused::Body(error, input_type), text))?;
        parsed.digests = parsed.inputs.iter().map(|input| plane.cache.digest(input)).collect();
        Ok(parsed)
    }
}

async fn predict_stream(
    request: &HttpRequest,
    app: &Addr<App>,
    (body, mut claim): (Body, Claim),
    limits: &QueryLimits,
) -> Result<HttpResponse, ApiError> {
    let arrived = shown::arrived(request);
    let explaining = Explaining::of(request);
    let arrival = (body, of_prediction as Patience, &mut claim);
    let Prepared { body, text, _held: held } =
        prepare(app, arrival, limits, || predict_parser(limits)).await?;
    let streaming = app
        .send(PredictStream {
            body,
            arrived,
            within: None,
            class: Class::Normal,
            claim,
            trace: traced::trace(request),
            explain: explaining.is_wanted,
            request_id: explaining.request_id,
        })
        .await
        .map_err(restarting)?
        .map_err(|refused| refusal(refused, &text))?;
    let model = streaming.answerer();
    let mut response = events::respond(request, streaming, OfPredict, None, held);
    explaining::name_model(&mut response, model.as_ref());
    Ok(response)
}

async fn predict(
    app: &Addr<App>,
    (body, key, mut claim): (Body, Option<String>, Claim),
    (explaining, arrived): (Explaining, Instant),
    limits: &QueryLimits,
) -> Result<HttpResponse, ApiError> {
    let bounds = &limits.answers;
    let arrival = (body, of_prediction as Patience, &mut claim);
    let Prepared { body, text, _held } =
        prepare(app, arrival, limits, || predict_parser(limits)).await?;
    let prediction = app
        .send(Predict {
            body,
            arrived,
            within: None,
            key,
            class: Class::Normal,
            claim,
            explain: explaining.is_wanted,
            request_id: explaining.request_id,
            trace: explaining.trace,
        })
        .await
        .map_err(restarting)?
        .map_err(|refused| refusal(refused, &text))?;
    let answers = prediction.answers().await;
    let mut answers = answers.map_err(|excess| answer::too_much(excess, None, bounds))?;
    let (model, ended) = (answers.model.take(), accessed::ended(&answers.answers));
    let mut response = if let [QueryAnswer::Error(why)] = answers.answers.as_slice() {
        ApiError::new(MODEL, &**why).error_response()
    } else {
        answer::respond(rendering::rendered(answers, &limits.parsing).await?, bounds)?
    };
    accessed::note(&mut response, ended);
    explaining::name_model(&mut response, model.as_ref());
    Ok(response)
}

/// A prediction that another frontend was asked for.
///
/// # Errors
/// It is refused.
pub(super) async fn predict_for(
    v2: &V2,
    app: &str,
    (body, explaining): (Body, Explaining),
    asker: Asker,
) -> Result<HttpResponse, ApiError> {
    let found = match v2.routes.of(app) {
        Route::To(found) => found,
        Route::Unknown => return Err(ApiError::unknown_application(app)),
        Route::Starting => return Err(ApiError::unavailable("The server is starting")),
    };
    let mut claim = limits::claim_of(asker, &v2.routes, app)?;
    claim.grow(body.size()).map_err(ApiError::from)?;
    predict(&found, (body, None, claim), (explaining, clock::now()), &v2.limits).await
}

async fn update(
    app: &Addr<App>,
    (body, mut claim): (Body, Claim),
    limits: &QueryLimits,
) -> Result<HttpResponse, ApiError> {
    let inputs_max = limits.inputs_max;
    let parser = || {
        move |text: &[u8], AppInputs { facts, linked }: &AppInputs| {
            // The original refuses feedback in plain text.
            let input_type = facts.spec.input_type;
            match inputs::update_body(text, facts, linked, inputs_max) {
                Err(error @ BodyError::TooManyInputs(_)) => {
                    Err(refusal(QueryRefused::Body(error, input_type), text))
                }
                Err(error) => Ok(Err(cause(&error, text, &schema(Verb::Update, input_type)))),
                Ok(parsed) => Ok(Ok(parsed)),
            }
        }
    };
    let refuse = |text: String| {
        Ok(HttpResponse::BadRequest()
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body(text))
    };
    let Prepared { body, text, _held } =
        prepare(app, (body, of_feedback as Patience, &mut claim), limits, parser).await?;
    let body = match body {
        RequestBody::Text(text) => RequestBody::Text(text),
        RequestBody::Parsed(parsed) => match *parsed {
            Ok(parsed) => RequestBody::Parsed(Box::new(parsed)),
            Err(text) => return refuse(text),
        },
    };
    match app.send(Update { body }).await.map_err(restarting)? {
        Ok(Recorded { kept, taken }) => {
            let restarted = |_| ApiError::unavailable("The owner of feedback is being restarted");
            kept.await.map_err(restarted)?;
            if let Some(taken) = taken {
                return Ok(feedback::respond(&taken));
            }
            Ok(HttpResponse::Ok()
                .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
                .body("Feedback received? 1"))
        }
        Err(refused @ QueryRefused::Body(BodyError::TooManyInputs(_), _)) => {
            Err(refusal(refused, &text))
        }
        Err(QueryRefused::Body(error, input_type)) => {
            refuse(cause(&error, &text, &schema(Verb::Update, input_type)))
        }
        Err(QueryRefused::Label(expected)) => {
            refuse(format!("label: it must be {expected}: the outputs of the models are that"))
        }
        Err(refused) => Err(refusal(refused, &text)),
    }
}

fn refusal(refused: QueryRefused, body: &[u8]) -> ApiError {
    match refused {
        QueryRefused::Body(BodyError::TooManyInputs(max), _) => ApiError::new(
            errors::TOO_LARGE,
            format!("More than {max} inputs in one request (serving.request_inputs_max)"),
        ),
        QueryRefused::Body(error, input_type) => {
            ApiError::json(cause(&error, body, &schema(Verb::Predict, input_type)))
        }
        QueryRefused::Version(text) => ApiError::query(text),
        QueryRefused::Busy => {
            ApiError::too_many("Too many queries are being answered (serving.inflight_queries_max)")
        }
        QueryRefused::Limited(exceeded) => (*exceeded).into(),
        QueryRefused::NotStreamed(why) => ApiError::query(why),
        QueryRefused::Label(expected) => ApiError::query(format!("label: it must be {expected}")),
        QueryRefused::FeedbackFull => {
            ApiError::too_many("Too much feedback waits to be kept (serving.feedback_queue_max)")
        }
    }
}

fn cause(error: &BodyError, body: &[u8], schema: &str) -> String {
    let what = match error {
        BodyError::NotAnObject(found) => {
            format!("Type mismatch! The body expected type Object but found type {found}")
        }
        BodyError::Syntax(error) => {
            format!("JSON parse error: {}\n", rapidjson_phrase(error, body))
        }
        BodyError::Semantic(text) => text.clone(),
        BodyError::TooManyInputs(max) => format!("more than {max} inputs"),
    };
    format!("Error parsing JSON: {what}. Expected JSON schema: {schema}")
}
