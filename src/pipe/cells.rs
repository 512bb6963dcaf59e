//! Counters in shared memory that change together: at any moment, also when a process is killed,
//! a reader sees all of a change or nothing of it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::sys::region::Region;

/// Reads that find a change in progress are repeated this often.
const TRIES: usize = 1000;

/// Words of memory that `n` counters need: two copies, and a word that says which one is valid.
pub(super) const fn words(n: usize) -> usize {
    1 + 2 * n
}

/// The counters at word `at`.
pub(super) fn read<const N: usize>(region: &Region, at: usize) -> [u64; N] {
    let mut values = [0; N];
    for _ in 0..TRIES {
        let version = region.load(at, Acquire);
        let copy = at + 1 + if version.is_multiple_of(2) { 0 } else { N };
        for (n, value) in values.iter_mut().enumerate() {
            *value = region.load(copy + n, Relaxed);
        }
        fence(Acquire);
        if region.load(at, Relaxed) == version {
            break;
        }
    }
    values
}

/// Replaces them. One thread at a time; the last store makes the change valid.
pub(super) fn write<const N: usize>(region: &Region, at: usize, values: [u64; N]) {
    let version = region.load(at, Acquire).wrapping_add(1);
    fence(SeqCst);
    let copy = at + 1 + if version.is_multiple_of(2) { 0 } else { N };
    for (n, value) in values.into_iter().enumerate() {
        region.store(copy + n, value, Relaxed);
    }
    region.store(at, version, Release);
}

/// A struct of `u64` fields that converts to an array and back.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $($(#[$doc])* pub(super) $field: u64,)*
        }

        impl $name {
            pub(super) const LEN: usize = [$(stringify!($field)),*].len();

            pub(super) fn to_array(self) -> [u64; Self::LEN] {
                [$(self.$field),*]
            }

            pub(super) fn from_array(values: [u64; Self::LEN]) -> Self {
                let [$($field),*] = values;
                Self { $($field),* }
            }
        }
    };
}
pub(super) use counters;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::region::{self, Access};

    #[test]
    fn a_change_is_valid_with_its_last_store_and_not_before() {
        let region = || {
            let file = region::create(words(3), 0).unwrap();
            Region::map(&file, words(3), 0, Access::Write).unwrap()
        };
        let whole = region();
        write(&whole, 0, [1, 2, 3]);
        write(&whole, 0, [4, 5, 6]);
        assert_eq!(read(&whole, 0), [4, 5, 6]);
        // A kill in the middle of the second change: its values are there, the version is not.
        let cut_off = region();
        write(&cut_off, 0, [1, 2, 3]);
        for word in 1..=3 {
            cut_off.store(word, 9, Relaxed);
        }
        assert_eq!(read(&cut_off, 0), [1, 2, 3]);
        write(&cut_off, 0, [4, 5, 6]);
        assert_eq!(read(&cut_off, 0), [4, 5, 6]);
    }
}
