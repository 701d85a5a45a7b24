//! Keys, roles and addresses from outside: who is let in where, and what is told to the rest.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use clipper::access::table::{Port, Row, TABLE};
use clipper_clock as clock;
use clipper_domain::{Action, Role};
use clipper_grpc::client::Client;
use clipper_grpc::{Code, framed};
use clipper_oip::grpc::OfModel;
use serde_json::{Value, json};

use super::support::http::{Answer, Connection};
use super::support::zmtp;
use crate::support::served::{Process, Served, until};

/// The secret of the key of a role.
pub(super) fn secret(role: Role) -> String {
    format!("{role}-{}", "0123456789abcdef".repeat(2))
}

/// A server with a key of each role, for applications and models `a*`.
pub(super) fn guarded(config: &str, folder: &Path) -> Served {
    let line = |role: Role| {
        let only = if role.is_limitable() { "a*" } else { "" };
        format!("{role} {role} {} {only}", secret(role))
    };
    let mut command = Command::new(crate::binary());
    command.env("CLIPPER_KEYS", Role::ALL.map(line).join(";"));
    Served::start_by(command, config, folder)
}

pub(super) fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let mut connection = Connection::open(addr);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(head.as_bytes());
    connection.answer(method).expect("an answer")
}

const JSON: &str = "Content-Type: application/json\r\n";

pub(super) fn with_key(key: Option<&str>) -> String {
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n"));
    format!("{JSON}{}", key.unwrap_or_default())
}

pub(super) fn post(addr: SocketAddr, path: &str, key: Option<&str>, body: &Value) -> (u16, String) {
    let answer = send(addr, "POST", path, &with_key(key), &body.to_string());
    (answer.status, answer.text())
}

/// Whether an endpoint lets somebody in: `Err` is 401 or 403, or what stands for it.
fn tried(server: &Served, row: &Row, key: Option<&str>) -> Result<(), u16> {
    let path = row.path.replace("{name}", "a").replace("{version}", "1");
    let path =
        path.replace("{file}", if path.starts_with("/docs") { "docs.js" } else { "page.js" });
    let addr = match row.port {
        Port::Query => server.query,
        Port::Management => server.management,
        Port::Metrics => server.metrics,
        Port::Grpc => return called(server, &path, key),
        // Whoever is not let in is told no more than that.
        Port::Containers => return zmtp::says(server.rpc, &path, key).then_some(()).ok_or(0),
    };
    let status = send(addr, row.method, &path, &with_key(key), "").status;
    if [401, 403].contains(&status) { Err(status) } else { Ok(()) }
}

fn called(server: &Served, path: &str, key: Option<&str>) -> Result<(), u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, _) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.grpc.unwrap()).await.unwrap();
        let (client, connection) = Client::open(stream, "test", path, None).await.unwrap();
        tokio::spawn(connection);
        let frame = framed(&OfModel { name: "a".to_owned(), ..OfModel::default() });
        client.with_key(key).call(frame).await.unwrap()
    });
    match status.code {
        Code::Unauthenticated => Err(401),
        Code::PermissionDenied => Err(403),
        _ => Ok(()),
    }
}

#[test]
fn every_endpoint_method_and_message_is_tried_with_every_role() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[access]\nfailures_per_minute = 60000\n[rpc]\nnull_from = []\n\
                  [log]\noutsider_lines_max = 100000\n";
    let server = guarded(config, folder.path());
    let mut wrong = Vec::new();
    // One that would stay open until its client goes.
    let rows = TABLE.iter().filter(|row| !row.path.ends_with("/Watch"));
    for row in rows {
        let is_open = [Action::Health, Action::Page].contains(&row.action);
        let mut expect = |who: &str, key: Option<&str>, expected: Result<(), u16>| {
            let found = tried(&server, row, key);
            let is_same = found == expected || found == Err(0) && expected.is_err();
            if !is_same {
                wrong.push(format!("{} by {who}: {found:?}, not {expected:?}", row.path));
            }
        };
        let stranger = if is_open { Ok(()) } else { Err(401) };
        expect("nobody", None, stranger);
        expect("a wrong key", Some("clk_wrong"), stranger);
        for role in Role::ALL {
            let may = is_open || role.may(row.action);
            expect(role.name(), Some(&secret(role)), if may { Ok(()) } else { Err(403) });
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.says("key 'observe' has the role observe, which may not serve a model");
    // Its key is for `a*` only.
    assert!(zmtp::says(server.rpc, "new-container b", Some(&secret(Role::Container))));
    server.says("key 'container' is for 'a*' only, not for b:1");
}

#[test]
fn letters_written_as_numbers_ask_for_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded("", folder.path());
    let [observe, predict] = [Role::Observe, Role::Predict].map(secret);
    for (addr, path, key) in [
        (server.query, "/%6Detrics", &predict),
        (server.query, "/a/%70redict", &observe),
        (server.query, "/v2/models/a/%69nfer", &observe),
        (server.query, "/v2/repository/models/a/%6Coad", &observe),
        (server.metrics, "/%6Detrics", &predict),
        (server.management, "/admin/%61dd_app", &observe),
    ] {
        let (status, text) = post(addr, path, Some(key), &json!({}));
        assert_eq!(status, 403, "{path}: {text}");
    }
}

