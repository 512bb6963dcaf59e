//! Lists of addresses as other programs print them: fail2ban-client, ipset, nft, cscli, Spamhaus.
//!
//! A word that is no address must be one that such a program writes at its place: else the line is
//! malformed, so that no address in free text is taken for a ban.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpSubnets, Ipv4Subnets, Ipv6Subnets};

use crate::cli::ask;

/// One address of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) host: String,
    /// How long the ban lasts on; `None`: the line does not say.
    pub(super) left: Option<Duration>,
}

/// The addresses of a line; empty for a line that only belongs to the form. `None`: it is none of
/// such a list.
pub(super) fn addresses(line: &str) -> Option<Vec<Listed>> {
    let line = without_comment(line);
    if line.is_empty() || is_frame(line) {
        return Some(Vec::new());
    }
    plain(line)
        .or_else(|| fail2ban_status(line))
        .or_else(|| fail2ban_banned(line))
        .or_else(|| ipset(line))
        .or_else(|| nft(line))
        .or_else(|| crowdsec(line))
}

/// Without what follows a `#` or `;`. Not if an address is directly behind it: then it separates.
fn without_comment(line: &str) -> &str {
    let comment = |at: &usize| {
        let word = line.get(at + 1..).unwrap_or_default();
        let word = word.split([' ', '\t', '#', ';']).next().unwrap_or_default();
        let (before, _) = line.split_at(*at);
        before.is_empty() || before.ends_with([' ', '\t']) || ask::network(word).is_err()
    };
    let mut places = line.match_indices(['#', ';']).map(|(at, _)| at);
    let end = places.find(comment);
    line.get(..end.unwrap_or(line.len())).unwrap_or(line).trim()
}

/// A line around the addresses.
fn is_frame(line: &str) -> bool {
    let front = [
        "Name:",
        "Type:",
        "Revision:",
        "Header:",
        "Size in memory:",
        "References:",
        "Number of entries:",
        "Members:",
        "create ",
        "table ",
        "set ",
        "map ",
        "type ",
        "typeof ",
        "flags ",
        "timeout ",
        "gc-interval ",
        "size ",
        "counter",
        "comment ",
        "auto-merge",
        "policy ",
        "Status for the jail",
        "|- ",
        "|  ",
        "`- Actions",
        "   |- ",
        "`- Jail list:",
        "chain ",
        "id,source,ip,",
    ];
    let only = |chars: &str| line.chars().all(|c| chars.contains(c));
    // A rule of nft that names a set.
    let rule = line.starts_with("ip") && line.contains(" saddr @");
    only("{}")
        || rule
        || ["Status", "No active decisions"].contains(&line)
        || only("+-=|─│┌┐└┘├┤┬┴┼╭╮╰╯ ")
        || front.iter().any(|front| line.starts_with(front))
        || (line.contains('│') && line.contains("Scope:Value"))
        || (line.starts_with('|') && line.contains("Scope:Value"))
}

