//! What lines are asked: a filter or patterns of the command line, or the configuration's jails.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::judge::Rule;
use super::{Args, Failure};
use crate::cli::Global;
use crate::config::{self, Config, DEFAULT_FILE, Jail, JailName, Log, Problem};
use crate::filter::{self, Dates, Definition, Filter, PatternText};

/// Places of problems in patterns of the command line.
const PATTERN: &str = "--pattern";
const IGNORE: &str = "--ignore";

pub(super) fn of(args: &Args, global: &Global) -> Result<Vec<Rule>, Failure> {
    let config = load_config(args, global)?;
    let Some(mut definition) = definition(args, global, config.as_ref())? else {
        return config.map_or(Ok(Vec::new()), |config| jails(args, global, &config));
    };
    definition.ignoreregex.extend(typed(IGNORE, &args.ignore));
    let defaults = config.as_ref().map(|config| &config.defaults);
    Ok(vec![rule(definition, None, defaults)?])
}

fn load_config(args: &Args, global: &Global) -> Result<Option<Config>, Failure> {
    let missing = global.config == Path::new(DEFAULT_FILE) && !global.config.exists();
    let alone = args.filter.is_some() || !args.pattern.is_empty();
    if alone && missing {
        return Ok(None);
    }
    config::load(&global.config)
        .map(Some)
        .map_err(Failure::Config)
}

/// Of a jail by this name, or with nothing but a jail's defaults.
fn rule(
    definition: Definition,
    name: Option<JailName>,
    jail: Option<&Jail>,
) -> Result<Rule, Failure> {
    let filter = Filter::compile(&definition).map_err(refused)?;
    let alone = name.is_none();
    let of_jail = jail.filter(|_| !alone);
    Ok(Rule {
        jail: name,
        log: of_jail.and_then(|jail| jail.log.kind()),
        dates: Dates::of(&definition),
        definition,
        filter,
        sequence: RefCell::default(),
        // The built-in maxretry is 5, the weight 1.
        weight: jail.map_or(1, |jail| jail.weight),
        bans_alone: jail.is_some_and(|jail| jail.weight >= jail.maxretry),
        ignoreip: of_jail.map_or_else(Vec::new, ignored),
        vhost: of_jail.map_or_else(Vec::new, |jail| jail.vhost.clone()),
        not_vhost: of_jail.map_or_else(Vec::new, |jail| jail.not_vhost.clone()),
    })
}

/// Whom a jail ignores, as far as its configuration and files say; names are not looked up.
fn ignored(jail: &Jail) -> Vec<ipnet::IpNet> {
    let files = jail.ignore_files.iter();
    // Loading the configuration has read them once.
    let listed = files.filter_map(|file| config::networks_in(file).ok());
    jail.ignoreip
        .iter()
        .copied()
        .chain(listed.flatten())
        .collect()
}

/// A pattern that is wrong on the command line is a wrong command line.
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

fn jails(args: &Args, global: &Global, config: &Config) -> Result<Vec<Rule>, Failure> {
    let mut rules = Vec::new();
    for (name, jail) in &config.jails {
        let wanted = match &args.jail {
            Some(jail) => jail == name,
            None => jail.enabled,
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
                format!("jail `{name}` counts bans of other jails: no line matches it")
            }
            Some(name) => format!(
                "there is no jail `{name}`; the jails are: {}",
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

/// The filter that `--filter` or `--pattern` means.
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
        maxlines: 1,
        datepattern: Vec::new(),
    }))
}

fn typed(option: &str, patterns: &[String]) -> impl Iterator<Item = PatternText> {
    (1..).zip(patterns).map(move |(number, text)| PatternText {
        text: text.clone(),
        file: Some(PathBuf::from(option)),
        line: number,
        column: 1,
    })
}

/// The filter of this name or file, with its options.
pub(in crate::cli) fn named(
    name: &str,
    global: &Global,
    config: Option<&Config>,
) -> Result<Definition, Failure> {
    let whole = name;
    if ["<HOST>", "<ADDR>"].iter().any(|tag| whole.contains(tag)) {
        return Err(Failure::Usage(
            "--filter takes a filter's name or file; a pattern goes with --pattern".to_owned(),
        ));
    }
    let (name, options) = filter::split_options(whole).map_err(Failure::Usage)?;
    let read = |file: &Path| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        filter::read_from(&stem, file, &options, &config::OnDisk).map_err(Failure::Config)
    };
    if name.contains('/') || name.ends_with(".conf") || name.ends_with(".toml") {
        if name.ends_with(".toml") {
            return Err(Failure::Usage(format!(
                "`{name}`: filters in TOML are not supported yet, fail2ban's .conf files are"
            )));
        }
        let file = Path::new(name);
        if let Err(error) = File::open(file) {
            return Err(Failure::Failed(format!("`{name}` cannot be read: {error}")));
        }
        return read(file);
    }
    if let Some(definition) = config.and_then(|config| config.filters.get(whole)) {
        return Ok(definition.clone());
    }
    let paths = config::paths_of(&global.config);
    let places = config::filter_directories(&global.config, &paths);
    let files = places.map(|place| place.join(format!("{name}.conf")));
    match files.iter().find(|file| file.is_file()) {
        Some(file) => read(file),
        None => Err(Failure::Failed(format!(
            "there is no filter `{name}`: looked for {}",
            files.map(|file| file.display().to_string()).join(", ")
        ))),
    }
}
