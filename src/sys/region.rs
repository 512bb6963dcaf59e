//! Memory shared by processes: atomic words, followed by bytes that are copied in and out. No
//! reference to the bytes leaves this file, so another process can change them at any time.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::ftruncate;

/// A multiple of every page size.
const PAGE: usize = 64 * 1024;

/// What a process may do with a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A store panics; the kernel refuses to make the mapping writable.
    Read,
    /// Loads and stores.
    Write,
}

/// A mapping of shared memory. All of it is zero at first.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    total: NonZeroUsize,
    words: usize,
    bytes: usize,
    access: Access,
}

// SAFETY: the mapping belongs to the region until it is dropped; words are atomics, and bytes are
// only copied.
unsafe impl Send for Region {}
// SAFETY: as above; two copies of the same bytes at the same time give unspecified bytes, which
// are valid values.
unsafe impl Sync for Region {}

/// A memory file for a region of that size. Only root can open it again, and its size is fixed:
/// a process that has it cannot make another one fault.
///
/// # Errors
/// The kernel refuses.
pub fn create(words: usize, bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(
        c"pipeban",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let total = size(words, bytes)?.get();
    // The limit is for log files, and holds for memory files too.
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    let _ = setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY)
        .or_else(|_| setrlimit(Resource::RLIMIT_FSIZE, hard, hard));
    let sized = ftruncate(&file, i64::try_from(total).map_err(io::Error::other)?);
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard)?;
    sized?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// The same memory file, opened for reading: it can be mapped for [`Access::Read`] only.
///
/// # Errors
/// There is no /proc.
pub fn read_only(file: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

fn size(words: usize, bytes: usize) -> io::Result<NonZeroUsize> {
    words
        .checked_mul(size_of::<AtomicU64>())
        .and_then(|n| n.checked_add(bytes))
        .and_then(NonZeroUsize::new)
        .ok_or(io::ErrorKind::InvalidInput.into())
}

impl Region {
    /// Maps a file that [`create`] made with the same sizes.
    ///
    /// # Errors
    /// The kernel refuses, or the file is too small.
    pub fn map(file: impl AsFd, words: usize, bytes: usize, access: Access) -> io::Result<Region> {
        let total = size(words, bytes)?;
        let stat = nix::sys::stat::fstat(&file)?;
        if usize::try_from(stat.st_size).unwrap_or(0) < total.get() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a new mapping at a place of the kernel's choice aliases nothing in this process;
        // its size is sealed, so access to it does not fault.
        let base = unsafe { mmap(None, total, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Region {
            base: base.cast(),
            total,
            words,
            bytes,
            access,
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: the index is inside the mapping, whose start is page-aligned; it lives as long as
        // `self`; all access to words is atomic, and any bit pattern is a valid value.
        unsafe { self.base.cast::<AtomicU64>().add(index).as_ref() }
    }

    /// A word.
    ///
    /// # Panics
    /// The index is not below the number of words: a mistake in the caller's layout.
    pub fn load(&self, index: usize, ordering: Ordering) -> u64 {
        self.word(index).load(ordering)
    }

    /// Changes a word.
    ///
    /// # Panics
    /// As [`Region::load`], and without [`Access::Write`].
    pub fn store(&self, index: usize, value: u64, ordering: Ordering) {
        assert_eq!(self.access, Access::Write);
        self.word(index).store(value, ordering);
    }

    /// Adds to a word.
    ///
    /// # Panics
    /// As [`Region::store`].
    pub fn add(&self, index: usize, value: u64) {
        assert_eq!(self.access, Access::Write);
        self.word(index).fetch_add(value, Ordering::AcqRel);
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// The range is outside the bytes, or as [`Region::store`].
    pub fn put(&self, at: usize, from: &[u8]) {
        assert_eq!(self.access, Access::Write);
        let to = self.place(at, from.len());
        // SAFETY: `place` checked the range; `from` is this process's memory and does not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// The range is outside the bytes.
    pub fn get(&self, at: usize, into: &mut [u8]) {
        let from = self.place(at, into.len());
        // SAFETY: as in `put`. Another process may write these bytes meanwhile: any result is a
        // valid value, and the caller's protocol keeps such copies out.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    fn place(&self, at: usize, len: usize) -> *mut u8 {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.bytes), "{len} at {at}");
        // SAFETY: the bytes follow the words, and the range is inside them.
        unsafe {
            self.base
                .as_ptr()
                .add(self.words * size_of::<AtomicU64>() + at)
        }
    }

    /// Returns the memory of whole pages of these bytes to the system; they are zero then.
    pub fn release(&self, from: usize, to: usize) {
        let words = self.words * size_of::<AtomicU64>();
        let start = (words + from).next_multiple_of(PAGE);
        let end = (words + to.min(self.bytes)) / PAGE * PAGE;
        if self.access == Access::Write && start < end {
            // SAFETY: the pages are inside the mapping and hold nothing but these bytes.
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
        // SAFETY: words borrow the region: nothing refers to the mapping any more.
        let _ = unsafe { munmap(self.base.cast(), self.total.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_the_writer_puts_and_cannot_write() {
        let file = create(2, 100).unwrap();
        let ours = Region::map(&file, 2, 100, Access::Write).unwrap();
        let theirs = read_only(&file).unwrap();
        assert!(Region::map(&theirs, 2, 100, Access::Write).is_err());
        assert!(ftruncate(&file, 8).is_err() && ftruncate(&theirs, 8).is_err());
        assert!(Region::map(&theirs, 2, 101, Access::Read).is_err());
        let theirs = Region::map(&theirs, 2, 100, Access::Read).unwrap();
        ours.put(90, b"0123456789");
        ours.store(1, 7, Ordering::Release);
        let mut bytes = [0; 4];
        theirs.get(93, &mut bytes);
        assert_eq!((&bytes, theirs.load(1, Ordering::Acquire)), (b"3456", 7));
        for outside in [
            std::panic::catch_unwind(|| ours.put(91, b"0123456789")),
            std::panic::catch_unwind(|| ours.store(2, 0, Ordering::Relaxed)),
            std::panic::catch_unwind(|| theirs.store(0, 0, Ordering::Relaxed)),
            std::panic::catch_unwind(|| theirs.put(0, b"x")),
        ] {
            assert!(outside.is_err());
        }
    }

    #[test]
    fn released_memory_is_zero() {
        let len = 8 * PAGE;
        let file = create(1, len).unwrap();
        let region = Region::map(&file, 1, len, Access::Write).unwrap();
        region.put(0, &vec![7; len]);
        region.release(0, 4 * PAGE);
        let mut all = vec![0; len];
        region.get(0, &mut all);
        assert_eq!((all[PAGE], all[2 * PAGE]), (0, 0));
        assert!(all[4 * PAGE..].iter().all(|byte| *byte == 7));
    }
}
