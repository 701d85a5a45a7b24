//! Containers and strangers on the RPC port that take more than their share.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::robust::attacker::{
    Attacker, MORE, frame, head, heartbeat, message, new_container, ping,
};
use crate::support::served::{Http, Process, Served, until};
use crate::support::size;

/// A message that answers batch `id` with these outputs.
fn answer(id: u32, outputs: &[&[u8]]) -> Vec<u8> {
    let lengths = outputs.iter().map(|output| output.len() as u64);
    let words = std::iter::once(outputs.len() as u64).chain(lengths);
    let header: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let length = (header.len() as u64).to_le_bytes();
    let (kind, id) = (1u32.to_le_bytes(), id.to_le_bytes());
    let mut frames: Vec<&[u8]> = vec![b"", &kind, &id, &length, &header];
    frames.extend(outputs);
    message(&frames)
}

/// A new-container message that announces extensions.
fn new_container_with(model: &str, extensions: u32) -> Vec<u8> {
    let version = [3u32.to_le_bytes(), extensions.to_le_bytes()].concat();
    message(&[b"", &[0; 4], model.as_bytes(), b"1", b"3", &version])
}

fn predict(server: &Served, model: &str, input: f64) -> String {
    let body = format!("{{\"input\": [{input}]}}");
    let path = format!("/{model}/predict");
    let (status, text) = Http::new(server.query).request("POST", &path, &body).unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// The frames of the next message that the server sends, unless it closes the connection.
fn read_message(attacker: &mut Attacker) -> std::io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    loop {
        let mut flags = [0; 1];
        attacker.0.read_exact(&mut flags)?;
        let mut length = [0; 8];
        let short = if flags[0] & 2 == 0 { 7 } else { 0 };
        attacker.0.read_exact(&mut length[short..])?;
        let mut body = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
        attacker.0.read_exact(&mut body)?;
        frames.push(body);
        if flags[0] & MORE == 0 {
            return Ok(frames);
        }
    }
}

/// The id of the next batch, unless the server closes the connection.
fn next_batch(attacker: &mut Attacker) -> std::io::Result<u32> {
    loop {
        let frames = read_message(attacker)?;
        if frames.len() > 6 {
            return Ok(u32::from_le_bytes(frames[3][..].try_into().unwrap()));
        }
    }
}

/// Sends `message` until the server has had enough; how many went out, at most `most`.
fn send_until_cut(attacker: &mut Attacker, message: &[u8], most: usize) -> usize {
    (0..most).take_while(|_| attacker.send(message)).count()
}

fn ended_for(server: &Served, reasons: &[&str]) -> f64 {
    reasons.iter().map(|reason| server.ended(reason)).sum()
}

/// What the server, or a container of its, writes to its log.
fn log_of(process: &mut Process) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let (stderr, into) = (process.0.stderr.take().unwrap(), Arc::clone(&text));
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            into.lock().unwrap().extend([line.as_str(), "\n"]);
        }
    });
    text
}

fn noop(
    server: &Served,
    model: &str,
    input_type: &str,
    output: &str,
) -> (Process, Arc<Mutex<String>>) {
    let child = Command::new(crate::binary())
        .args(["container", "noop", "--name", model, "--version", "1", "--output", output])
        .args(["--input-type", input_type, "--connect", &format!("tcp://{}", server.rpc)])
        // A Kubernetes Service named clipper sets this for every container of its namespace.
        .env("CLIPPER_PORT", "tcp://10.0.0.1:1337")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let log = log_of(&mut process);
    (process, log)
}

#[test]
fn line_11d_large_answers_that_nobody_awaits_are_cut_at_their_length() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("served", 100_000);
    let output = vec![b'1'; 1 << 20];
    for model in ["stranger", "served"] {
        let mut attacker = Attacker::registered(server.rpc, model, b"");
        let sent = send_until_cut(&mut attacker, &answer(7, &[&output]), 200);
        assert!(sent < 200, "{model}: 200 MB that nobody asked for were taken");
    }
    until("both are counted", || (ended_for(&server, &["flood", "zmtp"]) > 1.5).then_some(()));
}

#[test]
fn line_11d_messages_of_8000_frames_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("served", 100_000);
    let many = answer(7, &vec![&b"1"[..]; 8_000]);
    for model in ["stranger", "served"] {
        let mut attacker = Attacker::registered(server.rpc, model, b"");
        let sent = send_until_cut(&mut attacker, &many, 400);
        assert!(sent < 400, "{model}: 400 messages of 8,000 frames were taken");
    }
}

