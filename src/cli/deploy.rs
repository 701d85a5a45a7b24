//! `clipper deploy`: from a file to an application that answers, in one step.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::onnx_file::{self, OnnxFile};
use super::output::{answer, answer_json, exit};
use super::remote::{ServerArgs, VerbFailure};
use clipper_domain::admin::AppDescription;
use clipper_domain::deploy_model::{DeployBody, Failed, NewApp, Progress, UpdateApp};
use clipper_domain::printable::{printable, printable_lines};
use clipper_domain::{InputType, OnnxEngine, Runtime};
use clipper_tools::admin::hint::hint;
use clipper_tools::admin::{Client, ClientError, deployment};

/// The answer of the server may take this much longer than the deployment.
const SLACK: Duration = Duration::from_secs(30);

/// `clipper deploy`
#[allow(clippy::doc_markdown, reason = "the help prints these texts as they are")]
#[derive(Debug, Args)]
#[command(after_help = "\
The server starts one replica, lets it answer the trial inputs and batches of growing size made of
them, starts the others, and only then registers the model and links it. Until then nothing changes:
a deployment that fails, or is ended by Ctrl-C, leaves nothing behind. The replicas belong to the
server: it starts them again when they die, and after its own restart.

Exits with 0 when the model answers, 1 when it does not or the server refused, 2 when the command
line is wrong and 3 when no server answers.

Examples:
  clipper deploy digits.onnx --app digits --slo-ms 20 --default-output -1
  clipper deploy digits-v2.onnx --app digits --replicas 2
  clipper deploy model.py:predict --app spam --input-type strings --example '\"hello\"'
  clipper deploy --app sums --example '[1, 2]' --name adder --command ./adder --fast")]
pub(super) struct DeployArgs {
    /// FILE.onnx, or FILE.py:function.
    model: Option<String>,
    /// The application that queries it.
    #[arg(long, value_name = "NAME")]
    app: String,
    /// The model's name [default: the model that the application queries, else the file's name; of
    /// a Python function FILE-FUNCTION where another application queries a model of that name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its version [default: one more than the highest number there is].
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// bytes, integers, floats, doubles, strings or tensors [default: the application's, else what
    /// an ONNX file needs, else doubles].
    #[arg(long, value_name = "TYPE", value_parser = super::value::input_type)]
    input_type: Option<InputType>,
    /// Replicas to keep alive.
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: u32,
    /// Queries of one message to a replica; -1 lets the server choose.
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    batch_size: i64,
    /// The application's latency objective, ms: one that is not there is registered with it,
    /// another gets it together with the new version.
    #[arg(long, value_name = "MS", value_parser = super::value::slo_micros)]
    slo_ms: Option<i64>,
    /// The application's output for when no model answers in time, likewise.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    default_output: Option<String>,
    /// An input to try and to warm up with, as JSON; may be given more than once [default: zeros,
    /// or a short text; of tensors small numbers, made up by the model's signature].
    #[arg(long = "example", value_name = "JSON", allow_hyphen_values = true,
          value_parser = json_text)]
    examples: Vec<Value>,
    /// Start and register the version, and let queries stay with the current one: `clipper admin
    /// models set-version` switches later.
    #[arg(long)]
    no_switch: bool,
    /// Compute every query anew: keep no output of this version for equal queries.
    #[arg(long)]
    no_cache: bool,
    /// The Python that runs FILE.py.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// What computes FILE.onnx: ort (ONNX Runtime), builtin, or auto: ort where it is found.
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = super::value::engine)]
    engine: OnnxEngine,
    /// Time for all of it, s.
    #[arg(long, value_name = "S", default_value = "60", value_parser = super::value::seconds)]
    timeout: Duration,
    /// Print a line of JSON for each step.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// A program that speaks the protocol, and its arguments, instead of MODEL. Comes last.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    command: Vec<String>,
}

/// A text that is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("it is not JSON: {0}; a text needs its quotes: '\"text\"'")]
struct NotJson(serde_json::Error);

fn json_text(text: &str) -> Result<Value, NotJson> {
    serde_json::from_str(text).map_err(NotJson)
}

/// How far the server says that it is.
type ProgressLine = Progress<Value>;

/// What came of it.
enum DeployEnd {
    Done { model: String, app: String },
    Failed(Failed),
}

impl DeployArgs {
    pub(super) fn run(&self) -> ExitCode {
        match self.deploy() {
            Ok(DeployEnd::Done { model, app }) => self.done(&model, &app),
            Ok(DeployEnd::Failed(failed)) => self.failed(&failed),
            Err(failure) => failure.show(),
        }
    }

