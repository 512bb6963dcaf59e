//! The ports on which a running Apache listens.
//!
//! Each logger that Apache starts, so each at a reload, writes the ports of its Apache to a file
//! in pipeban's runtime directory, and the engine reads these files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::sys::directory;

/// In the runtime directory; a file for each Apache, by its process.
const DIRECTORY: &str = "apache-ports";
/// More files than this are not read.
const MOST_FILES: usize = 64;
/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";
const LOOPBACK_6: &str = "00000000000000000000000001000000";

/// The tcp ports on which a process listens, but for those of loopback addresses.
///
/// # Errors
/// Its descriptors cannot be read.
pub fn of_process(pid: Pid) -> io::Result<BTreeSet<u16>> {
    let mut sockets = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let target = fs::read_link(file.path()).unwrap_or_default();
        let inode = target
            .to_str()
            .and_then(|name| name.strip_prefix("socket:["));
        let inode = inode.and_then(|name| name.strip_suffix(']')?.parse::<u64>().ok());
        sockets.extend(inode);
    }
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let listeners = text.lines().filter_map(listener);
        ports
            .extend(listeners.filter_map(|(port, inode)| sockets.contains(&inode).then_some(port)));
    }
    Ok(ports)
}

/// A line of `/proc/net/tcp`: the port and the inode, if the socket listens on more than loopback.
fn listener(line: &str) -> Option<(u16, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let loopback = address == LOOPBACK_6 || (address.len() == 8 && address.ends_with("7F"));
    let listens = *words.get(3)? == LISTENING && !loopback;
    let port = u16::from_str_radix(port, 16).ok()?;
    listens.then_some((port, words.get(9)?.parse().ok()?))
}

/// Writes the ports of this Apache for the engine.
///
/// # Errors
/// They cannot be read or written.
pub fn publish(runtime: &Path, apache: Pid) -> io::Result<()> {
    let ports: Vec<String> = of_process(apache)?.iter().map(u16::to_string).collect();
    // As the engine creates it, which may come later.
    directory::create(runtime, 0o755)?;
    let directory = runtime.join(DIRECTORY);
    directory::create(&directory, 0o755)?;
    let new = directory.join(format!(".{apache}.{}", std::process::id()));
    fs::write(&new, ports.join("\n") + "\n")?;
    fs::rename(&new, directory.join(apache.to_string()))
}

/// The ports that [`publish`] wrote for each Apache that runs; if none runs, those of the last
/// ones. Empty: none is known.
pub fn published(runtime: &Path) -> BTreeSet<u16> {
    let files = fs::read_dir(runtime.join(DIRECTORY)).into_iter().flatten();
    let files = files.flatten().take(MOST_FILES).filter_map(|file| {
        let pid: i32 = file.file_name().to_str()?.parse().ok()?;
        Some((pid, file.path()))
    });
    let files: BTreeMap<i32, PathBuf> = files.collect();
    let (alive, over): (Vec<_>, Vec<_>) = files.iter().partition(|(pid, _)| is_apache(**pid));
    if !alive.is_empty() {
        // An error means that another engine was faster.
        over.iter()
            .for_each(|(_, path)| drop(fs::remove_file(path)));
    }
    let known = if alive.is_empty() { over } else { alive };
    let texts = known
        .into_iter()
        .filter_map(|(_, path)| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<u16>>()
        })
        .collect()
}

fn is_apache(pid: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("apache2") || name.starts_with("httpd"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_ports_of_a_process_are_those_that_others_reach() {
        let open = TcpListener::bind("0.0.0.0:0").unwrap();
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let found = of_process(nix::unistd::getpid()).unwrap();
        assert!(found.contains(&port(&open)), "{found:?}");
        assert!(!found.contains(&port(&local)), "{found:?}");
        drop(open);
    }

    #[test]
    fn a_listener_is_read_and_nothing_else() {
        let line = "   0: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
        assert_eq!(listener(line), Some((8443, 4242)));
        for other in [
            &line.replace(" 0A ", " 01 "),
            &line.replace("00000000:20FB", "0100007F:20FB"),
            "  sl  local_address rem_address   st",
            "",
        ] {
            assert_eq!(listener(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_published_is_read_until_another_apache_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(published(directory.path()).is_empty());
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        publish(directory.path(), nix::unistd::getpid()).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(published(directory.path()).contains(&port));
    }
}
