//! No circle of imports between files: whoever reads one file has to read only what is below it.
//!
//! An import is every path in `use`, and every path in code that starts with `crate`, `self`,
//! `super` or a child module; it leads to the file of its longest part that is a module. A parent
//! that re-exports a child imports it, so children name the sibling that defines something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Source, rust};

type Path = Vec<String>;

/// What a file says that matters here, in order.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `::`
    Into,
    Other(char),
}

/// The words and signs of Rust text, without comments and texts.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = ["r\"", "r#\"", "br\""].iter().find(|raw| rest.starts_with(**raw))
        {
            let end = if raw.contains('#') { "\"#" } else { "\"" };
            let from = raw.len();
            rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
        } else if c == '"' {
            let mut is_escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if let Some(quoted) =
            ["'\"'", "'{'", "'}'", "'\\''"].iter().find(|q| rest.starts_with(**q))
        {
            quoted.len()
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..end]));
            end
        } else if rest.starts_with("::") {
            tokens.push(Token::Into);
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Other(c));
            }
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    tokens
}

/// Reads the imports of one file.
struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// The module that is read, inline ones included.
    module: Path,
    children: BTreeSet<Path>,
    found: Vec<Path>,
}

impl Reader<'_> {
    fn read(text: &str, module: Path) -> Vec<Path> {
        let (children, found) = (BTreeSet::new(), Vec::new());
        let mut reader = Reader { tokens: tokens(text), at: 0, module, children, found };
        reader.find_children();
        reader.find_imports();
        reader.found
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.tokens.get(at) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is(&self, at: usize, c: char) -> bool {
        self.tokens.get(at) == Some(&Token::Other(c))
    }

    /// Goes through all of it, `visit`ing each token, and keeps track of inline modules.
    fn walk(&mut self, mut visit: impl FnMut(&mut Self)) {
        let mut braces = Vec::new();
        self.at = 0;
        while self.at < self.tokens.len() {
            if self.word(self.at) == Some("mod") && self.is(self.at + 2, '{') {
                let name = self.word(self.at + 1).unwrap_or_default().to_owned();
                self.module.push(name);
                braces.push(true);
                self.at += 3;
                continue;
            }
            if self.is(self.at, '{') {
                braces.push(false);
            } else if self.is(self.at, '}') && braces.pop() == Some(true) {
                self.module.pop();
            }
            let before = self.at;
            visit(self);
            self.at = self.at.max(before + 1);
        }
    }

    fn find_children(&mut self) {
        self.walk(|reader| {
            if reader.word(reader.at) == Some("mod")
                && let Some(name) = reader.word(reader.at + 1)
            {
                let child = [reader.module.as_slice(), &[name.to_owned()]].concat();
                reader.children.insert(child);
            }
        });
    }

    fn find_imports(&mut self) {
        self.walk(|reader| match reader.word(reader.at) {
            Some("use") => {
                reader.at += 1;
                reader.tree(&Vec::new());
            }
            // `pub(in crate::store)` imports nothing.
            Some("in") if reader.is(reader.at.wrapping_sub(1), '(') => {
                while reader.at < reader.tokens.len() && !reader.is(reader.at, ')') {
                    reader.at += 1;
                }
            }
            Some(_) if reader.tokens.get(reader.at.wrapping_sub(1)) != Some(&Token::Into) => {
                let mut path = Vec::new();
                while let Some(word) = reader.word(reader.at) {
                    path.push(word.to_owned());
                    reader.at += 1;
                    if reader.tokens.get(reader.at) != Some(&Token::Into) {
                        break;
                    }
                    reader.at += 1;
                }
                if path.len() > 1 {
                    reader.add(&path);
                }
            }
            _ => {}
        });
    }

    /// What a `use` names, after `before`.
    fn tree(&mut self, before: &[String]) {
        let mut path = before.to_vec();
        loop {
            if self.is(self.at, '{') {
                self.at += 1;
                while self.at < self.tokens.len() && !self.is(self.at, '}') {
                    self.tree(&path);
                    if self.is(self.at, ',') {
                        self.at += 1;
                    }
                }
                self.at += 1;
                return;
            }
            if let Some(word) = self.word(self.at) {
                path.push(word.to_owned());
            }
            self.at += 1;
            if self.tokens.get(self.at) != Some(&Token::Into) {
                break;
            }
            self.at += 1;
        }
        if self.word(self.at) == Some("as") {
            self.at += 2;
        }
        self.add(&path);
    }

    fn add(&mut self, path: &[String]) {
        // `use ::name` is a crate.
        let Some(first) = path.first() else { return };
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            child => {
                let child = [self.module.as_slice(), &[child.to_owned()]].concat();
                if !self.children.contains(&child) {
                    return;
                }
                self.module.clone()
            }
        };
        for word in path {
            match word.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                word => base.push(word.to_owned()),
            }
        }
        self.found.push(base);
    }
}

