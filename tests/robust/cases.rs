//! The attacks. Each leaves the server as it found it, or says what it left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use crate::robust::attacker::{
    Attacker, MORE, frame, greeting, head, heartbeat, message, new_container, ping, ready,
};
use crate::robust::{Case, size};
use crate::support::served::{Http, Served, until};

const ZMTP: Option<(&str, &str)> = Some(("zmtp", "Zmtp"));
const PROTOCOL: Option<(&str, &str)> = Some(("protocol", "Protocol"));
const CLOSED: Option<(&str, &str)> = Some(("closed", "Closed"));
const FLOOD: Option<(&str, &str)> = Some(("flood", "Flood"));

pub const CASES: &[Case] = &[
    Case { name: "random and mutated messages", ends: PROTOCOL, run: random_messages },
    Case { name: "TCP garbage", ends: ZMTP, run: garbage },
    Case { name: "HTTP request", ends: ZMTP, run: http },
    Case {
        name: "half handshakes",
        ends: Some(("handshake_timeout", "HandshakeTimeout")),
        run: half_handshakes,
    },
    Case { name: "all handshake places taken", ends: Some(("limit", "Limit")), run: places_taken },
    Case { name: "frames of 2^40 and 2^62 bytes before READY", ends: ZMTP, run: long_before_ready },
    Case { name: "frames of 2^40 and 2^62 bytes after READY", ends: ZMTP, run: long_after_ready },
    Case { name: "frames of 2^40 and 2^62 bytes of a replica", ends: ZMTP, run: long_of_replica },
    Case { name: "200 MB of a 2 GiB frame", ends: ZMTP, run: two_gib },
    Case { name: "60 MB of an awaited frame", ends: CLOSED, run: within_limits },
    Case { name: "60 MB of a frame that nobody awaits", ends: FLOOD, run: nobody_awaits },
    Case { name: "10 million one-byte MORE frames", ends: ZMTP, run: more_frames },
    Case { name: "PING heartbeats", ends: None, run: pings },
    Case { name: "duplicate identities", ends: None, run: duplicate_identities },
    Case { name: "stuck reader", ends: Some(("hung", "Hung")), run: stuck_reader },
    Case { name: "reset in mid-message", ends: CLOSED, run: reset_mid_message },
    Case { name: "3,000 connects and resets", ends: CLOSED, run: connect_and_reset },
    Case { name: "heartbeat flood of a replica", ends: FLOOD, run: flood },
];

/// Fixed, so that a failure comes again.
fn rng() -> SmallRng {
    SmallRng::seed_from_u64(2017)
}