#[test]
fn the_documented_table_is_the_one_that_is_enforced() {
    let mut page = String::from(
        "# Who may do what\n\nWritten from `src/access/table.rs` by a test, and tried by another \
         with every role. `yes`: the role may; health\nis open to all unless `access.open_health` \
         is false. What is not listed is no endpoint, and asks for as much as the\nmost of its \
         port.\n\n| port | endpoint, method or message | needs | predict | observe | operate | \
         admin | container |\n|---|---|---|---|---|---|---|---|\n",
    );
    for Row { port, method, path, action } in TABLE {
        let shown =
            if *port == Port::Grpc { (*path).to_owned() } else { format!("{method} {path}") };
        let _ = write!(page, "| {port:?} | `{shown}` | {action:?} |");
        for role in Role::ALL {
            let _ = write!(page, " {} |", if role.may(*action) { "yes" } else { "" });
        }
        page.push('\n');
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access-table.md");
    if std::env::var_os("CLIPPER_WRITE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(kept, page, "CLIPPER_WRITE_DOCS=1 writes it");
}

/// Runs a command of the binary against a server.
pub(super) fn clipper(server: &Served, key: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    command.args(args).env("CLIPPER_MANAGEMENT_URL", format!("http://{}", server.management));
    command.env_remove("CLIPPER_KEY");
    if let Some(key) = key {
        command.env("CLIPPER_KEY", key);
    }
    command.output().unwrap()
}

pub(super) fn made(output: &Output) -> String {
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{says}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    made["secret"].as_str().unwrap().to_owned()
}

pub(super) fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn keys_are_made_rotated_revoked_and_outlive_the_server_which_has_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[log]\nfilter = \"trace\"\n";
    let server = Served::start(config, folder.path());
    let first = clipper(&server, None, &["key", "add", "ci", "--role", "predict"]);
    assert!(refused(&first).contains("first key has to be one of the role admin"));
    server.admin("/admin/add_app", &crate::support::served::app("a1", 20_000_000));
    server.admin("/admin/add_app", &crate::support::served::app("b1", 20_000_000));
    let root = made(&clipper(&server, None, &["key", "add", "root", "--role", "admin", "--json"]));
    // From now on.
    let told = refused(&clipper(&server, None, &["key", "list"]));
    assert!(told.contains("asks for a key") && told.contains("CLIPPER_KEY"), "{told}");
    let add = ["key", "add", "ci", "--role", "predict", "--app", "a*", "--expires", "90d"];
    let ci = made(&clipper(&server, Some(&root), &[&add[..], &["--json"]].concat()));
    let ask = |server: &Served, app: &str, key: &str| {
        let path = format!("/{app}/predict");
        post(server.query, &path, Some(key), &json!({"input": [1.0]}))
    };
    assert_eq!(ask(&server, "a1", &ci).0, 200);
    let (status, told) = ask(&server, "b1", &ci);
    assert!(status == 403 && told.contains("is for 'a*' only"), "{status} {told}");
    let (status, told) = post(server.management, "/admin/delete_app", Some(&ci), &json!({}));
    assert!(status == 403 && told.contains("role predict"), "{status} {told}");
    let list = clipper(&server, Some(&root), &["key", "list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("ci") && !list.contains(&ci), "{list}");

    let rotate = ["key", "rotate", "ci", "--keep-old", "1h", "--json"];
    let second = made(&clipper(&server, Some(&root), &rotate));
    assert_eq!((ask(&server, "a1", &ci).0, ask(&server, "a1", &second).0), (200, 200));
    let third = made(&clipper(&server, Some(&root), &["key", "rotate", "ci", "--json"]));
    let (status, told) = ask(&server, "a1", &second);
    assert!(status == 401, "{status} {told}");
    assert_eq!(ask(&server, "a1", &third).0, 200);
    let refusal = clipper(&server, Some(&root), &["key", "revoke", "root"]);
    assert!(refused(&refusal).contains("last one of the role admin"));
    let log = server.log().join("\n");
    server.kill_9();

    let server = Served::start(config, folder.path());
    assert_eq!(ask(&server, "a1", &third).0, 200);
    assert!(clipper(&server, Some(&root), &["key", "revoke", "ci"]).status.success());
    assert_eq!(ask(&server, "a1", &third).0, 401);
    let log = log + &server.log().join("\n");
    server.kill_9();
    let secrets = [&root, &ci, &second, &third];
    for secret in secrets {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
        let found =
            Command::new("grep").args(["-r", "-a", "-l", secret]).arg(folder.path()).output();
        assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "", "on the disk");
    }
    let list = Command::new(crate::binary())
        .args(["journal", "list", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let by = |event: &str| list.lines().find(|line| line.contains(event)).unwrap().to_owned();
    assert!(by("key_revoked").contains("key 'root'"), "{list}");
    assert!(!by("app_added").contains("key '"), "{list}");
}

#[test]
fn a_key_for_some_names_changes_only_these() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded("", folder.path());
    let key = secret(Role::Operate);
    let change = |path: &str, body: &Value| post(server.management, path, Some(&key), body).0;
    let app = crate::support::served::app;
    assert_eq!(change("/admin/add_app", &app("a1", 20_000)), 200);
    assert_eq!(change("/admin/add_app", &app("b1", 20_000)), 403);
    assert_eq!(change("/admin/add_model", &crate::support::served::model("b")), 403);
    assert_eq!(change("/admin/restart_replicas", &json!({})), 403);
    let deploy =
        send(server.management, "POST", "/admin/deploy_model", &with_key(Some(&key)), "{}");
    assert!(deploy.status == 403 && deploy.text().contains("start programs"), "{}", deploy.text());
    // A password of any user is a key as well: clipper_admin takes an address with one.
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("any:{key}"));
    let headers = format!("{JSON}Authorization: Basic {basic}\r\n");
    let listed = send(
        server.management,
        "POST",
        "/admin/get_all_applications",
        &headers,
        "{\"verbose\": false}",
    );
    assert_eq!((listed.status, listed.text()), (200, "[\"a1\"]".to_owned()));
}

#[test]
fn wrong_keys_are_counted_and_limited_and_good_ones_are_good_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[access]\nfailures_per_minute = 20\nopen_metrics = true\n";
    let server = guarded(config, folder.path());
    let ask = |key: &str| send(server.query, "POST", "/a/predict", &with_key(Some(key)), "{}");
    let told = until("it is told to wait", || {
        let answer = ask("wrong");
        (answer.status == 429).then_some(answer)
    });
    assert!(told.text().contains("access.failures_per_minute"), "{}", told.text());
    assert_eq!(ask(&secret(Role::Predict)).status, 404);
    let count =
        server.metric("clipper_http_errors_total{frontend=\"query\",error=\"unauthorized\"}");
    assert!(count >= 20.0, "{count}");
}

/// Whoever goes on is answered slowly, so that his requests are read slowly; others are not.
#[test]
fn whoever_goes_on_with_wrong_keys_waits_for_each_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let server = guarded("[access]\nfailures_per_minute = 1\n", folder.path());
    let request = |key: &str| {
        let headers = with_key(Some(key));
        format!("POST /a/predict HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: 0\r\n\r\n")
    };
    let mut flood = Connection::open(server.query);
    flood.send(request("wrong").as_bytes());
    assert_eq!(flood.answer("POST").unwrap().status, 401);
    let start = clock::now();
    flood.send(request("wrong").repeat(2).as_bytes());
    let mut good = Connection::open(server.query);
    for _ in 0..10 {
        good.send(request(&secret(Role::Predict)).as_bytes());
        assert_eq!(good.answer("POST").unwrap().status, 404);
    }
    for n in 1..=2 {
        assert_eq!(flood.answer("POST").unwrap().status, 429);
        assert!(start.elapsed() >= Duration::from_secs(n), "{:?}", start.elapsed());
    }
}

