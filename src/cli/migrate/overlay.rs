//! The configuration as it will be with the new files, before they are written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::copies;
use crate::cli::global::Global;
use crate::config::{self, Problem};
use crate::disk::OnDisk;
use crate::filter::FilterFiles;
use crate::migrate::Migration;

/// The files of this host, and the new ones.
pub(super) struct Overlay {
    main: PathBuf,
    new: BTreeMap<PathBuf, String>,
}

impl Overlay {
    /// `name`: the new file, which is read as the main file or as one in `conf.d`.
    pub(super) fn new(global: &Global, name: &Path, text: &str, migration: &Migration) -> Overlay {
        let main = global.config.clone();
        let file = match name == main {
            true => main.clone(),
            false => {
                let name = name.file_name().unwrap_or(name.as_os_str());
                main.with_file_name("conf.d").join(name)
            }
        };
        let copies = copies(global, migration).into_iter();
        let copies = copies.map(|(file, text)| (file, text.to_owned()));
        Overlay {
            main,
            new: copies.chain([(file, text.to_owned())]).collect(),
        }
    }

    /// What pipeban would refuse.
    pub(super) fn problems(&self) -> Vec<Problem> {
        config::load(&self.main, self).err().unwrap_or_default()
    }
}

impl FilterFiles for Overlay {
    fn read(&self, file: &Path) -> io::Result<String> {
        match self.new.get(file) {
            Some(text) => Ok(text.clone()),
            None if file == self.main && !file.exists() => Ok(String::new()),
            None => OnDisk.read(file),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = OnDisk.list(directory)?;
        let new = self.new.keys();
        files.extend(new.filter(|file| file.parent() == Some(directory)).cloned());
        files.sort();
        files.dedup();
        Ok(files)
    }
}