/// An address, a network, or the networks of a range: `192.0.2.1-192.0.2.6`.
fn listed(word: &str, left: Option<Duration>) -> Option<Vec<Listed>> {
    let word = word.trim_end_matches(',');
    let one = |host: String| Listed { host, left };
    let Some((first, last)) = word.split_once('-') else {
        ask::network(word).ok()?;
        return Some(vec![one(word.to_owned())]);
    };
    let range = match (first.parse().ok()?, last.parse().ok()?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
        (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
        _ => return None,
    };
    let nets: Vec<Listed> = range.map(|net| one(net.to_string())).collect();
    (!nets.is_empty()).then_some(nets)
}

/// The same for each word.
fn each<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<Listed>> {
    let listed = words.map(|word| listed(word, None));
    Some(listed.collect::<Option<Vec<_>>>()?.concat())
}

/// `192.0.2.1 192.0.2.2`, `192.0.2.1, 192.0.2.2`; with fail2ban's times behind one address.
fn plain(line: &str) -> Option<Vec<Listed>> {
    let words = || {
        line.split([' ', '\t', ',', ';'])
            .filter(|word| !word.is_empty())
    };
    // `192.0.2.1 	2026-11-22 11:02:19 + 600 = 2026-11-22 11:12:19`
    let all: Vec<&str> = words().collect();
    if let [host, _, _, "+", seconds, "=", _, _] = all.as_slice() {
        seconds.parse::<i64>().ok()?;
        return listed(host, None);
    }
    each(words())
}

/// `` `- Banned IP list: 192.0.2.1 192.0.2.2 ``
fn fail2ban_status(line: &str) -> Option<Vec<Listed>> {
    let (_, list) = line.split_once("Banned IP list:")?;
    each(list.split_whitespace())
}

/// `[{'sshd': ['192.0.2.1']}, {'x': []}]`, of `fail2ban-client banned`, and `['192.0.2.1']`, of
/// `fail2ban-client get JAIL banned`.
fn fail2ban_banned(line: &str) -> Option<Vec<Listed>> {
    let names = usize::from(line.starts_with("[{'"));
    if names == 0 && !line.starts_with("['") && line != "[]" {
        return None;
    }
    let lists = line
        .split('[')
        .skip(1 + names)
        .map(|list| list.split(']').next().unwrap_or_default());
    let words = lists.flat_map(|list| list.split([',', ' ', '\'']));
    each(words.filter(|word| !word.is_empty()))
}

/// `add NAME 192.0.2.1 timeout 3599`, and the same without the first two words.
fn ipset(line: &str) -> Option<Vec<Listed>> {
    let mut words = line.split_whitespace();
    if line.starts_with("add ") {
        words.nth(1)?;
    }
    let host = words.next()?;
    let mut left = None;
    while let Some(option) = words.next() {
        match option {
            "timeout" => {
                let seconds: u64 = words.next()?.parse().ok()?;
                left = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "packets" | "bytes" => _ = words.next()?.parse::<u64>().ok()?,
            "skbmark" | "skbprio" | "skbqueue" => _ = words.next()?,
            "comment" => break,
            "nomatch" => return Some(Vec::new()),
            _ => return None,
        }
    }
    listed(host, left)
}

/// `elements = { 192.0.2.1 timeout 1h expires 59m2s, 192.0.2.2,`
fn nft(line: &str) -> Option<Vec<Listed>> {
    let list = line.strip_prefix("elements = {").unwrap_or(line);
    let list = list.trim().trim_end_matches('}').trim();
    let elements = list
        .split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty());
    let element = |element: &str| {
        let mut words = element.split_whitespace();
        let host = words.next()?;
        let mut left = None;
        while let Some(option) = words.next() {
            match option {
                "timeout" => _ = nft_time(words.next()?)?,
                "expires" => left = Some(nft_time(words.next()?)?),
                "counter" => {}
                "packets" | "bytes" => _ = words.next()?.parse::<u64>().ok()?,
                "comment" => break,
                _ => return None,
            }
        }
        listed(host, left)
    };
    Some(elements.map(element).collect::<Option<Vec<_>>>()?.concat())
}

/// `1d2h3m4s5ms`
fn nft_time(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let number: u64 = number.parse().ok()?;
        total = total.checked_add(match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        })?;
        rest = after;
    }
    Some(total)
}

