//! Server-sent events as they come over the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No event within this fails a test; far above anything a healthy server needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request and the events that answer it. Dropping it leaves.
pub struct Events {
    stream: BufReader<TcpStream>,
    pub status: u16,
    /// The lines of the head, as they came.
    pub head: Vec<String>,
    text: String,
    ended: bool,
}

impl Events {
    /// Posts `body` and waits for the head of the answer.
    pub fn post(addr: SocketAddr, path: &str, body: &Value) -> Self {
        Self::post_with(addr, path, "", body)
    }

    /// [`Self::post`] with more headers, each with its line's end.
    pub fn post_with(addr: SocketAddr, path: &str, headers: &str, body: &Value) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut events = Self {
            stream: BufReader::new(stream),
            status: 0,
            head: Vec::new(),
            text: String::new(),
            ended: false,
        };
        let status = events.line();
        events.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut is_chunked = false;
        loop {
            let line = events.line();
            is_chunked |= line.to_lowercase() == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
            events.head.push(line);
        }
        events.ended = !is_chunked;
        events
    }

    /// The next event, its name and its data; `None` at the end of the answer.
    pub fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (mut name, mut data) = (String::new(), String::new());
                for line in event.lines() {
                    if let Some(text) = line.strip_prefix("event: ") {
                        text.clone_into(&mut name);
                    } else {
                        data.push_str(line.strip_prefix("data: ").expect("a line of data"));
                    }
                }
                let data = serde_json::from_str(&data).unwrap_or_else(|_| panic!("JSON: {data}"));
                self.text = rest.to_owned();
                return Some((name, data));
            }
            if self.ended {
                assert_eq!(self.text, "", "a whole event");
                return None;
            }
            self.chunk();
        }
    }

    /// The next piece of `/{app}/predict`.
    pub fn piece(&mut self) -> Value {
        let (name, data) = self.next().expect("a piece");
        assert_eq!(name, "", "{data}");
        data["output"].clone()
    }

    /// All pieces, and the event that says how the answer ended.
    pub fn rest(mut self) -> (Vec<Value>, Value) {
        let mut pieces = Vec::new();
        loop {
            let (name, data) = self.next().expect("an event that says how it ended");
            if name == "end" {
                assert_eq!(self.next(), None, "nothing after the end");
                return (pieces, data);
            }
            pieces.push(data["output"].clone());
        }
    }

    fn chunk(&mut self) {
        let size = self.line();
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a size: {size}"));
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).unwrap();
        self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        assert_eq!(self.line(), "");
        self.ended = size == 0;
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
