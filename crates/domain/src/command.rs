//! What a user may ask of the metadata, and every way it can be refused.
//!
//! The texts are those of the original's management frontend, as recorded in the golden exchanges;
//! `clipper_admin` shows them to its users.

use std::collections::BTreeSet;
use std::fmt;

use crate::access::refusal::KeyRefusal;
use crate::access::{AccessKey, KnownBy, SecretHash};
use crate::app::{AppSpec, AppUpdate, DEFAULT_POLICY, PolicySpec};
use crate::deployment::{Deployment, Replicas};
use crate::ids::{AppName, KeyName, ModelId, ModelName};
use crate::limits::Limits;
use crate::model::{ModelSpec, ModelUpdate};
use crate::plan::{PlanDescription, RefusedDescription, StepDescription};
use crate::rollout::{Rollout, RolloutEnd, RolloutRefusal};
use crate::tensor::InputType;

/// A change a user asks for. Imperative; what came of it is an event of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    AddApp(AppSpec),
    /// Change an application's definition.
    UpdateApp(AppUpdate),
    /// Remove an application and its links.
    DeleteApp(AppName),
    /// Register a model version and make it current.
    AddModel(ModelSpec),
    /// Register a model version; queries stay with the current one.
    StageModel(ModelSpec),
    /// Change a registered version; what it takes and gives stays.
    UpdateModel(ModelUpdate),
    /// Make another registered version current.
    SetModelVersion(ModelId),
    /// No version of the model is the current one; they stay registered.
    UnsetModelVersion(ModelName),
    /// Retire a model version.
    DeleteVersionedModel(ModelId),
    /// Retire a model version, unless queries go to it.
    DeleteUnqueriedModel(ModelId),
    /// Link an application to exactly one model; under a policy that chooses, to some.
    AddModelLinks {
        app: AppName,
        models: Vec<ModelName>,
    },
    /// Link as [`Self::AddModelLinks`], also to models that have no current version: queries go to
    /// them once they have one.
    LinkAbsentModels {
        app: AppName,
        models: Vec<ModelName>,
    },
    DeleteModelLinks {
        app: AppName,
        /// The models; may be empty.
        models: Vec<ModelName>,
    },
    /// Let another policy choose among an application's models, or set it otherwise.
    SetPolicy {
        app: AppName,
        policy: PolicySpec,
    },
    /// Register a model version with replicas, and unless it is to wait make it current and link
    /// it: all or nothing.
    Deploy(Box<Deployment>),
    /// Begin to move an application's queries to another version of its model.
    StartRollout {
        app: AppName,
        rollout: Box<Rollout>,
    },
    /// Go from the step before to this one.
    StepRollout {
        app: AppName,
        /// Which rollout.
        id: u64,
        step: u32,
    },
    /// End a rollout; a promotion makes its new version the current one.
    EndRollout {
        app: AppName,
        /// Which rollout; without, the one that is running.
        id: Option<u64>,
        end: RolloutEnd,
    },
    /// Keep another number of replicas of a deployed version.
    SetReplicas {
        id: ModelId,
        count: u32,
    },
    /// Keep these replicas of a registered version, and no others.
    KeepReplicas {
        id: ModelId,
        replicas: Replicas,
    },
    /// Keep no replicas of a version any more; it stays registered.
    ReleaseReplicas(ModelId),
    /// Several changes at once: all or nothing, and only of the state that they were planned on.
    Apply(Box<Plan>),
    AddKey {
        key: Box<AccessKey>,
        /// Somebody can manage keys whatever becomes of those of the metadata.
        admin_elsewhere: bool,
    },
    /// Give a key another secret, or what stands in its place.
    RotateKey {
        name: KeyName,
        /// As before.
        known_by: KnownBy,
        hash: SecretHash,
        /// Unix milliseconds until which the one before is good too.
        previous_until_ms: Option<u64>,
    },
    /// Let the holder of a key ask for so much and no more, whatever it was before.
    LimitKey {
        name: KeyName,
        limits: Limits,
    },
    RevokeKey {
        name: KeyName,
        /// As of [`Self::AddKey`].
        admin_elsewhere: bool,
    },
}

