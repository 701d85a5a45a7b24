//! What the server's answers and notices mean. Pure.

use redis::Value;

use super::connect::LinkError;
use super::tables::{Key, Raw, Table};

/// Channel on which frontends tell each other whose change it is.
pub const ANNOUNCEMENTS: &str = "clipper:changes";

/// Something was said on a subscribed channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A key may have changed.
    Changed(Key, Happened),
    /// A frontend is about to write, or marks a place among the notices.
    Announced(String),
}

/// What a notice says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// Redis has removed it by itself: evicted to save memory, or expired.
    GivenUp,
    /// Somebody has removed it, by whatever command.
    Removed,
    /// It was given a time to live.
    Expires,
    /// It has no time to live any more.
    Lasts,
    /// It may have become an entry of its table's type.
    Written,
    /// It was there before, if it is of that type.
    Other,
}

/// What an event, a command's name in lower case mostly, can have made of a key.
fn happened(table: Table, event: &[u8]) -> Happened {
    match event {
        b"evicted" | b"expired" => return Happened::GivenUp,
        b"del" | b"rename_from" | b"move_from" => return Happened::Removed,
        b"expire" => return Happened::Expires,
        b"persist" => return Happened::Lasts,
        _ => {}
    }
    let anything: [&[u8]; 5] = [b"restore", b"rename_to", b"move_to", b"copy_to", b"loaded"];
    let sets: [&[u8]; 4] = [b"sadd", b"sunionstore", b"sinterstore", b"sdiffstore"];
    let written = match table {
        _ if anything.contains(&event) => true,
        Table::Application | Table::Model | Table::Container => event.starts_with(b"h"),
        Table::Links => sets.contains(&event),
        Table::State | Table::Metadata | Table::Resource => event.starts_with(b"set"),
    };
    if written { Happened::Written } else { Happened::Other }
}

/// The command that reads a hash.
pub(super) const READ_HASH: &str = "HGETALL";

/// The command that reads a key of a table.
pub(super) fn read_command(table: Table) -> &'static str {
    match table {
        Table::Model | Table::Application | Table::Container => READ_HASH,
        Table::Links => "SMEMBERS",
        Table::State | Table::Metadata | Table::Resource => "GET",
    }
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

/// The answer to `TIME`, seconds and microseconds.
pub(super) fn millis(value: &Value) -> u64 {
    let Value::Array(parts) = value else { return 0 };
    let part = |n: usize| parts.get(n).and_then(text).and_then(|t| t.parse::<u64>().ok());
    part(0).unwrap_or(0) * 1_000 + part(1).unwrap_or(0) / 1_000
}

/// The answer to a command that reads a key; the wrong type is a finding, other errors are errors.
pub(super) fn raw(command: &str, answer: Value) -> Result<Raw, LinkError> {
    let owned = |value: &Value| bytes(value).map(<[u8]>::to_vec).unwrap_or_default();
    match answer {
        Value::Nil => Ok(Raw::Absent),
        Value::BulkString(text) => Ok(Raw::Text(text)),
        Value::Array(items) if items.is_empty() => Ok(Raw::Absent),
        // Hashes come as a flat list of names and values.
        Value::Array(items) if command == READ_HASH => {
            let pair = |pair: &[Value]| Some((owned(pair.first()?), owned(pair.get(1)?)));
            Ok(Raw::Hash(items.chunks(2).filter_map(pair).collect()))
        }
        Value::Array(items) => Ok(Raw::Set(items.iter().map(owned).collect())),
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Raw::OtherType),
        other => match other.extract_error() {
            Ok(other) => Err(LinkError::Failed(format!("unexpected answer {other:?}"))),
            Err(error) => Err(error.into()),
        },
    }
}

pub(super) fn notice(message: &redis::Msg, offset: i64) -> Option<Notice> {
    let channel: Vec<u8> = message.get_channel().ok()?;
    if channel == ANNOUNCEMENTS.as_bytes() {
        let text = String::from_utf8(message.get_payload_bytes().to_vec()).ok()?;
        return Some(Notice::Announced(text));
    }
    let rest = channel.strip_prefix(b"__keyspace@".as_slice())?;
    let end = rest.iter().position(|byte| *byte == b'_')?;
    let number: i64 = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    let name = rest.get(end..)?.strip_prefix(b"__:".as_slice())?.to_vec();
    let table = Table::from_number(number - offset)?;
    let happened = happened(table, message.get_payload_bytes());
    Some(Notice::Changed(Key { table, name }, happened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_whether_the_key_can_be_an_entry_now() {
        let cases = [
            (Table::Application, "hset", Happened::Written),
            (Table::Application, "set", Happened::Other),
            (Table::Application, "expire", Happened::Expires),
            (Table::Application, "persist", Happened::Lasts),
            (Table::Application, "rename_from", Happened::Removed),
            (Table::Application, "expired", Happened::GivenUp),
            (Table::Model, "evicted", Happened::GivenUp),
            (Table::Model, "rename_to", Happened::Written),
            (Table::Links, "sadd", Happened::Written),
            (Table::Links, "set", Happened::Other),
            (Table::Links, "del", Happened::Removed),
            (Table::Metadata, "set", Happened::Written),
        ];
        for (table, event, means) in cases {
            assert_eq!(happened(table, event.as_bytes()), means, "{table:?} {event}");
        }
    }
}
