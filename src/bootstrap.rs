//! Registers what the config file describes and the metadata does not have yet, and changes what
//! the file says otherwise than at the last start.
//!
//! Idempotent: a second start finds everything there and changes nothing. An application that
//! exists with another definition is changed if it is the file that was edited; what an operator
//! has changed meanwhile stays, which is said in the log. What a file cannot change is said there
//! too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{
    ApplicationConfig, Config, ContainerConfig, InvalidId, ModelConfig, PolicyConfig,
};
use crate::store::event::Origin;
use crate::store::soft_file::SoftFile;
use crate::store::{CatalogView, ChangeError, SharedWriter};
use clipper_domain::app::{DefaultOutputTooLong, InvalidSlo, InvalidWeight};
use clipper_domain::model::InvalidBatchSize;
use clipper_domain::{
    AppName, AppSpec, AppUpdate, BatchSize, Command, CommandError, InputType, InvalidName, Label,
    LatencySlo, ModelName, ModelSpec, PolicySpec, Runtime, Weight,
};

/// Between two attempts while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// In the data directory: the applications as the config file had them at the last start.
const REMEMBERED: &str = "config-applications.json";

type Applications = BTreeMap<AppName, AppSpec>;

/// Why something could not be registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    #[error(transparent)]
    ModelId(#[from] InvalidId),
    #[error("model name: {0}")]
    ModelName(InvalidName),
    #[error("application name: {0}")]
    AppName(InvalidName),
    #[error("label: {0}")]
    Label(InvalidName),
    #[error("unknown input type '{0}'")]
    InputType(String),
    #[error(transparent)]
    BatchSize(#[from] InvalidBatchSize),
    #[error(transparent)]
    Slo(#[from] InvalidSlo),
    #[error(transparent)]
    DefaultOutput(#[from] DefaultOutputTooLong),
    #[error(transparent)]
    Weight(#[from] InvalidWeight),
    /// The store takes no changes now.
    #[error("{0}")]
    Store(String),
}

/// Where changes are asked for, and what is there.
#[derive(Clone)]
pub struct Bootstrap {
    config: Config,
    writer: SharedWriter,
    view: CatalogView,
    file: SoftFile,
}

impl Bootstrap {
    /// Of this configuration.
    #[must_use]
    pub fn new(config: &Config, writer: &SharedWriter, view: CatalogView) -> Self {
        let file = SoftFile::new(&config.data_dir, REMEMBERED);
        Self { config: config.clone(), writer: Arc::clone(writer), view, file }
    }

    /// Sends the missing commands. What a store that is away for a while cannot take is sent when
    /// it is back.
    ///
    /// # Errors
    /// A value that the configuration's own checks should have refused, or a store that fails.
    pub async fn run_or_later(self) -> Result<(), BootstrapError> {
        match self.run().await {
            Err(reason) if self.writer.may_be_away() => {
                actix::spawn(self.later(reason));
                Ok(())
            }
            result => result,
        }
    }

    async fn later(self, mut reason: BootstrapError) {
        warn!(%reason, "the config file's applications and models are registered later");
        loop {
            tokio::time::sleep(PAUSE).await;
            match self.run().await {
                Ok(()) => return,
                Err(again) if again == reason => {}
                Err(other) => {
                    warn!(reason = %other, "not yet registered from the config file");
                    reason = other;
                }
            }
        }
    }

    /// Models, then applications, then links: each is there before what refers to it.
    async fn run(&self) -> Result<(), BootstrapError> {
        for model in &self.config.models {
            self.model(model_spec(model)?).await?;
        }
        let apps = self.config.applications.iter().map(app_spec);
        let apps = apps.collect::<Result<Vec<_>, _>>()?;
        let remembered = self.remembered();
        for app in &apps {
            self.application(app, remembered.as_ref()).await?;
        }
        for link in self.config.applications.iter().flat_map(links) {
            let _ = self.send(link?).await?;
        }
        self.remember(apps, remembered.as_ref());
        Ok(())
    }

    /// Carries a command out; tells a refusal that is not that of a thing which is there.
    async fn send(&self, command: Command) -> Result<Result<(), CommandError>, BootstrapError> {
        let text = command.to_string();
        let is_change = matches!(
            command,
            Command::UpdateApp(_) | Command::SetPolicy { .. } | Command::DescribeModel(_)
        );
        match self.writer.execute(command, Origin::Bootstrap.into()).await {
            Ok(()) => {
                if is_change {
                    info!(change = text, "changed as the config file says");
                } else {
                    info!(change = text, "registered from the config file");
                }
                Ok(Ok(()))
            }
            Err(ChangeError::Refused(refusal)) => {
                if !is_there_already(&refusal) {
                    warn!(change = text, "not registered from the config file: {refusal}");
                }
                Ok(Err(refusal))
            }
            Err(ChangeError::Unavailable { reason }) => Err(BootstrapError::Store(reason)),
        }
    }

    async fn model(&self, spec: ModelSpec) -> Result<(), BootstrapError> {
        let refused = self.send(Command::AddModel(spec.clone())).await?;
        let Err(CommandError::ModelExists(id)) = refused else { return Ok(()) };
        let known = self.view.read().model(id.name.as_str(), id.version.as_str()).cloned();
        match known {
            Some(known) if known == spec => {}
            Some(known) if known.serves_as(&spec) => {
                let _ = self.send(Command::DescribeModel(spec)).await?;
            }
            Some(_) => warn!(
                model = %id,
                "it exists with another input type, batch size or use of the cache than the config \
                 file says, and stays as it is: a version does not change, give it another one"
            ),
            None => {}
        }
        Ok(())
    }

    async fn application(
        &self,
        spec: &AppSpec,
        remembered: Option<&Applications>,
    ) -> Result<(), BootstrapError> {
        let refused = self.send(Command::AddApp(spec.clone())).await?;
        let Err(CommandError::AppExists(name)) = refused else { return Ok(()) };
        let known = self.view.read().app(name.as_str()).cloned();
        let Some(known) = known.filter(|known| known != spec) else { return Ok(()) };
        self.policy(&known, spec, remembered).await?;
        // What is left besides the policy, and a rollout, of which no file says anything.
        let known = AppSpec {
            policy: spec.policy.clone(),
            policy_parameters: spec.policy_parameters.clone(),
            rollout: None,
            ..known
        };
        if known == *spec {
            return Ok(());
        }
        match verdict(&known, spec, remembered) {
            Verdict::Change(update) => {
                let _ = self.send(Command::UpdateApp(update)).await?;
            }
            Verdict::Stay(why) => {
                let (slo_us, file_slo_us) = (known.latency_slo, spec.latency_slo);
                let (slo_us, file_slo_us) = (slo_us.as_micros(), file_slo_us.as_micros());
                warn!(application = %name, slo_us, file_slo_us, "it stays as it is, though the \
                       config file says something else: {why}");
            }
        }
        Ok(())
    }

    async fn policy(
        &self,
        known: &AppSpec,
        spec: &AppSpec,
        remembered: Option<&Applications>,
    ) -> Result<(), BootstrapError> {
        if known.policy_spec() == spec.policy_spec() {
            return Ok(());
        }
        let said = remembered.map(|apps| apps.get(&spec.name).map(AppSpec::policy_spec));
        if said.is_some_and(|said| said != Some(spec.policy_spec())) {
            let command = Command::SetPolicy { app: spec.name.clone(), policy: spec.policy_spec() };
            let _ = self.send(command).await?;
        } else {
            let (policy, file_policy) = (&known.policy, &spec.policy);
            warn!(application = %spec.name, policy, file_policy, "its policy stays as it is, \
                   though the config file says something else: `clipper admin policy` changes it");
        }
        Ok(())
    }

    fn remembered(&self) -> Option<Applications> {
        self.file.read().unwrap_or_else(|error| {
            let file = self.file.path().display();
            warn!(%file, %error, "what the config file said at the last start cannot be read");
            None
        })
    }

    fn remember(&self, apps: Vec<AppSpec>, before: Option<&Applications>) {
        let apps: Applications = apps.into_iter().map(|app| (app.name.clone(), app)).collect();
        if before == Some(&apps) || (before.is_none() && apps.is_empty()) {
            return;
        }
        if let Err(error) = self.file.write(&apps) {
            let file = self.file.path().display();
            warn!(%file, %error, "what the config file says cannot be remembered: a change of it \
                   will not be noticed");
        }
    }
}

/// What becomes of an application that is there otherwise than the file says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Change(AppUpdate),
    Stay(&'static str),
}

/// `remembered` is what the file said at the last start; `None`: nobody remembers.
fn verdict(known: &AppSpec, file: &AppSpec, remembered: Option<&Applications>) -> Verdict {
    if known.input_type != file.input_type {
        return Verdict::Stay("an input type cannot change; add another application");
    }
    let update = AppUpdate {
        name: file.name.clone(),
        default_output: Some(file.default_output.clone()),
        latency_slo: Some(file.latency_slo),
        on_model_error: Some(file.on_model_error),
        cache: Some(file.cache),
        weight: Some(file.weight),
        limits: Some(file.limits),
    };
    match remembered {
        None => Verdict::Stay(
            "it was registered before by somebody else; `clipper admin apps update` changes it",
        ),
        Some(remembered) if remembered.get(&file.name) == Some(file) => Verdict::Stay(
            "an operator has changed it since; `clipper admin apps update` changes it back",
        ),
        Some(_) => Verdict::Change(update),
    }
}

fn is_there_already(refusal: &CommandError) -> bool {
    matches!(
        refusal,
        CommandError::AppExists(_)
            | CommandError::ModelExists(_)
            | CommandError::AlreadyLinked { .. }
    )
}

fn model_spec(model: &ModelConfig) -> Result<ModelSpec, BootstrapError> {
    let labels = model.labels.iter().map(|label| Label::parse(label));
    let runtime = model.container.as_ref().map(ContainerConfig::runtime);
    Ok(ModelSpec {
        id: model.id()?,
        input_type: input_type(&model.input_type)?,
        labels: labels.collect::<Result<_, _>>().map_err(BootstrapError::Label)?,
        container_name: runtime.as_ref().map_or("external", Runtime::name).to_owned(),
        model_data_path: runtime.as_ref().map_or_else(String::new, Runtime::source),
        batch_size: BatchSize::try_from(model.batch_size)?,
        cache: model.cache,
        signature: model.signature.clone().map(Arc::new),
    })
}

fn app_spec(app: &ApplicationConfig) -> Result<AppSpec, BootstrapError> {
    let policy = app.policy.as_ref().map_or_else(PolicySpec::usual, PolicyConfig::spec);
    Ok(AppSpec {
        name: AppName::parse(&app.name).map_err(BootstrapError::AppName)?,
        input_type: input_type(&app.input_type)?,
        policy: policy.name,
        policy_parameters: policy.parameters,
        default_output: clipper_domain::default_output(app.default_output.clone())?,
        latency_slo: LatencySlo::try_from(app.latency_slo_micros)?,
        on_model_error: app.on_model_error,
        cache: app.cache,
        weight: Weight::try_from(i64::from(app.weight))?,
        limits: app.limits,
        rollout: None,
    })
}

/// Each by itself, so that those that are there keep no other away.
fn links(app: &ApplicationConfig) -> impl Iterator<Item = Result<Command, BootstrapError>> {
    app.model.iter().chain(&app.models).map(|model| {
        let app = AppName::parse(&app.name).map_err(BootstrapError::AppName)?;
        let model = ModelName::parse(model).map_err(BootstrapError::ModelName)?;
        Ok(Command::AddModelLinks { app, models: vec![model] })
    })
}

fn input_type(text: &str) -> Result<InputType, BootstrapError> {
    InputType::parse(text).ok_or_else(|| BootstrapError::InputType(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::app;

    #[test]
    fn line_22_what_was_edited_in_the_file_is_changed_and_what_an_operator_changed_stays() {
        let of = |slo| AppSpec {
            latency_slo: LatencySlo::from_micros(slo).unwrap(),
            ..app("a", InputType::Doubles)
        };
        let (old, new) = (of(20_000), of(100_000));
        let remembered = |app: &AppSpec| Applications::from([(app.name.clone(), app.clone())]);
        let Verdict::Change(update) = verdict(&old, &new, Some(&remembered(&old))) else {
            panic!()
        };
        assert_eq!(update.applied_to(&old), new);
        let stays = |file: &AppSpec, said: Option<&AppSpec>| match verdict(
            &old,
            file,
            said.map(remembered).as_ref(),
        ) {
            Verdict::Stay(why) => why,
            Verdict::Change(update) => panic!("{update:?}"),
        };
        assert!(stays(&new, Some(&new)).contains("operator"));
        assert!(stays(&new, None).contains("somebody else"));
        let strings = AppSpec { input_type: InputType::Strings, ..new.clone() };
        assert!(stays(&strings, Some(&old)).contains("input type"));
        // The file names it for the first time: that is an edit.
        assert!(matches!(verdict(&old, &new, Some(&Applications::new())), Verdict::Change(_)));
    }
}