#[test]
fn line_11d_a_crowd_of_talkers_below_their_own_limit_is_cut_in_sum() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("served", 100_000);
    // Heartbeats, PINGs and commands without a meaning: 400 of each connection, of a thousand that
    // it may send in a second.
    let unasked = [heartbeat(), ping(b"x"), frame(4, b"\x04PONG")].map(|one| one.repeat(400));
    let mut crowd: Vec<Attacker> = (0..90)
        .map(|number| {
            let model = if number % 2 == 0 { "stranger" } else { "served" };
            Attacker::registered(server.rpc, model, b"")
        })
        .collect();
    for (number, attacker) in crowd.iter_mut().enumerate() {
        attacker.send(&unasked[number % 3]);
    }
    until("most of the crowd is cut", || {
        for (number, attacker) in crowd.iter_mut().enumerate() {
            attacker.send(&unasked[number % 3]);
        }
        (server.ended("flood") > 60.0).then_some(())
    });
}

#[test]
fn line_11d_half_answers_are_bounded_in_sum() {
    let count = size("CLIPPER_TEST_HALF_ANSWERS", 16, 32);
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("half", 50_000);
    let mut replicas: Vec<Attacker> =
        (0..count).map(|_| Attacker::registered(server.rpc, "half", b"")).collect();
    server.await_replicas("half", u32::try_from(count).unwrap());
    let before = server.resident_mb();
    let mut most = before;
    std::thread::scope(|scope| {
        let halves: Vec<_> = replicas
            .iter_mut()
            .map(|replica| {
                scope.spawn(move || {
                    next_batch(replica).unwrap();
                    replica.0.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                    replica.send(&[frame(MORE, b""), head(0, 60 << 20)].concat());
                    send_until_cut(replica, &vec![1; 1 << 20], 50)
                })
            })
            .collect();
        let mut input = 0.0;
        while halves.iter().any(|half| !half.is_finished()) {
            // Each replica gets a batch that it never answers.
            input += 1.0;
            predict(&server, "half", input);
            most = most.max(server.resident_mb());
        }
    });
    println!("{count} half answers of 50 MB: {before:.0} -> at most {most:.0} MB");
    assert!(most < before + 350.0, "{before} -> {most} MB for {count} half answers");
    until("some gave way", || (server.ended("memory") > 0.5).then_some(()));
}

/// The longest of the predictions that `app` answers within a time.
fn longest(server: &Served, app: &str, time: Duration, input: &mut f64) -> Duration {
    let mut http = Http::new(server.query);
    let path = format!("/{app}/predict");
    let (since, mut longest) = (Instant::now(), Duration::ZERO);
    while since.elapsed() < time {
        *input += 1.0;
        let body = format!("{{\"input\": [{input}]}}");
        let asked = Instant::now();
        let (_, text) = http.request("POST", &path, &body).unwrap();
        longest = longest.max(asked.elapsed());
        assert!(text.contains("\"output\":7"), "{text}");
    }
    longest
}

#[test]
fn line_11d_an_answer_of_60_mb_makes_nobody_else_late() {
    const ROUNDS: usize = 7;
    const TIME: Duration = Duration::from_millis(500);
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("live", 10_000_000);
    let _container = server.noop("live");
    server.await_replicas("live", 1);
    let mut input = 0.0;
    let output = format!("[{}1]", "{\"a\":[]},".repeat(6 << 20));
    let mut longer: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            // A new one each time: of a model that is known to be slow, nothing is asked in vain.
            let model = format!("large{round}");
            server.add_linked(&model, 50_000);
            let mut replica = Attacker::registered(server.rpc, &model, b"");
            server.await_replicas(&model, 1);
            predict(&server, &model, 1.0);
            let id = next_batch(&mut replica).unwrap();
            let quiet = longest(&server, "live", TIME, &mut input);
            assert!(replica.send(&answer(id, &[output.as_bytes()])));
            let beside = longest(&server, "live", TIME, &mut input);
            println!("others' longest answer: {quiet:?} before, {beside:?} beside 60 MB");
            beside.saturating_sub(quiet)
        })
        .collect();
    longer.sort_unstable();
    println!("longer by {longer:?}");
    // A busy machine spoils all of the rounds.
    if std::env::var_os("CLIPPER_TEST_FULL").is_some() {
        assert!(longer[1] < Duration::from_millis(50), "{longer:?}");
    }
}

