//! What feedback left with one user when several servers learn: the sum of a part of each.
//!
//! A server adds feedback to its own part alone, and counts the changes of that part. What others
//! tell of theirs replaces what was known of it, if it is newer. Parts may therefore come late,
//! twice, or in any order, and a server may die and come back with what it had kept: nothing is
//! counted twice, and once all have heard the latest parts of all, all have the same sum. That is a
//! counter that only grows, one for each replica: Shapiro, Preguiça, Baquero, Zawirski, "A
//! comprehensive study of convergent and commutative replicated data types" (2011), section 3.1.1.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Contribution, EpochSums, SelectionState};

/// What one server's feedback contributed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// How often it has changed.
    pub version: u64,
    pub state: Arc<SelectionState>,
}

/// A part as it is kept and told, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartText<'a> {
    /// Absent where an earlier release kept it.
    #[serde(rename = "v", default = "first")]
    version: u64,
    epochs: Cow<'a, BTreeMap<u64, EpochSums>>,
}

fn first() -> u64 {
    1
}

impl Part {
    /// As JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = PartText { version: self.version, epochs: Cow::Borrowed(&self.state.epochs) };
        // Maps of numbers and names cannot fail to be written.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads what [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        let PartText { version, epochs } = serde_json::from_str(text)?;
        Ok(Self { version, state: Arc::new(SelectionState { epochs: epochs.into_owned() }) })
    }
}

/// The parts that are known, and their sum.
#[derive(Debug, Clone, Default)]
pub struct SharedState {
    own: Part,
    others: BTreeMap<Arc<str>, Part>,
    /// While nobody else has told of a part, the own one itself.
    sum: Arc<SelectionState>,
}

impl SharedState {
    /// Feedback that this server was given.
    pub fn learn(&mut self, contribution: &Contribution) {
        let change = self.sum.next(contribution);
        self.own.version += 1;
        if self.others.is_empty() {
            // Else it would be copied because the sum shares it.
            self.sum = Arc::default();
            Arc::make_mut(&mut self.own.state).add(&change);
            self.sum = Arc::clone(&self.own.state);
        } else {
            Arc::make_mut(&mut self.own.state).add(&change);
            Arc::make_mut(&mut self.sum).add(&change);
        }
    }

    /// Another server tells of its part.
    pub fn hear(&mut self, from: &Arc<str>, part: Part) {
        match self.others.get_mut(from) {
            Some(known) if part.version <= known.version => return,
            Some(known) => *known = part,
            None => drop(self.others.insert(Arc::clone(from), part)),
        }
        self.sum_up();
    }

    /// This server's own part is found where it was told to others. If it is newer, this server was
    /// set back to an earlier state; true then.
    pub fn hear_own(&mut self, part: Part) -> bool {
        if part.version <= self.own.version {
            return false;
        }
        self.own = part;
        self.sum_up();
        true
    }

    fn sum_up(&mut self) {
        if self.others.is_empty() {
            self.sum = Arc::clone(&self.own.state);
            return;
        }
        let mut sum = SelectionState::clone(&self.own.state);
        for part in self.others.values() {
            sum.add(&part.state);
        }
        self.sum = Arc::new(sum);
    }

    /// What this server's feedback contributed.
    #[must_use]
    pub fn own(&self) -> &Part {
        &self.own
    }

    /// What all servers' feedback contributed.
    #[must_use]
    pub fn sum(&self) -> &Arc<SelectionState> {
        &self.sum
    }
}
