//! Several files into one configuration, key by key; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::backends;
use super::document::{self, Member, Place, Value};
use super::schema::{self, Faults};
use super::words::nearest;
use super::{
    Config, Firewall, Hooks, Increment, Jail, JailName, Log, Paths, Ports, Problem, Syslog,
    SyslogFormat, SyslogTarget,
};

/// The name under which bans by hand are shown.
pub const MANUAL_JAIL: &str = "manual";

/// Which of a configuration's files this is: what it may say depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// `jails.d` of the share directory: jails only.
    Shipped,
    /// The administrator's file: everything.
    Main,
    /// `conf.d` beside it: everything but `[paths]`.
    Extra,
}

/// One file's text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) layer: Layer,
    pub(super) file: PathBuf,
    pub(super) text: String,
}

/// Where a key of a jail got its value: file, line and column.
pub type Origin = (PathBuf, (usize, usize));

/// Where each key of `[defaults]` and of each jail got its value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Origins {
    keys: BTreeMap<(String, &'static str), Origin>,
    headers: BTreeMap<String, Origin>,
    /// Named lists of proxies, and where they are named.
    pub(super) proxy_lists: Vec<(String, Origin)>,
}

/// `[proxies]`
#[derive(Debug, Default)]
pub(super) struct Proxies {
    pub(super) trusted: Vec<IpNet>,
    pub(super) lists: Vec<(String, Origin)>,
}

impl Origins {
    /// Where `key` of `jail` comes from: the jail itself, else `[defaults]`; `None`: built in.
    pub fn of(&self, jail: &str, key: &str) -> Option<&Origin> {
        self.own(jail, key).or_else(|| self.own("", key))
    }

    /// Where the jail itself, not `[defaults]`, says `key`.
    pub fn own(&self, jail: &str, key: &str) -> Option<&Origin> {
        let key = schema::JAIL.iter().find(|known| known.name == key)?.name;
        self.keys.get(&(jail.to_owned(), key))
    }

    /// The keys that the jail itself says.
    pub fn own_keys(&self, jail: &str) -> Vec<&'static str> {
        self.keys
            .keys()
            .filter(|(name, _)| name == jail)
            .map(|(_, key)| *key)
            .collect()
    }

    /// Where the jail's name stands last.
    pub fn header(&self, jail: &str) -> Option<&Origin> {
        self.headers.get(jail)
    }

    fn note(&mut self, jail: &str, table: &[Member], file: &Path) {
        for member in table {
            if let Some(key) = schema::JAIL.iter().find(|known| known.name == member.key) {
                self.keys
                    .insert((jail.to_owned(), key.name), (file.to_owned(), member.place));
            }
        }
    }
}

/// What no file says.
pub(super) fn built_in() -> Config {
    let network = |text: &str| text.parse().ok();
    Config {
        paths: Paths::default(),
        firewall: Firewall::default(),
        syslog: Syslog::default(),
        trusted_proxies: Vec::new(),
        defaults: Jail {
            enabled: true,
            enforce: true,
            log: Log::Access,
            filter: String::new(),
            maxretry: 5,
            findtime: Duration::from_secs(600),
            bantime: Some(Duration::from_secs(3_600)),
            port: Ports::List {
                tcp: BTreeSet::from([80, 443]),
                udp: BTreeSet::from([443]),
            },
            ignoreip: ["127.0.0.0/8", "::1/128"]
                .into_iter()
                .filter_map(network)
                .collect(),
            ignore_files: Vec::new(),
            ignore_names: Vec::new(),
            ignoreself: true,
            ignore_ssh_logins: None,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            ban_private: false,
            weight: 1,
            bans_per_minute: 300,
            vhost: Vec::new(),
            not_vhost: Vec::new(),
            increment: None,
            hooks: Hooks::default(),
        },
        jails: BTreeMap::new(),
        filters: BTreeMap::new(),
    }
}

