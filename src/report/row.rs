//! A ban of the history.

use ipnet::IpNet;
use jiff::Timestamp;

/// A ban as the database or a log has it, active or ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BanRow<'t> {
    /// Number of its id; 0 where there is none.
    pub id: u64,
    /// The jail that banned.
    pub jail: &'t str,
    /// The banned client or network.
    pub net: IpNet,
    /// The jail has `enforce = false`: the ban was logged only.
    pub observed: bool,
    /// The client was behind a proxy, so that only Apache could refuse it.
    pub behind: bool,
    /// When it began.
    pub since: Timestamp,
    /// When it is to end; `None`: never, or not known.
    pub until: Option<Timestamp>,
    /// When it ended; `None`: it has not, as far as the source says.
    pub ended: Option<Timestamp>,
    /// Why it exists, as [`crate::jail::Cause::word`].
    pub cause: &'t str,
    /// Classes of attack of its evidence, a JSON list; empty: none is known.
    pub classes: &'t str,
    /// Virtual hosts of its evidence, a JSON list; empty: none is known.
    pub vhosts: &'t str,
}

impl BanRow<'_> {
    /// Whether it is active at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.until.is_none_or(|until| until > now)
    }
}
