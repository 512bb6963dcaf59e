//! The keys of `[defaults]` and of each jail.

use std::collections::BTreeSet;
use std::path::Path;

use super::argv::{HOOK_PLACEHOLDERS, argv};
use super::document::{Located, Value};
use super::jail::{Increment, Jail, Log, Ports, SearchEngines};
use super::networks::{self, Ignored};
use super::row::{Faults, Row, apply, inline_table, row};
use super::settings::word_of;
use super::values::{
    boolean, each, finite, items, list, literal, number, positive, quote, quoted_key, quoted_list,
    run_time, set, show_time, text, word, zero_or_more,
};
use crate::filter::rules::excepts;
use crate::filter::split_options;

#[rustfmt::skip] // a table
pub(super) const JAIL: &[Row<Jail>] = &[
    row("enabled", "true", "false: the jail is off",
        |t, v, f| set(&mut t.enabled, boolean(v, f)), |t| t.enabled.to_string()),
    row("enforce", "true", "false: bans are only logged, as \"Would Ban\"",
        |t, v, f| set(&mut t.enforce, boolean(v, f)), |t| t.enforce.to_string()),
    row("log", "required", "what the jail reads: access, error, or bans (the bans of other jails)",
        |t, v, f| set(&mut t.log, word(v, &Log::WORDS, f)), |t| quote(&t.log.to_string())),
    row("filter", "the jail's name",
        "the name of the filter, with options as in name[mode=\"aggressive\"]",
        |t, v, f| set(&mut t.filter, filter_name(v, f)), |t| quote(&t.filter)),
    row("maxretry", "5", "a client with this many hits within findtime is banned",
        |t, v, f| set(&mut t.maxretry, number(v, 1, 1_000_000, f)), |t| t.maxretry.to_string()),
    row("findtime", "\"10m\"", "hits count for this long",
        |t, v, f| set(&mut t.findtime, finite(v, f)), |t| show_time(t.findtime)),
    row("bantime", "\"1h\"", "how long a ban lasts; \"permanent\" or -1: until it is lifted",
        |t, v, f| set(&mut t.bantime, positive(v, f)),
        |t| t.bantime.map_or(quote("permanent"), show_time)),
    row("port", "\"apache\"",
        "ports that a ban closes: apache (all that Apache listens on, http and https), or numbers, http, https, ssh, or all (every port except sshd's)",
        |t, v, f| set(&mut t.port, ports(v, f)), |t| show_ports(&t.port)),
    row("ignoreip", "[\"127.0.0.0/8\", \"::1/128\"]",
        "never banned: addresses, networks, host names, and files of addresses and networks",
        ignoreip,
        |t| {
            let files = t.ignore_files.iter().map(|file| file.display().to_string());
            let networks = t.ignoreip.iter().map(ToString::to_string);
            quoted_list(networks.chain(files).chain(t.ignore_names.iter().cloned()))
        }),
    row("ignoreself", "true", "the host's addresses, gateways and name servers are never banned",
        |t, v, f| set(&mut t.ignoreself, boolean(v, f)), |t| t.ignoreself.to_string()),
    row("ipv4_prefix", "32",
        "IPv4 clients are counted and banned by networks of this prefix, 16 to 32",
        |t, v, f| set(&mut t.ipv4_prefix, number(v, 16, 32, f)), |t| t.ipv4_prefix.to_string()),
    row("ipv6_prefix", "64",
        "IPv6 clients are counted and banned by networks of this prefix, 48 to 128",
        |t, v, f| set(&mut t.ipv6_prefix, number(v, 48, 128, f)), |t| t.ipv6_prefix.to_string()),
    row("ban_private", "false", "true: private and carrier ranges can be banned",
        |t, v, f| set(&mut t.ban_private, boolean(v, f)), |t| t.ban_private.to_string()),
    row("weight", "1", "what one hit adds to the count",
        |t, v, f| set(&mut t.weight, number(v, 1, 1_000_000, f)), |t| t.weight.to_string()),
    row("bans_per_minute", "300",
        "further bans in one minute are enforced, raise an alarm, and are logged as a number only",
        |t, v, f| set(&mut t.bans_per_minute, number(v, 1, 1_000_000, f)),
        |t| t.bans_per_minute.to_string()),
    row("vhost", "[]", "only these virtual hosts, with * for any text; access log only",
        |t, v, f| set(&mut t.vhost, each(v, f, vhost)), |t| quoted_list(&t.vhost)),
    row("not_vhost", "[]", "not these virtual hosts; access log only",
        |t, v, f| set(&mut t.not_vhost, each(v, f, vhost)), |t| quoted_list(&t.not_vhost)),
    row("trap", "[]",
        "in place of a filter: paths to which no page links; one request bans; a path that ends in / includes all paths below it",
        |t, v, f| set(&mut t.trap, each(v, f, path)), |t| quoted_list(&t.trap)),
    row("except", "[]",
        "lines that are no hits: tables of conditions, as [[except]] of a filter has them",
        |t, v, f| set(&mut t.except, except(v, f)), |t| show_except(&t.except)),
    row("search_engines", "\"spare\"",
        "search engines that reverse DNS confirms: spare (no ban) or ban (as any client); ban-fake: bans only clients that falsely claim to be one",
        |t, v, f| set(&mut t.search_engines, word(v, &SearchEngines::WORDS, f)),
        |t| quote(word_of(&SearchEngines::WORDS, t.search_engines))),
    row("increment", "false",
        "repeated bans last longer: true, or a table of the keys of increment",
        increment,
        |t| {
            let increment = t.increment.as_ref();
            increment.map_or("false".into(), |increment| {
                inline_table(INCREMENT, increment)
            })
        }),
    row("on_ban", "[]", "a program that runs for each new ban, and its arguments",
        |t, v, f| set(&mut t.hooks.on_ban, hook(v, f)), |t| quoted_list(&t.hooks.on_ban)),
    row("on_unban", "[]", "a program that runs when a ban ends, and its arguments",
        |t, v, f| set(&mut t.hooks.on_unban, hook(v, f)), |t| quoted_list(&t.hooks.on_unban)),
    row("hook_timeout", "\"30s\"",
        "a program of on_ban or on_unban that runs longer is killed; at most 5m",
        |t, v, f| set(&mut t.hooks.timeout, run_time(v, f)), |t| show_time(t.hooks.timeout)),
];

