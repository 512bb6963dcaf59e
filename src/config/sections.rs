//! The keys of every section except jails.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::argv::{COMMAND_PLACEHOLDERS, argv};
use super::document::{Located, Value};
use super::duration;
use super::networks;
use super::origins::Origin;
use super::row::{Faults, Row, apply, inline_table, row};
use super::settings::{
    Backend, BanCommand, Blocktype, Firewall, LineFormat, Metrics, Paths, StoreSettings, Syslog,
    SyslogFormat, SyslogTarget, word_of,
};
use super::values::{
    absolute, boolean, did_you_mean, each, number, positive, quote, quoted_list, run_time, set,
    show_time, text, word,
};
use super::words::removed;

#[rustfmt::skip] // a table
pub(super) const PATHS: &[Row<Paths>] = &[
    row("runtime", "\"/run/pipeban\"", "directory of the sockets and of Apache's deny map",
        |t, v, f| set(&mut t.runtime, absolute(v, f)), |t| quote(&t.runtime.to_string_lossy())),
    row("state", "\"/var/lib/pipeban\"",
        "directory of the database, the last good configuration and backups",
        |t, v, f| set(&mut t.state, absolute(v, f)), |t| quote(&t.state.to_string_lossy())),
    row("share", "\"/usr/share/pipeban\"",
        "directory of shipped jails, filters and lists of proxies",
        |t, v, f| set(&mut t.share, absolute(v, f)), |t| quote(&t.share.to_string_lossy())),
    row("user", "\"pipeban\"", "the worker's user; never root, nobody or www-data",
        |t, v, f| set(&mut t.user, user(v, f)), |t| quote(&t.user)),
];

#[rustfmt::skip] // a table
pub(super) const FIREWALL: &[Row<Firewall>] = &[
    row("backend", "\"auto\"",
        "what enforces bans: auto, ufw, nftables, apache, command, or a list of them; or dry-run",
        |t, v, f| set(&mut t.backend, backends(v, f)),
        |t| match t.backend.as_slice() {
            [one] => quote(&one.to_string()),
            several => quoted_list(several),
        }),
    row("instant", "true",
        "with ufw: pipeban's nftables table enforces a ban immediately, the ufw rule follows",
        |t, v, f| set(&mut t.instant, boolean(v, f)), |t| t.instant.to_string()),
    row("max_rules", "500", "the most ufw rules; further bans are in pipeban's nftables table only",
        |t, v, f| set(&mut t.max_rules, number(v, 0, 10_000, f)), |t| t.max_rules.to_string()),
    row("mirror", "true", "false: no ufw rules, pipeban's nftables table only",
        |t, v, f| set(&mut t.mirror, boolean(v, f)), |t| t.mirror.to_string()),
    row("blocktype", "\"drop\"", "what pipeban's nftables table does with packets: drop or reject",
        |t, v, f| set(&mut t.blocktype, word(v, &Blocktype::WORDS, f)),
        |t| quote(word_of(&Blocktype::WORDS, t.blocktype))),
    row("command", "{}", "the programs of the back end command",
        command,
        |t| {
            let command = t.command.as_ref();
            command.map_or("{}".into(), |command| inline_table(COMMAND, command))
        }),
];

/// `[firewall.command]`
#[rustfmt::skip] // a table
pub(super) const COMMAND: &[Row<BanCommand>] = &[
    row("ban", "[]", "the program that bans, and its arguments",
        |t, v, f| set(&mut t.ban, argv(v, &COMMAND_PLACEHOLDERS, f)), |t| quoted_list(&t.ban)),
    row("unban", "[]", "the program that lifts a ban, and its arguments",
        |t, v, f| set(&mut t.unban, argv(v, &COMMAND_PLACEHOLDERS, f)), |t| quoted_list(&t.unban)),
    row("check", "[]", "a program that ends with status 0 if the ban is in force",
        |t, v, f| set(&mut t.check, check_program(v, f)),
        |t| quoted_list(t.check.iter().flatten())),
    row("timeout", "\"10s\"", "a program that runs longer is killed; at most 5m",
        |t, v, f| set(&mut t.timeout, run_time(v, f)), |t| show_time(t.timeout)),
];

