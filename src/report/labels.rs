//! Names of jails and classes as numbers, so that a million clients are small.

use hashbrown::HashMap;

/// Number of a name.
pub(super) type Label = u16;

/// Names in the order in which they were seen, each with a count.
#[derive(Debug, Default)]
pub(super) struct Labels {
    names: Vec<(String, u64)>,
    index: HashMap<String, Label>,
}

impl Labels {
    /// The number of a name; names beyond 65535 share the last number.
    pub(super) fn of(&mut self, name: &str) -> Label {
        if let Some(label) = self.index.get(name) {
            return *label;
        }
        let label = Label::try_from(self.names.len()).unwrap_or(Label::MAX);
        if self.names.len() <= usize::from(Label::MAX) {
            self.names.push((name.to_owned(), 0));
            self.index.insert(name.to_owned(), label);
        }
        label
    }

    pub(super) fn count(&mut self, label: Label) {
        if let Some((_, count)) = self.names.get_mut(usize::from(label)) {
            *count += 1;
        }
    }

    pub(super) fn name(&self, label: Label) -> &str {
        let found = self.names.get(usize::from(label));
        found.map_or("", |(name, _)| name)
    }

    /// Names and counts, the largest count first.
    pub(super) fn counted(&self) -> Vec<(&str, u64)> {
        let named = self
            .names
            .iter()
            .map(|(name, count)| (name.as_str(), *count));
        let mut counted: Vec<_> = named.filter(|(_, count)| *count > 0).collect();
        counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counted
    }

    /// Numbers of all names, in the order of [`Labels::counted`].
    pub(super) fn by_count(&self) -> Vec<Label> {
        let counted = self.counted().into_iter();
        let labels = counted.filter_map(|(name, _)| self.index.get(name).copied());
        labels.collect()
    }
}

/// Number of a set of labels; 0 is the empty one.
pub(super) type Set = u32;

/// Every set of labels that occurs, once.
#[derive(Debug)]
pub(super) struct Sets {
    sets: Vec<Vec<Label>>,
    index: HashMap<Vec<Label>, Set>,
    with: HashMap<(Set, Label), Set>,
}

impl Default for Sets {
    fn default() -> Sets {
        Sets {
            sets: vec![Vec::new()],
            index: HashMap::from([(Vec::new(), 0)]),
            with: HashMap::new(),
        }
    }
}

impl Sets {
    /// The set with one more label.
    pub(super) fn with(&mut self, set: Set, label: Label) -> Set {
        if let Some(known) = self.with.get(&(set, label)) {
            return *known;
        }
        let mut labels = self.labels(set).to_vec();
        if let Err(place) = labels.binary_search(&label) {
            labels.insert(place, label);
        }
        let next = Set::try_from(self.sets.len()).unwrap_or(Set::MAX);
        let found = *self.index.entry(labels.clone()).or_insert(next);
        if found == next {
            self.sets.push(labels);
        }
        self.with.insert((set, label), found);
        found
    }

    pub(super) fn labels(&self, set: Set) -> &[Label] {
        let found = usize::try_from(set).ok().and_then(|set| self.sets.get(set));
        found.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_one_number_whatever_the_order() {
        let mut sets = Sets::default();
        let (a, b) = (sets.with(0, 1), sets.with(0, 2));
        let both = sets.with(a, 2);
        assert_eq!(both, sets.with(b, 1));
        assert_eq!(both, sets.with(both, 1));
        assert_eq!(sets.labels(both), [1, 2]);
        assert!(sets.labels(0).is_empty());
    }

    #[test]
    fn names_are_ordered_by_their_count() {
        let mut labels = Labels::default();
        for name in ["b", "a", "c", "a", "c", "a"] {
            let label = labels.of(name);
            labels.count(label);
        }
        labels.of("never counted");
        assert_eq!(labels.counted(), [("a", 3), ("c", 2), ("b", 1)]);
        assert_eq!(labels.by_count(), [1, 2, 0]);
        assert_eq!(labels.name(2), "c");
    }
}
