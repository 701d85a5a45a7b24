//! Which event made each member of an application what it is.

use std::collections::BTreeMap;

use super::log::entry;
use super::{History, Point};
use crate::store::difference::app_fields;
use crate::store::error::StoreError;
use crate::store::event::Envelope;
use crate::store::projection::Catalog;
use clipper_domain::difference::fields;
use clipper_domain::history::{Blame, BlamedField, LogEntry};

/// Bytes of records read at a time.
const STEP_BYTES: usize = 1 << 20;

impl History {
    /// Whose doing an application is, by its last `events_max` events; `None`: there is no such
    /// application.
    ///
    /// # Errors
    /// The engine's.
    pub fn blame(&self, app: &str, events_max: usize) -> Result<Option<Blame>, StoreError> {
        let (seq, catalog) = self.view.copy();
        let Some(now) = app_fields(&catalog, app) else { return Ok(None) };
        drop(catalog);
        let mut found = self.find(Some(app), None, &(self.forgotten() + 1..=seq));
        let mut seqs = found.take(events_max, true);
        let is_whole = found.take(1, true).is_empty();
        let before = if is_whole { self.forgotten() } else { seqs.first().map_or(0, |s| s - 1) };
        // The application at that time; its events change nothing else of what is asked.
        let mut state = Catalog::default();
        let mut looked_from = 0;
        if before > 0 {
            match self.state_at(Point::Seq(before)) {
                Ok(at) => {
                    state = at.catalog.only(app);
                    looked_from = before + 1;
                }
                // Of a journal that an older release has compacted.
                Err(StoreError::NotKept { .. }) => looked_from = before + 1,
                Err(error) => return Err(error),
            }
        }
        let mut made = MembersMadeBy::default();
        while !seqs.is_empty() {
            let events = self.events(&seqs, STEP_BYTES)?;
            for envelope in &events {
                made.follow(&mut state, app, envelope);
            }
            seqs.drain(..events.len().clamp(1, seqs.len()));
        }
        let field = |(field, value)| {
            let by = made.by.remove(&field);
            BlamedField { by, field, value }
        };
        let fields = now.into_iter().map(field).collect();
        Ok(Some(Blame { app: app.to_owned(), seq, looked_from, fields }))
    }
}

/// What has made the members of one application, as far as it is known.
#[derive(Default)]
struct MembersMadeBy {
    by: BTreeMap<String, LogEntry>,
}

impl MembersMadeBy {
    fn follow(&mut self, state: &mut Catalog, app: &str, envelope: &Envelope) {
        let before = app_fields(state, app).unwrap_or_default();
        state.fold(&envelope.event);
        let Some(after) = app_fields(state, app) else {
            // What comes by this name later is another one.
            return self.by.clear();
        };
        for change in fields(&before, &after) {
            self.by.insert(change.field, entry(envelope, false));
        }
    }
}
