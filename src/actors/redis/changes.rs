//! Changes of the catalog, written into the shared tables first.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use tracing::error;

use super::notices::Announcement;
use super::session::Session;
use super::states::Learnt;
use crate::actors::catalog::writer::{Acknowledged, Execute};
use crate::store::ChangeError;
use crate::store::event::{Author, Event};
use crate::store::redis::client::{ANNOUNCEMENTS, LinkError};
use crate::store::redis::marker::{linking_key, mark_of_link};
use crate::store::redis::scan::KeyScan;
use crate::store::redis::tables::{Key, Raw, Table, app_of, initial_state};
use crate::store::redis::transaction::{Outcome, Transaction};
use crate::store::redis::writes::{Entries, Write, keys_of, related, stale_current, writes};
use clipper_domain::{Asker, Command, ModelName, Note};

/// Who waits for a change.
pub(super) type Reply = oneshot::Sender<Result<Acknowledged, ChangeError>>;

impl Session {
    /// Decides a change on what the tables hold now, writes it there, records it, answers.
    pub(super) async fn carry_out(
        &mut self,
        change: Execute,
        reply: Reply,
    ) -> Result<(), LinkError> {
        self.loss.heal(&mut self.link).await?;
        let retries = self.parts.config.conflict_retries_max;
        for _ in 0..=retries {
            // Nobody waits any more: it was answered as not written.
            if reply.is_closed() {
                return Ok(());
            }
            let (entries, now) = match self.read_for(&change.command).await {
                Ok(read) => read,
                Err(error) => return fail(reply, "nothing was written", &error),
            };
            let decided = self.parts.view.decide(&change.command);
            let events = match decided {
                Ok(events) => events,
                Err(refusal) => {
                    answer(reply, Err(refusal.into()));
                    return Ok(());
                }
            };
            if events.is_empty() {
                // All is as asked for. Where no key was read, the server's time is not known.
                answer(reply, Ok(Acknowledged { events: Vec::new() }));
                return Ok(());
            }
            let transaction = self.transaction(&events, (entries, now), &change.author);
            match self.link.commit(&transaction).await {
                Ok(Outcome::Done) => return self.recorded(events, change.author, reply).await,
                Ok(Outcome::Conflict) => {
                    self.parts.metrics.redis().conflicts.fetch_add(1, Relaxed);
                }
                Ok(Outcome::Late) => {
                    let late = LinkError::Failed("it answers too late".to_owned());
                    return fail(reply, "nothing was written", &late);
                }
                Err(error) => return fail(reply, "it may still be written", &error),
            }
        }
        let reason = format!("nothing was written: others were first {} times", retries + 1);
        answer(reply, Err(ChangeError::unavailable(reason)));
        Ok(())
    }

    /// Reads what decides about `command`.
    async fn read_for(&mut self, command: &Command) -> Result<(Entries, u64), LinkError> {
        let linking = self.learn_links(command).await?;
        let keys = keys_of(command, &self.parts.view.read());
        let (mut entries, now) = self.observe(keys).await?;
        entries.extend(linking);
        Ok((entries, now))
    }

    /// A version's input type must suit all applications that are linked to its model. Which these
    /// are is known from notices, and the newest may still be on its way: if there was a link
    /// lately, all are read. What the mark of it was then must still be so at the write.
    async fn learn_links(&mut self, command: &Command) -> Result<Entries, LinkError> {
        let models = command.versioned();
        if models.is_empty() {
            return Ok(Entries::new());
        }
        let (marks, _) = self.link.read(&models.iter().map(|m| linking_key(m)).collect()).await?;
        for model in models {
            let mark = marks.get(&linking_key(model));
            if mark.is_some_and(|raw| *raw != Raw::Absent) {
                let linked = self.linked_to(model).await?;
                self.observe(linked).await?;
            }
        }
        Ok(marks)
    }

