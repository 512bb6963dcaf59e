//! Counts the new bans of each worker by the minute. One that makes too many, because it is taken over
//! or a pattern matches visitors, makes short ones only.

use std::collections::HashMap;
use std::time::Duration;

use crate::jail::{Ban, Mode, Moment};

const MINUTE: Duration = Duration::from_secs(60);

/// New bans of one worker in a minute that get their full time.
const MAX_NEW: u32 = 1_000;

#[derive(Debug, Default)]
pub(super) struct NewBans {
    /// The current minute of each stream that bans: when it began, and its bans.
    minutes: HashMap<u64, (Moment, u32)>,
    /// When a ban was shortened last.
    shortened: Option<Moment>,
}

impl NewBans {
    /// Counts a ban that hits of this stream led to.
    pub(super) fn note(&mut self, stream: u64, ban: &Ban, now: Moment) {
        if ban.mode == Mode::Observed {
            return;
        }
        if !self.minutes.contains_key(&stream) {
            self.minutes
                .retain(|_, (began, _)| now.since(*began) < MINUTE);
        }
        let (began, bans) = self.minutes.entry(stream).or_insert((now, 0));
        if now.since(*began) >= MINUTE {
            (*began, *bans) = (now, 0);
        }
        *bans = bans.saturating_add(1);
        if *bans > MAX_NEW {
            self.shortened = Some(now);
        }
    }

    /// Whether the next ban of this stream is to be a short one.
    pub(super) fn are_too_many(&self, stream: u64, now: Moment) -> bool {
        let minute = self.minutes.get(&stream);
        minute.is_some_and(|(began, bans)| *bans >= MAX_NEW && now.since(*began) < MINUTE)
    }

    /// Until ten minutes after the last short ban.
    pub(super) fn alarm(&self, now: Moment) -> Option<String> {
        let shortened = self.shortened?;
        (now.since(shortened) < 10 * MINUTE).then(|| {
            format!(
                "a worker made more than {MAX_NEW} new bans in a minute: further ones of that minute \
                 last ten minutes at most. Check for a flood, or for a pattern that matches visitors"
            )
        })
    }
}
