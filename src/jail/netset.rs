//! A set of networks that finds an overlap in logarithmic time.

use std::sync::Arc;

use ipnet::IpNet;

use super::network::{canonical, overlap};

/// A set of networks; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSet {
    /// Sorted by first address; none lies in another.
    nets: Arc<[IpNet]>,
}

impl Default for NetSet {
    fn default() -> NetSet {
        NetSet::new([])
    }
}

impl NetSet {
    /// Masks and unmaps the networks, and drops those that lie in another.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> NetSet {
        let mut all: Vec<IpNet> = nets.into_iter().map(canonical).collect();
        // A wide one before those in it.
        all.sort_unstable_by_key(|net| (net.network(), net.prefix_len()));
        let mut kept: Vec<IpNet> = Vec::with_capacity(all.len());
        for net in all {
            if kept.last().is_none_or(|wide| !wide.contains(&net)) {
                kept.push(net);
            }
        }
        NetSet { nets: kept.into() }
    }

    /// An entry that has an address in common with `net`.
    pub fn overlapping(&self, net: &IpNet) -> Option<IpNet> {
        // As none lies in another, it can only be the last that begins before the end of `net`.
        let last = net.broadcast();
        let after = self.nets.partition_point(|entry| entry.network() <= last);
        let entry = self.nets.get(after.checked_sub(1)?)?;
        overlap(entry, net).then_some(*entry)
    }

    /// All networks, sorted by first address.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.nets.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        // Few different bits, so that many lie in each other.
        (any::<bool>(), 0u8..4, 0u8..4, 0usize..5).prop_map(|(v6, a, b, prefix)| {
            let text = if v6 {
                format!("2001:db8:{a}::{b}/{}", [0, 32, 48, 64, 128][prefix])
            } else {
                format!("192.0.{a}.{b}/{}", [0, 16, 24, 31, 32][prefix])
            };
            canonical(text.parse().unwrap())
        })
    }

    proptest! {
        #[test]
        fn equals_comparing_each(nets in prop::collection::vec(net(), 0..12), other in net()) {
            let set = NetSet::new(nets.clone());
            let found = set.overlapping(&other);
            prop_assert_eq!(found.is_some(), nets.iter().any(|net| overlap(net, &other)));
            if let Some(entry) = found {
                prop_assert!(nets.contains(&entry) && overlap(&entry, &other));
            }
        }
    }
}
