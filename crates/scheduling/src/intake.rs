//! Where queries wait until their model's thread takes them: a bounded list that all HTTP workers
//! add to and that one reader empties at once.
//!
//! It is apart from the mailbox, so that no number of queries can keep control messages out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// The list. Items count as much as they say when they are added.
#[derive(Debug)]
pub struct Intake<T> {
    items: Mutex<Items<T>>,
    waiting: AtomicUsize,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct Items<T> {
    list: Vec<T>,
    is_closed: bool,
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        let items = Mutex::new(Items { list: Vec::new(), is_closed: false });
        Self { items, waiting: AtomicUsize::new(0), reader: AtomicWaker::new() }
    }
}

impl<T> Intake<T> {
    /// What waits, by its own count.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Adds an item that counts `n`, and wakes the reader.
    ///
    /// # Errors
    /// The item, if more than `max` would wait, or if the intake is closed.
    pub fn add(&self, item: T, n: usize, max: usize) -> Result<(), T> {
        let is_first = {
            let mut items = self.items.lock();
            if items.is_closed || self.waiting() + n > max {
                return Err(item);
            }
            self.waiting.fetch_add(n, Ordering::Relaxed);
            items.list.push(item);
            items.list.len() == 1
        };
        // Otherwise whoever added the first one has woken it.
        if is_first {
            self.reader.wake();
        }
        Ok(())
    }

    /// Takes everything, in the order in which it came.
    pub fn take(&self, into: &mut Vec<T>) {
        let mut items = self.items.lock();
        self.waiting.store(0, Ordering::Relaxed);
        if into.is_empty() {
            std::mem::swap(&mut items.list, into);
        } else {
            into.append(&mut items.list);
        }
    }

    /// Takes everything and lets nothing in any more.
    pub fn close(&self, into: &mut Vec<T>) {
        self.items.lock().is_closed = true;
        self.take(into);
    }

    /// Lets items in again.
    pub fn open(&self) {
        self.items.lock().is_closed = false;
    }

    /// Ready when something waits. One reader at a time is woken.
    pub fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_items() {
            return Poll::Ready(());
        }
        self.reader.register(cx.waker());
        if self.has_items() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_items(&self) -> bool {
        !self.items.lock().list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_is_bounded_by_what_items_count_and_emptied_at_once() {
        let intake = Intake::default();
        assert_eq!((intake.add('a', 2, 4), intake.add('b', 2, 4)), (Ok(()), Ok(())));
        assert_eq!(intake.add('c', 1, 4), Err('c'));
        let mut taken = Vec::new();
        intake.take(&mut taken);
        assert_eq!((taken, intake.waiting()), (vec!['a', 'b'], 0));
        assert_eq!(intake.add('c', 1, 4), Ok(()));
        let mut taken = Vec::new();
        intake.close(&mut taken);
        assert_eq!((taken, intake.add('d', 1, 4)), (vec!['c'], Err('d')));
        intake.open();
        assert_eq!(intake.add('d', 1, 4), Ok(()));
    }

    #[tokio::test]
    async fn its_reader_is_woken() {
        let intake = Arc::new(Intake::default());
        let reader = Arc::clone(&intake);
        let read = tokio::spawn(async move {
            poll_fn(|cx| reader.poll_waiting(cx)).await;
            let mut taken = Vec::new();
            reader.take(&mut taken);
            taken
        });
        tokio::task::yield_now().await;
        intake.add(7, 1, 1).unwrap();
        assert_eq!(read.await.unwrap(), [7]);
    }
}
