//! What a deployment works on, and what is asked of it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::inputs::TrialInputs;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::list::ContainerList;
use crate::store::{CatalogView, SharedWriter};
use crate::supervision::kept::Kept;
use clipper_config::ManagementConfig;
use clipper_container::allowed::Allowed;
use clipper_domain::{Asker, Deployment};

/// What to deploy and how to try it out.
#[derive(Debug)]
pub struct DeployRequest {
    /// What is registered if it works.
    pub deployment: Deployment,
    /// What one replica has to answer, and what its warm-up is made of.
    pub inputs: TrialInputs,
    /// For the whole of it.
    pub timeout: Duration,
    pub asker: Asker,
}

/// Carries deployments out. Shared by all threads.
pub struct Deployer {
    pub plane: Arc<DataPlane>,
    pub pool: Kept<ContainerPool>,
    pub writer: SharedWriter,
    pub view: CatalogView,
    /// The replicas of all servers.
    pub list: ContainerList,
    pub config: ManagementConfig,
    /// What may be started.
    pub allowed: Allowed,
    pub running: AtomicUsize,
}
