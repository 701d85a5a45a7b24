//! `clipper container ...`: the containers in the box as commands.

use std::ffi::OsString;
use std::future::Future;
#[cfg(feature = "onnx")]
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::confined::ConfinedArgs;
#[cfg(feature = "onnx")]
use super::model_build;
use super::value::flat_input_type;
#[cfg(feature = "onnx")]
use super::value::{Expected, engine, input_type};
use clipper_container::exec::{self, ExecOptions};
use clipper_container::noop::NoopModel;
use clipper_container::{
    BatchModel, ContainerKey, ContainerOptions, ServerAddress, lifeline, processes, session,
};
#[cfg(feature = "onnx")]
use clipper_domain::OnnxEngine;
use clipper_domain::{InputType, ModelId, ModelName, ModelVersion};
#[cfg(feature = "onnx")]
use clipper_onnx::{EngineInfo, EngineOptions, OnnxModel, TensorModel};
use clipper_rpc::client::Secret;
use clipper_rpc::curve::{InvalidKey, Key, SecretKey};
use clipper_rpc::protocol::Build;

/// More threads than any machine has cores for one batch.
#[cfg(feature = "onnx")]
const THREADS_MAX: usize = 1024;

/// A kind of container.
#[derive(Debug, Clone, Subcommand)]
pub enum ContainerCommand {
    /// Serve an ONNX model.
    #[cfg(feature = "onnx")]
    Onnx(OnnxArgs),
    /// Answer every input with the same text: for benchmarks.
    Noop(NoopArgs),
    /// Run any program that speaks the protocol, and end it with the server.
    Exec(ExecArgs),
    /// Run any program within the limits that the section `containers` of the config file sets.
    Confined(ConfinedArgs),
}

/// What every container of ours needs to know.
#[derive(Debug, Clone, Args)]
pub struct ReplicaArgs {
    /// Name of the model.
    #[arg(long, value_parser = ModelName::parse)]
    pub name: ModelName,
    /// Version of the model.
    #[arg(long = "version", value_name = "VERSION", value_parser = ModelVersion::parse)]
    pub model_version: ModelVersion,
    /// RPC address of the server.
    #[arg(long, default_value = "tcp://127.0.0.1:7000", value_name = "tcp://HOST:PORT")]
    pub connect: ServerAddress,
    #[command(flatten)]
    pub key: KeyArgs,
}

/// By what a container is known, where the server asks for keys. Secrets come by the environment:
/// everybody sees arguments.
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Name of the container's key; its secret is in the variable CLIPPER_RPC_KEY.
    #[arg(long, value_name = "NAME", env = "CLIPPER_RPC_KEY_NAME")]
    pub key_name: Option<String>,
    #[arg(long, hide = true, env = "CLIPPER_RPC_KEY", hide_env_values = true)]
    key_secret: Option<String>,
    /// The server's public key of CURVE, which encrypts the connection; the container's own secret
    /// key is in the variable CLIPPER_RPC_SECRET_KEY.
    #[arg(long, value_name = "Z85", env = "CLIPPER_RPC_SERVER_KEY")]
    pub server_key: Option<String>,
    #[arg(long, hide = true, env = "CLIPPER_RPC_SECRET_KEY", hide_env_values = true)]
    own_key: Option<String>,
}

