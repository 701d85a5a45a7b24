//! `POST /admin/deploy_model`: starts, tries out, registers and links, telling how far it is.
//!
//! The answer is a line of JSON for each step ([`Progress`]), the last of which says what came of
//! it. A client that goes away ends what has not been registered by then.
//!
//! It starts programs, so that it takes care whom it listens to: `management.deploy` says whose
//! connections, a body has to call itself JSON, which a web page cannot have sent to another site
//! unasked, and what a browser has sent for a page is refused altogether.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::error::BlockingError;
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_TYPE, ORIGIN};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use futures_util::future::LocalBoxFuture;
use futures_util::{Stream, stream};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Interval;

use super::operation::{Failure, POST_ALLOW, resource, respond, tell_failure};
use super::{asked, names};
use crate::deploy::progress::{Failed, Progress};
use crate::deploy::{DeployRequest, Deployer, TrialInputs};
use crate::http::body::BodyLimits;
use crate::http::errors::{self, ApiError, other_method, shown};
use crate::http::gate::{self, Holding};
use crate::http::health::Readiness;
use crate::http::opening;
use crate::http::parsing::Parsing;
use clipper_config::Deploy;
use clipper_container::allowed::NotAllowed;
use clipper_domain::deploy_model::{DeployBody, NewApp, UpdateApp};
use clipper_domain::{
    AccessKey, Action, AppName, AppSpec, AppUpdate, Asker, BatchSize, DEFAULT_POLICY, Deployment,
    InputType, LatencySlo, Limits, ModelId, ModelSpec, OnModelError, PolicyParameters, Replicas,
    Runtime, Weight,
};
use clipper_scheduling::parse::{self, BodyError};

/// The path served here.
pub const PATH: &str = "/admin/deploy_model";

pub(super) const SCHEMA: &str = r#"
  {
   "model_name" := string,
   "model_version" := string,
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings" | "tensors",
   "runtime" := {"runtime": "onnx", "path": string, "engine": "auto" | "ort" | "builtin" (optional),
                 "library": string (optional), "threads": int (optional)}
              | {"runtime": "python", "function": string, "python": string}
              | {"runtime": "command", "command": [string]},
   "app_name" := string,
   "new_app" := {"default_output": string, "latency_slo_micros": int} (optional),
   "update_app" := {"default_output": string (optional), "latency_slo_micros": int (optional)}
                   (optional),
   "make_current" := bool (optional, true),
   "replicas" := int (optional), "batch_size" := int (optional), "cache" := bool (optional, true),
   "labels" := [string] (optional), "input" := a trial input (optional),
   "inputs" := [a trial input] (optional), "timeout_ms" := int (optional)
  }
"#;

/// Steps that a slow reader may be behind.
const BEHIND_MAX: usize = 32;

/// A line at least this often: that is how a client that has gone away is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Time for a deployment, unless the request says otherwise.
const TIMEOUT_MS: u64 = 60_000;

/// What the handler works on. Cheap to clone.
#[derive(Clone)]
pub struct DeployState {
    pub deployer: Arc<Deployer>,
    /// A server that stops ends deployments.
    pub readiness: Arc<Readiness>,
    /// Where long requests are read.
    pub parsing: Parsing,
}

/// Adds the endpoint to the management frontend.
pub fn configure(
    state: DeployState,
    limits: BodyLimits,
) -> impl Fn(&mut web::ServiceConfig) + Clone {
    move |config| {
        let (state, limits) = (state.clone(), limits.clone());
        let handler = move |request, payload| {
            let (state, limits) = (state.clone(), limits.clone());
            async move { post(state, limits, request, payload).await }
        };
        config.service(resource(PATH).route(web::to(handler)));
    }
}

async fn post(
    state: DeployState,
    limits: BodyLimits,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    if request.method() != Method::POST {
        return other_method(request.method(), POST_ALLOW);
    }
    let by = gate::holder(&request);
    if let Err(why) = allowed(state.deployer.config.deploy, &request, by.is_some()) {
        return ApiError::new(errors::FORBIDDEN, why).error_response();
    }
    let asker = match asked::asker(&request) {
        Ok(asker) => asker,
        Err(failure) => return respond(Err(failure), SCHEMA, SCHEMA),
    };
    let body = match opening::read(&request, payload, &limits, &state.parsing).await {
        Ok(body) => body,
        Err(error) => return error.error_response(),
    };
    let planned = if state.parsing.is_long(body.size()) {
        let deployer = Arc::clone(&state.deployer);
        let planned = state.parsing.aside(body.size(), move || plan(&body.join(), &deployer)).await;
        planned.unwrap_or_else(|| Err(refused("The request could not be read")))
    } else {
        plan(&body.join(), &state.deployer)
    };
    match planned {
        Ok(planned) => {
            if let Err(why) = startable(&state.deployer, &planned).await {
                return ApiError::new(errors::FORBIDDEN, why.to_string()).error_response();
            }
            let asker = Asker { key: by.map(|key| key.name.clone()), ..asker };
            let planned = DeployRequest { asker, ..planned };
            HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines(
                &state,
                planned,
                gate::holding(&request),
            ))
        }
        Err(failure) => {
            tell_failure(PATH, &failure, &request);
            respond(Err(failure), SCHEMA, SCHEMA)
        }
    }
}

