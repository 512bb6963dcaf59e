//! A line of the log.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::details::Details;

/// Severities in use, as RFC 5424 numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// For example "not banning at all".
    Err = 3,
    /// A problem that an administrator should fix.
    Warning = 4,
    /// Ban, Unban, Restore Ban.
    Notice = 5,
    /// Found.
    Info = 6,
}

/// A line and its time.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) severity: Severity,
    pub(super) text: String,
    /// `None`: it is about no client.
    pub(super) details: Option<Details>,
}

impl Line {
    /// One JSON object: time, level, pid, message, and the details.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            time: String,
            level: &'static str,
            pid: u32,
            message: &'a str,
            #[serde(flatten)]
            details: Option<&'a Details>,
        }
        let time = self.time.to_zoned(TimeZone::system());
        let json = Json {
            time: time.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            level: match self.severity {
                Severity::Err => "error",
                Severity::Warning => "warning",
                Severity::Notice => "notice",
                Severity::Info => "info",
            },
            pid: std::process::id(),
            message: &self.text,
            details: self.details.as_ref(),
        };
        // Numbers and texts always serialise.
        serde_json::to_string(&json).unwrap_or_default()
    }
}
