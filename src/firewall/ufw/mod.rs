//! Bans as ufw rules, so that `ufw status` shows them, and ufw as the only one that enforces.
//!
//! A thread compares what ufw's files hold with the bans that end last, and calls ufw for one
//! difference at a time (0.3 s each).
#![forbid(unsafe_code)]

mod call;
mod chains;
mod mirror;
mod rules;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use self::call::UFW;
use self::chains::{CHAINS, lift_in_kernel};
pub(super) use self::chains::{Chains, is_loaded, lister};
pub use self::mirror::UfwState;
use self::mirror::{Chosen, Host, Mirror, Step};
pub use self::rules::allowed_by_ufw;
use self::rules::{Existing, Rule};
use super::backend::{Error, Follower, Next, Shared, clocks};
use super::cut::{Cutter, Target};
use super::desired::{BanKey, BanState};
use super::host::ssh_ports;
use super::nft;
use super::notices::Notices;
use crate::jail::{Moment, show_net};

/// Where ufw keeps the rules that people give it.
const RULES: [&str; 2] = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];
/// `ENABLED=`
const UFW_CONF: &str = "/etc/ufw/ufw.conf";
/// `IPV6=`
const DEFAULTS: &str = "/etc/default/ufw";
/// How often ufw's files are checked when there is nothing else to do.
const IDLE: Duration = Duration::from_secs(1);
/// Between two checks whether another program may have emptied ufw's chains.
const RECHECK: Duration = Duration::from_secs(5);
/// The same where no generation of the ruleset says that it has changed.
const RECHECK_LEGACY: Duration = Duration::from_secs(60);
/// How long a rule that ufw refused is left alone.
const ASIDE: Duration = Duration::from_secs(60);
/// Bans that are compared while the lock is held.
const CHUNK: usize = 10_000;

pub(super) const FAILED: &str = "ufw-failed";
const MISSING: &str = "ufw-missing";
const INACTIVE: &str = "ufw-inactive";
const NO_IPV6: &str = "ufw-ipv6";
const BLOCKED: &str = "ufw-blocked";

/// Where bans stand in ufw, for `status`.
#[derive(Clone, Default)]
pub(super) struct View(Arc<Mutex<Arc<Snapshot>>>);

#[derive(Default)]
struct Snapshot {
    states: HashMap<BanKey, Option<UfwState>>,
    inactive: bool,
    /// ufw need not be active.
    optional: bool,
    /// Bans that end no later have no place.
    full: Option<Moment>,
}

impl View {
    /// `None`: ufw cannot express it.
    pub(super) fn of(&self, id: BanKey, ban: BanState) -> Option<UfwState> {
        let snapshot = self.get();
        match snapshot.states.get(&id) {
            Some(Some(UfwState::Inactive)) if snapshot.optional => None,
            Some(state) => *state,
            None if snapshot.inactive && snapshot.optional => None,
            None if snapshot.inactive => Some(UfwState::Inactive),
            None if snapshot.full.is_some_and(|last| ban.end() <= last) => Some(UfwState::Capped),
            None => Some(UfwState::Queued),
        }
    }

