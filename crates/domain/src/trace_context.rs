//! Which trace a request belongs to, as the W3C has it: the headers `traceparent` and `tracestate`
//! (<https://www.w3.org/TR/trace-context/>).

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;

/// A longer `tracestate` is not handed on; the standard lets nobody count on more.
pub const TRACE_STATE_MAX_BYTES: usize = 512;

/// Members of a `tracestate`; one with more is none.
const STATE_MEMBERS_MAX: usize = 32;
/// Of a key or a value of those.
const STATE_PART_MAX_BYTES: usize = 256;

/// Bytes of a `traceparent` of version 00, and of the part of later ones that is known.
const PARENT_BYTES: usize = 55;

const SAMPLED: u8 = 1;
/// The trace's id was made at random.
const RANDOM: u8 = 2;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub NonZeroU128);

/// A span of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub NonZeroU64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpanId {
    /// The id of a span below this one that is known by some numbers: the same for the same ones,
    /// so that it can be named before the span has ended, and needs no place meanwhile.
    #[must_use]
    pub fn below(self, numbers: &[u64]) -> Self {
        Self(NonZeroU64::new(mixed(self.0.get(), numbers)).unwrap_or(NonZeroU64::MIN))
    }
}

impl TraceId {
    /// The id of a trace that is known by some numbers, as of `seed`.
    #[must_use]
    pub fn of(seed: u64, numbers: &[u64]) -> Self {
        let (high, low) = (mixed(seed, numbers), mixed(!seed, numbers));
        let id = u128::from(high) << 64 | u128::from(low);
        Self(NonZeroU128::new(id).unwrap_or(NonZeroU128::MIN))
    }
}

/// Numbers mixed into one (the finalizer of `splitmix64`).
fn mixed(seed: u64, numbers: &[u64]) -> u64 {
    numbers.iter().fold(seed, |state, number| {
        let mut z = (state ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: TraceId,
    /// The span that others are below.
    pub span: SpanId,
    flags: u8,
}

impl TraceParent {
    /// Of a span in a trace that is made here.
    #[must_use]
    pub fn new(trace: TraceId, span: SpanId, is_sampled: bool) -> Self {
        Self { trace, span, flags: if is_sampled { SAMPLED } else { 0 } }
    }

    /// Reads a header. None for what is no `traceparent`; of a later version than 00 what is known
    /// of it.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let known = text.first_chunk::<PARENT_BYTES>()?;
        let [v1, v2, b'-', rest @ ..] = known else { return None };
        let version = hex(&[*v1, *v2])?;
        let is_whole = match (version, text.get(PARENT_BYTES)) {
            (0xff, _) | (0, Some(_)) => false,
            (_, None) => true,
            (_, Some(next)) => *next == b'-',
        };
        let (trace, rest) = rest.split_at_checked(32)?;
        let (span, flags) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
        let flags = hex(flags.strip_prefix(b"-")?)?;
        let trace = TraceId(NonZeroU128::new(hex(trace)?)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(hex(span)?).ok()?)?);
        // Flags that are not known are not handed on.
        let flags = u8::try_from(flags).ok()? & (SAMPLED | RANDOM);
        is_whole.then_some(Self { trace, span, flags })
    }

    /// Whether whoever has made it records the trace.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags as they stand in the header.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.flags
    }
}

/// As a header of version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Lower-case hexadecimal digits, and nothing else.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// The place of a request in a trace, and what others have to say of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub parent: TraceParent,
    /// The `tracestate`, where there is a good one.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Of the headers of a request, all of one name in their order. None without a good
    /// `traceparent`; a `tracestate` that is none is left out.
    #[must_use]
    pub fn of<'h>(
        mut parents: impl Iterator<Item = &'h [u8]>,
        states: impl Iterator<Item = &'h [u8]>,
    ) -> Option<Self> {
        let parent = TraceParent::parse(parents.next()?)?;
        if parents.next().is_some() {
            return None;
        }
        Some(Self { parent, state: state(states) })
    }

    /// The same for what is below `span`.
    #[must_use]
    pub fn at(&self, span: SpanId) -> Self {
        Self { parent: TraceParent { span, ..self.parent }, state: self.state.clone() }
    }
}

/// A `tracestate` in one line.
fn state<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Option<Arc<str>> {
    let mut joined = String::new();
    let mut keys = BTreeSet::new();
    for line in lines {
        let members = std::str::from_utf8(line).ok()?.split(',');
        // An empty member is allowed, and says nothing.
        for member in members.map(|member| member.trim_matches([' ', '\t'])) {
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            if !is_key(key) || !is_value(value) || !keys.insert(key) {
                return None;
            }
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(member);
        }
    }
    let fits = joined.len() <= TRACE_STATE_MAX_BYTES && keys.len() <= STATE_MEMBERS_MAX;
    (fits && !joined.is_empty()).then(|| joined.into())
}

fn is_key(key: &str) -> bool {
    let is_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_other = |c: &u8| is_letter(*c) || b"_-*/@".contains(c);
    let starts = key.bytes().next().is_some_and(is_letter);
    starts && key.len() <= STATE_PART_MAX_BYTES && key.as_bytes().iter().all(is_other)
}

