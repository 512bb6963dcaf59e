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
use super::ufw_rules::{self, Rule};
use super::ufw_thread::{FAILED, PATIENCE, Shared, UFW, Worker, added};
use super::{Backend, Entry, Error, Mirror, ssh_ports, tool};

const PATIENCE_IPTABLES: Duration = Duration::from_secs(3);
/// How long what the kernel said about all rules answers questions about one.
const KERNEL_HOLDS: Duration = Duration::from_secs(1);

/// The mirror; also a back end of its own where there is no table in front.
pub(super) struct Ufw {
    shared: Arc<Shared>,
    ended: Receiver<()>,
    ssh: BTreeSet<u16>,
    /// Rules that iptables and ip6tables told last, and when.
    kernel: Option<(Instant, HashSet<Rule>)>,
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
        let shared = Arc::new(Shared::new(max_rules));
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
            kernel: None,
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
        self.0.lock().plan.mirror(entry)
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
                state.plan.want(entry, &self.ssh);
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

    fn holds(&mut self, entry: &Entry) -> Result<bool, Error> {
        let rules = ufw_rules::rules(entry.net, &entry.ports, &self.ssh);
        let known = self
            .kernel
            .take()
            .filter(|(at, _)| at.elapsed() < KERNEL_HOLDS);
        let (at, kernel) = match known {
            Some(known) => known,
            None => (Instant::now(), kernel_rules()?),
        };
        let holds = !rules.is_empty() && rules.iter().all(|rule| kernel.contains(rule));
        self.kernel = Some((at, kernel));
        Ok(holds)
    }

    fn settled(&mut self) -> Result<(), Error> {
        self.shared.tell(|state| state.plan.settle());
        Ok(())
    }

    /// A call of ufw that is under way after `grace` ends by itself.
    fn finish(self: Box<Self>, grace: Duration) {
        self.shared
            .tell(|state| state.stop = Some(Instant::now() + grace));
        // The thread ends, or it is late: either way we go on.
        let _ = self.ended.recv_timeout(grace);
    }
}

/// The rules that really are in ufw's chains.
fn kernel_rules() -> Result<HashSet<Rule>, Error> {
    let mut found = HashSet::new();
    for (program, chain) in [
        ("/usr/sbin/iptables", "ufw-user-input"),
        ("/usr/sbin/ip6tables", "ufw6-user-input"),
    ] {
        let argv = ["-w", "2", "-S", chain].map(str::to_owned);
        match tool::run(program, &argv, PATIENCE_IPTABLES) {
            Ok(output) => found.extend(output.lines().filter_map(ufw_rules::parse_kernel)),
            // Without the chain (ufw off, IPV6=no) there is no rule in it.
            Err(error @ Error::Tool { .. }) if !Path::new(program).exists() => return Err(error),
            Err(Error::Tool { said, .. }) if said.starts_with("exit status: 1") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Deletes our rules for which `which` says so; how many went. No ufw, no rules.
pub(super) fn clear(which: impl Fn(&str) -> bool) -> Result<usize, Error> {
    if !Path::new(UFW).exists() {
        return Ok(0);
    }
    let mut gone = 0;
    let mut first_error = None;
    for rule in added()? {
        let ours = rule.is_ours() && rule.comment.as_deref().is_some_and(&which);
        if !ours {
            continue;
        }
        let argv: Vec<String> = std::iter::once("delete".to_owned())
            .chain(rule.words)
            .collect();
        match tool::run(UFW, &argv, PATIENCE) {
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
