//! A bounded map that forgets the least recently used first.
//!
//! All entries are in one slab, linked from the newest to the oldest; the table holds their numbers.
//! So a million clients need little more memory than their entries.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    newer: u32,
    older: u32,
    value: V,
}

#[derive(Debug)]
pub(super) struct Recent<K, V> {
    slots: Vec<Slot<K, V>>,
    numbers: HashTable<u32>,
    newest: u32,
    oldest: u32,
    // Clients choose the keys.
    hasher: RandomState,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(super) fn new() -> Recent<K, V> {
        Recent {
            slots: Vec::new(),
            numbers: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let number = self.number(key)?;
        self.slot(number).map(|slot| &slot.value)
    }

    /// From the newest to the oldest.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let first = self.slot(self.newest);
        std::iter::successors(first, |slot| self.slot(slot.older))
            .map(|slot| (&slot.key, &slot.value))
    }

    /// Inserts or replaces an entry, which becomes the newest.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        let number = u32::try_from(self.slots.len()).unwrap_or(NONE);
        if number == NONE {
            return;
        }
        self.slots.push(Slot {
            key,
            newer: NONE,
            older: NONE,
            value,
        });
        self.link_as_newest(number);
        let Recent {
            slots,
            numbers,
            hasher,
            ..
        } = self;
        numbers.insert_unique(hasher.hash_one(key), number, |number| {
            let slot = slots.get(*number as usize);
            slot.map_or(0, |slot| hasher.hash_one(slot.key))
        });
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let number = self.number(key)?;
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.numbers.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.unlink(number);
        let gone = self.slots.swap_remove(number as usize);
        // The last slot has taken its place.
        let moved = u32::try_from(self.slots.len()).unwrap_or(NONE);
        if let Some(slot) = self.slot(number) {
            let (hash, newer, older) = (self.hasher.hash_one(slot.key), slot.newer, slot.older);
            if let Some(known) = self.numbers.find_mut(hash, |other| *other == moved) {
                *known = number;
            }
            self.point(newer, older, number);
        }
        Some(gone.value)
    }

    pub(super) fn remove_oldest(&mut self) -> Option<(K, V)> {
        let key = self.slot(self.oldest)?.key;
        self.remove(&key).map(|value| (key, value))
    }

    /// Drops those for which `keep` says no; the order stays.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            if !keep(&slot.key, &mut slot.value) {
                gone.push(slot.key);
            }
        }
        for key in &gone {
            self.remove(key);
        }
        // After a flood its memory goes back.
        if self.slots.capacity() > 1_024 && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to_fit();
            let Recent {
                slots,
                numbers,
                hasher,
                ..
            } = self;
            numbers.shrink_to_fit(|number| {
                let slot = slots.get(*number as usize);
                slot.map_or(0, |slot| hasher.hash_one(slot.key))
            });
        }
    }

    fn number(&self, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |number: &u32| self.slot(*number).is_some_and(|slot| slot.key == *key);
        self.numbers.find(hash, same).copied()
    }

    fn slot(&self, number: u32) -> Option<&Slot<K, V>> {
        self.slots.get(number as usize)
    }

    fn link_as_newest(&mut self, number: u32) {
        let before = self.newest;
        if let Some(slot) = self.slots.get_mut(number as usize) {
            slot.newer = NONE;
            slot.older = before;
        }
        self.point(NONE, before, number);
    }

    fn unlink(&mut self, number: u32) {
        let Some((newer, older)) = self.slot(number).map(|slot| (slot.newer, slot.older)) else {
            return;
        };
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Has both neighbours (or the ends) know `number`.
    fn point(&mut self, newer: u32, older: u32, number: u32) {
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = number,
            None => self.newest = number,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = number,
            None => self.oldest = number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A plain list, newest first, agrees after every step.
        #[test]
        fn equals_a_list(steps in prop::collection::vec((0u8..8, 0u8..24, 0u32..100), 0..200)) {
            let mut recent = Recent::new();
            let mut list: Vec<(u8, u32)> = Vec::new();
            for (step, key, value) in steps {
                match step {
                    0 => {
                        let known = list.iter().position(|(k, _)| *k == key);
                        prop_assert_eq!(recent.remove(&key), known.map(|at| list.remove(at).1));
                    }
                    1 => prop_assert_eq!(recent.remove_oldest(), list.pop()),
                    2 => {
                        recent.retain(|k, v| { *v += 1; k % 3 != key % 3 });
                        list.retain_mut(|(k, v)| { *v += 1; *k % 3 != key % 3 });
                    }
                    _ => {
                        recent.insert(key, value);
                        list.retain(|(k, _)| *k != key);
                        list.insert(0, (key, value));
                    }
                }
                let kept: Vec<(u8, u32)> = recent.iter().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(&kept, &list);
                prop_assert_eq!(recent.len(), list.len());
                for (key, value) in &list {
                    prop_assert_eq!(recent.get(key), Some(value));
                }
            }
        }
    }
}
