//! The config file, read again on SIGHUP or when it has changed: its applications, models and
//! containers take effect at once, the same way as at a start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::error::StartError;
use super::watched::{Stamp, Watched};
use crate::actors::pool::container_pool::ContainerPool;
use crate::actors::pool::messages::PlansOfFile;
use crate::bootstrap::Bootstrap;
use crate::children::ChildPlan;
use crate::children::launch::{Launcher, launch_plan};
use crate::supervision::kept::Kept;
use clipper_config::{Config, ConfigFaults, Loaded};
use clipper_domain::ModelId;

/// Reads the configuration, as at the start.
pub type Reread = Arc<dyn Fn() -> Result<Loaded, ConfigFaults> + Send + Sync>;

/// What a file that was read again concerns.
pub(super) struct Reloader {
    pub(super) bootstrap: Bootstrap,
    pub(super) pool: Kept<ContainerPool>,
    pub(super) launcher: Launcher,
    /// As the server was started with it.
    pub(super) config: Config,
    pub(super) file: Option<PathBuf>,
}

impl Reloader {
    pub(super) async fn follow(self, mut asked: watch::Receiver<u64>, read: Reread) {
        let mut watched = Watched::default();
        watched.read(self.stamp().await);
        // Nobody asks a server that has a terminal.
        let (mut is_asked, every) = (true, self.config.management.follow_config_ms);
        while is_asked || every > 0 {
            tokio::select! {
                changed = asked.changed(), if is_asked => if changed.is_err() {
                    is_asked = false;
                    continue;
                },
                () = tokio::time::sleep(Duration::from_millis(every)), if every > 0 => {
                    if !watched.look(self.stamp().await) {
                        continue;
                    }
                }
            }
            watched.read(self.stamp().await);
            let read = Arc::clone(&read);
            match tokio::task::spawn_blocking(move || read()).await {
                Ok(Ok(loaded)) => self.take(&loaded).await,
                Ok(Err(faults)) => {
                    let faults = faults.to_string();
                    error!(faults, "the config file is wrong; everything stays as it is");
                }
                Err(error) => error!(%error, "the config file was not read"),
            }
        }
    }

    /// Of the file as it is now. A file system may hang.
    async fn stamp(&self) -> Option<Stamp> {
        let file = self.file.clone()?;
        tokio::task::spawn_blocking(move || Stamp::of(&file)).await.ok().flatten()
    }

    async fn take(&self, Loaded { config, base_dir, .. }: &Loaded) {
        let others = changed_sections(&self.config, config);
        if !others.is_empty() {
            let sections = others.join(", ");
            warn!(sections, "these settings were changed and take effect at a restart");
        }
        match child_plans(config, base_dir, &self.launcher) {
            Ok(plans) => {
                if self.pool.send(PlansOfFile(plans)).await.is_err() {
                    warn!("the container pool is being restarted, with the containers of before");
                }
            }
            Err(error) => error!(%error, "the containers of the config file stay as they are"),
        }
        match self.bootstrap.run_again(config).await {
            Ok(()) => info!("the config file was read again"),
            Err(error) => error!(%error, "the config file was read again, and not all is done"),
        }
    }
}

/// The processes that the file describes.
pub(super) fn child_plans(
    config: &Config,
    base_dir: &Path,
    launcher: &Launcher,
) -> Result<HashMap<ModelId, ChildPlan>, StartError> {
    let base_dir = std::path::absolute(base_dir).unwrap_or_else(|_| base_dir.to_owned());
    let mut plans = HashMap::new();
    for model in &config.models {
        let Some(container) = &model.container else { continue };
        let launch = launch_plan(model, launcher, &base_dir)
            .map_err(|why| StartError::Plan { model: model.name.clone(), why })?;
        let plan = ChildPlan { launch, replicas: container.replicas() };
        plans.insert(model.id()?, plan);
    }
    Ok(plans)
}

/// The tables and keys that say something else, but for applications and models.
fn changed_sections(before: &Config, now: &Config) -> Vec<String> {
    let members = |config: &Config| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (before, now) = (members(before), members(now));
    let lists = ["application", "model"];
    let changed = now.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    changed.map(|(name, _)| name.clone()).filter(|n| !lists.contains(&n.as_str())).collect()
}
