use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::jail_rows::{INCREMENT, JAIL};
use super::merge::{Layer, Source, merge, paths_in};
use super::row::Row;
use super::sections::{COMMAND, FIREWALL, PATHS, PROXIES, SYSLOG};
use super::*;

fn source(layer: Layer, file: &str, text: &str) -> Source {
    Source {
        layer,
        file: file.into(),
        text: text.into(),
    }
}

fn merge_one(text: &str) -> (Config, Origins, Vec<Problem>) {
    merge(&[source(Layer::Main, "p.toml", text)])
}

/// The configuration of a text without problems.
fn read(text: &str) -> (Config, Origins) {
    let (config, origins, problems) = merge_one(text);
    assert_eq!(problems, [], "{text}");
    (config, origins)
}

/// Text, with `; ` between its lines; the place of its one problem; a part of the message.
const REFUSED: &str = r#"
    [defaults]; max_retry = 3                       => 2:1  did you mean `maxretry`
    [default]; maxretry = 3                         => 1:2  `[defaults]`
    [DEFAULT]; maxretry = 3                         => 1:2  `[defaults]`
    [firewal];                                      => 1:2  did you mean `[firewall]`
    [sshd]; enabled = true                          => 1:2  `[jails.sshd]`
    [fleet]; x = 1                                  => 1:2  the sections are [paths]
    maxretry = 3                                    => 1:1  move it to `[defaults]`
    firewall = "ufw"                                => 1:1  write `[firewall]`
    [jails.x]; log="access"; trap = ["a"]           => 3:9  begins with `/`
    [jails.x]; log="access"; [[jails.x.except]]; pth = 'a' => 4:1 unknown field `pth`
    [jails.x]; log="access"; [[jails.x.except]]; status = 200; path = '(' => 5:1 not valid
    [jails.x]; log="access"; [[jails.x.except]]; status = "2x"  => 4:1 not a range
    [jails.x]; log="access"; [[jails.x.except]]; weight = 2; path = 'a' => 3:1 conditions
    [jails.x]; log="access"; [[jails.x.except]]; path = 'a'; hit = 'GET /a' => 3:1 delete `hit`
    [jails.x]; log="access"; except = [{ path = 'a' }, { not = { path = 'a' } }] => 3:27 besides `not`
    [jails.x]; log="access"; except = "a"           => 3:10 a table of conditions
    [jails.x]; log="error"; except = { user_agent = 'a' } => 3:1 no `user_agent`
    [jails.x]; log="bans"; except = { path = 'a' }  => 3:1  counts bans, not lines
    [jails.x]; log="error"; zzzzzz = 1              => 3:1  the keys are enabled, enforce
    [jails.x]; log="access"; group = "network"      => 3:1  write `ipv4_prefix = 24`
    [jails.x]; log="error"; logpath = "/x"          => 3:1  log = "access"
    [defaults]; banaction = "ufw"                   => 2:1  `[firewall]`
    [jails.x]; log="error"; backend = "auto"        => 3:1  Apache pipes its lines
    [jails.x]; log="error"; increment={ factr = 2 } => 3:13 did you mean `factor`
    [jails]; maxretry = 3                           => 2:1  [jails.NAME]
    [defaults]; maxretry = "5"                      => 2:12 expected a whole number from 1 to 1000000, without quotes, found the text "5"
    [defaults]; maxretry = 0                        => 2:12 found the number 0
    [defaults]; enforce = "no"                      => 2:11 expected true or false
    [defaults]; findtime = -1                       => 2:12 only `bantime`
    [defaults]; findtime = 0                        => 2:12 above zero
    [defaults]; bantime = "10x"                     => 2:11 not a duration
    [defaults]; bantime.increment = true            => 2:1  increment = {
    [defaults]; ipv4_prefix = 8                     => 2:15 16 to 32
    [defaults]; ipv6_prefix = 32                    => 2:15 48 to 128
    [defaults]; ignoreip = ["::1", "192.0.2.300"]   => 2:20 a host's name or a `/FILE`
    [defaults]; ignoreip = [1]                      => 2:13 text in quotes
    [defaults]; port = ["https", "8000:8010"]       => 2:18 range
    [defaults]; port = 0                            => 2:8  1 to 65535
    [defaults]; port = []                           => 2:8  no port is named
    [defaults]; port = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16] => 2:8 more than 15
    [defaults]; log = "acces"                       => 2:7  "access" or "error" or "bans" (did you mean `access`?)
    [defaults]; vhost = "a b/c"                     => 2:9  virtual host
    [defaults]; increment = { factor = 0.5 }        => 2:24 from 1 to 1000
    [defaults]; increment = { factor = nan }        => 2:24 from 1 to 1000
    [defaults]; increment = { multipliers = "1 x" } => 2:29 found the text "x"
    [defaults]; increment = { rndtime = -1 }        => 2:25 a duration
    [jails."a b"]; log="error"                      => 1:8  not a jail name
    [jails.manual]; log="error"                     => 1:8  bans by hand
    [jails.x]; log="error"; filter = "../x"         => 3:10 name of a filter
    [jails.x]; log="error"; filter = "a[mode=normal" => 3:10 options
    [jails.x]; maxretry = 1                         => 1:8  does not say what it reads
    [jails.x]; log = "bans"; filter = "y"           => 3:1  counts bans, not lines
    [jails.x]; log = "error"; vhost = ["a"]         => 3:1  do not name the virtual host
    [defaults]; vhost = "a"; [jails.x]; log = "bans" => 2:1 do not name the virtual host
    [proxies]; trusted = ["192.0.2.0/40"]           => 2:12 the name of a list
    [syslog]; target = "udp://loghost:514"          => 2:10 a port, as in `udp://192.0.2.1:514`
    [syslog]; target = "tcp://192.0.2.1:514"        => 2:10 let the local syslog daemon forward
    [syslog]; format = "rfc5424"                    => 2:10 needs `rfc3164`
    [syslog]; format = "cef"                        => 2:10 "rfc5424"
    [syslog]; facility = "autpriv"                  => 2:12 did you mean `authpriv`
    [syslog]; log_file = "pipeban.log"              => 2:12 begins with `/`
    [paths]; user = "www-data"                      => 2:8  must not run as
    [firewall]; backend = "iptables"                => 2:11 "nftables"
    [firewall]; backend = "ufv"                     => 2:11 did you mean `ufw`?
    [firewall]; backend = []                        => 2:11 a list of them
    [firewall]; backend = ["ufw", "dry-run"]        => 2:11 name it alone
    [firewall]; backend = ["ufw", 3]                => 2:19 text in quotes
    [firewall]; backend = "command"                 => 2:11 [firewall.command]
    [firewall]; blocktype = "blackhole"             => 2:13 "reject"
    [firewall]; command = "/b"                      => 2:11 a section
    [firewall.command]; ban = "/b {host}"           => 2:7  a list
    [firewall.command]; ban = ["b"]                 => 2:8  begins with `/`
    [firewall.command]; ban = ["/b", "{ip}"]        => 2:14 {host}
    [firewall.command]; timeout = "1h"              => 2:11 5 minutes
    [firewall.command]; bann = ["/b"]               => 2:1  did you mean `ban`?
