//! `clipper backup` and `clipper restore`.

use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{answer, answer_json, exit};
use super::remote::{Outcome, ServerArgs, Shown, VerbFailure, ended};
use super::settings::env_vars;
use super::value;
use super::whole_file::WholeFile;
use crate::store::backup::{BackupError, BackupReader, Contained, Restored, restore};
use crate::store::history::moment::utc;
use clipper_config::{Config, ConfigFaults, Override};
use clipper_tools::admin::Client;

/// `clipper backup`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
The server goes on meanwhile. The file holds all events that are kept, keys among them by their
SHA-256, and what applications have learned; not the config file, and no model. It is there only
when it is whole.

Examples:
  clipper backup /var/backups/clipper.backup
  clipper restore /var/backups/clipper.backup --data-dir /var/lib/clipper")]
pub(super) struct BackupArgs {
    /// Where to; a file of that name is replaced when the new one is whole.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl BackupArgs {
    pub(super) fn run(&self) -> ExitCode {
        ended(self.server.client().and_then(|client| self.fetch(&client)), self.json)
    }

    fn fetch(&self, client: &Client) -> Outcome {
        let failed = |error: BackupError| {
            let file = self.file.display();
            VerbFailure::Said(format!("no backup was written to {file}: {error}"))
        };
        // It has what keys are made into.
        let file = WholeFile::beside(&self.file, 0o600).map_err(|error| failed(error.into()))?;
        let copied = client.download("journal/backup")?;
        let whole = keep(copied, file);
        let Counts { last, made_at_ms, events, states } = whole.map_err(failed)?;
        let text = format!(
            "{}: {events} events up to {last}, {states} entries of policy state, of {}",
            self.file.display(),
            utc(made_at_ms)
        );
        let json = json!({"file": self.file, "last": last, "events": events, "states": states,
            "made_at_ms": made_at_ms});
        Ok(Shown { text, json })
    }
}

/// Reads it to its end, checks it, and only then has it under its name.
fn keep(mut copied: impl Read, mut file: WholeFile) -> Result<Counts, BackupError> {
    let mut to = BufWriter::new(file.aside.as_file_mut());
    io::copy(&mut copied, &mut to)?;
    to.flush()?;
    drop(to);
    let counts = Counts::of(BackupReader::open(BufReader::new(file.aside.reopen()?))?)?;
    file.keep()?;
    Ok(counts)
}

/// What a whole backup holds.
struct Counts {
    last: u64,
    made_at_ms: u64,
    events: u64,
    states: u64,
}

impl Counts {
    fn of(mut backup: BackupReader<impl Read>) -> Result<Self, BackupError> {
        let (last, made_at_ms) = (backup.header.last, backup.header.made_at_ms);
        let mut counts = Self { last, made_at_ms, events: 0, states: 0 };
        while let Some(part) = backup.read()? {
            match part {
                Contained::Event(..) => counts.events += 1,
                Contained::State(..) => counts.states += 1,
                Contained::Snapshot(..) => {}
            }
        }
        Ok(counts)
    }
}

/// `clipper restore`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
The data directory must have no journal. Nothing is there before all of it is; then start a server
on the directory.

Example:
  clipper restore /var/backups/clipper.backup --data-dir /var/lib/clipper")]
pub(super) struct RestoreArgs {
    /// A file that `clipper backup` has written.
    file: PathBuf,
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

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
enum RestoreFailure {
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    #[error("nothing was restored from {file}: {error}")]
    Backup { file: String, error: BackupError },
}

impl RestoreArgs {
    pub(super) fn run(&self) -> ExitCode {
        exit(self.restore())
    }

    fn restore(&self) -> Result<(), RestoreFailure> {
        let flag = |dir: &String| Override {
            flag: "--data-dir".to_owned(),
            key: "data_dir".to_owned(),
            value: dir.clone(),
        };
        let flags: Vec<Override> = self.data_dir.iter().map(flag).collect();
        let config = Config::load(self.config.as_deref(), env_vars(), &flags)?.config;
        let restored = restore(&self.file, &config.data_dir, &config.journal);
        let restored = restored.map_err(|error| RestoreFailure::Backup {
            file: self.file.display().to_string(),
            error,
        })?;
        if self.json {
            answer_json(json!(restored));
        } else {
            let Restored { last, events, states, made_at_ms, .. } = restored;
            answer(format_args!(
                "{}: {events} events up to {last}, {states} entries of policy state, of {}",
                config.data_dir.display(),
                utc(made_at_ms)
            ));
        }
        Ok(())
    }
}
