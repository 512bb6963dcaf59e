//! What the names in `ignoreip` stand for. Time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::jail::{Moment, NetSet, single};

/// Addresses of one name that count.
const MOST_ADDRESSES: usize = 64;

/// An address that a name does not stand for any more is ignored for so long yet: names with many
/// addresses show some at a time.
const LINGER: Duration = Duration::from_secs(3_600);

/// So long the last answer counts when there is none.
const TRUST: Duration = Duration::from_secs(86_400);

#[derive(Debug, Default)]
struct Known {
    /// When each was part of an answer last.
    addresses: BTreeMap<IpAddr, Moment>,
    failing: Option<(Moment, String)>,
}

/// Every name's addresses.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, Known>,
}

impl Names {
    /// What an earlier engine kept: better than nothing until there is an answer.
    pub(super) fn restore(&mut self, kept: BTreeMap<String, Vec<IpAddr>>, now: Moment) {
        for (name, addresses) in kept {
            let known = self.known.entry(name).or_default();
            let few = addresses.into_iter().take(MOST_ADDRESSES);
            known.addresses.extend(few.map(|addr| (addr, now)));
        }
    }

    /// For the next engine.
    pub(super) fn kept(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let known = self.known.iter();
        known
            .map(|(name, known)| (name.clone(), known.addresses.keys().copied().collect()))
            .collect()
    }

    /// Only these are asked for.
    pub(super) fn want(&mut self, names: &BTreeSet<String>) {
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            self.known.entry(name.clone()).or_default();
        }
    }

    /// An answer, or why there is none. Whether it changes who is ignored.
    pub(super) fn answer(
        &mut self,
        name: &str,
        answer: Result<Vec<IpAddr>, String>,
        now: Moment,
    ) -> bool {
        let Some(known) = self.known.get_mut(name) else {
            return false;
        };
        let before: Vec<IpAddr> = known.addresses.keys().copied().collect();
        match answer {
            Ok(addresses) => {
                known.failing = None;
                known.addresses.retain(|_, seen| now.since(*seen) < LINGER);
                for addr in addresses {
                    let room = known.addresses.len() < MOST_ADDRESSES;
                    if room || known.addresses.contains_key(&addr) {
                        known.addresses.insert(addr, now);
                    }
                }
            }
            Err(error) => {
                let since = known.failing.take().map_or(now, |(since, _)| since);
                if now.since(since) >= TRUST {
                    known.addresses.clear();
                }
                known.failing = Some((since, error));
            }
        }
        !known.addresses.keys().eq(before.iter())
    }

    /// Who is ignored.
    pub(super) fn sets(&self) -> HashMap<String, NetSet> {
        let set =
            |known: &Known| NetSet::new(known.addresses.keys().map(|a| -> IpNet { single(*a) }));
        let known = self.known.iter();
        known
            .map(|(name, known)| (name.clone(), set(known)))
            .collect()
    }

    /// Names without an answer now.
    pub(super) fn trouble(&self) -> Option<String> {
        let failing = self.known.iter().filter_map(|(name, known)| {
            let (_, error) = known.failing.as_ref()?;
            let meanwhile = match known.addresses.len() {
                0 => "nobody is ignored by it".to_owned(),
                some => format!("its last {some} addresses are still ignored"),
            };
            Some(format!("{name} ({error}; {meanwhile})"))
        });
        let all: Vec<String> = failing.collect();
        (!all.is_empty()).then(|| {
            format!(
                "names of `ignoreip` that cannot be looked up: {}",
                all.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Moment {
        Moment::default().plus(Duration::from_secs(hours * 3_600))
    }

    fn addrs(text: &str) -> Vec<IpAddr> {
        text.split_whitespace()
            .map(|a| a.parse().unwrap())
            .collect()
    }

    fn ignored(names: &Names) -> String {
        let sets = names.sets();
        let all: Vec<String> = sets["office"].iter().map(IpNet::to_string).collect();
        all.join(" ")
    }

    #[test]
    fn a_resolver_that_fails_un_ignores_nobody_for_a_day() {
        let mut names = Names::default();
        names.want(&["office".to_owned()].into());
        let fail = || Err("no answer".to_owned());
        assert!(!names.answer("office", fail(), at(0)));
        assert!(names.trouble().unwrap().contains("nobody is ignored"));
        assert!(names.answer("office", Ok(addrs("192.0.2.1 2001:db8::1")), at(1)));
        assert_eq!(names.trouble(), None);
        for hour in [2, 10, 25] {
            assert!(!names.answer("office", fail(), at(hour)));
            assert_eq!(ignored(&names), "192.0.2.1/32 2001:db8::1/128");
        }
        assert!(names.trouble().unwrap().contains("last 2 addresses"));
        assert!(names.answer("office", fail(), at(26)));
        assert_eq!(ignored(&names), "");
    }

    #[test]
    fn an_old_address_lingers_and_strange_answers_are_bounded() {
        let mut names = Names::default();
        names.want(&["office".to_owned()].into());
        names.answer("office", Ok(addrs("192.0.2.1")), at(0));
        let half = at(0).plus(Duration::from_secs(1_800));
        assert!(names.answer("office", Ok(addrs("192.0.2.2")), half));
        assert_eq!(ignored(&names), "192.0.2.1/32 192.0.2.2/32");
        names.answer("office", Ok(addrs("192.0.2.2")), at(1));
        assert_eq!(ignored(&names), "192.0.2.2/32");
        let many: Vec<IpAddr> = (0..500u32)
            .map(|n| std::net::Ipv4Addr::from(n).into())
            .collect();
        names.answer("office", Ok(many), at(2));
        assert_eq!(names.kept()["office"].len(), MOST_ADDRESSES);
        assert!(!names.answer("other", Ok(addrs("192.0.2.9")), at(2)));
        names.want(&BTreeSet::new());
        assert_eq!(names.kept().len(), 0);
    }

    #[test]
    fn what_an_earlier_engine_knew_counts_until_there_is_an_answer() {
        let mut names = Names::default();
        names.restore([("office".into(), addrs("192.0.2.1"))].into(), at(0));
        names.want(&["office".to_owned()].into());
        assert_eq!(ignored(&names), "192.0.2.1/32");
        names.answer("office", Err("no answer".into()), at(0));
        assert_eq!(ignored(&names), "192.0.2.1/32");
        names.answer("office", Ok(addrs("192.0.2.7")), at(2));
        assert_eq!(ignored(&names), "192.0.2.7/32");
    }
}
