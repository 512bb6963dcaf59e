//! Wakes the worker when there is a block, and the supervisor when blocks must be watched.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// One eventfd for each. The reader writes to them and never waits.
#[derive(Debug)]
pub(super) struct Wakes {
    worker: EventFd,
    supervisor: EventFd,
    /// The supervisor has a timer, and needs no wake.
    watching: AtomicBool,
    ended: AtomicBool,
}

impl Wakes {
    pub(super) fn new() -> io::Result<Wakes> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Wakes {
            worker: EventFd::from_flags(flags)?,
            supervisor: EventFd::from_flags(flags)?,
            watching: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// There is a block.
    pub(super) fn worker(&self) {
        // An error means that it is awake already.
        let _ = self.worker.write(1);
        if !self.watching.swap(true, Ordering::AcqRel) {
            let _ = self.supervisor.write(1);
        }
    }

    /// Everything is read and written.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let _ = self.supervisor.write(1);
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Acquire)
    }

    /// The supervisor stops its timer: the next block wakes it.
    pub(super) fn stop_watching(&self) {
        self.watching.store(false, Ordering::Release);
    }

    /// What the worker waits for.
    pub(super) fn worker_fd(&self) -> BorrowedFd<'_> {
        self.worker.as_fd()
    }

    /// What the supervisor waits for.
    pub(super) fn supervisor_fd(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }

    /// The supervisor is awake.
    pub(super) fn clear_supervisor(&self) {
        let _ = self.supervisor.read();
    }
}
