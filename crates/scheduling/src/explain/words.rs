//! Those facts, told.

use clipper_clock::Instant;
use clipper_domain::Outcome;
use clipper_domain::explain::{
    AttemptEnd, ExplainedAttempt, ExplainedBatch, ExplainedDefault, ExplainedModel,
    ExplainedPolicy, ExplainedQuery, milliseconds,
};

use super::causes;
use super::record::{ModelRecord, QueryRecord, number};
use super::times::Spans;
use crate::ticket::DefaultReason;
use crate::trace::Attempt;

impl QueryRecord {
    /// In words; `at`: when its request had arrived.
    #[must_use]
    pub fn explained(&self, at: String) -> ExplainedQuery {
        let spans: Vec<Spans> = self.models.iter().map(|model| self.spans(model)).collect();
        // Who answered or was refused at once was not waited for.
        let is_awaited = |at: usize| self.models.get(at).is_some_and(ModelRecord::is_awaited);
        let time = |at: usize| spans.get(at).map(|it| self.latency.saturating_sub(it.answer));
        let waited = |at: &usize| (is_awaited(*at), time(*at));
        let main = (0..spans.len()).max_by_key(waited);
        let main = main.and_then(|at| Some((self.models.get(at)?, *spans.get(at)?)));
        let of_nobody = Spans { admission: self.latency, ..Spans::default() };
        ExplainedQuery {
            query_id: self.query_id,
            request_id: self.request_id.as_ref().map(ToString::to_string),
            app: self.app.as_str().to_owned(),
            at,
            kept_as: None,
            outcome: outcome(self.default.as_ref()).to_owned(),
            default: self.default.as_ref().map(|reason| ExplainedDefault {
                reason: reason.outcome().label().to_owned(),
                explanation: reason.to_string(),
            }),
            latency_ms: milliseconds(self.latency),
            slo_ms: milliseconds(self.objective),
            times_ms: main.map_or(of_nobody, |(_, spans)| spans).times(),
            because: causes::because(self, main),
            policy: ExplainedPolicy { name: self.policy.to_string(), confidence: self.confidence },
            models: self
                .models
                .iter()
                .zip(&spans)
                .map(|(model, spans)| model.explained(self.arrived, *spans))
                .collect(),
        }
    }

    fn spans(&self, model: &ModelRecord) -> Spans {
        let waits_again = !matches!(model.default, Some(DefaultReason::Failed(_)));
        Spans::of(&model.trace, (self.arrived, self.latency), waits_again)
    }
}

impl ModelRecord {
    fn is_awaited(&self) -> bool {
        self.trace.queued.is_some() || self.default == Some(DefaultReason::Late)
    }

    fn explained(&self, arrived: Instant, spans: Spans) -> ExplainedModel {
        let decisive = self.trace.decisive();
        ExplainedModel {
            model: self.model.name.as_str().to_owned(),
            version: self.model.version.as_str().to_owned(),
            weight: self.weight,
            used: self.used,
            outcome: outcome(self.default.as_ref()).to_owned(),
            cache: self.cache,
            replica: decisive.and_then(|attempt| number(attempt.to.replica)),
            batch: decisive.map(|Attempt { to, .. }| ExplainedBatch {
                queries: to.queries,
                reason: to.reason,
                text: to.reason.text().to_owned(),
            }),
            attempts: self.trace.attempts.iter().map(|it| attempt(it, arrived)).collect(),
            times_ms: spans.times(),
        }
    }
}

fn attempt(attempt: &Attempt, arrived: Instant) -> ExplainedAttempt {
    let Attempt { kind, to, began, ended, .. } = attempt;
    let took = began.zip(*ended).map(|(began, (end, _))| end.saturating_duration_since(began));
    let began = began.map(|began| began.saturating_duration_since(arrived));
    ExplainedAttempt {
        kind: *kind,
        replica: number(to.replica),
        queries: to.queries,
        began_ms: began.map(milliseconds),
        took_ms: took.map(milliseconds),
        end: ended.map_or(AttemptEnd::Unanswered, |(_, end)| end),
    }
}

fn outcome(default: Option<&DefaultReason>) -> &'static str {
    default.map_or(Outcome::Prediction, DefaultReason::outcome).label()
}
