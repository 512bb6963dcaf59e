//! Reads logs, plain or compressed, as blocks of whole lines.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::pipe::MAX_LINE;

/// The front of a file that gzip or xz wrote.
const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = b"\xfd7zXZ\0";
/// KiB that the decoder of xz may use; `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// Bytes of a log in order.
pub(in crate::cli) enum Block<'b> {
    /// Whole lines; the last one of the log may lack its newline.
    Lines(&'b [u8]),
    /// A line that is too long to be matched, as behind Apache.
    TooLong,
}

/// One log.
pub(in crate::cli) struct Blocks {
    input: Box<dyn Read>,
    /// Holds one block; a line that does not fit is too long.
    buffer: Vec<u8>,
    /// The end of what was read.
    filled: usize,
    /// The end of what was returned.
    taken: usize,
    /// In a line that is too long.
    skipping: bool,
    ended: bool,
}

impl Blocks {
    /// Detects compression by the first bytes.
    pub(in crate::cli) fn new(mut input: Box<dyn Read>) -> io::Result<Blocks> {
        let mut front = Vec::new();
        let length = XZ.len() as u64;
        (&mut input).take(length).read_to_end(&mut front)?;
        let (gzip, xz) = (front.starts_with(GZIP), front == XZ);
        let whole = Cursor::new(front).chain(input);
        let input: Box<dyn Read> = if gzip {
            Box::new(MultiGzDecoder::new(whole))
        } else if xz {
            let buffered = BufReader::with_capacity(64 << 10, whole);
            Box::new(XzReader::new_mem_limit(buffered, true, XZ_MEMORY))
        } else {
            Box::new(whole)
        };
        Ok(Blocks {
            input,
            buffer: vec![0; MAX_LINE],
            filled: 0,
            taken: 0,
            skipping: false,
            ended: false,
        })
    }

    /// The next block; `None` at the end of the log.
    pub(in crate::cli) fn next(&mut self) -> io::Result<Option<Block<'_>>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        while !self.ended {
            let mut before = self.filled;
            let room = self.buffer.get_mut(before..).unwrap_or_default();
            match self.input.read(room) {
                Ok(0) => self.ended = true,
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.skipping {
                self.skip();
                before = 0;
            }
            if self.skipping {
                continue;
            }
            let new = self.buffer.get(before..self.filled).unwrap_or_default();
            if let Some(end) = memchr::memrchr(b'\n', new) {
                self.taken = before + end + 1;
                return Ok(Some(Block::Lines(self.taken())));
            }
            if self.filled == self.buffer.len() {
                self.skipping = true;
                self.filled = 0;
                return Ok(Some(Block::TooLong));
            }
        }
        self.taken = self.filled;
        Ok((self.taken > 0).then(|| Block::Lines(self.taken())))
    }

    fn taken(&self) -> &[u8] {
        self.buffer.get(..self.taken).unwrap_or_default()
    }

    /// Drops what was read up to the end of the line.
    fn skip(&mut self) {
        let read = self.buffer.get(..self.filled).unwrap_or_default();
        match memchr::memchr(b'\n', read) {
            Some(end) => {
                self.buffer.copy_within(end + 1..self.filled, 0);
                self.filled -= end + 1;
                self.skipping = false;
            }
            None => self.filled = 0,
        }
    }
}

/// A file or, with `-`, standard input; and the length of the file.
pub(in crate::cli) fn open(name: &str) -> io::Result<(Box<dyn Read>, u64)> {
    if name == "-" {
        return Ok((Box::new(io::stdin()), 0));
    }
    let file = File::open(name)?;
    let length = file.metadata()?.len();
    Ok((Box::new(file), length))
}