#[rustfmt::skip] // a table
pub(super) const SYSLOG: &[Row<Syslog>] = &[
    row("target", "\"local\"",
        "where messages go: local (/dev/log), unix:/PATH, udp://ADDRESS:PORT or none",
        |t, v, f| set(&mut t.target, target(v, f)),
        |t| match &t.target {
            target if *target == SyslogTarget::local() => quote("local"),
            SyslogTarget::Unix(path) => quote(&format!("unix:{}", path.display())),
            SyslogTarget::Udp(address) => quote(&format!("udp://{address}")),
            SyslogTarget::None => quote("none"),
        }),
    row("format", "\"rfc3164\"", "the format of messages: rfc3164 or rfc5424; /dev/log needs rfc3164",
        |t, v, f| set(&mut t.format, word(v, &SyslogFormat::WORDS, f)),
        |t| quote(word_of(&SyslogFormat::WORDS, t.format))),
    row("facility", "\"authpriv\"", "the syslog facility",
        |t, v, f| set(&mut t.facility, facility(v, f)), |t| quote(word_of(FACILITIES, t.facility))),
    row("log_format", "\"text\"", "log lines in syslog and in the file: text, or json (one JSON object per line)",
        |t, v, f| set(&mut t.log_format, word(v, &LineFormat::WORDS, f)),
        |t| quote(word_of(&LineFormat::WORDS, t.log_format))),
    row("log_file", "\"/var/log/pipeban.log\"", "a file that gets the same messages; \"\": none",
        |t, v, f| match &v.value {
            Value::Text(path) if path.is_empty() => t.log_file = None,
            _ => set(&mut t.log_file, absolute(v, f).map(Some)),
        },
        |t| {
            let path = t.log_file.as_deref();
            path.map_or("\"\"".into(), |path| quote(&path.to_string_lossy()))
        }),
];

#[rustfmt::skip] // a table
pub(super) const STORE: &[Row<StoreSettings>] = &[
    row("keep", "\"90d\"", "how long bans that have ended, and evidence, are kept",
        |t, v, f| set(&mut t.keep, positive(v, f)),
        |t| quote(&duration::show(t.keep))),
];

#[rustfmt::skip] // a table
pub(super) const METRICS: &[Row<Metrics>] = &[
    row("socket", "\"\"", "a unix socket that answers HTTP with metrics for Prometheus; \"\": none",
        |t, v, f| match &v.value {
            Value::Text(path) if path.is_empty() => t.socket = None,
            _ => set(&mut t.socket, absolute(v, f).map(Some)),
        },
        |t| {
            let path = t.socket.as_deref();
            path.map_or("\"\"".into(), |path| quote(&path.to_string_lossy()))
        }),
    row("listen", "\"\"", "an address and a port that answer the same; \"\": none",
        |t, v, f| set(&mut t.listen, listen(v, f)),
        |t| t.listen.map_or("\"\"".into(), |address| quote(&address.to_string()))),
];

fn listen(value: &Located, faults: &mut Faults<'_>) -> Option<Option<SocketAddr>> {
    let name = text(value, faults)?;
    if name.is_empty() {
        return Some(None);
    }
    let address = name.parse().ok();
    if address.is_none() {
        faults.expected(
            "an address and a port like \"127.0.0.1:9877\" or \"[::1]:9877\"",
            value,
        );
    }
    address.map(Some)
}

/// `[proxies]`
#[derive(Debug, Default)]
pub(super) struct Proxies {
    pub(super) trusted: Vec<IpNet>,
    /// Names of lists, and their places.
    pub(super) lists: Vec<(String, Origin)>,
}

#[rustfmt::skip] // a table
pub(super) const PROXIES: &[Row<Proxies>] = &[
    row("trusted", "[]",
        "networks of proxies and CDNs, or names of lists in proxies.d: never banned",
        trusted,
        |t| {
            let networks = t.trusted.iter().map(ToString::to_string);
            quoted_list(networks.chain(t.lists.iter().map(|(name, _)| name.clone())))
        }),
];

fn backends(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<Backend>> {
    let found = each(value, faults, |item, faults| {
        if let Value::Text(name) = &item.value {
            let setting = format!("backend = {}", quote(name));
            if let Some(advice) = removed("firewall", &setting) {
                faults.removed(item.place, &setting, advice);
                return Some(Backend::Nftables);
            }
        }
        word(item, &Backend::WORDS, faults)
    })?;
    let mut backends = Vec::new();
    for backend in found {
        if !backends.contains(&backend) {
            backends.push(backend);
        }
    }
    if backends.is_empty() {
        faults.expected("a back end like \"auto\", or a list of them", value);
        return None;
    }
    if backends.len() > 1 && backends.contains(&Backend::DryRun) {
        let message = "\"dry-run\" enforces nothing, so it cannot be combined: name it alone";
        faults.at(value.place, message);
        return None;
    }
    Some(backends)
}

fn command(target: &mut Firewall, value: &Located, faults: &mut Faults<'_>) {
    if let Value::Table(table) = &value.value {
        let command = target.command.get_or_insert_default();
        apply("firewall.command", COMMAND, table, command, faults);
    } else {
        let what = "a section: write `[firewall.command]` with `ban` and `unban`";
        faults.expected(what, value);
    }
}

/// `[]`: none.
fn check_program(value: &Located, faults: &mut Faults<'_>) -> Option<Option<Vec<String>>> {
    match &value.value {
        Value::List(words) if words.is_empty() => Some(None),
        _ => argv(value, &COMMAND_PLACEHOLDERS, faults).map(Some),
    }
}

/// What `backend` needs and `firewall` lacks once every file is read.
pub(super) fn lacking(firewall: &Firewall) -> Option<&'static str> {
    let complete = |command: &BanCommand| !command.ban.is_empty() && !command.unban.is_empty();
    let needed = firewall.has(Backend::Command);
    (needed && !firewall.command.as_ref().is_some_and(complete)).then_some(
        "the back end `command` has no programs: write `[firewall.command]` with \
         `ban = [\"/PROGRAM\", \"{host}\"]` and `unban = [...]`",
    )
}

