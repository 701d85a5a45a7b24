//! The recorded exchanges of the original server, replayed over real HTTP, and bodies made to hurt.
//!
//! `exchanges.jsonl` holds requests and answers of the original, in order. Calls that were made
//! between them without being recorded are in [`setup`]. Each answer of ours is the same, better on
//! purpose (a row of [`better`], with the reason), or different, which fails.

mod better;
mod double;
mod real;
mod replay;
mod robustness;
pub mod setup;

use double::InMemoryServer;
use replay::{Targets, replay, table};

#[test]
fn management_answers_as_recorded_or_better() {
    let mut server = InMemoryServer::start(16 << 20);
    let targets = Targets { management: server.addr(), query: None };
    let rows = replay(&targets, &mut server);
    let table = table(&rows);
    println!("{table}");
    let management = replay::exchanges().iter().filter(|e| e.port == 1338).count();
    assert_eq!(rows.len(), management, "every recorded exchange of the port was replayed");
    assert!(!table.contains("| different"), "{table}");
}

#[test]
fn every_reason_belongs_to_a_recorded_exchange() {
    let exchanges = replay::exchanges();
    for name in better::BETTER.iter().flat_map(|row| row.names) {
        assert!(exchanges.iter().any(|e| e.name == *name), "{name}");
    }
    for (name, _) in setup::BEFORE {
        assert!(exchanges.iter().any(|e| e.name == *name), "{name}");
    }
}
