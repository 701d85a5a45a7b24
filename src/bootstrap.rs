//! Registers what the config file describes and the metadata does not have yet.
//!
//! Idempotent: a second start finds everything there and changes nothing. What exists with another
//! definition stays as it is, which is said in the log: the file is a start, not the truth.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{ApplicationConfig, Config, ContainerConfig, ModelConfig};
use crate::store::event::Origin;
use crate::store::{ChangeError, MetadataWriter, SharedWriter};
use clipper_domain::{
    AppName, AppSpec, BatchSize, Command, CommandError, DEFAULT_POLICY, InputType, Label,
    LatencySlo, ModelName, ModelSpec, Runtime,
};

/// Between two attempts while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends the missing commands.
///
/// # Errors
/// A value that the configuration's own checks should have refused, or a store that fails or is
/// away.
pub async fn run(config: &Config, writer: &dyn MetadataWriter) -> Result<(), String> {
    for command in commands(config)? {
        match writer.execute(command.clone(), Origin::Bootstrap).await {
            Ok(()) => info!(?command, "registered from the config file"),
            Err(ChangeError::Refused(refusal)) if is_there_already(&refusal) => {}
            Err(ChangeError::Refused(refusal)) => {
                warn!(?command, "not registered from the config file: {refusal}");
            }
            Err(ChangeError::Unavailable { reason }) => return Err(reason),
        }
    }
    Ok(())
}

/// As [`run`]; but what a Redis that is away cannot take is registered when it is back.
///
/// # Errors
/// As [`run`], without Redis.
pub async fn run_or_later(config: &Config, writer: &SharedWriter) -> Result<(), String> {
    match run(config, &**writer).await {
        Err(reason) if writer.may_be_away() => {
            later(config.clone(), Arc::clone(writer), reason);
            Ok(())
        }
        result => result,
    }
}

/// As soon as Redis is there.
fn later(config: Config, writer: SharedWriter, mut reason: String) {
    actix::spawn(async move {
        warn!(reason, "the config file's applications and models are registered later");
        loop {
            tokio::time::sleep(PAUSE).await;
            match run(&config, &*writer).await {
                Ok(()) => return,
                Err(again) if again == reason => {}
                Err(other) => {
                    warn!(reason = other, "not yet registered from the config file");
                    reason = other;
                }
            }
        }
    });
}

fn is_there_already(refusal: &CommandError) -> bool {
    matches!(
        refusal,
        CommandError::AppExists(_)
            | CommandError::ModelExists(_)
            | CommandError::AlreadyLinked { .. }
    )
}

/// Models, then applications, then links: each is there before what refers to it.
fn commands(config: &Config) -> Result<Vec<Command>, String> {
    let models = config.models.iter().map(|m| model_spec(m).map(Command::AddModel));
    let apps = config.applications.iter().map(|a| app_spec(a).map(Command::AddApp));
    let links = config.applications.iter().filter_map(link);
    models.chain(apps).chain(links).collect()
}

fn model_spec(model: &ModelConfig) -> Result<ModelSpec, String> {
    let labels = model.labels.iter().map(|label| Label::parse(label));
    let runtime = model.container.as_ref().map(ContainerConfig::runtime);
    Ok(ModelSpec {
        id: model.id()?,
        input_type: input_type(&model.input_type)?,
        labels: labels.collect::<Result<_, _>>().map_err(|e| format!("label: {e}"))?,
        container_name: runtime.as_ref().map_or("external", Runtime::name).to_owned(),
        model_data_path: runtime.as_ref().map_or_else(String::new, Runtime::source),
        batch_size: BatchSize::try_from(model.batch_size)?,
    })
}

fn app_spec(app: &ApplicationConfig) -> Result<AppSpec, String> {
    Ok(AppSpec {
        name: AppName::parse(&app.name).map_err(|e| format!("application name: {e}"))?,
        input_type: input_type(&app.input_type)?,
        policy: DEFAULT_POLICY.to_owned(),
        default_output: app.default_output.clone(),
        latency_slo: LatencySlo::try_from(app.latency_slo_micros)?,
        on_model_error: app.on_model_error,
    })
}

fn link(app: &ApplicationConfig) -> Option<Result<Command, String>> {
    let model = app.model.as_ref()?;
    let link = || {
        let app = AppName::parse(&app.name).map_err(|e| format!("application name: {e}"))?;
        let model = ModelName::parse(model).map_err(|e| format!("model name: {e}"))?;
        Ok(Command::AddModelLinks { app, models: vec![model] })
    };
    Some(link())
}

fn input_type(text: &str) -> Result<InputType, String> {
    InputType::parse(text).ok_or_else(|| format!("unknown input type '{text}'"))
}
