//! `pipeban migrate`

mod overlay;

use std::fs::{self, OpenOptions};
use std::io::{self, Cursor, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::exit::Exit;
use super::global::Global;
use super::{ask, import, problems, test};
use crate::apache;
use crate::config::{self, Config};
use crate::disk::{self, OnDisk};
use crate::filter::{FilterFiles as _, Settings};
use crate::migrate::{self, Host, Migration, Text};
use crate::record::Kind;
use crate::store;
use crate::sys::systemd;
use overlay::Overlay;

/// Name of the new file where none is given.
const FILE: &str = "fail2ban.toml";

/// Turn fail2ban's configuration into one for pipeban
///
/// Reads jail.conf, jail.d and jail.local as fail2ban does, and prints a configuration with the
/// enabled jails that read Apache's logs: their filters, times, ports and ignoreip. Comments say what
/// is different, and which jails stay with fail2ban and why. Lines to type switch the others off.
/// fail2ban's files are not changed. The exit status is 1 if no jail reads a log of Apache.
///
/// pipeban uses fail2ban's filters where they are. Where it would find another filter of that name,
/// or the jail sets its own patterns, --output also writes a copy to filters.d. It replaces no file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban migrate\n  \
    pipeban migrate -o /etc/pipeban/conf.d/fail2ban.toml\n  \
    pipeban check && pipeban reload\n  \
    pipeban migrate --bans")]
pub(super) struct Args {
    /// fail2ban's directory
    #[arg(value_name = "DIRECTORY", default_value = "/etc/fail2ban")]
    directory: PathBuf,
    /// Write the configuration to this new file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Import the bans in force of these jails from fail2ban's database, which is only read; each
    /// keeps its end
    #[arg(long, conflicts_with = "output")]
    bans: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let known = disk::load(&global.config).unwrap_or_else(|_| Config::default());
    let mut migration = match plan(&args.directory, global, &known) {
        Ok(migration) => migration,
        Err(found) => {
            problems::print(&found);
            return Exit::Config;
        }
    };
    if args.bans {
        return bans(args, global, &migration);
    }
    // A list of the administrator's is not replaced.
    let add_cloudflare = migration.cloudflare && !known.trusted_proxies.is_empty();
    migration.cloudflare &= known.trusted_proxies.is_empty();
    let text = as_text(&migration).toml();
    let exit = match &args.output {
        Some(file) => write(file, &text, &migration, global),
        None => Exit::Yes,
    };
    if exit != Exit::Yes {
        return exit;
    }
    show(args, global, &migration, &text);
    if add_cloudflare {
        eprintln!(
            "pipeban: add \"cloudflare\" to `trusted` under [proxies]: Cloudflare's addresses must never be banned"
        );
    }
    let name = args.output.as_deref().unwrap_or(Path::new(FILE));
    let wrong = Overlay::new(global, name, &text, &migration).problems();
    if !wrong.is_empty() {
        eprintln!("pipeban: correct this before `pipeban reload`:");
        problems::print(&wrong);
    }
    if migration.moved.is_empty() {
        Exit::No
    } else {
        Exit::Yes
    }
}

fn plan(
    directory: &Path,
    global: &Global,
    known: &Config,
) -> Result<Migration, Vec<config::Problem>> {
    let logs = apache::scan(None).map_or_else(|_| Vec::new(), |scan| scan.log_files());
    let kinds = |pattern: &Path| {
        let mut kinds: Vec<Kind> = Vec::new();
        for (file, kind) in &logs {
            if apache::covers(pattern, file) && !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        kinds
    };
    let services = OnDisk.read(Path::new("/etc/services")).unwrap_or_default();
    let defaults = &known.defaults;
    let networks = defaults.ignoreip.iter().map(ToString::to_string);
    let files = defaults
        .ignore_files
        .iter()
        .map(|file| file.display().to_string());
    let names = defaults.ignore_names.iter().cloned();
    let host = Host {
        logs: &kinds,
        filter: &|name| test::named(name, global, None).ok(),
        service: &|name| tcp_port(&services, name),
        ignoreip: networks.chain(files).chain(names).collect(),
    };
    migrate::plan(directory, &host, &OnDisk)
}

/// The tcp port of a service in the text of /etc/services.
fn tcp_port(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let port = port.strip_suffix("/tcp")?;
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// `filters.d` beside the configuration.
fn filters(global: &Global) -> PathBuf {
    global.config.with_file_name("filters.d")
}

/// The copies of filters: their files and texts, each once.
fn copies<'a>(global: &Global, migration: &'a Migration) -> Vec<(PathBuf, &'a str)> {
    let mut copies: Vec<(PathBuf, &str)> = Vec::new();
    for (name, text) in migration
        .moved
        .iter()
        .filter_map(|moved| moved.copy.as_ref())
    {
        let file = filters(global).join(format!("{name}.conf"));
        if !copies.iter().any(|(known, _)| *known == file) {
            copies.push((file, text));
        }
    }
    copies
}

/// Writes the configuration and the copies, or nothing if one of the files exists.
fn write(file: &Path, text: &str, migration: &Migration, global: &Global) -> Exit {
    if migration.moved.is_empty() {
        return Exit::Yes;
    }
    let copies = copies(global, migration);
    let is_new = |(file, text): &(PathBuf, &str)| {
        fs::read_to_string(file).map_or(true, |found| found != *text)
    };
    let missing: Vec<_> = copies.into_iter().filter(is_new).collect();
    let mut all: Vec<(&Path, &str)> = missing
        .iter()
        .map(|(file, text)| (&**file, *text))
        .collect();
    all.push((file, text));
    if let Some((taken, _)) = all
        .iter()
        .find(|(file, _)| fs::symlink_metadata(file).is_ok())
    {
        ask::complain(
            global,
            &format!(
                "{} exists, and is not replaced: move it away, or name another file",
                taken.display()
            ),
        );
        return Exit::Failed;
    }
    for (file, text) in all {
        if let Err(error) = create(file, text) {
            ask::complain(global, &format!("cannot write {}: {error}", file.display()));
            return Exit::Failed;
        }
    }
    Exit::Yes
}

fn create(file: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut new = OpenOptions::new().write(true).create_new(true).open(file)?;
    new.write_all(text.as_bytes())
}

fn as_text(migration: &Migration) -> Text<'_> {
    Text {
        migration,
        commands: systemd::commands(),
    }
}

fn show(args: &Args, global: &Global, migration: &Migration, text: &str) {
    let copies = copies(global, migration);
    let files = copies.iter().map(|(file, _)| file.display().to_string());
    let files: Vec<String> = files.collect();
    if global.json {
        for moved in &migration.moved {
            ask::print(
                &json!({
                    "jail": moved.from.jail, "migrated": true, "to": moved.name, "log": moved.log,
                    "filter": moved.filter, "enforce": !moved.observes, "partly": moved.partly, "notes": moved.notes,
                })
                .to_string(),
            );
        }
        for kept in &migration.kept {
            let why = &kept.why;
            ask::print(&json!({"jail": kept.from.jail, "migrated": false, "why": why}).to_string());
        }
        ask::print(&json!({"file": args.output, "filters": files, "toml": text}).to_string());
        return;
    }
    let Some(output) = &args.output else {
        ask::print(text.trim_end());
        if !files.is_empty() {
            eprintln!(
                "pipeban: this needs {}, which `-o /etc/pipeban/conf.d/{FILE}` writes, too",
                files.join(" and ")
            );
        }
        return;
    };
    ask::print(as_text(migration).advice().trim_end());
    if migration.moved.is_empty() {
        return;
    }
    ask::print("");
    for file in files.iter().chain([&output.display().to_string()]) {
        ask::print(&format!("wrote {file}"));
    }
    ask::print("next: pipeban check && pipeban reload");
}

/// Imports the bans in force of the jails that move.
fn bans(args: &Args, global: &Global, migration: &Migration) -> Exit {
    let fail2ban = Settings::read(&args.directory.join("fail2ban.conf"), &OnDisk).ok();
    let file = fail2ban.and_then(|fail2ban| fail2ban.value("Definition", "dbfile").ok()?);
    let file = file.map_or_else(
        || "/var/lib/fail2ban/fail2ban.sqlite3".into(),
        |file| file.text,
    );
    let found = match store::fail2ban_bans(Path::new(&file), Timestamp::now()) {
        Ok(found) => found,
        Err(error) => {
            ask::complain(
                global,
                &format!("cannot read fail2ban's bans in {file}: {error}"),
            );
            return Exit::Failed;
        }
    };
    let mut lines = String::new();
    let mut left = 0;
    for ban in &found {
        let Some(jail) = migration.successor(&ban.jail) else {
            left += 1;
            continue;
        };
        let reason = format!("fail2ban's {}, ban {}", ban.jail, ban.count);
        let line = json!({
            "host": ban.host, "jail": jail, "since": ban.since, "until": ban.until,
            "reason": reason,
        });
        lines += &format!("{line}\n");
    }
    if left > 0 {
        eprintln!("pipeban: {left} bans of other jails stay with fail2ban");
    }
    import::read(global, file, Box::new(Cursor::new(lines)), None, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_tcp_ports() {
        let services =
            "# services\nhttp 80/tcp www # web\nhttp-alt\t8080/tcp webcache\nntp 123/udp\n";
        for (name, port) in [
            ("www", Some(80)),
            ("webcache", Some(8080)),
            ("ntp", None),
            ("x", None),
        ] {
            assert_eq!(tcp_port(services, name), port, "{name}");
        }
    }
}
