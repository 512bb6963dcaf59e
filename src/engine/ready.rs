//! Tells systemd (`Type=notify`, sd_notify(3)) that bans are in force: what is ordered behind the
//! engine, Apache, starts then. Until then it is asked for more time: a million bans on a slow disk
//! take longer than the unit's `TimeoutStartSec=`, and an engine that is killed while it restores
//! would never end doing so.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// Where systemd listens; not set where somebody else started us.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Half a minute more from now.
const MORE: &[u8] = b"EXTEND_TIMEOUT_USEC=30000000\n";
/// How often, and how many times: for ten minutes. One that hangs holds Apache up no longer.
const ASK: (Duration, usize) = (Duration::from_secs(10), 60);

/// An engine that is not ready yet; dropped, it asks for no more time.
#[derive(Debug)]
pub(super) struct Starting {
    /// Nobody, or systemd's socket.
    name: Option<OsString>,
    /// Ends with the sender.
    asking: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Starting {
    /// Asks for time from now on, if somebody waits.
    pub(super) fn begin() -> Starting {
        Starting::begin_at(env::var_os(SOCKET), ASK)
    }

    fn begin_at(name: Option<OsString>, (every, times): (Duration, usize)) -> Starting {
        let asking = name.clone().and_then(|name| {
            let (sender, over) = bounded(0);
            let ask = move || {
                for _ in 0..times {
                    if over.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    // `ready` says it, where the socket is no good.
                    let _ = tell_at(&name, MORE);
                }
            };
            // Without it the unit's time has to do.
            let thread = Builder::new().name("starting".into()).spawn(ask).ok()?;
            Some((sender, thread))
        });
        Starting { name, asking }
    }

    /// Bans are in force: tells it, if somebody waits.
    ///
    /// # Errors
    /// What the socket said: systemd will take the engine for one that hangs.
    pub(super) fn ready(self) -> io::Result<()> {
        if let Some((sender, thread)) = self.asking {
            drop(sender);
            let _ = thread.join();
        }
        match self.name {
            Some(name) => tell_at(&name, b"READY=1\n"),
            None => Ok(()),
        }
    }
}

fn tell_at(name: &OsStr, what: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A full queue is no reason to wait for ever.
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to_addr(what, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(listener: &UnixDatagram) -> Vec<u8> {
        let mut datagram = [0; 99];
        listener
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = listener.recv(&mut datagram).unwrap();
        datagram[..length].to_vec()
    }

    const NEVER: (Duration, usize) = (Duration::from_secs(3600), 1);

    fn tell(name: &OsStr) -> io::Result<()> {
        Starting::begin_at(Some(name.to_owned()), NEVER).ready()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        assert!(tell(path.as_os_str()).is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str()).unwrap();
        assert_eq!(hears(&listener), b"READY=1\n");

        let name = format!("pipeban-ready-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        tell(OsStr::new(&format!("@{name}"))).unwrap();
        assert_eq!(hears(&listener), b"READY=1\n");
    }

    #[test]
    fn time_is_asked_for_until_it_is_ready_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let name = || Some(path.clone().into_os_string());
        let often = Duration::from_millis(5);

        let starting = Starting::begin_at(name(), (often, 2));
        for _ in 0..2 {
            assert_eq!(hears(&listener), MORE);
        }
        let (_sender, thread) = starting.asking.unwrap();
        thread.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.recv(&mut [0; 99]).is_err());
        listener.set_nonblocking(false).unwrap();

        let starting = Starting::begin_at(name(), (often, usize::MAX));
        assert_eq!(hears(&listener), MORE);
        starting.ready().unwrap();
        // The last.
        while hears(&listener) == MORE {}
        listener.set_nonblocking(true).unwrap();
        assert!(listener.recv(&mut [0; 99]).is_err());
    }
}
