//! Messages of keeper and worker to syslog and the log file: each problem once, and its end. The
//! worker has no socket for syslog: its keeper writes them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link;
use crate::alert::{self, Severity};
use crate::config;
use crate::record::Kind;

/// Reports on one log. Clones share what is reported already.
#[derive(Debug, Clone)]
pub(super) struct Report {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `access log /var/log/apache2/access.log`
    about: String,
    /// False: only to syslog, which never blocks.
    file: bool,
    /// The worker's link to the keeper.
    keeper: Option<Arc<OwnedFd>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: config::Syslog,
    /// Problems that are not over, with their text.
    problems: BTreeMap<&'static str, String>,
}

impl Report {
    /// To syslog and, once [`Report::configure`] names it, to pipeban's log file.
    pub(super) fn new(kind: Kind, path: Option<&Path>) -> Report {
        Report::with(kind, path, true, None)
    }

    /// For threads that must not wait for a disk.
    pub(super) fn without_file(kind: Kind, path: Option<&Path>) -> Report {
        Report::with(kind, path, false, None)
    }

    /// For the worker: the keeper logs what comes over this link.
    pub(super) fn over_link(kind: Kind, link: Arc<OwnedFd>) -> Report {
        Report::with(kind, None, false, Some(link))
    }

    fn with(kind: Kind, path: Option<&Path>, file: bool, keeper: Option<Arc<OwnedFd>>) -> Report {
        use std::os::unix::ffi::OsStrExt;
        let path = path.map_or(String::new(), |path| {
            let path = crate::record::display(path.as_os_str().as_bytes(), 200);
            format!(" {path}")
        });
        Report {
            inner: Arc::new(Inner {
                about: format!("{kind} log{path}"),
                file,
                keeper,
                state: Mutex::new(State {
                    settings: config::Syslog {
                        log_file: None,
                        ..config::Syslog::default()
                    },
                    problems: BTreeMap::new(),
                }),
            }),
        }
    }

    /// Uses these settings. A new target gets the problems that are not over.
    pub(super) fn configure(&self, settings: &config::Syslog) {
        let mut state = self.lock();
        let elsewhere = state.settings.target != settings.target;
        state.settings = settings.clone();
        if !self.inner.file {
            state.settings.log_file = None;
        }
        if elsewhere {
            for text in state.problems.values() {
                self.write(&state.settings, Severity::Err, text);
            }
        }
    }

    /// The daemon of pipeban's messages, else that of this host, for lines with this facility.
    pub(super) fn syslog(&self, facility: u8) -> config::Syslog {
        let settings = self.lock().settings.clone();
        config::Syslog {
            target: match settings.target {
                config::SyslogTarget::None => config::SyslogTarget::local(),
                target => target,
            },
            facility,
            log_format: config::LineFormat::Text,
            log_file: None,
            ..settings
        }
    }

    /// Reports a problem, once until it is over. `key` identifies it.
    pub(super) fn problem(&self, key: &'static str, text: &str) {
        let mut state = self.lock();
        if state.problems.insert(key, text.to_owned()).is_none() {
            self.write(&state.settings, Severity::Err, text);
        }
    }

    /// Reports that a problem is over, if it was reported.
    pub(super) fn over(&self, key: &'static str, text: &str) {
        let mut state = self.lock();
        if state.problems.remove(key).is_some() {
            self.write(&state.settings, Severity::Notice, text);
        }
    }

    /// Reports an event that an administrator should know.
    pub(super) fn warning(&self, text: &str) {
        self.write(&self.lock().settings, Severity::Warning, text);
    }

    /// Reports an event that needs no action.
    pub(super) fn notice(&self, text: &str) {
        self.write(&self.lock().settings, Severity::Notice, text);
    }

    /// Reports what a worker sent, with its severity.
    pub(super) fn of_worker(&self, severity: Severity, text: &str) {
        self.write(&self.lock().settings, severity, text);
    }

    fn write(&self, settings: &config::Syslog, severity: Severity, text: &str) {
        if let Some(keeper) = &self.inner.keeper {
            return link::send_report(keeper, severity, text);
        }
        alert::log(settings, severity, &format!("{}: {text}", self.inner.about));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
