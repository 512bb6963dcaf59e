//! What enforces bans: the kernel's packet filter, ufw, Apache, a program of the administrator's.
//!
//! [`Firewall`] owns the bans that must be in force, in one map: (client network, ports, behind a
//! proxy) -> (end, jail). Back ends keep no copy of it.
//!
//! - Fast back ends (`nft`, `apache`) act before a call returns. Any doubt about what is there, an
//!   error or an audit that finds something missing, makes `Firewall` replace all of it at once;
//!   while that fails, it retries.
//! - Slow back ends (`ufw`, `command`) are threads that follow the map: each compares what is there
//!   with what is wanted, makes a few changes, and compares again.
//! - A dry run has no back end.
//!
//! `cut` ends the connections that a banned client has open; `host` knows this host's addresses,
//! gateways and ssh ports; `held` asks what holds a ban without an engine; `netlink` and `tool` talk to the kernel and to programs.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod apache;
mod backend;
mod clear;
mod command;
mod cut;
mod desired;
mod follower;
mod held;
mod host;
mod netlink;
mod nft;
mod notices;
mod path;
mod slot;
mod tool;
mod ufw;

use crossbeam_channel::Sender;

use self::apache::DenyMap;
use self::backend::{Checker, Shared, clocks};
use self::clear::Unused;
pub use self::clear::{clear_everything, clear_over};
use self::command::{Command, Templates};
use self::cut::{Cutter, Target};
use self::desired::{BanKey, Desired};
use self::follower::Running;
pub use self::held::{
    Held, Passage, UfwHost, accepted_before, forwarded, held, may_query, ufw_host,
};
pub use self::host::{Surroundings, Watch, surroundings};
use self::nft::Nft;
pub use self::notices::Notice;
use self::notices::Notices;
use self::slot::Slot;
use self::ufw::Ufw;
pub use self::ufw::{UfwState, allowed_by_ufw};
use crate::config::{self, BanCommand, Paths, Ports};
use crate::jail::{FirewallKey, FirewallState, Moment};

const CHECKING: &str = "firewall-checking";
const SLOW: &str = "firewall-slow";

/// The firewall as the engine sees it. No call waits for ufw or a program.
pub struct Firewall {
    shared: Arc<Shared>,
    fast: Vec<Slot>,
    slow: Vec<Running>,
    /// `None`: it cannot be done, or a slow back end does it after its ban.
    cutter: Option<Cutter>,
    ufw: Option<ufw::View>,
    /// ufw is the only one that stops packets.
    ufw_alone: bool,
    command: Option<BanCommand>,
    /// To be emptied once the configured back ends have their bans.
    unused: Option<Unused>,
    notices: Notices,
}

impl Firewall {
    /// Prepares the configured back ends and starts their threads; what is in force stays until
    /// the first call. Never fails: what does not work is a notice.
    pub fn start(settings: &config::Firewall, paths: &Paths, notices: Sender<Notice>) -> Firewall {
        use config::Backend as Kind;
        let notices = Notices::to(notices);
        let shared = Arc::new(Shared::default());
        let mut fast = Vec::new();
        if settings.has_table() {
            fast.push(Slot::new(Nft::new(settings.blocktype)));
        }
        let mut cutter = match settings.has(Kind::DryRun) {
            true => None,
            false => Cutter::start(notices.another()),
        };
        // A client that is cut before its ban is in force comes back.
        let mut later = match fast.is_empty() {
            true => cutter.take(),
            false => None,
        };
        let ufw_alone = fast.is_empty() && settings.mirrors_to_ufw();
        let mut slow = Vec::new();
        let mut view = None;
        if settings.mirrors_to_ufw() {
            let cutter = later.as_ref().map(Cutter::another);
            let view = view.insert(ufw::View::default()).clone();
            let max = settings.max_rules;
            let ufw = Ufw::new(max, ufw_alone, cutter, view, notices.another());
            let ufw = Box::new(ufw.optional(!settings.needs_ufw()));
            slow.push(follower::start(
                "ufw",
                ufw::FAILED,
                &shared,
                ufw,
                notices.another(),
            ));
        }
        let command = settings.command.clone();
        let command = command.filter(|_| settings.has(Kind::Command));
        if let Some(command) = command.clone() {
            let command = Box::new(Command::new(command, later.take(), notices.another()));
            let running = follower::start(
                "command",
                command::FAILED,
                &shared,
                command,
                notices.another(),
            );
            slow.push(running);
        }
        if settings.has(Kind::Apache) {
            fast.push(Slot::new(DenyMap::new(paths.deny_map(), notices.another())));
        }
        Firewall {
            shared,
            fast,
            slow,
            cutter,
            ufw: view,
            ufw_alone,
            command,
            unused: Unused::of(settings, paths),
            notices,
        }
    }

