//! Runs another program: absolute path, argument array, no shell, small environment, a limit on
//! time and output.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::record::display;

/// Bytes kept of what a program prints; the rest is read and thrown away. 10 000 rules of ufw
/// are 1 MB.
const MOST_OUTPUT: usize = 16 * 1024 * 1024;
/// Bytes of it shown in an error.
const MOST_SAID: usize = 300;
/// Bytes of it looked at for that.
const LOOKED_AT: usize = 4096;
/// The whole environment of a program.
pub const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
/// Between two looks at a program that says nothing: the first, and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How long one that was killed may take to die: it may hang in a dead file system.
const DYING: Duration = Duration::from_secs(5);

/// Why a run is no success.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started, or not be watched.
    Start(io::Error),
    /// It ended so, and said this (escaped and cut).
    Ended(ExitStatus, String),
    /// It ran for so long, and was killed with its children.
    Late(Duration),
    /// It is no longer needed: killed with its children.
    Unwanted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Start(error) => write!(f, "{error}"),
            Failure::Ended(status, said) if said.is_empty() => write!(f, "{status}"),
            Failure::Ended(status, said) => write!(f, "{status}: {said}"),
            Failure::Late(patience) => {
                write!(f, "no end after {} s, killed", patience.as_secs())
            }
            Failure::Unwanted => f.write_str("killed before its end"),
        }
    }
}

/// A program at work.
#[derive(Debug)]
pub struct Started {
    child: Child,
    /// What it prints on both outputs.
    output: PipeReader,
}

