//! What a user may ask of the metadata, and every way it can be refused.
//!
//! The texts are those of the original's management frontend, as recorded in the golden exchanges;
//! `clipper_admin` shows them to its users.

use super::{AppName, AppSpec, Deployment, InputType, ModelId, ModelName, ModelSpec};

/// A change a user asks for. Imperative; what came of it is an [`crate::store::event::Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Register an application.
    AddApp(AppSpec),
    /// Remove an application and its links.
    DeleteApp(AppName),
    /// Register a model version and make it current.
    AddModel(ModelSpec),
    /// Make another registered version current.
    SetModelVersion(ModelId),
    /// Retire a model version.
    DeleteVersionedModel(ModelId),
    /// Link an application to exactly one model.
    AddModelLinks {
        /// The application.
        app: AppName,
        /// The models; anything but exactly one is refused.
        models: Vec<ModelName>,
    },
    /// Remove links.
    DeleteModelLinks {
        /// The application.
        app: AppName,
        /// The models; may be empty.
        models: Vec<ModelName>,
    },
    /// Register a model version with replicas, make it current, link it: all or nothing.
    Deploy(Box<Deployment>),
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
        /// The model.
        model: ModelName,
        /// The linked application.
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
    AlreadyLinked {
        /// The application.
        app: AppName,
        /// The model.
        model: ModelName,
    },
    /// The application is linked to another model.
    #[error("A model with name {linked} is already linked to '{app}'.")]
    LinkedElsewhere {
        /// The application.
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
        /// The model.
        model: ModelName,
        /// What the model takes.
        model_type: InputType,
        /// What the application takes.
        app_type: InputType,
    },
    /// `delete_model_links` of an unknown application.
    #[error("No app with name {0} exists.")]
    UnlinkUnknownApp(AppName),
    /// `delete_model_links` of a link that is not there.
    #[error("Cannot remove nonexistent link between app {app} and model {model}")]
    UnlinkUnknown {
        /// The application.
        app: AppName,
        /// The model.
        model: ModelName,
    },
}
