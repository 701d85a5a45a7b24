//! What is acknowledged survives: power cuts, damaged files, a data directory that is gone.
//!
//! The device that forgets is an ext4 file system in a file: a copy of that file is what it
//! had been given, and mounting the copy is the start after the cut. It needs root and a kernel
//! that mounts such files; where one is missing the tests say that they are skipped.
//! `CLIPPER_TEST_CUTS=200` cuts that often.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clipper::store::EventLog as _;
use clipper::store::sled::SledLog;
use clipper_config::JournalConfig;
use nix::sys::signal::Signal;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::support::served::{Http, Process, Served, until};
use crate::support::signals::signal;
use crate::support::{StopAtEnd, size};

/// Snapshots and compaction all the time.
const CONFIG: &str = "[journal]\nsnapshot_every_events = 20\nkeep_events = 30\n";

/// As ext4 writes what nobody syncs only now and then, a cut finds it missing for certain.
const MOUNT_OPTIONS: &str = "loop,commit=300";

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted file, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).unwrap();
        let paths = [image.display().to_string(), at.display().to_string()];
        run("mount", &["-o", MOUNT_OPTIONS, &paths[0], &paths[1]])?;
        Ok(Self(at.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever had files open in it is being killed.
        let path = self.0.display().to_string();
        let _ = run("umount", &[&path]).or_else(|_| run("umount", &["-l", &path]));
    }
}

/// A device whose power can be cut.
struct Device {
    // First, so that it is dropped first.
    mounted: Mounted,
    folder: tempfile::TempDir,
}

impl Device {
    /// `None`, and a line that says so, where this machine cannot.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let made = || {
            fs::File::create(&image)
                .and_then(|f| f.set_len(48 << 20))
                .map_err(|e| e.to_string())?;
            run("mkfs.ext4", &["-q", "-F", &image.display().to_string()])?;
            Mounted::new(&image, &folder.path().join("mounted"))
        };
        match made() {
            Ok(mounted) => Some(Self { mounted, folder }),
            Err(reason) => {
                println!("SKIPPED: no power can be cut on this machine: {reason}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        &self.mounted.0
    }

    /// What is there after a cut of the power right now.
    fn cut(&self, server: &Served) -> Mounted {
        signal(server.pid(), Signal::SIGSTOP);
        let [image, copy] = ["image", "copy"].map(|n| self.folder.path().join(n));
        // What the server had asked for may still be on its way; a copy of a device that changes
        // meanwhile is no moment of it.
        let still = || {
            fs::copy(&image, &copy).unwrap();
            (fs::read(&image).unwrap() == fs::read(&copy).unwrap()).then_some(())
        };
        until("the device is still", still);
        signal(server.pid(), Signal::SIGCONT);
        Mounted::new(&copy, &self.folder.path().join("after")).unwrap()
    }
}

/// The applications that a start on `data` would serve.
fn kept(data: &Path) -> BTreeSet<String> {
    let (mut log, report) = SledLog::open(data, &JournalConfig::default()).unwrap();
    assert_eq!(report.bad_snapshots, [] as [u64; 0]);
    let catalog = log.load(0).unwrap().catalog;
    catalog.apps().map(|app| app.name.to_string()).collect()
}

fn app(name: &str) -> Value {
    json!({"name": name, "input_type": "doubles", "default_output": "x".repeat(400),
        "latency_slo_micros": 100_000})
}

fn add(server: &Served, name: &str) -> (u16, String) {
    let mut http = Http::new(server.management);
    http.request("POST", "/admin/add_app", &app(name).to_string()).unwrap()
}

#[test]
fn line_a_the_first_changes_of_a_new_server_survive_a_power_cut() {
    let Some(device) = Device::new() else { return };
    let server = Served::start("", device.path());
    let mut wanted = BTreeSet::new();
    for n in 0..20 {
        let name = format!("a{n}");
        let (status, text) = add(&server, &name);
        assert_eq!(status, 200, "{text}");
        wanted.insert(name);
        if [0, 1, 19].contains(&n) {
            let after = device.cut(&server);
            assert_eq!(kept(&after.0.join("data")), wanted, "of those acknowledged");
        }
    }
    server.kill_9();
}

/// What clients have been told, and what they have asked for.
#[derive(Default, Clone)]
struct Told {
    adding: BTreeSet<String>,
    added: BTreeSet<String>,
    deleting: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

/// Adds applications and deletes the older ones until told to stop.
fn change(server: &Served, client: usize, told: &Mutex<Told>, stop: &AtomicBool) {
    let told = || told.lock().unwrap_or_else(PoisonError::into_inner);
    let mut http = Http::new(server.management);
    for n in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("c{client}-{n}");
        told().adding.insert(name.clone());
        let (status, text) =
            http.request("POST", "/admin/add_app", &app(&name).to_string()).unwrap();
        assert_eq!(status, 200, "{text}");
        told().added.insert(name);
        let Some(old) = n.checked_sub(30) else { continue };
        let name = format!("c{client}-{old}");
        told().deleting.insert(name.clone());
        let body = json!({"name": name}).to_string();
        let (status, text) = http.request("POST", "/admin/delete_app", &body).unwrap();
        assert_eq!(status, 200, "{text}");
        told().deleted.insert(name);
    }
}

#[test]
fn line_a_power_cuts_during_changes_snapshots_and_compaction_lose_nothing() {
    let Some(device) = Device::new() else { return };
    let server = Served::start(CONFIG, device.path());
    let cuts = size("CLIPPER_TEST_CUTS", 5, 200);
    let (told, stop) = (Mutex::new(Told::default()), AtomicBool::new(false));
    let told_now = || told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut lost = Vec::new();
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for client in 0..4 {
            let (server, told, stop) = (&server, &told, &stop);
            scope.spawn(move || change(server, client, told, stop));
        }
        let mut changes = 0;
        for cut in 0..cuts {
            // At least one more is acknowledged, and then any moment later.
            let seen = told_now().added.len();
            until("another change", || (told_now().added.len() > seen).then_some(()));
            let moment = Duration::from_micros(rand::rng().random_range(0..60_000));
            std::thread::park_timeout(moment);
            let before = told_now();
            let after = device.cut(&server);
            let asked = told_now();
            let there = kept(&after.0.join("data"));
            let missing = before.added.difference(&asked.deleting).filter(|n| !there.contains(*n));
            let undead = before.deleted.iter().filter(|n| there.contains(*n));
            let unasked = there.iter().filter(|n| !asked.adding.contains(*n));
            let wrong: Vec<String> = missing.chain(undead).chain(unasked).cloned().collect();
            if !wrong.is_empty() {
                lost.push((cut, wrong.len()));
            }
            changes = before.added.len() + before.deleted.len();
        }
        println!("{cuts} power cuts during {changes} changes");
    });
    assert_eq!(lost, [], "cuts with acknowledged changes that are wrong after it, and how many");
    assert!(!server.log().iter().any(|line| line.contains("no snapshot was written")));
    server.kill_9();
}

