//! An answer in pieces, on its way from its replica's thread to its request's.
//!
//! The replica may send so many pieces as it has credits; what the request has taken becomes
//! credits again. So the queue between them is bounded by what the container was allowed to send,
//! and a caller who does not read stops the generator, and nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::budget::{Budget, Held};
use super::output::Output;
use clipper_clock::Instant;

/// What a piece takes besides its text, about.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// What pieces on their way may take.
#[derive(Debug, Clone)]
pub struct StreamBounds {
    /// Pieces of one answer that wait for their caller.
    pub pieces_max: u32,
    /// Bytes of the text of one piece.
    pub piece_max_bytes: u32,
    /// Bytes of all pieces that wait.
    pub all: Arc<Budget>,
}

/// Why a piece has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// More of them than the replica was allowed to send.
    TooMany,
    /// The pieces of all answers take too much.
    InSum,
}

/// Wakes the owner of a replica's connection: there are credits to give, or somebody has gone.
#[derive(Debug, Default)]
pub struct Bell {
    has_rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    pub fn ring(&self) {
        self.has_rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once after it has rung, however often.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.has_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Debug)]
struct PieceQueue {
    pieces: VecDeque<Output>,
    held: Held,
    /// Pieces taken since credits were given for them.
    taken: u32,
    bell: Option<Arc<Bell>>,
}

/// The answer; the replica's end of it.
#[derive(Debug)]
pub struct Stream {
    pieces_max: u32,
    /// When it ends at the latest.
    pub until: Instant,
    queue: Mutex<PieceQueue>,
    caller: AtomicWaker,
    has_begun: AtomicBool,
    is_complete: AtomicBool,
    is_wanted: AtomicBool,
}

impl Stream {
    /// A stream without pieces that ends by `until`, and its caller's end.
    #[must_use]
    pub fn new(bounds: &StreamBounds, until: Instant) -> (Arc<Self>, Pieces) {
        let held = bounds.all.hold();
        let queue = PieceQueue { pieces: VecDeque::new(), held, taken: 0, bell: None };
        let stream = Arc::new(Self {
            pieces_max: bounds.pieces_max,
            until,
            queue: Mutex::new(queue),
            caller: AtomicWaker::new(),
            has_begun: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
            is_wanted: AtomicBool::new(true),
        });
        (Arc::clone(&stream), Pieces(stream))
    }

    /// Rings `bell` from now on when there is something to do for the replica.
    pub fn listen(&self, bell: &Arc<Bell>) {
        self.queue.lock().bell = Some(Arc::clone(bell));
    }

    /// Adds a piece; one that nobody wants any more is dropped.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn push(&self, piece: Output) -> Result<(), NoPlace> {
        {
            let mut queue = self.queue.lock();
            if !self.is_wanted() {
                return Ok(());
            }
            if queue.pieces.len() >= self.pieces_max as usize {
                return Err(NoPlace::TooMany);
            }
            if !queue.held.grow(piece.json().len() + PIECE_OVERHEAD_BYTES) {
                return Err(NoPlace::InSum);
            }
            queue.pieces.push_back(piece);
        }
        self.caller.wake();
        Ok(())
    }

    /// How many more pieces may be sent than before: so many were taken.
    #[must_use]
    pub fn take_credits(&self) -> u32 {
        std::mem::take(&mut self.queue.lock().taken)
    }

    /// Whether its caller is still there.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// From its first piece on it can be answered by nobody else.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    /// All pieces have been added: the output with which its query ends is none of them.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }
}

/// The caller's end of a stream; dropping it says that nobody wants the rest.
#[derive(Debug)]
pub struct Pieces(Arc<Stream>);

impl Pieces {
    /// The next piece, if it is there.
    #[must_use]
    pub fn pop(&mut self) -> Option<Output> {
        let mut queue = self.0.queue.lock();
        let piece = queue.pieces.pop_front()?;
        let less = piece.json().len() + PIECE_OVERHEAD_BYTES;
        let left = queue.held.bytes().saturating_sub(less);
        // Less is always granted.
        let _ = queue.held.resize(left);
        queue.taken += 1;
        // Not for each one: that would be a message for each.
        let bell = queue.bell.clone().filter(|_| queue.taken * 2 >= self.0.pieces_max);
        drop(queue);
        if let Some(bell) = bell {
            bell.ring();
        }
        Some(piece)
    }

    /// The same, as soon as it is there.
    pub fn poll_pop(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        if let Some(piece) = self.pop() {
            return Poll::Ready(piece);
        }
        self.0.caller.register(cx.waker());
        self.pop().map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether the query's output is none: all pieces have been added.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.is_complete.load(Ordering::Acquire)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.0.is_wanted.store(false, Ordering::Release);
        let (pieces, bell) = {
            let mut queue = self.0.queue.lock();
            let _ = queue.held.resize(0);
            (std::mem::take(&mut queue.pieces), queue.bell.take())
        };
        // Not under the lock.
        drop(pieces);
        if let Some(bell) = bell {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clipper_clock as clock;
    use futures_util::task::noop_waker;

    fn bounds(all: usize) -> StreamBounds {
        StreamBounds { pieces_max: 4, piece_max_bytes: 100, all: Budget::new(all) }
    }

    fn piece(text: &str) -> Output {
        Output::from_text(text.as_bytes()).unwrap()
    }

    fn has_rung(bell: &Bell) -> bool {
        bell.poll_rung(&mut Context::from_waker(&noop_waker())).is_ready()
    }

    #[test]
    fn pieces_come_in_order_and_become_credits_when_half_of_them_were_taken() {
        let (stream, mut pieces) = Stream::new(&bounds(10_000), clock::now());
        let bell = Arc::new(Bell::default());
        stream.listen(&bell);
        for text in ["1", "2", "3", "4"] {
            stream.push(piece(text)).unwrap();
        }
        assert_eq!(stream.push(piece("5")), Err(NoPlace::TooMany));
        assert_eq!(pieces.pop(), Some(piece("1")));
        assert!(!has_rung(&bell));
        assert_eq!(pieces.pop(), Some(piece("2")));
        assert!(has_rung(&bell) && !has_rung(&bell));
        assert_eq!((stream.take_credits(), stream.take_credits()), (2, 0));
        stream.push(piece("5")).unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| pieces.pop()).collect();
        assert_eq!(rest, [piece("3"), piece("4"), piece("5")]);
    }

    #[test]
    fn who_goes_rings_and_gives_all_back_and_later_pieces_go_nowhere() {
        let bounds = bounds(10_000);
        let (stream, pieces) = Stream::new(&bounds, clock::now());
        let bell = Arc::new(Bell::default());
        stream.listen(&bell);
        stream.push(piece("1")).unwrap();
        assert!(bounds.all.used() > 0 && stream.is_wanted());
        drop(pieces);
        assert!(has_rung(&bell) && !stream.is_wanted());
        stream.push(piece("2")).unwrap();
        assert_eq!(bounds.all.used(), 0);
    }

    #[test]
    fn what_waits_in_sum_is_bounded() {
        let bounds = bounds(150);
        let (one, _one_pieces) = Stream::new(&bounds, clock::now());
        let (other, mut other_pieces) = Stream::new(&bounds, clock::now());
        one.push(piece("1")).unwrap();
        other.push(piece("2")).unwrap();
        assert_eq!(one.push(piece(&"x".repeat(90))), Err(NoPlace::InSum));
        assert!(other_pieces.pop().is_some());
        one.push(piece("3")).unwrap();
    }
}