    /// Puts bans in force, changes their ends, or lifts them (`None`), all in one transaction; and
    /// has the sockets of banned clients cut. After Ok packets are dropped (with ufw alone: soon).
    ///
    /// Before the first [`Firewall::replace`] the bans of an earlier engine stay in force.
    ///
    /// # Errors
    /// Why a back end could not do it, for the operator. `Firewall` retries.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (FirewallKey, Option<FirewallState>)>,
    ) -> Result<(), String> {
        let now = clocks().boot;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        self.adopt(&mut state.desired, now);
        let mut targets = Vec::new();
        let mut changed = Vec::new();
        for (key, ban) in changes {
            let bans = ban.is_some();
            state.desired.made += u64::from(bans);
            let id = state.desired.set(&key, ban);
            changed.push(id);
            if bans && !key.behind && self.cutter.is_some() {
                let group = state.desired.group(id);
                let ports = group.map(|group| state.desired.ports(group));
                targets.extend(ports.map(|ports| Target { net: id.net, ports }));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let done = self.each(&state.desired, |slot, wanted, notices| {
            let direct = |id: &BanKey| wanted.group(*id).is_some_and(|group| !group.behind);
            let behind = slot.backend.takes_behind();
            let changed = changed.iter().filter(|id| behind || direct(id)).copied();
            let changed: Vec<BanKey> = changed.collect();
            match changed.is_empty() {
                true => Ok(()),
                false => slot.apply(&changed, wanted, now, notices),
            }
        });
        drop(state);
        self.shared.wake();
        // Also after an error: what is open ends.
        if let (Some(cutter), false) = (&mut self.cutter, targets.is_empty()) {
            cutter.cut(targets);
        }
        done
    }

    /// Puts exactly these bans in force: whatever else back ends hold of pipeban's goes, at the first
    /// call also from back ends that are not configured. Bans that stay are in force throughout.
    ///
    /// # Errors
    /// Why a back end could not do it, for the operator. `Firewall` retries.
    pub fn replace(
        &mut self,
        all: impl Iterator<Item = (FirewallKey, FirewallState)>,
    ) -> Result<(), String> {
        let now = clocks().boot;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.desired.clear();
        state.desired.complete = true;
        for (key, ban) in all {
            state.desired.set(&key, Some(ban));
        }
        let done = self.each(&state.desired, |slot, wanted, notices| {
            slot.fresh = false;
            slot.replace(wanted, now, notices)
        });
        drop(state);
        self.shared.wake();
        if done.is_ok()
            && let Some(unused) = self.unused.take()
        {
            unused.clear(self.notices.another());
        }
        done
    }

    /// Takes these ports as Apache's, with http and https and without sshd's: bans of
    /// [`Ports::Apache`] close them from now on. A program of the administrator's runs again only
    /// for new bans.
    ///
    /// # Errors
    /// Why a back end could not do it, for the operator. `Firewall` retries.
    pub fn set_apache_ports(&mut self, listening: &BTreeSet<u16>) -> Result<(), String> {
        let ports = host::ports_of_apache(listening);
        let now = clocks().boot;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if **state.desired.apache() == ports {
            return Ok(());
        }
        self.adopt(&mut state.desired, now);
        state.desired.set_apache(ports);
        let done = self.each(&state.desired, |slot, wanted, notices| {
            slot.replace(wanted, now, notices)
        });
        drop(state);
        self.shared.wake();
        done
    }

    /// The ports of [`Ports::Apache`] now.
    pub fn apache_ports(&self) -> Ports {
        Ports::clone(self.shared.lock().desired.apache())
    }

    /// An earlier engine may have made these bans in a back end that cannot list them: what of
    /// them is not wanted is lifted after the next [`Firewall::replace`].
    pub fn left<'a>(&mut self, keys: impl IntoIterator<Item = &'a FirewallKey>) {
        if self.command.is_some() {
            let mut state = self.shared.lock();
            for key in keys {
                if !key.behind {
                    let id = state.desired.id(key);
                    state.left.push(id);
                }
            }
        }
    }

    /// The bans that an earlier engine left in force, with their ends, before anything else is called;
    /// and whether those are all.
    pub fn left_in_force(&mut self) -> (Vec<(FirewallKey, Option<Moment>)>, bool) {
        let now = clocks().boot;
        let mut found = Vec::new();
        let mut all = !self.fast.is_empty() && !self.ufw_alone && self.command.is_none();
        for slot in &mut self.fast {
            all &= !slot.backend.takes_behind();
            match slot.backend.load(now) {
                Ok(bans) => found.extend(bans),
                Err(error) => {
                    all = false;
                    self.notices.event(format!(
                        "cannot read the bans that an earlier engine left in force: {error}"
                    ));
                }
            }
        }
        all &= found.len() < nft::MOST_LOADED;
        (found, all)
    }

    /// Restores what another program has removed (`nft flush ruleset`), and retries what failed:
    /// to be called some times a second. One query to the kernel (10 us) while nothing has
    /// changed: a subscription would cost it 4 KiB for each element that any program on this host
    /// puts into a set.
    pub fn tend(&mut self) {
        let now = clocks().boot;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        self.adopt(&mut state.desired, now);
        for slot in &mut self.fast {
            slot.tend(&state.desired, now, &mut self.notices);
        }
        let slow: Vec<String> = self
            .slow
            .iter()
            .filter_map(|one| one.is_slow(Instant::now()))
            .collect();
        match slow.is_empty() {
            true => self.notices.over(SLOW),
            false => self.notices.trouble(SLOW, slow.join("; ")),
        }
    }

    /// Adopts the bans of an earlier engine, so that no replacement lifts them.
    fn adopt(&mut self, desired: &mut Desired, now: Moment) {
        for slot in self.fast.iter_mut().filter(|slot| slot.fresh) {
            slot.fresh = false;
            match slot.backend.load(now) {
                Ok(found) => {
                    for (key, until) in found {
                        desired.adopt(&key, until);
                    }
                }
                Err(error) => self.notices.event(format!(
                    "cannot read the bans that an earlier engine left in force, they are lifted: \
                     {error}"
                )),
            }
        }
    }

    fn each(
        &mut self,
        wanted: &Desired,
        act: impl Fn(&mut Slot, &Desired, &mut Notices) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut failed = Vec::new();
        for slot in &mut self.fast {
            failed.extend(act(slot, wanted, &mut self.notices).err());
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    /// Finds out on any thread what is in force.
    pub fn checker(&self) -> InForce {
        let (mut packets, mut requests) = (Vec::new(), Vec::new());
        for slot in &self.fast {
            match slot.backend.takes_behind() {
                true => requests.push(slot.backend.checker()),
                false => packets.push(slot.backend.checker()),
            }
        }
        if self.ufw_alone {
            packets.push(Box::new(ufw::Chains::new()));
        }
        let command = self.command.clone();
        if let Some(command) = command.filter(|command| command.check.is_some()) {
            packets.push(Box::new(Templates::new(command)));
        }
        InForce {
            apache: self.apache_ports(),
            packets,
            requests,
            enforced: self.fast.iter().any(|slot| !slot.backend.takes_behind())
                || !self.slow.is_empty(),
        }
    }

    /// Reports whether a check worked.
    pub fn report_check<T>(&mut self, found: &Result<T, String>) {
        match found {
            Ok(_) => self.notices.over(CHECKING),
            Err(error) => {
                let text = format!("cannot check whether bans are in force: {error}");
                self.notices.trouble(CHECKING, text);
            }
        }
    }

    /// What ufw does with the ban; `None`: ufw gets no rule for it.
    pub fn ufw_state(&self, ban: &FirewallKey) -> Option<UfwState> {
        let view = self.ufw.as_ref().filter(|_| !ban.behind)?;
        let state = self.shared.lock();
        let id = state.desired.key(ban)?;
        view.of(id, state.desired.get(id)?)
    }

    /// Gives slow back ends `grace` for what is left to do, and ends. A call that has begun gets
    /// some seconds more. Bans stay in force.
    pub fn finish(self, grace: Duration) {
        self.shared.stop_at(Instant::now() + grace);
        for running in self.slow {
            running.finish(grace);
        }
    }
}

/// Finds out what is in force: queries the back ends, on any thread.
pub struct InForce {
    /// In place of [`Ports::Apache`].
    apache: Ports,
    packets: Vec<Box<dyn Checker>>,
    requests: Vec<Box<dyn Checker>>,
    /// Whether any back end stops packets.
    enforced: bool,
}

impl InForce {
    /// For each ban whether a back end stops the client or, for one behind a proxy, Apache refuses
    /// it; `None`: it cannot be found out.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, String> {
        let mut found = vec![None; bans.len()];
        let enforced = self.enforced;
        let packets = self.packets.iter_mut().map(|checker| (checker, false));
        let requests = self.requests.iter_mut().map(|checker| (checker, true));
        for (checker, apache) in packets.chain(requests) {
            let queried = |ban: &FirewallKey| match apache {
                true => ban.behind || !enforced,
                false => !ban.behind,
            };
            let places = bans.iter().enumerate().filter(|(_, ban)| queried(ban));
            let (places, some): (Vec<usize>, Vec<FirewallKey>) = places
                .map(|(place, ban)| {
                    let mut key = desired::canonical_key(ban);
                    if !checker.knows_apache() {
                        key.ports = key.ports.resolved(&self.apache).clone();
                    }
                    (place, key)
                })
                .unzip();
            let held = checker.in_force(&some).map_err(|error| error.to_string())?;
            for (place, held) in places.into_iter().zip(held) {
                if let Some(found) = found.get_mut(place) {
                    // One back end is enough.
                    *found = (*found).max(held);
                }
            }
        }
        Ok(found)
    }
}

/// Whether pipeban's nftables table exists.
///
/// # Errors
/// What the kernel said, for the operator.
pub fn has_own_table() -> Result<bool, String> {
    nft::has_table().map_err(|error| error.to_string())
}

/// Whether ufw's chains are in the kernel.
///
/// # Errors
/// iptables cannot be run.
pub fn ufw_is_loaded() -> Result<bool, String> {
    ufw::is_loaded().map_err(|error| error.to_string())
}

/// The rule of ufw's that lets clients in before one of pipeban's rules denies them, as words
/// behind `ufw allow`; `None`: there is none.
///
/// # Errors
/// ufw's files cannot be read.
pub fn ufw_shadow() -> Result<Option<String>, String> {
    ufw::shadow().map_err(|error| error.to_string())
}

/// Whether the connections of banned clients can be cut.
///
/// # Errors
/// Why not, for the operator.
pub fn can_cut() -> Result<(), String> {
    cut::check()
}
