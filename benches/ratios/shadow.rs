//! What a shadow of all queries costs those whom they come from.

use std::process::{Command, Stdio};
use std::time::Duration;

use clipper_tools::bench::report::Report;

use crate::Result;
use crate::limits::{SLEEP, SLO, ideal, open, sleepy};
use crate::setup::{self, Server, Settings, Shape, note};
use crate::table::{Table, median};

/// Parts of what one replica can answer.
const LOADS: [f64; 3] = [0.5, 0.9, 1.1];
/// The application without a rollout, and the one whose model has a shadow.
const APPS: [&str; 2] = ["app0", "app1"];
/// Load on each application before anything is measured.
const WARMUP: Duration = Duration::from_secs(1);

/// Sends copies of all queries of `app1` to a version 2 of its model.
fn shadow(settings: &Settings, server: &Server) -> Result<()> {
    let lines = [
        "admin models add model1 2 --input-type doubles --no-switch",
        "rollout start app1 --from model1:1 --to model1:2 --kind shadow --steps 100 --hold 1h \
         --guard errors<99% --guard disagreement<99%",
    ];
    for line in lines {
        let done = Command::new(&settings.clipper)
            .args(line.split_whitespace())
            .env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management))
            .stdout(Stdio::null())
            .status()?;
        if !done.success() {
            return Err(format!("clipper {line}: {done}").into());
        }
    }
    Ok(())
}

/// Alternating rounds of the same load on both applications.
pub(crate) fn shadowed(settings: &Settings) -> Result<Table> {
    let shape = Shape { apps: APPS.len(), ..sleepy() };
    let mut server = Server::start(settings, &shape)?;
    shadow(settings, &server)?;
    for (model, version) in [(0, "1"), (1, "1"), (1, "2")] {
        server.replica(model, version, SLEEP)?;
    }
    let exposed = || server.metric("clipper_rollout_exposed_total{app=\"app1\"}").unwrap_or(0.0);
    let columns =
        ["offered/s", "goodput/s", "shadowed", "ratio", "p99 ms", "shadowed", "ratio", "copied %"];
    let mut table = Table::new("shadow", &columns);
    for load in LOADS {
        note(format_args!("{load} x capacity ..."));
        let mut reports: [Vec<Report>; APPS.len()] = Default::default();
        let mut copied = 0.0;
        for _ in 0..settings.rounds {
            for (app, reports) in APPS.iter().zip(&mut reports) {
                let mut plan = open(settings, &server, ideal() * load);
                (*app).clone_into(&mut plan.target.app);
                plan.warmup = WARMUP;
                let before = exposed();
                reports.push(setup::load(&plan)?);
                copied += exposed() - before;
            }
        }
        let [plain, shadowed] = reports.map(|reports| {
            let of = |of: fn(&Report) -> f64| median(&reports.iter().map(of).collect::<Vec<_>>());
            (of(|report| report.goodput_per_s), of(|report| report.prediction_latency.p99_ms))
        });
        let seconds = settings.seconds + WARMUP.as_secs_f64();
        let sent = ideal() * load * seconds * setup::number(settings.rounds as u64);
        table.row(
            format!("{load} x"),
            &[
                ideal() * load,
                plain.0,
                shadowed.0,
                shadowed.0 / plain.0,
                plain.1,
                shadowed.1,
                shadowed.1 / plain.1,
                copied / sent * 100.0,
            ],
        );
    }
    if server.metric("clipper_rollout_step{app=\"app1\"}") != Some(1.0) {
        return Err("the rollout has ended while it was measured".into());
    }
    table.note(format!(
        "Medians of {} alternating rounds of {} s; a model takes {SLEEP:?} for a batch, objective \
         {SLO:?}. Wanted: goodput >= 0.97 of that without a shadow, p99 <= 1.03.",
        settings.rounds, settings.seconds
    ));
    Ok(table)
}
