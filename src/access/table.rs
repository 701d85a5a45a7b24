//! What every endpoint, method and message asks of whoever comes. The one table of it: all
//! frontends decide by it, and a test tries every row with every role.
//!
//! What is not in it is no endpoint, and asks for as much as the most that its port has to lose.

use std::borrow::Cow;

use clipper_domain::Action;
use percent_encoding::percent_decode_str;

/// A port of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Query,
    Management,
    Metrics,
    Grpc,
    /// Its messages are those of a container, by their names; what is asked of its connection holds
    /// for all of them.
    Containers,
}

impl Port {
    /// As logs have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Management => "management",
            Self::Metrics => "metrics",
            Self::Grpc => "grpc",
            Self::Containers => "containers",
        }
    }
}

/// An endpoint, a method or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub port: Port,
    /// Of HTTP.
    pub method: &'static str,
    /// `{name}` stands for the name of an application or model.
    pub path: &'static str,
    pub action: Action,
}

const fn row(port: Port, method: &'static str, path: &'static str, action: Action) -> Row {
    Row { port, method, path, action }
}

const fn get(port: Port, path: &'static str, action: Action) -> Row {
    row(port, "GET", path, action)
}

const fn query(path: &'static str, action: Action) -> Row {
    row(Port::Query, "POST", path, action)
}

const fn admin(path: &'static str, action: Action) -> Row {
    row(Port::Management, "POST", path, action)
}

const fn grpc(path: &'static str, action: Action) -> Row {
    row(Port::Grpc, "POST", path, action)
}

const fn message(path: &'static str) -> Row {
    row(Port::Containers, "ZMTP", path, Action::Serve)
}

/// Usual queries first.
pub const TABLE: &[Row] = &[
    query("/{name}/predict", Action::Predict),
    query("/{name}/update", Action::Predict),
    query("/v2/models/{name}/infer", Action::Predict),
    query("/v2/models/{name}/versions/{version}/infer", Action::Predict),
    query("/v2/models/{name}/generate", Action::Predict),
    query("/v2/models/{name}/versions/{version}/generate", Action::Predict),
    query("/v2/models/{name}/generate_stream", Action::Predict),
    query("/v2/models/{name}/versions/{version}/generate_stream", Action::Predict),
    get(Port::Query, "/v2", Action::Describe),
    get(Port::Query, "/v2/health/live", Action::Health),
    get(Port::Query, "/v2/health/ready", Action::Health),
    get(Port::Query, "/v2/models", Action::Observe),
    get(Port::Query, "/v2/models/stats", Action::Observe),
    get(Port::Query, "/v2/models/{name}", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/versions/{version}", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/ready", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/versions/{version}/ready", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/config", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/versions/{version}/config", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/stats", Action::Inspect),
    get(Port::Query, "/v2/models/{name}/versions/{version}/stats", Action::Inspect),
    query("/v2/repository/index", Action::Observe),
    query("/v2/repository/models/{name}/load", Action::Operate),
    query("/v2/repository/models/{name}/unload", Action::Operate),
    get(Port::Query, "/metrics", Action::Scrape),
    get(Port::Query, "/openapi.json", Action::Page),
    get(Port::Query, "/docs", Action::Page),
    get(Port::Query, "/docs/{file}", Action::Page),
    get(Port::Query, "/livez", Action::Health),
    get(Port::Query, "/readyz", Action::Health),
    get(Port::Query, "/healthz", Action::Health),
    get(Port::Metrics, "/metrics", Action::Scrape),
    get(Port::Metrics, "/livez", Action::Health),
    get(Port::Metrics, "/readyz", Action::Health),
    get(Port::Metrics, "/healthz", Action::Health),
    get(Port::Management, "/", Action::Page),
    get(Port::Management, "/dashboard/{file}", Action::Page),
    get(Port::Management, "/openapi.json", Action::Page),
    get(Port::Management, "/docs", Action::Page),
    get(Port::Management, "/docs/{file}", Action::Page),
    get(Port::Management, "/admin/dashboard/you", Action::Describe),
    get(Port::Management, "/admin/dashboard/stream", Action::Observe),
    get(Port::Management, "/admin/dashboard/history", Action::Observe),
    admin("/admin/predict/{name}", Action::Predict),
    get(Port::Management, "/admin/ping", Action::Describe),
    get(Port::Management, "/admin/metrics", Action::Scrape),
    get(Port::Management, "/livez", Action::Health),
    get(Port::Management, "/readyz", Action::Health),
    get(Port::Management, "/healthz", Action::Health),
    admin("/admin/add_app", Action::Operate),
    admin("/admin/update_app", Action::Operate),
    admin("/admin/delete_app", Action::Operate),
    admin("/admin/set_policy", Action::Operate),
    admin("/admin/start_rollout", Action::Operate),
    admin("/admin/promote_rollout", Action::Operate),
    admin("/admin/abort_rollout", Action::Operate),
    admin("/admin/get_rollout", Action::Observe),
    admin("/admin/add_model", Action::Operate),
    admin("/admin/update_model", Action::Operate),
    admin("/admin/set_model_version", Action::Operate),
    admin("/admin/delete_versioned_model", Action::Operate),
    admin("/admin/add_model_links", Action::Operate),
    admin("/admin/delete_model_links", Action::Operate),
    admin("/admin/restart_replicas", Action::Operate),
    admin("/admin/set_replicas", Action::Operate),
    admin("/admin/get_all_applications", Action::Observe),
    admin("/admin/get_application", Action::Observe),
    admin("/admin/get_linked_models", Action::Observe),
    admin("/admin/get_all_models", Action::Observe),
    admin("/admin/get_model", Action::Observe),
    admin("/admin/get_all_containers", Action::Observe),
    admin("/admin/get_container", Action::Observe),
    admin("/admin/get_state", Action::Observe),
    get(Port::Management, "/admin/explain", Action::Observe),
    admin("/admin/journal/log", Action::Observe),
    admin("/admin/journal/blame", Action::Observe),
    admin("/admin/journal/diff", Action::Observe),
    admin("/admin/journal/state", Action::Observe),
    get(Port::Management, "/admin/journal/stream", Action::Observe),
    admin("/admin/journal/backup", Action::BackUp),
    admin("/admin/deploy_model", Action::Deploy),
    admin("/admin/apply", Action::Operate),
    admin("/admin/rollback", Action::Operate),
    admin("/admin/export", Action::Observe),
    admin("/admin/add_key", Action::ManageKeys),
    admin("/admin/rotate_key", Action::ManageKeys),
    admin("/admin/limit_key", Action::ManageKeys),
    admin("/admin/revoke_key", Action::ManageKeys),
    admin("/admin/get_all_keys", Action::ManageKeys),
    grpc("/inference.GRPCInferenceService/ModelInfer", Action::Predict),
    grpc("/inference.GRPCInferenceService/ModelStreamInfer", Action::Predict),
    grpc("/inference.GRPCInferenceService/ServerLive", Action::Health),
    grpc("/inference.GRPCInferenceService/ServerReady", Action::Health),
    grpc("/inference.GRPCInferenceService/ServerMetadata", Action::Describe),
    grpc("/inference.GRPCInferenceService/ModelReady", Action::Inspect),
    grpc("/inference.GRPCInferenceService/ModelMetadata", Action::Inspect),
    grpc("/inference.GRPCInferenceService/ModelConfig", Action::Inspect),
    grpc("/inference.GRPCInferenceService/ModelStatistics", Action::Inspect),
    grpc("/inference.GRPCInferenceService/RepositoryIndex", Action::Observe),
    grpc("/inference.GRPCInferenceService/RepositoryModelLoad", Action::Operate),
    grpc("/inference.GRPCInferenceService/RepositoryModelUnload", Action::Operate),
    grpc("/grpc.health.v1.Health/Check", Action::Health),
    grpc("/grpc.health.v1.Health/Watch", Action::Health),
    grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Action::Describe),
    grpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Action::Describe),
    message("new-container"),
    message("heartbeat"),
    message("answer"),
    message("build"),
    message("stream-news"),
];

