//! The journal's events as people look for them.

use super::{History, Point};
use crate::store::error::StoreError;
use crate::store::event::{Author, Envelope, Event};
use crate::store::history::moment::utc;
use clipper_domain::SecretHash;
use clipper_domain::history::{LogEntry, LogPage};

/// Events read at a time.
const STEP: usize = 256;

/// Which events, and how many of them.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub app: Option<String>,
    pub model: Option<String>,
    /// A key, a user or an address.
    pub who: Option<String>,
    pub since: Option<Point>,
    /// Those after this event, the oldest first; without it, the newest ones.
    pub after: Option<u64>,
    /// Those before this event.
    pub before: Option<u64>,
}

/// What one answer may take.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    pub entries: usize,
    /// Of their records.
    pub bytes: usize,
    /// Events that are read to find them.
    pub examined: usize,
}

impl History {
    /// The events that a query asks for, in order.
    ///
    /// # Errors
    /// The engine's.
    pub fn log(&self, query: &Query, limits: LogLimits) -> Result<LogPage, StoreError> {
        let (last, forgotten) = (self.last(), self.forgotten());
        let since = query.since.map(|point| match point {
            Point::Seq(seq) => seq,
            Point::Time(unix_ms) => self.seq_of(Point::Time(unix_ms.saturating_sub(1))) + 1,
        });
        let first = since.unwrap_or(0).max(query.after.map_or(0, |after| after.saturating_add(1)));
        let before = query.before.unwrap_or(u64::MAX).saturating_sub(1);
        let seqs = first.max(forgotten + 1)..=last.min(before);
        let mut found = self.find(query.app.as_deref(), query.model.as_deref(), &seqs);
        let from_end = query.after.is_none();
        let mut page = LogPage { entries: Vec::new(), last, forgotten, next: None };
        let (mut bytes_left, mut examined) = (limits.bytes, 0);
        loop {
            let room = limits.entries - page.entries.len();
            let wanted = STEP.min(limits.examined - examined).min(match query.who {
                Some(_) => STEP,
                None => room,
            });
            let seqs = found.take(wanted.max(1), from_end);
            let Some(edge) = (if from_end { seqs.first() } else { seqs.last() }).copied() else {
                break;
            };
            examined += seqs.len();
            let (entries, used) = self.matching(query.who.as_deref(), &seqs)?;
            let is_full = entries.len() >= room || used >= bytes_left;
            bytes_left = bytes_left.saturating_sub(used);
            let edge = keep(&mut page.entries, entries, room, from_end).unwrap_or(edge);
            if is_full || examined >= limits.examined {
                page.next = Some(edge);
                break;
            }
        }
        Ok(page)
    }

    /// Those of some events that are asked for, and about how many bytes they take.
    fn matching(
        &self,
        who: Option<&str>,
        seqs: &[u64],
    ) -> Result<(Vec<LogEntry>, usize), StoreError> {
        let events = self.events(seqs, usize::MAX)?;
        let is_asked = |envelope: &Envelope| {
            who.is_none_or(|who| {
                let Author { origin, asker } = &envelope.author;
                asker.is(who) || origin.name() == who
            })
        };
        let mut used = 0;
        let entries = events.into_iter().filter(is_asked).map(|envelope| {
            let entry = entry(&envelope, true);
            used += serde_json::to_string(&entry).map_or(0, |text| text.len());
            entry
        });
        let entries = entries.collect();
        Ok((entries, used))
    }
}

/// Adds what there is room for; where the page ends, if something was left out.
fn keep(
    page: &mut Vec<LogEntry>,
    mut more: Vec<LogEntry>,
    room: usize,
    from_end: bool,
) -> Option<u64> {
    let too_many = more.len().saturating_sub(room);
    if from_end {
        more.drain(..too_many);
        let edge = more.first().map(|entry| entry.seq);
        more.append(page);
        *page = more;
        return edge.filter(|_| too_many > 0);
    }
    more.truncate(room);
    let edge = more.last().map(|entry| entry.seq);
    page.append(&mut more);
    edge.filter(|_| too_many > 0)
}

/// An event as it is told to whoever may look at everything.
#[must_use]
pub fn entry(envelope: &Envelope, with_event: bool) -> LogEntry {
    let Envelope { seq, recorded_at_ms, author, event } = envelope;
    let event_json = || serde_json::to_value(without_secrets(event.clone())).unwrap_or_default();
    LogEntry {
        seq: *seq,
        recorded_at_ms: *recorded_at_ms,
        at: utc(*recorded_at_ms),
        origin: author.origin.name().to_owned(),
        asker: author.asker.clone(),
        who: author.who(),
        what: event.to_string(),
        app: event.app().cloned(),
        model: event.model().cloned(),
        event: if with_event { event_json() } else { serde_json::Value::Null },
    }
}

/// Whoever may look at keys need not see what their secrets are made into.
fn without_secrets(mut event: Event) -> Event {
    if let Event::KeyAdded { key } | Event::KeyRotated { key } | Event::KeyLimited { key } =
        &mut event
    {
        (key.hash, key.previous) = (SecretHash([0; 32]), None);
    }
    event
}
