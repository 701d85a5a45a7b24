//! How much more each policy loses than the best model, over many rounds, beside what theory
//! allows:
//!
//! ```sh
//! cargo run --release -p clipper_selection --example regret -- --rounds 1000000
//! ```
//!
//! With `--python PYTHON`, an interpreter that has what `requirements.txt` names, the same rounds
//! are played by other libraries too, which takes a processor a minute for each seed of a million
//! rounds; `--others FILE` reads what `compare.py` has printed before.

mod game;
mod others;
mod play;
mod table;

use std::num::NonZero;
use std::process::ExitCode;

use crate::others::Others;
use crate::table::Table;

const USAGE: &str = "usage: regret [--rounds N] [--seeds N] [--jobs N] \
    [--python PYTHON | --others FILE]";

fn main() -> ExitCode {
    let (mut rounds, mut seeds) = (1_000_000, 1);
    let mut jobs = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let (mut python, mut file) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        match (arg.as_str(), value.parse()) {
            ("--rounds", Ok(number)) => rounds = number,
            ("--seeds", Ok(number @ 1..)) => seeds = number,
            ("--jobs", Ok(number @ 1..)) => jobs = number,
            ("--python", _) => python = Some(value),
            ("--others", _) => file = Some(value),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let others = match (python, file) {
        (Some(python), _) => Others::play(&python, rounds, seeds, jobs),
        (None, Some(file)) => Others::read(&file),
        (None, None) => Ok(Others::default()),
    };
    let others = match others {
        Ok(others) => others,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let table = Table::of(rounds, seeds, jobs, |policy, game| others.of(policy, game));
    println!("{table}");
    if table.is_within() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
