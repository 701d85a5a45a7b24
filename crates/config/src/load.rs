//! Reads the configuration: flag over environment over file over default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;

use super::fault::{ConfigFaults, Fault, ValueOrigin};
use super::log::LogConfig;
use super::root::Config;
use super::validate::Models;
use super::walk::{Draft, Walker};
use super::{schema, validate};

/// What every variable of ours starts with.
pub const ENV_PREFIX: &str = "CLIPPER_";

/// A configuration that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// The config file, if there is one.
    pub read_from: Option<PathBuf>,
    /// The config file's folder: model files and Python functions are relative to it. The working
    /// directory without a file.
    pub base_dir: PathBuf,
    /// Variables that look like ours and are not, in words. They may be somebody else's.
    pub warnings: Vec<String>,
}

/// A value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag, such as `--query-addr`.
    pub flag: String,
    /// The key that it sets, such as `http.query_addr`.
    pub key: String,
    /// The value as it was typed.
    pub value: String,
}

impl Config {
    /// Reads `file` (`None`: defaults only), then variables of `env`, then `flags`; the last wins.
    ///
    /// An environment variable names its key as `CLIPPER_HTTP__BODY_MAX_BYTES`, or by a short name
    /// of [`schema::variables`]. An empty one counts as absent.
    ///
    /// # Errors
    /// Everything that is wrong, in one go.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[Override],
    ) -> Result<Loaded, ConfigFaults> {
        let mut draft = Draft::default();
        if let Some(file) = file {
            read_file(file, &mut draft);
        }
        let warnings = apply_env(env, &mut draft);
        apply_flags(flags, &mut draft);
        let base_dir = base_dir(file);
        validate::check(&mut draft, &base_dir, Models::AllHere);
        let read_from = file.map(Path::to_owned);
        finish(draft, file).map(|config| Loaded { config, read_from, base_dir, warnings })
    }
}

pub(super) fn read_file(file: &Path, draft: &mut Draft) {
    match std::fs::read_to_string(file) {
        Ok(text) => Walker::walk(file, &text, draft),
        Err(error) => {
            let origin = ValueOrigin::File(file.to_owned(), None);
            draft.fault(origin, "", format!("cannot be read: {error}"));
        }
    }
}

impl LogConfig {
    /// The defaults with the environment over them; for commands that read no config file.
    ///
    /// # Errors
    /// What is wrong with the variables, of the log or of anything else.
    pub fn from_env(env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigFaults> {
        Config::load(None, env, &[]).map(|loaded| loaded.config.log)
    }
}

pub(super) fn base_dir(file: Option<&Path>) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn finish(mut draft: Draft, file: Option<&Path>) -> Result<Config, ConfigFaults> {
    if draft.faults.is_empty() {
        match Value::Table(draft.root).try_into::<Config>() {
            Ok(config) => return Ok(config),
            Err(error) => draft.faults.push(Fault {
                origin: ValueOrigin::File(
                    file.unwrap_or(Path::new("configuration")).to_owned(),
                    None,
                ),
                key: String::new(),
                problem: error.message().to_owned(),
            }),
        }
    }
    draft.faults.sort();
    draft.faults.dedup();
    Err(ConfigFaults(draft.faults))
}

/// Takes the values of our variables; gives what is to be said of others that begin like ours. A
/// name that is not ours is no fault: another program, or a Service of Kubernetes, may have it.
fn apply_env(env: impl IntoIterator<Item = (String, String)>, draft: &mut Draft) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut vars: BTreeMap<String, String> = env
        .into_iter()
        .filter(|(name, value)| {
            !value.is_empty() && (name.starts_with(ENV_PREFIX) || name == "RUST_LOG")
        })
        .collect();
    for (name, path) in schema::variables() {
        if let Some(value) = vars.remove(&name) {
            read(ValueOrigin::Env(name), &path, &value, draft);
        }
    }
    for (name, value) in vars {
        let rest = &name[ENV_PREFIX.len()..];
        let path = rest.to_lowercase().replace("__", ".");
        // A name without `__` may belong to someone else, unless it looks like a slip of the pen.
        if path.contains('.') && schema::by_path(&path).is_some() {
            read(ValueOrigin::Env(name), &path, &value, draft);
        } else if let Some(meant) = nearest_variable(&name) {
            warnings.push(format!("{name} is ignored: unknown; did you mean {meant}?"));
        } else if path.contains('.') {
            warnings.push(format!("{name} is ignored: unknown; there is no key {path}"));
        }
    }
    warnings
}

fn nearest_variable(name: &str) -> Option<String> {
    const SLIPS_MAX: usize = 2;
    let general = schema::paths()
        .filter(|path| path.contains('.'))
        .map(|path| format!("{ENV_PREFIX}{}", path.replace('.', "__").to_uppercase()));
    let short = schema::variables().map(|(name, _)| name);
    general
        .chain(short)
        .map(|known| (strsim::damerau_levenshtein(name, &known), known))
        .filter(|(slips, known)| *slips <= SLIPS_MAX && known.len() > ENV_PREFIX.len() + 5)
        .min()
        .map(|(_, known)| known)
}

fn apply_flags(flags: &[Override], draft: &mut Draft) {
    for flag in flags {
        read(ValueOrigin::Flag(flag.flag.clone()), &flag.key, &flag.value, draft);
    }
}

fn read(origin: ValueOrigin, path: &str, text: &str, draft: &mut Draft) {
    let Some(key) = schema::by_path(path) else {
        return draft.fault(origin, path, "unknown key".to_owned());
    };
    match key.rule.read(text) {
        Ok(value) => draft.set(path, value, origin),
        Err(problem) => draft.fault(origin, path, problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "[http]\nbacklog = 1\nquery_workers = 2\nquery_addr = \"1.1.1.1:1\"")
            .unwrap();
        let env = vars(&[
            ("CLIPPER_HTTP__QUERY_WORKERS", "3"),
            ("CLIPPER_QUERY_ADDR", "2.2.2.2:2"),
            ("CLIPPER_REDIS_URL", ""),
        ]);
        let flag = Override {
            flag: "--query-addr".to_owned(),
            key: "http.query_addr".to_owned(),
            value: "3.3.3.3:3".to_owned(),
        };
        let loaded = Config::load(Some(&file), env, &[flag]).unwrap();
        assert_eq!(loaded.base_dir, folder.path());
        let http = &loaded.config.http;
        assert_eq!(http.query_addr.to_string(), "3.3.3.3:3");
        assert_eq!((http.query_workers, http.backlog), (3, 1));
        assert_eq!(http.keep_alive_ms, Config::default().http.keep_alive_ms);
        assert_eq!(loaded.config.redis_url, None, "an empty variable counts as absent");
    }

    #[test]
    fn no_file_gives_the_defaults_relative_to_the_working_directory() {
        let loaded = Config::load(None, [], &[]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.base_dir, Path::new("."));
    }

    #[test]
    fn our_log_variable_wins_over_the_usual_one() {
        let log = |pairs: &[(&str, &str)]| LogConfig::from_env(vars(pairs)).unwrap().filter;
        assert_eq!(log(&[("RUST_LOG", "debug")]), "debug");
        assert_eq!(log(&[("RUST_LOG", "debug"), ("CLIPPER_LOG", "warn")]), "warn");
        assert_eq!(log(&[("CLIPPER_LOG__FILTER", "trace"), ("CLIPPER_LOG", "warn")]), "trace");
    }
}
