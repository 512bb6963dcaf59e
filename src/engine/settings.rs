//! Which configuration is in use: the files, else the last good one.

use std::io;
use std::path::Path;

use super::files;
use crate::config::{self, Config, Problem};
use crate::control;

/// An accepted configuration.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) config: Config,
    /// Its JSON.
    pub(super) text: String,
    /// Names it.
    pub(super) hash: String,
}

impl Accepted {
    fn new(config: Config) -> io::Result<Accepted> {
        let text = serde_json::to_string(&config)?;
        let hash = control::config_hash(&text);
        Ok(Accepted { config, text, hash })
    }

    /// Keeps it as the last good one.
    pub(super) fn keep(&self) -> Result<(), String> {
        let path = self.config.paths.last_good();
        files::replace(&path, &self.text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }
}

/// Reads the files.
///
/// # Errors
/// Every problem, one a line.
pub(super) fn from_files(file: &Path) -> Result<Accepted, String> {
    let config = config::load(file).map_err(|problems| show(&problems))?;
    Accepted::new(config).map_err(|error| error.to_string())
}

/// Reads the last good configuration.
///
/// # Errors
/// Why there is none.
pub(super) fn last_good(file: &Path) -> Result<Accepted, String> {
    let path = config::paths_of(file).last_good();
    let wrong = |error: io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(wrong)?;
    let config = serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
    Accepted::new(config).map_err(wrong)
}

/// The configuration in use where no engine can be asked: the last good one, else the files.
pub(super) fn in_use(file: &Path) -> Option<Config> {
    last_good(file)
        .or_else(|_| from_files(file))
        .ok()
        .map(|accepted| accepted.config)
}

/// Problems as compilers write them: `path:line:column: message`.
fn show(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}