/// Takes all the room that a device has.
fn fill(device: &Device) -> PathBuf {
    let path = device.path().join("filling");
    let mut file = fs::File::create(&path).unwrap();
    for size in [64 << 10, 1] {
        while let Ok(1..) = file.write(&vec![1; size]) {}
    }
    path
}

#[test]
fn line_a_a_full_disk_stops_changes_until_it_has_room_and_loses_nothing() {
    let Some(device) = Device::new() else { return };
    let server = Served::start(CONFIG, device.path());
    let (mut asked, mut told) = (BTreeSet::new(), BTreeSet::new());
    let mut change = |name: String| {
        asked.insert(name.clone());
        let status = add(&server, &name).0;
        if status == 200 {
            told.insert(name);
        } else {
            assert_eq!(status, 503);
        }
        status == 200
    };
    for round in 0..3 {
        let filling = fill(&device);
        let mut refused = (0..10_000).filter(|n| !change(format!("full{round}-{n}")));
        assert!(refused.by_ref().nth(5).is_some(), "changes are refused");
        let query = Http::new(server.query).request("POST", "/full/predict", r#"{"input": [1]}"#);
        assert_eq!(query.unwrap().0, 404, "it answers all the same");
        fs::remove_file(filling).unwrap();
        let mut names = (0..).map(|n| format!("again{round}-{n}"));
        until("changes go on", || names.next().filter(|name| change(name.clone())));
        // Snapshots too.
        assert!((0..25).all(|n| change(format!("room{round}-{n}"))));
    }
    let after = device.cut(&server);
    let there = kept(&after.0.join("data"));
    assert!(told.is_subset(&there), "lost: {:?}", told.difference(&there));
    assert!(there.is_subset(&asked));
    server.kill_9();
}

/// Starts the server where it must not start; tells why it did not.
fn refused(folder: &Path) -> String {
    let child = Command::new(crate::binary())
        .args(["serve", "--query-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"])
        .args(["--metrics-addr", "127.0.0.1:0", "--rpc-addr", "tcp://127.0.0.1:0"])
        .args(["--grpc-addr", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("refused.log")).unwrap())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let status = until("the server refuses to start", || process.0.try_wait().unwrap());
    assert!(!status.success());
    fs::read_to_string(folder.join("refused.log")).unwrap()
}

fn twenty_changes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    for n in 0..20 {
        assert_eq!(add(&server, &format!("a{n}")).0, 200);
    }
    server.kill_9();
    folder
}

