//! How the server starts each kind of container as a child: pure, so that it can be tested and
//! shown without starting anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bounds::{Bounds, ChildUser, program_files};
use super::keys::ChildKeys;
use super::seen::SeenChildren;
use clipper_config::{InvalidId, ModelConfig, ProcessConfig};
use clipper_container::allowed::{Allowed, NotAllowed};
use clipper_container::{lifeline, python};
use clipper_domain::{InputType, ModelId, Runtime};

/// What to start. The child's stdin must be a pipe whose other end lives as long as the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Variables to add to the server's own environment.
    pub env: Vec<(String, String)>,
}

/// Why a container cannot be started as it is described.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("model '{0}' has no [model.container]")]
    NoContainer(String),
    #[error("unknown input type '{0}'")]
    InputType(String),
    /// The model's name or version.
    #[error(transparent)]
    ModelId(#[from] InvalidId),
    #[error("'{0}' is not tcp://HOST:PORT")]
    RpcAddress(String),
    /// What a Python runtime is to call.
    #[error("'{0}' is not FILE.py:function")]
    Function(String),
    /// Of a command runtime.
    #[error("the command is empty")]
    NoCommand,
    /// A deployment of it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Functions cannot be served without it.
    #[error(transparent)]
    NoPythonPackage(#[from] NoPythonPackage),
}

/// The Python package that serves Python functions is not there.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the Python package that serves Python functions cannot be written to {}: {why}",
    folder.display()
)]
pub struct NoPythonPackage {
    /// Where it would be.
    pub folder: PathBuf,
    /// What came in the way.
    pub why: String,
}

/// Plans one replica of `spec`; relative paths in the config mean `config_dir`.
///
/// # Errors
/// No container is configured, or a setting cannot work.
pub fn launch_plan(
    spec: &ModelConfig,
    launcher: &Launcher,
    config_dir: &Path,
) -> Result<Launch, LaunchError> {
    let Some(container) = &spec.container else {
        return Err(LaunchError::NoContainer(spec.name.clone()));
    };
    let input_type = InputType::parse(&spec.input_type)
        .ok_or_else(|| LaunchError::InputType(spec.input_type.clone()))?;
    let id = spec.id()?;
    let of_model = (&container.runtime(), spec.process.as_ref());
    launcher.plan(&id, input_type, of_model, config_dir)
}

/// Plans replicas, which connect to this server.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub this_exe: PathBuf,
    /// Where containers connect: `tcp://host:port`.
    pub rpc_addr: String,
    /// Time for a program to end by itself.
    pub grace: Duration,
    /// The folder of the Python package that serves Python functions, or why there is none.
    pub python_package: Result<PathBuf, NoPythonPackage>,
    /// Keys for its processes.
    pub keys: ChildKeys,
    /// What deployments may start.
    pub allowed: Allowed,
    /// What all children may use and see.
    pub bounds: Bounds,
    /// Where they are shown.
    pub seen: SeenChildren,
}

impl Launcher {
    /// Plans one replica of a deployed model version.
    ///
    /// # Errors
    /// It may not be started here, or cannot work.
    pub fn plan_deployed(
        &self,
        id: &ModelId,
        input_type: InputType,
        runtime: &Runtime,
    ) -> Result<Launch, LaunchError> {
        self.allowed.check(runtime)?;
        self.plan(id, input_type, (runtime, None), Path::new("/"))
    }

    /// Plans one replica of a model version, with bounds of its own if it has them; relative paths
    /// mean `folder`.
    fn plan(
        &self,
        id: &ModelId,
        input_type: InputType,
        (runtime, own): (&Runtime, Option<&ProcessConfig>),
        folder: &Path,
    ) -> Result<Launch, LaunchError> {
        let mut env = environment(id, input_type, &self.rpc_addr)?;
        env.extend(self.bounds.user().into_iter().flat_map(ChildUser::variables));
        let (program, args) = match runtime {
            Runtime::Onnx { path, engine, library, threads } => {
                let mut args = onnx_args(id, &folder.join(path), input_type, &self.rpc_addr);
                args.push(format!("--engine={}", engine.name()).into());
                args.extend(library.as_ref().map(|file| flag("--library=", &folder.join(file))));
                args.extend(threads.map(|threads| format!("--threads={threads}").into()));
                self.bound(own, runtime, folder, (self.this_exe.clone(), args))
            }
            Runtime::Python { function, python: interpreter } => {
                let function = resolve_function(function, folder)?;
                let args = python::arguments(
                    self.python_package.as_ref().map_err(Clone::clone)?,
                    function,
                );
                let program = (resolve_program(interpreter, folder), args);
                self.wrapped(self.bound(own, runtime, folder, program))
            }
            Runtime::Command { command } => {
                let [program, rest @ ..] = command.as_slice() else {
                    return Err(LaunchError::NoCommand);
                };
                let args = rest.iter().map(OsString::from).collect();
                let program = (resolve_program(program, folder), args);
                self.wrapped(self.bound(own, runtime, folder, program))
            }
        };
        Ok(Launch { program, args, env })
    }