"#;

#[test]
fn a_whole_jail_local_is_one_problem_that_names_migrate() {
    for (text, line) in [
        (
            "[DEFAULT]\nignoreip = 127.0.0.1/8 ::1\nbantime = 1h\n\n[sshd]\nenabled = true\n",
            Some(1),
        ),
        (
            "# mine\n[apache-cgitraversal]\nenabled  = true\nport     = http,https\n\
             filter   = apache-cgitraversal\nlogpath  = /var/log/apache2/error.log\n\
             maxretry = 1             # once\n",
            Some(2),
        ),
        ("[jails.a]\nlogpath = /var/log/x\n", None),
        ("[a]\nbantime = 1h\n", None),
    ] {
        let (_, _, problems) = super::merge::merge(&[super::merge::Source {
            layer: super::merge::Layer::Main,
            file: "p.toml".into(),
            text: text.into(),
        }]);
        let named = problems
            .iter()
            .any(|problem| problem.message.contains("`pipeban migrate`"));
        assert_eq!(named, line.is_some(), "{problems:?}");
        if let Some(line) = line {
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].place, Some((line, 1)));
        }
    }
}

#[test]
fn every_wrong_setting_is_refused_with_its_place_and_a_remedy() {
    let mut checked = 0;
    for line in REFUSED.lines().filter(|line| !line.trim().is_empty()) {
        let (text, expected) = line.split_once("=> ").unwrap();
        let (place, says) = expected.split_once(' ').unwrap();
        let text = text.trim().trim_end_matches(';').replace("; ", "\n");
        let (_, _, problems) = merge_one(&text);
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 1, "{text:?}: {shown:#?}");
        let place = format!("p.toml:{place}: ");
        assert!(shown[0].starts_with(&place), "{line}: {shown:?}");
        assert!(shown[0].contains(says.trim()), "{line}: {shown:?}");
        checked += 1;
    }
    assert!(checked > 60);
}

