//! Memory shared with processes forked later: atomic words, and bytes that are leased piece by
//! piece so that no two holders can ever touch the same byte.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// No page is larger on the machines there are; whole pages of it are whole pages anywhere.
const PAGE: usize = 64 * 1024;

/// An anonymous shared mapping: `words` atomic words, then `bytes` bytes, all zero at first. It
/// survives as long as one process that was forked from its maker does.
///
/// Words may be used by every process at any time. Bytes may be leased in one process at a time
/// only; leases are known to the process that made them, so the caller keeps other processes away
/// (pipeban: by the lock on the pipe, which one worker holds).
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    total: NonZeroUsize,
    words: usize,
    bytes: usize,
    leased: Mutex<Vec<Range<usize>>>,
}

// SAFETY: the mapping belongs to the region until it is dropped; words are atomics, and bytes are
// reached only through leases, which `leased` keeps disjoint.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region of zeros.
    ///
    /// # Errors
    /// What `mmap` said.
    pub fn new(words: usize, bytes: usize) -> io::Result<Region> {
        let total = words
            .checked_mul(size_of::<AtomicU64>())
            .and_then(|n| n.checked_add(bytes))
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                None,
                total,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE,
            )
        }?;
        Ok(Region {
            base: base.cast(),
            total,
            words,
            bytes,
            leased: Mutex::default(),
        })
    }

    /// The word of that index.
    ///
    /// # Panics
    /// Where the index is not below the number of words: a mistake in the caller's layout.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: the index is inside the mapping, whose start is page-aligned, so the word is
        // aligned; it lives as long as `self`; all access to words is atomic, and any bit pattern
        // is a valid value.
        unsafe { self.base.cast::<AtomicU64>().add(index).as_ref() }
    }

    /// Exclusive use of these bytes; `None` where one of them is leased already or not there.
    pub fn lease(self: &Arc<Self>, range: Range<usize>) -> Option<Lease> {
        if range.start > range.end || range.end > self.bytes {
            return None;
        }
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |held: &Range<usize>| held.end <= range.start || range.end <= held.start;
        if !leased.iter().all(free) {
            return None;
        }
        leased.push(range.clone());
        Some(Lease {
            region: Arc::clone(self),
            held: range,
        })
    }

    /// Gives the memory of these bytes back to the system, as far as it is whole pages and nobody
    /// holds one of them; they are zero then.
    pub fn release(&self, range: Range<usize>) {
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |held: &Range<usize>| held.end <= range.start || range.end <= held.start;
        if range.end > self.bytes || !leased.iter().all(free) {
            return;
        }
        let words = self.words * size_of::<AtomicU64>();
        let start = (words + range.start).next_multiple_of(PAGE);
        let end = (words + range.end) / PAGE * PAGE;
        if start < end {
            // SAFETY: the pages are inside the mapping, hold nothing but bytes of `range`, and
            // nobody has leased one of those, nor can before this returns.
            let _ = unsafe {
                madvise(
                    self.base.add(start).cast(),
                    end - start,
                    MmapAdvise::MADV_REMOVE,
                )
            };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: leases hold the region in an `Arc`, words borrow it: nothing refers to the
        // mapping any more.
        let _ = unsafe { munmap(self.base.cast(), self.total.get()) };
    }
}

/// Bytes of a [`Region`] for one holder; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    region: Arc<Region>,
    held: Range<usize>,
}

impl Lease {
    /// Keeps only the first `len` bytes and gives back the rest.
    pub fn truncate(&mut self, len: usize) {
        let kept = self.held.start..self.held.end.min(self.held.start.saturating_add(len));
        self.change(Some(kept));
    }

    /// Notes what is held from now on.
    fn change(&mut self, to: Option<Range<usize>>) {
        let mut leased = self
            .region
            .leased
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = leased.iter().position(|held| *held == self.held) {
            leased.swap_remove(at);
        }
        if let Some(to) = to {
            leased.push(to.clone());
            self.held = to;
        }
    }

    fn start(&self) -> *mut u8 {
        let words = self.region.words * size_of::<AtomicU64>();
        // SAFETY: `lease` checked that the range is inside the bytes that follow the words.
        unsafe { self.region.base.as_ptr().add(words + self.held.start) }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is inside the mapping, which the `Arc` keeps; no other lease of this
        // process overlaps it, and other processes lease nothing meanwhile (see `Region`).
        unsafe { std::slice::from_raw_parts(self.start(), self.held.len()) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only access through this lease.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.held.len()) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.change(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_overlap_and_come_back() {
        let region = Arc::new(Region::new(1, 100).unwrap());
        let first = region.lease(0..50).unwrap();
        assert!(region.lease(49..60).is_none());
        assert!(region.lease(60..101).is_none());
        let mut second = region.lease(50..100).unwrap();
        second.fill(7);
        second.truncate(10);
        assert_eq!(&*second, &[7; 10]);
        assert!(first.iter().all(|b| *b == 0));
        assert!(region.lease(59..100).is_none());
        let third = region.lease(60..100).unwrap();
        drop(third);
        drop((first, second));
        assert!(region.lease(0..100).is_some());
    }

    #[test]
    fn memory_that_is_released_is_zero_and_none_that_is_leased_is() {
        let len = 8 * PAGE;
        let region = Arc::new(Region::new(1, len).unwrap());
        region.lease(0..len).unwrap().fill(7);
        let held = region.lease(5 * PAGE..5 * PAGE + 1).unwrap();
        region.release(0..len);
        assert_eq!(held[0], 7);
        region.release(0..4 * PAGE);
        region.release(0..len + 1);
        drop(held);
        let all = region.lease(0..len).unwrap();
        assert_eq!((all[PAGE], all[2 * PAGE]), (0, 0));
        assert!(all[4 * PAGE..].iter().all(|byte| *byte == 7));
    }
}
