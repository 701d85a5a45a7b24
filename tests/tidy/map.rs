//! The map in ARCHITECTURE.md is the one that the compiler and the other tests hold the code to.

use std::path::{Path, PathBuf};

use super::LAYERS;

#[test]
fn the_map_knows_what_the_layers_know() {
    let page = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    for (module, knows) in LAYERS {
        // The server may know all, and these two are no folders.
        if ["server", "lib", "main"].contains(module) {
            continue;
        }
        let starts = [format!("| `src/{module}` |"), format!("| `src/{module}.rs` |")];
        let is_its = |line: &&str| starts.iter().any(|start| line.starts_with(start));
        let row = page.lines().find(is_its);
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row of src/{module}"));
        let written = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let right = if knows.is_empty() { "-".to_owned() } else { knows.join(", ") };
        assert_eq!(written, right, "what src/{module} knows in ARCHITECTURE.md");
    }
}

#[test]
fn the_pages_for_developers_name_files_that_are_there() {
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(page).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let starts = ["src/", "crates/", "tests/", "docs/", "config/", "scripts/", "benches/"];
            let is_path = starts.iter().any(|start| name.starts_with(start));
            if is_path && !name.contains(['*', ' ', '<', '{']) {
                assert!(Path::new(name).exists(), "{page} names {name}");
            }
        }
    }
}

/// A name without a folder lies beside the path before it, one with a folder in the last folder
/// that was named whole.
#[test]
fn short_names_of_files_lie_beside_the_path_before_them() {
    let page = std::fs::read_to_string("ARCHITECTURE.md").unwrap();
    let (_, ways) = page.split_once("## The way of a query").unwrap();
    let (mut beside, mut folder) = (PathBuf::new(), PathBuf::new());
    for name in ways.split('`').skip(1).step_by(2) {
        let path = if name.starts_with("src/") || name.starts_with("crates/") {
            if name.ends_with('/') {
                folder = name.into();
            }
            PathBuf::from(name)
        } else if Path::new(name).extension().is_none_or(|extension| extension != "rs") {
            continue;
        } else if name.contains('/') {
            folder.join(name)
        } else {
            beside.join(name)
        };
        assert!(path.exists(), "ARCHITECTURE.md: {name} is not {}", path.display());
        beside = if path.is_dir() { path } else { path.parent().unwrap().to_owned() };
    }
}
