//! Apache's side: `pipeban log`.
//!
//! ```text
//! Apache --pipe--> stub    what Apache knows; exits at once on TERM; makes the memory; starts keepers
//!                  keeper  reader thread: pipe -tee-> memory -> log file -> out of the pipe
//!                          write thread: opens the log file and appends to it
//!                          supervise thread: configuration, engine, worker
//!                  worker  without rights: blocks from the memory -> match threads -> outbox
//!                          uplink thread: hits -> engine
//! ```
//!
//! # Who owns what
//!
//! | what | owner | who else sees it |
//! |---|---|---|
//! | stdin, the private pipe, the memory files | stub: they outlive keepers | each keeper |
//! | the pipe's lock, the log file | one keeper | a second keeper waits for the lock |
//! | [`layout::Books`]: counters, table and bytes of blocks | the keeper | the worker, read-only |
//! | [`layout::Progress`]: counters of matching | the worker's [`outbox`] | the keeper, which bounds it |
//! | hits that are not acknowledged | the worker's outbox | |
//!
//! # A block's way
//!
//! 1. `tee` copies the front of the pipe; the reader cuts it behind the last newline.
//! 2. *Take in*: the bytes go into the ring (to be matched) and into the buffer (to be written); one
//!    store makes counters and block valid. The worker wakes.
//! 3. The writer appends the bytes to the log file. The reader waits for it; after 250 ms without a
//!    write that returns it goes on, and lines collect in the buffer of 16 MiB, then are lost.
//! 4. The block is moved out of the pipe into the private pipe, noted as consumed, and dropped.
//!
//! If the ring is full, step 2 waits up to 20 ms, as long as matching makes progress; then the block
//! is not matched, and counts as shed. The keeper finds newlines and nothing else.
//!
//! # What a kill does
//!
//! - Keeper, before 2 is valid: nothing has happened. Between 2 and 4: the next keeper writes what
//!   the buffer still holds (the part in the writer's hands may be in the log twice, or torn once),
//!   and moves the rest of the block out of the pipe: the private pipe shows how much had left.
//!   The worker ends with its keeper.
//! - Worker: the next one matches again what is not acknowledged; the engine counts a hit once,
//!   by its offset in the stream. The log is not concerned.
//! - Stub: keeper and worker read to the end of input.
//!
//! A worker that crashes or makes no progress for two seconds is replaced. The block that it was
//! matching is tried once more; five crashes in a minute end matching until a reload.
#![forbid(unsafe_code)]

mod advice;
mod arguments;
mod cells;
mod crashes;
mod engine_link;
mod family;
mod keeper;
mod layout;
mod link;
mod log;
mod logfile;
mod matching;
mod names;
mod opening;
mod outbox;
mod output;
mod reader;
mod reading;
mod report;
mod ring;
mod running;
mod source;
mod stub;
mod supervisor;
mod uplink;
mod view;
mod wake;
mod watch;
mod worker;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use arguments::{Arguments, Directive, Owner, corrected, directive, salvage};
pub use log::{Log, WORKER};
pub(crate) use logfile::{group_id, user_id};
pub(crate) use matching::MAX_LINE;
pub use names::{FIELDS, Names};
pub(crate) use opening::would_open;
pub use output::{FILE_MODE, Output, To};

/// Passes stdin through and has it matched, until the end of input. `config` is the configuration
/// file. Whatever is broken (configuration, engine, log file): lines are read, and syslog gets a
/// message.
///
/// To be called in a process with one thread, with all signals held back.
pub fn run(log: Log, config: PathBuf) {
    let log = Log {
        output: log.output.map(Output::absolute),
        ..log
    };
    // Later the file may have been replaced; if it has been already, this names no file.
    let exe = std::env::current_exe().ok().filter(|exe| exe.exists());
    let exe = exe.unwrap_or_else(|| PathBuf::from("/usr/bin/pipeban"));
    let starter = engine_link::Starter {
        exe,
        config_file: output::absolute(config),
    };
    stub::run(log, starter);
}

/// The worker's process, as the keeper starts it. Returns the exit status.
pub fn run_worker() -> i32 {
    worker::run()
}

/// Reads stdin to its end and drops it: for a command line that names no file. Apache hangs with a
/// logger that ends. A terminal is not read.
pub fn drop_stdin() {
    let _ = crate::sys::signals::let_all_through();
    let mut stdin = std::io::stdin();
    if !std::io::IsTerminal::is_terminal(&stdin) {
        // An error is the end too.
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
    }
}
