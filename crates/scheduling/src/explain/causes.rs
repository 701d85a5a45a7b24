//! What a query was answered by, and what took its time: the main cause first.

use std::time::Duration;

use clipper_domain::explain::{AttemptEnd, AttemptKind, Because, CacheUse, Cause};

use super::record::{ModelRecord, QueryRecord, number};
use super::times::Spans;
use crate::ticket::DefaultReason;
use crate::trace::Attempt;

/// What took less of the latency than a tenth is no cause of it.
const WORTH_SAYING: u32 = 10;
/// A replica is slow if it takes so many times what was expected ...
const SLOW_TIMES: u32 = 2;
/// ... and so much more: a busy machine stalls everybody for some milliseconds.
const SLOW_MIN: Duration = Duration::from_millis(10);

/// A cause, and the time that it took.
type Timed = (Duration, Because);

pub(super) fn because(record: &QueryRecord, main: Option<(&ModelRecord, Spans)>) -> Vec<Because> {
    let mut causes = Vec::from_iter(record.default.as_ref().map(|reason| why(record, reason)));
    let is_about_time = matches!(record.default, None | Some(DefaultReason::Late));
    if let Some((model, spans)) = main.filter(|_| is_about_time || record.models.len() > 1) {
        causes.extend(of_time(record, model, spans));
    } else if let Some((model, _)) = main {
        causes.extend(attempts(model).map(|(_, because)| because));
    }
    causes.extend(stragglers(record));
    causes
}

fn because_of(cause: Cause, text: impl Into<String>) -> Because {
    Because { cause, text: text.into() }
}

fn why(record: &QueryRecord, reason: &DefaultReason) -> Because {
    let is_poisonous = record.models.iter().any(|model| model.trace.is_poisonous);
    let cause = match reason {
        DefaultReason::Unlinked => Cause::Unlinked,
        DefaultReason::NoReplica => Cause::NoReplica,
        DefaultReason::Late => Cause::Late,
        DefaultReason::Shed(_) => Cause::Shed,
        DefaultReason::Failed(_) if is_poisonous => Cause::Poisoned,
        DefaultReason::Failed(_) => Cause::Failed,
        DefaultReason::Model(_) => Cause::ModelError,
        DefaultReason::Doubtful(_) => Cause::Doubtful,
    };
    because_of(cause, reason.to_string())
}

/// What took the time, the longest first; and what else is worth knowing.
fn of_time(record: &QueryRecord, model: &ModelRecord, spans: Spans) -> Vec<Because> {
    let id = &model.model;
    let gathered = gathered(model).min(spans.queue);
    let waited = spans.queue.saturating_sub(gathered);
    let mut parts: Vec<Timed> = vec![
        admission(model, spans),
        (
            waited,
            because_of(Cause::Queue, format!("It waited {} in the queue of {id}", ms(waited))),
        ),
        (
            spans.answer,
            because_of(
                Cause::Answer,
                format!("{} passed between the model's answer and this one", ms(spans.answer)),
            ),
        ),
    ];
    if let Some(attempt) = model.trace.decisive() {
        let because = computing(model, attempt, spans);
        // One that is slower than usual is the cause whatever part of it was.
        let is_usual = because.cause == Cause::Model;
        parts.push((if is_usual { spans.container } else { spans.replica() }, because));
        parts.extend(spans.network.map(|time| (time, network(model, attempt, time))));
    }
    parts.retain(|(time, _)| *time * WORTH_SAYING >= record.latency);
    if !gathered.is_zero() {
        let text = format!("It waited {} for others to share its batch", ms(gathered));
        parts.push((gathered, because_of(Cause::Gathering, text)));
    }
    if model.cache == CacheUse::Joined {
        let text = "An equal query was under way, and its answer was waited for";
        parts.push((Duration::ZERO, because_of(Cause::Cache, text)));
    }
    parts.extend(attempts(model));
    parts.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    parts.into_iter().map(|(_, because)| because).collect()
}

