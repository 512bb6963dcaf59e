//! Clocks, read at the edges and passed inwards.

use std::time::Duration;

/// Time since boot, time asleep included (CLOCK_BOOTTIME): for windows and ends of bans.
pub fn boottime() -> Duration {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME) {
        Ok(t) => Duration::from(t),
        // The clock exists since Linux 2.6.39; an error cannot happen there.
        Err(_) => Duration::ZERO,
    }
}

/// The processor time of this thread.
pub fn thread_time() -> Duration {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID) {
        Ok(time) => Duration::from(time),
        Err(_) => Duration::ZERO,
    }
}
