//! Why a model version that is tried out is not deployed.

use std::time::Duration;

use clipper_domain::ModelId;

/// The command line looks for some of these words, to say what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TrialError {
    #[error("the container pool ended; try again")]
    PoolEnded,
    #[error("the container ended before it connected ({0})")]
    EndedEarly(String),
    #[error("the container's connection was refused: {0}")]
    Refused(String),
    #[error("the container ended on a trial query ({0})")]
    EndedOnQuery(String),
    #[error("the container failed on a trial query: {0}")]
    FailedOnQuery(String),
    #[error("the container's connection ended")]
    ConnectionEnded,
    #[error("another replica did not come up: {0}")]
    AnotherFailed(String),
    /// The model answered, and not with an output.
    #[error("the model failed on a trial query: {0}")]
    ModelFailed(String),
    /// It is none of the model's signature, which is known only now.
    #[error("the trial input is none of this model: {0}")]
    NoInput(String),
    #[error("no trial input can be made up ({0}): give it one (--example)")]
    NothingMadeUp(String),
    #[error("its output is not JSON: {0}")]
    NotJson(String),
    #[error("{}", late(*.phase, .id, *.limit))]
    Late { phase: Phase, id: ModelId, limit: Duration },
}

/// What a trial is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Answering,
    WarmingUp,
    Growing,
}

fn late(phase: Phase, id: &ModelId, limit: Duration) -> String {
    match phase {
        Phase::Connecting => format!(
            "no container connected as {id} within {limit:?}, though its process runs; does \
             loading its model take longer (--timeout), or does it connect elsewhere than to \
             CLIPPER_IP and CLIPPER_PORT under that name and version?"
        ),
        Phase::Answering => {
            format!("the container connected and did not answer a trial query within {limit:?}")
        }
        Phase::WarmingUp => format!(
            "a replica answered the trial and did not end its warm-up within {limit:?} \
             (management.deploy_warm_up_ms)"
        ),
        Phase::Growing => format!(
            "one replica answers, but not all of those asked for have connected within {limit:?}"
        ),
    }
}
