//! Merges several files into one configuration, key by key; pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{self, Located, Member, Value};
use super::duration;
use super::jail::{Increment, Jail, Log, SearchEngines};
use super::jail_rows::JAIL;
use super::origins::{Origin, Origins};
use super::row::{Faults, Row, apply};
use super::sections::{FIREWALL, METRICS, PATHS, PROXIES, Proxies, STORE, SYSLOG, lacking};
use super::settings::{Config, Paths, SyslogFormat, SyslogTarget};
use super::words::{fail2bans_header, nearest};
use crate::jail_name::JailName;
use crate::problem::Problem;

/// The jail name of bans by hand.
pub const MANUAL_JAIL: &str = "manual";

/// fail2ban's filter, and its `ignorecommand`: pipeban makes that check itself.
pub(crate) const FAKE_GOOGLEBOT: &str = "apache-fakegooglebot";

/// Which of a configuration's files this is; it decides which sections the file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// In `jails.d` of the share directory: jails only.
    Shipped,
    /// The administrator's file: every section.
    Main,
    /// In `conf.d` beside it: every section except `[paths]`.
    Extra,
}

/// One file's text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) layer: Layer,
    pub(super) file: PathBuf,
    pub(super) text: String,
}

/// One file's values.
struct Document<'s> {
    source: &'s Source,
    members: Vec<Member>,
}

/// Merges the files in the order given: a later file overrides a key of an earlier one. The result
/// has no filters.
pub(super) fn merge(sources: &[Source]) -> (Config, Origins, Vec<Problem>) {
    let mut syntax = Vec::new();
    let mut documents = Vec::new();
    for source in sources {
        let (mut members, mut errors) = document::parse(&source.text);
        if let Some(line) = fail2bans_header(&source.text).filter(|_| !errors.is_empty()) {
            members.clear();
            let message = "this is fail2ban's configuration: move it to /etc/fail2ban, and write \
                           one for pipeban with `pipeban migrate`";
            errors = vec![(Some((line, 1)), message.to_owned())];
        }
        syntax.extend(errors.into_iter().map(|(place, message)| Problem {
            file: source.file.clone(),
            place,
            message,
        }));
        documents.push(Document { source, members });
    }
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut merged = Merged {
        config: Config::default(),
        origins: Origins::default(),
    };
    // First [defaults] of every file: each jail starts with them.
    for read in [Merged::sections, Merged::jails] {
        for document in &documents {
            let mut faults = Faults {
                file: &document.source.file,
                found: &mut problems,
                warnings: &mut warnings,
            };
            read(&mut merged, document, &mut faults);
        }
    }
    let Merged {
        mut config,
        origins,
    } = merged;
    problems.extend(contradictions(&config, &documents));
    for (name, jail) in &mut config.jails {
        if jail.log == Log::Bans {
            jail.filter.clear();
        } else if jail.filter.is_empty() {
            name.as_str().clone_into(&mut jail.filter);
        }
        never_below_bantime(jail);
        if jail.filter.split('[').next() == Some(FAKE_GOOGLEBOT)
            && origins.of(name.as_str(), "search_engines").is_none()
        {
            jail.search_engines = SearchEngines::BanFake;
        }
        if jail.enabled {
            problems.extend(contradictions_of_jail(name, jail, &origins));
            problems.extend(forgotten_early(config.store.keep, name, jail, &origins));
        }
    }
    problems.retain(|problem| !follows_from(problem, &syntax));
    problems.extend(syntax);
    let order = |problem: &Problem| {
        let index = sources
            .iter()
            .position(|source| source.file == problem.file);
        (index, problem.place)
    };
    problems.sort_by_key(order);
    problems.dedup();
    warnings.sort_by_key(order);
    config.warnings = warnings;
    (config, origins, problems)
}

/// Whether a syntax error explains the problem: it is in the same line, or has no place in the file
/// (a missing value is at 1:1).
fn follows_from(problem: &Problem, syntax: &[Problem]) -> bool {
    let mut errors = syntax.iter().filter(|error| error.file == problem.file);
    let line = |problem: &Problem| problem.place.map(|place| place.0);
    errors.any(|error| {
        error.place.is_some() && (problem.place == Some((1, 1)) || line(error) == line(problem))
    })
}

