//! Who comes to the containers' port again and again: floods, and names that nobody has registered.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::robust::attacker::{Attacker, greeting, heartbeat, new_container, ready};
use crate::support::served::{Served, until};
use crate::support::size;

/// A connection that comes from another address of this machine.
fn connect(from: [u8; 4], to: SocketAddr) -> Attacker {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(from), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    Attacker(stream)
}

#[test]
fn line_11d_an_address_that_was_cut_for_flooding_comes_back_slowly() {
    const STRANGER: [u8; 4] = [127, 0, 0, 2];
    let folder = tempfile::tempdir().unwrap();
    let config = "[rpc]\nflood_reconnects_max = 5\nflood_window_ms = 600000\n\
                  unasked_messages_per_second_max = 100\n";
    let server = Served::start(config, folder.path());
    server.add_linked("m", 2_000_000);
    let flood = |from: [u8; 4]| {
        let mut stranger = connect(from, server.rpc);
        let hello = [greeting(), ready(b""), new_container("m"), heartbeat().repeat(2_000)];
        let _ = stranger.send(&hello.concat());
        let _ = stranger.is_closed();
    };
    let cut = || server.ended("flood");
    flood(STRANGER);
    until("it is cut", || (cut() > 0.5).then_some(()));
    let greeted = |from: [u8; 4]| {
        let tries = (0..20).map(|_| connect(from, server.rpc));
        tries.filter(|stranger| matches!((&stranger.0).read(&mut [0; 64]), Ok(1..))).count()
    };
    assert!(greeted(STRANGER) <= 5);
    until("the others are counted", || (cut() > 14.5).then_some(()));
    server.says("rpc.flood_reconnects_max");
    // Neighbours and the server's own replicas are not blamed, the latter never.
    assert_eq!(greeted([127, 0, 0, 3]), 20);
    flood([127, 0, 0, 1]);
    assert_eq!(greeted([127, 0, 0, 1]), 20);
    let _container = server.noop("m");
    server.await_replicas("m", 1);
}

/// Names that nobody has registered, each claimed once by a connection that ends.
#[test]
fn line_11e_names_that_were_claimed_leave_no_memory() {
    const CLIENTS: usize = 8;
    let claims = size("CLIPPER_TEST_CLAIMS", 2_000, 174_000);
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start("", folder.path());
    let rpc = server.rpc;
    let claim = |from: usize, to: usize| {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    for number in (from + client..to).step_by(CLIENTS) {
                        let claim = Attacker::registered(rpc, &format!("n{number}"), b"");
                        // So that no port of this machine waits for what may still come.
                        claim.reset();
                    }
                });
            }
        });
        until("all have gone", || (server.metric("clipper_rpc_connections") < 0.5).then_some(()));
    };
    // What every first connection takes once.
    claim(0, 1_000);
    let (before, since) = (server.resident_mb(), Instant::now());
    claim(1_000, 1_000 + claims);
    let after = server.resident_mb();
    println!(
        "{claims} claimed names in {:.0?}: resident {before:.0} MB before, {after:.0} MB after, \
         peak {:.0} MB",
        since.elapsed(),
        server.peak_mb()
    );
    assert!(after < before + 16.0, "{before} -> {after} MB");
}