    fn deploy(&self) -> Result<DeployEnd, VerbFailure> {
        let client = self.server.client()?;
        let body = self.body(&client).map_err(with_advice)?;
        let body =
            serde_json::to_value(&body).map_err(|error| VerbFailure::Said(error.to_string()))?;
        let mut ended = None;
        let limit = self.timeout + SLACK;
        let followed = client.follow("deploy_model", &body, limit, |line| {
            // A newer server may have steps that are not known here.
            let step = ProgressLine::deserialize(&line).ok();
            if self.json && step != Some(ProgressLine::Waiting) {
                answer_json(&line);
            }
            match step {
                Some(ProgressLine::Done { model, app, .. }) => {
                    ended = Some(DeployEnd::Done { model, app });
                }
                Some(ProgressLine::Failed(failed)) => ended = Some(DeployEnd::Failed(failed)),
                Some(step) => self.step(&step),
                None => {}
            }
        });
        followed.map_err(|error| with_advice(error.into()))?;
        ended.ok_or_else(|| {
            VerbFailure::Said(format!(
                "{} ended the connection before it said what came of the deployment; look with \
                 `clipper admin models list`",
                client.shown()
            ))
        })
    }

    /// The request, with what the command line leaves open taken from the server.
    fn body(&self, client: &Client) -> Result<DeployBody<Value>, VerbFailure> {
        let runtime = self.runtime()?;
        let app = self.known_app(client)?;
        if app.is_none() && self.slo_ms.is_none() {
            return Err(self.unknown_app(client)?);
        }
        let name = self.model_name(client, app.as_ref(), &runtime)?;
        let version = match &self.version {
            Some(version) => version.clone(),
            None => next_version(client, &name)?,
        };
        let file = onnx_file::read(&runtime);
        let input_type = self.choose_type(&file, app.as_ref())?;
        let (input, inputs) = match self.examples.as_slice() {
            [] => (file.input(input_type), Vec::new()),
            [input] => (Some(input.clone()), Vec::new()),
            inputs => (None, inputs.to_vec()),
        };
        let new_app = self.slo_ms.filter(|_| app.is_none()).map(|latency_slo_micros| NewApp {
            default_output: self.default_output.clone().unwrap_or_default(),
            latency_slo_micros,
        });
        Ok(DeployBody {
            model_name: name,
            model_version: version,
            input_type: input_type.long_name().to_owned(),
            runtime,
            app_name: self.app.clone(),
            new_app,
            update_app: app.and_then(|app| self.update(&app)),
            replicas: self.replicas,
            batch_size: self.batch_size,
            labels: Vec::new(),
            input,
            inputs,
            make_current: !self.no_switch,
            cache: !self.no_cache,
            timeout_ms: u64::try_from(self.timeout.as_millis()).ok(),
        })
    }

    /// That of the command line, of the application, of the file: the first there is. A file for
    /// which none but tensors will do is refused here, where there is more to say than its
    /// container could.
    fn choose_type(
        &self,
        file: &OnnxFile,
        app: Option<&AppDescription>,
    ) -> Result<InputType, VerbFailure> {
        let asked = self.input_type.or(app.map(|app| app.input_type));
        let OnnxFile::Tensors(why) = file else {
            return Ok(asked.unwrap_or_else(|| file.usual_type()));
        };
        let Some(other) = asked.filter(|asked| *asked != InputType::Tensors) else {
            return Ok(InputType::Tensors);
        };
        let model = self.model.as_deref().unwrap_or_default();
        let advice = match self.input_type {
            Some(_) => "Leave --input-type out".to_owned(),
            None => format!(
                "Application '{}' takes {other}: deploy it for another one, --app NAME \
                 --slo-ms 100 --default-output null",
                self.app
            ),
        };
        Err(VerbFailure::Said(format!(
            "{model} can only be served as type tensors ({why}). {advice}"
        )))
    }

    fn runtime(&self) -> Result<Runtime, VerbFailure> {
        let here = std::env::current_dir().map_err(|error| VerbFailure::Said(error.to_string()))?;
        let (model, path) = (self.model.as_deref(), std::env::var_os("PATH"));
        let mut runtime =
            deployment::runtime(model, &self.command, &self.python, path.as_deref(), &here)?;
        if let Runtime::Onnx { engine, library, .. } = &mut runtime {
            *engine = self.engine;
            *library = onnx_file::environments_library(self.engine);
        }
        Ok(runtime)
    }

