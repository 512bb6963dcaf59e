//! What the links look at, gathered once: the configuration, Apache, the processes, the engine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::super::global::Global;
use super::super::setup;
use super::processes::{self, Process};
use crate::apache::{self, Scan, ScanError};
use crate::config::{Config, DEFAULT_FILE, Paths, Problem};
use crate::control::{self, AskError, Command, Known, Reply};
use crate::sys::systemd;
use crate::{disk, engine};

/// How long the engine may take to answer: one that hangs must not make the doctor hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// The address that is banned for a moment: TEST-NET-1 (RFC 5737) belongs to no client.
pub(super) const PROOF: [u8; 4] = [192, 0, 2, 222];

/// The engine's user where the unit has the drop-in `nftables-only.conf`.
const ENGINE_USER: &str = "pipeban-engine";

pub(super) struct Host {
    pub(super) config_file: PathBuf,
    pub(super) is_root: bool,
    /// Whose the engine's directories and its socket are.
    pub(super) engine_uids: Vec<u32>,
    pub(super) paths: Paths,
    /// The files.
    pub(super) files: Result<Config, Vec<Problem>>,
    /// What the engine and the workers use, as far as it is known: the last good one, else the
    /// files.
    pub(super) config: Config,
    /// `None`: this host has no Apache.
    pub(super) scan: Option<Scan>,
    /// Whether `pipeban setup --write` would change something.
    pub(super) setup_changes: bool,
    pub(super) processes: Vec<Process>,
    pub(super) engine: Result<Known, Silence>,
}

/// Why the engine does not say how it is.
pub(super) enum Silence {
    NotRunning,
    NotPermitted,
    /// It runs and does not answer, or not in a way that this version understands.
    NoAnswer(String),
}

fn engine_uids() -> Vec<u32> {
    let user = User::from_name(ENGINE_USER).ok().flatten();
    let own = nix::unistd::geteuid();
    let uids = user.map(|user| user.uid).into_iter().chain([own]);
    uids.map(Uid::as_raw).collect()
}

impl Host {
    /// # Errors
    /// The configuration of pipeban or of Apache cannot be read.
    pub(super) fn gather(global: &Global) -> Result<Host, String> {
        let file = &global.config;
        readable(file)?;
        let files = disk::load(file);
        let in_use = engine::configuration_in_use(file);
        let processes = processes::all();
        let scan = scan(&processes)?;
        let host = Host {
            config_file: file.clone(),
            is_root: nix::unistd::geteuid().is_root(),
            engine_uids: engine_uids(),
            paths: disk::paths_of(file),
            config: in_use
                .or_else(|| files.as_ref().ok().cloned())
                .unwrap_or_default(),
            files,
            setup_changes: scan
                .as_ref()
                .is_some_and(|scan| setup::changes(scan, global)),
            scan,
            processes,
            engine: Err(Silence::NotRunning),
        };
        Ok(Host {
            engine: host.ask_engine(),
            ..host
        })
    }

    fn ask_engine(&self) -> Result<Known, Silence> {
        let net = ipnet::IpNet::from(std::net::IpAddr::from(PROOF));
        match self.ask(&Command::Explain { net }) {
            Ok(Reply::Known(known)) => Ok(*known),
            Ok(Reply::Refused { exit: 77, .. }) => Err(Silence::NotPermitted),
            Ok(Reply::Refused { text, .. }) => Err(Silence::NoAnswer(text)),
            Ok(_) => Err(Silence::NoAnswer("it sent an unexpected answer".into())),
            Err(AskError::NotRunning) => Err(Silence::NotRunning),
            Err(AskError::NotPermitted) => Err(Silence::NotPermitted),
            Err(AskError::NoAnswer(error)) => Err(Silence::NoAnswer(error.to_string())),
        }
    }

    /// Asks the engine, which has a second for each step.
    pub(super) fn ask(&self, command: &Command) -> Result<Reply, AskError> {
        control::ask(&self.paths.socket(), command, PATIENCE)
    }

