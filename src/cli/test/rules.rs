//! The rules to test: a filter or patterns of the command line, or jails of the configuration.

use std::fs::File;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::options::{Args, Failure};
use crate::cli::global::Global;
use crate::config::{self, Config, DEFAULT_FILE, Jail, JailName, Log, Problem};
use crate::disk;
use crate::filter::rules::is_claims;
use crate::filter::{self, Definition, Filter, PatternText};
use crate::record::{Kind, ModuleClient};

/// The file of patterns of the command line, in problems.
const PATTERN: &str = "--pattern";
const IGNORE: &str = "--ignore";

/// A filter, and its jail if it has one.
pub(in crate::cli) struct TestRule {
    pub(in crate::cli) jail: Option<JailName>,
    /// `None`: any.
    pub(super) log: Option<Kind>,
    /// The filter with its options, as jails name it.
    pub(super) filter: String,
    pub(in crate::cli) definition: Definition,
    pub(super) weight: u32,
    pub(super) maxretry: u32,
    pub(super) ignoreip: Vec<IpNet>,
    pub(in crate::cli) vhost: Vec<String>,
    pub(in crate::cli) not_vhost: Vec<String>,
    pub(in crate::cli) except: String,
}

impl TestRule {
    /// For people.
    pub(in crate::cli) fn name(&self) -> String {
        let filter = &self.definition.name;
        match &self.jail {
            Some(jail) if jail.as_str() == filter => format!("jail {jail}"),
            Some(jail) => format!("jail {jail}, filter {filter}"),
            None => format!("filter {filter}"),
        }
    }
}

/// The rules to test, and where modules write the client by the filters of the enabled jails.
pub(super) fn of(
    args: &Args,
    global: &Global,
) -> Result<(Vec<TestRule>, Vec<ModuleClient>), Failure> {
    let config = load_config(args, global)?;
    let clients = config
        .as_ref()
        .map_or_else(Vec::new, Config::module_clients);
    let Some(mut definition) = definition(args, global, config.as_ref())? else {
        let rules = config.map_or(Ok(Vec::new()), |config| jails(args, global, &config));
        return Ok((rules?, clients));
    };
    definition.ignoreregex.extend(typed(IGNORE, &args.ignore));
    let defaults = config.as_ref().map(|config| &config.defaults);
    Ok((vec![rule(definition, None, defaults)?], clients))
}

fn load_config(args: &Args, global: &Global) -> Result<Option<Config>, Failure> {
    let missing = global.config == Path::new(DEFAULT_FILE) && !global.config.exists();
    let alone = args.filter.is_some() || !args.pattern.is_empty();
    if alone && missing {
        return Ok(None);
    }
    disk::load(&global.config)
        .map(Some)
        .map_err(Failure::Config)
}

/// The rule of a jail; without a name only its weight and maxretry count.
pub(in crate::cli) fn rule(
    definition: Definition,
    name: Option<JailName>,
    jail: Option<&Jail>,
) -> Result<TestRule, Failure> {
    Filter::compile(&definition).map_err(refused)?;
    let of_jail = jail.filter(|_| name.is_some());
    Ok(TestRule {
        jail: name,
        log: of_jail.and_then(|jail| jail.log.kind()),
        filter: of_jail.map_or_else(|| definition.name.clone(), |jail| jail.filter.clone()),
        definition,
        // The built-in maxretry is 5, the weight 1.
        weight: jail.map_or(1, |jail| jail.weight),
        maxretry: jail.map_or(5, |jail| jail.maxretry),
        ignoreip: of_jail.map_or_else(Vec::new, ignored),
        vhost: of_jail.map_or_else(Vec::new, |jail| jail.vhost.clone()),
        not_vhost: of_jail.map_or_else(Vec::new, |jail| jail.not_vhost.clone()),
        except: of_jail.map_or_else(String::new, |jail| jail.except.clone()),
    })
}

/// The networks of a jail's `ignoreip`, also those in files; names are not resolved.
fn ignored(jail: &Jail) -> Vec<IpNet> {
    let files = jail.ignore_files.iter();
    // Loading the configuration has read them once.
    let listed = files.filter_map(|file| disk::networks_in(file).ok());
    jail.ignoreip
        .iter()
        .copied()
        .chain(listed.flatten())
        .collect()
}

/// A wrong pattern on the command line is a usage error.
fn refused(problems: Vec<Problem>) -> Failure {
    let typed = |problem: &&Problem| {
        [PATTERN, IGNORE]
            .iter()
            .any(|option| problem.file == Path::new(option))
    };
    match problems.iter().find(typed) {
        Some(problem) => Failure::Usage(format!("{}: {}", problem.file.display(), problem.message)),
        None => Failure::Config(problems),
    }
}

