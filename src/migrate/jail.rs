//! One jail of fail2ban.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::actions::{self, Deed, Entry};
use super::logs::{self, Logs};
use super::model::{Host, Kept, Migration, Moved, Origin, is_on};
use super::{growth, patterns, ports, values};
use crate::config::{FAKE_GOOGLEBOT, JailName, Log};
use crate::filter::{self, Definition, Filter, FilterFiles, Setting, Settings};
use crate::problem::Problem;

/// Options that a jail can set in place of its filter.
const OF_FILTERS: [&str; 3] = ["prefregex", "failregex", "ignoreregex"];

/// A jail, and what is needed to read it.
pub(super) struct Source<'a> {
    pub(super) directory: &'a Path,
    pub(super) name: &'a str,
    pub(super) host: &'a Host<'a>,
    pub(super) files: &'a dyn FilterFiles,
    /// `ignoreip` of fail2ban's `[DEFAULT]`.
    pub(super) ignored: &'a [String],
    /// `ignoreip` of pipeban's `[defaults]` after the migration.
    pub(super) defaults: &'a [String],
}

/// Why a jail stays with fail2ban.
type Why = String;

impl Source<'_> {
    /// Adds the jail to the migration, if it is enabled.
    pub(super) fn read(&self, jails: &mut Settings, migration: &mut Migration) {
        let enabled = jails.value(self.name, "enabled").ok().flatten();
        if !is_on(enabled.as_ref()) {
            return;
        }
        let (file, line) = match &enabled {
            Some(setting) => (setting.file.clone(), setting.line),
            None => jails.header(self.name),
        };
        let from = Origin {
            jail: self.name.to_owned(),
            file,
            line,
        };
        match self.moved(jails, migration, &from) {
            Ok(moved) => migration.moved.extend(moved),
            Err(why) => migration.kept.push(Kept { from, why }),
        }
    }

    fn moved(
        &self,
        jails: &mut Settings,
        migration: &mut Migration,
        from: &Origin,
    ) -> Result<Vec<Moved>, Why> {
        let spec = self.text(jails, "filter")?;
        let (bare, options) = filter::split_options(&spec)?;
        let backend = self.text(jails, "backend")?;
        let logs = logs::sort(&self.text(jails, "logpath")?, bare, self.host);
        if bare == "recidive" || !logs.bans.is_empty() {
            return self.recidive(jails, from, logs.bans);
        }
        if backend.starts_with("systemd") {
            return Err("it reads the journal, which Apache does not write".to_owned());
        }
        self.refuse(bare, &logs)?;
        let definition = self.definition(jails, bare, options)?;
        let (filter, copy, note) = self.filter(&spec, bare, &definition);
        let mut whole = self.common(jails, from)?;
        whole.notes.extend(note);
        self.actions(jails, migration, &mut whole)?;
        let ignorecommand = self.text(jails, "ignorecommand")?;
        whole.bans_fake = ignorecommand.contains(FAKE_GOOGLEBOT);
        if whole.bans_fake {
            whole.notes.push(
                "pipeban does what its `ignorecommand` does by forward-confirmed reverse DNS; the \
                 shipped jail `apache-fake-bot` does the same for every search engine"
                    .to_owned(),
            );
        } else if !ignorecommand.is_empty() {
            (whole.observes, whole.partly) = (true, true);
            whole.notes.push(format!(
                "fail2ban asks `{ignorecommand}` before each ban; pipeban runs no such program. So \
                 that no innocent client is banned, the jail only counts, and fail2ban's stays on: \
                 list the addresses in `ignoreip`, then delete `enforce = false`"
            ));
        }
        if !logs.other.is_empty() {
            whole.partly = true;
            whole.notes.push(format!(
                "fail2ban's jail stays on for {}: take the logs below out of its `logpath`",
                logs.other.join(", ")
            ));
        }
        whole.filter = filter;
        whole.copy = copy;
        let both = !logs.access.is_empty() && !logs.error.is_empty();
        let mut all = Vec::new();
        for (log, paths) in [(Log::Access, logs.access), (Log::Error, logs.error)] {
            if paths.is_empty() {
                continue;
            }
            let ending = if both {
                format!("-{log}")
            } else {
                String::new()
            };
            let mut moved = whole.clone();
            moved.name = name(self.name, &ending)?;
            (moved.log, moved.paths) = (log, paths);
            all.push(moved);
        }
        Ok(all)
    }

    /// Reasons to leave the jail with fail2ban.
    fn refuse(&self, bare: &str, logs: &Logs) -> Result<(), Why> {
        if logs.access.is_empty() && logs.error.is_empty() {
            return Err(match logs.other.as_slice() {
                [] => "it reads no log file".to_owned(),
                others => format!(
                    "it reads {}, which Apache does not write",
                    others.join(", ")
                ),
            });
        }
        if bare == "apache-pass" {
            return Err("it opens ports for clients, and pipeban only closes them".to_owned());
        }
        Ok(())
    }

    fn recidive(
        &self,
        jails: &Settings,
        from: &Origin,
        paths: Vec<String>,
    ) -> Result<Vec<Moved>, Why> {
        let mut moved = self.common(jails, from)?;
        moved.name = name(self.name, "")?;
        moved.log = Log::Bans;
        moved.paths = paths;
        let entries = actions::entries(&self.text(jails, "action")?);
        self.close(jails, &entries, &mut moved)?;
        Ok(vec![moved])
    }

    /// The text of an option; empty if it is not set.
    fn text(&self, jails: &Settings, option: &str) -> Result<String, Why> {
        let setting = self.setting(jails, option)?;
        Ok(setting.map_or_else(String::new, |setting| setting.text))
    }

    fn setting(&self, jails: &Settings, option: &str) -> Result<Option<Setting>, Why> {
        let value = jails.value(self.name, option);
        value.map_err(|problem| format!("fail2ban cannot read `{option}`: {}", problem.message))
    }

    /// Numbers and times.
    fn common(&self, jails: &Settings, from: &Origin) -> Result<Moved, Why> {
        let minutes = Duration::from_secs(600);
        let maxretry = self.setting(jails, "maxretry")?;
        let findtime = self.setting(jails, "findtime")?;
        let bantime = self.setting(jails, "bantime")?;
        let maxretry = values::number("maxretry", maxretry.as_ref(), 3);
        let findtime = values::time("findtime", findtime.as_ref(), minutes);
        let bantime = values::time("bantime", bantime.as_ref(), minutes);
        let get = |option: &str| self.setting(jails, option).ok().flatten();
        let (increment, more) = growth::increment(&get);
        let commented = [maxretry.commented, findtime.commented, bantime.commented];
        let commented: Vec<String> = commented.into_iter().flatten().collect();
        let mut notes: Vec<String> = values::about_comments(&commented).into_iter().collect();
        let wrong = [maxretry.note, findtime.note, bantime.note];
        notes.extend(wrong.into_iter().flatten());
        notes.extend(more);
        Ok(Moved {
            from: from.clone(),
            name: name(self.name, "")?,
            log: Log::Access,
            paths: Vec::new(),
            filter: String::new(),
            copy: None,
            observes: false,
            bans_fake: false,
            maxretry: maxretry.value,
            findtime: findtime.value.or(Some(minutes)),
            bantime: bantime.value,
            port: String::new(),
            increment,
            ignoreip: self.ignoreip(jails)?,
            notes,
            hooks: Vec::new(),
            partly: false,
        })
    }

    /// Empty: as in `[defaults]`.
    fn ignoreip(&self, jails: &Settings) -> Result<Vec<String>, Why> {
        let own = values::words(&self.text(jails, "ignoreip")?);
        if own == self.ignored {
            return Ok(Vec::new());
        }
        // What fail2ban ignores in all jails is never banned here, either.
        let new = own
            .into_iter()
            .filter(|entry| !self.defaults.contains(entry));
        let new: Vec<String> = new.collect();
        Ok(match new.is_empty() {
            true => Vec::new(),
            false => self.defaults.iter().cloned().chain(new).collect(),
        })
    }

    /// The filter with what the jail sets in its place.
    fn definition(
        &self,
        jails: &mut Settings,
        bare: &str,
        mut options: BTreeMap<String, String>,
    ) -> Result<Definition, Why> {
        let file = self.directory.join("filter.d").join(format!("{bare}.conf"));
        let read = |options: &BTreeMap<String, String>| {
            filter::read(bare, &file, options, self.files).map_err(|problems| refused(&problems))
        };
        let plain = read(&options)?;
        let lines = |patterns: &[filter::PatternText]| {
            let texts: Vec<&str> = patterns
                .iter()
                .map(|pattern| pattern.text.as_str())
                .collect();
            texts.join("\n")
        };
        jails.set_known(self.name, "failregex", &lines(&plain.failregex));
        jails.set_known(self.name, "ignoreregex", &lines(&plain.ignoreregex));
        let mut changed = false;
        for option in OF_FILTERS {
            if let Some(setting) = self.setting(jails, option)? {
                options.insert(option.to_owned(), setting.text);
                changed = true;
            }
        }
        let definition = if changed { read(&options)? } else { plain };
        Filter::compile(&definition).map_err(|problems| refused(&problems))?;
        Ok(definition)
    }

    /// The name to write, the file to add, and what to say about it.
    fn filter(
        &self,
        spec: &str,
        bare: &str,
        definition: &Definition,
    ) -> (String, Option<(String, String)>, Option<String>) {
        let found = (self.host.filter)(spec).or_else(|| (self.host.filter)(bare));
        let is_plain = !spec.contains(|c: char| c.is_control());
        match &found {
            Some(found) if is_plain && patterns::are_same(found, definition) => {
                return (spec.to_owned(), None, None);
            }
            _ => {}
        }
        let copy = format!("fail2ban-{}", plain_name(self.name));
        let source = definition.file.display().to_string();
        let text = patterns::as_file(definition, &source);
        let note = match &found {
            Some(found) if !found.native.is_empty() => format!(
                "the filter {copy} has fail2ban's patterns. pipeban's `{bare}` finds more \
                 spellings: to use it, write `filter = \"{bare}\"`"
            ),
            _ => format!("the filter {copy} has the patterns of {source}"),
        };
        (copy.clone(), Some((copy, text)), Some(note))
    }

    fn actions(
        &self,
        jails: &Settings,
        migration: &mut Migration,
        moved: &mut Moved,
    ) -> Result<(), Why> {
        let entries = actions::entries(&self.text(jails, "action")?);
        let mut blocks = false;
        for entry in &entries {
            let command = self.command(entry);
            let deed = Deed::of(&entry.name, &command);
            blocks |= matches!(deed, Deed::Firewall | Deed::Cloudflare | Deed::Other);
            migration.cloudflare |= deed == Deed::Cloudflare;
            if let Some((note, hook)) = actions::advice(entry, deed, &command) {
                moved.notes.push(note);
                moved.hooks.extend(hook);
            }
        }
        if !blocks && !entries.is_empty() {
            moved.observes = true;
            moved
                .notes
                .push("fail2ban's actions block no client, so the jail only counts".into());
        }
        self.close(jails, &entries, moved)
    }

    /// The ports that bans close.
    fn close(&self, jails: &Settings, entries: &[Entry], moved: &mut Moved) -> Result<(), Why> {
        let mut all = entries.iter();
        let firewall =
            all.find(|entry| Deed::of(&entry.name, &self.command(entry)) == Deed::Firewall);
        let port = self.text(jails, "port")?;
        let (text, note) = ports::ports(&port, firewall, self.host.service);
        moved.port = text;
        moved.notes.extend(note);
        Ok(())
    }

    /// `actionban` of an action's file; empty if it cannot be read.
    fn command(&self, entry: &Entry) -> String {
        let file = self
            .directory
            .join("action.d")
            .join(format!("{}.conf", entry.name));
        let action = Settings::read(&file, self.files).ok();
        let value = action.and_then(|action| action.value("Definition", "actionban").ok());
        value
            .flatten()
            .map_or_else(String::new, |setting| setting.text)
    }
}

fn name(name: &str, ending: &str) -> Result<JailName, Why> {
    let name = plain_name(name) + ending;
    match name.as_str() {
        crate::config::MANUAL_JAIL => Err("pipeban uses the name `manual`: rename it".to_owned()),
        _ => name.parse(),
    }
}

/// A name of fail2ban's with what a name of pipeban's cannot have replaced.
fn plain_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect()
}

fn refused(problems: &[Problem]) -> Why {
    let first = problems.first().map(Problem::to_string).unwrap_or_default();
    format!("pipeban cannot use its filter: {first}")
}
