//! How far each stream of hits is decided and committed.

use std::collections::HashMap;

use crate::jail::{Moment, Now};
use crate::store::MAX_STREAMS;

#[derive(Debug, Default)]
struct Stream {
    decided: Option<u64>,
    committed: Option<u64>,
    used: Moment,
}

/// At most [`MAX_STREAMS`]; the one unused for longest is forgotten.
#[derive(Debug, Default)]
pub(super) struct Streams {
    known: HashMap<u64, Stream>,
}

impl Streams {
    /// What an earlier engine committed.
    pub(super) fn restore(&mut self, stream: u64, offset: u64, now: Now) {
        let known = self.entry(stream, now);
        known.decided = known.decided.max(Some(offset));
        known.committed = known.committed.max(Some(offset));
    }

    pub(super) fn decided(&self, stream: u64) -> Option<u64> {
        self.known.get(&stream)?.decided
    }

    pub(super) fn committed(&self, stream: u64) -> Option<u64> {
        self.known.get(&stream)?.committed
    }

    pub(super) fn decide(&mut self, stream: u64, offset: u64, now: Now) {
        self.entry(stream, now).decided = Some(offset);
    }

    pub(super) fn commit(&mut self, stream: u64, offset: u64) {
        if let Some(known) = self.known.get_mut(&stream) {
            known.committed = known.committed.max(Some(offset));
        }
    }

    /// A worker connects when its stream has so many bytes. Larger offsets are an invention of an
    /// earlier one, and would hide every hit of this one.
    pub(super) fn limit(&mut self, stream: u64, bytes: Option<u64>) {
        if let Some((known, bytes)) = self.known.get_mut(&stream).zip(bytes) {
            for offset in [&mut known.decided, &mut known.committed] {
                *offset = offset.filter(|offset| *offset < bytes);
            }
        }
    }

    /// All that are decided about, with their offsets.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let known = self.known.iter();
        known.filter_map(|(stream, known)| Some((*stream, known.decided?)))
    }

    fn entry(&mut self, stream: u64, now: Now) -> &mut Stream {
        if self.known.len() >= MAX_STREAMS && !self.known.contains_key(&stream) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(stream, _)| *stream) {
                self.known.remove(&oldest);
            }
        }
        let entry = self.known.entry(stream).or_default();
        entry.used = now.boot;
        entry
    }
}