/// A row of `cscli decisions list`, as CSV or as a table. Only bans count: not `captcha`, and not
/// `(simul)ban`.
fn crowdsec(line: &str) -> Option<Vec<Listed>> {
    let cells = || line.split([',', '│', '|']).map(str::trim);
    let mut scoped = cells().filter_map(|cell| {
        cell.strip_prefix("Ip:")
            .or_else(|| cell.strip_prefix("Range:"))
    });
    let found = listed(scoped.next()?, None)?;
    match cells().any(|cell| cell == "ban") {
        true => Some(found),
        false => Some(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_other_programs_are_read() {
        for (line, hosts) in [
            ("192.0.2.31 192.0.2.32", &["192.0.2.31", "192.0.2.32"][..]),
            (
                "192.0.2.31, 2001:db8::/64,192.0.2.32",
                &["192.0.2.31", "2001:db8::/64", "192.0.2.32"],
            ),
            (
                "192.0.2.31 \t2026-11-22 11:02:19 + 600 = 2026-11-22 11:12:19",
                &["192.0.2.31"],
            ),
            (
                "   `- Banned IP list:\t192.0.2.31 192.0.2.32",
                &["192.0.2.31", "192.0.2.32"],
            ),
            ("   `- Banned IP list:\t", &[]),
            (
                "[{'sshd': ['192.0.2.31', '192.0.2.32']}, {'x': []}]",
                &["192.0.2.31", "192.0.2.32"],
            ),
            ("192.0.2.0/24 ; SBL1", &["192.0.2.0/24"]),
            ("; Spamhaus DROP List 2026/11/22", &[]),
            ("192.0.2.31 # a neighbour", &["192.0.2.31"]),
            ("192.0.2.31;SBL2", &["192.0.2.31"]),
            ("192.0.2.31#a neighbour of 192.0.2.32", &["192.0.2.31"]),
            (
                "['192.0.2.31', '192.0.2.32']",
                &["192.0.2.31", "192.0.2.32"],
            ),
            ("[]", &[]),
            ("192.0.2.31;192.0.2.32", &["192.0.2.31", "192.0.2.32"]),
            ("Status", &[]),
            ("`- Jail list:\tapache-auth, sshd", &[]),
            ("\tchain input { # handle 1", &[]),
            (
                "ip saddr @addr-set-x tcp dport { 80, 443 } reject # handle 3",
                &[],
            ),
            ("No active decisions", &[]),
            ("add bad 192.0.2.31 skbmark 0x1/0xff", &["192.0.2.31"]),
            (
                "6,cscli,Ip:192.0.2.31,manual,captcha,,,1,3h58m,false,4",
                &[],
            ),
            ("│ 7  │ cscli  │ Ip:192.0.2.31 │ manual │ (simul)ban │", &[]),
            (
                "create bad hash:ip family inet hashsize 1024 maxelem 65536 timeout 600",
                &[],
            ),
            (
                "add bad 192.0.2.31 timeout 599 packets 0 bytes 0",
                &["192.0.2.31"],
            ),
            ("Members:", &[]),
            ("192.0.2.31 timeout 599", &["192.0.2.31"]),
            ("table inet x {", &[]),
            (
                "\t\telements = { 192.0.2.31 timeout 1h expires 59m2s988ms,",
                &["192.0.2.31"],
            ),
            (
                "\t\t             198.51.100.0/24, 192.0.2.32 }",
                &["198.51.100.0/24", "192.0.2.32"],
            ),
            (
                "\t\telements = { 192.0.2.1-192.0.2.6 timeout 1h expires 59m59s832ms, 192.0.2.32,",
                &[
                    "192.0.2.1/32",
                    "192.0.2.2/31",
                    "192.0.2.4/31",
                    "192.0.2.6/32",
                    "192.0.2.32",
                ],
            ),
            ("2001:db8::-2001:db8::ff", &["2001:db8::/120"]),
            ("add bad 192.0.2.0-192.0.2.255 timeout 9", &["192.0.2.0/24"]),
            ("}", &[]),
            (
                "id,source,ip,reason,action,country,as,events_count,expiration,simulated,alert_id",
                &[],
            ),
            (
                "5,crowdsec,Ip:192.0.2.31,crowdsecurity/ssh-bf,ban,US,1 X,6,3h58m,false,3",
                &["192.0.2.31"],
            ),
            (
                "│ 5  │ cscli  │ Range:192.0.2.0/24 │ manual │ ban │",
                &["192.0.2.0/24"],
            ),
        ] {
            let found = addresses(line.trim()).expect(line);
            let found: Vec<_> = found.into_iter().map(|one| one.host).collect();
            assert_eq!(found, hosts, "{line}");
        }
        let left = |line| addresses(line).unwrap()[0].left;
        assert_eq!(
            left("192.0.2.1 timeout 599"),
            Some(Duration::from_secs(599))
        );
        assert_eq!(left("192.0.2.1 timeout 0"), None);
        let nft = left("elements = { 192.0.2.1 timeout 1h expires 59m2s988ms }");
        assert_eq!(nft, Some(Duration::from_millis(3_542_988)));
        for line in [
            "192.0.2.1 was reported by 198.51.100.1",
            "192.0.2.999",
            "ip saddr 192.0.2.1 drop",
            "192.0.2.9-192.0.2.1",
            "192.0.2.9-2001:db8::1",
            "192.0.2.9-x",
            "banned 192.0.2.1",
            "192.0.2.1 timeout x",
            "host.example",
        ] {
            assert_eq!(addresses(line), None, "{line}");
        }
    }
}
