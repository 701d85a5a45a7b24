//! Replays the recorded exchanges against running frontends and judges each answer.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use super::better::BETTER;
use super::setup::{BEFORE, Step};
use crate::e2e::support::http::{self as client, Answer};

/// One recorded request and the original's answer; `status: None` = it closed without answering.
#[derive(Debug, Deserialize)]
pub struct Exchange {
    pub name: String,
    method: String,
    pub port: u16,
    path: String,
    request_body: Option<String>,
    status: Option<u16>,
    pub body: String,
}

/// Where the frontends listen. Without a query frontend its exchanges are left out.
pub struct Targets {
    pub management: SocketAddr,
    pub query: Option<SocketAddr>,
}

impl Targets {
    fn of(&self, port: u16) -> Option<SocketAddr> {
        match port {
            1338 => Some(self.management),
            _ => self.query,
        }
    }
}

/// What has to happen around the requests. A step returns when its effect can be seen.
pub trait World {
    /// Connects a replica that answers every query with `output`.
    fn connect(&mut self, model: &str, version: &str, input_type: &str, output: &str);
    /// The replicas of a model stop answering.
    fn freeze(&mut self, model: &str);
    /// They answer again.
    fn thaw(&mut self, model: &str);
}

pub enum Verdict {
    Same,
    Better(&'static str),
    Different(String),
}

pub struct Row {
    name: String,
    verdict: Verdict,
}

/// What a default output says whose model was not in time.
const LATE: &str = "within the specified latency SLO";

impl Row {
    /// It differs, and its answer came too late for the recorded objective of 100 ms.
    pub fn is_late(&self) -> bool {
        matches!(&self.verdict, Verdict::Different(got) if got.contains(LATE))
    }
}

pub fn exchanges() -> Vec<Exchange> {
    let lines = include_str!("exchanges.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn replay(targets: &Targets, world: &mut dyn World) -> Vec<Row> {
    let mut rows = Vec::new();
    for exchange in exchanges() {
        let steps = BEFORE.iter().filter(|(name, _)| *name == exchange.name);
        for step in steps.flat_map(|(_, steps)| *steps) {
            prepare(step, targets, world);
        }
        let Some(addr) = targets.of(exchange.port) else { continue };
        let body = exchange.request_body.as_deref().unwrap_or_default();
        let answer = client::call(addr, &exchange.method, &exchange.path, body.as_bytes());
        let verdict = judge(&exchange, answer.as_ref());
        rows.push(Row { name: exchange.name, verdict });
    }
    rows
}

fn prepare(step: &Step, targets: &Targets, world: &mut dyn World) {
    match step {
        Step::Post { path, body } => {
            let answer = client::call(targets.management, "POST", path, body.as_bytes()).unwrap();
            assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        }
        Step::Connect { model, input_type, output } => {
            world.connect(model, "1", input_type, output);
        }
        Step::Freeze(model) => world.freeze(model),
        Step::Thaw(model) => world.thaw(model),
    }
}

fn judge(exchange: &Exchange, answer: Option<&Answer>) -> Verdict {
    let Some(answer) = answer else {
        return Verdict::Different("closed without an answer".to_owned());
    };
    let got = format!("{} {}", answer.status, answer.text());
    if let Some(fault) = fault_of_content_type(answer) {
        return Verdict::Different(format!("{fault}: {got}"));
    }
    if let Some(row) = BETTER.iter().find(|row| row.names.contains(&exchange.name.as_str())) {
        let as_meant = answer.status == row.status && (row.body)(exchange, &answer.text());
        return if as_meant { Verdict::Better(row.why) } else { Verdict::Different(got) };
    }
    let same_body = match exchange.port {
        1338 => exchange.body == answer.text(),
        _ => same_without_query_ids(&exchange.body, &answer.text()),
    };
    if exchange.status == Some(answer.status) && same_body {
        Verdict::Same
    } else {
        Verdict::Different(format!("{got} instead of {:?} {}", exchange.status, exchange.body))
    }
}

/// The original called everything JSON. Ours: JSON objects and arrays are JSON, the rest is text.
fn fault_of_content_type(answer: &Answer) -> Option<&'static str> {
    let is_json = answer.text().trim_start().starts_with(['{', '[']);
    match (is_json, answer.header("content-type")) {
        (_, None) if answer.body.is_empty() => None,
        (true, Some("application/json")) => None,
        (false, Some(text)) if text.starts_with("text/plain") => None,
        _ => Some("wrong Content-Type"),
    }
}

/// Query ids count queries of a whole server; only their presence is compared.
fn same_without_query_ids(recorded: &str, got: &str) -> bool {
    fn clean(value: &mut Value) {
        match value {
            Value::Array(elements) => elements.iter_mut().for_each(clean),
            Value::Object(members) => {
                members.values_mut().for_each(clean);
                if members.get("query_id").is_some_and(Value::is_u64) {
                    members.insert("query_id".to_owned(), Value::Null);
                }
            }
            _ => {}
        }
    }
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    match (parse(recorded), parse(got)) {
        (Some(mut recorded), Some(mut got)) => {
            clean(&mut recorded);
            clean(&mut got);
            recorded == got
        }
        _ => recorded == got,
    }
}

/// `| name | same, better or different | why |`, one row an exchange, then the counts.
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from("| exchange | verdict | why |\n|---|---|---|\n");
    let (mut same, mut better, mut different) = (0, 0, 0);
    for Row { name, verdict } in rows {
        let (verdict, why) = match verdict {
            Verdict::Same => {
                same += 1;
                ("same", "")
            }
            Verdict::Better(why) => {
                better += 1;
                ("better", *why)
            }
            Verdict::Different(what) => {
                different += 1;
                ("different", what.as_str())
            }
        };
        writeln!(table, "| {name} | {verdict} | {why} |").unwrap();
    }
    writeln!(table, "\n{same} same, {better} better, {different} different.").unwrap();
    table
}
