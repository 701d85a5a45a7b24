//! What choosing among models costs.

use std::fmt::Write as _;
use std::time::Duration;

use clipper_tools::bench::inputs::Choice;

use crate::Result;
use crate::cases::Series;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::Table;

/// Models of the ensemble, and of the server.
const MODELS: usize = 4;
/// Load on each application before anything is measured, seconds.
const WARMUP_S: f64 = 1.0;

/// An application, and its policy; without one it has the default policy.
struct Case {
    name: &'static str,
    app: &'static str,
    policy: &'static str,
    models: usize,
    choice: Choice,
}

const fn case(name: &'static str, app: &'static str, policy: &'static str, models: usize) -> Case {
    Case { name, app, policy, models, choice: Choice::Unique }
}

const HALVES: &str = "name = \"weighted\"\nweights = { model0 = 1, model1 = 1 }";

/// `app0` is the first of the server's usual applications. Policies that choose among several
/// models split the load, and batches get smaller; those of one model show what choosing costs.
const CASES: [Case; 7] = [
    Case { choice: Choice::Same, ..case("default, cache hit", "app0", "", 1) },
    case("default", "app0", "", 1),
    case("weighted, 1 model", "w1", "name = \"weighted\"\nweights = { model0 = 1 }", 1),
    case("exp3, 1 model", "x1", "name = \"exp3\"", 1),
    case("weighted, 2 models", "w2", HALVES, 2),
    case("exp3, 2 models", "x2", "name = \"exp3\"", 2),
    case("majority of 4", "e4", "name = \"majority\"", MODELS),
];

fn config(settings: &Settings) -> Result<String> {
    let mut text = settings.config.clone();
    let slo_us = Shape::RATIOS.slo.as_micros();
    for Case { app, policy, models, .. } in CASES.iter().filter(|case| !case.policy.is_empty()) {
        let models: Vec<String> = (0..*models).map(|n| format!("\"model{n}\"")).collect();
        write!(
            text,
            "\n[[application]]\nname = \"{app}\"\ninput_type = \"doubles\"\n\
             default_output = \"-1\"\nlatency_slo_micros = {slo_us}\nmodels = [{}]\n\
             [application.policy]\n{policy}\n",
            models.join(", ")
        )?;
    }
    Ok(text)
}

/// Alternating rounds of unique inputs to applications of one server under several policies.
pub(crate) fn selection(settings: &Settings) -> Result<Table> {
    let with_policies = Settings { config: config(settings)?, ..settings.clone() };
    let mut server = Server::start(&with_policies, &Shape { apps: MODELS, ..Shape::RATIOS })?;
    for model in 0..MODELS {
        server.replicas(model, 1, Duration::ZERO)?;
    }
    let plan_of = |case: &Case| {
        let mut plan = plan(settings, server.query);
        case.app.clone_into(&mut plan.target.app);
        plan.inputs.choice = case.choice;
        plan
    };
    for case in &CASES {
        let mut plan = plan_of(case);
        plan.duration = Duration::from_secs_f64(WARMUP_S);
        setup::load(&plan)?;
    }
    let mut series: [Series; CASES.len()] = Default::default();
    for round in 0..settings.rounds {
        note(format_args!("round {} ...", round + 1));
        for (case, series) in CASES.iter().zip(&mut series) {
            series.push(measure(&plan_of(case), &server.process, &server.containers)?);
        }
    }
    let columns = ["server us", "ratio", "contnr us", "queries/s", "p99 ms", "no answer"];
    let mut table = Table::new("selection", &columns);
    let [hit, miss, ..] = &series;
    for (case, series) in CASES.iter().zip(&series) {
        table.row(
            case.name,
            &[
                series.server_us(),
                series.server_us() / miss.server_us(),
                series.median(|m| m.containers_us),
                series.median(|m| m.report.queries_per_s),
                series.median(|m| m.report.latency.p99_ms),
                series.not_predicted(),
            ],
        );
    }
    // What a hit costs is HTTP's part; what a miss costs more is its container's.
    let (http, part) = (hit.server_us(), miss.server_us() - hit.server_us());
    let ensemble = series.last().map_or(f64::NAN, Series::server_us);
    table.note(format!(
        "Medians of {} alternating rounds of {} s at 64 connections; ratio: to `default`. Wanted: \
         weighted and exp3 <= 1.05. HTTP's part {http:.2} us, a container's {part:.2}; the \
         ensemble has {:.2} containers' parts, wanted <= 4.2.",
        settings.rounds,
        settings.seconds,
        (ensemble - http) / part,
    ));
    Ok(table)
}