struct Merged {
    config: Config,
    origins: Origins,
}

const SECTIONS: [&str; 8] = [
    "paths", "firewall", "syslog", "metrics", "store", "proxies", "defaults", "jails",
];

impl Merged {
    /// Every section except jails.
    fn sections(&mut self, document: &Document<'_>, faults: &mut Faults<'_>) {
        for member in &document.members {
            self.section(member, document.source.layer, faults);
        }
    }

    fn section(&mut self, member: &Member, layer: Layer, faults: &mut Faults<'_>) {
        let name = member.key.as_str();
        let Value::Table(table) = &member.value.value else {
            return faults.at(member.place, outside_of_sections(name));
        };
        let config = &mut self.config;
        match name {
            "jails" => {}
            _ if layer == Layer::Shipped => {
                let message = format!(
                    "a shipped file can only have jails: move `[{}]` to the configuration file",
                    name.escape_debug()
                );
                faults.at(member.place, message);
            }
            "paths" if layer == Layer::Extra => {
                let message = "move `[paths]` to pipeban.toml, where every command reads it";
                faults.at(member.place, message);
            }
            "paths" => apply(name, PATHS, table, &mut config.paths, faults),
            "firewall" => apply(name, FIREWALL, table, &mut config.firewall, faults),
            "syslog" => apply(name, SYSLOG, table, &mut config.syslog, faults),
            "metrics" => apply(name, METRICS, table, &mut config.metrics, faults),
            "store" => apply(name, STORE, table, &mut config.store, faults),
            "proxies" => {
                let mut proxies = Proxies {
                    trusted: std::mem::take(&mut config.trusted_proxies),
                    lists: std::mem::take(&mut self.origins.proxy_lists),
                };
                apply(name, PROXIES, table, &mut proxies, faults);
                config.trusted_proxies = proxies.trusted;
                self.origins.proxy_lists = proxies.lists;
            }
            "defaults" => {
                let keys: Vec<Member> = with_commands(table).collect();
                apply(name, JAIL, &keys, &mut config.defaults, faults);
                self.note("", table, faults.file);
            }
            _ => faults.at(member.place, unknown_section(name, table)),
        }
    }

    /// `[jails]`, after [`Merged::sections`] of every file.
    fn jails(&mut self, document: &Document<'_>, faults: &mut Faults<'_>) {
        let sections = document.members.iter();
        for section in sections.filter(|member| member.key == "jails") {
            if let Value::Table(jails) = &section.value.value {
                for jail in jails {
                    self.jail(jail, faults);
                }
            }
        }
    }

    fn jail(&mut self, member: &Member, faults: &mut Faults<'_>) {
        let name: JailName = match member.key.parse() {
            Ok(name) => name,
            Err(message) => return faults.at(member.place, message),
        };
        if name.as_str() == MANUAL_JAIL {
            let message = "`manual` is the name of bans by hand, which use `[defaults]`: rename \
                           this jail";
            return faults.at(member.place, message);
        }
        let Value::Table(table) = &member.value.value else {
            // Probably a key of a jail directly below [jails].
            let message = format!(
                "`{name}` is not a jail: write `[jails.NAME]`, and the jail's keys below it"
            );
            return faults.at(member.place, message);
        };
        let Config {
            defaults, jails, ..
        } = &mut self.config;
        let jail = jails
            .entry(name.clone())
            .or_insert_with(|| defaults.clone());
        let (served, keys): (Vec<Member>, Vec<Member>) =
            with_commands(table).partition(is_served_command);
        apply(&format!("jails.{name}"), JAIL, &keys, jail, faults);
        for command in served {
            jail.search_engines = SearchEngines::BanFake;
            let message = "pipeban does this by forward-confirmed reverse DNS: write \
                           `search_engines = \"ban-fake\"` instead of `ignorecommand`, or enable \
                           the shipped jail `apache-fake-bot`, which knows every search engine";
            faults.warn(command.place, message.to_owned());
        }
        self.note(name.as_str(), table, faults.file);
        let origin = (faults.file.to_owned(), member.place);
        self.origins.headers.insert(name.into(), origin);
    }

