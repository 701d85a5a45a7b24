//! The newest events, in a file of fixed length before the engine: a write-ahead log.
//!
//! Changes are acknowledged when their group is here and synced. That is one write and one
//! `fdatasync`, and nothing that the file system has to note: the file was filled when it was made,
//! so neither its length nor its places change. The engine takes the events later, many at once;
//! what it has not synced is read from here at a start.
//!
//! Each group begins at a multiple of [`PAGE`], so that no write touches a page that was
//! acknowledged:
//!
//! | bytes | what |
//! |---|---|
//! | 0-3 | `CWL1` |
//! | 4-11 | u64 little-endian: the generation, one more each time the file is begun again |
//! | 12-15 | u32: the group's number in its generation |
//! | 16-19 | u32: payload bytes |
//! | 20-23 | u32: CRC-32 (IEEE) of bytes 0-19 and the payload |
//! | 24- | payload: for each event its number (u64), its record's length (u32), its record |
//!
//! The file is begun again only after the engine has synced all that is in it. So groups of older
//! generations hold nothing new, and a power cut can only take the last group of the newest one,
//! which was not acknowledged then. Within a record no text reads as a header: its length would be
//! beyond the file.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::durable::sync_directory;
use super::record::checksum;

pub const FILE: &str = "wal";
/// What disks write whole, or at least do not damage beside.
const PAGE: usize = 4096;
/// As many changes of one client as fill the engine's part of it, about.
const BYTES: usize = 1 << 20;
const MAGIC: [u8; 4] = *b"CWL1";
const CHECKED_HEADER: usize = 20;
const HEADER: usize = 24;
/// Before each record.
const RECORD_HEADER: usize = 12;

/// An event's number and its record.
pub type Numbered = (u64, Vec<u8>);

/// What the file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The records of the newest generation, in order.
    pub records: Vec<Numbered>,
    /// After the last of its groups.
    pub end: Place,
}

/// Where the next group goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// 0: the file was never used.
    generation: u64,
    number: u32,
    page: usize,
}

/// The open file.
#[derive(Debug)]
pub struct Wal {
    file: File,
    identity: (u64, u64),
    next: Cell<Place>,
}

impl Wal {
    /// Opens the file in `directory`, or makes it; what it holds stays as it is.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(directory.join(FILE))?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length < BYTES {
            file.write_all_at(&vec![0; BYTES - length], length as u64)?;
            file.sync_all()?;
            sync_directory(directory)?;
        }
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), next: Cell::default() })
    }

    /// The device and the number of the file.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Goes on at the end of what was read.
    pub fn resume(&self, end: Place) {
        self.next.set(end);
    }

    pub fn read(&self) -> io::Result<Recent> {
        let mut bytes = vec![0; BYTES];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(read(&bytes))
    }

    /// Begins the file again with a group of nothing, also on the disk: nothing that it held is
    /// read again, whatever the engine has.
    pub fn empty(&self) -> io::Result<()> {
        self.begin_again();
        self.write(&[])
    }

    /// What was written is in the engine and synced there: the next group begins the file again.
    pub fn begin_again(&self) {
        let generation = self.next.get().generation + 1;
        self.next.set(Place { generation, number: 0, page: 0 });
    }

    pub fn has_room_for(&self, records: &[Numbered]) -> bool {
        self.next.get().page + pages(payload_bytes(records)) <= BYTES / PAGE
    }

    /// Writes a group; it lasts after [`Self::sync`]. The caller has asked for room.
    pub fn write(&self, records: &[Numbered]) -> io::Result<()> {
        let Place { generation, number, page } = self.next.get();
        let group = encode(generation, number, records)
            .ok_or_else(|| io::Error::other("too large for the write-ahead log"))?;
        self.file.write_all_at(&group, (page * PAGE) as u64)?;
        let page = page + group.len() / PAGE;
        self.next.set(Place { generation, number: number + 1, page });
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn payload_bytes(records: &[Numbered]) -> usize {
    records.iter().map(|(_, record)| RECORD_HEADER + record.len()).sum()
}

fn pages(payload: usize) -> usize {
    (HEADER + payload).div_ceil(PAGE)
}

/// A group in whole pages; `None` if it is too long for its length's field.
fn encode(generation: u64, number: u32, records: &[Numbered]) -> Option<Vec<u8>> {
    let payload = payload_bytes(records);
    let mut group = Vec::with_capacity(pages(payload) * PAGE);
    group.extend(MAGIC);
    group.extend(generation.to_le_bytes());
    group.extend(number.to_le_bytes());
    group.extend(u32::try_from(payload).ok()?.to_le_bytes());
    group.extend([0; HEADER - CHECKED_HEADER]);
    for (seq, record) in records {
        group.extend(seq.to_le_bytes());
        group.extend(u32::try_from(record.len()).ok()?.to_le_bytes());
        group.extend(record);
    }
    let checksum = checksum(&group[..CHECKED_HEADER], &group[HEADER..]);
    group[CHECKED_HEADER..HEADER].copy_from_slice(&checksum.to_le_bytes());
    group.resize(pages(payload) * PAGE, 0);
    Some(group)
}

struct WalGroup<'b> {
    generation: u64,
    number: u32,
    payload: &'b [u8],
    /// Where it ends.
    page: usize,
}

