//! The same rounds played by other libraries, in Python.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

use crate::game::Game;
use crate::table::Other;

const COMPARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/regret/compare.py");

/// One policy of another library, on one seed.
#[derive(Debug, Deserialize)]
struct Played {
    policy: String,
    losses: String,
    by: String,
    regret: f64,
}

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum NoOthers {
    /// A program that does not start, or a file that cannot be read.
    #[error("{name}: {why}")]
    NotThere { name: String, why: io::Error },
    #[error("{COMPARE}: {0}")]
    Failed(ExitStatus),
    #[error("{COMPARE}: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl NoOthers {
    /// For `map_err`.
    fn not_there(name: &str) -> impl FnOnce(io::Error) -> Self {
        move |why| Self::NotThere { name: name.to_owned(), why }
    }
}

#[derive(Debug, Default)]
pub struct Others(Vec<Played>);

impl Others {
    /// Plays them; their progress goes to standard error.
    pub fn play(python: &str, rounds: u64, seeds: u64, jobs: u64) -> Result<Self, NoOthers> {
        let mut command = Command::new(python);
        command.arg(COMPARE).args([rounds, seeds, jobs].map(|number| number.to_string()));
        command.stderr(Stdio::inherit());
        let output = command.output().map_err(NoOthers::not_there(python))?;
        if !output.status.success() {
            return Err(NoOthers::Failed(output.status));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// What they have printed before.
    pub fn read(file: &str) -> Result<Self, NoOthers> {
        let text = std::fs::read_to_string(file).map_err(NoOthers::not_there(file))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, NoOthers> {
        let lines: Result<_, serde_json::Error> = text.lines().map(serde_json::from_str).collect();
        Ok(Self(lines?))
    }

    /// Whose policy of that name played, and its regrets.
    pub fn of(&self, policy: &str, game: Game) -> Other {
        let is_meant = |line: &&Played| line.policy == policy && line.losses == game.name();
        let regrets: Vec<f64> = self.0.iter().filter(is_meant).map(|line| line.regret).collect();
        Some((self.0.iter().find(is_meant)?.by.clone(), regrets))
    }
}
