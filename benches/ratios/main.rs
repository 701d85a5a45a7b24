//! What the server costs and keeps, measured on one machine in one run.
//!
//! `cargo bench --bench ratios` prints the ratios against a bare handler; `-- CASE` runs another
//! case. docs/benchmarks.md explains each of them. The server, its containers and the bare handler
//! are processes of their own; the load comes from this one, and its CPU is not counted.

mod access;
mod bare;
mod cases;
mod curve;
mod explain;
mod feedback;
mod growth;
mod history;
mod limits;
mod process;
mod selection;
mod setup;
mod shadow;
mod table;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use setup::Settings;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(name = "ratios")]
struct Cli {
    /// Rounds; medians over them are printed.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0, global = true)]
    seconds: f64,
    /// Numbers of one input.
    #[arg(long, default_value_t = 10, global = true)]
    input_len: usize,
    /// The binary to measure [default: the one built along].
    #[arg(long, global = true)]
    clipper: Option<PathBuf>,
    /// The binary of the containers, such as one that knows fewer extensions [default: the same].
    #[arg(long, global = true)]
    container: Option<PathBuf>,
    /// Lines added to the server's config before its applications, such as "[serving]".
    #[arg(long, global = true, default_value = "")]
    config: String,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// What `cargo bench` passes to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    case: Option<Case>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Case {
    /// CPU per request against a bare handler: cache hit, cache miss, batches (the default).
    Ratios,
    /// Goodput of a model that sleeps 5 ms for each batch, against the ideal.
    Sleep,
    /// Offered load of 0.5, 0.9, 1.1, 2 and 5 times the capacity.
    Overload,
    /// One of four replicas frozen under load.
    Frozen,
    /// CPU per request with 1,000 applications and models against one.
    Growth,
    /// CPU per request with 500 connected replicas against one.
    Replicas,
    /// CPU per miss under policies that choose, against the default one.
    Selection,
    /// p99 and goodput of an application whose model has a shadow, against one without.
    Shadow,
    /// CPU per batch message to a container over CURVE, against one over NULL.
    Curve,
    /// Feedback in lists, one by one and of 100,000 users, and predictions beside it.
    Feedback,
    /// p99 of predictions beside diff, log -f, backup and the stream, against alone.
    History,
    /// CPU per hit over TLS, against one without.
    Tls,
    /// CPU per hit and miss with the latest queries kept for `clipper explain`, against without.
    Explain,
    /// 10,000 identical queries at once.
    Identical,
    /// 10,000 connections, 1,000 of them active.
    Connections,
    /// CPU per hit with keys against without, and what a check takes.
    Keys,
    /// p99 of somebody with a key beside 10,000 wrong keys a second.
    WrongKeys,
    /// Queries in time of one of two keys of an application while the other one floods.
    Tenants,
    /// All of them.
    All,
    /// Runs the bare handler.
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        addr: SocketAddr,
    },
}

fn run(cli: &Cli) -> Result<()> {
    let settings = Settings {
        container: cli.container.clone(),
        clipper: cli.clipper.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_clipper").into()),
        rounds: cli.rounds.max(1),
        seconds: cli.seconds,
        input_len: cli.input_len,
        config: cli.config.replace("\\n", "\n"),
    };
    let case = cli.case.unwrap_or(Case::Ratios);
    if let Case::Bare { addr } = case {
        return bare::serve(addr);
    }
    let all = [
        Case::Ratios,
        Case::Sleep,
        Case::Overload,
        Case::Frozen,
        Case::Growth,
        Case::Replicas,
        Case::Selection,
        Case::Shadow,
        Case::Curve,
        Case::Feedback,
        Case::History,
        Case::Tls,
        Case::Explain,
        Case::Identical,
        Case::Connections,
        Case::Keys,
        Case::WrongKeys,
        Case::Tenants,
    ];
    let cases = if matches!(case, Case::All) { &all[..] } else { &[case] };
    let mut results = Vec::new();
    for case in cases {
        let result = match case {
            Case::Ratios => cases::ratios(&settings)?,
            Case::Sleep => limits::sleep(&settings)?,
            Case::Overload => limits::overload(&settings)?,
            Case::Frozen => limits::frozen(&settings)?,
            Case::Growth => growth::registered(&settings)?,
            Case::Replicas => growth::replicas(&settings)?,
            Case::Selection => selection::selection(&settings)?,
            Case::Shadow => shadow::shadowed(&settings)?,
            Case::Curve => curve::curve(&settings)?,
            Case::Feedback => feedback::feedback(&settings)?,
            Case::History => history::history(&settings)?,
            Case::Tls => tls::tls(&settings)?,
            Case::Explain => explain::explain(&settings)?,
            Case::Identical => limits::identical(&settings)?,
            Case::Connections => limits::connections(&settings)?,
            Case::Keys => access::keys(&settings)?,
            Case::WrongKeys => access::wrong_keys(&settings)?,
            Case::Tenants => access::tenants(&settings)?,
            Case::All | Case::Bare { .. } => continue,
        };
        if !cli.json {
            setup::say(&result);
        }
        results.push(result);
    }
    if cli.json {
        setup::say(serde_json::to_string(&results)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            setup::note(error);
            ExitCode::FAILURE
        }
    }
}
