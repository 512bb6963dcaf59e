//! The keys of every section: one table each, so that nothing is read that no table names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::argv::{HOOK_PLACEHOLDERS, argv, patience};
use super::document::{Located, Member, Place, Value};
use super::merge::Proxies;
use super::networks::{self, Ignored};
use super::words::{self, nearest};
use super::{
    Increment, Jail, Log, Paths, Ports, Problem, Syslog, SyslogFormat, SyslogTarget, duration,
};

/// Where faults of one file are collected.
pub(super) struct Faults<'a> {
    pub(super) file: &'a Path,
    pub(super) found: &'a mut Vec<Problem>,
}

impl Faults<'_> {
    pub(super) fn at(&mut self, place: Place, message: impl Into<String>) {
        self.found.push(Problem {
            file: self.file.to_owned(),
            place: Some(place),
            message: message.into(),
        });
    }

    pub(super) fn expected(&mut self, what: &str, found: &Located) {
        self.at(
            found.place,
            format!("expected {what}, found {}", found.value),
        );
    }
}

/// One key: its name, and what puts a value in its place or says why not.
pub(super) struct Key<T: 'static> {
    pub(super) name: &'static str,
    set: fn(&mut T, &Located, &mut Faults<'_>),
}

pub(super) const fn key<T>(
    name: &'static str,
    set: fn(&mut T, &Located, &mut Faults<'_>),
) -> Key<T> {
    Key { name, set }
}

/// Puts every member of `table` into `target`; tells unknown keys, with the nearest known one.
pub(super) fn apply<T>(
    section: &str,
    keys: &[Key<T>],
    table: &[Member],
    target: &mut T,
    faults: &mut Faults<'_>,
) {
    for member in table {
        if let Some(key) = keys.iter().find(|key| key.name == member.key) {
            (key.set)(target, &member.value, faults);
            continue;
        }
        let name = member.key.escape_debug();
        let message = if let Some(advice) = words::advice(section, &member.key) {
            format!("`{name}` is no key of `[{section}]`: {advice}")
        } else if let Some(near) = nearest(&member.key, keys.iter().map(|key| key.name)) {
            format!("unknown key `{name}` in `[{section}]`: did you mean `{near}`?")
        } else {
            let all: Vec<_> = keys.iter().map(|key| key.name).collect();
            format!(
                "unknown key `{name}` in `[{section}]`: it knows {}",
                all.join(", ")
            )
        };
        faults.at(member.place, message);
    }
}

pub(super) const PATHS: &[Key<Paths>] = &[
    key("runtime", |t, v, f| set(&mut t.runtime, directory(v, f))),
    key("state", |t, v, f| set(&mut t.state, directory(v, f))),
    key("share", |t, v, f| set(&mut t.share, directory(v, f))),
    key("user", |t, v, f| set(&mut t.user, user(v, f))),
    key("wtmp", |t, v, f| set(&mut t.wtmp, absolute(v, f))),
];

pub(super) const SYSLOG: &[Key<Syslog>] = &[
    key("target", |t, v, f| set(&mut t.target, target(v, f))),
    key("format", |t, v, f| match text(v, f) {
        Some("rfc3164") => t.format = SyslogFormat::Rfc3164,
        Some("rfc5424") => t.format = SyslogFormat::Rfc5424,
        Some(_) => f.expected("\"rfc3164\" or \"rfc5424\"", v),
        None => {}
    }),
    key("facility", |t, v, f| set(&mut t.facility, facility(v, f))),
    key("log_file", |t, v, f| match text(v, f) {
        Some("") => t.log_file = None,
        Some(_) => set(&mut t.log_file, absolute(v, f).map(Some)),
        None => {}
    }),
];

pub(super) const PROXIES: &[Key<Proxies>] = &[key("trusted", |t, v, f| {
    let mut proxies = Proxies::default();
    let before = f.found.len();
    for item in items(v) {
        let Some(name) = text(&item, f) else {
            continue;
        };
        if let Some(network) = networks::network(name) {
            proxies.trusted.push(network);
        } else if is_list_name(name) {
            let origin = (f.file.to_owned(), item.place);
            proxies.lists.push((name.to_owned(), origin));
        } else {
            f.expected(
                "a network like \"192.0.2.0/24\" or a list's name like \"cloudflare\"",
                &item,
            );
        }
    }
    set(t, (f.found.len() == before).then_some(proxies));
})];

fn is_list_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.len() <= 64 && name.bytes().all(allowed) && name.bytes().any(|b| b.is_ascii_alphabetic())
}

