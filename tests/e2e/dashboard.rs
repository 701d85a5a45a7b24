//! The dashboard from outside: its files, what its pages are told, and within which limits. What a
//! browser makes of it is tried in `tests/system`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::{Value, json};

use super::access::{post, send, with_key};
use super::support::container::Container;
use super::support::server::Server;
use crate::support::served::{self, Http, PATIENCE, Process, Served, until};
use crate::support::size;

/// A page that is told.
struct Viewer {
    lines: BufReader<TcpStream>,
    status: u16,
}

impl Viewer {
    fn open(addr: SocketAddr, query: &str, key: Option<&str>) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET /admin/dashboard/stream{query} HTTP/1.1\r\nHost: test\r\n{}\r\n",
            with_key(key)
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut viewer = Self { lines: BufReader::new(stream), status: 0 };
        let status = viewer.line().unwrap();
        viewer.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        while !viewer.line().unwrap().is_empty() {}
        viewer
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next picture, or what the last event says.
    fn next(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The first picture that this is true of.
    fn sees(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let picture = self.next().expect("a picture");
            is_it(&picture).then_some(picture)
        })
    }
}

const QUICK: &str = "[dashboard]\ntick_ms = 250\nhistory_step_s = 1\n";

#[test]
fn files_are_served_with_their_guards_and_not_sent_twice() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let get = |path: &str, headers: &str| send(server.management, "GET", path, headers, "");
    let page = get("/", "");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("/dashboard/page.js"), "{}", page.text());
    let policy = page.header("content-security-policy").unwrap();
    for wanted in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(wanted), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let script = get("/dashboard/page.js", "Accept-Encoding: gzip\r\n");
    assert_eq!(script.header("content-encoding"), Some("gzip"));
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    let etag = script.header("etag").unwrap().to_owned();
    let known = format!("Accept-Encoding: gzip\r\nIf-None-Match: {etag}\r\n");
    let again = get("/dashboard/page.js", &known);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(get("/dashboard/none.js", "").status, 404);
    assert_eq!(send(server.management, "POST", "/", "", "").status, 405);
    // A page of another name does not get to it either.
    let foreign = get("/", "Host: evil.com\r\n");
    assert!([400, 403].contains(&foreign.status), "{}", foreign.status);
}

#[test]
fn a_page_is_told_of_queries_replicas_and_changes_as_they_come() {
    let server = Server::with_config(QUICK);
    server.add_app("a", "doubles", "-1", 1_000_000);
    let management = server.management;
    let mut overview = Viewer::open(management, "", None);
    let picture = overview.sees("the application", |it| it["applications"] == 1);
    let notice = &picture["app_rows"][0]["notices"][0];
    assert_eq!(notice["level"], "bad");
    assert!(notice["advice"].as_str().unwrap().contains("links add a"), "{notice}");
    server.add_model("m", "1", "doubles");
    server.link("a", "m");
    let _container = Container::spawn(&server, "m", &["--quiet"]);
    let picture = overview.sees("nothing to complain of", |it| it["needing"] == 0);
    assert_eq!(picture["model_rows"][0]["replicas"], 1, "{picture}");
    let body = json!({"input": [1.0]});
    let (status, text) = post(management, "/admin/predict/a", None, &body);
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\"default\":false"), "{text}");
    let picture = overview.sees("the answer", |it| it["app_rows"][0]["answered"] == 1);
    assert_eq!(picture["app_rows"][0]["attainment"], 1.0, "{picture}");
    let mut app = Viewer::open(management, "?app=a", None);
    let picture = app.sees("its page", |it| it["linked"][0]["replicas"] == 1);
    assert_eq!(picture["description"]["input_type"], "doubles");
    let mut model = Viewer::open(management, "?model=m&version=1", None);
    let picture = model.sees("what a batch cost", |it| it["batches"][0][0] == 1);
    assert_eq!(picture["applications"], json!(["a"]));
    assert_eq!(picture["curve"].as_array().unwrap().len(), 2, "{picture}");
    let history = until("a point of its history", || {
        let answer = send(management, "GET", "/admin/dashboard/history?app=a", "", "");
        let history: Value = serde_json::from_str(&answer.text()).unwrap();
        (!history["points"].as_array().unwrap().is_empty()).then_some(history)
    });
    assert_eq!(history["outcomes"][0], "prediction");
    assert_eq!(history["points"][0]["outcomes"][0], 1, "{history}");
    server.manage("delete_app", &json!({"name": "a"}));
    assert_eq!(app.sees("its end", |it| it["gone"] == true)["gone"], true);
}

