//! Bytes as an attacker writes them: ZMTP by hand, from its specification and not from the library.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// Frame flags.
pub const MORE: u8 = 1;
pub const COMMAND: u8 = 4;

/// What a peer sends first: signature, version 3.0, mechanism NULL, not a server.
pub fn greeting() -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend_from_slice(b"NULL");
    bytes.resize(64, 0);
    bytes
}

/// A frame with its length in as few bytes as it takes.
pub fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = match u8::try_from(body.len()) {
        Ok(len) => vec![flags, len],
        Err(_) => head(flags, body.len() as u64),
    };
    bytes.extend_from_slice(body);
    bytes
}

/// The head of a frame that announces `len` bytes.
pub fn head(flags: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![flags | 2];
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// A message of whole frames.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let last = frames.len() - 1;
    let flags = |at| if at < last { MORE } else { 0 };
    frames.iter().enumerate().flat_map(|(at, body)| frame(flags(at), body)).collect()
}

/// The READY of a DEALER, with an identity if it is not empty.
pub fn ready(identity: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER".to_vec();
    if !identity.is_empty() {
        body.extend_from_slice(b"\x08Identity");
        body.extend_from_slice(&u32::try_from(identity.len()).unwrap().to_be_bytes());
        body.extend_from_slice(identity);
    }
    frame(COMMAND, &body)
}

/// A PING with a time to live of 0 and a context.
pub fn ping(context: &[u8]) -> Vec<u8> {
    frame(COMMAND, &[b"\x04PING\x00\x00", context].concat())
}

/// The new-container message for version 1 of a model over doubles.
pub fn new_container(model: &str) -> Vec<u8> {
    message(&[b"", &[0; 4], model.as_bytes(), b"1", b"3", &3u32.to_le_bytes()])
}

/// A container's heartbeat.
pub fn heartbeat() -> Vec<u8> {
    message(&[b"", &2u32.to_le_bytes()])
}

/// One hostile connection.
pub struct Attacker(pub TcpStream);

impl Attacker {
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(stream)
    }

    /// With the handshake done.
    pub fn shaken(to: SocketAddr, identity: &[u8]) -> Self {
        let mut attacker = Self::connect(to);
        assert!(attacker.send(&[greeting(), ready(identity)].concat()));
        // Its greeting and READY.
        attacker.0.read_exact(&mut [0; 64]).unwrap();
        let mut head = [0; 2];
        attacker.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], COMMAND);
        attacker.0.read_exact(&mut vec![0; head[1].into()]).unwrap();
        attacker
    }

    /// As a replica of `model`.
    pub fn registered(to: SocketAddr, model: &str, identity: &[u8]) -> Self {
        let mut attacker = Self::shaken(to, identity);
        assert!(attacker.send(&new_container(model)));
        attacker
    }

    /// False if the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Reads until the server closes the connection; what it said on the way. False in front if it
    /// did not within the read timeout.
    pub fn read_to_end(&mut self) -> (bool, Vec<u8>) {
        let mut said = Vec::new();
        let mut buffer = [0; 8 << 10];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return (true, said),
                Ok(n) => said.extend_from_slice(&buffer[..n]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return (false, said);
                }
                Err(_) => return (true, said),
            }
        }
    }

    /// Whether the server closes the connection.
    pub fn is_closed(&mut self) -> bool {
        self.read_to_end().0
    }

    /// Ends with a reset instead of an orderly close.
    pub fn reset(self) {
        SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
