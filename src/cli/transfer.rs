//! `clipper import` and `clipper export`: between a Redis and the journal of a stopped server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::output::{answer, answer_json};
use super::settings::env_vars;
use super::value;
use crate::store::event::{Envelope, Event, Origin};
use crate::store::projection::Catalog;
use crate::store::redis::client::{Link, LinkError, Settings};
use crate::store::redis::diff::{Observed, diff};
use crate::store::redis::keys::ours;
use crate::store::redis::transaction::{Outcome, Transaction};
use crate::store::redis::whole::WholeTables;
use crate::store::redis::writes::{Entries, writes};
use crate::store::sled::SledLog;
use crate::store::{EventLog as _, StoreError};
use clipper_clock as clock;
use clipper_config::{Config, ConfigFaults, Override};
use clipper_domain::printable::printable;

/// Events in one step: of a journal's change, of a transaction.
const EVENTS_AT_ONCE: usize = 500;

/// From where, to where, and how.
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Run it again at will: what is there already is left alone. The server that owns the data directory
must be stopped. Exits with 1 when something was not carried over.

Examples:
  clipper import --redis-url redis://127.0.0.1:6379 --data-dir ./data --dry-run
  clipper export --redis-url redis://127.0.0.1:6379 --data-dir ./data")]
pub(super) struct TransferArgs {
    /// The config file that names Redis and the data directory.
    #[arg(long, value_name = "FILE", env = "CLIPPER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The Redis [env: CLIPPER_REDIS_URL].
    #[arg(long, value_name = "redis://HOST:PORT", value_parser = value::redis_url)]
    redis_url: Option<String>,
    /// The data directory [env: CLIPPER_DATA_DIR] [default: ./data].
    #[arg(long, value_name = "DIR", value_parser = value::data_dir)]
    data_dir: Option<String>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also remove from the target what the source does not have.
    #[arg(long)]
    prune: bool,
}

/// Why nothing, or not everything, was carried over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    #[error("say which Redis: --redis-url")]
    NoRedis,
    #[error("Redis: {0}")]
    Redis(#[from] LinkError),
    #[error(transparent)]
    Journal(#[from] StoreError),
    #[error("somebody else changes the tables: run it again")]
    Conflict,
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
}

/// Both sides, read.
struct Sides {
    log: SledLog,
    journal: Catalog,
    last_seq: u64,
    link: Link,
    entries: Entries,
    tables: Catalog,
}

impl TransferArgs {
    /// `clipper import`
    pub(super) fn import(&self) -> Result<(), TransferError> {
        on_a_runtime(async {
            let mut sides = self.open().await?;
            let events = self.wanted(changes(&sides.journal, &sides.tables));
            if !self.tell(&events, "imported into the journal") {
                return Ok(());
            }
            for chunk in events.chunks(EVENTS_AT_ONCE) {
                let recorded_at_ms = clock::unix_millis();
                let envelope = |(seq, event): (u64, &Event)| Envelope {
                    seq,
                    recorded_at_ms,
                    author: Origin::Import.into(),
                    event: event.clone(),
                };
                let change: Vec<Envelope> =
                    (sides.last_seq + 1..).zip(chunk).map(envelope).collect();
                sides.last_seq += chunk.len() as u64;
                sides.log.append(&[change])?;
                sides.log.flush()?;
            }
            Ok(())
        })
    }

    /// `clipper export`
    pub(super) fn export(&self) -> Result<(), TransferError> {
        on_a_runtime(async {
            let mut sides = self.open().await?;
            let events = self.wanted(changes(&sides.tables, &sides.journal));
            if !self.tell(&events, "exported into Redis") {
                return Ok(());
            }
            for event in &events {
                // An application's new definition leaves its links alone.
                let keep_links = |write: &crate::store::redis::writes::Write| {
                    !matches!(event, Event::AppAdded { app }
                        if write.key == crate::store::redis::tables::Key::links(&app.name))
                };
                let writes: Vec<_> =
                    writes(event, &sides.entries).into_iter().filter(keep_links).collect();
                let checked = writes.iter().filter_map(|write| {
                    Some((write.key.clone(), sides.entries.get(&write.key)?.clone()))
                });
                let transaction = Transaction {
                    checks: checked.collect(),
                    writes: writes.clone(),
                    ..Transaction::default()
                };
                let outcome = sides.link.commit(&transaction).await?;
                if outcome != Outcome::Done {
                    return Err(TransferError::Conflict);
                }
                // Written by now: checked no more.
                for write in &writes {
                    sides.entries.remove(&write.key);
                }
            }
            Ok(())
        })
    }

    async fn open(&self) -> Result<Sides, TransferError> {
        let flags = [("--data-dir", "data_dir", &self.data_dir)];
        let redis = [("--redis-url", "redis_url", &self.redis_url)];
        let flags: Vec<Override> = flags
            .into_iter()
            .chain(redis)
            .filter_map(|(flag, key, value)| {
                Some(Override { flag: flag.to_owned(), key: key.to_owned(), value: value.clone()? })
            })
            .collect();
        let config = Config::load(self.config.as_deref(), env_vars(), &flags)?.config;
        let url = config.redis_url.clone().ok_or(TransferError::NoRedis)?;
        let settings = Settings {
            url,
            connect_timeout: Duration::from_millis(config.redis.connect_timeout_ms),
            command_timeout: Duration::from_millis(config.redis.command_timeout_ms),
        };
        let mut link = Link::open_quiet(&settings).await?;
        let (mut log, report) = SledLog::open(&config.data_dir, &config.journal)?;
        let journal = log.load(u64::MAX)?.catalog;
        let WholeTables { entries, passed_over } = link.load(&ours(&journal)).await?;
        let observed = Observed::of(&entries);
        for (key, reason) in observed.malformed.iter().chain(&passed_over.examples) {
            answer(format_args!("passed over: {key}: {}", printable(reason)));
        }
        if passed_over.others > 0 {
            answer(format_args!("passed over: {} more", passed_over.others));
        }
        let mut tables = Catalog::default();
        for event in diff(&observed, &Catalog::default()) {
            tables.fold(&event);
        }
        Ok(Sides { log, journal, last_seq: report.last_seq, link, entries, tables })
    }

    fn wanted(&self, events: Vec<Event>) -> Vec<Event> {
        let removes = |event: &Event| {
            matches!(
                event,
                Event::AppDeleted { .. }
                    | Event::ModelVersionRetired { .. }
                    | Event::ModelVersionUnset { .. }
                    | Event::ModelUnlinked { .. }
            )
        };
        let kept = |event: &Event| self.prune || !removes(event);
        events.into_iter().filter(kept).collect()
    }

    /// Prints the events; tells whether to go on.
    fn tell(&self, events: &[Event], done: &str) -> bool {
        for event in events {
            answer_json(serde_json::to_string(event).unwrap_or_else(|e| e.to_string()));
        }
        let would = if self.dry_run { "would be " } else { "" };
        answer(format_args!("{} changes {would}{done}", events.len()));
        !self.dry_run
    }
}

/// The events that turn `from` into `to`.
fn changes(from: &Catalog, to: &Catalog) -> Vec<Event> {
    let mut observed = Observed::of_catalog(to);
    observed.complete(from);
    diff(&observed, from)
}

fn on_a_runtime(
    work: impl Future<Output = Result<(), TransferError>>,
) -> Result<(), TransferError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(TransferError::Runtime)?.block_on(work)
}
