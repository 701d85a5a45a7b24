//! Which process holds the other end of a connection on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clipper_container::processes;
use nix::unistd::Pid;

/// The first of `candidates` that, or a descendant of which, has the socket with this address.
/// Blocks for a moment: it reads the tables of sockets and processes.
pub(super) fn owner(peer: SocketAddr, candidates: &[Pid]) -> Option<Pid> {
    let inode = inode_of(peer)?;
    let link = format!("socket:[{inode}]");
    let holds = |pid: Pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let files = files.into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|target| target.to_str() == Some(&link))
    };
    candidates.iter().copied().find(|candidate| {
        holds(*candidate) || processes::descendants(*candidate).iter().any(|p| holds(p.pid))
    })
}

fn inode_of(peer: SocketAddr) -> Option<u64> {
    // A connection through an IPv4 socket shows in the first, whatever the server listens on.
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables.iter().find_map(|table| find_inode(&std::fs::read_to_string(table).ok()?, peer))
}

/// Looks for the line of the socket whose own address is `peer`.
fn find_inode(table: &str, peer: SocketAddr) -> Option<u64> {
    const STATE_LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = state != STATE_LISTEN && parse_address(local)? == canonical(peer);
        // Queues, timer, retransmissions, user and timeout stand between.
        is_it.then(|| fields.nth(5)?.parse().ok()).flatten().filter(|inode| *inode != 0)
    })
}

fn canonical(addr: SocketAddr) -> (IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

/// `0100007F:1B58`: words of the address in the machine's order of bytes, then the port.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:1B58 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0
   2: 0100007F:C350 0100007F:1B58 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_socket_is_found_by_its_own_address() {
        assert_eq!(find_inode(TABLE, "127.0.0.1:50000".parse().unwrap()), Some(333));
        assert_eq!(find_inode(TABLE, "[::ffff:127.0.0.1]:50000".parse().unwrap()), Some(333));
        assert_eq!(find_inode(TABLE, "127.0.0.1:7000".parse().unwrap()), Some(222));
        assert_eq!(find_inode(TABLE, "127.0.0.1:7001".parse().unwrap()), None);
    }

    #[test]
    fn a_connection_of_this_process_is_its_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = nix::unistd::getpid();
        assert_eq!(owner(client.local_addr().unwrap(), &[own]), Some(own));
        drop(client);
    }
}
