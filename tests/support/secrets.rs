//! No secret is where somebody might read it, whatever a test has its server do: what a server has
//! written is searched when it ends, so that the whole suite is the test.
//!
//! Searched are its log, its data directory, its page of metrics, the arguments of the processes
//! below it, and what Redis keeps for it: for what looks like a secret, and for the secrets that it
//! was given. A server that was given one logs at trace; `CLIPPER_TEST_LOG` says at what all others
//! log. Not searched is only what somebody has to have the secret in: the files that a test has
//! written beside the data directory, and the arguments and the environment that it gave to the
//! server.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::served::Served;
use crate::e2e::support::descendants_of;

const LEVEL: &str = "CLIPPER_LOG";

/// What is a secret by its looks, for `grep -E`: a key, a token, a private key, a header that shows
/// one, an address with a password.
const LOOKS: [&str; 5] = [
    "clk_[A-Za-z0-9_-]{40,}",
    "eyJ[A-Za-z0-9_-]{8,}[.]eyJ[A-Za-z0-9_-]{8,}[.][A-Za-z0-9_-]{16,}",
    "-----BEGIN [A-Z ]*PRIVATE KEY",
    "([Bb]earer|[Bb]asic) [A-Za-z0-9+/=._~-]{16,}",
    "[a-z]://[^][:space:]/@:\"\\]*:[^][:space:]/@*\"\\]+@",
];

/// Settings that name files with secrets, as in the environment.
const FILES: [&str; 4] = ["ACCESS__KEYS_FILE", "RPC__KEYS", "RPC__CURVE_KEY", "TLS__KEY"];
/// A password that is shorter could be a word of the log.
const SECRET_MIN: usize = 16;
/// Nobody waits longer for a page of metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is searched when a server ends.
#[derive(Default)]
pub struct Watch {
    /// Secrets that it was given, and lists and keys where more of them are.
    known: Vec<String>,
    files: Vec<PathBuf>,
    /// Whoever shows it may see the metrics.
    observer: Option<String>,
    data: PathBuf,
    /// What was seen while it ran, each by its name.
    seen: Vec<(String, Vec<u8>)>,
    folder: Option<Arc<tempfile::TempDir>>,
}

impl Watch {
    /// Over a server that `command` starts with the text of a config file.
    pub fn over(command: &mut Command, config: &str, data: &Path) -> Self {
        let mut watch = Self { data: data.to_owned(), ..Self::default() };
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        let given: Vec<(String, String)> = command
            .get_envs()
            .filter_map(|(name, value)| Some((text(name), text(value?))))
            .collect();
        for (name, value) in &given {
            let name = name.trim_start_matches("CLIPPER_");
            if name == "KEYS" {
                watch.take_list(&value.replace(';', "\n"));
            }
            if FILES.contains(&name) {
                watch.files.push(value.into());
            }
            watch.take_password(value);
        }
        for arg in command.get_args() {
            watch.take_password(&text(arg));
        }
        let config: toml::Table = config.parse().unwrap_or_default();
        let setting = |name: &str| {
            let name = name.to_ascii_lowercase();
            let (table, key) = name.split_once("__")?;
            config.get(table)?.get(key)?.as_str()
        };
        watch.files.extend(FILES.iter().filter_map(|name| setting(name)).map(PathBuf::from));
        if let Some(url) = config.get("redis_url").and_then(|url| url.as_str()) {
            watch.take_password(url);
        }
        watch.read_files();
        let filter = config.get("log").and_then(|log| log.get("filter"));
        let is_told = filter.is_some() || given.iter().any(|(name, _)| name == LEVEL);
        let level = std::env::var("CLIPPER_TEST_LOG").ok();
        let level = level.or_else(|| (!watch.known.is_empty()).then(|| "trace".to_owned()));
        if let Some(level) = level.filter(|_| !is_told) {
            command.env(LEVEL, level);
        }
        watch
    }

