//! Walks a parsed file, keeps what follows the rules, and notes the line of every key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::fault::{Fault, ValueOrigin};
use super::policy::PolicyConfig;
use super::process::ProcessConfig;
use super::schema::{self, Key};
use clipper_domain::limits::InvalidLimits;

/// What a configuration is made of while it is read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Values that follow their rule; others are missing.
    pub(super) root: Table,
    /// Where each key, table and list entry was set last.
    pub(super) origins: BTreeMap<String, ValueOrigin>,
    /// What was wrong so far.
    pub(super) faults: Vec<Fault>,
}

impl Draft {
    pub(super) fn fault(&mut self, origin: ValueOrigin, key: &str, problem: String) {
        self.faults.push(Fault { origin, key: key.to_owned(), problem });
    }

    /// Stores a checked value under `path`, `TABLE.KEY` or `KEY`.
    pub(super) fn set(&mut self, path: &str, value: Value, origin: ValueOrigin) {
        self.origins.insert(path.to_owned(), origin);
        match path.split_once('.') {
            None => {
                self.root.insert(path.to_owned(), value);
            }
            Some((table, key)) => {
                let entry =
                    self.root.entry(table.to_owned()).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(table) = entry {
                    table.insert(key.to_owned(), value);
                }
            }
        }
    }
}

type Entry<'t, 'i> = (&'t str, Range<usize>, &'t Spanned<DeValue<'i>>);

/// The entries of a table in the order of the file.
fn entries<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Entry<'t, 'i>> {
    let mut all: Vec<_> =
        table.iter().map(|(name, value)| (name.get_ref().as_ref(), name.span(), value)).collect();
    all.sort_by_key(|(_, span, _)| span.start);
    all
}

pub(super) struct Walker<'a> {
    file: &'a Path,
    line_starts: Vec<usize>,
    draft: &'a mut Draft,
}

