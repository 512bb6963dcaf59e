//! A fast hash of a text, for tables that compare the text itself, and for counts that a client can
//! falsify anyway: a client can choose texts with the same hash.

pub(super) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) fn text_hash(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mix = |hash: u64, word: &[u8; 8]| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR)
    };
    let hash = words.iter().chain([&last]).fold(text.len() as u64, mix);
    // The upper bits depend on every byte, the lower ones do not.
    hash ^ hash >> 32
}