/// Whether `deploy.allow` lets it start; the files may lie on another machine.
async fn startable(deployer: &Arc<Deployer>, request: &DeployRequest) -> Result<(), Unstartable> {
    let (deployer, runtime) = (Arc::clone(deployer), request.deployment.replicas.runtime.clone());
    Ok(web::block(move || deployer.allowed.check(&runtime)).await??)
}

/// Why a program is not started.
#[derive(Debug, thiserror::Error)]
enum Unstartable {
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A fault of the server.
    #[error(transparent)]
    Unknown(#[from] BlockingError),
}

/// Why this request may not start programs.
pub(super) fn obstacle(
    deploy: Deploy,
    request: &HttpRequest,
    by: Option<&AccessKey>,
) -> Option<String> {
    if let Some(key) = by.filter(|key| !key.role.may(Action::Deploy)) {
        let (name, role) = (&key.name, key.role);
        return Some(format!(
            "Key '{name}' of role {role} starts no programs; one of role admin does"
        ));
    }
    allowed(deploy, request, by.is_some()).err().map(str::to_owned)
}

/// Whether this request may start programs.
fn allowed(deploy: Deploy, request: &HttpRequest, has_key: bool) -> Result<(), &'static str> {
    let loopback = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let json = request.headers().get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.to_str().unwrap_or_default();
        let kind = value.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    });
    match deploy {
        Deploy::Off => Err("Deploying is switched off: management.deploy = \"off\""),
        Deploy::Local if !loopback && !has_key => Err(
            "Deploying is for connections from the server's machine: management.deploy = \"local\"",
        ),
        _ if request.headers().contains_key(ORIGIN) => Err("Web pages may not deploy"),
        _ if !json => Err("The body has to be sent with Content-Type: application/json"),
        Deploy::Local | Deploy::Any => Ok(()),
    }
}

fn refused(text: impl Into<String>) -> Failure {
    Failure::Refused(text.into())
}

/// Reads the request and refuses what cannot succeed before anything is started.
fn plan(body: &[u8], deployer: &Deployer) -> Result<DeployRequest, Failure> {
    let body: DeployBody<Box<RawValue>> = serde_json::from_slice(body).map_err(|error| {
        refused(format!("Error parsing JSON: {error}. Expected JSON schema: {SCHEMA}"))
    })?;
    let config = &deployer.config;
    let most = config.deploy_replicas_max;
    if !(1..=most).contains(&body.replicas) {
        let text = "replicas must be 1 to management.deploy_replicas_max";
        return Err(refused(format!("{text} = {most}, not {}", body.replicas)));
    }
    absolute(&body.runtime)?;
    let input_type = names::input_type(&body.input_type)?;
    let batch_size = BatchSize::try_from(body.batch_size).map_err(Failure::of)?;
    let inputs = body.input.iter().chain(&body.inputs).map(|input| input.get());
    let inputs_max = deployer.plane.serving.request_inputs_max;
    let inputs = trial_inputs(inputs.collect(), input_type, inputs_max)?;
    let app = names::app(&body.app_name)?;
    let new_app = body.new_app.map(|new| app_spec(&app, input_type, new));
    let app_update = body.update_app.map(|update| app_change(&app, update));
    let model = ModelSpec {
        id: ModelId::new(names::model(&body.model_name)?, names::version(&body.model_version)?),
        input_type,
        labels: body.labels.iter().map(|l| names::label(l)).collect::<Result<_, _>>()?,
        container_name: body.runtime.name().to_owned(),
        model_data_path: body.runtime.source(),
        batch_size,
        cache: body.cache,
        signature: None,
    };
    let replicas = Replicas { runtime: body.runtime, count: body.replicas };
    let deployment = Deployment {
        model,
        replicas,
        app,
        new_app: new_app.transpose()?,
        app_update: app_update.transpose()?,
        make_current: body.make_current,
        old_replicas: config.deploy_old_replicas,
    };
    deployer.check(&deployment)?;
    let timeout_ms = body.timeout_ms.unwrap_or(TIMEOUT_MS).min(config.deploy_timeout_max_ms);
    let timeout = Duration::from_millis(timeout_ms);
    Ok(DeployRequest { deployment, inputs, timeout, asker: Asker::default() })
}

fn app_spec(name: &AppName, input_type: InputType, new: NewApp) -> Result<AppSpec, Failure> {
    Ok(AppSpec {
        name: name.clone(),
        input_type,
        policy: DEFAULT_POLICY.to_owned(),
        policy_parameters: PolicyParameters::new(),
        default_output: names::default_output(new.default_output)?,
        latency_slo: LatencySlo::try_from(new.latency_slo_micros).map_err(Failure::of)?,
        on_model_error: OnModelError::default(),
        cache: true,
        weight: Weight::default(),
        limits: Limits::default(),
        rollout: None,
    })
}

