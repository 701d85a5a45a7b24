//! What depends on what is to be deleted: it has to be named. The server's own verbs ask for
//! nothing, as the original's do not.

use serde_json::json;

use crate::cli::remote::{VerbFailure, list};
use clipper_domain::admin::{AppDescription, ModelDescription};
use clipper_tools::admin::Client;

/// An application whose rollout is under way.
pub(super) fn check_app(client: &Client, name: &str) -> Result<(), VerbFailure> {
    let app = client.ask("get_application", &json!({"name": name}))?;
    let app = serde_json::from_value::<AppDescription>(app).ok();
    let is_moving =
        |app: &AppDescription| app.rollout.as_ref().is_some_and(|rollout| rollout.end.is_none());
    if app.as_ref().is_some_and(is_moving) {
        return Err(VerbFailure::Said(format!(
            "The rollout of application '{name}' is under way and would end with it: end it first \
             (clipper rollout abort {name}), or delete the application all the same with --force"
        )));
    }
    Ok(())
}

/// Applications that query this version, or move to it, and are not in `named`.
pub(super) fn check_version(
    client: &Client,
    name: &str,
    version: &str,
    named: &[String],
) -> Result<(), VerbFailure> {
    let (_, models) = list::<ModelDescription>(client, "get_all_models")?;
    let (_, apps) = list::<AppDescription>(client, "get_all_applications")?;
    let found = unnamed(&models, &apps, (name, version), named);
    let Some(first) = found.first() else { return Ok(()) };
    let all = found.iter().map(|app| format!("'{app}'")).collect::<Vec<_>>().join(", ");
    let query = if found.len() == 1 {
        format!("application {all} queries it, and gets its default output")
    } else {
        format!("applications {all} query it, and get their default outputs")
    };
    Err(VerbFailure::Said(format!(
        "Version '{version}' of model '{name}' stays: {query} without \
         it.\nSwitch to another version first (clipper admin models set-version \
         {name} VERSION), or name each (--dependent {first}), or delete it all the same with \
         --force"
    )))
}

fn unnamed<'a>(
    models: &[ModelDescription],
    apps: &'a [AppDescription],
    (name, version): (&str, &str),
    named: &[String],
) -> Vec<&'a str> {
    let is_it =
        |model: &&ModelDescription| model.model_name == name && model.model_version == version;
    let is_current = models.iter().find(is_it).is_some_and(|model| model.is_current_version);
    let id = format!("{name}:{version}");
    let depends = |app: &&AppDescription| {
        let queries = is_current && app.linked_models.iter().any(|model| model == name);
        let moves = app.rollout.as_ref().is_some_and(|rollout| {
            rollout.end.is_none() && (rollout.from == id || rollout.to == id)
        });
        (queries || moves) && !named.contains(&app.name)
    };
    apps.iter().filter(depends).map(|app| app.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_queries_a_version_has_to_be_named() {
        let app = |name: &str, models: &[&str]| {
            serde_json::from_value(json!({"input_type": "doubles", "default_output": "0",
                "latency_slo_micros": 20_000, "name": name, "linked_models": models}))
            .unwrap()
        };
        let model = |version: &str, is_current: bool| {
            serde_json::from_value(json!({"model_name": "m", "model_version": version,
                "input_type": "doubles", "labels": [], "container_name": "", "model_data_path": "",
                "is_current_version": is_current}))
            .unwrap()
        };
        let models: [ModelDescription; 2] = [model("1", false), model("2", true)];
        let apps: [AppDescription; 3] = [app("a", &["m"]), app("b", &["n", "m"]), app("c", &[])];
        let unnamed = |version, named: &[&str]| {
            let named: Vec<String> = named.iter().map(|&name| name.to_owned()).collect();
            unnamed(&models, &apps, ("m", version), &named)
        };
        assert_eq!(unnamed("2", &[]), ["a", "b"]);
        assert_eq!(unnamed("2", &["a"]), ["b"]);
        assert!(unnamed("2", &["b", "a"]).is_empty() && unnamed("1", &[]).is_empty());
    }
}
