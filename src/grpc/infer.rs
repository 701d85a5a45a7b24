//! `ModelInfer`, and the part of `ModelStreamInfer` that is the same.

use bytes::Bytes;
use clipper_clock::Instant;
use clipper_grpc::{Status, framed};
use clipper_oip::grpc::{ModelInferResponse, ModelStreamInferResponse, ParameterChoice, Request};
use clipper_scheduling::budget::Held;

use super::accessed::Noted;
use super::reader::{Context, Message};
use super::refusal::Refusal;
use super::said::Said;
use super::service::Service;
use super::traced;
use crate::http::body::Body;
use crate::http::limits;
use crate::http::v2::answer::{self, Told};
use crate::http::v2::arrival::{self, Asked};
use crate::http::v2::ask::{self, Meant};
use crate::http::v2::target::Target;
use crate::http::v2::{errors, target, tensors};

/// Tells a client that no more answers to its request will come.
const FINAL: &str = "triton_final_response";

/// What is to be answered, and what its request holds until then.
pub(super) struct InferAnswer {
    pub(super) told: Told,
    pub(super) asked: Asked,
}

/// A request that has been read.
pub(super) struct Read {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) target: Target,
    pub(super) asked: Asked,
    pub(super) arrived: Instant,
    /// Whether an answer in pieces has a last message that says that it was the last.
    pub(super) wants_empty_final: bool,
    /// Where what comes of it is noted.
    pub(super) noted: Noted,
}

impl Service {
    /// The frame of the answer and what it holds of the sum of all answers, or why there is none;
    /// and what is said beside it.
    pub(super) async fn infer(
        &self,
        message: Message,
        mut context: Context,
    ) -> (Said, Result<(Bytes, Option<Held>), Refusal>) {
        let mut said = Said::default();
        let open = traced::begin(&self.v2.plane, &mut context, "ModelInfer");
        let answered = async {
            let read = self.read(message, context, &mut String::new()).await?;
            let InferAnswer { told, asked: _asked } = self.ask(read).await?;
            said = Said::of(&told);
            answer::written(told, self.limits(), unary_frame, Bytes::len).await
        };
        let answered = answered.await;
        match &answered {
            Ok(_) => traced::end(open, &Status::ok()),
            Err(refusal) => traced::end(open, &refusal.status),
        }
        (said, answered)
    }

    /// What the models say.
    pub(super) async fn ask(&self, read: Read) -> Result<InferAnswer, Refusal> {
        let Read { name, version, target, mut asked, arrived, noted, .. } = read;
        let meant = Meant { name: &name, version: version.as_deref(), target: &target };
        let told = ask::ask(&self.v2, &meant, &mut asked, arrived).await?;
        noted.answered(&told.answers);
        Ok(InferAnswer { told, asked })
    }

    /// What a message asks for; `id` becomes that of the request, for the answer of one that fails.
    pub(super) async fn read(
        &self,
        message: Message,
        context: Context,
        id: &mut String,
    ) -> Result<Read, Refusal> {
        let Message { bytes, held, mut claim } = message;
        let head = Request::read(&bytes).map_err(|error| errors::refused(&error))?;
        head.id().clone_into(id);
        let name = head.model_name.to_owned();
        let version = (!head.model_version.is_empty()).then(|| head.model_version.to_owned());
        let wants_empty_final = head.wants_empty_final;
        drop(head);
        let arrived = context.arrived();
        let noted = context.noted;
        noted.app(&name);
        self.check_name(&name)?;
        let v2 = &self.v2;
        limits::claim_for(&mut claim, &v2.routes, &name, bytes.len())?;
        let target = target::find(&v2.view.read(), &name, version.as_deref())?;
        let (input_type, rows_max) = (target.input_type, v2.limits.inputs_max);
        let signature = tensors::wanted(&v2.plane, &target, &name)?;
        let parse = move |message: &[u8]| match &signature {
            Some(signature) => Request::read(message)?.infer_tensors(signature, rows_max),
            None => Request::read(message)?.infer(input_type, rows_max),
        };
        let body = Body::of(bytes, held);
        let due = target.due(v2, arrived);
        let due = context.deadline.map_or(due, |deadline| deadline.min(due));
        let read = arrival::parsed((body, claim), due, &v2.limits, parse).await;
        let mut asked = ask::counted(read, v2, &target)?;
        if let Some(deadline) = context.deadline {
            let left = deadline.saturating_duration_since(arrived);
            let within = &mut asked.infer.timeout;
            *within = Some(within.map_or(left, |within| within.min(left)));
        }
        let key = |header: &str| context.metadata.get(header).map(AsRef::as_ref);
        asked.key = v2.routes.key(&name, key);
        asked.explaining = context.explaining;
        Ok(Read { name, version, target, asked, arrived, wants_empty_final, noted })
    }
}

/// The answer's message; a default output is no prediction unless it was asked for.
pub(super) fn response(told: &Told, max_bytes: usize) -> Result<ModelInferResponse, Refusal> {
    if let Some(form) = &told.tensors {
        let rows = tensors::rows(told)?;
        let answer = tensors::answer(told, form, &rows);
        return Ok(answer.message(max_bytes).map_err(errors::not_written)?);
    }
    let rows = told.rows()?;
    Ok(told.answer(&rows).message(max_bytes).map_err(errors::not_written)?)
}

fn unary_frame(told: &Told, max_bytes: usize) -> Result<Bytes, Refusal> {
    Ok(framed(&response(told, max_bytes)?))
}

/// A message of `ModelStreamInfer`. `is_final`: no other message answers the same request.
pub(super) fn of_stream(
    mut response: ModelInferResponse,
    error_message: String,
    is_final: bool,
) -> Bytes {
    response.parameters.insert(FINAL.to_owned(), ParameterChoice::Bool(is_final).into());
    framed(&ModelStreamInferResponse { error_message, infer_response: Some(response) })
}
