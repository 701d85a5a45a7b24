//! Reads a backup part by part, and checks that all of it is there as it was written.

use std::io::{self, Read};

use super::format::{
    BackupError, END, EVENT, End, HEADER, Header, MAGIC, PART_HEADER, PAYLOAD_MAX, SNAPSHOT, STATE,
};
use super::writing::checksum;
use crate::store::event::Envelope;
use crate::store::record::{self, RecordError};
use crate::store::replay::Snapshot;

/// What stands in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contained {
    /// The state that the events go on from, and its record.
    Snapshot(Snapshot, Vec<u8>),
    /// An event, and how many of the same change follow.
    Event(Envelope, u16),
    /// An entry of policy state: key and value.
    State(String, String),
}

/// Reads from any source; nothing of it is believed before its end is there.
#[derive(Debug)]
pub struct BackupReader<R> {
    source: R,
    pub header: Header,
    parts: u64,
    checksums: crc32fast::Hasher,
    /// The number of the last event, or of the snapshot.
    seq: u64,
    /// Events of the same change that have to follow.
    following: u16,
    has_ended: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no backup, or its beginning is damaged.
    pub fn open(mut source: R) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        match source.read_exact(&mut magic) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::NotOne);
            }
            read => read?,
        }
        if magic != *MAGIC {
            return Err(BackupError::NotOne);
        }
        let header = Header { version: String::new(), made_at_ms: 0, base: 0, last: 0 };
        let mut reader = Self {
            source,
            header,
            parts: 0,
            checksums: crc32fast::Hasher::new(),
            seq: 0,
            following: 0,
            has_ended: false,
        };
        let (kind, payload) = reader.part()?;
        let header = serde_json::from_slice(&payload).ok().filter(|_| kind == HEADER);
        reader.header = header.ok_or_else(|| damaged("it does not begin with a header"))?;
        Ok(reader)
    }

    /// The next part; none after the end, which is checked then.
    ///
    /// # Errors
    /// It is not as it was written.
    pub fn read(&mut self) -> Result<Option<Contained>, BackupError> {
        if self.has_ended {
            return Ok(None);
        }
        let (parts, checksum) = (self.parts, self.checksums.clone().finalize());
        let (kind, payload) = self.part()?;
        match kind {
            SNAPSHOT => self.snapshot(payload).map(Some),
            EVENT => self.event(&payload).map(Some),
            STATE => state(&payload).map(Some),
            END => {
                let end: Option<End> = serde_json::from_slice(&payload).ok();
                let is_whole =
                    end.is_some_and(|end| (end.parts, end.checksum) == (parts, checksum));
                if !is_whole || self.seq != self.header.last || self.following > 0 {
                    return Err(damaged("parts of it are missing"));
                }
                if self.source.read(&mut [0])? > 0 {
                    return Err(damaged("something follows its end"));
                }
                self.has_ended = true;
                Ok(None)
            }
            other => Err(damaged(&format!("a part of kind {other}"))),
        }
    }

    fn snapshot(&mut self, record: Vec<u8>) -> Result<Contained, BackupError> {
        let snapshot = decoded::<Snapshot>(&record)?.value;
        if self.parts != 2 || snapshot.seq != self.header.base {
            return Err(damaged("a snapshot where none belongs"));
        }
        self.seq = snapshot.seq;
        Ok(Contained::Snapshot(snapshot, record))
    }

    fn event(&mut self, payload: &[u8]) -> Result<Contained, BackupError> {
        let short = || damaged("an event without a number");
        let (seq, bytes) = payload.split_first_chunk().ok_or_else(short)?;
        let record = decoded::<Envelope>(bytes)?;
        let expected = self.seq + 1;
        let numbers = (u64::from_le_bytes(*seq), record.value.seq);
        let goes_on =
            self.following == 0 || u32::from(record.following) + 1 == u32::from(self.following);
        if numbers != (expected, expected) || !goes_on {
            return Err(damaged(&format!("event {expected} is not where it belongs")));
        }
        (self.seq, self.following) = (expected, record.following);
        Ok(Contained::Event(record.value, record.following))
    }

    fn part(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let mut part = vec![0; PART_HEADER];
        self.source.read_exact(&mut part).map_err(short)?;
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = part[..] else {
            return Err(BackupError::CutShort);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > PAYLOAD_MAX {
            return Err(damaged("a part is longer than any"));
        }
        // Of what is not there, nothing is taken.
        let read = self.source.by_ref().take(u64::from(length)).read_to_end(&mut part)?;
        if read < usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(BackupError::CutShort);
        }
        let wanted = [c0, c1, c2, c3];
        if checksum(&part) != u32::from_le_bytes(wanted) {
            return Err(damaged(&format!("part {} has another checksum", self.parts + 1)));
        }
        self.parts += 1;
        self.checksums.update(&wanted);
        part.drain(..PART_HEADER);
        Ok((kind, part))
    }
}