/// Merges the files in the order given, a later key over an earlier one. Filters are not read.
pub(super) fn merge(sources: &[Source]) -> (Config, Origins, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut syntax = Vec::new();
    let documents: Vec<(&Source, Vec<Member>)> = sources
        .iter()
        .map(|source| {
            let (members, errors) = document::parse(&source.text);
            syntax.extend(errors.into_iter().map(|(place, message)| Problem {
                file: source.file.clone(),
                place,
                message,
            }));
            (source, members)
        })
        .collect();
    let broken: Vec<(PathBuf, usize)> = syntax
        .iter()
        .filter_map(|problem: &Problem| Some((problem.file.clone(), problem.place?.0)))
        .collect();
    let mut config = built_in();
    let mut origins = Origins::default();
    // [defaults] of every file come first: they are what each jail starts from.
    for (source, members) in &documents {
        let mut faults = Faults {
            file: &source.file,
            found: &mut problems,
        };
        for member in members {
            section(source, member, &mut config, &mut origins, &mut faults);
        }
    }
    for (source, members) in &documents {
        let mut faults = Faults {
            file: &source.file,
            found: &mut problems,
        };
        for jails in members.iter().filter(|member| member.key == "jails") {
            let Value::Table(jails) = &jails.value.value else {
                continue;
            };
            for jail in jails {
                one_jail(source, jail, &mut config, &mut origins, &mut faults);
            }
        }
    }
    if let Some(message) = backends::lacking(&config.firewall) {
        let place = documents.iter().rev().find_map(|(source, members)| {
            let place = place_of(members, "firewall", "backend")?;
            Some((source.file.clone(), place))
        });
        problems.extend(place.map(|(file, place)| Problem {
            file,
            place: Some(place),
            message: message.to_owned(),
        }));
    }
    for (name, jail) in &mut config.jails {
        if jail.log == Log::Bans {
            jail.filter.clear();
        } else if jail.filter.is_empty() {
            name.as_str().clone_into(&mut jail.filter);
        }
        never_below_bantime(jail);
        contradictions(name, jail, &origins, &mut problems);
    }
    // What the parser made of a broken line is nobody's word.
    problems.retain(|problem| {
        let same = |(file, line): &(PathBuf, usize)| {
            *file == problem.file && problem.place.is_some_and(|place| place.0 == *line)
        };
        // A value that is missing stands nowhere, which is the file's beginning.
        let nowhere =
            problem.place == Some((1, 1)) && broken.iter().any(|(file, _)| *file == problem.file);
        !nowhere && !broken.iter().any(same)
    });
    problems.extend(syntax);
    let order = |file: &Path| sources.iter().position(|source| source.file == file);
    problems.sort_by_key(|problem| (order(&problem.file), problem.place));
    problems.dedup();
    (config, origins, problems)
}

/// Where a key's value stands.
fn place_of(members: &[Member], section: &str, key: &str) -> Option<Place> {
    let tables = members.iter().filter(|member| member.key == section);
    let keys = tables.flat_map(|member| match &member.value.value {
        Value::Table(table) => table.as_slice(),
        _ => &[],
    });
    let last = keys.rev().find(|member| member.key == key)?;
    Some(last.value.place)
}

const SECTIONS: [&str; 6] = [
    "paths", "firewall", "syslog", "proxies", "defaults", "jails",
];

fn section(
    source: &Source,
    member: &Member,
    config: &mut Config,
    origins: &mut Origins,
    faults: &mut Faults<'_>,
) {
    let name = member.key.as_str();
    let Value::Table(table) = &member.value.value else {
        let home = if SECTIONS.contains(&name) {
            format!("`{name}` is a section: write `[{name}]`")
        } else if schema::JAIL.iter().any(|key| key.name == name) {
            format!(
                "`{name}` stands outside of every section: put it under `[defaults]` or a `[jails.NAME]`"
            )
        } else {
            format!(
                "`{}` stands outside of every section: the sections are {}",
                name.escape_debug(),
                sections()
            )
        };
        faults.at(member.place, home);
        return;
    };
    if source.layer == Layer::Shipped && name != "jails" {
        faults.at(
            member.place,
            format!(
                "a shipped file holds jails only: put `[{}]` into the configuration file",
                name.escape_debug()
            ),
        );
        return;
    }
    match name {
        "paths" if source.layer == Layer::Extra => {
            faults.at(
                member.place,
                "`[paths]` stands in pipeban.toml itself, where every command looks for it",
            );
        }
        "paths" => schema::apply(name, schema::PATHS, table, &mut config.paths, faults),
        "firewall" => schema::apply(
            name,
            backends::FIREWALL,
            table,
            &mut config.firewall,
            faults,
        ),
        "syslog" => {
            schema::apply(name, schema::SYSLOG, table, &mut config.syslog, faults);
            misread(table, &config.syslog, faults);
        }
        "proxies" => {
            let mut proxies = Proxies {
                trusted: std::mem::take(&mut config.trusted_proxies),
                lists: std::mem::take(&mut origins.proxy_lists),
            };
            schema::apply(name, schema::PROXIES, table, &mut proxies, faults);
            config.trusted_proxies = proxies.trusted;
            origins.proxy_lists = proxies.lists;
        }
        "defaults" => {
            schema::apply(name, schema::JAIL, table, &mut config.defaults, faults);
            origins.note("", table, &source.file);
        }
        "jails" => {}
        _ => faults.at(member.place, unknown_section(name, table)),
    }
}

