//! `POST /v2/models/{name}[/versions/{version}]/infer`.

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};

use super::super::answer::too_much;
use super::super::body;
use super::super::errors::ApiError;
use super::answer::{self, Told};
use super::arrival::{self, Asked};
use super::errors;
use super::state::V2;
use super::target::{self, Target};
use crate::actors::apps::messages::{Predict, RequestBody};
use clipper_clock as clock;
use clipper_scheduling::parse::PredictBody;

/// Answers by what the models say, within the application's objective.
pub(super) async fn infer(
    request: &HttpRequest,
    payload: Payload,
    v2: &V2,
    name: &str,
    version: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let found = target::find(&v2.view.read(), name, version);
    let target = match found {
        Ok(target) => target,
        Err(refusal) => {
            body::skip(request, payload, &v2.limits.bodies).await;
            return Err(refusal);
        }
    };
    let body = body::read(request, payload, &v2.limits.bodies).await?;
    let arrived = clock::now();
    let read = arrival::read(request, body, target.input_type, &v2.limits).await;
    if read.is_err()
        && let Some((app, _)) = &target.app
    {
        v2.plane.metrics.app(app).rejected();
    }
    let Asked { infer, digests, .. } = &mut read?;
    let app = target::actor(v2, name, &target).await?;
    let inputs = std::mem::take(&mut infer.inputs);
    let digests = std::mem::take(digests);
    let of_version = version.map(str::to_owned);
    let parsed = PredictBody { inputs, digests, version: of_version, uid: 0 };
    let body = RequestBody::Parsed(Box::new(parsed));
    let prediction = app
        .send(Predict { body, arrived, within: infer.timeout })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?
        .map_err(|refused| errors::not_asked(&refused, name, version))?;
    let bounds = &v2.limits.answers;
    let answers = prediction.answers().await;
    let answers = answers.map_err(|excess| too_much(excess, None, bounds))?;
    let told = Told {
        name: name.to_owned(),
        version: answered_by(&target),
        id: infer.id.take(),
        takes_default: infer.takes_default,
        form: infer.output,
        answers: answers.answers,
        held: answers.held,
    };
    answer::respond(told, &v2.limits).await
}

/// As the metadata were when the request came; nothing where a policy chooses.
fn answered_by(target: &Target) -> Option<String> {
    target.version().map(|version| version.as_str().to_owned())
}
