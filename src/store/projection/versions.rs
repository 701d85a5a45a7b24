//! Versions of models: what may become of one that is registered.

use super::Catalog;
use crate::store::event::Event;
use clipper_domain::{Command, CommandError, ModelId, ModelName, ModelUpdate};

impl Catalog {
    pub(super) fn decide_update_model(
        &self,
        update: &ModelUpdate,
    ) -> Result<Vec<Event>, CommandError> {
        let Some(known) = self.model_by_id(&update.id) else {
            return Err(CommandError::ModelVersionUnknown(update.id.clone()));
        };
        let model = update.applied_to(known);
        Ok(if model == *known { Vec::new() } else { vec![Event::ModelChanged { model }] })
    }

    pub(super) fn decide_unset_version(
        &self,
        model: &ModelName,
    ) -> Result<Vec<Event>, CommandError> {
        match self.current.get(model) {
            Some(_) => Ok(vec![Event::ModelVersionUnset { model: model.clone() }]),
            None if self.models.contains_key(model) => Ok(Vec::new()),
            None => Err(CommandError::SetVersionOfUnknownModel(model.clone())),
        }
    }

    pub(super) fn decide_delete_version(&self, id: &ModelId) -> Result<Vec<Event>, CommandError> {
        if self.model_by_id(id).is_none() {
            return Err(CommandError::ModelVersionUnknown(id.clone()));
        }
        Ok(vec![Event::ModelVersionRetired { id: id.clone() }])
    }

    pub(super) fn decide_set_version(&self, id: &ModelId) -> Result<Vec<Event>, CommandError> {
        if !self.models.contains_key(&id.name) {
            return Err(CommandError::SetVersionOfUnknownModel(id.name.clone()));
        }
        let Some(model) = self.model_by_id(id) else {
            return Err(CommandError::SetUnknownVersion(id.clone()));
        };
        self.check_linked_apps_take(model)?;
        Ok(vec![Event::ModelVersionSet { id: id.clone() }])
    }

    /// Each is decided on what those before it leave.
    pub(super) fn decide_all<'c>(
        &self,
        commands: impl Iterator<Item = &'c Command>,
    ) -> Result<Vec<Event>, CommandError> {
        let mut state = self.clone();
        let mut events = Vec::new();
        for command in commands {
            let decided = state.decide(command)?;
            for event in &decided {
                state.fold(event);
            }
            events.extend(decided);
        }
        Ok(events)
    }

    /// What two states are compared by that differ in what no plan restores.
    pub(in crate::store) fn without_keys_and_rollouts(&self) -> Self {
        let mut state = self.clone();
        state.keys.clear();
        state.apps.values_mut().for_each(|app| app.rollout = None);
        state
    }
}