/// Why a container has no key that it could show.
#[derive(Debug, thiserror::Error)]
enum ContainerKeyError {
    #[error("CLIPPER_RPC_KEY_NAME and CLIPPER_RPC_KEY belong together")]
    Half,
    #[error("CLIPPER_RPC_SERVER_KEY and CLIPPER_RPC_SECRET_KEY belong together")]
    HalfCurve,
    #[error("{0}: {1}")]
    Invalid(&'static str, InvalidKey),
}

impl KeyArgs {
    fn key(self) -> Result<Option<ContainerKey>, ContainerKeyError> {
        let Self { key_name, key_secret, server_key, own_key } = self;
        match (server_key, own_key) {
            (Some(server), Some(own)) => {
                let invalid = |what| move |error| ContainerKeyError::Invalid(what, error);
                let server = Key::parse(&server).map_err(invalid("CLIPPER_RPC_SERVER_KEY"))?;
                let own = SecretKey::parse(&own).map_err(invalid("CLIPPER_RPC_SECRET_KEY"))?;
                return Ok(Some(ContainerKey::Curve { server, own }));
            }
            (None, None) => {}
            _ => return Err(ContainerKeyError::HalfCurve),
        }
        match (key_name, key_secret) {
            (Some(name), Some(secret)) => Ok(Some(ContainerKey::Secret(Secret { name, secret }))),
            (None, None) => Ok(None),
            _ => Err(ContainerKeyError::Half),
        }
    }
}

/// `clipper container onnx`
#[cfg(feature = "onnx")]
#[derive(Debug, Clone, Args)]
pub struct OnnxArgs {
    /// The model file.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Who it is and whom it serves.
    #[command(flatten)]
    pub replica: ReplicaArgs,
    /// floats, doubles or integers: what the application sends [default: as in the model].
    #[arg(long, value_parser = input_type)]
    pub input_type: Option<InputType>,
    /// The output that answers [default: the model's first].
    #[arg(long, value_name = "OUTPUT")]
    pub output: Option<String>,
    /// ort (ONNX Runtime), builtin, or auto: ort where its library is found.
    #[arg(long, default_value = "auto", value_parser = engine)]
    pub engine: OnnxEngine,
    /// ONNX Runtime's library [default: looked for].
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// Threads that compute a batch [default: 1].
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<usize>,
}

/// `clipper container noop`
#[derive(Debug, Clone, Args)]
pub struct NoopArgs {
    /// Who it is and whom it serves.
    #[command(flatten)]
    pub replica: ReplicaArgs,
    /// What the application sends.
    #[arg(long, value_parser = flat_input_type, default_value = "doubles")]
    pub input_type: InputType,
    /// The answer to every input.
    #[arg(long, default_value = "0", value_name = "TEXT")]
    pub output: String,
    /// Time that a batch takes, microseconds.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub sleep_us: u64,
}

/// `clipper container exec -- PROGRAM ARGS...`
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// Time between SIGTERM and SIGKILL to the program's process group, ms.
    #[arg(long, default_value_t = 1_500, value_name = "MS")]
    pub grace_ms: u64,
    /// Program and arguments; it finds its model in `CLIPPER_MODEL_NAME` and the like.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

#[cfg(feature = "onnx")]
fn parse_threads(text: &str) -> Result<usize, Expected> {
    let threads = text.parse().ok().filter(|threads| (1..=THREADS_MAX).contains(threads));
    threads.ok_or_else(|| Expected::new(format!("a number from 1 to {THREADS_MAX}")))
}

/// Runs a container until SIGTERM, the end of its lifeline or, for `exec`, of its program.
///
/// Logs go to stderr, one line each; a supervising server adds time and names to them.
#[must_use]
pub fn run_cli(command: ContainerCommand) -> ExitCode {
    if lifeline::is_requested() {
        // A supervised container has its pipes and nothing else of its server.
        processes::close_inherited_files();
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Standard error ends with the server, and saying so there would be a panic.
        .log_internal_errors(false)
        .without_time();
    let filter = Targets::new().with_default(Level::INFO).with_target("zeromq", Level::WARN);
    // Fails only where a subscriber is set already, which is then the one to use.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    match run_command(command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: ContainerCommand) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        #[cfg(feature = "onnx")]
        ContainerCommand::Onnx(args) => {
            let options =
                EngineOptions { engine: args.engine, library: args.library, threads: args.threads };
            if args.input_type == Some(InputType::Tensors) {
                return serve_tensors(&args.model, args.replica, &options);
            }
            let output = args.output.as_deref();
            let model = OnnxModel::load(&args.model, args.input_type, output, &options)?;
            tracing::info!(
                model = %args.model.display(),
                output = model.output_name(),
                engine = %model.engine(),
                "{} {} per input",
                model.input_width(),
                model.input_type()
            );
            if args.engine == OnnxEngine::Auto && *model.engine() == EngineInfo::Builtin {
                tracing::info!("no ONNX Runtime library found: pip install onnxruntime is faster");
            }
            let build = model_build::of(&args.model, &model)?;
            serve(args.replica, model, Some(build))
        }
        ContainerCommand::Noop(args) => {
            let sleep = Duration::from_micros(args.sleep_us);
            let model = NoopModel { input_type: args.input_type, output: args.output, sleep };
            serve(args.replica, model, None)
        }
        ContainerCommand::Exec(args) => {
            let options = ExecOptions {
                command: args.command,
                grace: Duration::from_millis(args.grace_ms),
                lifeline: lifeline::is_requested(),
            };
            Ok(ExitCode::from(block_on(exec::run(&options))??))
        }
        ContainerCommand::Confined(args) => match args.run()? {},
    }
}

#[cfg(feature = "onnx")]
fn serve_tensors(
    path: &Path,
    replica: ReplicaArgs,
    options: &EngineOptions,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let model = TensorModel::load(path, options)?;
    let signature = model.signature().map(|signature| signature.json()).unwrap_or_default();
    tracing::info!(
        model = %path.display(),
        engine = %model.engine(),
        rows = if model.joins_rows() { "together" } else { "one by one" },
        "{signature}"
    );
    let build = model_build::of_tensors(path, model.engine())?;
    serve(replica, model, Some(build))
}

fn serve(
    replica: ReplicaArgs,
    model: impl BatchModel,
    build: Option<Build>,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if lifeline::is_requested() {
        lifeline::exit_with_server()?;
    }
    let id = ModelId::new(replica.name, replica.model_version);
    let key = replica.key.key()?;
    let options = ContainerOptions { build, key, ..ContainerOptions::new(id, replica.connect) };
    block_on(session::run(options, model))??;
    Ok(ExitCode::SUCCESS)
}

fn block_on<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What a model was read into.
    clipper_allocator::give_back();
    Ok(runtime.block_on(future))
}