/// How `serve` ends that may not start, and what it says.
fn not_served(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(crate::binary());
    command.arg("serve").args(args);
    for flag in ["--query-addr", "--management-addr", "--metrics-addr", "--grpc-addr"] {
        if !args.contains(&flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    if !args.contains(&"--rpc-addr") {
        command.args(["--rpc-addr", "tcp://127.0.0.1:0"]);
    }
    let output = command.arg("--data-dir").arg(folder.join("data")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn other_addresses_want_keys_and_tls_or_somebody_who_says_insecure() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, addr, setting) in [
        ("--query-addr", "0.0.0.0:0", "http.query_addr"),
        ("--management-addr", "[::]:0", "http.management_addr"),
        ("--metrics-addr", "0.0.0.0:0", "http.metrics_addr"),
        ("--grpc-addr", "0.0.0.0:0", "grpc.addr"),
        ("--rpc-addr", "tcp://0.0.0.0:0", "rpc.addr"),
    ] {
        let told = not_served(folder.path(), &[flag, addr]);
        assert!(told.contains(setting) && told.contains("--insecure"), "{told}");
    }
    let mut command = Command::new(crate::binary());
    command.args(["serve", "--insecure", "--query-addr", "0.0.0.0:0", "--rpc-addr", "tcp://*:0"]);
    command.args(["--management-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"]);
    command.args(["--grpc-addr", "0.0.0.0:0", "--data-dir"]).arg(folder.path().join("data"));
    let child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut served = Process(child);
    let lines = BufReader::new(served.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut is_told = false;
    for line in lines {
        is_told |= line.contains("INSECURE");
        if line.contains("listening") {
            assert!(is_told);
            return;
        }
    }
    panic!("it does not listen");
}

#[test]
fn no_web_page_of_a_stranger_manages_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[management]\nhosts = [\"clipper.example.com\"]\n";
    let server = Served::start(config, folder.path());
    server.admin("/admin/add_app", &crate::support::served::app("a", 20_000));
    let body = "{\"name\": \"a\"}";
    let delete = |headers: &str| {
        let mut connection = Connection::open(server.management);
        let length = body.len();
        let head = "POST /admin/delete_app HTTP/1.1\r\nConnection: close\r\n";
        connection
            .send(format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes());
        let answer = connection.answer("POST").unwrap();
        (answer.status, answer.text())
    };
    for (headers, status, part) in [
        (format!("Host: evil.example\r\n{JSON}"), 403, "management.hosts"),
        (format!("Host: localhost\r\nOrigin: http://evil.example\r\n{JSON}"), 403, "Web pages"),
        (format!("Host: localhost\r\nOrigin: null\r\n{JSON}"), 403, "Web pages"),
        ("Host: localhost\r\nContent-Type: text/plain\r\n".to_owned(), 415, "application/json"),
        ("Host: localhost\r\n".to_owned(), 415, "management.legacy_content_types"),
    ] {
        let (found, says) = delete(&headers);
        assert!(found == status && says.contains(part), "{headers}: {found} {says}");
    }
    // Reading changes nothing, and curl calls it a form.
    let form = "Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let mut connection = Connection::open(server.management);
    let get = "POST /admin/get_application HTTP/1.1\r\nConnection: close\r\n";
    connection.send(format!("{get}{form}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let answer = connection.answer("POST").unwrap();
    assert!(answer.text().contains("\"name\":\"a\""), "it is still there: {}", answer.text());
    assert_eq!(delete(&format!("Host: clipper.example.com:1338\r\n{JSON}")).0, 200);

    let folder = tempfile::tempdir().unwrap();
    let config = "[management]\nlegacy_content_types = true\n";
    let server = Served::start(config, folder.path());
    let app = crate::support::served::app("a", 20_000).to_string();
    let added = send(server.management, "POST", "/admin/add_app", "", &app);
    assert_eq!(added.status, 200);
}

/// The blocks of a language in a page.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let start = format!("```{language}\n");
    page.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_hardened_config_and_the_list_of_keys_of_the_page_are_good() {
    let page = include_str!("../../docs/security.md");
    let folder = tempfile::tempdir().unwrap();
    for config in blocks(page, "toml") {
        let file = folder.path().join("hard.toml");
        std::fs::write(&file, config).unwrap();
        let checked =
            Command::new(crate::binary()).arg("check-config").arg(&file).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    let list = blocks(page, "text").into_iter().find(|b| b.starts_with("# NAME")).unwrap();
    let keys = clipper_domain::access::listed::parse(list, clipper::access::hash).unwrap();
    assert_eq!(keys.len(), 2);

    // Such a list in a file.
    let keys_file = folder.path().join("keys");
    std::fs::write(&keys_file, list).unwrap();
    let config = format!("[access]\nkeys_file = {keys_file:?}\n");
    let server = Served::start(&config, folder.path());
    let team = "0123456789abcdef".repeat(2);
    let body = json!({"input": [1.0]});
    assert_eq!(post(server.query, "/team-a-x/predict", Some(&team), &body).0, 404);
    assert_eq!(post(server.query, "/team-b-x/predict", Some(&team), &body).0, 403);
    assert_eq!(post(server.query, "/team-a-x/predict", None, &body).0, 401);
}
