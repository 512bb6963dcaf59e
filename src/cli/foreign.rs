//! Filters of fail2ban that read other programs' logs.

use crate::config::Config;

/// The fronts of their names.
const PROGRAMS: [&str; 38] = [
    "sshd",
    "dropbear",
    "postfix",
    "dovecot",
    "exim",
    "sendmail",
    "courier",
    "cyrus-imap",
    "qmail",
    "sieve",
    "solid-pop3d",
    "perdition",
    "uwimap",
    "kerio",
    "proftpd",
    "vsftpd",
    "pure-ftpd",
    "wuftpd",
    "gssftpd",
    "named-refused",
    "nsd",
    "asterisk",
    "freeswitch",
    "murmur",
    "mysqld",
    "mongodb",
    "nginx",
    "lighttpd",
    "haproxy",
    "squid",
    "3proxy",
    "traefik",
    "stunnel",
    "slapd",
    "xinetd",
    "pam-generic",
    "openvpn",
    "selinux",
];

/// A warning for each enabled jail whose filter is for another program.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let enabled = config.jails.iter().filter(|(_, jail)| jail.enabled);
    let foreign = enabled.filter_map(|(name, jail)| {
        let filter = jail.filter.split('[').next().unwrap_or_default().trim();
        let rest = |front: &&str| {
            let rest = filter.strip_prefix(*front);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        PROGRAMS.iter().find(|front| rest(front))?;
        Some(format!(
            "jail `{name}`: filter `{filter}` reads another program's log, and pipeban sees only \
             Apache's; leave it to fail2ban, and remove this jail"
        ))
    });
    foreign.collect()
}