fn state(payload: &[u8]) -> Result<Contained, BackupError> {
    let read = || {
        let (length, rest) = payload.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (key, value) = rest.split_at_checked(length)?;
        let [key, value] = [key, value].map(|bytes| String::from_utf8(bytes.to_vec()).ok());
        Some(Contained::State(key?, value?))
    };
    read().ok_or_else(|| damaged("an entry of policy state is none"))
}

fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<record::Record<T>, BackupError> {
    record::decode(bytes).map_err(|error| match error {
        RecordError::Newer(version) => BackupError::Newer(version),
        other => damaged(&other.to_string()),
    })
}

fn short(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::CutShort,
        _ => error.into(),
    }
}

fn damaged(what: &str) -> BackupError {
    BackupError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::writing::BackupWriter;
    use super::*;
    use crate::store::record::encode_change;
    use crate::store::samples::{add_app, add_model, changes};

    fn backup() -> (Vec<u8>, usize) {
        let (all, _) = changes(&[add_app("a"), add_model("m", "1")]);
        let mut writer = BackupWriter::default();
        let header = Header { version: "test".to_owned(), made_at_ms: 1, base: 0, last: 3 };
        let mut bytes = writer.header(&header);
        for change in all {
            for (seq, record) in encode_change(&change).unwrap() {
                bytes.extend(writer.event(seq, &record));
            }
        }
        bytes.extend(writer.state("a:0", "learnt"));
        bytes.extend(writer.end());
        (bytes, 4)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Contained>, BackupError> {
        let mut reader = BackupReader::open(bytes)?;
        let mut parts = Vec::new();
        while let Some(part) = reader.read()? {
            parts.push(part);
        }
        Ok(parts)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, parts) = backup();
        let read = read(&bytes).unwrap();
        assert_eq!(read.len(), parts);
        assert_eq!(read[3], Contained::State("a:0".to_owned(), "learnt".to_owned()));
        assert!(matches!(&read[1], Contained::Event(event, 1) if event.seq == 2));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (bytes, _) = backup();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(read(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_part_that_is_missing_or_stands_elsewhere_is_noticed() {
        let (bytes, _) = backup();
        let mut parts = Vec::new();
        let mut rest = &bytes[MAGIC.len()..];
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[1..5].try_into().unwrap());
            let (part, more) = rest.split_at(PART_HEADER + usize::try_from(length).unwrap());
            parts.push(part);
            rest = more;
        }
        for at in 0..parts.len() {
            let mut fewer = parts.clone();
            fewer.remove(at);
            assert!(read(&[MAGIC.as_slice(), &fewer.concat()].concat()).is_err(), "without {at}");
            let mut swapped = parts.clone();
            swapped.swap(at, (at + 1) % parts.len());
            assert!(read(&[MAGIC.as_slice(), &swapped.concat()].concat()).is_err(), "swapped {at}");
        }
    }
}
