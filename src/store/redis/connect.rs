//! Where the server is, how a connection to it is made, and when it is to be made anew.

use std::time::Duration;

use redis::{Client, RedisError};

/// Where the server is and how long it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://`, `rediss://`, `redis+unix://` or `redis+sentinel://`; its database is where the
    /// tables are counted from.
    pub url: String,
    /// From the first packet to a usable connection.
    pub connect_timeout: Duration,
    pub command_timeout: Duration,
}

/// Why a call failed. Nothing is known of a write that was under way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Refused, closed or unreachable.
    #[error("{0}")]
    Failed(String),
    /// The server has answered with an error: it did nothing, and will do the next thing.
    #[error("{0}")]
    Refused(String),
    /// The server has answered that it is not, or no longer, one to ask: it did nothing. Another
    /// connection may lead to one that is.
    #[error("{0}")]
    Unfit(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
}

impl LinkError {
    /// Whether the server has certainly done nothing of what it was asked.
    #[must_use]
    pub fn certainly_not_written(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unfit(_))
    }
}

/// Answers that tell of the server's role or condition, and not of what it was asked.
const UNFIT: [&str; 7] =
    ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED"];

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let Some(code) = error.code() else { return Self::Failed(text) };
        // Before Redis 7 the error of a command within a script is in the text of the script's.
        let within = |unfit: &&str| text.contains(&format!("-{unfit} "));
        if UNFIT.contains(&code) || UNFIT.iter().any(within) {
            Self::Unfit(text)
        } else {
            Self::Refused(text)
        }
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LinkError::Silent(limit)),
    }
}

const SENTINEL: &str = "redis+sentinel://";

/// `redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/SERVICE[/DB]`, taken apart. User and
/// password are those of the server, not of the sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sentinels<'u> {
    login: &'u str,
    hosts: Vec<&'u str>,
    service: &'u str,
    database: &'u str,
}

impl<'u> Sentinels<'u> {
    fn parse(url: &'u str) -> Option<Self> {
        let rest = url.strip_prefix(SENTINEL)?;
        let (hosts, path) = rest.split_once('/')?;
        let login_ends = hosts.rfind('@').map_or(0, |at| at + 1);
        let (login, hosts) = hosts.split_at(login_ends);
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        let hosts: Vec<&str> = hosts.split(',').collect();
        let whole = !service.is_empty() && hosts.iter().all(|host| !host.is_empty());
        let number = database.parse::<u32>().is_ok();
        (whole && number).then_some(Self { login, hosts, service, database })
    }
}

/// A client of the server that is the primary now.
pub(super) async fn client(settings: &Settings) -> Result<Client, LinkError> {
    if !settings.url.starts_with(SENTINEL) {
        return Ok(Client::open(settings.url.as_str())?);
    }
    let malformed = || LinkError::Failed("the address of the sentinels is malformed".to_owned());
    let sentinels = Sentinels::parse(&settings.url).ok_or_else(malformed)?;
    let mut reasons = Vec::new();
    for host in &sentinels.hosts {
        match primary(host, sentinels.service, settings.connect_timeout).await {
            Ok(address) => {
                let Sentinels { login, database, .. } = sentinels;
                return Ok(Client::open(format!("redis://{login}{address}/{database}"))?);
            }
            Err(error) => reasons.push(format!("{host}: {error}")),
        }
    }
    Err(LinkError::Failed(format!("no sentinel tells the primary: {}", reasons.join("; "))))
}

/// What one sentinel says.
async fn primary(host: &str, service: &str, limit: Duration) -> Result<String, LinkError> {
    let sentinel = Client::open(format!("redis://{host}"))?;
    let mut connection = within(limit, sentinel.get_multiplexed_async_connection()).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(service);
    let asked = ask.query_async::<Option<(String, u16)>>(&mut connection);
    let unknown = || LinkError::Failed(format!("it does not know {service:?}"));
    let (address, port) = within(limit, asked).await?.ok_or_else(unknown)?;
    Ok(if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sentinels_are_taken_apart() {
        let url = "redis+sentinel://me:p@ss@a:26379,b:26379/primary/3";
        let parsed = Sentinels::parse(url).unwrap();
        assert_eq!((parsed.login, parsed.service, parsed.database), ("me:p@ss@", "primary", "3"));
        assert_eq!(parsed.hosts, ["a:26379", "b:26379"]);
        assert_eq!(Sentinels::parse("redis+sentinel://a/m").unwrap().database, "0");
        for url in [
            "redis+sentinel://a",
            "redis+sentinel:///m",
            "redis+sentinel://a/",
            "redis+sentinel://a/m/x",
        ] {
            assert_eq!(Sentinels::parse(url), None, "{url}");
        }
    }

    #[test]
    fn answers_about_the_servers_role_are_faults_of_the_connection() {
        let answered = |line: &str| {
            let line = format!("-{line}\r\n");
            let value = redis::parse_redis_value(line.as_bytes()).unwrap();
            LinkError::from(value.extract_error().unwrap_err())
        };
        let unfit = [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down",
            "NOAUTH Authentication required.",
            "CLUSTERDOWN The cluster is down",
            "ERR Error running script: @user_script:57: -READONLY You can't write.",
        ];
        for line in unfit {
            assert!(matches!(answered(line), LinkError::Unfit(_)), "{line}");
        }
        for line in ["NOPERM no", "OOM command not allowed", "MISCONF no", "ERR READONLY"] {
            assert!(matches!(answered(line), LinkError::Refused(_)), "{line}");
        }
    }
}