    /// The server answers `{}` to an unknown name.
    fn known_app(&self, client: &Client) -> Result<Option<AppDescription>, VerbFailure> {
        let app = client.ask("get_application", &json!({"name": self.app}))?;
        if app.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(None);
        }
        let app = AppDescription::deserialize(app);
        app.map(Some).map_err(|error| VerbFailure::Said(format!("{}: {error}", client.shown())))
    }

    /// That of the command line, of the application's model, of the file: the first there is.
    fn model_name(
        &self,
        client: &Client,
        app: Option<&AppDescription>,
        runtime: &Runtime,
    ) -> Result<String, VerbFailure> {
        let linked = app.and_then(|app| app.linked_models.first());
        if let Some(name) = self.name.as_ref().or(linked) {
            return Ok(name.clone());
        }
        let apps: Vec<AppDescription> = client.list("get_all_applications")?;
        let is_taken =
            |name: &str| apps.iter().flat_map(|app| &app.linked_models).any(|model| model == name);
        deployment::name_of(runtime, is_taken).ok_or_else(|| {
            VerbFailure::Said("a model that is a --command needs a --name".to_owned())
        })
    }

    /// What the command line says otherwise than the application that is there.
    fn update(&self, app: &AppDescription) -> Option<UpdateApp> {
        let is_new_slo = |micros: &i64| *micros != i64::from(app.latency_slo_micros);
        let is_new_output = |output: &&String| **output != app.default_output;
        let update = UpdateApp {
            default_output: self.default_output.as_ref().filter(is_new_output).cloned(),
            latency_slo_micros: self.slo_ms.filter(is_new_slo),
        };
        (update != UpdateApp::default()).then_some(update)
    }

    fn unknown_app(&self, client: &Client) -> Result<VerbFailure, ClientError> {
        let known = client.ask("get_all_applications", &json!({"verbose": false}))?;
        let known = known.as_array().into_iter().flatten().filter_map(Value::as_str);
        let known: Vec<String> = known.map(str::to_owned).collect();
        let hint = hint(&self.app, &known, "clipper admin apps list");
        Ok(VerbFailure::Said(format!(
            "There is no application '{}'. {hint}\nTo register it in the same step give it an \
             objective and a default: --slo-ms 20 --default-output -1",
            self.app
        )))
    }

    /// Progress for people; a closed stderr is the reader's choice.
    fn step(&self, step: &ProgressLine) {
        if self.json {
            return;
        }
        let text = match step {
            ProgressLine::Started { model } => {
                format!("{model}: a replica starts and is tried out")
            }
            ProgressLine::Connected { after_ms, signature } => {
                let tensors = signature.as_ref().map(|signature| format!(": {signature}"));
                format!("  connected after {after_ms} ms{}", tensors.unwrap_or_default())
            }
            ProgressLine::Answered { output, batch_ms, .. } => {
                let output: String = output.to_string().chars().take(200).collect();
                format!("  answers {output}; the trial batch took {batch_ms:.1} ms")
            }
            ProgressLine::WarmedUp { batches, largest } => {
                format!("  warmed up by {batches} batches of up to {largest} queries")
            }
            ProgressLine::Warning { text } => format!("WARNING: {text}"),
            ProgressLine::Registered if self.no_switch => "  registered".to_owned(),
            ProgressLine::Registered => "  registered and linked".to_owned(),
            ProgressLine::Replicas { connected, wanted } => {
                format!("  {connected} of {wanted} replicas connected")
            }
            ProgressLine::Waiting | ProgressLine::Done { .. } | ProgressLine::Failed(_) => return,
        };
        let _ = writeln!(std::io::stderr(), "{}", printable_lines(&text));
    }

    fn done(&self, model: &str, app: &str) -> ExitCode {
        if !self.json {
            match (self.no_switch, model.split_once(':')) {
                (true, Some((name, version))) => answer(format!(
                    "{model} is ready; let queries of application '{app}' go to it with: \
                     clipper admin models set-version {name} {version}"
                )),
                _ => answer(format!("{model} answers for application '{app}'")),
            }
        }
        ExitCode::SUCCESS
    }

    fn failed(&self, Failed { cause, output }: &Failed) -> ExitCode {
        if self.json {
            return ExitCode::FAILURE;
        }
        let mut says = format!("Not deployed: {cause}");
        if self.examples.is_empty()
            && !cause.starts_with("the container failed")
            // The Python package has said that it is not the input.
            && !cause.contains("predict is called with")
            && cause.contains("trial query")
        {
            says.push_str("\nIf the model wants other inputs than zeros, give it one: --example");
        }
        let lines: Vec<_> = output.iter().map(|line| printable(line)).collect();
        if !lines.is_empty() {
            says.push_str("\nThe container's last lines:\n  ");
            says.push_str(&lines.join("\n  "));
        }
        // Said of a change that the store has neither written nor refused in time.
        if !cause.contains("may still be written") {
            says.push_str("\nNothing was registered.");
        }
        exit(Err(says))
    }
}

/// Refusals that have a way out say it.
fn with_advice(failure: VerbFailure) -> VerbFailure {
    let VerbFailure::Client(ClientError::Refused { status, why }) = failure else { return failure };
    let advice = match status {
        404 => "\nIs the server older than this program?",
        400 if why.contains("is already linked to") => {
            "\nDeploy a new version of that model by --name, or take its link away first: \
             clipper admin links remove"
        }
        400 if why.contains("already exists") => "\nLeave --version out for the next number",
        400 if why.starts_with("Model '") && why.contains("would change what") => {
            "\nGive it a name of its own: --name NAME. To let both query the model that is there: \
             clipper admin links add"
        }
        _ => "",
    };
    VerbFailure::Said(format!("{why}{advice}"))
}

fn next_version(client: &Client, name: &str) -> Result<String, ClientError> {
    let all = client.ask("get_all_models", &json!({"verbose": false}))?;
    let ids = all.as_array().into_iter().flatten().filter_map(Value::as_str);
    let versions = ids.filter_map(|id| {
        let (model, version) = id.split_once(':')?;
        (model == name).then_some(version)
    });
    Ok(deployment::next_version(versions))
}
