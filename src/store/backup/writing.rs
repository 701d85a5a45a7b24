//! Parts of a backup as bytes. Pure.

use serde::Serialize;

use super::format::{
    CHECKED, END, EVENT, End, HEADER, Header, MAGIC, PART_HEADER, SNAPSHOT, STATE,
};

/// Makes the bytes of a backup, part by part.
#[derive(Debug, Default, Clone)]
pub struct BackupWriter {
    parts: u64,
    checksums: crc32fast::Hasher,
}

impl BackupWriter {
    /// The first bytes.
    pub fn header(&mut self, header: &Header) -> Vec<u8> {
        let part = self.part(HEADER, &[&json(header)]);
        [MAGIC.as_slice(), &part].concat()
    }

    /// The state that events go on from, as the journal has it.
    pub fn snapshot(&mut self, record: &[u8]) -> Vec<u8> {
        self.part(SNAPSHOT, &[record])
    }

    /// An event, as the journal has it.
    pub fn event(&mut self, seq: u64, record: &[u8]) -> Vec<u8> {
        self.part(EVENT, &[&seq.to_le_bytes(), record])
    }

    /// An entry of policy state.
    pub fn state(&mut self, key: &str, value: &str) -> Vec<u8> {
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.part(STATE, &[&length, key.as_bytes(), value.as_bytes()])
    }

    /// The last bytes.
    pub fn end(&mut self) -> Vec<u8> {
        let checksum = self.checksums.clone().finalize();
        let end = json(&End { parts: self.parts, checksum });
        self.part(END, &[&end])
    }

    fn part(&mut self, kind: u8, payload: &[&[u8]]) -> Vec<u8> {
        let length: usize = payload.iter().map(|bytes| bytes.len()).sum();
        let mut part = Vec::with_capacity(PART_HEADER + length);
        part.push(kind);
        part.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        part.extend([0; PART_HEADER - CHECKED]);
        for bytes in payload {
            part.extend_from_slice(bytes);
        }
        let checksum = checksum(&part).to_le_bytes();
        part[CHECKED..PART_HEADER].copy_from_slice(&checksum);
        self.parts += 1;
        self.checksums.update(&checksum);
        part
    }
}

/// That of a part, without its own bytes.
pub(super) fn checksum(part: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(part.get(..CHECKED).unwrap_or_default());
    hasher.update(part.get(PART_HEADER..).unwrap_or_default());
    hasher.finalize()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers have a form.
    serde_json::to_vec(value).unwrap_or_default()
}