fn random_bytes(rng: &mut SmallRng, longest: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=longest)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// An answer to message `id` with two outputs.
fn answer(id: u32) -> Vec<u8> {
    let header: Vec<u8> = [2u64, 1, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    let length = (header.len() as u64).to_le_bytes();
    message(&[b"", &1u32.to_le_bytes(), &id.to_le_bytes(), &length, &header, b"1", b"2"])
}

fn random_message(rng: &mut SmallRng) -> Vec<u8> {
    let frames: Vec<Vec<u8>> =
        (0..rng.random_range(1..12)).map(|_| random_bytes(rng, 300)).collect();
    let mut frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    // Half of them get past the first checks.
    let kind = rng.random_range(0u32..4).to_le_bytes();
    if rng.random() {
        frames.splice(0..0, [b"".as_slice(), &kind]);
    }
    message(&frames)
}

/// A good message with some bytes changed, lost, doubled or cut off.
fn mutated_message(rng: &mut SmallRng) -> Vec<u8> {
    let good = [heartbeat(), new_container("attacked"), answer(0), answer(7), ping(b"context")];
    let mut bytes = good.choose(rng).unwrap().clone();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

fn random_messages(server: &Served) -> String {
    let mut rng = rng();
    let rounds = size(10_000, 1_500);
    for round in 0..rounds {
        let mut bytes = [greeting(), ready(b"")].concat();
        // Half as a stranger, half as a replica.
        if round % 2 == 0 {
            bytes.extend(new_container("attacked"));
        }
        let bad = if round % 4 < 2 { random_message(&mut rng) } else { mutated_message(&mut rng) };
        bytes.extend(bad);
        let mut attacker = Attacker::connect(server.rpc);
        attacker.send(&bytes);
        // What is not an error by then is the beginning of one more message.
        let _ = attacker.0.shutdown(std::net::Shutdown::Write);
        assert!(attacker.is_closed(), "message {round} keeps its connection");
    }
    format!("{rounds} sent, all connections closed")
}

fn garbage(server: &Served) -> String {
    let mut rng = rng();
    for _ in 0..200 {
        let mut attacker = Attacker::connect(server.rpc);
        let mut bytes = random_bytes(&mut rng, 8 << 10);
        bytes.extend([0; 64]);
        bytes[0] = bytes[0].min(0xfe);
        attacker.send(&bytes);
        assert!(attacker.is_closed());
    }
    "closed at the first byte".to_owned()
}

fn http(server: &Served) -> String {
    // Of equal reasons the log has one line a second.
    until("the log says what came", || {
        let mut attacker = Attacker::connect(server.rpc);
        attacker.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(attacker.is_closed());
        server.log().iter().any(|line| line.contains("is an HTTP client talking")).then_some(())
    });
    "closed at the first byte".to_owned()
}

fn half_handshakes(server: &Served) -> String {
    let whole = [greeting(), ready(b"")].concat();
    let parts = [0, 1, 10, 63, 64, 65, 80, whole.len()];
    let mut attackers: Vec<Attacker> = Vec::new();
    for part in parts.iter().cycle().take(48) {
        let mut attacker = Attacker::connect(server.rpc);
        assert!(attacker.send(&whole[..*part]));
        attackers.push(attacker);
    }
    let since = Instant::now();
    for attacker in &mut attackers {
        assert!(attacker.is_closed());
    }
    format!("closed after {:.1?} (rpc.handshake_timeout_ms)", since.elapsed())
}

fn places_taken(server: &Served) -> String {
    // More than rpc.pending_handshakes_max, renewed as long as the good container tries.
    let mut attackers: std::collections::VecDeque<Attacker> = std::collections::VecDeque::new();
    let since = Instant::now();
    let mut second = None;
    let mut opened = 0;
    while second.is_none() || since.elapsed() < Duration::from_millis(500) {
        for _ in 0..20 {
            attackers.push_back(Attacker::connect(server.rpc));
            opened += 1;
        }
        while attackers.len() > 200 {
            attackers.pop_front();
        }
        if opened == 200 {
            second = Some((server.noop("live"), Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (container, started) = second.unwrap();
    let sample = "clipper_replicas{model=\"live\",version=\"1\"}";
    let attached = until("a good container comes through", || {
        for _ in 0..5 {
            attackers.push_back(Attacker::connect(server.rpc));
            attackers.pop_front();
        }
        (server.metric(sample) > 1.5).then(|| started.elapsed())
    });
    drop(container);
    server.await_replicas("live", 1);
    format!("the oldest give way; a container came through after {attached:.1?}")
}

fn long_lengths(server: &Served, connect: fn(&Served) -> Attacker) -> String {
    for exponent in [40, 62] {
        for flags in [0, MORE, 4] {
            let mut attacker = connect(server);
            attacker.send(&head(flags, 1 << exponent));
            attacker.send(&[0; 4096]);
            assert!(attacker.is_closed());
        }
    }
    "closed at the length".to_owned()
}

fn long_before_ready(server: &Served) -> String {
    long_lengths(server, |server| {
        let mut attacker = Attacker::connect(server.rpc);
        attacker.send(&greeting());
        attacker
    })
}

fn long_after_ready(server: &Served) -> String {
    long_lengths(server, |server| Attacker::shaken(server.rpc, b""))
}

fn long_of_replica(server: &Served) -> String {
    long_lengths(server, |server| Attacker::registered(server.rpc, "attacked", b""))
}

fn two_gib(server: &Served) -> String {
    let mut attacker = Attacker::registered(server.rpc, "attacked", b"");
    attacker.send(&head(0, 2 << 30));
    let piece = vec![1; 1 << 20];
    let taken = (0..200).take_while(|_| attacker.send(&piece)).count();
    assert!(taken < 200, "all of it was taken");
    assert!(attacker.is_closed());
    "closed at the length".to_owned()
}

/// A replica of a registered model, which is heard as late as possible.
fn replica(server: &Served, model: &str, slo_us: u32) -> Attacker {
    server.add_linked(model, slo_us);
    let mut attacker = Attacker::registered(server.rpc, model, b"");
    server.await_replicas(model, 1);
    // A busy machine may have taken some of the time that it may be silent.
    assert!(attacker.send(&heartbeat()), "it was closed before it did anything");
    attacker.0.read_exact(&mut [0; 18]).expect("an answer to its heartbeat");
    attacker
}

fn nobody_awaits(server: &Served) -> String {
    let mut attacker = replica(server, "unasked", 100_000);
    attacker.send(&head(0, 60 << 20));
    let piece = vec![1; 1 << 20];
    let taken = (0..60).take_while(|_| attacker.send(&piece)).count();
    assert!(taken < 60, "all of it was taken");
    assert!(attacker.is_closed(), "it was not closed");
    "closed at the length".to_owned()
}

/// Asks a model something, and does not wait for the answer.
fn ask(server: &Served, model: &str) -> TcpStream {
    let body = "{\"input\": [1.0]}";
    let head = format!("POST /{model}/predict HTTP/1.1\r\nHost: test\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut client = TcpStream::connect(server.query).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn within_limits(server: &Served) -> String {
    let before = server.resident_mb();
    // Until its objective it is taken for busy, however slow this machine is.
    let mut attacker = replica(server, "asked", 120_000_000);
    let _client = ask(server, "asked");
    // More than its heartbeats are answered with: one of those may come late.
    let mut asked = [0; 50];
    attacker.0.read_exact(&mut asked).expect("the replica is asked");
    attacker.send(&head(0, 64 << 20));
    let piece = vec![1; 1 << 20];
    let taken = (0..60).take_while(|_| attacker.send(&piece)).count();
    assert_eq!(taken, 60, "MB were taken after {asked:?}");
    let most = server.resident_mb();
    assert!(most < before + 200.0, "{before} to {most} MB");
    drop(attacker);
    format!("kept while open (+{:.0} MB), given back at its end", most - before)
}

fn more_frames(server: &Served) -> String {
    let frames = size(10_000_000, 2_000_000);
    let piece = frame(MORE, b"x").repeat(1 << 15);
    let connects: [fn(&Served) -> Attacker; 2] = [
        |server| Attacker::shaken(server.rpc, b""),
        |server| Attacker::registered(server.rpc, "attacked", b""),
    ];
    for connect in connects {
        let mut attacker = connect(server);
        let pieces = frames >> 15;
        let taken = (0..pieces).take_while(|_| attacker.send(&piece)).count();
        assert!(taken < pieces, "all of them were taken");
        assert!(attacker.is_closed());
    }
    "closed at 16 frames before it registered, at rpc.frames_max after".to_owned()
}

fn pings(server: &Served) -> String {
    // The first PING arrives together with the registration.
    let mut attacker = Attacker::shaken(server.rpc, b"");
    assert!(attacker.send(&[new_container("attacked"), ping(b"\0\0\0\0")].concat()));
    let mut pong = [0; 11];
    attacker.0.read_exact(&mut pong).unwrap();
    for number in 0..100u8 {
        assert!(attacker.send(&ping(&[number; 4])));
        let mut pong = [0; 11];
        attacker.0.read_exact(&mut pong).unwrap();
        assert_eq!(pong[..], [b"\x04\x09\x04PONG".as_slice(), &[number; 4]].concat());
    }
    "100 PINGs, 100 PONGs, connection kept".to_owned()
}

fn duplicate_identities(server: &Served) -> String {
    let mut twins: Vec<Attacker> =
        (0..2).map(|_| Attacker::registered(server.rpc, "attacked", b"same")).collect();
    for _ in 0..10 {
        for twin in &mut twins {
            assert!(twin.send(&heartbeat()));
            let mut beat = [0; 18];
            twin.0.read_exact(&mut beat).unwrap();
        }
    }
    "independent; both connections live on".to_owned()
}

fn stuck_reader(server: &Served) -> String {
    // Long enough for a debug build on a busy machine to parse one input of each client.
    const CLIENTS: usize = 8;
    server.add_linked("stuck", 3_000_000);
    let _stuck = Attacker::registered(server.rpc, "stuck", b"");
    server.await_replicas("stuck", 1);
    // 40,000 doubles: one input of 320 kB, far above the buffers of the two sockets in sum.
    let input = "1.5,".repeat(39_999);
    let query = server.query;
    let ask = &|client: usize| {
        let mut http = Http::new(query);
        for number in (client..40).step_by(CLIENTS) {
            let body = format!("{{\"input\": [{input}{number}]}}");
            let (status, text) = http.request("POST", "/stuck/predict", &body).unwrap();
            assert_eq!(status, 200, "{text}");
            assert!(text.contains("\"default\":true"), "{text}");
        }
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || ask(client));
        }
    });
    server.await_replicas("stuck", 0);
    "40 default answers in time; dropped as hung".to_owned()
}

fn reset_mid_message(server: &Served) -> String {
    for round in 0..200 {
        let mut attacker = Attacker::registered(server.rpc, "attacked", b"");
        attacker.send(&answer(0)[..10 + round % 20]);
        attacker.reset();
    }
    "200 connections forgotten".to_owned()
}

fn connect_and_reset(server: &Served) -> String {
    for _ in 0..3_000 {
        Attacker::connect(server.rpc).reset();
    }
    until("all are forgotten", || (server.metric("clipper_rpc_connections") < 1.5).then_some(()));
    "all forgotten".to_owned()
}

fn flood(server: &Served) -> String {
    let mut attacker = Attacker::registered(server.rpc, "attacked", b"");
    let mut reader = attacker.0.try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 8 << 10];
        while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let beats = heartbeat().repeat(1 << 10);
    let since = Instant::now();
    let mut sent = 0;
    while since.elapsed() < Duration::from_secs(3) && attacker.send(&beats) {
        sent += 1 << 10;
    }
    let lived = since.elapsed();
    let _ = attacker.0.shutdown(std::net::Shutdown::Both);
    drain.join().unwrap();
    format!("closed after {lived:.1?}, {sent} heartbeats written")
}
