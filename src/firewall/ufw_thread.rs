//! The thread that talks to ufw: finds out what ufw is and has, then does what [`Plan`] says, one
//! call at a time (0.3 s each).
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use super::cut::Cutter;
use super::notices::Notices;
use super::ufw_call::{self, UFW};
use super::ufw_plan::{ByHand, Plan, Step};
use super::ufw_rules::{self, Existing, Rule};
use super::{Error, ufw};

/// Where ufw keeps the rules that people give it.
const RULES: [&str; 2] = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];
/// `ENABLED=`
const UFW_CONF: &str = "/etc/ufw/ufw.conf";
/// `IPV6=`
const DEFAULTS: &str = "/etc/default/ufw";
/// How often ufw's files are read when there is nothing else to do.
const IDLE: Duration = Duration::from_secs(1);
/// How long `ufw status` is believed while rules are being written.
const STATUS_HOLDS: Duration = Duration::from_secs(60);
/// After a failure nothing is tried for this long, doubling up to the second.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a rule that ufw refused is left alone.
const ASIDE: Duration = Duration::from_secs(60);

const MISSING: &str = "ufw-missing";
const INACTIVE: &str = "ufw-inactive";
const NO_IPV6: &str = "ufw-ipv6";
pub(super) const FAILED: &str = "ufw-failed";
const BLOCKED: &str = "ufw-blocked";

/// What the thread and the others share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct State {
    pub(super) plan: Plan,
    /// Something was asked for since the thread last looked.
    news: bool,
    /// When to stop, done or not.
    pub(super) stop: Option<Instant>,
}

