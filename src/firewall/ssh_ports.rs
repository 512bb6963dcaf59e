//! Which ports sshd listens on, so that closing "all" does not close the way back in.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_DIR: &str = "/etc/ssh/sshd_config.d";
/// Where systemd finds `ssh.socket` and what was added to it (Ubuntu generates it from sshd's).
const SOCKET_UNITS: [&str; 4] = [
    "/usr/lib/systemd/system/ssh.socket",
    "/etc/systemd/system/ssh.socket",
    "/etc/systemd/system/ssh.socket.d",
    "/run/systemd/generator/ssh.socket.d",
];

/// The ports of sshd's configuration and of `ssh.socket`; 22 where sshd's names none. A port too
/// many is left open to a banned client, a port too few locks somebody out: so all are taken.
pub(super) fn read() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for file in with_parts(Path::new(SSHD_CONFIG), Path::new(SSHD_CONFIG_DIR)) {
        ports.extend(of_sshd_config(&text(&file)));
    }
    if ports.is_empty() {
        ports.insert(22);
    }
    for unit in SOCKET_UNITS {
        let unit = Path::new(unit);
        for file in with_parts(unit, unit) {
            ports.extend(of_socket_unit(&text(&file)));
        }
    }
    ports
}

/// The file, and the `.conf` files of the directory.
fn with_parts(file: &Path, directory: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(directory).into_iter().flatten().flatten();
    std::iter::once(file.to_owned())
        .chain(
            parts
                .map(|part| part.path())
                .filter(|path| path.extension().is_some_and(|e| e == "conf")),
        )
        .collect()
}

/// A file that is not there, or a directory, says nothing.
fn text(file: &Path) -> String {
    fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn of_sshd_config(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let (word, rest) = line.trim().split_once([' ', '\t', '='])?;
        let value = rest.trim_matches([' ', '\t', '=', '"']);
        let value = value.split(char::is_whitespace).next()?;
        match word.to_ascii_lowercase().as_str() {
            "port" => value.parse().ok(),
            "listenaddress" => listen_port(value),
            _ => None,
        }
    })
}

/// `ListenStream=22`, `ListenStream=0.0.0.0:2222`, `ListenStream=[::]:2222`
fn of_socket_unit(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let (word, value) = line.split_once('=')?;
        (word.trim() == "ListenStream").then_some(())?;
        let value = value.trim();
        value.parse().ok().or_else(|| listen_port(value))
    })
}

/// The port of `HOST:PORT` or `[HOST]:PORT`; an IPv6 address without brackets has none.
fn listen_port(value: &str) -> Option<u16> {
    let (host, port) = value.rsplit_once(':')?;
    if host.contains(':') && !host.ends_with(']') {
        return None;
    }
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_sshd_are_found_as_people_write_them() {
        for (text, expected) in [
            ("", vec![]),
            ("#Port 22\n", vec![]),
            ("Port 2222\nPort 22\n", vec![2222, 22]),
            ("  port\t2200 # why\n", vec![2200]),
            ("PORT=2201\nPort = \"2202\"\n", vec![2201, 2202]),
            ("ListenAddress 192.0.2.1\n", vec![]),
            ("ListenAddress 192.0.2.1:2203\n", vec![2203]),
            ("ListenAddress [2001:db8::1]:2204 rdomain x\n", vec![2204]),
            ("ListenAddress 2001:db8::1\nListenAddress ::\n", vec![]),
            ("Port 70000\nPort abc\nPort\n", vec![]),
        ] {
            assert_eq!(of_sshd_config(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn ports_of_the_socket_unit_are_found() {
        let text = "[Socket]\nListenStream=\nListenStream=22\nListenStream=0.0.0.0:2222\n\
                    ListenStream=[::]:2223\nListenStream=/run/x\nAccept=no\n";
        assert_eq!(of_socket_unit(text).collect::<Vec<_>>(), [22, 2222, 2223]);
    }
}
