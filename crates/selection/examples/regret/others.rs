//! The same rounds played by other libraries, in Python.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::game::Game;
use crate::table::Other;

const COMPARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/regret/compare.py");

/// One policy of another library, on one seed.
#[derive(Debug, Deserialize)]
struct Line {
    policy: String,
    losses: String,
    by: String,
    regret: f64,
}

#[derive(Debug, Default)]
pub struct Others(Vec<Line>);

impl Others {
    /// Plays them; their progress goes to standard error.
    pub fn play(python: &str, rounds: u64, seeds: u64, jobs: u64) -> Result<Self, String> {
        let mut command = Command::new(python);
        command.arg(COMPARE).args([rounds, seeds, jobs].map(|number| number.to_string()));
        command.stderr(Stdio::inherit());
        let output = command.output().map_err(|error| format!("{python}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{COMPARE}: {}", output.status));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// What they have printed before.
    pub fn read(file: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        lines.map(Self).map_err(|error| format!("{COMPARE}: {error}"))
    }

    /// Whose policy of that name played, and its regrets.
    pub fn of(&self, policy: &str, game: Game) -> Other {
        let is_meant = |line: &&Line| line.policy == policy && line.losses == game.name();
        let regrets: Vec<f64> = self.0.iter().filter(is_meant).map(|line| line.regret).collect();
        Some((self.0.iter().find(is_meant)?.by.clone(), regrets))
    }
}
