//! Attacks that need a server or a peer of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::robust::CONFIG;
use crate::robust::attacker::Attacker;
use crate::robust::client::LiveClient;
use crate::support::served::Served;

#[test]
fn without_file_descriptors_it_goes_on_and_does_not_spin() {
    let folder = tempfile::tempdir().unwrap();
    // Without the limits below it, which would refuse connections first.
    let config = CONFIG.replace("pending_handshakes_max = 64", "pending_handshakes_max = 4096");
    let mut server = Served::start_with_files(96, &config, folder.path());
    server.add_linked("live", 2_000_000);
    let container = server.noop("live");
    server.await_replicas("live", 1);
    let live = LiveClient::start(server.query, "live");
    live.await_answers(200);
    let quiet = live.window();
    assert!(quiet.wrong.is_empty(), "{:?}", quiet.wrong);

    let attackers: Vec<Attacker> = (0..150).map(|_| Attacker::connect(server.rpc)).collect();
    let (since, ticks) = (Instant::now(), server.cpu_ticks());
    while since.elapsed() < Duration::from_secs(3) {
        live.await_answers(1);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Hundredths of a second.
    let ticks = u32::try_from(server.cpu_ticks() - ticks).unwrap();
    let cpu = f64::from(ticks) / since.elapsed().as_secs_f64();
    let window = live.window();
    let (memory, lines) = (server.resident_mb(), server.log().len());
    drop(attackers);
    assert!(server.is_up());
    assert!(window.wrong.is_empty(), "{:?}", window.wrong);
    server.says("cannot accept container connections");
    assert!(lines < 200, "{lines} log lines");

    // With descriptors again, containers come through again.
    drop(container);
    let _another = server.noop("live");
    server.await_replicas("live", 1);
    let timeouts = server.ended("handshake_timeout");
    assert!(timeouts > 0.0, "no connection that said nothing was ended");
    println!(
        "| EMFILE (96 descriptors, 150 connections) | live answers go on, accepting pauses, \
         {lines} log lines in all, {cpu:.0} % CPU with the live client | {memory:.0} MB | \
         {:.1?} -> {:.1?} ({} answers) | handshake_timeout +{timeouts} |",
        quiet.p99, window.p99, window.answers
    );
}

const PYZMQ: &str = r#"
import struct, sys, time, zmq
from zmq.utils.monitor import recv_monitor_message
dealer = zmq.Context.instance().socket(zmq.DEALER)
dealer.setsockopt(zmq.HEARTBEAT_IVL, 50)
dealer.setsockopt(zmq.HEARTBEAT_TIMEOUT, 500)
dealer.setsockopt(zmq.HEARTBEAT_TTL, 500)
monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECTED)
dealer.connect(sys.argv[1])
dealer.send_multipart([b"", struct.pack("<I", 0), b"attacked", b"1", b"3", struct.pack("<I", 3)])
end = time.monotonic() + 2
events = []
while time.monotonic() < end:
    if monitor.poll(100):
        events.append(recv_monitor_message(monitor)["event"])
print(events.count(zmq.EVENT_CONNECTED), events.count(zmq.EVENT_DISCONNECTED))
"#;

#[test]
fn libzmq_heartbeats_are_answered() {
    let python = std::env::var_os("CLIPPER_TEST_PYTHON")
        .expect("set CLIPPER_TEST_PYTHON to a Python 3.9+ that has pyzmq");
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start(CONFIG, folder.path());
    let output = Command::new(python)
        .args(["-c", PYZMQ, &format!("tcp://{}", server.rpc)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts = String::from_utf8(output.stdout).unwrap();
    assert_eq!(counts.trim(), "1 0", "connects and disconnects in 2 s of PINGs every 50 ms");
}
