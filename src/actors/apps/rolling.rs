//! What a running rollout means for an application's requests: which version answers, which one
//! gets a copy, and what is told of the outcome.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::model_progress::ModelProgress;
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::{ModelEntry, ModelHandle};
use crate::actors::plane::rollout_outcomes::RolloutOutcomes;
use crate::metrics::AppMetrics;
use clipper_clock::{self as clock, Instant};
use clipper_domain::rollout::Rollout;
use clipper_domain::rollout::percent::Percent;
use clipper_domain::rollout::plan::RolloutKind;
use clipper_domain::{ModelName, ModelVersion};
use clipper_scheduling::parse::PredictBody;
use clipper_scheduling::ticket::{Answer, Closed};
use clipper_selection::given::GivenBy;
use clipper_selection::rollout::agree::agree;
use clipper_selection::rollout::split::{Drawn, Side, side};

/// Outputs up to this together, bytes, are compared on the thread that waits for them; a thread
/// that may take long compares larger ones.
const COMPARED_AT_ONCE_BYTES: usize = 4 << 10;

/// A copy is due so many objectives after its query: in the queue it stands behind all that have
/// one.
pub(super) const COPY_PATIENCE: u32 = 4;

/// The rollout of an application, as its actor on one worker carries it out.
#[derive(Debug)]
pub(super) struct Rolling {
    percent: Percent,
    entry: Arc<ModelEntry>,
    outcomes: Arc<RolloutOutcomes>,
    metrics: Arc<AppMetrics>,
    /// Room for copies, of all applications.
    copies: Arc<Semaphore>,
}

/// What a rollout does with one request.
#[derive(Debug)]
struct RolloutTurn {
    side: Side,
    /// Answers instead of its model's current version.
    instead: Option<Arc<ModelHandle>>,
    /// Gets a copy.
    copy_to: Option<Arc<ModelHandle>>,
}

/// A rollout in one request.
#[derive(Debug)]
pub struct Rolled {
    rolling: Arc<Rolling>,
    turn: RolloutTurn,
}

/// A copy that is to be asked of the other version.
pub(super) struct Copy {
    pub(super) model: Arc<ModelHandle>,
    pub(super) body: PredictBody,
    pub(super) room: OwnedSemaphorePermit,
}

impl Rolling {
    pub(super) fn new(
        rollout: &Rollout,
        plane: &DataPlane,
        metrics: &Arc<AppMetrics>,
        outcomes: Arc<RolloutOutcomes>,
    ) -> Self {
        Self {
            percent: rollout.percent(),
            entry: plane.directory.entry(rollout.model()),
            outcomes,
            metrics: Arc::clone(metrics),
            copies: Arc::clone(&plane.copies),
        }
    }

    /// A version without replicas gets no query: nobody is made worse off by its absence.
    fn serving(&self, version: &ModelVersion) -> Option<Arc<ModelHandle>> {
        self.entry.version(version.as_str()).filter(|model| model.replicas() > 0)
    }

    /// What it does with a request.
    pub(super) fn rolled(self: &Arc<Self>, drawn: Drawn) -> Arc<Rolled> {
        Arc::new(Rolled { rolling: Arc::clone(self), turn: self.turn(drawn) })
    }

    fn turn(&self, drawn: Drawn) -> RolloutTurn {
        let plan = &self.outcomes.plan;
        let stays = RolloutTurn { side: Side::Old, instead: None, copy_to: None };
        let is_new = !self.outcomes.is_suspended()
            && side(self.percent, self.outcomes.id, drawn) == Side::New;
        let new = is_new.then(|| self.serving(&plan.to.version)).flatten();
        let Some(new) = new else { return stays };
        if plan.kind == RolloutKind::Shadow {
            return RolloutTurn { copy_to: Some(new), ..stays };
        }
        let copy_to = plan.compares().then(|| self.serving(&plan.from.version)).flatten();
        RolloutTurn { side: Side::New, instead: Some(new), copy_to }
    }

    /// Room for a copy to `model`, unless it has anything else to do: last in the queue, first to
    /// go.
    fn room_for_copy(&self, model: &ModelHandle) -> Option<OwnedSemaphorePermit> {
        let is_busy = model.load().waiting > 0 || model.intake().waiting() > 0;
        if is_busy { None } else { Arc::clone(&self.copies).try_acquire_owned().ok() }
    }

