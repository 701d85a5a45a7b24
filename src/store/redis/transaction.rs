//! Several writes that happen at once, and only if what they were decided on is still there.
//!
//! A script rather than `WATCH`, `MULTI`, `EXEC`: it spans databases, needs one round trip and no
//! connection of its own, and can refuse to run late. A server that was frozen wakes up to requests
//! whose senders have given up; a script that is then past its time writes nothing.

use super::tables::{Key, Raw};
use super::writes::{Entries, Write};

/// The script; its first lines tell its arguments.
pub const SCRIPT: &str = include_str!("transaction.lua");

/// What to write, and on what condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What these keys must still hold.
    pub checks: Entries,
    /// What is written, in this order.
    pub writes: Vec<Write>,
    /// Who else is told before the writes: a channel and a text.
    pub announce: Option<(String, String)>,
    /// Not after this, in the server's own time, Unix milliseconds.
    pub latest_ms: Option<u64>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Somebody else changed a checked key first; nothing is written.
    Conflict,
    /// The server got to it too late; nothing is written.
    Late,
}

impl Transaction {
    /// The script's arguments; table numbers are counted from `offset`.
    #[must_use]
    pub fn args(&self, offset: i64) -> Vec<Vec<u8>> {
        let (channel, text) = self.announce.as_ref().map_or(("", ""), |(c, t)| (c, t));
        let mut args = vec![
            self.latest_ms.unwrap_or(0).to_string().into_bytes(),
            channel.as_bytes().to_vec(),
            text.as_bytes().to_vec(),
            number(self.checks.len()),
        ];
        for (key, raw) in &self.checks {
            args.extend([database(key, offset), key.name.clone()]);
            check(raw, &mut args);
        }
        args.push(number(self.writes.len()));
        for Write { key, command, args: rest } in &self.writes {
            args.extend([database(key, offset), number(rest.len() + 2)]);
            args.extend([command.as_bytes().to_vec(), key.name.clone()]);
            args.extend(rest.iter().cloned());
        }
        args
    }
}

fn number(n: usize) -> Vec<u8> {
    n.to_string().into_bytes()
}

fn database(key: &Key, offset: i64) -> Vec<u8> {
    (key.table.number() + offset).to_string().into_bytes()
}

fn check(raw: &Raw, args: &mut Vec<Vec<u8>>) {
    let mut push = |kind: &str, texts: Vec<Vec<u8>>| {
        args.extend([kind.as_bytes().to_vec(), number(texts.len())]);
        args.extend(texts);
    };
    match raw {
        Raw::Absent => push("none", Vec::new()),
        Raw::Text(text) => push("string", vec![text.clone()]),
        Raw::Set(members) => push("set", members.iter().cloned().collect()),
        Raw::Hash(fields) => {
            push("hash", fields.iter().flat_map(|(n, v)| [n.clone(), v.clone()]).collect());
        }
        Raw::OtherType => push("other", Vec::new()),
    }
}
