//! A backup of a journal while it is written: all that was acknowledged when it began, and policy
//! state as it is met.

use super::format::{BackupError, Header};
use super::writing::BackupWriter;
use crate::store::error::StoreError;
use crate::store::history::History;
use crate::store::policy_state::PolicyStateStore;
use crate::store::record;

/// Events read at a time.
const RUN: u64 = 256;
/// Policy state read at a time, bytes.
const PAGE_BYTES: usize = 256 << 10;

/// One that is being written, piece by piece. Each is read from the store when it is asked for, and
/// may be asked for again of a clone.
#[derive(Clone)]
pub struct Backup {
    history: History,
    states: PolicyStateStore,
    header: Header,
    writer: BackupWriter,
    next: NextPiece,
}

/// What the next piece has.
#[derive(Debug, Clone)]
enum NextPiece {
    Header,
    Snapshot,
    /// From this one on.
    Events(u64),
    /// After this key.
    States(Option<String>),
    Nothing,
}

impl Backup {
    /// Of everything up to now.
    ///
    /// # Errors
    /// The engine's.
    pub fn begin(
        history: History,
        states: PolicyStateStore,
        made_at_ms: u64,
    ) -> Result<Self, BackupError> {
        let (last, forgotten) = (history.last(), history.forgotten());
        // Events before the oldest snapshot, of a journal that an older release has compacted,
        // stay.
        let bases = history.checkpoints()?;
        let base = bases.into_iter().find(|base| *base >= forgotten).filter(|_| forgotten > 0);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let header = Header { version, made_at_ms, base: base.unwrap_or(0), last };
        Ok(Self {
            history,
            states,
            header,
            writer: BackupWriter::default(),
            next: NextPiece::Header,
        })
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// The engine's. `NotKept` if the journal was compacted meanwhile, more than it keeps: then a
    /// new attempt may be quicker.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        let (base, last) = (self.header.base, self.header.last);
        let (piece, next) = match self.next.clone() {
            NextPiece::Header if base > 0 => {
                (self.writer.header(&self.header), NextPiece::Snapshot)
            }
            NextPiece::Header => (self.writer.header(&self.header), NextPiece::Events(1)),
            NextPiece::Snapshot => (self.snapshot()?, NextPiece::Events(base + 1)),
            NextPiece::Events(next) if next <= last => {
                let records = self.history.records(next, last.min(next + RUN - 1))?;
                let next = next + records.len().max(1) as u64;
                let events = records.iter();
                let piece = events.flat_map(|(seq, record)| self.writer.event(*seq, record));
                (piece.collect(), NextPiece::Events(next))
            }
            NextPiece::Events(_) => self.states(None)?,
            NextPiece::States(after) => self.states(after.as_deref())?,
            NextPiece::Nothing => return Ok(None),
        };
        self.next = next;
        Ok(Some(piece))
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, BackupError> {
        let Header { base, last, .. } = self.header;
        let snapshot = self.history.checkpoint(base)?.filter(|snapshot| snapshot.seq == base);
        let gone = StoreError::NotKept { seq: base, oldest: base + 1, newest: last };
        let record = record::encode(0, &snapshot.ok_or(gone)?);
        Ok(self.writer.snapshot(&record.map_err(|error| not_encoded(&error))?))
    }

    /// The states after a key; the end where there are none.
    fn states(&mut self, after: Option<&str>) -> Result<(Vec<u8>, NextPiece), BackupError> {
        let page = self.states.page(after, PAGE_BYTES)?;
        let Some((key, _)) = page.last() else {
            return Ok((self.writer.end(), NextPiece::Nothing));
        };
        let next = NextPiece::States(Some(key.clone()));
        let piece = page.iter().flat_map(|(key, value)| self.writer.state(key, value));
        Ok((piece.collect(), next))
    }
}

fn not_encoded(error: &record::RecordError) -> BackupError {
    StoreError::Read { reason: error.to_string() }.into()
}
