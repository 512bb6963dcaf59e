//! Reads the files: the only part of `config` that does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::merge::{self, Layer, Origin, Origins, Source};
use super::{Config, DEFAULT_FILE, Jail, Log, Paths, networks};
use crate::filter::{self, Definition};

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which file.
    pub file: PathBuf,
    /// Line and column, from 1; `None` where the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    /// `path:12:9: message`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// Reads `file` (`pipeban.toml`), `conf.d/*.toml` beside it, the shipped jails and the filters.
///
/// # Errors
/// Every problem of every file, not only the first.
pub fn load(file: &Path) -> Result<Config, Vec<Problem>> {
    load_with_origins(file).map(|(config, _)| config)
}

/// [`load`], and where each key of each jail came from.
///
/// # Errors
/// Every problem of every file, not only the first.
pub fn load_with_origins(file: &Path) -> Result<(Config, Origins), Vec<Problem>> {
    let mut problems = Vec::new();
    let sources = sources(file, &mut problems);
    let (mut config, origins, wrong) = merge::merge(&sources);
    problems.extend(wrong);
    config.filters = filters(file, &config, &origins, &mut problems);
    for (list, origin) in &origins.proxy_lists {
        match proxies(file, &config.paths, list, origin) {
            Ok(networks) => config.trusted_proxies.extend(networks),
            Err(found) => problems.extend(found),
        }
    }
    let jails = config
        .jails
        .iter()
        .map(|(name, jail)| (name.as_str(), jail));
    for (name, jail) in jails.chain([("", &config.defaults)]) {
        for path in &jail.ignore_files {
            problems.extend(ignore_file(path, origins.of(name, "ignoreip")));
        }
    }
    // One file may be named by many jails.
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let new = !seen.contains(problem);
        if new {
            seen.push(problem.clone());
        }
        new
    });
    if problems.is_empty() {
        Ok((config, origins))
    } else {
        Err(problems)
    }
}

/// `[paths]` alone, read so tolerantly that a broken file still yields them: keepers and commands
/// must find the socket whatever an administrator has half edited.
pub fn paths_of(file: &Path) -> Paths {
    std::fs::read(file)
        .map(|bytes| merge::paths_in(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

/// Directories that hold filters, in the order in which a name is looked up.
pub fn filter_directories(file: &Path, paths: &Paths) -> [PathBuf; 3] {
    [
        file.with_file_name("filters.d"),
        paths.share.join("filters.d"),
        "/etc/fail2ban/filter.d".into(),
    ]
}

/// The addresses and networks in a file, one a line.
///
/// # Errors
/// It cannot be read, or every line that is something else.
pub fn networks_in(path: &Path) -> Result<Vec<IpNet>, Vec<Problem>> {
    let problem = |place, message| Problem {
        file: path.to_owned(),
        place,
        message,
    };
    let text =
        read(path).map_err(|error| vec![problem(None, format!("cannot be read: {error}"))])?;
    networks::list(&text).map_err(|wrong| {
        let told = wrong.into_iter();
        told.map(|(place, message)| problem(Some(place), message))
            .collect()
    })
}

/// What is wrong with a file that `ignoreip` names, told where it is named when it is not there.
fn ignore_file(path: &Path, origin: Option<&Origin>) -> Vec<Problem> {
    let Err(problems) = networks_in(path) else {
        return Vec::new();
    };
    let named = |problem: Problem| match (problem.place, origin) {
        (None, Some((file, place))) => Problem {
            file: file.clone(),
            place: Some(*place),
            message: format!(
                "`ignoreip` names {}, which {}",
                path.display(),
                problem.message
            ),
        },
        _ => problem,
    };
    problems.into_iter().map(named).collect()
}

/// The networks of a named list: one of the administrator's goes before a shipped one.
fn proxies(
    file: &Path,
    paths: &Paths,
    list: &str,
    (named_in, place): &Origin,
) -> Result<Vec<IpNet>, Vec<Problem>> {
    let directories = [
        file.with_file_name("proxies.d"),
        paths.share.join("proxies.d"),
    ];
    let mut known = BTreeSet::new();
    for directory in &directories {
        let path = directory.join(format!("{list}.txt"));
        if path.is_file() {
            return networks_in(&path);
        }
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        known.extend(files.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".txt")?.to_owned())
        }));
    }
    let near = super::words::nearest(list, known.iter().map(String::as_str))
        .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
    let places = directories.map(|directory| directory.display().to_string());
    Err(vec![Problem {
        file: named_in.clone(),
        place: Some(*place),
        message: format!(
            "no list of proxies `{list}`{near}: looked for {list}.txt in {}",
            places.join(", ")
        ),
    }])
}

/// A configuration larger than this is a mistake (or a device).
const MOST_BYTES: u64 = 4 << 20;

/// The files of this host.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk;

impl filter::Texts for OnDisk {
    fn read(&self, file: &Path) -> io::Result<String> {
        read(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(directory) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Vec::new()),
                _ => Err(error),
            },
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    Ok(text)
}

