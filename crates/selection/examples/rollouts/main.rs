//! How rollouts end, simulated: of versions that are equal, and of versions with one fault each.
//!
//! ```sh
//! cargo run --release -p clipper_selection --example rollouts -- --rollouts 200 --seed 1
//! ```

mod traffic;

use std::process::ExitCode;

use crate::traffic::report;

const USAGE: &str = "usage: rollouts [--rollouts N] [--seed N]";

fn main() -> ExitCode {
    let (mut rollouts, mut seed) = (200, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let number = args.next().and_then(|value| value.parse().ok());
        match (arg.as_str(), number) {
            ("--rollouts", Some(number)) => rollouts = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    let report = report(rollouts, seed);
    print!("{}", report.table);
    if report.is_as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
