//! Which file the next bytes go to, when one follows another: no line is split over two.

use std::fs::File;
use std::sync::Arc;

/// The file in use and the one that follows it.
#[derive(Debug, Default)]
pub(super) struct Destination {
    file: Option<Arc<File>>,
    next: Option<Next>,
    /// What went to `file` last was inside a line.
    midline: bool,
}

#[derive(Debug)]
struct Next {
    file: Arc<File>,
    /// Bytes that still go to the one before.
    left: u64,
}

impl Destination {
    /// The file to append to.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// From now on bytes go to `file`, but for the next `waiting` ones and the end of their last
    /// line. One that waits for its turn already is passed over.
    pub(super) fn change(&mut self, file: File, waiting: u64) {
        let file = Arc::new(file);
        match (&self.file, &mut self.next) {
            (None, _) => self.file = Some(file),
            (Some(_), Some(next)) => next.file = file,
            (Some(_), None) => {
                self.next = Some(Next {
                    file,
                    left: waiting,
                });
            }
        }
        self.settle();
    }

    /// There is no file any more.
    pub(super) fn none(&mut self) {
        *self = Destination::default();
    }

    /// How many of these bytes go to the file, before another one follows.
    pub(super) fn share(&self, bytes: &[u8]) -> usize {
        match &self.next {
            None => bytes.len(),
            Some(next) if next.left > 0 => usize::try_from(next.left)
                .unwrap_or(usize::MAX)
                .min(bytes.len()),
            Some(_) => memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1),
        }
    }

    /// So many bytes went to the file; the last of them.
    pub(super) fn wrote(&mut self, len: u64, last: Option<u8>) {
        self.midline = last.is_some_and(|byte| byte != b'\n');
        if let Some(next) = &mut self.next {
            next.left = next.left.saturating_sub(len);
        }
        self.settle();
    }

    /// The file takes nothing: the one that follows does, if there is one.
    pub(super) fn failed(&mut self) -> bool {
        match self.next.take() {
            Some(next) => {
                self.file = Some(next.file);
                self.midline = false;
                true
            }
            None => false,
        }
    }

    fn settle(&mut self) {
        let over = |next: &mut Next| next.left == 0;
        if !self.midline
            && let Some(next) = self.next.take_if(over)
        {
            self.file = Some(next.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use proptest::prelude::*;

    use super::*;

    fn text(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Writes all of `stream`, `at_once` bytes at most, with a change to the next file at each of
    /// these positions, of which the second number of bytes wait to be written.
    fn run(stream: &[u8], changes: &[(usize, usize)], at_once: usize) -> Vec<Vec<u8>> {
        let new = || tempfile::tempfile().unwrap();
        let mut files = vec![new()];
        let mut destination = Destination::default();
        destination.change(files[0].try_clone().unwrap(), 0);
        let mut done = 0;
        let mut changes = changes.iter().peekable();
        while done < stream.len() {
            while let Some((_, waiting)) = changes.next_if(|(at, _)| *at <= done) {
                files.push(new());
                let file = files.last().unwrap().try_clone().unwrap();
                destination.change(file, (*waiting).min(stream.len() - done) as u64);
            }
            let rest = &stream[done..];
            let share = destination.share(rest);
            assert!(share > 0);
            let part = &rest[..share.min(at_once)];
            destination
                .file()
                .unwrap()
                .as_ref()
                .write_all(part)
                .unwrap();
            destination.wrote(part.len() as u64, part.last().copied());
            done += part.len();
        }
        files.iter().map(text).collect()
    }

    proptest! {
        #[test]
        fn all_files_in_order_are_the_stream_and_each_ends_with_a_line(
            lines in proptest::collection::vec("[a-z]{0,9}", 0..20),
            mut changes in proptest::collection::vec((0..150usize, 0..40usize), 0..6),
            at_once in 1..30usize,
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            changes.sort_unstable();
            let files = run(&stream, &changes, at_once);
            prop_assert_eq!(files.concat(), stream);
            for file in files {
                prop_assert!(file.is_empty() || file.ends_with(b"\n"));
            }
        }
    }

    #[test]
    fn what_waits_goes_to_the_file_before() {
        assert_eq!(
            run(b"1\n2\n3\n4\n", &[(2, 4)], 2),
            [&b"1\n2\n3\n"[..], b"4\n"]
        );
        // What waits ends inside a line.
        assert_eq!(run(b"1\n22\n3\n", &[(0, 3)], 2), [&b"1\n22\n"[..], b"3\n"]);
    }

    #[test]
    fn a_file_that_takes_nothing_is_left_for_the_next() {
        let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut destination = Destination::default();
        destination.change(one, 0);
        destination.wrote(1, Some(b'x'));
        assert!(!destination.failed());
        destination.change(two.try_clone().unwrap(), 9);
        assert!(destination.failed());
        destination
            .file()
            .unwrap()
            .as_ref()
            .write_all(b"y\n")
            .unwrap();
        assert_eq!(text(&two), b"y\n");
        destination.none();
        assert!(destination.file().is_none());
    }
}