#[test]
fn a_removed_setting_is_a_warning_that_names_the_replacement() {
    for (text, place, says) in [
        ("[paths]\nwtmp = \"/w\"", "2:1", "`wtmp` was removed: "),
        ("[firewall]\nbackend = \"ipset\"", "2:11", "\"nftables\""),
        (
            "[defaults]\nignore_ssh_logins = \"7d\"",
            "2:1",
            "`ignoreip`",
        ),
        (
            "[jails.x]\nlog = \"error\"\ndatepattern = 1",
            "3:1",
            "no date",
        ),
    ] {
        let warnings = read(text).0.warnings;
        let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 1, "{text}: {shown:?}");
        let place = format!("p.toml:{place}: ");
        assert!(
            shown[0].starts_with(&place) && shown[0].contains(says),
            "{shown:?}"
        );
    }
    let (config, _) = read("[firewall]\nbackend = [\"ipset\", \"nftables\"]");
    assert_eq!(config.firewall.backend, [Backend::Nftables]);
}

#[test]
fn back_ends_are_named_alone_or_together() {
    let firewall = |text: &str| read(&format!("[firewall]\n{text}")).0.firewall;
    let all = firewall("backend = [\"nftables\", \"apache\", \"nftables\"]");
    assert_eq!(all.backend, [Backend::Nftables, Backend::Apache]);
    let command = firewall(
        "backend = \"command\"\nblocktype = \"reject\"\n[firewall.command]\n\
         ban = [\"/b\", \"{host}\", \"a b\"]\nunban = [\"/u\"]\ntimeout = \"3s\"",
    );
    assert_eq!(command.blocktype, Blocktype::Reject);
    let command = command.command.unwrap();
    assert_eq!(command.ban, ["/b", "{host}", "a b"]);
    assert_eq!(command.timeout, Duration::from_secs(3));
}

#[test]
fn all_problems_of_all_files_come_in_order() {
    let main = "[defaults]\nx = \nweigth = 1\nport = -1\n";
    let extra = "[paths]\nuser = \"x\"\n[jails.a]\nlog = 3";
    let (_, _, problems) = merge(&[
        source(Layer::Shipped, "s.toml", "[defaults]\nmaxretry = 1\n"),
        source(Layer::Main, "m.toml", main),
        source(Layer::Extra, "e.toml", extra),
    ]);
    let places: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}:{}", problem.file.display(), problem.place.unwrap().0))
        .collect();
    let expected = [
        "s.toml:1", "m.toml:2", "m.toml:3", "m.toml:4", "e.toml:1", "e.toml:4",
    ];
    assert_eq!(places, expected, "{problems:#?}");
}

