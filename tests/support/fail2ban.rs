//! fail2ban as its package has it, with its action for ufw, on the log that Apache writes itself.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::apache::ERROR_LOG;
use super::eventually;
use super::world::{FILTER, World};

const JAIL: &str = "force";
const CLIENT: [&str; 3] = ["env", "TZ=UTC", "fail2ban-client"];

/// A running server; the world ends it.
pub(crate) struct Fail2ban<'w>(&'w World);

impl<'w> Fail2ban<'w> {
    pub(crate) fn is_installed() -> bool {
        Path::new("/usr/bin/fail2ban-server").exists()
    }

    /// With one jail, which bans at the first attack, on a log that is there already.
    #[track_caller]
    pub(crate) fn start(world: &'w World) -> Fail2ban<'w> {
        world.must(&["sh", "-c", "rm -f /etc/fail2ban/jail.d/*"]);
        world.write(
            "/etc/fail2ban/jail.local",
            &format!(
                "[{JAIL}]\nenabled = true\nfilter = {JAIL}\nlogpath = {ERROR_LOG}\n\
                 backend = auto\nmaxretry = 1\nbantime = 365d\nbanaction = ufw\naction = ufw\n"
            ),
        );
        world.write(&format!("/etc/fail2ban/filter.d/{JAIL}.conf"), FILTER);
        world.must(&[
            "sh",
            "-c",
            "rm -f /var/lib/fail2ban/* /var/log/fail2ban.log",
        ]);
        world.must(&["mkdir", "-p", "/run/fail2ban", "/var/lib/fail2ban"]);
        let fail2ban = Fail2ban(world);
        fail2ban.run();
        fail2ban
    }

    /// Starts the server again.
    #[track_caller]
    pub(crate) fn run(&self) {
        self.client(&["start"]);
        eventually("fail2ban has its jail", || {
            let said = self.0.run(&[&CLIENT[..], &["status", JAIL]].concat());
            match said.status {
                0 => Ok(()),
                _ => Err(format!("{said:?}: {}", self.log())),
            }
        });
    }

    /// Ends the server; back when it is gone.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.client(&["stop"]);
        // It may take minutes: that is what is measured.
        while self.is_running() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn is_running(&self) -> bool {
        let all = self.0.processes();
        all.iter()
            .any(|process| process.name.starts_with("fail2ban-serv"))
    }

    #[track_caller]
    pub(crate) fn ban(&self, clients: &[String]) {
        let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
        self.client(&[&["set", JAIL, "banip"], &clients[..]].concat());
    }

    #[track_caller]
    fn client(&self, args: &[&str]) -> String {
        self.0.must(&[&CLIENT[..], args].concat())
    }

    fn log(&self) -> String {
        self.0.read("/var/log/fail2ban.log")
    }

    /// What it watches the log with.
    pub(crate) fn backend(&self) -> String {
        let log = self.log();
        let named = log
            .lines()
            .filter_map(|line| line.split_once("Initiated '")?.1.split_once('\''))
            .next();
        named.map_or("unknown".to_owned(), |(name, _)| name.to_owned())
    }

    /// When it decided to ban, in its own log's words.
    pub(crate) fn decided(&self, client: IpAddr) -> Option<Timestamp> {
        let ban = format!("[{JAIL}] Ban {client}");
        let log = self.log();
        let line = log.lines().find(|line| line.ends_with(&ban))?;
        let time = line.get(..23)?.replace(',', ".");
        let time: DateTime = time.parse().ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// How many bans ufw has.
    pub(crate) fn rules(&self) -> usize {
        self.0
            .read("/etc/ufw/user.rules")
            .matches("### tuple ### reject")
            .count()
    }
}
