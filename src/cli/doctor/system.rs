//! The host: configuration files, disk, syslog, clock, fail2ban.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;

use super::host::Host;
use super::outcome::{Outcome, broken, ok, warning};
use crate::config::SyslogTarget;
use crate::sys::{program, systemd};
use crate::{alert, control, disk};

pub(super) const NEEDS_ROOT: &str = "only root can ask the firewall";

pub(super) fn configuration(host: &Host) -> Vec<Outcome> {
    let config = match &host.files {
        Ok(config) => config,
        Err(problems) => {
            let first = problems
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let text = format!(
                "{} errors, the first: {first}; the last good configuration stays in use",
                problems.len()
            );
            let check = host.pipeban("check");
            return vec![broken(
                text,
                Some(format!("{check}; {}", host.pipeban("reload"))),
            )];
        }
    };
    let enabled = config.jails.values().filter(|jail| jail.enabled).count();
    let hash = serde_json::to_string(config).map(control::config_hash);
    if let (Ok(known), Ok(hash)) = (&host.engine, &hash)
        && known.engine.config != *hash
    {
        let text = "the engine uses an older configuration than the files have";
        return vec![warning(text, Some(host.pipeban("reload")))];
    }
    if enabled == 0 {
        return vec![broken("no jail is enabled", None)];
    }
    vec![ok(format!("{enabled} jails are enabled"))]
}

/// Files and directories that steer root must not be another user's.
pub(super) fn owners(host: &Host) -> Vec<Outcome> {
    let files = disk::changeable_by_others(&host.config_file);
    let directories = [&host.paths.state, &host.paths.runtime];
    let directories = directories.into_iter().filter_map(|directory| {
        let found = directory.metadata().ok()?;
        // The engine may own them, and not what is above them.
        let engines = host.engine_uids.contains(&found.uid()) && found.mode() & 0o022 == 0;
        let checked = if engines {
            directory.parent()?
        } else {
            directory
        };
        disk::check_directory(checked).err()
    });
    let texts = files.iter().map(ToString::to_string);
    let texts = texts.chain(directories.map(|error| error.to_string()));
    let wrong: Vec<Outcome> = texts
        .map(|text| {
            // The text names the command.
            let command = text.split_once("type `").map(|(_, rest)| rest);
            let command = command.and_then(|rest| rest.split('`').next());
            let fix = command.map(str::to_owned);
            broken(text, fix)
        })
        .collect();
    match wrong.is_empty() {
        true => vec![ok("only root can change the configuration")],
        false => wrong,
    }
}

/// Bytes below which a disk is nearly full, and full.
const LITTLE: u64 = 256 << 20;
const NOTHING: u64 = 4 << 20;

pub(super) fn disk(host: &Host) -> Vec<Outcome> {
    let mut places = vec![host.paths.state.clone()];
    if let Some(scan) = &host.scan {
        let logs = scan.logs().into_iter();
        let files = logs.filter(|log| log.piped).filter_map(|log| log.file);
        places.extend(files.filter_map(|file| Some(file.parent()?.to_owned())));
    }
    places.sort();
    places.dedup();
    let mut full: Vec<Outcome> = places.iter().filter_map(|place| space(place)).collect();
    if full.is_empty() {
        full.push(ok("there is space for the database and the logs"));
    }
    full
}

fn space(place: &Path) -> Option<Outcome> {
    let found = statvfs(place).ok()?;
    let free = found.blocks_available() * found.fragment_size();
    // Some file systems have no limit on files, and say 0 of 0.
    let no_file = found.files() > 0 && found.files_available() == 0;
    let shown = place.display();
    let fix = Some(format!("du -xh {shown} | sort -h | tail"));
    match (free < NOTHING || no_file, free < LITTLE) {
        (true, _) => Some(broken(format!("the disk of {shown} is full"), fix)),
        (false, true) => {
            let text = format!("the disk of {shown} has {} MiB left", free >> 20);
            Some(warning(text, fix))
        }
        (false, false) => None,
    }
}