#[test]
fn line_11e_containers_of_registered_models_take_precedence() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[rpc]\nconnections_max = 64\npending_handshakes_max = 16\n";
    let server = Served::start(config, folder.path());
    server.add_linked("served", 2_000_000);
    let mut strangers: Vec<Attacker> = Vec::new();
    for number in 0..64 {
        strangers.push(Attacker::registered(server.rpc, &format!("unknown{number}"), b""));
    }
    until("they hold the places", || {
        (server.metric("clipper_rpc_connections") > 63.5).then_some(())
    });
    let _container = server.noop("served");
    let replicas = "clipper_replicas{model=\"served\",version=\"1\"}";
    until("a good container comes through", || {
        // They go on holding their places.
        for stranger in &mut strangers {
            stranger.send(&heartbeat());
        }
        std::thread::sleep(Duration::from_millis(200));
        (server.metric(replicas) > 0.5).then_some(())
    });
    assert!(predict(&server, "served", 1.0).contains("\"output\":7"));
}

#[test]
fn line_11e_nothing_stays_of_a_claimed_name_and_a_waiting_container_serves_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let listed = || {
        let (_, text) = Http::new(server.management)
            .request("POST", "/admin/get_all_containers", "{\"verbose\": false}")
            .unwrap();
        text
    };
    let before = server.resident_mb();
    for _ in 0..size("CLIPPER_TEST_CLAIMS", 3, 2_000) {
        let claim = Attacker::registered(server.rpc, "claimed", b"");
        until("it is listed as the first", || listed().contains("claimed:1:0").then_some(()));
        drop(claim);
        until("it is not listed", || (!listed().contains("claimed")).then_some(()));
    }
    println!("{before:.0} MB before, {:.0} MB after", server.resident_mb());
    let _early = server.noop("early");
    until("it waits", || listed().contains("early:1:0").then_some(()));
    server.add_linked("early", 2_000_000);
    server.await_replicas("early", 1);
    assert!(predict(&server, "early", 1.0).contains("\"output\":7"));
    assert!(listed().contains("early:1:0"), "{}", listed());
}

#[test]
fn line_11b_connections_that_come_and_go_write_few_lines() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("served", 100_000);
    let connections = size("CLIPPER_TEST_STRANGERS", 600, 2_000);
    for number in 0..connections {
        match number % 4 {
            0 => drop(Attacker::registered(server.rpc, "stranger", b"")),
            1 => drop(Attacker::registered(server.rpc, "served", b"")),
            2 => drop(Attacker::connect(server.rpc).send(b"GET / HTTP/1.1\r\n\r\n")),
            _ => drop(Attacker::registered(server.rpc, "served", b"").send(b"\x01\x01x\x00\x01y")),
        }
    }
    until("all are gone", || (server.metric("clipper_rpc_connections") < 0.5).then_some(()));
    let lines = server.log().len();
    println!("{lines} log lines");
    assert!(lines < 150, "{lines} lines of {connections} connections");
}

#[test]
fn line_24_a_container_s_own_log_says_what_the_server_thinks() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let said = |log: &Arc<Mutex<String>>, what: &str| {
        until(what, || log.lock().unwrap().contains(what).then_some(()));
    };
    let (_container, log) = noop(&server, "m", "doubles", "7");
    said(&log, "the server knows no model m:1");
    server.add_linked("m", 2_000_000);
    said(&log, "this container serves m:1 as replica 0");
    let (_wrong, log) = noop(&server, "m", "strings", "7");
    said(&log, "model m:1 takes doubles, but the container says strings");
    let (_container, log) = noop(&server, "m", "doubles", "7");
    said(&log, "this container serves m:1 as replica");
    let body = serde_json::json!({ "app_name": "m", "model_names": ["m"] });
    server.admin("/admin/delete_model_links", &body);
    let body = serde_json::json!({ "model_name": "m", "model_version": "1", "force": true });
    server.admin("/admin/delete_versioned_model", &body);
    said(&log, "m:1 was deleted");
}

