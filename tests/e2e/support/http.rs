//! A small blocking HTTP client that shows exactly what came over the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer within this fails a test; far above anything a healthy server needs.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes; a peer that has already answered and closed is no error here.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.get_mut().write_all(bytes) {
            eprintln!("the server stopped reading: {error}");
        }
    }

    /// Reads one answer; `None` when the server closed without one.
    pub fn answer(&mut self, method: &str) -> Option<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |n| n.parse().unwrap());
        if method != "HEAD" {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    /// True when the server has closed the connection and sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }
}

pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub fn call(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut connection = Connection::open(addr);
    connection.send(&request(method, path, body));
    connection.answer(method)
}

pub fn get(addr: SocketAddr, path: &str) -> Answer {
    call(addr, "GET", path, b"").expect("an answer")
}

/// Posts over one connection, as long as the server keeps it.
pub struct Client {
    addr: SocketAddr,
    connection: Connection,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, connection: Connection::open(addr) }
    }

    /// The answer; fails the test where there is none.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.connection.send(&request("POST", path, body));
        let answer = self.connection.answer("POST").expect("an answer");
        if answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            self.connection = Connection::open(self.addr);
        }
        answer
    }
}