/// `increment = { ... }`
#[rustfmt::skip] // a table
pub(super) const INCREMENT: &[Row<Increment>] = &[
    row("factor", "2",
        "each ban lasts this many times the one before, 1 to 1000; with multipliers 1",
        |t, v, f| set(&mut t.factor, factor(v, f).map(Some)),
        |t| match t.factor {
            Some(factor) => factor.to_string(),
            None if t.multipliers.is_empty() => "2".into(),
            None => "1".into(),
        }),
    row("multipliers", "[]",
        "the n-th ban lasts bantime times factor times the n-th of these; the last one repeats",
        |t, v, f| set(&mut t.multipliers, each(v, f, multiplier)),
        |t| list(t.multipliers.iter().map(ToString::to_string))),
    row("maxtime", "\"1w\"", "the longest ban; never shorter than bantime",
        |t, v, f| set(&mut t.maxtime, finite(v, f)), |t| show_time(t.maxtime)),
    row("rndtime", "\"0s\"", "a random time up to this is added to each repeated ban",
        |t, v, f| set(&mut t.rndtime, zero_or_more(v, f)), |t| show_time(t.rndtime)),
    row("overalljails", "false", "true: bans by all jails count",
        |t, v, f| set(&mut t.overalljails, boolean(v, f)), |t| t.overalljails.to_string()),
    row("memory", "\"30d\"", "bans older than this do not count",
        |t, v, f| set(&mut t.memory, finite(v, f)), |t| show_time(t.memory)),
];

/// `[]`: no program.
fn hook(value: &Located, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    match &value.value {
        Value::List(words) if words.is_empty() => Some(Vec::new()),
        _ => argv(value, &HOOK_PLACEHOLDERS, faults),
    }
}

