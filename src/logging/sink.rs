//! Where log lines wait to be written: bounded, and never in anybody's way.
//!
//! Whoever logs puts a line into a queue, and one thread writes it. Where that thread cannot write
//! (a full disk, a closed pipe, a pipe that nobody reads) the queue fills up, and further lines
//! are lost and counted. Nobody else notices.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clipper_domain::printable::printable_json;
use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// A writer that is told to wait is asked again after this.
const RETRY: Duration = Duration::from_millis(20);

/// Written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The queue of lines. Clones share it.
#[derive(Debug, Clone)]
pub struct Sink(Arc<SinkState>);

#[derive(Debug)]
struct SinkState {
    max_bytes: usize,
    queue: Mutex<LineQueue>,
    filled: Condvar,
    emptied: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct LineQueue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread has lines that it has not written yet.
    is_writing: bool,
}

impl Sink {
    /// A queue of at most so many bytes.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let (queue, filled, emptied) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self(Arc::new(SinkState { max_bytes, queue, filled, emptied, lost: Arc::default() }))
    }

    /// Counts the lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.lost)
    }

    /// Writes to `output`, on a thread of its own, until the process ends. `tell` says how many
    /// lines were lost once lines can be written again.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn write_to(
        &self,
        output: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<()> {
        let sink = self.clone();
        let thread = std::thread::Builder::new().name("log".to_owned()).stack_size(256 << 10);
        thread.spawn(move || sink.keep_writing(output, tell)).map(drop)
    }

    /// Adds a line, its end included, if there is room.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.bytes + line.len() > self.0.max_bytes {
            drop(queue);
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Waits until all is written, but no longer than `patience`.
    pub fn flush(&self, patience: Duration) {
        let mut queue = self.0.queue.lock();
        let is_busy = |queue: &mut LineQueue| queue.is_writing || !queue.lines.is_empty();
        self.0.emptied.wait_while_for(&mut queue, is_busy, patience);
    }

    /// The next lines, as many as fit into one chunk. Waits for the first one.
    fn take(&self) -> Vec<u8> {
        let mut queue = self.0.queue.lock();
        queue.is_writing = false;
        if queue.lines.is_empty() {
            self.0.emptied.notify_all();
        }
        self.0.filled.wait_while(&mut queue, |queue| queue.lines.is_empty());
        queue.is_writing = true;
        let mut chunk = Vec::new();
        while let Some(line) = queue.lines.front()
            && (chunk.is_empty() || chunk.len() + line.len() <= CHUNK_BYTES)
        {
            chunk.extend_from_slice(line);
            queue.bytes -= line.len();
            queue.lines.pop_front();
        }
        chunk
    }

    fn keep_writing(&self, mut output: impl Write, tell: impl Fn(u64)) {
        let mut told = 0;
        // A write has failed in the middle of a line, which the next one must not continue.
        let mut is_torn = false;
        loop {
            let mut chunk = self.take();
            if is_torn {
                chunk.insert(0, b'\n');
            }
            let written = write(&mut output, &chunk);
            if written < chunk.len() {
                let ends = chunk[written..].split(|byte| *byte == b'\n').count() - 1;
                // The one put in front ends a line that was counted before.
                let lines = ends - usize::from(is_torn && written == 0);
                self.0.lost.fetch_add(lines as u64, Ordering::Relaxed);
                is_torn = if written == 0 { is_torn } else { chunk[written - 1] != b'\n' };
                continue;
            }
            is_torn = false;
            let lost = self.0.lost.load(Ordering::Relaxed);
            if lost > told {
                tell(lost - told);
                // Told only if there was room for it.
                if self.0.lost.load(Ordering::Relaxed) == lost {
                    told = lost;
                }
            }
        }
    }
}

/// Writes as much of `chunk` as can be; waits where the other end wants time.
#[allow(clippy::disallowed_methods, reason = "the thread of the log has nothing else to do")]
pub(super) fn write(output: &mut impl Write, chunk: &[u8]) -> usize {
    let mut written = 0;
    while written < chunk.len() {
        match output.write(&chunk[written..]) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    written
}

/// One line of the subscriber.
impl Write for &Sink {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Of lines that are JSON, which leaves characters as they are that turn the direction of writing.
#[derive(Debug, Clone)]
pub struct JsonLines(pub Sink);

/// One of these lines.
#[derive(Debug)]
pub struct JsonLine<'sink>(&'sink Sink);

impl Write for JsonLine<'_> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.push(printable_json(text).as_bytes()),
            Err(_) => self.0.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'sink> MakeWriter<'sink> for JsonLines {
    type Writer = JsonLine<'sink>;

    fn make_writer(&'sink self) -> Self::Writer {
        JsonLine(&self.0)
    }
}

impl<'sink> MakeWriter<'sink> for Sink {
    type Writer = &'sink Sink;

    fn make_writer(&'sink self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Fails or waits as the test says, and hands on what it takes.
    struct Output {
        gate: mpsc::Receiver<bool>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.gate.recv() != Ok(true) {
                return Err(std::io::Error::from(ErrorKind::StorageFull));
            }
            self.taken.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn sink(
        max_bytes: usize,
    ) -> (Sink, Arc<AtomicU64>, mpsc::Sender<bool>, mpsc::Receiver<Vec<u8>>) {
        let sink = Sink::new(max_bytes);
        let lost = sink.lost();
        let (open, gate) = mpsc::channel();
        let (taken, seen) = mpsc::channel();
        let told = sink.clone();
        sink.write_to(Output { gate, taken }, move |n| told.push(format!("lost {n}\n").as_bytes()))
            .unwrap();
        (sink, lost, open, seen)
    }

    #[test]
    fn line_11b_json_lines_have_no_character_that_deceives() {
        let (sink, _, open, seen) = sink(1_000);
        let lines = JsonLines(sink);
        lines.make_writer().write_all("{\"a\":\"x\u{202e}y\"}\n".as_bytes()).unwrap();
        open.send(true).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"{\"a\":\"x\\u202ey\"}\n");
    }

    #[test]
    fn a_writer_that_waits_costs_lines_and_nobody_waits_for_it() {
        let (sink, lost, open, seen) = sink(100);
        for _ in 0..1_000 {
            sink.push(b"0123456789\n");
        }
        let counted = || lost.load(Ordering::Relaxed);
        assert!((980..1_000).contains(&counted()), "{}", counted());
        sink.flush(Duration::from_millis(1));
        let mut text = Vec::new();
        // What is said finds no room itself while the queue is full; then it is said later.
        while !text.ends_with(format!("lost {}\n", counted()).as_bytes()) {
            open.send(true).unwrap();
            text.extend(seen.recv_timeout(PATIENCE).unwrap());
        }
        sink.flush(PATIENCE);
    }

    #[test]
    fn a_writer_that_fails_loses_lines_and_later_ones_are_written() {
        let (sink, lost, open, seen) = sink(10_000);
        for line in ["one\n", "two\n"] {
            sink.push(line.as_bytes());
            open.send(false).unwrap();
            sink.flush(PATIENCE);
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        sink.push(b"three\n");
        open.send(true).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"three\n");
        open.send(true).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"lost 2\n");
    }
}
