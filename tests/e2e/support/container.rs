//! Containers as processes of their own, told what to do: `container.py` on stock pyzmq.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::server::Server;
use super::{eventually, python};

const SCRIPT: &str = include_str!("../container.py");

pub struct Container {
    process: Child,
    commands: ChildStdin,
    events: Arc<Mutex<Vec<Value>>>,
}

/// What the container protocol calls an input type.
pub fn type_code(input_type: &str) -> &'static str {
    match input_type {
        "bytes" => "0",
        "integers" => "1",
        "floats" => "2",
        "doubles" => "3",
        "strings" => "4",
        other => panic!("{other}"),
    }
}

impl Container {
    /// A container of a model's version 1 with further options of `container.py`.
    pub fn spawn(server: &Server, model: &str, options: &[&str]) -> Self {
        let mut process = Command::new(python())
            .args(["-u", "-c", SCRIPT, "--connect", &server.rpc, "--name", model])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (stdout, list) = (process.stdout.take().unwrap(), Arc::clone(&events));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                list.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { process, commands, events }
    }

    /// A container for doubles that the server sends batches from now on.
    pub fn serving(server: &Server, model: &str, options: &[&str]) -> Self {
        let before = server.replicas(model);
        let container = Self::spawn(server, model, options);
        eventually("the container serves", || server.replicas(model) > before);
        container
    }

    /// Gives an order and waits until it was carried out.
    fn order(&mut self, command: &Value) {
        let before = self.count("done");
        writeln!(self.commands, "{command}").unwrap();
        eventually("the container obeys", || self.count("done") > before);
    }

    /// How to answer from now on; held batches are answered too.
    pub fn answer(&mut self, how: &str) {
        self.order(&json!({"do": "answer", "how": how}));
    }

    /// Sends one multipart message as it stands.
    pub fn send(&mut self, frames: &[&[u8]]) {
        let hex =
            |frame: &&[u8]| frame.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        let frames: Vec<String> = frames.iter().map(hex).collect();
        self.order(&json!({"do": "send", "frames": frames}));
    }

    /// A number that the container counts: batches, inputs or registrations.
    pub fn counted(&mut self, what: &str) -> u64 {
        self.order(&json!({"do": "report"}));
        let events = self.events.lock().unwrap();
        let report = events.iter().rfind(|event| event["event"] == "report").unwrap();
        report[what].as_u64().unwrap()
    }

    fn count(&self, event: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|e| e["event"] == event).count()
    }

    /// Every input of every batch that it was sent.
    pub fn inputs(&self) -> Vec<Value> {
        let events = self.events.lock().unwrap();
        let batches = events.iter().filter(|event| event["event"] == "batch");
        batches.flat_map(|batch| batch["inputs"].as_array().unwrap().clone()).collect()
    }

    /// Waits until it was sent `input`.
    pub fn await_input(&self, input: &Value) {
        eventually("the container has the input", || self.inputs().contains(input));
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn await_end(&mut self) {
        eventually("the container ends", || self.process.try_wait().unwrap().is_some());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