fn app_change(name: &AppName, update: UpdateApp) -> Result<AppUpdate, Failure> {
    let slo = update.latency_slo_micros.map(LatencySlo::try_from).transpose();
    Ok(AppUpdate {
        default_output: update.default_output.map(names::default_output).transpose()?,
        latency_slo: slo.map_err(Failure::of)?,
        ..AppUpdate::of(name.clone())
    })
}

/// The server's folder is not the client's.
pub(super) fn absolute(runtime: &Runtime) -> Result<(), Failure> {
    let path = match runtime {
        Runtime::Onnx { path, library: Some(library), .. } if path.starts_with('/') => library,
        Runtime::Onnx { path, .. } => path,
        Runtime::Python { function, .. } => function,
        Runtime::Command { command } => {
            let Some(program) = command.first() else { return Err(refused("command is empty")) };
            if !program.contains('/') {
                return Ok(());
            }
            program
        }
    };
    if path.starts_with('/') {
        return Ok(());
    }
    Err(refused(format!("'{}' is not an absolute path", shown(path))))
}

/// The inputs to try; a small one of the type where none is given.
fn trial_inputs(
    mut given: Vec<&str>,
    input_type: InputType,
    inputs_max: usize,
) -> Result<TrialInputs, Failure> {
    if input_type == InputType::Tensors && given.len() > inputs_max {
        return Err(too_many(inputs_max));
    }
    if input_type == InputType::Tensors {
        return Ok(TrialInputs::Rows(given.into_iter().map(str::to_owned).collect()));
    }
    if given.is_empty() {
        given.push(default_input(input_type));
    }
    let body = format!("{{\"input_batch\":[{}]}}", given.join(","));
    let parsed = parse::predict_body(body.as_bytes(), input_type, inputs_max).map_err(|error| {
        let why = match error {
            BodyError::Syntax(error) => error.to_string(),
            BodyError::NotAnObject(_) => "it is not JSON".to_owned(),
            BodyError::Semantic(why) => why,
            BodyError::TooManyInputs(max) => return too_many(max),
        };
        refused(format!("The trial input is none of type {input_type}: {why}"))
    })?;
    Ok(TrialInputs::Read(parsed.inputs.into_vec()))
}

fn too_many(inputs_max: usize) -> Failure {
    refused(format!("More trial inputs than {inputs_max} (serving.request_inputs_max)"))
}

/// A small input of each type.
fn default_input(input_type: InputType) -> &'static str {
    match input_type {
        InputType::Bytes => "\"YQ==\"",
        InputType::Integers => "[0]",
        InputType::Floats | InputType::Doubles => "[0.0]",
        InputType::Strings => "\"a\"",
        // Made up when the signature is known.
        InputType::Tensors => "{}",
    }
}

/// A deployment under way and what is still to be told of it.
struct ToldProgress {
    /// Gone when it has ended.
    deployment: Option<LocalBoxFuture<'static, Progress>>,
    /// What came of it; told after every step.
    last: Option<Progress>,
    steps: mpsc::Receiver<Progress>,
    signs: Interval,
    readiness: Arc<Readiness>,
    /// It ends with the key of who deploys.
    holding: Option<Rc<Holding>>,
}

/// The answer. Dropping it drops the deployment.
fn lines(
    state: &DeployState,
    request: DeployRequest,
    holding: Option<Rc<Holding>>,
) -> impl Stream<Item = Result<Bytes, actix_web::Error>> + use<> {
    let (told, steps) = mpsc::channel(BEHIND_MAX);
    let deployer = Arc::clone(&state.deployer);
    let deployment: LocalBoxFuture<'static, Progress> = Box::pin(deployer.deploy(request, told));
    let readiness = Arc::clone(&state.readiness);
    let signs = tokio::time::interval(SIGN_OF_LIFE);
    let told =
        ToldProgress { deployment: Some(deployment), last: None, steps, signs, readiness, holding };
    stream::unfold(told, |mut told| async move {
        let progress = told.next().await?;
        let mut line = serde_json::to_vec(&progress).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), told))
    })
}

impl ToldProgress {
    /// The next line; none after the last.
    async fn next(&mut self) -> Option<Progress> {
        loop {
            if let Ok(step) = self.steps.try_recv() {
                return Some(step);
            }
            let Some(deployment) = &mut self.deployment else { return self.last.take() };
            tokio::select! {
                biased;
                refused = gate::ended(self.holding.clone()) => self.fail(refused.to_string()),
                Some(step) = self.steps.recv() => return Some(step),
                last = deployment => {
                    self.deployment = None;
                    self.last = Some(last);
                }
                _ = self.signs.tick() => {
                    if self.readiness.is_ready() {
                        return Some(Progress::Waiting);
                    }
                    self.fail("the server is stopping".to_owned());
                }
            }
        }
    }

    /// Drops the deployment, which undoes it.
    fn fail(&mut self, cause: String) {
        self.deployment = None;
        self.last = Some(Progress::Failed(Failed { cause, output: Vec::new() }));
    }
}
