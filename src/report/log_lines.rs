//! What each kind of log line means, in words.

use std::net::IpAddr;

/// One kind of line.
#[derive(Debug, Clone, Copy)]
pub struct LogLine {
    /// Which program writes it.
    pub by: &'static str,
    /// An example; `JAIL`, `ADDR`, `TIME` and `N` stand for what differs.
    pub line: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const BOTH: &str = "pipeban and fail2ban";
const PIPEBAN: &str = "pipeban";
const FAIL2BAN: &str = "fail2ban";

const fn line(by: &'static str, line: &'static str, meaning: &'static str) -> LogLine {
    LogLine { by, line, meaning }
}

/// Every kind of line about a client, and fail2ban's about jails.
#[rustfmt::skip] // a table
pub const LOG_LINES: &[LogLine] = &[
    line(BOTH, "[JAIL] Found ADDR",
        "A line of this client matched a filter of the jail. One such line seldom bans: pipeban adds \
         the count, `(2/5 in 10m)` is hit 2 of the 5 that ban, within 10 minutes; fail2ban adds the \
         time of the line."),
    line(BOTH, "[JAIL] Ban ADDR",
        "The client is banned from now on. pipeban adds for how long and why: `for 1h (5 in 41s)` is \
         one hour for 5 hits in 41 seconds, `(by hand)` is a ban of `pipeban ban`."),
    line(BOTH, "[JAIL] Unban ADDR",
        "The ban is over. pipeban adds the reason, if it is not the end of its time: `(by hand)`, an \
         entry of the allow-list, `(too many bans)`, `(replaced by a new ban)`. fail2ban also writes \
         it for every client when it stops."),
    line(BOTH, "[JAIL] Restore Ban ADDR",
        "The program was started again and enforces an earlier ban until its old end. It is no new \
         attack."),
    line(BOTH, "[JAIL] ADDR already banned",
        "A client that is banned made another hit: its request was on the way before the ban, or the \
         ban does not block it. Many such lines of one address: `pipeban explain ADDR`, or check \
         fail2ban's action and ports."),
    line(BOTH, "[JAIL] Ignore ADDR by REASON",
        "A line of this client matched, but the client is never banned: ignoreip, the host's own \
         address, a trusted proxy, the allow-list, an address that many browsers share."),
    line(PIPEBAN, "[JAIL] Would Ban ADDR",
        "The jail only observes (enforce = false): it would have banned the client, and nothing is \
         blocked."),
    line(PIPEBAN, "[JAIL] Would Unban ADDR",
        "The end of a ban that was observed only."),
    line(PIPEBAN, "[JAIL] Ban ADDR ... not enforceable (behind PROXY)",
        "The client reaches Apache through this proxy, so the firewall sees the proxy only. The back \
         end `apache` can refuse such clients."),
    line(PIPEBAN, "[JAIL] Ban ADDR ... at Apache (behind PROXY)",
        "The client reaches Apache through this proxy, and Apache refuses it."),
    line(FAIL2BAN, "[JAIL] Increase Ban ADDR (N # TIME -> END)",
        "bantime.increment: this is ban N of the client, it lasts TIME and ends at END."),
    line(FAIL2BAN, "[JAIL] Flush ticket(s) with ACTION",
        "All bans of the jail are removed at once, because fail2ban stops."),
    line(FAIL2BAN, "Jail 'JAIL' started",
        "The jail reads its logs from now on."),
    line(FAIL2BAN, "Jail 'JAIL' stopped",
        "The jail bans no client any more."),
    line(FAIL2BAN, "Added logfile: 'PATH'",
        "The jail reads this file. A log that no such line names is not read."),
    line(FAIL2BAN, "Log rotation detected for PATH",
        "fail2ban opens the log file again, because it was renamed."),
    line(FAIL2BAN, "Unable to find a corresponding IP address for NAME",
        "The log has a host name instead of an address, and it does not resolve: set `HostnameLookups \
         Off` in Apache."),
    line(FAIL2BAN, "Failed to execute ban jail 'JAIL' action 'ACTION'",
        "The firewall command failed: the client is listed as banned, and is not blocked."),
    line(FAIL2BAN, "Found a match but no valid date/time found",
        "fail2ban cannot read the time of the line: the log format is not the one that the filter \
         expects."),
];

/// What a line in the log of pipeban or of fail2ban means, and its client.
pub fn meaning_of(text: &str) -> Option<(&'static LogLine, IpAddr)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    // A kind that says more comes later in the table.
    let kinds = LOG_LINES.iter().rev();
    let mut found = kinds.filter_map(|kind| Some((kind, client_in(kind, &words)?)));
    found.next()
}

/// The client of a line, where it is of this kind: `[JAIL]` and the words, the rest behind `...`.
fn client_in(kind: &LogLine, words: &[&str]) -> Option<IpAddr> {
    let (front, rest) = kind.line.split_once(" ... ").unwrap_or((kind.line, ""));
    let rest = rest.split(" (").next().unwrap_or_default();
    let front = front.split(['(']).next().unwrap_or_default();
    let front: Vec<&str> = front.split_whitespace().collect();
    let fits = |(word, wanted): (&&str, &&str)| match *wanted {
        "[JAIL]" => word.starts_with('[') && word.ends_with(']'),
        "ADDR" => word.parse::<IpAddr>().is_ok(),
        "REASON" => true,
        wanted => *word == wanted,
    };
    let place = words
        .windows(front.len())
        .find(|some| some.iter().zip(&front).all(fits))?;
    let address = front.iter().position(|word| *word == "ADDR")?;
    let says_more = words.join(" ").contains(rest);
    place.get(address)?.parse().ok().filter(|_| says_more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_has_the_meaning_of_its_kind() {
        for (line, kind) in [
            (
                "pipeban[416]: [apache-auth] Found 203.0.113.70 (2/5 in 10m)",
                "[JAIL] Found ADDR",
            ),
            (
                "2020-05-13 06:36:25,303 fail2ban.actions [9]: NOTICE [a-b] Restore Ban 203.0.113.70",
                "[JAIL] Restore Ban ADDR",
            ),
            ("[a] Ban 203.0.113.70 for 1h (5 in 41s)", "[JAIL] Ban ADDR"),
            (
                "[a] Ban 203.0.113.70 for 1h (1 in 1s) not enforceable (behind 192.0.2.7)",
                "[JAIL] Ban ADDR ... not enforceable (behind PROXY)",
            ),
            (
                "[a] Would Ban 203.0.113.70 for 1h (5 in 41s)",
                "[JAIL] Would Ban ADDR",
            ),
            (
                "[a] 203.0.113.70 already banned",
                "[JAIL] ADDR already banned",
            ),
            (
                "[a] Ignore 203.0.113.70 by ignoreip",
                "[JAIL] Ignore ADDR by REASON",
            ),
            (
                "fail2ban.observer [1]: NOTICE [a] Increase Ban 203.0.113.70 (2 # 1:00:00 -> x)",
                "[JAIL] Increase Ban ADDR (N # TIME -> END)",
            ),
        ] {
            let (found, client) = meaning_of(line).unwrap();
            assert_eq!(
                (found.line, client.to_string().as_str()),
                (kind, "203.0.113.70")
            );
        }
        for line in [
            "",
            "Ban 203.0.113.70",
            "[a] Ban example.org",
            "Jail 'a' started",
        ] {
            assert!(meaning_of(line).is_none(), "{line}");
        }
    }
}
