//! `clipper journal list | verify | state`

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{answer, answer_json, exit};
use super::settings::env_vars;
use super::value;
use crate::config::{Config, ConfigFaults, Override};
use crate::store::StoreError;
use crate::store::inspect::{self, StateAt};
use clipper_domain::BatchSize;

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
    /// Print the applications, models and links right after an event.
    State {
        /// The event [default: the last one].
        #[arg(long, value_name = "SEQ")]
        at: Option<u64>,
        /// Which journal, and how to print.
        #[command(flatten)]
        place: JournalArgs,
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
            Self::State { at, place } => exit(state(at, &place)),
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

fn state(at: Option<u64>, place: &JournalArgs) -> Result<(), JournalFailure> {
    let config = place.load()?;
    let state = inspect::state(&config.data_dir, &config.journal, at)?;
    if place.json {
        answer_json(json(&state));
    } else {
        answer(state_text(&state));
    }
    Ok(())
}

fn state_text(StateAt { seq, catalog }: &StateAt) -> String {
    let mut text = format!("after event {seq}");
    for app in catalog.apps() {
        let models: Vec<_> =
            catalog.linked_models(app.name.as_str()).map(ToString::to_string).collect();
        let models = match &models[..] {
            [] => "no model".to_owned(),
            models => format!("model {}", models.join(", ")),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\napplication {}: {}, {} us, default {:?}, {models}",
            app.name,
            app.input_type,
            app.latency_slo.as_micros(),
            app.default_output
        );
        if !app.on_model_error.is_default() {
            let _ = write!(text, ", errors of the model: {}", app.on_model_error.name());
        }
    }
    for model in catalog.models() {
        let current = catalog.current_version(model.id.name.as_str()) == Some(&model.id.version);
        let batch = match model.batch_size {
            BatchSize::Adaptive => "adaptive batches".to_owned(),
            BatchSize::Fixed(size) => format!("batches of {size}"),
        };
        let mark = if current { ", current" } else { "" };
        let _ = write!(text, "\nmodel {}: {}, {batch}{mark}", model.id, model.input_type);
    }
    for (id, replicas) in catalog.replicas() {
        let (runtime, source) = (replicas.runtime.name(), replicas.runtime.source());
        let _ = write!(text, "\nreplicas of {id}: {} by {runtime}, {source}", replicas.count);
    }
    text
}
