//! Words that people write and mean something else: removed settings, fail2ban's keys, typing errors.

pub(super) use crate::nearest::nearest;

/// Settings of earlier versions: accepted without effect, with a warning, for one release.
/// The section (`jail` for `[defaults]` and every jail), the key or `key = "value"`, what to do.
#[rustfmt::skip] // a table
const REMOVED: &[(&str, &str, &str)] = &[
    ("paths", "wtmp",
        "pipeban reads no logins; delete this line, and list trusted addresses in `ignoreip`"),
    ("firewall", "backend = \"ipset\"",
        "pipeban uses `nftables` instead; write `backend = \"nftables\"`"),
    ("jail", "ignore_ssh_logins",
        "delete this line; list trusted addresses in `ignoreip`, or run `pipeban allow ADDRESS`"),
    ("jail", "datepattern",
        "delete this line; pipeban counts a line at the time it arrives and reads no date"),
];

const ACTION: &str = "set `backend` in `[firewall]`, for all jails; to run a program at each ban, \
                      set `on_ban = [\"/PROGRAM\", \"{host}\"]`";
const BACKEND: &str = "set `backend` in `[firewall]`, for all jails";
const LOG: &str =
    "Apache pipes its lines to pipeban: write `log = \"access\"` or `log = \"error\"`";
const MAIL: &str = "pipeban sends no mail: follow syslog or the log file, or let a program send it \
                    with `on_ban = [\"/PROGRAM\", \"{host}\"]`";
const PATTERNS: &str =
    "patterns are in a filter: write filters.d/NAME.conf and `filter = \"NAME\"`";
const CHAIN: &str = "delete it; pipeban needs no chain";

/// Keys of fail2ban and their equivalent; by section, `jail` as in [`REMOVED`].
#[rustfmt::skip] // a table
const FOREIGN: &[(&str, &str, &str)] = &[
    ("firewall", "action", "write `backend = \"ufw\"`"),
    ("firewall", "banaction", "write `backend = \"ufw\"`"),
    ("firewall", "chain", CHAIN),
    ("firewall", "port", "set `port` in `[defaults]` or in a jail"),
    ("jail", "action", ACTION),
    ("jail", "action_", ACTION),
    ("jail", "allports", "write `port = \"all\"`"),
    ("jail", "backend",
        "delete it; Apache pipes its lines to pipeban. `backend` in `[firewall]` is what enforces bans"),
    ("jail", "banaction", BACKEND),
    ("jail", "banaction_allports", "write `port = \"all\"`, and set `backend` in `[firewall]`"),
    ("jail", "bantime.increment",
        "for longer repeated bans, write `increment = { factor = 2, maxtime = \"1w\" }`; further \
        keys are multipliers, rndtime, overalljails and memory"),
    ("jail", "chain", CHAIN),
    ("jail", "destemail", MAIL),
    ("jail", "failregex", PATTERNS),
    ("jail", "group",
        "a jail counts each client alone; to count and ban networks, write `ipv4_prefix = 24` and \
        `ipv6_prefix = 48`; to count each virtual host alone, write one jail for each, with `vhost`"),
    ("jail", "ignorecommand",
        "pipeban runs no such program; `ignoreip` takes addresses, names, and files, which are read \
        again when they change; `search_engines` spares search engines"),
    ("jail", "ignoreregex", PATTERNS),
    ("jail", "journalmatch", LOG),
    ("jail", "logencoding", "delete it; pipeban matches bytes in any encoding"),
    ("jail", "logpath", LOG),
    ("jail", "maxlines",
        "delete it; pipeban matches each line alone, keep fail2ban for filters that need several lines"),
    ("jail", "maxmatches", "delete it"),
    ("jail", "mode", "write it behind the filter's name: `filter = 'name[mode=\"aggressive\"]'`"),
    ("jail", "name", "the name is the one in `[jails.NAME]`"),
    ("jail", "observe", "write `enforce = false`"),
    ("jail", "protocol", "delete it; a ban closes tcp, and udp 443 with https"),
    ("jail", "sender", MAIL),
    ("jail", "usedns", "delete it; pipeban bans the address in Apache's client field"),
];

/// Keys that only fail2ban has.
const FAIL2BANS: [&str; 9] = [
    "action",
    "backend",
    "banaction",
    "destemail",
    "failregex",
    "logpath",
    "mta",
    "sender",
    "usedns",
];

/// The line, from 1, of the first section with fail2ban's keys that is none of pipeban's.
pub(super) fn fail2bans_header(text: &str) -> Option<usize> {
    let mut section = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            let is_foreign = !name.contains(['.', '[', ',', '"'])
                && ![
                    "paths", "firewall", "syslog", "proxies", "defaults", "jails",
                ]
                .contains(&name);
            section = is_foreign.then_some(number);
            if name == "DEFAULT" {
                return section;
            }
        } else if section.is_some() {
            let key = line.split(['=', ':']).next().unwrap_or_default().trim();
            if FAIL2BANS.contains(&key) {
                return section;
            }
        }
    }
    None
}

/// What to do about a setting that was removed: a key, or `key = "value"`.
pub(super) fn removed(section: &str, setting: &str) -> Option<&'static str> {
    find(REMOVED, section, setting)
}

/// What to write instead of a key of fail2ban.
pub(super) fn advice(section: &str, key: &str) -> Option<&'static str> {
    find(FOREIGN, section, key)
}

fn find(
    table: &[(&'static str, &'static str, &'static str)],
    section: &str,
    key: &str,
) -> Option<&'static str> {
    let in_jail = section == "defaults" || section.starts_with("jails.");
    let section = if in_jail { "jail" } else { section };
    let mut rows = table.iter();
    rows.find(|row| row.0 == section && row.1 == key)
        .map(|row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_word_and_no_far_one() {
        let known = || ["maxretry", "findtime", "bantime", "ignoreip", "log", "port"].into_iter();
        for (word, near) in [
            ("max_retry", Some("maxretry")),
            ("maxrety", Some("maxretry")),
            ("maxretyr", Some("maxretry")),
            ("ban-time", Some("bantime")),
            ("ports", Some("port")),
            ("Log", Some("log")),
            ("", None),
            ("zzz", None),
            ("hostname", None),
        ] {
            assert_eq!(nearest(word, known()), near, "{word}");
        }
    }

    #[test]
    fn keys_of_fail2ban_are_sorted_and_answered() {
        let sorted = |rows: &[(&str, &str, &str)]| (rows[0].0, rows[0].1) < (rows[1].0, rows[1].1);
        assert!(FOREIGN.windows(2).all(sorted));
        assert!(advice("jails.x", "logpath").is_some_and(|text| text.contains("log =")));
        assert!(advice("defaults", "banaction").is_some());
        assert!(advice("syslog", "banaction").is_none());
    }
}