type Damage = fn(&Path);

#[test]
fn line_a_a_damaged_witness_is_noticed_and_with_half_the_data_nothing_is_lost_silently() {
    let damages: [(&str, Damage); 3] = [
        ("flipped", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[0] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("emptied", |file| fs::write(file, "").unwrap()),
        ("deleted", |file| fs::remove_file(file).unwrap()),
    ];
    for (what, damage) in damages {
        let folder = twenty_changes();
        let journal = folder.path().join("data/journal");
        damage(&journal.join("acknowledged"));
        let half = fs::metadata(journal.join("db")).unwrap().len() / 2;
        fs::OpenOptions::new().write(true).open(journal.join("db")).unwrap().set_len(half).unwrap();
        for _ in 0..2 {
            let why = refused(folder.path());
            assert!(why.contains("`acknowledged`") && why.contains("Restore the"), "{what}: {why}");
        }
    }
}

#[test]
fn line_a_a_data_directory_that_is_gone_stops_acknowledgements() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    assert_eq!(add(&server, "before").0, 200);
    let [data, aside] = ["data", "aside"].map(|name| folder.path().join(name));
    fs::rename(&data, &aside).unwrap();
    for n in 0..2 {
        let (status, text) = add(&server, &format!("lost{n}"));
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("was moved or deleted while the server runs"), "{text}");
    }
    assert!(!data.exists(), "nothing is put in its place");
    fs::rename(&aside, &data).unwrap();
    let (status, text) = add(&server, "after");
    assert_eq!(status, 200, "{text}");
    fs::remove_dir_all(&data).unwrap();
    assert_eq!(add(&server, "lost").0, 503);
    // Searched for secrets at its end, as every other one; nothing is left of this one.
    fs::create_dir(&data).unwrap();
    server.kill_9();
}

/// How often the disk takes a page that is written in place and synced, as a change is.
fn syncs_a_second(folder: &Path, count: usize) -> f64 {
    let file = fs::File::create(folder.join("in-place")).unwrap();
    file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let start = Instant::now();
    for n in 0..count {
        file.write_all_at(&[1; 4096], (n % 256 * 4096) as u64).unwrap();
        file.sync_data().unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn changes_a_second(server: &Served, clients: usize, each: usize, round: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut http = Http::new(server.management);
                for n in 0..each {
                    let body = app(&format!("{round}-{clients}-{client}-{n}")).to_string();
                    let answer = http.request("POST", "/admin/add_app", &body).unwrap();
                    assert_eq!(answer.0, 200, "{}", answer.1);
                }
            });
        }
    });
    (clients * each) as f64 / start.elapsed().as_secs_f64()
}

/// Figures only: changes a second, each of which waits for the disk, beside what the disk does
/// alone, taken in turn.
#[test]
fn line_a_changes_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let rounds = size("CLIPPER_TEST_ROUNDS", 1, 9);
    let changes = size("CLIPPER_TEST_CHANGES", 128, 2_000);
    for clients in [1, 8, 64] {
        let measured: Vec<(f64, f64)> = (0..rounds)
            .map(|round| {
                let disk = syncs_a_second(folder.path(), changes / 4);
                (changes_a_second(&server, clients, changes.div_ceil(clients), round), disk)
            })
            .collect();
        let best = |of: fn(&(f64, f64)) -> f64| measured.iter().map(of).fold(0.0, f64::max);
        let (rate, disk) = (best(|m| m.0), best(|m| m.1));
        println!(
            "{clients} clients: {rate:.0} changes a second, {:.2} of the disk's {disk:.0} syncs \
             (best of {rounds})",
            rate / disk
        );
    }
    server.kill_9();
}