impl Command {
    /// The applications and models that it concerns.
    #[must_use]
    pub fn subjects(&self) -> Vec<&str> {
        match self {
            Self::Apply(plan) => plan.commands().flat_map(Self::subjects).collect(),
            Self::AddApp(app) => vec![app.name.as_str()],
            Self::UpdateApp(update) => vec![update.name.as_str()],
            Self::DeleteApp(app)
            | Self::SetPolicy { app, .. }
            | Self::StartRollout { app, .. }
            | Self::StepRollout { app, .. }
            | Self::EndRollout { app, .. } => vec![app.as_str()],
            Self::AddModel(model) | Self::StageModel(model) => vec![model.id.name.as_str()],
            Self::UpdateModel(update) => vec![update.id.name.as_str()],
            Self::UnsetModelVersion(name) => vec![name.as_str()],
            Self::SetModelVersion(id)
            | Self::DeleteVersionedModel(id)
            | Self::DeleteUnqueriedModel(id)
            | Self::ReleaseReplicas(id)
            | Self::KeepReplicas { id, .. }
            | Self::SetReplicas { id, .. } => vec![id.name.as_str()],
            Self::AddModelLinks { app, models }
            | Self::LinkAbsentModels { app, models }
            | Self::DeleteModelLinks { app, models } => {
                std::iter::once(app.as_str()).chain(models.iter().map(ModelName::as_str)).collect()
            }
            Self::Deploy(deployment) => {
                vec![deployment.app.as_str(), deployment.model.id.name.as_str()]
            }
            Self::AddKey { .. }
            | Self::RotateKey { .. }
            | Self::LimitKey { .. }
            | Self::RevokeKey { .. } => Vec::new(),
        }
    }
}

impl Command {
    /// The models that get a version, or another current one.
    #[must_use]
    pub fn versioned(&self) -> Vec<&ModelName> {
        match self {
            Self::AddModel(model) | Self::StageModel(model) => vec![&model.id.name],
            Self::Deploy(deployment) => vec![&deployment.model.id.name],
            Self::SetModelVersion(id) | Self::DeleteUnqueriedModel(id) => vec![&id.name],
            Self::Apply(plan) => {
                let models: BTreeSet<&ModelName> =
                    plan.commands().flat_map(Self::versioned).collect();
                models.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it may be carried out after event `now`: a plan is one of the state that it was made
    /// on.
    ///
    /// # Errors
    /// The state has moved on.
    pub fn check_base(&self, now: u64) -> Result<(), CommandError> {
        match self {
            Self::Apply(plan) if plan.base != now => {
                Err(CommandError::PlanIsOld { base: plan.base, now })
            }
            _ => Ok(()),
        }
    }
}

/// For logs: what is asked for, of what.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |models: &[ModelName]| {
            models.iter().map(ModelName::as_str).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::AddApp(app) => write!(f, "add application {}", app.name),
            Self::UpdateApp(update) => write!(f, "update application {}", update.name),
            Self::DeleteApp(name) => write!(f, "delete application {name}"),
            Self::AddModel(model) => write!(f, "add model {}", model.id),
            Self::StageModel(model) => write!(f, "add model {} without switching to it", model.id),
            Self::UpdateModel(update) => write!(f, "update model {}", update.id),
            Self::SetModelVersion(id) => write!(f, "set the current version to {id}"),
            Self::UnsetModelVersion(name) => write!(f, "leave model {name} without a version"),
            Self::DeleteVersionedModel(id) => write!(f, "delete model {id}"),
            Self::DeleteUnqueriedModel(id) => write!(f, "delete model {id} unless it is queried"),
            Self::AddModelLinks { app, models } | Self::LinkAbsentModels { app, models } => {
                write!(f, "link application {app} to model {}", names(models))
            }
            Self::DeleteModelLinks { app, models } => {
                write!(f, "unlink application {app} from model {}", names(models))
            }
            Self::SetReplicas { id, count } => write!(f, "keep {count} replicas of model {id}"),
            Self::KeepReplicas { id, replicas } => {
                write!(
                    f,
                    "keep {} replicas of model {id} by {}",
                    replicas.count,
                    replicas.runtime.name()
                )
            }
            Self::ReleaseReplicas(id) => write!(f, "keep no replicas of model {id}"),
            Self::Apply(plan) => write!(f, "make {} changes at once", plan.steps.len()),
            Self::SetPolicy { app, policy } => {
                write!(f, "set the policy of application {app} to {}", policy.name)
            }
            Self::StartRollout { app, rollout } => {
                let plan = &rollout.plan;
                write!(f, "start a rollout of application {app} from {} to {}", plan.from, plan.to)
            }
            Self::StepRollout { app, step, .. } => {
                write!(f, "take step {} of the rollout of application {app}", step + 1)
            }
            Self::EndRollout { app, end, .. } => {
                write!(f, "end the rollout of application {app}: {}", end.name())
            }
            Self::AddKey { key, .. } => write!(f, "add key {} of role {}", key.name, key.role),
            Self::RotateKey { name, .. } => write!(f, "give key {name} another secret"),
            Self::LimitKey { name, .. } => write!(f, "limit key {name}"),
            Self::RevokeKey { name, .. } => write!(f, "revoke key {name}"),
            Self::Deploy(deployment) => {
                write!(f, "deploy model {} for application {}", deployment.model.id, deployment.app)
            }
        }
    }
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub about: StepDescription,
    pub command: Command,
}

