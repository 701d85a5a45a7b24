//! The command line of `clipper admin`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::remote::ServerArgs;
use crate::cli::value::Expected;
use clipper_domain::OnModelError;

/// `clipper admin`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 when done, 1 when the server refused, 2 when the command line is wrong and 3 when no
server answers.

Examples:
  clipper admin apps add digits --input-type doubles --default-output -1 --slo-ms 20
  clipper admin links add digits digits-model
  clipper admin models list --watch 2
  clipper admin containers list --json
  clipper admin --url http://10.0.0.7:1338 models set-version digits-model 3")]
pub(in crate::cli) struct AdminArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Applications: what is queried.
    #[command(subcommand)]
    Apps(AppVerb),
    /// Model versions.
    #[command(subcommand)]
    Models(ModelVerb),
    /// The policy that chooses among an application's models.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Which application queries which model.
    #[command(subcommand)]
    Links(LinkVerb),
    /// Connected replicas.
    #[command(subcommand)]
    Containers(ContainerVerb),
    /// Processes of replicas that the server runs.
    #[command(subcommand)]
    Replicas(ReplicaVerb),
    /// Print what an application has learnt about a user.
    State {
        /// The application.
        app: String,
        /// The user's number.
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        uid: i64,
    },
    /// Ask whether the server is there and ready.
    Ping,
    /// Print the server's metrics.
    Metrics {
        /// In Prometheus' text format.
        #[arg(long)]
        prometheus: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Print again and again, this often in seconds [default when given without a number: 2].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = crate::cli::value::seconds)]
    pub(super) watch: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AppVerb {
    /// List them.
    List(Watch),
    /// Print one.
    Show {
        /// Which.
        name: String,
    },
    /// Register one.
    Add {
        /// Its name.
        name: String,
        /// bytes, integers, floats, doubles or strings.
        #[arg(long)]
        input_type: String,
        /// Sent when no model answers in time.
        #[arg(long, allow_hyphen_values = true)]
        default_output: String,
        /// Its latency objective, ms.
        #[arg(long, value_name = "MS", value_parser = crate::cli::value::slo_micros)]
        slo_ms: i64,
        /// What a caller gets for an input that the model answers with an error: the default
        /// output with the error as its explanation (unless said), or the error.
        #[arg(long, value_name = "CHOICE", value_parser = OnModelError::parse)]
        on_model_error: Option<OnModelError>,
        /// Compute every query anew: never answer one with what an equal one was answered.
        #[arg(long)]
        no_cache: bool,
        /// Its part of a model that it shares with others, in overload: 1 to 100.
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
    },
    /// Change what is given; the rest stays as it is.
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Update {
        /// Which.
        name: String,
        /// Sent when no model answers in time.
        #[arg(long, allow_hyphen_values = true, group = "what")]
        default_output: Option<String>,
        /// Its latency objective, ms.
        #[arg(long, value_name = "MS", group = "what",
              value_parser = crate::cli::value::slo_micros)]
        slo_ms: Option<i64>,
        /// What a caller gets for an input that the model answers with an error: default or error.
        #[arg(long, value_name = "CHOICE", value_parser = OnModelError::parse, group = "what")]
        on_model_error: Option<OnModelError>,
        /// Whether equal queries may share an answer.
        #[arg(long, value_name = "true|false", group = "what")]
        cache: Option<bool>,
        /// Its part of a model that it shares with others, in overload: 1 to 100.
        #[arg(long, value_name = "N", group = "what")]
        weight: Option<u32>,
        /// The policy that chooses among its models; its parameters are those given here.
        #[arg(long, value_name = "POLICY", group = "what")]
        policy: Option<String>,
        /// A parameter of the policy; may be given more than once. VALUE is JSON, or else a text.
        #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter,
              requires = "policy")]
        parameters: Vec<(String, serde_json::Value)>,
    },
    /// Limit how much its clients may ask for, all together: these limits in place of those before,
    /// without any none.
    Limit {
        /// Which.
        name: String,
        #[command(flatten)]
        limits: crate::cli::limits::LimitArgs,
    },
    /// Remove one and its links. One whose rollout is under way needs --force.
    Delete {
        /// Which.
        name: String,
        /// Even if its rollout is under way, which ends with it.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelVerb {
    /// List them.
    List(Watch),
    /// Print one version; without a version, the current one.
    Show {
        /// Which model.
        name: String,
        /// Which version.
        version: Option<String>,
    },
    /// Register a version and make it current, at once: until its containers have connected,
    /// queries get the default output, unless --no-switch keeps them where they are. Its containers
    /// connect by themselves; see `clipper deploy` for replicas that the server starts.
    Add {
        /// The model's name.
        name: String,
        /// The version.
        version: String,
        /// bytes, integers, floats, doubles or strings.
        #[arg(long)]
        input_type: String,
        /// A free label; may be given more than once.
        #[arg(long = "label")]
        labels: Vec<String>,
        /// The image or runtime that serves it; information only.
        #[arg(long, default_value = "external")]
        container_name: String,
        /// Where its data came from; information only.
        #[arg(long, default_value = "")]
        data_path: String,
        /// Queries of one message to a replica; -1 lets the server choose.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        batch_size: i32,
        /// Let queries stay with the current version; `models set-version` switches later.
        #[arg(long)]
        no_switch: bool,
        /// Compute every query anew: keep no output of this version for equal queries.
        #[arg(long)]
        no_cache: bool,
    },
    /// Change what is given of a version; the rest stays as it is. Queries under way keep what they
    /// began with, and its containers stay connected.
    #[command(group(clap::ArgGroup::new("changes").required(true).multiple(true)))]
    Update {
        /// The model's name.
        name: String,
        /// The version.
        version: String,
        /// Queries of one message to a replica; -1 lets the server choose.
        #[arg(long, allow_negative_numbers = true, group = "changes")]
        batch_size: Option<i32>,
        /// A free label, in place of all it has; may be given more than once.
        #[arg(long = "label", group = "changes")]
        labels: Vec<String>,
        /// Take all labels away.
        #[arg(long, group = "changes", conflicts_with = "labels")]
        no_labels: bool,
        /// Whether equal queries may share an output of this version.
        #[arg(long, value_name = "true|false", group = "changes")]
        cache: Option<bool>,
        /// The image or runtime that serves it; information only.
        #[arg(long, group = "changes")]
        container_name: Option<String>,
        /// Where its data came from; information only.
        #[arg(long, group = "changes")]
        data_path: Option<String>,
    },
    /// Send queries to another version.
    SetVersion {
        /// Which model.
        name: String,
        /// Which version.
        version: String,
    },
    /// Retire a version. One that an application queries, or moves to, needs all of these
    /// applications named, or --force.
    Delete {
        /// Which model.
        name: String,
        /// Which version.
        version: String,
        /// An application that will have to do without; may be given more than once.
        #[arg(long = "dependent", value_name = "APPLICATION")]
        dependents: Vec<String>,
        /// Even if queries go to it; they get the default output from then on.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Print an application's policy and its parameters.
    Show {
        /// The application.
        app: String,
    },
    /// Let another policy choose, or set its parameters otherwise; those that are not given have
    /// their defaults.
    Set {
        /// The application.
        app: String,
        /// The policy, such as exp3; `clipper admin policy list` prints all.
        policy: String,
        /// A parameter; may be given more than once. VALUE is JSON, or else a text.
        #[arg(value_name = "NAME=VALUE", value_parser = parameter)]
        parameters: Vec<(String, serde_json::Value)>,
    },
    /// Print every policy, what it is for, and its parameters.
    List,
}

fn parameter(text: &str) -> Result<(String, serde_json::Value), Expected> {
    let (name, value) = text.split_once('=').ok_or_else(|| Expected::new("NAME=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

#[derive(Debug, Subcommand)]
pub(super) enum LinkVerb {
    /// List them.
    List {
        /// Of this application only.
        app: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Let an application query a model.
    Add {
        /// The application.
        app: String,
        /// The model; several under a policy that chooses.
        #[arg(required = true)]
        models: Vec<String>,
    },
    /// Take links away.
    Remove {
        /// The application.
        app: String,
        /// The models.
        #[arg(required = true)]
        models: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ContainerVerb {
    /// List them.
    List(Watch),
    /// Print one.
    Show {
        /// Which model.
        name: String,
        /// Which version.
        version: String,
        /// Which replica.
        replica: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ReplicaVerb {
    /// Replace them by new ones, one after the other where a version has several. Starts at once
    /// what has failed to start and waits.
    Restart {
        /// Of this model or version only.
        #[arg(value_name = "MODEL[:VERSION]")]
        which: Option<String>,
    },
    /// Keep another number of replicas of a deployed version, on every server that shares the
    /// metadata.
    Set {
        /// Of this version; without one, of the current version.
        #[arg(value_name = "MODEL[:VERSION]")]
        which: String,
        /// How many.
        count: u32,
    },
}