/// Keys of `[defaults]` and of each jail.
pub(super) const JAIL: &[Key<Jail>] = &[
    key("enabled", |t, v, f| set(&mut t.enabled, boolean(v, f))),
    key("enforce", |t, v, f| set(&mut t.enforce, boolean(v, f))),
    key("log", |t, v, f| match text(v, f) {
        Some("access") => t.log = Log::Access,
        Some("error") => t.log = Log::Error,
        Some("bans") => t.log = Log::Bans,
        Some(_) => f.expected("\"access\", \"error\" or \"bans\"", v),
        None => {}
    }),
    key("filter", |t, v, f| set(&mut t.filter, filter_name(v, f))),
    key("maxretry", |t, v, f| {
        set(&mut t.maxretry, number(v, 1, 1_000_000, f))
    }),
    key("findtime", |t, v, f| set(&mut t.findtime, finite(v, f))),
    key("bantime", |t, v, f| set(&mut t.bantime, positive(v, f))),
    key("port", |t, v, f| set(&mut t.port, ports(v, f))),
    key("ignoreip", ignoreip),
    key("ignoreself", |t, v, f| {
        set(&mut t.ignoreself, boolean(v, f))
    }),
    key("ignore_ssh_logins", |t, v, f| match v.value {
        Value::Boolean(false) => t.ignore_ssh_logins = None,
        _ => set(&mut t.ignore_ssh_logins, finite(v, f).map(Some)),
    }),
    key("ipv4_prefix", |t, v, f| {
        set(
            &mut t.ipv4_prefix,
            number(v, 16, 32, f).and_then(|n| u8::try_from(n).ok()),
        );
    }),
    key("ipv6_prefix", |t, v, f| {
        set(
            &mut t.ipv6_prefix,
            number(v, 48, 128, f).and_then(|n| u8::try_from(n).ok()),
        );
    }),
    key("ban_private", |t, v, f| {
        set(&mut t.ban_private, boolean(v, f))
    }),
    key("weight", |t, v, f| {
        set(&mut t.weight, number(v, 1, 1_000_000, f))
    }),
    key("bans_per_minute", |t, v, f| {
        set(&mut t.bans_per_minute, number(v, 1, 1_000_000, f));
    }),
    key("vhost", |t, v, f| set(&mut t.vhost, vhosts(v, f))),
    key("not_vhost", |t, v, f| set(&mut t.not_vhost, vhosts(v, f))),
    key("increment", increment),
    key("on_ban", |t, v, f| set(&mut t.hooks.on_ban, hook(v, f))),
    key("on_unban", |t, v, f| set(&mut t.hooks.on_unban, hook(v, f))),
    key("hook_timeout", |t, v, f| {
        set(&mut t.hooks.timeout, patience(v, f))
    }),
];

/// `[]`: none, where `[defaults]` names one.
fn hook(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    match &value.value {
        Value::List(words) if words.is_empty() => Some(Vec::new()),
        _ => argv(value, &HOOK_PLACEHOLDERS, faults),
    }
}

