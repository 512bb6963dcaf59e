//! Damage in SQLite's log of changes. SQLite reports none: it passes over a log whose header is
//! damaged, and over everything from a damaged frame on.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAX_PAGE: usize = 65_536;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// SQLite uses nothing of the log.
    Header,
    /// Behind this many whole frames there are committed ones that SQLite does not use.
    Frames(u64),
}

/// `None` also where there is no log, or none that can be read.
pub(super) fn damage(log: &Path) -> Option<Damage> {
    let mut log = BufReader::new(File::open(log).ok()?);
    let mut header = [0; HEADER];
    // A shorter one has no changes, nor has one without a frame.
    log.read_exact(&mut header).ok()?;
    let mut next = [0];
    let mut frames = match log.read(&mut next) {
        Ok(1) => next.chain(log),
        _ => return None,
    };
    let Some(mut sums) = Sums::of(&header) else {
        return Some(Damage::Header);
    };
    let page = word(&header, 8) as usize;
    let salts = header.get(16..24)?;
    let mut frame = vec![0; FRAME_HEADER + page.clamp(512, MAX_PAGE)];
    let (mut whole, mut broken) = (0, false);
    while frames.read_exact(&mut frame).is_ok() {
        // Others are left from before the log began again.
        let current = frame.get(8..16) == Some(salts);
        sums.add(frame.get(..8)?);
        sums.add(frame.get(FRAME_HEADER..)?);
        broken |= !current || !sums.are(&frame, 16);
        // The size of the database: only the last frame of a transaction has it.
        if broken && current && word(&frame, 4) != 0 {
            return Some(Damage::Frames(whole));
        }
        whole += u64::from(!broken);
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_be_bytes(word.unwrap_or_default())
}

/// The checksums of SQLite's file format, each over everything before.
struct Sums {
    big_endian: bool,
    sums: [u32; 2],
}

impl Sums {
    /// `None`: the header is damaged.
    fn of(header: &[u8; HEADER]) -> Option<Sums> {
        let big_endian = match word(header, 0) {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return None,
        };
        let sums = [0, 0];
        let mut sums = Sums { big_endian, sums };
        sums.add(header.get(..24)?);
        sums.are(header, 24).then_some(sums)
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut of = 0;
        for at in (0..bytes.len()).step_by(4) {
            let word = word(bytes, at);
            let word = if self.big_endian {
                word
            } else {
                word.swap_bytes()
            };
            let [one, other] = &mut self.sums;
            // In turn, each with the other.
            let (sum, with) = if of == 0 {
                (one, *other)
            } else {
                (other, *one)
            };
            *sum = sum.wrapping_add(word).wrapping_add(with);
            of = 1 - of;
        }
    }

    fn are(&self, bytes: &[u8], at: usize) -> bool {
        self.sums == [word(bytes, at), word(bytes, at + 4)]
    }
}
