//! The bounded queue between the connection that tells of changes and the session that looks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Notify, mpsc};

use crate::store::redis::client::Notice;

/// Keeps at most `max` notices; what is too much is dropped and remembered as such. `arrived` is
/// told of each, and of the end.
pub(super) fn queue(
    stream: impl Stream<Item = Notice> + 'static,
    max: usize,
    overflown: Arc<AtomicBool>,
    arrived: Arc<Notify>,
) -> mpsc::Receiver<Notice> {
    let (sender, receiver) = mpsc::channel(max);
    actix::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let notice = tokio::select! {
                notice = stream.next() => notice,
                () = sender.closed() => return,
            };
            match notice.map(|notice| sender.try_send(notice)) {
                Some(Ok(())) => {}
                Some(Err(mpsc::error::TrySendError::Full(_))) => overflown.store(true, Relaxed),
                Some(Err(mpsc::error::TrySendError::Closed(_))) => return,
                None => break,
            }
            arrived.notify_one();
        }
        // The connection is gone, which is to be seen too.
        drop(sender);
        arrived.notify_one();
    });
    receiver
}
