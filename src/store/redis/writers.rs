//! Who has written into a table, as far as Redis knows: of the clients that are connected, the only
//! one whose last command wrote there a moment ago. Pure.

use clipper_domain::{Asker, Note};

/// Longer ago, somebody else may have been there since, and left.
const IDLE_MAX_S: u64 = 1;

/// Whoever wrote into the database of this number, by the answer to `CLIENT LIST`; nobody if it may
/// have been several, or one that has left.
#[must_use]
pub fn writer(list: &str, database: i64) -> Option<Asker> {
    let mut writers = list.lines().filter_map(RedisClient::read).filter(|client| {
        client.database == database && client.idle_s <= IDLE_MAX_S && writes(client.command)
    });
    let RedisClient { address, user, .. } = writers.next().filter(|_| writers.next().is_none())?;
    let user = Some(user).filter(|user| *user != "default").and_then(Note::new);
    Some(Asker { from: Note::new(address), user, ..Asker::default() })
}

/// Commands that make an entry of a table, or remove one.
const WRITE: [&str; 17] = [
    "set", "setnx", "setex", "psetex", "getset", "mset", "append", "hset", "hmset", "hsetnx",
    "hdel", "sadd", "srem", "del", "unlink", "rename", "restore",
];

struct RedisClient<'l> {
    address: &'l str,
    user: &'l str,
    database: i64,
    idle_s: u64,
    command: &'l str,
}

impl<'l> RedisClient<'l> {
    fn read(line: &'l str) -> Option<Self> {
        let field = |name: &str| {
            line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            address: field("addr")?,
            user: field("user").unwrap_or("default"),
            database: field("db")?.parse().ok()?,
            idle_s: field("idle")?.parse().ok()?,
            command: field("cmd")?,
        })
    }
}

/// Frontends write by transactions, and say themselves who asked.
fn writes(command: &str) -> bool {
    WRITE.contains(&command.split('|').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
id=3 addr=127.0.0.1:4000 fd=8 name= age=9 idle=0 flags=N db=5 cmd=hset user=ops
id=4 addr=127.0.0.1:4001 fd=9 name= age=9 idle=0 flags=N db=2 cmd=hset user=default
id=5 addr=127.0.0.1:4002 fd=9 name= age=9 idle=0 flags=N db=2 cmd=hgetall
id=6 addr=127.0.0.1:4003 fd=9 name= age=9 idle=9 flags=N db=2 cmd=del
id=7 addr=127.0.0.1:4004 fd=9 name= age=9 idle=0 flags=P db=6 cmd=sadd
id=8 addr=127.0.0.1:4005 fd=9 name= age=9 idle=0 flags=P db=6 cmd=srem
nonsense
";

    #[test]
    fn the_only_one_who_has_just_written_there_is_named() {
        let named = |database| writer(LIST, database).map(|asker| (asker.from, asker.user));
        assert_eq!(named(5), Some((Note::new("127.0.0.1:4000"), Note::new("ops"))));
        assert_eq!(named(2), Some((Note::new("127.0.0.1:4001"), None)));
        assert_eq!(named(6), None, "one of two");
        assert_eq!(named(7), None);
        assert_eq!(writer("", 5), None);
    }
}
