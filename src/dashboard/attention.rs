//! What needs attention, and what to do about it. Pure.

use serde::Serialize;

/// How bad it is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Clients do not get what they ask for.
    Bad,
    /// Some do not, or soon will not.
    Warn,
}

/// Something that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Notice {
    pub level: Level,
    /// What it is.
    pub text: String,
    /// What to do.
    pub advice: String,
}

fn notice(level: Level, text: String, advice: impl Into<String>) -> Notice {
    Notice { level, text, advice: advice.into() }
}

/// An application, as far as it decides what needs attention.
#[derive(Debug, Clone, Copy, Default)]
pub struct AppFacts<'a> {
    pub name: &'a str,
    pub objective_ms: f64,
    /// In the time looked at.
    pub answered: u64,
    pub rejected: u64,
    /// Default outputs among them, and the most frequent reason.
    pub defaults: u64,
    pub reason: Option<&'a str>,
    pub p99_ms: Option<f64>,
    /// Models that its queries go to, and those among them that nobody serves.
    pub linked: usize,
    pub unserved: &'a [String],
    /// Why its rollout was rolled back, if the last one was.
    pub rolled_back: Option<&'a str>,
}

/// Shares of the answers from which on defaults are worth a look, and from which on they are bad.
const DEFAULTS_WARN: f64 = 0.01;
const DEFAULTS_BAD: f64 = 0.1;

/// What an application needs, the worst first.
#[must_use]
pub fn of_app(app: &AppFacts<'_>) -> Vec<Notice> {
    let mut notices = Vec::new();
    let name = app.name;
    if app.linked == 0 {
        let text = "No model is linked: every query gets the default output".to_owned();
        let advice = format!("clipper admin links add {name} MODEL");
        notices.push(notice(Level::Bad, text, advice));
    }
    let level = if app.unserved.len() >= app.linked { Level::Bad } else { Level::Warn };
    for model in app.unserved {
        let text = format!("Model {model} has no replica that serves");
        notices.push(notice(level, text, "See the model's page for what its processes wrote last"));
    }
    if app.defaults > 0 && app.linked > 0 {
        let share = app.defaults as f64 / app.answered.max(1) as f64;
        if share >= DEFAULTS_WARN {
            let level = if share >= DEFAULTS_BAD { Level::Bad } else { Level::Warn };
            let reason = app.reason.unwrap_or("unknown");
            let text = format!("{} of answers are defaults, most: {reason}", percent(share));
            notices.push(notice(level, text, remedy(reason)));
        }
    }
    if let Some(p99) = app.p99_ms.filter(|p99| *p99 > app.objective_ms) {
        let text = format!(
            "1 in 100 answers took {p99:.1} ms or more; the SLO is {} ms",
            app.objective_ms
        );
        let advice = "See which times are long in its explained queries; add replicas if it is \
                      the queue";
        notices.push(notice(Level::Warn, text, advice));
    }
    if app.rejected > 0 {
        let text = format!("{} requests were refused", app.rejected);
        let advice = "Malformed, too large, or above a limit: clients were told which";
        notices.push(notice(Level::Warn, text, advice));
    }
    if let Some(why) = app.rolled_back {
        let text = format!("Its rollout was rolled back: {why}");
        notices.push(notice(Level::Warn, text, "Mend the version, then start a rollout again"));
    }
    notices.sort();
    notices
}

/// What to do about default outputs for this reason.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "no_replica" => "Start a replica: its model's page says what the last ones wrote",
        "late" => "The model is slower than the SLO: see its learned latency, or allow more time",
        "shed" => "More comes than the replicas can do: add replicas",
        "failed" => "Replicas die or hang: see the model's last output",
        "model_error" => "The model answers with errors: see the explained queries",
        "doubtful" => "The policy was not sure: see confidence and agreement of its models",
        _ => "See the explained queries",
    }
}

