//! Invariant J1 from outside: processes killed while they append, and damaged files of the storage
//! engine.
//!
//! The children are this test program again, running one of the ignored tests with a directory in
//! its environment.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use clipper::store::event::{Envelope, Origin};
use clipper::store::journal::Change;
use clipper::store::projection::Catalog;
use clipper::store::sled::SledLog;
use clipper::store::{EventLog, StoreError, inspect};
use clipper_config::JournalConfig;
use clipper_domain::{BatchSize, Command, InputType, ModelId, ModelName, ModelSpec, ModelVersion};
use rand::Rng;

const DIRECTORY: &str = "CLIPPER_TEST_DIRECTORY";

fn config() -> JournalConfig {
    JournalConfig { snapshot_every_events: 20, keep_events: 50, ..JournalConfig::default() }
}

/// The `n`th command: versions come and go, so that the state says how far it is.
fn command(n: u64, catalog: &Catalog) -> Command {
    let version = format!("{}", (n * n + n / 3) % 11);
    let id = ModelId::new(ModelName::parse("m").unwrap(), ModelVersion::parse(&version).unwrap());
    if catalog.model("m", &version).is_some() {
        return Command::DeleteVersionedModel(id);
    }
    Command::AddModel(ModelSpec {
        id,
        input_type: InputType::Doubles,
        labels: Vec::new(),
        container_name: format!("made by command {n}"),
        model_data_path: "x".repeat(usize::try_from(n % 300).unwrap()),
        batch_size: BatchSize::Adaptive,
        cache: true,
        signature: None,
    })
}

/// All changes from the beginning, one after the other.
struct Script {
    next: u64,
    seq: u64,
    catalog: Catalog,
}

impl Script {
    fn new() -> Self {
        Self { next: 0, seq: 0, catalog: Catalog::default() }
    }

    fn step(&mut self) -> Change {
        let events = self.catalog.decide(&command(self.next, &self.catalog)).unwrap();
        self.next += 1;
        let envelope = |event| {
            self.catalog.apply(&event);
            self.seq += 1;
            Envelope { seq: self.seq, recorded_at_ms: 0, author: Origin::Admin.into(), event }
        };
        events.into_iter().map(envelope).collect()
    }

    /// The script after exactly `seq` events; fails if `seq` is in the middle of a change.
    fn at(seq: u64) -> Self {
        let mut script = Self::new();
        while script.seq < seq {
            script.step();
        }
        assert_eq!(script.seq, seq, "a change is half there");
        script
    }
}

fn child(test: &str, directory: &Path) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .arg(format!("journal_crash::{test}"))
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn append(log: &mut SledLog, script: &mut Script) {
    let changes: Vec<Change> = (0..=script.next % 3).map(|_| script.step()).collect();
    log.append(&changes).unwrap();
    log.flush().unwrap();
    if script.next.is_multiple_of(5) {
        log.snapshot(script.seq, &script.catalog).unwrap();
    }
}

