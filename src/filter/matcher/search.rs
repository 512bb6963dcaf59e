//! One search for the literals of all patterns, in texts in lower case.

use aho_corasick::packed::{self, Searcher};

use crate::filter::grams::Grams;
use crate::filter::rarity::rarest;

/// Texts that one pass of SIMD instructions searches for.
const GROUP: usize = 16;
/// More passes are slower than [`Grams`].
const MOST_GROUPS: usize = 10;

/// Finds in which places a pattern may match. In place of each literal its rarest part is searched
/// for.
#[derive(Debug)]
pub(super) struct Search {
    engine: Engine,
    /// For each text that is searched for, the patterns that need it.
    owners: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Engine {
    /// Groups in the order of the texts. No text begins with another one.
    Groups(Vec<Searcher>),
    /// Many texts, or a processor without such instructions.
    Grams(Box<Grams>),
}

impl Search {
    /// `literals`: each in lower case with its pattern.
    pub(super) fn new(literals: Vec<(&[u8], usize)>) -> Search {
        let parts = literals.into_iter();
        let mut parts: Vec<_> = parts.map(|(text, owner)| (rarest(text).0, owner)).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut texts: Vec<(&[u8], Vec<usize>)> = Vec::new();
        for (part, owner) in parts {
            match texts.last_mut() {
                Some((text, owners)) if part.starts_with(text) => owners.push(owner),
                _ => texts.push((part, vec![owner])),
            }
        }
        // A group is as fast as its shortest text permits.
        texts.sort_by_key(|(text, _)| text.len());
        let (texts, owners): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        let groups = || -> Option<Vec<Searcher>> {
            let few = texts.len() <= GROUP * MOST_GROUPS;
            let mut groups = texts.chunks(GROUP).filter(|_| few).peekable();
            groups.peek()?;
            groups
                .map(|group| packed::Builder::new().extend(group).build())
                .collect()
        };
        let all = || texts.iter().map(|text| text.to_vec()).collect();
        let engine = groups().map(Engine::Groups);
        Search {
            engine: engine.unwrap_or_else(|| Engine::Grams(Box::new(Grams::new(all())))),
            owners,
        }
    }

    /// Calls `found` with the place of each text in `lower`, and the patterns that need it. Places
    /// are in order for one text only.
    pub(super) fn each(&self, lower: &[u8], mut found: impl FnMut(usize, &[usize])) {
        let owners = |text: usize| self.owners.get(text).map_or(&[][..], Vec::as_slice);
        match &self.engine {
            Engine::Groups(groups) => {
                for (group, first) in groups.iter().zip((0..).step_by(GROUP)) {
                    let mut from = 0;
                    while let Some(text) = group.find_in(lower, (from..lower.len()).into()) {
                        found(text.start(), owners(first + text.pattern().as_usize()));
                        // Another text may begin within this one.
                        from = text.start() + 1;
                    }
                }
            }
            Engine::Grams(grams) => grams.each(lower, |at, text| found(at, owners(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_place_of_each_text_is_found(
            texts in prop::collection::vec("[ab/]{3,9}", 0..200),
            line in "[ab/c]{0,200}",
        ) {
            let literals = texts.iter().map(String::as_bytes).zip(0..).collect();
            let search = Search::new(literals);
            let mut found = vec![false; texts.len()];
            search.each(line.as_bytes(), |_, owners| owners.iter().for_each(|at| found[*at] = true));
            for (text, found) in texts.iter().zip(found) {
                prop_assert!(found || !line.contains(text.as_str()), "{text} in {line}");
            }
        }
    }
}
