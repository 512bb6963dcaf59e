//! Lines that may have come through the pipe in pieces, and the processes that vouch for others.

use std::sync::atomic::{AtomicU64, Ordering};

use super::subject::WHOLE;
use crate::record::second_prefix;

/// Whether an error line may be, or hold, a piece of a torn one.
pub(super) fn may_be(line: &[u8]) -> bool {
    line.len() >= WHOLE || second_prefix(line).is_some()
}

/// Numbers of Apache's processes, as seen in lines that are beyond doubt. Bounded: a number that
/// falls on the place of another takes it.
#[derive(Debug)]
pub(super) struct Processes([AtomicU64; 256]);

impl Default for Processes {
    fn default() -> Self {
        Processes(std::array::from_fn(|_| AtomicU64::new(u64::MAX)))
    }
}

impl Processes {
    pub(super) fn learn(&self, pid: Option<u64>) {
        if let Some((pid, place)) = pid.zip(self.place(pid))
            && place.load(Ordering::Relaxed) != pid
        {
            place.store(pid, Ordering::Relaxed);
        }
    }

    pub(super) fn know(&self, pid: Option<u64>) -> bool {
        self.place(pid)
            .is_some_and(|place| Some(place.load(Ordering::Relaxed)) == pid)
    }

    fn place(&self, pid: Option<u64>) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(pid? % 256).ok()?)
    }
}
