//! The jails of one kind of log, as the matcher takes them.

use super::{Config, JailName};
use crate::filter::PatternText;
use crate::filter::matcher::Rule;
use crate::record::Kind;

impl Config {
    /// A pattern of a jail's filter, by its number from 1.
    pub fn rule(&self, jail: &JailName, pattern: u32) -> Option<&PatternText> {
        let filter = self.filters.get(&self.jails.get(jail)?.filter)?;
        let index = usize::try_from(pattern).ok()?.checked_sub(1)?;
        filter.failregex.get(index)
    }
}

/// The enabled jails that read `kind` and have a known filter.
pub fn rules(config: &Config, kind: Kind) -> Vec<Rule<'_>> {
    let jails = config.jails.iter();
    let jails = jails.filter(|(_, jail)| jail.enabled && jail.log == kind);
    jails
        .filter_map(|(name, jail)| {
            Some(Rule {
                jail: Some(name.clone()),
                filter: &jail.filter,
                definition: config.filters.get(&jail.filter)?,
                vhost: &jail.vhost,
                not_vhost: &jail.not_vhost,
                findtime: jail.findtime,
            })
        })
        .collect()
}