    fn get(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

pub(super) struct Ufw {
    max_rules: usize,
    /// No other back end stops packets.
    alone: bool,
    /// It is no fault that ufw is not there, or not active.
    optional: bool,
    /// Cuts what a rule has just closed; `None`: another one does it, or it cannot be done.
    cutter: Option<Cutter>,
    notices: Notices,
    view: View,
    mirror: Mirror,
    ssh: BTreeSet<u16>,
    /// The version of the wanted bans, and which of them have a place.
    chosen: Option<(u64, Chosen)>,
    /// ufw's files as they were read last; `None`: they must be read.
    read: Option<Stamp>,
    checked: Option<Checked>,
    aside: HashMap<Rule, Instant>,
    /// Removed from the running chains already, and still in ufw's list.
    lifted: HashSet<Rule>,
}

/// What decided that ufw is active, and when.
struct Checked {
    host: Host,
    enabled: bool,
    generation: Option<u32>,
    at: Instant,
}

type Stamp = [Option<SystemTime>; 2];

impl Ufw {
    pub(super) fn new(
        max_rules: usize,
        alone: bool,
        cutter: Option<Cutter>,
        view: View,
        notices: Notices,
    ) -> Ufw {
        Ufw {
            max_rules,
            alone,
            optional: false,
            cutter,
            notices,
            view,
            mirror: Mirror::new(max_rules, !alone),
            ssh: ssh_ports(),
            chosen: None,
            read: None,
            checked: None,
            aside: HashMap::new(),
            lifted: HashSet::new(),
        }
    }

    /// Whether it is no fault that ufw is not there, or not active.
    pub(super) fn optional(self, optional: bool) -> Ufw {
        Ufw { optional, ..self }
    }

    /// Chooses the bans that end last.
    fn choose(&mut self, shared: &Shared) {
        let (version, complete, made) = {
            let desired = &shared.lock().desired;
            (desired.version, desired.complete, desired.made)
        };
        if self
            .chosen
            .as_ref()
            .is_some_and(|(known, _)| *known == version)
        {
            return;
        }
        self.mirror.changed(complete, made, Instant::now());
        let mut last = BinaryHeap::new();
        let (mut from, now) = (None, clocks());
        loop {
            let state = shared.lock();
            let some = state.desired.after(from, CHUNK);
            let Some((id, _)) = some.last() else { break };
            from = Some(*id);
            let direct = |id| state.desired.group(id).is_some_and(|group| !group.behind);
            for (id, ban) in &some {
                if ban.is_over(now.boot) || ban.is_adopted() || !direct(*id) {
                    continue;
                }
                last.push(Reverse((ban.end(), *id)));
                if last.len() > self.max_rules {
                    last.pop();
                }
            }
        }
        let full = last.len() >= self.max_rules;
        let state = shared.lock();
        let bans = last.into_sorted_vec();
        let bans = bans.iter().filter_map(|Reverse((_, id))| {
            let (group, ban) = (state.desired.group(*id)?, state.desired.get(*id)?);
            let rules = rules::rules(id.net, &state.desired.ports(group), &self.ssh);
            let until = ban.until.map(|until| now.wall_of(until));
            let comment = rules::comment(state.desired.jail(ban), until);
            Some((*id, ban, rules, comment))
        });
        let chosen = Chosen::new(bans, self.max_rules, full);
        drop(state);
        self.chosen = Some((version, chosen));
    }

    /// Whether ufw enforces its rules.
    fn check_host(&mut self, shared: &Shared) -> Result<Host, Error> {
        let (enabled, ipv6) = (is_enabled(), has_ipv6());
        let generation = nft::ruleset_generation();
        if let Some(known) = &self.checked
            && (known.enabled, known.host.ipv6) == (enabled, ipv6)
        {
            let wait = match known.generation == generation {
                true if generation.is_some() || !enabled => Duration::MAX,
                true => RECHECK_LEGACY,
                false => RECHECK,
            };
            if known.at.elapsed() < wait {
                return Ok(known.host);
            }
        }
        // A chain that is missing may be one that `ufw reload` is about to make: `ufw status`
        // waits for that.
        let active = enabled && (CHAINS[0].rules()?.is_some() || is_active(shared)?);
        let host = Host { active, ipv6 };
        self.checked = Some(Checked {
            host,
            enabled,
            generation,
            at: Instant::now(),
        });
        self.report_inactive(active, enabled);
        Ok(host)
    }

    fn report_inactive(&mut self, active: bool, enabled: bool) {
        if active || self.optional {
            return self.notices.over(INACTIVE);
        }
        let effect = match self.alone {
            true => "NO ban is in force",
            false => "bans are in force through pipeban's nftables table only",
        };
        let mend = match enabled {
            true => "its rules are not loaded (another program flushed them): run `ufw reload`",
            false => "run `ufw enable` (`ufw allow ssh` first), or set `mirror = false`",
        };
        let text = format!("ufw is not active: {effect}; {mend}");
        self.notices.trouble(INACTIVE, text);
    }

    /// Reads ufw's files if they have changed; false: another ufw is writing them.
    fn read_rules(&mut self, chosen: &Chosen, host: Host) -> Result<bool, Error> {
        let before = stamp();
        if self.read == Some(before) && !self.mirror.has_unconfirmed(Instant::now()) {
            return Ok(true);
        }
        if call::is_busy() {
            return Ok(false);
        }
        let existing = read_files()?;
        if call::is_busy() || stamp() != before {
            return Ok(false);
        }
        let by_hand = self.mirror.observe(existing, chosen, host, Instant::now());
        self.read = Some(before);
        let force = match self.alone {
            true => "the ban is NOT in force",
            false => "the ban is in force through pipeban's nftables table",
        };
        for (rules, what) in [
            (&by_hand.once, "pipeban restores it this once".to_owned()),
            (
                &by_hand.again,
                format!("pipeban does not restore it again; {force}"),
            ),
        ] {
            let Some(first) = rules.first() else { continue };
            let host = show_net(&first.net);
            self.notices.event(format!(
                "another program deleted {} ufw rules of pipeban's ({host} is one): {what}; \
                 `pipeban unban {host}` lifts the ban",
                rules.len()
            ));
        }
        Ok(true)
    }

    fn report_omissions(&mut self, chosen: &Chosen, host: Host) {
        match chosen.has_ipv6() && !host.ipv6 && !self.optional {
            true => {
                let effect = match self.alone {
                    true => "are NOT in force",
                    false => "are in force through pipeban's nftables table only",
                };
                let text = format!(
                    "ufw takes no IPv6 rules ({DEFAULTS} has IPV6=no): IPv6 bans {effect}; set \
                     IPV6=yes and run `ufw reload`"
                );
                self.notices.trouble(NO_IPV6, text);
            }
            false => self.notices.over(NO_IPV6),
        }
        match self.mirror.blocked(chosen) {
            Some(rule) => {
                let text = format!(
                    "ufw has a rule of yours for `{}` that does not deny: pipeban leaves it as it \
                     is, and adds no rule for that ban",
                    rule.words
                );
                self.notices.trouble(BLOCKED, text);
            }
            None => self.notices.over(BLOCKED),
        }
    }

    fn perform(&mut self, step: &Step, chosen: &Chosen, shared: &Shared) -> Result<(), Error> {
        match step {
            Step::Delete(rule) => self.lift(rule, chosen),
            // It makes ufw load its whole list again.
            Step::Prepend(..) => self.lifted.clear(),
            Step::Update(..) => {}
        }
        if let Err(error) = call::run(&step.argv(), || shared.is_over(Duration::ZERO)) {
            self.aside
                .insert(step.rule().clone(), Instant::now() + ASIDE);
            // ufw may have written the rule before it failed: everything is read again.
            self.read = None;
            self.checked = None;
            return Err(error);
        }
        self.mirror.done(step, Instant::now());
        // ufw lets established connections pass: they end only now that no new one gets in.
        if let (Step::Prepend(rule, _), Some(cutter)) = (step, &mut self.cutter) {
            let state = shared.lock();
            let bans = chosen.bans_of(rule).filter_map(|id| {
                let ports = state.desired.ports(state.desired.group(id)?);
                Some(Target { net: id.net, ports })
            });
            cutter.cut(bans.collect());
        }
        Ok(())
    }

    /// Rules that are to go stop acting together, before ufw deletes one after the other.
    fn lift(&mut self, rule: &Rule, chosen: &Chosen) {
        if self.lifted.contains(rule) {
            return;
        }
        self.lifted = self.mirror.leaving(chosen);
        // One is deleted as fast as it is lifted; and where this fails, deleting does it too.
        if self.lifted.len() > 1 {
            let _ = lift_in_kernel(&self.lifted);
        }
    }
}

impl Follower for Ufw {
    fn round(&mut self, shared: &Shared) -> Result<Next, Error> {
        if !Path::new(UFW).exists() && self.optional {
            self.view.publish(Snapshot {
                inactive: true,
                optional: true,
                ..Snapshot::default()
            });
            (self.read, self.checked) = (None, None);
            return Ok(Next::After(IDLE));
        }
        if !Path::new(UFW).exists() {
            let text = format!(
                "bans do not reach ufw: {UFW} does not exist; install ufw, or set `mirror = false` \
                 in [firewall]"
            );
            self.notices.trouble(MISSING, text);
            (self.read, self.checked) = (None, None);
            return Ok(Next::After(IDLE));
        }
        self.notices.over(MISSING);
        self.choose(shared);
        let Some((version, chosen)) = self.chosen.take() else {
            return Ok(Next::Within(IDLE));
        };
        let next = self.one_step(&chosen, shared);
        self.chosen = Some((version, chosen));
        next
    }
}

impl Ufw {
    fn one_step(&mut self, chosen: &Chosen, shared: &Shared) -> Result<Next, Error> {
        let host = self.check_host(shared)?;
        if !self.read_rules(chosen, host)? {
            return Ok(Next::After(call::GIVE_WAY));
        }
        self.report_omissions(chosen, host);
        if let Some(count) = self.mirror.leftover(chosen) {
            self.notices.event(format!(
                "ufw has {count} rules of pipeban's for bans that are over: pipeban removes them"
            ));
        }
        let now = Instant::now();
        self.aside.retain(|_, until| *until > now);
        let aside = &self.aside;
        let boot = clocks();
        let step = self
            .mirror
            .next(chosen, host, |rule| aside.contains_key(rule), boot, now);
        self.view.publish(Snapshot {
            states: self.mirror.states(chosen, host, boot.boot),
            inactive: !host.active,
            optional: self.optional,
            full: chosen.full,
        });
        match step {
            Some(step) => self.perform(&step, chosen, shared).map(|()| Next::Now),
            None => Ok(Next::Within(IDLE)),
        }
    }
}

/// What `ufw status` says, after other calls of ufw have ended.
fn is_active(shared: &Shared) -> Result<bool, Error> {
    let said = call::run(&["status".to_owned()], || shared.is_over(Duration::ZERO))?;
    Ok(said.lines().any(|line| line.trim() == "Status: active"))
}

/// The rules that ufw has, loaded or not.
fn read_files() -> Result<Vec<Existing>, Error> {
    let mut found = Vec::new();
    for file in RULES {
        match fs::read_to_string(file) {
            Ok(text) => found.extend(rules::parse_file(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::Tool {
                    command: format!("reading {file}"),
                    said: error.to_string(),
                });
            }
        }
    }
    Ok(found)
}

/// Changes when a call of ufw, also of pipeban's, adds or deletes rules.
fn stamp() -> Stamp {
    RULES.map(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
}

/// Whether the program exists.
pub(super) fn is_installed() -> bool {
    Path::new(UFW).exists()
}

/// Whether `ufw enable` was run.
pub(super) fn is_enabled() -> bool {
    setting(UFW_CONF, "ENABLED") == Some(true)
}

/// A rule that lets clients in before one of pipeban's denies them: its words for `ufw`, without
/// the first. `None`: there is none.
pub(super) fn shadow() -> Result<Option<String>, Error> {
    Ok(rules::shadow(&read_files()?))
}

/// Whether ufw makes rules for IPv6.
pub(super) fn has_ipv6() -> bool {
    setting(DEFAULTS, "IPV6") != Some(false)
}

/// `NAME=yes` or `no` in one of ufw's files.
fn setting(file: &str, name: &str) -> Option<bool> {
    rules::parse_setting(&fs::read_to_string(file).ok()?, name)
}

/// Deletes pipeban's rules that are over at `now`, or all (`None`); returns how many. Without ufw
/// there are none.
pub(super) fn clear(now: Option<Timestamp>) -> Result<usize, Error> {
    if !Path::new(UFW).exists() {
        return Ok(0);
    }
    let over = |rule: &Existing| now.is_none_or(|now| rules::is_over(&rule.comment, now));
    let ours = read_files()?;
    let ours: HashSet<Rule> = ours
        .into_iter()
        .filter(|rule| rule.is_ours() && over(rule))
        .map(|existing| existing.rule)
        .collect();
    // Where this fails, each deletion below does it too.
    let _ = lift_in_kernel(&ours);
    let mut gone = 0;
    let mut failed = None;
    for rule in ours {
        match call::run(&rule.argv("delete", ""), || false) {
            Ok(_) => gone += 1,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(gone), Err)
}
