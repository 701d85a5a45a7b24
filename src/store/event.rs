//! The durable alphabet: everything that can have happened to the metadata, in the past tense.

use serde::{Deserialize, Serialize};

use clipper_domain::rollout::Rollout;
use clipper_domain::{
    AccessKey, AppName, AppSpec, KeyName, ModelId, ModelName, ModelSpec, PolicySpec, Replicas,
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
    /// A key is no good any more.
    KeyRevoked { name: KeyName },
}

/// Who caused an event.
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

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub origin: Origin,
    /// Whose key it was, where one was needed.
    pub key: Option<KeyName>,
}

impl From<Origin> for Author {
    fn from(origin: Origin) -> Self {
        Self { origin, key: None }
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
    pub origin: Origin,
    /// The key of who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<KeyName>,
    pub event: Event,
}
