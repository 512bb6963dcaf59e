//! What keeper and worker have to say to the operator: each trouble once, and when it is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::alert::{self, Severity};
use crate::config;
use crate::record::Kind;

/// Speaks for one log. Cheap to clone; clones share what has been told.
#[derive(Debug, Clone)]
pub(super) struct Tell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `access log /var/log/apache2/access.log`
    about: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: config::Syslog,
    /// Whether the file is told too.
    file: bool,
    /// Those that are not over, in words.
    troubles: BTreeMap<&'static str, String>,
}

impl Tell {
    pub(super) fn new(kind: Kind, path: Option<&Path>) -> Tell {
        let path = path.map_or(String::new(), |path| {
            use std::os::unix::ffi::OsStrExt;
            format!(
                " {}",
                crate::record::display(path.as_os_str().as_bytes(), 200)
            )
        });
        Tell {
            inner: Arc::new(Inner {
                about: format!("{kind} log{path}"),
                state: Mutex::new(State {
                    settings: default_settings(),
                    file: true,
                    troubles: BTreeMap::new(),
                }),
            }),
        }
    }

    /// In a worker: nothing goes to the file, which it cannot write, and it must not wait for a
    /// frozen file system. The keeper's troubles are the keeper's.
    pub(super) fn without_file(&self) {
        let mut state = self.lock();
        state.troubles.clear();
        state.file = false;
        state.settings.log_file = None;
    }

    /// Where to tell, as the configuration says. Another place hears of what is wrong already.
    pub(super) fn configure(&self, settings: &config::Syslog) {
        let mut state = self.lock();
        let elsewhere = state.settings.target != settings.target;
        state.settings = settings.clone();
        if !state.file {
            state.settings.log_file = None;
        }
        if elsewhere {
            for text in state.troubles.values() {
                self.say(&state.settings, Severity::Err, text);
            }
        }
    }

    /// Tells a trouble, once until it is over. `key` identifies it.
    pub(super) fn trouble(&self, key: &'static str, text: &str) {
        let mut state = self.lock();
        if state.troubles.insert(key, text.to_owned()).is_none() {
            self.say(&state.settings, Severity::Err, text);
        }
    }

    /// Tells that a trouble is over, if it was told.
    pub(super) fn over(&self, key: &'static str, text: &str) {
        let mut state = self.lock();
        if state.troubles.remove(key).is_some() {
            self.say(&state.settings, Severity::Notice, text);
        }
    }

    /// Tells something that happened.
    pub(super) fn event(&self, text: &str) {
        self.say(&self.lock().settings, Severity::Warning, text);
    }

    /// Tells something that happened and needs nobody.
    pub(super) fn note(&self, text: &str) {
        self.say(&self.lock().settings, Severity::Notice, text);
    }

    fn say(&self, settings: &config::Syslog, severity: Severity, text: &str) {
        alert::tell(settings, severity, &format!("{}: {text}", self.inner.about));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before any configuration is known: syslog alone.
fn default_settings() -> config::Syslog {
    config::Syslog {
        log_file: None,
        ..config::Syslog::default()
    }
}
