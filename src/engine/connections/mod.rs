//! Connections of workers, keepers and commands: their roles and rights, what they send, and the
//! replies. Decides nothing.

mod rights;
mod roles;
mod server;
mod socket;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use self::rights::{Ids, Rights};
pub(crate) use self::roles::Event;
use self::roles::{MISPLACED, Role, Worker};
use self::server::{Ready, Server};
use super::alarms::Check;
use super::waker::Waker;
use crate::alert::Severity;
use crate::control::{MAX_WATCHED, Reply, Request, VERSION, WorkerStatus, encode};

/// To users without any right, and to those who may only read.
const NOBODY: &str = "not permitted: run this as root (`sudo`); members of the group `adm` may run \
                      `pipeban status` and `pipeban export`";
const READER: &str = "not permitted: run this as root (`sudo`); the group `adm` may only read";

pub(super) struct Connections {
    server: Server,
    /// Connections ended because of a malformed message, since the start.
    misunderstood: u64,
    socket: Check,
}

impl Connections {
    /// Listens at `socket`.
    pub(super) fn listen(socket: &Path, signals: impl AsFd) -> io::Result<Connections> {
        Ok(Connections {
            server: Server::listen(socket, Ids::of_this_host(), signals)?,
            misunderstood: 0,
            socket: ("socket", Severity::Err, None),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.server.waker()
    }

    /// Waits for at most `timeout`. Workers are not read while `hold`.
    ///
    /// # Errors
    /// epoll failed.
    pub(super) fn wait(&mut self, hold: bool, timeout: Duration) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for ready in self.server.wait(hold, timeout)? {
            match ready {
                Ready::New(connection) => {
                    if self.rights(connection) == Rights::None {
                        self.refuse(connection, 77, NOBODY);
                    }
                }
                Ready::Read(connection) => self.read(connection, &mut events),
                Ready::Woken => events.push(Event::Woken),
                Ready::Signal => events.push(Event::Signal),
            }
        }
        Ok(events)
    }

    fn rights(&self, connection: u64) -> Rights {
        let peer = self.server.peer(connection);
        peer.map_or(Rights::None, |peer| self.server.ids().rights(peer))
    }

    fn read(&mut self, connection: u64, events: &mut Vec<Event>) {
        loop {
            let wrong = match self.server.next_line(connection) {
                Ok(None) => return,
                Ok(Some(line)) => match serde_json::from_slice(&line) {
                    Ok(request) => match self.request(connection, request, events) {
                        Ok(()) => continue,
                        Err(wrong) => wrong,
                    },
                    Err(error) => error.to_string(),
                },
                Err(_) => "message too long".to_owned(),
            };
            self.misunderstood += 1;
            if let Some(peer) = self.server.peer(connection) {
                let (pid, uid) = (peer.pid, peer.uid);
                let text = format!("connection of pid {pid} (uid {uid}) ended: {wrong}");
                events.push(Event::Refused(text));
            }
            return self.refuse(connection, 2, "malformed message");
        }
    }

    /// # Errors
    /// What is wrong with the request; the connection is to be ended.
    fn request(
        &mut self,
        connection: u64,
        request: Request,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let rights = self.rights(connection);
        match (self.server.role(connection), request) {
            (Some(Role::Unknown), Request::Worker(hello)) if rights == Rights::All => {
                if self.same_version(connection, hello.version, events) {
                    let stream = hello.stream;
                    self.end_workers_of(stream);
                    let (apache, bytes) = (hello.apache.clone(), hello.bytes);
                    let worker = Role::Worker(Worker::new(hello));
                    self.server.set_role(connection, worker);
                    events.push(Event::Worker {
                        connection,
                        stream,
                        bytes,
                        apache,
                    });
                }
            }
            (Some(Role::Unknown), Request::Keeper { version }) if rights == Rights::All => {
                if self.same_version(connection, version, events) {
                    self.server.set_role(connection, Role::Keeper);
                    events.push(Event::Keeper { connection });
                }
            }
            (Some(Role::Unknown), Request::Command(command)) => {
                if rights.permit(&command) {
                    self.server.set_role(connection, Role::Command);
                    events.push(Event::Command {
                        connection,
                        command,
                    });
                } else {
                    self.refuse(connection, 77, READER);
                }
            }
            (Some(Role::Worker(worker)), request) => {
                return worker.request(connection, request, events);
            }
            _ => return Err(MISPLACED.to_owned()),
        }
        Ok(())
    }

    /// A stream has one worker with one connection: others are of a worker that has ended, or that
    /// collects connections.
    fn end_workers_of(&mut self, stream: u64) {
        let roles = self.server.roles();
        let same = roles
            .filter(|(_, role)| matches!(role, Role::Worker(worker) if worker.stream() == stream));
        let same: Vec<u64> = same.map(|(connection, _)| connection).collect();
        for connection in same {
            self.server.end(connection);
        }
    }

    fn same_version(&mut self, connection: u64, version: u32, events: &mut Vec<Event>) -> bool {
        if version == VERSION {
            return true;
        }
        let text = format!(
            "the engine speaks protocol {VERSION}, the other side {version}: restart the engine \
             (`pipeban engine --stop`) and Apache after an upgrade"
        );
        self.refuse(connection, 2, &text);
        events.push(Event::Refused(text));
        false
    }

    /// Accepts a worker; it sends again what follows `high_water`.
    pub(super) fn welcome(&mut self, connection: u64, high_water: Option<u64>) {
        let version = VERSION;
        let reply = Reply::Welcome {
            version,
            high_water,
        };
        self.send(connection, &reply);
    }

    pub(super) fn send(&mut self, connection: u64, reply: &Reply) {
        self.server.send(connection, &encode(reply));
    }

    /// Sends to every keeper.
    pub(super) fn send_to_keepers(&mut self, reply: &Reply) {
        let roles = self.server.roles();
        let keepers = roles.filter(|(_, role)| matches!(role, Role::Keeper));
        let keepers: Vec<u64> = keepers.map(|(connection, _)| connection).collect();
        for connection in keepers {
            self.send(connection, reply);
        }
    }

    /// Whether access records reach pipeban.
    pub(super) fn reads_access_log(&self) -> bool {
        self.access_workers().next().is_some()
    }

    /// Asks the workers of access logs for records of these clients; `only`: this worker, if its log
    /// is one.
    pub(super) fn watch_for(&mut self, only: Option<u64>, clients: &[IpAddr]) {
        let workers = self.access_workers();
        let workers: Vec<u64> = workers
            .filter(|worker| only.is_none_or(|only| only == *worker))
            .collect();
        for some in clients.chunks(MAX_WATCHED) {
            let clients = some.to_vec();
            let message = Reply::Watch { clients };
            for worker in &workers {
                self.send(*worker, &message);
            }
        }
    }

    fn access_workers(&self) -> impl Iterator<Item = u64> {
        self.server
            .roles()
            .filter_map(|(connection, role)| match role {
                Role::Worker(worker) if worker.reads_access_log() => Some(connection),
                _ => None,
            })
    }

    /// Answers a command with an encoded reply, and ends its connection.
    pub(super) fn answer(&mut self, connection: u64, reply: &[u8]) {
        self.server.send(connection, reply);
        self.server.close(connection);
    }

    pub(super) fn refuse(&mut self, connection: u64, exit: u8, text: &str) {
        let text = text.to_owned();
        self.answer(connection, &encode(&Reply::Refused { exit, text }));
    }

    /// Restores the socket's file; returns a line to log if another process had removed it.
    pub(super) fn restore_file(&mut self, socket: &Path) -> Option<String> {
        let path = socket.display();
        let restored = self.server.restore_file();
        self.socket.2 = restored.as_ref().err().map(|error| {
            format!("no new client can connect to the engine: cannot restore {path}: {error}")
        });
        let restored = restored.is_ok_and(|restored| restored);
        restored.then(|| format!("another process removed {path}; the engine has restored it"))
    }

    pub(super) fn checks(&self) -> [Check; 2] {
        let mut workers = self.server.roles().filter_map(|(_, role)| match role {
            Role::Worker(worker) => worker.unread(),
            _ => None,
        });
        [
            self.socket.clone(),
            ("unread", Severity::Err, workers.next()),
        ]
    }

    /// For `status`, in a stable order.
    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        let workers = self.server.roles().filter_map(|(_, role)| match role {
            Role::Worker(worker) => Some(worker.status()),
            _ => None,
        });
        let mut workers: Vec<WorkerStatus> = workers.collect();
        workers.sort_unstable_by_key(|worker| (worker.kind, worker.pid));
        workers
    }

    /// For `status`.
    pub(super) fn warnings(&self) -> Vec<String> {
        let counts = [
            (self.misunderstood, "malformed messages"),
            (self.server.refused(), "connections refused: too many"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts
            .map(|(count, text)| format!("{text}: {count}"))
            .collect()
    }

    /// Ends all connections, sending what fits.
    pub(super) fn finish(self) {
        self.server.remove_file();
    }
}
