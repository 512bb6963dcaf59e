//! fail2ban's actions: which of them block, and what takes the place of the others.

use std::collections::BTreeMap;

use super::values::quoted;
use crate::filter;

/// Scripts that pipeban installs for `on_ban`.
const HOOKS: &str = "/usr/share/pipeban/examples/hooks";

/// One action of a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) options: BTreeMap<String, String>,
}

impl Entry {
    /// It closes every port, whatever the jail says.
    pub(super) fn closes_all_ports(&self) -> bool {
        let name = self.name.as_str();
        name.contains("allports") || ["ufw", "hostsdeny", "route"].contains(&name)
    }
}

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Firewall,
    Mail,
    Webhook(&'static str),
    AbuseIpdb,
    Cloudflare,
    Report,
    Nothing,
    /// A program that the administrator wrote.
    Other,
}

/// Beginnings of the names of actions that change a firewall.
const FIREWALLS: [&str; 16] = [
    "afctl",
    "apf",
    "bsd-ipfw",
    "firewallcmd",
    "hostsdeny",
    "ipfilter",
    "ipfw",
    "iptables",
    "nftables",
    "npf",
    "osx-",
    "pf",
    "route",
    "shorewall",
    "symbiosis",
    "ufw",
];

/// Words in the commands of an action that change a firewall.
const COMMANDS: [&str; 9] = [
    "iptables",
    "ip6tables",
    "nft ",
    "ufw ",
    "ipset ",
    "firewall-cmd",
    "pfctl",
    "ip route",
    "hosts.deny",
];

impl Deed {
    /// By the action's name, else by its command.
    pub(super) fn of(name: &str, command: &str) -> Deed {
        let name = name.to_lowercase();
        let has = |word: &str| name.contains(word);
        let runs = |word: &&str| command.contains(word);
        match () {
            () if FIREWALLS.iter().any(|start| name.starts_with(start)) => Deed::Firewall,
            () if has("cloudflare") => Deed::Cloudflare,
            () if has("abuseipdb") => Deed::AbuseIpdb,
            () if has("mail") => Deed::Mail,
            () if has("slack") => Deed::Webhook("slack"),
            () if has("discord") => Deed::Webhook("discord"),
            () if has("gotify") => Deed::Webhook("gotify"),
            () if has("ntfy") => Deed::Webhook("ntfy"),
            () if [
                "blocklist",
                "badips",
                "dshield",
                "mynetwatchman",
                "xarf",
                "complain",
            ]
            .iter()
            .any(|word| has(word)) =>
            {
                Deed::Report
            }
            () if name == "dummy" || name == "noop" => Deed::Nothing,
            () if COMMANDS.iter().any(&runs) => Deed::Firewall,
            () if runs(&"sendmail") || runs(&"mail -s") => Deed::Mail,
            () => Deed::Other,
        }
    }
}

/// The actions in the value of `action`, one per line or more.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut depth = 0_u32;
    let mut quote = None;
    let mut current = String::new();
    for c in text.chars().chain(['\n']) {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) if depth > 0 => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) => depth = depth.saturating_sub(1),
            ('\n', None) if depth == 0 => {
                entries.extend(entry(&std::mem::take(&mut current)));
                continue;
            }
            _ => {}
        }
        current.push(if c == '\n' { ' ' } else { c });
    }
    entries.extend(entry(&current));
    entries
}

fn entry(text: &str) -> Option<Entry> {
    let (name, options) = filter::split_options(text).unwrap_or_else(|_| {
        let name = text.split('[').next().unwrap_or(text);
        (name.trim(), BTreeMap::new())
    });
    (!name.is_empty()).then(|| Entry {
        name: name.to_owned(),
        options,
    })
}

