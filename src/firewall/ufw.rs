//! The mirror in ufw, as the others see it: what is wanted is noted down for a thread, and nobody
//! waits for that. And taking our rules away without any engine.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use jiff::Timestamp;

use super::cut::Cutter;
use super::notices::Notices;
use super::ufw_call::{self, UFW};
use super::ufw_rules::{self, Existing, Rule};
use super::ufw_thread::{FAILED, Shared, Worker, added};
use super::{Backend, Entry, Error, Mirror, Witness, ssh_ports, tool};

const PATIENCE_IPTABLES: Duration = Duration::from_secs(3);
/// How long the end waits for a call of ufw that has begun: it may be writing its files.
const LAST_CALL: Duration = Duration::from_secs(5);

/// The mirror; also a back end of its own where there is no table in front.
pub(super) struct Ufw {
    shared: Arc<Shared>,
    ended: Receiver<()>,
    ssh: BTreeSet<u16>,
}

impl Ufw {
    /// Starts the mirror of a table that enforces.
    pub(super) fn mirror(max_rules: usize, notices: Notices) -> Ufw {
        Ufw::start(max_rules, false, None, notices)
    }

    /// Starts ufw as the only one that enforces.
    pub(super) fn alone(max_rules: usize, cutter: Option<Cutter>, notices: Notices) -> Ufw {
        Ufw::start(max_rules, true, cutter, notices)
    }

    fn start(max_rules: usize, alone: bool, cutter: Option<Cutter>, mut notices: Notices) -> Ufw {
        let shared = Arc::new(Shared::new(max_rules, !alone));
        let (ending, ended) = bounded(1);
        let for_thread = (Arc::clone(&shared), notices.another());
        let started = thread::Builder::new().name("ufw".into()).spawn(move || {
            let (shared, notices) = for_thread;
            Worker::new(shared, alone, cutter, notices).run(&ending);
        });
        if let Err(error) = started {
            notices.trouble(FAILED, format!("bans do not reach ufw: no thread: {error}"));
        }
        Ufw {
            shared,
            ended,
            ssh: ssh_ports::read(),
        }
    }

    /// Answers where entries stand.
    pub(super) fn standing(&self) -> Standing {
        Standing(Arc::clone(&self.shared))
    }
}

/// Where entries stand in ufw.
pub(super) struct Standing(Arc<Shared>);

impl Standing {
    pub(super) fn of(&self, entry: &Entry) -> Option<Mirror> {
        self.0.lock().plan.mirror(entry, Instant::now())
    }
}

impl Drop for Ufw {
    fn drop(&mut self) {
        self.shared.tell(|state| {
            state.stop.get_or_insert_with(Instant::now);
        });
    }
}

impl Backend for Ufw {
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.shared.tell(|state| {
            for entry in entries {
                state.plan.ban(entry, &self.ssh, Instant::now());
            }
        });
        Ok(())
    }

    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.shared.tell(|state| {
            for entry in entries {
                state.plan.lift(entry, &self.ssh);
            }
        });
        Ok(())
    }

    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error> {
        self.shared.tell(|state| {
            state.plan.forget_all();
            for entry in all {
                state.plan.want(&entry, &self.ssh, Instant::now());
            }
            state.plan.settle();
        });
        Ok(())
    }

    fn witness(&self) -> Option<Box<dyn Witness>> {
        Some(Box::new(Asking {
            ssh: self.ssh.clone(),
        }))
    }

    /// The thread looks at ufw's files every few seconds by itself.
    fn tend(&mut self) {}

    fn finish(self: Box<Self>, grace: Duration) {
        self.shared
            .tell(|state| state.stop = Some(Instant::now() + grace));
        // The thread ends, or ufw hangs: either way we go on.
        let _ = self.ended.recv_timeout(grace.saturating_add(LAST_CALL));
    }
}

/// Asks iptables and ip6tables.
struct Asking {
    ssh: BTreeSet<u16>,
}

impl Witness for Asking {
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error> {
        let kernel = kernel_rules()?;
        let holds = |entry: &Entry| {
            let rules = ufw_rules::rules(entry.net, &entry.ports, &self.ssh);
            !rules.is_empty() && rules.iter().all(|rule| kernel.contains(rule))
        };
        Ok(entries.iter().map(|entry| Some(holds(entry))).collect())
    }
}

/// A chain of ufw's with the rules that people gave it, in the kernel.
struct Chain {
    list: &'static str,
    change: &'static str,
    name: &'static str,
}

const CHAINS: [Chain; 2] = [
    Chain {
        list: "/usr/sbin/iptables",
        change: "/usr/sbin/iptables-restore",
        name: "ufw-user-input",
    },
    Chain {
        list: "/usr/sbin/ip6tables",
        change: "/usr/sbin/ip6tables-restore",
        name: "ufw6-user-input",
    },
];

impl Chain {
    /// Its rules as `iptables -S` prints them.
    fn rules(&self) -> Result<String, Error> {
        let argv = ["-w", "2", "-S", self.name].map(str::to_owned);
        match tool::run(self.list, &argv, PATIENCE_IPTABLES) {
            Ok(output) => Ok(output),
            Err(error @ Error::Tool { .. }) if !Path::new(self.list).exists() => Err(error),
            // Without the chain (ufw off, IPV6=no) there is no rule in it.
            Err(Error::Tool { said, .. }) if said.starts_with("exit status: 1") => {
                Ok(String::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// The rules that really are in ufw's chains.
fn kernel_rules() -> Result<HashSet<Rule>, Error> {
    let mut found = HashSet::new();
    for chain in &CHAINS {
        found.extend(chain.rules()?.lines().filter_map(ufw_rules::parse_kernel));
    }
    Ok(found)
}

/// Takes rules out of the running chains, all at once: `ufw delete`, which has to follow for
/// ufw's own list, takes 0.3 s a rule, and until then a client would still be kept out. Should
/// ufw load its list again meanwhile, they are back until their turn comes.
pub(super) fn lift_in_kernel(rules: &HashSet<Rule>) -> Result<(), Error> {
    for chain in &CHAINS {
        let there = chain.rules()?;
        let gone = ufw_rules::without(&there, rules);
        if !gone.is_empty() {
            let argv = ["-w", "2", "--noflush"].map(str::to_owned);
            tool::run_with_input(chain.change, &argv, gone, PATIENCE_IPTABLES)?;
        }
    }
    Ok(())
}

/// Deletes our rules for which `which` says so; how many went. No ufw, no rules.
pub(super) fn clear(which: impl Fn(&str) -> bool) -> Result<usize, Error> {
    if !Path::new(UFW).exists() {
        return Ok(0);
    }
    let ours = |rule: &Existing| rule.is_ours() && rule.comment.as_deref().is_some_and(&which);
    let ours: Vec<Existing> = added(|| false)?.into_iter().filter(ours).collect();
    // Where this fails, each deletion below does it too.
    let _ = lift_in_kernel(&ours.iter().filter_map(Existing::rule).collect());
    let mut gone = 0;
    let mut first_error = None;
    for rule in ours {
        let argv: Vec<String> = std::iter::once("delete".to_owned())
            .chain(rule.words)
            .collect();
        match ufw_call::run(&argv, || false) {
            Ok(_) => gone += 1,
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        None => Ok(gone),
        Some(error) => Err(error),
    }
}

/// Deletes our rules whose comment says that the ban is over.
pub(super) fn clear_over(now: Timestamp) -> Result<usize, Error> {
    clear(|comment| ufw_rules::is_over(comment, now))
}
