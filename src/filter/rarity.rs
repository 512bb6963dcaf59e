//! How rare a text is in the lines of ordinary traffic.

use std::sync::LazyLock;

/// Most bytes of what is searched for in place of a longer text.
const WINDOW: usize = 6;

/// Ordinary lines of both logs, and what is known of them.
struct Ordinary {
    text: Vec<u8>,
    /// For each byte, and for each byte behind another one, how much it tells: quarters of a bit.
    bytes: [u8; 256],
    pairs: Vec<u8>,
}

/// In [`Ordinary::pairs`]: there is no such pair.
const UNSEEN: u8 = 36;

static ORDINARY: LazyLock<Ordinary> = LazyLock::new(|| {
    let text = include_bytes!("ordinary.txt").to_ascii_lowercase();
    let mut bytes = [0u32; 256];
    let mut pairs = vec![0u32; 1 << 16];
    for pair in text.windows(2) {
        let byte = pair
            .first()
            .and_then(|byte| bytes.get_mut(usize::from(*byte)));
        for count in byte.into_iter().chain(pairs.get_mut(place(pair))) {
            *count += 1;
        }
    }
    let bits = |of: u32, all: usize| match of {
        0 => UNSEEN,
        of => ((all as f64 / f64::from(of)).log2() * 4.0).min(f64::from(UNSEEN - 1)) as u8,
    };
    let by_place = |(at, count): (usize, &u32)| {
        let before = bytes.get(at >> 8).map_or(0, |count| *count as usize);
        bits(*count, before)
    };
    Ordinary {
        pairs: pairs.iter().enumerate().map(by_place).collect(),
        bytes: bytes.map(|count| bits(count, text.len())),
        text,
    }
});

fn place(pair: &[u8]) -> usize {
    pair.iter().fold(0, |at, byte| at << 8 | usize::from(*byte))
}

impl Ordinary {
    /// Bits that a text tells, judged by its pairs; whether a pair is unseen.
    fn judge(&self, text: &[u8]) -> (u32, bool) {
        let first = text.first();
        let first = first.and_then(|byte| self.bytes.get(usize::from(*byte)));
        let mut unseen = false;
        let pairs = text.windows(2).map(|pair| {
            let bits = self.pairs.get(place(pair)).copied().unwrap_or(UNSEEN);
            unseen |= bits == UNSEEN;
            u32::from(bits)
        });
        let bits = first.copied().map_or(0, u32::from) + pairs.sum::<u32>();
        (bits / 4, unseen)
    }
}

/// The rarest part of a text in lower case, and its rarity in bits: with `n` bits it begins at
/// one in 2^n bytes of ordinary lines.
pub(super) fn rarest(text: &[u8]) -> (&[u8], u32) {
    let ordinary = &*ORDINARY;
    let at = rarest_at(text, WINDOW);
    let window = text.get(at..text.len().min(at + WINDOW)).unwrap_or(text);
    let (bits, unseen) = ordinary.judge(window);
    let times = match unseen || window.is_empty() {
        true => 0,
        false => memchr::memmem::find_iter(&ordinary.text, window).count(),
    };
    let counted = (ordinary.text.len() as u32).checked_div(times as u32);
    (
        window,
        counted.map_or(bits, |one_in| bits.min(one_in.ilog2())),
    )
}

/// Where the rarest `length` bytes of a text begin; 0 if the text is shorter.
pub(super) fn rarest_at(text: &[u8], length: usize) -> usize {
    let windows = text.windows(length).enumerate();
    let judged = windows.max_by_key(|(_, window)| ORDINARY.judge(window));
    judged.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_many_lines_is_not_rare() {
        for (text, part, least, most) in [
            ("mozilla/5.0", None, 0, 8),
            (" http/1.1", None, 0, 8),
            ("/wp-login.php", None, 12, 48),
            ("phpunit", None, 12, 48),
            ("safari/zgrab", Some("zgrab"), 12, 48),
            ("", Some(""), 0, 0),
            ("a", Some("a"), 2, 6),
        ] {
            let (window, bits) = rarest(text.as_bytes());
            let window = String::from_utf8_lossy(window);
            assert!(
                part.is_none_or(|part| window.contains(part)),
                "{text}: {window}"
            );
            assert!((least..=most).contains(&bits), "{text}: {window} {bits}");
        }
    }
}
