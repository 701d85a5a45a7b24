//! CPU per request against the bare handler.

use std::time::Duration;

use clipper_tools::bench::Plan;
use clipper_tools::bench::inputs::Choice;

use crate::Result;
use crate::process::Process;
use crate::setup::{self, Measured, Server, Settings, Shape, measure, note, plan};
use crate::table::{Table, median};

/// Inputs of a batch request.
const BATCH: usize = 100;
/// Numbers of connections that are measured.
const CONNECTIONS: [usize; 2] = [64, 1];
/// Load on each process before anything is measured, seconds.
const WARMUP_S: f64 = 1.0;

const NAMES: [&str; 4] = ["bare handler", "cache hit", "cache miss", "batch, per input"];

/// All measurements of one kind.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<Measured>);

impl Series {
    pub(crate) fn push(&mut self, measured: Measured) {
        self.0.push(measured);
    }

    pub(crate) fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        median(&self.0.iter().map(of).collect::<Vec<_>>())
    }

    pub(crate) fn server_us(&self) -> f64 {
        self.median(|m| m.server_us)
    }

    /// Queries without a prediction and requests without an answer.
    pub(crate) fn not_predicted(&self) -> f64 {
        let count = |m: &Measured| m.report.defaults.values().sum::<u64>() + m.report.errors();
        setup::number(self.0.iter().map(count).sum())
    }
}

/// The four kinds of request, in the order of [`NAMES`].
fn kinds(settings: &Settings, bare: std::net::SocketAddr, server: &Server) -> [Plan; 4] {
    let bare = plan(settings, bare);
    let miss = plan(settings, server.query);
    let mut hit = plan(settings, server.query);
    hit.inputs.choice = Choice::Same;
    let mut batch = plan(settings, server.query);
    batch.inputs.batch = Some(BATCH);
    [bare, hit, miss, batch]
}

/// Alternating rounds of bare handler, hits, misses and batches.
pub(crate) fn ratios(settings: &Settings) -> Result<Table> {
    let (bare, bare_addr) = setup::bare()?;
    let mut server = Server::start(settings, &Shape::RATIOS)?;
    server.replicas(0, 1, Duration::ZERO)?;
    let process = |kind: usize| -> &Process { if kind == 0 { &bare } else { &server.process } };

    for mut plan in kinds(settings, bare_addr, &server) {
        plan.duration = Duration::from_secs_f64(WARMUP_S);
        setup::load(&plan)?;
    }
    let mut table = Table::new(
        "ratios",
        &[
            "server us",
            "ratio",
            "ratio min",
            "ratio max",
            "contnr us",
            "queries/s",
            "p50 ms",
            "p99 ms",
            "no answer",
        ],
    );
    for connections in CONNECTIONS {
        let mut series: [Series; 4] = Default::default();
        for round in 0..settings.rounds {
            note(format_args!("{connections} connections, round {} ...", round + 1));
            let plans = kinds(settings, bare_addr, &server);
            for (kind, (mut plan, series)) in plans.into_iter().zip(&mut series).enumerate() {
                plan.connections = connections;
                series.push(measure(&plan, process(kind), &server.containers)?);
            }
        }
        let [bare, ..] = &series;
        for (name, kind) in NAMES.iter().zip(&series) {
            let mut ratios: Vec<f64> =
                kind.0.iter().zip(&bare.0).map(|(k, b)| k.server_us / b.server_us).collect();
            ratios.sort_by(f64::total_cmp);
            let edge = |ratio: Option<&f64>| ratio.copied().unwrap_or(f64::NAN);
            table.row(
                format!("{name}, c{connections}"),
                &[
                    kind.server_us(),
                    kind.server_us() / bare.server_us(),
                    edge(ratios.first()),
                    edge(ratios.last()),
                    kind.median(|m| m.containers_us),
                    kind.median(|m| m.report.queries_per_s),
                    kind.median(|m| m.report.latency.p50_ms),
                    kind.median(|m| m.report.latency.p99_ms),
                    kind.not_predicted(),
                ],
            );
        }
    }
    table.note(format!(
        "Medians of {} alternating rounds of {} s, {} doubles per input. us: CPU per query. Wanted \
         at c64: hit <= 1.3, miss <= 2.5, batch <= 0.25.",
        settings.rounds, settings.seconds, settings.input_len
    ));
    Ok(table)
}