/// Groups are looked for at every page, so that damage to one hides no later one.
fn read(bytes: &[u8]) -> Recent {
    let mut groups = Vec::new();
    let mut page = 0;
    while let Some(rest) = bytes.get(page * PAGE..).filter(|rest| !rest.is_empty()) {
        match group(rest) {
            Some(group) => {
                page += pages(group.payload.len());
                groups.push(WalGroup { page, ..group });
            }
            None => page += 1,
        }
    }
    let generation = groups.iter().map(|group| group.generation).max().unwrap_or(0);
    groups.retain(|group| group.generation == generation);
    groups.sort_by_key(|group| group.number);
    let records = groups.iter().flat_map(|group| records(group.payload)).collect();
    let last = groups.last();
    let end = last.map(|last| Place { generation, number: last.number + 1, page: last.page });
    Recent { records, end: end.unwrap_or_default() }
}

fn group(bytes: &[u8]) -> Option<WalGroup<'_>> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let header = LittleEndian(header);
    let (magic, generation) = (header.0.get(..4)?, header.u64(4)?);
    let (number, length, wanted) = (header.u32(12)?, header.u32(16)?, header.u32(20)?);
    let payload = rest.get(..usize::try_from(length).ok()?)?;
    let found = checksum(header.0.get(..CHECKED_HEADER)?, payload);
    (magic == MAGIC && found == wanted).then_some(WalGroup { generation, number, payload, page: 0 })
}

fn records(payload: &[u8]) -> Vec<Numbered> {
    let mut records = Vec::new();
    let mut rest = payload;
    while let Some((header, tail)) = rest.split_at_checked(RECORD_HEADER) {
        let header = LittleEndian(header);
        let length = header.u32(8).and_then(|length| usize::try_from(length).ok());
        let record = length.and_then(|length| tail.split_at_checked(length));
        // The checksum holds, so there is nothing else.
        let (Some(seq), Some((record, tail))) = (header.u64(0), record) else { break };
        records.push((seq, record.to_vec()));
        rest = tail;
    }
    records
}

/// Numbers in bytes, little-endian.
struct LittleEndian<'b>(&'b [u8]);

impl LittleEndian<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.0.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(seqs: std::ops::Range<u64>) -> Vec<Numbered> {
        seqs.map(|seq| (seq, format!("record {seq}").into_bytes())).collect()
    }

    fn write(wal: &Wal, records: &[Numbered]) {
        assert!(wal.has_room_for(records));
        wal.write(records).unwrap();
        wal.sync().unwrap();
    }

    fn seqs(wal: &Wal) -> Vec<u64> {
        wal.read().unwrap().records.iter().map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn what_was_written_since_it_was_begun_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path()).unwrap();
        assert_eq!(wal.read().unwrap(), Recent::default());
        wal.begin_again();
        write(&wal, &events(1..3));
        write(&wal, &events(3..900));
        write(&wal, &events(900..901));
        let again = Wal::open(dir.path()).unwrap();
        let found = again.read().unwrap();
        assert_eq!((found.end.generation, found.records), (1, events(1..901)));
        // Whoever opened it goes on behind that.
        again.resume(found.end);
        write(&again, &events(901..902));
        assert_eq!(again.read().unwrap().records, events(1..902));
        // What an older generation left behind a new one is not read.
        again.begin_again();
        write(&again, &events(902..903));
        assert_eq!(seqs(&wal), [902]);
        again.empty().unwrap();
        assert_eq!(wal.read().unwrap().end.generation, 3);
        assert_eq!(seqs(&wal), [0; 0]);
    }

    #[test]
    fn its_room_ends_where_the_file_ends() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path()).unwrap();
        wal.begin_again();
        let mut groups = 0;
        while wal.has_room_for(&events(groups..groups + 1)) {
            write(&wal, &events(groups..groups + 1));
            groups += 1;
        }
        assert_eq!(usize::try_from(groups).unwrap(), BYTES / PAGE);
        assert_eq!(seqs(&wal).len() as u64, groups);
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().len(), BYTES as u64);
        assert!(!wal.has_room_for(&[(1, vec![0; BYTES])]));
    }

    /// A cut in the middle of a write leaves the groups before it; damage to one, those after it
    /// too, so that the gap is seen.
    #[test]
    fn a_torn_or_damaged_group_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let wal = Wal::open(dir.path()).unwrap();
        wal.empty().unwrap();
        for first in [1, 4, 7] {
            write(&wal, &[events(first..first + 2), vec![(first + 2, vec![b'x'; 9_000])]].concat());
        }
        for (damaged, left) in [(3, vec![4, 5, 6, 7, 8, 9]), (5, vec![1, 2, 3, 7, 8, 9])] {
            let mut byte = [0];
            let at = (damaged * PAGE + 50) as u64;
            wal.file.read_exact_at(&mut byte, at).unwrap();
            wal.file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert_eq!(seqs(&wal), left, "page {damaged}");
            wal.file.write_all_at(&byte, at).unwrap();
        }
        assert_eq!(seqs(&wal).len(), 9);
    }
}
