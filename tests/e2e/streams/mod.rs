//! Answers in pieces, from a generator in a container of the Python package to the caller.

mod hostile;

use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::events::Events;
use super::support::http;
use super::support::server::Server;
use super::support::{descendants_of, eventually, python};
use crate::support::signals::signal;

/// Generators that tell their steps by files of a folder, and wait for files.
const MODEL: &str = "\
import asyncio, os, time
from clipper_serving import streams

HERE = os.path.dirname(os.path.abspath(__file__))

def note(name):
    with open(os.path.join(HERE, name), 'a') as file:
        file.write('x')

def there(name):
    return os.path.exists(os.path.join(HERE, name))

@streams(4)
def count(text):
    '''N pieces, or with a name: one, then the rest once there is a file of that name.'''
    n, _, gate = text.partition(' ')
    note('begun-' + gate)
    try:
        for number in range(int(n)):
            while number == 1 and gate and not there(gate):
                yield None
            if number == 13:
                raise ValueError('unlucky')
            yield f' {number}'
    finally:
        note('closed-' + gate)

@streams(1)
def alone(text):
    yield from count(text)

async def waits(text):
    with open(os.path.join(HERE, 'pid-' + text), 'w') as file:
        file.write(str(os.getpid()))
    note('begun-' + text)
    try:
        while not there(text):
            await asyncio.sleep(0.001)
        yield {'seen': text}
    finally:
        note('closed-' + text)

@streams(2)
def endless(text):
    while True:
        note('steps-' + text)
        yield text * 1000
";

struct Served {
    server: Server,
    folder: tempfile::TempDir,
}

impl Served {
    /// Application and model `m` for strings, served by `replicas` containers with this function.
    fn start(function: &str, slo_ms: u32, replicas: u32, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.py");
        std::fs::write(&file, MODEL).unwrap();
        let config = format!(
            "{more}\n[[application]]\nname = \"m\"\ninput_type = \"strings\"\n\
             default_output = \"none\"\nlatency_slo_micros = {slo_ms}000\nmodel = \"m\"\n\n\
             [[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"strings\"\n\n\
             [model.container]\nruntime = \"python\"\nfunction = '{}:{function}'\n\
             python = '{}'\nreplicas = {replicas}\n",
            file.display(),
            python().to_string_lossy()
        );
        let server = Server::with_config(&config);
        server.await_replicas("m", replicas);
        Self { server, folder }
    }

    fn ask(&self, input: &str) -> Events {
        let events = Events::post(self.server.query, "/m/predict", &json!({"input": input}));
        assert_eq!(events.status, 200);
        events
    }

    fn open_gate(&self, name: &str) {
        std::fs::write(self.folder.path().join(name), "").unwrap();
    }

