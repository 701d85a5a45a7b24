//! Limits as flags.

use clap::Args;
use serde_json::{Value, json};

use super::value::Expected;
use clipper_domain::limits::Class;

/// How much may be asked for; what is left out has no limit of its own.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Queries a second; each of a list counts. Beyond it 429.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Queries at once after a pause [default: as many as in a second].
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Queries that are being answered at the same time.
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
    /// Bytes of the bodies of those: 1MiB, 64KiB, 5000.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    body_bytes: Option<u64>,
    /// The highest class of a query, in overload: low, normal or high.
    #[arg(long, value_name = "CLASS", value_parser = class)]
    priority: Option<Class>,
}

fn class(text: &str) -> Result<Class, Expected> {
    let names = || Class::NAMES.join(", ");
    Class::parse(text).ok_or_else(|| Expected::new(format!("one of {}", names())))
}

/// A number of bytes, with a unit or without.
fn bytes(text: &str) -> Result<u64, Expected> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let read = |(unit, shift): (&str, u32)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
    };
    let size = units.into_iter().find_map(read);
    size.ok_or_else(|| Expected::new("a size such as 64KiB, 1MiB or 5000"))
}

impl LimitArgs {
    /// As requests have them; an object without members where there are none.
    pub(super) fn body(&self) -> Value {
        let given = [
            ("rate", self.rate.map(|rate| json!(rate))),
            ("burst", self.burst.map(|burst| json!(burst))),
            ("concurrent", self.concurrent.map(|queries| json!(queries))),
            ("body_bytes", self.body_bytes.map(|bytes| json!(bytes))),
            ("priority", self.priority.map(|class| json!(class))),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect())
    }

    pub(super) fn is_none(&self) -> bool {
        self.body() == json!({})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, size) in [("5000", 5_000), ("64KiB", 65_536), ("1MiB", 1 << 20)] {
            assert_eq!(bytes(text), Ok(size));
        }
        for text in ["", "0", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
