//! `clipper journal ...`: `list` and `verify` of a directory that no server has open, `log`,
//! `blame` and `diff` of a running server, `state` of either.

mod running;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::running::{LogArgs, Range};
use self::text::state_text;
use super::output::{answer, answer_json, exit};
use super::remote::ServerArgs;
use super::settings::env_vars;
use super::value;
use crate::store::StoreError;
use crate::store::history::moment::{NoPoint, Point};
use crate::store::inspect;
use clipper_clock as clock;
use clipper_config::{Config, ConfigFaults, Override};

/// What can be asked of the journal.
#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// Print the events that are kept, one a line.
    List {
        /// The first event to print.
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: u64,
        /// Print at most so many events.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Which journal, and how to print.
        #[command(flatten)]
        place: JournalArgs,
    },
    /// Check every record and snapshot; exits with 1 when something is wrong.
    Verify {
        /// Cut the journal at its first fault, even where good events follow. Make a copy first.
        #[arg(long)]
        repair: bool,
        /// Which journal, and how to print.
        #[command(flatten)]
        place: JournalArgs,
    },
    /// Print the applications, models and links right after an event, or as they were at a time.
    /// Asks the running server, unless a directory is given, or no server is named and the default
    /// directory has a journal that none has open.
    State {
        /// The number of an event, a time such as 2026-01-31T23:59:59Z, or how long ago such as 2h
        /// [default: now].
        #[arg(long, value_name = "POINT")]
        at: Option<String>,
        /// Which journal, and how to print.
        #[command(flatten)]
        place: JournalArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print who changed what, when and why, as a running server keeps it.
    Log(LogArgs),
    /// Print which event made each member of an application what it is.
    Blame {
        /// The application.
        app: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print how the applications, models and keys differ between two points.
    Diff {
        /// Two points, each the number of an event, a time, or how long ago; without B, now.
        #[arg(value_name = "A..B", value_parser = running::range)]
        range: Range,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
pub(super) struct JournalArgs {
    /// The config file that names the data directory.
    #[arg(long, value_name = "FILE", env = "CLIPPER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The data directory [env: CLIPPER_DATA_DIR] [default: ./data].
    #[arg(long, value_name = "DIR", value_parser = value::data_dir)]
    data_dir: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl JournalArgs {
    fn load(&self) -> Result<Config, ConfigFaults> {
        let flags: Vec<Override> = self
            .data_dir
            .iter()
            .map(|dir| Override {
                flag: "--data-dir".to_owned(),
                key: "data_dir".to_owned(),
                value: dir.clone(),
            })
            .collect();
        Config::load(self.config.as_deref(), env_vars(), &flags).map(|loaded| loaded.config)
    }
}

/// Why nothing can be said of the journal.
#[derive(Debug, thiserror::Error)]
enum JournalFailure {
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    #[error(transparent)]
    Journal(#[from] StoreError),
    #[error("--at: {0}")]
    At(#[from] NoPoint),
}

fn json(value: &impl Serialize) -> String {
    // Only maps whose keys are no texts cannot be written, and there are none.
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

impl JournalCommand {
    pub(super) fn run(self) -> ExitCode {
        match self {
            Self::List { from, limit, place } => exit(list(from, limit, &place)),
            Self::Verify { repair, place } => {
                verify(repair, &place).unwrap_or_else(|error| exit(Err(error)))
            }
            Self::State { at, place, server } => state(at.as_deref(), &place, &server),
            Self::Log(log) => log.run(),
            Self::Blame { app, json, server } => running::blame(&app, json, &server),
            Self::Diff { range, json, server } => running::diff(&range, json, &server),
        }
    }
}

fn list(from: u64, limit: Option<usize>, place: &JournalArgs) -> Result<(), JournalFailure> {
    let config = place.load()?;
    let limit = limit.unwrap_or(usize::MAX);
    let events = inspect::list(&config.data_dir, &config.journal, from, limit)?;
    for event in events {
        if place.json { answer_json(json(&event)) } else { answer(inspect::line(&event)) }
    }
    Ok(())
}

fn verify(repair: bool, place: &JournalArgs) -> Result<ExitCode, JournalFailure> {
    let config = place.load()?;
    if repair {
        inspect::repair(&config.data_dir, &config.journal)?;
    }
    let found = inspect::verify(&config.data_dir, &config.journal)?;
    if place.json {
        answer_json(json(&found));
    } else {
        answer(&found);
    }
    Ok(if found.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of a directory if one is meant, else of the running server.
fn state(at: Option<&str>, place: &JournalArgs, server: &ServerArgs) -> ExitCode {
    if place.data_dir.is_none() && server.is_named() {
        return running::state(at, place.json, server);
    }
    let is_meant = place.data_dir.is_some() || place.config.is_some();
    match offline_state(at, place) {
        Err(JournalFailure::Journal(StoreError::NotThere { .. } | StoreError::InUse { .. }))
            if !is_meant =>
        {
            running::state(at, place.json, server)
        }
        printed => exit(printed),
    }
}

fn offline_state(at: Option<&str>, place: &JournalArgs) -> Result<(), JournalFailure> {
    let config = place.load()?;
    let at = at.map(|at| Point::parse(at, clock::unix_millis())).transpose()?;
    let state = inspect::state(&config.data_dir, &config.journal, at)?;
    if place.json {
        answer_json(json(&state));
    } else {
        answer(state_text(&state));
    }
    Ok(())
}
