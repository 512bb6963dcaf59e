//! The engine's side: listens, starts the process that answers, and hands it the texts.

use std::fs::{File, Permissions};
use std::io::{self, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::hello::{Hello, SERVER};
use crate::sys::{fds, privileges};
use crate::{config, disk};

/// Between two starts of a process that ends.
const AGAIN: Duration = Duration::from_secs(10);

/// Metrics served as `[metrics]` says; nothing where it says nothing.
#[derive(Debug, Default)]
pub struct Feed {
    settings: config::Metrics,
    user: String,
    listeners: Vec<OwnedFd>,
    /// Removed at the end.
    socket: Option<PathBuf>,
    process: Option<(Child, OwnedFd)>,
    next_start: Option<Instant>,
    trouble: Option<String>,
}

impl Feed {
    /// Takes settings into use; `user` is the worker's.
    pub fn configure(&mut self, settings: &config::Metrics, user: &str) {
        if self.settings == *settings && self.user == user {
            return;
        }
        self.end();
        settings.clone_into(&mut self.settings);
        user.clone_into(&mut self.user);
        self.next_start = None;
        self.trouble = None;
    }

    /// Whether metrics are served.
    pub fn is_on(&self) -> bool {
        self.settings != config::Metrics::default()
    }

    /// What is wrong, and what to do.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Has this text served from now on. Never waits for the process; starts it where it does not
    /// run.
    pub fn publish(&mut self, text: &str) {
        self.trouble = self.try_to_publish(text).err().map(|error| {
            format!(
                "cannot serve metrics: {error}; correct `[metrics]` and run `pipeban reload`, or \
                 delete the section"
            )
        });
    }

    fn try_to_publish(&mut self, text: &str) -> Result<(), String> {
        let ended = self.process.as_mut().map(|(child, _)| child.try_wait());
        if matches!(ended, Some(Ok(Some(_)) | Err(_))) {
            self.process = None;
        }
        if self.process.is_none() {
            let now = Instant::now();
            if self.next_start.is_some_and(|at| now < at) {
                return match &self.trouble {
                    Some(_) => Err("the process that serves them has ended".into()),
                    None => Ok(()),
                };
            }
            self.next_start = Some(now + AGAIN);
            self.listen()?;
            self.process = Some(self.start().map_err(|error| error.to_string())?);
        }
        if let Some((_, socket)) = &self.process {
            let file = in_memory(text).map_err(|error| error.to_string())?;
            match fds::send(socket, b"text", &[file.as_fd()]) {
                // It is slow, and has an older text.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), String> {
        if !self.listeners.is_empty() {
            return Ok(());
        }
        let mut listeners = Vec::new();
        if let Some(path) = &self.settings.socket {
            let listener =
                listen_at(path).map_err(|error| format!("{}: {error}", path.display()))?;
            listeners.push(listener.into());
            self.socket = Some(path.clone());
        }
        if let Some(address) = &self.settings.listen {
            let listener = TcpListener::bind(address);
            listeners.push(
                listener
                    .map_err(|error| format!("{address}: {error}"))?
                    .into(),
            );
        }
        self.listeners = listeners;
        Ok(())
    }

    fn start(&self) -> io::Result<(Child, OwnedFd)> {
        let (ours, its) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let child = Command::new("/proc/self/exe")
            .arg(SERVER)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let identity = nix::unistd::geteuid().is_root().then(|| {
            let identity = privileges::worker_identity(&self.user);
            (identity.uid, identity.gid)
        });
        let hello = serde_json::to_vec(&Hello { identity })?;
        let listeners: Vec<BorrowedFd<'_>> = self.listeners.iter().map(AsFd::as_fd).collect();
        fds::send(&ours, &hello, &listeners)?;
        Ok((child, ours))
    }

    /// Ends the process, and removes the socket's file.
    pub fn end(&mut self) {
        if let Some((mut child, socket)) = self.process.take() {
            // It ends with this socket too; a connection it serves is cut.
            drop(socket);
            let _ = child.kill();
            let _ = child.wait();
        }
        self.listeners.clear();
        if let Some(path) = self.socket.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// In place of a socket that an earlier engine left; 0660 root:adm. In a directory of another user
/// these rights could be those of another file.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    disk::check_directory(path.parent().unwrap_or(Path::new("/")))?;
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    if let Ok(Some(adm)) = nix::unistd::Group::from_name("adm") {
        // Without root this fails, and the group stays.
        let _ = std::os::unix::fs::lchown(path, None, Some(adm.gid.as_raw()));
    }
    Ok(listener)
}

fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"metrics", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