/// journald and rsyslog take RFC 5424 on `/dev/log` for a line without a tag.
fn misread(table: &[Member], syslog: &Syslog, faults: &mut Faults<'_>) {
    let format = table.iter().find(|member| member.key == "format");
    if let Some(format) = format
        && syslog.format == SyslogFormat::Rfc5424
        && syslog.target == SyslogTarget::local()
    {
        faults.at(
            format.place,
            "the daemon at /dev/log reads `rfc3164` only: leave `format` out, or name another `target`",
        );
    }
}

fn sections() -> String {
    SECTIONS
        .map(|name| {
            if name == "jails" {
                "[jails.NAME]".into()
            } else {
                format!("[{name}]")
            }
        })
        .join(", ")
}

fn unknown_section(name: &str, table: &[Member]) -> String {
    let shown = name.escape_debug();
    if name.eq_ignore_ascii_case("default") {
        return format!("`[{shown}]` is written `[defaults]` here");
    }
    let like_jail = table.iter().any(|member| {
        matches!(
            member.key.as_str(),
            "enabled" | "filter" | "maxretry" | "bantime" | "findtime" | "logpath"
        )
    });
    match nearest(name, SECTIONS.into_iter()) {
        Some("jails") => format!("unknown section `[{shown}]`: a jail is `[jails.NAME]`"),
        Some(near) => format!("unknown section `[{shown}]`: did you mean `[{near}]`?"),
        None if like_jail => {
            format!("unknown section `[{shown}]`: a jail is written `[jails.{shown}]`")
        }
        None => format!(
            "unknown section `[{shown}]`: the sections are {}",
            sections()
        ),
    }
}

fn one_jail(
    source: &Source,
    member: &Member,
    config: &mut Config,
    origins: &mut Origins,
    faults: &mut Faults<'_>,
) {
    let name: JailName = match member.key.parse() {
        Ok(name) => name,
        Err(message) => return faults.at(member.place, message),
    };
    if name.as_str() == MANUAL_JAIL {
        return faults.at(member.place, "`manual` is the name of bans by hand, which take `[defaults]`: give this jail another name");
    }
    let Value::Table(table) = &member.value.value else {
        // A key of a jail straight under [jails], most likely.
        return faults.at(
            member.place,
            format!("`{name}` is no jail: a jail is a table `[jails.NAME]`, its keys stand below"),
        );
    };
    let defaults = &config.defaults;
    let jail = config
        .jails
        .entry(name.clone())
        .or_insert_with(|| defaults.clone());
    schema::apply(&format!("jails.{name}"), schema::JAIL, table, jail, faults);
    origins.note(name.as_str(), table, &source.file);
    origins
        .headers
        .insert(name.into(), (source.file.clone(), member.place));
}

/// A limit for growing bans must not shorten the first one: who asks for a year gets it, also in
/// a jail that comes with a limit of a week.
fn never_below_bantime(jail: &mut Jail) {
    match (jail.bantime, &mut jail.increment) {
        (Some(bantime), Some(Increment { maxtime, .. })) => *maxtime = (*maxtime).max(bantime),
        (None, increment) => *increment = None,
        (Some(_), None) => {}
    }
}

