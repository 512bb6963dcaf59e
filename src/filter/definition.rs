//! A filter as text: its patterns and their places, nothing compiled.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A filter as read from its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The name that jails use.
    pub name: String,
    /// The file it came from.
    pub file: PathBuf,
    /// `prefregex`: must match first; its `<F-CONTENT>` is what the other patterns see.
    #[serde(default)]
    pub prefregex: Option<PatternText>,
    /// `failregex`, in order; numbered from 1 wherever they are shown.
    pub failregex: Vec<PatternText>,
    /// `ignoreregex`, numbered from 1.
    pub ignoreregex: Vec<PatternText>,
    /// A native filter: its file and the included ones. `failregex` then describes its rules.
    #[serde(default)]
    pub native: Vec<RuleText>,
}

/// A file of a native filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
}

/// One pattern and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternText {
    /// As in the file, with references and tags replaced.
    pub text: String,
    /// The file, if it is an included one.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column of the pattern's first byte, from 1.
    pub column: usize,
    /// The class of attack that a native rule states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// A native rule states that a page elsewhere can make a browser send it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spoofable: bool,
    /// What a hit of a native rule with `confidence = "certain"` counts; `None`: it is less sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certain: Option<u32>,
}

/// Identifies a pattern of a filter.
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
    /// The option in the filter's file.
    pub fn option(self) -> &'static str {
        match self {
            PatternAt::Prefix => "prefregex",
            PatternAt::Fail(_) => "failregex",
            PatternAt::Ignore(_) => "ignoreregex",
        }
    }

    /// The number in that option, from 1.
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
    /// Every pattern, in the order in which they are numbered.
    pub fn patterns(&self) -> impl Iterator<Item = (PatternAt, &PatternText)> {
        let prefix = self.prefregex.iter().map(|text| (PatternAt::Prefix, text));
        let fail = (1..).zip(&self.failregex);
        let ignore = (1..).zip(&self.ignoreregex);
        prefix
            .chain(fail.map(|(number, text)| (PatternAt::Fail(number), text)))
            .chain(ignore.map(|(number, text)| (PatternAt::Ignore(number), text)))
    }

    /// One of its patterns.
    pub fn pattern(&self, at: PatternAt) -> Option<&PatternText> {
        let mut all = self.patterns();
        all.find_map(|(found, text)| (found == at).then_some(text))
    }

    /// One of its patterns in a few words, for people: the class of a native rule or the filter's
    /// name, and the place.
    pub fn rule_name(&self, at: PatternAt) -> Option<String> {
        let pattern = self.pattern(at)?;
        let name = pattern.class.as_ref().unwrap_or(&self.name);
        let (file, (line, _)) = self.place(pattern);
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        Some(format!("{name} ({file}:{line})"))
    }

    /// The file, line and column of one of its patterns.
    pub fn place(&self, pattern: &PatternText) -> (PathBuf, (usize, usize)) {
        let file = pattern.file.as_ref().unwrap_or(&self.file);
        (file.clone(), (pattern.line, pattern.column))
    }
}
