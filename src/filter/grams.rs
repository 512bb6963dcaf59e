//! Finds thousands of texts in one pass, by three bytes of each.
//!
//! An automaton for as many texts is megabytes large, and each byte of a line costs a read of
//! memory that no cache holds. This is a few kilobytes for lines that hold none of the texts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::rarity::rarest_at;
use super::texthash::text_hash;

/// Bytes of a text that are looked up.
const GRAM: usize = 3;
/// Of [`Grams::seen`], as a power of two: enough that few texts lead to a useless look-up.
const BITS: u32 = 18;

/// Keys of [`Grams::by_gram`] for texts of two bytes and of one.
const TWO: u32 = 1 << 24;
const ONE: u32 = 1 << 25;

/// Texts in lower case, found in any case.
#[derive(Debug)]
pub(super) struct Grams {
    texts: Vec<Vec<u8>>,
    /// A bit for the hash of each gram.
    seen: Box<[u64; 1 << (BITS - 6)]>,
    /// A bit for each two bytes with which a text shorter than a gram may end.
    short: Box<[u64; 1 << 10]>,
    /// By gram or short text, the texts that hold it, and how many of their bytes are read then.
    by_gram: HashMap<u32, Vec<(usize, usize)>, BuildHasherDefault<FastHasher>>,
}

impl Grams {
    pub(super) fn new(texts: Vec<Vec<u8>>) -> Grams {
        let mut grams = Grams {
            seen: Box::new([0; _]),
            short: Box::new([0; _]),
            by_gram: HashMap::default(),
            texts: Vec::new(),
        };
        for (index, text) in texts.iter().enumerate() {
            let at = rarest_at(text, GRAM);
            let rarest = text.get(at..at + GRAM).unwrap_or(text);
            let gram = rarest.iter().fold(0, |gram, byte| next(gram, *byte));
            let key = match rarest.len() {
                GRAM => gram,
                2 => TWO | gram,
                1 => ONE | gram,
                _ => continue,
            };
            let behind = (at + GRAM).min(text.len());
            grams.by_gram.entry(key).or_default().push((index, behind));
            if key == gram {
                mark(&mut *grams.seen, place(gram));
                continue;
            }
            let firsts = match key & ONE {
                0 => gram >> 8..=gram >> 8,
                _ => 0..=0xff,
            };
            firsts.for_each(|first| mark(&mut *grams.short, pair(first << 8 | gram)));
        }
        grams.texts = texts;
        grams
    }

    /// Calls `found` with each place of each text, and its number.
    pub(super) fn each(&self, line: &[u8], mut found: impl FnMut(usize, usize)) {
        let mut look_up = |read: usize, key: u32| {
            for (index, behind) in self.by_gram.get(&key).into_iter().flatten() {
                let Some(start) = read.checked_sub(*behind) else {
                    continue;
                };
                let text = self.texts.get(*index).map_or(&[][..], Vec::as_slice);
                let there = line.get(start..start + text.len());
                if there.is_some_and(|there| there.eq_ignore_ascii_case(text)) {
                    found(start, *index);
                }
            }
        };
        let mut gram = 0;
        for (read, byte) in (1..).zip(line) {
            gram = next(gram, byte.to_ascii_lowercase());
            let seen = marked(&self.seen, place(gram));
            let short = marked(&self.short, pair(gram));
            // Almost always neither: one branch.
            if seen | short == 0 {
                continue;
            }
            if seen != 0 {
                look_up(read, gram);
            }
            if short != 0 {
                look_up(read, TWO | gram & 0xffff);
                look_up(read, ONE | gram & 0xff);
            }
        }
    }
}

/// Of one key. Filters choose which keys a table has, not clients.
#[derive(Default)]
struct FastHasher(u64);

impl Hasher for FastHasher {
    fn write(&mut self, key: &[u8]) {
        self.0 = text_hash(key);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The last three bytes, when one more is read.
fn next(gram: u32, byte: u8) -> u32 {
    (gram << 8 | u32::from(byte)) & 0xff_ffff
}

/// The word and the bit of a gram.
fn place(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9e37_79b1) >> (32 - BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

/// The word and the bit of the last two bytes.
fn pair(gram: u32) -> (usize, u64) {
    ((gram as u16 >> 6).into(), 1 << (gram & 63))
}

fn mark(bits: &mut [u64], (word, bit): (usize, u64)) {
    if let Some(word) = bits.get_mut(word) {
        *word |= bit;
    }
}

/// Not 0 if it is marked. The size of the table spares a check of bounds.
fn marked<const WORDS: usize>(bits: &[u64; WORDS], (word, bit): (usize, u64)) -> u64 {
    bits.get(word).map_or(0, |word| word & bit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_place_of_each_text_is_found_and_no_other(
            texts in prop::collection::btree_set("[ab/;\u{e9}]{1,7}", 0..40),
            line in "[abAB/;c\u{e9}]{0,60}",
        ) {
            let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
            let lower = line.to_ascii_lowercase();
            let mut expected = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                let places = lower.as_bytes().windows(text.len()).enumerate();
                let places = places.filter(|(_, there)| there == text);
                expected.extend(places.map(|(at, _)| (at, index)));
            }
            let mut found = Vec::new();
            Grams::new(texts).each(line.as_bytes(), |at, index| found.push((at, index)));
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
