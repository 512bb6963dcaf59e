//! Two namespaces, joined: the host that bans, and its clients.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pipeban::config::{self, Ports};
use pipeban::firewall::{self, Notice, UfwState};
use pipeban::jail::{FirewallKey, FirewallState, Moment, Now};

use crate::support::{skip, skip_without};

/// Of the host.
pub(crate) const HOST4: &str = "198.51.100.1";
pub(super) const HOST6: &str = "2001:db8:1::1";
/// Of clients: one that misbehaves, one that does not.
pub(crate) const BAD4: &str = "198.51.100.66";
pub(super) const GOOD4: &str = "198.51.100.77";
pub(super) const BAD6: &str = "2001:db8:1:66::66";
/// In the same /64 as the bad one.
pub(super) const BESIDE6: &str = "2001:db8:1:66::67";
pub(super) const GOOD6: &str = "2001:db8:1:77::77";

/// Of the engine; the world's own, as all of /run.
pub(super) const RUNTIME: &str = "/run/pipeban";

/// Longest that anything is waited for: a test that has to wait so long fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// How long what must not come about is tried.
const REFUSAL: Duration = Duration::from_millis(400);

/// Runs a test in a world of its own; says so when that cannot be.
pub(crate) fn in_world(needs: &[&str], test: impl FnOnce(&World) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (namespaces)");
    }
    let mut programs = ["/usr/sbin/ip", "/usr/sbin/nft"].iter().chain(needs);
    if let Some(missing) = programs.find(|program| !Path::new(program).exists()) {
        return skip_without(missing);
    }
    let outcome = thread::spawn(move || {
        let world = World::new();
        test(&world);
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

type Task = Box<dyn FnOnce() + Send>;

pub(crate) struct World {
    clients: Sender<Task>,
    _etc: tempfile::TempDir,
}

impl World {
    /// Makes this thread the host.
    fn new() -> World {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let etc = tempfile::tempdir().unwrap();
        if Path::new("/etc/ufw").exists() {
            let copy = etc.path().join("ufw");
            run(&format!("cp -a /etc/ufw {}", copy.display()));
            bind(&copy, "/etc/ufw");
            let defaults = etc.path().join("default");
            run(&format!("cp -a /etc/default/ufw {}", defaults.display()));
            bind(&defaults, "/etc/default/ufw");
        }
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir("/run/lock").unwrap();
        if Path::new("/etc/ssh").exists() {
            // sshd's ports are then the default, 22.
            let empty = etc.path().join("ssh");
            std::fs::create_dir(&empty).unwrap();
            bind(&empty, "/etc/ssh");
        }
        let clients = clients();
        let world = World { clients, _etc: etc };
        // For the kernel a thread is as good as a process here.
        let clients = world.as_clients(nix::unistd::gettid);
        run("ip link set lo up");
        run("ip link add host0 type veth peer name client0");
        run(&format!("ip link set client0 netns {clients}"));
        for address in [format!("{HOST4}/24"), format!("{HOST6}/48 nodad")] {
            run(&format!("ip addr add {address} dev host0"));
        }
        run("ip link set host0 up");
        world.as_clients(|| {
            run("ip link set lo up");
            for address in [format!("{BAD4}/24"), format!("{GOOD4}/24")] {
                run(&format!("ip addr add {address} dev client0"));
            }
            for address in [BAD6, BESIDE6, GOOD6] {
                run(&format!("ip addr add {address}/48 dev client0 nodad"));
            }
            run("ip link set client0 up");
        });
        world
    }

    /// Does something where the clients are.
    pub(super) fn as_clients<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, result) = bounded(1);
        let task = Box::new(move || {
            let _ = sender.send(task());
        });
        self.clients.send(task).unwrap();
        result.recv().expect("the clients' task panicked")
    }

    /// Starts a container that serves something, and makes the host a router.
    pub(super) fn container<T: Send + 'static>(
        &self,
        serve: impl FnOnce() -> T + Send + 'static,
    ) -> Container {
        let container = Container(clients());
        let there = container.run(nix::unistd::gettid);
        run("ip link add inside0 type veth peer name outside0");
        run(&format!("ip link set inside0 netns {there}"));
        run("ip addr add 10.9.0.1/24 dev outside0");
        run("ip link set outside0 up");
        container.run(|| {
            run("ip addr add 10.9.0.2/24 dev inside0");
            run("ip link set inside0 up");
            run("ip route add default via 10.9.0.1");
            serve()
        });
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        container
    }

    /// A client's connection, that must come about.
    pub(super) fn connect(&self, from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.try_connect(from, to, PATIENCE)
    }

    fn try_connect(
        &self,
        from: &str,
        to: SocketAddr,
        patience: Duration,
    ) -> std::io::Result<TcpStream> {
        let from: IpAddr = from.parse().unwrap();
        self.as_clients(move || connect(from, to, patience))
    }

    /// Whether a client gets an answer on a new connection. Waits long: a busy machine is no ban.
    pub(crate) fn is_served(&self, from: &str, to: SocketAddr) -> bool {
        self.connect(from, to)
            .is_ok_and(|mut stream| echoes(&mut stream))
    }

    /// Whether a client gets no connection, as far as a moment can tell.
    pub(crate) fn is_refused(&self, from: &str, to: SocketAddr) -> bool {
        self.try_connect(from, to, REFUSAL).is_err()
    }

    /// Whether a client fares as expected.
    pub(super) fn fares(&self, from: &str, to: SocketAddr, served: bool) -> bool {
        match served {
            true => self.is_served(from, to),
            false => self.is_refused(from, to),
        }
    }

    /// Whether a client's datagram is answered. Waits long.
    pub(super) fn is_answered(&self, from: &str, to: SocketAddr) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !self.is_ignored(from, to) {
                return true;
            }
        }
        false
    }

    /// Whether a client's datagram gets no answer, as far as a moment can tell.
    pub(super) fn is_ignored(&self, from: &str, to: SocketAddr) -> bool {
        let from: IpAddr = from.parse().unwrap();
        self.as_clients(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.set_read_timeout(Some(REFUSAL)).unwrap();
            socket.send_to(b"x", to).unwrap();
            socket.recv(&mut [0; 9]).is_err()
        })
    }
}