/// The crate that a file is part of, and its module there.
fn module_of(path: &str) -> Option<(&str, Path)> {
    let root = path.find("src/")? + "src/".len();
    let inside = path[root..].strip_suffix(".rs")?;
    let mut module: Path = inside.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    Some((&path[..root], module))
}

/// Which files import which.
fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let is_main = |source: &Source| source.path.ends_with("src/main.rs");
    let looked_at = |source: &&Source| {
        source.is_shipped() && !is_main(source) && !source.path.ends_with("tests.rs")
    };
    let modules: BTreeMap<(&str, Path), &str> = sources
        .iter()
        .filter(looked_at)
        .filter_map(|source| Some((module_of(&source.path)?, source.path.as_str())))
        .collect();
    let mut imports = BTreeMap::new();
    for source in sources.iter().filter(looked_at) {
        let Some((root, module)) = module_of(&source.path) else { continue };
        let found: BTreeSet<&str> = Reader::read(source.shipped_text(), module)
            .iter()
            .filter_map(|path| {
                let lengths = (0..=path.len()).rev();
                let mut files = lengths.map(|n| modules.get(&(root, path[..n].to_vec())).copied());
                files.find_map(|file| file)
            })
            .filter(|file| *file != source.path)
            .collect();
        imports.insert(source.path.as_str(), found);
    }
    imports
}

/// The shortest way from a file back to itself.
fn circle<'a>(
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    file: &'a str,
) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = VecDeque::from([file]);
    while let Some(from) = next.pop_front() {
        for to in imports.get(from).into_iter().flatten() {
            if came_from.contains_key(to) {
                continue;
            }
            came_from.insert(to, from);
            if *to != file {
                next.push_back(to);
                continue;
            }
            let mut way = vec![file];
            while way.len() == 1 || way.last() != Some(&file) {
                way.push(came_from[way[way.len() - 1]]);
            }
            way.reverse();
            return Some(way);
        }
    }
    None
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = rust();
    let imports = imports(&sources);
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 500, "imports are not seen");
    let circles: Vec<String> =
        imports.keys().filter_map(|file| Some(circle(&imports, file)?.join(" -> "))).collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn imports_are_seen_as_what_they_lead_to() {
    let read = |text: &str| -> Vec<String> {
        let paths = Reader::read(text, vec!["a".to_owned(), "b".to_owned()]);
        paths.iter().map(|path| path.join("::")).collect()
    };
    assert_eq!(read("use super::c::{self, D as E, f::*};"), ["a::c", "a::c::D", "a::c::f"]);
    assert_eq!(read("use std::io; use crate::{x::Y, z};"), ["x::Y", "z"]);
    assert_eq!(read("mod child; pub use child::Z; fn f() { child::g() }").len(), 2);
    assert_eq!(read("fn f() { super::g(\"crate::x\") } // crate::y"), ["a::g"]);
    assert_eq!(read("mod inner { use super::H; } use super::I;"), ["a::b::H", "a::I"]);
    assert_eq!(read("pub(in crate::store) fn f(x: crate::K<u8>) {}"), ["K"]);
}