/// What a path asks for, and the name of the application or model in it.
#[must_use]
pub fn asked(port: Port, path: &str) -> (Action, Option<Cow<'_, str>>) {
    listed(port, path).unwrap_or((unlisted(port), None))
}

/// The same of what is in the table.
#[must_use]
pub fn listed(port: Port, path: &str) -> Option<(Action, Option<Cow<'_, str>>)> {
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let mut rows = TABLE.iter().filter(|row| row.port == port);
    rows.find_map(|row| Some((row.action, name_in(path, row.path)?)))
}

/// The methods that an endpoint takes; none: it is not in the table.
#[must_use]
pub fn methods(port: Port, path: &str) -> Vec<&'static str> {
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let rows = TABLE.iter().filter(|row| row.port == port && name_in(path, row.path).is_some());
    let mut methods: Vec<&str> = Vec::new();
    for row in rows {
        if !methods.contains(&row.method) {
            methods.push(row.method);
        }
    }
    methods
}

/// What a path that is no endpoint asks for.
fn unlisted(port: Port) -> Action {
    match port {
        Port::Query | Port::Grpc => Action::Describe,
        Port::Management => Action::ManageKeys,
        Port::Metrics => Action::Scrape,
        Port::Containers => Action::Serve,
    }
}

/// Outer `None`: the path is not of this form.
#[allow(clippy::option_option, reason = "a path that fits may have no name in it")]
fn name_in<'p>(path: &'p str, form: &str) -> Option<Option<Cow<'p, str>>> {
    if !form.contains('{') {
        return (path == form).then_some(None);
    }
    let (mut parts, mut forms) = (path.split('/'), form.split('/'));
    let mut name = None;
    loop {
        match (parts.next(), forms.next()) {
            (None, None) => return Some(name),
            (Some(part), Some("{name}")) => {
                name = Some(percent_decode_str(part).decode_utf8_lossy());
            }
            (Some(_), Some("{version}" | "{file}")) => {}
            (Some(part), Some(form)) if part == form => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_found_by_its_own_path() {
        for row in TABLE {
            let path = row.path.replace("{name}", "a%20b").replace("{version}", "1");
            let path = path.replace("{file}", "page.js");
            let name = row.path.contains("{name}").then_some("a b");
            for path in [path.clone(), format!("{path}/")] {
                let (action, found) = asked(row.port, &path);
                assert_eq!((action, found.as_deref()), (row.action, name), "{path}");
            }
        }
    }

    #[test]
    fn what_is_no_endpoint_asks_for_the_most_of_its_port() {
        for path in ["/admin/%64eploy_model", "//admin/add_app", "/admin/add_app//", "/x", ""] {
            assert_eq!(asked(Port::Management, path).0, Action::ManageKeys, "{path}");
        }
        assert_eq!(asked(Port::Query, "/a/b/predict").0, Action::Describe);
        assert_eq!(asked(Port::Query, "/admin/add_app").0, Action::Describe);
        assert_eq!(asked(Port::Metrics, "/x").0, Action::Scrape);
    }
}
