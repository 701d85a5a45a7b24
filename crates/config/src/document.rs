//! `config/default.toml` as it follows from the declarations.

use std::fmt::Write as _;

use toml::Value;

use super::root::Config;
use super::schema::{Key, SECTIONS, TOP};

/// What stands above the first key.
const HEAD: &str = include_str!("head.txt");

/// The lists of applications and models, as examples.
const LISTS: &str = include_str!("lists.txt");

/// Shown for the key that has no default.
const REDIS_URL: &str = "redis://127.0.0.1:6379";

/// The documented file: every key with its default, commented out.
#[must_use]
pub fn document() -> String {
    let defaults = Config { redis_url: Some(REDIS_URL.to_owned()), ..Config::default() };
    let Ok(Value::Table(defaults)) = Value::try_from(&defaults) else { return String::new() };
    // Writing to memory does not fail.
    let mut text = HEAD.to_owned();
    write_keys(&mut text, TOP, &defaults);
    for (section, keys) in SECTIONS {
        let _ = writeln!(text, "[{section}]");
        if let Some(Value::Table(defaults)) = defaults.get(*section) {
            write_keys(&mut text, keys, defaults);
        }
    }
    text.push_str(LISTS);
    text
}

fn write_keys(text: &mut String, keys: &[Key], defaults: &toml::Table) {
    for key in keys {
        for line in key.doc {
            let _ = writeln!(text, "#{line}");
        }
        if let Some(default) = defaults.get(key.name) {
            let _ = writeln!(text, "#{} = {default}\n", key.name);
        }
    }
}

/// The default of a key with a dotted path, as text; `None` where it has none.
#[must_use]
pub fn default_of(path: &str) -> Option<String> {
    let defaults = Value::try_from(Config::default()).ok()?;
    let value = path.split('.').try_fold(&defaults, |value, name| value.get(name))?;
    Some(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
}
