//! Cuts what a child writes into lines for the log, and says how many a second. Pure.

use clipper_clock::{Instant, Second};
use clipper_domain::printable::printable;

/// Put behind a line whose rest was cut.
const CUT: &str = " ... (cut)";

/// Bytes in, lines out: a line feed or a carriage return ends one, what is too long is cut, and
/// what could move a terminal's cursor or is no text at all is written out.
#[derive(Debug)]
pub(super) struct Lines {
    max_bytes: usize,
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, line: Vec::new(), is_cut: false }
    }

    /// Takes in what was read and gives each line that has ended. Empty ones are left out: they
    /// say nothing, and a carriage return before a line feed ends one line, not two.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if let Some(line) = self.take() {
                each(line);
            }
        }
        self.extend(bytes);
    }

    /// The line that has no end yet.
    pub(super) fn take(&mut self) -> Option<String> {
        if self.line.is_empty() {
            return None;
        }
        let mut text = printable(&String::from_utf8_lossy(&self.line)).into_owned();
        if self.is_cut {
            text.push_str(CUT);
        }
        self.line.clear();
        self.is_cut = false;
        Some(text)
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = self.max_bytes - self.line.len();
        self.is_cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// How many lines a second reach the log; the others are counted.
#[derive(Debug)]
pub(super) struct Quota {
    per_second: u32,
    second: Second,
    left_out: u64,
}

impl Quota {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: Second::default(), left_out: 0 }
    }

    /// Whether one more may be logged now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let admitted = self.second.count(now) <= self.per_second;
        self.left_out += u64::from(!admitted);
        admitted
    }

    /// When there is something to tell of what was left out.
    pub(super) fn due(&self) -> Option<Instant> {
        self.second.end().filter(|_| self.left_out > 0)
    }

    /// How many were left out, once it is due; counts anew.
    pub(super) fn left_out(&mut self, now: Instant) -> Option<u64> {
        self.due().filter(|due| *due <= now).map(|_| std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(max_bytes: usize, pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = Lines::new(max_bytes);
        let mut found = Vec::new();
        for piece in pieces {
            splitter.push(piece, |line| found.push(line));
        }
        found.extend(splitter.take());
        found
    }

    #[test]
    fn either_return_ends_a_line_and_both_end_one() {
        assert_eq!(
            lines(80, &[b"a\r", b"\nb\n\n", b"10%\r20%\r", b"rest"]),
            ["a", "b", "10%", "20%", "rest"]
        );
    }

    #[test]
    fn long_lines_are_cut_and_the_next_one_is_whole() {
        let long = [b'x'; 9_000];
        let found = lines(10, &[&long, &long, b"\nshort\n", b"0123456789\n"]);
        assert_eq!(found, ["xxxxxxxxxx ... (cut)", "short", "0123456789"]);
    }

    #[test]
    fn what_is_no_text_is_replaced_and_escapes_are_written_out() {
        let found = lines(80, &[b"a\xff\xfeb\n", "\u{1b}[31mred\u{202e}\n".as_bytes()]);
        assert_eq!(found, ["a\u{fffd}\u{fffd}b", "\\u{1b}[31mred\\u{202e}"]);
    }

    #[test]
    fn a_quota_counts_what_it_leaves_out_and_tells_in_the_next_second() {
        let now = clipper_clock::now();
        let mut quota = Quota::new(2);
        let admitted: Vec<bool> = (0..5).map(|_| quota.admit(now)).collect();
        assert_eq!(admitted, [true, true, false, false, false]);
        assert_eq!(quota.left_out(now), None);
        let later = now + Second::LENGTH;
        assert_eq!(quota.due(), Some(later));
        assert_eq!(quota.left_out(later), Some(3));
        assert_eq!(quota.due(), None);
        assert!(quota.admit(later));
    }
}
