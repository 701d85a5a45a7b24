//! `clipper deploy`: from a file to an application that answers, in one step.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::remote::{Failure, ServerArgs};
use super::{answer, answer_json, exit};
use clipper_domain::printable::{printable, printable_lines};
use clipper_domain::{InputType, OnnxEngine};
use clipper_tools::admin::rows::hint;
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
    /// bytes, integers, floats, doubles or strings [default: the application's, else doubles].
    #[arg(long, value_name = "TYPE", value_parser = input_type)]
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
    /// or a short text].
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
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = OnnxEngine::NAMES)]
    engine: String,
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

fn input_type(text: &str) -> Result<InputType, String> {
    InputType::parse(text)
        .ok_or_else(|| "expected bytes, integers, floats, doubles or strings".to_owned())
}

fn json_text(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("it is not JSON: {error}; a text needs its quotes: '\"text\"'"))
}

/// What came of it.
struct Ended {
    last: Value,
}

impl DeployArgs {
    pub(super) fn run(&self) -> ExitCode {
        match self.deploy() {
            Ok(Ended { last }) if last["stage"] == "done" => self.done(&last),
            Ok(Ended { last }) => self.failed(&last),
            Err(failure) => failure.show(),
        }
    }

    fn deploy(&self) -> Result<Ended, Failure> {
        let client = self.server.client().map_err(Failure::Said)?;
        let body = self.body(&client).map_err(with_advice)?;
        let mut last = Value::Null;
        let limit = self.timeout + SLACK;
        let followed = client.follow("deploy_model", &body, limit, |step| {
            if self.json {
                if step["stage"] != "waiting" {
                    answer_json(&step);
                }
            } else {
                self.step(&step);
            }
            last = step;
        });
        followed.map_err(|error| with_advice(error.into()))?;
        if last["stage"] == "done" || last["stage"] == "failed" {
            return Ok(Ended { last });
        }
        Err(Failure::Said(format!(
            "{} ended the connection before it said what came of the deployment; look with \
             `clipper admin models list`",
            client.url()
        )))
    }

    /// The request, with what the command line leaves open taken from the server.
    fn body(&self, client: &Client) -> Result<Value, Failure> {
        let here = std::env::current_dir().map_err(|error| Failure::Said(error.to_string()))?;
        let (model, path) = (self.model.as_deref(), std::env::var_os("PATH"));
        let runtime =
            deployment::runtime(model, &self.command, &self.python, path.as_deref(), &here);
        let mut runtime = runtime.map_err(Failure::Said)?;
        if runtime["runtime"] == "onnx" {
            runtime["engine"] = json!(self.engine);
            if let Some(library) = environments_library(&self.engine) {
                runtime["library"] = json!(library);
            }
        }
        let app = client.ask("get_application", &json!({"name": self.app}))?;
        let is_new = app.as_object().is_none_or(serde_json::Map::is_empty);
        if is_new && self.slo_ms.is_none() {
            return Err(self.unknown_app(client)?);
        }
        let name = self.model_name(client, &app, &runtime)?;
        let version = match &self.version {
            Some(version) => version.clone(),
            None => next_version(client, &name)?,
        };
        let of_app = app["input_type"].as_str().and_then(InputType::parse);
        let input_type = self.input_type.or(of_app).unwrap_or(InputType::Doubles);
        let mut body = json!({
            "model_name": name, "model_version": version, "app_name": self.app,
            "input_type": input_type.long_name(), "replicas": self.replicas,
            "batch_size": self.batch_size, "timeout_ms": self.timeout.as_millis(),
        });
        // What is left out is understood by servers that do not know it.
        match self.examples.as_slice() {
            [] => {
                if let Some(input) = declared_input(&runtime, input_type) {
                    body["input"] = input;
                }
            }
            [input] => body["input"] = input.clone(),
            inputs => body["inputs"] = json!(inputs),
        }
        if self.no_switch {
            body["make_current"] = json!(false);
        }
        if self.no_cache {
            body["cache"] = json!(false);
        }
        if let Some(micros) = self.slo_ms.filter(|_| is_new) {
            let output = self.default_output.as_deref().unwrap_or_default();
            body["new_app"] = json!({"default_output": output, "latency_slo_micros": micros});
        }
        if let Some(update) = self.update(&app).filter(|_| !is_new) {
            body["update_app"] = update;
        }
        body["runtime"] = runtime;
        Ok(body)
    }

    /// That of the command line, of the application's model, of the file: the first there is.
    fn model_name(&self, client: &Client, app: &Value, runtime: &Value) -> Result<String, Failure> {
        let linked = app["linked_models"][0].as_str();
        if let Some(name) = self.name.as_deref().or(linked) {
            return Ok(name.to_owned());
        }
        let apps = client.ask("get_all_applications", &json!({"verbose": true}))?;
        let models = |app: &Value| app["linked_models"].as_array().cloned().unwrap_or_default();
        let taken: Vec<Value> = apps.as_array().into_iter().flatten().flat_map(models).collect();
        let is_taken = |name: &str| taken.iter().any(|model| model == name);
        deployment::name_of(runtime, is_taken)
            .ok_or_else(|| Failure::Said("a model that is a --command needs a --name".to_owned()))
    }

