//! Where each setting of a jail comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The place of a setting: file, line and column.
pub type Origin = (PathBuf, (usize, usize));

/// Where each key of `[defaults]` and of each jail is set. `[defaults]` has the name "".
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Origins {
    pub(super) keys: BTreeMap<String, BTreeMap<String, Origin>>,
    pub(super) headers: BTreeMap<String, Origin>,
    /// Lists of proxies that `trusted` names.
    pub(super) proxy_lists: Vec<(String, Origin)>,
}

impl Origins {
    /// Where `key` of `jail` is set: in the jail, else in `[defaults]`; `None`: built in.
    pub fn of(&self, jail: &str, key: &str) -> Option<&Origin> {
        self.in_jail(jail, key).or_else(|| self.in_jail("", key))
    }

    /// Where the parts of `key` are set, each once: its keys, if it is a table.
    pub fn of_parts(&self, jail: &str, key: &str) -> Vec<&Origin> {
        let begin = format!("{key}.");
        let keys = [jail, ""].into_iter().filter_map(|of| self.keys.get(of));
        let parts = keys.flat_map(|keys| keys.keys().filter(|part| part.starts_with(&begin)));
        let places = [key].into_iter().chain(parts.map(String::as_str));
        let mut found: Vec<&Origin> = Vec::new();
        for origin in places.filter_map(|key| self.of(jail, key)) {
            let line = |(file, place): &Origin| (file.clone(), place.0);
            if !found.iter().any(|known| line(known) == line(origin)) {
                found.push(origin);
            }
        }
        found
    }

    /// Where the jail itself, not `[defaults]`, sets `key`.
    pub fn in_jail(&self, jail: &str, key: &str) -> Option<&Origin> {
        self.keys.get(jail)?.get(key)
    }

    /// The keys that the jail itself sets.
    pub fn keys_in_jail(&self, jail: &str) -> Vec<&str> {
        let keys = self.keys.get(jail).into_iter().flat_map(BTreeMap::keys);
        keys.map(String::as_str).collect()
    }

    /// The last header of the jail.
    pub fn header(&self, jail: &str) -> Option<&Origin> {
        self.headers.get(jail)
    }
}