/// A network namespace behind the host, as a container's: 10.9.0.2, by way of 10.9.0.1.
pub(super) struct Container(Sender<Task>);

impl Container {
    /// Does something there.
    pub(super) fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = bounded(1);
        let task = Box::new(move || {
            let _ = sender.send(task());
        });
        self.0.send(task).unwrap();
        result.recv().expect("the container's task panicked")
    }
}

fn clients() -> Sender<Task> {
    let (tasks, waiting) = unbounded::<Task>();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for task in waiting {
            task();
        }
    });
    tasks
}

fn bind(from: &Path, to: &str) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

fn connect(from: IpAddr, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
    use std::os::fd::AsRawFd;
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    socket::bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = TcpStream::from(fd);
    let end = Instant::now() + patience;
    loop {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        if stream.peer_addr().is_ok() {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            return Ok(stream);
        }
        if Instant::now() > end {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// One byte there and back.
pub(super) fn echoes(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut byte), Ok(1))
}

/// Whether the other side has ended it (waits for that).
pub(super) fn is_cut(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 9]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Answers every byte with itself until its clients go.
pub(crate) fn serve(at: &str) -> SocketAddr {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    address
}

/// Answers datagrams.
pub(super) fn serve_udp(at: &str) -> SocketAddr {
    let socket = UdpSocket::bind(at).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 9];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

pub(crate) fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

/// Runs a command line (words, no shell) in this thread's namespaces; its output.
pub(crate) fn run(line: &str) -> String {
    let (status, said) = try_run(line);
    assert!(status, "`{line}`: {said}");
    said
}

pub(super) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn list(tcp: &[u16], udp: &[u16]) -> Ports {
    Ports::List {
        tcp: tcp.iter().copied().collect::<BTreeSet<_>>(),
        udp: udp.iter().copied().collect(),
    }
}

pub(super) fn web() -> Ports {
    list(&[80, 443], &[443])
}

/// A ban.
#[derive(Debug, Clone)]
pub(super) struct Ban {
    pub(super) net: IpNet,
    pub(super) ports: Ports,
    pub(super) until: Option<Moment>,
    pub(super) behind: bool,
}

impl Ban {
    pub(super) fn key(&self) -> FirewallKey {
        FirewallKey {
            net: self.net,
            ports: self.ports.clone(),
            behind: self.behind,
        }
    }

    fn state(&self) -> FirewallState {
        FirewallState {
            jail: "test".parse().unwrap(),
            until: self.until,
        }
    }

    pub(super) fn permanent(self) -> Ban {
        Ban {
            until: None,
            ..self
        }
    }

    /// Until that time on the wall clock.
    pub(super) fn until(self, end: &str) -> Ban {
        Ban {
            until: Some(now().moment_of(end.parse().unwrap())),
            ..self
        }
    }

    pub(super) fn behind(self) -> Ban {
        Ban {
            behind: true,
            ..self
        }
    }
}

fn now() -> Now {
    Now {
        boot: Moment::from_boottime(pipeban::sys::clock::boottime()),
        wall: jiff::Timestamp::now(),
    }
}

/// A ban of that many seconds.
pub(super) fn ban(net: &str, ports: Ports, seconds: u64) -> Ban {
    Ban {
        net: net
            .parse()
            .or_else(|_| net.parse::<IpAddr>().map(Into::into))
            .unwrap(),
        ports,
        until: Some(now().boot.plus(Duration::from_secs(seconds))),
        behind: false,
    }
}

/// The firewall as the engine uses it.
pub(super) struct Firewall(firewall::Firewall);

impl Firewall {
    pub(super) fn ban(&mut self, bans: &[Ban]) -> Result<(), String> {
        let changes = bans.iter().map(|ban| (ban.key(), Some(ban.state())));
        self.0.apply(changes)
    }

    pub(super) fn unban(&mut self, bans: &[Ban]) -> Result<(), String> {
        self.0.apply(bans.iter().map(|ban| (ban.key(), None)))
    }

    /// As the engine does after it has read its bans.
    pub(super) fn replace(&mut self, bans: impl Iterator<Item = Ban>) {
        let bans = bans.map(|ban| (ban.key(), ban.state()));
        self.0.replace(bans).unwrap();
    }

    pub(super) fn left(&mut self, ban: &Ban) {
        self.0.left([&ban.key()]);
    }

    pub(super) fn in_force(&mut self, ban: &Ban) -> Option<bool> {
        let found = self.0.checker().in_force(&[ban.key()]);
        found.unwrap().first().copied().flatten()
    }

    pub(super) fn ufw(&self, ban: &Ban) -> Option<UfwState> {
        self.0.ufw_state(&ban.key())
    }

    #[cfg(feature = "measure")]
    pub(super) fn checker(&self) -> firewall::InForce {
        self.0.checker()
    }

    pub(super) fn apache_ports(&mut self, listening: &[u16]) {
        let listening = listening.iter().copied().collect();
        self.0.set_apache_ports(&listening).expect("in force");
    }

    pub(super) fn tend(&mut self) {
        self.0.tend();
    }

    pub(super) fn finish(self, grace: Duration) {
        self.0.finish(grace);
    }
}

/// `instant` and `mirror` as in the configuration.
pub(super) fn settings(instant: bool, mirror: bool) -> config::Firewall {
    config::Firewall {
        backend: vec![config::Backend::Ufw],
        instant,
        mirror,
        ..config::Firewall::default()
    }
}

pub(super) fn start(settings: &config::Firewall) -> (Firewall, Receiver<Notice>) {
    let (sender, receiver) = unbounded();
    let paths = config::Paths {
        runtime: RUNTIME.into(),
        ..config::Paths::default()
    };
    let firewall = firewall::Firewall::start(settings, &paths, sender);
    (Firewall(firewall), receiver)
}

/// That back end alone.
pub(super) fn only(backend: config::Backend) -> config::Firewall {
    config::Firewall {
        backend: vec![backend],
        ..settings(true, true)
    }
}

/// pipeban's nftables table alone.
pub(super) fn table_alone() -> (Firewall, Receiver<Notice>) {
    start(&settings(true, false))
}

/// pipeban's table as nft shows it.
pub(super) fn table() -> String {
    try_run("nft list table inet pipeban").1
}

/// A file descriptor on this thread's network namespace.
pub(super) fn namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}