    /// Notes where a jail's keys are set.
    fn note(&mut self, jail: &str, table: &[Member], file: &Path) {
        let keys = self.origins.keys.entry(jail.to_owned()).or_default();
        let known = |member: &&Member| has_row(JAIL, &member.key);
        for member in table.iter().filter(known) {
            keys.insert(member.key.clone(), (file.to_owned(), member.place));
            if let Value::Table(parts) = &member.value.value {
                for part in parts {
                    let key = format!("{}.{}", member.key, part.key);
                    keys.insert(key, (file.to_owned(), part.place));
                }
            }
        }
    }
}

/// The keys of a jail but an empty `ignorecommand`, which names no command.
fn with_commands(table: &[Member]) -> impl Iterator<Item = Member> {
    let is_empty = |value: &Value| matches!(value, Value::Text(t) if t.trim().is_empty());
    let names_none = move |m: &&Member| m.key == "ignorecommand" && is_empty(&m.value.value);
    table.iter().filter(move |m| !names_none(m)).cloned()
}

/// An `ignorecommand` that pipeban has built in.
fn is_served_command(member: &Member) -> bool {
    let is_known = |value: &Value| matches!(value, Value::Text(t) if t.contains(FAKE_GOOGLEBOT));
    member.key == "ignorecommand" && is_known(&member.value.value)
}

fn has_row<T>(rows: &[Row<T>], key: &str) -> bool {
    rows.iter().any(|row| row.name == key)
}

fn sections() -> String {
    SECTIONS
        .map(|name| match name {
            "jails" => "[jails.NAME]".into(),
            _ => format!("[{name}]"),
        })
        .join(", ")
}

fn outside_of_sections(name: &str) -> String {
    if SECTIONS.contains(&name) {
        return format!("`{name}` is a section: write `[{name}]`");
    }
    let what = if has_row(JAIL, name) {
        "move it to `[defaults]` or to a `[jails.NAME]`".to_owned()
    } else {
        format!("the sections are {}", sections())
    };
    format!(
        "`{}` is outside of every section: {what}",
        name.escape_debug()
    )
}

fn unknown_section(name: &str, table: &[Member]) -> String {
    let shown = name.escape_debug();
    if name.eq_ignore_ascii_case("default") {
        return format!("unknown section `[{shown}]`: write `[defaults]`");
    }
    let like_jail = table
        .iter()
        .any(|member| has_row(JAIL, &member.key) || member.key == "logpath");
    match nearest(name, SECTIONS.into_iter()) {
        Some("jails") => format!("unknown section `[{shown}]`: a jail is `[jails.NAME]`"),
        Some(near) => format!("unknown section `[{shown}]`: did you mean `[{near}]`?"),
        None if like_jail => {
            format!("unknown section `[{shown}]`: a jail is written `[jails.{shown}]`")
        }
        None => {
            let sections = sections();
            format!("unknown section `[{shown}]`: the sections are {sections}")
        }
    }
}

/// `maxtime` limits repeated bans and never shortens the first one: a jail that sets a year gets a
/// year, even if a limit of a week is inherited. A permanent ban does not grow.
fn never_below_bantime(jail: &mut Jail) {
    match (jail.bantime, &mut jail.increment) {
        (Some(bantime), Some(Increment { maxtime, .. })) => *maxtime = (*maxtime).max(bantime),
        (None, increment) => *increment = None,
        (Some(_), None) => {}
    }
}

/// Settings that are right alone and wrong together.
fn contradictions(config: &Config, documents: &[Document<'_>]) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(message) = lacking(&config.firewall) {
        found.extend(at_key(documents, "firewall", "backend", message));
    }
    let syslog = &config.syslog;
    if syslog.format == SyslogFormat::Rfc5424 && syslog.target == SyslogTarget::local() {
        // journald and rsyslog take such a line as one without a tag.
        let message = "the syslog daemon at /dev/log needs `rfc3164`: delete `format`, or set \
                       another `target`";
        found.extend(at_key(documents, "syslog", "format", message));
    }
    found
}

