//! The results of blocks and lines.

use std::net::IpAddr;
use std::ops::Range;

use crate::filter::compile::Outcome;
use crate::jail_name::JailName;
use crate::record::{ClientSource, Record};

/// The result of one block.
#[derive(Debug, Default, PartialEq)]
pub struct BlockResult {
    /// Lines in the block.
    pub lines: u64,
    /// Lines that are not of the log's format.
    pub unparsed: u64,
    /// The first of them.
    pub unread: Option<Unread>,
    /// Error lines that may not be Apache's: see [`super::Matcher`].
    pub torn: u64,
    /// Lines that matched only with another address than the client's.
    pub spoofed: u64,
    /// Lines that hit.
    pub hits: Vec<Hit>,
    /// Clients of the access lines, each once in a row.
    pub clients: Vec<IpAddr>,
    /// Good requests (2xx, 3xx) for the shared-address rule: client and a hash of the user agent.
    pub good: Vec<(IpAddr, u64)>,
}

/// A line that is not of the log's format.
#[derive(Debug, PartialEq)]
pub struct Unread {
    /// Its number in the block, from 0.
    pub number: u64,
    /// Its place in the block.
    pub line: Range<usize>,
    /// Why, in a few words.
    pub why: &'static str,
}

/// One line that matched at least one jail.
#[derive(Debug, PartialEq)]
pub struct Hit {
    /// Its place in the block, without its newline.
    pub line: Range<usize>,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, if it differs.
    pub peer: Option<IpAddr>,
    /// The virtual host, where the format has it; escaped and cut.
    pub vhost: Option<String>,
    /// How the line shows whether the client is the peer.
    pub source: ClientSource,
    /// The search engine that the user agent names.
    pub claim: Option<String>,
    /// See [`Record::is_answered`].
    pub answered: bool,
    /// Jails that matched, each with the number of its pattern, from 1, and what the hit counts; 0: a
    /// success, which clears the client's count.
    pub jails: Vec<(JailName, u32, u32)>,
}

/// The result of one line.
#[derive(Debug, Default)]
pub struct LineResult<'l> {
    /// The fields; `None` with [`super::InputKind::Raw`] and for a line that is not of the log's format.
    pub record: Option<Record<'l>>,
    /// The line is not of the log's format.
    pub unparsed: bool,
    /// The line may not be Apache's, or matches only by words of a script or another line: see
    /// [`super::Matcher`]. It hits no client, whatever `outcomes` says.
    pub torn: bool,
    /// The outcome of each rule (from 0) whose filter does not miss.
    pub outcomes: Vec<(usize, Outcome)>,
}

impl Hit {
    /// Whether it counts anything.
    pub fn counts(&self) -> bool {
        self.jails.iter().any(|(.., weight)| *weight > 0)
    }
}

impl LineResult<'_> {
    /// Whether a rule matches.
    pub(super) fn matches(&self) -> bool {
        let is_match = |outcome: &Outcome| matches!(outcome, Outcome::Match { .. });
        self.outcomes.iter().any(|(_, outcome)| is_match(outcome))
    }
}