fn jails(args: &Args, global: &Global, config: &Config) -> Result<Vec<TestRule>, Failure> {
    let mut rules = Vec::new();
    for (name, jail) in &config.jails {
        let wanted = match &args.jail {
            Some(jail) => jail == name,
            // Of a filter of claims DNS decides, not the line.
            None => jail.enabled && !config.filters.get(&jail.filter).is_some_and(is_claims),
        };
        if let Some(definition) = config.filters.get(&jail.filter).filter(|_| wanted) {
            rules.push(rule(definition.clone(), Some(name.clone()), Some(jail))?);
        }
    }
    if rules.is_empty() {
        let known: Vec<&str> = config.jails.keys().map(JailName::as_str).collect();
        let counts_bans = |name: &JailName| {
            let jail = config.jails.get(name);
            jail.is_some_and(|jail| jail.log == Log::Bans)
        };
        let message = match &args.jail {
            Some(name) if counts_bans(name) => {
                format!("jail `{name}` counts the bans of other jails, so no line matches it")
            }
            Some(name) => format!(
                "no jail `{name}` exists; the jails are: {}",
                known.join(", ")
            ),
            None => {
                "no jail is enabled: name one with --jail, or a filter with --filter".to_owned()
            }
        };
        return Err(Failure::Config(vec![Problem {
            file: global.config.clone(),
            place: None,
            message,
        }]));
    }
    Ok(rules)
}

/// The filter of `--filter` or `--pattern`.
fn definition(
    args: &Args,
    global: &Global,
    config: Option<&Config>,
) -> Result<Option<Definition>, Failure> {
    if let Some(name) = &args.filter {
        return named(name, global, config).map(Some);
    }
    Ok((!args.pattern.is_empty()).then(|| Definition {
        name: "command-line".to_owned(),
        file: PathBuf::from(PATTERN),
        prefregex: None,
        failregex: typed(PATTERN, &args.pattern).collect(),
        ignoreregex: Vec::new(),
        native: Vec::new(),
    }))
}

fn typed(option: &str, patterns: &[String]) -> impl Iterator<Item = PatternText> {
    (1..).zip(patterns).map(move |(number, text)| PatternText {
        text: text.clone(),
        file: Some(PathBuf::from(option)),
        line: number,
        column: 1,
        class: None,
        spoofable: false,
        certain: None,
    })
}

/// The filter with this name or in this file, with its options.
pub(in crate::cli) fn named(
    name: &str,
    global: &Global,
    config: Option<&Config>,
) -> Result<Definition, Failure> {
    let whole = name;
    if ["<HOST>", "<ADDR>"].iter().any(|tag| whole.contains(tag)) {
        return Err(Failure::Usage(
            "--filter takes the name or the file of a filter: use --pattern for a pattern"
                .to_owned(),
        ));
    }
    let (name, options) = filter::split_options(whole).map_err(Failure::Usage)?;
    let paths = disk::paths_of(&global.config);
    let places = config::filter_directories(&global.config, &paths);
    let read = |file: &Path| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        if file.extension().is_some_and(|ending| ending == "toml") {
            if !options.is_empty() {
                let message = format!("`{name}` is a native filter, which takes no options");
                return Err(Failure::Usage(message));
            }
            let beside = file.parent().map(Path::to_owned);
            let find = |name: &str| {
                let mut directories = beside.iter().chain(&places);
                directories.find_map(|directory| {
                    let file = directory.join(format!("{name}.toml"));
                    file.is_file().then_some(file)
                })
            };
            return filter::rules::definition(&stem, file, &disk::OnDisk, find)
                .map_err(Failure::Config);
        }
        filter::read(&stem, file, &options, &disk::OnDisk).map_err(Failure::Config)
    };
    if name.contains('/') || name.ends_with(".conf") || name.ends_with(".toml") {
        let file = Path::new(name);
        if let Err(error) = File::open(file) {
            return Err(Failure::Failed(format!("cannot read `{name}`: {error}")));
        }
        return read(file);
    }
    if let Some(definition) = config.and_then(|config| config.filters.get(whole)) {
        return Ok(definition.clone());
    }
    let files: Vec<PathBuf> = places
        .iter()
        .flat_map(|place| ["toml", "conf"].map(|ending| place.join(format!("{name}.{ending}"))))
        .collect();
    let shown: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    match files.iter().find(|file| file.is_file()) {
        Some(file) => read(file),
        None => Err(Failure::Failed(format!(
            "no filter `{name}` exists: searched for {}",
            shown.join(", ")
        ))),
    }
}