    /// How often a generator has told this.
    fn told(&self, name: &str) -> usize {
        std::fs::read(self.path(name)).map_or(0, |text| text.len())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

/// Without what a generator yields while it waits.
fn texts(pieces: &[Value]) -> Vec<&str> {
    pieces.iter().filter_map(Value::as_str).collect()
}

fn after(first: &Value, (pieces, end): &(Vec<Value>, Value)) -> (String, Value) {
    let rest = texts(pieces).concat();
    (format!("{}{rest}", first.as_str().unwrap()), end["end"].clone())
}

#[test]
fn a_piece_is_there_before_the_next_one_is_made() {
    let served = Served::start("count", 20_000, 1, "");
    let mut events = served.ask("4 a");
    let first = events.piece();
    assert_eq!((&first, served.told("closed-a")), (&json!(" 0"), 0));
    served.open_gate("a");
    let rest = events.rest();
    assert_eq!(after(&first, &rest), (" 0 1 2 3".to_owned(), json!("complete")));
    assert_eq!((served.told("begun-a"), served.told("closed-a")), (1, 1));
    let (pieces, end) = served.ask("0").rest();
    assert_eq!((pieces.len(), &end["end"], &end["pieces"]), (0, &json!("complete"), &json!(0)));
}

#[test]
fn who_does_not_ask_for_pieces_gets_them_joined() {
    let served = Served::start("count", 20_000, 1, "");
    let answer = served.server.predict("m", &json!({"input": "3"}));
    assert_eq!((answer.output(), answer.is_default()), (&json!(" 0 1 2"), false), "{answer:?}");
    let batch = served.server.predict("m", &json!({"input_batch": ["2", "1", "99", "3"]}));
    let outputs = batch.body["batch_predictions"].as_array().unwrap();
    let outputs: Vec<_> = outputs.iter().map(|answer| answer["output"].clone()).collect();
    // A single digit behind a space is a number to JSON.
    assert_eq!(outputs, [json!(" 0 1"), json!(0), json!("none"), json!(" 0 1 2")], "{batch:?}");
}

#[test]
fn streams_join_while_others_stream_and_wait_where_all_lanes_are_taken() {
    let served = Served::start("count", 20_000, 1, "");
    let mut streams: Vec<_> = (0..4).map(|n| served.ask(&format!("3 g{n}"))).collect();
    let firsts: Vec<_> = streams.iter_mut().map(Events::piece).collect();
    assert_eq!(firsts, [" 0"; 4], "all four under way");
    let fifth = std::thread::scope(|scope| {
        let fifth = scope.spawn(|| served.ask("3").rest());
        // It can only begin when one of the others ends.
        served.open_gate("g2");
        fifth.join().unwrap()
    });
    assert_eq!((texts(&fifth.0).concat(), &fifth.1["end"]), (" 0 1 2".into(), &json!("complete")));
    for n in [0, 1, 3] {
        assert_eq!(served.told(&format!("closed-g{n}")), 0, "still under way");
        served.open_gate(&format!("g{n}"));
    }
    for (stream, first) in streams.into_iter().zip(&firsts) {
        let whole = (" 0 1 2".to_owned(), json!("complete"));
        assert_eq!(after(first, &stream.rest()), whole);
    }
}

#[test]
fn a_client_who_goes_ends_the_generator_and_frees_its_lane() {
    let served = Served::start("alone", 20_000, 1, "");
    let mut events = served.ask("3 a");
    events.piece();
    assert_eq!(served.told("closed-a"), 0);
    let left = Instant::now();
    drop(events);
    eventually("the generator is closed", || served.told("closed-a") == 1);
    let closed = left.elapsed();
    let (pieces, _) = served.ask("2").rest();
    println!("closed {closed:?} after its client went; the next answer {:?}", left.elapsed());
    assert_eq!(texts(&pieces), [" 0", " 1"]);
}

#[test]
fn the_first_answer_has_the_objective_and_who_misses_it_frees_the_lane() {
    let served = Served::start("waits", 400, 1, "");
    let (pieces, end) = served.ask("never").rest();
    assert_eq!((pieces.len(), &end["end"], &end["output"]), (0, &json!("default"), &json!("none")));
    assert!(end["reason"].as_str().unwrap().contains("latency SLO"), "{end}");
    eventually("the generator is closed", || served.told("closed-never") == 1);
    served.open_gate("now");
    let answer = served.server.predict("m", &json!({"input": "now"}));
    assert_eq!(answer.body["output"], json!([{"seen": "now"}]), "{answer:?}");
}

#[test]
fn who_goes_before_the_first_piece_ends_the_generator_too() {
    let served = Served::start("waits", 20_000, 1, "");
    let events = served.ask("never");
    eventually("it has begun", || served.told("begun-never") == 1);
    let left = Instant::now();
    drop(events);
    eventually("the generator is closed", || served.told("closed-never") == 1);
    println!("closed {:?} after its client went, with nothing to write", left.elapsed());
}

#[test]
fn an_asynchronous_generator_streams() {
    let served = Served::start("waits", 20_000, 1, "");
    served.open_gate("a");
    let (pieces, end) = served.ask("a").rest();
    assert_eq!((pieces, &end["end"]), (vec![json!({"seen": "a"})], &json!("complete")));
    eventually("it is closed", || served.told("closed-a") == 1);
}

#[test]
fn the_whole_answer_has_a_limit_of_its_own() {
    let served = Served::start("endless", 20_000, 1, "[serving]\nstream_max_ms = 700\n");
    let (pieces, end) = served.ask("z").rest();
    assert!(!pieces.is_empty() && end["end"] == "cut", "{end}");
    assert!(end["reason"].as_str().unwrap().contains("serving.stream_max_ms"), "{end}");
}

#[test]
fn an_error_after_pieces_is_the_last_event() {
    let served = Served::start("count", 20_000, 1, "");
    let (pieces, end) = served.ask("20").rest();
    assert_eq!((pieces.len(), &end["end"]), (13, &json!("error")), "{end}");
    assert!(end["reason"].as_str().unwrap().contains("ValueError: unlucky"), "{end}");
}

#[test]
fn a_replica_that_dies_ends_its_stream_and_nobody_begins_it_again() {
    let served = Served::start("count", 20_000, 1, "");
    let mut events = served.ask("3 a");
    events.piece();
    signal(*descendants_of(served.server.pid()).first().unwrap(), Signal::SIGKILL);
    let (_, end) = events.rest();
    assert_eq!(end["end"], "broken", "{end}");
    assert!(end["reason"].as_str().unwrap().contains("failed"), "{end}");
    eventually("another one serves", || texts(&served.ask("2").rest().0) == [" 0", " 1"]);
    assert_eq!(served.told("begun-a"), 1, "not tried again");
}

#[test]
fn a_replica_that_dies_before_the_first_piece_costs_the_stream_nothing() {
    let served = Served::start("waits", 20_000, 2, "");
    let events = served.ask("a");
    eventually("it has begun", || served.told("begun-a") == 1);
    let pid = std::fs::read_to_string(served.path("pid-a")).unwrap();
    signal(pid.parse().unwrap(), Signal::SIGKILL);
    eventually("the other one begins", || served.told("begun-a") == 2);
    served.open_gate("a");
    let (pieces, end) = events.rest();
    assert_eq!((pieces, &end["end"]), (vec![json!({"seen": "a"})], &json!("complete")), "{end}");
}

#[test]
fn who_reads_slowly_stops_its_generator_and_nobody_else() {
    let served = Served::start("endless", 20_000, 1, "[serving]\nstreams_max_bytes = 1_000_000\n");
    let mut slow = served.ask("s");
    slow.piece();
    let mut before = 0;
    let mut since = Instant::now();
    eventually("its generator waits", || {
        let steps = served.told("steps-s");
        if steps != before {
            before = steps;
            since = Instant::now();
        }
        since.elapsed().as_millis() > 700
    });
    println!("{before} pieces of 1 KB were made for a client that reads none");
    let mut quick = served.ask("q");
    for _ in 0..2_000 {
        assert_eq!(quick.piece().as_str().unwrap().len(), 1_000);
    }
    assert!(served.told("steps-s") < before + 100);
    // What was made for it is not lost.
    for _ in 0..2_000 {
        assert_eq!(slow.piece().as_str().unwrap().len(), 1_000);
    }
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let served = Served::start("count", 20_000, 1, "");
    let several = json!({"input_batch": ["1", "2"]});
    let events = Events::post(served.server.query, "/m/predict", &several);
    assert_eq!(events.status, 400);
    let events = Events::post(served.server.query, "/nobody/predict", &json!({"input": "1"}));
    assert_eq!(events.status, 404);
}

#[test]
fn tritons_generate_is_whole_or_in_pieces() {
    let served = Served::start("count", 20_000, 1, "");
    let ask = |page: &str, body: &Value| {
        Events::post(served.server.query, &format!("/v2/models/m/{page}"), body)
    };
    let mut events = ask("generate_stream", &json!({"text_input": "3", "id": "x"}));
    assert_eq!(events.status, 200);
    for text in [" 0", " 1", " 2"] {
        let expected = json!({"id": "x", "model_name": "m", "model_version": "1",
                              "text_output": text});
        assert_eq!(events.next(), Some((String::new(), expected)));
    }
    assert_eq!(events.next(), None);
    let mut events = ask("generate_stream", &json!({"input": "20"}));
    let pieces: Vec<_> = std::iter::from_fn(|| events.next()).collect();
    assert_eq!(pieces.len(), 14);
    assert!(pieces[13].1["error"].as_str().unwrap().contains("unlucky"), "{:?}", pieces[13]);

    let path = "/v2/models/m/generate";
    let post = |body: &Value| {
        let body = body.to_string();
        let answer = http::call(served.server.query, "POST", path, body.as_bytes()).unwrap();
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let (status, body) = post(&json!({"text_input": "3", "max_tokens": 5}));
    assert_eq!((status, &body["text_output"]), (200, &json!(" 0 1 2")), "{body}");
    let (status, body) = post(&json!({"text_input": "20"}));
    assert!(status == 500 && body["error"].as_str().unwrap().contains("unlucky"), "{body}");
    let (status, body) = post(&json!({"text": "20"}));
    assert!(status == 400 && body["error"].as_str().unwrap().contains("text_input"), "{body}");
    assert_eq!(ask("generate_stream", &json!({"text_input": 7})).status, 400);
    assert_eq!(http::get(served.server.query, path).status, 405);
}
