//! Which configuration is in use: the files, else the last good one; and its reload.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::alarms::Check;
use super::files;
use super::waker::Waker;
use crate::alert::Severity;
use crate::config::{Config, Problem};
use crate::control::{self, Reply};
use crate::disk;

/// An accepted configuration.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) config: Arc<Config>,
    /// Its JSON.
    text: String,
    /// Names it.
    pub(super) hash: String,
}

impl Accepted {
    fn new(config: Config) -> io::Result<Accepted> {
        let text = serde_json::to_string(&config)?;
        let hash = control::config_hash(&text);
        let config = Arc::new(config);
        Ok(Accepted { config, text, hash })
    }

    /// Keeps it as the last good one.
    ///
    /// # Errors
    /// Why not, for the operator.
    pub(super) fn keep(&self) -> Result<(), String> {
        let path = self.config.paths.last_good();
        files::replace(&path, &self.text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// For keepers.
    pub(super) fn message(&self) -> Reply {
        Reply::Config {
            hash: self.hash.clone(),
            text: self.text.clone(),
        }
    }

    /// Settings in the files that pipeban no longer has.
    pub(super) fn removed_settings(&self) -> Check {
        let warnings = self.config.warnings.iter().map(ToString::to_string);
        let texts: Vec<String> = warnings.collect();
        let text = (!texts.is_empty()).then(|| texts.join("; "));
        ("removed-settings", Severity::Warning, text)
    }

    pub(super) fn enabled_jails(&self) -> usize {
        let jails = self.config.jails.values();
        jails.filter(|jail| jail.enabled).count()
    }
}

/// Reads the files.
///
/// # Errors
/// Every problem, one a line.
pub(super) fn from_files(file: &Path) -> Result<Accepted, String> {
    let config = disk::load_to_obey(file).map_err(|problems| show(&problems))?;
    Accepted::new(config).map_err(|error| error.to_string())
}

/// Reads the last good configuration.
///
/// # Errors
/// Why there is none. A file with `[paths]` of its own that root refuses has none: that of the usual
/// paths is another engine's.
pub(super) fn last_good(file: &Path) -> Result<Accepted, String> {
    let paths = disk::paths_to_obey(file);
    if paths != disk::paths_of(file) {
        return Err(format!("{}: root refuses its `[paths]`", file.display()));
    }
    let path = paths.last_good();
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let text = disk::read_to_obey(&path).map_err(wrong)?;
    let config = serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
    Accepted::new(config).map_err(wrong)
}

/// Problems as compilers write them: `path:line:column: message`.
fn show(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Reads the files in a thread: checking patterns may take longer than hits should wait.
#[derive(Debug)]
pub(super) struct Reload {
    file: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Commands that wait for the outcome; without one the files are not taken into use.
    connections: Vec<u64>,
    outcome: Receiver<Result<Accepted, String>>,
}

impl Reload {
    pub(super) fn of(file: &Path) -> Reload {
        Reload {
            file: file.to_owned(),
            running: None,
        }
    }

    /// Begins to read the files for a command, or for none, or joins the reload that runs.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn begin(&mut self, connection: Option<u64>, waker: Waker) -> io::Result<()> {
        if let Some(running) = &mut self.running {
            running.connections.extend(connection);
            return Ok(());
        }
        let (send, outcome) = bounded(1);
        let file = self.file.clone();
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || {
                let _ = send.send(from_files(&file));
                waker.wake();
            })?;
        self.running = Some(Running {
            connections: connection.into_iter().collect(),
            outcome,
        });
        Ok(())
    }

    /// The outcome, when it is there, and the commands that wait for it.
    pub(super) fn outcome(&mut self) -> Option<(Vec<u64>, Result<Accepted, String>)> {
        let outcome = match self.running.as_ref()?.outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(error) => Err(format!("the thread that reads the configuration: {error}")),
        };
        let running = self.running.take()?;
        Some((running.connections, outcome))
    }
}