    /// The keys of all applications that the tables link to a model.
    async fn linked_to(&mut self, model: &ModelName) -> Result<BTreeSet<Key>, LinkError> {
        let mut keys = BTreeSet::new();
        let mut scan = KeyScan::of(Table::Links, None);
        while let Some(slice) = self.link.next_keys(&mut scan).await? {
            let slice = slice.into_iter().filter(|key| app_of(key).is_some()).collect();
            for (key, raw) in self.link.read(&slice).await?.0 {
                if matches!(raw, Raw::Set(models) if models.contains(model.as_str().as_bytes())) {
                    keys.extend(related(&key));
                }
            }
        }
        Ok(keys)
    }

    fn transaction(
        &self,
        events: &[Event],
        (entries, now): (Entries, u64),
        author: &Author,
    ) -> Transaction {
        let mut writes: Vec<Write> = events.iter().flat_map(|e| writes(e, &entries)).collect();
        writes.extend(stale_current(events, &entries, &self.parts.view.read()));
        let linked = events.iter().filter_map(|event| match event {
            Event::ModelLinked { model, .. } => Some(model),
            _ => None,
        });
        writes.extend(linked.map(|model| mark_of_link(model, rand::random())));
        let added = events.iter().filter_map(|event| match event {
            Event::AppAdded { app } => Some(initial_state(app)),
            _ => None,
        });
        writes.extend(added.map(|(key, state)| Write::one(key, "SET", &state)));
        let keys = writes.iter().map(|write| {
            (write.key.table.number(), String::from_utf8_lossy(&write.key.name).into_owned())
        });
        let keys: BTreeSet<(i64, String)> = keys.collect();
        let announcement = Announcement {
            frontend: self.remembered.memory.frontend.clone(),
            keys: keys.into_iter().collect(),
            asker: Asker { via: Note::new(&self.parts.me.place), ..author.asker.clone() },
        };
        let announce = serde_json::to_string(&announcement).ok();
        Transaction {
            checks: entries,
            writes,
            announce: announce.map(|text| (ANNOUNCEMENTS.to_owned(), text)),
            // The answer is waited for as long, so a change that gets none is written by then or
            // never.
            latest_ms: Some(now + self.parts.config.command_timeout_ms),
        }
    }

    /// Shares policy state that was stored here first.
    pub(super) async fn tell(&mut self, learnt: &[Learnt]) -> Result<(), LinkError> {
        self.states.tell(&mut self.link, learnt).await
    }

    /// Shares what policies have learned here, some of it.
    pub(super) async fn share(&mut self) -> Result<(), LinkError> {
        self.states.share(&mut self.link, self.parts.config.share_rows_max).await
    }

    /// Policy state of a deleted application goes from the shared table too.
    async fn forget_states(&mut self, events: &[Event]) -> Result<(), LinkError> {
        for event in events {
            if let Event::AppDeleted { name } = event {
                self.states.forget(&mut self.link, name).await?;
            }
        }
        Ok(())
    }

    async fn recorded(
        &mut self,
        events: Vec<Event>,
        author: Author,
        reply: Reply,
    ) -> Result<(), LinkError> {
        match self.record(events.clone(), author, false).await {
            Ok(acknowledged) => {
                answer(reply, Ok(acknowledged));
                self.forget_states(&events).await
            }
            Err(reason) => {
                let reason = format!("it is in Redis, but was not acknowledged: {reason}");
                answer(reply, Err(ChangeError::unavailable(reason.clone())));
                Err(LinkError::Failed(reason))
            }
        }
    }
}

/// Answers that the change failed; ends the session unless Redis has answered and goes on.
fn fail(reply: Reply, doubt: &str, error: &LinkError) -> Result<(), LinkError> {
    let doubt = if error.certainly_not_written() { "nothing was written" } else { doubt };
    error!(%error, doubt, "a change was not carried out");
    answer(reply, Err(ChangeError::unavailable(format!("{doubt}: Redis: {error}"))));
    if matches!(error, LinkError::Refused(_)) { Ok(()) } else { Err(error.clone()) }
}

/// Tells who waits for a change, if anybody does.
pub(super) fn answer(reply: Reply, result: Result<Acknowledged, ChangeError>) {
    if reply.send(result).is_err() {
        tracing::debug!("nobody waits for the change any more");
    }
}
