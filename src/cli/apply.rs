//! `clipper apply`: a running server is made what files say. `clipper export --file` writes such a
//! file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::output::{answer, exit};
use super::plan::{PlanArgs, PlanEnd};
use super::remote::{ServerArgs, VerbFailure};
use super::whole_file::WholeFile;
use clipper_clock as clock;
use clipper_config::{ConfigFaults, ContainerConfig, Lists};
use clipper_domain::admin::ReplicaDescription;
use clipper_domain::difference::Became;
use clipper_domain::plan::{StepDescription, Thing};
use clipper_tools::admin::Client;

/// Exit code where all is registered and replicas do not serve in time.
const NOT_SERVING: u8 = 5;

/// Between two looks at the replicas.
const PAUSE: Duration = Duration::from_millis(100);

/// `clipper apply`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Files have [[application]] and [[model]] as the config file has them (config/default.toml); other
tables are passed over. Paths in them are on the server's machine, relative to the file's folder.

Exits with 0 when the server is as the files say, 1 when it refused or nobody said yes, 2 when the
command line is wrong, 3 when no server answers, 4 when --dry-run has found something to do, and 5
when all is registered and replicas do not serve in time.

Examples:
  clipper apply -f clipper.toml --dry-run
  clipper apply -f models/ --prune
  clipper apply -f clipper.toml --yes --json --timeout 120")]
pub(super) struct ApplyArgs {
    /// The file, or a folder of *.toml.
    #[arg(short, long, value_name = "FILE|DIR")]
    file: PathBuf,
    /// Remove what the files do not name.
    #[arg(long)]
    prune: bool,
    /// The longest wait until the replicas that the files name serve, s; 0: none.
    #[arg(long, value_name = "S", default_value = "60",
          value_parser = super::value::seconds_or_none)]
    timeout: Duration,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl ApplyArgs {
    pub(super) fn run(&self) -> ExitCode {
        let lists = match Lists::read(&self.file) {
            Ok(lists) => lists,
            Err(faults) => return exit(Err::<(), ConfigFaults>(faults)),
        };
        match self.server.client().and_then(|client| self.apply(&client, &lists)) {
            Ok(code) => code,
            Err(failure) => failure.show(),
        }
    }

    fn apply(&self, client: &Client, lists: &Lists) -> Result<ExitCode, VerbFailure> {
        let lists_json = serde_json::to_value(lists).map_err(|error| {
            VerbFailure::Said(format!("what the files say has no JSON form: {error}"))
        })?;
        let mut body = json!({"prune": self.prune});
        for (name, list) in lists_json.as_object().into_iter().flatten() {
            body[name] = list.clone();
        }
        let wanted = replicas_of(lists);
        let waits = !self.plan.dry_run && !self.timeout.is_zero() && !wanted.is_empty();
        let before = if waits { connected(client)? } else { Vec::new() };
        let ended = self.plan.carry_out(client, "apply", &body)?;
        if let PlanEnd::There(steps) = &ended
            && waits
        {
            let replaced: Vec<&StepDescription> = steps.iter().filter(|s| replaces(s)).collect();
            let is_old = |replica: &ReplicaDescription| {
                replaced.iter().any(|step| step.name == replica.model_id)
                    && before.contains(replica)
            };
            let missing = await_replicas(client, &wanted, is_old, self.timeout)?;
            if !missing.is_empty() {
                let failure = VerbFailure::Said(format!(
                    "All is registered, but not in service yet: {}\nThe server's log says why; \
                     `clipper admin containers list` shows who is there",
                    missing.join(", ")
                ));
                let _ = failure.show();
                return Ok(ExitCode::from(NOT_SERVING));
            }
        }
        Ok(ended.code())
    }
}

/// `NAME:VERSION` and how many of it are to serve.
fn replicas_of(lists: &Lists) -> BTreeMap<String, usize> {
    let containers = lists.models.iter().filter_map(|model| {
        let count = model.container.as_ref().map(ContainerConfig::replicas)?;
        Some((format!("{}:{}", model.name, model.version), usize::try_from(count).ok()?))
    });
    containers.collect()
}

/// Whether a version's replicas become others than those that there are.
fn replaces(step: &StepDescription) -> bool {
    step.thing == Thing::Replicas
        && step.kind == Became::Changed
        && step.fields.iter().any(|change| change.field != "count")
}

fn connected(client: &Client) -> Result<Vec<ReplicaDescription>, VerbFailure> {
    Ok(client.list("get_all_containers")?)
}

/// Waits; in words, what is not there in the end. What is old does not count.
#[allow(clippy::disallowed_methods, reason = "this process has no arbiter that could wait")]
fn await_replicas(
    client: &Client,
    wanted: &BTreeMap<String, usize>,
    is_old: impl Fn(&ReplicaDescription) -> bool,
    timeout: Duration,
) -> Result<Vec<String>, VerbFailure> {
    let deadline = clock::now() + timeout;
    loop {
        let connected = connected(client)?;
        let missing: Vec<String> = wanted
            .iter()
            .filter_map(|(id, count)| {
                let of_it = connected.iter().filter(|replica| replica.model_id == *id);
                let there = of_it.filter(|replica| !is_old(replica)).count();
                (there < *count).then(|| format!("{there} of {count} replicas of {id}"))
            })
            .collect();
        if missing.is_empty() || clock::now() >= deadline {
            return Ok(missing);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Writes what a running server has into a file, or to stdout for `-`.
pub(super) fn export(server: &ServerArgs, file: &std::path::Path) -> ExitCode {
    let text = server.client().and_then(|client| Ok(client.post("export", &json!({}))?));
    let text = match text {
        Ok(text) => text,
        Err(failure) => return failure.show(),
    };
    if file.as_os_str() == "-" {
        answer(text.trim_end());
        return ExitCode::SUCCESS;
    }
    let written = WholeFile::beside(file, 0o666).and_then(|mut whole| {
        whole.aside.write_all(text.as_bytes())?;
        whole.keep()
    });
    exit(written.map_err(|error| format!("nothing was written to {}: {error}", file.display())))
}