    pub(super) fn apache(&self) -> Option<&Process> {
        processes::apaches(&self.processes).next()
    }

    /// `pipeban` with this configuration.
    pub(super) fn pipeban(&self, command: &str) -> String {
        match self.config_file == Path::new(DEFAULT_FILE) {
            true => format!("pipeban {command}"),
            false => format!("pipeban --config {} {command}", self.config_file.display()),
        }
    }

    /// Corrects Apache's configuration, and puts it into effect.
    pub(super) fn setup(&self) -> String {
        let root = match &self.scan {
            Some(scan) if !apache::is_usual(&scan.root) => {
                format!(" --apache-config {}", scan.root.display())
            }
            _ => String::new(),
        };
        let setup = self.pipeban(&format!("setup{root} --write"));
        format!("{setup} && {}", self.reload_apache())
    }

    /// Makes Apache read its configuration and start its loggers again.
    pub(super) fn reload_apache(&self) -> String {
        let Some(apache) = self.apache() else {
            return self.start_apache();
        };
        if let Some(unit) = processes::unit_of(apache.pid).filter(|_| systemd::runs())
            && ["apache", "httpd"]
                .iter()
                .any(|name| unit.starts_with(name))
        {
            return format!("systemctl reload {}", unit.trim_end_matches(".service"));
        }
        match &self.scan {
            Some(scan) if !apache::is_usual(&scan.root) => {
                format!("{} -f {} -k graceful", apache.name, scan.root.display())
            }
            _ => "apache2ctl graceful".to_owned(),
        }
    }

    pub(super) fn start_apache(&self) -> String {
        match systemd::runs() {
            true => "systemctl start apache2".to_owned(),
            false => "apache2ctl start".to_owned(),
        }
    }

    pub(super) fn start_engine(&self) -> String {
        match systemd::has_unit() {
            true => "systemctl start pipeban".to_owned(),
            false => {
                let engine = self.pipeban("engine");
                format!("setsid --fork {engine} </dev/null >/dev/null 2>&1")
            }
        }
    }

    /// Also one that does not answer.
    pub(super) fn restart_engine(&self) -> String {
        if systemd::has_unit() {
            return "systemctl restart pipeban".to_owned();
        }
        let pid = std::fs::read_to_string(self.paths.state.join("engine.lock"));
        let pid = pid.unwrap_or_default().trim().parse::<u32>();
        let stopped = pid.as_ref().is_ok_and(|pid| is_stopped(*pid));
        match (pid, &self.engine) {
            (Ok(pid), _) if stopped => format!("kill -CONT {pid}"),
            (Ok(pid), Err(Silence::NoAnswer(_))) => {
                format!("kill -KILL {pid}; sleep 1; {}", self.start_engine())
            }
            _ => {
                let stop = self.pipeban("engine --stop");
                format!("{stop}; sleep 1; {}", self.start_engine())
            }
        }
    }

    /// Writes a file of its own into `conf.d`, so that no line of the administrator's is touched.
    pub(super) fn set_in_conf_d(&self, name: &str, text: &str, then: &str) -> String {
        let file = self.config_file.with_file_name("conf.d").join(name);
        format!("printf '{text}' >{} && {then}", file.display())
    }
}

fn is_stopped(pid: u32) -> bool {
    processes::read(pid).is_some_and(|process| process.state == 'T')
}

/// Without the default file the built-in defaults apply.
fn readable(file: &Path) -> Result<(), String> {
    match std::fs::File::open(file) {
        Ok(_) => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && file == Path::new(DEFAULT_FILE) =>
        {
            Ok(())
        }
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

/// The configuration of the Apache that runs, else of this host.
fn scan(processes: &[Process]) -> Result<Option<Scan>, String> {
    let named =
        processes::apaches(processes).flat_map(|apache| apache::roots_named_by(&apache.argv));
    let root = named.into_iter().find(|root| root.exists());
    match apache::scan(root.as_deref()) {
        Ok(scan) => Ok(Some(scan)),
        Err(ScanError::None) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
