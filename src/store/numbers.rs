//! Times and numbers as SQLite has them: signed, 64 bits, in milliseconds.

use std::time::Duration;

use jiff::Timestamp;

use crate::jail::Now;

pub(super) fn wall_minus_boot(now: Now) -> i64 {
    let wall = i64::try_from(now.wall.as_nanosecond()).unwrap_or(i64::MAX);
    wall.saturating_sub(now.boot.nanos())
}

pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
