//! Syslog, the log file, and hooks.
#![forbid(unsafe_code)]

mod details;
mod flood;
mod hooks;
mod line;
mod logfile;
mod syslog;
mod words;

pub use details::{Details, details};
pub use hooks::{HookRun, Hooks};
pub use line::Severity;
pub use words::words;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use crate::record::display;
use crate::{config, sys};
use flood::Flood;
use line::Line;
use logfile::LogFile;
use syslog::Syslog;
pub use syslog::reachable;

/// Lines queued for the thread at most.
const QUEUE: usize = 16_384;

/// Lines kept for a syslog daemon that restarts or is slow: an attack from many addresses leads to
/// thousands of Ban lines in a second.
const BACKLOG: usize = 16_384;

/// Lines that go to syslog before the first of them goes to the file.
const TOGETHER: usize = 64;

/// Bytes of a line; longer ones are cut.
const MAX_LINE: usize = 1_024;

/// How often to look whether a flood of lines is over.
const IDLE: Duration = Duration::from_secs(2);

/// How often to try a daemon that is away or slow.
const RETRY: Duration = Duration::from_millis(50);

/// How long the engine's end waits for queued lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Logs one line at once, without a thread: for keepers and workers, which log seldom. Never blocks;
/// drops a line that neither syslog nor the file takes.
pub fn log(settings: &config::Syslog, severity: Severity, line: &str) {
    let line = line_now(severity, line, None);
    // There is no further place to report a failure to.
    let _ = Syslog::new(settings).send(&line);
    if let Some(path) = &settings.log_file {
        let _ = LogFile::new(path, settings.log_format).append(&line);
    }
}

enum Message {
    Line(Line),
    Configure(config::Syslog),
}

