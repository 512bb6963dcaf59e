//! Translates commands that people guess, above all those of fail2ban-client, to those of pipeban.

use super::test::habit;
use crate::host_commands::HostCommands;

const GET: &str = "pipeban status, or pipeban check --show JAIL";

/// The command of pipeban; `None`: an unknown one. `words` are the arguments without options.
pub(super) fn meant(words: &[String], host: HostCommands) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = match words.as_slice() {
        ["add", option, ..] if option.starts_with('-') => return None,
        ["set" | "get", option, ..] if option.starts_with('-') => GET.to_owned(),
        ["set", jail, "banip", who @ ..] if !who.is_empty() => {
            each("pipeban ban", who, &format!(" --jail {jail}"))
        }
        ["set", jail, "unbanip", who @ ..] if !who.is_empty() => {
            let who: Vec<&str> = who
                .iter()
                .copied()
                .filter(|word| !word.starts_with("--"))
                .collect();
            each("pipeban unban", &who, &format!(" --jail {jail}"))
        }
        ["set", _, "addignoreip", who @ ..] if !who.is_empty() => each("pipeban allow", who, ""),
        ["set", _, "delignoreip", who @ ..] if !who.is_empty() => each("pipeban disallow", who, ""),
        [
            "set",
            jail,
            key @ ("bantime" | "findtime" | "maxretry"),
            value,
        ] => {
            let value = if value.parse::<i64>().is_ok() {
                (*value).to_owned()
            } else {
                format!("\"{value}\"")
            };
            format!(
                "{key} = {value} under [jails.{jail}] in /etc/pipeban/pipeban.toml, then: pipeban reload"
            )
        }
        ["set", jail, ..] => {
            format!("the keys of [jails.{jail}] in /etc/pipeban/pipeban.toml, then: pipeban reload")
        }
        ["set" | "get"] => GET.to_owned(),
        ["get", "dbfile" | "dbpurgeage" | "dbmaxmatches", ..] => {
            "state under [paths], and keep under [store], in /etc/pipeban/pipeban.toml".to_owned()
        }
        ["get", "loglevel" | "logtarget" | "syslogsocket", ..] => {
            "[syslog] in /etc/pipeban/pipeban.toml".to_owned()
        }
        ["get", jail, "banned" | "banip", ..] => format!("pipeban status {jail}"),
        ["get", jail, ..] => format!("pipeban check --show {jail}"),
        ["banned" | "ping" | "stats" | "statistics", ..] => "pipeban status".to_owned(),
        ["status", "--all", ..] => "pipeban status".to_owned(),
        ["reload", first, ..] if is_reload_word(first) => "pipeban reload".to_owned(),
        ["banip", who @ ..] if !who.is_empty() => each("pipeban ban", who, ""),
        ["unbanip", who @ ..] if !who.is_empty() => each("pipeban unban", who, ""),
        ["start", jail] if !jail.starts_with('-') => format!(
            "enabled = true under [jails.{jail}] in /etc/pipeban/pipeban.toml, then: pipeban reload"
        ),
        ["stop", jail] if !jail.starts_with('-') => format!(
            "enabled = false under [jails.{jail}] in /etc/pipeban/pipeban.toml, then: pipeban reload"
        ),
        ["start", ..] => host.start_engine.to_owned(),
        ["stop", ..] => format!(
            "{} (bans stay in force), or pipeban off (lifts every ban)",
            host.stop_engine
        ),
        ["restart", ..] => format!("pipeban reload, or {}", host.restart_engine),
        ["add", jail, ..] => {
            format!("[jails.{jail}] in /etc/pipeban/pipeban.toml, then: pipeban reload")
        }
        ["regex" | "fail2ban-regex", words @ ..] => {
            habit::meant(words).unwrap_or_else(|| "pipeban test --filter FILTER FILE".to_owned())
        }
        ["test", words @ ..] => habit::meant(words)?,
        ["flushlogs", ..] => "nothing: log_file is reopened when it was rotated".to_owned(),
        ["version"] => "pipeban --version".to_owned(),
        ["uninstall" | "remove", ..] => "apt remove pipeban, where it is a package; else make \
                                         uninstall, in the directory of the source"
            .to_owned(),
        ["config", ..] => "pipeban check, or pipeban check --show JAIL".to_owned(),
        ["list", ..] => "pipeban status --all".to_owned(),
        ["history", ..] => "pipeban report".to_owned(),
        _ => return None,
    };
    Some(command)
}

