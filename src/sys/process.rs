//! Processes: fork with nothing inherited that is not named, a descriptor for a child's end, a lock
//! that a child is born with.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// Forks. The child closes every descriptor from 3 up that is not in `keep`, runs `body` and ends
/// with its value, without returning here; a panic aborts it.
///
/// `body` must not use or drop descriptors that are not in `keep`.
///
/// # Errors
/// What `fork` said, or that this process has more than one thread: the child of such a process
/// may not even allocate memory.
pub fn fork_child(keep: &[RawFd], body: impl FnOnce() -> i32) -> io::Result<Pid> {
    if threads() > 1 {
        return Err(io::Error::other("a process with threads does not fork"));
    }
    // SAFETY: this process has one thread, so the child has all of its state in order.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = catch_unwind(AssertUnwindSafe(|| {
                close_all_but(keep);
                body()
            }));
            match status {
                Ok(status) => exit_now(status),
                Err(_) => std::process::abort(),
            }
        }
    }
}

/// Ends this process at once: no destructors, no exit handlers, other threads wherever they are.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no requirements.
    unsafe { nix::libc::_exit(status) }
}

/// A descriptor that becomes readable when the child ends.
///
/// # Errors
/// What the kernel said.
pub fn watch(child: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the program run in its own session, as a child of init: the process that is spawned ends at
/// once, and is to be waited for. These signals and SIGTERM get their default actions.
pub fn detach(command: &mut Command, ignored: &[Signal]) {
    let mut signals = ignored.to_vec();
    signals.push(Signal::SIGTERM);
    let detach = move || {
        crate::sys::signals::set_default(&signals)?;
        setsid()?;
        // SAFETY: between fork and exec there is one thread; the parent only ends.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => exit_now(0),
            ForkResult::Child => Ok(()),
        }
    };
    // SAFETY: between fork and exec it makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(detach);
    }
}

/// Has the child hold the lock (`lockf`'s, of the whole file) from before its `exec`, until it lets
/// go of it or ends. Where another process has it, spawning fails with `EAGAIN` or `EACCES`.
///
/// Such a lock stays with a process over `exec`, but only while all its descriptors of the file
/// stay open (fcntl(2)): the child keeps this one.
pub fn hold_lock(command: &mut Command, file: impl AsFd + Send + Sync + 'static) {
    let take = move || {
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        fcntl(&file, FcntlArg::F_SETLK(&whole_file()))?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(take);
    }
}

/// The process that has a lock as [`hold_lock`]'s on the file now; 0: one that has no number here.
///
/// # Errors
/// What the kernel said.
pub fn holder_of_lock(file: impl AsFd) -> io::Result<Option<i32>> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let free = i32::from(lock.l_type) == F_UNLCK;
    Ok((!free).then_some(lock.l_pid))
}

/// Waits for the lock of one byte of the file, which is open for writing. The lock belongs to this
/// open file: it ends with its last descriptor.
///
/// # Errors
/// What the kernel said.
pub fn lock_byte(file: impl AsFd, at: i64) -> io::Result<()> {
    let mut lock = whole_file();
    (lock.l_start, lock.l_len) = (at, 1);
    loop {
        match fcntl(&file, FcntlArg::F_OFD_SETLKW(&lock)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// For writing.
fn whole_file() -> flock {
    // SAFETY: it is made of numbers, and all are good as 0.
    let mut lock: flock = unsafe { std::mem::zeroed() };
    lock.l_type = F_WRLCK as i16;
    lock.l_whence = SEEK_SET as i16;
    lock
}

/// Points these of stdin, stdout and stderr to /dev/null.
///
/// # Errors
/// /dev/null cannot be opened.
pub fn redirect_to_null(with_stdin: bool) -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    if with_stdin {
        dup2_stdin(&null)?;
    }
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Threads of this process; 1 where /proc does not say.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn close_all_but(keep: &[RawFd]) {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        close_range(from, fd - 1);
        from = from.max(fd + 1);
    }
    close_range(from, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: this is called in a new child before its body: the descriptors that are closed
        // belong to values of the parent, which the child never touches again.
        unsafe {
            nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0);
        }
    }
}
