//! A checked jail back into text: what is in force, and where each key comes from.

use super::{Config, Increment, Jail, JailName, Log, Origins, Ports, duration, jail_keys};

/// The jail as TOML that [`super::load`] reads again to the same jail; behind each key the file
/// and line it comes from. `None`: no such jail.
pub fn show_jail(config: &Config, origins: &Origins, name: &JailName) -> Option<String> {
    let jail = config.jails.get(name)?;
    let mut text = format!("[jails.{}]\n", quoted_key(name.as_str()));
    // Bans are counted without a filter.
    let keys = jail_keys().filter(|key| jail.log != Log::Bans || *key != "filter");
    for key in keys {
        let from = origins
            .of(name.as_str(), key)
            .map_or("built in".to_owned(), |(file, place)| {
                format!("{}:{}", file.display(), place.0)
            });
        let line = format!("{key} = {}", value(jail, key));
        text.push_str(&format!("{line:<40} # {from}\n"));
    }
    if let Some(filter) = config.filters.get(&jail.filter) {
        text.push_str(&format!("# filter file: {}\n", filter.file.display()));
    }
    Some(text)
}

/// A bare key must not have dots in it.
fn quoted_key(name: &str) -> String {
    if name.contains('.') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}

fn value(jail: &Jail, key: &str) -> String {
    match key {
        "enabled" => jail.enabled.to_string(),
        "enforce" => jail.enforce.to_string(),
        "log" => text(&jail.log.to_string()),
        "filter" => text(&jail.filter),
        "maxretry" => jail.maxretry.to_string(),
        "findtime" => text(&duration::show(Some(jail.findtime))),
        "bantime" => text(
            &jail
                .bantime
                .map_or("permanent".into(), |time| duration::show(Some(time))),
        ),
        "port" => ports(&jail.port),
        "ignoreip" => list(
            jail.ignoreip
                .iter()
                .map(ToString::to_string)
                .chain(
                    jail.ignore_files
                        .iter()
                        .map(|file| file.display().to_string()),
                )
                .chain(jail.ignore_names.iter().cloned()),
        ),
        "ignoreself" => jail.ignoreself.to_string(),
        "ignore_ssh_logins" => jail
            .ignore_ssh_logins
            .map_or("false".into(), |time| text(&duration::show(Some(time)))),
        "ipv4_prefix" => jail.ipv4_prefix.to_string(),
        "ipv6_prefix" => jail.ipv6_prefix.to_string(),
        "ban_private" => jail.ban_private.to_string(),
        "weight" => jail.weight.to_string(),
        "bans_per_minute" => jail.bans_per_minute.to_string(),
        "vhost" => list(jail.vhost.iter().cloned()),
        "not_vhost" => list(jail.not_vhost.iter().cloned()),
        "increment" => jail.increment.as_ref().map_or("false".into(), increment),
        "on_ban" => list(jail.hooks.on_ban.iter().cloned()),
        "on_unban" => list(jail.hooks.on_unban.iter().cloned()),
        "hook_timeout" => text(&duration::show(Some(jail.hooks.timeout))),
        _ => String::new(),
    }
}

/// Options of a filter may hold quotes and backslashes, arguments of a program anything.
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' | '"' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!(
        "[{}]",
        items.map(|item| text(&item)).collect::<Vec<_>>().join(", ")
    )
}

fn increment(increment: &Increment) -> String {
    let time = |time| text(&duration::show(Some(time)));
    let mut parts = Vec::new();
    parts.extend(increment.factor.map(|factor| format!("factor = {factor}")));
    if !increment.multipliers.is_empty() {
        parts.push(format!("multipliers = {:?}", increment.multipliers));
    }
    parts.push(format!("maxtime = {}", time(increment.maxtime)));
    if !increment.rndtime.is_zero() {
        parts.push(format!("rndtime = {}", time(increment.rndtime)));
    }
    if increment.overalljails {
        parts.push("overalljails = true".into());
    }
    parts.push(format!("memory = {}", time(increment.memory)));
    format!("{{ {} }}", parts.join(", "))
}

fn ports(ports: &Ports) -> String {
    let (tcp, udp) = match ports {
        Ports::All => return "[\"all\", \"ssh\"]".into(),
        Ports::AllButSsh => return "[\"all\"]".into(),
        Ports::List { tcp, udp } => (tcp, udp),
    };
    let words = tcp.iter().map(|port| match port {
        80 => text("http"),
        443 if udp.contains(&443) => text("https"),
        22 => text("ssh"),
        port => port.to_string(),
    });
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::merge::{Layer, Source, merge};
    use super::*;

    fn read(text: &str) -> (Config, Origins) {
        let source = Source {
            layer: Layer::Main,
            file: "p.toml".into(),
            text: text.into(),
        };
        let (config, origins, problems) = merge(&[source]);
        assert_eq!(problems, [], "{text}");
        (config, origins)
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again_to_the_same_jail(
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
                "[jails.\"a.b\"]\nlog = \"{log}\"\nmaxretry = {maxretry}\nfindtime = {findtime}\nbantime = {bantime}\nipv6_prefix = {prefix}\nport = {port}\nincrement = {increment}\nenforce = {enforce}\nignoreip = \"192.0.2.1 2001:db8::/32 /a office.example\"\nignore_ssh_logins = \"7d\"\nfilter = 'x[mode=\"a\\b\"]'\non_ban = [\"/b\", \"{{host}}\\n\\\\\\u0085\"]\nhook_timeout = 90\n"
            ));
            let name = "a.b".parse().unwrap();
            let shown = show_jail(&config, &origins, &name).unwrap();
            prop_assert_eq!(&read(&shown).0.jails[&name], &config.jails[&name], "{}", shown);
        }
    }

    #[test]
    fn each_key_names_its_file_and_line() {
        let (config, origins) = read("[jails.a]\nlog = \"error\"\n[defaults]\nweight = 2\n");
        let shown = show_jail(&config, &origins, &"a".parse().unwrap()).unwrap();
        for (start, end) in [
            ("log = \"error\" ", "# p.toml:2"),
            ("weight = 2 ", "# p.toml:4"),
            ("maxretry = 5 ", "# built in"),
        ] {
            assert!(
                shown
                    .lines()
                    .any(|line| line.starts_with(start) && line.ends_with(end)),
                "{shown}"
            );
        }
        assert_eq!(show_jail(&config, &origins, &"b".parse().unwrap()), None);
        assert_eq!(shown.lines().count(), 1 + jail_keys().count());
    }
}
