//! `clipper admin ...`: every verb of the management frontend.

mod args;
mod deleting;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

pub(super) use self::args::AdminArgs;
use self::args::{AppVerb, ContainerVerb, LinkVerb, ModelVerb, PolicyVerb, ReplicaVerb, What};
use super::remote::{Outcome, Shown, VerbFailure, ended, list};
use clipper_domain::DEFAULT_POLICY;
use clipper_domain::admin::{AppDescription, ModelDescription, ReplicaDescription};
use clipper_selection::kind::PolicyKind;
use clipper_selection::table::{COMMON, TABLE};
use clipper_tools::admin::hint::hint;
use clipper_tools::admin::{Client, ClientError, table};

impl AdminArgs {
    #[allow(clippy::disallowed_methods, reason = "this process has no arbiter that could wait")]
    pub(super) fn run(&self) -> ExitCode {
        let client = match self.server.client() {
            Ok(client) => client,
            Err(failure) => return failure.show(),
        };
        match self.watched() {
            Some(pause) => loop {
                self.again(self.once(&client));
                std::thread::sleep(pause);
            },
            None => ended(self.once(&client), self.json),
        }
    }

    fn watched(&self) -> Option<Duration> {
        match &self.what {
            What::Apps(AppVerb::List(watch))
            | What::Models(ModelVerb::List(watch))
            | What::Containers(ContainerVerb::List(watch))
            | What::Links(LinkVerb::List { watch, .. }) => watch.watch,
            _ => None,
        }
    }

    /// One look of many: on a terminal it takes the place of the one before. A server that is away
    /// for a while does not end the watch.
    fn again(&self, outcome: Outcome) {
        if std::io::stdout().is_terminal() && !self.json {
            let _ = write!(std::io::stdout(), "\x1b[H\x1b[J");
        }
        match outcome {
            Ok(shown) => shown.print(self.json),
            Err(failure) => {
                let _ = failure.show();
            }
        }
    }

    fn once(&self, client: &Client) -> Outcome {
        match &self.what {
            What::Apps(verb) => apps(client, verb),
            What::Models(verb) => models(client, verb),
            What::Policy(verb) => policy(client, verb),
            What::Links(verb) => links(client, verb),
            What::Containers(verb) => containers(client, verb),
            What::Replicas(ReplicaVerb::Restart { which }) => restart(client, which.as_deref()),
            What::Replicas(ReplicaVerb::Set { which, count }) => {
                set_replicas(client, which, *count)
            }
            What::State { app, uid } => {
                show(client, "get_application", &json!({"name": app}), "application", app)?;
                let state = client.post("get_state", &json!({"app_name": app, "uid": uid}))?;
                Ok(Shown { json: json!({"state": state}), text: state })
            }
            What::Ping => ping(client),
            What::Metrics { prometheus } => {
                let accept = if *prometheus { "text/plain" } else { "application/json" };
                let text = client.get("/admin/metrics", accept)?;
                let json = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
                Ok(Shown { text, json })
            }
        }
    }
}