pub(super) fn syslog(host: &Host) -> Vec<Outcome> {
    let target = &host.config.syslog.target;
    let shown = match target {
        SyslogTarget::Unix(path) => path.display().to_string(),
        SyslogTarget::Udp(address) => address.to_string(),
        SyslogTarget::None => return vec![ok("not used: the target is none")],
    };
    vec![match alert::reachable(target) {
        Ok(()) => ok(format!("a daemon listens at {shown}")),
        Err(error) => {
            let fix = match (systemd::runs(), Path::new("/usr/sbin/rsyslogd").exists()) {
                (true, true) => "systemctl restart rsyslog",
                (true, false) => "systemctl restart systemd-journald.socket systemd-journald",
                (false, true) => "rsyslogd",
                (false, false) => "apt-get install rsyslog",
            };
            let text = format!("no daemon listens at {shown}: {error}; bans are not logged there");
            warning(text, Some(fix.to_owned()))
        }
    }]
}

/// A clock that is wrong by less makes no difference.
const TOLERANCE: Duration = Duration::from_secs(600);

pub(super) fn clock(host: &Host) -> Vec<Outcome> {
    let now = SystemTime::now();
    let written = std::env::current_exe().and_then(fs::metadata);
    let written = written.and_then(|file| file.modified()).ok();
    let started = host
        .engine
        .as_ref()
        .ok()
        .map(|known| known.engine.since.into());
    let fix = || {
        Some(match systemd::runs() {
            true => "timedatectl set-ntp true".to_owned(),
            false => "apt-get install chrony".to_owned(),
        })
    };
    for (since, what) in [(written, "was installed"), (started, "was started")] {
        let ahead = since.and_then(|since: SystemTime| since.duration_since(now).ok());
        if ahead.is_some_and(|ahead| ahead > TOLERANCE) {
            let text = format!("the clock is wrong: by it, pipeban {what} in the future");
            return vec![warning(text, fix())];
        }
    }
    vec![ok("the clock is plausible")]
}

/// fail2ban's answer takes 0.3 s.
const FAIL2BAN: Duration = Duration::from_millis(800);

pub(super) fn fail2ban(host: &Host) -> Vec<Outcome> {
    let server = |name: &str| name.starts_with("fail2ban-serv");
    let runs = host.processes.iter().any(|process| {
        server(&process.name)
            || process
                .argv
                .iter()
                .any(|word| word.ends_with("fail2ban-server"))
    });
    if !runs {
        return vec![ok("fail2ban is not running")];
    }
    let client = "/usr/bin/fail2ban-client";
    let said = program::run(
        client,
        &["status".to_owned()],
        String::new(),
        FAIL2BAN,
        &|| false,
    );
    let jails = jails_of_apache(&said.unwrap_or_default());
    if jails.is_empty() {
        return vec![ok("fail2ban runs, and none of its jails is for Apache")];
    }
    let stop: Vec<String> = jails
        .iter()
        .map(|jail| format!("fail2ban-client stop {jail}"))
        .collect();
    vec![warning(
        format!(
            "fail2ban also bans by Apache's logs (jails {}): switch them off in its configuration too",
            jails.join(", ")
        ),
        Some(stop.join("; ")),
    )]
}

/// Of `fail2ban-client status`.
fn jails_of_apache(said: &str) -> Vec<String> {
    let list = said.lines().find_map(|line| line.split_once("Jail list:"));
    let names = list
        .map_or("", |(_, names)| names)
        .split(',')
        .map(str::trim);
    let ours = [
        "apache",
        "php-url",
        "roundcube",
        "drupal",
        "wordpress",
        "wp-",
    ];
    names
        .filter(|name| ours.iter().any(|ours| name.starts_with(ours)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fail2bans_jails_for_apache_are_found() {
        let said =
            "Status\n|- Number of jail:\t3\n`- Jail list:\tapache-auth, sshd, php-url-fopen\n";
        assert_eq!(jails_of_apache(said), ["apache-auth", "php-url-fopen"]);
        assert!(jails_of_apache("`- Jail list:\t\n").is_empty());
        assert!(jails_of_apache("").is_empty());
    }
}