/// What to say about an action that is not a firewall's, and the key to choose.
pub(super) fn advice(entry: &Entry, deed: Deed, command: &str) -> Option<(String, Option<String>)> {
    let name = &entry.name;
    let say = |text: String| format!("fail2ban also runs `{name}`{text}");
    let mail = |to: Option<&String>| to.map_or("root", String::as_str).to_owned();
    let on_ban = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        Some(format!("on_ban = [{}]", words.join(", ")))
    };
    match deed {
        Deed::Firewall | Deed::Nothing => None,
        Deed::Mail => {
            let to = mail(entry.options.get("dest"));
            let script = format!("{HOOKS}/mail");
            let words = [&script, &to, "{jail}", "{host}", "{seconds}", "{failures}"];
            Some((
                say(": pipeban's hook sends a mail".to_owned()),
                on_ban(&words),
            ))
        }
        Deed::Webhook(kind) => {
            let (script, secret) = (
                format!("{HOOKS}/webhook"),
                format!("/etc/pipeban/hooks/{kind}"),
            );
            let words = [
                &script,
                kind,
                &secret,
                "{jail}",
                "{host}",
                "{seconds}",
                "{failures}",
            ];
            let text = format!(": write the address of the service to {secret}, mode 0600");
            Some((say(text), on_ban(&words)))
        }
        Deed::AbuseIpdb => {
            let script = format!("{HOOKS}/abuseipdb");
            let secret = "/etc/pipeban/hooks/abuseipdb";
            let words = [&script, secret, "{jail}", "{host}", "{failures}"];
            let text = format!(": write your API key to {secret}, mode 0600");
            Some((say(text), on_ban(&words)))
        }
        Deed::Cloudflare => {
            let script = format!("{HOOKS}/cloudflare");
            let secret = "/etc/pipeban/hooks/cloudflare";
            let words = [&script, secret, "ban", "{jail}", "{host}"];
            let text = format!(
                ", which blocks at Cloudflare. Behind Cloudflare a firewall sees only Cloudflare: \
                 add \"apache\" to `backend` under [firewall], so that Apache answers 403, or write token and zone to {secret}, mode 0600, and use the hook (with \
                 \"unban\" as on_unban)"
            );
            Some((say(text), on_ban(&words)))
        }
        Deed::Report => Some((
            say(": pipeban reports to AbuseIPDB by a hook, and to no other service".to_owned()),
            None,
        )),
        Deed::Other => {
            // Its arguments can hold a secret.
            let text = match command.split_whitespace().next() {
                Some(program) => format!(" (`{program}`)"),
                None => String::new(),
            };
            let text = text + ": write a script that does so, and name it";
            let words = ["/usr/local/sbin/SCRIPT", "{jail}", "{host}", "{seconds}"];
            Some((say(text), on_ban(&words)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_split_as_in_fail2ban() {
        let text = "iptables-multiport[name=a, port=\"http,https\",\n  protocol=tcp]\nsendmail[dest=\"a@b, c\"]\n\nufw\n";
        let names: Vec<_> = entries(text)
            .into_iter()
            .map(|entry| (entry.name, entry.options.len()))
            .collect();
        let expected = [("iptables-multiport", 3), ("sendmail", 1), ("ufw", 0)];
        assert_eq!(names, expected.map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn each_action_is_recognized() {
        for (name, command, deed) in [
            ("nftables-multiport", "", Deed::Firewall),
            ("sendmail-whois-lines", "", Deed::Mail),
            ("cloudflare-token", "", Deed::Cloudflare),
            ("abuseipdb", "", Deed::AbuseIpdb),
            ("slack-notify", "curl ...", Deed::Webhook("slack")),
            ("blocklist_de", "", Deed::Report),
            (
                "my-block",
                "nft add element inet f b { <ip> }",
                Deed::Firewall,
            ),
            ("my-mail", "printf x | /usr/sbin/sendmail root", Deed::Mail),
            ("my-script", "/usr/local/bin/x <ip>", Deed::Other),
        ] {
            assert_eq!(Deed::of(name, command), deed, "{name}");
        }
    }
}
