//! The bounded queue between the connection that tells of changes and the session that looks.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{Notify, mpsc};

use super::absences::SharedAbsences;
use crate::store::CatalogView;
use crate::store::redis::client::{Happened, LinkError, Notice};
use crate::store::redis::keys::has;
use crate::store::redis::tables::Key;
use clipper_domain::Asker;

/// What a frontend says before it writes.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Announcement {
    pub(super) frontend: String,
    pub(super) keys: Vec<(i64, String)>,
    /// Who asked for it.
    #[serde(flatten)]
    pub(super) asker: Asker,
}

/// What Redis tells of.
pub(super) struct Notices {
    queue: mpsc::Receiver<Notice>,
    /// Those that came while a certain one was waited for, and whether what is known of absences
    /// includes them.
    put_off: VecDeque<(Notice, bool)>,
    /// Of each of both.
    max: usize,
    /// Some were dropped, so the whole tables have to be read.
    overflown: Arc<AtomicBool>,
    view: CatalogView,
    absences: SharedAbsences,
}

impl Notices {
    /// Keeps at most `max` notices; what is too much is dropped and remembered as such. `arrived`
    /// is told of each, and of the end.
    pub(super) fn queue(
        stream: impl Stream<Item = Notice> + 'static,
        max: usize,
        arrived: Arc<Notify>,
        view: CatalogView,
        absences: SharedAbsences,
    ) -> Self {
        let (sender, queue) = mpsc::channel(max);
        let overflown = Arc::new(AtomicBool::new(false));
        let dropped = Arc::clone(&overflown);
        actix::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                let notice = tokio::select! {
                    notice = stream.next() => notice,
                    () = sender.closed() => return,
                };
                match notice.map(|notice| sender.try_send(notice)) {
                    Some(Ok(())) => {}
                    Some(Err(TrySendError::Full(_))) => dropped.store(true, Relaxed),
                    Some(Err(TrySendError::Closed(_))) => return,
                    None => break,
                }
                arrived.notify_one();
            }
            // The connection is gone, which is to be seen too.
            drop(sender);
            arrived.notify_one();
        });
        Self { queue, put_off: VecDeque::new(), max, overflown, view, absences }
    }

    /// The next one, if it is here; none at the end of those that are.
    pub(super) fn next(&mut self) -> Result<Option<Notice>, LinkError> {
        match self.put_off.pop_front() {
            Some((notice, true)) => return Ok(Some(notice)),
            Some((notice, false)) => return Ok(Some(self.hear(notice).0)),
            None => {}
        }
        match self.queue.try_recv() {
            Ok(notice) => Ok(Some(self.hear(notice).0)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(closed()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.put_off.is_empty() && self.queue.is_empty()
    }

    /// Whether some were dropped since this was asked last.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflown.swap(false, Relaxed)
    }

    /// Hears all up to an announcement; they are looked at later. False if some were dropped.
    pub(super) async fn hear_until(
        &mut self,
        announced: &str,
        limit: Duration,
    ) -> Result<bool, LinkError> {
        let heard = async {
            loop {
                match self.queue.recv().await {
                    Some(Notice::Announced(text)) if text == announced => return Ok(()),
                    Some(notice) => {
                        let heard = self.hear(notice);
                        if self.put_off.len() < self.max {
                            self.put_off.push_back(heard);
                        } else {
                            self.overflown.store(true, Relaxed);
                        }
                    }
                    None => return Err(closed()),
                }
            }
        };
        let heard = tokio::time::timeout(limit, heard).await;
        let overflown = self.overflown.load(Relaxed);
        match heard {
            Ok(heard) => heard.map(|()| !overflown),
            // It may have been among those that were dropped.
            Err(_) if overflown => Ok(false),
            Err(_) => Err(LinkError::Silent(limit)),
        }
    }

    /// Keys that were put off with another reason to look than that Redis gave them up.
    pub(super) fn put_off_keys(&self) -> BTreeSet<Key> {
        let changed = self.put_off.iter().filter_map(|(notice, _)| match notice {
            Notice::Changed(_, Happened::GivenUp) | Notice::Announced(_) => None,
            Notice::Changed(key, _) => Some(key.clone()),
        });
        changed.collect()
    }

    /// Notes what a notice says of the absence of a key; whether it does, as keys that the catalog
    /// has not yet are asked about again when the notice is looked at.
    fn hear(&self, notice: Notice) -> (Notice, bool) {
        let heard = match &notice {
            Notice::Changed(key, happened) if has(&self.view.read(), key) => {
                self.absences.borrow_mut().told(key, *happened);
                true
            }
            Notice::Changed(..) | Notice::Announced(_) => false,
        };
        (notice, heard)
    }
}

fn closed() -> LinkError {
    LinkError::Failed("the connection for notices was closed".to_owned())
}
