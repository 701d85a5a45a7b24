//! The command line: what can be asked of the binary, and its exit codes.
//!
//! 0 is success, 1 a failure, 2 a wrong use of the command line, 3 a server that does not answer.

mod admin;
mod apply;
mod backup;
mod bench;
mod cert;
mod check_config;
mod confined;
pub mod container;
mod deploy;
mod explain;
#[cfg(feature = "onnx")]
mod inspect;
mod journal;
mod key;
mod limits;
#[cfg(feature = "onnx")]
mod model_build;
mod onnx_file;
mod output;
mod plan;
mod remote;
mod rollback;
mod rollout;
mod settings;
mod top;
mod transfer;
mod value;
mod whole_file;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::logging::{self, LogError};
use crate::server::{self, StartError};
use clipper_config::{Config, ConfigFaults};

use self::output::{USAGE, exit};

/// Serves machine-learning predictions before each application's latency objective.
#[derive(Debug, Parser)]
#[command(name = "clipper", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: CommandVerb,
}

#[derive(Debug, Subcommand)]
enum CommandVerb {
    /// Run the server.
    Serve(ServeArgs),
    /// Check a config file and print everything that is wrong with it.
    CheckConfig(check_config::CheckConfigArgs),
    /// Take what the tables of a Redis hold into the journal of a stopped server.
    Import(transfer::TransferArgs),
    /// Write what a running server serves into a file, or what the journal of a stopped one holds
    /// into the tables of a Redis.
    Export(ExportArgs),
    /// Make a running server what a file says: show the plan, make the change, wait for replicas.
    Apply(apply::ApplyArgs),
    /// Make what is served what it was at an event or a time.
    Rollback(rollback::RollbackArgs),
    /// Write the journal of a running server, and what applications have learned, into a file.
    Backup(backup::BackupArgs),
    /// Make a data directory of such a file.
    Restore(backup::RestoreArgs),
    /// Ask who changed what, when and why; look into the journal of a server that is not running.
    #[command(after_help = "\
Examples:
  clipper journal log --app digits --since 2h
  clipper journal log -f
  clipper journal blame digits
  clipper journal diff 40..42
  clipper journal state --at 2026-01-31T03:00:00Z
  clipper journal list --from 10 --json --data-dir /var/lib/clipper
  clipper journal verify --data-dir /var/lib/clipper")]
    Journal {
        /// What to print.
        #[command(subcommand)]
        what: journal::JournalCommand,
    },
    /// Look at and change what a running server serves.
    Admin(admin::AdminArgs),
    /// Register, link and start a model in one step, and wait until it answers.
    Deploy(deploy::DeployArgs),
    /// Say why queries were answered so, and where their time went.
    Explain(explain::ExplainArgs),
    /// Show what an ONNX file takes and gives, and how it can be served.
    #[cfg(feature = "onnx")]
    Inspect(inspect::InspectArgs),
    /// Move an application's queries to another version of its model, step by step.
    Rollout(rollout::RolloutArgs),
    /// Say who may do what: make, list, replace and end keys.
    Key(key::KeyArgs),
    /// Load an application and measure its answers.
    Bench(bench::BenchArgs),
    /// Watch the applications, models and replicas of a running server.
    Top(top::TopArgs),
    /// Make a certificate.
    Cert {
        /// Which.
        #[command(subcommand)]
        what: cert::CertCommand,
    },
    /// Run a model container: a process that connects to a server and answers its batches.
    Container {
        /// What kind.
        #[command(subcommand)]
        runtime: crate::cli::container::ContainerCommand,
    },
    /// Print what makes a shell complete this command line.
    #[command(after_help = "\
Examples:
  clipper completions bash > /etc/bash_completion.d/clipper
  clipper completions zsh > ~/.zfunc/_clipper
  clipper completions fish > ~/.config/fish/completions/clipper.fish")]
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

/// `clipper serve`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Each value comes from its flag, else from the environment, else from the config file, else from
the default. Any key of the file can be set in the environment: CLIPPER_HTTP__BODY_MAX_BYTES is
body_max_bytes of [http]. config/default.toml lists every key.

Examples:
  clipper serve --config config/quickstart.toml
  clipper serve --query-addr 10.0.0.7:1337 --insecure --data-dir /var/lib/clipper --log-format json
  CLIPPER_REDIS_URL=redis://127.0.0.1:6379 clipper serve")]
pub struct ServeArgs {
    /// The config file; without it, defaults.
    #[arg(long, value_name = "FILE", env = "CLIPPER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The keys of the file that have a flag.
    #[command(flatten)]
    settings: settings::KeyFlags,
}

/// `clipper export`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
With --file it asks a running server. Without, it writes into Redis what the journal of a stopped
server holds; run it again at will: what is there already is left alone. Exits with 1 when something
was not carried over.

Examples:
  clipper export --file clipper.toml
  clipper export --redis-url redis://127.0.0.1:6379 --data-dir ./data")]
struct ExportArgs {
    /// Write the applications and models of the server at --url into this file (- for stdout), from
    /// which `clipper apply` makes an equal server.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["redis_url", "data_dir", "dry_run",
          "prune"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    transfer: transfer::TransferArgs,
    #[command(flatten)]
    server: remote::ServerArgs,
}

/// Why the server could not be run.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Server(#[from] StartError),
}

impl ServeArgs {
    fn run(&self) -> Result<(), ServeError> {
        let (file, flags) = (self.config.clone(), self.settings.0.clone());
        let read = move || Config::load(file.as_deref(), settings::env_vars(), &flags);
        let loaded = read()?;
        logging::init(&loaded.config.log)?;
        let again: Option<server::Reread> = match self.config {
            Some(_) => Some(Arc::new(read)),
            None => None,
        };
        let result = server::run(loaded, again);
        logging::flush();
        Ok(result?)
    }
}

/// Runs one command line, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => {
            // A closed stdout is the reader's choice.
            let _ = answer.print();
            return if answer.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // What described the command line and read it, before anything that stays is put among it.
    clipper_allocator::give_back();
    match cli.command {
        CommandVerb::Serve(args) => exit(args.run()),
        CommandVerb::CheckConfig(args) => args.run(),
        CommandVerb::Import(args) => exit(args.import()),
        CommandVerb::Export(ExportArgs { file: Some(file), server, .. }) => {
            apply::export(&server, &file)
        }
        CommandVerb::Export(ExportArgs { transfer, .. }) => exit(transfer.export()),
        CommandVerb::Apply(args) => args.run(),
        CommandVerb::Rollback(args) => args.run(),
        CommandVerb::Backup(args) => args.run(),
        CommandVerb::Restore(args) => args.run(),
        CommandVerb::Journal { what } => what.run(),
        CommandVerb::Admin(args) => args.run(),
        CommandVerb::Deploy(args) => args.run(),
        CommandVerb::Explain(args) => args.run(),
        #[cfg(feature = "onnx")]
        CommandVerb::Inspect(args) => args.run(),
        CommandVerb::Rollout(args) => args.run(),
        CommandVerb::Key(args) => args.run(),
        CommandVerb::Bench(args) => args.run(),
        CommandVerb::Top(args) => args.run(),
        CommandVerb::Cert { what } => what.run(),
        CommandVerb::Container { runtime } => crate::cli::container::run_cli(runtime),
        CommandVerb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "clipper", &mut script);
            // A closed stdout is the reader's choice.
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
    }
}
