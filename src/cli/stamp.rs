//! The time of a log line, as `test` and `replay` show it.

use jiff::tz::{Offset, TimeZone};
use jiff::{Zoned, civil};

use crate::record::time::Stamp;

/// The line's time; without a zone in the local one.
pub(super) fn zoned(stamp: Stamp) -> Option<Zoned> {
    let (year, month, day) = (stamp.year, stamp.month, stamp.day);
    let (hour, minute, second) = (stamp.hour, stamp.minute, stamp.second.min(59));
    let time = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let zone = match stamp.offset {
        Some(seconds) => TimeZone::fixed(Offset::from_seconds(seconds).ok()?),
        None => TimeZone::system(),
    };
    zone.to_ambiguous_zoned(time).compatible().ok()
}

/// RFC 3339, with seconds and the offset of the zone.
pub(super) fn rfc3339(time: &Zoned) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
