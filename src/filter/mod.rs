//! Filters: fail2ban's files read, their patterns compiled, lines examined.
#![forbid(unsafe_code)]

pub mod matcher;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A filter as read from its file: text only, nothing compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The name jails use.
    pub name: String,
    /// The file it came from.
    pub file: PathBuf,
    /// `failregex`, one each, in order; numbered from 1 wherever they are shown.
    pub failregex: Vec<PatternText>,
    /// `ignoreregex`.
    pub ignoreregex: Vec<PatternText>,
}

/// One pattern and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternText {
    /// As it stands in the file.
    pub text: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column of the pattern's first byte, from 1.
    pub column: usize,
}