    /// Keeps the folder of the data until it has been searched.
    pub fn keep(&mut self, folder: &Arc<tempfile::TempDir>) {
        self.folder = Some(Arc::clone(folder));
    }

    /// Secrets of a list of keys, `NAME ROLE SECRET [PATTERN]` on each line.
    fn take_list(&mut self, list: &str) {
        for line in list.lines() {
            let [_, role, secret, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                continue;
            };
            // Others are a hash, or what is public of a pair.
            if !secret.contains(':') {
                self.take(secret);
                if ["admin", "observe"].contains(&role) {
                    self.observer = Some(secret.to_owned());
                }
            }
        }
    }

    fn take_password(&mut self, url: &str) {
        let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
        if let Some((_, password)) = user.and_then(|(user, _)| user.split_once(':')) {
            self.take(password);
        }
    }

    fn take(&mut self, secret: &str) {
        if secret.len() >= SECRET_MIN && !self.known.iter().any(|known| known == secret) {
            self.known.push(secret.to_owned());
            let mut hex = String::new();
            for byte in secret.bytes() {
                write!(hex, "{byte:02x}").unwrap();
            }
            self.known.push(hex);
        }
    }

    /// They may have been replaced since.
    fn read_files(&mut self) {
        for file in self.files.clone() {
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            if text.starts_with("-----BEGIN") {
                // What follows has the public key in it.
                for line in text.lines().skip(1).take(2) {
                    self.take(line);
                }
            } else if text.split_whitespace().count() == 1 {
                self.take(text.trim());
            } else {
                self.take_list(&text);
            }
        }
    }

    /// Looks at what is there only as long as the server runs.
    pub fn look(&mut self, pid: u32, metrics: SocketAddr) {
        self.read_files();
        if let Ok(page) = self.metrics(metrics) {
            self.seen.push(("metrics".to_owned(), page));
        }
        for child in descendants_of(pid) {
            let read = |what| std::fs::read(format!("/proc/{child}/{what}")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            // That is how it gets its own.
            let own = environment.split('\0').find_map(|one| one.strip_prefix("CLIPPER_RPC_KEY="));
            if let Some(own) = own {
                self.take(own);
            }
            self.seen.push((format!("arguments-of-{child}"), read("cmdline")));
        }
    }

    fn metrics(&self, addr: SocketAddr) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let key = self.observer.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n"));
        let key = key.unwrap_or_default();
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page)?;
        Ok(page)
    }

    /// Searches all that there is after its end, and fails the test with the places. The thread is
    /// who reads the log.
    pub fn end<L: AsRef<[String]>>(&mut self, heard: Option<&JoinHandle<()>>, log: impl Fn() -> L) {
        // What it has started may have the other end of the log as well, and be slower to go.
        let deadline = Instant::now() + PATIENCE;
        while heard.is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let log = log().as_ref().join("\n").into_bytes();
        self.seen.push(("log".to_owned(), log));
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        std::fs::create_dir(&seen).unwrap();
        for (name, text) in &self.seen {
            std::fs::write(seen.join(name), text).unwrap();
        }
        assert!(self.data.exists(), "{} has gone unsearched: Served::keeping", self.data.display());
        let found = found(&[&seen, &self.data], &self.known);
        assert!(found.is_empty(), "a secret can be read:\n{}", found.join("\n"));
    }
}

/// Whether `grep` could read all that it was to: it has found something, or nothing.
fn has_searched(output: &Output) -> bool {
    output.status.code().is_some_and(|code| code <= 1)
}