fn contradictions(name: &JailName, jail: &Jail, origins: &Origins, problems: &mut Vec<Problem>) {
    let mut at = |origin: Option<&Origin>, message: String| {
        problems.push(Problem {
            file: origin.map(|(file, _)| file.clone()).unwrap_or_default(),
            place: origin.map(|(_, place)| *place),
            message,
        });
    };
    if !jail.enabled {
        return;
    }
    if origins.of(name.as_str(), "log").is_none() {
        at(
            origins.header(name.as_str()),
            format!(
                "jail `{name}` does not say which log it reads: add `log = \"access\"` or `log = \"error\"` (or `log = \"bans\"`: it counts bans)"
            ),
        );
    }
    for (key, names) in [("vhost", &jail.vhost), ("not_vhost", &jail.not_vhost)] {
        let reads = match jail.log {
            Log::Access => continue,
            Log::Error => "reads the error log, whose lines",
            Log::Bans => "counts bans, which",
        };
        if !names.is_empty() {
            at(
                origins.of(name.as_str(), key),
                format!("jail `{name}` {reads} do not name the virtual host: take `{key}` out"),
            );
        }
    }
    if jail.log == Log::Bans
        && let Some(origin) = origins.own(name.as_str(), "filter")
    {
        at(
            Some(origin),
            format!("jail `{name}` counts bans, not lines: take `filter` out"),
        );
    }
}

