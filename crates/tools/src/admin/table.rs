//! Tables for people. Pure.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde_json::Value;

use clipper_domain::admin::{AppDescription, KeyDescription, ModelDescription, ReplicaDescription};
use clipper_domain::printable::printable;

/// Longest text in a cell, characters; `show` verbs print all of it.
const CELL_MAX_CHARS: usize = 60;

/// Bounded, and with nothing that moves the cursor or turns the direction of writing.
fn cell(text: &str) -> String {
    let text = printable(text);
    let mut cell: String = text.chars().take(CELL_MAX_CHARS).collect();
    if text.chars().nth(CELL_MAX_CHARS).is_some() {
        cell.push_str("...");
    }
    if cell.is_empty() { "-".to_owned() } else { cell }
}

fn render(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, nothing: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|text| cell(text)));
    }
    if table.is_empty() {
        return nothing.to_owned();
    }
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Microseconds as milliseconds, without zeros at the end.
fn millis(micros: u32) -> String {
    let text = format!("{}.{:03}", micros / 1_000, micros % 1_000);
    format!("{} ms", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Applications, one a row.
#[must_use]
pub fn apps(apps: &[AppDescription]) -> String {
    let header = ["APPLICATION", "INPUT", "SLO", "DEFAULT", "MODEL"];
    let row = |app: &AppDescription| {
        let (input, default) = (app.input_type.to_string(), app.default_output.clone());
        let models = app.linked_models.join(", ");
        vec![app.name.clone(), input, millis(app.latency_slo_micros), default, models]
    };
    render(&header, apps.iter().map(row), "No applications.")
}

/// Keys, one a row.
#[must_use]
pub fn keys(keys: &[KeyDescription]) -> String {
    let header = ["KEY", "ROLE", "FOR", "EXPIRES", "LIMITS", "KNOWN BY", "FROM"];
    let row = |key: &KeyDescription| {
        let expires = match key.expires_at_ms {
            Some(_) if key.is_expired => "expired".to_owned(),
            Some(at_ms) => date(at_ms),
            None => "never".to_owned(),
        };
        let from = if key.is_listed { "file or environment" } else { "clipper key" };
        let (name, app) = (key.name.clone(), key.app.clone());
        let (role, known_by) = (key.role.name().to_owned(), key.known_by.name().to_owned());
        let limits = key.limits.to_string();
        vec![name, role, app, expires, limits, known_by, from.to_owned()]
    };
    render(&header, keys.iter().map(row), "No keys: everybody may do everything.")
}

/// The day of a time, in UTC, by the count of days from March on (Howard Hinnant's `civil`).
fn date(unix_ms: u64) -> String {
    let days = unix_ms / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{year:04}-{month:02}-{day:02}")
}

/// Links, one a row.
#[must_use]
pub fn links(apps: &[AppDescription]) -> String {
    let rows = apps.iter().flat_map(|app| {
        app.linked_models.iter().map(|model| vec![app.name.clone(), model.clone()])
    });
    render(&["APPLICATION", "MODEL"], rows, "No links.")
}

/// Model versions, one a row, with the number of replicas of each.
#[must_use]
pub fn models(models: &[ModelDescription], containers: &[ReplicaDescription]) -> String {
    let mut replicas: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for container in containers {
        *replicas.entry((&container.model_name, &container.model_version)).or_default() += 1;
    }
    let header = ["MODEL", "VERSION", "CURRENT", "INPUT", "REPLICAS", "RUNTIME", "SOURCE"];
    let row = |model: &ModelDescription| {
        let (name, version) = (&model.model_name, &model.model_version);
        let replicas = replicas.get(&(name.as_str(), version.as_str())).unwrap_or(&0);
        let current = if model.is_current_version { "yes" } else { "" };
        vec![
            name.clone(),
            version.clone(),
            current.to_owned(),
            model.input_type.to_string(),
            replicas.to_string(),
            model.container_name.clone(),
            model.model_data_path.clone(),
        ]
    };
    render(&header, models.iter().map(row), "No models.")
}

/// Connected replicas, one a row.
#[must_use]
pub fn containers(containers: &[ReplicaDescription]) -> String {
    let row = |container: &ReplicaDescription| {
        vec![
            container.model_name.clone(),
            container.model_version.clone(),
            container.model_replica_id.to_string(),
            container.input_type.to_string(),
        ]
    };
    let header = ["MODEL", "VERSION", "REPLICA", "INPUT"];
    render(&header, containers.iter().map(row), "No replica is connected.")
}

/// One object, a member a line.
#[must_use]
pub fn members(object: &Value) -> String {
    let Some(object) = object.as_object() else { return object.to_string() };
    let width = object.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    let shown = |value: &Value| match value {
        Value::String(text) => printable(text).into_owned(),
        Value::Array(values) => {
            let text = |value: &Value| match value.as_str() {
                Some(text) => printable(text).into_owned(),
                None => value.to_string(),
            };
            values.iter().map(text).collect::<Vec<String>>().join(", ")
        }
        other => other.to_string(),
    };
    let lines = object.iter().map(|(key, value)| format!("{key:width$}  {}", shown(value)));
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_domain::{InputType, Limits, OnModelError, Weight};

    fn app(name: &str, default: &str) -> AppDescription {
        AppDescription {
            name: name.to_owned(),
            input_type: InputType::Doubles,
            default_output: default.to_owned(),
            latency_slo_micros: 20_500,
            linked_models: vec![],
            on_model_error: OnModelError::Default,
            cache: true,
            policy: None,
            policy_parameters: None,
            weight: Weight::default(),
            limits: Limits::default(),
            rollout: None,
        }
    }

    #[test]
    fn a_table_has_a_header_and_a_line_for_each_row() {
        let table = apps(&[app("digits", "-1"), app("x", "")]);
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["APPLICATION", "INPUT", "SLO", "DEFAULT", "MODEL"]);
        assert_eq!(lines[1], ["digits", "doubles", "20.5", "ms", "-1", "-"]);
        assert_eq!(lines[2], ["x", "doubles", "20.5", "ms", "-", "-"]);
        assert_eq!(apps(&[]), "No applications.");
    }

    #[test]
    fn a_cell_is_bounded_and_moves_no_cursor() {
        let table = apps(&[app("a", &"\u{1b}[2J\n".repeat(50))]);
        assert!(!table.contains('\u{1b}'));
        assert_eq!(table.lines().count(), 2);
        assert!(table.lines().all(|line| line.chars().count() < 150), "{table}");
    }

    #[test]
    fn members_stand_below_each_other() {
        let shown = members(&serde_json::json!({"name": "a", "labels": ["x", "y"], "n": 1}));
        assert!(shown.contains("name    a"), "{shown}");
        assert!(shown.contains("labels  x, y"), "{shown}");
    }
}