#[test]
#[ignore = "a child of the kill test"]
fn child_appends_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (mut log, report) = SledLog::open(Path::new(&directory), &config()).unwrap();
    let mut script = Script::at(report.last_seq);
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nready").unwrap();
    loop {
        append(&mut log, &mut script);
        writeln!(out, "acknowledged {}", script.seq).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn every_acknowledged_event_survives_kill_9_at_any_point() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = rand::rng();
    let mut total = 0;
    let rounds = std::env::var("CLIPPER_KILL_ROUNDS").map_or(30, |r| r.parse().unwrap());
    for round in 0..rounds {
        let mut child = child("child_appends_until_killed", directory.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = total;
        // Some are killed while they open the store, most after some appends and a moment more.
        let stop_after = rng.random_range(0..60);
        let mut lines = lines.map_while(Result::ok);
        if stop_after > 5 {
            let seen = lines.by_ref().filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok());
            acknowledged = seen.take(stop_after).last().unwrap_or(acknowledged);
        }
        std::thread::park_timeout(Duration::from_micros(rng.random_range(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let rest = lines.filter_map(|l| l.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        acknowledged = rest.last().unwrap_or(acknowledged).max(acknowledged);

        let (mut log, report) = SledLog::open(directory.path(), &config()).unwrap();
        let replay = log.load(0).unwrap();
        assert!(replay.seq >= acknowledged, "round {round}: {} < {acknowledged}", replay.seq);
        assert_eq!(replay.catalog, Script::at(replay.seq).catalog, "round {round}");
        assert_eq!(report.bad_snapshots, [] as [u64; 0], "round {round}");
        total = replay.seq;
        drop(log);
        let verification = inspect::verify(directory.path(), &config()).unwrap();
        assert!(verification.is_clean(), "round {round}: {verification}");
    }
    println!("{total} events, {rounds} kills");
    assert!(total > 100, "only {total} events were written");
}

#[test]
#[ignore = "a child of the damage test"]
fn child_opens_and_reports() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let outcome = SledLog::open(Path::new(&directory), &config())
        .and_then(|(mut log, _)| log.load(0).map(|replay| (log, replay)));
    match outcome {
        Ok((mut log, replay)) => {
            let mut script = Script::at(replay.seq);
            assert_eq!(replay.catalog, script.catalog);
            // What it accepts it also goes on with.
            append(&mut log, &mut script);
            println!("\nstate {}", replay.seq);
        }
        Err(StoreError::Closed) => unreachable!("never said by a log"),
        Err(error) => println!("\nerror {error}"),
    }
}

#[test]
#[ignore = "a child of the full-disk test"]
fn child_appends_until_the_disk_is_full() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (mut log, _) = SledLog::open(Path::new(&directory), &config()).unwrap();
    let mut script = Script::new();
    let error = loop {
        let acknowledged = script.seq;
        if let Err(error) = log.append(&[script.step()]).and_then(|()| log.flush()) {
            println!("\nacknowledged {acknowledged}");
            break error;
        }
    };
    println!("\nerror {error}");
    assert!(!error.certainly_not_written());
    println!("\nstate {}", log.load(0).unwrap().seq);
}

#[test]
fn a_full_disk_loses_nothing_and_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    // The limit on a file's size stands in for the disk's; its signal is ignored, so writes fail.
    let output = Process::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .arg("journal_crash::child_appends_until_the_disk_is_full")
        .args(["--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let line = |start: &str| text.lines().find_map(|l| l.strip_prefix(start)).unwrap();
    let number = |start: &str| line(start).parse::<u64>().unwrap();
    assert!(line("error ").contains("failed while writing"), "{text}");
    assert!(number("acknowledged ") > 0 && number("state ") >= number("acknowledged "), "{text}");

    // With room again it goes on where it was.
    let (mut log, report) = SledLog::open(directory.path(), &config()).unwrap();
    assert!(report.last_seq >= number("acknowledged "), "{text}");
    let mut script = Script::at(report.last_seq);
    assert_eq!(log.load(0).unwrap().catalog, script.catalog);
    append(&mut log, &mut script);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn damaged_engine_files_give_everything_or_a_clear_error() {
    let cases = std::env::var("CLIPPER_DAMAGE_CASES").map_or(40, |c| c.parse().unwrap());
    let original = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    {
        let (mut log, _) = SledLog::open(original.path(), &config()).unwrap();
        while script.seq < 150 {
            append(&mut log, &mut script);
        }
    }
    let mut rng = rand::rng();
    let (mut whole, mut errors) = (0, 0);
    for case in 0..cases {
        let damaged = tempfile::tempdir().unwrap();
        copy(original.path(), damaged.path());
        let mut files: Vec<_> = fs::read_dir(damaged.path().join("journal"))
            .unwrap()
            .map(|f| f.unwrap().path())
            .filter(|f| f.is_file())
            .collect();
        files.sort();
        // Most of the data is in `db`.
        let file = match case % 5 {
            0 => files[rng.random_range(0..files.len())].clone(),
            _ => damaged.path().join("journal/db"),
        };
        let mut bytes = fs::read(&file).unwrap();
        let used: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0).collect();
        let at = used[rng.random_range(0..used.len())];
        let name = file.file_name().unwrap().display();
        let what = if case % 4 == 0 {
            bytes.truncate(at);
            format!("{name} truncated to {at}")
        } else {
            let bit = rng.random_range(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {name} flipped")
        };
        fs::write(&file, bytes).unwrap();

        let output = child("child_opens_and_reports", damaged.path()).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what}: {} {text}", output.status);
        let state = text.lines().find_map(|l| l.strip_prefix("state ")?.parse::<u64>().ok());
        let error = text.lines().find_map(|l| l.strip_prefix("error "));
        println!("{what}: {state:?} {error:?}");
        match (state, error) {
            (Some(seq), None) => {
                assert_eq!(seq, script.seq, "{what}: acknowledged events are lost without a word");
                whole += 1;
            }
            (None, Some(error)) => {
                assert!(
                    error.to_lowercase().contains("restore"),
                    "{what}: says what to do: {error}"
                );
                errors += 1;
            }
            _ => panic!("{what}: no outcome: {text}"),
        }
    }
    println!("{whole} whole, {errors} clear errors");
}
