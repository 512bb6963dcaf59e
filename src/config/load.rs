//! Finds the files of a configuration, and reads them as one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::DEFAULT_FILE;
use super::jail::{Jail, Log, SearchEngines};
use super::merge::{self, Layer, Source};
use super::networks;
use super::origins::{Origin, Origins};
use super::search_engines::{self, SearchEngine};
use super::settings::{Config, Paths};
use super::values::did_you_mean;
use crate::filter::{self, Definition, FilterFiles};
use crate::problem::Problem;

/// Reads `file` (`pipeban.toml`), `conf.d/*.toml` beside it, the shipped jails and the filters.
/// [`Origins`] says where each key of each jail comes from.
///
/// # Errors
/// Every problem of every file.
pub fn load(file: &Path, files: &dyn FilterFiles) -> Result<(Config, Origins), Vec<Problem>> {
    let mut reading = Reading {
        file,
        files,
        problems: Vec::new(),
    };
    let sources = reading.sources();
    let (mut config, origins, problems) = merge::merge(&sources);
    reading.problems.extend(problems);
    config.search_engines = reading.search_engines(&config.paths);
    config.filters = reading.filters(&config, &origins);
    for (list, origin) in &origins.proxy_lists {
        let networks = reading.proxies(&config.paths, list, origin);
        config.trusted_proxies.extend(networks);
    }
    let jails = config.jails.iter();
    let jails = jails.map(|(name, jail)| (name.as_str(), jail));
    for (name, jail) in jails.chain([("", &config.defaults)]) {
        for path in &jail.ignore_files {
            reading.ignore_file(path, origins.of(name, "ignoreip"));
        }
    }
    // Several jails can name one file.
    let mut problems: Vec<Problem> = Vec::new();
    for problem in reading.problems {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() {
        Ok((config, origins))
    } else {
        Err(problems)
    }
}

/// `[paths]` of the text of `pipeban.toml`. It skips whatever is broken: keepers and commands need
/// the socket even while an administrator edits the file.
pub fn paths_of(text: &str) -> Paths {
    merge::paths_in(text)
}

/// Directories of filters, in the order in which a name is looked up.
pub fn filter_directories(file: &Path, paths: &Paths) -> [PathBuf; 3] {
    [
        file.with_file_name("filters.d"),
        paths.share.join("filters.d"),
        "/etc/fail2ban/filter.d".into(),
    ]
}

/// The addresses and networks in a file, one per line.
///
/// # Errors
/// It cannot be read, or the lines that are something else.
pub fn networks_in(path: &Path, files: &dyn FilterFiles) -> Result<Vec<IpNet>, Vec<Problem>> {
    let problem = |place, message| Problem {
        file: path.to_owned(),
        place,
        message,
    };
    let text = files
        .read(path)
        .map_err(|error| vec![problem(None, format!("cannot read it: {error}"))])?;
    networks::list(&text).map_err(|wrong| {
        let wrong = wrong.into_iter();
        wrong
            .map(|(place, message)| problem(Some(place), message))
            .collect()
    })
}

struct Reading<'f> {
    /// The main file.
    file: &'f Path,
    files: &'f dyn FilterFiles,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn whole_file(&mut self, file: &Path, message: String) {
        self.problems.push(Problem {
            file: file.to_owned(),
            place: None,
            message,
        });
    }

    fn at(&mut self, origin: Option<&Origin>, message: String) {
        self.problems.extend(origin.map(|(file, place)| Problem {
            file: file.clone(),
            place: Some(*place),
            message,
        }));
    }

    /// The texts in the order in which they override each other.
    fn sources(&mut self) -> Vec<Source> {
        let mut main = None;
        match self.files.read(self.file) {
            Ok(text) => main = Some(text),
            Err(error) => self.whole_file(self.file, unreadable(self.file, &error)),
        }
        let share = paths_of(main.as_deref().unwrap_or("")).share;
        let mut sources = self.directory(&share.join("jails.d"), Layer::Shipped);
        sources.extend(main.map(|text| Source {
            layer: Layer::Main,
            file: self.file.to_owned(),
            text,
        }));
        sources.extend(self.directory(&self.file.with_file_name("conf.d"), Layer::Extra));
        sources
    }

    /// The `*.toml` of a directory in name order, except hidden files.
    fn directory(&mut self, directory: &Path, layer: Layer) -> Vec<Source> {
        let mut files = match self.files.list(directory) {
            Ok(files) => files,
            Err(error) => {
                self.whole_file(directory, format!("cannot read it: {error}"));
                return Vec::new();
            }
        };
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            !name.starts_with(b".") && path.extension().is_some_and(|ending| ending == "toml")
        });
        files.sort();
        let mut sources = Vec::new();
        for file in files {
            match self.files.read(&file) {
                Ok(text) => sources.push(Source { layer, file, text }),
                Err(error) => self.whole_file(&file, format!("cannot read it: {error}")),
            }
        }
        sources
    }

    /// Names in these directories that end in one of `endings`, without it, and their files. The
    /// first directory that has a name wins, there the first ending.
    fn names(&self, directories: &[PathBuf], endings: &[&str]) -> BTreeMap<String, PathBuf> {
        let mut names = BTreeMap::new();
        for directory in directories {
            let files = self.files.list(directory).unwrap_or_default();
            for ending in endings {
                for path in &files {
                    let name = path.file_name().and_then(|name| name.to_str());
                    if let Some(name) = name.and_then(|name| name.strip_suffix(ending)) {
                        names.entry(name.to_owned()).or_insert(path.clone());
                    }
                }
            }
        }
        names
    }

    /// The networks of a named list; one of the administrator overrides a shipped one.
    fn proxies(&mut self, paths: &Paths, list: &str, origin: &Origin) -> Vec<IpNet> {
        let directories = [
            self.file.with_file_name("proxies.d"),
            paths.share.join("proxies.d"),
        ];
        let names = self.names(&directories, &[".txt"]);
        let Some(path) = names.get(list) else {
            let near = did_you_mean(list, names.keys().map(String::as_str));
            let places = joined(&directories);
            let message =
                format!("no list of proxies `{list}`{near}: searched for {list}.txt in {places}");
            self.at(Some(origin), message);
            return Vec::new();
        };
        networks_in(path, self.files).unwrap_or_else(|problems| {
            self.problems.extend(problems);
            Vec::new()
        })
    }

    /// The list of search engines; one of the administrator overrides the shipped one.
    fn search_engines(&mut self, paths: &Paths) -> Vec<SearchEngine> {
        let name = "search-engines.txt";
        for file in [self.file.with_file_name(name), paths.share.join(name)] {
            match self.files.read(&file) {
                Ok(text) => {
                    return search_engines::list(&text).unwrap_or_else(|wrong| {
                        let wrong = wrong.into_iter().map(|(place, message)| Problem {
                            file: file.clone(),
                            place: Some(place),
                            message,
                        });
                        self.problems.extend(wrong);
                        Vec::new()
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.whole_file(&file, format!("cannot read it: {error}")),
            }
        }
        Vec::new()
    }

    /// Checks a file that `ignoreip` names.
    fn ignore_file(&mut self, path: &Path, origin: Option<&Origin>) {
        for problem in networks_in(path, self.files).err().into_iter().flatten() {
            match (problem.place, origin) {
                (None, Some(_)) => {
                    let (path, why) = (path.display(), problem.message);
                    self.at(origin, format!("`ignoreip` names {path}: {why}"));
                }
                _ => self.problems.push(problem),
            }
        }
    }

    /// The filters of all enabled jails, each read and compiled once.
    fn filters(&mut self, config: &Config, origins: &Origins) -> BTreeMap<String, Definition> {
        let directories = filter_directories(self.file, &config.paths);
        let known = self.names(&directories, &[".toml", ".conf"]);
        // In a file with errors, a missing filter can follow from one of them.
        let wrong: BTreeSet<PathBuf> = self
            .problems
            .iter()
            .map(|found| found.file.clone())
            .collect();
        let mut filters = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let reading = |jail: &Jail| jail.enabled && jail.log != Log::Bans;
        for (jail, settings) in config.jails.iter().filter(|(_, jail)| reading(jail)) {
            let name = settings.filter.as_str();
            let (true, Ok((bare, options))) = (seen.insert(name), filter::split_options(name))
            else {
                continue;
            };
            let set = origins.of(jail.as_str(), "filter");
            let origin = set.or_else(|| origins.header(jail.as_str()));
            let result = match known.get(bare) {
                _ if !settings.trap.is_empty() => {
                    if set.is_some() {
                        self.at(
                            origin,
                            format!("jail `{jail}`: `trap` and `filter` exclude each other"),
                        );
                    }
                    Ok(filter::rules::trap(
                        jail.as_str(),
                        &settings.trap,
                        settings.maxretry,
                    ))
                }
                None if set.is_none()
                    && settings.search_engines == SearchEngines::BanFake
                    && !config.search_engines.is_empty() =>
                {
                    let words = config.search_engines.iter();
                    let words = words.map(|engine| engine.name.as_str());
                    Ok(filter::rules::claims(jail.as_str(), words))
                }
                Some(path) if path.extension().is_some_and(|ending| ending == "toml") => {
                    if !options.is_empty() {
                        let message = format!(
                            "jail `{jail}`: `{bare}` is a native filter, which takes no options"
                        );
                        self.at(origin, message);
                        continue;
                    }
                    let find = |name: &str| known.get(name).cloned();
                    filter::rules::definition(bare, path, self.files, find)
                }
                Some(path) => definition(bare, path, &options, self.files),
                None if set.is_none() && origin.is_some_and(|(file, _)| wrong.contains(file)) => {
                    continue;
                }
                None => {
                    let near = did_you_mean(bare, known.keys().map(String::as_str));
                    let what = match set {
                        Some(_) => format!("no filter `{bare}`{near}"),
                        None => format!("no `filter` is set, and no filter `{bare}` exists{near}"),
                    };
                    let places = joined(&directories);
                    let message = format!(
                        "jail `{jail}`: {what}: searched for {bare}.toml and {bare}.conf in {places}"
                    );
                    self.at(origin, message);
                    continue;
                }
            };
            match result {
                Ok(definition)
                    if let Some(kind) = settings.log.kind()
                        && !filter::rules::reads(&definition, kind) =>
                {
                    let message = format!(
                        "jail `{jail}`: no rule of filter `{bare}` is for the {kind} log: set `log` \
                         to what the filter has"
                    );
                    self.at(origin, message);
                }
                Ok(definition) => {
                    filters.insert(name.to_owned(), definition);
                }
                Err(problems) => self.problems.extend(problems),
            }
        }
        filters
    }
}

/// Reads a filter, and compiles it once to find its errors.
fn definition(
    name: &str,
    path: &Path,
    options: &BTreeMap<String, String>,
    files: &dyn FilterFiles,
) -> Result<Definition, Vec<Problem>> {
    let definition = filter::read(name, path, options, files)?;
    filter::Filter::compile(&definition)?;
    Ok(definition)
}

fn joined(directories: &[PathBuf]) -> String {
    let shown: Vec<String> = directories
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    let empty = "an empty file means the shipped jails and the defaults";
    match error.kind() {
        io::ErrorKind::NotFound if file == Path::new(DEFAULT_FILE) => {
            format!("not found: run `make install` to create it; {empty}")
        }
        io::ErrorKind::NotFound => {
            format!("not found: check `--config` (default {DEFAULT_FILE}); {empty}")
        }
        io::ErrorKind::PermissionDenied => "cannot read it: permission denied (run as root)".into(),
        io::ErrorKind::InvalidData => "cannot read it: it is not UTF-8".into(),
        _ => format!("cannot read it: {error}"),
    }
}
