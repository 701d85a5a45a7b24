//! Why a query was answered so, as `GET /admin/explain`, predict answers and `clipper explain` say
//! it.

use serde::{Deserialize, Serialize};

/// The answer of `GET /admin/explain`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainedQueries {
    /// The newest first.
    pub queries: Vec<ExplainedQuery>,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedQuery {
    pub query_id: u64,
    /// Of the request that it came with.
    pub request_id: Option<String>,
    pub app: String,
    /// When the request had arrived: UTC, as in the journal.
    pub at: String,
    /// Why the server still knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<KeptAs>,
    /// As the metric `clipper_predictions_total` counts it.
    pub outcome: String,
    /// Of a default output.
    pub default: Option<ExplainedDefault>,
    pub latency_ms: f64,
    /// The application's objective, or the client's where that is tighter.
    pub slo_ms: f64,
    /// What they took together: of the model that was waited for longest.
    pub times_ms: Times,
    /// The main cause first.
    pub because: Vec<Because>,
    pub policy: ExplainedPolicy,
    pub models: Vec<ExplainedModel>,
}

/// Why a query is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptAs {
    Slow,
    Default,
    /// One of those that were neither.
    Sample,
}

/// Why the default output was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedDefault {
    /// As in `outcome`.
    pub reason: String,
    /// What the client was told.
    pub explanation: String,
}

/// Where the time went, milliseconds. They add up to the latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Reading, choosing, looking into the cache, until the model's queue has it.
    pub admission: f64,
    pub queue: f64,
    /// From the first replica's beginning until that of the one whose answer counted.
    pub earlier_attempts: f64,
    /// Between the server and the container, what of the wait for it was not computing; part of
    /// `container` where that does not say how long it computed.
    pub network: Option<f64>,
    pub container: f64,
    /// From the model's answer until the client's.
    pub answer: f64,
}

impl Times {
    /// All of it.
    #[must_use]
    pub fn sum(&self) -> f64 {
        let inside = self.admission + self.queue + self.earlier_attempts;
        inside + self.network.unwrap_or_default() + self.container + self.answer
    }
}

/// A cause of what became of a query, or of how long that took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    pub cause: Cause,
    /// A sentence.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Unlinked,
    NoReplica,
    Late,
    Shed,
    Failed,
    Poisoned,
    ModelError,
    Doubtful,
    Admission,
    Queue,
    Gathering,
    Retry,
    Hedge,
    /// The replica's first batch.
    Cold,
    /// It took longer than what is known of it.
    SlowReplica,
    /// It took as long as usual.
    Model,
    /// Between the server and the replica, and in what is around the model there.
    Network,
    /// A model that others did not wait for.
    Straggler,
    Answer,
    Cache,
}

/// The application's policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPolicy {
    pub name: String,
    /// How sure it is of the answer, 0 to 1, if it can tell.
    pub confidence: Option<f64>,
}

/// A model that was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedModel {
    pub model: String,
    pub version: String,
    /// With which probability the policy asks it, or its part of the vote, if there is a policy.
    pub weight: Option<f64>,
    /// Its output is the answer, or part of it.
    pub used: bool,
    /// As that of a query.
    pub outcome: String,
    pub cache: CacheUse,
    /// The one whose answer counted, or that had it last.
    pub replica: Option<u32>,
    pub batch: Option<ExplainedBatch>,
    pub attempts: Vec<ExplainedAttempt>,
    pub times_ms: Times,
}

/// What the prediction cache had of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheUse {
    /// The output.
    Hit,
    /// An equal query under way, whose answer was waited for.
    Joined,
    Miss,
    /// It was not asked.
    Off,
}

impl CacheUse {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Off => "off",
        }
    }
}

/// The batch that a query was part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedBatch {
    pub queries: u32,
    pub reason: BatchReason,
    /// The reason in words.
    pub text: String,
}

/// Why a batch has so many queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchReason {
    /// There were no others.
    AllWaiting,
    /// As many as one may have now.
    Full,
    /// It had waited a little for others.
    Gathered,
    /// As few as there may be after one that had failed.
    Limited,
    /// A full one, sent while its replica computed the one before.
    Ahead,
}

impl BatchReason {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::AllWaiting => "all_waiting",
            Self::Full => "full",
            Self::Gathered => "gathered",
            Self::Limited => "limited",
            Self::Ahead => "ahead",
        }
    }

    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AllWaiting => "All that waited",
            Self::Full => {
                "As many as a batch may have now, by the model's batch size or by what has been \
                 learned of its latency"
            }
            Self::Gathered => "All that waited, after a short wait for others",
            Self::Limited => "As few as there may be after a batch with it had failed",
            Self::Ahead => "Sent while its replica computed the batch before it",
        }
    }
}

/// A replica that was sent a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedAttempt {
    pub kind: AttemptKind,
    pub replica: Option<u32>,
    /// In its batch.
    pub queries: u32,
    /// When it began, milliseconds after the request had arrived; none if it never did.
    pub began_ms: Option<f64>,
    /// Until it answered or failed; none if it has not.
    pub took_ms: Option<f64>,
    pub end: AttemptEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptKind {
    First,
    /// After the replica before it had failed.
    Retry,
    /// While the replica before it took suspiciously long.
    Hedge,
}

impl AttemptKind {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    Answered,
    Failed,
    /// Another one had answered before.
    Outrun,
    /// It had not answered by then.
    Unanswered,
}

impl AttemptEnd {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Outrun => "outrun",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Milliseconds with three decimals.
#[must_use]
pub fn milliseconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_they_are_written() {
        fn same<T: Serialize + Copy>(all: &[T], label: fn(T) -> &'static str) {
            for one in all {
                assert_eq!(serde_json::to_value(one).unwrap(), label(*one));
            }
        }
        use {AttemptEnd as End, BatchReason as Reason};
        same(&[CacheUse::Hit, CacheUse::Joined, CacheUse::Miss, CacheUse::Off], CacheUse::label);
        same(&[AttemptKind::First, AttemptKind::Retry, AttemptKind::Hedge], AttemptKind::label);
        same(&[End::Answered, End::Failed, End::Outrun, End::Unanswered], End::label);
        let reasons = [Reason::AllWaiting, Reason::Full, Reason::Gathered, Reason::Limited];
        same(&reasons, Reason::label);
        same(&[Reason::Ahead], Reason::label);
    }
}
