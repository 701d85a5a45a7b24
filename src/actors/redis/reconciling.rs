//! Whole tables, read and taken over: at the start of a connection, and whenever notices may have
//! been missed.

use std::collections::BTreeSet;

use super::loss::{evicted_since, remember};
use super::session::{Session, Whose};
use crate::store::redis::client::{Condition, LinkError};
use crate::store::redis::diff::Observed;
use crate::store::redis::keys::{keys, ours};
use crate::store::redis::tables::{Key, Raw};
use crate::store::redis::whole::WholeTables;
use crate::store::redis::writes::Entries;

impl Session {
    /// Makes the catalog equal to the whole tables.
    pub(super) async fn take_whole(&mut self, tables: WholeTables) -> Result<(), LinkError> {
        let WholeTables { entries, passed_over } = tables;
        let catalog = self.parts.view.copy().1;
        let mut observed = Observed::of(&entries);
        observed.complete(&catalog);
        for key in self.loss.absences.borrow().given_up() {
            observed.believe(key, &catalog);
        }
        drop(catalog);
        self.malformed.read_whole(passed_over, &observed.malformed);
        self.take(&mut observed, &entries, Whose::Unknown).await
    }

    /// What is missing was evicted, also where no notice told of it.
    pub(super) async fn reconcile_after_eviction(
        &mut self,
        found: &Condition,
    ) -> Result<(), LinkError> {
        let known = ours(&self.view());
        let tables = self.link.load(&known).await?;
        self.saw(&tables.entries);
        self.fence().await?;
        self.give_up_absent(&tables.entries, found)?;
        self.take_whole(tables).await?;
        self.loss.heal(&mut self.link).await
    }

    /// The count of evictions is remembered only after what follows from it is known.
    fn give_up_absent(&mut self, entries: &Entries, found: &Condition) -> Result<(), LinkError> {
        self.loss.give_up_absent(entries, &self.notices.put_off_keys());
        let marker = self.remembered.memory.marker.clone();
        remember(&mut self.remembered, marker, found)
    }

    /// Reads the whole tables if anything in Redis has changed.
    pub(super) async fn reconcile_if_changed(&mut self) -> Result<(), LinkError> {
        let changes = self.link.change_count().await?;
        if changes.is_some() && changes == self.reconciled_at {
            return Ok(());
        }
        self.reconciled_at = changes;
        self.reconcile(!self.told).await
    }

    /// Reads the whole tables; what means nothing again only if `everything` is asked for, as a
    /// notice would have told of its becoming something.
    pub(super) async fn reconcile(&mut self, everything: bool) -> Result<(), LinkError> {
        let known = ours(&self.view());
        let mut tables = if everything {
            self.link.load(&known).await?
        } else {
            self.link.load_news(&known, self.malformed.passed_over()).await?
        };
        self.look_for_missing(&mut tables.entries, everything).await?;
        self.take_whole(tables).await?;
        self.rows.load(&mut self.link, &self.remembered).await
    }

    /// The whole tables were read: learns why they have not all that the catalog has, and adds what
    /// was written meanwhile. `missed`: notices may have been missed.
    pub(super) async fn look_for_missing(
        &mut self,
        entries: &mut Entries,
        missed: bool,
    ) -> Result<(), LinkError> {
        self.saw(entries);
        let missing: BTreeSet<Key> =
            keys(&self.view()).filter(|key| !entries.contains_key(key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let heard_all = self.fence().await?;
        let (again, _) = self.read(&missing).await?;
        entries.extend(again.into_iter().filter(|(_, raw)| *raw != Raw::Absent));
        let condition = self.link.condition().await?;
        if evicted_since(&self.remembered, &condition) {
            self.give_up_absent(entries, &condition)?;
        }
        if missed || !heard_all {
            let absent = missing.iter().filter(|key| !entries.contains_key(key));
            self.loss.absences.borrow_mut().missed_notices(absent);
        }
        Ok(())
    }
}
