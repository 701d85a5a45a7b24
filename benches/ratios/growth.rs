//! CPU per request as a server grows.

use std::time::Duration;

use clipper_tools::bench::inputs::Choice;

use crate::Result;
use crate::cases::Series;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::Table;

/// Applications and models of a large server.
const APPS: usize = 1_000;
/// Replicas of a large server.
const REPLICAS: usize = 500;
/// Models that share them.
const MODELS: usize = 50;

/// 1,000 applications and models against one.
pub(crate) fn registered(settings: &Settings) -> Result<Table> {
    let mut small = Server::start(settings, &Shape::RATIOS)?;
    small.replicas(0, 1, Duration::ZERO)?;
    let mut large = Server::start(settings, &Shape { apps: APPS, ..Shape::RATIOS })?;
    large.replicas(0, 1, Duration::ZERO)?;
    let servers = [("1 application", &small), ("1,000 applications", &large)];
    let mut table = compare("growth", settings, &servers)?;
    table.note("Wanted: ratio <= 1.1.");
    Ok(table)
}

/// 500 replicas against one.
pub(crate) fn replicas(settings: &Settings) -> Result<Table> {
    let shape = Shape { apps: MODELS, ..Shape::RATIOS };
    let mut small = Server::start(settings, &shape)?;
    small.replicas(0, 1, Duration::ZERO)?;
    note("starting 1,000 replicas ...");
    let mut wide = Server::start(settings, &shape)?;
    wide.replicas(0, 1, Duration::ZERO)?;
    for model in 1..MODELS {
        wide.replicas(model, REPLICAS / MODELS, Duration::ZERO)?;
    }
    let mut deep = Server::start(settings, &shape)?;
    deep.replicas(0, REPLICAS, Duration::ZERO)?;
    let servers =
        [("1 replica", &small), ("1 + 490 of other models", &wide), ("500 of the model", &deep)];
    let mut table = compare("replicas", settings, &servers)?;
    table.note("Wanted: ratio <= 1.2.");
    Ok(table)
}

/// Cache hits and misses on each server in turn; ratios against the first.
fn compare(case: &'static str, settings: &Settings, servers: &[(&str, &Server)]) -> Result<Table> {
    let mut table = Table::new(
        case,
        &["server us", "ratio", "contnr us", "queries/s", "p99 ms", "RSS MiB", "no answer"],
    );
    for (kind, choice) in [("hit", Choice::Same), ("miss", Choice::Unique)] {
        let mut series: Vec<Series> = servers.iter().map(|_| Series::default()).collect();
        for round in 0..=settings.rounds {
            note(format_args!("{kind}, round {round} ..."));
            for ((_, server), series) in servers.iter().zip(&mut series) {
                let mut plan = plan(settings, server.query);
                plan.inputs.choice = choice;
                if round == 0 {
                    plan.duration = Duration::from_secs(1);
                    setup::load(&plan)?;
                } else {
                    series.push(measure(&plan, &server.process, &server.containers)?);
                }
            }
        }
        let first = series.first().map_or(f64::NAN, Series::server_us);
        for ((name, server), series) in servers.iter().zip(&series) {
            table.row(
                format!("{kind}, {name}"),
                &[
                    series.server_us(),
                    series.server_us() / first,
                    series.median(|m| m.containers_us),
                    series.median(|m| m.report.queries_per_s),
                    series.median(|m| m.report.latency.p99_ms),
                    server.process.rss_mib()?,
                    series.not_predicted(),
                ],
            );
        }
    }
    Ok(table)
}
