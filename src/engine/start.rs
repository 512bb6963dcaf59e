//! From a configuration file to a running loop.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::unbounded;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::hub::{Engine, Parts, STORE, Then};
use super::looker::Looker;
use super::server::Server;
use super::settings::Accepted;
use super::stop::Stop;
use super::{files, locks, ready, settings};
use crate::alert::{Alerts, Hooks, Severity};
use crate::config::{Backend, Config};
use crate::firewall::Firewall;
use crate::jail::{Jails, REMEMBERED};
use crate::store::{self, Done, Home, Store};

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Neither the files nor the last good configuration can be used.
    Config(String),
    /// Another engine runs, or something is missing.
    Cannot(String),
    /// This user may not use the directories.
    NotPermitted(String),
}

/// Runs the engine in the foreground until it is told to stop.
///
/// # Errors
/// See [`Failure`]. Whatever is wrong with firewall, database or syslog is told, and the engine
/// goes on.
pub fn run(file: &Path) -> Result<(), Failure> {
    let (accepted, warning) = configuration(file)?;
    let paths = accepted.config.paths.clone();
    let cannot = |what: &Path, error: std::io::Error| {
        let text = format!("{}: {error}", what.display());
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
            _ => Failure::Cannot(text),
        }
    };
    files::directory(&paths.state, 0o750).map_err(|error| cannot(&paths.state, error))?;
    files::directory(&paths.runtime, 0o755).map_err(|error| cannot(&paths.runtime, error))?;
    let real = !accepted.config.firewall.has(Backend::DryRun);
    let mut locks = locks::take(&paths.state, real)?;
    raise_file_limit();
    // Before any thread: they must inherit it.
    let signals = signals().map_err(|error| Failure::Cannot(error.to_string()))?;

    let alerts = Alerts::start(&accepted.config.syslog)
        .map_err(|error| Failure::Cannot(error.to_string()))?;
    let hooks = Hooks::start().map_err(|error| Failure::Cannot(error.to_string()))?;
    let mut troubles = Vec::new();
    match warning {
        Some(text) => troubles.push(("config", text)),
        None => troubles.extend(accepted.keep().err().map(|text| ("last-good", text))),
    }
    troubles.extend(locks.warning.take().map(|text| ("namespace", text)));

    let now = super::hub::now();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let home = Home {
        path: paths.database(),
        boot_id: boot_id.trim().to_owned(),
        memory: memory(&accepted.config),
    };
    let starting = ready::Starting::begin();
    let mut opened = store::open(&home, now);
    if let Some(text) = &opened.trouble {
        let key = if opened.database.is_some() {
            "database"
        } else {
            STORE
        };
        troubles.push((key, text.clone()));
    }

    let socket = paths.socket();
    let server = Server::listen(&socket, locks.namespace.take(), &signals)
        .map_err(|error| cannot(&socket, error))?;
    let (notices, notices_in) = unbounded();
    let firewall = Firewall::start(&accepted.config.firewall, &paths, notices);
    let (done, done_in) = unbounded();
    let waker = server.waker();
    let store = Store::start(home, &mut opened, move |group: Done<Then>| {
        // The loop outlives the store's thread but for its last group.
        let _ = done.send(group);
        waker.wake();
    })
    .map_err(|error| Failure::Cannot(error.to_string()))?;

    let jails = Jails::new(&accepted.config);
    let off = Stop::read(&paths, now);
    let looker =
        Looker::start(server.waker()).map_err(|error| Failure::Cannot(error.to_string()))?;
    let parts = Parts {
        file: file.to_owned(),
        paths,
        accepted,
        jails,
        firewall,
        alerts,
        hooks,
        store,
        done: done_in,
        notices: notices_in,
        server,
        off,
        started: now,
    };
    let mut engine = Engine::new(parts, looker);
    for (key, text) in troubles {
        engine.trouble(key, Severity::Err, text);
    }
    engine.restore(opened.saved, opened.whole, now);
    if let Err(error) = starting.ready() {
        let text = format!(
            "systemd cannot be told that bans are in force ({error}): it will take the engine for \
             one that hangs; set `Type=exec` in pipeban.service"
        );
        engine.trouble("ready", Severity::Err, text);
    }
    engine.run();
    // Held until here.
    drop((locks, signals));
    Ok(())
}

/// The files; broken ones mean the last good configuration, and something to tell.
fn configuration(file: &Path) -> Result<(Accepted, Option<String>), Failure> {
    let problems = match settings::from_files(file) {
        Ok(accepted) => return Ok((accepted, None)),
        Err(problems) => problems,
    };
    match settings::last_good(file) {
        Ok(accepted) => {
            let text = format!(
                "the configuration is broken, the last good one ({}) is in use; mend it, then \
                 `pipeban reload`: {}",
                accepted.hash,
                problems.replace('\n', "; ")
            );
            Ok((accepted, Some(text)))
        }
        Err(_) => Err(Failure::Config(problems)),
    }
}

/// How far back any jail's escalation looks.
fn memory(config: &Config) -> Duration {
    let jails = config.jails.values();
    let increments = jails.filter_map(|jail| jail.increment.as_ref());
    let longest = increments.map(|increment| increment.memory).max();
    longest.map_or(REMEMBERED, |memory| memory.max(REMEMBERED))
}

fn signals() -> nix::Result<SignalFd> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    // A configuration is taken in by `pipeban reload` only, and nobody's terminal ends us.
    let mut hup = SigSet::empty();
    hup.add(Signal::SIGHUP);
    hup.thread_block()?;
    SignalFd::with_flags(&end, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// A thousand piped logs are two thousand connections.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // As far as permitted; beyond it connections are refused and counted.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard);
    }
}
