//! The connection: commands on one socket, notices on another.
//!
//! Every request starts by selecting its database and is sent as one piece, so one connection
//! serves all tables. RESP2 on purpose: it works with every server that the original works with.
//! Each call has a time limit; after any error the connection is to be dropped and made anew.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value};

use super::tables::{Key, Raw, Table};
use super::transaction::{Outcome, SCRIPT, Transaction};
use super::writes::{Entries, Write};

/// Channel on which frontends tell each other whose change it is.
pub const ANNOUNCEMENTS: &str = "clipper:changes";

/// Keys asked for in one message.
const KEYS_A_MESSAGE: usize = 1_000;

/// The kinds of notices that the server needs: of keys, all classes.
const NOTICES: &str = "KA";

/// Where the server is and how long it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://`, `rediss://` or `redis+unix://`; its database is where the tables are counted
    /// from.
    pub url: String,
    /// From the first packet to a usable connection.
    pub connect_timeout: Duration,
    /// For each answer.
    pub command_timeout: Duration,
}

/// Why a call failed. Nothing is known of a write that was under way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Refused, closed or unreachable.
    #[error("{0}")]
    Failed(String),
    /// The server has answered with an error: it did nothing.
    #[error("{0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        if error.code().is_some() { Self::Refused(text) } else { Self::Failed(text) }
    }
}

/// Something was said on a subscribed channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A key may have changed.
    Changed(Key),
    /// A frontend is about to write.
    Announced(String),
}

/// A look at the server that costs next to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Keys in each of [`Table::CATALOG`].
    pub sizes: Vec<u64>,
    /// The marker.
    pub marker: Option<String>,
}

/// An open connection.
pub struct Link {
    connection: MultiplexedConnection,
    offset: i64,
    timeout: Duration,
}

impl Link {
    /// Connects; the notices of all tables flow from here on.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(
        settings: &Settings,
    ) -> Result<(Self, impl Stream<Item = Notice> + use<>), LinkError> {
        let client = Client::open(settings.url.as_str())?;
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
        Ok((Self { connection, offset, timeout: settings.command_timeout }, notices))
    }

    /// Connects for commands only, as the command line does.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open_quiet(settings: &Settings) -> Result<Self, LinkError> {
        let client = Client::open(settings.url.as_str())?;
        let offset = client.get_connection_info().redis_settings().db();
        let connect = client.get_multiplexed_async_connection();
        let connection = within(settings.connect_timeout, connect).await?;
        Ok(Self { connection, offset, timeout: settings.command_timeout })
    }

    async fn all(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let answers = self.connection.req_packed_commands(pipeline, 0, pipeline.len());
        within(self.timeout, answers).await
    }

    /// One command in a table's database.
    async fn one(&mut self, table: Table, command: Cmd) -> Result<Value, LinkError> {
        let mut pipeline = Pipeline::new();
        select(&mut pipeline, table.number() + self.offset);
        pipeline.add_command(command);
        let answer = self.all(&pipeline).await?.pop().unwrap_or(Value::Nil);
        Ok(answer.extract_error()?)
    }

    /// Turns the server's notices on; `Err` tells what is missing where it does not let us.
    ///
    /// # Errors
    /// In the inner result: for the log. In the outer one: the connection's.
    pub async fn enable_notices(&mut self) -> Result<Result<(), String>, LinkError> {
        let key = "notify-keyspace-events";
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(key);
        let had = match self.one(Table::Resource, get).await {
            Ok(Value::Array(pair)) => pair.get(1).and_then(text).unwrap_or_default(),
            Ok(_) => String::new(),
            Err(LinkError::Refused(error)) => {
                return Ok(Err(format!("CONFIG GET {key} is refused: {error}")));
            }
            Err(other) => return Err(other),
        };
        if NOTICES.chars().all(|class| had.contains(class)) {
            return Ok(Ok(()));
        }
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(key).arg(format!("{had}{NOTICES}"));
        match self.one(Table::Resource, set).await {
            Ok(_) => Ok(Ok(())),
            Err(LinkError::Refused(error)) => {
                Ok(Err(format!("it is {had:?} and CONFIG SET is refused: {error}")))
            }
            Err(other) => Err(other),
        }
    }

    /// The server's run; `None` if it does not tell.
    ///
    /// # Errors
    /// The connection's.
    pub async fn run_id(&mut self) -> Result<Option<String>, LinkError> {
        Ok(self.info("server", &["run_id:"]).await?.map(|values| values.concat()))
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
                pipeline.cmd(read_command(key.table)).arg(&key.name);
                asked.push(Some(key));
            }
            let answers = self.all(&pipeline).await?;
            now = answers.first().map_or(0, millis);
            for (key, answer) in asked.into_iter().zip(answers) {
                match key {
                    Some(key) => {
                        entries.insert(key.clone(), raw(key.table, answer)?);
                    }
                    None => {
                        answer.extract_error()?;
                    }
                }
            }
        }
        Ok((entries, now))
    }

    /// The keys of a table that match `pattern`, by `SCAN`: what is there all the time is in it.
    ///
    /// # Errors
    /// The connection's.
    pub async fn keys(
        &mut self,
        table: Table,
        pattern: Option<&str>,
    ) -> Result<BTreeSet<Key>, LinkError> {
        let mut keys = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("COUNT").arg(KEYS_A_MESSAGE);
            if let Some(pattern) = pattern {
                scan.arg("MATCH").arg(pattern);
            }
            let Value::Array(answer) = self.one(table, scan).await? else {
                return Err(LinkError::Failed("SCAN has answered no list".to_owned()));
            };
            if let Some(Value::Array(names)) = answer.get(1) {
                let names = names.iter().filter_map(bytes);
                keys.extend(names.map(|name| Key { table, name: name.to_vec() }));
            }
            cursor = answer.first().and_then(text).unwrap_or_default();
            if cursor.is_empty() || cursor == "0" {
                return Ok(keys);
            }
        }
    }

    /// Everything that the catalog is made of.
    ///
    /// # Errors
    /// The connection's.
    pub async fn load(&mut self) -> Result<Entries, LinkError> {
        let mut keys = BTreeSet::new();
        for table in Table::CATALOG {
            keys.append(&mut self.keys(table, None).await?);
        }
        Ok(self.read(&keys).await?.0)
    }

    /// Sizes and marker.
    ///
    /// # Errors
    /// The connection's.
    pub async fn pulse(&mut self) -> Result<Pulse, LinkError> {
        let mut pipeline = Pipeline::new();
        for table in Table::CATALOG {
            select(&mut pipeline, table.number() + self.offset);
            pipeline.cmd("DBSIZE");
        }
        let marker = super::marker::marker_key();
        select(&mut pipeline, marker.table.number() + self.offset);
        pipeline.cmd("GET").arg(&marker.name);
        let mut answers = Vec::new();
        for answer in self.all(&pipeline).await? {
            answers.push(answer.extract_error()?);
        }
        let marker = answers.pop().as_ref().and_then(text);
        let sizes = answers.iter().filter_map(|answer| match answer {
            Value::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        });
        Ok(Pulse { sizes: sizes.collect(), marker })
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
        let mut set = redis::cmd("SET");
        set.arg(&key.name).arg(holder).arg("NX").arg("PX").arg(lease);
        self.one(key.table, set).await?;
        let mut get = redis::cmd("GET");
        get.arg(&key.name);
        let mine = text(&self.one(key.table, get).await?).as_deref() == Some(holder);
        if mine {
            let mut renew = redis::cmd("PEXPIRE");
            renew.arg(&key.name).arg(lease);
            self.one(key.table, renew).await?;
        }
        Ok(mine)
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LinkError::Silent(limit)),
    }
}

