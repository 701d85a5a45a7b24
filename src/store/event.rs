//! The durable alphabet: everything that can have happened to the metadata, in the past tense.

use std::fmt;

use serde::{Deserialize, Serialize};

use clipper_domain::rollout::{Rollout, RolloutEnd};
use clipper_domain::{
    AccessKey, AppName, AppSpec, Asker, KeyName, ModelId, ModelName, ModelSpec, PolicySpec,
    Replicas,
};

/// One change of the metadata. Applying it is [`super::projection::Catalog::apply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// An application was registered, or (from Redis) its definition replaced.
    AppAdded { app: AppSpec },
    /// An application's definition was changed; its links stay.
    AppChanged { app: AppSpec },
    /// Another policy chooses among an application's models from now on, or is set otherwise.
    PolicySet { app: AppName, policy: PolicySpec },
    /// An application's queries began to move to another version of its model.
    RolloutStarted { app: AppName, rollout: Box<Rollout> },
    /// A rollout took a step; this is how it stands now.
    RolloutStepped { app: AppName, rollout: Box<Rollout> },
    /// A rollout ended, and how. That a promoted version became current is an event of its own.
    RolloutEnded { app: AppName, rollout: Box<Rollout> },
    /// An application and its links were removed.
    AppDeleted { name: AppName },
    /// A model version was registered, or (from Redis) its definition replaced. Does not make it
    /// current.
    ModelAdded { model: ModelSpec },
    /// A version's size of batches, labels, use of the cache or notes were changed; what it takes
    /// and gives is the same.
    ModelChanged { model: ModelSpec },
    /// The server keeps replicas of a model version from now on. Of this server alone: no shared
    /// table holds it.
    ReplicasPlanned { id: ModelId, replicas: Replicas },
    /// The server keeps no replicas of a model version any more; the version stays. Of this server
    /// alone, as the plan was.
    ReplicasReleased { id: ModelId },
    /// A version became its model's current one.
    ModelVersionSet { id: ModelId },
    /// A model has no current version any more, though its versions stay (from Redis).
    ModelVersionUnset { model: ModelName },
    /// A model version was removed.
    ModelVersionRetired { id: ModelId },
    /// An application was linked to a model.
    ModelLinked { app: AppName, model: ModelName },
    /// A link was removed.
    ModelUnlinked { app: AppName, model: ModelName },
    /// A key was made, or (from Redis) another one has its name.
    KeyAdded { key: Box<AccessKey> },
    /// A key has another secret.
    KeyRotated { key: Box<AccessKey> },
    /// The holder of a key may ask for another amount.
    KeyLimited { key: Box<AccessKey> },
    /// A key is no good any more.
    KeyRevoked { name: KeyName },
}

impl Event {
    /// The application that it is about, if it is about one.
    #[must_use]
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::AppAdded { app } | Self::AppChanged { app } => Some(&app.name),
            Self::AppDeleted { name } => Some(name),
            Self::PolicySet { app, .. }
            | Self::RolloutStarted { app, .. }
            | Self::RolloutStepped { app, .. }
            | Self::RolloutEnded { app, .. }
            | Self::ModelLinked { app, .. }
            | Self::ModelUnlinked { app, .. } => Some(app),
            Self::ModelAdded { .. }
            | Self::ModelChanged { .. }
            | Self::ReplicasPlanned { .. }
            | Self::ReplicasReleased { .. }
            | Self::ModelVersionSet { .. }
            | Self::ModelVersionUnset { .. }
            | Self::ModelVersionRetired { .. }
            | Self::KeyAdded { .. }
            | Self::KeyRotated { .. }
            | Self::KeyLimited { .. }
            | Self::KeyRevoked { .. } => None,
        }
    }

    /// The model that it is about, if it is about one.
    #[must_use]
    pub fn model(&self) -> Option<&ModelName> {
        match self {
            Self::ModelAdded { model } | Self::ModelChanged { model } => Some(&model.id.name),
            Self::ReplicasPlanned { id, .. }
            | Self::ReplicasReleased { id }
            | Self::ModelVersionSet { id }
            | Self::ModelVersionRetired { id } => Some(&id.name),
            Self::ModelVersionUnset { model }
            | Self::ModelLinked { model, .. }
            | Self::ModelUnlinked { model, .. } => Some(model),
            Self::RolloutStarted { rollout, .. }
            | Self::RolloutStepped { rollout, .. }
            | Self::RolloutEnded { rollout, .. } => Some(&rollout.plan.to.name),
            Self::AppAdded { .. }
            | Self::AppChanged { .. }
            | Self::AppDeleted { .. }
            | Self::PolicySet { .. }
            | Self::KeyAdded { .. }
            | Self::KeyRotated { .. }
            | Self::KeyLimited { .. }
            | Self::KeyRevoked { .. } => None,
        }
    }
}