fn user(value: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let name = text(value, faults)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !(1..=32).contains(&name.len()) || name.starts_with('-') || !name.bytes().all(allowed) {
        faults.expected("the name of a user", value);
        return None;
    }
    if matches!(name, "root" | "nobody" | "www-data") {
        let message =
            format!("the worker must not run as `{name}`: use a separate user like `pipeban`");
        faults.at(value.place, message);
        return None;
    }
    Some(name.to_owned())
}

fn target(value: &Located, faults: &mut Faults<'_>) -> Option<SyslogTarget> {
    let name = text(value, faults)?;
    if name == "local" {
        return Some(SyslogTarget::local());
    }
    if name == "none" {
        return Some(SyslogTarget::None);
    }
    if let Some(path) = name.strip_prefix("unix:")
        && path.starts_with('/')
    {
        return Some(SyslogTarget::Unix(path.into()));
    }
    if let Some(address) = name.strip_prefix("udp://") {
        let address = address.parse().ok().map(SyslogTarget::Udp);
        if address.is_none() {
            let message = "expected an address and a port, as in `udp://192.0.2.1:514` or \
                           `udp://[2001:db8::1]:514`; pipeban does not resolve names here";
            faults.at(value.place, message);
        }
        return address;
    }
    if name.starts_with("tcp:") || name.starts_with("tls:") {
        let message = "pipeban does not send syslog over tcp: write \"local\" and let the local \
                       syslog daemon forward";
        faults.at(value.place, message);
    } else {
        faults.expected(
            "\"local\", \"unix:/PATH\", \"udp://ADDRESS:PORT\" or \"none\"",
            value,
        );
    }
    None
}

/// RFC 5424, section 6.2.1.
#[rustfmt::skip] // a table
const FACILITIES: &[(&str, u8)] = &[
    ("kern", 0), ("user", 1), ("mail", 2), ("daemon", 3), ("auth", 4), ("syslog", 5), ("lpr", 6),
    ("news", 7), ("uucp", 8), ("cron", 9), ("authpriv", 10), ("ftp", 11), ("local0", 16),
    ("local1", 17), ("local2", 18), ("local3", 19), ("local4", 20), ("local5", 21), ("local6", 22),
    ("local7", 23),
];

/// The number of a facility of syslog.
pub fn syslog_facility(name: &str) -> Option<u8> {
    let found = FACILITIES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, number)| *number)
}

fn facility(value: &Located, faults: &mut Faults<'_>) -> Option<u8> {
    let name = text(value, faults)?;
    let found = syslog_facility(name);
    if found.is_none() {
        let near = did_you_mean(name, FACILITIES.iter().map(|(known, _)| *known));
        let what = format!("a syslog facility like \"authpriv\" or \"local0\"{near}");
        faults.expected(&what, value);
    }
    found
}

fn trusted(proxies: &mut Proxies, value: &Located, faults: &mut Faults<'_>) {
    let mut found = Proxies::default();
    let read = each(value, faults, |item, faults| {
        let name = text(item, faults)?;
        if let Some(network) = networks::network(name) {
            found.trusted.push(network);
        } else if is_list_name(name) {
            let origin = (faults.file.to_owned(), item.place);
            found.lists.push((name.to_owned(), origin));
        } else {
            let what = "a network like \"192.0.2.0/24\" or the name of a list like \"cloudflare\"";
            faults.expected(what, item);
            return None;
        }
        Some(())
    });
    if read.is_some() {
        *proxies = found;
    }
}

fn is_list_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.len() <= 64 && name.bytes().all(allowed) && name.bytes().any(|b| b.is_ascii_alphabetic())
}
