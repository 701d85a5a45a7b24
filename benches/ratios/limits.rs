//! What the server keeps at and beyond its limits.

use std::time::Duration;

use clipper_tools::bench::inputs::Choice;
use clipper_tools::bench::report::Report;
use clipper_tools::bench::search::GoodputSearch;
use clipper_tools::bench::{Arrivals, Load, Plan};
use nix::sys::signal::Signal;

use crate::Result;
use crate::process::pause;
use crate::setup::{self, Server, Settings, Shape, note, plan};
use crate::table::{Table, median};

/// Time that the model takes for a batch.
pub(crate) const SLEEP: Duration = Duration::from_millis(5);
/// The objective of its application.
pub(crate) const SLO: Duration = Duration::from_millis(20);
/// Queries of a batch at most, so that the model is the limit and not HTTP.
const BATCH_MAX: u8 = 16;
/// Connections of the open loops: some more than are used at once. The server closes those that
/// stay silent, all in the same moment; closing 1,000 holds up queries on their threads for 30 ms.
const CONNECTIONS: usize = 200;

pub(crate) fn sleepy() -> Shape {
    let env = vec![("CLIPPER_SERVING__BATCH_MAX", BATCH_MAX.to_string())];
    Shape { apps: 1, slo: SLO, env }
}

/// Queries per second that one replica can answer at most.
pub(crate) fn ideal() -> f64 {
    f64::from(BATCH_MAX) / SLEEP.as_secs_f64()
}

/// An open loop at `rate` queries per second.
pub(crate) fn open(settings: &Settings, server: &Server, rate: f64) -> Plan {
    let mut plan = plan(settings, server.query);
    plan.load = Load::Open { rate, arrivals: Arrivals::Poisson };
    plan.connections = CONNECTIONS;
    plan.slo = SLO;
    plan.warmup = Duration::from_secs(2);
    plan
}

/// Goodput against the ideal: when that rate is offered, and at the highest rate with 99 % of
/// queries in time.
pub(crate) fn sleep(settings: &Settings) -> Result<Table> {
    let mut server = Server::start(settings, &sleepy())?;
    server.replicas(0, 1, SLEEP)?;
    let mut table = Table::new(
        "sleep",
        &["offered/s", "goodput/s", "of ideal", "in time %", "p50 ms", "p99 ms", "max ms"],
    );
    let mut measure = |name: &str, rate: f64| -> Result<Report> {
        let report = setup::load(&open(settings, &server, rate))?;
        table.row(
            name,
            &[
                rate,
                report.goodput_per_s,
                report.goodput_per_s / ideal(),
                report.share_in_time * 100.0,
                report.prediction_latency.p50_ms,
                report.prediction_latency.p99_ms,
                report.latency.max_ms,
            ],
        );
        Ok(report)
    };
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        rounds.push(measure("ideal rate", ideal())?);
    }
    let mut search = GoodputSearch::new(ideal() / 4.0, ideal() * 2.0);
    while let Some(rate) = search.next_rate() {
        search.record(measure("search", rate)?.share_in_time);
    }
    let of = |of: fn(&Report) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let best = search.best().unwrap_or(0.0);
    table.note(format!(
        "Model: {SLEEP:?} for each batch of at most {BATCH_MAX}, so {:.0}/s are ideal; objective \
         {SLO:?}. Median of {} rounds at that rate: goodput {:.3} of the ideal, p99 of predictions \
         {:.1} ms. Wanted: 0.95 and {SLO:?}. Highest rate with 99 % in time: {best:.0}/s, {:.3} of \
         the ideal.",
        ideal(),
        rounds.len(),
        of(|report| report.goodput_per_s) / ideal(),
        of(|report| report.prediction_latency.p99_ms),
        best / ideal(),
    ));
    Ok(table)
}

/// From half to five times the capacity, with the same server.
pub(crate) fn overload(settings: &Settings) -> Result<Table> {
    let mut server = Server::start(settings, &sleepy())?;
    server.replicas(0, 1, SLEEP)?;
    let columns = [
        "offered/s",
        "goodput/s",
        "of peak",
        "default/s",
        "errors",
        "p99 ms",
        "max ms",
        "gen p99",
        "gen max",
        "RSS MiB",
    ];
    let mut table = Table::new("overload", &columns);
    let mut peak = 0.0_f64;
    for times in [0.5, 0.9, 1.1, 2.0, 5.0] {
        note(format_args!("{times} x capacity ..."));
        let report = setup::load(&open(settings, &server, ideal() * times))?;
        peak = peak.max(report.goodput_per_s);
        table.row(
            format!("{times} x"),
            &[
                ideal() * times,
                report.goodput_per_s,
                report.goodput_per_s / peak,
                report.queries_per_s * (1.0 - share_predicted(&report)),
                setup::number(report.errors()),
                report.prediction_latency.p99_ms,
                report.latency.max_ms,
                report.send_lag.p99_ms,
                report.send_lag.max_ms,
                server.process.rss_mib()?,
            ],
        );
        for (why, count) in &report.defaults {
            table.note(format!("{times} x: {count} default outputs: {why}"));
        }
    }
    table.note(format!(
        "Capacity: {:.0}/s. p99: of predictions; max: of all answers; gen: lag of the \
         generator itself, which is in the others. Wanted at 5 x: of peak >= 0.95, p99 <= \
         {SLO:?}, max <= {SLO:?} + 5 ms.",
        ideal()
    ));
    Ok(table)
}

