//! House rules that neither rustfmt nor clippy checks: layout, sizes, who may know whom.

mod circles;
mod map;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Longest file, lines.
const FILE_LINES_MAX: usize = 500;
/// Longest line, characters.
const LINE_COLUMNS_MAX: usize = 100;

/// Marks of unfinished work; put together here so that this file does not find itself.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// Folders of one machine or another.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "venv"),
];

/// Each module of the server and the modules it may name, besides itself. Arrows point one way:
/// http -> actors -> {store, rpc} -> {logging, metrics}. Arrows between crates are the
/// compiler's business.
const LAYERS: &[(&str, &[&str])] = &[
    ("access", &[]),
    ("metrics", &[]),
    ("priority", &[]),
    ("logging", &[]),
    ("store", &["metrics"]),
    ("tls", &["metrics"]),
    ("rpc", &["logging", "metrics"]),
    ("supervision", &["metrics"]),
    ("traces", &["metrics", "priority"]),
    ("children", &["access", "metrics", "supervision"]),
    (
        "actors",
        &["access", "children", "logging", "metrics", "rpc", "store", "supervision", "traces"],
    ),
    ("deploy", &["actors", "store", "supervision"]),
    ("dashboard", &["actors", "children", "metrics", "priority", "store"]),
    (
        "http",
        &[
            "access",
            "actors",
            "dashboard",
            "declare",
            "deploy",
            "logging",
            "metrics",
            "priority",
            "store",
            "supervision",
            "tls",
            "traces",
        ],
    ),
    ("grpc", &["access", "actors", "http", "logging", "metrics", "store", "traces"]),
    ("declare", &["store"]),
    ("bootstrap", &["actors", "declare", "store"]),
    (
        "server",
        &[
            "access",
            "actors",
            "bootstrap",
            "children",
            "dashboard",
            "deploy",
            "grpc",
            "http",
            "logging",
            "metrics",
            "priority",
            "rpc",
            "store",
            "supervision",
            "tls",
            "traces",
        ],
    ),
    ("cli", &["declare", "logging", "server", "store", "tls"]),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Names that only these places of `src/`, and tests, may use: (name, places, why).
const OWNED: &[(&str, &[&str], &str)] = &[
    ("sled::", &["src/store/sled"], "another store must be able to take sled's place"),
    ("redis::", &["src/store/redis"], "one actor talks to Redis, through the store"),
    ("zeromq::", &["crates/container/"], "the server's end is our own codec"),
    (
        "zmtp::",
        &[
            "crates/rpc/",
            // A container that has a key.
            "crates/container/src/link.rs",
            "crates/container/src/session_error.rs",
            "src/rpc/",
            "src/actors/replica/container.rs",
            // The other end, in tests.
            "src/actors/paused.rs",
        ],
        "one actor owns each socket",
    ),
    ("ort::session", &["crates/onnx/"], "models run in containers, never in the server"),
    ("rten::", &["crates/onnx/"], "models run in containers, never in the server"),
    ("h2::", &["crates/grpc/"], "one crate speaks HTTP/2"),
    ("prometheus::", &["src/metrics/"], "metrics are declared in one place"),
    ("toml::", &["crates/config/"], "files are read in one place"),
    ("ratatui::", &["crates/tools/src/top/"], "one command draws"),
    ("Instant::now", &["crates/clock/"], "tests must be able to move the clock"),
    ("SystemTime::now", &["crates/clock/"], "tests must be able to move the clock"),
    (".elapsed()", &["crates/clock/"], "it reads the clock; subtract from clock::now()"),
];

struct Source {
    /// Relative to the package, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The lines from 1, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Likewise, without what is compiled for tests only.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.shipped_text().lines().count();
        self.code().take_while(move |(n, _)| *n <= lines)
    }

    fn shipped_text(&self) -> &str {
        let end = if self.path.ends_with("tests.rs") {
            0
        } else {
            self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len())
        };
        &self.text[..end]
    }

    /// Whether it is part of a crate that is shipped.
    fn is_shipped(&self) -> bool {
        let is_test = ["/examples/", "/tests/"].iter().any(|part| self.path.contains(part));
        self.path.starts_with("src/") || self.path.starts_with("crates/") && !is_test
    }

    /// `src/store/sled.rs` belongs to `store`, `src/server.rs` to `server`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split('/').next().map(|name| name.trim_end_matches(".rs"))
    }
}

