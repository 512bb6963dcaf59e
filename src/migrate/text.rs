//! The migration as a file for pipeban, and as advice for the administrator.

use std::fmt::Write as _;

use super::model::{Migration, Moved, show};
use super::values::quoted;
use crate::config::Log;
use crate::host_commands::HostCommands;
use crate::record::display_lines;

/// Columns of a comment.
const WIDTH: usize = 96;

/// A migration as text.
pub struct Text<'a> {
    /// What is written.
    pub migration: &'a Migration,
    /// How services are stopped on this host.
    pub commands: HostCommands,
}

impl Text<'_> {
    /// The configuration, with comments.
    pub fn toml(&self) -> String {
        let migration = self.migration;
        let directory = migration.directory.display();
        let mut text = String::new();
        comment(
            &mut text,
            &format!(
                "From fail2ban's configuration in {directory}, by `pipeban migrate`. pipeban's \
                 shipped jails stay as they are; `pipeban check` shows what is on."
            ),
        );
        text.push_str("#\n");
        for line in self.advice().lines() {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        }
        if !migration.ignoreip.is_empty() {
            text.push_str("\n# fail2ban's ignoreip, for all jails.\n[defaults]\n");
            let _ = writeln!(text, "ignoreip = {}", list(&migration.ignoreip));
        }
        if migration.cloudflare {
            text.push_str("\n# Requests come through Cloudflare, which must never be banned.\n");
            text.push_str("[proxies]\ntrusted = [\"cloudflare\"]\n");
        }
        for moved in &migration.moved {
            text.push('\n');
            self.jail(&mut text, moved);
        }
        // Values hold no such characters, and TOML allows none in comments.
        display_lines(&text)
    }

    fn jail(&self, text: &mut String, moved: &Moved) {
        let place = self.migration.place(&moved.from);
        let paths = moved.paths.join(", ");
        comment(
            text,
            &format!("[{}] in {place}, for {paths}", moved.from.jail),
        );
        for note in &moved.notes {
            comment(text, &format!("- {note}"));
        }
        let name = moved.name.as_str();
        let name = if name.contains('.') {
            quoted(name)
        } else {
            name.to_owned()
        };
        let _ = writeln!(text, "[jails.{name}]");
        let mut key = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<9} = {value}");
        };
        key("enabled", "true");
        if moved.observes {
            key("enforce", "false");
        }
        key("log", &quoted(&moved.log.to_string()));
        if moved.log != Log::Bans {
            key("filter", &quoted(&moved.filter));
        }
        if moved.bans_fake {
            key("search_engines", &quoted("ban-fake"));
        }
        key("maxretry", &moved.maxretry.to_string());
        key("findtime", &show(moved.findtime));
        key("bantime", &show(moved.bantime));
        key("port", &moved.port);
        key("increment", &moved.increment);
        if !moved.ignoreip.is_empty() {
            key("ignoreip", &list(&moved.ignoreip));
        }
        for hook in &moved.hooks {
            let _ = writeln!(text, "# {hook}");
        }
    }

    /// What stays with fail2ban and why, and the lines to type.
    pub fn advice(&self) -> String {
        let migration = self.migration;
        let mut text = String::new();
        if migration.moved.is_empty() {
            text.push_str("No enabled jail of fail2ban reads a log of Apache.\n");
        } else {
            let all = migration.moved.iter();
            let from = |moved: &Moved| match moved.from.jail == moved.name.as_str() {
                true => moved.name.to_string(),
                false => format!("{} (from {})", moved.name, moved.from.jail),
            };
            let names: Vec<String> = all.map(from).collect();
            let _ = writeln!(text, "Jails for pipeban: {}", names.join(", "));
        }
        if !migration.kept.is_empty() {
            text.push_str("\nThese stay with fail2ban:\n");
            for kept in &migration.kept {
                let mut lines = wrapped(&format!("{}: {}", kept.from.jail, kept.why), WIDTH - 4);
                let _ = writeln!(text, "  {}", lines.remove(0));
                for line in lines {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
        let off = migration.switched_off();
        if off.is_empty() {
            return text;
        }
        let import = match migration.directory.to_str() {
            Some("/etc/fail2ban") | None => "pipeban migrate --bans".to_owned(),
            Some(directory) => format!("pipeban migrate {directory} --bans"),
        };
        if migration.is_whole() {
            text.push_str("\nNothing is left for fail2ban. When pipeban runs:\n\n");
            let switch_off = self.commands.switch_off_fail2ban;
            let _ = writeln!(text, "    {import}\n    {switch_off}");
            return text;
        }
        text.push_str(
            "\nWhen pipeban runs, import the bans in force and switch off fail2ban's jails:\n\n",
        );
        let file = migration.directory.join("jail.d/zz-pipeban.local");
        let _ = writeln!(text, "    {import}");
        let _ = writeln!(text, "    cat >>{} <<'END'", file.display());
        for jail in off {
            let _ = writeln!(text, "    [{jail}]\n    enabled = false");
        }
        text.push_str("    END\n    fail2ban-client reload\n");
        text
    }
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// Comment lines; what follows the first is indented below a `- `.
fn comment(text: &mut String, comment: &str) {
    let hang = if comment.starts_with("- ") { "  " } else { "" };
    let lines = wrapped(comment, WIDTH - 2 - hang.len());
    for (number, line) in lines.iter().enumerate() {
        let hang = if number == 0 { "" } else { hang };
        let _ = writeln!(text, "# {hang}{line}");
    }
}

/// Lines of at most `width` columns, broken at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else {
            continue;
        };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
