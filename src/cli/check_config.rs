//! `clipper check-config FILE`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{answer, answer_json};
use clipper_config::{Config, ConfigFaults, Loaded};

/// `clipper check-config`
#[derive(Debug, Args)]
#[command(after_help = "\
Checks the file alone, without the environment: keys, types, ranges, names, links, model files, and
limits that contradict each other. Exits with 1 when something is wrong.

Examples:
  clipper check-config config/quickstart.toml
  clipper check-config --json clipper.toml | jq '.faults[].line'")]
pub(super) struct CheckConfigArgs {
    /// The config file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a good file says. The Redis address may hold a password and is left out.
#[derive(Debug, Serialize)]
struct Summary {
    applications: Vec<String>,
    models: Vec<String>,
    replicas: u64,
    query_addr: String,
    management_addr: String,
    metrics_addr: String,
    /// Nothing where it is switched off.
    grpc_addr: Option<String>,
    rpc_addr: String,
    metadata: &'static str,
    data_dir: String,
}

impl Summary {
    fn of(
        Config { http, grpc, rpc, data_dir, redis_url, applications, models, .. }: &Config,
    ) -> Self {
        let containers = models.iter().filter_map(|model| model.container.as_ref());
        let replicas = containers.map(|container| u64::from(container.replicas())).sum();
        Self {
            applications: applications.iter().map(|app| app.name.clone()).collect(),
            models: models.iter().map(|m| format!("{}:{}", m.name, m.version)).collect(),
            replicas,
            query_addr: http.query_addr.to_string(),
            management_addr: http.management_addr.to_string(),
            metrics_addr: http.metrics_addr.to_string(),
            grpc_addr: grpc.enabled.then(|| grpc.addr.to_string()),
            rpc_addr: rpc.addr.clone(),
            metadata: if redis_url.is_some() { "redis" } else { "embedded" },
            data_dir: data_dir.display().to_string(),
        }
    }

    fn text(&self) -> String {
        let list = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        format!(
            "OK\napplications: {}\nmodels: {}\nreplicas: {}\nquery: {}\nmanagement: {}\n\
             metrics: {}\ngrpc: {}\nrpc: {}\nmetadata: {}\ndata: {}",
            list(&self.applications),
            list(&self.models),
            self.replicas,
            self.query_addr,
            self.management_addr,
            self.metrics_addr,
            self.grpc_addr.as_deref().unwrap_or("off"),
            self.rpc_addr,
            self.metadata,
            self.data_dir
        )
    }
}

impl CheckConfigArgs {
    pub(super) fn run(&self) -> ExitCode {
        let loaded = Config::load(Some(&self.file), std::iter::empty(), &[]);
        if self.json {
            answer_json(json(&loaded));
        } else {
            answer(text(&loaded));
        }
        if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn text(loaded: &Result<Loaded, ConfigFaults>) -> String {
    match loaded {
        Ok(loaded) => Summary::of(&loaded.config).text(),
        Err(faults) => faults.to_string(),
    }
}

fn json(loaded: &Result<Loaded, ConfigFaults>) -> String {
    match loaded {
        Ok(loaded) => {
            serde_json::json!({ "ok": true, "summary": Summary::of(&loaded.config) }).to_string()
        }
        Err(faults) => serde_json::json!({ "ok": false, "faults": faults }).to_string(),
    }
}
