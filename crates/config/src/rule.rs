//! What one value may be: its type, its range, its spelling.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize as _;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::network::Network;
use clipper_domain::{
    BatchSize, DEFAULT_OUTPUT_MAX_BYTES, InputType, LatencySlo, ModelName, Signature,
};

/// What the replicas of a model may be.
pub const RUNTIMES: [&str; 3] = ["onnx", "python", "command"];

/// The rule of one key.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// A whole number in a range, both ends included.
    Int {
        min: i64,
        max: i64,
        unit: &'static str,
    },
    Bool,
    /// `IP:PORT`.
    Address,
    /// `tcp://IP:PORT`, see [`rpc_socket_addr`].
    RpcAddress,
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://` for TLS, or `redis+unix:///PATH`.
    RedisUrl,
    AnyText,
    /// Any text that is not longer than a default output may be.
    DefaultOutput,
    /// Any text but the empty one: a path, a program.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A tracing filter such as `info,clipper::rpc=debug`.
    Filter,
    /// A name that fits a URL and a Redis key.
    Name,
    /// A list of such names.
    Names,
    /// A list of absolute paths.
    Paths,
    /// A list of runtimes and absolute paths of folders.
    Allowed,
    /// A list of addresses and networks.
    Networks,
    /// A list of sites as browsers name them, or, where `any` is true, of `*` alone.
    Origins {
        any: bool,
    },
    /// A list of texts, the first of them not empty.
    CommandLine,
    InputType,
    /// A latency objective, microseconds.
    Slo,
    /// Queries a message, or -1.
    BatchSize,
    /// `FILE.py:function`.
    PythonFunction,
    /// The tensors of a model.
    Signature,
}

/// What is wrong with a value, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    #[error("expected {accepted}, found {found}")]
    Other { accepted: String, found: String },
    #[error("expected {accepted}, found {found}: {why}")]
    Invalid { accepted: String, found: String, why: String },
    #[error("expected {accepted}, not of {bytes}")]
    TooLong { accepted: String, bytes: usize },
    /// Without the value, which may hold a password.
    #[error("expected {accepted}")]
    Secret { accepted: String },
}

/// Splits `FILE.py:function`; `None` if it is not of that form.
#[must_use]
pub fn split_python_function(text: &str) -> Option<(&str, &str)> {
    let (file, function) = text.rsplit_once(':')?;
    let named = function.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && function.chars().all(|c| c.is_alphanumeric() || c == '_');
    let python = Path::new(file).extension().is_some_and(|extension| extension == "py");
    (named && python).then_some((file, function))
}

/// The socket address in `tcp://IP:PORT`; `*` means every interface and `localhost` the loopback.
#[must_use]
pub fn rpc_socket_addr(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let ip: IpAddr = match host {
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => IpAddr::V6(v6.parse().ok()?),
            None => IpAddr::V4(host.parse().ok()?),
        },
    };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

fn is_redis_url(text: &str) -> bool {
    // A Unix socket has a path instead of a host.
    if ["redis+unix:", "unix:"].iter().any(|scheme| text.starts_with(scheme)) {
        return text.split_once(":///").is_some_and(|(_, path)| !path.is_empty());
    }
    if let Some(rest) = text.strip_prefix("redis+sentinel://") {
        let Some((hosts, path)) = rest.split_once('/') else { return false };
        let hosts = hosts.rsplit('@').next().unwrap_or_default();
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        let named = !service.is_empty() && hosts.split(',').all(|host| !host.is_empty());
        return named && database.parse::<u32>().is_ok();
    }
    let schemes = ["redis://", "rediss://"];
    let Some(rest) = schemes.iter().find_map(|s| text.strip_prefix(s)) else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    !host.is_empty() && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// Whether a text is a site as browsers name it: a scheme and a host, without a path.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let of_scheme = |byte: u8| byte.is_ascii_lowercase() || b"+-.".contains(&byte);
    let of_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*,\"".contains(&byte);
    let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    let names = !scheme.is_empty() && !host.is_empty() && is_lower;
    names && scheme.bytes().all(of_scheme) && host.bytes().all(of_host)
}