#[test]
fn predictions_by_the_form_are_those_of_the_query_port() {
    let server = Server::with_config("");
    server.add_app("a b", "strings", "none", 50_000);
    let management = server.management;
    for (path, body, status, words) in [
        ("/admin/predict/a%20b", json!({"input": "x"}), 200, "\"default\":true"),
        ("/admin/predict/other", json!({"input": "x"}), 404, "other"),
        ("/admin/predict/a%20b", json!({"input": [1]}), 400, "Expected JSON schema"),
    ] {
        let (found, text) = post(management, path, None, &body);
        assert_eq!(found, status, "{path}: {text}");
        assert!(text.contains(words), "{text}");
    }
    let asked = send(management, "GET", "/admin/predict/a%20b", "", "");
    assert_eq!(asked.status, 405);
    let origin = "Origin: http://evil.com\r\nContent-Type: text/plain\r\n";
    let body = "{\"input\":\"x\"}";
    let foreign = send(management, "POST", "/admin/predict/a%20b", origin, body);
    assert_eq!(foreign.status, 403, "{}", foreign.text());
}

fn keys(folder: &Path) -> Served {
    let mut command = std::process::Command::new(crate::binary());
    let secret = "0123456789abcdef".repeat(2);
    let line = |role: &str| format!("{role} {role} {role}-{secret}");
    let lines = ["observe", "predict", "operate", "admin"].map(line).join(";");
    command.env("CLIPPER_KEYS", lines);
    let config = "[dashboard]\ntick_ms = 250\nviewers_max = 2\n\
                  [[application]]\nname = \"a\"\ninput_type = \"doubles\"\n\
                  default_output = \"0\"\nlatency_slo_micros = 20000\n";
    Served::start_by(command, config, folder)
}

#[test]
fn pages_need_no_key_and_what_they_show_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = keys(folder.path());
    let key = |role: &str| format!("{role}-{}", "0123456789abcdef".repeat(2));
    let at = server.management;
    assert_eq!(send(at, "GET", "/", "", "").status, 200);
    assert_eq!(Viewer::open(at, "", None).status, 401);
    assert_eq!(Viewer::open(at, "", Some(&key("predict"))).status, 403);
    let you = |role: &str| -> Value {
        let headers = with_key(Some(&key(role)));
        let answer = send(at, "GET", "/admin/dashboard/you", &headers, "");
        serde_json::from_str(&answer.text()).unwrap()
    };
    assert_eq!(you("observe")["may"], json!(["observe"]));
    assert_eq!(you("admin")["may"], json!(["observe", "operate", "predict"]));
    assert_eq!(you("operate")["key"], "operate");
    let body = json!({"input": [1.0]});
    for (role, status) in [("observe", 403), ("operate", 403), ("predict", 200), ("admin", 200)] {
        let (found, text) = post(at, "/admin/predict/a", Some(&key(role)), &body);
        assert_eq!(found, status, "{role}: {text}");
    }
    let mut first = Viewer::open(at, "", Some(&key("observe")));
    let second = Viewer::open(at, "?app=a", Some(&key("operate")));
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.next().unwrap()["applications"], 1);
    let third = Viewer::open(at, "", Some(&key("observe")));
    assert_eq!(third.status, 503, "two may look");
    drop(second);
    until("its place is free", || {
        (Viewer::open(at, "", Some(&key("observe"))).status == 200).then_some(())
    });
}

#[test]
fn a_wrong_question_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    for query in ["?model=m", "?app=a&model=m&version=1", "?x=1"] {
        assert_eq!(Viewer::open(server.management, query, None).status, 400, "{query}");
    }
    let mut gone = Viewer::open(server.management, "?app=none", None);
    assert_eq!(gone.next().unwrap()["gone"], true);
    let off = tempfile::tempdir().unwrap();
    let off = Served::start("[dashboard]\nenabled = false\n", off.path());
    assert_eq!(send(off.management, "GET", "/", "", "").status, 404);
}

fn application(n: usize) -> String {
    format!(
        "[[application]]\nname = \"a{n}\"\ninput_type = \"doubles\"\ndefault_output = \"0\"\n\
         latency_slo_micros = 20000\n"
    )
}

