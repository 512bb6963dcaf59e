//! Finds thousands of texts in one pass, by three bytes of each.
//!
//! An automaton for as many texts is megabytes large, and each byte of a line costs a read of
//! memory that no cache holds. This is a few kilobytes for lines that hold none of the texts.

use std::collections::HashMap;

use super::rarity::rarest_at;

/// Bytes of a text that are looked up.
const GRAM: usize = 3;
/// Of [`Grams::seen`], as a power of two: enough that few texts lead to a useless look-up.
const BITS: u32 = 18;

/// Texts in lower case, found in any case.
#[derive(Debug)]
pub(super) struct Grams {
    texts: Vec<Vec<u8>>,
    /// A bit for the hash of each gram.
    seen: Vec<u64>,
    /// By gram, the texts that hold it and where.
    by_gram: HashMap<u32, Vec<(usize, usize)>>,
    /// For each byte the texts of less than [`GRAM`] bytes that begin with it; empty without such.
    short: Vec<Vec<usize>>,
}

impl Grams {
    pub(super) fn new(texts: Vec<Vec<u8>>) -> Grams {
        let mut grams = Grams {
            seen: vec![0; 1 << (BITS - 6)],
            by_gram: HashMap::new(),
            short: Vec::new(),
            texts: Vec::new(),
        };
        for (index, text) in texts.iter().enumerate() {
            let at = rarest_at(text, GRAM);
            let Some(rarest) = text.get(at..at + GRAM) else {
                grams.short.resize(256, Vec::new());
                let first = text.first().map_or(0, |byte| usize::from(*byte));
                if let Some(short) = grams.short.get_mut(first) {
                    short.push(index);
                }
                continue;
            };
            let gram = rarest.iter().fold(0, |gram, byte| next(gram, *byte));
            let (word, bit) = place(gram);
            if let Some(word) = grams.seen.get_mut(word) {
                *word |= bit;
            }
            grams.by_gram.entry(gram).or_default().push((index, at));
        }
        grams.texts = texts;
        grams
    }

    /// Calls `found` with each place of each text, and its number.
    pub(super) fn each(&self, line: &[u8], mut found: impl FnMut(usize, usize)) {
        let mut is_at = |start: usize, index: usize| {
            let text = self.texts.get(index).map_or(&[][..], Vec::as_slice);
            let there = line.get(start..start + text.len());
            if there.is_some_and(|there| there.eq_ignore_ascii_case(text)) {
                found(start, index);
            }
        };
        let mut gram = 0;
        for (at, byte) in line.iter().enumerate() {
            let byte = byte.to_ascii_lowercase();
            for index in self.short.get(usize::from(byte)).into_iter().flatten() {
                is_at(at, *index);
            }
            gram = next(gram, byte);
            let (word, bit) = place(gram);
            if self.seen.get(word).is_some_and(|word| word & bit != 0) {
                for (index, offset) in self.by_gram.get(&gram).into_iter().flatten() {
                    if let Some(start) = (at + 1).checked_sub(GRAM + offset) {
                        is_at(start, *index);
                    }
                }
            }
        }
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