/// The engine's log. A thread waits for the syslog daemon and the disk; the callers never do.
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
    /// Starts the thread. `echo`: lines also go to stderr.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(settings: &config::Syslog, echo: bool) -> std::io::Result<Alerts> {
        let (queue, lines) = bounded(QUEUE);
        let shared = Arc::new(Shared {
            flood: Mutex::new(Flood::new(sys::clock::boottime())),
            dropped: AtomicU64::new(0),
            trouble: Mutex::new(Trouble::default()),
        });
        let mut writer = Writer::new(settings, echo, Arc::clone(&shared));
        let (ending, ended) = bounded(0);
        std::thread::Builder::new()
            .name("alert".into())
            .spawn(move || {
                let _ending = ending;
                writer.run(&lines);
            })?;
        Ok(Alerts {
            queue,
            ended,
            shared,
        })
    }

    /// Logs a line. [`Severity::Info`] lines (one per hit) are rate-limited and dropped first.
    pub fn log(&self, severity: Severity, text: &str) {
        self.log_event(severity, text, None);
    }

    /// The same, with the fields of an event.
    pub fn log_event(&self, severity: Severity, text: &str, details: Option<Details>) {
        if severity != Severity::Info || self.has_room() {
            self.enqueue(severity, text, details);
        }
    }

    /// Logs a line that any client can cause: rate-limited whatever its severity.
    pub fn log_limited(&self, severity: Severity, text: &str) {
        if self.has_room() {
            self.enqueue(severity, text, None);
        }
    }

    /// Whether one more line that clients can cause is permitted.
    fn has_room(&self) -> bool {
        let permitted = self
            .shared
            .flood
            .lock()
            .is_ok_and(|mut flood| flood.permits(sys::clock::boottime()));
        permitted && self.queue.len() <= QUEUE / 2
    }

    fn enqueue(&self, severity: Severity, text: &str, details: Option<Details>) {
        let line = Message::Line(line_now(severity, text, details));
        if self.queue.try_send(line).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes new settings for the lines that follow.
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
                "dropped {dropped} log lines: syslog or the log file was too slow"
            ));
        }
        troubles
    }

    /// Writes what is queued, and ends the thread; waits a second at most.
    pub fn finish(self) {
        drop(self.queue);
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

fn line_now(severity: Severity, text: &str, details: Option<Details>) -> Line {
    Line {
        time: Timestamp::now(),
        severity,
        text: display(text.as_bytes(), MAX_LINE),
        details,
    }
}

/// The thread.
struct Writer {
    syslog: Syslog,
    file: Option<LogFile>,
    backlog: VecDeque<Line>,
    settings: config::Syslog,
    /// Lines also go to stderr.
    echo: bool,
    shared: Arc<Shared>,
}

impl Writer {
    fn new(settings: &config::Syslog, echo: bool, shared: Arc<Shared>) -> Writer {
        Writer {
            syslog: Syslog::new(settings),
            file: settings
                .log_file
                .as_deref()
                .map(|path| LogFile::new(path, settings.log_format)),
            backlog: VecDeque::new(),
            settings: settings.clone(),
            echo,
            shared,
        }
    }

    fn run(&mut self, lines: &Receiver<Message>) {
        loop {
            match lines.recv_timeout(if self.backlog.is_empty() { IDLE } else { RETRY }) {
                Ok(message) => self.take(message, lines),
                Err(RecvTimeoutError::Timeout) => self.send_backlog(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let flood = match self.shared.flood.lock() {
                Ok(mut flood) => flood.over(sys::clock::boottime()),
                Err(_) => None,
            };
            if let Some(text) = flood {
                let line = line_now(Severity::Notice, &text, None);
                self.write(&line);
                self.send(line);
            }
        }
        self.send_backlog();
    }

    /// Takes what is queued: syslog is first, so that a Ban line waits for no disk.
    fn take(&mut self, first: Message, lines: &Receiver<Message>) {
        let mut sent = Vec::new();
        for message in std::iter::once(first).chain(lines.try_iter().take(TOGETHER)) {
            match message {
                Message::Line(line) => {
                    sent.push(line.clone());
                    self.send(line);
                }
                Message::Configure(settings) => {
                    sent.drain(..).for_each(|line| self.write(&line));
                    *self = Writer {
                        backlog: std::mem::take(&mut self.backlog),
                        ..Writer::new(&settings, self.echo, Arc::clone(&self.shared))
                    };
                }
            }
        }
        sent.iter().for_each(|line| self.write(line));
    }

    /// To the file, and to the terminal of an engine in the foreground.
    fn write(&mut self, line: &Line) {
        if self.echo {
            let _ = logfile::write(&mut std::io::stderr(), line);
        }
        if let Some(file) = &mut self.file {
            let trouble = file.append(line).err().map(|error| {
                let path = self.settings.log_file.clone().unwrap_or_default();
                format!("cannot write `log_file` {}: {error}", path.display())
            });
            if let Ok(mut known) = self.shared.trouble.lock() {
                known.file = trouble;
            }
        }
    }

    /// To syslog.
    fn send(&mut self, line: Line) {
        if self.backlog.len() >= BACKLOG {
            // Lines of single hits go first, so that those of bans stay.
            let info = |line: &Line| line.severity == Severity::Info;
            let first = self.backlog.iter().position(info).unwrap_or(0);
            self.backlog.remove(first);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.backlog.push_back(line);
        self.send_backlog();
    }

    /// Sends the backlog in order, until the daemon takes no more.
    fn send_backlog(&mut self) {
        let mut trouble = None;
        while let Some(line) = self.backlog.front() {
            if let Err(error) = self.syslog.send(line) {
                // A host without a syslog daemon: the log file has the lines, and `doctor` says so.
                let local = self.settings.target == config::SyslogTarget::local();
                let missing = error.kind() == std::io::ErrorKind::NotFound;
                if local && missing && self.settings.log_file.is_some() {
                    break;
                }
                let target = match &self.settings.target {
                    config::SyslogTarget::Unix(path) => path.display().to_string(),
                    config::SyslogTarget::Udp(address) => format!("udp://{address}"),
                    config::SyslogTarget::None => "none".to_owned(),
                };
                trouble = Some(format!(
                    "cannot write to syslog at {target}: {error}; start the syslog daemon, or set \
                     `target = \"none\"` under [syslog] and run `pipeban reload`"
                ));
                break;
            }
            self.backlog.pop_front();
        }
        if let Ok(mut known) = self.shared.trouble.lock() {
            known.syslog = trouble;
        }
    }
}

#[cfg(test)]
mod tests;
