//! All jails of one kind of log against blocks of whole lines: what the live path runs.

use std::net::IpAddr;

use crate::config::{Config, JailName};
use crate::record::{Kind, Parser};

/// What came of one block.
#[derive(Debug, Default, PartialEq)]
pub struct BlockResult {
    /// Lines in the block.
    pub lines: u64,
    /// Lines no parser understood.
    pub unparsed: u64,
    /// Lines that matched only with another address than the client's.
    pub spoofed: u64,
    /// Lines that hit.
    pub hits: Vec<Hit>,
    /// Good requests (2xx, 3xx) for the shared-address rule: client and a hash of the user agent.
    pub good: Vec<(IpAddr, u64)>,
}

/// One line that matched at least one jail.
#[derive(Debug, PartialEq)]
pub struct Hit {
    /// Where the line stands in the block.
    pub line: std::ops::Range<usize>,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, where it differs.
    pub peer: Option<IpAddr>,
    /// Jails that matched, each with the number of its pattern, from 1.
    pub jails: Vec<(JailName, u32)>,
}

/// Compiled jails. Shared by all match threads.
#[derive(Debug)]
pub struct Matcher {}

impl Matcher {
    /// Compiles the enabled jails of `config` that are fed by `kind`. Patterns that do not
    /// compile are left out (`check` names them; the engine refuses such a configuration).
    pub fn new(config: &Config, kind: Kind, parser: Parser) -> Matcher {
        let _ = (config, kind, parser);
        Matcher {}
    }

    /// Examines every line of `block`, which holds whole lines, each ended by `\n` but perhaps
    /// the last of a stream.
    pub fn examine(&self, block: &[u8]) -> BlockResult {
        let _ = block;
        BlockResult::default()
    }
}