fn package() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<Source>) {
    const SKIPPED: &[&str] = &["target", "data", "node_modules", "__pycache__"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) && (!name.starts_with('.') || name == ".ci") {
                collect(&path, extensions, found);
            }
        } else if extensions.iter().any(|extension| name.ends_with(extension)) {
            let path_text = path.strip_prefix(package()).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path: path_text.replace('\\', "/"), text });
        }
    }
}

fn rust() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["src", "crates", "tests", "examples", "benches"] {
        collect(&package().join(folder), &[".rs"], &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources found");
    found
}

#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, source: &Source, line: usize, rule: &str) {
        writeln!(self.0, "{}:{line}: {rule}", source.path).unwrap();
    }

    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

#[test]
fn files_start_with_what_they_are_and_stay_small() {
    let mut findings = Findings::default();
    for source in rust() {
        if !source.text.starts_with("//!") {
            findings.add(&source, 1, "a file starts with `//!` and what it is");
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.add(&source, lines, &format!("a file has at most {FILE_LINES_MAX} lines"));
        }
        for (n, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                let rule = format!("{columns} columns; a line has at most {LINE_COLUMNS_MAX}");
                findings.add(&source, n + 1, &rule);
            }
        }
    }
    findings.none();
}

/// No crate is asked for examples that run (`doctest = false`), so nobody is to take one for such.
#[test]
fn examples_in_documentation_are_not_taken_for_tests() {
    let mut findings = Findings::default();
    for source in rust() {
        let mut is_open = false;
        for (n, line) in source.text.lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            let Some(fence) = doc.and_then(|doc| doc.trim_start().strip_prefix("```")) else {
                continue;
            };
            is_open = !is_open;
            if is_open && !["sh", "text"].contains(&fence) {
                findings.add(&source, n + 1, "an example is ```text or ```sh: none is run");
            }
        }
    }
    findings.none();
}

#[test]
fn nothing_is_unfinished_or_tied_to_one_machine() {
    let mut sources = Vec::new();
    let extensions = [".rs", ".toml", ".md", ".sh", ".py", "run"];
    collect(&package(), &extensions, &mut sources);
    let mut findings = Findings::default();
    for source in &sources {
        for (n, line) in source.text.lines().enumerate() {
            for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
                findings.add(source, n + 1, &format!("{mark} marks unfinished work"));
            }
            for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
                findings.add(source, n + 1, &format!("{path} exists on one machine only"));
            }
        }
    }
    findings.none();
}

/// The modules that `line` names as `crate::module`, also in `crate::{a, b}`.
fn named_modules(line: &str) -> BTreeSet<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let first_word = |text| -> &str {
        let text: &str = text;
        &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
    };
    let mut named = BTreeSet::new();
    for (at, _) in line.match_indices("crate::") {
        // `$crate::` in macros counts as well; `mycrate::` does not.
        if line[..at].ends_with(is_word) {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(group.split(',').map(|part| first_word(part.trim()))),
            None => {
                named.insert(first_word(rest));
            }
        }
    }
    named
}

#[test]
fn arrows_between_modules_point_one_way() {
    let mut findings = Findings::default();
    let modules: Vec<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    for source in rust() {
        let Some(module) = source.module() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            findings.add(&source, 1, &format!("LAYERS in tests/tidy.rs does not know {module}"));
            continue;
        };
        for (n, line) in source.code() {
            for named in named_modules(line) {
                let known = modules.contains(&named);
                if known && named != module && !allowed.contains(&named) {
                    findings.add(&source, n, &format!("{module} must not know {named}"));
                }
            }
        }
    }
    findings.none();
}

