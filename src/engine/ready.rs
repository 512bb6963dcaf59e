//! Reports to systemd (`Type=notify`, sd_notify(3)) that bans are in force: Apache, which is
//! ordered after the engine, starts then.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Set by systemd.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Requests ten minutes to start, whatever `TimeoutStartSec=` says: an engine that is killed while
/// it restores a million bans would never start. One that hangs delays Apache for as long.
pub(super) fn request_time() -> io::Result<()> {
    notify(b"EXTEND_TIMEOUT_USEC=600000000\n")
}

/// # Errors
/// What the socket said: systemd will take the engine for one that hangs.
pub(super) fn report_ready() -> io::Result<()> {
    notify(b"READY=1\n")
}

/// Does nothing where systemd did not start the engine.
fn notify(message: &[u8]) -> io::Result<()> {
    match std::env::var_os(SOCKET) {
        Some(name) => send(&name, message),
        None => Ok(()),
    }
}

fn send(name: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to_addr(message, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(listener: &UnixDatagram) -> Vec<u8> {
        let mut datagram = [0; 99];
        let length = listener.recv(&mut datagram).unwrap();
        datagram[..length].to_vec()
    }

    #[test]
    fn a_message_is_sent_to_a_path_or_to_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        assert!(send(path.as_os_str(), b"x").is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), b"READY=1\n").unwrap();
        assert_eq!(receive(&listener), b"READY=1\n");

        let name = format!("pipeban-ready-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), b"READY=1\n").unwrap();
        assert_eq!(receive(&listener), b"READY=1\n");
    }
}