impl Rule {
    /// A whole number in a range.
    #[must_use]
    pub const fn int(min: i64, max: i64, unit: &'static str) -> Self {
        Self::Int { min, max, unit }
    }

    /// Milliseconds up to a day, from 1.
    #[must_use]
    pub const fn millis() -> Self {
        Self::int(1, 86_400_000, "milliseconds")
    }

    /// Bytes up to a tebibyte, from 1.
    #[must_use]
    pub const fn bytes() -> Self {
        Self::int(1, 1 << 40, "bytes")
    }

    /// A count up to ten million, from 1.
    #[must_use]
    pub const fn count(unit: &'static str) -> Self {
        Self::int(1, 10_000_000, unit)
    }

    /// What is accepted, to stand after "expected".
    #[must_use]
    pub fn accepted(&self) -> String {
        match self {
            Self::Int { min, max, unit } => format!("a whole number of {unit}, {min} to {max}"),
            Self::Bool => "true or false".into(),
            Self::Address => "IP:PORT such as \"127.0.0.1:1337\"".into(),
            Self::RpcAddress => "tcp://IP:PORT such as \"tcp://127.0.0.1:7000\"".into(),
            Self::RedisUrl => {
                "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://, redis+unix:///PATH or \
                 redis+sentinel://HOST:PORT[,HOST:PORT...]/SERVICE[/DB]"
                    .into()
            }
            Self::AnyText => "a text".into(),
            Self::DefaultOutput => format!("a text of at most {DEFAULT_OUTPUT_MAX_BYTES} bytes"),
            Self::Text => "a text that is not empty".into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Filter => "a filter such as \"info\" or \"info,clipper::rpc=debug\"".into(),
            Self::Name => "a name of 1 to 256 bytes without , : / and control characters".into(),
            Self::Names => "a list of names such as [\"a\", \"b\"]".into(),
            Self::Paths => "a list of absolute paths such as [\"/srv/models\"]".into(),
            Self::Allowed => format!(
                "a list of runtimes ({}) and absolute paths of folders",
                RUNTIMES.join(", ")
            ),
            Self::Networks => "a list of addresses such as [\"10.0.0.0/8\", \"::1\"]".into(),
            Self::Origins { any } => {
                let any = if *any { ", or [\"*\"]" } else { ", each by its name" };
                format!("a list of sites such as [\"https://app.example.com\"]{any}")
            }
            Self::CommandLine => "a list of texts such as [\"program\", \"argument\"]".into(),
            Self::InputType => "bytes, integers, floats, doubles, strings or tensors".into(),
            Self::Slo => format!("a whole number of microseconds, 1 to {}", i32::MAX),
            Self::BatchSize => {
                format!("a whole number of queries, 1 to {}, or -1 for adaptive", i32::MAX)
            }
            Self::PythonFunction => "FILE.py:function".into(),
            Self::Signature => "a table with the lists inputs and outputs of tensors".into(),
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong and what is accepted.
    pub fn check(&self, value: &Value) -> Result<(), NotAccepted> {
        let fits = match (self, value) {
            (Self::Int { min, max, .. }, Value::Integer(n)) => (min..=max).contains(&n),
            (Self::Bool, Value::Boolean(_)) => true,
            (Self::Slo, Value::Integer(n)) => LatencySlo::from_micros(*n).is_some(),
            (Self::BatchSize, Value::Integer(n)) => BatchSize::from_number(*n).is_some(),
            (Self::Names, Value::Array(items)) => {
                for item in items {
                    Self::Name.check(item)?;
                }
                true
            }
            (Self::Paths | Self::Allowed, Value::Array(items)) => {
                let is_good = |item: &Value| {
                    let Some(text) = item.as_str() else { return false };
                    let is_runtime = matches!(self, Self::Allowed) && RUNTIMES.contains(&text);
                    is_runtime || Path::new(text).is_absolute()
                };
                if let Some(wrong) = items.iter().find(|item| !is_good(item)) {
                    return Err(self.refuse(show(wrong)));
                }
                true
            }
            (Self::Networks, Value::Array(items)) => {
                let text = |item: &Value| item.as_str().map(str::to_owned).unwrap_or_default();
                if let Some(wrong) =
                    items.iter().find(|item| text(item).parse::<Network>().is_err())
                {
                    return Err(self.refuse(show(wrong)));
                }
                true
            }
            (Self::Origins { any }, Value::Array(items)) => {
                let is_any = |items: &[Value]| matches!(items, [Value::String(all)] if all == "*");
                let is_wrong = |item: &&Value| !item.as_str().is_some_and(is_origin);
                match items.iter().find(is_wrong) {
                    Some(wrong) if !(*any && is_any(items)) => {
                        return Err(self.refuse(show(wrong)));
                    }
                    _ => true,
                }
            }
            (Self::CommandLine, Value::Array(items)) => {
                items.first().and_then(Value::as_str).is_some_and(|program| !program.is_empty())
                    && items.iter().all(Value::is_str)
            }
            (Self::Signature, Value::Table(table)) => {
                Signature::deserialize(table.clone()).map_err(|error| NotAccepted::Invalid {
                    accepted: self.accepted(),
                    found: show(value),
                    why: error.message().to_owned(),
                })?;
                true
            }
            (_, Value::String(text)) => return self.check_text(text),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let found = show(value);
        let is_bare = matches!(value, Value::Integer(_) | Value::Float(_) | Value::Boolean(_));
        if is_bare && matches!(self, Self::Name | Self::AnyText | Self::Text | Self::DefaultOutput)
        {
            // `version = 1`.
            let (accepted, why) = (self.accepted(), format!("a text has quotes: \"{found}\""));
            return Err(NotAccepted::Invalid { accepted, found, why });
        }
        Err(self.refuse(found))
    }

    fn check_text(&self, text: &str) -> Result<(), NotAccepted> {
        let fits = match self {
            Self::Text => !text.is_empty(),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::RpcAddress => rpc_socket_addr(text).is_some(),
            Self::Choice(words) => words.contains(&text),
            Self::InputType => InputType::parse(text).is_some(),
            Self::PythonFunction => split_python_function(text).is_some(),
            Self::Filter => match EnvFilter::try_new(text) {
                Ok(_) => true,
                Err(error) => return Err(self.refuse_text(text, &error)),
            },
            Self::Name => match ModelName::parse(text) {
                Ok(_) => true,
                Err(error) => return Err(self.refuse_text(text, &error)),
            },
            // The refused text may hold a password, so it is not repeated.
            Self::RedisUrl if !is_redis_url(text) => {
                return Err(NotAccepted::Secret { accepted: self.accepted() });
            }
            Self::DefaultOutput if text.len() > DEFAULT_OUTPUT_MAX_BYTES => {
                return Err(NotAccepted::TooLong { accepted: self.accepted(), bytes: text.len() });
            }
            Self::AnyText | Self::DefaultOutput | Self::RedisUrl => true,
            Self::Int { .. }
            | Self::Bool
            | Self::Slo
            | Self::BatchSize
            | Self::Names
            | Self::Paths
            | Self::Allowed
            | Self::Networks
            | Self::Origins { .. }
            | Self::CommandLine
            | Self::Signature => false,
        };
        if fits { Ok(()) } else { Err(self.refuse(quote(text))) }
    }

    /// Reads the text of a flag or an environment variable.
    ///
    /// # Errors
    /// What is wrong and what is accepted.
    pub fn read(&self, text: &str) -> Result<Value, NotAccepted> {
        let value = match self {
            Self::Int { .. } | Self::Slo | Self::BatchSize => {
                Value::Integer(text.trim().parse().map_err(|_| self.refuse(quote(text)))?)
            }
            Self::Bool => {
                Value::Boolean(text.trim().parse().map_err(|_| self.refuse(quote(text)))?)
            }
            Self::Names | Self::Networks | Self::Origins { .. } => self.read_list(text)?,
            _ => Value::String(text.to_owned()),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// As a file has it, or with commas alone.
    fn read_list(&self, text: &str) -> Result<Value, NotAccepted> {
        let text = text.trim();
        if !text.starts_with('[') {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            return Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()));
        }
        let parsed = format!("list = {text}").parse::<toml::Table>().ok();
        let list = parsed.filter(|table| table.len() == 1).and_then(|mut all| all.remove("list"));
        list.ok_or_else(|| self.refuse(quote(text)))
    }

    fn refuse(&self, found: String) -> NotAccepted {
        NotAccepted::Other { accepted: self.accepted(), found }
    }

    fn refuse_text(&self, text: &str, why: &impl ToString) -> NotAccepted {
        let (accepted, found) = (self.accepted(), quote(text));
        NotAccepted::Invalid { accepted, found, why: why.to_string() }
    }
}

fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}...", text.chars().take(SHOWN).collect::<String>())
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpc_addresses() {
        for (text, want) in [
            ("tcp://127.0.0.1:7000", Some("127.0.0.1:7000")),
            ("tcp://*:7000", Some("0.0.0.0:7000")),
            ("tcp://localhost:0", Some("127.0.0.1:0")),
            ("tcp://[::1]:7000", Some("[::1]:7000")),
            ("127.0.0.1:7000", None),
            ("tcp://127.0.0.1", None),
            ("tcp://::1:7000", None),
            ("tcp://127.0.0.1:70000", None),
        ] {
            assert_eq!(rpc_socket_addr(text).map(|a| a.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn line_26_a_text_without_quotes_is_told_what_it_lacks() {
        for (rule, value, wanted) in [
            (Rule::Name, Value::Integer(1), "found 1: a text has quotes: \"1\""),
            (Rule::DefaultOutput, Value::Float(-1.5), "found -1.5: a text has quotes: \"-1.5\""),
            (Rule::Names, Value::Array(vec![Value::Integer(7)]), "a text has quotes: \"7\""),
            (Rule::Bool, Value::Integer(1), "expected true or false, found 1"),
        ] {
            let told = rule.check(&value).unwrap_err().to_string();
            assert!(told.ends_with(wanted), "{told}");
        }
    }

    #[test]
    fn lists_come_by_the_environment_too() {
        let list = |texts: &[&str]| {
            Value::Array(texts.iter().map(|text| Value::String((*text).to_owned())).collect())
        };
        for (text, wanted) in [
            ("", list(&[])),
            ("[]", list(&[])),
            ("10.0.0.0/8, ::1", list(&["10.0.0.0/8", "::1"])),
            ("[\"10.0.0.0/8\", \"::1\"]", list(&["10.0.0.0/8", "::1"])),
        ] {
            assert_eq!(Rule::Networks.read(text), Ok(wanted), "{text}");
        }
        for text in ["[", "[] ]", "[]\nx = 1", "10.0.0.0/33", "[7]"] {
            assert!(Rule::Networks.read(text).is_err(), "{text}");
        }
        assert_eq!(Rule::Names.read("a, b"), Ok(list(&["a", "b"])));
    }

    #[test]
    fn sites_are_those_that_browsers_name() {
        let (any, named) = (Rule::Origins { any: true }, Rule::Origins { any: false });
        for good in ["https://a.example.com", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(named.read(good).is_ok() && any.read(good).is_ok(), "{good}");
        }
        for bad in ["a.com", "https://a.com/", "https://A.com", "null", "https://*.a.com", "://"] {
            assert!(any.read(bad).is_err(), "{bad}");
        }
        assert!(any.read("*").is_ok() && any.read("*, https://a.com").is_err());
        let told = named.read("*").unwrap_err().to_string();
        assert!(told.contains("each by its name"), "{told}");
    }

    #[test]
    fn redis_urls_and_python_functions() {
        for good in ["redis://h", "rediss://h:6379", "redis://u:p@h:1/3", "redis://[::1]:1"] {
            assert!(is_redis_url(good), "{good}");
        }
        assert!(is_redis_url("redis+unix:///run/redis.sock?db=8"));
        for bad in [
            "h:6379",
            "http://h",
            "redis+unix://",
            "redis://",
            "redis://h:x",
            "redis://h:70000",
            "",
        ] {
            assert!(!is_redis_url(bad), "{bad}");
        }
        assert_eq!(split_python_function("a/b.py:f_1"), Some(("a/b.py", "f_1")));
        for bad in ["b.py", "b.py:", "b:f", ".py:f", "b.py:1f", "b.py:f()"] {
            assert_eq!(split_python_function(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_refused_redis_url_does_not_show_its_password() {
        let refused = Rule::RedisUrl.read("http://user:secret@host").unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
