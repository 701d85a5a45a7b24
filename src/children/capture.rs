//! What a child writes becomes log lines with its name.
//!
//! The capture lives as long as somebody holds the other end of the pipe: a child whose output
//! nobody reads stops at its next `print`. So nothing that it writes ends it, and the log, which
//! never blocks, is all that it waits for.

use std::io;
use std::sync::Arc;

use clipper_clock as clock;
use clipper_domain::ModelId;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tracing::{info, warn};

use super::lines::{Lines, Quota};
use super::probation::Probation;
use super::seen::Child;

/// Read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// Whose output it is, and how much of it is logged.
#[derive(Clone)]
pub(super) struct Capture {
    pub(super) model: ModelId,
    pub(super) number: u32,
    pub(super) line_max_bytes: usize,
    pub(super) lines_per_second: u32,
    pub(super) seen: Arc<Child>,
    pub(super) trial: Option<Arc<dyn Probation>>,
}

impl Capture {
    /// Reads until the pipe's last other end is closed.
    pub(super) async fn run(self, mut output: impl AsyncRead + Unpin) {
        let mut lines = Lines::new(self.line_max_bytes);
        let mut quota = Quota::new(self.lines_per_second);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match quota.due() {
                None => output.read(&mut chunk).await,
                Some(due) => tokio::select! {
                    read = output.read(&mut chunk) => read,
                    () = tokio::time::sleep_until(due) => {
                        self.tell_left_out(&mut quota);
                        continue;
                    }
                },
            };
            match read {
                Ok(0) => break,
                Ok(n) => lines.push(&chunk[..n], |line| self.heard(&line, &mut quota)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    warn!(model = %self.model, child = self.number, %error,
                        "the output of a container process cannot be read any more");
                    break;
                }
            }
            self.tell_left_out(&mut quota);
        }
        if let Some(rest) = lines.take() {
            self.heard(&rest, &mut quota);
        }
    }

    fn heard(&self, line: &str, quota: &mut Quota) {
        self.seen.wrote(line);
        if quota.admit(clock::now()) {
            info!(target: "container", model = %self.model, child = self.number, "{line}");
        }
        if let Some(trial) = &self.trial {
            trial.heard(line);
        }
    }

    fn tell_left_out(&self, quota: &mut Quota) {
        if let Some(lines) = quota.left_out(clock::now()) {
            warn!(target: "container", model = %self.model, child = self.number,
                "{lines} more lines of its output were left out \
                 (containers.output_lines_per_second_max)");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clipper_domain::{ModelName, ModelVersion};
    use parking_lot::Mutex;
    use tokio::io::AsyncWriteExt as _;

    use super::super::seat::Seat;
    use super::super::seen::SeenChildren;
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Probation for Heard {
        fn heard(&self, line: &str) {
            self.0.lock().push(line.to_owned());
        }
        fn exited(&self, _: String) {}
        fn is_adopted(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn the_capture_reads_whatever_is_written_until_the_end() {
        let heard = Arc::new(Heard::default());
        let id = ModelId::new(ModelName::parse("m").unwrap(), ModelVersion::parse("1").unwrap());
        let seen = SeenChildren::new(1).show(&id, 0, Seat::new().watch());
        let capture = Capture {
            model: id,
            number: 0,
            line_max_bytes: 100,
            lines_per_second: 10,
            seen,
            trial: Some(heard.clone()),
        };
        let (mut writer, reader) = tokio::io::duplex(1 << 10);
        let captured = tokio::spawn(capture.run(reader));
        let write = async move {
            writer.write_all(&[b'x'; 9_000]).await.unwrap();
            writer.write_all(b"\xff\xfe\n").await.unwrap();
            for n in 0..300 {
                writer.write_all(format!("\r{n} of 300").as_bytes()).await.unwrap();
            }
            writer.write_all(b"\nlast").await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(60), write).await.expect("it is read");
        captured.await.unwrap();
        let heard = heard.0.lock();
        assert!(heard[0].ends_with("x ... (cut)"), "{}", heard[0]);
        assert_eq!((heard[1].as_str(), heard.len()), ("0 of 300", 302));
        assert_eq!(heard.last().unwrap(), "last");
    }
}
