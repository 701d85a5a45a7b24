//! The common name of a certificate's subject, as DER has it (X.690). Pure and total.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The name of a subject, the content of its sequence, where it has one and no other.
pub(super) fn of(mut subject: &[u8]) -> Option<&str> {
    let mut found = None;
    while !subject.is_empty() {
        let (mut attributes, rest) = element(subject, SET)?;
        subject = rest;
        while !attributes.is_empty() {
            let (attribute, rest) = element(attributes, SEQUENCE)?;
            attributes = rest;
            let (kind, value) = element(attribute, OBJECT)?;
            if kind != COMMON_NAME {
                continue;
            }
            let text = element(value, UTF8).or_else(|| element(value, PRINTABLE));
            let (text, []) = text? else { return None };
            if found.replace(std::str::from_utf8(text).ok()?).is_some() {
                return None;
            }
        }
    }
    found
}

/// The content of an element with this tag, and what is behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = match length {
            0..=0x7f => vec![tag, u8::try_from(length).unwrap()],
            _ => [&[tag, 0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
        };
        [head, content.to_vec()].concat()
    }

    fn named(kind: &[u8], tag: u8, text: &str) -> Vec<u8> {
        let attribute = [tagged(OBJECT, kind), tagged(tag, text.as_bytes())].concat();
        tagged(SET, &tagged(SEQUENCE, &attribute))
    }

    #[test]
    fn it_is_found_among_others_if_there_is_one() {
        let country = named(&[0x55, 0x04, 0x06], PRINTABLE, "CH");
        let long = "x".repeat(300);
        for (tag, name) in [(UTF8, "ops"), (PRINTABLE, "ops.example"), (UTF8, long.as_str())] {
            let own = named(COMMON_NAME, tag, name);
            assert_eq!(of(&own), Some(name));
            assert_eq!(of(&[country.clone(), own.clone()].concat()), Some(name));
            assert_eq!(of(&[own.clone(), country.clone()].concat()), Some(name));
            assert_eq!(of(&[own.clone(), own.clone()].concat()), None, "which of them?");
            assert_eq!(of(&own[..own.len() - 1]), None);
        }
        assert_eq!(of(&country), None);
        assert_eq!(of(&named(COMMON_NAME, 0x1e, "bmp")), None);
        assert_eq!(of(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_name_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = of(&bytes);
        }
    }
}