/// A step that the rules do not allow, whatever comes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedStep {
    pub step: Step,
    pub why: CommandError,
}

/// Steps in an order in which each is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The last event of the state that it was made on.
    pub base: u64,
    pub steps: Vec<Step>,
    pub refused: Vec<RefusedStep>,
}

impl Plan {
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.steps.iter().map(|step| &step.command)
    }

    /// For people and programs.
    #[must_use]
    pub fn describe(&self) -> PlanDescription {
        let refused = |refused: &RefusedStep| RefusedDescription {
            step: refused.step.about.clone(),
            why: refused.why.to_string(),
        };
        PlanDescription {
            base: self.base,
            steps: self.steps.iter().map(|step| step.about.clone()).collect(),
            refused: self.refused.iter().map(refused).collect(),
            done: 0,
            failed: None,
        }
    }
}

/// Why a command was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// `add_app` of a name in use.
    #[error("application '{0}' already exists")]
    AppExists(AppName),
    /// `delete_app` of an unknown name.
    #[error("Application '{0}' does not exist")]
    AppUnknown(AppName),
    /// `add_model` of a version in use.
    #[error("model with name '{}' and version '{}' already exists", .0.name, .0.version)]
    ModelExists(ModelId),
    /// A new or newly current version whose type differs from that of a linked application.
    #[error(
        "Model with name '{model}' is already linked to app '{app}' using input type \
         '{app_type}'. The input type you provided for a new version of the model, \
         '{model_type}', is not compatible."
    )]
    IncompatibleVersion {
        model: ModelName,
        app: AppName,
        /// What the application takes.
        app_type: InputType,
        /// What the version takes.
        model_type: InputType,
    },
    /// `set_model_version` of an unknown model.
    #[error("Cannot set version for nonexistent model '{0}'")]
    SetVersionOfUnknownModel(ModelName),
    /// `set_model_version` to an unknown version.
    #[error("Cannot set non-existent version '{}' for model with name '{}'", .0.version, .0.name)]
    SetUnknownVersion(ModelId),
    /// `delete_versioned_model` of an unknown version.
    #[error("model with name '{}' and version '{}' does not exist", .0.name, .0.version)]
    ModelVersionUnknown(ModelId),
    /// A plan that was made on another state.
    #[error(
        "The plan was made after event {base}, and the state has moved on to event {now}: nothing \
         was changed; make the plan again"
    )]
    PlanIsOld { base: u64, now: u64 },
    /// Another number of replicas of a version that was not deployed.
    #[error(
        "the server does not start the replicas of model '{}' version '{}': start or stop its \
         containers, or change replicas in the config file", .0.name, .0.version
    )]
    ReplicasOfOthers(ModelId),
    /// A guarded `delete_versioned_model` of a version that is queried.
    #[error(
        "model with name '{}' and version '{}' is the current version, and application '{app}' \
         queries it: without it, it gets its default output", .id.name, .id.version
    )]
    VersionQueried {
        id: ModelId,
        /// An application that queries it.
        app: AppName,
    },
    /// A deployment for one application under the name of another one's model.
    #[error(
        "Model '{model}' is what application {} queries: a version of it deployed for '{app}' \
         would change what {} answers",
        quoted(.others),
        if .others.len() == 1 { "that" } else { "those" }
    )]
    ModelOfOthers {
        model: ModelName,
        /// The application that it was to be deployed for.
        app: AppName,
        /// The applications that query it.
        others: Vec<AppName>,
    },
    /// A deployment that is to wait where nothing is current.
    #[error(
        "Application '{app}' does not query model '{model}' yet: there is nothing to stay with \
         until the new version is made current"
    )]
    NothingToStayWith { app: AppName, model: ModelName },
    /// A link to an unknown application.
    #[error("No app with name '{0}' exists.")]
    LinkUnknownApp(AppName),
    /// A link to an unknown model.
    #[error("No model with name '{0}' exists.")]
    LinkUnknownModel(ModelName),
    /// No model in `add_model_links`.
    #[error("Please provide the name of the model that you want to link to the application '{0}'")]
    LinkNone(AppName),
    /// More than one model in `add_model_links`.
    #[error(
        "Applications must be linked with at most one model. Attempted to add links to {0} models."
    )]
    LinkCount(usize),
    /// The application is linked to this very model.
    #[error("The model with name '{model}' is already linked to '{app}'")]
    AlreadyLinked { app: AppName, model: ModelName },
    /// The application is linked to another model.
    #[error("A model with name {linked} is already linked to '{app}'.")]
    LinkedElsewhere {
        app: AppName,
        /// The model it is linked to.
        linked: ModelName,
    },
    /// The model's type is not the application's.
    #[error(
        "Model with name '{model}' has incompatible input_type '{model_type}'. Requested app to \
         link to has input_type '{app_type}'."
    )]
    LinkIncompatible {
        model: ModelName,
        /// What the model takes.
        model_type: InputType,
        /// What the application takes.
        app_type: InputType,
    },
    /// Models of one application that read requests in different ways.
    #[error(
        "Models '{model}' and '{other}' cannot both answer for application '{app}': of '{model}' \
         {difference}. Give each an application of its own, or register both with one signature."
    )]
    SignaturesDiffer {
        app: AppName,
        model: ModelId,
        /// The one that it would be beside.
        other: ModelId,
        /// The first tensor that is another.
        difference: String,
    },
    /// More models than a policy may choose among.
    #[error(
        "Application '{app}' would be linked to {count} models, and a policy chooses among at most \
         {max}"
    )]
    LinkTooMany {
        app: AppName,
        /// How many it would be.
        count: usize,
        /// How many it may be.
        max: usize,
    },
    /// A policy, or one of its parameters, is not what it has to be.
    #[error("The policy of application '{app}' stays as it is. {field}: {problem}")]
    Policy {
        app: AppName,
        /// The parameter, or `policy` for its name.
        field: String,
        problem: String,
    },
    /// The policy that queries one model, for an application that has several.
    #[error(
        "The policy of application '{app}' stays as it is. policy: {DEFAULT_POLICY} queries one \
         model, and the application is linked to {links}; remove the other links first"
    )]
    PolicyOfOneModel { app: AppName, links: usize },
    /// A rollout is not started, moved or ended.
    #[error("Application '{app}': {why}")]
    Rollout { app: AppName, why: RolloutRefusal },
    /// The keys stay as they are.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// `delete_model_links` of an unknown application.
    #[error("No app with name {0} exists.")]
    UnlinkUnknownApp(AppName),
    /// `delete_model_links` of a link that is not there.
    #[error("Cannot remove nonexistent link between app {app} and model {model}")]
    UnlinkUnknown { app: AppName, model: ModelName },
}

/// Names for a sentence, in quotes.
fn quoted(names: &[AppName]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelVersion;

    #[test]
    fn line_26_a_command_in_a_log_is_words_and_not_a_debug_print() {
        let name = ModelName::parse("m").unwrap();
        let id = ModelId::new(name.clone(), ModelVersion::parse("1").unwrap());
        let app = AppName::parse("a").unwrap();
        let link = Command::AddModelLinks { app: app.clone(), models: vec![name] };
        assert_eq!(link.to_string(), "link application a to model m");
        assert_eq!(Command::SetModelVersion(id).to_string(), "set the current version to m:1");
        let update = Command::UpdateApp(AppUpdate::of(app));
        assert_eq!(update.to_string(), "update application a");
    }
}
