//! What it costs to keep the latest queries for whoever asks why they were answered so.

use std::time::Duration;

use clipper_tools::bench::Plan;
use clipper_tools::bench::inputs::Choice;

use crate::Result;
use crate::cases::Series;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::{Table, median};

/// Windows of each kind and server in one round, in turn.
const WINDOWS: usize = 4;
/// Load on each server before anything is measured, seconds.
const WARMUP_S: f64 = 1.0;

/// What is asked for, and what of it is kept.
const KINDS: [(&str, Choice); 2] = [("hit", Choice::Same), ("miss", Choice::Unique)];
/// The last one is as the second: what differs between them is what a process differs by for no
/// reason.
const SERVERS: [(&str, Option<&str>); 3] = [("kept", None), ("off", Some("0")), ("off", Some("0"))];

fn start(settings: &Settings, queries_max: Option<&str>) -> Result<Server> {
    let env = queries_max.map(|max| ("CLIPPER_EXPLAIN__QUERIES_MAX", max.to_owned()));
    let shape = Shape { env: env.into_iter().collect(), ..Shape::RATIOS };
    let mut server = Server::start(settings, &shape)?;
    server.replicas(0, 1, Duration::ZERO)?;
    Ok(server)
}

fn plan_of(settings: &Settings, server: &Server, choice: Choice) -> Plan {
    let mut plan = plan(settings, server.query);
    plan.inputs.choice = choice;
    plan
}

/// Rounds of three new servers each, since one process may be some percent quicker than another for
/// as long as it lives; in each round windows of all of them in turn.
pub(crate) fn explain(settings: &Settings) -> Result<Table> {
    // For each kind: one value of each server and round.
    let mut cpu: [[Vec<f64>; SERVERS.len()]; KINDS.len()] = Default::default();
    for round in 0..settings.rounds {
        note(format_args!("explain, round {} ...", round + 1));
        let servers = SERVERS.map(|(_, queries_max)| start(settings, queries_max));
        let servers = servers.into_iter().collect::<Result<Vec<Server>>>()?;
        for (server, (_, choice)) in servers.iter().flat_map(|it| KINDS.map(|kind| (it, kind))) {
            let mut plan = plan_of(settings, server, choice);
            plan.duration = Duration::from_secs_f64(WARMUP_S);
            setup::load(&plan)?;
        }
        for ((_, choice), cpu) in KINDS.into_iter().zip(&mut cpu) {
            let mut windows: [Series; SERVERS.len()] = Default::default();
            for window in 0..WINDOWS {
                // Each server is the first as often as another one.
                for turn in 0..SERVERS.len() {
                    let at = (turn + window + round) % SERVERS.len();
                    let (server, series) = (&servers[at], &mut windows[at]);
                    let plan = plan_of(settings, server, choice);
                    series.push(measure(&plan, &server.process, &server.containers)?);
                }
            }
            for (of_round, all) in windows.iter().zip(cpu) {
                all.push(of_round.server_us());
            }
        }
    }
    let columns = ["server us", "ratio", "ratio min", "ratio max"];
    let mut table = Table::new("explain", &columns);
    for ((kind, _), cpu) in KINDS.iter().zip(&cpu) {
        let [_, off, _] = cpu;
        for ((name, _), us) in SERVERS.iter().zip(cpu) {
            let mut ratios: Vec<f64> = us.iter().zip(off).map(|(us, off)| us / off).collect();
            ratios.sort_by(f64::total_cmp);
            let edge = |ratio: Option<&f64>| ratio.copied().unwrap_or(f64::NAN);
            table.row(
                format!("{kind}, {name}"),
                &[median(us), median(&ratios), edge(ratios.first()), edge(ratios.last())],
            );
        }
    }
    table.note(format!(
        "Medians of {} rounds of {WINDOWS} windows of {} s each, at 64 connections, new processes \
         in each round; ratio: to the first `off` of its round, so that the second one says what \
         a process differs by for no reason. us: CPU per query. Wanted: kept <= 1.01.",
        settings.rounds, settings.seconds
    ));
    Ok(table)
}
