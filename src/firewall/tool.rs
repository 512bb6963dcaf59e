//! Runs a firewall's own program: absolute path, argument array, no shell, clean environment, a
//! limit on time and output.
#![forbid(unsafe_code)]

use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Error;

/// 10 000 rules are 1 MB.
const MOST_OUTPUT: u64 = 16 * 1024 * 1024;
/// Of what a tool says in an error.
const MOST_SAID: usize = 300;

/// Runs to the end and gives what was printed on both outputs.
///
/// # Errors
/// It could not be started, took longer than `patience` (it is killed then, with its children),
/// or its exit status was not 0.
pub(super) fn run(program: &str, argv: &[String], patience: Duration) -> Result<String, Error> {
    run_with_input(program, argv, String::new(), patience)
}

/// The same, with something to read for it.
pub(super) fn run_with_input(
    program: &str,
    argv: &[String],
    input: String,
    patience: Duration,
) -> Result<String, Error> {
    let mut started = start(program, argv, |command| {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
    });
    if let Ok((_, child)) = &mut started
        && let Some(mut stdin) = child.stdin.take()
    {
        // Ends with the tool, whether that reads or not; without the thread it reads nothing.
        let _ = thread::Builder::new().name("input".into()).spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
    }
    finish(program, argv, started, patience)
}

/// A tool at work, and what it prints.
type Started = (PipeReader, Child);

/// Starts it with nothing to read, unless `prepare` says more.
pub(super) fn start(
    program: &str,
    argv: &[String],
    prepare: impl FnOnce(&mut Command),
) -> io::Result<Started> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir(Path::new("/"))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    prepare(&mut command);
    Ok((reader, command.spawn()?))
}

/// Waits for what was started (or was not) by these words; errors are those of [`run`].
pub(super) fn finish(
    program: &str,
    argv: &[String],
    started: io::Result<Started>,
    patience: Duration,
) -> Result<String, Error> {
    let failed = |said: String| Error::Tool {
        command: format!("{program} {}", argv.join(" ")),
        said,
    };
    let (reader, mut child) = started.map_err(|error| failed(error.to_string()))?;
    let (sender, output) = crossbeam_channel::bounded(1);
    let reading = thread::Builder::new().name("tool".into()).spawn(move || {
        let mut bytes = Vec::new();
        // What came until an error is all there is.
        let _ = reader.take(MOST_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    let said = match reading {
        Ok(_) => output.recv_timeout(patience).ok(),
        Err(_) => None,
    };
    if said.is_none() {
        // Its own process group: children of it go too.
        if let Ok(pid) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let Some(said) = said else {
        return Err(failed(format!(
            "no end after {} s, killed",
            patience.as_secs()
        )));
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    match status.success() {
        true => Ok(said),
        false => Err(failed(format!("{status}: {}", shorten(&said)))),
    }
}

fn shorten(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars()
        .filter(|c| !c.is_control())
        .take(MOST_SAID)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, patience: Duration) -> Result<String, Error> {
        run("/bin/sh", &["-c".into(), script.into()], patience)
    }

    #[test]
    fn output_comes_with_a_clean_environment() {
        let said = sh("echo $HOME-$LC_ALL-$(pwd) >&2", Duration::from_secs(20)).unwrap();
        assert_eq!(said, "-C-/\n");
    }

    #[test]
    fn a_failure_says_what_the_tool_said() {
        let error = sh("echo no; exit 3", Duration::from_secs(20)).unwrap_err();
        assert!(error.to_string().contains("exit status: 3: no"), "{error}");
    }

    #[test]
    fn a_tool_reads_what_it_is_given_whole() {
        let input = "0123456789".repeat(50_000);
        let argv = ["-c".to_owned()];
        let said = run_with_input("/usr/bin/wc", &argv, input, Duration::from_secs(20));
        assert_eq!(said.unwrap().trim(), "500000");
    }

    #[test]
    fn a_tool_that_hangs_is_killed_with_its_children() {
        let error = sh("sleep 1000 & sleep 1000", Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("killed"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_an_error() {
        assert!(run("/nonexistent/ufw", &[], Duration::from_secs(1)).is_err());
    }
}
