//! What keys and encryption of the port for containers cost.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use clipper_tools::bench::Plan;

use crate::Result;
use crate::cases::Series;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::Table;

/// Inputs of a request, which go to the container as one batch message.
const BATCH: usize = 100;
/// So few that batches of several requests are rare.
const CONNECTIONS: usize = 1;
const WARMUP: Duration = Duration::from_secs(1);

/// The applications, and how the replica of each is connected.
const KINDS: [&str; 2] = ["NULL", "CURVE"];

/// A pair of keys in a folder: its secret and its public one.
fn pair(settings: &Settings, dir: &Path) -> Result<[String; 2]> {
    let mut command = Command::new(&settings.clipper);
    let made = command.args(["cert", "curve"]).arg(dir).stdout(Stdio::null()).status()?;
    if !made.success() {
        return Err(format!("clipper cert curve: {made}").into());
    }
    let read = |name: &str| fs::read_to_string(dir.join(name)).map(|text| text.trim().to_owned());
    Ok([read("curve.key")?, read("curve.pub")?])
}

/// Alternating rounds of the same load on a model without encryption, and on one with.
pub(crate) fn curve(settings: &Settings) -> Result<Table> {
    let dir = tempfile::tempdir()?;
    let server_dir = dir.path().join("server");
    let [_, server_key] = pair(settings, &server_dir)?;
    let [own_key, _] = pair(settings, &dir.path().join("container"))?;
    let file = server_dir.join("curve.key").display().to_string();
    let env = vec![("CLIPPER_RPC__CURVE_KEY", file)];
    let shape = Shape { apps: KINDS.len(), env, ..Shape::RATIOS };
    let mut server = Server::start(settings, &shape)?;
    server.replicas(0, 1, Duration::ZERO)?;
    let keys = [("CLIPPER_RPC_SERVER_KEY", server_key), ("CLIPPER_RPC_SECRET_KEY", own_key)];
    server.replica_with(1, &keys)?;
    let plan_of = |kind: usize, batch: Option<usize>| -> Plan {
        let mut plan = plan(settings, server.query);
        plan.target.app = format!("app{kind}");
        plan.inputs.batch = batch;
        plan.connections = CONNECTIONS;
        plan
    };
    let columns = ["server us", "ratio", "contnr us", "ratio", "batches/s", "p99 ms", "no answer"];
    let mut table = Table::new("curve", &columns);
    for (what, batch) in [("batch of 100", Some(BATCH)), ("one input", None)] {
        let mut series: [Series; KINDS.len()] = Default::default();
        for kind in 0..KINDS.len() {
            setup::load(&Plan { duration: WARMUP, ..plan_of(kind, batch) })?;
        }
        for round in 0..settings.rounds {
            note(format_args!("{what}, round {} ...", round + 1));
            for (kind, series) in series.iter_mut().enumerate() {
                let plan = plan_of(kind, batch);
                series.push(measure(&plan, &server.process, &server.containers)?);
            }
        }
        let inputs = setup::number(batch.unwrap_or(1) as u64);
        let [null, _] = &series;
        for (name, kind) in KINDS.iter().zip(&series) {
            let of_containers = |series: &Series| series.median(|m| m.containers_us);
            table.row(
                format!("{name}, {what}"),
                &[
                    kind.server_us() * inputs,
                    kind.server_us() / null.server_us(),
                    of_containers(kind) * inputs,
                    of_containers(kind) / of_containers(null),
                    kind.median(|m| m.report.queries_per_s) / inputs,
                    kind.median(|m| m.report.latency.p99_ms),
                    kind.not_predicted(),
                ],
            );
        }
    }
    table.note(format!(
        "Medians of {} alternating rounds of {} s at {CONNECTIONS} connection, {} doubles per \
         input. us: CPU per batch message, with the request that it answers; containers of \
         the NULL kind use another library. Wanted: the server's ratio <= 1.5.",
        settings.rounds, settings.seconds, settings.input_len
    ));
    Ok(table)
}
