//! Lines that no record is known for, one after another, as fail2ban sees them: patterns over
//! several lines, and failures of which one line names the session and another the host.
//!
//! Only `pipeban test --kind raw` does this. In Apache's logs the lines of many clients stand
//! between each other, and each line has its own client.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::pattern::{Found, content_at};
use super::{Filter, Outcome, Subject};

/// Sessions remembered; when there are more, all are forgotten.
const MOST_SESSIONS: usize = 1000;
/// Names remembered of one session.
const MOST_USERS: usize = 10;

/// What earlier lines left behind.
#[derive(Debug, Default)]
pub struct Sequence {
    lines: Vec<Vec<u8>>,
    sessions: HashMap<Vec<u8>, Session>,
}

/// What is known of the session that `<F-MLFID>` names.
#[derive(Debug, Clone, Default)]
struct Session {
    host: Option<IpAddr>,
    users: BTreeSet<Vec<u8>>,
    /// A failure that waits for a line with its host.
    pending: bool,
}

/// What one pattern that matched makes of the line.
enum Step {
    Failure(IpAddr),
    /// The line is used up without a failure.
    Nothing,
    /// As if the pattern had not matched.
    Next,
}

impl Sequence {
    /// What comes of the next line.
    pub fn examine(&mut self, filter: &Filter, subject: &Subject<'_>) -> Outcome {
        self.lines.push(subject.line().to_vec());
        let surplus = self.lines.len().saturating_sub(filter.maxlines);
        self.lines.drain(..surplus);
        let mut whole = self.lines.join(&b'\n');
        whole.push(b'\n');
        let (mut text, mut before) = (whole.as_slice(), Found::default());
        if let Some(prefix) = &filter.prefix {
            let Some(found) = prefix.find(&whole) else {
                return Outcome::Miss;
            };
            text = content_at(&whole, found.content);
            before = found;
        }
        for pattern in &filter.fail {
            let Some(found) = pattern.find(text) else {
                continue;
            };
            if filter.ignores(text, &whole) {
                return Outcome::Ignored;
            }
            if filter.maxlines > 1 {
                let kept = unmatched(&self.lines, &found);
                self.lines = kept;
            }
            match self.step(with_prefix(found, &before)) {
                Step::Failure(host) => {
                    return Outcome::Match {
                        pattern: pattern.number,
                        host,
                    };
                }
                Step::Nothing => return Outcome::Miss,
                Step::Next => {}
            }
        }
        Outcome::Miss
    }

    fn step(&mut self, found: Found) -> Step {
        let Some(name) = found.session else {
            return match found.host {
                Some(_) if found.nofail => Step::Nothing,
                Some(host) => Step::Failure(host),
                None => Step::Next,
            };
        };
        let known = self.sessions.remove(&name);
        let is_new = known.is_none();
        let mut session = known.unwrap_or_default();
        session.host = found.host.or(session.host);
        if let Some(user) = found.user
            && session.users.len() < MOST_USERS
        {
            session.users.insert(user);
        }
        if found.gained && !is_new {
            session.pending = false;
        }
        // Who tries several names has not got in by the last of them.
        let pending = std::mem::take(&mut session.pending) || session.users.len() > 1;
        let failed = !(found.nofail || found.gained) || pending;
        let step = match session.host {
            _ if !failed => Step::Nothing,
            Some(host) => Step::Failure(host),
            None => {
                session.pending = true;
                Step::Nothing
            }
        };
        if !found.forget {
            if self.sessions.len() >= MOST_SESSIONS {
                self.sessions.clear();
            }
            self.sessions.insert(name, session);
        }
        step
    }
}

/// What the prefix found goes for what the pattern did not.
fn with_prefix(found: Found, before: &Found) -> Found {
    Found {
        host: found.host.or(before.host),
        session: found.session.or_else(|| before.session.clone()),
        user: found.user.or_else(|| before.user.clone()),
        nofail: found.nofail || before.nofail,
        gained: found.gained || before.gained,
        forget: found.forget || before.forget,
        ..found
    }
}

/// The lines that no match used up: those before and behind it, and those it passed over.
fn unmatched(lines: &[Vec<u8>], found: &Found) -> Vec<Vec<u8>> {
    let mut start = 0;
    let mut kept = Vec::new();
    for line in lines {
        let end = start + line.len();
        let outside = end < found.span.0 || start >= found.span.1;
        let skipped = found
            .skipped
            .iter()
            .any(|(from, to)| start >= *from && end < *to);
        if outside || skipped {
            kept.push(line.clone());
        }
        start = end + 1;
    }
    kept
}