    /// The program within its bounds, if it has any: this binary takes them on and becomes it.
    fn bound(
        &self,
        own: Option<&ProcessConfig>,
        runtime: &Runtime,
        folder: &Path,
        (program, args): (PathBuf, Vec<OsString>),
    ) -> (PathBuf, Vec<OsString>) {
        let mut seen = model_files(runtime, folder);
        seen.push(self.this_exe.clone());
        seen.extend(self.python_package.iter().cloned());
        seen.extend(program_files(&program));
        let port = self.rpc_addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let flags = self.bounds.flags(own, &seen, port);
        if flags.is_empty() {
            return (program, args);
        }
        let mut all: Vec<OsString> = vec!["container".into(), "confined".into()];
        all.extend(flags);
        all.extend(["--".into(), program.into_os_string()]);
        all.extend(args);
        (self.this_exe.clone(), all)
    }

    /// A program of somebody else, run by one of ours that ends it with all that it has started,
    /// also when this server is killed.
    fn wrapped(&self, (program, arguments): (PathBuf, Vec<OsString>)) -> (PathBuf, Vec<OsString>) {
        let grace = format!("--grace-ms={}", self.grace.as_millis());
        let mut args: Vec<OsString> =
            ["container", "exec", &grace, "--"].iter().map(OsString::from).collect();
        args.push(program.into());
        args.extend(arguments);
        (self.this_exe.clone(), args)
    }
}

/// The folders of what a model is made of.
fn model_files(runtime: &Runtime, folder: &Path) -> Vec<PathBuf> {
    let files: Vec<&str> = match runtime {
        Runtime::Onnx { path, library, .. } => {
            std::iter::once(&**path).chain(library.as_deref()).collect()
        }
        Runtime::Python { function, .. } => {
            function.rsplit_once(':').map(|(file, _)| file).into_iter().collect()
        }
        Runtime::Command { .. } => Vec::new(),
    };
    files.iter().filter_map(|file| folder.join(file).parent().map(Path::to_owned)).collect()
}

