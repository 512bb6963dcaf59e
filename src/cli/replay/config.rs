//! The configuration to replay with: the administrator's, else the shipped jails.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::global::Global;
use crate::config::{self, Config, DEFAULT_FILE, Problem};
use crate::disk::{self, OnDisk};
use crate::filter::FilterFiles;

/// The configuration of `--config`; where the default file is missing, the shipped jails.
pub(in crate::cli) fn load(global: &Global) -> Result<Config, Vec<Problem>> {
    let file = global.config.as_path();
    if file != Path::new(DEFAULT_FILE) || file.exists() {
        return disk::load(file);
    }
    let places = shares();
    let Some(share) = places.iter().find(|share| share.join("jails.d").is_dir()) else {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let message = format!(
            "not found, and no shipped jails exist in {}: name a configuration with --config",
            places.join(", ")
        );
        return Err(vec![Problem {
            file: file.to_owned(),
            place: None,
            message,
        }]);
    };
    let (file, share) = (file.display(), share.display());
    eprintln!("pipeban: {file} does not exist: using the shipped jails in {share}");
    let files = ShippedOnly {
        text: format!("[paths]\nshare = {:?}\n", share.to_string()),
    };
    config::load(Path::new(DEFAULT_FILE), &files).map(|(config, _)| config)
}

/// Where the shipped jails can be: installed, beside the program, or in the source tree that the
/// program was built in.
fn shares() -> Vec<PathBuf> {
    let mut places = vec![disk::paths_of(Path::new(DEFAULT_FILE)).share];
    if let Ok(program) = std::env::current_exe() {
        let above = |levels| program.ancestors().nth(levels);
        places.extend(above(2).map(|prefix| prefix.join("share/pipeban")));
        places.extend(above(3).map(|tree| tree.join("config")));
    }
    places
}

/// The files of this host, with a text in place of the default configuration file.
struct ShippedOnly {
    text: String,
}

impl FilterFiles for ShippedOnly {
    fn read(&self, file: &Path) -> io::Result<String> {
        match file == Path::new(DEFAULT_FILE) {
            true => Ok(self.text.clone()),
            false => OnDisk.read(file),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        OnDisk.list(directory)
    }
}
