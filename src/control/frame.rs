//! JSON objects, one a line, in both directions.

use serde::Serialize;

/// One message with its newline. Messages of this module always serialise; should one ever not,
/// an empty line goes out, which the other side refuses.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A line longer than its bound; nothing after it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Cuts what arrives into lines of at most `max` bytes, newline included.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    start: usize,
    searched: usize,
    max: usize,
}

impl Lines {
    /// Nothing has arrived.
    pub fn new(max: usize) -> Lines {
        Lines {
            bytes: Vec::new(),
            start: 0,
            searched: 0,
            max,
        }
    }

    /// Takes in what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its newline; `None`: more must arrive.
    ///
    /// # Errors
    /// The line is longer than the bound, whether it has ended or not.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let from = self.searched.max(self.start);
        let unseen = self.bytes.get(from..).unwrap_or(&[]);
        let Some(end) = memchr::memchr(b'\n', unseen).map(|at| from + at) else {
            self.searched = self.bytes.len();
            return if self.bytes.len() - self.start >= self.max {
                Err(TooLong)
            } else {
                Ok(None)
            };
        };
        let line = self.start..end;
        if line.len() >= self.max {
            return Err(TooLong);
        }
        self.start = end + 1;
        Ok(self.bytes.get(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in_however_they_are_split(
            lines in prop::collection::vec("[a-z]{0,20}", 0..20),
            sizes in prop::collection::vec(1usize..9, 1..50),
        ) {
            let mut bytes: Vec<u8> = Vec::new();
            for line in &lines {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            let (mut framing, mut out, mut rest) = (Lines::new(21), Vec::new(), bytes.as_slice());
            for size in sizes.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at(size.min(rest.len()));
                framing.push(piece);
                rest = after;
                while let Some(line) = framing.next_line().unwrap() {
                    out.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(out, lines);
        }
    }

    #[test]
    fn a_line_over_the_bound_is_refused_ended_or_not() {
        for (bytes, fits) in [
            ("abc\n", true),
            ("abcd\n", false),
            ("abc", true),
            ("abcd", false),
        ] {
            let mut lines = Lines::new(4);
            lines.push(bytes.as_bytes());
            assert_eq!(lines.next_line().is_ok(), fits, "{bytes:?}");
        }
    }
}