const INCREMENT: &[Key<Increment>] = &[
    key("factor", |t, v, f| {
        set(&mut t.factor, factor(v, f).map(Some))
    }),
    key("multipliers", |t, v, f| {
        set(&mut t.multipliers, multipliers(v, f))
    }),
    key("maxtime", |t, v, f| set(&mut t.maxtime, finite(v, f))),
    key("rndtime", |t, v, f| set(&mut t.rndtime, zero_or_more(v, f))),
    key("overalljails", |t, v, f| {
        set(&mut t.overalljails, boolean(v, f))
    }),
    key("memory", |t, v, f| set(&mut t.memory, finite(v, f))),
];

/// What `increment = {}` says.
pub(super) fn default_increment() -> Increment {
    Increment {
        factor: None,
        multipliers: Vec::new(),
        maxtime: Duration::from_secs(7 * 86_400),
        rndtime: Duration::ZERO,
        overalljails: false,
        memory: Duration::from_secs(30 * 86_400),
    }
}

fn increment(jail: &mut Jail, value: &Located, faults: &mut Faults<'_>) {
    match &value.value {
        Value::Boolean(false) => jail.increment = None,
        Value::Boolean(true) => {
            jail.increment = jail.increment.take().or(Some(default_increment()))
        }
        Value::Table(table) => {
            let mut increment = jail.increment.take().unwrap_or_else(default_increment);
            apply("increment", INCREMENT, table, &mut increment, faults);
            jail.increment = Some(increment);
        }
        _ => faults.expected(
            "true, false or a table like `{ factor = 2, maxtime = \"1w\", memory = \"30d\" }`",
            value,
        ),
    }
}

pub(super) fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

pub(super) fn text<'v>(value: &'v Located, faults: &mut Faults<'_>) -> Option<&'v str> {
    if let Value::Text(text) = &value.value {
        Some(text)
    } else {
        faults.expected("a text in quotes", value);
        None
    }
}

pub(super) fn boolean(value: &Located, faults: &mut Faults<'_>) -> Option<bool> {
    if let Value::Boolean(value) = value.value {
        Some(value)
    } else {
        faults.expected("true or false, without quotes", value);
        None
    }
}

pub(super) fn number(
    value: &Located,
    least: u32,
    most: u32,
    faults: &mut Faults<'_>,
) -> Option<u32> {
    if let Value::Integer(number) = value.value
        && let Ok(number) = u32::try_from(number)
        && (least..=most).contains(&number)
    {
        return Some(number);
    }
    faults.expected(
        &format!("a whole number from {least} to {most}, without quotes"),
        value,
    );
    None
}

fn factor(value: &Located, faults: &mut Faults<'_>) -> Option<f64> {
    let number = match value.value {
        #[expect(clippy::cast_precision_loss, reason = "anything above 1000 is refused")]
        Value::Integer(number) => number as f64,
        Value::Float(number) => number,
        _ => f64::NAN,
    };
    if (1.0..=1000.0).contains(&number) {
        return Some(number);
    }
    faults.expected("a number from 1 to 1000", value);
    None
}

/// The outer `None`: told; the inner one: for ever.
fn time(value: &Located, faults: &mut Faults<'_>) -> Option<Option<Duration>> {
    let parsed = match &value.value {
        Value::Text(text) => duration::parse(text),
        Value::Integer(number) => duration::parse(&number.to_string()),
        Value::Table(table) if table.iter().any(|member| member.key == "increment") => {
            let advice = words::advice("defaults", "bantime.increment").unwrap_or_default();
            faults.at(
                value.place,
                format!("`bantime` is a duration: for bans that grow {advice}"),
            );
            return None;
        }
        _ => {
            faults.expected(
                "a duration like \"10m\", \"1h 30m\", \"1w\", or seconds",
                value,
            );
            return None;
        }
    };
    match parsed {
        Ok(duration) => Some(duration),
        Err(message) => {
            faults.at(value.place, message);
            None
        }
    }
}

