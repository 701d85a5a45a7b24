//! The replicas that the server keeps of model versions.

use super::Catalog;
use crate::store::event::Event;
use clipper_domain::{CommandError, ModelId, Replicas};

impl Catalog {
    pub(super) fn decide_replicas(
        &self,
        id: &ModelId,
        count: u32,
    ) -> Result<Vec<Event>, CommandError> {
        match self.replicas.get(id) {
            None if self.model_by_id(id).is_none() => {
                Err(CommandError::ModelVersionUnknown(id.clone()))
            }
            None => Err(CommandError::ReplicasOfOthers(id.clone())),
            Some(planned) => self.decide_keep(id, &Replicas { count, ..planned.clone() }),
        }
    }

    pub(super) fn decide_keep(
        &self,
        id: &ModelId,
        replicas: &Replicas,
    ) -> Result<Vec<Event>, CommandError> {
        if self.model_by_id(id).is_none() {
            return Err(CommandError::ModelVersionUnknown(id.clone()));
        }
        if self.replicas.get(id) == Some(replicas) {
            return Ok(Vec::new());
        }
        Ok(vec![Event::ReplicasPlanned { id: id.clone(), replicas: replicas.clone() }])
    }

    pub(super) fn decide_release(&self, id: &ModelId) -> Result<Vec<Event>, CommandError> {
        if self.model_by_id(id).is_none() {
            return Err(CommandError::ModelVersionUnknown(id.clone()));
        }
        let is_planned = self.replicas.contains_key(id);
        Ok(is_planned.then(|| Event::ReplicasReleased { id: id.clone() }).into_iter().collect())
    }
}
