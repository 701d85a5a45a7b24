//! What waits to be exported: bounded in spans and bytes, and never waited for.
//!
//! Who leaves something wakes the exporter only where a whole message waits for it: that is a
//! system call. It looks by itself now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::facts::Finished;
use crate::metrics::{SpanEnd, TraceMetrics};
use clipper_clock::{self as clock, Instant};
use clipper_config::TracesConfig;

/// How far the queue is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueStage {
    Open,
    /// Nothing more comes; what there is may be exported until then.
    Closing(Instant),
    Empty,
}

/// The queue, and what both of its ends know.
#[derive(Debug)]
pub(super) struct Queue {
    to: SyncSender<Finished>,
    /// Taken by the exporter.
    from: Mutex<Option<Receiver<Finished>>>,
    spans: AtomicUsize,
    bytes: AtomicUsize,
    spans_max: usize,
    max_bytes: usize,
    /// Spans of one message.
    message_spans: usize,
    exporter: Mutex<Option<Thread>>,
    stage: watch::Sender<QueueStage>,
    counts: Arc<TraceMetrics>,
}

impl Queue {
    pub(super) fn new(config: &TracesConfig, counts: Arc<TraceMetrics>) -> Self {
        // Each has a span at least.
        let (to, from) = sync_channel(config.queue_spans_max);
        Self {
            to,
            from: Mutex::new(Some(from)),
            spans: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            spans_max: config.queue_spans_max,
            max_bytes: config.queue_max_bytes,
            message_spans: config.export_spans_max,
            exporter: Mutex::default(),
            stage: watch::channel(QueueStage::Open).0,
            counts,
        }
    }

    /// Leaves something, or counts it as lost where there is no room.
    pub(super) fn push(&self, finished: Finished) {
        let (spans, bytes) = (finished.spans(), finished.bytes());
        let before = self.spans.fetch_add(spans, Relaxed);
        let held = self.bytes.fetch_add(bytes, Relaxed);
        let fits = before + spans <= self.spans_max && held + bytes <= self.max_bytes;
        let is_open = *self.stage.borrow() == QueueStage::Open;
        if !fits || !is_open || self.to.try_send(finished).is_err() {
            self.taken(spans, bytes);
            let why = if is_open { SpanEnd::QueueFull } else { SpanEnd::Stopped };
            return self.counts.ended(why, spans);
        }
        self.counts.set_queued(self.spans());
        if before < self.message_spans && self.message_spans <= before + spans {
            self.wake();
        }
    }

