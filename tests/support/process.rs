//! Who is who among the processes of a world.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, numbered as outside the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its number inside.
    pub(crate) inside: u32,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    /// The pipe it reads.
    pub(crate) stdin: String,
}

/// The processes behind one piped-log directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pipe {
    pub(crate) stub: Process,
    /// Has a session of its own and outlives the stub.
    pub(crate) keeper: Process,
    pub(crate) worker: Process,
}

impl Process {
    /// Sends a signal; one that is gone already is no failure.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
    }

    pub(crate) fn is_alive(&self) -> bool {
        read(self.pid).is_some_and(|now| now.name == self.name)
    }

    /// Whether one of its descriptors is this file, as /proc names it.
    fn holds(&self, file: &str) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return false;
        };
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == file)
        })
    }

    fn is_pipeban(&self) -> bool {
        let program = |path: &str| path.ends_with("/pipeban") || path == "pipeban";
        program(&self.name)
            || self.argv.first().is_some_and(|path| program(path))
            || fs::read_link(format!("/proc/{}/exe", self.pid))
                .is_ok_and(|path| program(&path.to_string_lossy()))
    }

    fn says(&self, word: &str) -> bool {
        self.argv.iter().any(|argument| argument == word)
    }
}

/// Every process in the process namespace of `init`, zombies left out.
pub(crate) fn all_like(init: u32) -> Vec<Process> {
    let Ok(space) = fs::read_link(format!("/proc/{init}/ns/pid")) else {
        return Vec::new();
    };
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|its| its == space)
        })
        .filter_map(read)
        .collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let _group = fields.next()?;
    let session = fields.next()?.parse().ok()?;
    let argv = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(Process {
        pid,
        inside: numbers.split_whitespace().last()?.parse().ok()?,
        parent,
        session,
        name: head.split_once('(')?.1.to_owned(),
        argv: argv
            .split(|&byte| byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect(),
        stdin: fs::read_link(format!("/proc/{pid}/fd/0"))
            .map(|link| link.to_string_lossy().into_owned())
            .unwrap_or_default(),
    })
}

/// Apache's main process: the one `apache2` whose parent is none.
pub(crate) fn apache(all: &[Process]) -> Option<Process> {
    let is_apache = |process: &&Process| process.name == "apache2";
    all.iter()
        .filter(is_apache)
        .find(|main| {
            !all.iter()
                .filter(is_apache)
                .any(|other| other.pid == main.parent)
        })
        .cloned()
}

/// What Apache knows as its piped loggers, whatever program they are.
pub(crate) fn loggers(all: &[Process]) -> Vec<Process> {
    let Some(main) = apache(all) else {
        return Vec::new();
    };
    all.iter()
        .filter(|process| process.parent == main.pid && process.name != "apache2")
        .cloned()
        .collect()
}

/// Every process of pipeban, of whatever kind.
pub(crate) fn pipebans(all: &[Process]) -> Vec<Process> {
    all.iter()
        .filter(|process| process.is_pipeban())
        .cloned()
        .collect()
}

/// Stub, keeper and worker of the running `pipeban log KIND`; `None` while one is missing.
pub(crate) fn pipe(all: &[Process], kind: &str) -> Option<Pipe> {
    let stub = loggers(all)
        .into_iter()
        .find(|stub| stub.is_pipeban() && stub.says(kind))?;
    let (keeper, worker) = readers(all, &stub.stdin).into_iter().next()?;
    Some(Pipe {
        stub,
        keeper,
        worker,
    })
}

/// Every keeper that has a worker on this pipe (`pipe:[INODE]`), with that worker.
pub(crate) fn readers(all: &[Process], pipe: &str) -> Vec<(Process, Process)> {
    let mut readers = Vec::new();
    for keeper in all
        .iter()
        .filter(|keeper| keeper.is_pipeban() && keeper.holds(pipe) && keeper.session == keeper.pid)
    {
        let workers = all
            .iter()
            .filter(|worker| worker.parent == keeper.pid && worker.says("worker"));
        readers.extend(workers.map(|worker| (keeper.clone(), worker.clone())));
    }
    readers
}

/// A number of kilobytes in a file of /proc/PID: `VmRSS:` and the like of `status`, `Pss:`.
pub(crate) fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .expect(name);
    let number = line.split_whitespace().nth(1).expect("a number");
    number.parse().expect("a number")
}

/// User and system time in /proc/PID/stat; a machine that others use makes wall time say little.
pub(crate) fn processor_time(stat: &str) -> Duration {
    let (_, behind_the_name) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = behind_the_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
