//! A file in the runtime directory, on another file system than the database: it exists while the
//! database lacks bans that are in force. The kernel forgets both at the next boot.

use std::fs;
use std::path::PathBuf;

use crate::config::Paths;

#[derive(Debug)]
pub(super) struct TroubleMark {
    path: PathBuf,
    /// Whether the file exists, as far as is known.
    is_set: bool,
}

impl TroubleMark {
    /// As an earlier engine left it.
    pub(super) fn of(paths: &Paths) -> TroubleMark {
        let path = paths.runtime.join("database-incomplete");
        TroubleMark {
            is_set: path.exists(),
            path,
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set
    }

    /// `committed`: the database has everything.
    pub(super) fn set(&mut self, committed: bool) {
        if self.is_set != committed {
            return;
        }
        let done = match committed {
            true => fs::remove_file(&self.path),
            false => fs::write(&self.path, "bans of now are not in the database\n"),
        };
        if done.is_ok() {
            self.is_set = !committed;
        }
    }
}