/// A problem with the last value of this key.
fn at_key(documents: &[Document<'_>], section: &str, key: &str, message: &str) -> Option<Problem> {
    documents.iter().rev().find_map(|document| {
        let value = value_of(&document.members, section, key)?;
        Some(Problem {
            file: document.source.file.clone(),
            place: Some(value.place),
            message: message.to_owned(),
        })
    })
}

fn value_of<'d>(members: &'d [Member], section: &str, key: &str) -> Option<&'d Located> {
    let mut tables = members.iter().filter(|member| member.key == section);
    tables.find_map(|member| {
        let Value::Table(table) = &member.value.value else {
            return None;
        };
        let found = table.iter().find(|member| member.key == key);
        found.map(|member| &member.value)
    })
}

fn contradictions_of_jail(name: &JailName, jail: &Jail, origins: &Origins) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut at = |origin: Option<&Origin>, message: String| {
        found.push(Problem {
            file: origin.map(|(file, _)| file.clone()).unwrap_or_default(),
            place: origin.map(|(_, place)| *place),
            message,
        });
    };
    let jail_name = name.as_str();
    if origins.of(jail_name, "log").is_none() {
        let message = format!(
            "jail `{name}` does not say what it reads: add `log = \"access\"` or \
             `log = \"error\"` (or `log = \"bans\"` to count bans)"
        );
        at(origins.header(jail_name), message);
    }
    let excepts = |kind| {
        let text = format!("log = \"{kind}\"\n{}", jail.except);
        crate::filter::rules::excepts(Path::new(""), &text)
    };
    for problem in jail
        .log
        .kind()
        .and_then(|kind| excepts(kind).err())
        .into_iter()
        .flatten()
    {
        let message = format!("jail `{name}`, `except`: {}", problem.message);
        at(origins.of(jail_name, "except"), message);
    }
    let lines = match jail.log {
        Log::Access => return found,
        Log::Error => "reads the error log: its lines",
        Log::Bans => "counts bans: they",
    };
    for (key, names) in [("vhost", &jail.vhost), ("not_vhost", &jail.not_vhost)] {
        if !names.is_empty() {
            let message =
                format!("jail `{name}` {lines} do not name the virtual host: delete `{key}`");
            at(origins.of(jail_name, key), message);
        }
    }
    for key in ["filter", "except"] {
        if jail.log == Log::Bans
            && let Some(origin) = origins.in_jail(jail_name, key)
        {
            let message = format!("jail `{name}` counts bans, not lines: delete `{key}`");
            at(Some(origin), message);
        }
    }
    found
}

/// A jail whose `memory` reaches further back than the store.
fn forgotten_early(
    keep: Option<Duration>,
    name: &JailName,
    jail: &Jail,
    origins: &Origins,
) -> Option<Problem> {
    let memory = jail.increment.as_ref()?.memory;
    let (keep, memory) = (keep.filter(|keep| *keep < memory)?, Some(memory));
    let origin = origins.of(name.as_str(), "increment");
    let (keep, memory) = (duration::show(Some(keep)), duration::show(memory));
    let message = format!(
        "jail `{name}` counts bans of the last {memory}, but bans are kept for {keep} only: write \
         `keep = \"{memory}\"` or more in `[store]`, or a shorter `memory`"
    );
    Some(Problem {
        file: origin.map(|(file, _)| file.clone()).unwrap_or_default(),
        place: origin.map(|(_, place)| *place),
        message,
    })
}

/// `[paths]` of a text that can be broken anywhere: each line is read alone.
pub(super) fn paths_in(text: &str) -> Paths {
    let mut paths = Paths::default();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            let head = line.split_once(']').map(|(head, _)| head);
            inside = head.is_some_and(|head| {
                head.trim_start_matches('[').trim() == "paths" && !line.starts_with("[[")
            });
        } else if inside {
            let (members, errors) = document::parse(line);
            if errors.is_empty() {
                let mut faults = Faults {
                    file: Path::new(""),
                    found: &mut Vec::new(),
                    warnings: &mut Vec::new(),
                };
                apply("paths", PATHS, &members, &mut paths, &mut faults);
            }
        }
    }
    paths
}
