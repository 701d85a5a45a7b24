//! Containers that answer several queries at the same time: to the dispatcher each of their lanes
//! is a replica, with a name of its own.

use std::collections::BTreeMap;

use clipper_domain::ReplicaId;
use clipper_scheduling::dispatch::BatchId;

/// The lanes of a model's containers. Empty where none has several.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    of_container: BTreeMap<ReplicaId, Vec<ReplicaId>>,
    container_of: BTreeMap<ReplicaId, ReplicaId>,
    /// Which lane has a batch.
    batches: BTreeMap<BatchId, ReplicaId>,
    /// Names come from the end that the numbers of containers do not reach.
    named: u32,
}

impl Lanes {
    /// A container has joined: the names of its lanes. One of its name has left.
    pub(super) fn join(&mut self, container: ReplicaId, lanes: u32) -> Vec<ReplicaId> {
        self.leave(container);
        let mut names = Vec::new();
        while names.len() < lanes as usize {
            let name = ReplicaId(u32::MAX - self.named);
            // Half of all numbers: enough that none is still in use when they come again.
            self.named = (self.named + 1) % (u32::MAX / 2);
            if let std::collections::btree_map::Entry::Vacant(place) = self.container_of.entry(name)
            {
                place.insert(container);
                names.push(name);
            }
        }
        self.of_container.insert(container, names.clone());
        names
    }

    /// A container has left: the names that it had in the dispatcher.
    pub(super) fn leave(&mut self, container: ReplicaId) -> Vec<ReplicaId> {
        let Some(names) = self.of_container.remove(&container) else { return vec![container] };
        for name in &names {
            self.container_of.remove(name);
        }
        self.batches.retain(|_, lane| self.container_of.contains_key(lane));
        names
    }

    /// Whose name this is in the dispatcher.
    pub(super) fn container_of(&self, name: ReplicaId) -> ReplicaId {
        self.container_of.get(&name).copied().unwrap_or(name)
    }

    /// Containers, of which there are `names` in the dispatcher.
    pub(super) fn containers(&self, names: usize) -> usize {
        names.saturating_sub(self.container_of.len()) + self.of_container.len()
    }

    pub(super) fn are_there(&self) -> bool {
        !self.of_container.is_empty()
    }

    pub(super) fn sent(&mut self, name: ReplicaId, batch: BatchId) {
        if self.container_of.contains_key(&name) {
            self.batches.insert(batch, name);
        }
    }

    /// The lane that has answered a batch, if it was one.
    pub(super) fn answered(&mut self, batch: BatchId) -> Option<ReplicaId> {
        self.batches.remove(&batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_a_name_and_its_container_is_found_again() {
        let mut lanes = Lanes::default();
        let (one, other) = (ReplicaId(0), ReplicaId(1));
        let names = lanes.join(one, 3);
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| lanes.container_of(*name) == one));
        assert_eq!(lanes.container_of(other), other, "one that answers batches");
        assert_eq!(lanes.containers(4), 2);
        lanes.sent(names[1], BatchId(7));
        lanes.sent(other, BatchId(8));
        assert_eq!(
            (lanes.answered(BatchId(7)), lanes.answered(BatchId(8))),
            (Some(names[1]), None)
        );
        lanes.sent(names[2], BatchId(9));
        assert_eq!((lanes.leave(one), lanes.leave(other)), (names, vec![other]));
        assert_eq!((lanes.answered(BatchId(9)), lanes.containers(0)), (None, 0));
    }
}
