//! An attacker who wants to know from when on he is out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::PATIENCE;
use super::http::{ATTACK, Connection};
use super::network::connect_here;

/// How long a packet that gets no answer is waited for. It is asked twice: a server with too much
/// to do may leave one packet without an answer.
const DROPPED: Duration = Duration::from_millis(300);

/// What an attacker saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Struck {
    pub(crate) attacker: IpAddr,
    /// When the attack was sent.
    pub(crate) sent: Timestamp,
    /// When the first packet that was refused was sent.
    pub(crate) refused: Timestamp,
}

/// A connection that stays open, with one answered request. To be called where the clients are.
///
/// # Errors
/// As of `connect` and of a request.
pub(crate) fn keep_alive(attacker: IpAddr, server: IpAddr) -> io::Result<Connection> {
    let stream = connect_here(attacker, SocketAddr::new(server, 80), PATIENCE)?;
    let mut open = Connection::over(stream);
    match open.get("/", "")? {
        200 => Ok(open),
        status => Err(io::Error::other(format!("answered with {status}"))),
    }
}

/// Attacks, then asks for new connections until one is refused: `pause` after each answer. To be
/// called where the clients are.
///
/// # Panics
/// When nothing was refused after [`PATIENCE`].
pub(crate) fn strike(
    attacker: IpAddr,
    server: IpAddr,
    pause: impl Fn(Duration) -> Duration,
) -> Struck {
    let to = SocketAddr::new(server, 80);
    let stream = connect_here(attacker, to, PATIENCE).expect("not banned yet");
    let mut attack = Connection::over(stream);
    let sent = Timestamp::now();
    attack.ask(ATTACK, "").expect("sent");
    let start = Instant::now();
    loop {
        let refused = Timestamp::now();
        if is_refused(attacker, to) && is_refused(attacker, to) {
            return Struck {
                attacker,
                sent,
                refused,
            };
        }
        let elapsed = start.elapsed();
        assert!(elapsed < PATIENCE, "{attacker} is not banned");
        std::thread::sleep(pause(elapsed));
    }
}

fn is_refused(attacker: IpAddr, to: SocketAddr) -> bool {
    match connect_here(attacker, to, DROPPED) {
        Ok(_) => false,
        Err(error) => {
            let odd = io::ErrorKind::AddrNotAvailable;
            assert_ne!(error.kind(), odd, "{attacker} cannot even ask");
            true
        }
    }
}