fn select(pipeline: &mut Pipeline, database: i64) {
    pipeline.cmd("SELECT").arg(database);
}

fn read_command(table: Table) -> &'static str {
    match table {
        Table::Model | Table::Application | Table::Container => "HGETALL",
        Table::Links => "SMEMBERS",
        Table::State | Table::Metadata | Table::Resource => "GET",
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

/// The answer to `TIME`, seconds and microseconds.
fn millis(value: &Value) -> u64 {
    let Value::Array(parts) = value else { return 0 };
    let part = |n: usize| parts.get(n).and_then(text).and_then(|t| t.parse::<u64>().ok());
    part(0).unwrap_or(0) * 1_000 + part(1).unwrap_or(0) / 1_000
}

/// The answer to [`read_command`]; the wrong type is a finding, other errors are errors.
fn raw(table: Table, answer: Value) -> Result<Raw, LinkError> {
    let owned = |value: &Value| bytes(value).map(<[u8]>::to_vec).unwrap_or_default();
    match answer {
        Value::Nil => Ok(Raw::Absent),
        Value::BulkString(text) => Ok(Raw::Text(text)),
        Value::Array(items) if items.is_empty() => Ok(Raw::Absent),
        // Hashes come as a flat list of names and values.
        Value::Array(items) if read_command(table) == "HGETALL" => {
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

fn notice(message: &redis::Msg, offset: i64) -> Option<Notice> {
    let channel: Vec<u8> = message.get_channel().ok()?;
    if channel == ANNOUNCEMENTS.as_bytes() {
        let text = String::from_utf8(message.get_payload_bytes().to_vec()).ok()?;
        return Some(Notice::Announced(text));
    }
    let rest = channel.strip_prefix(b"__keyspace@".as_slice())?;
    let end = rest.iter().position(|byte| *byte == b'_')?;
    let number: i64 = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    let name = rest.get(end..)?.strip_prefix(b"__:".as_slice())?.to_vec();
    Some(Notice::Changed(Key { table: Table::from_number(number - offset)?, name }))
}