/// Whether `line` uses `name` as a crate or a type, and not as the end of a longer path.
fn uses(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = &line[..at];
        if name.starts_with('.') {
            return true;
        }
        let absolute = before.strip_suffix("::");
        let outer = absolute.unwrap_or(before);
        let joined = outer.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
        // `tokio::time::Instant::now` is a use of it, `store::sled::open` is not one of the crate.
        !joined
            || (absolute.is_some() && !name.ends_with("::"))
            || (absolute.is_some() && name == "zmtp::")
    })
}

#[test]
fn what_has_an_owner_is_named_by_its_owner_alone() {
    let mut findings = Findings::default();
    for source in rust().iter().filter(|source| source.is_shipped()) {
        for (name, places, why) in OWNED {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (n, _) in source.shipped().filter(|(_, line)| uses(line, name)) {
                let places = places.join(" and ");
                findings.add(source, n, &format!("only {places} may use {name}: {why}"));
            }
        }
    }
    findings.none();
}

#[test]
fn every_file_belongs_to_the_crate() {
    let sources = rust();
    let mut findings = Findings::default();
    for source in sources.iter().filter(|source| source.is_shipped()) {
        let path = Path::new(&source.path);
        let folder = path.parent().unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy();
        // Roots: of libraries and binaries, of examples and integration tests.
        let is_root = folder.ends_with("src") && matches!(&*stem, "lib" | "main")
            || folder.ends_with("tests")
            || stem == "main" && folder.parent().is_some_and(|above| above.ends_with("examples"));
        if is_root {
            continue;
        }
        // `a/mod.rs` is declared next to the folder `a`, everything else in its own folder.
        let (folder, name) = if stem == "mod" {
            (folder.parent().unwrap(), folder.file_name().unwrap().to_string_lossy())
        } else {
            (folder, stem)
        };
        let declared = sources.iter().any(|other| {
            let other_path = Path::new(&other.path);
            let near =
                other_path.parent() == Some(folder) || other_path.with_extension("") == folder;
            near && other.code().any(|(_, line)| {
                line.contains(&format!("mod {name};")) || line.contains(&format!("\"{name}.rs\""))
            })
        });
        if !declared {
            findings.add(source, 1, "no module declares this file");
        }
    }
    findings.none();
}

#[test]
fn each_dependency_is_justified() {
    let manifest: Table =
        fs::read_to_string(package().join("Cargo.toml")).unwrap().parse().unwrap();
    let used: BTreeSet<String> = manifest["workspace"]["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .filter(|name| !name.starts_with("clipper_"))
        .cloned()
        .collect();
    let text = fs::read_to_string(package().join("docs/dependencies.md")).unwrap();
    let justified: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .map(|(name, _)| name.to_owned())
        .collect();
    let unique: BTreeSet<String> = justified.iter().cloned().collect();
    assert_eq!(unique.len(), justified.len(), "docs/dependencies.md has a line twice");
    let missing: Vec<_> = used.difference(&unique).collect();
    let left: Vec<_> = unique.difference(&used).collect();
    assert!(missing.is_empty(), "docs/dependencies.md does not say why we need {missing:?}");
    assert!(left.is_empty(), "docs/dependencies.md justifies {left:?}, which Cargo.toml lacks");
}

#[test]
fn the_rules_see_what_they_are_for() {
    assert_eq!(named_modules("use crate::actors::App;"), BTreeSet::from(["actors"]));
    assert_eq!(named_modules("use crate::{config::A, rpc};"), BTreeSet::from(["config", "rpc"]));
    assert!(uses("let db: sled::Db;", "sled::") && uses("use ::sled::Db;", "sled::"));
    assert!(!uses("use crate::store::sled::SledLog;", "sled::"));
    assert!(uses("tokio::time::Instant::now()", "Instant::now"));
    assert!(uses("use crate::rpc::zmtp::Decoder;", "zmtp::"));
}
