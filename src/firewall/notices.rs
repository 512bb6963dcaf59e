//! What is wrong, told once when it begins and once when it is over.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crossbeam_channel::Sender;

use super::Notice;

/// Sends notices; says nothing twice. Never blocks: a notice that finds the queue full is told
/// at its next occasion.
pub(super) struct Notices {
    to: Option<Sender<Notice>>,
    /// Text told last, by key. Keys are constants: a handful.
    open: HashMap<&'static str, String>,
}

impl Notices {
    pub(super) fn to(sender: Sender<Notice>) -> Notices {
        Notices {
            to: Some(sender),
            open: HashMap::new(),
        }
    }

    /// For another thread; each remembers what it told itself.
    pub(super) fn another(&self) -> Notices {
        Notices {
            to: self.to.clone(),
            open: HashMap::new(),
        }
    }

    /// For work that has nobody to tell.
    pub(super) fn nowhere() -> Notices {
        Notices {
            to: None,
            open: HashMap::new(),
        }
    }

    pub(super) fn trouble(&mut self, key: &'static str, text: String) {
        if self.open.get(key) == Some(&text) {
            return;
        }
        if self.send(Notice::Trouble {
            key,
            text: text.clone(),
        }) {
            self.open.insert(key, text);
        }
    }

    pub(super) fn over(&mut self, key: &'static str) {
        if self.open.contains_key(key) && self.send(Notice::Over { key }) {
            self.open.remove(key);
        }
    }

    /// Something that happened and is over already.
    pub(super) fn event(&mut self, text: String) {
        self.send(Notice::Event { text });
    }

    fn send(&self, notice: Notice) -> bool {
        self.to
            .as_ref()
            .is_none_or(|to| to.try_send(notice).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_and_its_end_once() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut notices = Notices::to(sender);
        notices.over("x");
        notices.trouble("x", "a".into());
        notices.trouble("x", "a".into());
        notices.trouble("x", "b".into());
        notices.over("x");
        notices.over("x");
        let told: Vec<_> = receiver.try_iter().collect();
        let trouble = |text: &str| Notice::Trouble {
            key: "x",
            text: text.into(),
        };
        assert_eq!(
            told,
            [trouble("a"), trouble("b"), Notice::Over { key: "x" }]
        );
    }

    #[test]
    fn a_full_queue_delays_a_notice_but_does_not_lose_it() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let mut notices = Notices::to(sender);
        notices.trouble("x", "a".into());
        notices.trouble("y", "b".into());
        assert_eq!(receiver.try_iter().count(), 1);
        notices.trouble("y", "b".into());
        assert_eq!(receiver.try_iter().count(), 1);
    }
}