#[test]
fn a_later_file_overrides_keys_and_a_jail_overrides_defaults() {
    let shipped = "[jails.a]\nlog = \"error\"\nmaxretry = 1\nincrement = { maxtime = \"2w\" }";
    let main = "[defaults]\nbantime = \"2h\"\nmaxretry = 9\n[jails.b]\nlog = \"access\"\n\
                vhost = \"Shop.example.org\"\nport = [\"ssh\", \"all\"]";
    let extra = "[defaults]\nfindtime = 60\n[jails.a]\nincrement = { factor = 3 }\nfilter = \"f\"";
    let (config, origins, problems) = merge(&[
        source(Layer::Shipped, "s.toml", shipped),
        source(Layer::Main, "m.toml", main),
        source(Layer::Extra, "e.toml", extra),
    ]);
    assert_eq!(problems, []);
    let jail = |name: &str| &config.jails[&name.parse().unwrap()];
    let (a, b) = (jail("a"), jail("b"));
    assert_eq!((a.maxretry, a.filter.as_str(), a.log), (1, "f", Log::Error));
    assert_eq!(a.bantime, Some(Duration::from_secs(7_200)));
    assert_eq!(a.findtime, Duration::from_secs(60));
    let increment = a.increment.as_ref().unwrap();
    assert_eq!(increment.factor, Some(3.0));
    assert_eq!(increment.maxtime.as_secs(), 1_209_600);
    assert_eq!(
        (b.maxretry, b.filter.as_str(), &b.port),
        (9, "b", &Ports::All)
    );
    assert_eq!(b.vhost, ["shop.example.org"]);
    for (key, expected) in [
        ("maxretry", Some(("s.toml", 3))),
        ("bantime", Some(("m.toml", 2))),
        ("filter", Some(("e.toml", 5))),
        ("weight", None),
    ] {
        let origin = origins.of("a", key);
        let origin = origin.map(|(file, place)| (file.to_str().unwrap(), place.0));
        assert_eq!(origin, expected, "{key}");
    }
}

#[test]
fn maxtime_never_shortens_the_first_ban() {
    let longest = |bantime: &str| {
        let increment = "increment = { maxtime = \"1w\" }";
        let text = format!("[jails.a]\nlog = \"error\"\nbantime = \"{bantime}\"\n{increment}");
        let increment = read(&text).0.jails[&"a".parse().unwrap()].increment.clone();
        increment.map(|increment| increment.maxtime.as_secs())
    };
    assert_eq!(longest("1h"), Some(604_800));
    assert_eq!(longest("365d"), Some(31_536_000));
    assert_eq!(longest("permanent"), None);
}

#[test]
fn ports_are_names_numbers_or_all() {
    let list = |tcp: &[u16], udp: &[u16]| Ports::List {
        tcp: tcp.iter().copied().collect(),
        udp: udp.iter().copied().collect(),
    };
    for (text, expected) in [
        ("[\"http\", \"https\"]", list(&[80, 443], &[443])),
        ("\"http,https\"", list(&[80, 443], &[443])),
        ("8080", list(&[8080], &[])),
        ("[\"ssh\", 8080]", list(&[22, 8080], &[])),
        ("\"all\"", Ports::AllButSsh),
        ("[\"all\", \"ssh\"]", Ports::All),
    ] {
        let (config, _) = read(&format!("[defaults]\nport = {text}"));
        assert_eq!(config.defaults.port, expected, "{text}");
    }
}

#[test]
fn networks_are_masked_and_unmapped() {
    let (config, origins) = read(
        "[defaults]\nignoreip = \"192.0.2.77/24 ::ffff:203.0.113.9, 2001:db8::1/64 /a/b Office.example\"\n\
         [proxies]\ntrusted = [\"198.51.100.0/24\", \"cloudflare\"]",
    );
    let shown: Vec<String> = config
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
    let expected = Paths {
        runtime: "/r".into(),
        user: "u".into(),
        ..Paths::default()
    };
    assert_eq!(paths_in(text), expected);
    assert_eq!(paths_in(""), Paths::default());
}

/// Each row shows its built-in value as its default, and reads it again.
fn check_rows<T: Default>(section: &str, rows: &[Row<T>]) {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "[{section}] names a key twice");
    let mut value = T::default();
    for row in rows {
        let at = format!("[{section}] {}", row.name);
        assert!(
            !row.help.is_empty() && !row.help.ends_with('.'),
            "{at}: help"
        );
        // These two have no default.
        if section == "defaults" && ["log", "filter"].contains(&row.name) {
            continue;
        }
        assert_eq!((row.show)(&value), row.default, "{at}");
        let (members, errors) = document::parse(&format!("x = {}", row.default));
        assert_eq!(errors, [], "{at}");
        let (mut found, mut warnings) = (Vec::new(), Vec::new());
        let mut faults = row::Faults {
            file: Path::new("x"),
            found: &mut found,
            warnings: &mut warnings,
        };
        // A program cannot be left out, so `ban = []` is refused.
        if ["firewall.command"].contains(&section) && ["ban", "unban"].contains(&row.name) {
            continue;
        }
        (row.set)(&mut value, &members[0].value, &mut faults);
        assert_eq!(found, [], "{at}");
        assert_eq!(
            (row.show)(&value).contains(row.default),
            row.name != "command",
            "{at}"
        );
    }
}

