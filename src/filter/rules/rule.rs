//! What a native filter consists of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::problem::Problem;
use crate::record::{Kind, ModuleClient};

/// How sure a hit is that the client attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Harmless where the thing that is asked for exists.
    Probe,
    /// An honest client sends it seldom.
    Likely,
    /// No honest client sends it.
    Certain,
}

impl Confidence {
    /// What one hit counts, where its file states a confidence and no weight.
    pub fn weight(self) -> u32 {
        match self {
            Confidence::Certain => 10,
            Confidence::Likely => 4,
            Confidence::Probe => 2,
        }
    }
}

/// A native filter as its file states it, checked.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The file.
    pub file: PathBuf,
    /// Its rules count in this log only.
    pub log: Option<Kind>,
    /// Other native filters whose rules belong to this one, each with its line and column.
    pub include: Vec<(String, (usize, usize))>,
    /// One for each `[[match]]`, then each `[[clear]]`, then each `[[except]]`.
    pub rules: Vec<Rule>,
    /// One for each `[[client]]`.
    pub clients: Vec<ModuleClient>,
}

impl Rules {
    /// Compiles all patterns, as a worker does one by one when it needs them.
    ///
    /// # Errors
    /// Those that are too large.
    pub fn compile(&self) -> Result<(), Vec<Problem>> {
        let conditions = self.rules.iter().flat_map(|rule| &rule.conditions);
        let large = conditions.filter_map(|condition| match &condition.test {
            Test::Text(pattern) if pattern.regex().is_none() => Some(Problem {
                file: self.file.clone(),
                place: Some(pattern.place),
                message: "the pattern is too large".to_owned(),
            }),
            _ => None,
        });
        let problems: Vec<_> = large.collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }
}

/// One `[[match]]`: it hits where all its conditions hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Line and column of its header.
    pub place: (usize, usize),
    /// The kind of attack, for people.
    pub class: String,
    /// The first condition, for people.
    pub description: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// A page elsewhere can make a visitor's browser send it.
    pub spoofable: bool,
    /// What one hit counts; 0, `[[clear]]`: no hit, but a success, which clears the client's count.
    pub weight: u32,
    /// A client's hits with the same text in this field count once.
    pub(super) distinct: Option<Field>,
    /// `[[except]]`: what it hits is no hit of the filter.
    pub excepts: bool,
    /// Lines that hit it, and lines that do not.
    pub samples: Vec<Sample>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) field: Field,
    pub(super) negated: bool,
    pub(super) test: Test,
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Text(Pattern),
    /// Inclusive ranges.
    Numbers(Vec<(u64, u64)>),
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Field {
    Method,
    Path,
    Query,
    Url,
    Payload,
    Referer,
    UserAgent,
    User,
    Vhost,
    Protocol,
    Request,
    Module,
    Level,
    Code,
    Message,
    Status,
    Bytes,
    Port,
}

/// A line that says what a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// A whole line.
    pub line: String,
    /// Whether the rule hits it.
    pub hits: bool,
}

impl Sample {
    /// `text` is a whole line (`[`..., or with a time in brackets), `agent: ...`, `referer: ...`,
    /// or a request, with a status in front where that is not 404.
    pub(super) fn new(text: &str, hits: bool) -> Sample {
        let (mut request, mut referer, mut agent) = ("GET / HTTP/1.1", "-", "Mozilla/5.0");
        let mut status = "404";
        if text.starts_with('[') || text.contains("] \"") {
            let line = text.to_owned();
            return Sample { line, hits };
        } else if let Some(text) = text.strip_prefix("agent: ") {
            agent = text;
        } else if let Some(text) = text.strip_prefix("referer: ") {
            referer = text;
        } else {
            request = text;
            if let Some((number, rest)) = text.split_once(' ')
                && number.len() == 3
                && number.bytes().all(|b| b.is_ascii_digit())
            {
                (status, request) = (number, rest);
            }
        }
        let escape = |text: &str| text.replace('"', "\\\"");
        let (request, referer, agent) = (escape(request), escape(referer), escape(agent));
        let line = format!(
            "192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"{request}\" {status} 196 \"{referer}\" \
             \"{agent}\""
        );
        Sample { line, hits }
    }
}

/// Texts that are searched for literals together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// The request line, and what it is decoded to.
    Target,
    Referer,
    /// The user agent.
    Agent,
    /// The user agent without the brackets in which a browser names its system.
    Behind,
    User,
    Message,
}

impl Field {
    /// The field whose texts a pattern without literals is tried on; `None`: it is cheaper to try
    /// the condition. The texts of `payload` include that of `url`.
    pub(super) fn searched(self) -> Option<Field> {
        match self {
            Field::Url | Field::Payload => Some(Field::Payload),
            _ if self.families().is_empty() => None,
            _ => Some(self),
        }
    }

    /// The texts that hold every literal of such a field; empty: it is cheaper to try the
    /// condition.
    pub(super) fn families(self) -> &'static [Family] {
        match self {
            Field::Path | Field::Query | Field::Url | Field::Request => &[Family::Target],
            Field::Payload => &[
                Family::Target,
                Family::Referer,
                Family::Behind,
                Family::User,
            ],
            Field::Referer => &[Family::Referer],
            Field::UserAgent => &[Family::Agent],
            Field::User => &[Family::User],
            Field::Message => &[Family::Message],
            _ => &[],
        }
    }

    /// Whether it holds the parameters of a request.
    pub(super) fn has_parameters(self) -> bool {
        matches!(self, Field::Query | Field::Url | Field::Payload)
    }

    /// Its name in a filter.
    pub(super) fn name(self) -> &'static str {
        match self {
            Field::Method => "method",
            Field::Path => "path",
            Field::Query => "query",
            Field::Url => "url",
            Field::Payload => "payload",
            Field::Referer => "referer",
            Field::UserAgent => "user_agent",
            Field::User => "user",
            Field::Vhost => "vhost",
            Field::Protocol => "protocol",
            Field::Request => "request",
            Field::Module => "module",
            Field::Level => "level",
            Field::Code => "code",
            Field::Message => "message",
            Field::Status => "status",
            Field::Bytes => "bytes",
            Field::Port => "port",
        }
    }

    /// Whether a log has the field.
    pub(super) fn is_in(self, log: Kind) -> bool {
        let only = match self {
            Field::Method
            | Field::Protocol
            | Field::Request
            | Field::User
            | Field::UserAgent
            | Field::Bytes => Kind::Access,
            Field::Module | Field::Level | Field::Code | Field::Message => Kind::Error,
            _ => return true,
        };
        log == only
    }
}
