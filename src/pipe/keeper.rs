//! The process that outlives Apache's TERM: root, in its own session. Its threads:
//!
//! - main: the reader; see [`super::reader`]
//! - `write`: the log file; see [`super::writer`]
//! - `supervise`: engine, configuration, worker; see [`super::supervisor`]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;

use super::engine_link::Starter;
use super::layout::Files;
use super::log::{FAILED, Log};
use super::logfile::LogFile;
use super::output::Streams;
use super::reader::{PrivatePipe, Reader};
use super::report::Report;
use super::ring::Ring;
use super::source;
use super::supervisor::Supervisor;
use super::wake::Wakes;
use super::writer::Writer;
use crate::disk;
use crate::sys::process;

/// At the end of input, how long writing the rest is tried.
const WRITE_GRACE: Duration = Duration::from_secs(10);

/// What the stub hands over.
pub(super) struct Inherited {
    pub(super) log: Log,
    pub(super) starter: Starter,
    /// Apache's main process, if it started the stub.
    pub(super) apache: Option<Pid>,
    pub(super) ring: Ring,
    pub(super) files: Files,
    pub(super) private: PrivatePipe,
    pub(super) streams: Streams,
    /// Where the engine's answers go; the stub prints them.
    pub(super) answers: OwnedFd,
}

/// Runs to the end of input. Returns the exit status.
pub(super) fn run(inherited: Inherited) -> i32 {
    // As in the worker: a thread that panics ends the process, and another one starts.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let report = Report::new(inherited.log.kind, inherited.log.path());
    if !inherited.log.refused.is_empty() {
        report.problem("arguments", &inherited.log.refused.join("; "));
    }
    let paths = disk::paths_to_obey(&inherited.starter.config_file);
    let (pipe, _lock) = match source::open_and_lock(&paths.runtime, &report) {
        Ok(source) => source,
        Err(error) => {
            report.problem("pipe", &format!("cannot read the pipe: {error}"));
            return FAILED;
        }
    };
    // What the stub and Apache share stays theirs.
    let _ = process::redirect_to_null(true);
    match work(inherited, pipe, &report) {
        Ok(()) => 0,
        Err(error) => {
            report.warning(&format!("the keeper failed and starts again: {error}"));
            FAILED
        }
    }
}

fn work(inherited: Inherited, pipe: OwnedFd, report: &Report) -> std::io::Result<()> {
    let Inherited {
        log,
        starter,
        apache,
        ring,
        files,
        private,
        streams,
        answers,
    } = inherited;
    let reader_report = Report::without_file(log.kind, log.path());
    let wakes = Arc::new(Wakes::new()?);
    let file = log
        .output
        .clone()
        .map(|output| LogFile::new(output, streams, report.clone()));
    let writer = Writer::start(ring.clone(), file, reader_report.clone())?;
    let supervisor = Supervisor::new(
        log,
        starter,
        apache,
        ring.clone(),
        files,
        Arc::clone(&wakes),
        answers,
        [report.clone(), reader_report],
    );
    let supervisor = std::thread::Builder::new()
        .name("supervise".into())
        .spawn(move || supervisor.run())?;
    let reader = Reader {
        pipe,
        private,
        ring,
        writer: Arc::clone(&writer),
        wakes: Arc::clone(&wakes),
    };
    reader.run()?;
    writer.finish(WRITE_GRACE);
    wakes.end();
    // Its end is the worker's end.
    let _ = supervisor.join();
    Ok(())
}
