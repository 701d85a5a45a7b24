//! One model asked about some queries of a request.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use smallvec::SmallVec;

use super::model_progress::ModelProgress;
use super::rolling::{Rolled, Watched};
use super::traced::{AskedModels, TracedModel};
use crate::actors::plane::directory::ModelHandle;
use clipper_clock::Instant;
use clipper_scheduling::parse::PredictBody;
use clipper_scheduling::query_context::Carried;
use clipper_scheduling::share::{Class, Tenant};
use clipper_scheduling::ticket::{Closed, Excess};

/// A model is asked about these inputs, in the time that their request has left. Sender: the
/// request's handler, on the same thread. Reply: that model's answers on their way.
#[derive(Debug, Message)]
#[rtype(result = "Asked")]
pub struct AskModel {
    pub model: Arc<ModelHandle>,
    pub body: PredictBody,
    pub request: RequestTimes,
    /// What a rollout does with the request.
    pub rolled: Option<Arc<Rolled>>,
}

/// When a request came, until when it is answered, and for whom.
#[derive(Debug, Clone)]
pub struct RequestTimes {
    /// When it had arrived.
    pub arrived: Instant,
    /// Its answers are due so long after that.
    pub objective: Duration,
    /// An answer of several models is made so long before that (`serving.ensemble_margin_us`).
    pub margin: Duration,
    /// Id of its first query.
    pub first_query_id: u64,
    /// What its queries count among those of the application.
    pub class: Class,
    /// Who asks.
    pub tenant: Tenant,
    /// Whether somebody may want to know what happens to its queries.
    pub traced: bool,
    /// The trace that it belongs to.
    pub trace: Option<Carried>,
}

/// How long an answer may take so that it arrives within `objective`: `early`
/// (`serving.answer_margin_us`) is for its way and for timers, at most a twenty-fifth of all.
#[must_use]
pub fn due_within(objective: Duration, early: Duration) -> Duration {
    objective.saturating_sub(early.min(objective / 25))
}

impl RequestTimes {
    pub(super) fn deadline(&self) -> Instant {
        self.arrived + self.objective
    }
}

/// A model's answers on their way.
#[derive(Debug)]
pub struct Asked {
    pub(super) progress: ModelProgress,
    /// Looked at by a rollout's guards.
    pub(super) watched: Option<Box<Watched>>,
    pub(super) traced: Option<TracedModel>,
}

impl From<ModelProgress> for Asked {
    fn from(progress: ModelProgress) -> Self {
        Self { progress, watched: None, traced: None }
    }
}

impl Asked {
    /// Waits for them, until the deadline.
    ///
    /// # Errors
    /// They take too much room.
    pub(super) async fn closed(self) -> Result<Closed, Excess> {
        self.progress.in_time().await;
        self.close()
    }

    /// Takes what has arrived; what has not is late.
    ///
    /// # Errors
    /// They take too much room.
    pub(super) fn close(self) -> Result<Closed, Excess> {
        let closed = self.progress.close()?;
        if let Some(watched) = self.watched {
            watched.answered(&closed.answers);
        }
        Ok(closed)
    }
}

/// Answers, and how sure a policy is of each.
#[derive(Debug)]
pub(super) struct SureAnswers {
    pub(super) closed: Closed,
    /// Of those that have one; none beyond its end.
    pub(super) confidences: SmallVec<[Option<f64>; 1]>,
    /// Whose they are.
    pub(super) models: AskedModels,
}

impl SureAnswers {
    /// Those of the one model that was asked, as they are.
    pub(super) fn of(closed: Closed, model: Option<TracedModel>) -> Self {
        let models = AskedModels::One(model, SmallVec::new());
        Self { closed, confidences: SmallVec::new(), models }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_due_a_little_before_the_objective() {
        let ms = Duration::from_millis;
        assert_eq!(due_within(ms(500), ms(10)), ms(490));
        assert_eq!(due_within(ms(50), ms(10)), ms(48), "a twenty-fifth at most");
        assert_eq!(due_within(ms(250), ms(0)), ms(250));
    }
}
