//! What the management frontend needs of the rest: small enough to be played by a test in memory.

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use crate::actors::pool::list::ContainerInfo;
pub use crate::actors::pool::messages::RestartReplicas;
pub use crate::store::history::{Point, StateAt};
use crate::store::projection::Catalog;
pub use crate::store::view::CatalogRead;
pub use crate::store::{ChangeError, StoreError};
use clipper_domain::rollout::progress::LiveProgress;
use clipper_domain::{Asker, Command};

/// The metadata: one writer, many readers.
pub trait Metadata: Send + Sync {
    /// Carries out a command for whoever asks; done means durable.
    fn execute(
        &self,
        command: Command,
        asker: Asker,
    ) -> BoxFuture<'static, Result<(), ChangeError>>;

    /// The metadata as of the last acknowledged command or a later one. Cheap; it must not be held
    /// across an await.
    fn catalog(&self) -> CatalogRead<'_>;

    /// The same to keep for a while, and the last event that it includes.
    fn copy(&self) -> (u64, Arc<Catalog>);

    /// The metadata at another time. Blocks, and may take long.
    ///
    /// # Errors
    /// It is not known any more, or not yet.
    fn state_at(&self, _: Point) -> Result<StateAt, StoreError> {
        Err(StoreError::Read { reason: "this server keeps no journal".to_owned() })
    }
}

pub trait Containers: Send + Sync {
    /// All of them, in any order.
    fn list(&self) -> Vec<ContainerInfo>;

    /// Replaces the processes that this server runs for a version, a model or all; how many.
    fn restart(&self, which: RestartReplicas) -> BoxFuture<'static, Result<usize, ChangeError>>;
}

/// What applications have learnt.
pub trait PolicyStates: Send + Sync {
    /// The output that the stored state of this user gives by default; `None`: nothing is stored.
    fn get(&self, app: &str, uid: i64) -> Option<String>;

    /// What the policy of an application has learned from a user, as JSON; from everybody, if
    /// nothing from this one. May read the disk.
    fn learned(&self, _app: &str, _uid: i64) -> Option<String> {
        None
    }

    /// How a rollout of an application stands, as far as this server has looked.
    fn rollout(&self, _app: &str, _id: u64) -> Option<LiveProgress> {
        None
    }
}