/// fail2ban-client reloads one jail, or with these options.
fn is_reload_word(word: &str) -> bool {
    !word.starts_with('-') || ["--restart", "--unban", "--all", "--if-exists"].contains(&word)
}

fn each(command: &str, who: &[&str], rest: &str) -> String {
    let commands: Vec<String> = who
        .iter()
        .map(|who| format!("{command} {}{rest}", quoted(who)))
        .collect();
    commands.join(" && ")
}

/// Quoted for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:,@".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_fail2ban_has_one_of_pipeban() {
        for (typed, answer) in [
            (
                "set sshd unbanip 192.0.2.7",
                Some("pipeban unban 192.0.2.7 --jail sshd"),
            ),
            (
                "set sshd unbanip --report-absent 192.0.2.7",
                Some("pipeban unban 192.0.2.7 --jail sshd"),
            ),
            (
                "set a banip 192.0.2.7 2001:db8::1",
                Some("pipeban ban 192.0.2.7 --jail a && pipeban ban 2001:db8::1 --jail a"),
            ),
            (
                "set a addignoreip 192.0.2.7",
                Some("pipeban allow 192.0.2.7"),
            ),
            (
                "set a bantime -1",
                Some(
                    "bantime = -1 under [jails.a] in /etc/pipeban/pipeban.toml, then: pipeban reload",
                ),
            ),
            (
                "set a findtime 1h",
                Some(
                    "findtime = \"1h\" under [jails.a] in /etc/pipeban/pipeban.toml, then: pipeban reload",
                ),
            ),
            ("get a banned", Some("pipeban status a")),
            ("get a maxretry", Some("pipeban check --show a")),
            ("banned", Some("pipeban status")),
            ("banned 192.0.2.7", Some("pipeban status")),
            ("status --all", Some("pipeban status")),
            (
                "config",
                Some("pipeban check, or pipeban check --show JAIL"),
            ),
            ("list", Some("pipeban status --all")),
            ("history", Some("pipeban report")),
            ("set", Some(GET)),
            ("start", Some("systemctl start pipeban")),
            ("start --help", Some("systemctl start pipeban")),
            (
                "start a",
                Some(
                    "enabled = true under [jails.a] in /etc/pipeban/pipeban.toml, then: pipeban reload",
                ),
            ),
            (
                "stop",
                Some(
                    "systemctl stop pipeban (bans stay in force), or pipeban off (lifts every ban)",
                ),
            ),
            (
                "restart",
                Some("pipeban reload, or systemctl restart pipeban"),
            ),
            ("ping", Some("pipeban status")),
            ("reload a", Some("pipeban reload")),
            ("reload --unban a", Some("pipeban reload")),
            ("reload --jsn", None),
            (
                "get dbfile",
                Some("state under [paths], and keep under [store], in /etc/pipeban/pipeban.toml"),
            ),
            (
                "get logtarget",
                Some("[syslog] in /etc/pipeban/pipeban.toml"),
            ),
            ("get --help", Some(GET)),
            ("add --help", None),
            ("unban --all 192.0.2.7", None),
            ("get a bantime", Some("pipeban check --show a")),
            (
                "regex /var/log/x.log a[b=c]",
                Some("pipeban test --filter 'a[b=c]' /var/log/x.log"),
            ),
            (
                "test x.log apache-auth",
                Some("pipeban test --filter apache-auth x.log"),
            ),
            ("test --flie x.log", None),
            ("nonsense", None),
            ("", None),
        ] {
            let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
            assert_eq!(
                meant(&words, HostCommands::default()).as_deref(),
                answer,
                "{typed}"
            );
        }
    }
}