fn positive(value: &Located, faults: &mut Faults<'_>) -> Option<Option<Duration>> {
    let duration = time(value, faults)?;
    if duration == Some(Duration::ZERO) {
        faults.expected("a duration above zero", value);
        return None;
    }
    Some(duration)
}

pub(super) fn finite(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let duration = positive(value, faults)?;
    if duration.is_none() {
        faults.at(
            value.place,
            "only `bantime` can be for ever: write a duration like \"10m\"",
        );
    }
    duration
}

fn zero_or_more(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let duration = time(value, faults)?;
    if duration.is_none() {
        faults.expected("a duration like \"10m\"", value);
    }
    duration
}

/// fail2ban's `1 5 30 60`, or a list.
fn multipliers(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<u32>> {
    let before = faults.found.len();
    let mut multipliers = Vec::new();
    for mut item in items(value) {
        if let Value::Text(text) = &item.value
            && let Ok(number) = text.parse()
        {
            item.value = Value::Integer(number);
        }
        multipliers.extend(number(&item, 1, 1_000_000, faults));
    }
    (faults.found.len() == before).then_some(multipliers)
}

pub(super) fn absolute(value: &Located, faults: &mut Faults<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(text(value, faults)?);
    if path.is_absolute() {
        return Some(path);
    }
    faults.expected("a path that begins with `/`", value);
    None
}

fn directory(value: &Located, faults: &mut Faults<'_>) -> Option<PathBuf> {
    absolute(value, faults)
}

fn user(value: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let name = text(value, faults)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !(1..=32).contains(&name.len()) || name.starts_with('-') || !name.bytes().all(allowed) {
        faults.expected("the name of a user", value);
        return None;
    }
    if matches!(name, "root" | "nobody" | "www-data") {
        faults.at(
            value.place,
            format!("the worker must not be `{name}`: give it a user of its own, like `pipeban`"),
        );
        return None;
    }
    Some(name.to_owned())
}

fn target(value: &Located, faults: &mut Faults<'_>) -> Option<SyslogTarget> {
    let name = text(value, faults)?;
    if name == "local" {
        return Some(SyslogTarget::local());
    }
    if let Some(path) = name
        .strip_prefix("unix:")
        .filter(|path| path.starts_with('/'))
    {
        return Some(SyslogTarget::Unix(path.into()));
    }
    if let Some(address) = name.strip_prefix("udp://") {
        let address = address.parse().ok().map(SyslogTarget::Udp);
        if address.is_none() {
            faults.at(value.place, "an address and a port, as in `udp://192.0.2.1:514` or `udp://[2001:db8::1]:514`: nobody here waits for a resolver");
        }
        return address;
    }
    if name.starts_with("tcp:") || name.starts_with("tls:") {
        faults.at(
            value.place,
            "syslog over tcp is not spoken here: write \"local\" and let the local syslog forward",
        );
    } else {
        faults.expected("\"local\", \"unix:/PATH\" or \"udp://ADDRESS:PORT\"", value);
    }
    None
}

/// RFC 5424, section 6.2.1.
const FACILITIES: &[(&str, u8)] = &[
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

fn facility(value: &Located, faults: &mut Faults<'_>) -> Option<u8> {
    let name = text(value, faults)?;
    let found = FACILITIES.iter().find(|(known, _)| *known == name);
    if found.is_none() {
        let near = nearest(name, FACILITIES.iter().map(|(known, _)| *known))
            .map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
        faults.expected(
            &format!("a syslog facility like \"authpriv\" or \"local0\"{near}"),
            value,
        );
    }
    found.map(|(_, number)| *number)
}

fn filter_name(value: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let whole = text(value, faults)?;
    let name = match crate::filter::split_options(whole) {
        Ok((name, _)) => name,
        Err(message) => {
            faults.at(value.place, &message);
            return None;
        }
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let shown = !whole.chars().any(char::is_control);
    if !shown
        || !(1..=64).contains(&name.len())
        || name.starts_with('.')
        || !name.bytes().all(allowed)
    {
        faults.expected("the name of a filter, without directory and ending", value);
        return None;
    }
    Some(whole.to_owned())
}

/// A list; one text stands for a list of one, and may name several between commas or spaces.
pub(super) fn items(value: &Located) -> Vec<Located> {
    let split = |text: &str| {
        text.split([',', ' '])
            .filter(|part| !part.is_empty())
            .map(|part| Located {
                value: Value::Text(part.to_owned()),
                place: value.place,
            })
            .collect()
    };
    match &value.value {
        Value::List(items) => items.clone(),
        Value::Text(text) => split(text),
        _ => vec![value.clone()],
    }
}

fn ignoreip(jail: &mut Jail, value: &Located, faults: &mut Faults<'_>) {
    let (mut nets, mut files, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let before = faults.found.len();
    for item in items(value) {
        let Some(entry) = text(&item, faults) else {
            continue;
        };
        match networks::ignored(entry) {
            Some(Ignored::Network(net)) => nets.push(net),
            Some(Ignored::File(file)) => files.push(file),
            Some(Ignored::Name(name)) => names.push(name),
            None => faults.expected("an address, a network, a host's name or a `/FILE`", &item),
        }
    }
    if names.len() > MOST_NAMES {
        faults.at(
            value.place,
            format!("more than {MOST_NAMES} names to look up: write addresses, or a file of them"),
        );
    }
    if faults.found.len() == before {
        (jail.ignoreip, jail.ignore_files, jail.ignore_names) = (nets, files, names);
    }
}

/// Each is looked up again and again.
const MOST_NAMES: usize = 100;

fn vhosts(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let before = faults.found.len();
    for item in items(value) {
        let Some(name) = text(&item, faults) else {
            continue;
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'*');
        if !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) {
            names.push(name.to_ascii_lowercase());
        } else {
            faults.expected(
                "the name of a virtual host, without port (`*` for any text)",
                &item,
            );
        }
    }
    (faults.found.len() == before).then_some(names)
}

/// iptables' multiport match, which ufw uses, takes no more.
const MOST_PORTS: usize = 15;

fn ports(value: &Located, faults: &mut Faults<'_>) -> Option<Ports> {
    let (mut all, mut ssh) = (false, false);
    let mut tcp = BTreeSet::new();
    let mut udp = BTreeSet::new();
    let before = faults.found.len();
    for item in items(value) {
        let word = match &item.value {
            Value::Text(word) => word.clone(),
            Value::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        match word.as_str() {
            "all" => all = true,
            "ssh" => {
                ssh = true;
                tcp.insert(22);
            }
            "http" => {
                tcp.insert(80);
            }
            "https" => {
                tcp.insert(443);
                udp.insert(443);
            }
            range if range.contains([':', '-']) && !range.starts_with('-') => {
                faults.at(
                    item.place,
                    format!(
                        "`{range}`: ranges of ports are not supported: name each port, or \"all\""
                    ),
                );
            }
            number => match number.parse::<u16>() {
                Ok(port) if port > 0 => {
                    tcp.insert(port);
                }
                _ => faults.expected(
                    "\"http\", \"https\", \"ssh\", \"all\" or a port from 1 to 65535",
                    &item,
                ),
            },
        }
    }
    if faults.found.len() > before {
        return None;
    }
    match (all, ssh) {
        (true, true) => Some(Ports::All),
        (true, false) => Some(Ports::AllButSsh),
        (false, _) if tcp.is_empty() => {
            faults.at(
                value.place,
                "no port named: write [\"http\", \"https\"] or \"all\"",
            );
            None
        }
        (false, _) if tcp.len() > MOST_PORTS => {
            faults.at(value.place, format!("more than {MOST_PORTS} ports, which a ufw rule cannot hold: name fewer, or \"all\""));
            None
        }
        (false, _) => Some(Ports::List { tcp, udp }),
    }
}