fn ping(client: &Client) -> Outcome {
    let pong = client.get("/admin/ping", "*/*")?;
    if pong.trim() != "PONG" {
        let why = format!("{} is there, but is no Clipper server", client.shown());
        return Err(VerbFailure::Said(why));
    }
    let ready = match client.get("/readyz", "*/*") {
        Ok(_) => true,
        Err(ClientError::Refused { status: 503, .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let state = if ready { "ready" } else { "not ready" };
    Ok(Shown {
        text: format!("{} answers and is {state}", client.shown()),
        json: json!({"url": client.shown(), "ready": ready}),
    })
}

/// A change; a refusal of an unknown name comes with names that there are.
fn change(client: &Client, endpoint: &str, body: &Value, names: &[(&str, &str)]) -> Outcome {
    match client.post(endpoint, body) {
        Ok(done) => Ok(Shown::done(done)),
        Err(ClientError::Refused { status: 400, why }) => {
            let unknown = |(kind, name): &(&str, &str)| {
                let (known, list) = names_of(client, kind).ok()?;
                (!known.iter().any(|known| known == name)).then(|| hint(name, &known, list))
            };
            let hints: Vec<String> = names.iter().filter_map(unknown).collect();
            Err(VerbFailure::Said([vec![why], hints].concat().join("\n")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The names there are, of this kind, and the verb that lists them.
fn names_of(client: &Client, kind: &str) -> Result<(Vec<String>, &'static str), ClientError> {
    let (endpoint, list) = match kind {
        "application" => ("get_all_applications", "clipper admin apps list"),
        "replica" => ("get_all_containers", "clipper admin containers list"),
        _ => ("get_all_models", "clipper admin models list"),
    };
    let all = client.ask(endpoint, &json!({"verbose": false}))?;
    let all = all.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names: Vec<String> = match kind {
        // Listed as NAME:VERSION; neither has a colon.
        "model" => all.filter_map(|id| id.split(':').next().map(str::to_owned)).collect(),
        _ => all.map(str::to_owned).collect(),
    };
    names.sort();
    names.dedup();
    Ok((names, list))
}

/// One object; the server answers `{}` to an unknown name.
fn show(client: &Client, endpoint: &str, body: &Value, what: &str, name: &str) -> Outcome {
    let json = client.ask(endpoint, body)?;
    if json.as_object().is_some_and(serde_json::Map::is_empty) {
        let (known, list) = names_of(client, what)?;
        let hint = hint(name, &known, list);
        return Err(VerbFailure::Said(format!("There is no {what} '{name}'. {hint}")));
    }
    Ok(Shown { text: table::members(&json), json })
}

fn apps(client: &Client, verb: &AppVerb) -> Outcome {
    match verb {
        AppVerb::List(_) => {
            let (json, rows) = list::<AppDescription>(client, "get_all_applications")?;
            Ok(Shown { text: table::apps(&rows), json })
        }
        AppVerb::Show { name } => {
            show(client, "get_application", &json!({"name": name}), "application", name)
        }
        AppVerb::Add {
            name,
            input_type,
            default_output,
            slo_ms,
            on_model_error,
            no_cache,
            weight,
        } => {
            let mut body = json!({"name": name, "input_type": input_type,
                "default_output": default_output, "latency_slo_micros": slo_ms});
            // Left out, servers that do not know it understand the rest.
            if let Some(choice) = on_model_error {
                body["on_model_error"] = json!(choice);
            }
            if *no_cache {
                body["cache"] = json!(false);
            }
            if let Some(weight) = weight {
                body["weight"] = json!(weight);
            }
            change(client, "add_app", &body, &[])
        }
        AppVerb::Update {
            name,
            default_output,
            slo_ms,
            on_model_error,
            cache,
            weight,
            policy,
            parameters,
        } => {
            let parameters: serde_json::Map<_, _> = parameters.iter().cloned().collect();
            let mut body = json!({"name": name});
            let given = [
                ("default_output", default_output.as_ref().map(|text| json!(text))),
                ("latency_slo_micros", slo_ms.map(|micros| json!(micros))),
                ("on_model_error", on_model_error.map(|choice| json!(choice))),
                ("cache", cache.map(|cache| json!(cache))),
                ("weight", weight.map(|weight| json!(weight))),
                ("policy", policy.as_ref().map(|policy| json!(policy))),
                ("parameters", policy.as_ref().map(|_| json!(parameters))),
            ];
            for (key, value) in given {
                if let Some(value) = value {
                    body[key] = value;
                }
            }
            change(client, "update_app", &body, &[("application", name)])
        }
        AppVerb::Limit { name, limits } => {
            let body = json!({"name": name, "limits": limits.body()});
            change(client, "update_app", &body, &[("application", name)])
        }
        AppVerb::Delete { name, force } => {
            if !force {
                deleting::check_app(client, name)?;
            }
            change(client, "delete_app", &json!({"name": name}), &[("application", name)])
        }
    }
}

fn models(client: &Client, verb: &ModelVerb) -> Outcome {
    let version_body =
        |name: &str, version: &str| json!({"model_name": name, "model_version": version});
    match verb {
        ModelVerb::List(_) => {
            let (json, rows) = list::<ModelDescription>(client, "get_all_models")?;
            let (_, containers) = list::<ReplicaDescription>(client, "get_all_containers")?;
            Ok(Shown { text: table::models(&rows, &containers), json })
        }
        ModelVerb::Show { name, version } => {
            let version = match version {
                Some(version) => version.clone(),
                None => current_version(client, name)?,
            };
            let id = format!("{name}:{version}");
            show(client, "get_model", &version_body(name, &version), "version", &id)
        }
        ModelVerb::Add { .. } => change(client, "add_model", &added_model(verb), &[]),
        ModelVerb::SetVersion { name, version } => {
            let body = version_body(name, version);
            let id = format!("{name}:{version}");
            change(client, "set_model_version", &body, &[("version", &id)])
        }
        ModelVerb::Update { .. } => {
            let (id, body) = changed_model(verb);
            change(client, "update_model", &body, &[("version", &id)])
        }
        ModelVerb::Delete { name, version, dependents, force } => {
            if !force {
                deleting::check_version(client, name, version, dependents)?;
            }
            let mut body = version_body(name, version);
            body["force"] = json!(*force || !dependents.is_empty());
            let id = format!("{name}:{version}");
            change(client, "delete_versioned_model", &body, &[("version", &id)])
        }
    }
}

/// `NAME:VERSION`, and the body that says what changes of it.
fn changed_model(verb: &ModelVerb) -> (String, Value) {
    let ModelVerb::Update {
        name,
        version,
        batch_size,
        labels,
        no_labels,
        cache,
        container_name,
        data_path,
    } = verb
    else {
        return (String::new(), Value::Null);
    };
    let mut body = json!({"model_name": name, "model_version": version});
    let has_labels = *no_labels || !labels.is_empty();
    let given = [
        ("batch_size", batch_size.map(|size| json!(size))),
        ("labels", has_labels.then(|| json!(labels))),
        ("cache", cache.map(|cache| json!(cache))),
        ("container_name", container_name.as_ref().map(|text| json!(text))),
        ("model_data_path", data_path.as_ref().map(|text| json!(text))),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    (format!("{name}:{version}"), body)
}

fn added_model(verb: &ModelVerb) -> Value {
    let ModelVerb::Add {
        name,
        version,
        input_type,
        labels,
        container_name,
        data_path,
        batch_size,
        no_switch,
        no_cache,
    } = verb
    else {
        return Value::Null;
    };
    let mut body = json!({"model_name": name, "model_version": version,
        "input_type": input_type, "labels": labels, "container_name": container_name,
        "model_data_path": data_path, "batch_size": batch_size});
    // Left out, servers that do not know them understand the rest.
    if *no_switch {
        body["make_current"] = json!(false);
    }
    if *no_cache {
        body["cache"] = json!(false);
    }
    body
}

fn current_version(client: &Client, name: &str) -> Result<String, VerbFailure> {
    let (_, rows) = list::<ModelDescription>(client, "get_all_models")?;
    let current = rows.iter().find(|row| row.model_name == name && row.is_current_version);
    current.map(|row| row.model_version.clone()).ok_or_else(|| {
        let names: Vec<String> = rows.into_iter().map(|row| row.model_name).collect();
        let hint = hint(name, &names, "clipper admin models list");
        VerbFailure::Said(format!("No model '{name}' has a current version. {hint}"))
    })
}

fn links(client: &Client, verb: &LinkVerb) -> Outcome {
    match verb {
        LinkVerb::List { app, .. } => {
            let (_, mut rows) = list::<AppDescription>(client, "get_all_applications")?;
            if let Some(app) = app {
                let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
                rows.retain(|row| row.name == *app);
                if rows.is_empty() {
                    let hint = hint(app, &names, "clipper admin apps list");
                    return Err(VerbFailure::Said(format!(
                        "There is no application '{app}'. {hint}"
                    )));
                }
            }
            let link =
                |app: &AppDescription| json!({"app_name": app.name, "models": app.linked_models});
            Ok(Shown { text: table::links(&rows), json: rows.iter().map(link).collect() })
        }
        LinkVerb::Add { app, models } => {
            let body = json!({"app_name": app, "model_names": models});
            let names = models.iter().map(|model| ("model", model.as_str()));
            let names: Vec<_> = names.chain([("application", app.as_str())]).collect();
            change(client, "add_model_links", &body, &names)
        }
        LinkVerb::Remove { app, models } => {
            let body = json!({"app_name": app, "model_names": models});
            change(client, "delete_model_links", &body, &[("application", app)])
        }
    }
}

fn policy(client: &Client, verb: &PolicyVerb) -> Outcome {
    match verb {
        PolicyVerb::Show { app } => {
            let whole = show(client, "get_application", &json!({"name": app}), "application", app)?;
            let of = |member: &str| whole.json.get(member).cloned();
            let json = json!({
                "policy": of("policy").unwrap_or_else(|| json!(DEFAULT_POLICY)),
                "policy_parameters": of("policy_parameters").unwrap_or_else(|| json!({})),
            });
            Ok(Shown { text: table::members(&json), json })
        }
        PolicyVerb::Set { app, policy, parameters } => {
            let parameters: serde_json::Map<_, _> = parameters.iter().cloned().collect();
            let body = json!({"app_name": app, "policy": policy, "parameters": parameters});
            change(client, "set_policy", &body, &[("application", app)])
        }
        PolicyVerb::List => Ok(every_policy()),
    }
}

/// What this program knows; no server is asked.
fn every_policy() -> Shown {
    let rows = |parameters: &[(&str, &str)]| -> Vec<String> {
        parameters.iter().map(|(name, what)| format!("    {name}: {what}")).collect()
    };
    let head = "  Asks the one model that is linked. What an application starts with.";
    let mut lines = vec![DEFAULT_POLICY.to_owned(), head.to_owned()];
    for kind in TABLE {
        lines.extend([kind.name.to_owned(), format!("  {}", kind.summary)]);
        lines.extend(rows(kind.parameters));
    }
    lines.push("parameters of all but the first".to_owned());
    lines.extend(rows(COMMON));
    let members = |parameters: &[(&str, &str)]| -> serde_json::Map<_, _> {
        parameters.iter().map(|(name, what)| ((*name).to_owned(), json!(what))).collect()
    };
    let kind = |kind: &PolicyKind| {
        let parameters = members(kind.parameters);
        json!({"name": kind.name, "summary": kind.summary, "parameters": parameters})
    };
    let kinds: Vec<Value> = TABLE.iter().map(kind).collect();
    let json = json!({"policies": kinds, "parameters_of_all": members(COMMON)});
    Shown { text: lines.join("\n"), json }
}

fn containers(client: &Client, verb: &ContainerVerb) -> Outcome {
    match verb {
        ContainerVerb::List(_) => {
            let (json, rows) = list::<ReplicaDescription>(client, "get_all_containers")?;
            Ok(Shown { text: table::containers(&rows), json })
        }
        ContainerVerb::Show { name, version, replica } => {
            let body = json!({"model_name": name, "model_version": version, "replica_id": replica});
            let id = format!("{name}:{version}:{replica}");
            show(client, "get_container", &body, "replica", &id)
        }
    }
}

/// The members that say `MODEL[:VERSION]`, and the model's name.
fn named(which: Option<&str>) -> (Value, Option<&str>) {
    // Neither a name nor a version has a colon.
    let (name, version) = match which.map(|which| which.split_once(':').ok_or(which)) {
        None => (None, None),
        Some(Ok((name, version))) => (Some(name), Some(version)),
        Some(Err(name)) => (Some(name), None),
    };
    let mut body = json!({});
    for (key, value) in [("model_name", name), ("model_version", version)] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    (body, name)
}

fn set_replicas(client: &Client, which: &str, count: u32) -> Outcome {
    let (mut body, name) = named(Some(which));
    body["num_replicas"] = json!(count);
    let names: Vec<_> = name.map(|name| ("model", name)).into_iter().collect();
    change(client, "set_replicas", &body, &names)
}

fn restart(client: &Client, which: Option<&str>) -> Outcome {
    let (body, name) = named(which);
    let names: Vec<_> = name.map(|name| ("model", name)).into_iter().collect();
    change(client, "restart_replicas", &body, &names)
}