impl Shared {
    pub(super) fn new(max_rules: usize, mirrors: bool) -> Shared {
        Shared {
            state: Mutex::new(State {
                plan: Plan::new(max_rules, mirrors),
                news: true,
                stop: None,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and wakes the thread.
    pub(super) fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.news = true;
        self.changed.notify_all();
    }
}

/// The thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    alone: bool,
    /// Cuts what a rule has just closed; `None`: somebody else does it, or it cannot be done.
    cutter: Option<Cutter>,
    notices: Notices,
    /// When ufw's rules changed last, as we know them; `None`: they are not known.
    known: Option<Stamp>,
    /// When we wrote last, what has not been read again since.
    wrote: Option<Instant>,
    /// ENABLED= and IPV6= when `ufw status` was asked last, and when that was.
    status_of: Option<(Files, Instant)>,
    failures: u32,
    pause: Option<Instant>,
    aside: HashMap<Rule, Instant>,
    /// Taken out of the running chains already, and still in ufw's list.
    lifted: HashSet<Rule>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Files {
    enabled: bool,
    ipv6: bool,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        alone: bool,
        cutter: Option<Cutter>,
        notices: Notices,
    ) -> Worker {
        Worker {
            shared,
            alone,
            cutter,
            notices,
            known: None,
            wrote: None,
            status_of: None,
            failures: 0,
            pause: None,
            aside: HashMap::new(),
            lifted: HashSet::new(),
        }
    }

    /// Until it is told to stop; then says so.
    pub(super) fn run(mut self, ending: &Sender<()>) {
        loop {
            let ready = self.prepare();
            let step = match ready {
                true => self.next(),
                false => None,
            };
            if let Some(stop) = self.shared.lock().stop
                && (step.is_none() || Instant::now() >= stop)
            {
                break;
            }
            match step {
                Some(step) => self.perform(step),
                None => self.wait(),
            }
        }
        // Nobody may be waiting any more.
        let _ = ending.try_send(());
    }

    /// Nothing is waited for any more.
    fn is_stopped(&self) -> bool {
        let stop = self.shared.lock().stop;
        stop.is_some_and(|stop| Instant::now() >= stop)
    }

    fn next(&mut self) -> Option<Step> {
        let now = Instant::now();
        self.aside.retain(|_, until| *until > now);
        let aside = &self.aside;
        let mut state = self.shared.lock();
        state.news = false;
        state.plan.next(|rule| aside.contains_key(rule), now)
    }

    /// Until there is news, or ufw's files may have changed, or a pause is over.
    fn wait(&self) {
        let state = self.shared.lock();
        // A spurious wake-up costs one look.
        if !state.news || self.pause.is_some() {
            drop(
                self.shared
                    .changed
                    .wait_timeout(state, IDLE)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// Finds out what ufw is and has; false: nothing can be done now.
    fn prepare(&mut self) -> bool {
        if let Some(pause) = self.pause {
            if Instant::now() < pause {
                return false;
            }
            self.pause = None;
        }
        if !Path::new(UFW).exists() {
            self.shared.lock().plan.active = false;
            self.known = None;
            self.notices.trouble(
                MISSING,
                format!(
                    "bans do not reach ufw: {UFW} is not there; install ufw, or set \
                     `mirror = false` in [firewall]"
                ),
            );
            return false;
        }
        self.notices.over(MISSING);
        let result = self.look_at_status().and_then(|()| self.look_at_rules());
        if let Err(error) = result {
            self.failed(&error);
            return false;
        }
        self.tell_what_ufw_leaves_out();
        true
    }

    fn look_at_status(&mut self) -> Result<(), Error> {
        let files = Files {
            enabled: setting(UFW_CONF, "ENABLED") == Some(true),
            ipv6: setting(DEFAULTS, "IPV6") != Some(false),
        };
        let busy = self.shared.lock().news;
        let fresh = self
            .status_of
            .is_some_and(|(before, at)| before == files && (!busy || at.elapsed() < STATUS_HOLDS));
        if fresh {
            return Ok(());
        }
        let said = ufw_call::run(&["status".to_owned()], || self.is_stopped())?;
        let active = said.lines().any(|line| line.trim() == "Status: active");
        self.status_of = Some((files, Instant::now()));
        {
            let mut state = self.shared.lock();
            state.plan.active = active;
            state.plan.ipv6 = files.ipv6;
        }
        if active {
            self.notices.over(INACTIVE);
            return Ok(());
        }
        let effect = match self.alone {
            true => "NO ban is in force",
            false => "bans are in force by table `inet pipeban` alone",
        };
        let mend = match files.enabled {
            true => "its rules are not loaded (flushed by somebody?): run `ufw reload`",
            false => "run `ufw enable` (`ufw allow ssh` first), or set `mirror = false`",
        };
        self.notices
            .trouble(INACTIVE, format!("ufw is not active: {effect}; {mend}"));
        Ok(())
    }

    fn look_at_rules(&mut self) -> Result<(), Error> {
        // Before reading: a change in between is seen at the next look.
        let stamp = stamp();
        // Who read before we wrote may have written after us, and before we looked at the time.
        let doubted = self.wrote.is_some_and(|wrote| wrote.elapsed() >= IDLE);
        if self.known != Some(stamp) || doubted {
            let added = added(|| self.is_stopped())?;
            let by_hand = self.shared.lock().plan.found(&added);
            self.known = Some(stamp);
            self.wrote = None;
            self.tell_by_hand(&by_hand);
        }
        let strangers = self.shared.lock().plan.strangers();
        if strangers > 0 {
            self.notices.event(format!(
                "ufw has {strangers} rules of pipeban's that belong to no ban (any more): they are \
                 taken away"
            ));
        }
        Ok(())
    }

    fn tell_by_hand(&mut self, by_hand: &ByHand) {
        let force = match self.alone {
            true => "the ban is NOT in force",
            false => "the ban is in force all the same",
        };
        for (rules, what) in [
            (&by_hand.once, "put back this once".to_owned()),
            (&by_hand.again, format!("left out from now on; {force}")),
        ] {
            let Some(first) = rules.first() else { continue };
            let host = crate::jail::show_net(&first.net);
            self.notices.event(format!(
                "somebody deleted {} ufw rules of pipeban's ({host} is one): {what}; `pipeban \
                 unban {host}` lifts the ban",
                rules.len()
            ));
        }
    }

    fn tell_what_ufw_leaves_out(&mut self) {
        let (no_ipv6, blocked) = {
            let mut state = self.shared.lock();
            let no_ipv6 = state.plan.wants_refused_ipv6();
            (no_ipv6, state.plan.blocked().map(|rule| rule.delete()))
        };
        match no_ipv6 {
            true => self.notices.trouble(
                NO_IPV6,
                format!(
                    "ufw takes no IPv6 rules ({DEFAULTS} says IPV6=no): IPv6 bans {}; set \
                     IPV6=yes and run `ufw reload`",
                    match self.alone {
                        true => "are NOT in force",
                        false => "are in force by table `inet pipeban` alone",
                    }
                ),
            ),
            false => self.notices.over(NO_IPV6),
        }
        match blocked {
            Some(delete) => {
                let rule = delete.get(2..).unwrap_or_default().join(" ");
                self.notices.trouble(
                    BLOCKED,
                    format!(
                        "ufw has a rule of yours for `{rule}` that does not deny; it is left as \
                         it is, and ufw takes no ban beside it"
                    ),
                );
            }
            None => self.notices.over(BLOCKED),
        }
    }

    /// Rules that are to go stop acting together, before ufw deletes one after the other.
    fn lift(&mut self, rule: &Rule) {
        if self.lifted.contains(rule) {
            return;
        }
        self.lifted = self.shared.lock().plan.leaving();
        // One is deleted as fast as it is lifted; and where this fails, deleting does it too.
        if self.lifted.len() > 1 {
            let _ = ufw::lift_in_kernel(&self.lifted);
        }
    }

    fn perform(&mut self, step: Step) {
        match &step {
            Step::Delete(rule) => self.lift(rule),
            // It has ufw load its whole list again.
            Step::Prepend(..) => self.lifted.clear(),
            Step::Update(..) => {}
        }
        match ufw_call::run(&step.argv(), || self.is_stopped()) {
            Ok(_) => {
                self.failures = 0;
                self.notices.over(FAILED);
                self.known = Some(stamp());
                self.wrote = Some(Instant::now());
                let mut state = self.shared.lock();
                // ufw lets established connections be: they end only now that no new one comes.
                if let (Step::Prepend(rule, _), Some(cutter)) = (&step, &mut self.cutter) {
                    cutter.cut(state.plan.bans_of(rule));
                }
                state.plan.done(step);
            }
            Err(error) => {
                self.aside
                    .insert(step.rule().clone(), Instant::now() + ASIDE);
                self.failed(&error);
            }
        }
    }

    /// ufw may have written the rule before it failed: everything is asked again.
    fn failed(&mut self, error: &Error) {
        if self.is_stopped() {
            return;
        }
        self.known = None;
        self.status_of = None;
        self.failures = self.failures.saturating_add(1);
        let pause = PAUSE.saturating_mul(1 << (self.failures - 1).min(10));
        self.pause = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        self.notices.trouble(
            FAILED,
            format!("ufw did not do what it was asked to: {error}; it is tried again later"),
        );
    }
}

/// The rules that ufw has, loaded or not.
pub(super) fn added(stop: impl Fn() -> bool) -> Result<Vec<Existing>, Error> {
    let argv = ["show", "added"].map(str::to_owned);
    let output = ufw_call::run(&argv, stop)?;
    Ok(ufw_rules::parse_added(&output))
}

type Stamp = [Option<SystemTime>; 2];

/// Changes when somebody (also we) adds or deletes rules.
fn stamp() -> Stamp {
    RULES.map(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
}

/// `NAME=yes` or `no` in a file of ufw's.
fn setting(file: &str, name: &str) -> Option<bool> {
    let text = fs::read_to_string(file).ok()?;
    parse_setting(&text, name)
}

fn parse_setting(text: &str, name: &str) -> Option<bool> {
    text.lines().rev().find_map(|line| {
        let (word, value) = line.split_once('=')?;
        (word.trim() == name).then(|| value.trim().trim_matches('"').eq_ignore_ascii_case("yes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_ufw_writes_them() {
        for (text, expected) in [
            ("ENABLED=yes\n", Some(true)),
            ("# ENABLED=yes\nENABLED=no\n", Some(false)),
            ("ENABLED=\"YES\"", Some(true)),
            ("IPV6=yes\n", None),
            ("", None),
        ] {
            assert_eq!(parse_setting(text, "ENABLED"), expected, "{text}");
        }
    }
}
