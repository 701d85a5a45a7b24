//! The documented configuration, the schema and the structs say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clipper_config::{Config, ContainerConfig, ProcessConfig, schema};
use toml::{Table, Value};

const DEFAULT: &str = include_str!("../config/default.toml");

/// Takes the mark of switched-off keys away: `#` for defaults, `##` for examples.
fn switch_on(text: &str, mark: &str) -> String {
    let on = |line: &str| match line.strip_prefix(mark) {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            key.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(on).collect::<Vec<_>>().join("\n")
}

fn load(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clipper.toml");
    fs::write(&file, text).unwrap();
    fs::write(folder.path().join("digits.onnx"), "").unwrap();
    fs::write(folder.path().join("libonnxruntime.so"), "").unwrap();
    Config::load(Some(&file), [], &[]).unwrap_or_else(|faults| panic!("{faults}")).config
}

/// Dotted paths of the values in `table`, lists of tables left out.
fn paths(table: &Table) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                paths.extend(inner.keys().map(|key| format!("{name}.{key}")));
            }
            Value::Array(_) => {}
            _ => {
                paths.insert(name.clone());
            }
        }
    }
    paths
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(load(DEFAULT), Config::default(), "as it is");
    let on = switch_on(DEFAULT, "#");
    let mut config = load(&on);
    assert!(config.redis_url.take().is_some(), "redis_url has no default but an example");
    assert_eq!(config, Config::default(), "with every key switched on");
}

#[test]
fn the_documented_file_is_what_the_declarations_say() {
    let text = clipper_config::document::document();
    if std::env::var_os("CLIPPER_WRITE_DOCS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
        fs::write(file, &text).unwrap();
        return;
    }
    let why = "`CLIPPER_WRITE_DOCS=1 cargo test --test all config_docs` writes config/default.toml";
    assert_eq!(text, DEFAULT, "{why}");
}

#[test]
fn schema_and_structs_have_the_same_keys() {
    let config = Config { redis_url: Some("redis://h".to_owned()), ..Config::default() };
    let in_structs = paths(&Table::try_from(&config).unwrap());
    let in_schema: BTreeSet<String> = schema::paths().collect();
    assert_eq!(in_schema, in_structs, "left: the declarations, right: the structs");
}

#[test]
fn the_examples_name_every_key_of_the_lists() {
    let text = switch_on(DEFAULT, "##");
    let config = load(&text);
    let root = Table::try_from(&config).unwrap();
    let first = |list: &str| root[list][0].as_table().unwrap().clone();
    let names = |keys: &[schema::Key]| keys.iter().map(|key| key.name).collect::<BTreeSet<_>>();
    let keys = |table: &Table| table.keys().cloned().collect::<BTreeSet<_>>();
    let mut app = first("application");
    app.remove(schema::POLICY_TABLE).expect("the example has a policy");
    let limits = app.remove(schema::LIMITS_TABLE).expect("the example has limits");
    let limits = keys(limits.as_table().unwrap());
    assert_eq!(limits, names(schema::LIMITS).into_iter().map(String::from).collect());
    assert_eq!(keys(&app), names(schema::APPLICATION).into_iter().map(String::from).collect());
    let mut model = first("model");
    model.remove(schema::CONTAINER_TABLE).expect("the example starts its replicas");
    model.remove(schema::PROCESS_TABLE).expect("the example has bounds of its own");
    for key in ProcessConfig::KEYS {
        assert!(DEFAULT.contains(key.name), "{} is not shown", key.name);
    }
    assert_eq!(keys(&model), names(schema::MODEL).into_iter().map(String::from).collect());
    for (_, container_keys) in schema::CONTAINER {
        for key in *container_keys {
            assert!(DEFAULT.contains(&format!("{} = ", key.name)), "{} is not shown", key.name);
        }
    }
}

#[test]
fn each_key_is_explained_by_a_comment_above_it() {
    let lines: Vec<&str> = DEFAULT.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let single = line.strip_prefix('#').is_some_and(|l| l.starts_with(char::is_lowercase));
        if single {
            assert!(lines[n - 1].starts_with("# "), "line {}: no comment above {line}", n + 1);
        }
    }
}

#[test]
fn the_quickstart_serves_digits_with_two_replicas() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart.toml");
    for path in ["config", "examples/digits"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    fs::write(folder.path().join("examples/digits/digits.onnx"), "").unwrap();
    let file = folder.path().join("config/quickstart.toml");
    fs::copy(source, &file).unwrap();
    let loaded = Config::load(Some(&file), [], &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.base_dir, folder.path().join("config"));
    let app = &loaded.config.applications[0];
    assert_eq!((app.name.as_str(), app.model.as_deref()), ("digits", Some("digits")));
    assert_eq!((app.default_output.as_str(), app.latency_slo_micros), ("-1", 100_000));
    match loaded.config.models[0].container.as_ref() {
        Some(ContainerConfig::Onnx { path, replicas: 2, .. }) => {
            assert!(loaded.base_dir.join(path).is_file());
        }
        other => panic!("not two ONNX replicas: {other:?}"),
    }
}
