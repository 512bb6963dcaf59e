//! Reads the lines to test, with a progress bar.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::options::{Args, Failure};

/// Longer lines are cut, as blocks behind Apache are.
const LONGEST: u64 = 256 << 10;
/// Lines and bytes read to detect the kind of a log.
const LINES_AHEAD: usize = 1000;
const BYTES_AHEAD: usize = 16 << 20;
/// Smaller files have no progress bar.
pub(in crate::cli) const LONG_FILE: u64 = 8 << 20;

pub(super) struct Lines {
    input: Box<dyn BufRead>,
    /// The name of the input, for messages.
    name: String,
    /// Read ahead.
    ahead: VecDeque<Vec<u8>>,
    bar: Option<ProgressBar>,
}

impl Lines {
    /// `quiet`: nothing else is printed meanwhile, so that a bar may be shown on a terminal.
    pub(super) fn open(args: &Args, quiet: bool) -> Result<Lines, Failure> {
        let of = |input, name: &str| Lines {
            input,
            name: name.to_owned(),
            ahead: VecDeque::new(),
            bar: None,
        };
        if let Some(line) = &args.line {
            // `"$(...)"` drops the final newline; an empty text is one line.
            let text = format!("{line}\n").into_bytes();
            return Ok(of(Box::new(io::Cursor::new(text)), "--line"));
        }
        match args.file.as_deref() {
            None => Ok(of(Box::new(io::empty()), "")),
            Some(file) if file == Path::new("-") => Ok(of(Box::new(io::stdin().lock()), "-")),
            Some(file) => {
                let name = file.display().to_string();
                let unreadable = |error| unreadable(&name, &error);
                let opened = File::open(file).map_err(unreadable)?;
                let length = opened.metadata().map_err(unreadable)?.len();
                let mut input = BufReader::with_capacity(64 << 10, opened);
                let front = input.fill_buf().map_err(unreadable)?;
                if front.starts_with(&[0x1f, 0x8b]) {
                    return Err(Failure::Failed(format!(
                        "`{name}` is compressed: use `zcat {name} | pipeban test ... -`"
                    )));
                }
                let shown = quiet && length >= LONG_FILE && io::stderr().is_terminal();
                let mut lines = of(Box::new(input), &name);
                lines.bar = shown.then(|| bar(length));
                Ok(lines)
            }
        }
    }

    /// The next line without its newline.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        }
    }

    /// The first value that `wanted` finds in the next lines, which stay the next ones.
    pub(super) fn look_ahead<T>(
        &mut self,
        wanted: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let mut bytes = 0;
        while self.ahead.len() < LINES_AHEAD && bytes < BYTES_AHEAD {
            let Some(line) = self.read()? else {
                break;
            };
            bytes += line.len();
            let found = wanted(&line);
            self.ahead.push_back(line);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let mut length = (&mut self.input)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .map_err(|error| unreadable(&self.name, &error))?;
        if line.ends_with(b"\n") {
            line.pop();
        } else if length as u64 == LONGEST {
            length += self.skip_to_end()?;
        }
        if let Some(bar) = &self.bar {
            bar.inc(length as u64);
            if length == 0 {
                bar.finish_and_clear();
            }
        }
        Ok((length > 0).then_some(line))
    }

    /// The rest of a line.
    fn skip_to_end(&mut self) -> Result<usize, Failure> {
        self.input
            .skip_until(b'\n')
            .map_err(|error| unreadable(&self.name, &error))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

pub(in crate::cli) fn bar(length: u64) -> ProgressBar {
    let form = "[{bar:40}] {percent:>3} %  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let line = error.kind() == io::ErrorKind::NotFound && name.contains(' ');
    let hint = if line {
        "; use --line for one line"
    } else {
        ""
    };
    Failure::Failed(format!("cannot read `{name}`: {error}{hint}"))
}
