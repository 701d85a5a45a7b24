//! From a parsed request to what is to be answered, whatever protocol it came by.

use super::super::answer::too_much;
use super::super::errors::ApiError;
use super::answer::Told;
use super::arrival::Asked;
use super::errors;
use super::state::V2;
use super::target::{self, Target};
use crate::actors::apps::messages::{Predict, RequestBody};
use clipper_clock::Instant;
use clipper_scheduling::parse::PredictBody;
use clipper_scheduling::share::Class;

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meant<'r> {
    /// As the request says it.
    pub(crate) name: &'r str,
    pub(crate) version: Option<&'r str>,
    pub(crate) target: &'r Target,
}

/// What was read of a request; what could not be is counted by its application.
pub(crate) fn counted(
    read: Result<Asked, ApiError>,
    v2: &V2,
    target: &Target,
) -> Result<Asked, ApiError> {
    if read.is_err()
        && let Some((app, _)) = &target.app
    {
        v2.plane.metrics.app(app).rejected();
    }
    read
}

/// What the models say, within the application's objective. The inputs are taken out of `asked`,
/// which has to live until the answer has been sent.
pub(crate) async fn ask(
    v2: &V2,
    meant: &Meant<'_>,
    asked: &mut Asked,
    arrived: Instant,
) -> Result<Told, ApiError> {
    let Meant { name, version, target } = *meant;
    let app = target::actor(v2, name, target).await?;
    let infer = &mut asked.infer;
    let class = Class::of_priority(infer.priority);
    let inputs = std::mem::take(&mut infer.inputs);
    let digests = std::mem::take(&mut asked.digests);
    let of_version = version.map(str::to_owned);
    let (key, claim) = (asked.key.take(), std::mem::take(&mut asked.claim));
    let explaining = std::mem::take(&mut asked.explaining);
    let parsed = PredictBody { inputs, digests, version: of_version, uid: 0, key: None };
    let body = RequestBody::Parsed(Box::new(parsed));
    let prediction = app
        .send(Predict {
            body,
            arrived,
            within: infer.timeout,
            key,
            class,
            claim,
            explain: explaining.is_wanted,
            request_id: explaining.request_id,
            trace: explaining.trace,
        })
        .await
        .map_err(|_| ApiError::unavailable("The application's actor is being restarted"))?
        .map_err(|refused| errors::not_asked(&refused, name, version))?;
    let bounds = &v2.limits.answers;
    let answers = prediction.answers().await;
    let answers = answers.map_err(|excess| too_much(excess, None, bounds))?;
    Ok(Told {
        name: name.to_owned(),
        version: answered_by(target),
        id: infer.id.take(),
        takes_default: infer.takes_default,
        form: infer.output,
        tensors: infer.tensors.take(),
        answers: answers.answers,
        held: answers.held,
        model: answers.model,
        explained: answers.explained,
    })
}

/// As the metadata were when the request came; nothing where a policy chooses.
pub(crate) fn answered_by(target: &Target) -> Option<String> {
    target.version().map(|version| version.as_str().to_owned())
}
