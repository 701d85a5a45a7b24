//! Which frontend decides about a rollout, and what all of them have seen of it.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;

use super::session::Session;
use crate::store::redis::client::LinkError;
use crate::store::redis::tables::{Key, Raw, Table};
use crate::store::redis::writes::Write;
use clipper_domain::AppName;

/// What frontends have seen is kept so long after the last has written: longer than outages.
const SUMS_KEPT_MS: u64 = 24 * 3_600_000;

/// What this server has seen of a rollout.
#[derive(Debug)]
pub(super) struct RolloutNews {
    pub(super) app: AppName,
    pub(super) id: u64,
    /// This process: what an earlier one has seen stays.
    pub(super) process: String,
    pub(super) sums: String,
    pub(super) lease: Duration,
    pub(super) reply: oneshot::Sender<SharedRollout>,
}

/// What the tables have of a rollout.
#[derive(Debug)]
pub struct SharedRollout {
    /// Whether this server holds the lease.
    pub decides: bool,
    /// What other processes have seen, in their words.
    pub others: Vec<String>,
}

/// Held by the frontend that decides.
fn lease_key(app: &AppName) -> Key {
    Key::new(Table::Resource, &format!("clipper:rollout:{app}"))
}

/// What each process has seen, by its name.
fn sums_key(app: &AppName, id: u64) -> Key {
    Key::new(Table::Resource, &format!("clipper:rollout_sums:{app}:{id}"))
}

impl Session {
    /// Tells the others what this server has seen, and hears what they have.
    pub(super) async fn share_rollout(&mut self, news: RolloutNews) -> Result<(), LinkError> {
        let RolloutNews { app, id, process, sums, lease, reply } = news;
        let key = sums_key(&app, id);
        let args = [process.clone().into_bytes(), sums.into_bytes()].into();
        let kept = Write::one(key.clone(), "PEXPIRE", &SUMS_KEPT_MS.to_string());
        let writes = [Write { key: key.clone(), command: "HSET", args }, kept];
        let (decides, seen) = match self.link.write(&writes).await {
            Ok(()) => {
                // What the holder sees is in the table before it decides.
                let decides = self.link.hold(&lease_key(&app), &process, lease).await?;
                (decides, self.link.read_hashes(&[key].into()).await?)
            }
            Err(error @ LinkError::Refused(_)) => {
                warn!(%error, "Redis does not take what is seen of a rollout: it waits");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let others = match seen.values().next() {
            Some(Raw::Hash(fields)) => fields
                .iter()
                .filter(|(name, _)| **name != process.as_bytes())
                .filter_map(|(_, sums)| String::from_utf8(sums.clone()).ok())
                .collect(),
            _ => Vec::new(),
        };
        // Whoever asked may have gone.
        let _ = reply.send(SharedRollout { decides, others });
        Ok(())
    }
}
