//! What keeps queries with one model: a user, or something else that a query says of itself.

use clipper_domain::{PolicyParameters, PolicySpec};
use serde_json::Value;

use super::parameters::{ParameterError, ParameterReader};
use super::policy::SelectionQuery;
use super::weights::spread;

/// The parameter's name, and what it is.
pub(crate) const STICKY: (&str, &str) = (
    "sticky",
    "`none`: each query is drawn anew; `uid`: all queries of a user (`\"uid\"` in the query) go to \
     the same model; `field:NAME`: all queries with the same text or number in the field NAME go \
     to the same model, such as `field:session` with `\"session\": \"f3a9\"` in the query; \
     `header:NAME`: likewise all requests with the same text in the header NAME, or in gRPC's \
     metadata; queries without it are drawn anew; default `none`",
);

/// Fields that queries have anyway: other things than what they come from.
const TAKEN: [&str; 3] = ["input", "input_batch", "version"];
/// The longest name of a field or header.
const NAME_MAX: usize = 64;

/// What all queries that go to one model have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// Nothing.
    None,
    User,
    /// What they have in a field.
    Field(String),
    /// What their requests have in a header of this name, in lower case.
    Header(String),
}

impl Sticky {
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "none" => Some(Self::None),
            "uid" | "field:uid" => Some(Self::User),
            text => {
                let (place, name) = text.split_once(':')?;
                let is_name = (1..=NAME_MAX).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
                match place {
                    "field" if is_name && !TAKEN.contains(&name) => {
                        Some(Self::Field(name.to_owned()))
                    }
                    "header" if is_name => Some(Self::Header(name.to_ascii_lowercase())),
                    _ => None,
                }
            }
        }
    }

    pub(crate) fn read(parameters: &mut ParameterReader<'_>) -> Result<Self, ParameterError> {
        let expected = format!(
            "one of 'none', 'uid', 'field:NAME' and 'header:NAME', NAME being 1 to {NAME_MAX} \
             letters, digits, '_', '-' or '.', and as a field none of '{}'",
            TAKEN.join("', '")
        );
        Ok(parameters.parsed(STICKY.0, &expected, Self::parse)?.unwrap_or(Self::None))
    }

    /// What a policy goes by.
    #[must_use]
    pub fn of(PolicySpec { parameters, .. }: &PolicySpec) -> Self {
        let of = |parameters: &PolicyParameters| Self::parse(parameters.get(STICKY.0)?);
        of(parameters).unwrap_or(Self::None)
    }

    /// What a query is drawn by.
    pub(crate) fn seed(&self, query: &SelectionQuery) -> u64 {
        let common = match self {
            Self::None => None,
            // 0 is everybody.
            Self::User if query.uid == 0 => None,
            Self::User => Some(spread(query.uid.cast_unsigned())),
            Self::Field(_) | Self::Header(_) => query.key,
        };
        common.unwrap_or(query.seed)
    }
}

/// What stands for a key: the same on all servers, for ever. FNV-1a, spread.
#[must_use]
pub fn key(text: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    spread(text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_what_they_are() {
        assert_eq!((key(""), key("7")), (spread(0xcbf2_9ce4_8422_2325), 0xb89c_ce27_9e7f_3f80));
        let keys: std::collections::BTreeSet<u64> =
            (0..10_000).map(|n| key(&n.to_string())).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