    /// What the command line says otherwise than the application that is there.
    fn update(&self, app: &Value) -> Option<Value> {
        let mut update = json!({});
        if let Some(micros) = self.slo_ms.filter(|micros| app["latency_slo_micros"] != *micros) {
            update["latency_slo_micros"] = json!(micros);
        }
        let output = self.default_output.as_deref();
        if let Some(output) = output.filter(|output| app["default_output"] != *output) {
            update["default_output"] = json!(output);
        }
        update.as_object().is_some_and(|update| !update.is_empty()).then_some(update)
    }

    fn unknown_app(&self, client: &Client) -> Result<Failure, ClientError> {
        let known = client.ask("get_all_applications", &json!({"verbose": false}))?;
        let known = known.as_array().into_iter().flatten().filter_map(Value::as_str);
        let known: Vec<String> = known.map(str::to_owned).collect();
        let hint = hint(&self.app, &known, "clipper admin apps list");
        Ok(Failure::Said(format!(
            "There is no application '{}'. {hint}\nTo register it in the same step give it an \
             objective and a default: --slo-ms 20 --default-output -1",
            self.app
        )))
    }

    /// Progress for people; a closed stderr is the reader's choice.
    fn say(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", printable_lines(text));
        }
    }

    fn step(&self, step: &Value) {
        let number = |key: &str| step[key].as_u64().unwrap_or(0);
        match step["stage"].as_str().unwrap_or_default() {
            "started" => {
                let model = text(&step["model"]);
                self.say(&format!("{model}: a replica starts and is tried out"));
            }
            "connected" => self.say(&format!("  connected after {} ms", number("after_ms"))),
            "answered" => {
                let ms = step["batch_ms"].as_f64().unwrap_or(0.0);
                let output: String = step["output"].to_string().chars().take(200).collect();
                self.say(&format!("  answers {output}; the trial batch took {ms:.1} ms"));
            }
            "warmed_up" => self.say(&format!(
                "  warmed up by {} batches of up to {} queries",
                number("batches"),
                number("largest")
            )),
            "warning" => self.say(&format!("WARNING: {}", text(&step["text"]))),
            "registered" if self.no_switch => self.say("  registered"),
            "registered" => self.say("  registered and linked"),
            "replicas" => {
                let (connected, wanted) = (number("connected"), number("wanted"));
                self.say(&format!("  {connected} of {wanted} replicas connected"));
            }
            _ => {}
        }
    }

    fn done(&self, last: &Value) -> ExitCode {
        if !self.json {
            let (model, app) = (text(&last["model"]), text(&last["app"]));
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

    fn failed(&self, last: &Value) -> ExitCode {
        let cause = last["cause"].as_str().unwrap_or_default();
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
        let lines: Vec<_> = last["output"].as_array().into_iter().flatten().map(text).collect();
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
fn with_advice(failure: Failure) -> Failure {
    let Failure::Client(ClientError::Refused { status, why }) = failure else { return failure };
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
    Failure::Said(format!("{why}{advice}"))
}

/// A member, on one line.
fn text(value: &Value) -> Cow<'_, str> {
    printable(value.as_str().unwrap_or_default())
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

#[cfg(feature = "onnx")]
fn declared_width(path: &Path) -> Option<usize> {
    clipper_onnx::declared_width(path).ok()
}

#[cfg(not(feature = "onnx"))]
fn declared_width(_: &Path) -> Option<usize> {
    None
}

/// ONNX Runtime of the virtual environment that is active here: the server may not know of it.
#[cfg(feature = "onnx")]
fn environments_library(engine: &str) -> Option<String> {
    if engine == OnnxEngine::Builtin.name() {
        return None;
    }
    let prefix = std::env::var_os("VIRTUAL_ENV")?;
    clipper_onnx::library_of_environment(Path::new(&prefix))?.into_os_string().into_string().ok()
}

#[cfg(not(feature = "onnx"))]
fn environments_library(_: &str) -> Option<String> {
    None
}

/// Zeros of the width that an ONNX file declares. One that cannot be read has its say on the
/// server, whose container says what is wrong with it.
fn declared_input(runtime: &Value, input_type: InputType) -> Option<Value> {
    let path = runtime["path"].as_str()?;
    let zero = match input_type {
        InputType::Integers => json!(0),
        InputType::Floats | InputType::Doubles => json!(0.0),
        InputType::Bytes | InputType::Strings => return None,
    };
    let width = declared_width(Path::new(path))?;
    Some(Value::Array(vec![zero; width]))
}