fn is_value(value: &str) -> bool {
    let is_good = |c: u8| matches!(c, b' '..=b'~') && c != b',' && c != b'=';
    (1..=STATE_PART_MAX_BYTES).contains(&value.len()) && value.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
        let lines = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        let (parents, states): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (lines(parents), lines(states));
        TraceContext::of(parents.iter().map(Vec::as_slice), states.iter().map(Vec::as_slice))
    }

    fn state_of(lines: &[&str]) -> Option<String> {
        of(&[PARENT], lines).unwrap().state.map(|state| state.to_string())
    }

    #[test]
    fn a_parent_is_read_and_written() {
        let parent = TraceParent::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), PARENT);
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span.to_string(), "00f067aa0ba902b7");
        assert!(parent.is_sampled());
        let other = TraceParent::parse(PARENT.replace("-01", "-02").as_bytes()).unwrap();
        assert!(!other.is_sampled());
        assert_eq!(other.to_string(), PARENT.replace("-01", "-02"));
    }

    #[test]
    fn flags_that_are_not_known_are_not_handed_on() {
        let parent = TraceParent::parse(PARENT.replace("-01", "-ff").as_bytes()).unwrap();
        assert_eq!(parent.to_string(), PARENT.replace("-01", "-03"));
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        for (text, is_good) in [
            (PARENT.replacen("00", "cc", 1), true),
            (PARENT.replacen("00", "cc", 1) + "-what-the-future-will-be-like", true),
            (PARENT.replacen("00", "cc", 1) + "-", true),
            (PARENT.replacen("00", "cc", 1) + ".what", false),
            (PARENT.replacen("00", "ff", 1), false),
            (PARENT.replacen("00", "0", 1), false),
            (PARENT.replacen("00", "0x", 1), false),
            (PARENT.to_owned() + "-", false),
            (PARENT.to_owned() + "0", false),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()).is_some(), is_good, "{text}");
        }
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7a-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        assert!(of(&[PARENT], &[]).is_some());
        assert_eq!(of(&[], &["a=1"]), None);
        assert_eq!(of(&[PARENT, PARENT], &[]), None);
    }

    #[test]
    fn a_state_is_handed_on_as_it_is_and_a_broken_one_is_not() {
        let good = |text: &str| Some(text.to_owned());
        assert_eq!(state_of(&["foo=1"]), good("foo=1"));
        assert_eq!(state_of(&["foo=1,bar=2", "rojo=7"]), good("foo=1,bar=2,rojo=7"));
        assert_eq!(state_of(&[" foo=1 \t,, bar=a b "]), good("foo=1,bar=a b"));
        assert_eq!(
            state_of(&["tenant@system=1,0/a*b_c-d=~!"]),
            good("tenant@system=1,0/a*b_c-d=~!")
        );
        let longest = format!("a={}", "x".repeat(STATE_PART_MAX_BYTES));
        assert_eq!(state_of(&[&longest]), good(&longest));
        let many = |n: usize| (0..n).map(|k| format!("k{k}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(state_of(&[&many(STATE_MEMBERS_MAX)]), good(&many(STATE_MEMBERS_MAX)));
        for bad in [
            "",
            ",",
            "foo",
            "foo=",
            "=1",
            "Foo=1",
            "foo=1=2",
            "foo =1",
            "foo=\u{e9}",
            "foo=1,foo=2",
            "@a=1",
            &(longest.clone() + "x"),
            &many(STATE_MEMBERS_MAX + 1),
            &format!("{longest},b{longest}"),
        ] {
            assert_eq!(state_of(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn spans_that_are_known_by_numbers_are_told_apart() {
        let span = TraceParent::parse(PARENT.as_bytes()).unwrap().span;
        assert_eq!(span.below(&[1, 2]), span.below(&[1, 2]));
        let numbers = [[1, 2], [2, 1], [1, 3], [0, 0]];
        let spans: BTreeSet<_> = numbers.iter().map(|n| span.below(n).to_string()).collect();
        let traces: BTreeSet<_> = numbers.iter().map(|n| TraceId::of(7, n).to_string()).collect();
        assert_eq!((spans.len(), traces.len()), (4, 4));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = TraceParent::parse(&bytes) {
                let written = parent.to_string();
                prop_assert_eq!(TraceParent::parse(written.as_bytes()), Some(parent));
            }
        }

        #[test]
        fn one_wrong_letter_is_noticed(at in 0..PARENT_BYTES, letter: u8) {
            let mut text = PARENT.as_bytes().to_vec();
            text[at] = letter;
            let is_hex = matches!(letter, b'0'..=b'9' | b'a'..=b'f');
            let is_dash = [2, 35, 52].contains(&at);
            let is_good = if is_dash { letter == b'-' } else { is_hex };
            prop_assert_eq!(TraceParent::parse(&text).is_some(), is_good);
        }

        #[test]
        fn ids_come_back(trace: u128, span: u64, flags in 0u8..4) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let parent = TraceParent::parse(text.as_bytes());
            prop_assert_eq!(parent.is_some(), trace != 0 && span != 0);
            if let Some(parent) = parent {
                prop_assert_eq!(parent.to_string(), text);
            }
        }

        #[test]
        fn what_is_handed_on_of_a_state_is_one(
            lines in prop::collection::vec("[ -~]{0,40}", 0..4),
        ) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            if let Some(state) = state_of(&lines) {
                prop_assert!(state.len() <= TRACE_STATE_MAX_BYTES);
                prop_assert_eq!(state_of(&[&state]), Some(state.clone()));
            }
        }
    }
}