fn share_predicted(report: &Report) -> f64 {
    let defaults: u64 = report.defaults.values().sum();
    setup::number(report.predictions) / setup::number(report.predictions + defaults)
}

/// One of four replicas stops without a word; counted from two objectives later.
pub(crate) fn frozen(settings: &Settings) -> Result<Table> {
    let columns = ["offered/s", "in time %", "late", "default", "errors", "p99 ms", "max ms"];
    let mut table = Table::new("frozen", &columns);
    for round in 0..settings.rounds {
        let mut server = Server::start(settings, &sleepy())?;
        server.replicas(0, 4, SLEEP)?;
        let before = Duration::from_secs(2);
        // Three replicas have room for it.
        let mut plan = open(settings, &server, ideal());
        plan.warmup = before + 2 * SLO;
        let report = std::thread::scope(|scope| {
            let load = scope.spawn(|| setup::load(&plan));
            pause(before);
            if let Some(replica) = server.containers.first() {
                replica.signal(Signal::SIGSTOP)?;
            }
            load.join().map_err(|_| "the load generator died")?
        })?;
        let defaults: u64 = report.defaults.values().sum();
        let in_time = report.goodput_per_s * report.duration_s;
        table.row(
            format!("round {}", round + 1),
            &[
                ideal(),
                report.share_in_time * 100.0,
                setup::number(report.predictions) - in_time,
                setup::number(defaults),
                setup::number(report.errors()),
                report.prediction_latency.p99_ms,
                report.latency.max_ms,
            ],
        );
        for (why, count) in &report.defaults {
            table.note(format!("round {}: {count} default outputs: {why}", round + 1));
        }
    }
    table.note(format!(
        "Of queries that start later than {:?} after SIGSTOP. Wanted: none late, none default.",
        2 * SLO
    ));
    Ok(table)
}

/// Identical queries: how often the model is called.
pub(crate) fn identical(settings: &Settings) -> Result<Table> {
    const QUERIES: u32 = 10_000;
    let shape = Shape { apps: 1, slo: Duration::from_secs(20), env: Vec::new() };
    let mut server = Server::start(settings, &shape)?;
    server.replicas(0, 1, Duration::from_secs(2))?;
    let mut plan = plan(settings, server.query);
    plan.inputs.choice = Choice::Same;
    plan.connections = usize::try_from(QUERIES)?;
    plan.duration = Duration::from_millis(100);
    plan.timeout = Duration::from_secs(30);
    plan.slo = shape.slo;
    let rate = f64::from(QUERIES) / plan.duration.as_secs_f64();
    plan.load = Load::Open { rate, arrivals: Arrivals::Constant };
    let report = setup::load(&plan)?;
    let calls = server.metric("clipper_model_predictions_total{model=\"model0\",version=\"1\"}");
    let mut table = Table::new(
        "identical",
        &["queries", "predicted", "errors", "model ran", "send max", "max ms"],
    );
    table.row(
        "at once",
        &[
            setup::number(report.requests),
            setup::number(report.predictions),
            setup::number(report.errors()),
            calls.unwrap_or(f64::NAN),
            report.send_lag.max_ms,
            report.latency.max_ms,
        ],
    );
    table.note(
        "On as many connections, within 0.1 s; the model takes 2 s. model ran: queries that \
         reached it by the server's count. Wanted: 1.",
    );
    Ok(table)
}

/// Many connections, few of them active.
pub(crate) fn connections(settings: &Settings) -> Result<Table> {
    let mut server = Server::start(settings, &Shape::RATIOS)?;
    server.replicas(0, 1, Duration::ZERO)?;
    let mut table = Table::new(
        "connections",
        &["queries/s", "errors", "default", "p50 ms", "p99 ms", "max ms", "RSS MiB"],
    );
    for (connections, idle) in [(1_000, 0), (1_000, 9_000)] {
        let mut plan = plan(settings, server.query);
        plan.connections = connections;
        plan.idle_connections = idle;
        let report = setup::load(&plan)?;
        table.row(
            format!("{connections} active, {idle} idle"),
            &[
                report.queries_per_s,
                setup::number(report.errors()),
                setup::number(report.defaults.values().sum()),
                report.latency.p50_ms,
                report.latency.p99_ms,
                report.latency.max_ms,
                server.process.rss_mib()?,
            ],
        );
    }
    table.note("Wanted: no error.");
    Ok(table)
}