/// A model version, as far as it decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelFacts<'a> {
    pub current: bool,
    /// Applications that ask it.
    pub asked_by: usize,
    pub replicas: u64,
    /// Processes that this server keeps, and how many of them do not serve.
    pub kept: usize,
    pub not_serving: usize,
    /// The most failures in a row of one of them, and why it ended last.
    pub failures: u32,
    pub last_end: Option<&'a str>,
}

/// Failures in a row from which on a process counts as broken.
const FAILURES_BAD: u32 = 3;

/// What a model version needs, the worst first.
#[must_use]
pub fn of_model(model: &ModelFacts<'_>) -> Vec<Notice> {
    let mut notices = Vec::new();
    if model.failures > 0 {
        let level = if model.failures >= FAILURES_BAD { Level::Bad } else { Level::Warn };
        let why = model.last_end.unwrap_or("its end is unknown");
        let text = format!("A process ended {} times in a row: {why}", model.failures);
        notices.push(notice(level, text, "See its last output lines"));
    } else if model.not_serving > 0 {
        let text = format!("{} of {} processes do not serve", model.not_serving, model.kept);
        let mut advice = "They are started again by themselves".to_owned();
        if let Some(why) = model.last_end {
            advice = format!("{advice}; the last one ended: {why}");
        }
        notices.push(notice(Level::Warn, text, advice));
    }
    if model.current && model.asked_by > 0 && model.replicas == 0 && model.kept == 0 {
        let text = "No container serves it".to_owned();
        notices.push(notice(Level::Bad, text, "Start a container, or clipper deploy"));
    }
    notices.sort();
    notices
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> AppFacts<'static> {
        let name = "digits";
        AppFacts {
            name,
            objective_ms: 100.0,
            answered: 1_000,
            p99_ms: Some(20.0),
            linked: 1,
            ..AppFacts::default()
        }
    }

    #[test]
    fn what_does_well_needs_nothing() {
        assert!(of_app(&healthy()).is_empty());
        assert!(of_app(&AppFacts { defaults: 9, reason: Some("late"), ..healthy() }).is_empty());
        assert!(
            of_model(&ModelFacts { current: true, asked_by: 1, replicas: 1, ..Default::default() })
                .is_empty()
        );
    }

    #[test]
    fn the_worst_comes_first_and_says_what_to_do() {
        let unserved = ["net:1".to_owned()];
        let app = AppFacts {
            defaults: 500,
            reason: Some("no_replica"),
            unserved: &unserved,
            p99_ms: Some(120.0),
            ..healthy()
        };
        let notices = of_app(&app);
        assert_eq!(notices.len(), 3);
        assert_eq!(notices[0].level, Level::Bad);
        assert!(notices[0].text.starts_with("50.0 % of answers are defaults"), "{notices:?}");
        assert!(notices[0].advice.starts_with("Start a replica"));
        assert_eq!(notices[2].level, Level::Warn);
        let none = of_app(&AppFacts { linked: 0, ..healthy() });
        assert!(none[0].advice.contains("links add digits"), "{none:?}");
    }

    #[test]
    fn one_of_several_models_without_replicas_is_not_the_worst() {
        let unserved = ["b:1".to_owned()];
        let app = AppFacts { linked: 2, unserved: &unserved, ..healthy() };
        assert_eq!(of_app(&app)[0].level, Level::Warn);
    }

    #[test]
    fn a_process_that_fails_again_and_again_is_bad() {
        let broken = ModelFacts { kept: 2, not_serving: 1, failures: 3, ..Default::default() };
        assert_eq!(of_model(&broken)[0].level, Level::Bad);
        let restarted = ModelFacts { kept: 2, not_serving: 1, ..Default::default() };
        assert!(of_model(&restarted)[0].text.starts_with("1 of 2"));
        let alone = ModelFacts { current: true, asked_by: 2, ..Default::default() };
        assert_eq!(of_model(&alone)[0].text, "No container serves it");
    }
}