/// Predictions a second while pages are open and while none are.
const RATE: &str = "200";

/// A server with so many applications, each of which has been asked. `a0` has a model.
struct Asked {
    server: Served,
    /// What was measured in each window: percent of a core, and the 99th percentile of predictions,
    /// milliseconds.
    windows: Vec<(f64, f64)>,
    _container: Process,
    _folder: tempfile::TempDir,
}

impl Asked {
    fn start(section: &str, apps: usize) -> Self {
        let config = section.to_owned() + &(0..apps).map(application).collect::<String>();
        let folder = tempfile::tempdir().unwrap();
        let server = Served::start(&config, folder.path());
        server.admin("/admin/add_model", &served::model("m"));
        let link = json!({"app_name": "a0", "model_names": ["m"]});
        server.admin("/admin/add_model_links", &link);
        let container = server.noop("m");
        server.await_replicas("m", 1);
        let mut client = Http::new(server.query);
        for n in 0..apps {
            let path = format!("/a{n}/predict");
            let (status, text) = client.request("POST", &path, "{\"input\": [1.0]}").unwrap();
            assert_eq!(status, 200, "{text}");
        }
        Self { server, windows: Vec::new(), _container: container, _folder: folder }
    }

    /// Predictions at a rate, for so many seconds.
    fn measure(&mut self, seconds: usize) {
        let before = self.server.cpu_ticks();
        let output = std::process::Command::new(crate::binary())
            .args(["bench", "--app", "a0", "--url", &format!("http://{}", self.server.query)])
            .args(["--rate", RATE, "--warmup", "0", "--duration", &seconds.to_string(), "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ticks = self.server.cpu_ticks() - before;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let p99 = report["latency"]["p99_ms"].as_f64().unwrap();
        let share = ticks as f64 / report["duration_s"].as_f64().unwrap();
        self.windows.push((share, p99));
    }

    /// The medians of the windows, and the memory by now.
    fn medians(&self) -> (f64, f64, f64) {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = self.windows.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        (median(|it| it.0), median(|it| it.1), self.server.resident_mb())
    }
}

/// What open pages cost a server with applications that all have a history, and the predictions
/// that it answers meanwhile; prints it. Windows with pages and of a server without a dashboard
/// take turns. docs/benchmarks.md has the command for figures.
#[test]
fn many_pages_of_many_applications_cost_little() {
    let apps = size("CLIPPER_TEST_DASHBOARD_APPS", 100, 1_000);
    let viewers = size("CLIPPER_TEST_DASHBOARDS", 5, 20);
    let seconds = size("CLIPPER_TEST_DASHBOARD_SECONDS", 1, 10);
    let windows = size("CLIPPER_TEST_DASHBOARD_WINDOWS", 1, 5);
    let mut off = Asked::start("[dashboard]\nenabled = false\n", apps);
    let mut on = Asked::start("[dashboard]\nhistory_step_s = 1\n", apps);
    let management = on.server.management;
    until("all have a history", || {
        let path = format!("/admin/dashboard/history?app=a{}", apps - 1);
        let (_, text) = Http::new(management).request("GET", &path, "").unwrap();
        text.contains("end_ms").then_some(())
    });
    let looking: Vec<Viewer> = (0..viewers).map(|_| Viewer::open(management, "", None)).collect();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mut viewer in looking {
            let stopped = &stopped;
            scope.spawn(move || while !stopped.load(Relaxed) && viewer.next().is_some() {});
        }
        for _ in 0..windows {
            on.measure(seconds);
            off.measure(seconds);
        }
        stopped.store(true, Relaxed);
    });
    let (cpu_on, p99_on, mb_on) = on.medians();
    let (cpu_off, p99_off, mb_off) = off.medians();
    println!(
        "{viewers} pages, {apps} applications, {RATE} predictions a second, medians of {windows} \
         windows of {seconds} s each:\n\
         CPU, % of a core: {cpu_on:.1} with pages, {cpu_off:.1} without a dashboard, {:.1} more\n\
         memory, MB: {mb_on:.1} with pages, {mb_off:.1} without, {:.1} more\n\
         p99 of predictions, ms: {p99_on:.3} with pages, {p99_off:.3} without",
        cpu_on - cpu_off,
        mb_on - mb_off
    );
    assert!(mb_on - mb_off < 30.0, "{mb_off} MB without, {mb_on} MB with pages");
}
