//! The stream of changes: followed, cut off, come back to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use super::{set_slo, stop};
use crate::support::served::{PATIENCE, Process, Served, app};

/// A connection that follows. Dropping it leaves.
struct Follower {
    lines: BufReader<TcpStream>,
    status: u16,
    rest: String,
}

/// An event of the stream: its name, its number, its data.
type Told = (String, Option<u64>, Value);

impl Follower {
    fn open(addr: SocketAddr, query: &str, last_id: Option<u64>) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let resumed = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /admin/journal/stream{query} HTTP/1.1\r\nHost: test\r\n{resumed}\
             Accept: text/event-stream\r\n\r\n"
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut follower = Self { lines: BufReader::new(stream), status: 0, rest: String::new() };
        let status = follower.line().unwrap();
        follower.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        while !follower.line().unwrap().is_empty() {}
        follower
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event that is not a sign of life; `None` at the end, however that came.
    fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let told = field("data: ").map(|data| {
                    let name = field("event: ").unwrap_or_default().to_owned();
                    let id = field("id: ").map(|id| id.parse().unwrap());
                    (name, id, serde_json::from_str(data).unwrap())
                });
                self.rest = rest.to_owned();
                match told {
                    Some(told) => return Some(told),
                    None => continue,
                }
            }
            let size = usize::from_str_radix(&self.line()?, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.lines.read_exact(&mut chunk).ok()?;
            if size == 0 {
                return None;
            }
            self.rest.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    fn change(&mut self) -> u64 {
        let (name, id, data) = self.next().expect("a change");
        assert_eq!((name.as_str(), id), ("change", data["seq"].as_u64()));
        id.unwrap()
    }
}

#[test]
fn changes_come_as_they_are_made_with_who_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.admin("/admin/add_app", &app("before", 20_000));
    let mut from_now = Follower::open(server.management, "", None);
    let mut from_start = Follower::open(server.management, "?after=0", None);
    let mut of_b = Follower::open(server.management, "?after=0&app=b", None);
    assert_eq!((from_now.status, from_start.status), (200, 200));
    assert_eq!(from_start.change(), 1);
    server.admin("/admin/add_app", &app("a", 20_000));
    server.admin("/admin/add_app", &app("b", 20_000));
    let (_, _, first) = from_now.next().unwrap();
    assert_eq!((&first["seq"], &first["what"]), (&json!(2), &json!("application a added")));
    assert_eq!(
        (&first["from"], &first["event"]["kind"]),
        (&json!("127.0.0.1"), &json!("app_added"))
    );
    assert_eq!((from_start.change(), from_start.change()), (2, 3));
    assert_eq!(of_b.change(), 3);
    // Whoever follows is told when the server stops.
    stop(server);
    let (name, _, end) = from_now.next().and_then(|_| from_now.next()).unwrap();
    assert_eq!((name.as_str(), &end["reason"]), ("cut", &json!("The server stops")));
    assert_eq!(end["last_event_id"], 3);
    assert_eq!(from_now.next(), None);
}

/// Cut off at any point, also by a kill of the server, and back: every change once, in order.
#[test]
fn a_follower_that_is_cut_off_misses_nothing_and_sees_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.admin("/admin/add_app", &app("a", 20_000));
    let (management, total) =
        (server.management, crate::support::size("CLIPPER_TEST_FOLLOWED", 600, 20_000) as u64);
    let writer = std::thread::spawn(move || {
        let mut http = crate::support::served::Http::new(management);
        for n in 0..total {
            let body = json!({"name": "a", "latency_slo_micros": 30_000 + n}).to_string();
            let (status, text) = http.request("POST", "/admin/update_app", &body).unwrap();
            assert_eq!(status, 200, "{text}");
        }
    });
    let (mut seen, mut given) = (Vec::new(), 0);
    let mut random: u64 = 7;
    while given < total {
        let mut follower = Follower::open(management, "?after=0", Some(given));
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..=(random >> 33) % 97 {
            given = follower.change();
            seen.push(given);
            if given >= total {
                break;
            }
        }
    }
    writer.join().unwrap();
    assert_eq!(seen, (1..=given).collect::<Vec<_>>());
    server.kill_9();
    let server = Served::start("", folder.path());
    let mut follower = Follower::open(server.management, "", Some(given - 3));
    assert_eq!([(); 3].map(|()| follower.change()), [given - 2, given - 1, given]);
}