fn increment(jail: &mut Jail, value: &Located, faults: &mut Faults<'_>) {
    match &value.value {
        Value::Boolean(false) => jail.increment = None,
        Value::Boolean(true) => {
            jail.increment.get_or_insert_default();
        }
        Value::Table(table) => {
            let increment = jail.increment.get_or_insert_default();
            apply("increment", INCREMENT, table, increment, faults);
        }
        _ => {
            let what =
                "true, false or a table like `{ factor = 2, maxtime = \"1w\", memory = \"30d\" }`";
            faults.expected(what, value);
        }
    }
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

/// A number, also as text: fail2ban writes `1 5 30 60`.
fn multiplier(item: &Located, faults: &mut Faults<'_>) -> Option<u32> {
    if let Value::Text(text) = &item.value
        && let Ok(parsed) = text.parse()
    {
        let value = Value::Integer(parsed);
        let place = item.place;
        return number(&Located { value, place }, 1, 1_000_000, faults);
    }
    number(item, 1, 1_000_000, faults)
}

fn filter_name(value: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let whole = text(value, faults)?;
    let name = match split_options(whole) {
        Ok((name, _)) => name,
        Err(message) => {
            faults.at(value.place, &message);
            return None;
        }
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let plain = (1..=64).contains(&name.len()) && name.bytes().all(allowed);
    if !plain || name.starts_with('.') || whole.chars().any(char::is_control) {
        let what = "the name of a filter, without directory and without `.conf`";
        faults.expected(what, value);
        return None;
    }
    Some(whole.to_owned())
}

/// Each name is looked up again every few minutes.
const MOST_NAMES: usize = 100;

fn ignoreip(jail: &mut Jail, value: &Located, faults: &mut Faults<'_>) {
    let (mut networks, mut files, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let read = each(value, faults, |item, faults| {
        match networks::ignored(text(item, faults)?) {
            Some(Ignored::Network(network)) => networks.push(network),
            Some(Ignored::File(file)) => files.push(file),
            Some(Ignored::Name(name)) => names.push(name),
            None => {
                faults.expected("an address, a network, a host's name or a `/FILE`", item);
                return None;
            }
        }
        Some(())
    });
    if names.len() > MOST_NAMES {
        let message =
            format!("more than {MOST_NAMES} host names: write addresses, or a file of them");
        faults.at(value.place, message);
    } else if read.is_some() {
        (jail.ignoreip, jail.ignore_files, jail.ignore_names) = (networks, files, names);
    }
}

fn vhost(item: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let name = text(item, faults)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'*');
    if !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) {
        return Some(name.to_ascii_lowercase());
    }
    let what = "the name of a virtual host, without port (`*` for any text)";
    faults.expected(what, item);
    None
}

fn path(item: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let path = text(item, faults)?;
    let never = ["?", "%", "\\", "//", "/./", "/../"];
    let canonical = !never.iter().any(|part| path.contains(part));
    if path.starts_with('/') && path.len() > 1 && canonical {
        return Some(path.to_owned());
    }
    let what = "a path that begins with `/`, decoded, without the site's name, `//`, `..` and `?`";
    faults.expected(what, item);
    None
}

/// `[[jails.NAME.except]]` as the text of a native filter, each condition on a line of its own.
fn except(value: &Located, faults: &mut Faults<'_>) -> Option<String> {
    let tables = each(value, faults, |item, faults| {
        let Value::Table(members) = &item.value else {
            faults.expected("a table of conditions, as { path = '^/intern/' }", item);
            return None;
        };
        let conditions = members.iter().map(|member| {
            let (key, value) = (quoted_key(&member.key), literal(&member.value.value));
            format!("{key} = {value}\n")
        });
        let text = conditions.fold(EXCEPT.to_owned(), |text, line| text + &line);
        let places: Vec<_> = members.iter().map(|member| member.place).collect();
        let problems = excepts(Path::new(""), &text).err().unwrap_or_default();
        let right = problems.is_empty();
        for problem in problems {
            let line = problem.place.and_then(|(line, _)| line.checked_sub(2));
            let place = line.and_then(|line| places.get(line));
            faults.at(*place.unwrap_or(&item.place), problem.message);
        }
        right.then_some(text)
    });
    tables.map(|tables| tables.concat())
}

const EXCEPT: &str = "[[except]]\n";

fn show_except(text: &str) -> String {
    let tables = text.split(EXCEPT).skip(1);
    list(tables.map(|table| {
        let conditions: Vec<&str> = table.trim().lines().collect();
        format!("{{ {} }}", conditions.join(", "))
    }))
}

/// The limit of iptables' multiport match, which ufw uses.
const MOST_PORTS: usize = 15;

fn ports(value: &Located, faults: &mut Faults<'_>) -> Option<Ports> {
    let (mut all, mut ssh) = (false, false);
    let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
    let mut wrong = false;
    let all_items = items(value);
    for item in &all_items {
        let word = match &item.value {
            Value::Text(word) => word.clone(),
            Value::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        let port = match word.as_str() {
            "apache" if all_items.len() == 1 => return Some(Ports::Apache),
            "apache" => {
                wrong = true;
                let message = "\"apache\" is all ports that Apache listens on: write it alone, or name each port";
                faults.at(item.place, message);
                continue;
            }
            "all" => {
                all = true;
                continue;
            }
            "ssh" => {
                ssh = true;
                22
            }
            "http" => 80,
            "https" => {
                udp.insert(443);
                443
            }
            number => number.parse().unwrap_or(0),
        };
        if port > 0 {
            tcp.insert(port);
        } else if word.contains([':', '-']) && word.starts_with(|c: char| c.is_ascii_digit()) {
            wrong = true;
            let message = format!(
                "`{}` is a range of ports, which pipeban does not support: name each port, or \"all\"",
                word.escape_debug()
            );
            faults.at(item.place, message);
        } else {
            wrong = true;
            let what =
                "\"apache\", \"http\", \"https\", \"ssh\", \"all\" or a port from 1 to 65535";
            faults.expected(what, item);
        }
    }
    if wrong {
        return None;
    }
    let message = match (all, ssh) {
        (true, true) => return Some(Ports::All),
        (true, false) => return Some(Ports::AllButSsh),
        (false, _) if tcp.is_empty() => {
            "no port is named: write \"apache\", [\"http\", \"https\"] or \"all\""
        }
        (false, _) if tcp.len() <= MOST_PORTS => return Some(Ports::List { tcp, udp }),
        (false, _) => "more than 15 ports, the limit of a ufw rule: name fewer, or \"all\"",
    };
    faults.at(value.place, message);
    None
}

fn show_ports(ports: &Ports) -> String {
    let (tcp, udp) = match ports {
        Ports::All => return quoted_list(["all", "ssh"]),
        Ports::AllButSsh => return quoted_list(["all"]),
        Ports::Apache => return quote("apache"),
        Ports::List { tcp, udp } => (tcp, udp),
    };
    list(tcp.iter().map(|port| match port {
        80 => quote("http"),
        443 if udp.contains(&443) => quote("https"),
        22 => quote("ssh"),
        port => port.to_string(),
    }))
}
