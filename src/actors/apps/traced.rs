//! The models that were asked, and what is known of each query on its way through them: for
//! whoever explains the answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::actors::plane::directory::ModelHandle;
use clipper_domain::explain::CacheUse;
use clipper_scheduling::explain::ModelRecord;
use clipper_scheduling::flight::Flight;
use clipper_scheduling::ticket::{Answer, DefaultReason};

/// A query of one model.
#[derive(Debug, Clone)]
pub(super) struct TracedQuery {
    /// By which the model's replicas know it.
    number: u64,
    pub(super) cache: CacheUse,
    /// None if it was answered or refused at once.
    pub(super) flight: Option<Arc<Flight>>,
}

impl TracedQuery {
    /// One that was looked up in the cache, if that is used.
    pub(super) fn looked_up(number: u64, is_hit: bool, is_cached: bool) -> Self {
        let cache = match (is_hit, is_cached) {
            (true, _) => CacheUse::Hit,
            (false, true) => CacheUse::Miss,
            (false, false) => CacheUse::Off,
        };
        Self { number, cache, flight: None }
    }

    fn record(
        &self,
        model: &ModelHandle,
        weight: Option<f64>,
        (used, default): (bool, Option<DefaultReason>),
    ) -> ModelRecord {
        let trace = self.flight.as_ref().map(|flight| flight.trace()).unwrap_or_default();
        let of = (self.number, model.serial);
        let (model, cache) = (model.spec.id.clone(), self.cache);
        ModelRecord { model, of, weight, used, default, cache, trace }
    }
}

/// A model that was asked.
#[derive(Debug)]
pub(super) struct TracedModel {
    pub(super) model: Arc<ModelHandle>,
    /// In the order of its queries; none where nobody wants to know.
    pub(super) queries: SmallVec<[TracedQuery; 1]>,
}

/// The same, of one query.
#[derive(Debug)]
pub(super) struct TracedMember {
    pub(super) model: Arc<ModelHandle>,
    pub(super) query: TracedQuery,
    pub(super) weight: Option<f64>,
    /// Its output is the answer, or part of it.
    pub(super) used: bool,
    /// Why it has no output.
    pub(super) default: Option<DefaultReason>,
}

/// Who has answered a request, or was to.
#[derive(Debug, Clone)]
pub enum Answerer {
    One(Arc<ModelHandle>),
    /// Several models, as a header says them.
    Several(SmolStr),
}

impl Answerer {
    /// As a header says it.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::One(model) => model.shown(),
            Self::Several(models) => models,
        }
    }
}

/// The models that were asked for the queries of a request.
#[derive(Debug)]
pub(super) enum AskedModels {
    /// One for all of them, and how much it counts for each where a policy chose.
    One(Option<TracedModel>, SmallVec<[f64; 1]>),
    /// For each query its own.
    Several(Vec<SmallVec<[Option<TracedMember>; 1]>>),
}

impl AskedModels {
    /// Those that have answered, or were to.
    pub(super) fn answerer(self) -> Option<Answerer> {
        let queries = match self {
            Self::One(model, _) => return model.map(|of| Answerer::One(of.model)),
            Self::Several(queries) => queries,
        };
        let members = || queries.iter().flatten().flatten();
        let used: BTreeSet<&str> =
            members().filter(|it| it.used).map(|it| it.model.shown()).collect();
        let all = || members().map(|member| member.model.shown()).collect();
        let shown: BTreeSet<&str> = if used.is_empty() { all() } else { used };
        let text = shown.into_iter().collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then(|| Answerer::Several(text.into()))
    }

    /// What is known of them as far as query `index` goes, which was answered so.
    pub(super) fn records(&self, index: usize, answer: &Answer) -> SmallVec<[ModelRecord; 1]> {
        match self {
            Self::One(None, _) => SmallVec::new(),
            Self::One(Some(TracedModel { model, queries }), weights) => {
                let (used, default) = match answer {
                    Answer::Output(_) => (true, None),
                    // There is an output, which the policy doubts.
                    Answer::Default(DefaultReason::Doubtful(_)) => (false, None),
                    Answer::Default(reason) => (false, Some(reason.clone())),
                };
                let unknown = || TracedQuery::looked_up(0, false, false);
                let query = queries.get(index).cloned().unwrap_or_else(unknown);
                let weight = weights.get(index).copied();
                std::iter::once(query.record(model, weight, (used, default))).collect()
            }
            Self::Several(queries) => {
                let members = queries.get(index).into_iter().flatten().flatten();
                let record = |member: &TracedMember| {
                    let TracedMember { model, query, weight, used, default } = member;
                    query.record(model, *weight, (*used, default.clone()))
                };
                members.map(record).collect()
            }
        }
    }
}