#[test]
fn every_row_shows_its_default_and_reads_it_again() {
    check_rows("paths", PATHS);
    check_rows("firewall", FIREWALL);
    check_rows("firewall.command", COMMAND);
    check_rows("syslog", SYSLOG);
    check_rows("proxies", PROXIES);
    check_rows("defaults", JAIL);
    check_rows("increment", INCREMENT);
}

/// The jail with defaults of `increment.factor` written out.
fn explicit(jail: &Jail) -> Jail {
    let mut jail = jail.clone();
    if let Some(increment) = &mut jail.increment {
        let default = if increment.multipliers.is_empty() {
            2.0
        } else {
            1.0
        };
        increment.factor = increment.factor.or(Some(default));
    }
    jail
}

proptest! {
    #[test]
    fn show_jail_prints_what_reads_as_the_same_jail(
        (maxretry, findtime, bantime, prefix) in (1..1000u32, 1..10_000_000u64, proptest::option::of(1..10_000_000u64), 48..=128u8),
        port in prop::sample::select(vec!["\"all\"", "[\"ssh\", \"all\"]", "[8080, 443, \"http\"]", "[\"https\", 22]"]),
        (factor, increments) in (1.0..1000.0f64, any::<bool>()),
        (access, enforce) in (any::<bool>(), any::<bool>()),
    ) {
        let log = if access { "access\"\nvhost = [\"a.example\", \"*.b\"]\nnot_vhost = \"c" } else { "error" };
        let increment = match (increments, enforce) {
            (true, true) => format!("{{ factor = {factor} }}"),
            (true, false) => "{ multipliers = \"1 5 30\", rndtime = \"90\", overalljails = true }".into(),
            _ => "false".into(),
        };
        let bantime = bantime.map_or("-1".to_owned(), |time| time.to_string());
        let (config, origins) = read(&format!(
            "[jails.\"a.b\"]\nlog = \"{log}\"\nmaxretry = {maxretry}\nfindtime = {findtime}\nbantime = {bantime}\nipv6_prefix = {prefix}\nport = {port}\nincrement = {increment}\nenforce = {enforce}\nignoreip = \"192.0.2.1 2001:db8::/32 /a office.example\"\nfilter = 'x[mode=\"a\\b\"]'\non_ban = [\"/b\", \"{{host}}\\n\\\\\\u0085\"]\nhook_timeout = 90\n"
        ));
        let name = "a.b".parse().unwrap();
        let shown = show_jail(&config, &origins, &name).unwrap();
        prop_assert_eq!(&read(&shown).0.jails[&name], &explicit(&config.jails[&name]), "{}", shown);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\[[a-z.\"]{0,12}\\]\n|[a-z]{1,10} = [\\[\\]{}\"a-z0-9.,=-]{0,20}\n){0,8}") {
        let _ = merge_one(&text);
        let _ = paths_in(&text);
    }
}

#[test]
fn show_jail_names_the_file_and_line_of_each_key() {
    let (config, origins) = read("[jails.a]\nlog = \"error\"\n[defaults]\nweight = 2\n");
    let shown = show_jail(&config, &origins, &"a".parse().unwrap()).unwrap();
    for (start, end) in [
        ("log = \"error\" ", "# p.toml:2"),
        ("weight = 2 ", "# p.toml:4"),
        ("maxretry = 5 ", "# built in"),
    ] {
        let mut lines = shown.lines();
        assert!(
            lines.any(|line| line.starts_with(start) && line.ends_with(end)),
            "{shown}"
        );
    }
    assert_eq!(show_jail(&config, &origins, &"b".parse().unwrap()), None);
    assert_eq!(shown.lines().count(), 1 + JAIL.len());
}
