//! Keys that people bring from elsewhere, and what was probably meant.

/// What to use instead of a key that this section does not have; `None`: nobody's word.
pub(super) fn advice(section: &str, key: &str) -> Option<&'static str> {
    let known = |table: &[(&str, &'static str)]| {
        table
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, advice)| *advice)
    };
    if section == "defaults" || section.starts_with("jails.") {
        known(JAIL)
    } else if section == "firewall" {
        known(FIREWALL)
    } else {
        None
    }
}

const ACTION: &str = "what a ban does is `backend` in `[firewall]`, the same for every jail; a \
                      program that is told of bans is `on_ban = [\"/PROGRAM\", \"{host}\"]`";

/// fail2ban's keys of a jail that are something else here, or nothing.
const JAIL: &[(&str, &str)] = &[
    ("action", ACTION),
    ("action_", ACTION),
    ("allports", "write `port = \"all\"`"),
    (
        "backend",
        "nothing is tailed or polled here: Apache pipes its lines in. What a ban does is `backend` in `[firewall]`",
    ),
    (
        "banaction",
        "what a ban does is `backend` in `[firewall]`, the same for every jail",
    ),
    (
        "banaction_allports",
        "write `port = \"all\"`; what a ban does is `backend` in `[firewall]`",
    ),
    (
        "bantime.increment",
        "write `increment = { factor = 2, maxtime = \"1w\" }`; it also knows multipliers, rndtime, overalljails and memory",
    ),
    ("chain", "the firewall needs no chain: leave it out"),
    (
        "datepattern",
        "lines count when they arrive, so no date is read: leave it out",
    ),
    (
        "destemail",
        "no mail is sent: follow syslog or the log file, or have a program of yours send it, as `on_ban = [\"/PROGRAM\", \"{host}\"]`",
    ),
    (
        "failregex",
        "patterns stand in a filter: put it into filters.d/NAME.conf and write `filter = \"NAME\"`",
    ),
    (
        "ignorecommand",
        "no program is asked: `ignoreip` takes addresses, names and files, which are read again when they change",
    ),
    (
        "ignoreregex",
        "patterns stand in a filter: put it into filters.d/NAME.conf and write `filter = \"NAME\"`",
    ),
    (
        "journalmatch",
        "Apache pipes its lines in: write `log = \"access\"` or `log = \"error\"`",
    ),
    (
        "logencoding",
        "lines are bytes, in any encoding: leave it out",
    ),
    (
        "logpath",
        "Apache pipes its lines in: write `log = \"access\"` or `log = \"error\"`",
    ),
    (
        "maxlines",
        "it stands in the filter's file; only `pipeban test --kind raw` takes such a filter",
    ),
    ("maxmatches", "leave it out"),
    (
        "mode",
        "write it behind the filter's name: `filter = 'name[mode=\"aggressive\"]'`",
    ),
    ("name", "the name is the one in `[jails.NAME]`"),
    ("observe", "write `enforce = false`"),
    (
        "protocol",
        "leave it out: a ban closes tcp, and udp 443 with https",
    ),
    ("sender", "no mail is sent: leave it out"),
    (
        "usedns",
        "only Apache's client field counts, which is an address: leave it out",
    ),
];

const FIREWALL: &[(&str, &str)] = &[
    ("banaction", "write `backend = \"ufw\"`"),
    ("action", "write `backend = \"ufw\"`"),
    ("chain", "the firewall needs no chain: leave it out"),
    ("port", "ports belong into `[defaults]` or a jail"),
];

/// The known word that `word` was probably meant to be: at most a third of it mistyped.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let most = (word.chars().count() / 3).max(1);
    known
        .map(|candidate| (distance(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (at(&row, j) + usize::from(x != y))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    at(&row, b.len())
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
    fn words_of_fail2ban_are_sorted_and_each_answered() {
        assert!(JAIL.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(advice("jails.x", "logpath").is_some_and(|text| text.contains("log =")));
        assert!(advice("defaults", "banaction").is_some());
        assert!(advice("syslog", "banaction").is_none());
    }
}
