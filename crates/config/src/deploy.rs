//! `[deploy]`: what deployments may start.

use super::rule::Rule;
use super::section::section;

section! {
    /// `[deploy]`: what deployments may start. Who may deploy is management.deploy and, where there
    /// are keys, the role admin.
    pub struct DeployConfig {
        /// What `clipper deploy` and POST /admin/deploy_model may start: runtimes ("onnx",
        /// "python", "command") and folders, as absolute paths. If a runtime is named, only those
        /// that are; if a folder is named, only models, functions, libraries and programs whose
        /// files lie in one of them, from which no link leads out. It holds for replicas that were
        /// deployed before, and by other servers on the same Redis, too; [[model]] of this file
        /// may start anything. Empty: everything.
        allow: Vec<String> = Vec::new(), Rule::Allowed;
    }
}
