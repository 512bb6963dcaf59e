//! A fast hash of a text, for tables that compare the text itself, and for counts that a client can
//! falsify anyway: a client can choose texts with the same hash.

pub(super) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Two words at a time, which do not wait for each other.
pub(super) fn text_hash(text: &[u8]) -> u64 {
    let mix = |hash: u64, word: [u8; 8]| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR)
    };
    let (words, rest) = text.as_chunks();
    let (pairs, odd) = words.as_chunks();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let begun = (text.len() as u64, FACTOR);
    let (left, right) = pairs.iter().fold(begun, |(left, right), [a, b]| {
        (mix(left, *a), mix(right, *b))
    });
    let left = odd.iter().fold(left, |left, word| mix(left, *word));
    let hash = mix(left ^ right.rotate_left(32), last);
    // Of a product the upper bits depend on every byte, the lower ones do not.
    let hash = (hash ^ hash >> 32).wrapping_mul(FACTOR);
    hash ^ hash >> 32
}