fn sources(file: &Path, problems: &mut Vec<Problem>) -> Vec<Source> {
    let mut sources = Vec::new();
    let whole = |file: &Path, message: String| Problem {
        file: file.to_owned(),
        place: None,
        message,
    };
    let main = match read(file) {
        Ok(text) => Some(text),
        Err(error) => {
            problems.push(whole(file, unreadable(file, &error)));
            None
        }
    };
    let share = main
        .as_deref()
        .map(merge::paths_in)
        .unwrap_or_default()
        .share;
    let mut directory = |directory: &Path, layer: Layer, sources: &mut Vec<Source>| {
        let files = match toml_files(directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return problems.push(whole(directory, format!("cannot be read: {error}")));
            }
        };
        for file in files {
            match read(&file) {
                Ok(text) => sources.push(Source { layer, file, text }),
                Err(error) => problems.push(whole(&file, format!("cannot be read: {error}"))),
            }
        }
    };
    directory(&share.join("jails.d"), Layer::Shipped, &mut sources);
    if let Some(text) = main {
        sources.push(Source {
            layer: Layer::Main,
            file: file.to_owned(),
            text,
        });
    }
    directory(&file.with_file_name("conf.d"), Layer::Extra, &mut sources);
    sources
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if file == Path::new(DEFAULT_FILE) => {
            "not found: `make install` puts it there; an empty file means the shipped jails and defaults".into()
        }
        io::ErrorKind::NotFound => {
            format!("not found: check `--config` (default {DEFAULT_FILE}); an empty file means the shipped jails and defaults")
        }
        io::ErrorKind::PermissionDenied => "cannot be read: permission denied (try it as root)".into(),
        io::ErrorKind::InvalidData => "cannot be read: it is not UTF-8".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The `*.toml` of a directory in name order; hidden files and editors' leftovers are not among them.
fn toml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ending| ending == "toml") {
            files.insert(path);
        }
    }
    Ok(files.into_iter().collect())
}

/// The filters of all enabled jails, each read and compiled once.
fn filters(
    file: &Path,
    config: &Config,
    origins: &Origins,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Definition> {
    let directories = filter_directories(file, &config.paths);
    // Where a file has errors, what is missing in it may be one of them.
    let wrong: BTreeSet<PathBuf> = problems.iter().map(|found| found.file.clone()).collect();
    let mut filters = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let reading = |jail: &Jail| jail.enabled && jail.log != Log::Bans;
    for (jail, settings) in config.jails.iter().filter(|(_, jail)| reading(jail)) {
        let name = settings.filter.as_str();
        if !seen.insert(name) {
            continue;
        }
        let at_jail = |message: String| {
            let origin = origins
                .of(jail.as_str(), "filter")
                .or_else(|| origins.header(jail.as_str()));
            Problem {
                file: origin.map_or_else(|| file.to_owned(), |(file, _)| file.clone()),
                place: origin.map(|(_, place)| *place),
                message,
            }
        };
        let (bare, options) = match filter::split_options(name) {
            Ok(split) => split,
            Err(message) => {
                problems.push(at_jail(format!("jail `{jail}`: {message}")));
                continue;
            }
        };
        match find(bare, &directories) {
            Ok(path) => match definition(bare, &path, &options) {
                Ok(definition) if definition.maxlines > 1 => problems.push(at_jail(format!(
                    "jail `{jail}`: filter `{bare}` wants several lines at once (`maxlines`), but \
                     lines of many clients stand between each other in Apache's logs: only \
                     `pipeban test --kind raw` takes such a filter"
                ))),
                Ok(definition) => {
                    filters.insert(name.to_owned(), definition);
                }
                Err(found) => problems.extend(found),
            },
            Err(message) => {
                let said = origins.of(jail.as_str(), "filter").is_some();
                let header = origins.header(jail.as_str());
                if said {
                    problems.push(at_jail(format!("jail `{jail}`: {message}")));
                } else if !header.is_some_and(|(file, _)| wrong.contains(file)) {
                    problems.push(at_jail(format!(
                        "jail `{jail}` says no `filter`, and by its own name there is none: {message}"
                    )));
                }
            }
        }
    }
    filters
}

fn definition(
    name: &str,
    path: &Path,
    options: &BTreeMap<String, String>,
) -> Result<Definition, Vec<Problem>> {
    let definition = filter::read_from(name, path, options, &OnDisk)?;
    filter::Filter::compile(&definition)?;
    Ok(definition)
}

/// The first file of that name.
fn find(name: &str, directories: &[PathBuf]) -> Result<PathBuf, String> {
    for directory in directories {
        let native = directory.join(format!("{name}.toml"));
        if native.is_file() {
            return Err(format!(
                "{}: filters in TOML are not in this version yet: write it as {name}.conf",
                native.display()
            ));
        }
        let file = directory.join(format!("{name}.conf"));
        if file.is_file() {
            return Ok(file);
        }
    }
    let places: Vec<_> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    let near = nearest_filter(name, directories)
        .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
    Err(format!(
        "no filter `{name}`{near}: looked for {name}.conf in {}",
        places.join(", ")
    ))
}

fn nearest_filter(name: &str, directories: &[PathBuf]) -> Option<String> {
    let mut known = Vec::new();
    for entry in directories
        .iter()
        .filter_map(|dir| dir.read_dir().ok())
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "conf") {
            known.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    super::words::nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
}