#[test]
fn line_20_another_build_of_the_same_version_empties_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("m", 2_000_000);
    // A replica that states its build and answers one query.
    // What it states takes effect when it is read, which may be after the replica is counted.
    let serve = |build: &str, logged: &str, output: &'static [u8]| {
        let mut replica = Attacker::shaken(server.rpc, b"");
        assert!(replica.send(&new_container_with("m", 4)));
        let accepted = read_message(&mut replica).unwrap();
        assert_eq!(accepted[4], 4u32.to_le_bytes(), "the server accepts builds");
        assert!(replica.send(&message(&[b"", &3u32.to_le_bytes(), build.as_bytes()])));
        server.await_replicas("m", 1);
        until(logged, || server.log().join("\n").contains(logged).then_some(()));
        let query = std::thread::scope(|scope| {
            let asked = scope.spawn(|| predict(&server, "m", 1.0));
            let stream = replica.0.try_clone().unwrap();
            let replies = std::thread::spawn(move || {
                let mut twin = Attacker(stream);
                next_batch(&mut twin).is_ok_and(|id| twin.send(&answer(id, &[output])))
            });
            let text = asked.join().unwrap();
            let _ = replica.0.shutdown(std::net::Shutdown::Both);
            let computed = replies.join().unwrap();
            (text, computed)
        });
        server.await_replicas("m", 0);
        query
    };
    let (text, computed) = serve("sha256:a", "", b"1");
    assert!(computed && text.contains("\"output\":1,"), "{text}");
    let (text, computed) = serve("sha256:a", "", b"2");
    assert!(!computed && text.contains("\"output\":1,"), "the same build: {text}");
    let (text, computed) = serve("sha256:b", "another build of the same version", b"3");
    assert!(computed && text.contains("\"output\":3,"), "another build: {text}");
}

#[test]
fn line_25_variables_of_others_stop_neither_server_nor_containers() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(crate::binary());
    command.env("CLIPPER_RPC_DIR", "/opt/other").env("CLIPPER_PORT", "tcp://10.0.0.1:1337");
    command.env("CLIPPER_RPC__NO_SUCH_KEY", "1");
    let server = Served::start_by(command, "", folder.path());
    for named in ["CLIPPER_RPC_DIR", "CLIPPER_RPC_ADDR", "CLIPPER_RPC__NO_SUCH_KEY"] {
        server.says(named);
    }
    server.add_linked("m", 2_000_000);
    let (_container, _) = noop(&server, "m", "doubles", "7");
    server.await_replicas("m", 1);
}

#[test]
fn line_26_an_http_client_on_the_rpc_port_is_told_where_to_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let mut client = Attacker::connect(server.rpc);
    client.send(b"POST /m/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    let (closed, said) = client.read_to_end();
    let said = String::from_utf8_lossy(&said);
    assert!(closed && said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(said.contains(&format!("http://{}/NAME/predict", server.query)), "{said}");
    // A peer that says nothing at first is greeted all the same.
    let mut silent = Attacker::connect(server.rpc);
    let asked = Instant::now();
    silent.0.read_exact(&mut [0; 64]).unwrap();
    println!("a silent peer was greeted after {:?}", asked.elapsed());
}

#[test]
fn line_05a_an_answer_over_the_limit_of_a_message_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("m", 100_000);
    let mut replica = Attacker::registered(server.rpc, "m", b"");
    server.await_replicas("m", 1);
    predict(&server, "m", 1.0);
    next_batch(&mut replica).unwrap();
    // Nine of ten outputs of 8 MB: each is within the limits, not all of them in one message.
    replica.send(&[frame(MORE, b""), frame(MORE, &1u32.to_le_bytes())].concat());
    let output = [head(MORE, 8 << 20), vec![b'1'; 8 << 20]].concat();
    send_until_cut(&mut replica, &output, 9);
    // The last of them may have fitted into the sockets before the server had read that far.
    assert!(replica.is_closed(), "72 MB were taken");
    until("it is counted", || (server.ended("answer_too_large") > 0.5).then_some(()));
    server.says("rpc.message_max_bytes");
}

#[test]
fn a_reconnecting_flood_of_new_containers_leaves_the_known_ones_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    server.add_linked("served", 2_000_000);
    let _container = server.noop("served");
    server.await_replicas("served", 1);
    let mut strangers = Vec::new();
    for number in 0..400 {
        let mut stranger = Attacker::shaken(server.rpc, b"");
        stranger.send(&new_container(&format!("name{number}")));
        strangers.push(stranger);
    }
    // More than may wait: the oldest gave way.
    until("144 gave way", || (server.ended("unknown_model") > 143.5).then_some(()));
    assert!(predict(&server, "served", 1.0).contains("\"output\":7"));
}
