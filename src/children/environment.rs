//! What a child finds when it starts: the same for all runtimes.
//!
//! - Environment: of the server's own variables those that `containers.pass_environment` names,
//!   and never one of the server's settings (`CLIPPER_*`), which may hold passwords; then the
//!   variables of the replica.
//! - Files: a pipe as stdin that closes when the server ends, pipes to the log as stdout and
//!   stderr, nothing else (`clipper container` closes what it inherits).
//! - Working directory: the server's.

use std::ffi::{OsStr, OsString};

/// The prefix of the server's settings.
const OWN: &str = "CLIPPER_";

/// The variables of the server's environment that children get.
pub(super) fn passed_on(
    variables: impl Iterator<Item = (OsString, OsString)>,
    patterns: &[String],
) -> Vec<(OsString, OsString)> {
    variables.filter(|(name, _)| is_passed_on(name, patterns)).collect()
}

fn is_passed_on(name: &OsStr, patterns: &[String]) -> bool {
    let Some(name) = name.to_str() else { return false };
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    !name.starts_with(OWN) && patterns.iter().any(matches)
}

/// The name of the variable with the number of the replica among those of its version, from 0.
pub(super) const REPLICA: &str = "CLIPPER_REPLICA";

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_config::ContainersConfig;

    #[test]
    fn only_what_is_named_is_passed_on_and_no_setting_ever() {
        let names = |patterns: &[String]| {
            let all = ["PATH", "LC_ALL", "AWS_SECRET", "CLIPPER_REDIS_URL", "PYTHONPATH", "HOMER"];
            let variables = all.iter().map(|name| (OsString::from(name), OsString::from("x")));
            let passed = passed_on(variables, patterns);
            passed.into_iter().map(|(name, _)| name.into_string().unwrap()).collect::<Vec<_>>()
        };
        let defaults = ContainersConfig::default().pass_environment;
        assert_eq!(names(&defaults), ["PATH", "LC_ALL", "PYTHONPATH"]);
        assert_eq!(names(&["*".to_owned()]).len(), 5);
        assert_eq!(names(&["CLIPPER_REDIS_URL".to_owned()]).len(), 0);
    }
}