/// Where in these folders is what looks like a secret, or is a known one.
pub fn found(folders: &[&Path], known: &[String]) -> Vec<String> {
    let looks = LOOKS.map(str::to_owned);
    [("-E", &looks[..]), ("-F", known)]
        .into_iter()
        .flat_map(|(how, patterns)| {
            let mut list = tempfile::NamedTempFile::new().unwrap();
            for pattern in patterns {
                writeln!(list, "{pattern}").unwrap();
            }
            let mut grep = Command::new("grep");
            grep.env("LC_ALL", "C").args(["-raoH", "-m", "3", how, "-f"]).arg(list.path());
            grep.arg("--").args(folders);
            let mut output = grep.output().unwrap();
            if !has_searched(&output) {
                // What is slow to go may have removed a file as it was to be read.
                output = grep.output().unwrap();
            }
            assert!(
                has_searched(&output),
                "not all was searched: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().take(20).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_secret_is_found_by_its_looks_or_where_it_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let is_found = |text: &str, known: &[String]| {
        std::fs::write(&file, format!("\0{text}\n\u{ff}")).unwrap();
        !found(&[folder.path()], known).is_empty()
    };
    let key = format!("clk_{}", "aB3-_".repeat(9));
    for secret in [
        key.as_str(),
        "{\"token\":\"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0abc.c2lnbmF0dXJlLW9m-_w\"}",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----",
        "\"authorization\": \"Bearer 0123456789abcdef\"",
        "redis://:password@127.0.0.1:6379",
        "https://any:password@host/",
    ] {
        assert!(is_found(secret, &[]), "{secret}");
    }
    for other in ["clk_short", "redis://***@127.0.0.1", "http://127.0.0.1:1337/a@b", "a Bearer"] {
        assert!(!is_found(other, &[]), "{other}");
    }
    let mut command = Command::new("true");
    let list = folder.path().join("list");
    std::fs::write(&list, "# none\nb predict 00112233445566778899 a*\nc admin sha256:00\n")
        .unwrap();
    command.env("CLIPPER_KEYS", "a observe 0123456789abcdefghij;d admin curve:0123456789abcdef");
    command.args(["--redis-url", "redis://u:passwordpassword@h"]);
    let config = format!("[access]\nkeys_file = {list:?}\n");
    let watch = Watch::over(&mut command, &config, folder.path());
    let given = ["0123456789abcdefghij", "00112233445566778899", "passwordpassword"];
    assert!(given.iter().all(|secret| watch.known.iter().any(|known| known == secret)));
    assert_eq!(watch.known.len(), 2 * given.len(), "in clear and as hex");
    assert_eq!(watch.observer.as_deref(), Some(given[0]));
    assert!(
        command.get_envs().any(|(name, level)| name == LEVEL && level == Some("trace".as_ref()))
    );
    std::fs::remove_file(list).unwrap();
    for known in &watch.known {
        assert!(is_found(&format!("before{known}after"), &watch.known), "{known}");
    }
    assert!(!is_found("nothing", &watch.known));
}

#[test]
#[should_panic(expected = "not all was searched")]
fn what_cannot_be_searched_fails_the_test() {
    let folder = tempfile::tempdir().unwrap();
    found(&[&folder.path().join("missing")], &[]);
}

/// A server with a key, whose data directory somebody writes to.
fn written(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(crate::binary());
    command.env("CLIPPER_KEYS", "root admin 0123456789abcdef0123456789abcdef");
    let server = Served::start_by(command, "", folder.path());
    assert!(server.log().iter().any(|line| line.contains("\"TRACE\"")), "it logs at trace");
    std::fs::write(folder.path().join("data/journal/written"), text).unwrap();
}

#[test]
fn a_server_that_has_written_no_secret_ends_well() {
    written("sha256:0123456789abcdef");
}

#[test]
#[should_panic(expected = "a secret can be read")]
fn a_server_that_has_written_a_key_fails_its_test() {
    written(&format!("clk_{}", "aB3-_".repeat(9)));
}

#[test]
#[should_panic(expected = "data/journal/written:0123456789abcdef0123456789abcdef")]
fn a_server_that_has_written_what_it_was_given_fails_its_test() {
    written("its key is 0123456789abcdef0123456789abcdef");
}
