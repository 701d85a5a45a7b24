//! The connection: commands on one socket, notices on another.
//!
//! Every request starts by selecting its database and is sent as one piece, so one connection
//! serves all tables. RESP2 on purpose: it works with every server that the original works with.
//! Each call has a time limit; after any error the connection is to be dropped and made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value};

pub use super::answers::{ANNOUNCEMENTS, Happened, Notice};
use super::answers::{READ_HASH, millis, notice, raw, read_command, text};
pub use super::connect::{LinkError, Settings};
use super::connect::{client, within};
use super::tables::{Key, Raw, Table};
use super::transaction::{Outcome, SCRIPT, Transaction};
use super::writers::writer;
use super::writes::{Entries, Write};
use clipper_domain::Asker;

/// Keys asked for in one message.
const KEYS_A_MESSAGE: usize = 1_000;

/// Who holds a lease after somebody asked for it: one round trip.
const HOLD: &str = "
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return ARGV[1]
end
return holder
";

/// The kinds of notices that the server needs: of keys, all classes.
const NOTICES: &str = "KA";

/// Where the server is told of which changes it gives notice.
const NOTICES_KEY: &str = "notify-keyspace-events";

/// A look at the server that costs next to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Which of the keys asked about are there.
    pub present: Vec<bool>,
    pub marker: Option<String>,
}

/// What the server says of itself, as far as it says anything: `INFO` may be forbidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    pub run_id: Option<String>,
    /// Keys evicted since it was started.
    pub evicted: Option<u64>,
    /// What it does when its memory is full.
    pub maxmemory_policy: Option<String>,
    /// It follows another server and takes no writes.
    pub replica: bool,
}

/// Why the server tells nothing of changes. In both cases what it answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNotices {
    #[error("CONFIG GET {NOTICES_KEY} is refused: {0}")]
    NotShown(String),
    #[error("it is {had:?} and CONFIG SET is refused: {error}")]
    NotSet { had: String, error: String },
}

pub struct Link {
    connection: MultiplexedConnection,
    offset: i64,
    timeout: Duration,
    /// `INFO` is forbidden: not asked again.
    reserved: bool,
}

