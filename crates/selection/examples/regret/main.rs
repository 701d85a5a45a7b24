//! How much more each policy loses than the best model, over many rounds, beside what theory
//! allows:
//!
//! ```sh
//! cargo run --release -p clipper_selection --example regret -- --rounds 1000000
//! ```
//!
//! With `--python PYTHON`, an interpreter that has `mabwiser` and `numpy`, the same rounds are
//! played by that library too. It is slow: `--python-rounds N` plays only the first ones.

mod game;
mod play;

use std::process::{Command, ExitCode};

use crate::play::report;

const USAGE: &str = "usage: regret [--rounds N] [--seed N] [--python PYTHON] [--python-rounds N]";
const COMPARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/regret/compare.py");

fn main() -> ExitCode {
    let (mut rounds, mut seed, mut python, mut python_rounds) = (1_000_000, 1, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = value.parse();
        match (arg.as_str(), number) {
            ("--rounds", Ok(number)) => rounds = number,
            ("--seed", Ok(number)) => seed = number,
            ("--python-rounds", Ok(number)) => python_rounds = Some(number),
            ("--python", _) => python = Some(value),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut is_within = true;
    print!("{}", report(rounds, seed, &mut is_within));
    if let Some(python) = python {
        let rounds = python_rounds.unwrap_or(rounds);
        if python_rounds.is_some() {
            let mut ignored = true;
            print!("\nthe first {rounds} rounds:\n{}", report(rounds, seed, &mut ignored));
        }
        let arguments = [COMPARE, &rounds.to_string(), &seed.to_string()];
        match Command::new(python).args(arguments).status() {
            Ok(status) if status.success() => {}
            other => {
                eprintln!("{COMPARE}: {other:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
