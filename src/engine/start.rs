//! From a configuration file to a running loop.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::unbounded;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::alarms::Alarms;
use super::connections::Connections;
use super::crawler_check::CrawlerCheck;
use super::crawlers::Crawlers;
use super::decider::Decider;
use super::decision::AfterCommit;
use super::enforcement::{Enforcement, STORE};
use super::exemption_watcher::ExemptionWatcher;
use super::exemptions::Exemptions;
use super::held_acks::HeldAcks;
use super::off::EmergencyStop;
use super::run::{Engine, Timers, now};
use super::settings::{Accepted, Reload};
use super::status::Queries;
use super::trouble_mark::TroubleMark;
use super::undecided_patterns::UndecidedPatterns;
use super::{locks, ready, settings};
use crate::alert::{self, Alerts, Hooks, Severity};
use crate::config::{self, Backend, Config};
use crate::disk;
use crate::firewall::Firewall;
use crate::jail::REMEMBERED;
use crate::metrics::Feed;
use crate::store::{self, Done, Home, Store};
use crate::sys::directory;

/// Why there is no engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Neither the files nor the last good configuration can be used.
    Config(String),
    /// Another engine uses this state directory.
    Second(String),
    /// Something is missing, or in the way.
    Cannot(String),
    /// This user may not use the directories.
    NotPermitted(String),
}

/// Runs the engine in the foreground until a signal or a command ends it. `echo`: its log lines
/// also go to stderr.
///
/// # Errors
/// See [`Failure`]. What is wrong with the firewall, the database or syslog is reported, and the
/// engine goes on.
pub fn run(file: &Path, echo: bool) -> Result<(), Failure> {
    let (accepted, warning) = configuration(file)?;
    let syslog = accepted.config.syslog.clone();
    report_panics(syslog.clone());
    let outcome = start(file, accepted, warning, echo);
    if let Err(Failure::Cannot(text) | Failure::NotPermitted(text)) = &outcome {
        let text = format!("the engine cannot start: {text}");
        alert::log(&syslog, Severity::Err, &text);
    }
    outcome
}

/// Also to syslog: a logger that starts an engine does not see its stderr.
fn report_panics(syslog: config::Syslog) {
    let to_stderr = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("the engine has failed: {panic}").replace('\n', " ");
        alert::log(&syslog, Severity::Err, &text);
        to_stderr(panic);
    }));
}

fn start(
    file: &Path,
    accepted: Accepted,
    warning: Option<String>,
    echo: bool,
) -> Result<(), Failure> {
    let paths = accepted.config.paths.clone();
    let cannot = |what: &Path, error: std::io::Error| {
        let text = format!("{}: {error}", what.display());
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
            _ => Failure::Cannot(text),
        }
    };
    let failed = |error: std::io::Error| Failure::Cannot(error.to_string());
    directory::create(&paths.state, 0o750).map_err(|error| cannot(&paths.state, error))?;
    // Workers must reach the socket.
    directory::create(&paths.runtime, 0o755).map_err(|error| cannot(&paths.runtime, error))?;
    for directory in [&paths.state, &paths.runtime] {
        disk::check_directory(directory).map_err(|error| cannot(directory, error))?;
    }
    let real = !accepted.config.firewall.has(Backend::DryRun);
    let mut locks = locks::take(&paths.state, real)?;
    raise_file_limit();
    // Before any thread: they must inherit it.
    let signals = signals().map_err(|errno| failed(errno.into()))?;

    let mut alarms = Alarms::new(Alerts::start(&accepted.config.syslog, echo).map_err(failed)?);
    let last_good = match warning {
        None => accepted.keep().err(),
        Some(_) => None,
    };
    for (key, problem) in [
        ("config", warning),
        ("last-good", last_good),
        ("namespace", locks.warning.take()),
    ] {
        alarms.set((key, Severity::Err, problem));
    }

    alarms.set(accepted.removed_settings());

    let started = now();
    let home = Home::of_this_boot(&paths.database(), memory(&accepted.config));
    // `report_ready` fails too, and is reported.
    let _ = ready::request_time();
    let mut opened = store::open(&home, started);
    let mark = TroubleMark::of(&paths);
    let whole = opened.whole && !mark.is_set();
    let key = match opened.database {
        Some(_) => "database",
        None => STORE,
    };
    alarms.set((key, Severity::Err, opened.trouble.clone()));

    let socket = paths.socket();
    let connections =
        Connections::listen(&socket, &signals).map_err(|error| cannot(&socket, error))?;
    let (notices, notices_in) = unbounded();
    let firewall = Firewall::start(&accepted.config.firewall, &paths, notices);
    let (done, done_in) = unbounded();
    let waker = connections.waker();
    let store = Store::start(home, &mut opened, move |group: Done<AfterCommit>| {
        // The loop ends before the store's thread does.
        let _ = done.send(group);
        waker.wake();
    })
    .map_err(failed)?;
    let watcher = ExemptionWatcher::start(connections.waker()).map_err(failed)?;
    let check = CrawlerCheck::start(&connections.waker()).map_err(failed)?;
    let config = accepted.config.clone();
    let mut metrics = Feed::default();
    metrics.configure(&config.metrics, &paths.user);
    let mut engine = Engine {
        decider: Decider::new(
            config.clone(),
            Exemptions::new(watcher, paths.names()),
            Crawlers::new(check),
            EmergencyStop::load(&paths, started),
        ),
        enforcement: Enforcement::new(
            config,
            (firewall, notices_in),
            (store, done_in),
            Hooks::start().map_err(failed)?,
            mark,
        ),
        connections,
        alarms,
        undecided: UndecidedPatterns::default(),
        accepted,
        held: HeldAcks::default(),
        reload: Reload::of(file),
        queries: Queries::default(),
        metrics,
        socket,
        started,
        timers: Timers::start(),
        stopping: false,
        listening: BTreeSet::new(),
    };
    engine.follow_apache();
    engine.restore(opened.saved, whole, opened.trouble.is_some(), started);
    // Reading it takes longer than restoring bans, and the first hit needs it.
    engine.read_apache();
    let not_ready = ready::report_ready().err().map(|error| {
        format!(
            "cannot report to systemd that bans are in force: {error}; systemd will end the engine \
             after its start time-out; set `Type=exec` in pipeban.service"
        )
    });
    engine.alarms.set(("ready", Severity::Err, not_ready));
    engine.run();
    // Held until here.
    drop((locks, signals));
    Ok(())
}

/// The files; broken ones mean the last good configuration, and a warning.
fn configuration(file: &Path) -> Result<(Accepted, Option<String>), Failure> {
    let problems = match settings::from_files(file) {
        Ok(accepted) => return Ok((accepted, None)),
        Err(problems) => problems,
    };
    match settings::last_good(file) {
        Ok(accepted) => {
            let text = format!(
                "the configuration is broken, the last good one ({}) is in use; correct it and run \
                 `pipeban reload`: {}",
                accepted.hash,
                problems.replace('\n', "; ")
            );
            Ok((accepted, Some(text)))
        }
        Err(_) => Err(Failure::Config(problems)),
    }
}

/// How far back the escalation of any jail reaches.
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
    // Only `pipeban reload` takes a configuration into use, and no terminal's end ends the engine.
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
