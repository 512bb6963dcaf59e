//! A fast back end, and the one place that retries: while there is doubt about what it holds, all
//! of it is replaced.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::backend::{Audit, Backend};
use super::desired::{BanKey, Desired};
use super::notices::Notices;
use crate::jail::Moment;

/// Between two attempts at what failed.
const RETRY: Duration = Duration::from_secs(5);
/// An attempt that takes long is repeated after so many times its duration.
const REST: u32 = 20;
/// A fast back end.
pub(super) struct Slot {
    pub(super) backend: Box<dyn Backend>,
    doubt: Option<Doubt>,
    /// It may hold bans of an earlier engine.
    pub(super) fresh: bool,
}

/// What is in force is not what is wanted.
struct Doubt {
    /// When to replace it.
    due: Instant,
    /// Why the last attempt failed.
    error: Option<String>,
}

impl Slot {
    pub(super) fn new(backend: impl Backend + 'static) -> Slot {
        let doubt = Doubt {
            due: Instant::now(),
            error: None,
        };
        Slot {
            backend: Box::new(backend),
            doubt: Some(doubt),
            fresh: true,
        }
    }

    pub(super) fn apply(
        &mut self,
        changed: &[BanKey],
        wanted: &Desired,
        now: Moment,
        notices: &mut Notices,
    ) -> Result<(), String> {
        match &self.doubt {
            None if self.backend.apply(changed, wanted, now).is_ok() => Ok(()),
            None => match self.backend.audit(wanted, now) {
                Ok(Audit::Lost(text)) => self.restore(text, wanted, now, notices),
                _ => self.replace(wanted, now, notices),
            },
            Some(doubt) => match &doubt.error {
                Some(error) if Instant::now() < doubt.due => Err(error.clone()),
                _ => self.replace(wanted, now, notices),
            },
        }
    }

    pub(super) fn tend(&mut self, wanted: &Desired, now: Moment, notices: &mut Notices) {
        let due = self.doubt.as_ref().map(|doubt| doubt.due);
        let done = match due {
            Some(due) if Instant::now() < due => Ok(()),
            Some(_) => self.replace(wanted, now, notices),
            None => match self.backend.audit(wanted, now) {
                Ok(Audit::Intact) => Ok(()),
                Ok(Audit::Lost(text)) => self.restore(text, wanted, now, notices),
                Ok(Audit::Outdated) | Err(_) => self.replace(wanted, now, notices),
            },
        };
        // It has been reported.
        drop(done);
    }

    /// Replaces what is in force after another program has removed some of it.
    fn restore(
        &mut self,
        lost: String,
        wanted: &Desired,
        now: Moment,
        notices: &mut Notices,
    ) -> Result<(), String> {
        self.replace(wanted, now, notices)?;
        let bans = wanted.len();
        notices.event(format!("{lost}: pipeban restored all {bans} bans"));
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        wanted: &Desired,
        now: Moment,
        notices: &mut Notices,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let name = self.backend.name();
        match self.backend.replace(wanted, now) {
            Ok(()) => {
                self.doubt = None;
                notices.over(name);
                Ok(())
            }
            Err(error) => {
                let error = format!("{error} ({})", self.backend.remedy());
                let text = format!(
                    "bans are not in force, or bans that are over still are: {error}; pipeban \
                     tries again every {} seconds",
                    RETRY.as_secs()
                );
                notices.trouble(name, text);
                let wait = RETRY.max(begun.elapsed() * REST);
                self.doubt = Some(Doubt {
                    due: Instant::now() + wait,
                    error: Some(error.clone()),
                });
                Err(error)
            }
        }
    }
}
