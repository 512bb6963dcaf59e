//! Which bans a report is about.

use ipnet::IpNet;
use jiff::Timestamp;

use super::row::BanRow;
use crate::jail::overlap;
use crate::jail_name::JailName;

/// Which bans a report is about.
#[derive(Debug, Clone)]
pub struct Query {
    /// Bans that began at this time or later.
    pub since: Timestamp,
    /// And before this time.
    pub until: Timestamp,
    /// Only this jail's.
    pub jail: Option<JailName>,
    /// Only those whose evidence names this virtual host.
    pub vhost: Option<String>,
    /// Only those that share an address with this network.
    pub net: Option<IpNet>,
    /// Only bans of jails with `enforce = false`, instead of all others.
    pub observed: bool,
}

impl Query {
    /// Whether a ban is asked for, whether its jail enforces it or not.
    pub(super) fn wants(&self, row: &BanRow<'_>) -> bool {
        let named = |host: &str| {
            let hosts: Vec<String> = serde_json::from_str(row.vhosts).unwrap_or_default();
            hosts.iter().any(|named| named.eq_ignore_ascii_case(host))
        };
        (self.since..self.until).contains(&row.since)
            && self
                .jail
                .as_ref()
                .is_none_or(|jail| jail.as_str() == row.jail)
            && self.net.is_none_or(|net| overlap(&net, &row.net))
            && self.vhost.as_deref().is_none_or(named)
    }
}
