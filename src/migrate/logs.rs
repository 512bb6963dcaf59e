//! Which of a jail's logs Apache writes, and their kind.

use std::path::Path;

use super::model::Host;
use crate::record::Kind;

/// The `logpath` of a jail.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Logs {
    pub(super) access: Vec<String>,
    pub(super) error: Vec<String>,
    /// fail2ban's own log.
    pub(super) bans: Vec<String>,
    /// Of other programs.
    pub(super) other: Vec<String>,
}

/// Other programs with such logs.
const OTHERS: [&str; 9] = [
    "nginx", "lighttpd", "squid", "haproxy", "traefik", "tomcat", "caddy", "mysql", "cups",
];

/// Sorts the value of `logpath`.
pub(super) fn sort(text: &str, filter: &str, host: &Host<'_>) -> Logs {
    let mut logs = Logs::default();
    for line in text.lines() {
        // `FILE head` and `FILE tail`
        let path = ["head", "tail"]
            .iter()
            .find_map(|end| line.strip_suffix(end)?.strip_suffix(' '))
            .unwrap_or(line)
            .trim();
        if path.is_empty() {
            continue;
        }
        if path.ends_with("fail2ban.log") {
            logs.bans.push(path.to_owned());
            continue;
        }
        let known = (host.logs)(Path::new(path));
        let kinds = match known.as_slice() {
            [] => by_name(path, filter).into_iter().collect(),
            _ => known,
        };
        let (access, error) = (kinds.contains(&Kind::Access), kinds.contains(&Kind::Error));
        if access {
            logs.access.push(path.to_owned());
        }
        if error {
            logs.error.push(path.to_owned());
        }
        if !access && !error {
            logs.other.push(path.to_owned());
        }
    }
    logs
}

/// By its name, where no Apache on this host names the file.
fn by_name(path: &str, filter: &str) -> Option<Kind> {
    let path = path.to_lowercase();
    let of_apache = ["apache", "httpd"].iter().any(|word| path.contains(word))
        || (filter.starts_with("apache-") && !OTHERS.iter().any(|word| path.contains(word)));
    let name = path.rsplit('/').next().unwrap_or(&path);
    match (name.contains("error"), name.contains("access")) {
        (true, false) if of_apache => Some(Kind::Error),
        (false, true) if of_apache => Some(Kind::Access),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_sorted_by_apaches_configuration_then_by_name() {
        let logs = |path: &Path| match path.to_str() {
            Some("/srv/log/shop") => vec![Kind::Access],
            Some("/srv/log/*") => vec![Kind::Access, Kind::Error],
            _ => Vec::new(),
        };
        let host = Host {
            logs: &logs,
            filter: &|_| None,
            service: &|_| None,
            ignoreip: Vec::new(),
        };
        let sorted = sort(
            "/srv/log/shop\n/srv/log/* tail\n/var/log/apache2/*error.log\n/var/log/nginx/access.log\n\
             /var/log/auth.log\n/var/log/fail2ban.log",
            "apache-auth",
            &host,
        );
        let all = |paths: &[&str]| {
            paths
                .iter()
                .map(|path| (*path).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(sorted.access, all(&["/srv/log/shop", "/srv/log/*"]));
        assert_eq!(
            sorted.error,
            all(&["/srv/log/*", "/var/log/apache2/*error.log"])
        );
        assert_eq!(sorted.bans, all(&["/var/log/fail2ban.log"]));
        assert_eq!(
            sorted.other,
            all(&["/var/log/nginx/access.log", "/var/log/auth.log"])
        );
        assert_eq!(sort("/srv/a/access.log", "sshd", &host).other.len(), 1);
        assert_eq!(
            sort("/srv/a/access.log", "apache-auth", &host).access.len(),
            1
        );
    }
}
