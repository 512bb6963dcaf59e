//! Decides which error lines Apache wrote: see [`super::Matcher`].

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::{Parser, Record, WHOLE, second_prefix};

/// Without a [`Vouch`]: lines that must come from a known process behind one that may be torn.
const TORN_DOUBT: u64 = 1000;

/// Knows Apache's processes.
pub trait Vouch: Debug + Send + Sync {
    /// Whether the process of this number belongs to the Apache that writes the log.
    fn is_apaches(&self, pid: u64) -> bool;
}

/// The processes that write the error log, as far as known. Shared by all match threads.
#[derive(Debug, Default)]
pub(super) struct Trust {
    vouch: Option<Arc<dyn Vouch>>,
    processes: Processes,
    /// The next lines in doubt.
    doubt: AtomicU64,
}

impl Trust {
    pub(super) fn new(vouch: Option<Arc<dyn Vouch>>) -> Trust {
        Trust {
            vouch,
            ..Trust::default()
        }
    }

    /// Notes a line without Apache's prefix.
    pub(super) fn saw_foreign(&self, line: &[u8]) {
        if self.vouch.is_none() && may_be_torn(line) {
            self.doubt.store(TORN_DOUBT, Ordering::Relaxed);
        }
    }

    /// Whether a line with Apache's prefix may hit a client.
    pub(super) fn believes(&self, line: &[u8], record: &Record<'_>) -> bool {
        let pid = record.pid;
        match &self.vouch {
            Some(vouch) => {
                let Some(pid) = pid else {
                    return false;
                };
                vouch.is_apaches(pid)
            }
            None => {
                let doubtful = self.is_in_doubt();
                if may_be_torn(line) {
                    self.doubt.store(TORN_DOUBT, Ordering::Relaxed);
                }
                if doubtful {
                    return self.processes.know(pid);
                }
                self.processes.learn(pid);
                true
            }
        }
    }

    /// Where another line of a confirmed process begins in this one.
    pub(super) fn neighbour(&self, line: &[u8], parser: &Parser) -> Option<usize> {
        let at = parser.second_prefix(line)?;
        let pid = parser.parse(line.get(at..)?)?.pid?;
        self.vouch.as_ref()?.is_apaches(pid).then_some(at)
    }

    /// Whether the line is in doubt; counts it.
    fn is_in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Relaxed) > 0
            && self
                .doubt
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
    }
}

/// Whether an error line may be or hold a piece of a torn one.
fn may_be_torn(line: &[u8]) -> bool {
    line.len() >= WHOLE || second_prefix(line).is_some()
}

/// Whether mod_cgi wrote the line of a script's stderr, and the script's text has a client field.
/// Only the front of Apache's message shows that: clients write the rest.
pub(super) fn quotes_a_client(line: &[u8], record: &Record<'_>, parser: &Parser) -> bool {
    let Some(message) = message(line, record, parser) else {
        return false;
    };
    message.starts_with(b"AH01215: ") && memchr::memmem::find(message, b"[client ").is_some()
}

/// Apache's message: behind the client's field; in a custom format from the first `AH` number on.
fn message<'l>(line: &'l [u8], record: &Record<'_>, parser: &Parser) -> Option<&'l [u8]> {
    let client = record.client?.text;
    let end = (client.as_ptr().addr() + client.len()).checked_sub(line.as_ptr().addr())?;
    let rest = line.get(end..)?;
    if parser.chosen() == Some("default") {
        return rest.get(memchr::memmem::find(rest, b"] ")? + 2..);
    }
    let at = memchr::memmem::find_iter(rest, b"AH").find(|at| {
        let number = rest.get(at + 2..at + 7).unwrap_or_default();
        number.len() == 5 && number.iter().all(u8::is_ascii_digit)
    })?;
    rest.get(at..)
}

/// Numbers of Apache's processes, from lines beyond doubt. Bounded: a number replaces another in
/// the same place.
#[derive(Debug)]
struct Processes([AtomicU64; 256]);

impl Default for Processes {
    fn default() -> Self {
        Processes(std::array::from_fn(|_| AtomicU64::new(u64::MAX)))
    }
}

impl Processes {
    fn learn(&self, pid: Option<u64>) {
        if let Some((pid, place)) = pid.zip(self.place(pid))
            && place.load(Ordering::Relaxed) != pid
        {
            place.store(pid, Ordering::Relaxed);
        }
    }

    fn know(&self, pid: Option<u64>) -> bool {
        self.place(pid)
            .is_some_and(|place| Some(place.load(Ordering::Relaxed)) == pid)
    }

    fn place(&self, pid: Option<u64>) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(pid? % 256).ok()?)
    }
}
