//! What TLS costs a hit.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clipper_tools::bench::inputs::Choice;
use clipper_tools::tls::Trust;

use crate::Result;
use crate::cases::Series;
use crate::setup::{self, Server, Settings, Shape, measure, note, plan};
use crate::table::Table;

const CONNECTIONS: usize = 64;
/// Load on each server before anything is measured, seconds.
const WARMUP_S: f64 = 1.0;
const NAMES: [&str; 2] = ["plain", "TLS 1.3"];

/// Alternating rounds of hits without TLS and with it, over connections that are kept.
pub(crate) fn tls(settings: &Settings) -> Result<Table> {
    let dir = tempfile::tempdir()?;
    let (cert, key) = certificate(settings, dir.path())?;
    let encrypted = Shape {
        env: vec![
            ("CLIPPER_TLS__CERT", cert.clone()),
            ("CLIPPER_TLS__KEY", key),
            // Here they are read without it.
            ("CLIPPER_TLS__METRICS", "false".to_owned()),
        ],
        ..Shape::RATIOS
    };
    let mut servers =
        [Server::start(settings, &Shape::RATIOS)?, Server::start(settings, &encrypted)?];
    for server in &mut servers {
        server.replicas(0, 1, Duration::ZERO)?;
    }
    let trust = Trust { ca: Some(cert.into()), identity: None };
    let connector = trust.connector("127.0.0.1", b"http/1.1")?;
    let plan_of = |kind: usize| {
        let mut plan = plan(settings, servers[kind].query);
        plan.inputs.choice = Choice::Same;
        plan.connections = CONNECTIONS;
        plan.target.tls = (kind == 1).then(|| connector.clone());
        plan
    };
    for kind in 0..NAMES.len() {
        let mut plan = plan_of(kind);
        plan.duration = Duration::from_secs_f64(WARMUP_S);
        setup::load(&plan)?;
    }
    let mut series: [Series; 2] = Default::default();
    for round in 0..settings.rounds {
        note(format_args!("TLS, round {} ...", round + 1));
        for (kind, (server, series)) in servers.iter().zip(&mut series).enumerate() {
            series.push(measure(&plan_of(kind), &server.process, &server.containers)?);
        }
    }
    let columns = ["server us", "ratio", "queries/s", "p50 ms", "p99 ms", "no answer"];
    let mut table = Table::new("tls", &columns);
    let plain_us = series[0].server_us();
    for (name, kind) in NAMES.iter().zip(&series) {
        table.row(
            format!("{name}, c{CONNECTIONS}"),
            &[
                kind.server_us(),
                kind.server_us() / plain_us,
                kind.median(|m| m.report.queries_per_s),
                kind.median(|m| m.report.latency.p50_ms),
                kind.median(|m| m.report.latency.p99_ms),
                kind.not_predicted(),
            ],
        );
    }
    table.note(format!(
        "Medians of {} alternating rounds of {} s, the same input of {} doubles each time, over \
         HTTP/1.1. us: CPU per query. Wanted: TLS <= 1.35.",
        settings.rounds, settings.seconds, settings.input_len
    ));
    Ok(table)
}

/// Makes one, and its key.
fn certificate(settings: &Settings, dir: &Path) -> Result<(String, String)> {
    let made = Command::new(&settings.clipper).args(["cert", "self-signed"]).arg(dir).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    let path = |name: &str| dir.join(name).display().to_string();
    Ok((path("cert.pem"), path("key.pem")))
}
