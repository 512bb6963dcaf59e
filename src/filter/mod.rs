//! Filters: fail2ban's files read, their patterns compiled, lines examined.
#![forbid(unsafe_code)]

mod candidates;
mod compile;
mod costs;
mod dates;
mod expand;
mod file;
mod glob;
pub mod lint;
mod literals;
pub mod matcher;
mod near;
mod options;
mod pattern;
mod read;
mod regexes;
mod sequence;
mod spelling;
mod subject;
mod torn;
mod translate;
mod why;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use compile::Filter;
pub use costs::{Nanos, Slowest};
pub use dates::{Dates, Moment};
pub use options::split_options;
pub use pattern::Place;
pub use read::{Texts, read, read_from};
pub use sequence::Sequence;
pub use subject::Subject;
pub use torn::Vouch;
pub use why::{Near, Reason};

/// A filter as read from its file: text only, nothing compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The name jails use.
    pub name: String,
    /// The file it came from.
    pub file: PathBuf,
    /// `prefregex`: what must match first; its `<F-CONTENT>` is what the others see.
    #[serde(default)]
    pub prefregex: Option<PatternText>,
    /// `failregex`, one each, in order; numbered from 1 wherever they are shown.
    pub failregex: Vec<PatternText>,
    /// `ignoreregex`.
    pub ignoreregex: Vec<PatternText>,
    /// `maxlines`: lines that one pattern sees together, 1 or more.
    #[serde(default = "one")]
    pub maxlines: u32,
    /// `datepattern`: where the time stands. The live path needs none.
    #[serde(default)]
    pub datepattern: Vec<PatternText>,
}

fn one() -> u32 {
    1
}

/// One pattern and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternText {
    /// As it stands in the file, references and tags replaced.
    pub text: String,
    /// The file, where it is another than the filter's own: an included one.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column of the pattern's first byte, from 1.
    pub column: usize,
}

/// Which pattern of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatternAt {
    /// `prefregex`.
    Prefix,
    /// A `failregex`, from 1.
    Fail(u32),
    /// An `ignoreregex`, from 1.
    Ignore(u32),
}

impl PatternAt {
    /// The option of the filter's file.
    pub fn option(self) -> &'static str {
        match self {
            PatternAt::Prefix => "prefregex",
            PatternAt::Fail(_) => "failregex",
            PatternAt::Ignore(_) => "ignoreregex",
        }
    }

    /// Which of those in the option, from 1.
    pub fn number(self) -> u32 {
        match self {
            PatternAt::Prefix => 1,
            PatternAt::Fail(number) | PatternAt::Ignore(number) => number,
        }
    }
}

impl std::fmt::Display for PatternAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PatternAt::Prefix => f.write_str("the prefregex"),
            PatternAt::Fail(number) => write!(f, "pattern {number}"),
            PatternAt::Ignore(number) => write!(f, "ignoreregex {number}"),
        }
    }
}

impl Definition {
    /// The text of one of its patterns.
    pub fn pattern(&self, at: PatternAt) -> Option<&PatternText> {
        let (all, number) = match at {
            PatternAt::Prefix => return self.prefregex.as_ref(),
            PatternAt::Fail(number) => (&self.failregex, number),
            PatternAt::Ignore(number) => (&self.ignoreregex, number),
        };
        all.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Where one of its patterns stands: the file, the line and the column.
    pub fn place(&self, pattern: &PatternText) -> (PathBuf, (usize, usize)) {
        let file = pattern.file.as_ref().unwrap_or(&self.file);
        (file.clone(), (pattern.line, pattern.column))
    }
}

/// What comes of one line and one filter.
///
/// For Apache's records `<HOST>` stands for the exact text of Apache's own client field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A failregex matches with the client's own address.
    Match {
        /// Its number, from 1.
        pattern: u32,
        /// The client; without a record, what stood for `<HOST>`.
        host: IpAddr,
    },
    /// A failregex matches, but only with another address than the client's: nobody is hit.
    Spoof {
        /// Its number, from 1.
        pattern: u32,
    },
    /// A failregex matches, and so does an ignoreregex.
    Ignored,
    /// None matches.
    Miss,
}

#[cfg(test)]
mod tests;
