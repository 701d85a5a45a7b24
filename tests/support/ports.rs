//! Ports for servers that are told theirs, or come back to it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Mutex;

/// Below those that the kernel gives to whoever asks for any: nobody gets one while its server is
/// away. `tests/system/ports.py` takes them from here too.
const PORTS: Range<u16> = 20_000..32_000;

/// Each port that a test of this process has; whoever holds the UDP port of the same number has it.
static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port that nobody listens on, and that no other test gets while this process lives.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        let Ok(claim) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().unwrap().push(claim);
            return port;
        }
    }
}

/// The same with this machine's own address.
pub fn free_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}
