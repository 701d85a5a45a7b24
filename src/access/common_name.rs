//! The common name of a certificate's subject, as DER has it. Pure and total.

use yasna::ASN1Result;
use yasna::models::TaggedDerValue;
use yasna::tags::{TAG_PRINTABLESTRING, TAG_UTF8STRING};

/// id-at-commonName.
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];

/// The name of a subject, the content of its sequence, where it has one and no other.
pub(super) fn of(subject: &[u8]) -> Option<String> {
    match &common_names(subject).ok()?[..] {
        [name] if [TAG_UTF8STRING, TAG_PRINTABLESTRING].contains(&name.tag()) => {
            String::from_utf8(name.value().to_vec()).ok()
        }
        _ => None,
    }
}

fn common_names(subject: &[u8]) -> ASN1Result<Vec<TaggedDerValue>> {
    let subject = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| writer.next().write_der(subject));
    });
    let mut found = Vec::new();
    yasna::parse_der(&subject, |reader| {
        reader.read_sequence_of(|reader| {
            reader.read_set_of(|reader| {
                reader.read_sequence(|reader| {
                    let kind = reader.next().read_oid()?;
                    let value = reader.next().read_tagged_der()?;
                    if kind.components()[..] == COMMON_NAME {
                        found.push(value);
                    }
                    Ok(())
                })
            })
        })
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT: u8 = 0x06;
    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;
    const NAME: &[u8] = &[0x55, 0x04, 0x03];

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = match length {
            0..=0x7f => vec![tag, u8::try_from(length).unwrap()],
            0x80..=0xff => vec![tag, 0x81, u8::try_from(length).unwrap()],
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
            let own = named(NAME, tag, name);
            assert_eq!(of(&own), Some(name.to_owned()));
            assert_eq!(of(&[country.clone(), own.clone()].concat()), Some(name.to_owned()));
            assert_eq!(of(&[own.clone(), country.clone()].concat()), Some(name.to_owned()));
            assert_eq!(of(&[own.clone(), own.clone()].concat()), None, "which of them?");
            assert_eq!(of(&own[..own.len() - 1]), None);
        }
        assert_eq!(of(&country), None);
        assert_eq!(of(&named(NAME, 0x1e, "bmp")), None);
        assert_eq!(of(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_name_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = of(&bytes);
        }
    }
}
