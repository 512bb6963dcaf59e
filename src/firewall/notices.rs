//! What is wrong, reported once when it begins and once when it is over.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use crossbeam_channel::Sender;

/// What the operator must know, for syslog and `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// These banned clients had connections when their bans began.
    Connected {
        /// The clients.
        clients: Vec<IpAddr>,
    },
    /// Something is wrong.
    Trouble {
        /// Identifies it: the same key replaces or ends it.
        key: &'static str,
        /// What is wrong, and what to do.
        text: String,
    },
    /// The trouble is over.
    Over {
        /// Identifies the trouble.
        key: &'static str,
    },
    /// Something happened, and pipeban has dealt with it.
    Event {
        /// What happened.
        text: String,
    },
}

/// Sends notices; repeats none. Never blocks: a notice that finds the queue full is sent at its
/// next occasion.
pub(super) struct Notices {
    to: Sender<Notice>,
    /// Text of what is wrong now, by key. Keys are constants: a handful.
    open: HashMap<&'static str, String>,
}

impl Notices {
    pub(super) fn to(to: Sender<Notice>) -> Notices {
        Notices {
            to,
            open: HashMap::new(),
        }
    }

    /// For another owner; each remembers what it sent itself.
    pub(super) fn another(&self) -> Notices {
        Notices::to(self.to.clone())
    }

    pub(super) fn trouble(&mut self, key: &'static str, text: String) {
        if self.open.get(key) == Some(&text) {
            return;
        }
        let notice = Notice::Trouble {
            key,
            text: text.clone(),
        };
        if self.to.try_send(notice).is_ok() {
            self.open.insert(key, text);
        }
    }

    pub(super) fn over(&mut self, key: &'static str) {
        if self.open.contains_key(key) && self.to.try_send(Notice::Over { key }).is_ok() {
            self.open.remove(key);
        }
    }

    /// Banned clients had connections.
    pub(super) fn connected(&mut self, clients: Vec<IpAddr>) {
        let _ = self.to.try_send(Notice::Connected { clients });
    }

    /// Something that happened and is over already.
    pub(super) fn event(&mut self, text: String) {
        // The engine is gone, or has too much to do.
        let _ = self.to.try_send(Notice::Event { text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_reported_once_and_its_end_once() {
        let (sender, receiver) = crossbeam_channel::bounded(3);
        let mut notices = Notices::to(sender);
        notices.over("x");
        notices.trouble("x", "a".into());
        notices.trouble("x", "a".into());
        notices.trouble("x", "b".into());
        notices.over("x");
        notices.over("x");
        let trouble = |key, text: &str| Notice::Trouble {
            key,
            text: text.into(),
        };
        let over = Notice::Over { key: "x" };
        let expected = [trouble("x", "a"), trouble("x", "b"), over];
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), expected);
        // A full queue delays a notice but does not lose it.
        for _ in 0..3 {
            notices.event("e".into());
        }
        notices.trouble("y", "c".into());
        assert_eq!(receiver.try_iter().count(), 3);
        notices.trouble("y", "c".into());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [trouble("y", "c")]);
    }
}
