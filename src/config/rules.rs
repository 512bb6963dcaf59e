//! The jails of one kind of log, as the matcher takes them.

use super::{Config, Jail, JailName, SearchEngines};
use crate::filter::PatternText;
use crate::filter::matcher::Rule;
use crate::filter::rules::module_clients;
use crate::record::{Kind, ModuleClient, Parser};

impl Config {
    /// The `[[client]]` of the filters of all enabled jails.
    pub fn module_clients(&self) -> Vec<ModuleClient> {
        let rules = rules(self, Kind::Error);
        module_clients(rules.iter().map(|rule| rule.definition))
    }

    /// Reads lines of this format as the jails in use do.
    ///
    /// # Errors
    /// See [`Parser::new`].
    pub fn parser(&self, kind: Kind, format: &str) -> Result<Parser, String> {
        let parser = Parser::new(kind, format)?;
        Ok(parser.with_module_clients(self.module_clients()))
    }

    /// A pattern of a jail's filter, by its number from 1.
    pub fn rule(&self, jail: &JailName, pattern: u32) -> Option<&PatternText> {
        let filter = self.filters.get(&self.jails.get(jail)?.filter)?;
        let index = usize::try_from(pattern).ok()?.checked_sub(1)?;
        filter.failregex.get(index)
    }

    /// The jails in which a success clears a client's count that a rule of `jail` shows: the jail
    /// itself, and those whose rules are all of the same class.
    pub fn cleared(&self, jail: &JailName, pattern: u32) -> impl Iterator<Item = &JailName> {
        let class = self
            .rule(jail, pattern)
            .and_then(|rule| rule.class.as_deref());
        let same = move |other: &Jail| {
            let filter = self.filters.get(&other.filter).filter(|_| class.is_some());
            filter.is_some_and(|filter| {
                let mut rules = filter.failregex.iter();
                rules.all(|rule| rule.class.as_deref() == class)
            })
        };
        let jails = self.jails.iter();
        let jails = jails.filter(move |(name, other)| *name == jail || same(other));
        jails.map(|(name, _)| name)
    }
}

/// [`rules`] without the jails that ban only by what DNS says.
pub fn rules_of_lines(config: &Config, kind: Kind) -> Vec<Rule<'_>> {
    let mut rules = rules(config, kind);
    let jail = |rule: &Rule<'_>| config.jails.get(rule.jail.as_ref()?);
    rules
        .retain(|rule| jail(rule).is_none_or(|jail| jail.search_engines != SearchEngines::BanFake));
    rules
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
                except: &jail.except,
                findtime: jail.findtime,
            })
        })
        .collect()
}
