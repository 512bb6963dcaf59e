//! Tells systemd (`Type=notify`, sd_notify(3)) that bans are in force: what is ordered behind the
//! engine, Apache, starts then.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where systemd listens; not set where somebody else started us.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells it, if somebody asked for it.
///
/// # Errors
/// What the socket said: systemd will take the engine for one that hangs.
pub(super) fn tell() -> io::Result<()> {
    match env::var_os(SOCKET) {
        Some(name) => tell_at(&name),
        None => Ok(()),
    }
}

fn tell_at(name: &OsStr) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn hears(listener: &UnixDatagram) -> Vec<u8> {
        let mut datagram = [0; 99];
        listener
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = listener.recv(&mut datagram).unwrap();
        datagram[..length].to_vec()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        assert!(tell_at(path.as_os_str()).is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        tell_at(path.as_os_str()).unwrap();
        assert_eq!(hears(&listener), b"READY=1\n");

        let name = format!("pipeban-ready-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        tell_at(OsStr::new(&format!("@{name}"))).unwrap();
        assert_eq!(hears(&listener), b"READY=1\n");
    }
}