/// Starts it, then [`finish`]es it. `input` is what it reads; empty: /dev/null.
///
/// # Errors
/// It could not be started, and those of [`finish`].
pub fn run(
    program: &str,
    argv: &[String],
    input: String,
    patience: Duration,
    over: &dyn Fn() -> bool,
) -> Result<String, Failure> {
    let piped = |command: &mut Command| {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
    };
    let mut started = start(program, argv, piped).map_err(Failure::Start)?;
    if let Some(mut stdin) = started.child.stdin.take() {
        // Ends with the program, whether that reads or not; without the thread it reads nothing.
        let _ = thread::Builder::new().name("input".into()).spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    finish(started, patience, over)
}

/// Starts it in a new process group, in `/`, with nothing to read unless `prepare` says
/// more.
///
/// # Errors
/// It could not be started.
pub fn start(
    program: &str,
    argv: &[String],
    prepare: impl FnOnce(&mut Command),
) -> io::Result<Started> {
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    prepare(&mut command);
    let child = command.spawn()?;
    Ok(Started { child, output })
}

/// Waits for its end and gives what it printed. What it leaves running in the background is left
/// alone.
///
/// # Errors
/// It took longer than `patience`, or `over` said so (it is killed then with its process group);
/// its exit status is not 0.
pub fn finish(
    started: Started,
    patience: Duration,
    over: &dyn Fn() -> bool,
) -> Result<String, Failure> {
    let Started {
        mut child,
        mut output,
    } = started;
    let end = Instant::now().checked_add(patience);
    let mut printed = Vec::new();
    let mut look = LOOK.0;
    let mut was_open = true;
    loop {
        let open = read(&mut output, &mut printed, look);
        if was_open && !open {
            // Who closes its output most often ends in the same moment.
            look = LOOK.0;
        }
        was_open = open;
        match child.try_wait() {
            Ok(Some(status)) => {
                read_rest(&mut output, &mut printed);
                return match status.success() {
                    true => Ok(String::from_utf8_lossy(&printed).into_owned()),
                    false => Err(Failure::Ended(status, shown(&printed))),
                };
            }
            Ok(None) => {}
            Err(error) => {
                kill(&mut child);
                return Err(Failure::Start(error));
            }
        }
        let late = end.is_some_and(|end| Instant::now() >= end);
        if late || over() {
            kill(&mut child);
            return Err(match late {
                true => Failure::Late(patience),
                false => Failure::Unwanted,
            });
        }
        if !open {
            thread::sleep(look);
        }
        look = (look * 2).min(LOOK.1);
    }
}

/// What came.
#[derive(PartialEq)]
enum Heard {
    Something,
    Nothing,
    /// Nothing will come any more.
    End,
}

/// Reads what comes, waiting for the first byte; false: nothing will come.
fn read(output: &mut PipeReader, printed: &mut Vec<u8>, wait: Duration) -> bool {
    let mut timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    // Who prints without end is looked at in between.
    for _ in 0..4 {
        match read_once(output, printed, timeout) {
            Heard::Something => timeout = PollTimeout::ZERO,
            Heard::Nothing => return true,
            Heard::End => return false,
        }
    }
    true
}

/// Reads what waits in the pipe of a program that has ended: a pipe holds as much as a page size
/// says. What it left running may print on, so no more than [`MOST_OUTPUT`].
fn read_rest(output: &mut PipeReader, printed: &mut Vec<u8>) {
    while printed.len() < MOST_OUTPUT
        && read_once(output, printed, PollTimeout::ZERO) == Heard::Something
    {}
}

fn read_once(output: &mut PipeReader, printed: &mut Vec<u8>, wait: PollTimeout) -> Heard {
    let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    if !matches!(poll(&mut ready, wait), Ok(1..)) {
        return Heard::Nothing;
    }
    let mut chunk = [0; 16 * 1024];
    match output.read(&mut chunk) {
        Ok(0) | Err(_) => Heard::End,
        Ok(length) => {
            let room = MOST_OUTPUT.saturating_sub(printed.len());
            printed.extend(chunk.iter().take(length.min(room)));
            Heard::Something
        }
    }
}

/// Its process group: children of it go too.
fn kill(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let end = Instant::now() + DYING;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
}

fn shown(said: &[u8]) -> String {
    let (said, _) = said.split_at(said.len().min(LOOKED_AT));
    let words: Vec<&[u8]> = said
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    display(&words.join(&b' '), MOST_SAID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str, patience: Duration) -> Result<String, Failure> {
        let argv = ["-c".into(), script.into()];
        run("/bin/sh", &argv, String::new(), patience, &|| false)
    }

    /// Waits until `sleep SECONDS` runs nowhere, or somewhere.
    fn until_sleeping(seconds: &str, wanted: bool) {
        let line = format!("sleep\0{seconds}\0");
        let runs = |entry: std::fs::DirEntry| {
            let words = std::fs::read(entry.path().join("cmdline"));
            words.is_ok_and(|words| words.ends_with(line.as_bytes()))
        };
        let start = Instant::now();
        while std::fs::read_dir("/proc").unwrap().flatten().any(runs) != wanted {
            assert!(start.elapsed() < LONG, "sleep {seconds}: not {wanted}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn output_comes_with_a_small_environment_and_nothing_to_read() {
        let said = sh("cat; env | sort >&2; pwd", LONG).unwrap();
        let [path, locale] = ENVIRONMENT.map(|(name, value)| format!("{name}={value}\n"));
        assert!(said.starts_with(&format!("{locale}{path}")), "{said}");
        // The shell adds its own PWD.
        assert_eq!(said.lines().count(), 4, "{said}");
        assert!(said.ends_with("\n/\n"), "{said}");
    }

    #[test]
    fn a_failure_says_what_the_program_said_escaped_and_cut() {
        let error = sh("printf 'no\\n\\033[2J\\377\\342\\200\\256'; exit 3", LONG).unwrap_err();
        assert_eq!(
            error.to_string(),
            "exit status: 3: no \\x1b[2J\\xff\\u{202e}"
        );
        let error = sh("head -c 100000 /dev/zero | tr '\\0' x; exit 1", LONG).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
        let error = sh("exit 4", LONG).unwrap_err();
        assert_eq!(error.to_string(), "exit status: 4");
    }

    #[test]
    fn what_it_reads_and_what_it_prints_is_whole() {
        let input = "0123456789".repeat(50_000);
        let said = run("/bin/cat", &[], input.clone(), LONG, &|| false).unwrap();
        assert!(said == input, "{} bytes", said.len());
    }

    #[test]
    fn all_that_waits_in_a_wide_pipe_is_read_after_the_end() {
        let (mut output, mut writer) = io::pipe().unwrap();
        let wide = nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20);
        nix::fcntl::fcntl(&writer, wide).unwrap();
        writer.write_all(&[b'x'; 700_000]).unwrap();
        let mut printed = Vec::new();
        // The writer stays open, as what runs on in the background does.
        read_rest(&mut output, &mut printed);
        assert_eq!(printed.len(), 700_000);
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let error = sh("sleep 1471 & sleep 1471", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, Failure::Late(_)), "{error}");
        until_sleeping("1471", false);
    }

    #[test]
    fn one_that_hangs_with_its_output_closed_is_killed_too() {
        let hangs = "exec >/dev/null 2>&1; sleep 1472";
        let error = sh(hangs, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, Failure::Late(_)), "{error}");
        until_sleeping("1472", false);
    }

    #[test]
    fn one_that_prints_without_end_is_killed_too() {
        let error = sh("yes", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, Failure::Late(_)), "{error}");
    }

    #[test]
    fn what_runs_on_in_the_background_holds_nobody_up() {
        let said = sh("sleep 3.1474 & echo done", LONG).unwrap();
        assert_eq!(said, "done\n");
        until_sleeping("3.1474", true);
    }

    #[test]
    fn nobody_waits_for_one_that_is_not_wanted_any_more() {
        let argv = ["1473".to_owned()];
        let given = run("/bin/sleep", &argv, String::new(), LONG, &|| true);
        assert!(matches!(given, Err(Failure::Unwanted)), "{given:?}");
        until_sleeping("1473", false);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let missing = run("/nonexistent", &[], String::new(), LONG, &|| false);
        assert!(matches!(missing, Err(Failure::Start(_))), "{missing:?}");
    }
}
