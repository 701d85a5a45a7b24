//! How much somebody may ask for: the holder of a key, or all clients of an application.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// What a query counts among those of its application, in overload. It takes nothing from other
/// applications, and those of no class are without a part.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Low,
    #[default]
    Normal,
    High,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Their names, as users write them.
    pub const NAMES: &'static [&'static str] = &["low", "normal", "high"];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// From the number in requests: 1 is the highest, 0 what is meant where none is given.
    #[must_use]
    pub fn of_priority(priority: u64) -> Self {
        match priority {
            0 => Self::Normal,
            1 => Self::High,
            _ => Self::Low,
        }
    }

    /// Its service, compared with that of the other classes of its application.
    #[must_use]
    pub fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }
}

/// What may be asked for; what is `None` has no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Queries a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// Queries at once after a while without any; as many as in a second if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<NonZeroU32>,
    /// Queries that are being answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<NonZeroU32>,
    /// Bytes of the bodies of requests that are being answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<NonZeroU64>,
    /// The highest class that a query may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Class>,
}

/// Numbers that are no limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("burst says how many queries of a rate may come at once: give rate, too")]
    BurstAlone,
    #[error("{what} must be 1 to {max}, not {found}")]
    Range { what: &'static str, max: u64, found: i64 },
}

impl Limits {
    /// The names of the limits in bodies, config files and events.
    pub const NAMES: [&'static str; 5] = ["rate", "burst", "concurrent", "body_bytes", "priority"];

    /// The most of a rate, of a burst and of concurrent queries: beyond what a server answers.
    pub const QUERIES_MAX: u32 = 1_000_000;

    /// The most of bodies, bytes.
    pub const BODY_BYTES_MAX: u64 = 1 << 40;

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// From numbers as users write them.
    ///
    /// # Errors
    /// One is out of its range, or a burst is without a rate.
    pub fn of(
        [rate, burst, concurrent, body_bytes]: [Option<i64>; 4],
        priority: Option<Class>,
    ) -> Result<Self, InvalidLimits> {
        let queries = |what, number: Option<i64>| {
            let max = u64::from(Self::QUERIES_MAX);
            let read = |found| match u32::try_from(found).ok().and_then(NonZeroU32::new) {
                Some(number) if number.get() <= Self::QUERIES_MAX => Ok(number),
                _ => Err(InvalidLimits::Range { what, max, found }),
            };
            number.map(read).transpose()
        };
        let bytes = |found| match u64::try_from(found).ok().and_then(NonZeroU64::new) {
            Some(bytes) if bytes.get() <= Self::BODY_BYTES_MAX => Ok(bytes),
            _ => {
                let (what, max) = ("body_bytes", Self::BODY_BYTES_MAX);
                Err(InvalidLimits::Range { what, max, found })
            }
        };
        if burst.is_some() && rate.is_none() {
            return Err(InvalidLimits::BurstAlone);
        }
        Ok(Self {
            rate: queries("rate", rate)?,
            burst: queries("burst", burst)?,
            concurrent: queries("concurrent", concurrent)?,
            body_bytes: body_bytes.map(bytes).transpose()?,
            priority,
        })
    }
}

/// For tables: `100/s, burst 200, 20 at once, bodies of 1048576, low`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, burst, concurrent, body_bytes, priority } = self;
        let parts = [
            rate.map(|rate| format!("{rate}/s")),
            burst.map(|burst| format!("burst {burst}")),
            concurrent.map(|queries| format!("{queries} at once")),
            body_bytes.map(|bytes| format!("bodies of {bytes}")),
            priority.map(|class| class.name().to_owned()),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Reads limits as users write them: each is in its range, and nothing else is there.
///
/// # Errors
/// What is no limit.
pub fn as_written<'de, D: Deserializer<'de>>(from: D) -> Result<Limits, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Written {
        rate: Option<i64>,
        burst: Option<i64>,
        concurrent: Option<i64>,
        body_bytes: Option<i64>,
        priority: Option<Class>,
    }
    let Written { rate, burst, concurrent, body_bytes, priority } = Written::deserialize(from)?;
    Limits::of([rate, burst, concurrent, body_bytes], priority).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_what_they_are_written_as_and_from_nothing() {
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
        let numbers = [Some(100), Some(200), Some(20), Some(1 << 20)];
        let limits = Limits::of(numbers, Some(Class::Low)).unwrap();
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(
            text,
            "{\"rate\":100,\"burst\":200,\"concurrent\":20,\"body_bytes\":1048576,\
             \"priority\":\"low\"}"
        );
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        assert_eq!(limits.to_string(), "100/s, burst 200, 20 at once, bodies of 1048576, low");
        assert_eq!(Limits::default().to_string(), "");
        assert!(Limits::default().is_none() && !limits.is_none());
    }

    #[test]
    fn numbers_that_are_none_are_refused_by_name() {
        let refused = |numbers| Limits::of(numbers, None).unwrap_err().to_string();
        assert_eq!(refused([Some(0), None, None, None]), "rate must be 1 to 1000000, not 0");
        let told = refused([None, None, Some(1_000_001), None]);
        assert_eq!(told, "concurrent must be 1 to 1000000, not 1000001");
        assert!(refused([None, None, None, Some(-1)]).starts_with("body_bytes must be 1 to"));
        assert!(refused([None, Some(1), None, None]).contains("give rate, too"));
        for (class, name) in Class::ALL.into_iter().zip(Class::NAMES) {
            assert_eq!((class.name(), Class::parse(name)), (*name, Some(class)));
        }
    }
}