/// The variables by which a container knows its model and its server, and the lifeline.
fn environment(
    id: &ModelId,
    input_type: InputType,
    rpc_addr: &str,
) -> Result<Vec<(String, String)>, LaunchError> {
    let (host, port) = rpc_addr
        .strip_prefix("tcp://")
        .and_then(|rest| rest.rsplit_once(':'))
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        .ok_or_else(|| LaunchError::RpcAddress(rpc_addr.to_owned()))?;
    let pairs = [
        ("CLIPPER_MODEL_NAME", id.name.as_str()),
        ("CLIPPER_MODEL_VERSION", id.version.as_str()),
        ("CLIPPER_IP", host),
        ("CLIPPER_PORT", port),
        ("CLIPPER_INPUT_TYPE", input_type.long_name()),
        (lifeline::VARIABLE, lifeline::STDIN),
    ];
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn onnx_args(id: &ModelId, model: &Path, input_type: InputType, rpc_addr: &str) -> Vec<OsString> {
    // `--name=value`, as a name may begin with a dash.
    vec![
        "container".into(),
        "onnx".into(),
        flag("--model=", model),
        format!("--name={}", id.name).into(),
        format!("--version={}", id.version).into(),
        format!("--connect={rpc_addr}").into(),
        format!("--input-type={input_type}").into(),
    ]
}

/// `--flag=VALUE` in one word.
fn flag(name: &str, value: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(value);
    flag
}

/// `FILE.py:function` with the file's path resolved.
fn resolve_function(function: &str, config_dir: &Path) -> Result<OsString, LaunchError> {
    let (file, name) = function
        .rsplit_once(':')
        .filter(|(file, name)| !file.is_empty() && !name.is_empty())
        .ok_or_else(|| LaunchError::Function(function.to_owned()))?;
    let mut resolved = config_dir.join(file).into_os_string();
    resolved.push(":");
    resolved.push(name);
    Ok(resolved)
}

/// A bare name is looked up in `PATH`; one with a slash is a path.
fn resolve_program(program: &str, config_dir: &Path) -> PathBuf {
    if program.contains('/') { config_dir.join(program) } else { PathBuf::from(program) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(container: &str, input_type: &str) -> Result<Launch, LaunchError> {
        let text = format!(
            "name = '-digits'\nversion = '1'\ninput_type = '{input_type}'\n[container]\n{container}"
        );
        let spec: ModelConfig = toml::from_str(&text).unwrap();
        launch_plan(&spec, &launcher(), Path::new("/etc/c"))
    }

    fn launcher() -> Launcher {
        Launcher {
            this_exe: "/bin/clipper".into(),
            rpc_addr: "tcp://127.0.0.1:7000".to_owned(),
            grace: Duration::from_millis(1_500),
            python_package: Ok("/data/python-1".into()),
            keys: ChildKeys::default(),
            allowed: Allowed::default(),
            bounds: Bounds::default(),
            seen: SeenChildren::default(),
        }
    }

    fn env<'a>(launch: &'a Launch, key: &str) -> &'a str {
        &launch.env.iter().find(|(name, _)| name == key).unwrap().1
    }

    #[test]
    fn onnx_runs_this_binary_again() {
        let launch = plan("runtime = 'onnx'\npath = 'm.onnx'", "d").unwrap();
        assert_eq!(launch.program, Path::new("/bin/clipper"));
        let expected = [
            "container",
            "onnx",
            "--model=/etc/c/m.onnx",
            "--name=-digits",
            "--version=1",
            "--connect=tcp://127.0.0.1:7000",
            "--input-type=doubles",
            "--engine=auto",
        ];
        assert_eq!(launch.args, expected);
        assert_eq!(env(&launch, "CLIPPER_LIFELINE"), "stdin");
        let more =
            "runtime = 'onnx'\npath = 'm.onnx'\nengine = 'ort'\nlibrary = 'l.so'\nthreads = 2";
        let args = plan(more, "strings").unwrap().args;
        assert_eq!(args[7..], ["--engine=ort", "--library=/etc/c/l.so", "--threads=2"]);
    }

    #[test]
    fn python_gets_the_package_and_the_resolved_function() {
        let launch = plan("runtime = 'python'\nfunction = 'a/m.py:predict'", "strings").unwrap();
        assert_eq!(launch.program, Path::new("/bin/clipper"));
        assert_eq!(launch.args[..4], ["container", "exec", "--grace-ms=1500", "--"]);
        assert_eq!(launch.args[4..], ["python3", "-u", "/data/python-1", "/etc/c/a/m.py:predict"]);
        assert_eq!(env(&launch, "CLIPPER_INPUT_TYPE"), "strings");
        assert_eq!(env(&launch, "CLIPPER_IP"), "127.0.0.1");
        assert_eq!(env(&launch, "CLIPPER_PORT"), "7000");
        for wrong in ["m.py", ":f", "m.py:"] {
            let container = format!("runtime = 'python'\nfunction = '{wrong}'");
            assert!(plan(&container, "strings").is_err(), "{wrong}");
        }
        let container = "runtime = 'python'\nfunction = 'm.py:f'\npython = 'venv/bin/python'";
        assert_eq!(plan(container, "i").unwrap().args[4], "/etc/c/venv/bin/python");
    }

    #[test]
    fn a_command_is_wrapped_so_that_it_ends_with_the_server() {
        let launch = plan("runtime = 'command'\ncommand = ['./run.sh', '-x']", "bytes").unwrap();
        assert_eq!(launch.program, Path::new("/bin/clipper"));
        assert_eq!(
            launch.args,
            ["container", "exec", "--grace-ms=1500", "--", "/etc/c/./run.sh", "-x"]
        );
        assert_eq!(env(&launch, "CLIPPER_MODEL_NAME"), "-digits");
        assert!(plan("runtime = 'command'\ncommand = []", "bytes").is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_a_text() {
        assert!(matches!(
            plan("runtime = 'onnx'\npath = 'm.onnx'", "matrices"),
            Err(LaunchError::InputType(text)) if text == "matrices"
        ));
        let spec: ModelConfig =
            toml::from_str("name = 'm'\nversion = '1'\ninput_type = 'd'").unwrap();
        let no_container = launch_plan(&spec, &launcher(), Path::new("d"));
        assert!(no_container.unwrap_err().to_string().contains("[model.container]"));
    }
}