#[test]
fn what_is_forgotten_or_not_there_yet_is_refused_and_places_are_few() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[journal]\nsnapshot_every_events = 10\nkeep_events = 10\nfollowers_max = 2\n";
    let server = Served::start(config, folder.path());
    server.admin("/admin/add_app", &app("a", 20_000));
    for n in 0..60 {
        set_slo(&server, "a", 30_000 + n);
    }
    server.says("events of the journal are not kept any more");
    let status = |query: &str, last_id| Follower::open(server.management, query, last_id).status;
    assert_eq!(status("", Some(3)), 410);
    assert_eq!(status("", Some(99)), 400);
    assert_eq!(status("?after=x", None), 400);
    assert_eq!(status("?nonsense=1", None), 400);
    let mut places: Vec<Follower> =
        (0..2).map(|_| Follower::open(server.management, "", None)).collect();
    assert_eq!(status("", None), 503);
    set_slo(&server, "a", 99);
    assert_eq!(places[1].change(), 62);
    places.clear();
    crate::support::served::until("a place is free again", || {
        (status("", None) == 200).then_some(())
    });
}

/// A follower that does not read holds nobody up, is cut off, and can come back.
#[test]
fn a_follower_that_does_not_read_is_cut_off_and_comes_back_to_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[http]\nwrite_timeout_ms = 1000\n";
    let server = Served::start(config, folder.path());
    let mut large = app("a", 20_000);
    large["default_output"] = json!("x".repeat(60_000));
    server.admin("/admin/add_app", &large);
    let mut slow = Follower::open(server.management, "?after=0", None);
    assert_eq!(slow.change(), 1);
    // More than buffers of a connection take: each event has the whole definition.
    for n in 0..300 {
        set_slo(&server, "a", 30_000 + n);
    }
    let mut seen = vec![1];
    crate::support::served::until("it is cut off", || {
        let connections = server.metric("clipper_http_connections{frontend=\"management\"}");
        (connections < 1.0).then_some(())
    });
    while let Some((name, id, _)) = slow.next() {
        if name != "change" {
            break;
        }
        seen.extend(id);
    }
    let last = *seen.last().unwrap();
    let mut again = Follower::open(server.management, "", Some(last));
    while *seen.last().unwrap() < 301 {
        seen.push(again.change());
    }
    assert_eq!(seen, (1..=301).collect::<Vec<_>>());
}

/// As above, where the server gives up before the connection does.
#[test]
fn a_follower_that_stalls_is_told_so_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("[journal]\nfollower_stall_ms = 1\n", folder.path());
    let mut large = app("a", 20_000);
    large["default_output"] = json!("x".repeat(60_000));
    server.admin("/admin/add_app", &large);
    let mut slow = Follower::open(server.management, "?after=0", None);
    // More than buffers of a connection take, and none of it is read meanwhile.
    for n in 0..300 {
        set_slo(&server, "a", 30_000 + n);
    }
    let (mut seen, mut stalls) = (Vec::new(), 0);
    while seen.len() < 301 {
        match slow.next() {
            Some((name, Some(id), _)) if name == "change" => seen.push(id),
            Some((name, _, told)) => {
                assert_eq!((name.as_str(), &told["last_event_id"]), ("cut", &json!(seen.last())));
                let why = told["reason"].as_str().unwrap();
                assert!(why.starts_with("It took 1 ms and more"), "{why}");
                stalls += 1;
            }
            None => slow = Follower::open(server.management, "?after=0", seen.last().copied()),
        }
    }
    assert!(stalls > 0);
    assert_eq!(seen, (1..=301).collect::<Vec<_>>());
}

#[test]
fn log_follows_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.admin("/admin/add_app", &app("a", 20_000));
    let mut command = Command::new(crate::binary());
    command.args(["journal", "log", "-f", "--app", "a", "--json", "--url"]);
    command.arg(format!("http://{}", server.management)).stdout(Stdio::piped());
    let mut process = Process(command.stderr(Stdio::inherit()).spawn().unwrap());
    let stdout = BufReader::new(process.0.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        stdout.lines().map_while(Result::ok).for_each(|line| {
            let _ = sender.send(line);
        });
    });
    let next = || -> u64 {
        let line = lines.recv_timeout(PATIENCE).expect("a line");
        serde_json::from_str::<Value>(&line).unwrap()["seq"].as_u64().unwrap()
    };
    assert_eq!(next(), 1);
    server.admin("/admin/add_app", &app("b", 20_000));
    set_slo(&server, "a", 7);
    assert_eq!(next(), 3);
}

/// An answer in chunks whose bytes do not matter.
pub struct Raw(TcpStream);

impl Raw {
    pub fn get(addr: SocketAddr, path: &str) -> Self {
        Self::send(addr, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    pub fn post(addr: SocketAddr, path: &str) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        Self::send(addr, &head)
    }

    fn send(addr: SocketAddr, head: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (&stream).write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    /// Reads to the end of the connection.
    pub fn all(&mut self) {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200") && all.ends_with(b"0\r\n\r\n"));
    }

    /// Reads so many bytes, about.
    pub fn some(&mut self, bytes: usize) {
        let (mut read, mut buffer) = (0, vec![0; 65_536]);
        while read < bytes {
            read += self.0.read(&mut buffer).unwrap();
        }
    }
}