impl Link {
    /// Connects; the notices of all tables flow from here on.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(
        settings: &Settings,
    ) -> Result<(Self, impl Stream<Item = Notice> + use<>), LinkError> {
        let client = client(settings).await?;
        let offset = client.get_connection_info().redis_settings().db();
        let limit = settings.connect_timeout;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(None);
        let connect = client.get_multiplexed_async_connection_with_config(&config);
        let connection = within(limit, connect).await?;
        let mut pubsub = within(limit, client.get_async_pubsub()).await?;
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Resource) {
            let pattern = format!("__keyspace@{}__:*", table.number() + offset);
            within(limit, pubsub.psubscribe(pattern)).await?;
        }
        within(limit, pubsub.subscribe(ANNOUNCEMENTS)).await?;
        let notices = pubsub
            .into_on_message()
            .filter_map(move |message| std::future::ready(notice(&message, offset)));
        Ok((
            Self { connection, offset, timeout: settings.command_timeout, reserved: false },
            notices,
        ))
    }

    /// Connects for commands only, as the command line does.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open_quiet(settings: &Settings) -> Result<Self, LinkError> {
        let client = client(settings).await?;
        let offset = client.get_connection_info().redis_settings().db();
        let connect = client.get_multiplexed_async_connection();
        let connection = within(settings.connect_timeout, connect).await?;
        Ok(Self { connection, offset, timeout: settings.command_timeout, reserved: false })
    }

    async fn all(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let answers = self.connection.req_packed_commands(pipeline, 0, pipeline.len());
        within(self.timeout, answers).await
    }

    /// One command in a table's database.
    pub(super) async fn one(&mut self, table: Table, command: Cmd) -> Result<Value, LinkError> {
        let mut pipeline = Pipeline::new();
        select(&mut pipeline, table.number() + self.offset);
        pipeline.add_command(command);
        let answer = self.all(&pipeline).await?.pop().unwrap_or(Value::Nil);
        Ok(answer.extract_error()?)
    }

    /// Turns the server's notices on; the inner error says why it does not let us.
    ///
    /// # Errors
    /// The connection's.
    pub async fn enable_notices(&mut self) -> Result<Result<(), NoNotices>, LinkError> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(NOTICES_KEY);
        let had = match self.one(Table::Resource, get).await {
            Ok(Value::Array(pair)) => pair.get(1).and_then(text).unwrap_or_default(),
            Ok(_) => String::new(),
            Err(LinkError::Refused(error)) => {
                return Ok(Err(NoNotices::NotShown(error)));
            }
            Err(other) => return Err(other),
        };
        if NOTICES.chars().all(|class| had.contains(class)) {
            return Ok(Ok(()));
        }
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(NOTICES_KEY).arg(format!("{had}{NOTICES}"));
        match self.one(Table::Resource, set).await {
            Ok(_) => Ok(Ok(())),
            Err(LinkError::Refused(error)) => Ok(Err(NoNotices::NotSet { had, error })),
            Err(other) => Err(other),
        }
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// The connection's.
    pub async fn condition(&mut self) -> Result<Condition, LinkError> {
        if self.reserved {
            return Ok(Condition::default());
        }
        let mut pipeline = Pipeline::new();
        for section in ["server", "stats", "memory", "replication"] {
            pipeline.cmd("INFO").arg(section);
        }
        let mut lines = String::new();
        for answer in self.all(&pipeline).await? {
            match answer.extract_error().map_err(LinkError::from) {
                Ok(answer) => lines.push_str(&text(&answer).unwrap_or_default()),
                Err(LinkError::Refused(_)) => self.reserved = true,
                Err(other) => return Err(other),
            }
        }
        let value = |name: &str| {
            lines.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        Ok(Condition {
            run_id: value("run_id:"),
            evicted: value("evicted_keys:").and_then(|n| n.parse().ok()),
            maxmemory_policy: value("maxmemory_policy:"),
            replica: value("role:").is_some_and(|role| role == "slave"),
        })
    }

    /// A text that stays the same while nobody changes anything; `None` if the server does not
    /// tell.
    ///
    /// # Errors
    /// The connection's.
    pub async fn change_count(&mut self) -> Result<Option<String>, LinkError> {
        let names = ["rdb_changes_since_last_save:", "rdb_last_save_time:"];
        Ok(self.info("persistence", &names).await?.map(|values| values.join(" ")))
    }

    /// Who has just written into some tables, as far as the server knows and tells.
    ///
    /// # Errors
    /// The connection's.
    pub async fn writers(
        &mut self,
        tables: &BTreeSet<Table>,
    ) -> Result<BTreeMap<Table, Asker>, LinkError> {
        let mut list = redis::cmd("CLIENT");
        list.arg("LIST").arg("TYPE").arg("normal");
        let list = match self.one(Table::Resource, list).await {
            Ok(list) => text(&list).unwrap_or_default(),
            // Not everybody may ask.
            Err(LinkError::Refused(_)) => return Ok(BTreeMap::new()),
            Err(other) => return Err(other),
        };
        let known = tables
            .iter()
            .filter_map(|table| Some((*table, writer(&list, table.number() + self.offset)?)));
        Ok(known.collect())
    }

    async fn info(
        &mut self,
        section: &str,
        names: &[&str],
    ) -> Result<Option<Vec<String>>, LinkError> {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        let answer = match self.one(Table::Resource, info).await {
            Ok(answer) => text(&answer).unwrap_or_default(),
            Err(LinkError::Refused(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        let value = |name: &&str| {
            answer.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        Ok(names.iter().map(value).collect())
    }

    /// What `keys` hold, and the server's time, Unix milliseconds.
    ///
    /// # Errors
    /// The connection's.
    pub async fn read(&mut self, keys: &BTreeSet<Key>) -> Result<(Entries, u64), LinkError> {
        self.read_by(keys, read_command).await
    }

    /// What keys of hashes hold, also in tables whose other keys are texts.
    ///
    /// # Errors
    /// The connection's.
    pub async fn read_hashes(&mut self, keys: &BTreeSet<Key>) -> Result<Entries, LinkError> {
        Ok(self.read_by(keys, |_| READ_HASH).await?.0)
    }

    /// The texts in a set; none if it is something else.
    ///
    /// # Errors
    /// The connection's.
    pub async fn read_set(&mut self, key: &Key) -> Result<BTreeSet<String>, LinkError> {
        let keys = BTreeSet::from([key.clone()]);
        let (mut entries, _) = self.read_by(&keys, |_| "SMEMBERS").await?;
        let Some(Raw::Set(members)) = entries.remove(key) else { return Ok(BTreeSet::new()) };
        Ok(members.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
    }

    async fn read_by(
        &mut self,
        keys: &BTreeSet<Key>,
        command: impl Fn(Table) -> &'static str,
    ) -> Result<(Entries, u64), LinkError> {
        let mut entries = Entries::new();
        let keys: Vec<&Key> = keys.iter().collect();
        let mut now = 0;
        for chunk in keys.chunks(KEYS_A_MESSAGE) {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("TIME");
            let mut selected = None;
            // Answers to `SELECT` and `TIME` have no key.
            let mut asked: Vec<Option<&Key>> = vec![None];
            for key in chunk.iter().copied() {
                if selected != Some(key.table) {
                    select(&mut pipeline, key.table.number() + self.offset);
                    asked.push(None);
                    selected = Some(key.table);
                }
                pipeline.cmd(command(key.table)).arg(&key.name);
                asked.push(Some(key));
            }
            let answers = self.all(&pipeline).await?;
            now = answers.first().map_or(0, millis);
            for (key, answer) in asked.into_iter().zip(answers) {
                match key {
                    Some(key) => {
                        entries.insert(key.clone(), raw(command(key.table), answer)?);
                    }
                    None => {
                        answer.extract_error()?;
                    }
                }
            }
        }
        Ok((entries, now))
    }

    /// Which of `keys` are there, and the marker.
    ///
    /// # Errors
    /// The connection's.
    pub async fn pulse(&mut self, keys: &[Key]) -> Result<Pulse, LinkError> {
        let mut pipeline = Pipeline::new();
        for key in keys {
            select(&mut pipeline, key.table.number() + self.offset);
            pipeline.cmd("EXISTS").arg(&key.name);
        }
        let marker = super::marker::marker_key();
        select(&mut pipeline, marker.table.number() + self.offset);
        pipeline.cmd("GET").arg(&marker.name);
        let mut answers = Vec::new();
        for answer in self.all(&pipeline).await? {
            answers.push(answer.extract_error()?);
        }
        let marker = answers.pop().as_ref().and_then(text);
        let present = answers.iter().filter_map(|answer| match answer {
            Value::Int(count) => Some(*count > 0),
            _ => None,
        });
        Ok(Pulse { present: present.collect(), marker })
    }

    /// Says something to all frontends, this one too: everything that Redis has told before comes
    /// before it. False if this user may not.
    ///
    /// # Errors
    /// The connection's.
    pub async fn announce(&mut self, text: &str) -> Result<bool, LinkError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(ANNOUNCEMENTS).arg(text);
        match self.one(Table::Resource, publish).await {
            Ok(_) => Ok(true),
            Err(LinkError::Refused(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Writes what others can do without: a server that takes no writes is followed all the same.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write_soft(&mut self, writes: &[Write]) -> Result<(), LinkError> {
        match self.write(writes).await {
            Err(error @ LinkError::Refused(_)) => {
                tracing::warn!(%error, "Redis does not take rows of containers or policy state");
                Ok(())
            }
            result => result,
        }
    }

    /// Writes that need no condition, in one message. Answers to single writes are not looked at.
    ///
    /// # Errors
    /// The connection's.
    pub async fn write(&mut self, writes: &[Write]) -> Result<(), LinkError> {
        for chunk in writes.chunks(KEYS_A_MESSAGE) {
            let mut pipeline = Pipeline::new();
            for Write { key, command, args } in chunk {
                select(&mut pipeline, key.table.number() + self.offset);
                pipeline.cmd(command).arg(&key.name).arg(args);
            }
            for answer in self.all(&pipeline).await? {
                answer.extract_error()?;
            }
        }
        Ok(())
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// The connection's; it is then not known whether it has run.
    pub async fn commit(&mut self, transaction: &Transaction) -> Result<Outcome, LinkError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(0);
        for arg in transaction.args(self.offset) {
            eval.arg(arg);
        }
        let answer = self.one(Table::Resource, eval).await?;
        match text(&answer).as_deref() {
            Some("done") => Ok(Outcome::Done),
            Some("conflict") => Ok(Outcome::Conflict),
            Some("late") => Ok(Outcome::Late),
            other => Err(LinkError::Failed(format!("the script has answered {other:?}"))),
        }
    }

    /// Takes `key` for `holder` unless another has it; it is free again after `lease`.
    ///
    /// # Errors
    /// The connection's.
    pub async fn hold(
        &mut self,
        key: &Key,
        holder: &str,
        lease: Duration,
    ) -> Result<bool, LinkError> {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let mut eval = redis::cmd("EVAL");
        eval.arg(HOLD).arg(1).arg(&key.name).arg(holder).arg(lease);
        Ok(text(&self.one(key.table, eval).await?).as_deref() == Some(holder))
    }
}

fn select(pipeline: &mut Pipeline, database: i64) {
    pipeline.cmd("SELECT").arg(database);
}
