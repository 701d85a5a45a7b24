//! Keeps what replicas have learned of their latency across restarts, so that the first second
//! after one is as good as the last before.
//!
//! Soft state: a damaged or missing file costs what a first start costs, some small batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::data_plane::DataPlane;
use crate::store::soft_file::SoftFile;
use clipper_config::Config;
use clipper_domain::ModelId;
use clipper_scheduling::latency::LatencyCurve;

/// Its name in the data directory.
const FILE: &str = "latency-curves.json";

/// Model versions, as `name:version`, and their curves.
type Curves = BTreeMap<String, LatencyCurve>;

/// The curves of all models and the file that they are kept in; clones share both.
#[derive(Debug, Clone)]
pub struct LearnedCurves {
    plane: Arc<DataPlane>,
    file: SoftFile,
    every: Duration,
    saved: Arc<Mutex<Curves>>,
}

impl LearnedCurves {
    /// The file in the server's data directory.
    #[must_use]
    pub fn new(config: &Config, plane: &Arc<DataPlane>) -> Self {
        Self {
            plane: Arc::clone(plane),
            file: SoftFile::new(&config.data_dir, FILE),
            every: Duration::from_millis(config.serving.learned_save_ms),
            saved: Arc::default(),
        }
    }

    /// What an earlier process has left. What cannot be used is logged and left out.
    #[must_use]
    pub fn read(&self) -> HashMap<ModelId, LatencyCurve> {
        let kept: Curves = match self.file.read() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                let file = self.file.path().display();
                warn!(%file, %error, "learned latencies cannot be read; they are learned anew");
                return HashMap::new();
            }
        };
        let curves: HashMap<ModelId, LatencyCurve> = kept
            .into_iter()
            .filter_map(|(model, curve)| Some((ModelId::parse(&model).ok()?, curve.kept()?)))
            .collect();
        if !curves.is_empty() {
            info!(models = curves.len(), "learned latencies are taken over");
        }
        curves
    }

    /// Saves from time to time until dropped.
    pub async fn keep_saving(self) {
        let mut interval = tokio::time::interval(self.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.save().await;
        }
    }

    /// Saves now, if something has changed. A failure is logged.
    pub async fn save(&self) {
        let learned = self.plane.directory.all().into_iter().filter_map(|model| {
            let curve = model.curve();
            curve.is_known().then(|| (model.spec.id.to_string(), curve))
        });
        let curves: Curves = learned.collect();
        if curves.is_empty() || *self.saved.lock() == curves {
            return;
        }
        let (file, written) = (self.file.clone(), curves.clone());
        match tokio::task::spawn_blocking(move || file.write(&written)).await {
            Ok(Ok(())) => *self.saved.lock() = curves,
            Ok(Err(error)) => {
                let file = self.file.path().display();
                warn!(%file, %error, "learned latencies cannot be saved");
            }
            Err(error) => warn!(%error, "learned latencies cannot be saved"),
        }
    }
}