fn admission(model: &ModelRecord, spans: Spans) -> Timed {
    let (cause, text) = if model.cache == CacheUse::Hit {
        (Cause::Cache, "The prediction cache had the output".to_owned())
    } else {
        let text = format!("{} passed before it was in a queue", ms(spans.admission));
        (Cause::Admission, text)
    };
    (spans.admission, because_of(cause, text))
}

fn gathered(model: &ModelRecord) -> Duration {
    model.trace.attempts.first().map_or(Duration::ZERO, |attempt| attempt.to.gathered)
}

/// What is to be said of the replica that it was waited for.
fn computing(model: &ModelRecord, attempt: &Attempt, spans: Spans) -> Because {
    let (to, id, took) = (&attempt.to, &model.model, spans.replica());
    let more = if attempt.ended.is_none() { "had taken" } else { "took" };
    let batch = match to.queries {
        1 => "this query".to_owned(),
        queries => format!("a batch of {queries} queries"),
    };
    let replica = number(to.replica).map(|n| format!("Replica {n} of {id}"));
    let replica = replica.unwrap_or_else(|| format!("A replica of {id}"));
    let text = format!("{replica} {more} {} for {batch}", ms(took));
    let longer = to.expected.filter(|it| took >= *it * SLOW_TIMES && took >= *it + SLOW_MIN);
    match (longer, to.expected) {
        (None, Some(_)) => because_of(Cause::Model, text),
        (_, None) if !to.is_cold => because_of(Cause::Model, text),
        (Some(expected), _) if !to.is_cold => {
            let text = format!("{text}, of which {} was to be expected", ms(expected));
            because_of(Cause::SlowReplica, text)
        }
        _ => because_of(Cause::Cold, format!("{text}, its first one since it had connected")),
    }
}

/// What passed between the server and a container beside computing.
fn network(model: &ModelRecord, attempt: &Attempt, time: Duration) -> Because {
    let id = &model.model;
    let replica = number(attempt.to.replica).map_or_else(String::new, |n| format!("{n} of "));
    let text = format!("{} passed on the way to replica {replica}{id} and back", ms(time));
    because_of(Cause::Network, text)
}

/// Of attempts after the first one.
fn attempts(model: &ModelRecord) -> impl Iterator<Item = Timed> {
    let attempts = &model.trace.attempts;
    let again = attempts.iter().zip(attempts.iter().skip(1)).map(|(before, attempt)| {
        let (began, next) = (before.began.unwrap_or(before.sent), attempt.began);
        let time = next.unwrap_or(attempt.sent).saturating_duration_since(began);
        let replica = |attempt: &Attempt| {
            number(attempt.to.replica).map_or_else(String::new, |n| format!(" {n}"))
        };
        let (first, second) = (replica(before), replica(attempt));
        let because = match attempt.kind {
            AttemptKind::Hedge => because_of(
                Cause::Hedge,
                format!(
                    "Replica{first} took suspiciously long: after {} replica{second} was asked \
                     too",
                    ms(time)
                ),
            ),
            AttemptKind::First | AttemptKind::Retry => because_of(
                Cause::Retry,
                format!(
                    "Replica{first} failed with it: after {} replica{second} was asked",
                    ms(time)
                ),
            ),
        };
        (time, because)
    });
    let last = attempts.last().filter(|attempt| {
        attempts.len() == 1 && attempt.ended.is_some_and(|(_, end)| end == AttemptEnd::Failed)
    });
    let is_told = matches!(model.default, Some(DefaultReason::Failed(_)));
    let alone = last.filter(|_| !is_told).map(|attempt| {
        let time = attempt.ended.map_or(Duration::ZERO, |(at, _)| at - attempt.sent);
        let text = format!("Its replica failed after {}, and no other was asked", ms(time));
        (time, because_of(Cause::Failed, text))
    });
    again.chain(alone)
}

/// Models that the answer was made without.
fn stragglers(record: &QueryRecord) -> impl Iterator<Item = Because> {
    let is_answered = record.models.iter().any(|model| model.used);
    let late =
        move |model: &&ModelRecord| is_answered && model.default == Some(DefaultReason::Late);
    record.models.iter().filter(late).map(|model| {
        let text =
            format!("{} had not answered in time: the answer was made without it", model.model);
        because_of(Cause::Straggler, text)
    })
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