impl<'a> Walker<'a> {
    /// Reads `text`, the contents of `file`, into `draft`.
    pub(super) fn walk(file: &'a Path, text: &str, draft: &'a mut Draft) {
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1))
            .collect();
        let mut walker = Self { file, line_starts, draft };
        let (root, errors) = DeTable::parse_recoverable(text);
        let broken_lines: BTreeSet<ValueOrigin> = errors
            .iter()
            .map(|error| {
                let origin = error.span().map_or_else(
                    || ValueOrigin::File(PathBuf::from(file), None),
                    |s| walker.origin(&s),
                );
                let problem = format!("not TOML: {}", error.message().replace('\n', "; "));
                walker.draft.fault(origin.clone(), "", problem);
                origin
            })
            .collect();
        let syntax_faults = walker.draft.faults.len();
        walker.root(root.get_ref());
        // What a broken line was read as says nothing about what its author meant.
        let mut nth = 0;
        walker.draft.faults.retain(|fault| {
            nth += 1;
            nth <= syntax_faults || !broken_lines.contains(&fault.origin)
        });
    }

    fn origin(&self, span: &Range<usize>) -> ValueOrigin {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        ValueOrigin::File(self.file.to_owned(), Some(line))
    }

    fn root(&mut self, root: &DeTable<'_>) {
        for (name, span, value) in entries(root) {
            let origin = self.origin(&span);
            if let Some((_, keys)) = schema::SECTIONS.iter().find(|(section, _)| *section == name) {
                self.draft.origins.insert(name.to_owned(), origin.clone());
                match value.get_ref() {
                    DeValue::Table(table) => {
                        let table = self.table(name, table, &origin, keys, &[]);
                        self.draft.root.insert(name.to_owned(), Value::Table(table));
                    }
                    _ => self.draft.fault(origin, name, format!("expected a table, [{name}]")),
                }
            } else if name == schema::APPLICATION_TABLES || name == schema::MODEL_TABLES {
                self.tables(name, value.get_ref(), &origin);
            } else if let Some(key) = schema::TOP.iter().find(|key| key.name == name) {
                if let Some(value) = self.value(name, key, value) {
                    self.draft.set(name, value, origin);
                }
            } else {
                let tables = schema::SECTIONS.iter().map(|(section, _)| *section);
                let known = schema::TOP.iter().map(|key| key.name).chain(tables);
                let lists = [schema::APPLICATION_TABLES, schema::MODEL_TABLES];
                self.unknown(name, name, origin, known.chain(lists));
            }
        }
    }

    fn tables(&mut self, name: &str, value: &DeValue<'_>, origin: &ValueOrigin) {
        let DeValue::Array(items) = value else {
            let problem = format!("expected a list of tables, [[{name}]]");
            return self.draft.fault(origin.clone(), name, problem);
        };
        // Several files add to one list.
        let mut tables = match self.draft.root.remove(name) {
            Some(Value::Array(tables)) => tables,
            _ => Vec::new(),
        };
        let before = tables.len();
        for (n, item) in items.iter().enumerate() {
            let path = format!("{name}[{}]", before + n);
            let origin = self.origin(&item.span());
            self.draft.origins.insert(path.clone(), origin.clone());
            let DeValue::Table(table) = item.get_ref() else {
                let problem = format!("expected a table, [[{name}]]");
                self.draft.fault(origin, &path, problem);
                continue;
            };
            let checked = if name == schema::MODEL_TABLES {
                self.model(&path, table, &origin)
            } else {
                self.application(&path, table, &origin)
            };
            tables.push(Value::Table(checked));
        }
        self.draft.root.insert(name.to_owned(), Value::Array(tables));
    }

    fn application(&mut self, path: &str, table: &DeTable<'_>, origin: &ValueOrigin) -> Table {
        let (policy, limits) = (schema::POLICY_TABLE, schema::LIMITS_TABLE);
        let mut app = self.table(path, table, origin, schema::APPLICATION, &[policy, limits]);
        self.limits(path, table, &mut app);
        let found = entries(table).into_iter().find(|(name, _, _)| *name == policy);
        let Some((_, span, value)) = found else { return app };
        let path = format!("{path}.{policy}");
        let plain = Value::deserialize(toml::de::ValueDeserializer::from(value.clone()));
        let (Ok(Value::Table(plain)), DeValue::Table(keys)) = (plain, value.get_ref()) else {
            let problem = "expected a table, [application.policy]".to_owned();
            self.draft.fault(self.origin(&span), &path, problem);
            return app;
        };
        self.draft.origins.insert(path.clone(), self.origin(&span));
        if let Err((key, problem)) = PolicyConfig::check(&plain) {
            let at = entries(keys).into_iter().find(|(name, _, _)| *name == key);
            let origin = self.origin(&at.map_or(span, |(_, span, _)| span));
            self.draft.fault(origin, &format!("{path}.{key}"), problem);
        } else {
            app.insert(policy.to_owned(), Value::Table(plain));
        }
        app
    }

    fn limits(&mut self, path: &str, table: &DeTable<'_>, app: &mut Table) {
        let name = schema::LIMITS_TABLE;
        let found = entries(table).into_iter().find(|(other, ..)| *other == name);
        let Some((_, span, value)) = found else { return };
        let (path, origin) = (format!("{path}.{name}"), self.origin(&span));
        self.draft.origins.insert(path.clone(), origin.clone());
        let DeValue::Table(table) = value.get_ref() else {
            let problem = "expected a table, [application.limits]".to_owned();
            return self.draft.fault(origin, &path, problem);
        };
        let limits = self.table(&path, table, &origin, schema::LIMITS, &[]);
        if limits.contains_key("burst") && !limits.contains_key("rate") {
            let problem = InvalidLimits::BurstAlone.to_string();
            return self.draft.fault(origin, &format!("{path}.burst"), problem);
        }
        app.insert(name.to_owned(), Value::Table(limits));
    }

    fn model(&mut self, path: &str, table: &DeTable<'_>, origin: &ValueOrigin) -> Table {
        let (container, process) = (schema::CONTAINER_TABLE, schema::PROCESS_TABLE);
        let inner = [container, process, schema::SIGNATURE.name];
        let mut model = self.table(path, table, origin, schema::MODEL, &inner);
        for (name, span, value) in entries(table) {
            if name != container && name != process {
                continue;
            }
            let path = format!("{path}.{name}");
            let origin = self.origin(&span);
            self.draft.origins.insert(path.clone(), origin.clone());
            let DeValue::Table(table) = value.get_ref() else {
                self.draft.fault(origin, &path, format!("expected a table, [model.{name}]"));
                continue;
            };
            let table = if name == container {
                self.container(&path, table, &origin)
            } else {
                self.table(&path, table, &origin, ProcessConfig::KEYS, &[])
            };
            model.insert(name.to_owned(), Value::Table(table));
        }
        let signature =
            entries(table).into_iter().find(|(name, ..)| *name == schema::SIGNATURE.name);
        if let Some((name, span, value)) = signature {
            let path = format!("{path}.{name}");
            self.draft.origins.insert(path.clone(), self.origin(&span));
            if let Some(value) = self.value(&path, &schema::SIGNATURE, value) {
                model.insert(name.to_owned(), value);
            }
        }
        model
    }

    fn container(&mut self, path: &str, table: &DeTable<'_>, origin: &ValueOrigin) -> Table {
        let runtime = entries(table)
            .into_iter()
            .find(|(name, _, _)| *name == schema::RUNTIME.name)
            .and_then(|(_, _, value)| value.get_ref().as_str());
        let keys = schema::CONTAINER.iter().find(|(name, _)| Some(*name) == runtime);
        if let Some((_, keys)) = keys {
            return self.table(path, table, origin, keys, &[]);
        }
        // Without a runtime nothing else in the table can be judged.
        let mut only = DeTable::new();
        only.extend(
            table
                .iter()
                .filter(|(name, _)| name.get_ref() == schema::RUNTIME.name)
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        self.table(path, &only, origin, &[schema::RUNTIME], &[])
    }

    /// Checks the keys of one table, except for `inner`, and returns those that follow their rule.
    fn table(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        origin: &ValueOrigin,
        keys: &[Key],
        inner: &[&'static str],
    ) -> Table {
        let mut checked = Table::new();
        let mut seen = BTreeSet::new();
        for (name, span, value) in entries(table) {
            if inner.contains(&name) {
                continue;
            }
            let key_path = format!("{path}.{name}");
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let known = keys.iter().map(|key| key.name).chain(inner.iter().copied());
                let origin = self.origin(&span);
                self.unknown(&key_path, name, origin, known);
                continue;
            };
            seen.insert(name);
            if let Some(value) = self.value(&key_path, key, value) {
                checked.insert(name.to_owned(), value);
                let origin = self.origin(&span);
                self.draft.origins.insert(key_path, origin);
            }
        }
        for key in keys.iter().filter(|key| key.required && !seen.contains(key.name)) {
            let problem = format!("missing; expected {}", key.rule.accepted());
            self.draft.fault(origin.clone(), &format!("{path}.{}", key.name), problem);
        }
        checked
    }

    fn value(&mut self, path: &str, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let plain = Value::deserialize(toml::de::ValueDeserializer::from(value.clone()))
            .map_err(|error| format!("expected {}, found {}", key.rule.accepted(), error.message()))
            .and_then(|plain| match key.rule.check(&plain) {
                Ok(()) => Ok(plain),
                Err(problem) => Err(problem.to_string()),
            });
        match plain {
            Ok(plain) => Some(plain),
            Err(problem) => {
                let origin = self.origin(&value.span());
                self.draft.fault(origin, path, problem);
                None
            }
        }
    }

    fn unknown<'k>(
        &mut self,
        path: &str,
        name: &str,
        origin: ValueOrigin,
        known: impl Iterator<Item = &'k str> + Clone,
    ) {
        let elsewhere =
            schema::paths().find(|path| path.rsplit('.').next().is_some_and(|key| key == name));
        let problem = if let Some(meant) = schema::closest(name, known.clone()) {
            format!("unknown key; did you mean {meant}?")
        } else if let Some(elsewhere) = elsewhere {
            format!("unknown key here; did you mean {elsewhere}?")
        } else {
            format!("unknown key; known here: {}", known.collect::<Vec<_>>().join(", "))
        };
        self.draft.fault(origin, path, problem);
    }
}