    fn watch(
        &self,
        side: Side,
        arrived: Instant,
        copy: Option<(ModelProgress, OwnedSemaphorePermit)>,
    ) -> Option<Box<Watched>> {
        let original = copy.map(|(progress, permit)| {
            let (told, original) = oneshot::channel();
            let copy = Copied {
                outcomes: Arc::clone(&self.outcomes),
                metrics: Arc::clone(&self.metrics),
                arrived,
                permit,
            };
            actix::spawn(copy.compare(progress, original));
            told
        });
        // The old version's answers alone say nothing of the new one.
        if side == Side::Old && original.is_none() {
            return None;
        }
        let (outcomes, metrics) = (Arc::clone(&self.outcomes), Arc::clone(&self.metrics));
        Some(Box::new(Watched { outcomes, metrics, arrived, side, original }))
    }
}

impl Rolled {
    /// Which version answers.
    pub(super) fn by(&self) -> GivenBy {
        GivenBy { rollout: self.rolling.outcomes.id, side: self.turn.side }
    }

    /// Whether it is a rollout of this model.
    pub(super) fn is_of(&self, model: &ModelName) -> bool {
        self.rolling.entry.name() == model
    }

    /// Answers instead of its model's current version.
    pub(super) fn instead(&self) -> Option<&Arc<ModelHandle>> {
        self.turn.instead.as_ref()
    }

    /// A copy of what its model is asked, if the other version is to have one and there is room.
    pub(super) fn copy(&self, body: &PredictBody) -> Option<Copy> {
        let model = Arc::clone(self.turn.copy_to.as_ref()?);
        let room = self.rolling.room_for_copy(&model)?;
        let (inputs, digests) = (body.inputs.clone(), body.digests.clone());
        let body = PredictBody { inputs, digests, version: None, uid: body.uid, key: None };
        Some(Copy { model, body, room })
    }

    /// Watches what its model answers, if the guards look at it; `copy`: the other version's
    /// answers on their way.
    pub(super) fn watch(
        &self,
        arrived: Instant,
        copy: Option<(ModelProgress, OwnedSemaphorePermit)>,
    ) -> Option<Box<Watched>> {
        self.rolling.watch(self.turn.side, arrived, copy)
    }
}

/// A request whose outcome the guards look at.
#[derive(Debug)]
pub struct Watched {
    outcomes: Arc<RolloutOutcomes>,
    metrics: Arc<AppMetrics>,
    arrived: Instant,
    side: Side,
    /// To whoever compares them with a copy's.
    original: Option<oneshot::Sender<SmallVec<[Answer; 1]>>>,
}

impl Watched {
    /// What came of each query.
    pub(super) fn answered(self, answers: &[Answer]) {
        if self.side == Side::New {
            let asked = self.outcomes.answered(answers, clock::now() - self.arrived);
            self.metrics.rollout.exposed(asked);
        }
        if let Some(original) = self.original {
            // Whoever compares may have given up.
            let _ = original.send(answers.into());
        }
    }
}

/// A copy under way; its answers are only looked at.
struct Copied {
    outcomes: Arc<RolloutOutcomes>,
    metrics: Arc<AppMetrics>,
    arrived: Instant,
    /// Given back when it has been compared.
    permit: OwnedSemaphorePermit,
}

impl Copied {
    async fn compare(
        self,
        progress: ModelProgress,
        original: oneshot::Receiver<SmallVec<[Answer; 1]>>,
    ) {
        progress.in_time().await;
        let Ok(Closed { answers: copied, held: _held }) = progress.close() else { return };
        if self.outcomes.plan.kind == RolloutKind::Shadow {
            let asked = self.outcomes.answered(&copied, clock::now() - self.arrived);
            self.metrics.rollout.exposed(asked);
        }
        // The request was given up.
        let Ok(original) = original.await else { return };
        let bytes: usize = copied.iter().map(Answer::bytes).sum();
        let count = move || different(&original, &copied);
        let compared = if bytes <= COMPARED_AT_ONCE_BYTES {
            Some(count())
        } else {
            tokio::task::spawn_blocking(count).await.ok()
        };
        if let Some((queries, different)) = compared {
            self.outcomes.compared(queries, different);
        }
        drop(self.permit);
    }
}

/// Queries that both answered, and those of them that were answered differently.
fn different(original: &[Answer], copied: &[Answer]) -> (usize, usize) {
    let (mut queries, mut different) = (0, 0);
    for pair in original.iter().zip(copied) {
        if let (Answer::Output(one), Answer::Output(other)) = pair {
            queries += 1;
            different += usize::from(!agree(one.json(), other.json()));
        }
    }
    (queries, different)
}