    fn taken(&self, spans: usize, bytes: usize) {
        self.spans.fetch_sub(spans, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn spans(&self) -> usize {
        self.spans.load(Relaxed)
    }

    fn wake(&self) {
        if let Some(exporter) = &*self.exporter.lock() {
            exporter.unpark();
        }
    }

    /// Lets nothing in any more; what there is may be exported until then.
    pub(super) fn close(&self, until: Instant) {
        self.stage.send_replace(QueueStage::Closing(until));
        self.wake();
    }

    /// Waits until the exporter has nothing left.
    pub(super) async fn emptied(&self) {
        let mut stage = self.stage.subscribe();
        // The sender is this queue's.
        let _ = stage.wait_for(|stage| *stage == QueueStage::Empty).await;
    }
}

/// The exporter's end.
pub(super) struct Taker {
    queue: Arc<Queue>,
    from: Receiver<Finished>,
    /// What did not fit into the message before.
    next: Option<Finished>,
}

impl Taker {
    /// For the calling thread; once.
    pub(super) fn new(queue: Arc<Queue>) -> Option<Self> {
        let from = queue.from.lock().take()?;
        *queue.exporter.lock() = Some(std::thread::current());
        Some(Self { queue, from, next: None })
    }

    /// As much as a message has; nothing if nothing waits.
    pub(super) fn take(&mut self) -> Vec<Finished> {
        let (mut message, mut spans) = (Vec::new(), 0);
        while let Some(one) = self.next.take().or_else(|| self.from.try_recv().ok()) {
            let more = one.spans();
            if spans > 0 && spans + more > self.queue.message_spans {
                self.next = Some(one);
                break;
            }
            spans += more;
            self.queue.taken(more, one.bytes());
            message.push(one);
        }
        self.queue.counts.set_queued(self.queue.spans());
        message
    }

    /// Sleeps so long, or until it is woken.
    pub(super) fn wait(&self, pause: Duration) {
        if self.until().is_none() && self.queue.spans() < self.queue.message_spans {
            std::thread::park_timeout(pause);
        }
    }

    /// Sleeps so long, or until nothing more comes in.
    pub(super) fn pause(&self, pause: Duration) {
        let end = clock::now() + pause;
        while self.until().is_none() {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Until when may be exported; none as long as more comes.
    pub(super) fn until(&self) -> Option<Instant> {
        match *self.queue.stage.borrow() {
            QueueStage::Open => None,
            QueueStage::Closing(until) => Some(until),
            QueueStage::Empty => Some(clock::now()),
        }
    }

    /// Nothing is left.
    pub(super) fn end(self) {
        self.queue.stage.send_replace(QueueStage::Empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::traces::facts::{Call, CallEnd, FinishedRequest, Moment};
    use clipper_domain::{TraceContext, TraceParent};

    fn finished() -> Finished {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(text).unwrap();
        let request = FinishedRequest {
            context: TraceContext { parent, state: None },
            parent: None,
            call: Call::Grpc { service: "s", method: "m" },
            request_id: None,
            began: clock::now(),
            ended: Moment::now(),
            end: CallEnd::Status(0),
            broken: None,
            queries: Vec::new(),
            left_out: 0,
        };
        request.into()
    }

    fn queue(spans: usize, bytes: usize, message: usize) -> (Arc<Queue>, Arc<TraceMetrics>) {
        let config = TracesConfig {
            queue_spans_max: spans,
            queue_max_bytes: bytes,
            export_spans_max: message,
            ..TracesConfig::default()
        };
        let counts = Arc::clone(Metrics::new().traces());
        (Arc::new(Queue::new(&config, Arc::clone(&counts))), counts)
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        for (spans, bytes) in [(3, usize::MAX), (100, 3 * finished().bytes())] {
            let (queue, counts) = queue(spans, bytes, 2);
            for _ in 0..10 {
                queue.push(finished());
            }
            assert_eq!((queue.spans(), counts.count(SpanEnd::QueueFull)), (3, 7));
            let mut taker = Taker::new(Arc::clone(&queue)).unwrap();
            assert_eq!((taker.take().len(), taker.take().len(), taker.take().len()), (2, 1, 0));
            assert_eq!((queue.spans(), queue.bytes.load(Relaxed)), (0, 0));
            queue.push(finished());
            assert_eq!(taker.take().len(), 1, "there is room again");
        }
    }

    #[test]
    fn what_a_client_writes_counts() {
        let long = || "x".repeat(1_000);
        let Finished::Request(mut request) = finished() else { panic!("a request") };
        request.call =
            Call::Http { method: "POST".into(), route: "/v2", path: long().into(), is_tls: false };
        request.context.state = Some(long().into());
        request.request_id = Some(long().into());
        let more = Finished::Request(request).bytes() - finished().bytes();
        assert_eq!(more, 3_000 + "POST".len());
    }

    #[test]
    fn a_request_of_more_spans_than_a_message_has_is_sent_alone() {
        let (queue, _) = queue(100, usize::MAX, 0);
        queue.push(finished());
        queue.push(finished());
        let mut taker = Taker::new(queue).unwrap();
        assert_eq!((taker.take().len(), taker.take().len(), taker.take().len()), (1, 1, 0));
    }

    #[tokio::test]
    async fn nothing_comes_in_after_the_end() {
        let (queue, counts) = queue(100, usize::MAX, 10);
        queue.push(finished());
        let mut taker = Taker::new(Arc::clone(&queue)).unwrap();
        queue.close(clock::now());
        queue.push(finished());
        assert_eq!(counts.count(SpanEnd::Stopped), 1);
        assert!(taker.until().is_some());
        taker.wait(Duration::from_secs(600));
        assert_eq!(taker.take().len(), 1);
        taker.end();
        queue.emptied().await;
    }
}
