//! How a query can end.

/// The outcome in lines and spans of a request that its client has not waited for; no query is
/// counted so.
pub const GONE: &str = "gone";

/// The same of an answer in pieces whose client's key was no good any more before its end.
pub const UNAUTHORIZED: &str = "unauthorized";

/// How a query ended, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Prediction,
    /// The default output: no connected replica.
    NoReplica,
    /// The default output: the deadline passed.
    Late,
    /// The default output: the model's queue was full or could not make the deadline.
    Shed,
    /// The default output: the replica failed on this query.
    Failed,
    /// The default output, or the error itself: the model answered with an error.
    ModelError,
    /// The default output: the application's policy was not sure enough of the answer.
    Doubtful,
}

impl Outcome {
    /// Every outcome, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Prediction,
        Self::NoReplica,
        Self::Late,
        Self::Shed,
        Self::Failed,
        Self::ModelError,
        Self::Doubtful,
    ];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Prediction => "prediction",
            Self::NoReplica => "no_replica",
            Self::Late => "late",
            Self::Shed => "shed",
            Self::Failed => "failed",
            Self::ModelError => "model_error",
            Self::Doubtful => "doubtful",
        }
    }
}
