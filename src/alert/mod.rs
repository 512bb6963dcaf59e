//! Syslog, the log file, and programs that are told of bans.
#![forbid(unsafe_code)]

mod flood;
mod hooks;
mod logfile;
mod syslog;
mod words;

pub use hooks::{Call, Hooks};
pub use words::words;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use crate::{config, sys};
use flood::Flood;
use logfile::LogFile;
use syslog::{Line, Syslog};

/// Lines that wait for the thread.
const QUEUE: usize = 16_384;

/// Lines kept for a syslog daemon that is being started again, or is behind: an attack from many
/// addresses has thousands of Ban lines in a second.
const BACKLOG: usize = 16_384;

/// Bytes of a line; longer ones are cut.
const MAX_LINE: usize = 1_024;

/// How often a daemon that was away, or behind, is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// How long the end waits for lines that are not told yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Severities in use, as RFC 5424 numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// "not banning at all" and its like.
    Err = 3,
    /// Something an operator should mend.
    Warning = 4,
    /// Ban, Unban, Restore Ban.
    Notice = 5,
    /// Found.
    Info = 6,
}

/// Tells one line now, without a thread: for keepers and workers that have seldom something to
/// say. Never blocks; a line that cannot be told is dropped.
pub fn tell(settings: &config::Syslog, severity: Severity, line: &str) {
    let line = line_now(severity, line);
    // There is nobody left to tell a failure to.
    let _ = Syslog::new(settings).send(&line);
    if let Some(path) = &settings.log_file {
        let _ = LogFile::new(path).append(&line);
    }
}

enum Message {
    Line(Line),
    Configure(config::Syslog),
}

/// The engine's voice. Nothing here waits for a syslog daemon or a disk: an own thread does.
pub struct Alerts {
    queue: Sender<Message>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

struct Shared {
    flood: Mutex<Flood>,
    dropped: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    syslog: Option<String>,
    file: Option<String>,
}

impl Alerts {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(settings: &config::Syslog) -> std::io::Result<Alerts> {
        let (queue, lines) = bounded(QUEUE);
        let shared = Arc::new(Shared {
            flood: Mutex::new(Flood::new(sys::clock::boottime())),
            dropped: AtomicU64::new(0),
            trouble: Mutex::new(Trouble::default()),
        });
        let mut teller = Teller::new(settings, Arc::clone(&shared));
        let (ending, ended) = bounded(0);
        std::thread::Builder::new()
            .name("alert".into())
            .spawn(move || {
                let _ending = ending;
                teller.run(&lines);
            })?;
        Ok(Alerts {
            queue,
            ended,
            shared,
        })
    }

    /// Tells a line. [`Severity::Info`] lines (one a hit) are rate-limited and give way first.
    pub fn tell(&self, severity: Severity, text: &str) {
        if severity == Severity::Info {
            self.tell_limited(severity, text);
        } else {
            self.enqueue(severity, text);
        }
    }

    /// Tells a line that a stranger can cause at will: rate-limited whatever its severity.
    pub fn tell_limited(&self, severity: Severity, text: &str) {
        let permitted = self
            .shared
            .flood
            .lock()
            .is_ok_and(|mut flood| flood.permits(sys::clock::boottime()));
        if permitted && self.queue.len() <= QUEUE / 2 {
            self.enqueue(severity, text);
        }
    }

    fn enqueue(&self, severity: Severity, text: &str) {
        let line = Message::Line(line_now(severity, text));
        if self.queue.try_send(line).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes new settings for lines told from now on.
    pub fn configure(&self, settings: &config::Syslog) {
        let message = Message::Configure(settings.clone());
        if self.queue.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is wrong now, each with what to do.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = match self.shared.trouble.lock() {
            Ok(trouble) => trouble
                .syslog
                .iter()
                .chain(&trouble.file)
                .cloned()
                .collect(),
            Err(_) => Vec::new(),
        };
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            troubles.push(format!(
                "{dropped} log lines were dropped: syslog or the log file was too slow"
            ));
        }
        troubles
    }

    /// Tells what is queued, and ends the thread; one that hangs in a dead file system is left.
    pub fn finish(self) {
        drop(self.queue);
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

fn line_now(severity: Severity, text: &str) -> Line {
    Line {
        time: Timestamp::now(),
        severity,
        text: printable(text),
    }
}

/// Without control and bidirectional characters, cut to [`MAX_LINE`].
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if out.len() >= MAX_LINE {
            out.push_str("...");
            break;
        }
        match c {
            '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{61c}'
            | '\u{2028}'
            | '\u{2029}' => out.extend(c.escape_unicode()),
            c if (c as u32) < 0x80 && c.is_control() => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The thread's side.
struct Teller {
    syslog: Syslog,
    file: Option<LogFile>,
    backlog: VecDeque<Line>,
    settings: config::Syslog,
    shared: Arc<Shared>,
}

impl Teller {
    fn new(settings: &config::Syslog, shared: Arc<Shared>) -> Teller {
        Teller {
            syslog: Syslog::new(settings),
            file: settings.log_file.as_deref().map(LogFile::new),
            backlog: VecDeque::new(),
            settings: settings.clone(),
            shared,
        }
    }

    fn run(&mut self, lines: &Receiver<Message>) {
        loop {
            match lines.recv_timeout(if self.backlog.is_empty() {
                Duration::from_secs(1)
            } else {
                RETRY
            }) {
                Ok(Message::Line(line)) => self.line(line),
                Ok(Message::Configure(settings)) => {
                    *self = Teller {
                        backlog: std::mem::take(&mut self.backlog),
                        ..Teller::new(&settings, Arc::clone(&self.shared))
                    };
                }
                Err(RecvTimeoutError::Timeout) => self.send_backlog(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let flood = match self.shared.flood.lock() {
                Ok(mut flood) => flood.over(sys::clock::boottime()),
                Err(_) => None,
            };
            if let Some(text) = flood {
                self.line(line_now(Severity::Notice, &text));
            }
        }
        self.send_backlog();
    }

    fn line(&mut self, line: Line) {
        if let Some(file) = &mut self.file {
            let trouble = file.append(&line).err().map(|error| {
                let path = self.settings.log_file.clone().unwrap_or_default();
                format!("log_file {} cannot be written: {error}", path.display())
            });
            if let Ok(mut told) = self.shared.trouble.lock() {
                told.file = trouble;
            }
        }
        if self.backlog.len() >= BACKLOG {
            // Lines of single hits give way to those of bans.
            let info = |line: &Line| line.severity == Severity::Info;
            let first = self.backlog.iter().position(info).unwrap_or(0);
            self.backlog.remove(first);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.backlog.push_back(line);
        self.send_backlog();
    }

    /// Sends what waits, in order, until the daemon takes no more.
    fn send_backlog(&mut self) {
        let mut trouble = None;
        while let Some(line) = self.backlog.front() {
            if let Err(error) = self.syslog.send(line) {
                let target = match &self.settings.target {
                    config::SyslogTarget::Unix(path) => path.display().to_string(),
                    config::SyslogTarget::Udp(address) => format!("udp://{address}"),
                };
                trouble = Some(format!(
                    "syslog at {target} takes nothing: {error}; is the syslog daemon running?"
                ));
                break;
            }
            self.backlog.pop_front();
        }
        if let Ok(mut told) = self.shared.trouble.lock() {
            told.syslog = trouble;
        }
    }
}

#[cfg(test)]
mod tests;