/// The `[paths]` of a text that may be broken anywhere: each of its lines alone.
pub(super) fn paths_in(text: &str) -> Paths {
    let mut paths = Paths::default();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.split_once(']').is_some_and(|(head, _)| {
                head.trim_start_matches('[').trim() == "paths" && !line.starts_with("[[")
            });
        } else if inside {
            let (members, errors) = document::parse(line);
            if errors.is_empty() {
                let mut ignored = Vec::new();
                let mut faults = Faults {
                    file: Path::new(""),
                    found: &mut ignored,
                };
                schema::apply("paths", schema::PATHS, &members, &mut paths, &mut faults);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, Blocktype};
    use super::*;

    fn source(layer: Layer, file: &str, text: &str) -> Source {
        Source {
            layer,
            file: file.into(),
            text: text.into(),
        }
    }

    fn told(text: &str) -> Vec<String> {
        let (_, _, problems) = merge(&[source(Layer::Main, "p.toml", text)]);
        problems.iter().map(ToString::to_string).collect()
    }

    /// One problem, at this place, that says this.
    fn check(text: &str, place: &str, says: &str) {
        let told = told(text);
        assert_eq!(told.len(), 1, "{text:?}: {told:#?}");
        assert!(
            told[0].starts_with(&format!("p.toml:{place}: ")),
            "{text:?}: {told:?}"
        );
        assert!(told[0].contains(says), "{text:?}: {told:?}");
    }

    #[test]
    fn unknown_words_are_refused_and_the_right_one_named() {
        check(
            "[defaults]\nmax_retry = 3",
            "2:1",
            "did you mean `maxretry`",
        );
        check("[default]\nmaxretry = 3", "1:2", "`[defaults]`");
        check("[DEFAULT]\nmaxretry = 3", "1:2", "`[defaults]`");
        check("[firewal]\n", "1:2", "did you mean `[firewall]`");
        check("[sshd]\nenabled = true", "1:2", "`[jails.sshd]`");
        check("[fleet]\nx = 1", "1:2", "the sections are [paths]");
        check("maxretry = 3", "1:1", "[defaults]");
        check("firewall = \"ufw\"", "1:1", "write `[firewall]`");
        check(
            "[jails.x]\nlog=\"error\"\nzzzzzz = 1",
            "3:1",
            "it knows enabled, enforce",
        );
        check(
            "[jails.x]\nlog=\"error\"\nlogpath = \"/x\"",
            "3:1",
            "log = \"access\"",
        );
        check("[defaults]\nbanaction = \"ufw\"", "2:1", "`[firewall]`");
        check(
            "[jails.x]\nlog=\"error\"\nbackend = \"auto\"",
            "3:1",
            "nothing is tailed",
        );
        check(
            "[jails.x]\nlog=\"error\"\nincrement = { factr = 2 }",
            "3:15",
            "did you mean `factor`",
        );
        check("[jails]\nmaxretry = 3", "2:1", "[jails.NAME]");
    }

    #[test]
    fn wrong_types_say_what_is_expected() {
        check(
            "[defaults]\nmaxretry = \"5\"",
            "2:12",
            "expected a whole number from 1 to 1000000, without quotes, found the text \"5\"",
        );
        check("[defaults]\nmaxretry = 0", "2:12", "found the number 0");
        check(
            "[defaults]\nenforce = \"no\"",
            "2:11",
            "expected true or false",
        );
        check("[defaults]\nfindtime = -1", "2:12", "only `bantime`");
        check("[defaults]\nfindtime = 0", "2:12", "above zero");
        check("[defaults]\nbantime = \"10x\"", "2:11", "no duration");
        check(
            "[defaults]\nbantime.increment = true",
            "2:1",
            "increment = {",
        );
        check("[defaults]\nipv6_prefix = 32", "2:15", "48 to 128");
        check(
            "[defaults]\nignoreip = [\"127.0.0.1\", \"192.0.2.300\"]",
            "2:26",
            "a host's name or a `/FILE`",
        );
        check("[defaults]\nignoreip = [1]", "2:13", "text in quotes");
        check(
            "[defaults]\nport = [\"https\", \"8000:8010\"]",
            "2:18",
            "ranges",
        );
        check("[defaults]\nport = 0", "2:8", "1 to 65535");
        check("[defaults]\nport = []", "2:8", "no port named");
        check(
            "[defaults]\nport = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]",
            "2:8",
            "more than 15",
        );
        check(
            "[defaults]\nlog = \"acces\"",
            "2:7",
            "\"access\", \"error\" or \"bans\"",
        );
        check("[defaults]\nvhost = \"a b/c\"", "2:9", "virtual host");
        check(
            "[defaults]\nincrement = { factor = 0.5 }",
            "2:24",
            "from 1 to 1000",
        );
        check(
            "[defaults]\nincrement = { factor = nan }",
            "2:24",
            "from 1 to 1000",
        );
        check("[jails.\"a b\"]\nlog=\"error\"", "1:8", "no jail name");
        check("[jails.manual]\nlog=\"error\"", "1:8", "bans by hand");
        check(
            "[jails.x]\nlog=\"error\"\nfilter = \"../x\"",
            "3:10",
            "name of a filter",
        );
        check(
            "[jails.x]\nlog=\"error\"\nfilter = \"apache-auth[mode=normal\"",
            "3:10",
            "options",
        );
        check("[jails.x]\nmaxretry = 1", "1:8", "does not say which log");
        check(
            "[jails.x]\nlog = \"bans\"\nfilter = \"y\"",
            "3:1",
            "counts bans, not lines",
        );
        check(
            "[defaults]\nvhost = \"a\"\n[jails.x]\nlog = \"bans\"",
            "2:1",
            "do not name the virtual host",
        );
        check(
            "[proxies]\ntrusted = [\"192.0.2.0/40\"]",
            "2:12",
            "a list's name",
        );
        check("[defaults]\nipv4_prefix = 8", "2:15", "16 to 32");
        check(
            "[defaults]\nincrement = { multipliers = \"1 x\" }",
            "2:29",
            "found the text \"x\"",
        );
        check(
            "[defaults]\nincrement = { rndtime = -1 }",
            "2:25",
            "a duration",
        );
        check(
            "[jails.x]\nlog = \"error\"\nvhost = [\"a\"]",
            "3:1",
            "do not name the virtual host",
        );
    }

    #[test]
    fn back_ends_are_named_alone_or_together() {
        let firewall = |text: &str| {
            let text = format!("[firewall]\n{text}");
            let (config, _, problems) = merge(&[source(Layer::Main, "p.toml", &text)]);
            assert_eq!(problems, [], "{text}");
            config.firewall
        };
        let all = firewall("backend = [\"nftables\", \"apache\", \"nftables\"]");
        assert_eq!(all.backend, [Backend::Nftables, Backend::Apache]);
        assert_eq!(firewall("backend = \"ipset\"").backend, [Backend::Ipset]);
        let command = firewall(
            "backend = \"command\"\nblocktype = \"reject\"\n[firewall.command]\n\
             ban = [\"/b\", \"{host}\", \"a b\"]\nunban = [\"/u\"]\ntimeout = \"3s\"",
        );
        assert_eq!(command.blocktype, Blocktype::Reject);
        let command = command.command.unwrap();
        assert_eq!(command.ban, ["/b", "{host}", "a b"]);
        assert_eq!(command.timeout, Duration::from_secs(3));
        for (text, place, message) in [
            ("backend = \"iptables\"", "2:11", "\"nftables\""),
            ("backend = \"ufv\"", "2:11", "did you mean `ufw`?"),
            ("backend = []", "2:11", "a list of them"),
            ("backend = [\"ufw\", \"dry-run\"]", "2:11", "stands alone"),
            ("backend = [\"ufw\", 3]", "2:19", "a text in quotes"),
            ("backend = \"command\"", "2:11", "[firewall.command]"),
            ("blocktype = \"blackhole\"", "2:13", "\"reject\""),
            ("command = \"/b\"", "2:11", "a section"),
            ("[firewall.command]\nban = \"/b {host}\"", "3:7", "a list"),
            (
                "[firewall.command]\nban = [\"b\"]",
                "3:8",
                "begins with `/`",
            ),
            (
                "[firewall.command]\nban = [\"/b\", \"{ip}\"]",
                "3:14",
                "{host}",
            ),
            ("[firewall.command]\ntimeout = \"1h\"", "3:11", "5 minutes"),
            (
                "[firewall.command]\nbann = [\"/b\"]",
                "3:1",
                "did you mean `ban`?",
            ),
        ] {
            check(&format!("[firewall]\n{text}"), place, message);
        }
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_never_ignored() {
        check(
            "[syslog]\ntarget = \"udp://loghost:514\"",
            "2:10",
            "a port, as in `udp://192.0.2.1:514`",
        );
        check(
            "[syslog]\ntarget = \"tcp://192.0.2.1:514\"",
            "2:10",
            "let the local syslog forward",
        );
        check("[syslog]\nformat = \"rfc5424\"", "2:1", "rfc3164` only");
        check("[syslog]\nformat = \"cef\"", "2:10", "\"rfc5424\"");
        check(
            "[syslog]\nfacility = \"autpriv\"",
            "2:12",
            "did you mean `authpriv`",
        );
        check(
            "[syslog]\nlog_file = \"pipeban.log\"",
            "2:12",
            "begins with `/`",
        );
        check("[paths]\nuser = \"www-data\"", "2:8", "must not be");
    }

    #[test]
    fn all_problems_of_all_files_come_in_order() {
        let (_, _, problems) = merge(&[
            source(Layer::Shipped, "s.toml", "[defaults]\nmaxretry = 1\n"),
            source(
                Layer::Main,
                "m.toml",
                "[defaults]\nx = \nweigth = 1\nport = -1\n",
            ),
            source(
                Layer::Extra,
                "e.toml",
                "[paths]\nuser = \"x\"\n[jails.a]\nlog = 3",
            ),
        ]);
        let told: Vec<_> = problems
            .iter()
            .map(|p| (p.file.to_str().unwrap(), p.place.unwrap().0))
            .collect();
        assert_eq!(
            told,
            [
                ("s.toml", 1),
                ("m.toml", 2),
                ("m.toml", 3),
                ("m.toml", 4),
                ("e.toml", 1),
                ("e.toml", 4)
            ],
            "{problems:#?}"
        );
    }

    #[test]
    fn later_files_win_key_by_key_and_a_jail_over_defaults() {
        let (config, origins, problems) = merge(&[
            source(
                Layer::Shipped,
                "s.toml",
                "[jails.a]\nlog = \"error\"\nmaxretry = 1\nincrement = { maxtime = \"2w\" }",
            ),
            source(
                Layer::Main,
                "m.toml",
                "[defaults]\nbantime = \"2h\"\nmaxretry = 9\n[jails.b]\nlog = \"access\"\nvhost = \"Shop.example.org\"\nport = [\"ssh\", \"all\"]",
            ),
            source(
                Layer::Extra,
                "e.toml",
                "[defaults]\nfindtime = 60\n[jails.a]\nincrement = { factor = 3 }\nfilter = \"f\"",
            ),
        ]);
        assert_eq!(problems, []);
        let a = &config.jails[&"a".parse().unwrap()];
        assert_eq!((a.maxretry, a.filter.as_str(), a.log), (1, "f", Log::Error));
        assert_eq!(a.bantime, Some(Duration::from_secs(7_200)));
        assert_eq!(a.findtime, Duration::from_secs(60));
        let increment = a.increment.clone().unwrap();
        assert_eq!(
            (increment.factor, increment.maxtime.as_secs()),
            (Some(3.0), 1_209_600)
        );
        let b = &config.jails[&"b".parse().unwrap()];
        assert_eq!(
            (b.maxretry, b.filter.as_str(), b.port.clone()),
            (9, "b", Ports::All)
        );
        assert_eq!(b.vhost, ["shop.example.org"]);
        let at = |jail: &str, key: &str| {
            origins
                .of(jail, key)
                .map(|(file, place)| (file.to_str().unwrap().to_owned(), place.0))
        };
        assert_eq!(at("a", "maxretry"), Some(("s.toml".into(), 3)));
        assert_eq!(at("a", "bantime"), Some(("m.toml".into(), 2)));
        assert_eq!(at("a", "filter"), Some(("e.toml".into(), 5)));
        assert_eq!(at("a", "weight"), None);
    }

    #[test]
    fn a_limit_for_growing_bans_never_shortens_the_first() {
        let longest = |bantime: &str| {
            let text = format!(
                "[jails.a]\nlog = \"error\"\nbantime = \"{bantime}\"\nincrement = {{ maxtime = \"1w\" }}"
            );
            let (config, _, _) = merge(&[source(Layer::Main, "p", &text)]);
            config.jails[&"a".parse().unwrap()]
                .increment
                .as_ref()
                .map(|increment| increment.maxtime.as_secs())
        };
        assert_eq!(longest("1h"), Some(604_800));
        assert_eq!(longest("365d"), Some(31_536_000));
        assert_eq!(longest("permanent"), None);
    }

    #[test]
    fn ports_mean_what_they_say() {
        let ports = |text: &str| {
            let (config, _, problems) = merge(&[source(
                Layer::Main,
                "p",
                &format!("[defaults]\nport = {text}"),
            )]);
            assert_eq!(problems, [], "{text}");
            config.defaults.port
        };
        let list = |tcp: &[u16], udp: &[u16]| Ports::List {
            tcp: tcp.iter().copied().collect(),
            udp: udp.iter().copied().collect(),
        };
        assert_eq!(ports("[\"http\", \"https\"]"), list(&[80, 443], &[443]));
        assert_eq!(ports("\"http,https\""), list(&[80, 443], &[443]));
        assert_eq!(ports("8080"), list(&[8080], &[]));
        assert_eq!(ports("[\"ssh\", 8080]"), list(&[22, 8080], &[]));
        assert_eq!(ports("\"all\""), Ports::AllButSsh);
        assert_eq!(ports("[\"all\", \"ssh\"]"), Ports::All);
    }

    #[test]
    fn networks_are_masked_and_unmapped() {
        let (config, origins, problems) = merge(&[source(
            Layer::Main,
            "p",
            "[defaults]\nignoreip = \"192.0.2.77/24 ::ffff:203.0.113.9, 2001:db8::1/64 /a/b Office.example\"\n[proxies]\ntrusted = [\"198.51.100.0/24\", \"cloudflare\"]",
        )]);
        assert_eq!(problems, []);
        let shown: Vec<_> = config
            .defaults
            .ignoreip
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["192.0.2.0/24", "203.0.113.9/32", "2001:db8::/64"]);
        assert_eq!(config.trusted_proxies.len(), 1);
        assert_eq!(config.defaults.ignore_files, [PathBuf::from("/a/b")]);
        assert_eq!(config.defaults.ignore_names, ["office.example"]);
        let (list, (_, place)) = &origins.proxy_lists[0];
        assert_eq!((list.as_str(), *place), ("cloudflare", (4, 31)));
    }

    #[test]
    fn paths_are_found_in_a_broken_file() {
        let text = "x = [\n[firewall\n[paths] # here\nruntime = \"/r\" # yes\nstate = \"/half\nshare = 3\nuser = \"u\"\n[jails.x]\nuser = \"v\"\n";
        let paths = paths_in(text);
        assert_eq!(
            paths,
            Paths {
                runtime: "/r".into(),
                user: "u".into(),
                ..Paths::default()
            }
        );
        assert_eq!(paths_in(""), Paths::default());
    }

    #[test]
    fn what_is_built_in_is_what_the_manual_says() {
        let defaults = built_in().defaults;
        assert_eq!(defaults.ignoreip.len(), 2);
        assert_eq!(defaults.bantime, Some(Duration::from_secs(3_600)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[[a-z.\"]{0,12}\\]\n|[a-z]{1,10} = [\\[\\]{}\"a-z0-9.,=-]{0,20}\n){0,8}") {
            let _ = merge(&[source(Layer::Main, "p.toml", &text)]);
            let _ = paths_in(&text);
        }
    }
}
