//! Runs the dispatcher through simulated faults: `simulate --seeds N` looks for a violation,
//! `--seed N` replays one run with its trace, `--mutants` shows that wrong dispatchers are caught.

mod checks;
mod mutant;
mod query;
mod replica;
mod scenario;
mod search;
mod tally;
mod violation;
mod world;

use std::process::ExitCode;

use crate::search::{mutants_table, replay, search};

const USAGE: &str = "usage: simulate [--from N] --seeds N | --seed N | --mutants [--seeds N]";

fn main() -> ExitCode {
    let (mut from, mut seeds, mut seed, mut mutants) = (0, None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|number| number.parse().ok());
        match arg.as_str() {
            "--from" => from = number().unwrap_or(0),
            "--seeds" => seeds = number(),
            "--seed" => seed = number(),
            "--mutants" => mutants = true,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let is_well = match (seed, mutants) {
        (Some(seed), _) => replay(seed),
        (None, true) => mutants_table(seeds.unwrap_or(10_000)),
        (None, false) => search(from, seeds.unwrap_or(1_000)),
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