/// In words.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppAdded { app } => write!(f, "application {} added", app.name),
            Self::AppChanged { app } => write!(f, "application {} changed", app.name),
            Self::PolicySet { app, policy } => {
                write!(f, "policy of application {app} set to {}", policy.name)
            }
            Self::RolloutStarted { app, rollout } => {
                let (from, to) = (&rollout.plan.from, &rollout.plan.to);
                write!(f, "rollout of application {app} from {from} to {to} started")
            }
            Self::RolloutStepped { app, rollout } => {
                write!(f, "rollout of application {app} went to step {}", rollout.step + 1)
            }
            Self::RolloutEnded { app, rollout } => {
                let end = rollout.end.as_ref().map_or("ended", RolloutEnd::name);
                write!(f, "rollout of application {app} ended: {end}")
            }
            Self::AppDeleted { name } => write!(f, "application {name} deleted"),
            Self::ModelAdded { model } => write!(f, "model {} added", model.id),
            Self::ModelChanged { model } => write!(f, "model {} changed", model.id),
            Self::ReplicasPlanned { id, replicas } => {
                write!(f, "replicas of model {id} set to {}", replicas.count)
            }
            Self::ReplicasReleased { id } => write!(f, "replicas of model {id} ended"),
            Self::ModelVersionSet { id } => write!(f, "model {id} made current"),
            Self::ModelVersionUnset { model } => write!(f, "model {model} left without a version"),
            Self::ModelVersionRetired { id } => write!(f, "model {id} deleted"),
            Self::ModelLinked { app, model } => {
                write!(f, "application {app} linked to model {model}")
            }
            Self::ModelUnlinked { app, model } => {
                write!(f, "application {app} unlinked from model {model}")
            }
            Self::KeyAdded { key } => write!(f, "key {} of the role {} added", key.name, key.role),
            Self::KeyRotated { key } => write!(f, "key {} given another secret", key.name),
            Self::KeyLimited { key } if key.limits.is_none() => {
                write!(f, "key {} no longer limited", key.name)
            }
            Self::KeyLimited { key } => write!(f, "key {} limited: {}", key.name, key.limits),
            Self::KeyRevoked { name } => write!(f, "key {name} revoked"),
        }
    }
}

/// The way by which an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A management request to this process.
    Admin,
    /// The config file at start.
    Bootstrap,
    /// Read from Redis: an operator, another program, or a change made while this process was away.
    Redis,
    /// Read from Redis: another frontend said that it was its change.
    Frontend,
    /// `clipper import`.
    Import,
    /// This server, by what a rollout's guards have seen.
    Rollout,
}

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    pub origin: Origin,
    /// Who asked for it. Records of version 1 have the key, or nothing.
    #[serde(flatten)]
    pub asker: Asker,
}

impl From<Origin> for Author {
    fn from(origin: Origin) -> Self {
        Self { origin, asker: Asker::default() }
    }
}

impl Origin {
    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Bootstrap => "bootstrap",
            Self::Redis => "redis",
            Self::Frontend => "frontend",
            Self::Import => "import",
            Self::Rollout => "rollout",
        }
    }
}

impl Author {
    /// In words; `unknown` if nobody knows.
    #[must_use]
    pub fn who(&self) -> String {
        let of_origin = match self.origin {
            Origin::Admin | Origin::Redis | Origin::Frontend => "unknown",
            Origin::Bootstrap => "config file",
            Origin::Import => "clipper import",
            Origin::Rollout => "guards of the rollout",
        };
        self.asker.who().unwrap_or_else(|| of_origin.to_owned())
    }
}

/// An event as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Position in the journal, from 1 without a gap (invariant J1).
    pub seq: u64,
    /// Wall clock when it was appended, Unix milliseconds. Information only; nothing decides by
    /// it.
    pub recorded_at_ms: u64,
    #[serde(flatten)]
    pub author: Author,
    pub event: Event,
}
